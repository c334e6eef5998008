package dev.mobilebilayer.core

/** MediaPipe's face landmarks: the mesh and, behind it, both irises. */
const val LANDMARKS = 478

/** Landmarks farther out than this are no landmarks, in pixels. */
const val LIMIT_PX = 100_000f

private val LIPS = intArrayOf(
    0, 13, 14, 17, 37, 39, 40, 61, 78, 80, 81, 82, 84, 87, 88, 91, 95, 146, 178, 181, 185, 191, 267, 269, 270, 291, 308, 310,
    311, 312, 314, 317, 318, 321, 324, 375, 402, 405, 409, 415,
)
private val RIGHT_EYE = intArrayOf(7, 33, 133, 144, 145, 153, 154, 155, 157, 158, 159, 160, 161, 163, 173, 246)
private val LEFT_EYE = intArrayOf(249, 263, 362, 373, 374, 380, 381, 382, 384, 385, 386, 387, 388, 390, 398, 466)
private val BOTH_IRISES = IntArray(10) { 468 + it }
private val BOTH_BROWS = intArrayOf(70, 63, 105, 66, 107, 300, 293, 334, 296, 336)
private val OVAL = intArrayOf(10, 297, 284, 389, 454, 361, 397, 379, 400, 152, 176, 150, 172, 132, 234, 162, 54, 67)
private val NOSE = intArrayOf(168, 6, 195, 1, 2, 164, 98, 327, 48, 278)
private val CHEEKS = intArrayOf(50, 280, 205, 425, 187, 411, 118, 347)

/** The 128 landmarks of the mesh that the networks take, in the order they take them. */
val MESH: IntArray = LIPS + RIGHT_EYE + LEFT_EYE + BOTH_IRISES + BOTH_BROWS + OVAL + NOSE + CHEEKS

/**
 * How many numbers a point of [landmarks] has: 2 or 3.
 *
 * Landmarks are flat everywhere: x, y, x, y... or x, y, z, x, y, z..., of 478 points.
 */
internal fun dimensions(landmarks: FloatArray): Int {
    val numbers = landmarks.size / LANDMARKS
    require(landmarks.size % LANDMARKS == 0 && numbers in 2..3) {
        "landmarks hold ${landmarks.size} numbers; 478 points of 2 or 3 are needed. Call checkLandmarks first"
    }
    return numbers
}

/**
 * MediaPipe's normalized landmarks, of [0, 1] across the picture, to pixels; z keeps x's unit.
 *
 * [normalized] 478 x 3; [width], [height] of the upright picture; [out] may be the same array
 */
fun inPixels(normalized: FloatArray, width: Int, height: Int, out: FloatArray = FloatArray(normalized.size)): FloatArray {
    for (i in normalized.indices) out[i] = normalized[i] * if (i % 3 == 1) height else width
    return out
}

/**
 * [landmarks] as they are, when they are 478 points of 2 or 3 finite numbers that may be a face in a picture.
 *
 * Raises [MobileBilayerError] otherwise.
 */
fun checkLandmarks(landmarks: FloatArray): FloatArray {
    val numbers = landmarks.size / LANDMARKS
    if (landmarks.size % LANDMARKS != 0 || numbers !in 2..3) {
        val few = landmarks.size % 468 == 0 && landmarks.size / 468 in 2..3
        val hint = if (few) " (a model without iris points gives 468; use face_landmarker.task)" else ""
        throw MobileBilayerError(
            "Landmarks hold ${landmarks.size} numbers$hint; 478 points of 2 or 3 numbers are needed, in pixels of their picture.",
        )
    }
    var lowX = Float.POSITIVE_INFINITY
    var lowY = Float.POSITIVE_INFINITY
    var highX = Float.NEGATIVE_INFINITY
    var highY = Float.NEGATIVE_INFINITY
    var finite = true
    var far = false
    for (i in landmarks.indices) {
        val value = landmarks[i]
        finite = finite && value.isFinite()
        far = far || Math.abs(value) > LIMIT_PX
        when (i % numbers) {
            0 -> { lowX = minOf(lowX, value); highX = maxOf(highX, value) }
            1 -> { lowY = minOf(lowY, value); highY = maxOf(highY, value) }
        }
    }
    if (!finite) throw MobileBilayerError("Landmarks hold what is not a number. Leave out frames without a face.")
    if (far || highX <= lowX || highY <= lowY) {
        throw MobileBilayerError(
            "Landmarks lie between [$lowX, $lowY] and [$highX, $highY], which is no face in a picture. " +
                "Leave out frames without a face.",
        )
    }
    return landmarks
}
