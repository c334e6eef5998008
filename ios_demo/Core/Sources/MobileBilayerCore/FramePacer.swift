import Foundation

/// Fewer frames while the phone is hot: it lowers the rate rather than stalls. Nothing is allocated; `admit` is for one thread.
///
/// What a phone says of its heat is ProcessInfo.ThermalState's raw value: 0 (nominal) to 3 (critical), -1 where it does not tell.
public final class FramePacer: @unchecked Sendable {  // the lock is around what other threads change
    public static let unknown = -1
    private static let names = ["nominal", "fair", "serious", "critical"]

    private let lock = NSLock()
    private var told = FramePacer.unknown
    private var nextNs: Int64?

    /// Frames that were left out to cool down.
    public private(set) var spared = 0

    public init() {}

    /// As the phone says; from any thread.
    public var heat: Int {
        get {
            lock.lock()
            defer { lock.unlock() }
            return told
        }
        set {
            lock.lock()
            defer { lock.unlock() }
            told = newValue
        }
    }

    /// Whether a frame is to be looked at.
    public func admit(_ capturedNs: Int64) -> Bool {
        guard let most = FramePacer.mostFps(heat) else {
            nextNs = nil
            return true
        }
        let periodNs = 1_000_000_000 / Int64(most)
        var dueNs = nextNs ?? capturedNs
        // A camera's frames don't come evenly: one that is a little early counts, and the next is not later for it.
        if capturedNs < dueNs - periodNs / 4 {
            spared += 1
            return false
        }
        if capturedNs > dueNs + periodNs { dueNs = capturedNs }  // after a pause
        nextNs = dueNs + periodNs
        return true
    }

    /// How many frames a second are looked at, at such a heat; nil is all.
    public static func mostFps(_ heat: Int) -> Int? {
        switch heat {
        case ..<2: nil
        case 2: 15
        default: 10
        }
    }

    /// As results and people have it.
    public static func name(_ heat: Int) -> String { names.indices.contains(heat) ? names[heat] : "unknown" }
}
