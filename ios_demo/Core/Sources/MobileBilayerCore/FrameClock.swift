import Foundation

/// Which frames count, by when the camera took them: none twice, none older than one that was let through, and none from before a
/// pause, a rotation or a change of camera. Safe from any thread.
///
/// All times are of one clock, in nanoseconds: `nowNs`'s, which is that of a capture session's frames (CMClockGetHostTimeClock).
public final class FrameClock: @unchecked Sendable {  // the lock is around all that changes
    private let lock = NSLock()
    private var firstNs = Int64.min
    private var lastNs = Int64.min
    private var sinceNs = Int64.min
    private var isPaused = false
    private var refusals = 0

    public init() {}

    /// Whether frames count at all.
    public var paused: Bool { locked { isPaused } }

    /// Frames that did not count.
    public var refused: Int { locked { refusals } }

    /// Whether a frame counts; if so, later ones must be newer.
    public func admit(_ capturedNs: Int64) -> Bool {
        locked {
            guard counts(capturedNs), capturedNs > lastNs else {
                refusals += 1
                return false
            }
            lastNs = capturedNs
            if firstNs == .min { firstNs = capturedNs }
            return true
        }
    }

    /// Whether a frame that was let through still may be shown.
    public func isCurrent(_ capturedNs: Int64) -> Bool { locked { counts(capturedNs) } }

    /// Seconds since the first frame that counted; they go on in a pause.
    public func seconds(_ capturedNs: Int64) -> Double { locked { Double(capturedNs - firstNs) / 1e9 } }

    /// From now on no frame counts.
    public func pause() { locked { isPaused = true } }

    /// Frames taken from `nowNs` on count again.
    public func resume(_ nowNs: Int64) {
        locked {
            isPaused = false
            sinceNs = nowNs
        }
    }

    /// Frames taken before `nowNs` count no more; a pause goes on.
    public func restart(_ nowNs: Int64) { locked { sinceNs = nowNs } }

    private func counts(_ capturedNs: Int64) -> Bool { !isPaused && capturedNs >= sinceNs }

    private func locked<R>(_ act: () -> R) -> R {
        lock.lock()
        defer { lock.unlock() }
        return act()
    }
}
