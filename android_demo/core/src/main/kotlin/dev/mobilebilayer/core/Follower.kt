package dev.mobilebilayer.core

import kotlin.math.max
import kotlin.math.min

/**
 * A live driver's motion, frame by frame, and its neutral. No frame allocates; for one thread.
 *
 * The first face seen is the neutral one, and becomes a better one while it goes on. While the face is lost its last motion is
 * held and then eased to the neutral one: see [easeToNeutral].
 */
class Follower(config: StabilizerConfig = StabilizerConfig()) {
    private val stabilizer = Stabilizer(config)
    private val finder = Neutral(live = true)
    private val read = Motion()
    private val eased = Motion()
    private val between = FloatArray(2 * LANDMARKS)
    private var motion: Motion? = null
    private var timeS = 0.0
    private var seenS = 0.0

    /** What means "as in the photo"; null until there was a face. */
    var neutral: Motion? = null
        private set

    /** Whether the last frame had no face. */
    var lost: Boolean = true
        private set

    /**
     * The motion of a frame, or null until there was a face. It lies in a buffer that the next call fills anew.
     *
     * [landmarks] 478 points of 2 or 3 numbers in pixels of the upright picture, checked; null where no face was found
     * [timeS] seconds, growing
     */
    fun follow(landmarks: FloatArray?, timeS: Double): Motion? {
        val stepS = timeS - this.timeS
        this.timeS = timeS
        lost = landmarks == null
        if (landmarks == null) {
            stabilizer.reset()
            return easeToNeutral(motion ?: return null, neutral ?: return null, timeS - seenS, eased, between)
        }
        seenS = timeS
        val steady = stabilizer.stabilize(takeApart(landmarks, read), timeS)
        motion = steady
        finder.add(steady, min(max(stepS, 1e-3), 1.0))
        neutral = finder.motion()
        return steady
    }

    /** After a pause: the next face drives at once, with the neutral that is known. */
    fun resume() = stabilizer.reset()

    /** After the picture turned, or another camera or person: all begins anew. */
    fun reset() {
        stabilizer.reset()
        finder.reset()
        motion = null
        neutral = null
        lost = true
    }
}
