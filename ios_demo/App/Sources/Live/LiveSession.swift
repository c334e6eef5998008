import Foundation
import MobileBilayerCore

/// Times of one stage. From any thread: a stage adds, the screen looks on.
final class Meter: @unchecked Sendable {  // the lock is around all
    private let lock = NSLock()
    private let times = StageTimes()
    private var recent = 0.0
    private var kept = false

    /// A mean of the latest ones.
    var recentMs: Double { locked { recent } }

    func add(_ ms: Double) {
        locked {
            recent += (recent == 0 ? 1 : 0.1) * (ms - recent)
            if kept { times.add(ms) }
        }
    }

    /// From now on times are kept.
    func measure() { locked { kept = true } }

    /// Of those that were kept; nil where nothing was measured.
    func statistics() throws -> Statistics? { try locked { times.count > 0 ? try times.statistics() : nil } }

    private func locked<R>(_ act: () throws -> R) rethrows -> R {
        lock.lock()
        defer { lock.unlock() }
        return try act()
    }
}

/// What reached the screen. From any thread.
struct OnScreen: Sendable {
    /// Frames, and of them those since `measure`.
    var frames = 0
    var lost = false
    /// What the first frame took, from the camera to the screen.
    var firstFrameMs: Double?
}

/// One avatar driven live, from camera frames to what the screen draws. Each thread has its own part:
///
///     camera: frame()  ->  MediaPipe's: landmarks  ->  network  ->  main: pipeline.show()  ->  Metal's: drawn()
final class LiveSession: @unchecked Sendable {  // each thread has its own part, the rest is behind locks
    let avatar: Avatar
    let pipeline: LivePipeline
    let pacer = FramePacer()
    let camera = Meter()
    let landmarks = Meter()
    let network = Meter()
    /// Of it, the runtime alone.
    let execute = Meter()
    let composite = Meter()
    let whole = Meter()

    private let tracker: FaceTracker
    private let converter = YuvConverter()  // the camera's thread only
    private let stop = Stop()
    private let ended = DispatchSemaphore(value: 0)
    private let lock = NSLock()
    private var screen = OnScreen()
    private let rate = FrameRate()
    private var measuring = false
    private var isClosed = false

    private static let waitNs: Int64 = 100_000_000

    /// Takes some tenths of a second: not for the main thread. `onError` may come from any.
    init(_ avatar: Avatar, onError: @escaping @Sendable (any Error) -> Void) throws {
        self.avatar = avatar
        let (landmarks, network, execute) = (landmarks, network, execute)
        let pipeline = LivePipeline(avatar, try Models.network { execute.add($0) })
        self.pipeline = pipeline
        do {
            tracker = try FaceTracker(onError: onError) { points, capturedNs, tookMs in
                landmarks.add(tookMs)
                try pipeline.see(points, capturedNs: capturedNs)
            }
        } catch {
            pipeline.close()
            throw error
        }
        let (stop, ended) = (stop, ended)
        let thread = Thread {
            do {
                while !stop.isSet {
                    // What Core ML and ExecuTorch leave behind for later goes with each frame.
                    let stepped = try autoreleasepool { try pipeline.step(waitNs: LiveSession.waitNs) }
                    if stepped { network.add(Double(pipeline.tookNs) / 1e6) }
                }
            } catch {
                if !stop.isSet { onError(error) }
            }
            ended.signal()
        }
        thread.name = "network"
        thread.qualityOfService = .userInteractive
        thread.start()
    }

    /// Frames of the screen so far.
    var shown: OnScreen { locked { screen } }

    /// Frames a second and how many they were, since `measure`.
    var measured: (fps: Double, frames: Int) { locked { (rate.fps, rate.frames) } }

    /// The camera's thread: one frame, to be turned clockwise by `rotation` degrees. Waits for its landmarks.
    func frame(_ image: YuvImage, rotation: Int, capturedNs: Int64) throws {
        if stop.isSet || !pacer.admit(capturedNs) { return }
        let beganNs = nowNs()
        let picture = try converter.toRgba(image, rotation: rotation)
        camera.add(Double(nowNs() - beganNs) / 1e6)
        try tracker.look(picture, capturedNs: capturedNs)
    }

    /// Metal's thread: a frame was drawn, and the graphics are done with it.
    func drawn(_ frame: Drawn) {
        composite.add(Double(frame.endedNs - frame.beganNs) / 1e6)
        let tookMs = Double(frame.endedNs - frame.capturedNs) / 1e6
        whole.add(tookMs)
        locked {
            if measuring { rate.shown(frame.endedNs) }
            if screen.frames == 0 { screen.firstFrameMs = tookMs }
            screen.frames += 1
            screen.lost = frame.lost
        }
    }

    /// From now on times are kept: what came before was to warm up.
    func measure() {
        for meter in [camera, landmarks, network, execute, composite, whole] { meter.measure() }
        locked { measuring = true }
    }

    /// Not for the main thread: it waits for the frame in the network, and for the one that MediaPipe looks at. May be called again.
    func close() {
        let first = locked {
            defer { isClosed = true }
            return !isClosed
        }
        if !first { return }
        stop.set()
        pipeline.close()
        ended.wait()
        tracker.close()
    }

    private func locked<R>(_ act: () -> R) -> R {
        lock.lock()
        defer { lock.unlock() }
        return act()
    }
}

/// Set once, seen by all threads.
final class Stop: @unchecked Sendable {  // the lock is around all
    private let lock = NSLock()
    private var wanted = false

    var isSet: Bool {
        lock.lock()
        defer { lock.unlock() }
        return wanted
    }

    func set() {
        lock.lock()
        defer { lock.unlock() }
        wanted = true
    }
}
