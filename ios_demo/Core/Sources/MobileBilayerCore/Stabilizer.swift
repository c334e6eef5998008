// Landmarks tremble and people move: a One-Euro filter that tells them apart, part by part of a head taken apart. Units are those
// of the face's template, so one setting suits every size of picture, and times are the frames' own, so it suits every rate.

let reach = 3  // frames to each side

/// A `Smoothing.kernel` that leaves a frame as it is.
let alone: [Double] = [0, 0, 0, 1, 0, 0, 0]

/// How one part is smoothed.
public struct Smoothing: Equatable, Sendable {
    /// Cut-off when nothing moves: lower is calmer.
    public let restHz: Double
    /// By how much the cut-off rises for each template unit (distance of the outer eye corners) a second.
    public let speedHz: Double
    /// Weight of the newest frame as it was read; the one before it has the rest.
    public let newest: Double
    /// Of a file: weights of three frames before, this one and three behind. Live, nothing is behind: it is not used.
    public let kernel: [Double]

    public init(restHz: Double, speedHz: Double, newest: Double = 1) throws {
        try self.init(restHz: restHz, speedHz: speedHz, newest: newest, kernel: alone)
    }

    public init(restHz: Double, speedHz: Double, newest: Double, kernel: [Double]) throws {
        guard restHz > 0, restHz.isFinite, speedHz >= 0, speedHz.isFinite, newest > 0, newest <= 1 else {
            throw MobileBilayerError(
                "A smoothing has rest_hz \(restHz), speed_hz \(speedHz) and newest \(newest); the first must be above 0, the second not "
                    + "below, the third in 0..1. Try 2, 40 and 0.7.")
        }
        let sum = kernel.reduce(0, +)
        guard kernel.count == 2 * reach + 1, abs(sum - 1) <= 1e-6 else {
            throw MobileBilayerError(
                "A kernel has \(kernel.count) weights and adds up to \(sum); \(2 * reach + 1) weights that add up to 1 are "
                    + "needed. Try 0, 0, 0.25, 0.5, 0.25, 0, 0.")
        }
        self.init(known: restHz, speedHz, newest, kernel)
    }

    /// Of numbers that are right: ours.
    init(known restHz: Double, _ speedHz: Double, _ newest: Double, _ kernel: [Double] = alone) {
        self.restHz = restHz
        self.speedHz = speedHz
        self.newest = newest
        self.kernel = kernel
    }
}

/// Smoothing of each part; a pause longer than `gapS` seconds starts anew.
public struct StabilizerConfig: Equatable, Sendable {
    public let pose: Smoothing
    public let skin: Smoothing
    public let brows: Smoothing
    public let mouth: Smoothing
    public let lids: Smoothing
    public let gaze: Smoothing
    public let gapS: Double

    public init(
        pose: Smoothing, skin: Smoothing, brows: Smoothing, mouth: Smoothing, lids: Smoothing, gaze: Smoothing, gapS: Double
    ) throws {
        guard gapS > 0, gapS.isFinite else {
            throw MobileBilayerError("A stabiliser's gap_s is \(gapS); it must be above 0. Try 0.5.")
        }
        self.init(known: [pose, skin, brows, mouth, lids, gaze], gapS)
    }

    private init(known parts: [Smoothing], _ gapS: Double) {
        (pose, skin, brows) = (parts[0], parts[1], parts[2])
        (mouth, lids, gaze) = (parts[3], parts[4], parts[5])
        self.gapS = gapS
    }

    /// For a camera.
    public static let live = StabilizerConfig(
        known: [
            Smoothing(known: 2, 12, 0.5), Smoothing(known: 1, 25, 0.5), Smoothing(known: 1, 60, 0.5), Smoothing(known: 6, 16, 0.5),
            Smoothing(known: 2, 80, 0.7), Smoothing(known: 1, 60, 0.55),
        ], 0.5)

    /// For files: kernels have taken what trembles, so that faster motion may pass.
    public static let file = StabilizerConfig(
        known: [
            Smoothing(known: 2, 20, 1, wide), Smoothing(known: 1, 40, 1, wide), Smoothing(known: 1, 60, 1, narrow),
            Smoothing(known: 3, 120, 1, narrow), Smoothing(known: 2, 80, 1, sharp), Smoothing(known: 1, 60, 1, sharp),
        ], 0.5)

    /// Of each part: skin, brows, mouth, right and left lids, right and left gaze.
    var parts: [Smoothing] { [skin, brows, mouth, lids, lids, gaze, gaze] }
}

private let wide: [Double] = [1, 6, 15, 20, 15, 6, 1].map { $0 / 64 }
private let narrow: [Double] = [0, 1, 8, 14, 8, 1, 0].map { $0 / 32 }
private let sharp: [Double] = [0, -0.05, 0.25, 0.6, 0.25, -0.05, 0]

