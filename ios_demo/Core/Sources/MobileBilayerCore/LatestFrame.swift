import Dispatch
import Foundation

/// Nanoseconds of the clock that cameras stamp their frames by (the host's), and that does not go back.
public func nowNs() -> Int64 { Int64(DispatchTime.now().uptimeNanoseconds) }

/// From one thread to another: the latest frame wins. Three buffers go around, so nothing is allocated, no queue can grow, and
/// neither side waits for the other.
///
/// The writer fills `writing` and calls `publish`; the reader calls `take` and may read what it got until it takes again.
public final class LatestFrame<T: AnyObject>: @unchecked Sendable {  // the lock is around all that changes
    private let lock = NSLock()
    private let wake = DispatchSemaphore(value: 0)
    private var mine: T
    private var waiting: T
    private var reading: T
    private var fresh = false
    private var asleep = false
    private var overwritten = 0

    public init(_ first: T, _ second: T, _ third: T) {
        mine = first
        waiting = second
        reading = third
    }

    /// The writer's own: what `publish` hands over.
    public var writing: T { locked { mine } }

    /// Frames that were overwritten before somebody took them.
    public var dropped: Int { locked { overwritten } }

    /// Hand `writing` over, in place of what nobody took; there is another one to fill.
    public func publish() {
        let waits = locked {
            if fresh { overwritten += 1 }
            swap(&mine, &waiting)
            fresh = true
            defer { asleep = false }
            return asleep
        }
        if waits { wake.signal() }
    }

    /// The latest frame, or nil if it was taken already.
    public func take() -> T? { locked { takeInLock() } }

    /// The same, and waits for one up to `timeoutNs`. For one reader at a time.
    public func wait(timeoutNs: Int64) -> T? {
        let until = DispatchTime.now() + .nanoseconds(Int(timeoutNs))
        while true {
            let taken = locked {
                let taken = takeInLock()
                asleep = taken == nil
                return taken
            }
            if let taken { return taken }
            if wake.wait(timeout: until) == .timedOut {
                return locked {
                    asleep = false  // a signal that is on its way wakes the next one, which then looks again
                    return takeInLock()
                }
            }
        }
    }

    private func takeInLock() -> T? {
        if !fresh { return nil }
        fresh = false
        swap(&waiting, &reading)
        return reading
    }

    private func locked<R>(_ act: () -> R) -> R {
        lock.lock()
        defer { lock.unlock() }
        return act()
    }
}
