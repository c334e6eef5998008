package dev.mobilebilayer.core

/**
 * Landmarks of a live camera in, layers for the screen out. Three threads, each with its own end, and one slot between each two:
 * the latest frame wins, so that none waits longer than the one before it takes.
 *
 *     landmarks thread: see()  ->  network thread: step() or run()  ->  GL thread: show()
 *
 * Nothing is allocated for a frame. [pause], [resume], [restart] and [close] may come from any thread, at any time: a frame is asked
 * whether it still counts at each of the three ends, and once more behind the network.
 */
class LivePipeline(
    private val avatar: Avatar,
    private val network: FrameNetwork,
    private val mode: Mode = Mode.RELATIVE,
    config: StabilizerConfig = avatar.bundle.manifest.stabilizer,
) : AutoCloseable {
    private class Seen {
        val landmarks = FloatArray(3 * LANDMARKS)
        var found = false
        var capturedNs = 0L
    }

    private val clock = FrameClock()
    private val seen = LatestFrame(Seen(), Seen(), Seen())
    private val drawn = avatar.bundle.manifest.let { LatestFrame(Layers(it), Layers(it), Layers(it)) }
    private val follower = Follower(config)
    private var renderer: Renderer? = null

    private val asking = Any() // a lock: what is asked comes with the time from which frames count
    private var asked = Asked.NOTHING

    @Volatile
    private var closed = false

    /** What pause and the like ask of the network's thread. */
    private enum class Asked { NOTHING, RESUME, RESTART }

    /** When the camera took the frame of the latest layers: what is left to now is how late they are. */
    @Volatile
    var drawnNs = Long.MIN_VALUE
        private set

    /** How long the latest layers took from their landmarks on, without waiting for these. For the network thread. */
    var tookNs = 0L
        private set

    /** Frames that a newer one overtook before the network, and before the screen. */
    val dropped: Long get() = seen.dropped + drawn.dropped

    /** Frames that were out of order, or from before a pause or restart. */
    val refused: Long get() = clock.refused

    /**
     * The landmarks thread: what was found in a frame.
     *
     * [landmarks] 478 x 3 in pixels of the upright picture that is not mirrored, copied; null where no face was found
     * [capturedNs] when the camera took it: see [FrameClock]
     */
    fun see(landmarks: FloatArray?, capturedNs: Long) {
        if (landmarks != null) {
            checkLandmarks(landmarks)
            if (dimensions(landmarks) != 3) {
                throw MobileBilayerError("Live landmarks have 2 numbers each; 3 are needed. Take MediaPipe's own.")
            }
        }
        if (!clock.admit(capturedNs)) return
        val into = seen.writing
        landmarks?.copyInto(into.landmarks)
        into.found = landmarks != null
        into.capturedNs = capturedNs
        seen.publish()
    }

    /**
     * The network thread: the latest frame, if there is one that was not done yet. Returns whether there are new layers.
     *
     * [waitNs] how long to wait for a frame
     */
    fun step(waitNs: Long = 0): Boolean {
        if (closed) return false
        val frame = (if (waitNs > 0) seen.await(waitNs) else seen.take()) ?: return false
        val beganNs = System.nanoTime()
        val wanted = synchronized(asking) {
            if (!clock.isCurrent(frame.capturedNs)) return false
            asked.also { asked = Asked.NOTHING }
        }
        when (wanted) {
            Asked.RESUME -> follower.resume()
            Asked.RESTART -> follower.reset()
            Asked.NOTHING -> {}
        }
        val motion = follower.follow(if (frame.found) frame.landmarks else null, clock.seconds(frame.capturedNs)) ?: return false
        val neutral = follower.neutral ?: return false
        val renderer = renderer?.also { it.setNeutral(neutral) } ?: Renderer(avatar, network, neutral, mode).also { renderer = it }
        val layers = drawn.writing
        try {
            renderer.layers(renderer.move(motion), layers)
        } catch (refused: MobileBilayerError) {
            if (closed) return false // between two lines of ours
            throw refused
        }
        layers.capturedNs = frame.capturedNs
        layers.lost = !frame.found
        if (closed || !clock.isCurrent(frame.capturedNs)) return false
        drawnNs = frame.capturedNs
        tookNs = System.nanoTime() - beganNs
        drawn.publish()
        return true
    }

    /** The GL thread: new layers, or null to show again what is on the screen. They may be read until the next call. */
    fun show(): Layers? {
        val layers = drawn.take() ?: return null
        return layers.takeIf { clock.isCurrent(it.capturedNs) }
    }

    /** The app left the screen: no frame counts until [resume]. */
    fun pause() = clock.pause()

    /** Go on with what is neutral; only frames taken from [nowNs] on count. */
    fun resume(nowNs: Long = System.nanoTime()) {
        synchronized(asking) {
            if (asked != Asked.RESTART) asked = Asked.RESUME
            clock.resume(nowNs)
        }
    }

    /** The picture turned, or comes from another camera: what is neutral is found anew, in frames taken from [nowNs] on. */
    fun restart(nowNs: Long = System.nanoTime()) {
        synchronized(asking) {
            asked = Asked.RESTART
            clock.restart(nowNs)
        }
    }

    /** No frame is begun any more; waits for the one in the network, and closes it. */
    override fun close() {
        closed = true
        pause()
        network.close()
    }
}
