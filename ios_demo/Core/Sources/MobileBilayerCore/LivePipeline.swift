import Foundation

/// Landmarks of a live camera in, layers for the screen out. Three threads, each with its own end, and one slot between each two:
/// the latest frame wins, so that none waits longer than the one before it takes.
///
///     landmarks thread: see()  ->  network thread: step()  ->  Metal thread: show()
///
/// Nothing is allocated for a frame. `pause`, `resume`, `restart` and `close` may come from any thread, at any time: a frame is asked
/// whether it still counts at each of the three ends, and once more behind the network.
public final class LivePipeline: @unchecked Sendable {  // each thread has its own; what they share is in slots or behind the lock
    private final class Seen {
        var landmarks = [Float](repeating: 0, count: 3 * landmarkCount)
        var found = false
        var capturedNs: Int64 = 0
    }

    /// What pause and the like ask of the network's thread.
    private enum Asked { case nothing, resume, restart }

    private let avatar: Avatar
    private let network: FrameNetwork
    private let mode: Mode
    private let clock = FrameClock()
    private let seen = LatestFrame(Seen(), Seen(), Seen())
    private let drawn: LatestFrame<Layers>

    // The network's thread only.
    private let follower: Follower
    private var renderer: Renderer?

    // Behind the lock: what is asked comes with the time from which frames count.
    private let lock = NSLock()
    private var asked = Asked.nothing
    private var closed = false
    private var latestNs = Int64.min
    private var latestTookNs: Int64 = 0

    /// `config`: the bundle's, unless a user wants it otherwise.
    public init(_ avatar: Avatar, _ network: FrameNetwork, mode: Mode = .relative, config: StabilizerConfig? = nil) {
        let manifest = avatar.bundle.manifest
        self.avatar = avatar
        self.network = network
        self.mode = mode
        drawn = LatestFrame(Layers(manifest), Layers(manifest), Layers(manifest))
        follower = Follower(config ?? manifest.stabilizer)
    }

    /// When the camera took the frame of the latest layers: what is left to now is how late they are.
    public var drawnNs: Int64 { locked { latestNs } }

    /// How long the latest layers took from their landmarks on, without waiting for these.
    public var tookNs: Int64 { locked { latestTookNs } }

    /// Frames that a newer one overtook before the network, and before the screen.
    public var dropped: Int { seen.dropped + drawn.dropped }

    /// Frames that were out of order, or from before a pause or restart.
    public var refused: Int { clock.refused }

    /// The landmarks thread: what was found in a frame.
    ///
    /// `landmarks` 478 x 3 in pixels of the upright picture that is not mirrored, copied; nil where no face was found
    /// `capturedNs` when the camera took it: see `FrameClock`
    public func see(_ landmarks: [Float]?, capturedNs: Int64) throws {
        if let landmarks {
            try checkLandmarks(landmarks)
            if dimensions(landmarks) != 3 {
                throw MobileBilayerError("Live landmarks have 2 numbers each; 3 are needed. Take MediaPipe's own.")
            }
        }
        if !clock.admit(capturedNs) { return }
        let into = seen.writing
        if let landmarks { copy(landmarks, to: &into.landmarks) }
        into.found = landmarks != nil
        into.capturedNs = capturedNs
        seen.publish()
    }

    /// The network thread: the latest frame, if there is one that was not done yet. Returns whether there are new layers.
    ///
    /// `waitNs` how long to wait for a frame
    public func step(waitNs: Int64 = 0) throws -> Bool {
        if locked({ closed }) { return false }
        guard let frame = waitNs > 0 ? seen.wait(timeoutNs: waitNs) : seen.take() else { return false }
        let beganNs = nowNs()
        let wanted: Asked? = locked {
            if !clock.isCurrent(frame.capturedNs) { return nil }
            defer { asked = .nothing }
            return asked
        }
        switch wanted {
        case nil: return false
        case .resume: follower.resume()
        case .restart: follower.reset()
        case .nothing: break
        }
        let seconds = clock.seconds(frame.capturedNs)
        guard let motion = follower.follow(frame.found ? frame.landmarks : nil, timeS: seconds), let neutral = follower.neutral
        else { return false }
        renderer?.setNeutral(neutral)
        let renderer = try self.renderer ?? Renderer(avatar, network, neutral, mode: mode)
        self.renderer = renderer
        let layers = drawn.writing
        do {
            try renderer.layers(moving: motion, into: layers)
        } catch let refused as MobileBilayerError {
            if locked({ closed }) { return false }  // between two lines of ours
            throw refused
        }
        layers.capturedNs = frame.capturedNs
        layers.lost = !frame.found
        let current = locked {
            if closed || !clock.isCurrent(frame.capturedNs) { return false }
            latestNs = frame.capturedNs
            latestTookNs = nowNs() - beganNs
            return true
        }
        if current { drawn.publish() }
        return current
    }

    /// The Metal thread: new layers, or nil to show again what is on the screen. They may be read until the next call.
    public func show() -> Layers? {
        guard let layers = drawn.take(), clock.isCurrent(layers.capturedNs) else { return nil }
        return layers
    }

    /// The app left the screen: no frame counts until `resume`.
    public func pause() { clock.pause() }

    /// Go on with what is neutral; only frames taken from then on count.
    public func resume(nowNs: Int64 = nowNs()) {
        locked {
            if asked != .restart { asked = .resume }
            clock.resume(nowNs)
        }
    }

    /// The picture turned, or comes from another camera: what is neutral is found anew, in frames taken from then on.
    public func restart(nowNs: Int64 = nowNs()) {
        locked {
            asked = .restart
            clock.restart(nowNs)
        }
    }

    /// No frame is begun any more; waits for the one in the network, and closes it.
    public func close() {
        locked { closed = true }
        pause()
        network.close()
    }

    private func locked<R>(_ act: () -> R) -> R {
        lock.lock()
        defer { lock.unlock() }
        return act()
    }
}
