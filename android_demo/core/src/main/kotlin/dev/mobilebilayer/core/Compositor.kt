package dev.mobilebilayer.core

import kotlin.math.floor
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round

/**
 * The formula that every model shares, on the CPU: the reference for the shader, and what a phone without one would do.
 *
 *     head(p) = gate(p) * texture(p + flow(p)) + lf(p)
 *     rgb(p)  = mask(p) * head(p) + (1 - mask(p)) * background(p)
 *
 * Layers are resized bilinearly, pixel centres at (i + 0.5) / n, and the texture is sampled so; both repeat their border.
 *
 * [sidePx] of texture, background and result; [aPx] and [bPx] sides of the layers. Not for two threads at once.
 */
class Compositor(val sidePx: Int, val aPx: Int, val bPx: Int) {
    private val a = Places(sidePx, aPx)
    private val b = Places(sidePx, bPx)

    /**
     * Join an avatar's texture and background with one frame's layers, in [out]. No frame allocates.
     *
     * [texture], [background], [out] [sidePx] x [sidePx] x 3, [-1, 1]; the result is not clamped
     * [layersA] 4 x [aPx] x [aPx]: flow x, flow y (of [-1, 1] across the frame), gate, mask
     * [layersB] 3 x [bPx] x [bPx]: lf
     */
    fun composite(
        texture: FloatArray,
        background: FloatArray,
        layersA: FloatArray,
        layersB: FloatArray,
        out: FloatArray = FloatArray(3 * sidePx * sidePx),
    ): FloatArray {
        val pixels = 3 * sidePx * sidePx
        require(texture.size == pixels && background.size == pixels && out.size == pixels) { "pictures must be $sidePx x $sidePx x 3" }
        require(layersA.size == 4 * aPx * aPx && layersB.size == 3 * bPx * bPx) { "layers must be 4 x $aPx x $aPx and 3 x $bPx x $bPx" }
        val plane = aPx * aPx
        val half = sidePx / 2f
        for (y in 0 until sidePx) {
            for (x in 0 until sidePx) {
                val fromX = x + half * a.sample(layersA, 0, x, y)
                val fromY = y + half * a.sample(layersA, plane, x, y)
                val gate = a.sample(layersA, 2 * plane, x, y)
                val mask = a.sample(layersA, 3 * plane, x, y)
                val left = floor(fromX)
                val top = floor(fromY)
                val right = fromX - left
                val down = fromY - top
                val x0 = inside(left)
                val x1 = inside(left + 1)
                val row0 = inside(top) * sidePx
                val row1 = inside(top + 1) * sidePx
                for (c in 0..2) {
                    val above = texture[3 * (row0 + x0) + c] * (1 - right) + texture[3 * (row0 + x1) + c] * right
                    val below = texture[3 * (row1 + x0) + c] * (1 - right) + texture[3 * (row1 + x1) + c] * right
                    val warped = above * (1 - down) + below * down
                    val head = gate * warped + b.sample(layersB, c * bPx * bPx, x, y)
                    val at = 3 * (y * sidePx + x) + c
                    out[at] = background[at] + mask * (head - background[at])
                }
            }
        }
        return out
    }

    /** The nearest pixel of the texture: also for what is not a number, which is 0. */
    private fun inside(place: Float): Int = min(max(place, 0f), sidePx - 1f).toInt()

    /** Where the pixels of a side lie between those of another, and how far to the second. */
    private class Places(sidePx: Int, private val fromPx: Int) {
        private val low = IntArray(sidePx)
        private val high = IntArray(sidePx)
        private val part = FloatArray(sidePx)

        init {
            for (i in 0 until sidePx) {
                val place = (i + 0.5) * fromPx / sidePx - 0.5
                val first = floor(place)
                low[i] = first.toInt().coerceIn(0, fromPx - 1)
                high[i] = (first.toInt() + 1).coerceIn(0, fromPx - 1)
                part[i] = (place - first).toFloat()
            }
        }

        fun sample(plane: FloatArray, at: Int, x: Int, y: Int): Float {
            val row0 = at + low[y] * fromPx
            val row1 = at + high[y] * fromPx
            val above = plane[row0 + low[x]] * (1 - part[x]) + plane[row0 + high[x]] * part[x]
            val below = plane[row1 + low[x]] * (1 - part[x]) + plane[row1 + high[x]] * part[x]
            return above * (1 - part[y]) + below * part[y]
        }
    }
}

/** Unsigned bytes [0, 255] to [-1, 1]. */
fun toFloat(rgb: ByteArray, out: FloatArray = FloatArray(rgb.size)): FloatArray {
    for (i in rgb.indices) out[i] = (rgb[i].toInt() and 255) / 127.5f - 1
    return out
}

/**
 * [-1, 1] to unsigned bytes: clamped, then rounded, then cast, so that nothing wraps. What is not a number is black.
 */
fun toRgb(frame: FloatArray, out: ByteArray = ByteArray(frame.size)): ByteArray {
    for (i in frame.indices) {
        val value = frame[i]
        val inside = if (value > -1f) min(value, 1f) else -1f // a comparison with NaN is false
        out[i] = round(inside * 127.5f + 127.5f).toInt().toByte()
    }
    return out
}
