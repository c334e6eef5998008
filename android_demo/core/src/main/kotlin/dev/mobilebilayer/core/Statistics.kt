package dev.mobilebilayer.core

import kotlin.math.floor
import kotlin.math.sqrt

/**
 * What many measured times come to: percentiles between the neighbours, linearly, as NumPy has them; [cv] is the standard deviation
 * (of a sample) over the mean. In the unit of the times.
 */
data class Statistics(val count: Int, val mean: Double, val p50: Double, val p90: Double, val p99: Double, val cv: Double) {
    companion object {
        /** Of the first [count] of [times]; there must be one at least. */
        fun of(times: DoubleArray, count: Int = times.size): Statistics {
            if (count < 1) throw MobileBilayerError("Statistics of no measurement were asked for. Measure longer.")
            val sorted = times.copyOf(count).also { it.sort() }
            val mean = sorted.sum() / count
            val spread = if (count > 1) sqrt(sorted.sumOf { (it - mean) * (it - mean) } / (count - 1)) else 0.0
            fun percentile(share: Double): Double {
                val place = share * (count - 1)
                val low = floor(place).toInt()
                val high = minOf(low + 1, count - 1)
                return sorted[low] + (place - low) * (sorted[high] - sorted[low])
            }
            return Statistics(count, mean, percentile(0.5), percentile(0.9), percentile(0.99), if (mean > 0) spread / mean else 0.0)
        }
    }
}

/** Times of one stage while they come, without allocating; beyond [capacity] the oldest are forgotten. For one thread. */
class StageTimes(capacity: Int = 40_000) {
    private val timesMs = DoubleArray(capacity)
    private var next = 0
    private var total = 0L

    /** How many there are to look at. */
    val count: Int get() = minOf(total, timesMs.size.toLong()).toInt()

    fun add(ms: Double) {
        timesMs[next] = ms
        next = (next + 1) % timesMs.size
        total++
    }

    /** In ms. Raises [MobileBilayerError] if there are none. */
    fun statistics(): Statistics = Statistics.of(timesMs, count)
}

/** Frames that reached the screen, and how many a second; nothing is allocated. For one thread. */
class FrameRate(private val seconds: Int = 3600) {
    private val perSecond = IntArray(seconds)
    private var firstNs = 0L
    private var lastNs = 0L

    /** Frames shown. */
    var frames = 0
        private set

    fun shown(nowNs: Long) {
        if (frames == 0) firstNs = nowNs
        lastNs = nowNs
        frames++
        val second = (nowNs - firstNs) / 1_000_000_000
        if (second < seconds) perSecond[second.toInt()]++
    }

    /** Of whole frames, from the first to the last one; 0 for fewer than two. */
    val fps: Double get() = if (lastNs > firstNs) (frames - 1) * 1e9 / (lastNs - firstNs) else 0.0

    /** Frames in each whole second since the first. */
    fun overTime(): List<Int> = perSecond.take(((lastNs - firstNs) / 1_000_000_000).toInt().coerceAtMost(seconds))
}
