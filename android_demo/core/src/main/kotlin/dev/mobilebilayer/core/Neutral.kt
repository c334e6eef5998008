package dev.mobilebilayer.core

import kotlin.math.acos
import kotlin.math.exp
import kotlin.math.max
import kotlin.math.min

// What of a driver means "as in the photo": found from all frames, so that no single one, the first least, decides.
// `mobile_bilayer/pose/neutral.py` says how.

private const val ANGLE = 20.0 // degrees from frontal for which a frame counts less by e
private const val LIPS_APART = 0.05 // mouth widths, and
private const val LIDS_CLOSER = 0.06 // eye widths, for the same
private const val MEMORY_S = 60.0 // live: what is longer ago hardly counts
private const val LARGEST_STEP = 0.1 // live: of the way to a frame that shows the face more at rest than all before

/** How long a lost face keeps its last motion, in seconds, and how long it then takes to the neutral one. */
const val HOLD_S = 0.5
const val EASE_S = 0.5

/** How much a frame counts for the pose: 1 from the front, and less when turned. */
fun frontal(motion: Motion): Double {
    val r = motion.pose.rotation
    val angle = Math.toDegrees(acos(min(max((r[0] + r[4] + r[8] - 1) / 2, -1.0), 1.0))) / ANGLE
    return exp(-angle * angle)
}

/** How much a frame counts for the face, among those as frontal; above 0, for comparing frames. [sums]: see [measure]. */
fun restful(motion: Motion, sums: DoubleArray = DoubleArray(3 * MEASURES)): Double {
    measure(motion.face, sums)
    val eyes = min(opennessIn(sums), 1.0)
    val lips = min(max(lipOpeningIn(sums), 0.0), 1.0)
    return exp(eyes / LIDS_CLOSER - lips / LIPS_APART)
}

/**
 * The neutral motion of what was seen until now: `neutral.add(motion, stepS)`, then `neutral.motion()`. No frame allocates.
 *
 * [live] forget what is long ago, and change slowly
 */
class Neutral(val live: Boolean = false) {
    private var seenS = 0.0 // how long frames counted, for the pose
    private var restS = 0.0 // and for the face
    private val rows = DoubleArray(6)
    private var scale = 0.0
    private val shift = DoubleArray(2)
    private val face = DoubleArray(3 * LANDMARKS)
    private val sums = DoubleArray(3 * MEASURES)
    private val nearest = DoubleArray(6)
    private val out = Motion()

    /** Forget all. */
    fun reset() {
        seenS = 0.0
        restS = 0.0
        scale = 0.0
        rows.fill(0.0)
        shift.fill(0.0)
        face.fill(0.0)
    }

    /** A frame that was shown for so many seconds, above 0. */
    fun add(motion: Motion, stepS: Double) {
        val first = seenS == 0.0
        val kept = if (live) exp(-stepS / MEMORY_S) else 1.0
        val seen = stepS * frontal(motion)
        val rest = seen * restful(motion, sums)
        seenS = kept * seenS + seen
        restS = kept * restS + rest
        var pose = seen / seenS
        var face = rest / restS
        if (live && !first) {
            pose = min(pose, LARGEST_STEP)
            face = min(face, LARGEST_STEP)
        }
        for (i in rows.indices) rows[i] += pose * (motion.pose.rotation[i] - rows[i])
        for (i in shift.indices) shift[i] += pose * (motion.pose.shift[i] - shift[i])
        scale += pose * (motion.pose.scale - scale)
        for (k in this.face.indices) this.face[k] += face * (motion.face[k] - this.face[k])
    }

    /**
     * What means "as in the photo", in a buffer that the next call fills anew. There must have been a frame.
     */
    fun motion(): Motion {
        check(seenS > 0) { "a neutral motion was asked for before there was a frame" }
        rows.copyInto(nearest)
        nearestRows(nearest)
        out.pose.scale = scale
        out.pose.setRows(nearest)
        shift.copyInto(out.pose.shift)
        face.copyInto(out.face)
        return out
    }
}

/** The neutral motion of a clip, from all its frames with a face. Raises [MobileBilayerError] when there is none. */
fun neutralOf(track: Track): Motion {
    if (track.found.none { it }) {
        throw MobileBilayerError("The track has no frame in which a face was found. Choose another clip.")
    }
    val neutral = Neutral()
    val motion = Motion()
    val times = track.timesS
    for (i in track.landmarks.indices) {
        if (!track.found[i]) continue
        // Each frame is shown until the next one; the last one as long as the one before.
        val step = if (i + 1 < times.size) times[i + 1] - times[i] else if (i > 0) times[i] - times[i - 1] else 1.0
        neutral.add(takeApart(track.landmarks[i], motion), min(step, 1.0))
    }
    return neutral.motion()
}

/**
 * What a face lost for [lostS] seconds is thought to do: its [last] motion for [HOLD_S], the [neutral] one [EASE_S] later.
 *
 * Between them in [out]; [between] is a buffer of 478 x 2
 */
fun easeToNeutral(
    last: Motion,
    neutral: Motion,
    lostS: Double,
    out: Motion = Motion(),
    between: FloatArray = FloatArray(2 * LANDMARKS),
): Motion {
    var share = min(max((lostS - HOLD_S) / EASE_S, 0.0), 1.0)
    share *= share * (3 - 2 * share) // smooth at both ends
    if (share == 0.0) return last
    if (share == 1.0) return neutral
    val kept = (1 - share).toFloat()
    val gone = share.toFloat()
    for (i in 0 until LANDMARKS) {
        between[2 * i] = kept * last.pose.x(last.face, 3 * i) + gone * neutral.pose.x(neutral.face, 3 * i)
        between[2 * i + 1] = kept * last.pose.y(last.face, 3 * i) + gone * neutral.pose.y(neutral.face, 3 * i)
    }
    return takeApart(between, out)
}
