package dev.mobilebilayer.core

/**
 * When a camera took a frame, by `System.nanoTime()`: the frame's own stamp if it is of that clock, else the time it arrived at.
 * Decided once, by the first frame: both in one run would go back in time. For one thread, and one camera.
 */
class CaptureClock {
    private var ownStamps: Boolean? = null

    fun capturedNs(stampNs: Long, arrivedNs: Long): Long {
        val own = ownStamps ?: (arrivedNs - stampNs in 0..LATEST_NS).also { ownStamps = it }
        // A stamp ahead of now would make all later frames look old.
        return if (own) minOf(stampNs, arrivedNs) else arrivedNs
    }

    private companion object {
        const val LATEST_NS = 500_000_000L // no camera is later; clocks that differ do so by a night's sleep
    }
}
