package dev.mobilebilayer.core

import kotlin.math.exp
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round

// What stands behind the person: made once per avatar, so that it may allocate.

/**
 * The picture with the person taken out: colours flow in smoothly from around.
 *
 * [alpha] as many numbers as the picture has pixels, [0, 1], 1 where the person is. Push-pull: averages of what is known, at ever
 * coarser sizes, fill what is not.
 */
fun fillBehind(rgb: RgbImage, alpha: FloatArray): RgbImage {
    val width = rgb.width
    val height = rgb.height
    require(alpha.size == width * height) { "alpha has ${alpha.size} numbers for a picture of ${width}x$height" }
    val grown = dilate(alpha, width, height, max(3, width / 24) or 1)
    val first = Plane(width, height, FloatArray(4 * width * height))
    for (i in 0 until width * height) {
        val known = min(max(1 - 2 * grown[i], 0f), 1f)
        for (c in 0..2) first.data[4 * i + c] = (rgb.pixels[3 * i + c].toInt() and 255) * known
        first.data[4 * i + 3] = known
    }
    val levels = arrayListOf(first)
    while (min(levels.last().width, levels.last().height) > 2) levels += levels.last().halved()
    // Where even the coarsest level knows next to nothing, the mean of what is known; of all, if nothing is.
    val mean = DoubleArray(3)
    var weights = 0.0
    val anyKnown = (0 until width * height).any { first.data[4 * it + 3] > 0 }
    for (i in 0 until width * height) {
        val weight = if (anyKnown) first.data[4 * i + 3].toDouble() else 1.0
        weights += weight
        for (c in 0..2) mean[c] += weight * (rgb.pixels[3 * i + c].toInt() and 255)
    }
    val coarsest = levels.last()
    var filled = Plane(coarsest.width, coarsest.height, FloatArray(4 * coarsest.width * coarsest.height))
    for (i in 0 until coarsest.width * coarsest.height) {
        for (c in 0..2) {
            filled.data[4 * i + c] = (coarsest.data[4 * i + c] + 1e-3f * (mean[c] / weights).toFloat()) / (coarsest.data[4 * i + 3] + 1e-3f)
        }
    }
    for (level in levels.dropLast(1).reversed()) {
        filled = filled.grown(level.width, level.height)
        for (i in 0 until level.width * level.height) {
            val weight = min(level.data[4 * i + 3], 1f)
            for (c in 0..2) {
                val seen = level.data[4 * i + c]
                // The finest holds colours times what is known of them; the others' weights are means.
                val mine = if (level === first) seen else weight * seen / max(level.data[4 * i + 3], 1e-3f)
                filled.data[4 * i + c] = mine + (1 - weight) * filled.data[4 * i + c]
            }
        }
    }
    val out = RgbImage(width, height)
    for (i in 0 until width * height) {
        for (c in 0..2) out.pixels[3 * i + c] = toByte(filled.data[4 * i + c])
    }
    return out
}

/**
 * What stands behind an avatar: [choice] is "keep", "blur" or "#rrggbb"; [kept] is the avatar's own. A user's picture is decoded by
 * the app, cut to a square and given to the avatar itself. Raises [MobileBilayerError] for any other choice.
 */
fun changeBackground(choice: String, kept: RgbImage): RgbImage {
    if (choice == "keep") return kept
    if (choice == "blur") return blur(kept, kept.width / 24.0)
    if (!Regex("#[0-9a-fA-F]{6}").matches(choice)) {
        throw MobileBilayerError("The background is '${choice.take(40)}'; it must be keep, blur or a colour like #20a0ff.")
    }
    val colour = ByteArray(3) { choice.substring(2 * it + 1, 2 * it + 3).toInt(16).toByte() }
    return RgbImage(kept.width, kept.height, ByteArray(kept.pixels.size) { colour[it % 3] })
}

private fun toByte(value: Float): Byte = round(min(max(value, 0f), 255f)).toInt().toByte()

