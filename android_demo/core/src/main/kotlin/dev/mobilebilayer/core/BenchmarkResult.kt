package dev.mobilebilayer.core

/** How long it took to load the program: the first time ever, after the app was started anew, and again in the same app. In ms. */
data class LoadTimes(val firstEverMs: Double?, val coldMs: Double?, val warmMs: Double?)

/** A moment of a long run: seconds since its start, frames in that second, and how warm the phone said it was. */
data class Moment(val second: Int, val frames: Int, val thermalState: String)

/**
 * What a benchmark on a phone found, and on what. Null is "not measured", and is written as null.
 *
 * [stages] by name: camera, landmarks, network, composite, display and frame, the whole one
 * [fps] of whole frames; [dropped] frames that a newer one overtook
 * [repeatSpread] (largest - smallest) / mean of the whole frame's medians of several runs
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
    val threads: Int,
    val bundleSha256: String,
    val precision: String,
    val imagePx: Int,
    val warmupCount: Int,
    val iterations: Int,
    val durationS: Double,
    val stages: Map<String, Statistics>,
    val fps: Double,
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
) {
    init {
        val unknown = stages.keys - STAGES
        if (unknown.isNotEmpty()) throw MobileBilayerError("A result has the stages $unknown; it may have $STAGES.")
        if ((energyMj == null) != (energyMethod == null)) {
            throw MobileBilayerError("A result has the energy $energyMj and its method $energyMethod; give both or none.")
        }
        if (iterations < 1 || !(durationS > 0)) {
            throw MobileBilayerError("A result of $iterations iterations in $durationS s; both must be above 0. Measure longer.")
        }
    }

    /** As a file: names in snake case. */
    fun toJson(): String = Json.write(
        linkedMapOf(
            "format_version" to FORMAT,
            "device" to device,
            "chip" to chip,
            "os" to os,
            "build_type" to buildType,
            "runtime" to runtime,
            "tool_versions" to toolVersions,
            "backend" to backend,
            "compute_unit" to computeUnit,
            "threads" to threads,
            "bundle_sha256" to bundleSha256,
            "precision" to precision,
            "image_px" to imagePx,
            "warmup_count" to warmupCount,
            "iterations" to iterations,
            "duration_s" to durationS,
            "stages_ms" to stages.mapValues { (_, it) ->
                linkedMapOf("count" to it.count, "mean" to it.mean, "p50" to it.p50, "p90" to it.p90, "p99" to it.p99, "cv" to it.cv)
            },
            "fps" to fps,
            "dropped" to dropped,
            "load" to linkedMapOf("first_ever_ms" to load.firstEverMs, "cold_ms" to load.coldMs, "warm_ms" to load.warmMs),
            "peak_memory_mib" to peakMemoryMib,
            "package_mib" to packageMib,
            "delegated_operators" to delegatedOperators,
            "undelegated_operators" to undelegatedOperators,
            "over_time" to overTime.map {
                linkedMapOf("second" to it.second, "frames" to it.frames, "thermal_state" to it.thermalState)
            },
            "energy_mj" to energyMj,
            "energy_method" to energyMethod,
            "repeat_spread" to repeatSpread,
        ),
    )

    companion object {
        const val FORMAT = 1
        val STAGES: Set<String> = linkedSetOf("camera", "landmarks", "network", "composite", "display", "frame")
    }
}
