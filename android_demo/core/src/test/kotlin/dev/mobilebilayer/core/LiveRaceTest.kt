package dev.mobilebilayer.core

import java.util.concurrent.Semaphore
import java.util.concurrent.TimeUnit
import java.util.concurrent.atomic.AtomicReference
import kotlin.concurrent.thread
import kotlin.math.abs
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import kotlin.test.assertTrue

private const val S = 1_000_000_000L

/** A network that a frame stays in until it is let go; what the app does meanwhile is done in between. */
private class HeldProgram : Program {
    private val inside = Semaphore(0)
    private val free = Semaphore(0)
    private val result = AtomicReference<Result<Boolean>>()
    lateinit var points: FloatArray
    var failure: Exception? = null

    @Volatile
    var closed = false
    val pipeline = LivePipeline(goldenAvatar(), shipped.network(this))

    override fun execute(method: String, inputs: Array<Tensor>, outputs: Array<Tensor>) {
        points = inputs[3].floats.copyOf()
        inside.release()
        check(free.tryAcquire(10, TimeUnit.SECONDS))
        failure?.let { throw it }
    }

    override fun close() {
        closed = true
    }

    /** What step() says of the frame that waits, which is in the network while [meanwhile] is done. */
    fun step(meanwhile: () -> Unit = {}): Boolean {
        val network = thread(isDaemon = true) { result.set(runCatching { pipeline.step() }) }
        assertTrue(inside.tryAcquire(10, TimeUnit.SECONDS), "no frame came into the network: ${result.get()}")
        meanwhile()
        free.release()
        network.join(10_000)
        return result.get().getOrThrow()
    }

    fun see(frame: Int, capturedNs: Long) = pipeline.see(driver.landmarks[frame], capturedNs)
}

/** What comes while a frame is on its way: no result of before is shown. */
class LiveRaceTest {
    private val source = networkPoints(atRest)

    private fun fromPhoto(points: FloatArray) = points.indices.sumOf { abs(points[it] - source[it]).toDouble() } / points.size

    private fun held(act: HeldProgram.() -> Unit) = HeldProgram().act()

    @Test
    fun `IO3 a frame in the network when the app leaves and comes back is not drawn`() = held {
        see(0, S)
        val drawn = step {
            pipeline.pause()
            pipeline.resume(2 * S)
        }
        assertFalse(drawn)
        assertEquals(Long.MIN_VALUE, pipeline.drawnNs)
        assertNull(pipeline.show())
        see(1, 3 * S)
        assertTrue(step())
        assertEquals(3 * S, pipeline.show()?.capturedNs)
    }

    @Test
    fun `IO3 after a pause the face is where it is now, not held back by where it was`() {
        fun turned(meanwhile: HeldProgram.() -> Unit): Double = HeldProgram().run {
            see(52, S)
            assertTrue(step())
            meanwhile()
            see(78, S + S / 50)
            assertTrue(step())
            fromPhoto(points)
        }
        val after = turned {
            pipeline.pause()
            pipeline.resume(S + S / 100)
        }
        val without = turned {}
        assertTrue(without > 2e-3 && after > 1.05 * without, "$after and $without")
    }

    @Test
    fun `AN5 a frame in the network when the picture turns is not drawn, and is not what is neutral`() = held {
        see(78, S)
        assertFalse(step { pipeline.restart(2 * S) })
        assertNull(pipeline.show())
        see(52, 3 * S)
        assertTrue(step())
        assertTrue(fromPhoto(points) < 2e-3, "${fromPhoto(points)}") // the first frame of the new picture is as in the photo
        assertNotNull(pipeline.show())
    }

    @Test
    fun `IO3 layers that wait for the screen while the app comes back are not shown`() = held {
        see(0, S)
        assertTrue(step())
        pipeline.resume(2 * S)
        assertNull(pipeline.show())
        see(1, 3 * S)
        assertTrue(step())
        pipeline.pause()
        assertNull(pipeline.show())
    }

    @Test
    fun `AN5 layers that wait for the screen while the picture turns are not shown`() = held {
        see(0, S)
        assertTrue(step())
        pipeline.restart(2 * S)
        assertNull(pipeline.show())
    }

    @Test
    fun `AN5 landmarks of before that come late do not stand for the new picture`() = held {
        see(52, S)
        assertTrue(step()) // what is neutral
        see(78, 2 * S)
        pipeline.restart(3 * S)
        see(159, 4 * S)
        pipeline.resume(5 * S) // the frame of 4 s waits, and is from before as well
        assertFalse(pipeline.step())
        see(78, 6 * S)
        assertTrue(step())
        assertTrue(fromPhoto(points) < 2e-3, "${fromPhoto(points)}")
    }

    @Test
    fun `AN1 a frame in the network when live mode is closed is not drawn, and close waits for it`() = held {
        see(0, S)
        lateinit var closing: Thread
        val drawn = step {
            closing = thread(isDaemon = true) { pipeline.close() }
            waitUntil("close waits") { closing.state == Thread.State.WAITING }
            assertFalse(closed)
            pipeline.resume(0) // by whoever did not hear of it
        }
        closing.join(10_000)
        assertTrue(closed)
        assertFalse(drawn)
        assertNull(pipeline.show())
        val begunNs = System.nanoTime()
        assertFalse(pipeline.step(waitNs = 20 * S))
        assertTrue(System.nanoTime() - begunNs < 10 * S)
        see(1, 2 * S)
        assertFalse(pipeline.step())
    }

    @Test
    fun `AN1 layers that wait for the screen when live mode is closed are not shown`() = held {
        see(0, S)
        assertTrue(step())
        pipeline.close()
        assertNull(pipeline.show())
    }
    @Test
    fun `AN1 what the runtime says of a frame is told, but not when live mode was closed meanwhile`() = held {
        failure = IllegalStateException("out of memory")
        see(0, S)
        assertTrue("out of memory" in refusal { step() })
        assertNull(pipeline.show())
        see(1, 2 * S)
        lateinit var closing: Thread
        val drawn = step {
            closing = thread(isDaemon = true) { pipeline.close() }
            waitUntil("close waits") { closing.state == Thread.State.WAITING }
        }
        assertFalse(drawn)
        closing.join(10_000)
        assertTrue(closed)
    }
}
