import Foundation
import MobileBilayerCore

/// What a benchmark found, and the file that says it: benchmark/ among the app's documents, which the Files app shows.
struct Measured: Sendable {
    let result: BenchmarkResult
    let file: URL
}

/// Live mode for some seconds, with a portrait that moves in place of the camera; all else is as live: conversion, landmarks, network,
/// compositor. When the screen shows a picture is not asked, so "display" is not measured. The first frames warm up and do not count.
struct BenchmarkRun: Sendable {
    let seconds: Int
    /// Shows a session, or nothing; the screen's.
    let show: @MainActor @Sendable (LiveSession?) -> Void

    private static let warmUp = 60  // frames: two seconds
    private static let warmUpNs: Int64 = 60_000_000_000
    private static let debug = "A debug build: Swift runs slower than in the app that users get. Measure a release build."

    /// Takes that long. Cancelling the task stops it, with an error. `progress` seconds, frames in the last one, and how warm the phone is.
    func measure(_ progress: @MainActor @Sendable (_ second: Int, _ frames: Int, _ heat: String) -> Void) async throws -> Measured {
        let errors = FirstError()
        let session = try await onWorker {
            try LiveSession(try Avatars.load(Avatars.first)) { errors.told($0) }
        }
        var opened: PortraitSource?
        do {
            let source = try await onWorker { try PortraitSource(session) { errors.told($0) } }
            opened = source
            await show(session)
            let run = try await watch(session, source, errors, progress)
            await closed(session, source)  // its times are read below
            let overtaken = session.pipeline.dropped + source.leftOut - run.overtaken
            let result = try await result(session, run, dropped: overtaken)
            return Measured(result: result, file: try await onWorker { try write(result) })
        } catch {
            await closed(session, opened)
            throw error
        }
    }

    private struct Run {
        var moments: [Moment] = []
        var durationS = 0.0
        var overtaken = 0
    }

    /// May be called again.
    private func closed(_ session: LiveSession, _ source: PortraitSource?) async {
        await show(nil)
        _ = try? await onWorker {
            source?.close()
            session.close()
        }
    }

    private func watch(
        _ session: LiveSession, _ source: PortraitSource, _ errors: FirstError,
        _ progress: @MainActor @Sendable (Int, Int, String) -> Void
    ) async throws -> Run {
        let untilNs = nowNs() + BenchmarkRun.warmUpNs
        while session.shown.frames < BenchmarkRun.warmUp {
            if let error = errors.first { throw error }
            if Task.isCancelled || nowNs() > untilNs { throw MobileBilayerError(Words.benchmarkWaited) }
            try? await Task.sleep(nanoseconds: 10_000_000)
        }
        session.measure()
        let beganNs = nowNs()
        var run = Run(overtaken: session.pipeline.dropped + source.leftOut)
        var before = session.shown.frames
        for second in 0..<seconds {
            let untilNs = beganNs + Int64(second + 1) * 1_000_000_000
            while nowNs() < untilNs {
                if let error = errors.first { throw error }
                if Task.isCancelled { throw MobileBilayerError(Words.benchmarkStopped(second)) }
                try? await Task.sleep(nanoseconds: 10_000_000)
            }
            let heat = heatNow()
            session.pacer.heat = heat  // as live: fewer frames rather than a stall
            let frames = session.shown.frames
            run.moments.append(Moment(second: second, frames: frames - before, thermalState: FramePacer.name(heat)))
            await progress(second + 1, frames - before, FramePacer.name(heat))
            before = frames
        }
        run.durationS = Double(nowNs() - beganNs) / 1e9
        return run
    }

    private func result(_ session: LiveSession, _ run: Run, dropped: Int) async throws -> BenchmarkResult {
        let choice = try await onWorker { try Models.choice() }
        let bundle = choice.bundle
        let manifest = bundle.manifest
        let meters = [
            ("camera", session.camera), ("landmarks", session.landmarks), ("network", session.network),
            ("composite", session.composite), ("frame", session.whole),
        ]
        let stages = try meters.reduce(into: [String: Statistics]()) { $0[$1.0] = try $1.1.statistics() }
        let (fps, frames) = session.measured
        #if DEBUG
            let isDebug = true
        #else
            let isDebug = false
        #endif
        var result = BenchmarkResult(
            device: "Apple \(machineName())", chip: nil, os: systemName(), buildType: isDebug ? "debug" : "release",
            runtime: choice.runtime, toolVersions: ["app": version()], backend: manifest.backend, computeUnit: choice.unit, threads: nil,
            bundle: manifest.name, bundleSha256: bundle.sha256, bundleMib: Double(bundle.bytes) / 1_048_576,
            precision: manifest.precision, imagePx: manifest.imagePx, warmupCount: BenchmarkRun.warmUp, iterations: frames,
            durationS: run.durationS, stages: stages, fps: fps, dropped: dropped, load: try Models.loadTimes(),
            undelegatedOperators: manifest.methods["render_layers"]?.undelegated ?? [:], overTime: run.moments)
        result.execute = try session.execute.statistics()
        result.firstFrameMs = session.shown.firstFrameMs
        result.cameraFps = Double(PortraitSource.fps)
        result.peakMemoryMib = peakMemoryMib()
        result.packageMib = packageMib()
        result.operatorsByDevice = try await operatorsByDevice(bundle, unit: choice.unit)
        result.notMeasured = [
            "chip": "iOS tells of the model, not of its chip",
            "stages_ms.display": "the app does not ask when the screen showed a picture",
            "delegated_operators": "neither Core ML nor ExecuTorch's Swift interface tells",
            "energy_mj": "a phone's battery tells no more than per cents",
            "repeat_spread": "one run; who pulls several knows it",
        ]
        if result.operatorsByDevice == nil {
            result.notMeasured["operators_by_device"] = "Core ML tells it from iOS 17.4 on, ExecuTorch not"
        }
        result.warnings = isDebug ? [BenchmarkRun.debug] : []
        return result
    }

    private func write(_ result: BenchmarkResult) throws -> URL {
        let folder = try keptFolder(.documentDirectory).appendingPathComponent("benchmark")
        let file = folder.appendingPathComponent("\(stamp("yyyy-MM-dd_HH-mm-ss"))_\(seconds)-s.json")
        try replaceFile(file, Data(try result.toJson().utf8))
        return file
    }

    private func version() -> String { Bundle.main.object(forInfoDictionaryKey: "CFBundleShortVersionString") as? String ?? "unknown" }
}

/// The first error that any thread told of.
final class FirstError: @unchecked Sendable {  // the lock is around all
    private let lock = NSLock()
    private var error: (any Error)?

    var first: (any Error)? {
        lock.lock()
        defer { lock.unlock() }
        return error
    }

    func told(_ error: any Error) {
        lock.lock()
        defer { lock.unlock() }
        self.error = self.error ?? error
    }
}
