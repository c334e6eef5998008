package dev.mobilebilayer.core

import java.util.PriorityQueue
import java.util.concurrent.atomic.AtomicInteger
import java.util.concurrent.atomic.AtomicReference
import kotlin.concurrent.thread
import kotlin.math.abs
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import kotlin.test.assertSame
import kotlin.test.assertTrue

private const val MS = 1_000_000L
private const val S = 1_000_000_000L

/**
 * A phone in front of the recorded driver, with a clock of its own: camera, landmarks and display run while the network computes,
 * as they do in their threads.
 */
private class Phone(val fps: Int, val landmarksMs: Long, networkMs: Long, slowMs: Long) {
    class Shown(val atNs: Long, val capturedNs: Long, val lost: Boolean, val points: FloatArray)

    private class Event(val atNs: Long, val order: Int, val act: () -> Unit)

    private val events = PriorityQueue(compareBy<Event>({ it.atNs }, { it.order }))
    private var order = 0
    private var waiting: Long? = null // a camera frame, by its time: the latest wins here as well
    private var landmarksBusy = false
    private var latestPoints = FloatArray(0)
    private val pointsOf = HashMap<Long, FloatArray>()
    private var seenNs = 0L

    private val program = object : Program {
        var calls = 0

        override fun execute(method: String, inputs: Array<Tensor>, outputs: Array<Tensor>) {
            calls++
            latestPoints = inputs[3].floats.copyOf()
            advance(nowNs + if (calls % 40 == 0) slowMs * MS else networkMs * MS)
        }

        override fun close() = Unit
    }

    val pipeline = LivePipeline(goldenAvatar(), shipped.network(program))
    val periodNs = S / fps
    var nowNs = 0L
    var captured = 0
    var seen = 0
    val latenciesNs = ArrayList<Pair<Boolean, Long>>() // whether the network was slow, and from capture to layers
    val shown = ArrayList<Shown>()

    /** What lies before the camera at a time: 478 x 3 in pixels, or null. */
    var scene: (Long) -> FloatArray? = { atNs -> driver.landmarks[(atNs / (40 * MS)).toInt() % driver.landmarks.size] }
    var cameraRuns = true

    fun at(atNs: Long, act: () -> Unit) {
        events += Event(atNs, order++, act)
    }

    fun run(untilNs: Long) {
        at(0) { camera() }
        at(1) { display() }
        while (nowNs < untilNs) {
            advance(events.peek().atNs)
            while (nowNs < untilNs && step()) continue
        }
    }

    private fun step(): Boolean {
        val slow = (program.calls + 1) % 40 == 0
        val latestNs = seenNs
        if (!pipeline.step()) return false
        assertEquals(latestNs, pipeline.drawnNs, "an older frame was drawn than the latest")
        latenciesNs += slow to nowNs - pipeline.drawnNs
        pointsOf[pipeline.drawnNs] = latestPoints
        return true
    }

    private fun advance(untilNs: Long) {
        while (events.isNotEmpty() && events.peek().atNs <= untilNs) {
            val event = events.poll()
            nowNs = event.atNs
            event.act()
        }
        nowNs = untilNs
    }

    private fun camera() {
        if (cameraRuns) {
            captured++
            waiting = nowNs
            landmarks()
        }
        at(nowNs + periodNs) { camera() }
    }

    private fun landmarks() {
        val capturedNs = waiting
        if (landmarksBusy || capturedNs == null) return
        waiting = null
        landmarksBusy = true
        at(nowNs + landmarksMs * MS) {
            landmarksBusy = false
            seen++
            pipeline.see(scene(capturedNs), capturedNs)
            seenNs = capturedNs
            landmarks()
        }
    }

    private fun display() {
        pipeline.show()?.let { shown += Shown(nowNs, it.capturedNs, it.lost, pointsOf.getValue(it.capturedNs)) }
        at(nowNs + S / 60) { display() }
    }
}

class LiveTest {
    private val source = networkPoints(atRest)

    /** How far points lie from those of the photo with shut lips, on average; mouth and eyes move most, the torso never. */
    private fun fromPhoto(points: FloatArray) = points.indices.sumOf { abs(points[it] - source[it]).toDouble() } / points.size

