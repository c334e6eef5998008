import ExecuTorchRuntime
import Foundation
import MobileBilayerCore
import UIKit

/// The bundle that runs on this phone, and where on it. Chosen and checked once in the app's life; no call is for the main thread: see
/// `onWorker`.
enum Models {
    /// What came of the choice.
    struct Choice: Sendable {
        let bundle: ModelBundle
        /// One of BenchmarkResult.units.
        let unit: String
        /// For people: why no better bundle, what other compute units took.
        let notes: [String]

        /// What runs the network, with its version.
        var runtime: String {
            bundle.manifest.backend == "coreml" ? "coreml \(systemName())" : "executorch \(execuTorchVersion)"
        }
    }

    private static let state = ModelsState()

    /// Throws `MobileBilayerError` when none runs here.
    static func choice() throws -> Choice { try state.choice() }

    /// A door to a program of its own, which whoever asked closes. `timed` is told how long each frame's network took, in ms, on the
    /// thread that ran it.
    static func network(timed: @escaping @Sendable (Double) -> Void = { _ in }) throws -> FrameNetwork {
        let choice = try choice()
        return choice.bundle.network(TimedProgram(try state.load(choice.bundle, unit: choice.unit), timed))
    }

    /// The same on another compute unit than the chosen one; for tests.
    static func network(of bundle: ModelBundle, unit: String) throws -> FrameNetwork {
        bundle.network(try state.load(bundle, unit: unit))
    }

    /// How long loading took: the first time ever on this phone, first in this process, and again.
    static func loadTimes() throws -> LoadTimes { state.loadTimes(try choice().bundle) }
}

/// Behind two locks: one around the choice, which takes seconds, one around times.
private final class ModelsState: @unchecked Sendable {
    private let choosing = NSLock()
    private var chosen: Models.Choice?
    private let screen = OnTheScreen()
    private let lock = NSLock()
    private var coldMs: Double?
    private var warmMs: Double?

    func choice() throws -> Models.Choice {
        choosing.lock()
        defer { choosing.unlock() }
        if let chosen { return chosen }
        let made = try choose()
        chosen = made
        return made
    }

    func load(_ bundle: ModelBundle, unit: String) throws -> any Program {
        let beganNs = nowNs()
        let program: any Program =
            bundle.manifest.backend == "coreml"
            ? try CoreMLProgram.load(bundle, unit: unit) : try ExecuTorchProgram.load(bundle, file: try programFile(bundle))
        let ms = Double(nowNs() - beganNs) / 1e6
        let key = firstEver(bundle)
        if UserDefaults.standard.object(forKey: key) == nil { UserDefaults.standard.set(ms, forKey: key) }
        lock.lock()
        defer { lock.unlock() }
        if coldMs == nil { coldMs = ms } else { warmMs = ms }
        return program
    }

    func loadTimes(_ bundle: ModelBundle) -> LoadTimes {
        lock.lock()
        defer { lock.unlock() }
        let first = UserDefaults.standard.object(forKey: firstEver(bundle)) as? Double
        return LoadTimes(firstEverMs: first, coldMs: coldMs, warmMs: warmMs)
    }

    private func choose() throws -> Models.Choice {
        let folders = try FileManager.default.contentsOfDirectory(at: try assetPlace("bundles"), includingPropertiesForKeys: nil)
        let bundles = try folders.filter { $0.hasDirectoryPath }.map(ModelBundle.open)
        let made = try BundleChoice.choose(bundles, registered: Set(registeredBackends() + ["CoreML"])) { try start($0) }
        return Models.Choice(bundle: made.bundle, unit: made.running.unit, notes: made.notes + made.running.notes)
    }

    /// Checks a bundle against its golden vectors, and finds where it is fastest: measured once for each bundle and iOS, and kept.
    private func start(_ bundle: ModelBundle) throws -> (unit: String, notes: [String]) {
        guard bundle.manifest.backend == "coreml" else {
            let unit = units[bundle.manifest.backend] ?? "cpu"
            _ = try frameMs(bundle, unit: unit, frames: 1)
            return (unit, [])
        }
        let key = "unit \(bundle.sha256) \(systemName())"
        if let kept = UserDefaults.standard.stringArray(forKey: key), let unit = kept.first,
            (try? frameMs(bundle, unit: unit, frames: 1)) != nil  // why not is told when all are asked, below
        {
            return (unit, Array(kept.dropFirst()))
        }
        let choice = try UnitChoice.choose(computeUnits.map(\.name)) { try frameMs(bundle, unit: $0, frames: 30) }
        UserDefaults.standard.set([choice.unit] + choice.notes, forKey: key)
        return (choice.unit, choice.notes)
    }

    /// The median of some frames of the network there. Throws `MobileBilayerError` if they are not what the student gave.
    private func frameMs(_ bundle: ModelBundle, unit: String, frames: Int) throws -> Double {
        try screen.run {
            let network = try Models.network(of: bundle, unit: unit)
            defer { network.close() }
            return try measured(bundle, network, frames)
        }
    }

