package dev.mobilebilayer.core

import java.nio.ByteBuffer
import kotlin.math.abs
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertSame
import kotlin.test.assertTrue
import kotlin.test.fail

private fun noise(seed: Int) = seed * -1640531527 ushr 24

/** Camera frames: YUV_420_888 in, an upright picture out. */
class FramesTest {
    /** A frame as a camera lays it out: luma, and chroma at half the size. */
    private class Camera(
        val width: Int,
        val height: Int,
        val rowStride: Int,
        val pixelStride: Int,
        val lastByteAbsent: Boolean = true,
        pixel: (x: Int, y: Int) -> Int = { x, y -> noise(x * 7919 + y) },
        chroma: (plane: Int, x: Int, y: Int) -> Int = { plane, x, y -> noise((plane + 1) * 104729 + x * 31 + y) },
    ) {
        val l = Array(height) { y -> IntArray(width) { x -> pixel(x, y) } }
        val c = Array(2) { plane -> Array((height + 1) / 2) { y -> IntArray((width + 1) / 2) { x -> chroma(plane, x, y) } } }

        fun image(left: Int = 0, top: Int = 0, right: Int = width, bottom: Int = height): YuvImage {
            val (u, v) = c.map { plane(it, chromaStride, pixelStride) }
            return YuvImage(width, height, plane(l, rowStride, 1), u, v, left, top, right, bottom)
        }

        private val chromaStride = if (pixelStride == 2) rowStride else rowStride / 2

        private fun plane(rows: Array<IntArray>, stride: Int, pixelStride: Int): YuvPlane {
            val last = (rows.size - 1) * stride + (rows.last().size - 1) * pixelStride + 1
            val data = ByteArray(if (lastByteAbsent) last else rows.size * stride) { 99 } // what lies between is no picture
            for (y in rows.indices) for (x in rows[y].indices) data[y * stride + x * pixelStride] = rows[y][x].toByte()
            return YuvPlane(ByteBuffer.wrap(data), stride, pixelStride)
        }

        /** Red, green and blue of a pixel, by the definition of full-range BT.601. */
        fun rgb(x: Int, y: Int): IntArray {
            val (cb, cr) = c.map { it[y / 2][x / 2] - 128 }
            val values = doubleArrayOf(l[y][x] + 1.402 * cr, l[y][x] - 0.344136 * cb - 0.714136 * cr, l[y][x] + 1.772 * cb)
            return IntArray(3) { Math.rint(values[it].coerceIn(0.0, 255.0)).toInt() }
        }
    }

    private fun assertPixel(wanted: IntArray, got: RgbaImage, x: Int, y: Int) {
        val at = 4 * (y * got.width + x)
        for (i in 0..2) if (abs(wanted[i] - (got.pixels[at + i].toInt() and 255)) > 1) fail("pixel $x, $y: channel $i")
        if (got.pixels[at + 3].toInt() != -1) fail("pixel $x, $y is see-through")
    }

    @Test
    fun `AN3 strides and an absent last chroma byte give the reference's colours`() {
        for ((rowStride, pixelStride) in listOf(384 to 2, 352 to 2, 384 to 1)) {
            for (absent in listOf(true, false)) {
                val camera = Camera(352, 288, rowStride, pixelStride, absent)
                val got = YuvConverter().toRgba(camera.image(), 0)
                assertEquals(352 to 288, got.width to got.height)
                for (y in 0 until 288) for (x in 0 until 352) assertPixel(camera.rgb(x, y), got, x, y)
            }
        }
    }

    @Test
    fun `AN3 the crop is cut before it is turned`() {
        val camera = Camera(352, 288, 384, 2)
        for ((left, top) in listOf(16 to 24, 17 to 23, 32 to 48)) { // also such as halve chroma
            for (rotation in listOf(0, 90, 180, 270)) {
                val got = YuvConverter().toRgba(camera.image(left, top, left + 320, top + 240), rotation)
                assertEquals(if (rotation % 180 == 0) 320 to 240 else 240 to 320, got.width to got.height)
                for (y in 0 until 240) {
                    for (x in 0 until 320) {
                        val (toX, toY) = when (rotation) {
                            0 -> x to y
                            90 -> 239 - y to x // clockwise: what was on top is on the right
                            180 -> 319 - x to 239 - y
                            else -> y to 319 - x
                        }
                        assertPixel(camera.rgb(left + x, top + y), got, toX, toY)
                    }
                }
            }
        }
    }

    @Test
    fun `odd sizes have their last column and row`() {
        val camera = Camera(35, 21, 40, 1)
        val got = YuvConverter().toRgba(camera.image(), 0)
        for (y in 0 until 21) for (x in 0 until 35) assertPixel(camera.rgb(x, y), got, x, y)
    }

    @Test
    fun `a buffer is used again while the size stays`() {
        val converter = YuvConverter()
        val camera = Camera(64, 48, 64, 2)
        val first = converter.toRgba(camera.image(), 0)
        assertSame(first, converter.toRgba(camera.image(), 180))
        assertEquals(48 to 64, converter.toRgba(camera.image(), 90).let { it.width to it.height })
    }

