package dev.mobilebilayer.core

import kotlin.math.PI
import kotlin.math.abs
import kotlin.math.sqrt

// Landmarks tremble and people move: a One-Euro filter that tells them apart, part by part of a head taken apart. Units are those
// of the face's template, so one setting suits every size of picture, and times are the frames' own, so it suits every rate.

internal const val REACH = 3 // frames to each side

/** A [Smoothing.kernel] that leaves a frame as it is. */
val ALONE: List<Double> = listOf(0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)

/**
 * How one part is smoothed.
 *
 * [restHz] cut-off when nothing moves: lower is calmer
 * [speedHz] by how much the cut-off rises for each template unit (distance of the outer eye corners) a second
 * [newest] weight of the newest frame as it was read; the one before it has the rest
 * [kernel] of a file: weights of three frames before, this one and three behind. Live, nothing is behind: it is not used
 */
data class Smoothing(val restHz: Double, val speedHz: Double, val newest: Double = 1.0, val kernel: List<Double> = ALONE) {
    init {
        if (!(restHz > 0 && restHz.isFinite() && speedHz >= 0 && speedHz.isFinite() && newest > 0 && newest <= 1)) {
            throw MobileBilayerError(
                "A smoothing has rest_hz $restHz, speed_hz $speedHz and newest $newest; the first must be above 0, the second not " +
                    "below, the third in 0..1. Try 2, 40 and 0.7.",
            )
        }
        if (kernel.size != 2 * REACH + 1 || abs(kernel.sum() - 1) > 1e-6) {
            throw MobileBilayerError(
                "A kernel has ${kernel.size} weights and adds up to ${kernel.sum()}; ${2 * REACH + 1} weights that add up to 1 are " +
                    "needed. Try 0, 0, 0.25, 0.5, 0.25, 0, 0.",
            )
        }
    }
}

/** Smoothing of each part, live unless said otherwise; a pause longer than [gapS] seconds starts anew. */
data class StabilizerConfig(
    val pose: Smoothing = Smoothing(2.0, 12.0, 0.5),
    val skin: Smoothing = Smoothing(1.0, 25.0, 0.5),
    val brows: Smoothing = Smoothing(1.0, 60.0, 0.5),
    val mouth: Smoothing = Smoothing(6.0, 16.0, 0.5),
    val lids: Smoothing = Smoothing(2.0, 80.0, 0.7),
    val gaze: Smoothing = Smoothing(1.0, 60.0, 0.55),
    val gapS: Double = 0.5,
) {
    init {
        if (!(gapS > 0 && gapS.isFinite())) {
            throw MobileBilayerError("A stabiliser's gap_s is $gapS; it must be above 0. Try 0.5.")
        }
    }

    /** Of each part: skin, brows, mouth, right and left lids, right and left gaze. */
    internal val parts: List<Smoothing> get() = listOf(skin, brows, mouth, lids, lids, gaze, gaze)
}

/**
 * Which part each of the 478 landmarks belongs to: 0 skin, 1 brows, 2 mouth, chin and jaw, 3 and 4 lids, 5 and 6 gaze; the
 * person's right eye before the left one.
 */
fun parts(): IntArray {
    val template = faceTemplate().points
    val out = IntArray(LANDMARKS) { if (template[3 * it + 1] > 0.17f) 2 else 0 } // from the upper lip down
    for (brow in BROWS) for (i in brow) out[i] = 1
    for (side in 0..1) {
        for (i in UPPER_LIDS[side] + LOWER_LIDS[side]) out[i] = 3 + side
        for (i in IRISES[side]) out[i] = 5 + side
    }
    return out
}

/** How much of the way to the new value is gone at this [speed], in a step of so many seconds: above 0, below 1. */
fun share(speed: Double, stepS: Double, restHz: Double, speedHz: Double): Double {
    val turns = 2 * PI * stepS * (restHz + speedHz * speed)
    return turns / (1 + turns)
}

/**
 * Frame by frame, live: `stabilizer.stabilize(motion, timeS)`. No frame allocates.
 *
 * The newest frame is first joined with the one before it, which takes what trembles from frame to frame and is late by half of
 * one. It starts anew by [reset], as after a lost face, and by itself after a pause or when time goes backwards.
 */
class Stabilizer(val config: StabilizerConfig = StabilizerConfig()) {
    private val parts = parts()
    private val smoothings = config.parts.toTypedArray()
    private val counts = IntArray(smoothings.size) { part -> parts.count { it == part } }
    private val last = Motion()
    private val read = Motion()
    private val numbers = DoubleArray(8)
    private val numbersBefore = DoubleArray(8)
    private val was = DoubleArray(8)
    private val speeds = DoubleArray(smoothings.size)
    private val change = DoubleArray(3 * LANDMARKS)
    private var fresh = true
    private var timeS = 0.0

    /** The next frame is given out as it is. */
    fun reset() {
        fresh = true
    }

    /** The [motion], calmer, in a buffer of this object that the next call fills anew. Times are seconds, and grow. */
    fun stabilize(motion: Motion, timeS: Double): Motion {
        val stepS = timeS - this.timeS
        this.timeS = timeS
        if (fresh || !(stepS > 0 && stepS <= config.gapS)) {
            fresh = false
            last.set(motion)
            numbersOf(motion.pose, numbersBefore)
        } else {
            stepPose(motion.pose, stepS)
            stepFace(motion.face, stepS)
        }
        read.set(motion)
        return last
    }

    private fun stepPose(pose: HeadPose, stepS: Double) {
        val smoothing = config.pose
        numbersOf(last.pose, was)
        numbersOf(pose, numbers)
        var turned = 0.0
        var shifted = 0.0
        for (i in 0..7) {
            val step = numbersBefore[i] + smoothing.newest * (numbers[i] - numbersBefore[i]) - was[i]
            numbersBefore[i] = numbers[i]
            numbers[i] = step
            if (i < 6) turned += step * step else shifted += step * step
        }
        // Points of a head lie half a unit from its middle, on average.
        val far = sqrt(turned / 4 + shifted) / last.pose.scale
        val part = share(far / stepS, stepS, smoothing.restHz, smoothing.speedHz)
        for (i in 0..7) was[i] += part * numbers[i]
        poseOf(was, last.pose)
    }

    private fun stepFace(face: DoubleArray, stepS: Double) {
        speeds.fill(0.0)
        for (i in 0 until LANDMARKS) {
            val part = parts[i]
            val newest = smoothings[part].newest
            for (k in 3 * i..3 * i + 2) {
                val step = (face[k] - read.face[k]) * newest + read.face[k] - last.face[k]
                change[k] = step
                speeds[part] += step * step
            }
        }
        for (part in speeds.indices) {
            val speed = sqrt(speeds[part] / counts[part]) / stepS
            speeds[part] = share(speed, stepS, smoothings[part].restHz, smoothings[part].speedHz)
        }
        for (i in 0 until LANDMARKS) {
            for (k in 3 * i..3 * i + 2) last.face[k] += speeds[parts[i]] * change[k]
        }
    }
}

/** The two rows that take a face to its picture, and the shift: eight numbers that may be added and weighted. */
internal fun numbersOf(pose: HeadPose, out: DoubleArray) {
    for (i in 0..5) out[i] = pose.scale * pose.rotation[i]
    out[6] = pose.shift[0]
    out[7] = pose.shift[1]
}

/** The pose nearest to such numbers; they are changed. */
internal fun poseOf(numbers: DoubleArray, out: HeadPose) {
    out.shift[0] = numbers[6]
    out.shift[1] = numbers[7]
    out.scale = nearestRows(numbers)
    out.setRows(numbers)
}