    private func measured(_ bundle: ModelBundle, _ network: FrameNetwork, _ frames: Int) throws -> Double {
        try autoreleasepool {
            try bundle.verify(network)
            guard let method = bundle.manifest.methods["render_layers"] else { return 0 }
            let inputs = method.inputs.map { Tensor.zeros($0.shape) }
            let outputs = method.outputs.map { Tensor.zeros($0.shape) }
            var times: [Double] = []
            for _ in 0..<frames {
                let beganNs = nowNs()
                try network.run("render_layers", inputs: inputs, outputs: outputs)
                times.append(Double(nowNs() - beganNs) / 1e6)
            }
            return try Statistics.of(times).p50
        }
    }

    /// The runtime maps a file into memory: written once, and there when it is whole.
    private func programFile(_ bundle: ModelBundle) throws -> URL {
        let programs = try keptFolder(.cachesDirectory).appendingPathComponent("programs")
        let folder = programs.appendingPathComponent(String(bundle.sha256.prefix(16)))
        let file = folder.appendingPathComponent(bundle.manifest.program)
        if !FileManager.default.fileExists(atPath: file.path) { try bundle.writeProgram(to: folder) }
        return file
    }

    private func firstEver(_ bundle: ModelBundle) -> String { "first_ever_ms \(bundle.sha256)" }
}

/// Where work for the graphics belongs: behind the screen iOS refuses it, and what is measured there tells nothing of a compute unit.
private final class OnTheScreen: @unchecked Sendable {  // the condition's lock is around what changes
    private let condition = NSCondition()
    private var left = 0
    private var isAway = false

    init() {
        let center = NotificationCenter.default
        _ = center.addObserver(forName: UIApplication.willResignActiveNotification, object: nil, queue: nil) { [weak self] _ in
            self?.moved(away: true)
        }
        _ = center.addObserver(forName: UIApplication.didBecomeActiveNotification, object: nil, queue: nil) { [weak self] _ in
            self?.moved(away: false)
        }
    }

    /// `act`, as soon as the app is there, and once more where it left meanwhile. Not for the main thread.
    func run<T>(_ act: () throws -> T) throws -> T {
        while true {
            let before = stay()
            let made = Result { try act() }
            if before == stay() { return try made.get() }
        }
    }

    /// Waits until the app is there; the same number as long as it stays.
    private func stay() -> Int {
        condition.lock()
        defer { condition.unlock() }
        while isAway { condition.wait() }
        return left
    }

    private func moved(away: Bool) {
        condition.lock()
        defer { condition.unlock() }
        isAway = away
        if away { left += 1 }
        condition.broadcast()
    }
}

/// Where ExecuTorch's backends compute; Core ML's delegate chooses itself.
private let units = ["xnnpack": "cpu", "coreml-delegate": "all"]

/// Tells how long each frame's network took: the runtime alone.
private final class TimedProgram: Program {
    private let program: any Program
    private let timed: @Sendable (Double) -> Void

    init(_ program: any Program, _ timed: @escaping @Sendable (Double) -> Void) {
        self.program = program
        self.timed = timed
    }

    func execute(_ method: String, inputs: [Tensor], outputs: [Tensor]) throws {
        let beganNs = nowNs()
        try program.execute(method, inputs: inputs, outputs: outputs)
        if method == "render_layers" { timed(Double(nowNs() - beganNs) / 1e6) }
    }

    func close() { program.close() }
}

private let worker = DispatchQueue(label: "worker", qos: .userInitiated)

/// The thread that loads and makes what takes long: one, so that two never load at once.
func onWorker<T: Sendable>(_ act: @escaping @Sendable () throws -> T) async throws -> T {
    try await withCheckedThrowingContinuation { continuation in
        worker.async { continuation.resume(with: Result { try autoreleasepool { try act() } }) }
    }
}

/// The same, and nobody waits for it.
func onWorkerLater(_ act: @escaping @Sendable () -> Void) { worker.async(execute: act) }

/// A file or a folder of the app's, by its place among the resources. Throws `MobileBilayerError` if the app was built without it.
func assetPlace(_ name: String) throws -> URL {
    guard let url = Bundle.main.resourceURL?.appendingPathComponent(name), FileManager.default.fileExists(atPath: url.path) else {
        throw MobileBilayerError(Words.assetMissing(name))
    }
    return url
}

/// The content of such a file.
func asset(_ name: String) throws -> Data {
    guard let content = try? Data(contentsOf: try assetPlace(name)) else { throw MobileBilayerError(Words.assetMissing(name)) }
    return content
}

/// One of the app's own folders, which is made if it is not there.
func keptFolder(_ directory: FileManager.SearchPathDirectory) throws -> URL {
    do {
        return try FileManager.default.url(for: directory, in: .userDomainMask, appropriateFor: nil, create: true)
    } catch {
        throw MobileBilayerError(Words.notWritten("The app's folder", error.localizedDescription), cause: error)
    }
}

/// Written aside, then renamed: nothing half written is ever found.
func replaceFile(_ file: URL, _ content: Data) throws {
    do {
        try FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
        try content.write(to: file, options: .atomic)
    } catch {
        throw MobileBilayerError(Words.notWritten(file.lastPathComponent, error.localizedDescription), cause: error)
    }
}

/// "iOS 17.4".
func systemName() -> String {
    let version = ProcessInfo.processInfo.operatingSystemVersion
    let patch = version.patchVersion > 0 ? ".\(version.patchVersion)" : ""
    return "iOS \(version.majorVersion).\(version.minorVersion)\(patch)"
}
