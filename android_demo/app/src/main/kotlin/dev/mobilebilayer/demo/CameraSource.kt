package dev.mobilebilayer.demo

import android.util.Size
import androidx.activity.ComponentActivity
import androidx.camera.core.CameraSelector
import androidx.camera.core.ImageAnalysis
import androidx.camera.core.ImageProxy
import androidx.camera.core.Preview
import androidx.camera.core.resolutionselector.ResolutionSelector
import androidx.camera.core.resolutionselector.ResolutionStrategy
import androidx.camera.lifecycle.ProcessCameraProvider
import androidx.camera.view.PreviewView
import androidx.core.content.ContextCompat
import dev.mobilebilayer.core.CaptureClock
import dev.mobilebilayer.core.Facing
import dev.mobilebilayer.core.MobileBilayerError
import dev.mobilebilayer.core.YuvImage
import dev.mobilebilayer.core.YuvPlane
import java.util.concurrent.Executors

/**
 * The phone's cameras, as CameraX gives them: frames on a thread of their own, the latest only. For the main thread.
 *
 * [view] shows the camera's picture, mirrored if it is the front one; what is looked at never is
 */
class CameraSource(
    private val activity: ComponentActivity,
    private val view: PreviewView,
    private val onError: (Exception) -> Unit,
) {
    private val thread = Executors.newSingleThreadExecutor { Thread(it, "camera") }
    private var provider: ProcessCameraProvider? = null
    private var analysis: ImageAnalysis? = null

    /** Who gets the frames, if anybody; read by the camera's thread. */
    @Volatile
    var session: LiveSession? = null

    var facing = Facing.FRONT
        private set

    val isOpen: Boolean get() = analysis != null

    /** Open the camera that looks that way, or the only one; it stops and starts with the activity. [opened] is told which. */
    fun open(facing: Facing, rotation: Int, opened: (Facing) -> Unit) {
        val coming = ProcessCameraProvider.getInstance(activity)
        coming.addListener(
            {
                attempt {
                    bind(coming.get(), facing, rotation)
                    opened(this.facing)
                }
            },
            ContextCompat.getMainExecutor(activity),
        )
    }

    /** Whether there is a camera that looks that way; false until one was opened. */
    fun has(facing: Facing): Boolean = provider?.let { attempt { it.hasCamera(selector(facing)) } } ?: false

    /** The display was turned: Surface.ROTATION_0 and so on. */
    fun turn(rotation: Int) {
        analysis?.setTargetRotation(rotation)
    }

    fun close() {
        analysis?.clearAnalyzer() // the camera itself closes with the activity
        thread.shutdown()
    }

    private fun bind(provider: ProcessCameraProvider, wanted: Facing, rotation: Int) {
        this.provider = provider
        val other = if (wanted == Facing.FRONT) Facing.BACK else Facing.FRONT
        facing = if (provider.hasCamera(selector(wanted))) wanted else other // tablets may have one only
        val size = ResolutionStrategy(Size(640, 480), ResolutionStrategy.FALLBACK_RULE_CLOSEST_HIGHER_THEN_LOWER)
        val analysis = ImageAnalysis.Builder()
            .setBackpressureStrategy(ImageAnalysis.STRATEGY_KEEP_ONLY_LATEST)
            .setOutputImageFormat(ImageAnalysis.OUTPUT_IMAGE_FORMAT_YUV_420_888)
            .setResolutionSelector(ResolutionSelector.Builder().setResolutionStrategy(size).build())
            .setTargetRotation(rotation)
            .build()
        val clock = CaptureClock()
        analysis.setAnalyzer(thread) { image -> analyze(image, clock) }
        val preview = Preview.Builder().build()
        preview.setSurfaceProvider(view.surfaceProvider)
        provider.unbindAll()
        provider.bindToLifecycle(activity, selector(facing), preview, analysis)
        this.analysis = analysis
    }

    private fun analyze(image: ImageProxy, clock: CaptureClock) {
        val session = session ?: return image.close()
        val capturedNs = clock.capturedNs(image.imageInfo.timestamp, System.nanoTime())
        attempt {
            image.use { session.frame(yuvOf(image), image.imageInfo.rotationDegrees, capturedNs, converted = image::close) }
        }
    }

    private fun yuvOf(image: ImageProxy): YuvImage {
        val (y, u, v) = image.planes.map { YuvPlane(it.buffer, it.rowStride, it.pixelStride) }
        val crop = image.cropRect
        return YuvImage(image.width, image.height, y, u, v, crop.left, crop.top, crop.right, crop.bottom)
    }

    private fun <T> attempt(act: () -> T): T? = try {
        act()
    } catch (error: MobileBilayerError) {
        null.also { onError(error) }
    } catch (error: Exception) {
        null.also { onError(MobileBilayerError(activity.getString(R.string.camera_broken, error.message), error)) }
    }

    private fun selector(facing: Facing) =
        if (facing == Facing.FRONT) CameraSelector.DEFAULT_FRONT_CAMERA else CameraSelector.DEFAULT_BACK_CAMERA
}
