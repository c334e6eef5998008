// The driver's motion, put on the source's own face: so that no face shape leaks. What a frame of the driver gives is compared
// with the driver's neutral frame, and the difference is done to the source. Three things are not differences but ratios,
// so that shut is shut in every face: lids, lips and gaze. `mobile_bilayer/pose/retarget.py` says why each number is what it is.

/// Whether the source turns and changes as the driver does, or gets the driver's pose and face themselves.
public enum Mode: String, Sendable {
    case relative
    case absolute
}

let largestShift = 0.4  // of the head, in crop coordinates
let scaleRange = 0.75...1.33  // of the head's size against the photo's
let proportionRange = 0.8...1.05  // of its mouth and brows against the driver's; above is a smile
let shutLidsOpening = 0.08  // of the eye's width: so far apart are points of shut lids
let shutLipsOpening = 0.06  // of the mouth's width
let tightLips = 0.02
let mostShut = 0.35  // of the lids' distance at rest, for narrow eyes
let widestLids = 1.6  // of the same
let upperLid = 0.95  // how much of a blink the upper lid does
let upperLip = 0.15  // and the upper lip of lips that part

/// Outer and inner one; the person's right eye first, as everywhere below.
let eyeCorners = [[33, 133], [263, 362]]
let upperLids = [[246, 161, 160, 159, 158, 157, 173], [466, 388, 387, 386, 385, 384, 398]]
let lowerLids = [[7, 163, 144, 145, 153, 154, 155], [249, 390, 373, 374, 380, 381, 382]]

/// The middle first.
let irises = [[468, 469, 470, 471, 472], [473, 474, 475, 476, 477]]
let brows = [[70, 63, 105, 66, 107], [300, 293, 334, 296, 336]]
let mouthCorners = [61, 291]

/// The inner edges, from the person's right; then the outer ones.
let upperLips = [191, 80, 81, 82, 13, 312, 311, 310, 415]
let lowerLips = [95, 88, 178, 87, 14, 317, 402, 318, 324]
let outerUpperLips = [185, 40, 39, 37, 0, 267, 269, 270, 409]
let outerLowerLips = [146, 91, 181, 84, 17, 314, 405, 321, 375]
private let middle = 3...5  // of lips

/// Points of lids and irises that `move` puts: upper lids, lower lids, irises; of each the right eye's first.
private let eyePoints: [Int] = (upperLids + lowerLids + irises).flatMap { $0 }
let measures = 48
private let places = 10  // where the sums of eye points begin
private let eyePlaces = 38  // and how many there are

private struct Sum {
    var landmarks: [Int]
    var weights: [Double]

    static func + (a: Sum, b: Sum) -> Sum { Sum(landmarks: a.landmarks + b.landmarks, weights: a.weights + b.weights) }

    static func mean(_ landmarks: [Int], _ weight: Double) -> Sum {
        Sum(landmarks: landmarks, weights: landmarks.map { _ in weight / Double(landmarks.count) })
    }
}

/// All that is measured of a face are weighted sums of landmarks. Of each sum: which landmarks, and their weights.
///
/// 0 to 5 of each eye: along it, from its middle to the iris, from lid to lid;
/// 6 and 7 from corner to corner of the mouth, from lip to lip;
/// 8 and 9 of each eye: from it to its brow;
/// 10 to 47 where pairs of lids meet, as often as `eyePoints` has their points, and the eyes' middles, as often
private let sumsOfLandmarks: [Sum] = {
    var all: [Sum] = []
    for eye in 0...1 {
        let corners = eyeCorners[eye]
        all.append(Sum(landmarks: corners, weights: [1, -1]))
        all.append(Sum(landmarks: [irises[eye][0]], weights: [1]) + .mean(corners, -1))
        all.append(.mean(Array(lowerLids[eye][2..<5]), 1) + .mean(Array(upperLids[eye][2..<5]), -1))
    }
    all.append(Sum(landmarks: mouthCorners, weights: [1, -1]))
    all.append(.mean(Array(lowerLips[middle]), 1) + .mean(Array(upperLips[middle]), -1))
    for eye in 0...1 { all.append(.mean(brows[eye], 1) + .mean(eyeCorners[eye], -1)) }
    for _ in 0...1 {
        for eye in 0...1 {
            for (upper, lower) in zip(upperLids[eye], lowerLids[eye]) {
                all.append(Sum(landmarks: [upper, lower], weights: [1 - upperLid, upperLid]))
            }
        }
    }
    for eye in 0...1 { all += irises[eye].map { _ in .mean(eyeCorners[eye], 1) } }
    return all
}()

