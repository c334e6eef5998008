package dev.mobilebilayer.demo

import android.content.Context
import android.opengl.GLES30
import android.opengl.GLSurfaceView
import dev.mobilebilayer.core.Avatar
import dev.mobilebilayer.core.Layers
import dev.mobilebilayer.core.MobileBilayerError
import dev.mobilebilayer.core.RgbImage
import dev.mobilebilayer.core.Texels
import java.nio.Buffer
import java.nio.ByteBuffer
import javax.microedition.khronos.egl.EGLConfig
import javax.microedition.khronos.opengles.GL10

/**
 * The GL thread's own: four textures, one triangle, and the shader of assets/composite.frag. No frame allocates.
 *
 * Before the first face was seen the avatar is shown as it is in its photo.
 */
class CompositorRenderer(
    private val context: Context,
    private val onError: (Exception) -> Unit,
) : GLSurfaceView.Renderer {
    private val textures = IntArray(UNITS.size)
    private var program = 0
    private var mirroredAt = 0
    private var width = 1
    private var height = 1
    private var session: LiveSession? = null
    private var mirrored = false
    private var recorder: Recorder? = null
    private var toFill = true
    private var texelsA = Texels(4, 1)
    private var texelsB = Texels(3, 1)
    private val drawFrame = { sidePx: Int -> draw(0, 0, sidePx, false) } // what is recorded is never mirrored

    /** Whether to wait for the graphics, so that times are theirs too. */
    var waits = false

    override fun onSurfaceCreated(gl: GL10?, config: EGLConfig?) {
        record(null) // its surface belonged to the old context
        try {
            program = link()
        } catch (error: Exception) {
            program = 0
            return onError(error)
        }
        GLES30.glUseProgram(program)
        mirroredAt = GLES30.glGetUniformLocation(program, "mirrored")
        GLES30.glGenTextures(textures.size, textures, 0)
        for ((unit, name) in UNITS.withIndex()) {
            GLES30.glUniform1i(GLES30.glGetUniformLocation(program, name), unit)
            GLES30.glActiveTexture(GLES30.GL_TEXTURE0 + unit)
            GLES30.glBindTexture(GLES30.GL_TEXTURE_2D, textures[unit])
            for (filter in intArrayOf(GLES30.GL_TEXTURE_MIN_FILTER, GLES30.GL_TEXTURE_MAG_FILTER)) {
                GLES30.glTexParameteri(GLES30.GL_TEXTURE_2D, filter, GLES30.GL_LINEAR)
            }
            for (wrap in intArrayOf(GLES30.GL_TEXTURE_WRAP_S, GLES30.GL_TEXTURE_WRAP_T)) {
                GLES30.glTexParameteri(GLES30.GL_TEXTURE_2D, wrap, GLES30.GL_CLAMP_TO_EDGE)
            }
        }
        GLES30.glPixelStorei(GLES30.GL_UNPACK_ALIGNMENT, 1)
        toFill = true
    }

    override fun onSurfaceChanged(gl: GL10?, width: Int, height: Int) {
        this.width = width
        this.height = height
    }

    override fun onDrawFrame(gl: GL10?) {
        val beganNs = System.nanoTime()
        GLES30.glViewport(0, 0, width, height)
        GLES30.glClear(GLES30.GL_COLOR_BUFFER_BIT)
        val session = session
        if (session == null || program == 0) return
        if (toFill) fill(session.avatar)
        val layers = session.pipeline.show()
        if (layers != null) {
            refill(2, texelsA.sidePx, GLES30.GL_RGBA, texelsA.of(layers.a.floats))
            refill(3, texelsB.sidePx, GLES30.GL_RGB, texelsB.of(layers.b.floats))
        }
        val sidePx = minOf(width, height)
        draw((width - sidePx) / 2, (height - sidePx) / 2, sidePx, mirrored)
        if (layers == null) return
        recorder?.frame(layers.capturedNs, drawFrame)
        if (waits) GLES30.glFinish()
        session.drawn(layers, beganNs)
    }

    fun show(session: LiveSession?, mirrored: Boolean) {
        if (session !== this.session) toFill = true
        this.session = session
        this.mirrored = mirrored
    }

    /** Textures of an avatar as it is in its photo. */
    private fun fill(avatar: Avatar) {
        toFill = false
        fill(0, avatar.texture)
        fill(1, avatar.background)
        val still = Layers(avatar.bundle.manifest)
        val aPx = still.a.shape.last()
        val bPx = still.b.shape.last()
        still.a.floats.fill(1f, 2 * aPx * aPx) // flow 0, gate 1, mask 1
        texelsA = Texels(4, aPx)
        texelsB = Texels(3, bPx)
        fill(2, aPx, GLES30.GL_RGBA16F, GLES30.GL_RGBA, GLES30.GL_FLOAT, texelsA.of(still.a.floats))
        fill(3, bPx, GLES30.GL_RGB16F, GLES30.GL_RGB, GLES30.GL_FLOAT, texelsB.of(still.b.floats))
    }

    fun record(recorder: Recorder?) {
        this.recorder?.finish()
        this.recorder = recorder
    }

    private fun draw(x: Int, y: Int, sidePx: Int, mirrored: Boolean) {
        GLES30.glViewport(x, y, sidePx, sidePx)
        GLES30.glUniform1i(mirroredAt, if (mirrored) 1 else 0)
        GLES30.glDrawArrays(GLES30.GL_TRIANGLES, 0, 3)
    }

    private fun fill(unit: Int, picture: RgbImage) =
        fill(unit, picture.width, GLES30.GL_RGB8, GLES30.GL_RGB, GLES30.GL_UNSIGNED_BYTE, ByteBuffer.wrap(picture.pixels))

    private fun fill(unit: Int, sidePx: Int, kept: Int, given: Int, type: Int, values: Buffer) {
        GLES30.glActiveTexture(GLES30.GL_TEXTURE0 + unit)
        GLES30.glTexImage2D(GLES30.GL_TEXTURE_2D, 0, kept, sidePx, sidePx, 0, given, type, values)
    }

    private fun refill(unit: Int, sidePx: Int, given: Int, values: Buffer) {
        GLES30.glActiveTexture(GLES30.GL_TEXTURE0 + unit)
        GLES30.glTexSubImage2D(GLES30.GL_TEXTURE_2D, 0, 0, 0, sidePx, sidePx, given, GLES30.GL_FLOAT, values)
    }

    private fun link(): Int {
        val program = GLES30.glCreateProgram()
        for ((kind, name) in listOf(GLES30.GL_VERTEX_SHADER to "composite.vert", GLES30.GL_FRAGMENT_SHADER to "composite.frag")) {
            val shader = GLES30.glCreateShader(kind)
            GLES30.glShaderSource(shader, context.assets.open(name).use { String(it.readBytes()) })
            GLES30.glCompileShader(shader)
            GLES30.glAttachShader(program, shader)
        }
        GLES30.glLinkProgram(program)
        val linked = IntArray(1)
        GLES30.glGetProgramiv(program, GLES30.GL_LINK_STATUS, linked, 0)
        if (linked[0] == 0) {
            throw MobileBilayerError(context.getString(R.string.graphics_refuse, GLES30.glGetProgramInfoLog(program)))
        }
        return program
    }

    private companion object {
        val UNITS = listOf("avatar", "background", "layersA", "layersB") // as the shader names them, by texture unit
    }
}
