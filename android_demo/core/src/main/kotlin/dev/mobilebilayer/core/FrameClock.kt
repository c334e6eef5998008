package dev.mobilebilayer.core

/**
 * Which frames count, by when the camera took them: none twice, none older than one that was let through, and none from before a
 * pause, a rotation or a change of camera. Safe from any thread.
 *
 * All times are of one clock, in nanoseconds: take a frame's own only if the camera's clock is `System.nanoTime()`'s
 * (SENSOR_INFO_TIMESTAMP_SOURCE_UNKNOWN mostly is), else the time it arrived at.
 */
class FrameClock {
    private var firstNs = NEVER
    private var lastNs = NEVER
    private var sinceNs = NEVER

    /** Whether frames count at all. */
    @get:Synchronized
    var paused = false
        private set

    /** Frames that did not count. */
    @get:Synchronized
    var refused = 0L
        private set

    /** Whether a frame counts; if so, later ones must be newer. */
    @Synchronized
    fun admit(capturedNs: Long): Boolean {
        val good = isCurrent(capturedNs) && capturedNs > lastNs
        if (good) {
            lastNs = capturedNs
            if (firstNs == NEVER) firstNs = capturedNs
        } else {
            refused++
        }
        return good
    }

    /** Whether a frame that was let through still may be shown. */
    @Synchronized
    fun isCurrent(capturedNs: Long): Boolean = !paused && capturedNs >= sinceNs

    /** Seconds since the first frame that counted; they go on in a pause. */
    @Synchronized
    fun seconds(capturedNs: Long): Double = (capturedNs - firstNs) / 1e9

    /** From now on no frame counts. */
    @Synchronized
    fun pause() {
        paused = true
    }

    /** Frames taken from [nowNs] on count again. */
    @Synchronized
    fun resume(nowNs: Long) {
        paused = false
        sinceNs = nowNs
    }

    /** Frames taken before [nowNs] count no more; a pause goes on. */
    @Synchronized
    fun restart(nowNs: Long) {
        sinceNs = nowNs
    }

    private companion object {
        const val NEVER = Long.MIN_VALUE
    }
}