/// All that is measured of a `face` (478 x 3): 48 x 3, see the list of sums.
func measure(_ face: [Double], out: inout [Double]) {
    let all = sumsOfLandmarks
    for i in all.indices {
        let sum = all[i]
        var (x, y, z) = (0.0, 0.0, 0.0)
        for k in sum.landmarks.indices {
            let at = 3 * sum.landmarks[k]
            let weight = sum.weights[k]
            x += weight * face[at]
            y += weight * face[at + 1]
            z += weight * face[at + 2]
        }
        out[3 * i] = x
        out[3 * i + 1] = y
        out[3 * i + 2] = z
    }
}

/// The same, in numbers of its own.
func measure(_ face: [Double]) -> [Double] {
    var out = [Double](repeating: 0, count: 3 * measures)
    measure(face, out: &out)
    return out
}

/// Length of the i-th of `measure`'s sums, never 0.
private func length(_ sums: [Double], _ i: Int) -> Double {
    let (x, y, z) = (sums[3 * i], sums[3 * i + 1], sums[3 * i + 2])
    return max((x * x + y * y + z * z).squareRoot(), 1e-6)
}

/// What an eye does.
final class Eye {
    /// From corner to corner.
    var width = 1.0
    /// Mean distance down of the three middle pairs of lid points, over the width.
    var openness = 0.0
    /// 3, of the iris from the middle of the corners, in widths.
    var gaze = [0.0, 0.0, 0.0]

    func set(_ sums: [Double], _ eye: Int) {
        width = length(sums, 3 * eye)
        openness = sums[3 * (3 * eye + 2) + 1] / width
        for c in 0..<3 { gaze[c] = sums[3 * (3 * eye + 1) + c] / width }
    }
}

/// Both eyes of a `face` (478 x 3), the person's right one first.
func eyesOf(_ face: [Double]) -> [Eye] {
    let sums = measure(face)
    return (0...1).map { side in
        let eye = Eye()
        eye.set(sums, side)
        return eye
    }
}

/// Openness of both eyes, on average.
func openness(_ face: [Double]) -> Double { opennessIn(measure(face)) }

/// Mean distance down of the three middle pairs of lip points, in mouth widths.
func lipOpening(_ face: [Double]) -> Double { lipOpeningIn(measure(face)) }

func opennessIn(_ sums: [Double]) -> Double { (sums[3 * 2 + 1] / length(sums, 0) + sums[3 * 5 + 1] / length(sums, 3)) / 2 }

func lipOpeningIn(_ sums: [Double]) -> Double { sums[3 * 7 + 1] / length(sums, 6) }

/// The `face` (478 x 3) with its lips shut; the jaw comes along. Lips that may be shut already stay as they are.
func shutLips(_ face: [Double], opening: Double, out: inout [Double]) {
    copy(face, to: &out)
    if opening <= shutLipsOpening { return }
    let part = 1 - max(2 * shutLipsOpening - opening, tightLips) / opening
    var drop = 0.0
    for i in middle { drop += part * (face[3 * lowerLips[i] + 1] - face[3 * upperLips[i] + 1]) / 3 }
    let jaw = faceTemplate().jaw
    for i in 0..<landmarkCount { out[3 * i + 1] -= Double(jaw[i]) * drop }
    for i in lowerLips.indices {
        for c in 0..<3 {
            let (upper, lower) = (3 * upperLips[i] + c, 3 * lowerLips[i] + c)
            let (outerUpper, outerLower) = (3 * outerUpperLips[i] + c, 3 * outerLowerLips[i] + c)
            let spare = part * (face[lower] - face[upper])
            out[upper] = face[upper] + upperLip * spare
            out[lower] = face[lower] - (1 - upperLip) * spare
            out[outerUpper] = face[outerUpper] + upperLip * spare
            out[outerLower] = face[outerLower] - (1 - upperLip) * spare
        }
    }
}

/// How far an eye's lids are open, of how far they are at rest: 1 as at rest, 0 shut; both given as openness.
///
/// From half shut on down the share falls faster than the distance does, for the points of shut lids don't meet.
func lidShare(now: Double, rest: Double) -> Double {
    let open = max(rest, 1e-3)
    let shut = min(shutLidsOpening / open, mostShut)
    var share = now / open
    if share < 0.5 { share = 0.5 * (share - shut) / (0.5 - shut) }
    return min(max(share, 0), widestLids)
}

/// A face that motion starts from: the source's, and the driver's in its neutral frame. It is a buffer.
final class Rest {
    /// As it is in the picture.
    let pose = HeadPose()
    /// 478 x 3, with its lips shut.
    var face = [Double](repeating: 0, count: 3 * landmarkCount)
    /// As they are in the picture, the person's right one first.
    let eyes = [Eye(), Eye()]
    /// 38 x 3, where lids and irises are put from.
    var places = [Double](repeating: 0, count: 3 * eyePlaces)
    /// Of the corners.
    var mouthWidth = 0.0
    /// Mean distance of brows and eyes.
    var browHeight = 0.0
    fileprivate var sums = [Double](repeating: 0, count: 3 * measures)
}

