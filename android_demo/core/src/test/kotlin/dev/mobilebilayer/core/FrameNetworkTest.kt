package dev.mobilebilayer.core

import java.util.concurrent.CountDownLatch
import java.util.concurrent.TimeUnit
import java.util.concurrent.atomic.AtomicInteger
import kotlin.concurrent.thread
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertTrue

class FrameNetworkTest {
    /** Takes its time, and notes calls that overlap or come after close. */
    private class SlowProgram(val started: CountDownLatch = CountDownLatch(1), val go: CountDownLatch = CountDownLatch(0)) : Program {
        val inside = AtomicInteger()
        val wrong = AtomicInteger()
        val done = AtomicInteger()
        val closed = AtomicInteger()

        override fun execute(method: String, inputs: Array<Tensor>, outputs: Array<Tensor>) {
            if (inside.incrementAndGet() > 1 || closed.get() > 0) wrong.incrementAndGet()
            started.countDown()
            go.await(5, TimeUnit.SECONDS)
            Thread.sleep(1)
            inside.decrementAndGet()
            done.incrementAndGet()
        }

        override fun close() {
            if (inside.get() > 0) wrong.incrementAndGet()
            closed.incrementAndGet()
        }
    }

    private fun tensors(method: String, of: (MethodSpec) -> List<TensorSpec>) =
        of(shipped.manifest.methods.getValue(method)).map { Tensor.zeros(*it.shape.toIntArray()) }.toTypedArray()

    private fun FrameNetwork.render() =
        run("render_layers", tensors("render_layers") { it.inputs }, tensors("render_layers") { it.outputs })

    @Test
    fun `AN1 calls from many threads never overlap`() {
        val program = SlowProgram()
        val network = shipped.network(program)
        val threads = List(8) { thread(isDaemon = true) { repeat(10) { network.render() } } }
        threads.forEach { it.join(20_000) }
        assertEquals(80, program.done.get())
        assertEquals(0, program.wrong.get())
    }

    @Test
    fun `AN1 closing waits for the call that runs, and a call after it is refused`() {
        val go = CountDownLatch(1)
        val program = SlowProgram(go = go)
        val network = shipped.network(program)
        val caller = thread(isDaemon = true) { network.render() }
        assertTrue(program.started.await(5, TimeUnit.SECONDS))
        val closer = thread(isDaemon = true) { network.close() }
        closer.join(50)
        assertTrue(closer.isAlive) // it waits
        assertEquals(0, program.closed.get())
        go.countDown()
        closer.join(5000)
        caller.join(5000)
        assertFalse(closer.isAlive || caller.isAlive)
        assertEquals(listOf(1, 0, 1), listOf(program.closed.get(), program.wrong.get(), program.done.get()))
        assertTrue("was closed" in refusal { network.render() })
        network.close()
        assertEquals(1, program.closed.get())
    }

    @Test
    fun `AN1 a second start works`() {
        shipped.network(SlowProgram()).close()
        val second = SlowProgram()
        shipped.network(second).use { it.render() }
        assertEquals(1, second.done.get())
    }

    private fun refusedImage(image: Tensor): String {
        val program = GoldenProgram()
        val network = shipped.network(program)
        val points = Tensor.zeros(1, POINTS, 2)
        val said = refusal { network.run("encode_avatar", arrayOf(image, points), tensors("encode_avatar") { it.outputs }) }
        assertEquals(0, program.calls) // nothing reached the program
        return said
    }

    @Test
    fun `AN2 a frame of another size is refused by expected and got`() {
        val said = refusedImage(Tensor.zeros(1, 3, 224, 224))
        assertTrue("image as (1, 3, 256, 256) F32; got (1, 3, 224, 224) F32" in said, said)
    }

    @Test
    fun `AN2 bytes in place of floats are refused by expected and got`() {
        val said = refusedImage(Tensor(DType.U8, intArrayOf(1, 3, 256, 256), ByteArray(3 * 256 * 256)))
        assertTrue("F32; got (1, 3, 256, 256) U8" in said, said)
    }

    @Test
    fun `AN2 a flat vector of keypoints and too few tensors are refused`() {
        val program = GoldenProgram()
        val network = shipped.network(program)
        val inputs = tensors("render_layers") { it.inputs }
        val flat = inputs.copyOf().also { it[3] = Tensor.zeros(288) }
        val outputs = tensors("render_layers") { it.outputs }
        assertTrue("landmarks as (1, 144, 2) F32; got (288) F32" in refusal { network.run("render_layers", flat, outputs) })
        assertTrue("takes 4 tensors" in refusal { network.run("render_layers", inputs.copyOf(3).requireNoNulls(), outputs) })
        assertTrue("gives layers_a" in refusal { network.run("render_layers", inputs, arrayOf(outputs[1], outputs[0])) })
        assertTrue("no method forward" in refusal { network.run("forward", inputs, outputs) })
        assertEquals(0, program.calls)
    }

    @Test
    fun `AN2 a tensor has as many numbers as its shape says`() {
        assertTrue("(2, 3)" in refusal { Tensor.of(FloatArray(5), 2, 3) })
    }

    @Test
    fun `what the runtime raises becomes an error that names the bundle`() {
        val broken = object : Program {
            override fun execute(method: String, inputs: Array<Tensor>, outputs: Array<Tensor>) = error("0x23")
            override fun close() = Unit
        }
        val said = refusal { shipped.network(broken).render() }
        assertTrue(SHIPPED.path in said && "0x23" in said && "render_layers" in said, said)
    }
}
