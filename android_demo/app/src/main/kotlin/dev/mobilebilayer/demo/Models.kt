package dev.mobilebilayer.demo

import android.content.Context
import android.os.Build
import dev.mobilebilayer.core.Bundle
import dev.mobilebilayer.core.BundleChoice
import dev.mobilebilayer.core.FrameNetwork
import dev.mobilebilayer.core.LoadTimes
import dev.mobilebilayer.core.MobileBilayerError
import dev.mobilebilayer.core.Program
import dev.mobilebilayer.core.Tensor
import java.io.File
import java.io.FileNotFoundException
import java.io.IOException
import java.util.concurrent.Executor
import java.util.concurrent.Executors
import org.pytorch.executorch.ExecuTorchRuntime

/**
 * The bundle that runs on this phone. Chosen and checked once in the app's life; no call is for the main thread: see [worker].
 */
object Models {
    /** The thread that loads and makes what takes long: one, so that two never load at once. */
    val worker: Executor = Executors.newSingleThreadExecutor { Thread(it, "worker").apply { isDaemon = true } }

    /** Threads of the network: the large cores of most phones. More wait for the slowest. */
    val threads = minOf(4, Runtime.getRuntime().availableProcessors())

    private var chosen: BundleChoice<Map<String, Float>>? = null
    private var coldMs: Double? = null
    private var warmMs: Double? = null

    /** The bundle, and why no better one. Raises [MobileBilayerError] when none runs here. */
    @Synchronized
    fun choice(context: Context): BundleChoice<Map<String, Float>> = chosen ?: choose(context).also { chosen = it }

    /**
     * A door to a program of its own, which whoever asked closes. [timed] is told how long each frame's network took, in ms, on the
     * thread that ran it.
     */
    fun network(context: Context, timed: (Double) -> Unit = {}): FrameNetwork {
        val bundle = choice(context).bundle
        return bundle.network(TimedProgram(load(context, bundle), timed))
    }

    /** How long loading took: the first time ever on this phone, first in this process, and again. */
    @Synchronized
    fun loadTimes(context: Context) = LoadTimes(
        firstEverMs = prefs(context).getFloat(firstEver(choice(context).bundle), -1f).takeIf { it >= 0 }?.toDouble(),
        coldMs = coldMs,
        warmMs = warmMs,
    )

    private fun choose(context: Context): BundleChoice<Map<String, Float>> {
        val folders = context.assets.list("bundles") ?: emptyArray()
        val bundles = folders.map { folder -> Bundle.open("assets/bundles/$folder") { asset(context, "bundles/$folder/$it") } }
        return BundleChoice.choose(bundles, backends(context)) { bundle -> bundle.network(load(context, bundle)).use(bundle::verify) }
    }

    private fun backends(context: Context): Set<String> = try {
        ExecuTorchRuntime.getRegisteredBackends().toSet()
    } catch (error: LinkageError) {
        val processors = Build.SUPPORTED_ABIS.joinToString()
        throw MobileBilayerError(context.getString(R.string.runtime_missing, processors, error.message), error)
    }

    @Synchronized
    private fun load(context: Context, bundle: Bundle): ExecuTorchProgram {
        val file = programFile(context, bundle)
        val began = System.nanoTime()
        val program = ExecuTorchProgram.load(context, file, bundle, threads)
        val ms = (System.nanoTime() - began) / 1e6
        val key = firstEver(bundle)
        if (!prefs(context).contains(key)) prefs(context).edit().putFloat(key, ms.toFloat()).apply()
        if (coldMs == null) coldMs = ms else warmMs = ms
        return program
    }

    /** The runtime maps a file into memory, and an asset is none: copied once, and there when it is whole. */
    private fun programFile(context: Context, bundle: Bundle): File {
        val name = bundle.manifest.program
        val file = File(context.noBackupFilesDir, "programs/${bundle.manifest.sha256.getValue(name)}.pte")
        val content = bundle.contents.getValue(name)
        if (file.length() != content.size.toLong()) replaceFile(context, file, content)
        return file
    }

    private fun firstEver(bundle: Bundle) = "first_ever_ms ${bundle.manifest.sha256.getValue(bundle.manifest.program)}"

    private fun prefs(context: Context) = context.getSharedPreferences("models", Context.MODE_PRIVATE)
}

/** An asset's content, or null where there is none. */
fun asset(context: Context, name: String): ByteArray? = try {
    context.assets.open(name).use { it.readBytes() }
} catch (_: FileNotFoundException) {
    null
}

/** Write aside, then rename: nothing half written is ever found. */
fun replaceFile(context: Context, file: File, content: ByteArray) {
    file.parentFile?.mkdirs()
    val aside = File(file.path + ".part")
    try {
        aside.writeBytes(content)
        if (!aside.renameTo(file)) throw IOException("it can't be renamed")
    } catch (error: IOException) {
        aside.delete()
        throw MobileBilayerError(context.getString(R.string.not_written, file.name, error.message), error)
    }
}

/** Tells how long each frame's network took: the runtime alone. */
private class TimedProgram(private val program: Program, private val timed: (Double) -> Unit) : Program by program {
    override fun execute(method: String, inputs: Array<Tensor>, outputs: Array<Tensor>) {
        val began = System.nanoTime()
        program.execute(method, inputs, outputs)
        if (method == "render_layers") timed((System.nanoTime() - began) / 1e6)
    }
}