/// Which part each of the 478 landmarks belongs to: 0 skin, 1 brows, 2 mouth, chin and jaw, 3 and 4 lids, 5 and 6 gaze; the
/// person's right eye before the left one.
func parts() -> [Int] {
    let template = faceTemplate().points
    var out = (0..<landmarkCount).map { template[3 * $0 + 1] > 0.17 ? 2 : 0 }  // from the upper lip down
    for brow in brows {
        for i in brow { out[i] = 1 }
    }
    for side in 0...1 {
        for i in upperLids[side] + lowerLids[side] { out[i] = 3 + side }
        for i in irises[side] { out[i] = 5 + side }
    }
    return out
}

/// How much of the way to the new value is gone at this `speed`, in a step of so many seconds: above 0, below 1.
func share(speed: Double, stepS: Double, restHz: Double, speedHz: Double) -> Double {
    let turns = 2 * Double.pi * stepS * (restHz + speedHz * speed)
    return turns / (1 + turns)
}

/// Frame by frame, live: `stabilizer.stabilize(motion, timeS: t)`. No frame allocates.
///
/// The newest frame is first joined with the one before it, which takes what trembles from frame to frame and is late by half of
/// one. It starts anew by `reset`, as after a lost face, and by itself after a pause or when time goes backwards.
public final class Stabilizer {
    public let config: StabilizerConfig
    private let whose = parts()
    private let smoothings: [Smoothing]
    private let counts: [Double]
    private let last = Motion()
    private let read = Motion()
    private var numbers = [Double](repeating: 0, count: 8)
    private var numbersBefore = [Double](repeating: 0, count: 8)
    private var was = [Double](repeating: 0, count: 8)
    private var speeds: [Double]
    private var change = [Double](repeating: 0, count: 3 * landmarkCount)
    private var fresh = true
    private var timeS = 0.0

    public init(_ config: StabilizerConfig = .live) {
        self.config = config
        let smoothings = config.parts
        self.smoothings = smoothings
        let whose = whose
        counts = smoothings.indices.map { part in Double(whose.filter { $0 == part }.count) }
        speeds = [Double](repeating: 0, count: smoothings.count)
    }

    /// The next frame is given out as it is.
    public func reset() { fresh = true }

    /// The `motion`, calmer, in a buffer of this object that the next call fills anew. Times are seconds, and grow.
    public func stabilize(_ motion: Motion, timeS: Double) -> Motion {
        let stepS = timeS - self.timeS
        self.timeS = timeS
        if fresh || !(stepS > 0 && stepS <= config.gapS) {
            fresh = false
            last.set(motion)
            numbersOf(motion.pose, &numbersBefore)
        } else {
            stepPose(motion.pose, stepS)
            stepFace(motion, stepS)
        }
        read.set(motion)
        return last
    }

    private func stepPose(_ pose: HeadPose, _ stepS: Double) {
        numbersOf(last.pose, &was)
        numbersOf(pose, &numbers)
        var (turned, shifted) = (0.0, 0.0)
        for i in 0..<8 {
            let step = numbersBefore[i] + config.pose.newest * (numbers[i] - numbersBefore[i]) - was[i]
            numbersBefore[i] = numbers[i]
            numbers[i] = step
            if i < 6 { turned += step * step } else { shifted += step * step }
        }
        // Points of a head lie half a unit from its middle, on average.
        let far = (turned / 4 + shifted).squareRoot() / last.pose.scale
        let part = share(speed: far / stepS, stepS: stepS, restHz: config.pose.restHz, speedHz: config.pose.speedHz)
        for i in 0..<8 { was[i] += part * numbers[i] }
        poseOf(&was, last.pose)
    }

    private func stepFace(_ motion: Motion, _ stepS: Double) {
        for part in speeds.indices { speeds[part] = 0 }
        for i in 0..<landmarkCount {
            let part = whose[i]
            let newest = smoothings[part].newest
            for k in (3 * i)..<(3 * i + 3) {
                let before = read.face[k]
                let step = (motion.face[k] - before) * newest + before - last.face[k]
                change[k] = step
                speeds[part] += step * step
            }
        }
        for part in speeds.indices {
            let smoothing = smoothings[part]
            let speed = (speeds[part] / counts[part]).squareRoot() / stepS
            speeds[part] = share(speed: speed, stepS: stepS, restHz: smoothing.restHz, speedHz: smoothing.speedHz)
        }
        for i in 0..<landmarkCount {
            let part = speeds[whose[i]]
            for k in (3 * i)..<(3 * i + 3) { last.face[k] += part * change[k] }
        }
    }
}

/// The two rows that take a face to its picture, and the shift: eight numbers that may be added and weighted.
func numbersOf(_ pose: HeadPose, _ out: inout [Double]) {
    for i in 0..<6 { out[i] = pose.scale * pose.rotation[i] }
    out[6] = pose.shift[0]
    out[7] = pose.shift[1]
}

/// The pose nearest to such numbers; they are changed.
func poseOf(_ numbers: inout [Double], _ out: HeadPose) {
    out.shift[0] = numbers[6]
    out.shift[1] = numbers[7]
    out.scale = nearestRows(&numbers)
    out.setRows(numbers)
}
