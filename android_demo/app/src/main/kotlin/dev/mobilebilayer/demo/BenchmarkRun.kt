package dev.mobilebilayer.demo

import android.content.Context
import android.content.pm.ApplicationInfo
import android.os.Build
import dev.mobilebilayer.core.BenchmarkResult
import dev.mobilebilayer.core.FramePacer
import dev.mobilebilayer.core.MobileBilayerError
import dev.mobilebilayer.core.Moment
import java.io.File
import java.text.SimpleDateFormat
import java.util.Date
import java.util.Locale
import java.util.Queue
import java.util.concurrent.ConcurrentLinkedQueue

/** What a benchmark found, and the [file] that says it: benchmark/ in the app's own folder of the shared storage. */
class Measured(val result: BenchmarkResult, val file: File)

/**
 * Live mode for [seconds], with a portrait that moves in place of the camera; all else is as live: conversion, landmarks, network,
 * compositor. The screen's own delay can't be known, so "display" is not measured. The first frames warm up and do not count.
 */
class BenchmarkRun(private val context: Context, private val view: CompositorView, private val seconds: Int) {
    @Volatile
    var cancelled = false

    /** Takes that long: not for the main thread. [progress] seconds, frames in the last one, and how warm the phone is. */
    fun measure(progress: (second: Int, frames: Int, heat: String) -> Unit): Measured {
        val errors = ConcurrentLinkedQueue<Exception>()
        val avatar = Avatars.load(context, Avatars.FIRST)
        val session = LiveSession(context, avatar, view::requestRender) { errors.offer(it) }
        val moments = ArrayList<Moment>()
        var source: PortraitSource? = null
        var beganNs = 0L
        var endedNs = 0L
        var overtaken = 0L
        try {
            view.measure()
            view.show(session, false)
            source = PortraitSource(context, session) { errors.offer(it) }
            waitFor(errors) { session.frames >= WARM_UP }
            session.measure()
            beganNs = System.nanoTime()
            overtaken = session.pipeline.dropped + source.leftOut
            var before = session.frames
            for (second in 0 until seconds) {
                val untilNs = beganNs + (second + 1) * 1_000_000_000L
                while (System.nanoTime() < untilNs) {
                    errors.poll()?.let { throw it }
                    if (cancelled) throw MobileBilayerError(context.getString(R.string.benchmark_stopped, second))
                    Thread.sleep(10)
                }
                val heat = Heat.now(context)
                session.pacer.heat = heat // as live: fewer frames rather than a stall
                val frames = session.frames
                moments += Moment(second, frames - before, FramePacer.name(heat))
                progress(second + 1, frames - before, FramePacer.name(heat))
                before = frames
            }
            endedNs = System.nanoTime()
        } finally {
            source?.close()
            view.show(null, false)
            session.close()
            view.await() // its times are read below
        }
        overtaken = session.pipeline.dropped + source.leftOut - overtaken
        val result = result(session, moments, (endedNs - beganNs) / 1e9, overtaken)
        return Measured(result, write(result))
    }

    private fun result(session: LiveSession, moments: List<Moment>, durationS: Double, dropped: Long): BenchmarkResult {
        val bundle = session.avatar.bundle
        val manifest = bundle.manifest
        val stages = linkedMapOf(
            "camera" to session.camera,
            "landmarks" to session.landmarks,
            "network" to session.network,
            "composite" to session.composite,
            "frame" to session.whole,
        ).mapNotNull { (name, meter) -> meter.statistics()?.let { name to it } }.toMap()
        val isDebug = context.applicationInfo.flags and ApplicationInfo.FLAG_DEBUGGABLE != 0
        return BenchmarkResult(
            device = "${Build.MANUFACTURER} ${Build.MODEL}",
            chip = Build.HARDWARE,
            os = "Android ${Build.VERSION.RELEASE} (API ${Build.VERSION.SDK_INT})",
            buildType = if (isDebug) "debug" else "release",
            runtime = "executorch $EXECUTORCH",
            toolVersions = mapOf("app" to version()),
            backend = manifest.backend,
            computeUnit = UNITS.getValue(manifest.backend),
            threads = Models.threads,
            bundle = manifest.name,
            bundleSha256 = bundle.sha256,
            bundleMib = bundle.bytes / MIB,
            precision = manifest.precision,
            imagePx = manifest.imagePx,
            warmupCount = WARM_UP,
            iterations = session.rate.frames,
            durationS = durationS,
            stages = stages,
            execute = session.execute.statistics(),
            firstFrameMs = session.firstFrameMs,
            fps = session.rate.fps,
            cameraFps = PortraitSource.FPS.toDouble(),
            dropped = dropped,
            load = Models.loadTimes(context),
            peakMemoryMib = peakMemoryMib(),
            packageMib = File(context.applicationInfo.sourceDir).length() / MIB,
            delegatedOperators = null,
            undelegatedOperators = manifest.methods.getValue("render_layers").undelegated,
            overTime = moments,
            energyMj = null,
            energyMethod = null,
            repeatSpread = null,
            notMeasured = linkedMapOf(
                "stages_ms.display" to "Android does not tell an app when its picture reaches the screen",
                "delegated_operators" to "ExecuTorch's Java API tells of backends, not of operators",
                "energy_mj" to "a phone's battery tells no more than per cents",
                "repeat_spread" to "one run; who pulls several knows it",
            ),
            warnings = listOfNotNull(DEBUG.takeIf { isDebug }),
        )
    }

    private fun write(result: BenchmarkResult): File {
        val folder = context.getExternalFilesDir("benchmark")
            ?: throw MobileBilayerError(context.getString(R.string.no_storage))
        val name = SimpleDateFormat("yyyy-MM-dd_HH-mm-ss", Locale.ROOT).format(Date()) + "_$seconds-s.json"
        return File(folder, name).also { replaceFile(context, it, result.toJson().toByteArray()) }
    }

    private fun waitFor(errors: Queue<Exception>, isSo: () -> Boolean) {
        val untilNs = System.nanoTime() + WARM_UP_NS
        while (!isSo()) {
            errors.poll()?.let { throw it }
            if (cancelled || System.nanoTime() > untilNs) {
                throw MobileBilayerError(context.getString(R.string.benchmark_waited))
            }
            Thread.sleep(10)
        }
    }

    /** The most memory that this process ever had, as Linux counts it; null where it does not tell. */
    private fun peakMemoryMib(): Double? = File("/proc/self/status").readLines()
        .firstOrNull { it.startsWith("VmHWM:") }
        ?.let { line -> Regex("[0-9]+").find(line)?.value?.toDouble()?.div(1024) }

    private fun version(): String = context.packageManager.getPackageInfo(context.packageName, 0).versionName ?: "unknown"

    private companion object {
        const val WARM_UP = 60 // frames: two seconds
        const val WARM_UP_NS = 60_000_000_000L
        const val MIB = 1048576.0
        const val DEBUG = "A debug build: Kotlin runs slower than in the app that users get. Measure a release build."
        val UNITS = mapOf("xnnpack" to "cpu", "vulkan" to "gpu", "qnn" to "neural_engine") // of BundleChoice.BACKENDS
    }
}
