package dev.mobilebilayer.core

import kotlin.math.abs
import kotlin.random.Random
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertTrue
import kotlin.test.fail

class CompositorTest {
    private fun noise(sidePx: Int, seed: Int = 0): FloatArray {
        val random = Random(seed)
        return FloatArray(3 * sidePx * sidePx) { 2 * random.nextFloat() - 1 }
    }

    /** Planes of one value each. */
    private fun planes(sidePx: Int, vararg values: Float) = FloatArray(values.size * sidePx * sidePx) { values[it / (sidePx * sidePx)] }

    @Test
    fun `the golden layers give the golden picture`() {
        val golden = shipped.golden()
        val got = golden.composed(golden.numbers("layers_a"), golden.numbers("layers_b"))
        assertNear(golden.numbers("composed").doubles(), got.doubles(), golden.tolerances.getValue("composed_from_golden"), "pixel")
    }

    @Test
    fun `zero flow leaves a checkerboard exactly unchanged`() {
        val board = FloatArray(3 * 64 * 64) { if ((it / 3 % 64 + it / 3 / 64) % 2 == 0) -1f else 1f }
        val got = Compositor(64, 16, 32).composite(board, FloatArray(board.size), planes(16, 0f, 0f, 1f, 1f), planes(32, 0f, 0f, 0f))
        assertContentEquals(board, got)
    }

    @Test
    fun `a flow of whole pixels shifts the texture and repeats its border`() {
        val side = 64
        val texture = noise(side)
        for ((right, down) in listOf(1 to 0, 0 to 1, -3 to 5, 17 to -40)) {
            // A pixel is 2 / side of [-1, 1]. The flow says where to read.
            val layers = planes(32, right * 2f / side, down * 2f / side, 1f, 1f)
            val got = Compositor(side, 32, 32).composite(texture, FloatArray(texture.size), layers, planes(32, 0f, 0f, 0f))
            for (i in got.indices) {
                val x = (i / 3 % side + right).coerceIn(0, side - 1)
                val y = (i / 3 / side + down).coerceIn(0, side - 1)
                if (abs(got[i] - texture[3 * (y * side + x) + i % 3]) >= 1e-4) fail("$right $down: pixel $i")
            }
        }
    }

    @Test
    fun `half a pixel of flow is the mean of two neighbours`() {
        val side = 64
        val texture = noise(side)
        val layers = planes(64, 1f / side, 0f, 1f, 1f)
        val got = Compositor(side, 64, 32).composite(texture, FloatArray(texture.size), layers, planes(32, 0f, 0f, 0f))
        for (i in got.indices) {
            if (i / 3 % side < side - 1) assertTrue(abs(got[i] - (texture[i] + texture[i + 3]) / 2) < 1e-4)
        }
    }

    @Test
    fun `mask zero shows the background and gate zero the low frequencies`() {
        val (texture, background) = noise(64) to noise(64, 1)
        val lf = planes(32, 0.25f, -0.5f, 0.75f)
        val compositor = Compositor(64, 16, 32)
        assertContentEquals(background, compositor.composite(texture, background, planes(16, 0f, 0f, 1f, 0f), lf))
        val got = compositor.composite(texture, background, planes(16, 0f, 0f, 0f, 1f), lf)
        for (i in got.indices) assertTrue(abs(got[i] - floatArrayOf(0.25f, -0.5f, 0.75f)[i % 3]) < 1e-6)
    }

    @Test
    fun `a flow that is no number or far outside reads the texture somewhere`() {
        for (flow in listOf(Float.NaN, Float.POSITIVE_INFINITY, -1e30f)) {
            Compositor(64, 16, 32).composite(noise(64), noise(64, 1), planes(16, flow, flow, 1f, 1f), planes(32, 0f, 0f, 0f))
        }
    }

    @Test
    fun `RU4 values are clamped before they are cast and what is no number is black`() {
        val frame = floatArrayOf(1.7f, 1e9f, Float.POSITIVE_INFINITY, -3f, -1e9f, Float.NEGATIVE_INFINITY, Float.NaN, 1f, -1f)
        assertEquals(listOf(255, 255, 255, 0, 0, 0, 0, 255, 0), toRgb(frame).map { it.toInt() and 255 })
        assertEquals(128, toRgb(floatArrayOf(0f))[0].toInt() and 255) // 127.5
    }

    @Test
    fun `every level comes back from floats as it went`() {
        val levels = ByteArray(256) { it.toByte() }
        val floats = toFloat(levels)
        assertEquals(-1f, floats[0])
        assertEquals(1f, floats[255])
        assertContentEquals(levels, toRgb(floats))
    }
}
