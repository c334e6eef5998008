package dev.mobilebilayer.core

import java.nio.ByteBuffer

/** One plane of a camera frame: [data] from its beginning, [rowStride] bytes from row to row, [pixelStride] from pixel to pixel. */
class YuvPlane(val data: ByteBuffer, val rowStride: Int, val pixelStride: Int)

/** A camera frame of type YUV_420_888, as Android gives it, and the part of it that counts. */
class YuvImage(
    val width: Int,
    val height: Int,
    val y: YuvPlane,
    val u: YuvPlane,
    val v: YuvPlane,
    val cropLeft: Int = 0,
    val cropTop: Int = 0,
    val cropRight: Int = width,
    val cropBottom: Int = height,
) {
    /** The same frame, of which another part counts. */
    fun cropped(left: Int, top: Int, width: Int, height: Int) =
        YuvImage(this.width, this.height, y, u, v, left, top, left + width, top + height)

    companion object {
        /** [rgb] as a camera would give it: what a benchmark shows in place of one. */
        fun of(rgb: RgbImage): YuvImage {
            val width = rgb.width
            val height = rgb.height
            val halfWidth = (width + 1) / 2
            val halfHeight = (height + 1) / 2
            val luma = ByteBuffer.allocateDirect(width * height)
            val blue = ByteBuffer.allocateDirect(halfWidth * halfHeight)
            val red = ByteBuffer.allocateDirect(halfWidth * halfHeight)
            for (y in 0 until height) {
                for (x in 0 until width) {
                    val at = 3 * (y * width + x)
                    val r = rgb.pixels[at].toInt() and 255
                    val g = rgb.pixels[at + 1].toInt() and 255
                    val b = rgb.pixels[at + 2].toInt() and 255
                    luma.put(y * width + x, Math.round(0.299f * r + 0.587f * g + 0.114f * b).toByte())
                    if (x % 2 != 0 || y % 2 != 0) continue
                    val chroma = y / 2 * halfWidth + x / 2
                    blue.put(chroma, Math.round(127.5f - 0.168736f * r - 0.331264f * g + 0.5f * b).toByte())
                    red.put(chroma, Math.round(127.5f + 0.5f * r - 0.418688f * g - 0.081312f * b).toByte())
                }
            }
            return YuvImage(width, height, YuvPlane(luma, width, 1), YuvPlane(blue, halfWidth, 1), YuvPlane(red, halfWidth, 1))
        }
    }
}

/** An upright picture as a Bitmap takes it: [pixels] are R, G, B and 255 of each pixel, row by row. A buffer: see [YuvConverter]. */
class RgbaImage(val width: Int, val height: Int) {
    val pixels = ByteArray(4 * width * height)
}

/**
 * Camera frames to upright RGBA. A frame allocates nothing unless it is of another size than the one before. For one thread.
 *
 * Strides of rows and pixels are kept to, also where the last chroma byte or the last row's padding is absent, and the crop is cut
 * before it is turned. Colours are full-range BT.601, as Android's cameras give them. Nothing is mirrored: see [Orientation].
 */
class YuvConverter {
    private var out = RgbaImage(1, 1)
    private var luma = ByteArray(0)
    private var blue = ByteArray(0)
    private var red = ByteArray(0)

