package dev.mobilebilayer.core

/** Which way a camera looks. */
enum class Facing { FRONT, BACK }

/**
 * How a camera's frames lie, and what follows. Networks always see an upright picture that is not mirrored; a mirror is for the
 * display only, and only with the front camera.
 *
 * [sensorDegrees] clockwise turn that makes the sensor's picture upright on a phone held in its natural way: SENSOR_ORIENTATION
 * [displayDegrees] how far the display is turned from its natural way: 0, 90, 180 or 270 for Surface.ROTATION_0 and so on
 */
data class Orientation(val sensorDegrees: Int, val displayDegrees: Int, val facing: Facing) {
    init {
        if (sensorDegrees !in DEGREES || displayDegrees !in DEGREES) {
            throw MobileBilayerError("A camera at $sensorDegrees and a display at $displayDegrees degrees; each must be 0, 90, 180 or 270.")
        }
    }

    /** By how many degrees clockwise a frame is to be turned to be upright. */
    val rotation: Int
        get() = if (facing == Facing.FRONT) (sensorDegrees + displayDegrees) % 360 else (sensorDegrees - displayDegrees + 360) % 360

    /** Whether people expect to see the picture as in a mirror. */
    val mirroredDisplay: Boolean get() = facing == Facing.FRONT

    /**
     * Points of the upright picture to where the display shows them, both in pixels of a picture that is [width] wide.
     *
     * [points] flat, of [numbers] each; [out] may be the same array
     */
    fun toDisplay(points: FloatArray, numbers: Int, width: Int, out: FloatArray = FloatArray(points.size)): FloatArray {
        for (i in points.indices) out[i] = if (mirroredDisplay && i % numbers == 0) width - points[i] else points[i]
        return out
    }

    /** Points of the upright picture ([width] x [height]) to where they lie in the camera's own frame, its crop's corner being 0. */
    fun toFrame(points: FloatArray, numbers: Int, width: Int, height: Int, out: FloatArray = FloatArray(points.size)): FloatArray {
        for (i in 0..points.size - numbers step numbers) {
            val x = points[i]
            val y = points[i + 1]
            for (k in 2 until numbers) out[i + k] = points[i + k]
            when (rotation) {
                0 -> { out[i] = x; out[i + 1] = y }
                90 -> { out[i] = y; out[i + 1] = width - x }
                180 -> { out[i] = width - x; out[i + 1] = height - y }
                else -> { out[i] = height - y; out[i + 1] = x }
            }
        }
        return out
    }

    private companion object {
        val DEGREES = intArrayOf(0, 90, 180, 270)
    }
}
