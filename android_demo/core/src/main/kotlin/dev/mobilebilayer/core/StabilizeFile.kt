package dev.mobilebilayer.core

import kotlin.math.max
import kotlin.math.min

// A whole clip, with the frames behind at hand: for a recorded driver, not for a camera. It may allocate.

private val WIDE = listOf(1.0, 6.0, 15.0, 20.0, 15.0, 6.0, 1.0).map { it / 64 }
private val NARROW = listOf(0.0, 1.0, 8.0, 14.0, 8.0, 1.0, 0.0).map { it / 32 }
private val SHARP = listOf(0.0, -0.05, 0.25, 0.6, 0.25, -0.05, 0.0)

// Kernels are for frames that are so many seconds or less apart; from there to the second they fade, for that is motion.
private const val KERNEL_S = 1.0 / 24
private const val NO_KERNEL_S = 1.0 / 10
private const val BLOCK = 256 // frames at once
private const val BEHIND = 64 // and how many more the way back begins from

/** For files: kernels have taken what trembles, so that faster motion may pass. */
val FILE: StabilizerConfig = StabilizerConfig(
    pose = Smoothing(2.0, 20.0, kernel = WIDE),
    skin = Smoothing(1.0, 40.0, kernel = WIDE),
    brows = Smoothing(1.0, 60.0, kernel = NARROW),
    mouth = Smoothing(3.0, 120.0, kernel = NARROW),
    lids = Smoothing(2.0, 80.0, kernel = SHARP),
    gaze = Smoothing(1.0, 60.0, kernel = SHARP),
)

/**
 * A whole [track]: nothing comes late, and fast motion keeps most of its height. One motion a frame, each of its own.
 *
 * Where no face was found, landmarks are only taken apart; what comes behind starts anew. Each frame is first joined with its
 * neighbours by the kernel of each part; then the One-Euro filter goes once forwards and, from there, backwards.
 */
fun stabilize(track: Track, config: StabilizerConfig = FILE): Sequence<Motion> = sequence {
    val times = track.timesS
    var first = 0
    while (first < times.size) {
        // Frames that go together: all with a face and no gap between, or all without a face.
        var last = first + 1
        while (last < times.size && track.found[last] == track.found[first] && times[last] - times[last - 1] <= config.gapS) last++
        val frames = Array(last - first) { track.landmarks[first + it] }
        if (track.found[first]) {
            yieldAll(calm(frames, times.copyOfRange(first, last), config))
        } else {
            for (landmarks in frames) yield(takeApart(landmarks))
        }
        first = last
    }
}

private fun calm(landmarks: Array<FloatArray>, times: DoubleArray, config: StabilizerConfig): Sequence<Motion> = sequence {
    val forwards = Stabilizer(config)
    val backwards = Stabilizer(config)
    val ready = ArrayList<Motion>()
    for (start in times.indices step BLOCK) {
        val stop = min(start + BLOCK, times.size)
        for (i in start + ready.size until min(stop + BEHIND, times.size)) {
            ready += copyOf(forwards.stabilize(blend(landmarks, times, i, config), times[i]))
        }
        backwards.reset()
        val block = ready.indices.reversed().map { copyOf(backwards.stabilize(ready[it], -times[start + it])) }.reversed()
        yieldAll(block.take(stop - start))
        ready.subList(0, stop - start).clear()
    }
}

private fun copyOf(motion: Motion) = Motion().also { it.set(motion) }

/** A frame joined with its neighbours; the first and the last frame of all stand for those that are missing. */
private fun blend(landmarks: Array<FloatArray>, times: DoubleArray, i: Int, config: StabilizerConfig): Motion {
    val last = times.size - 1
    val (before, behind) = max(i - 1, 0) to min(i + 1, last)
    val stepS = (times[behind] - times[before]) / max(behind - before, 1)
    val part = min(max((NO_KERNEL_S - stepS) / (NO_KERNEL_S - KERNEL_S), 0.0), 1.0)
    val whose = parts()
    val kernels = config.parts.map { it.kernel }
    val out = Motion().also { it.face.fill(0.0) }
    val joined = DoubleArray(8)
    val numbers = DoubleArray(8)
    for (k in 0..2 * REACH) {
        val near = takeApart(landmarks[(i + k - REACH).coerceIn(0, last)])
        val alone = ALONE[k] * (1 - part) // where frames are far apart, kernels fade to this
        numbersOf(near.pose, numbers)
        for (n in joined.indices) joined[n] += (part * config.pose.kernel[k] + alone) * numbers[n]
        for (n in out.face.indices) out.face[n] += (part * kernels[whose[n / 3]][k] + alone) * near.face[n]
    }
    poseOf(joined, out.pose)
    return out
}
