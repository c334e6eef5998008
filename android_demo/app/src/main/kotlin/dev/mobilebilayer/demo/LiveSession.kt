package dev.mobilebilayer.demo

import android.content.Context
import dev.mobilebilayer.core.Avatar
import dev.mobilebilayer.core.FramePacer
import dev.mobilebilayer.core.FrameRate
import dev.mobilebilayer.core.Layers
import dev.mobilebilayer.core.LivePipeline
import dev.mobilebilayer.core.StageTimes
import dev.mobilebilayer.core.Statistics
import dev.mobilebilayer.core.YuvConverter
import dev.mobilebilayer.core.YuvImage
import kotlin.concurrent.thread

/** Times of one stage: [add] is for the stage's thread alone, [recentMs] may be read by any, [statistics] once all is closed. */
class Meter {
    private val times = StageTimes()

    @Volatile
    var recentMs = 0.0
        private set

    @Volatile
    var measuring = false

    fun add(ms: Double) {
        recentMs += (if (recentMs == 0.0) 1.0 else 0.1) * (ms - recentMs)
        if (measuring) times.add(ms)
    }

    /** Null where nothing was measured. */
    fun statistics(): Statistics? = if (times.count > 0) times.statistics() else null
}

/**
 * One avatar driven live, from camera frames to what the screen draws. Each thread has its own part:
 *
 *     camera: frame()  ->  MediaPipe's: landmarks  ->  network  ->  GL: pipeline.show(), drawn()
 *
 * [onLayers] says on the network's thread that there is something to draw; [onError] may come from any.
 */
class LiveSession(
    context: Context,
    val avatar: Avatar,
    private val onLayers: () -> Unit,
    private val onError: (Exception) -> Unit,
) : AutoCloseable {
    val camera = Meter()
    val landmarks = Meter()
    val network = Meter()
    val execute = Meter() // of it, the runtime alone
    val composite = Meter()
    val whole = Meter()
    val pacer = FramePacer()
    val pipeline = LivePipeline(avatar, Models.network(context, execute::add))

    /** Of frames on the screen, since [measure]; for the GL thread, and others once all is closed. */
    val rate = FrameRate()

    /** When the camera's latest frame came; long ago where another app has the camera. */
    @Volatile
    var latestFrameNs = 0L
        private set

    /** Frames that reached the screen. */
    @Volatile
    var frames = 0
        private set

    @Volatile
    var lost = false
        private set

    /** What the first frame took, as [whole]; null until then. */
    @Volatile
    var firstFrameMs: Double? = null
        private set

    private val converter = YuvConverter()
    private val tracker = try {
        FaceTracker(context, ::see, onError)
    } catch (error: Exception) {
        pipeline.close()
        throw error
    }

    @Volatile
    private var closed = false

    private val networkThread = thread(name = "network") {
        try {
            while (!closed) {
                if (!pipeline.step(WAIT_NS)) continue
                network.add(pipeline.tookNs / 1e6)
                onLayers()
            }
        } catch (error: Exception) {
            if (!closed) onError(error)
        }
    }

    /**
     * The camera's thread: one frame, to be turned clockwise by [rotation] degrees. [converted] is called as soon as the frame's memory
     * is no longer needed, whatever happens.
     */
    fun frame(image: YuvImage, rotation: Int, capturedNs: Long, converted: () -> Unit = {}) {
        val picture = try {
            val began = System.nanoTime()
            latestFrameNs = began
            if (closed || !pacer.admit(capturedNs)) return
            converter.toRgba(image, rotation).also { camera.add((System.nanoTime() - began) / 1e6) }
        } finally {
            converted()
        }
        tracker.look(picture, capturedNs)
    }

    private fun see(points: FloatArray?, capturedNs: Long, tookMs: Double) {
        landmarks.add(tookMs)
        pipeline.see(points, capturedNs)
    }

    /** The GL thread: [layers] were drawn, from [beganNs] on. */
    fun drawn(layers: Layers, beganNs: Long) {
        val nowNs = System.nanoTime()
        composite.add((nowNs - beganNs) / 1e6)
        whole.add((nowNs - layers.capturedNs) / 1e6)
        if (whole.measuring) rate.shown(nowNs)
        lost = layers.lost
        if (frames++ == 0) firstFrameMs = (nowNs - layers.capturedNs) / 1e6
    }

    /** From now on times are kept: what came before was to warm up. */
    fun measure() = listOf(camera, landmarks, network, execute, composite, whole).forEach { it.measuring = true }

    /** Not for the main thread: it waits for the frame in the network, and for the one that MediaPipe looks at. */
    override fun close() {
        closed = true
        pipeline.close()
        networkThread.join()
        tracker.close()
    }

    private companion object {
        const val WAIT_NS = 100_000_000L
    }
}
