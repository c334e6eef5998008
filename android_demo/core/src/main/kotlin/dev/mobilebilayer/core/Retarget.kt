package dev.mobilebilayer.core

import kotlin.math.hypot
import kotlin.math.max
import kotlin.math.min
import kotlin.math.sqrt

// The driver's motion, put on the source's own face: so that no face shape leaks. What a frame of the driver gives is compared
// with the driver's neutral frame, and the difference is done to the source. Three things are not differences but ratios,
// so that shut is shut in every face: lids, lips and gaze. `mobile_bilayer/pose/retarget.py` says why each number is what it is.

/** Whether the source turns and changes as the driver does, or gets the driver's pose and face themselves. */
enum class Mode { RELATIVE, ABSOLUTE }

const val LARGEST_SHIFT = 0.4 // of the head, in crop coordinates
val SCALE_RANGE: DoubleArray = doubleArrayOf(0.75, 1.33) // of the head's size against the photo's
val PROPORTION_RANGE: DoubleArray = doubleArrayOf(0.8, 1.05) // of its mouth and brows against the driver's; above is a smile
const val SHUT_LIDS = 0.08 // of the eye's width: so far apart are points of shut lids
const val SHUT_LIPS = 0.06 // of the mouth's width
const val TIGHT_LIPS = 0.02
const val MOST_SHUT = 0.35 // of the lids' distance at rest, for narrow eyes
const val WIDEST_LIDS = 1.6 // of the same
const val UPPER_LID = 0.95 // how much of a blink the upper lid does
const val UPPER_LIP = 0.15 // and the upper lip of lips that part

/** Outer and inner one; the person's right eye first, as everywhere below. */
val EYE_CORNERS: Array<IntArray> = arrayOf(intArrayOf(33, 133), intArrayOf(263, 362))
val UPPER_LIDS: Array<IntArray> = arrayOf(intArrayOf(246, 161, 160, 159, 158, 157, 173), intArrayOf(466, 388, 387, 386, 385, 384, 398))
val LOWER_LIDS: Array<IntArray> = arrayOf(intArrayOf(7, 163, 144, 145, 153, 154, 155), intArrayOf(249, 390, 373, 374, 380, 381, 382))

/** The middle first. */
val IRISES: Array<IntArray> = arrayOf(intArrayOf(468, 469, 470, 471, 472), intArrayOf(473, 474, 475, 476, 477))
val BROWS: Array<IntArray> = arrayOf(intArrayOf(70, 63, 105, 66, 107), intArrayOf(300, 293, 334, 296, 336))
val MOUTH_CORNERS: IntArray = intArrayOf(61, 291)

/** The inner edges, from the person's right; then the outer ones. */
val UPPER_LIPS: IntArray = intArrayOf(191, 80, 81, 82, 13, 312, 311, 310, 415)
val LOWER_LIPS: IntArray = intArrayOf(95, 88, 178, 87, 14, 317, 402, 318, 324)
val OUTER_UPPER_LIPS: IntArray = intArrayOf(185, 40, 39, 37, 0, 267, 269, 270, 409)
val OUTER_LOWER_LIPS: IntArray = intArrayOf(146, 91, 181, 84, 17, 314, 405, 321, 375)
private val MIDDLE = 3..5 // of lips

/** Points of lids and irises that [move] puts: upper lids, lower lids, irises; of each the right eye's first. */
private val EYE_POINTS: IntArray = (UPPER_LIDS + LOWER_LIDS + IRISES).fold(IntArray(0)) { all, part -> all + part }
internal const val MEASURES = 48
private const val PLACES = 10 // where the sums of eye points begin
private const val EYE_PLACES = 38 // and how many there are

/**
 * All that is measured of a face are weighted sums of landmarks. Of each sum: which landmarks, and their weights.
 *
 * 0 to 5 of each eye: along it, from its middle to the iris, from lid to lid;
 * 6 and 7 from corner to corner of the mouth, from lip to lip;
 * 8 and 9 of each eye: from it to its brow;
 * 10 to 47 where pairs of lids meet, as often as [EYE_POINTS] has their points, and the eyes' middles, as often
 */