/** Red, green, blue and weight of each pixel. */
private class Plane(val width: Int, val height: Int, val data: FloatArray) {
    /** Half as large, by area. */
    fun halved(): Plane = resized((width + 1) / 2, (height + 1) / 2) { i, from, to, use ->
        val ratio = from.toDouble() / to
        var k = (i * ratio).toInt()
        while (k < from && k < (i + 1) * ratio - 1e-9) {
            use(k, ((min(k + 1.0, (i + 1) * ratio) - max(k.toDouble(), i * ratio)) / ratio).toFloat())
            k++
        }
    }

    /** Larger, bilinearly. */
    fun grown(width: Int, height: Int): Plane = resized(width, height) { i, from, to, use ->
        val place = (i + 0.5) * from / to - 0.5
        val low = Math.floor(place)
        use(low.toInt().coerceIn(0, from - 1), (1 - (place - low)).toFloat())
        use((low.toInt() + 1).coerceIn(0, from - 1), (place - low).toFloat())
    }

    /** [weigh] says of the i-th place of a side which places it is made of, and of how much of each. */
    private inline fun resized(
        toWidth: Int,
        toHeight: Int,
        weigh: (i: Int, from: Int, to: Int, use: (Int, Float) -> Unit) -> Unit,
    ): Plane {
        val narrow = Plane(toWidth, height, FloatArray(4 * toWidth * height))
        for (x in 0 until toWidth) {
            weigh(x, width, toWidth) { from, share ->
                for (y in 0 until height) {
                    for (c in 0..3) narrow.data[4 * (y * toWidth + x) + c] += share * data[4 * (y * width + from) + c]
                }
            }
        }
        val out = Plane(toWidth, toHeight, FloatArray(4 * toWidth * toHeight))
        for (y in 0 until toHeight) {
            weigh(y, height, toHeight) { from, share ->
                for (k in 0 until 4 * toWidth) out.data[4 * y * toWidth + k] += share * narrow.data[4 * from * toWidth + k]
            }
        }
        return out
    }
}

/** The largest value within an ellipse of [sidePx] around each pixel. */
private fun dilate(alpha: FloatArray, width: Int, height: Int, sidePx: Int): FloatArray {
    val reach = sidePx / 2
    val halfWidths = IntArray(sidePx) { row ->
        val dy = (row - reach).toDouble()
        round(reach * Math.sqrt((reach * reach - dy * dy) / (reach * reach))).toInt()
    }
    return FloatArray(alpha.size) { i ->
        val (x, y) = i % width to i / width
        var most = 0f
        for (row in max(0, y - reach)..min(height - 1, y + reach)) {
            val half = halfWidths[row - y + reach]
            for (column in max(0, x - half)..min(width - 1, x + half)) most = max(most, alpha[row * width + column])
        }
        most
    }
}

/** Gaussian, the border repeated. */
private fun blur(picture: RgbImage, sigma: Double): RgbImage {
    val reach = (round(6 * sigma + 1).toInt() or 1) / 2 // as OpenCV has it
    val weights = DoubleArray(2 * reach + 1) { exp(-(it - reach) * (it - reach) / (2 * sigma * sigma)) }
    val total = weights.sum()
    val narrow = FloatArray(picture.pixels.size)
    val out = RgbImage(picture.width, picture.height)
    for (y in 0 until picture.height) {
        for (x in 0 until picture.width) {
            for (c in 0..2) {
                var sum = 0.0
                for (i in weights.indices) {
                    val from = (x + i - reach).coerceIn(0, picture.width - 1)
                    sum += weights[i] * (picture.pixels[3 * (y * picture.width + from) + c].toInt() and 255)
                }
                narrow[3 * (y * picture.width + x) + c] = (sum / total).toFloat()
            }
        }
    }
    for (y in 0 until picture.height) {
        for (k in 0 until 3 * picture.width) {
            var sum = 0.0
            for (i in weights.indices) {
                sum += weights[i] * narrow[(y + i - reach).coerceIn(0, picture.height - 1) * 3 * picture.width + k]
            }
            out.pixels[y * 3 * picture.width + k] = toByte((sum / total).toFloat())
        }
    }
    return out
}
