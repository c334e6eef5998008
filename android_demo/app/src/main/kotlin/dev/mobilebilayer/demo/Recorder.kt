package dev.mobilebilayer.demo

import android.media.MediaCodec
import android.media.MediaCodecInfo
import android.media.MediaFormat
import android.media.MediaMuxer
import android.opengl.EGL14
import android.opengl.EGLConfig
import android.opengl.EGLExt
import android.opengl.EGLSurface
import dev.mobilebilayer.core.tagMp4
import java.io.File
import kotlin.concurrent.thread

/**
 * Records what the GL thread draws as an MP4 (H.264, no sound) that says in its metadata that it is AI-generated.
 *
 * [frame] and [finish] are for the GL thread; a thread of its own takes what the encoder gives. [onDone] is told on that thread of the
 * whole video, or of null when there was no frame; until then there is only a file beside it. Or [onError] is told, once, and no frame
 * is taken any more.
 */
class Recorder(
    private val file: File,
    private val onDone: (File?) -> Unit,
    private val onError: (Exception) -> Unit,
) {
    private val aside = File(file.path + ".part")
    private val codec = MediaCodec.createEncoderByType(TYPE)
    private val input = try {
        val format = MediaFormat.createVideoFormat(TYPE, SIDE_PX, SIDE_PX)
        format.setInteger(MediaFormat.KEY_COLOR_FORMAT, MediaCodecInfo.CodecCapabilities.COLOR_FormatSurface)
        format.setInteger(MediaFormat.KEY_BIT_RATE, 4_000_000)
        format.setInteger(MediaFormat.KEY_FRAME_RATE, 30)
        format.setInteger(MediaFormat.KEY_I_FRAME_INTERVAL, 1)
        codec.configure(format, null, null, MediaCodec.CONFIGURE_FLAG_ENCODE)
        codec.createInputSurface().also { codec.start() }
    } catch (error: Exception) {
        codec.release() // phones have few
        throw error
    }
    private var display = EGL14.EGL_NO_DISPLAY
    private var surface: EGLSurface? = null
    private var firstNs = 0L
    private var finished = false

    /** The encoder is gone, or the graphics can't draw for it: to be told by the recorder's thread, which may know more. */
    @Volatile
    private var failure: Exception? = null

    init {
        thread(name = "recorder") { write() }
    }

    /** One frame more: [draw] draws a square of that many pixels a side. */
    fun frame(capturedNs: Long, draw: (sidePx: Int) -> Unit) {
        if (finished || failure != null) return
        val context = EGL14.eglGetCurrentContext()
        val screen = EGL14.eglGetCurrentSurface(EGL14.EGL_DRAW)
        try {
            val surface = surface ?: open().also {
                surface = it
                firstNs = capturedNs
            }
            if (!EGL14.eglMakeCurrent(display, surface, surface, context)) throw refused()
            draw(SIDE_PX)
            EGLExt.eglPresentationTimeANDROID(display, surface, capturedNs - firstNs)
            if (!EGL14.eglSwapBuffers(display, surface)) throw refused()
        } catch (error: RuntimeException) { // the screen goes on without it
            failure = error
        } finally {
            EGL14.eglMakeCurrent(EGL14.eglGetCurrentDisplay(), screen, screen, context)
        }
    }

    private fun refused() = IllegalStateException("EGL error 0x%x".format(EGL14.eglGetError()))

    /** No frame comes any more: the rest is written, and [onDone] told. */
    fun finish() {
        if (finished) return
        finished = true
        surface?.let { EGL14.eglDestroySurface(display, it) } // there may be no current display any more
        try {
            codec.signalEndOfInputStream()
        } catch (error: IllegalStateException) { // it was released: its thread told why
            failure = failure ?: error
        }
    }

    /** A surface of the encoder's for the context that draws on the screen. */
    private fun open(): EGLSurface {
        display = EGL14.eglGetCurrentDisplay()
        val id = IntArray(1)
        EGL14.eglQueryContext(display, EGL14.eglGetCurrentContext(), EGL14.EGL_CONFIG_ID, id, 0)
        val configs = arrayOfNulls<EGLConfig>(1)
        EGL14.eglChooseConfig(display, intArrayOf(EGL14.EGL_CONFIG_ID, id[0], EGL14.EGL_NONE), 0, configs, 0, 1, IntArray(1), 0)
        val surface = EGL14.eglCreateWindowSurface(display, configs[0], input, intArrayOf(EGL14.EGL_NONE), 0)
        return if (surface == EGL14.EGL_NO_SURFACE) throw refused() else surface
    }

    private fun write() {
        try {
            val any = drain()
            if (any) {
                tagMp4(aside)
                if (!aside.renameTo(file)) throw IllegalStateException("${file.name} could not be named")
            }
            onDone(file.takeIf { any })
        } catch (error: Exception) {
            failure = failure ?: error // before the codec is released: no frame is drawn for it any more
            onError(error)
        } finally {
            codec.release()
            input.release()
            aside.delete()
        }
    }

    /** From the encoder to the file until its end; whether there was a frame. */
    private fun drain(): Boolean {
        val muxer = MediaMuxer(aside.path, MediaMuxer.OutputFormat.MUXER_OUTPUT_MPEG_4)
        val info = MediaCodec.BufferInfo()
        var track = -1
        try {
            while (info.flags and MediaCodec.BUFFER_FLAG_END_OF_STREAM == 0) {
                failure?.let { throw it }
                val index = codec.dequeueOutputBuffer(info, 100_000)
                if (index == MediaCodec.INFO_OUTPUT_FORMAT_CHANGED) {
                    track = muxer.addTrack(codec.outputFormat)
                    muxer.start()
                }
                if (index < 0) continue
                val isConfig = info.flags and MediaCodec.BUFFER_FLAG_CODEC_CONFIG != 0 // the muxer has it from the format
                val buffer = codec.getOutputBuffer(index)
                if (buffer != null && info.size > 0 && !isConfig && track >= 0) muxer.writeSampleData(track, buffer, info)
                codec.releaseOutputBuffer(index, false)
            }
            if (track >= 0) muxer.stop()
        } finally {
            muxer.release()
        }
        return track >= 0
    }

    private companion object {
        const val TYPE = "video/avc"
        const val SIDE_PX = 512
    }
}