private val SUMS: List<Sum> = buildList {
    for (eye in 0..1) {
        val (outer, inner) = EYE_CORNERS[eye]
        add(Sum(intArrayOf(outer, inner), doubleArrayOf(1.0, -1.0)))
        add(Sum(intArrayOf(IRISES[eye][0]), doubleArrayOf(1.0)) + mean(EYE_CORNERS[eye], -1.0))
        add(mean(LOWER_LIDS[eye].copyOfRange(2, 5), 1.0) + mean(UPPER_LIDS[eye].copyOfRange(2, 5), -1.0))
    }
    add(Sum(MOUTH_CORNERS, doubleArrayOf(1.0, -1.0)))
    add(mean(LOWER_LIPS.sliceArray(MIDDLE), 1.0) + mean(UPPER_LIPS.sliceArray(MIDDLE), -1.0))
    for (eye in 0..1) add(mean(BROWS[eye], 1.0) + mean(EYE_CORNERS[eye], -1.0))
    repeat(2) {
        for (eye in 0..1) {
            for ((upper, lower) in UPPER_LIDS[eye].zip(LOWER_LIDS[eye])) {
                add(Sum(intArrayOf(upper, lower), doubleArrayOf(1 - UPPER_LID, UPPER_LID)))
            }
        }
    }
    for (eye in 0..1) repeat(IRISES[eye].size) { add(mean(EYE_CORNERS[eye], 1.0)) }
}

private class Sum(val landmarks: IntArray, val weights: DoubleArray) {
    operator fun plus(other: Sum) = Sum(landmarks + other.landmarks, weights + other.weights)
}

private fun mean(landmarks: IntArray, weight: Double) =
    Sum(landmarks, DoubleArray(landmarks.size) { weight / landmarks.size })

/** All that is measured of a [face] (478 x 3): 48 x 3, see the list of sums. */
fun measure(face: DoubleArray, out: DoubleArray = DoubleArray(3 * MEASURES)): DoubleArray {
    for (i in SUMS.indices) {
        val sum = SUMS[i]
        var x = 0.0
        var y = 0.0
        var z = 0.0
        for (k in sum.landmarks.indices) {
            val at = 3 * sum.landmarks[k]
            val weight = sum.weights[k]
            x += weight * face[at]
            y += weight * face[at + 1]
            z += weight * face[at + 2]
        }
        out[3 * i] = x
        out[3 * i + 1] = y
        out[3 * i + 2] = z
    }
    return out
}

/** Length of the [i]th of [measure]'s sums, never 0. */
private fun length(sums: DoubleArray, i: Int): Double {
    val x = sums[3 * i]
    val y = sums[3 * i + 1]
    val z = sums[3 * i + 2]
    return max(sqrt(x * x + y * y + z * z), 1e-6)
}

/**
 * What an eye does.
 *
 * [width] from corner to corner; [openness] mean distance down of the three middle pairs of lid points, over the width;
 * [gaze] 3, of the iris from the middle of the corners, in widths
 */
class Eye {
    var width = 1.0
    var openness = 0.0
    val gaze = DoubleArray(3)

    internal fun set(sums: DoubleArray, eye: Int) {
        width = length(sums, 3 * eye)
        openness = sums[3 * (3 * eye + 2) + 1] / width
        for (c in 0..2) gaze[c] = sums[3 * (3 * eye + 1) + c] / width
    }
}

/** Both eyes of a [face] (478 x 3), the person's right one first. */
fun eyesOf(face: DoubleArray): Array<Eye> {
    val sums = measure(face)
    return Array(2) { eye -> Eye().also { it.set(sums, eye) } }
}

/** Openness of both eyes, on average. [sums] is a buffer of [measure]. */
fun openness(face: DoubleArray, sums: DoubleArray = DoubleArray(3 * MEASURES)): Double = opennessIn(measure(face, sums))

/** Mean distance down of the three middle pairs of lip points, in mouth widths. [sums] is a buffer of [measure]. */
fun lipOpening(face: DoubleArray, sums: DoubleArray = DoubleArray(3 * MEASURES)): Double = lipOpeningIn(measure(face, sums))