    private fun Phone.checkOrder() {
        assertTrue(shown.zipWithNext().all { (a, b) -> b.capturedNs > a.capturedNs }, "a frame came twice, or late")
        // Whatever was seen is accounted for: shown, overtaken, refused, or still in one of two slots and two hands.
        val left = seen - (shown.size + pipeline.dropped.toInt() + pipeline.refused.toInt())
        assertTrue(left in 0..4, "$left frames of $seen are nowhere")
    }

    private fun rates() = listOf(Phone(30, 12, 14, 90), Phone(60, 6, 6, 45))

    @Test
    fun `a live run at 30 and 60 frames a second is late by less than two frames, but for slow ones`() {
        for (phone in rates()) {
            phone.run(8 * S)
            phone.checkOrder()
            val (slow, usual) = phone.latenciesNs.partition { it.first }
            assertTrue(slow.size > 4 && usual.size > 200)
            assertTrue(usual.maxOf { it.second } < 2 * phone.periodNs, "${phone.fps}: ${usual.maxOf { it.second } / MS} ms")
            assertTrue(slow.all { it.second > 2 * phone.periodNs }) // so that the test would see it
            assertTrue(phone.pipeline.dropped > 0)
            // Behind a slow frame comes the newest one: what was overtaken is never shown.
            assertTrue(phone.shown.size > 8 * phone.fps * 0.85, "${phone.shown.size} frames shown of ${phone.captured}")
        }
    }

    @Test
    fun `a network that is always too slow drops frames and does not fall behind`() {
        val phone = Phone(60, 5, 40, 40)
        phone.run(10 * S)
        phone.checkOrder()
        val latest = phone.latenciesNs.takeLast(50).maxOf { it.second }
        assertTrue(latest < 40 * MS + 2 * phone.periodNs, "${latest / MS} ms") // its own time, and a frame's wait
        assertTrue(phone.shown.size > 200)
        assertTrue(phone.pipeline.dropped > 300)
    }

    @Test
    fun `a lost face is held, then eased to neutral, and comes back at once`() {
        for (phone in rates()) {
            val whole = phone.scene
            phone.scene = { if (it in 2 * S..4 * S) null else whole(it) }
            phone.run(5 * S)
            phone.checkOrder()
            val before = phone.shown.last { it.capturedNs < 2 * S }
            val lost = phone.shown.filter { it.lost }
            assertTrue(lost.all { it.capturedNs in 2 * S..4 * S } && lost.size > 1.7 * phone.fps)
            for (frame in lost) {
                val lostS = (frame.capturedNs - before.capturedNs) / 1e9
                val moved = frame.points.indices.maxOf { abs(frame.points[it] - before.points[it]) }
                if (lostS <= HOLD_S) assertTrue(moved < 1e-5, "held at $lostS s")
                if (lostS >= HOLD_S + EASE_S) assertTrue(fromPhoto(frame.points) < 2e-3, "neutral at $lostS s: ${fromPhoto(frame.points)}")
            }
            assertTrue(fromPhoto(before.points) > 4e-3) // so that the test would see it
            assertTrue(phone.shown.first { it.capturedNs > 4 * S }.let { !it.lost && it.capturedNs < 4 * S + 3 * phone.periodNs })
        }
    }

    @Test
    fun `without a face yet nothing is shown`() {
        val phone = Phone(30, 12, 14, 14)
        phone.scene = { null }
        phone.run(S)
        assertEquals(0, phone.shown.size)
        assertFalse(phone.captured == 0)
    }

    @Test
    fun `IO3 after a pause no frame from before it is shown, and the neutral is kept`() {
        for (phone in rates()) {
            phone.at(2 * S) { phone.pipeline.pause() }
            phone.at(3 * S) { phone.pipeline.resume(3 * S) }
            phone.run(4 * S)
            phone.checkOrder()
            assertTrue(phone.shown.none { it.atNs in 2 * S..3 * S || it.capturedNs in 2 * S until 3 * S })
            assertTrue(phone.shown.first { it.atNs > 3 * S }.capturedNs >= 3 * S)
            assertTrue(phone.pipeline.refused > 0)
            assertTrue(fromPhoto(phone.shown.first { it.atNs > 3 * S }.points) > 2e-3) // not neutral anew
        }
    }