    /**
     * [image] turned clockwise by [rotation] degrees (0, 90, 180 or 270), in a buffer that the next call fills anew.
     *
     * Raises [MobileBilayerError] for planes that are too short for their strides, and for a crop outside the picture.
     */
    fun toRgba(image: YuvImage, rotation: Int): RgbaImage {
        check(image, rotation)
        val width = image.cropRight - image.cropLeft
        val height = image.cropBottom - image.cropTop
        val turned = rotation % 180 != 0
        val outWidth = if (turned) height else width
        val outHeight = if (turned) width else height
        if (out.width != outWidth || out.height != outHeight) out = RgbaImage(outWidth, outHeight)
        // The pixel (x, y) of the crop goes to first + x * right + y * down.
        val first: Int
        val right: Int
        val down: Int
        when (rotation) {
            0 -> { first = 0; right = 1; down = outWidth }
            90 -> { first = outWidth - 1; right = outWidth; down = -1 }
            180 -> { first = outWidth * outHeight - 1; right = -1; down = -outWidth }
            else -> { first = outWidth * (outHeight - 1); right = -outWidth; down = 1 }
        }
        val chromaFirst = image.cropLeft / 2
        val chromaCount = (image.cropRight + 1) / 2 - chromaFirst
        luma = atLeast(luma, (width - 1) * image.y.pixelStride + 1)
        blue = atLeast(blue, (chromaCount - 1) * image.u.pixelStride + 1)
        red = atLeast(red, (chromaCount - 1) * image.v.pixelStride + 1)
        val pixels = out.pixels
        for (y in 0 until height) {
            val row = image.cropTop + y
            readRow(image.y, row, image.cropLeft, width, luma)
            if (y == 0 || row % 2 == 0) {
                readRow(image.u, row / 2, chromaFirst, chromaCount, blue)
                readRow(image.v, row / 2, chromaFirst, chromaCount, red)
            }
            var at = 4 * (first + y * down)
            for (x in 0 until width) {
                val chroma = (image.cropLeft + x) / 2 - chromaFirst
                val l = (luma[x * image.y.pixelStride].toInt() and 255 shl 16) + 32768
                val cb = (blue[chroma * image.u.pixelStride].toInt() and 255) - 128
                val cr = (red[chroma * image.v.pixelStride].toInt() and 255) - 128
                pixels[at] = toByte(l + 91881 * cr)
                pixels[at + 1] = toByte(l - 22554 * cb - 46802 * cr)
                pixels[at + 2] = toByte(l + 116130 * cb)
                pixels[at + 3] = -1
                at += 4 * right
            }
        }
        return out
    }

    private fun toByte(sixteenBitsUp: Int): Byte = minOf(maxOf(sixteenBitsUp shr 16, 0), 255).toByte()

    private fun atLeast(buffer: ByteArray, size: Int) = if (buffer.size < size) ByteArray(size) else buffer

    /** In one go: a camera's buffer is read byte by byte at a tenth of the speed. Its position is moved. */
    private fun readRow(plane: YuvPlane, row: Int, first: Int, count: Int, into: ByteArray) {
        plane.data.position(row * plane.rowStride + first * plane.pixelStride)
        plane.data.get(into, 0, (count - 1) * plane.pixelStride + 1)
    }

    private fun check(image: YuvImage, rotation: Int) {
        if (rotation !in ROTATIONS) throw MobileBilayerError("A frame was to be turned by $rotation degrees; 0, 90, 180 or 270 is needed.")
        val inside = image.cropLeft in 0 until image.cropRight && image.cropRight <= image.width &&
            image.cropTop in 0 until image.cropBottom && image.cropBottom <= image.height
        if (!inside) {
            throw MobileBilayerError(
                "A frame of ${image.width}x${image.height} has the crop ${image.cropLeft}, ${image.cropTop} to ${image.cropRight}, " +
                    "${image.cropBottom}; it must lie inside and not be empty. Take the frame's own cropRect.",
            )
        }
        checkPlane("Y", image.y, image.cropRight, image.cropBottom)
        checkPlane("U", image.u, (image.cropRight + 1) / 2, (image.cropBottom + 1) / 2)
        checkPlane("V", image.v, (image.cropRight + 1) / 2, (image.cropBottom + 1) / 2)
    }

    private fun checkPlane(name: String, plane: YuvPlane, right: Int, bottom: Int) {
        val needed = (bottom - 1) * plane.rowStride + (right - 1) * plane.pixelStride + 1
        if (plane.pixelStride < 1 || plane.rowStride < (right - 1) * plane.pixelStride + 1 || plane.data.limit() < needed) {
            throw MobileBilayerError(
                "The frame's $name plane has ${plane.data.limit()} bytes, row stride ${plane.rowStride} and pixel stride " +
                    "${plane.pixelStride}; $right x $bottom pixels need $needed bytes. Pass the planes as the camera gives them.",
            )
        }
    }

    private companion object {
        val ROTATIONS = intArrayOf(0, 90, 180, 270)
    }
}