internal fun opennessIn(sums: DoubleArray): Double =
    (sums[3 * 2 + 1] / length(sums, 0) + sums[3 * 5 + 1] / length(sums, 3)) / 2

internal fun lipOpeningIn(sums: DoubleArray): Double = sums[3 * 7 + 1] / length(sums, 6)

/** The [face] (478 x 3) with its lips shut; the jaw comes along. Lips that may be shut already stay as they are. */
fun shutLips(face: DoubleArray, opening: Double = lipOpening(face), out: DoubleArray = DoubleArray(face.size)): DoubleArray {
    face.copyInto(out)
    if (opening <= SHUT_LIPS) return out
    val part = 1 - max(2 * SHUT_LIPS - opening, TIGHT_LIPS) / opening
    var drop = 0.0
    for (i in MIDDLE) drop += part * (face[3 * LOWER_LIPS[i] + 1] - face[3 * UPPER_LIPS[i] + 1]) / 3
    val jaw = faceTemplate().jaw
    for (i in 0 until LANDMARKS) out[3 * i + 1] -= jaw[i] * drop
    for (i in LOWER_LIPS.indices) {
        for (c in 0..2) {
            val spare = part * (face[3 * LOWER_LIPS[i] + c] - face[3 * UPPER_LIPS[i] + c])
            out[3 * UPPER_LIPS[i] + c] = face[3 * UPPER_LIPS[i] + c] + UPPER_LIP * spare
            out[3 * LOWER_LIPS[i] + c] = face[3 * LOWER_LIPS[i] + c] - (1 - UPPER_LIP) * spare
            out[3 * OUTER_UPPER_LIPS[i] + c] = face[3 * OUTER_UPPER_LIPS[i] + c] + UPPER_LIP * spare
            out[3 * OUTER_LOWER_LIPS[i] + c] = face[3 * OUTER_LOWER_LIPS[i] + c] - (1 - UPPER_LIP) * spare
        }
    }
    return out
}

/**
 * How far an eye's lids are open, of how far they are at rest: 1 as at rest, 0 shut; both given as openness.
 *
 * From half shut on down the share falls faster than the distance does, for the points of shut lids don't meet.
 */
fun lidShare(now: Double, rest: Double): Double {
    val open = max(rest, 1e-3)
    val shut = min(SHUT_LIDS / open, MOST_SHUT)
    var share = now / open
    if (share < 0.5) share = 0.5 * (share - shut) / (0.5 - shut)
    return min(max(share, 0.0), WIDEST_LIDS)
}

/**
 * A face that motion starts from: the source's, and the driver's in its neutral frame.
 *
 * [pose] as it is in the picture; [face] 478 x 3, with its lips shut; [eyes] as they are in the picture, the person's right one
 * first; [eyePlaces] 38 x 3, where lids and irises are put from; [mouthWidth] of the corners; [browHeight] mean distance of
 * brows and eyes. It is a buffer.
 */
class Rest {
    val pose = HeadPose()
    val face = DoubleArray(3 * LANDMARKS)
    val eyes: Array<Eye> = Array(2) { Eye() }
    val eyePlaces = DoubleArray(3 * EYE_PLACES)
    var mouthWidth = 0.0
    var browHeight = 0.0
    internal val sums = DoubleArray(3 * MEASURES)
}

/** What [move] needs to know of a face. */
fun restOf(motion: Motion, out: Rest = Rest()): Rest {
    val sums = measure(motion.face, out.sums)
    out.pose.set(motion.pose)
    shutLips(motion.face, lipOpeningIn(sums), out.face)
    for (eye in 0..1) out.eyes[eye].set(sums, eye)
    sums.copyInto(out.eyePlaces, 0, 3 * PLACES)
    out.mouthWidth = length(sums, 6)
    out.browHeight = (length(sums, 8) + length(sums, 9)) / 2
    return out
}

