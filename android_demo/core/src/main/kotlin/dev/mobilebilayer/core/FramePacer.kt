package dev.mobilebilayer.core

/**
 * Fewer frames while the phone is hot: it lowers the rate rather than stalls. Nothing is allocated; [admit] is for one thread.
 *
 * What a phone says of its heat is Android's PowerManager.THERMAL_STATUS: 0 (none) to 6 (shutdown), -1 where it does not tell.
 */
class FramePacer {
    /** As the phone says; from any thread. */
    @Volatile
    var heat = UNKNOWN

    private var nextNs = Long.MIN_VALUE

    /** Frames that were left out to cool down. */
    var spared = 0L
        private set

    /** Whether a frame is to be looked at. */
    fun admit(capturedNs: Long): Boolean {
        val periodNs = 1_000_000_000L / (mostFps(heat) ?: return true.also { nextNs = Long.MIN_VALUE })
        // A camera's frames don't come evenly: one that is a little early counts, and the next is not later for it.
        if (nextNs != Long.MIN_VALUE && capturedNs < nextNs - periodNs / 4) {
            spared++
            return false
        }
        if (nextNs == Long.MIN_VALUE || capturedNs > nextNs + periodNs) nextNs = capturedNs // the first one, also after a pause
        nextNs += periodNs
        return true
    }

    companion object {
        const val UNKNOWN = -1
        private val NAMES = listOf("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")

        /** How many frames a second are looked at, at such a heat; null is all. */
        fun mostFps(heat: Int): Int? = when {
            heat < 2 -> null
            heat == 2 -> 20
            heat == 3 -> 15
            else -> 10
        }

        /** As results and people have it. */
        fun name(heat: Int): String = NAMES.getOrElse(heat) { "unknown" }
    }
}
