package dev.mobilebilayer.core

import kotlin.math.PI
import kotlin.math.abs
import kotlin.math.atan2
import kotlin.math.max
import kotlin.math.min
import kotlin.math.round

/** A face smaller than this shows too little to make an avatar of, in pixels. */
const val SMALLEST_FACE_PX = 32f

private const val SMALLEST_TILE_PX = 120
private const val TILE_LEVELS = 3
private const val RIGHT_EYE_CORNER = 33
private const val LEFT_EYE_CORNER = 263

/** A part of a picture, in whole pixels; where it reaches beyond the picture it is black. */
data class FaceWindow(val left: Int, val top: Int, val width: Int, val height: Int) {
    /** Landmarks (478 x 3) found in the part, to those of the picture: the same array. */
    fun back(landmarks: FloatArray): FloatArray {
        for (i in landmarks.indices step 3) {
            landmarks[i] += left
            landmarks[i + 1] += top
        }
        return landmarks
    }

    companion object {
        /** The square twice as large as the face in its middle: what the landmarker finds best. */
        fun around(landmarks: FloatArray): FaceWindow {
            val box = FaceBox(landmarks)
            val half = max(1, max(box.width, box.height).toInt())
            return FaceWindow(round(box.x).toInt() - half, round(box.y).toInt() - half, 2 * half, 2 * half)
        }
    }
}

/**
 * Where to look for a face in a picture of that size, one try after another: the whole, the whole with a border, then tiles that overlap
 * and are halved [levels] times. A landmarker finds faces of at least a tenth of what it sees, with some room around them.
 */
fun searchPlan(width: Int, height: Int, levels: Int = TILE_LEVELS): List<List<FaceWindow>> {
    val pad = max(width, height) / 3
    val plan = arrayListOf(
        listOf(FaceWindow(0, 0, width, height)),
        listOf(FaceWindow(-pad, -pad, width + 2 * pad, height + 2 * pad)),
    )
    var side = min(width, height) / 2
    repeat(levels) {
        if (side < SMALLEST_TILE_PX) return plan
        plan += starts(height, side).flatMap { top -> starts(width, side).map { left -> FaceWindow(left, top, side, side) } }
        side /= 2
    }
    return plan
}

/**
 * Landmarks (478 x 3) of the largest face of a photo, in its pixels; null where there is none. Some hundred looks where there is none.
 *
 * [look] landmarks of all faces in a part of the photo, in the part's pixels; the landmarker sees each part by itself
 */
fun findFace(width: Int, height: Int, look: (FaceWindow) -> List<FloatArray>): FloatArray? {
    for (windows in searchPlan(width, height)) {
        val found = windows.flatMap { window -> look(window).map(window::back) }.sortedByDescending { FaceBox(it).area }
        if (windows.size == 1) {
            if (found.isNotEmpty()) return found[0]
            continue
        }
        // A tile may cut a face, or see one in a pattern: what is one is one in the middle of its own window, too.
        for (face in found) {
            val window = FaceWindow.around(face)
            look(window).maxByOrNull { FaceBox(it).area }?.let { return window.back(it) }
        }
    }
    return null
}

/** The larger side of the landmarks' box. */
fun faceSize(landmarks: FloatArray): Float = FaceBox(landmarks).let { max(it.width, it.height) }

/** By how many degrees a face is turned clockwise: 0, 90, 180 or 270. Up to 60 degrees it counts as upright. */
fun turnOf(landmarks: FloatArray): Int {
    val numbers = dimensions(landmarks)
    val (from, to) = numbers * RIGHT_EYE_CORNER to numbers * LEFT_EYE_CORNER
    val radians = atan2((landmarks[to + 1] - landmarks[from + 1]).toDouble(), (landmarks[to] - landmarks[from]).toDouble())
    val degrees = (radians * 180 / PI + 360) % 360
    return if (min(degrees, 360 - degrees) <= 60) 0 else intArrayOf(90, 180, 270).minByOrNull { abs(degrees - it) }!!
}

/** Where tiles begin that overlap by a third and end at the border. */
private fun starts(length: Int, side: Int): List<Int> {
    val gaps = max(1, ((length - side) * 3 + 2 * side - 1) / (2 * side))
    val step = (length - side).toDouble() / gaps
    return List(gaps + 1) { i -> if (i == gaps) length - side else (i * step).toInt() }
}
