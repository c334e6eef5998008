package dev.mobilebilayer.core

import kotlin.math.ceil
import kotlin.math.floor
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round

/** Of the half side: hair takes more room than the neck. */
const val CROP_UP = 1.0 / 6

/** A square of the picture: centre and half side in pixels (pixel i covers [i, i + 1]). */
data class Crop(val xPx: Double, val yPx: Double, val halfPx: Double) {
    /**
     * Points in pixels to [-1, 1] of the square; z keeps x's unit.
     *
     * [points] flat, of 2 or 3 numbers each as [numbers] says; [out] may be the same array
     */
    fun toKeypoints(points: FloatArray, numbers: Int = dimensions(points), out: FloatArray = FloatArray(points.size)): FloatArray {
        val half = halfPx.toFloat()
        val x = (xPx / halfPx).toFloat()
        val y = (yPx / halfPx).toFloat()
        for (i in points.indices) {
            val shift = when (i % numbers) { 0 -> x; 1 -> y; else -> 0f }
            out[i] = points[i] / half - shift
        }
        return out
    }

    /** The way back of [toKeypoints]. */
    fun toPixels(keypoints: FloatArray, numbers: Int = dimensions(keypoints), out: FloatArray = FloatArray(keypoints.size)): FloatArray {
        val half = halfPx.toFloat()
        for (i in keypoints.indices) {
            val shift = when (i % numbers) { 0 -> xPx.toFloat(); 1 -> yPx.toFloat(); else -> 0f }
            out[i] = keypoints[i] * half + shift
        }
        return out
    }

    /** The square of [picture], [sidePx] wide; outside the picture its border is repeated. */
    fun cut(picture: RgbImage, sidePx: Int = 256): RgbImage {
        val scale = sidePx / (2 * halfPx)
        // Shrinking by more than 2 would alias: average first.
        if (scale < 0.5) {
            val left = floor(xPx - halfPx).toInt()
            val top = floor(yPx - halfPx).toInt()
            val side = ceil(2 * halfPx).toInt() + 1
            val shrunkPx = round(side * scale).toInt()
            val shrunk = resizeArea(picture, left, top, side, shrunkPx)
            val factor = shrunkPx.toDouble() / side
            return Crop((xPx - left) * factor, (yPx - top) * factor, halfPx * factor).cut(shrunk, sidePx)
        }
        val out = RgbImage(sidePx, sidePx)
        val cubic = scale > 1
        val reach = if (cubic) 2 else 1
        val weightsX = DoubleArray(2 * reach)
        val weightsY = DoubleArray(2 * reach)
        for (y in 0 until sidePx) {
            val fromY = (y + 0.5) / scale - 0.5 + yPx - halfPx
            val top = floor(fromY).toInt() - reach + 1
            weigh(fromY - floor(fromY), weightsY)
            for (x in 0 until sidePx) {
                val fromX = (x + 0.5) / scale - 0.5 + xPx - halfPx
                val left = floor(fromX).toInt() - reach + 1
                weigh(fromX - floor(fromX), weightsX)
                for (c in 0..2) {
                    var sum = 0.0
                    for (j in 0 until 2 * reach) {
                        val row = (top + j).coerceIn(0, picture.height - 1) * picture.width
                        for (i in 0 until 2 * reach) {
                            val at = 3 * (row + (left + i).coerceIn(0, picture.width - 1)) + c
                            sum += weightsY[j] * weightsX[i] * (picture.pixels[at].toInt() and 255)
                        }
                    }
                    out.pixels[3 * (y * sidePx + x) + c] = round(min(max(sum, 0.0), 255.0)).toInt().toByte()
                }
            }
        }
        return out
    }
}

/**
 * The paper's rule: the landmarks' box, half side = its larger side, moved up by a sixth of it.
 *
 * [landmarks] 478 points of 2 or 3 numbers, in pixels; the iris points never widen the box
 */
fun headCrop(landmarks: FloatArray): Crop {
    val box = FaceBox(landmarks)
    val size = max(box.width, box.height).toDouble()
    return Crop(box.x.toDouble(), box.y.toDouble() - size * CROP_UP, size)
}

/** The landmarks' box, and its middle. */
internal class FaceBox(landmarks: FloatArray) {
    val x: Float
    val y: Float
    val width: Float
    val height: Float
    val area get() = width * height

    init {
        val numbers = dimensions(landmarks)
        var lowX = landmarks[0]
        var lowY = landmarks[1]
        var highX = lowX
        var highY = lowY
        for (i in landmarks.indices step numbers) {
            lowX = min(lowX, landmarks[i])
            highX = max(highX, landmarks[i])
            lowY = min(lowY, landmarks[i + 1])
            highY = max(highY, landmarks[i + 1])
        }
        x = (lowX + highX) / 2
        y = (lowY + highY) / 2
        width = highX - lowX
        height = highY - lowY
    }
}

/** Weights of the neighbours of a place [t] behind the first of the middle two: linear for two, cubic for four. */
private fun weigh(t: Double, out: DoubleArray) {
    if (out.size == 2) {
        out[0] = 1 - t
        out[1] = t
        return
    }
    val a = -0.75 // as OpenCV has it
    out[0] = ((a * (t + 1) - 5 * a) * (t + 1) + 8 * a) * (t + 1) - 4 * a
    out[1] = ((a + 2) * t - (a + 3)) * t * t + 1
    out[2] = ((a + 2) * (1 - t) - (a + 3)) * (1 - t) * (1 - t) + 1
    out[3] = 1 - out[0] - out[1] - out[2]
}

/** The square from ([left], [top]) of a side of [sidePx], averaged to [outPx]; outside the picture its border is repeated. */
private fun resizeArea(picture: RgbImage, left: Int, top: Int, sidePx: Int, outPx: Int): RgbImage {
    val ratio = sidePx.toDouble() / outPx
    val out = RgbImage(outPx, outPx)
    // First along rows, one row of the square at a time; each is shared out to the rows of the result.
    val narrow = DoubleArray(3 * outPx)
    val sums = DoubleArray(3 * outPx * outPx)
    for (j in 0 until sidePx) {
        val row = (top + j).coerceIn(0, picture.height - 1) * picture.width
        narrow.fill(0.0)
        for (i in 0 until sidePx) {
            val at = 3 * (row + (left + i).coerceIn(0, picture.width - 1))
            spread(i, ratio, outPx) { x, share ->
                for (c in 0..2) narrow[3 * x + c] += share * (picture.pixels[at + c].toInt() and 255)
            }
        }
        spread(j, ratio, outPx) { y, share ->
            for (k in narrow.indices) sums[3 * outPx * y + k] += share * narrow[k]
        }
    }
    for (k in sums.indices) out.pixels[k] = round(sums[k]).toInt().coerceIn(0, 255).toByte()
    return out
}

/** Which pixels of the result the pixel [i] belongs to, and what share of each it is. */
private inline fun spread(i: Int, ratio: Double, outPx: Int, use: (Int, Double) -> Unit) {
    val first = min((i / ratio).toInt(), outPx - 1)
    val edge = (first + 1) * ratio
    if (i + 1 <= edge || first == outPx - 1) {
        use(first, 1 / ratio)
    } else {
        use(first, (edge - i) / ratio)
        use(first + 1, (i + 1 - edge) / ratio)
    }
}
