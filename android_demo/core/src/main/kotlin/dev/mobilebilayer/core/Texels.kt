package dev.mobilebilayer.core

import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.nio.FloatBuffer

/**
 * Layers as a texture takes them: the channels of each pixel beside each other, in a buffer of the runtime's own memory that each call
 * fills anew. No frame allocates; for one thread.
 *
 * [channels] x [sidePx] x [sidePx] is what [of] is given
 */
class Texels(val channels: Int, val sidePx: Int) {
    private val beside = FloatArray(channels * sidePx * sidePx)
    private val buffer: FloatBuffer =
        ByteBuffer.allocateDirect(4 * channels * sidePx * sidePx).order(ByteOrder.nativeOrder()).asFloatBuffer()

    fun of(planes: FloatArray): FloatBuffer {
        require(planes.size == beside.size) { "layers have ${planes.size} numbers; $channels x $sidePx x $sidePx are needed" }
        val pixels = sidePx * sidePx
        for (c in 0 until channels) {
            var at = c
            for (i in c * pixels until (c + 1) * pixels) {
                beside[at] = planes[i]
                at += channels
            }
        }
        buffer.clear()
        buffer.put(beside)
        buffer.flip()
        return buffer
    }
}
