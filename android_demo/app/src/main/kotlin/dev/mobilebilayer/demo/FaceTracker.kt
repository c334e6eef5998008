package dev.mobilebilayer.demo

import android.content.Context
import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Color
import com.google.mediapipe.framework.image.BitmapImageBuilder
import com.google.mediapipe.tasks.components.containers.NormalizedLandmark
import com.google.mediapipe.tasks.core.BaseOptions
import com.google.mediapipe.tasks.vision.core.RunningMode
import com.google.mediapipe.tasks.vision.facelandmarker.FaceLandmarker
import com.google.mediapipe.tasks.vision.facelandmarker.FaceLandmarkerResult
import dev.mobilebilayer.core.FaceWindow
import dev.mobilebilayer.core.LANDMARKS
import dev.mobilebilayer.core.MobileBilayerError
import dev.mobilebilayer.core.RgbaImage
import dev.mobilebilayer.core.findFace
import dev.mobilebilayer.core.inPixels
import java.nio.ByteBuffer
import java.util.concurrent.Semaphore
import java.util.concurrent.TimeUnit

private const val MODEL = "face_landmarker.task"
private const val FACES = 4 // in a photo, the largest of which counts

/**
 * MediaPipe's face landmarker on a live stream: pictures in by [look], on the camera's thread, and landmarks out on MediaPipe's own.
 *
 * One picture is looked at at a time, and [look] waits for it: meanwhile the camera keeps the latest frame only, and the picture's
 * memory is used again. [close] waits too, and nothing is looked at after it.
 *
 * [onFace] landmarks 478 x 3 in pixels of the picture, in an array that is used again, or null; when it was captured; how many ms it took
 */
class FaceTracker(
    private val context: Context,
    private val onFace: (landmarks: FloatArray?, capturedNs: Long, tookMs: Double) -> Unit,
    private val onError: (Exception) -> Unit,
) : AutoCloseable {
    private val done = Semaphore(0)
    private val points = FloatArray(3 * LANDMARKS)
    private var bitmap = Bitmap.createBitmap(1, 1, Bitmap.Config.ARGB_8888)
    private var bytes = ByteBuffer.wrap(ByteArray(4))
    private var stampMs = 0L
    private var closed = false

    @Volatile
    private var capturedNs = 0L

    @Volatile
    private var beganNs = 0L

    private val landmarker = landmarker(context) { options ->
        options.setRunningMode(RunningMode.LIVE_STREAM)
            .setNumFaces(1)
            .setResultListener { result, _ -> found(result) }
            .setErrorListener { error ->
                onError(MobileBilayerError(context.getString(R.string.landmarks_failed, error.message), error))
                done.release()
            }
    }

    /** Look for a face in an upright picture that is not mirrored, and wait until that is done. */
    fun look(picture: RgbaImage, capturedNs: Long) {
        synchronized(this) {
            if (closed) return
            if (bitmap.width != picture.width || bitmap.height != picture.height) {
                bitmap = Bitmap.createBitmap(picture.width, picture.height, Bitmap.Config.ARGB_8888)
            }
            if (bytes.array() !== picture.pixels) bytes = ByteBuffer.wrap(picture.pixels)
            bytes.rewind()
            bitmap.copyPixelsFromBuffer(bytes)
            this.capturedNs = capturedNs
            beganNs = System.nanoTime()
            stampMs = maxOf(stampMs + 1, capturedNs / 1_000_000) // MediaPipe asks that it grows
            done.drainPermits()
            try {
                landmarker.detectAsync(BitmapImageBuilder(bitmap).build(), stampMs) // not to be closed: that would free the bitmap
            } catch (error: RuntimeException) {
                throw MobileBilayerError(context.getString(R.string.landmarks_failed, error.message), error)
            }
        }
        done.tryAcquire(1, TimeUnit.SECONDS) // a picture that MediaPipe passed over is not waited for long
    }

    private fun found(result: FaceLandmarkerResult) {
        try {
            val face = result.faceLandmarks().firstOrNull()
            val tookMs = (System.nanoTime() - beganNs) / 1e6
            onFace(face?.let { points(context, it, bitmap.width, bitmap.height, points) }, capturedNs, tookMs)
        } catch (error: Exception) {
            onError(error)
        } finally {
            done.release()
        }
    }

    override fun close() = synchronized(this) {
        if (!closed) {
            closed = true
            landmarker.close()
        }
    }

    companion object {
        /**
         * Landmarks, 478 x 3 in pixels, of the largest face in a photo, or null; where a face is hard to find, as core's [findFace] does.
         * Takes some tenths of a second, seconds where there is none.
         */
        fun find(context: Context, photo: Bitmap): FloatArray? =
            landmarker(context) { it.setRunningMode(RunningMode.IMAGE).setNumFaces(FACES) }.use { landmarker ->
                findFace(photo.width, photo.height) { window ->
                    val part = cut(photo, window)
                    try {
                        landmarker.detect(BitmapImageBuilder(part).build()).faceLandmarks()
                            .map { points(context, it, part.width, part.height, FloatArray(3 * LANDMARKS)) }
                    } catch (error: RuntimeException) {
                        throw MobileBilayerError(context.getString(R.string.landmarks_failed, error.message), error)
                    } finally {
                        if (part !== photo) part.recycle()
                    }
                }
            }

        private fun cut(photo: Bitmap, window: FaceWindow): Bitmap {
            if (window.width == photo.width && window.height == photo.height) return photo
            val part = Bitmap.createBitmap(window.width, window.height, Bitmap.Config.ARGB_8888)
            val canvas = Canvas(part)
            canvas.drawColor(Color.BLACK)
            canvas.drawBitmap(photo, -window.left.toFloat(), -window.top.toFloat(), null)
            return part
        }

        private fun points(context: Context, face: List<NormalizedLandmark>, width: Int, height: Int, out: FloatArray): FloatArray {
            if (face.size != LANDMARKS) {
                throw MobileBilayerError(context.getString(R.string.other_landmarker, MODEL, face.size, LANDMARKS))
            }
            for (i in 0 until LANDMARKS) {
                out[3 * i] = face[i].x()
                out[3 * i + 1] = face[i].y()
                out[3 * i + 2] = face[i].z()
            }
            return inPixels(out, width, height, out)
        }

        private fun landmarker(
            context: Context,
            with: (FaceLandmarker.FaceLandmarkerOptions.Builder) -> Unit,
        ): FaceLandmarker = try {
            val options = FaceLandmarker.FaceLandmarkerOptions.builder()
                .setBaseOptions(BaseOptions.builder().setModelAssetPath(MODEL).build())
            with(options)
            FaceLandmarker.createFromOptions(context, options.build())
        } catch (error: RuntimeException) {
            if (asset(context, MODEL) == null) {
                throw MobileBilayerError(context.getString(R.string.asset_missing, MODEL), error)
            }
            throw MobileBilayerError(context.getString(R.string.landmarks_failed, error.message), error)
        }
    }
}
