/// What many measured times come to: percentiles between the neighbours, linearly, as NumPy has them; `cv` is the standard deviation
/// (of a sample) over the mean. In the unit of the times.
public struct Statistics: Equatable, Sendable {
    public let count: Int
    public let mean: Double
    public let p50: Double
    public let p90: Double
    public let p99: Double
    public let cv: Double

    init(count: Int, mean: Double, p50: Double, p90: Double, p99: Double, cv: Double) {
        self.count = count
        self.mean = mean
        self.p50 = p50
        self.p90 = p90
        self.p99 = p99
        self.cv = cv
    }

    /// Of the first `count` of `times`, all if it is not given; there must be one at least.
    public static func of(_ times: [Double], count: Int? = nil) throws -> Statistics {
        let sorted = times.prefix(count ?? times.count).sorted()
        guard !sorted.isEmpty else { throw MobileBilayerError("Statistics of no measurement were asked for. Measure longer.") }
        let count = sorted.count
        let mean = sorted.reduce(0, +) / Double(count)
        let squares = sorted.reduce(0) { $0 + ($1 - mean) * ($1 - mean) }
        let spread = count > 1 ? (squares / Double(count - 1)).squareRoot() : 0
        func percentile(_ share: Double) -> Double {
            let place = share * Double(count - 1)
            let low = Int(place)
            let high = min(low + 1, count - 1)
            return sorted[low] + (place - Double(low)) * (sorted[high] - sorted[low])
        }
        return Statistics(
            count: count, mean: mean, p50: percentile(0.5), p90: percentile(0.9), p99: percentile(0.99), cv: mean > 0 ? spread / mean : 0)
    }
}

/// Times of one stage while they come, without allocating; beyond `capacity` the oldest are forgotten. For one thread.
public final class StageTimes {
    private var timesMs: [Double]
    private var next = 0
    private var total = 0

    public init(capacity: Int = 40_000) { timesMs = [Double](repeating: 0, count: capacity) }

    /// How many there are to look at.
    public var count: Int { min(total, timesMs.count) }

    public func add(_ ms: Double) {
        timesMs[next] = ms
        next = (next + 1) % timesMs.count
        total += 1
    }

    /// In ms. Throws `MobileBilayerError` if there are none.
    public func statistics() throws -> Statistics { try Statistics.of(timesMs, count: count) }
}

/// Frames that reached the screen, and how many a second; nothing is allocated. For one thread.
public final class FrameRate {
    private var perSecond: [Int]
    private var firstNs: Int64 = 0
    private var lastNs: Int64 = 0

    /// Frames shown.
    public private(set) var frames = 0

    public init(seconds: Int = 3600) { perSecond = [Int](repeating: 0, count: seconds) }

    public func shown(_ nowNs: Int64) {
        if frames == 0 { firstNs = nowNs }
        lastNs = nowNs
        frames += 1
        let second = Int((nowNs - firstNs) / 1_000_000_000)
        if second < perSecond.count { perSecond[second] += 1 }
    }

    /// Of whole frames, from the first to the last one; 0 for fewer than two.
    public var fps: Double { lastNs > firstNs ? Double(frames - 1) * 1e9 / Double(lastNs - firstNs) : 0 }

    /// Frames in each whole second since the first.
    public func overTime() -> [Int] { Array(perSecond.prefix(Int((lastNs - firstNs) / 1_000_000_000))) }
}