/** What the driver's change of each landmark is multiplied with: the source's brows and mouth against the driver's. */
fun proportions(source: Rest, neutral: Rest, out: DoubleArray = DoubleArray(LANDMARKS)): DoubleArray {
    val brows = inside(source.browHeight / max(neutral.browHeight, 1e-3), PROPORTION_RANGE)
    val mouth = inside(source.mouthWidth / max(neutral.mouthWidth, 1e-3), PROPORTION_RANGE)
    val template = faceTemplate().doubles
    for (i in 0 until LANDMARKS) {
        // The eyes' line is at -0.37, the nose's tip at 0.03, the mouth at 0.4.
        val height = template[3 * i + 1]
        val above = min(max((-0.42 - height) / 0.1, 0.0), 1.0)
        val below = min(max((height - 0.1) / 0.15, 0.0), 1.0)
        out[i] = 1 + (brows - 1) * above + (mouth - 1) * below
    }
    return out
}

private fun inside(value: Double, range: DoubleArray) = min(max(value, range[0]), range[1])

/**
 * The face that is moved.
 *
 * [rest] as in the photo; [eyePoints] 38 x 3, its lids and irises in the photo, with lids that meet; [gaps] 14 x 3, from upper to
 * lower lids in the photo, the right eye's first
 */
class Source(val rest: Rest, val eyePoints: DoubleArray, val gaps: DoubleArray)

/** What [move] needs to know of the face that is moved. */
fun sourceOf(motion: Motion): Source {
    val rest = restOf(motion)
    val points = DoubleArray(3 * EYE_PLACES) { motion.face[3 * EYE_POINTS[it / 3] + it % 3] }
    rest.eyePlaces.copyInto(points, 0, 0, 3 * 28)
    val gaps = DoubleArray(3 * 14) { k ->
        val (eye, lid) = k / 21 to k / 3 % 7
        motion.face[3 * LOWER_LIDS[eye][lid] + k % 3] - motion.face[3 * UPPER_LIDS[eye][lid] + k % 3]
    }
    return Source(rest, points, gaps)
}

/** Buffers of [move]. */
class MoveBuffers {
    internal val sums = DoubleArray(3 * MEASURES)
    internal val eye = Eye()
    internal val turn = DoubleArray(9)
}

/** The source when the driver has moved from [neutral] to [driving]; [scales] are those of [proportions]. */
fun move(
    source: Source,
    neutral: Rest,
    driving: Motion,
    scales: DoubleArray,
    out: Motion = Motion(),
    buffers: MoveBuffers = MoveBuffers(),
): Motion {
    val face = out.face
    for (i in 0 until LANDMARKS) {
        for (k in 3 * i..3 * i + 2) face[k] = (driving.face[k] - neutral.face[k]) * scales[i] + source.rest.face[k]
    }
    // Rounding and noise must not push one lip through the other.
    for (i in UPPER_LIPS.indices) {
        val across = (face[3 * UPPER_LIPS[i] + 1] - face[3 * LOWER_LIPS[i] + 1]) / 2
        if (across > 0) {
            face[3 * UPPER_LIPS[i] + 1] -= across
            face[3 * LOWER_LIPS[i] + 1] += across
        }
    }
    // Where lids meet and where the eyes' middles are moves as the driver's do. From there it is the source's own gap by the
    // driver's ratio, and as many of the source's widths to the side, whatever the shape of the driver's eyes.
    val sums = measure(driving.face, buffers.sums)
    for (side in 0..1) {
        val eye = buffers.eye
        eye.set(sums, side)
        val was = neutral.eyes[side]
        val share = lidShare(eye.openness, was.openness)
        for (lid in 0..6) {
            place(source, neutral, sums, face, 7 * side + lid, 7 * side + lid, -UPPER_LID * share)
            place(source, neutral, sums, face, 14 + 7 * side + lid, 7 * side + lid, (1 - UPPER_LID) * share)
        }
        val width = source.rest.eyes[side].width
        for (point in 28 + 5 * side..32 + 5 * side) {
            for (c in 0..2) {
                val moved = sums[3 * (PLACES + point) + c] - neutral.eyePlaces[3 * point + c]
                face[3 * EYE_POINTS[point] + c] =
                    source.eyePoints[3 * point + c] + moved + (eye.gaze[c] - was.gaze[c]) * width
            }
        }
    }
    movedPose(source.rest.pose, neutral.pose, driving.pose, out.pose, buffers.turn)
    return out
}

