package dev.mobilebilayer.core

import java.lang.management.ManagementFactory
import java.nio.ByteBuffer
import kotlin.test.Test
import kotlin.test.assertTrue

/** No frame allocates: the JVM counts the bytes. */
class AllocationTest {
    private val bean = ManagementFactory.getThreadMXBean() as com.sun.management.ThreadMXBean
    private val frames = driver.landmarks

    /** Bytes that a frame allocates in this thread, on average of 100 behind 50 that warm up. */
    private fun bytesPerFrame(frame: (Int) -> Unit): Long {
        for (i in 0 until 50) frame(i)
        val id = Thread.currentThread().id
        val before = bean.getThreadAllocatedBytes(id)
        for (i in 50 until 150) frame(i)
        return (bean.getThreadAllocatedBytes(id) - before) / 100
    }

    private fun assertNone(what: String, frame: (Int) -> Unit) {
        val bytes = bytesPerFrame(frame)
        assertTrue(bytes <= 64, "$what allocates $bytes bytes a frame")
    }

    @Test
    fun `the count sees what is allocated`() {
        var kept: FloatArray? = null
        assertTrue(bytesPerFrame { kept = FloatArray(956) } in 3824..4000)
        assertTrue(kept != null)
    }

    @Test
    fun `from landmarks to layers no frame allocates`() {
        val pipeline = LivePipeline(goldenAvatar(), shipped.network(GoldenProgram()))
        var shown = 0
        assertNone("the live pipeline") { i ->
            pipeline.see(if (i % 20 > 12) null else frames[i % frames.size], 1 + i * 70_000_000L) // lost for half a second and more
            pipeline.step()
            if (pipeline.show() != null) shown++
        }
        assertTrue(shown == 150)
    }

    @Test
    fun `a camera frame of the same size allocates nothing`() {
        val chroma = YuvPlane(ByteBuffer.allocateDirect(384 * 72), 384, 2)
        val image = YuvImage(352, 144, YuvPlane(ByteBuffer.allocateDirect(384 * 144), 384, 1), chroma, chroma)
        val converter = YuvConverter()
        val orientation = Orientation(270, 0, Facing.FRONT)
        val out = FloatArray(3 * LANDMARKS)
        assertNone("a conversion") { converter.toRgba(image, orientation.rotation) }
        assertNone("mapping back") { i ->
            inPixels(frames[i], 2, 2, out)
            orientation.toDisplay(out, 3, 352, out)
            orientation.toFrame(out, 3, 144, 352, out)
        }
    }

    @Test
    fun `compositing allocates nothing`() {
        val golden = shipped.golden()
        val (a, b) = golden.numbers("layers_a") to golden.numbers("layers_b")
        val texture = golden.numbers("composite_texture")
        val compositor = Compositor(64, 64, 128)
        val frame = FloatArray(texture.size)
        val rgb = ByteArray(texture.size)
        assertNone("a composite") { toRgb(compositor.composite(texture, texture, a, b, frame), rgb) }
    }

    @Test
    fun `measuring allocates nothing`() {
        val times = StageTimes()
        val rate = FrameRate()
        assertNone("a measurement") { i ->
            times.add(i.toDouble())
            rate.shown(i * 16_000_000L)
        }
    }
}