/// What `move` needs to know of a face.
@discardableResult
func restOf(_ motion: Motion, out: Rest = Rest()) -> Rest {
    measure(motion.face, out: &out.sums)
    out.pose.set(motion.pose)
    shutLips(motion.face, opening: lipOpeningIn(out.sums), out: &out.face)
    for eye in 0...1 { out.eyes[eye].set(out.sums, eye) }
    for k in out.places.indices { out.places[k] = out.sums[3 * places + k] }
    out.mouthWidth = length(out.sums, 6)
    out.browHeight = (length(out.sums, 8) + length(out.sums, 9)) / 2
    return out
}

/// What the driver's change of each landmark is multiplied with: the source's brows and mouth against the driver's.
func proportions(_ source: Rest, _ neutral: Rest, out: inout [Double]) {
    let brows = inside(source.browHeight / max(neutral.browHeight, 1e-3), proportionRange)
    let mouth = inside(source.mouthWidth / max(neutral.mouthWidth, 1e-3), proportionRange)
    let template = faceTemplate().doubles
    for i in 0..<landmarkCount {
        // The eyes' line is at -0.37, the nose's tip at 0.03, the mouth at 0.4.
        let height = template[3 * i + 1]
        let above = min(max((-0.42 - height) / 0.1, 0), 1)
        let below = min(max((height - 0.1) / 0.15, 0), 1)
        out[i] = 1 + (brows - 1) * above + (mouth - 1) * below
    }
}

private func inside(_ value: Double, _ range: ClosedRange<Double>) -> Double { min(max(value, range.lowerBound), range.upperBound) }

/// The face that is moved.
final class Source {
    /// As in the photo.
    let rest: Rest
    /// 38 x 3, its lids and irises in the photo, with lids that meet.
    let points: [Double]
    /// 14 x 3, from upper to lower lids in the photo, the right eye's first.
    let gaps: [Double]

    init(rest: Rest, points: [Double], gaps: [Double]) {
        self.rest = rest
        self.points = points
        self.gaps = gaps
    }
}

/// What `move` needs to know of the face that is moved.
func sourceOf(_ motion: Motion) -> Source {
    let rest = restOf(motion)
    var points = eyePoints.flatMap { i in (0..<3).map { motion.face[3 * i + $0] } }
    for k in 0..<(3 * 28) { points[k] = rest.places[k] }
    let gaps = (0..<(3 * 14)).map { k in
        let (eye, lid, c) = (k / 21, k / 3 % 7, k % 3)
        return motion.face[3 * lowerLids[eye][lid] + c] - motion.face[3 * upperLids[eye][lid] + c]
    }
    return Source(rest: rest, points: points, gaps: gaps)
}

/// Buffers of `move`.
final class MoveBuffers {
    fileprivate var sums = [Double](repeating: 0, count: 3 * measures)
    fileprivate let eye = Eye()
    fileprivate var turn = [Double](repeating: 0, count: 9)
}

/// The source when the driver has moved from `neutral` to `driving`; `scales` are those of `proportions`.
func move(_ source: Source, _ neutral: Rest, _ driving: Motion, _ scales: [Double], out: Motion, buffers: MoveBuffers) {
    for i in 0..<landmarkCount {
        let scale = scales[i]
        for k in (3 * i)..<(3 * i + 3) { out.face[k] = (driving.face[k] - neutral.face[k]) * scale + source.rest.face[k] }
    }
    // Rounding and noise must not push one lip through the other.
    for i in upperLips.indices {
        let (upper, lower) = (3 * upperLips[i] + 1, 3 * lowerLips[i] + 1)
        let across = (out.face[upper] - out.face[lower]) / 2
        if across > 0 {
            out.face[upper] -= across
            out.face[lower] += across
        }
    }
    // Where lids meet and where the eyes' middles are moves as the driver's do. From there it is the source's own gap by the
    // driver's ratio, and as many of the source's widths to the side, whatever the shape of the driver's eyes.
    measure(driving.face, out: &buffers.sums)
    for side in 0...1 {
        let eye = buffers.eye
        eye.set(buffers.sums, side)
        let was = neutral.eyes[side]
        let share = lidShare(now: eye.openness, rest: was.openness)
        for lid in 0..<7 {
            let gap = 7 * side + lid
            place(source, neutral, buffers.sums, &out.face, gap, gap, -upperLid * share)
            place(source, neutral, buffers.sums, &out.face, 14 + gap, gap, (1 - upperLid) * share)
        }
        let width = source.rest.eyes[side].width
        for point in (28 + 5 * side)..<(33 + 5 * side) {
            for c in 0..<3 {
                let moved = buffers.sums[3 * (places + point) + c] - neutral.places[3 * point + c]
                let looked = (eye.gaze[c] - was.gaze[c]) * width
                out.face[3 * eyePoints[point] + c] = source.points[3 * point + c] + moved + looked
            }
        }
    }
    movedPose(source.rest.pose, neutral.pose, driving.pose, out: out.pose, turn: &buffers.turn)
}