private fun place(source: Source, neutral: Rest, sums: DoubleArray, face: DoubleArray, point: Int, gap: Int, share: Double) {
    for (c in 0..2) {
        val moved = sums[3 * (PLACES + point) + c] - neutral.eyePlaces[3 * point + c]
        face[3 * EYE_POINTS[point] + c] = source.eyePoints[3 * point + c] + moved + share * source.gaps[3 * gap + c]
    }
}

/** The source's pose, turned, shifted and scaled as the driver's was; within what its picture can show. [turn] is a buffer. */
fun movedPose(
    source: HeadPose,
    neutral: HeadPose,
    driving: HeadPose,
    out: HeadPose = HeadPose(),
    turn: DoubleArray = DoubleArray(9),
): HeadPose {
    val unit = source.scale / neutral.scale
    val x = unit * (driving.shift[0] - neutral.shift[0])
    val y = unit * (driving.shift[1] - neutral.shift[1])
    val within = min(1.0, LARGEST_SHIFT / max(hypot(x, y), 1e-6))
    for (k in 0..8) { // driving.rotation @ neutral.rotation.T
        val row = k / 3 * 3
        val column = k % 3 * 3
        turn[k] = driving.rotation[row] * neutral.rotation[column] +
            driving.rotation[row + 1] * neutral.rotation[column + 1] +
            driving.rotation[row + 2] * neutral.rotation[column + 2]
    }
    for (k in 0..8) {
        val row = k / 3 * 3
        val column = k % 3
        out.rotation[k] = turn[row] * source.rotation[column] + turn[row + 1] * source.rotation[column + 3] +
            turn[row + 2] * source.rotation[column + 6]
    }
    out.scale = source.scale * inside(driving.scale / neutral.scale, SCALE_RANGE)
    out.shift[0] = source.shift[0] + within * x
    out.shift[1] = source.shift[1] + within * y
    return out
}

/**
 * [retarget] for many frames of one source: what is the same in all of them is done once, and no frame allocates.
 *
 * RELATIVE: the source turns and changes as the driver does since the neutral frame.
 * ABSOLUTE: the source gets the driver's pose, expression and face shape themselves; the neutral frame only says which place
 * and size are the photo's. For a driver who is the source.
 *
 * [source] in [-1, 1] of its crop, neutral in pixels of the driver; both taken apart. Not for two threads at once.
 */
class Retargeter(source: Motion, neutral: Motion, val mode: Mode = Mode.RELATIVE) {
    val source: Source = sourceOf(source)
    val neutral: Rest = restOf(neutral)
    private val scales = proportions(this.source.rest, this.neutral)
    private val moved = Motion()
    private val buffers = MoveBuffers()

    /** From now on with another neutral frame. */
    fun setNeutral(neutral: Motion) {
        restOf(neutral, this.neutral)
        proportions(source.rest, this.neutral, scales)
    }

    /** 478 x 2 in [-1, 1] of the source's crop, of the driver's motion. */
    fun retarget(driving: Motion, out: FloatArray = FloatArray(2 * LANDMARKS)): FloatArray {
        if (mode == Mode.RELATIVE) {
            move(source, neutral, driving, scales, moved, buffers)
        } else {
            movedPose(source.rest.pose, neutral.pose, driving.pose, moved.pose, buffers.turn)
            driving.pose.rotation.copyInto(moved.pose.rotation)
            driving.face.copyInto(moved.face)
        }
        return putTogether(moved, out)
    }
}

/**
 * Where the source's landmarks go when the driver has moved from [neutral] to [driving].
 *
 * [source] 478 points of 2 or 3 numbers, in [-1, 1] of the source's crop; the others in pixels of the driving picture. Returns
 * 478 x 2 in [-1, 1] of the source's crop. On driving == neutral that is the source, with shut lips if the driver's are. For
 * more than a frame: [Retargeter].
 */
fun retarget(source: FloatArray, driving: FloatArray, neutral: FloatArray, mode: Mode = Mode.RELATIVE): FloatArray =
    Retargeter(takeApart(source), takeApart(neutral), mode).retarget(takeApart(driving))
