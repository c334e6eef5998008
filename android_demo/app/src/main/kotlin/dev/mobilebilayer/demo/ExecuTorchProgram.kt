package dev.mobilebilayer.demo

import android.content.Context
import dev.mobilebilayer.core.Bundle
import dev.mobilebilayer.core.BundleChoice
import dev.mobilebilayer.core.MethodSpec
import dev.mobilebilayer.core.MobileBilayerError
import dev.mobilebilayer.core.Program
import dev.mobilebilayer.core.Tensor
import java.io.File
import java.nio.FloatBuffer
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor as RuntimeTensor

/** The version of ExecuTorch in the app: gradle/libs.versions.toml has the same. */
const val EXECUTORCH = "1.5.1"

/**
 * ExecuTorch's module behind core's door, which serialises calls and checks what comes in.
 *
 * Inputs lie in the runtime's memory and are filled anew; the outputs' few objects a call are the runtime's own.
 */
class ExecuTorchProgram private constructor(private val module: Module, methods: Map<String, MethodSpec>) : Program {
    private class Inputs(spec: MethodSpec) {
        val buffers: Array<FloatBuffer> = Array(spec.inputs.size) { i ->
            RuntimeTensor.allocateFloatBuffer(spec.inputs[i].shape.fold(1) { a, b -> a * b })
        }
        val values: Array<EValue> = Array(spec.inputs.size) { i ->
            EValue.from(RuntimeTensor.fromBlob(buffers[i], spec.inputs[i].shape.map(Int::toLong).toLongArray()))
        }
    }

    private val inputs = methods.mapValues { Inputs(it.value) }

    override fun execute(method: String, inputs: Array<Tensor>, outputs: Array<Tensor>) {
        val into = this.inputs.getValue(method)
        for (i in inputs.indices) {
            into.buffers[i].rewind()
            into.buffers[i].put(inputs[i].floats)
            into.buffers[i].rewind()
        }
        val results = module.execute(method, *into.values)
        if (results.size != outputs.size) throw IllegalStateException("it gave ${results.size} outputs, not ${outputs.size}")
        for (i in outputs.indices) {
            val tensor = results[i].toTensor()
            val wanted = outputs[i].floats
            if (tensor.numel() != wanted.size.toLong()) {
                throw IllegalStateException("output $i has ${tensor.numel()} numbers, not ${wanted.size}")
            }
            tensor.copyDataInto(FloatBuffer.wrap(wanted))
        }
    }

    override fun close() = module.close()

    companion object {
        /**
         * The program of [bundle], which lies in [file], ready to run.
         *
         * Raises [MobileBilayerError] if it does not load, or if its backend would run nothing of it.
         */
        fun load(context: Context, file: File, bundle: Bundle, threads: Int): ExecuTorchProgram {
            val manifest = bundle.manifest
            try {
                val module = Module.load(file.path, Module.LOAD_MODE_MMAP, threads)
                try {
                    val backend = BundleChoice.BACKENDS[manifest.backend]
                    for (method in manifest.methods.keys) {
                        module.loadMethod(method)
                        val runs = module.getMethodMetadata(method).backends
                        if (backend !in runs) {
                            val what = arrayOf(bundle.where, manifest.backend, method, runs.joinToString())
                            throw MobileBilayerError(context.getString(R.string.not_delegated, *what))
                        }
                    }
                    return ExecuTorchProgram(module, manifest.methods)
                } catch (error: Exception) {
                    module.close()
                    throw error
                }
            } catch (error: RuntimeException) {
                val program = "${bundle.where}: ${manifest.program}"
                val words = context.getString(R.string.not_loaded, EXECUTORCH, program, error.message, manifest.minimumRuntime)
                throw MobileBilayerError(words, error)
            }
        }
    }
}
