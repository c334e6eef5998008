import Foundation

/// How long it took to load the program: the first time ever, after the app was started anew, and again in the same app. In ms.
public struct LoadTimes: Equatable, Sendable {
    public var firstEverMs: Double?
    public var coldMs: Double?
    public var warmMs: Double?

    public init(firstEverMs: Double?, coldMs: Double?, warmMs: Double?) {
        self.firstEverMs = firstEverMs
        self.coldMs = coldMs
        self.warmMs = warmMs
    }
}

/// A moment of a long run: seconds since its start, frames in that second, and how warm the phone said it was, in the system's own word.
public struct Moment: Equatable, Sendable {
    public var second: Int
    public var frames: Int
    public var thermalState: String
    /// Of the hottest sensor that the system tells; iOS tells of none.
    public var temperatureC: Double?

    public init(second: Int, frames: Int, thermalState: String, temperatureC: Double? = nil) {
        self.second = second
        self.frames = frames
        self.thermalState = thermalState
        self.temperatureC = temperatureC
    }
}

/// What a benchmark on a phone found, and on what. Nil is "not measured", and is written as null. benchmarks/result.schema.json says
/// what each field is.
public struct BenchmarkResult: Sendable {
    public static let format = 1
    public static let stages = ["camera", "landmarks", "network", "composite", "display", "frame"]
    public static let units = ["cpu", "gpu", "neural_engine", "all"]

    /// ProcessInfo.ThermalState's words, and where the system tells nothing.
    public static let thermalStates = ["unknown", "nominal", "fair", "serious", "critical"]

    public var device: String
    public var chip: String?
    public var os: String
    public var buildType: String
    public var runtime: String
    public var toolVersions: [String: String]
    public var backend: String
    public var computeUnit: String
    public var threads: Int?
    public var bundle: String
    /// The bundle's own: `ModelBundle.sha256`, and `bytes` in MiB.
    public var bundleSha256: String
    public var bundleMib: Double
    public var precision: String
    public var imagePx: Int
    public var warmupCount: Int
    public var iterations: Int
    public var durationS: Double
    /// By name: camera, landmarks, network, composite, display and frame, the whole one; what is not there is not measured.
    public var stages: [String: Statistics]
    /// Of whole frames, nil if there were none.
    public var fps: Double?
    /// Frames that a newer one overtook.
    public var dropped: Int
    public var load: LoadTimes
    public var peakMemoryMib: Double?
    public var packageMib: Double?
    public var delegatedOperators: Int?
    /// Those outside the backend: why, as the manifest has them; and how many there are.
    public var undelegatedOperators: [String: String]
    public var undelegatedCount: Int?
    public var overTime: [Moment]
    public var energyMj: Double?
    public var energyMethod: String?
    public var repeats = 1
    /// (largest - smallest) / mean of the whole frame's medians of several runs.
    public var repeatSpread: Double?
    /// The runtime's call alone, without what goes in and out.
    public var execute: Statistics?
    /// The first whole frame after the load: it is in no statistics.
    public var firstFrameMs: Double?
    public var cameraFps: Double?
    public var interrupted = false
    public var operatorsByDevice: [String: Int]?
    public var operatorsMs: [String: Double]?
    /// Why, by the place of what is nil, as "stages_ms.display".
    public var notMeasured: [String: String] = [:]
    /// Sentences.
    public var warnings: [String] = []
    public var madeAt = Date()

    /// What every result has; the rest is set afterwards.
    public init(
        device: String, chip: String?, os: String, buildType: String, runtime: String, toolVersions: [String: String], backend: String,
        computeUnit: String, threads: Int?, bundle: String, bundleSha256: String, bundleMib: Double, precision: String, imagePx: Int,
        warmupCount: Int, iterations: Int, durationS: Double, stages: [String: Statistics], fps: Double?, dropped: Int, load: LoadTimes,
        undelegatedOperators: [String: String], overTime: [Moment]
    ) {
        self.device = device
        self.chip = chip
        self.os = os
        self.buildType = buildType
        self.runtime = runtime
        self.toolVersions = toolVersions
        self.backend = backend
        self.computeUnit = computeUnit
        self.threads = threads
        self.bundle = bundle
        self.bundleSha256 = bundleSha256
        self.bundleMib = bundleMib
        self.precision = precision
        self.imagePx = imagePx
        self.warmupCount = warmupCount
        self.iterations = iterations
        self.durationS = durationS
        self.stages = stages
        self.fps = fps
        self.dropped = dropped
        self.load = load
        self.undelegatedOperators = undelegatedOperators
        self.overTime = overTime
    }