    @Test
    fun `planes that are too short, crops outside and odd turns are refused in words`() {
        val camera = Camera(64, 48, 64, 2)
        val image = camera.image()
        fun with(y: YuvPlane = image.y, u: YuvPlane = image.u, left: Int = 0, right: Int = 64) =
            YuvImage(64, 48, y, u, image.v, left, 0, right, 48)
        val converter = YuvConverter()
        assertTrue("Y plane has 64 bytes" in refusal { converter.toRgba(with(y = YuvPlane(ByteBuffer.allocate(64), 64, 1)), 0) })
        assertTrue("U plane" in refusal { converter.toRgba(with(u = YuvPlane(image.u.data, 32, 2)), 0) })
        assertTrue("pixel stride 0" in refusal { converter.toRgba(with(u = YuvPlane(image.u.data, 64, 0)), 0) })
        for ((left, right) in listOf(-1 to 64, 0 to 65, 10 to 10)) {
            assertTrue("crop" in refusal { converter.toRgba(with(left = left, right = right), 0) })
        }
        assertTrue("45 degrees" in refusal { converter.toRgba(image, 45) })
    }

    /**
     * What the sensor reads of a scene, in front of a phone whose display is turned.
     *
     * A display is at 90 degrees when the phone was turned counter-clockwise by as much, seen by who looks at the screen. The camera on
     * the back looks the same way as they do, and sees the scene turn clockwise; the front one looks against them. And the sensor
     * is built in so that its picture is to be turned clockwise by its own orientation.
     */
    private fun frameOf(orientation: Orientation, scene: Array<IntArray>): Camera {
        val turned = if (orientation.facing == Facing.BACK) orientation.displayDegrees else -orientation.displayDegrees
        var rows = scene
        repeat((turned - orientation.sensorDegrees + 720) / 90 % 4) { rows = clockwise(rows) }
        return Camera(rows[0].size, rows.size, rows[0].size + 6, 2, pixel = { x, y -> rows[y][x] }, chroma = { _, _, _ -> 128 })
    }

    private fun clockwise(rows: Array<IntArray>) = Array(rows[0].size) { y -> IntArray(rows.size) { x -> rows[rows.size - 1 - x][y] } }

    @Test
    fun `AN5 in all eight orientations the model sees an upright picture that is not mirrored`() {
        // The person raises their left hand: to the right of a picture that is not mirrored. The sky is bright.
        val scene = Array(60) { y -> IntArray(40) { x -> if (y < 10) 250 else if (x in 30..35 && y in 20..25) 200 else 40 } }
        for (facing in Facing.entries) {
            for (display in listOf(0, 90, 180, 270)) {
                val orientation = Orientation(if (facing == Facing.FRONT) 270 else 90, display, facing)
                val got = YuvConverter().toRgba(frameOf(orientation, scene).image(), orientation.rotation)
                assertEquals(40 to 60, got.width to got.height)
                for (y in 0 until 60) {
                    for (x in 0 until 40) {
                        val level = got.pixels[4 * (y * 40 + x)].toInt() and 255
                        if (level != scene[y][x]) fail("$orientation: pixel $x, $y is $level, ${scene[y][x]} is right")
                    }
                }
            }
        }
    }

    @Test
    fun `AN5 frames are turned as Android's documentation says`() {
        // Portrait, then the top turned to the left (ROTATION_90), upside down, to the right; usual sensors.
        val turns = listOf(0, 90, 180, 270)
        assertEquals(listOf(90, 0, 270, 180), turns.map { Orientation(90, it, Facing.BACK).rotation })
        assertEquals(listOf(270, 0, 90, 180), turns.map { Orientation(270, it, Facing.FRONT).rotation })
    }

    @Test
    fun `normalized landmarks become pixels, depth in the unit of the width`() {
        assertContentEquals(floatArrayOf(32f, 24f, -6.4f, 0f, 48f, 64f), inPixels(floatArrayOf(0.5f, 0.5f, -0.1f, 0f, 1f, 1f), 64, 48))
    }

    @Test
    fun `AN5 only the front camera's display is a mirror, and only the display`() {
        val points = floatArrayOf(32f, 22f, 5f, 10f, 50f, 7f)
        val front = Orientation(270, 0, Facing.FRONT)
        val back = Orientation(90, 0, Facing.BACK)
        assertContentEquals(floatArrayOf(8f, 22f, 5f, 30f, 50f, 7f), front.toDisplay(points, 3, width = 40))
        assertContentEquals(points, back.toDisplay(points, 3, width = 40))
    }

    @Test
    fun `AN5 results are mapped back to the camera's own frame`() {
        for (facing in Facing.entries) {
            for (display in listOf(0, 90, 180, 270)) {
                val orientation = Orientation(if (facing == Facing.FRONT) 270 else 90, display, facing)
                // One bright pixel of the frame, found where it is in the upright picture.
                val turned = orientation.rotation % 180 != 0
                val (frameWidth, frameHeight) = if (turned) 60 to 40 else 40 to 60
                val spot = { x: Int, y: Int -> if (x == 12 && y == 31) 255 else 0 }
                val camera = Camera(frameWidth, frameHeight, 64, 2, pixel = spot, chroma = { _, _, _ -> 128 })
                val upright = YuvConverter().toRgba(camera.image(), orientation.rotation)
                val at = (0 until 40 * 60).first { upright.pixels[4 * it].toInt() == -1 }
                val middle = floatArrayOf(at % 40 + 0.5f, at / 40 + 0.5f)
                assertContentEquals(floatArrayOf(12.5f, 31.5f), orientation.toFrame(middle, 2, 40, 60), "$orientation")
            }
        }
        assertTrue("45" in refusal { Orientation(45, 0, Facing.BACK) })
    }
}