    @Test
    fun `AN5 after a rotation what is neutral is found anew and no frame of the old picture is shown`() {
        for (phone in rates()) {
            val whole = phone.scene
            // The upright picture is another one now: the face lies elsewhere and is smaller.
            phone.scene = { atNs ->
                val points = whole(atNs)!!
                if (atNs < 2 * S) points else FloatArray(points.size) { if (it % 3 == 2) points[it] else 0.7f * points[it] + 150 }
            }
            phone.at(2 * S) { phone.pipeline.restart(2 * S) }
            phone.run(3 * S)
            phone.checkOrder()
            val after = phone.shown.filter { it.atNs > 2 * S }
            assertTrue(after.all { it.capturedNs >= 2 * S })
            assertTrue(fromPhoto(after.first().points) < 2e-3, "${fromPhoto(after.first().points)}") // as in the photo
            assertTrue(after.all { fromPhoto(it.points) < 0.1 }) // no jump by what the picture was moved
        }
    }

    @Test
    fun `a whole run with slow frames, a lost face, a rotation and a pause has no queue, no stale frame and is never late`() {
        for (phone in rates()) {
            val whole = phone.scene
            phone.scene = { atNs ->
                val points = whole(atNs)!!
                when (atNs) {
                    in 2 * S..3 * S -> null
                    in 0..4 * S -> points
                    else -> FloatArray(points.size) { if (it % 3 == 2) points[it] else 0.8f * points[it] + 100 }
                }
            }
            phone.at(4 * S) { phone.pipeline.restart(4 * S) }
            phone.at(5 * S) { phone.pipeline.pause() }
            phone.at(6 * S) { phone.pipeline.resume(6 * S) }
            phone.run(8 * S)
            phone.checkOrder() // and so no more than four frames were under way at the end
            val (slow, usual) = phone.latenciesNs.partition { it.first }
            assertTrue(slow.size > 3 && usual.maxOf { it.second } < 2 * phone.periodNs, "${usual.maxOf { it.second } / MS} ms")
            for (frame in phone.shown) {
                val sinceNs = listOf(0L, 4 * S, 6 * S).last { it <= frame.atNs }
                val isStale = frame.capturedNs < sinceNs || frame.atNs in 5 * S..6 * S
                assertFalse(isStale, "of ${frame.capturedNs / MS} at ${frame.atNs / MS} ms")
            }
            // Each part was lived through, to its end.
            for (second in listOf(1, 2, 3, 4, 6, 7)) {
                val inIt = phone.shown.count { it.atNs in second * S until (second + 1) * S }
                assertTrue(inIt > 0.7 * phone.fps, "$inIt frames in second $second")
            }
            val lost = phone.shown.filter { it.lost }
            assertTrue(lost.all { it.capturedNs in 2 * S..3 * S } && lost.size > 0.7 * phone.fps)
        }
    }

    @Test
    fun `a rotation in a pause does not end it, and what is neutral is found anew behind it`() {
        val phone = Phone(30, 12, 14, 14)
        val whole = phone.scene
        phone.scene = { atNs -> whole(atNs)?.let { points -> if (atNs < 3 * S) points else FloatArray(points.size) { points[it] + 150 } } }
        phone.at(2 * S) { phone.pipeline.pause() }
        phone.at(2 * S + S / 2) { phone.pipeline.restart(2 * S + S / 2) }
        phone.at(3 * S) { phone.pipeline.resume(3 * S) }
        phone.run(4 * S)
        phone.checkOrder()
        val after = phone.shown.filter { it.atNs > 2 * S }
        assertTrue(after.all { it.capturedNs >= 3 * S } && fromPhoto(after.first().points) < 2e-3)
    }

