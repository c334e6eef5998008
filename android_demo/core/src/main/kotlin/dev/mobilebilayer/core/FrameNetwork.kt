package dev.mobilebilayer.core

import java.util.concurrent.locks.ReentrantLock
import kotlin.concurrent.withLock

/**
 * A program that runs: what an app plugs a runtime in by, as ExecuTorch's Module.
 *
 * An implementation may count on it that calls never overlap, never come after [close], and fit the manifest. It writes into the
 * outputs that are given, and keeps no input.
 */
interface Program : AutoCloseable {
    /** Run [method]: [inputs] in the manifest's order, [outputs] filled in the same. */
    fun execute(method: String, inputs: Array<Tensor>, outputs: Array<Tensor>)
}

/**
 * A [Program] behind a door: native code aborts the process for what is an error here.
 *
 * Shapes and types are checked against the bundle's manifest before each call. Calls are serialised, from whatever thread; [close]
 * waits for the call that runs, and later calls are refused. It may be called again. To start again, make another one.
 *
 * [where] names the bundle in errors
 */
class FrameNetwork(private val program: Program, private val methods: Map<String, MethodSpec>, private val where: String) : AutoCloseable {
    private val lock = ReentrantLock(true)
    private var closed = false

    /**
     * Run [method]: [inputs] in the manifest's order, [outputs] filled in the same. Nothing is allocated here.
     *
     * Raises [MobileBilayerError] for what does not fit, for a call after [close], and for what the program raises.
     */
    fun run(method: String, inputs: Array<Tensor>, outputs: Array<Tensor>) {
        val spec = methods[method]
            ?: throw MobileBilayerError("$where has no method $method. It has ${methods.keys.joinToString()}.")
        check(method, "takes", spec.inputs, inputs)
        check(method, "gives", spec.outputs, outputs)
        lock.withLock {
            if (closed) throw MobileBilayerError("$where was closed while $method was asked for. Open it again.")
            try {
                program.execute(method, inputs, outputs)
            } catch (error: MobileBilayerError) {
                throw error
            } catch (error: Exception) {
                throw MobileBilayerError(
                    "$where: the runtime could not run $method (${error.message}). Export the bundle for this runtime's version.",
                    error,
                )
            }
        }
    }

    /** Waits for the call that runs, if any, and closes the program, once. */
    override fun close() = lock.withLock {
        if (!closed) {
            closed = true
            program.close()
        }
    }

    private fun check(method: String, verb: String, wanted: List<TensorSpec>, got: Array<Tensor>) {
        if (got.size != wanted.size) {
            val names = wanted.joinToString { it.name }
            throw MobileBilayerError(
                "$where: $method $verb ${wanted.size} tensors ($names); got ${got.size}. Give them in that order.",
            )
        }
        for (i in got.indices) {
            val spec = wanted[i]
            if (got[i].dtype != DType.F32 || !got[i].shape.contentEquals(spec.dims)) {
                throw MobileBilayerError(
                    "$where: $method $verb ${spec.name} as ${spec.dims.text()} F32; got ${got[i].shape.text()} ${got[i].dtype}. " +
                        "Convert it first.",
                )
            }
        }
    }
}
