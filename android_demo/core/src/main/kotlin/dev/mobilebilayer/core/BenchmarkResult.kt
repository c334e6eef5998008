package dev.mobilebilayer.core

import java.time.Instant
import java.time.temporal.ChronoUnit

/** How long it took to load the program: the first time ever, after the app was started anew, and again in the same app. In ms. */
data class LoadTimes(val firstEverMs: Double?, val coldMs: Double?, val warmMs: Double?)

/**
 * A moment of a long run: seconds since its start, frames in that second, and how warm the phone said it was, in the system's own word.
 * [temperatureC] of the hottest sensor that it tells
 */
data class Moment(val second: Int, val frames: Int, val thermalState: String, val temperatureC: Double? = null)

/**
 * What a benchmark on a phone found, and on what. Null is "not measured", and is written as null. benchmarks/result.schema.json says
 * what each field is.
 *
 * [bundleSha256] and [bundleMib] are [Bundle.sha256], and [Bundle.bytes] in MiB
 * [stages] by name: camera, landmarks, network, composite, display and frame, the whole one; what is not there is not measured
 * [execute] the runtime's execute() alone, without what goes in and out
 * [firstFrameMs] the first whole frame after the load: it is in no statistics
 * [fps] of whole frames, null if there were none; [dropped] frames that a newer one overtook
 * [undelegatedOperators] those outside the backend: why, as the manifest has them; [undelegatedCount] how many there are
 * [repeatSpread] (largest - smallest) / mean of the whole frame's medians of several runs
 * [notMeasured] why, by the place of what is null, as "stages_ms.display"; [warnings] sentences
 */
data class BenchmarkResult(
    val device: String,
    val chip: String?,
    val os: String,
    val buildType: String,
    val runtime: String,
    val toolVersions: Map<String, String>,
    val backend: String,
    val computeUnit: String,
    val threads: Int?,
    val bundle: String,
    val bundleSha256: String,
    val bundleMib: Double,
    val precision: String,
    val imagePx: Int,
    val warmupCount: Int,
    val iterations: Int,
    val durationS: Double,
    val stages: Map<String, Statistics>,
    val fps: Double?,
    val dropped: Long,
    val load: LoadTimes,
    val peakMemoryMib: Double?,
    val packageMib: Double?,
    val delegatedOperators: Int?,
    val undelegatedOperators: Map<String, String>,
    val overTime: List<Moment>,
    val energyMj: Double?,
    val energyMethod: String?,
    val repeatSpread: Double?,
    val repeats: Int = 1,
    val execute: Statistics? = null,
    val firstFrameMs: Double? = null,
    val cameraFps: Double? = null,
    val interrupted: Boolean = false,
    val undelegatedCount: Int? = null,
    val operatorsByDevice: Map<String, Int>? = null,
    val operatorsMs: Map<String, Double>? = null,
    val notMeasured: Map<String, String> = emptyMap(),
    val warnings: List<String> = emptyList(),
    val madeAt: Instant = Instant.now(),
) {
    init {
        val unknown = stages.keys - STAGES
        if (unknown.isNotEmpty()) throw MobileBilayerError("A result has the stages $unknown; it may have $STAGES.")
        if ((energyMj == null) != (energyMethod == null)) {
            throw MobileBilayerError("A result has the energy $energyMj and its method $energyMethod; give both or none.")
        }
        if (computeUnit !in UNITS) throw MobileBilayerError("A result has the compute unit $computeUnit; it may have $UNITS.")
        val states = overTime.map { it.thermalState }.toSet() - THERMAL_STATES
        if (states.isNotEmpty()) throw MobileBilayerError("A result has the thermal states $states; it may have $THERMAL_STATES.")
        if ((fps == null) != ("frame" !in stages)) {
            throw MobileBilayerError("A result has $fps frames a second and the stages ${stages.keys}; give the frame and its rate, or none.")
        }
        if (iterations < 1 || !(durationS > 0)) {
            throw MobileBilayerError("A result of $iterations iterations in $durationS s; both must be above 0. Measure longer.")
        }
    }

    /** As a file: names in snake case. */
    fun toJson(): String = Json.write(
        linkedMapOf(
            "format_version" to FORMAT,
            "made_at" to madeAt.truncatedTo(ChronoUnit.SECONDS).toString(),
            "device" to device,
            "chip" to chip,
            "os" to os,
            "build_type" to buildType,
            "runtime" to runtime,
            "tool_versions" to toolVersions,
            "bundle" to bundle,
            "bundle_sha256" to bundleSha256,
            "backend" to backend,
            "compute_unit" to computeUnit,
            "threads" to threads,
            "precision" to precision,
            "image_px" to imagePx,
            "bundle_mib" to bundleMib,
            "package_mib" to packageMib,
            "warmup_count" to warmupCount,
            "iterations" to iterations,
            "duration_s" to durationS,
            "interrupted" to interrupted,
            "load" to linkedMapOf("first_ever_ms" to load.firstEverMs, "cold_ms" to load.coldMs, "warm_ms" to load.warmMs),
            "first_frame_ms" to firstFrameMs,
            "stages_ms" to STAGES.associateWith { stages[it]?.let(::written) },
            "execute_ms" to execute?.let(::written),
            "fps" to fps,
            "camera_fps" to cameraFps,
            "dropped" to dropped,
            "over_time" to overTime.map {
                linkedMapOf(
                    "second" to it.second,
                    "frames" to it.frames,
                    "thermal_state" to it.thermalState,
                    "temperature_c" to it.temperatureC,
                )
            },
            "peak_memory_mib" to peakMemoryMib,
            "delegated_operators" to delegatedOperators,
            "undelegated_operators" to undelegatedOperators,
            "undelegated_count" to undelegatedCount,
            "operators_by_device" to operatorsByDevice,
            "operators_ms" to operatorsMs,
            "energy_mj" to energyMj,
            "energy_method" to energyMethod,
            "fidelity" to null, // measured where the bundle was made, and put beside there
            "repeats" to repeats,
            "repeat_spread" to repeatSpread,
            "not_measured" to notMeasured,
            "warnings" to warnings,
        ),
    )

    private fun written(it: Statistics) =
        linkedMapOf("count" to it.count, "mean" to it.mean, "p50" to it.p50, "p90" to it.p90, "p99" to it.p99, "cv" to it.cv)

    companion object {
        const val FORMAT = 1
        val STAGES: Set<String> = linkedSetOf("camera", "landmarks", "network", "composite", "display", "frame")
        val UNITS: Set<String> = linkedSetOf("cpu", "gpu", "neural_engine", "all")

        /** Android's words, and where the system tells nothing. */
        val THERMAL_STATES: Set<String> =
            linkedSetOf("unknown", "none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
    }
}