    @Test
    fun `frames out of order and from before a pause are refused`() {
        val clock = FrameClock()
        assertTrue(clock.admit(10 * S))
        assertFalse(clock.admit(10 * S))
        assertFalse(clock.admit(9 * S))
        assertTrue(clock.admit(11 * S))
        assertEquals(1.0, clock.seconds(11 * S))
        clock.pause()
        assertFalse(clock.admit(12 * S) || clock.isCurrent(11 * S))
        clock.resume(20 * S)
        assertFalse(clock.admit(19 * S))
        assertTrue(clock.admit(20 * S))
        assertEquals(4, clock.refused)
        clock.restart(30 * S)
        assertFalse(clock.isCurrent(20 * S) || clock.admit(29 * S))
        assertTrue(clock.admit(30 * S))
        clock.pause()
        clock.restart(40 * S)
        assertTrue(clock.paused)
    }

    @Test
    fun `the latest frame wins and none is seen twice or while it is written`() {
        val slot = LatestFrame(IntArray(1000), IntArray(1000), IntArray(1000))
        assertNull(slot.take())
        val torn = AtomicInteger()
        val last = AtomicInteger()
        val reader = thread(isDaemon = true) {
            while (last.get() < 20_000) {
                val frame = slot.await(S) ?: continue
                if (frame.any { it != frame[0] } || frame[0] <= last.get()) torn.incrementAndGet()
                last.set(frame[0])
            }
        }
        for (i in 1..20_000) {
            slot.writing.fill(i)
            slot.publish()
        }
        reader.join(20_000)
        assertFalse(reader.isAlive)
        assertEquals(0, torn.get())
        slot.publish()
        val taken = slot.take()
        slot.publish()
        assertTrue(taken !== slot.writing)
    }

    @Test
    fun `waiting for a frame ends when none comes`() {
        val slot = LatestFrame(IntArray(1), IntArray(1), IntArray(1))
        assertNull(slot.await(5 * MS))
        val mine = slot.writing
        slot.publish()
        assertSame(mine, slot.await(5 * MS))
    }

    @Test
    fun `AN1 live mode stops while a frame is in the network, and starts a second time`() {
        repeat(2) {
            val inside = AtomicInteger()
            val wrong = AtomicReference<Throwable>()
            val program = object : Program {
                @Volatile
                var closed = false

                override fun execute(method: String, inputs: Array<Tensor>, outputs: Array<Tensor>) {
                    check(!closed && inside.incrementAndGet() == 1)
                    Thread.sleep(3)
                    inside.decrementAndGet()
                    check(!closed)
                }

                override fun close() {
                    check(inside.get() == 0)
                    closed = true
                }
            }
            val pipeline = LivePipeline(goldenAvatar(), shipped.network(program))
            var running = true
            var drawn = 0
            val threads = listOf<() -> Unit>(
                { var i = 0; while (running) { pipeline.see(driver.landmarks[i++ % 198], System.nanoTime()); Thread.sleep(1) } },
                { while (running) pipeline.step(10 * MS) },
                { while (running) { if (pipeline.show() != null) drawn++; Thread.sleep(1) } },
            ).map { loop -> thread(isDaemon = true) { runCatching(loop).onFailure(wrong::set) } }
            Thread.sleep(150)
            pipeline.restart()
            Thread.sleep(50)
            waitUntil("a frame is in the network") { inside.get() > 0 }
            pipeline.close()
            assertTrue(program.closed)
            running = false
            threads.forEach { it.join(5000) }
            assertNull(wrong.get())
            assertTrue(drawn > 3, "$drawn")
            assertFalse(pipeline.step())
            assertNull(pipeline.show())
            pipeline.close()
        }
    }

    @Test
    fun `landmarks that are none are refused before they are kept`() {
        val pipeline = LivePipeline(goldenAvatar(), shipped.network(GoldenProgram()))
        assertTrue("not a number" in refusal { pipeline.see(FloatArray(3 * 478) { Float.NaN }, 1) })
        assertTrue("468" in refusal { pipeline.see(FloatArray(3 * 468), 1) })
        assertTrue("3 are needed" in refusal { pipeline.see(FloatArray(2 * 478) { it.toFloat() }, 1) })
        assertFalse(pipeline.step())
    }
}
