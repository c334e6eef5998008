package dev.mobilebilayer.demo

import android.content.Context
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import dev.mobilebilayer.core.MobileBilayerError
import dev.mobilebilayer.core.YuvImage
import java.util.concurrent.locks.LockSupport
import kotlin.concurrent.thread
import kotlin.math.roundToInt
import kotlin.math.sin

/**
 * In place of a camera, for benchmarks: a portrait of the app's that moves, as frames of 640 x 480 at 30 a second. A frame whose time
 * comes while the one before it is looked at is left out, as a camera's would be.
 */
class PortraitSource(context: Context, private val session: LiveSession, onError: (Exception) -> Unit) : AutoCloseable {
    private val image: YuvImage = run {
        val name = "portraits/${Avatars.FIRST}.jpg"
        val content = asset(context, name) ?: throw MobileBilayerError(context.getString(R.string.asset_missing, name))
        val whole = BitmapFactory.decodeByteArray(content, 0, content.size)
            ?: throw MobileBilayerError(context.getString(R.string.asset_missing, name))
        val width = WIDTH + 2 * REACH
        val scaled = Bitmap.createScaledBitmap(whole, width, maxOf(whole.height * width / whole.width, HEIGHT + 2 * REACH), true)
        YuvImage.of(rgbOf(scaled))
    }

    @Volatile
    private var closed = false

    /** Frames whose time came, and those of them that were left out; of the source's thread, and others once it is closed. */
    var due = 0L
        private set
    var leftOut = 0L
        private set

    private val thread = thread(name = "camera") {
        try {
            frames()
        } catch (error: Exception) {
            if (!closed) onError(error)
        }
    }

    private fun frames() {
        var nextNs = System.nanoTime()
        while (!closed) {
            val place = REACH + REACH * sin(due * 0.15)
            val part = image.cropped(place.roundToInt() / 2 * 2, (2 * REACH - place).roundToInt() / 2 * 2, WIDTH, HEIGHT)
            session.frame(part, 0, nextNs)
            due++
            nextNs += PERIOD_NS
            while (nextNs + PERIOD_NS <= System.nanoTime()) { // the latest one that is due
                nextNs += PERIOD_NS
                due++
                leftOut++
            }
            while (!closed && System.nanoTime() < nextNs) LockSupport.parkNanos(nextNs - System.nanoTime())
        }
    }

    override fun close() {
        closed = true
        thread.join()
    }

    companion object {
        const val FPS = 30
        private const val WIDTH = 640
        private const val HEIGHT = 480
        private const val REACH = 20 // pixels to each side
        private const val PERIOD_NS = 1_000_000_000L / FPS
    }
}