private func place(
    _ source: Source, _ neutral: Rest, _ sums: [Double], _ face: inout [Double], _ point: Int, _ gap: Int, _ share: Double
) {
    for c in 0..<3 {
        let moved = sums[3 * (places + point) + c] - neutral.places[3 * point + c]
        face[3 * eyePoints[point] + c] = source.points[3 * point + c] + moved + share * source.gaps[3 * gap + c]
    }
}

/// The source's pose, turned, shifted and scaled as the driver's was; within what its picture can show. `turn` is a buffer.
func movedPose(_ source: HeadPose, _ neutral: HeadPose, _ driving: HeadPose, out: HeadPose, turn: inout [Double]) {
    let unit = source.scale / neutral.scale
    let x = unit * (driving.shift[0] - neutral.shift[0])
    let y = unit * (driving.shift[1] - neutral.shift[1])
    let within = min(1, largestShift / max((x * x + y * y).squareRoot(), 1e-6))
    for k in 0..<9 {  // driving.rotation @ neutral.rotation.T
        let (row, column) = (k / 3 * 3, k % 3 * 3)
        var sum = 0.0
        for i in 0..<3 { sum += driving.rotation[row + i] * neutral.rotation[column + i] }
        turn[k] = sum
    }
    for k in 0..<9 {
        let (row, column) = (k / 3 * 3, k % 3)
        var sum = 0.0
        for i in 0..<3 { sum += turn[row + i] * source.rotation[column + 3 * i] }
        out.rotation[k] = sum
    }
    out.scale = source.scale * inside(driving.scale / neutral.scale, scaleRange)
    out.shift[0] = source.shift[0] + within * x
    out.shift[1] = source.shift[1] + within * y
}

/// `retarget` for many frames of one source: what is the same in all of them is done once, and no frame allocates.
///
/// relative: the source turns and changes as the driver does since the neutral frame.
/// absolute: the source gets the driver's pose, expression and face shape themselves; the neutral frame only says which place
/// and size are the photo's. For a driver who is the source.
///
/// `source` in [-1, 1] of its crop, neutral in pixels of the driver; both taken apart. Not for two threads at once.
public final class Retargeter {
    public let mode: Mode
    let source: Source
    let neutral: Rest
    private var scales = [Double](repeating: 0, count: landmarkCount)
    private let moved = Motion()
    private let buffers = MoveBuffers()

    public init(source: Motion, neutral: Motion, mode: Mode = .relative) {
        self.mode = mode
        self.source = sourceOf(source)
        self.neutral = restOf(neutral)
        proportions(self.source.rest, self.neutral, out: &scales)
    }

    /// From now on with another neutral frame.
    public func setNeutral(_ neutral: Motion) {
        restOf(neutral, out: self.neutral)
        proportions(source.rest, self.neutral, out: &scales)
    }

    /// 478 x 2 in [-1, 1] of the source's crop, of the driver's motion.
    public func retarget(_ driving: Motion, out: inout [Float]) {
        if mode == .relative {
            move(source, neutral, driving, scales, out: moved, buffers: buffers)
        } else {
            movedPose(source.rest.pose, neutral.pose, driving.pose, out: moved.pose, turn: &buffers.turn)
            copy(driving.pose.rotation, to: &moved.pose.rotation)
            copy(driving.face, to: &moved.face)
        }
        putTogether(moved, out: &out)
    }

    /// The same, in numbers of its own.
    public func retarget(_ driving: Motion) -> [Float] {
        var out = [Float](repeating: 0, count: 2 * landmarkCount)
        retarget(driving, out: &out)
        return out
    }
}

/// Where the source's landmarks go when the driver has moved from `neutral` to `driving`.
///
/// `source` 478 points of 2 or 3 numbers, in [-1, 1] of the source's crop; the others in pixels of the driving picture. Returns
/// 478 x 2 in [-1, 1] of the source's crop. On driving == neutral that is the source, with shut lips if the driver's are. For
/// more than a frame: `Retargeter`.
public func retarget(source: [Float], driving: [Float], neutral: [Float], mode: Mode = .relative) -> [Float] {
    Retargeter(source: takeApart(source), neutral: takeApart(neutral), mode: mode).retarget(takeApart(driving))
}
