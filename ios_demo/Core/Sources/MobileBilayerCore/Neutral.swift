import Foundation

// What of a driver means "as in the photo": found from all frames, so that no single one, the first least, decides.
// `mobile_bilayer/pose/neutral.py` says how.

private let angle = 20.0  // degrees from frontal for which a frame counts less by e
private let lipsApart = 0.05  // mouth widths, and
private let lidsCloser = 0.06  // eye widths, for the same
private let memoryS = 60.0  // live: what is longer ago hardly counts
private let largestStep = 0.1  // live: of the way to a frame that shows the face more at rest than all before

/// How long a lost face keeps its last motion, in seconds, and how long it then takes to the neutral one.
let holdS = 0.5
let easeS = 0.5

/// How much a frame counts for the pose: 1 from the front, and less when turned.
func frontal(_ motion: Motion) -> Double {
    let r = motion.pose.rotation
    let turned = acos(min(max((r[0] + r[4] + r[8] - 1) / 2, -1), 1)) * 180 / .pi / angle
    return exp(-turned * turned)
}

/// How much a frame counts for the face, among those as frontal; above 0, for comparing frames. `sums`: see `measure`.
func restful(_ motion: Motion, sums: inout [Double]) -> Double {
    measure(motion.face, out: &sums)
    let eyes = min(opennessIn(sums), 1)
    let lips = min(max(lipOpeningIn(sums), 0), 1)
    return exp(eyes / lidsCloser - lips / lipsApart)
}

/// The neutral motion of what was seen until now: `neutral.add(motion, stepS: s)`, then `neutral.motion()`. No frame allocates.
public final class Neutral {
    /// Forget what is long ago, and change slowly.
    public let live: Bool
    private var seenS = 0.0  // how long frames counted, for the pose
    private var restS = 0.0  // and for the face
    private var rows = [Double](repeating: 0, count: 6)
    private var scale = 0.0
    private var shift = [0.0, 0.0]
    private var face = [Double](repeating: 0, count: 3 * landmarkCount)
    private var sums = [Double](repeating: 0, count: 3 * measures)
    private var nearest = [Double](repeating: 0, count: 6)
    private let out = Motion()

    public init(live: Bool = false) { self.live = live }

    /// Forget all.
    public func reset() {
        (seenS, restS, scale) = (0, 0, 0)
        for i in rows.indices { rows[i] = 0 }
        for i in shift.indices { shift[i] = 0 }
        for k in face.indices { face[k] = 0 }
    }

    /// A frame that was shown for so many seconds, above 0.
    public func add(_ motion: Motion, stepS: Double) {
        let first = seenS == 0
        let kept = live ? exp(-stepS / memoryS) : 1
        let seen = stepS * frontal(motion)
        let rest = seen * restful(motion, sums: &sums)
        seenS = kept * seenS + seen
        restS = kept * restS + rest
        var ofPose = seen / seenS
        var ofFace = rest / restS
        if live && !first {
            ofPose = min(ofPose, largestStep)
            ofFace = min(ofFace, largestStep)
        }
        let pose = motion.pose
        for i in rows.indices { rows[i] += ofPose * (pose.rotation[i] - rows[i]) }
        for i in shift.indices { shift[i] += ofPose * (pose.shift[i] - shift[i]) }
        scale += ofPose * (pose.scale - scale)
        for k in face.indices { face[k] += ofFace * (motion.face[k] - face[k]) }
    }

    /// What means "as in the photo", in a buffer that the next call fills anew. There must have been a frame.
    public func motion() -> Motion {
        precondition(seenS > 0, "a neutral motion was asked for before there was a frame")
        copy(rows, to: &nearest)
        _ = nearestRows(&nearest)
        out.pose.scale = scale
        out.pose.setRows(nearest)
        copy(shift, to: &out.pose.shift)
        copy(face, to: &out.face)
        return out
    }
}

/// The neutral motion of a clip, from all its frames with a face. Throws `MobileBilayerError` when there is none.
public func neutralOf(_ track: Track) throws -> Motion {
    guard track.found.contains(true) else {
        throw MobileBilayerError("The track has no frame in which a face was found. Choose another clip.")
    }
    let neutral = Neutral()
    let motion = Motion()
    let times = track.timesS
    for i in track.landmarks.indices where track.found[i] {
        // Each frame is shown until the next one; the last one as long as the one before.
        let step = i + 1 < times.count ? times[i + 1] - times[i] : i > 0 ? times[i] - times[i - 1] : 1
        neutral.add(takeApart(track.landmarks[i], out: motion), stepS: min(step, 1))
    }
    return neutral.motion()
}

/// What a face lost for `lostS` seconds is thought to do: its `last` motion for `holdS`, the `neutral` one `easeS` later.
///
/// Between them in `out`; `between` is a buffer of 478 x 2
func easeToNeutral(_ last: Motion, _ neutral: Motion, lostS: Double, out: Motion, between: inout [Float]) -> Motion {
    var share = min(max((lostS - holdS) / easeS, 0), 1)
    share *= share * (3 - 2 * share)  // smooth at both ends
    if share == 0 { return last }
    if share == 1 { return neutral }
    let kept = Float(1 - share)
    let gone = Float(share)
    for i in 0..<landmarkCount {
        between[2 * i] = kept * last.pose.x(last.face, 3 * i) + gone * neutral.pose.x(neutral.face, 3 * i)
        between[2 * i + 1] = kept * last.pose.y(last.face, 3 * i) + gone * neutral.pose.y(neutral.face, 3 * i)
    }
    return takeApart(between, out: out)
}