    /// As a file: names in snake case. Throws `MobileBilayerError` for what can't be a result.
    public func toJson() throws -> String {
        try check()
        var times = JsonObject()
        for stage in BenchmarkResult.stages { times[stage] = written(stages[stage]) }
        let moments = overTime.map { moment in
            Json.object([
                "second": json(moment.second), "frames": json(moment.frames), "thermal_state": .text(moment.thermalState),
                "temperature_c": json(moment.temperatureC),
            ])
        }
        let made = ISO8601DateFormatter().string(from: madeAt)
        let loaded: JsonObject = [
            "first_ever_ms": json(load.firstEverMs), "cold_ms": json(load.coldMs), "warm_ms": json(load.warmMs),
        ]
        var out: JsonObject = ["format_version": json(BenchmarkResult.format), "made_at": .text(made)]
        out["device"] = .text(device)
        out["chip"] = json(chip)
        out["os"] = .text(os)
        out["build_type"] = .text(buildType)
        out["runtime"] = .text(runtime)
        out["tool_versions"] = json(toolVersions, Json.text)
        out["bundle"] = .text(bundle)
        out["bundle_sha256"] = .text(bundleSha256)
        out["backend"] = .text(backend)
        out["compute_unit"] = .text(computeUnit)
        out["threads"] = json(threads)
        out["precision"] = .text(precision)
        out["image_px"] = json(imagePx)
        out["bundle_mib"] = .number(bundleMib)
        out["package_mib"] = json(packageMib)
        out["warmup_count"] = json(warmupCount)
        out["iterations"] = json(iterations)
        out["duration_s"] = .number(durationS)
        out["interrupted"] = .bool(interrupted)
        out["load"] = .object(loaded)
        out["first_frame_ms"] = json(firstFrameMs)
        out["stages_ms"] = .object(times)
        out["execute_ms"] = written(execute)
        out["fps"] = json(fps)
        out["camera_fps"] = json(cameraFps)
        out["dropped"] = json(dropped)
        out["over_time"] = .list(moments)
        out["peak_memory_mib"] = json(peakMemoryMib)
        out["delegated_operators"] = json(delegatedOperators)
        out["undelegated_operators"] = json(undelegatedOperators, Json.text)
        out["undelegated_count"] = json(undelegatedCount)
        out["operators_by_device"] = operatorsByDevice.map { json($0) { json($0) } } ?? .null
        out["operators_ms"] = operatorsMs.map { json($0, Json.number) } ?? .null
        out["energy_mj"] = json(energyMj)
        out["energy_method"] = json(energyMethod)
        out["fidelity"] = .null  // measured where the bundle was made, and put beside there
        out["repeats"] = json(repeats)
        out["repeat_spread"] = json(repeatSpread)
        out["not_measured"] = json(notMeasured, Json.text)
        out["warnings"] = .list(warnings.map(Json.text))
        return try Json.object(out).write()
    }

    private func check() throws {
        let unknown = stages.keys.filter { !BenchmarkResult.stages.contains($0) }.sorted()
        if !unknown.isEmpty { throw MobileBilayerError("A result has the stages \(unknown); it may have \(BenchmarkResult.stages).") }
        if (energyMj == nil) != (energyMethod == nil) {
            throw MobileBilayerError("A result has an energy or a method of measuring it, but not both; give both or none.")
        }
        if !BenchmarkResult.units.contains(computeUnit) {
            throw MobileBilayerError("A result has the compute unit \(computeUnit); it may have \(BenchmarkResult.units).")
        }
        let states = overTime.map(\.thermalState).filter { !BenchmarkResult.thermalStates.contains($0) }
        if let state = states.first {
            throw MobileBilayerError("A result has the thermal state \(state); it may have \(BenchmarkResult.thermalStates).")
        }
        if (fps == nil) != (stages["frame"] == nil) {
            throw MobileBilayerError("A result has the whole frame or its rate, but not both; give the frame and its rate, or none.")
        }
        if iterations < 1 || !(durationS > 0) {
            throw MobileBilayerError(
                "A result of \(iterations) iterations in \(durationS) s; both must be above 0. Measure longer.")
        }
    }

    private func written(_ statistics: Statistics?) -> Json {
        guard let it = statistics else { return .null }
        return .object([
            "count": json(it.count), "mean": .number(it.mean), "p50": .number(it.p50), "p90": .number(it.p90), "p99": .number(it.p99),
            "cv": .number(it.cv),
        ])
    }
}

private func json(_ value: Int?) -> Json { value.map { .whole(Int64($0)) } ?? .null }

private func json(_ value: Double?) -> Json { value.map(Json.number) ?? .null }

private func json(_ value: String?) -> Json { value.map(Json.text) ?? .null }

private func json<T>(_ values: [String: T], _ one: (T) -> Json) -> Json {
    var out = JsonObject()
    for (key, value) in values.sorted(by: { $0.key < $1.key }) { out[key] = one(value) }
    return .object(out)
}
