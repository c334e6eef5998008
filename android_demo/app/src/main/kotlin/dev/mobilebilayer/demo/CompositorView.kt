package dev.mobilebilayer.demo

import android.content.Context
import android.opengl.GLSurfaceView
import android.util.AttributeSet
import dev.mobilebilayer.core.MobileBilayerError
import java.util.concurrent.CountDownLatch
import java.util.concurrent.TimeUnit
import javax.microedition.khronos.egl.EGL10
import javax.microedition.khronos.egl.EGLConfig
import javax.microedition.khronos.egl.EGLDisplay

/** Shows a [LiveSession]'s avatar: a square, as large as fits. For the main thread; the renderer has the GL thread. */
class CompositorView(context: Context, attributes: AttributeSet? = null) : GLSurfaceView(context, attributes) {
    private val renderer = CompositorRenderer(context) { error -> post { onError(error) } }

    /** Told on the main thread of what the graphics refuse. */
    var onError: (Exception) -> Unit = {}

    init {
        setEGLContextClientVersion(3)
        setEGLConfigChooser(RecordableConfig(context))
        preserveEGLContextOnPause = true
        setRenderer(renderer)
        renderMode = RENDERMODE_WHEN_DIRTY
    }

    /** From now on this session's avatar, or nothing; [mirrored] as in a mirror, for the display only. */
    fun show(session: LiveSession?, mirrored: Boolean) {
        queueEvent { renderer.show(session, mirrored) }
        requestRender()
    }

    /** From now on what is drawn goes to [recorder] as well, or no longer; the former one is finished. */
    fun record(recorder: Recorder?) = queueEvent { renderer.record(recorder) }

    /** Wait until the GL thread did all that it was asked for, but not for ever. Not for that thread. */
    fun await() {
        val done = CountDownLatch(1)
        queueEvent(done::countDown)
        done.await(1, TimeUnit.SECONDS)
    }

    /** Wait for the graphics after each frame, so that it is known how long they took. */
    fun measure() = queueEvent { renderer.waits = true }
}

/** Colours of 8 bits that a video encoder takes too; where there are none, the screen alone. */
private class RecordableConfig(private val context: Context) : GLSurfaceView.EGLConfigChooser {
    override fun chooseConfig(egl: EGL10, display: EGLDisplay): EGLConfig {
        val colours = intArrayOf(EGL10.EGL_RED_SIZE, 8, EGL10.EGL_GREEN_SIZE, 8, EGL10.EGL_BLUE_SIZE, 8, EGL10.EGL_RENDERABLE_TYPE, ES3)
        val configs = arrayOfNulls<EGLConfig>(1)
        val count = IntArray(1)
        for (more in listOf(intArrayOf(RECORDABLE, 1), intArrayOf())) {
            val wanted = colours + more + EGL10.EGL_NONE
            if (egl.eglChooseConfig(display, wanted, configs, 1, count) && count[0] > 0) return configs[0]!!
        }
        throw MobileBilayerError(context.getString(R.string.graphics_refuse, "EGL_OPENGL_ES3_BIT"))
    }

    private companion object {
        const val ES3 = 0x40 // EGL_OPENGL_ES3_BIT
        const val RECORDABLE = 0x3142 // EGL_RECORDABLE_ANDROID
    }
}
