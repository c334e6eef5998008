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
 * whole video, or of null when there was no frame; until then there is only a file beside it.
 */
class Recorder(
    private val file: File,
    private val onDone: (File?) -> Unit,
    private val onError: (Exception) -> Unit,
) {
    private val aside = File(file.path + ".part")
    private val codec = MediaCodec.createEncoderByType(TYPE)
    private val input = run {
        val format = MediaFormat.createVideoFormat(TYPE, SIDE_PX, SIDE_PX)
        format.setInteger(MediaFormat.KEY_COLOR_FORMAT, MediaCodecInfo.CodecCapabilities.COLOR_FormatSurface)
        format.setInteger(MediaFormat.KEY_BIT_RATE, 4_000_000)
        format.setInteger(MediaFormat.KEY_FRAME_RATE, 30)
        format.setInteger(MediaFormat.KEY_I_FRAME_INTERVAL, 1)
        codec.configure(format, null, null, MediaCodec.CONFIGURE_FLAG_ENCODE)
        codec.createInputSurface().also { codec.start() }
    }
    private var surface: EGLSurface? = null
    private var firstNs = 0L
    private var finished = false

    init {
        thread(name = "recorder") { write() }
    }

    /** One frame more: [draw] draws a square of that many pixels a side. */
    fun frame(capturedNs: Long, draw: (sidePx: Int) -> Unit) {
        if (finished) return
        val display = EGL14.eglGetCurrentDisplay()
        val context = EGL14.eglGetCurrentContext()
        val screen = EGL14.eglGetCurrentSurface(EGL14.EGL_DRAW)
        val surface = surface ?: open().also {
            surface = it
            firstNs = capturedNs
        }
        EGL14.eglMakeCurrent(display, surface, surface, context)
        draw(SIDE_PX)
        EGLExt.eglPresentationTimeANDROID(display, surface, capturedNs - firstNs)
        EGL14.eglSwapBuffers(display, surface)
        EGL14.eglMakeCurrent(display, screen, screen, context)
    }

    /** No frame comes any more: the rest is written, and [onDone] told. */
    fun finish() {
        if (finished) return
        finished = true
        surface?.let { EGL14.eglDestroySurface(EGL14.eglGetCurrentDisplay(), it) }
        codec.signalEndOfInputStream()
    }

    /** A surface of the encoder's for the context that draws on the screen. */
    private fun open(): EGLSurface {
        val display = EGL14.eglGetCurrentDisplay()
        val id = IntArray(1)
        EGL14.eglQueryContext(display, EGL14.eglGetCurrentContext(), EGL14.EGL_CONFIG_ID, id, 0)
        val configs = arrayOfNulls<EGLConfig>(1)
        EGL14.eglChooseConfig(display, intArrayOf(EGL14.EGL_CONFIG_ID, id[0], EGL14.EGL_NONE), 0, configs, 0, 1, IntArray(1), 0)
        return EGL14.eglCreateWindowSurface(display, configs[0], input, intArrayOf(EGL14.EGL_NONE), 0)
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
            onError(error)
        } finally {
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
            codec.release()
            muxer.release()
            input.release()
        }
        return track >= 0
    }

    private companion object {
        const val TYPE = "video/avc"
        const val SIDE_PX = 512
    }
}
