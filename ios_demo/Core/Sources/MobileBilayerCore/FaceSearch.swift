import Foundation

/// A face smaller than this shows too little to make an avatar of, in pixels.
public let smallestFacePx: Float = 32

private let smallestTilePx = 120
private let rightEyeCorner = 33
private let leftEyeCorner = 263

/// A part of a picture, in whole pixels; where it reaches beyond the picture it is black.
public struct FaceWindow: Equatable, Sendable {
    public let left: Int
    public let top: Int
    public let width: Int
    public let height: Int

    public init(left: Int, top: Int, width: Int, height: Int) {
        self.left = left
        self.top = top
        self.width = width
        self.height = height
    }

    /// Landmarks (478 x 3) found in the part, as those of the picture.
    public func back(_ landmarks: [Float]) -> [Float] {
        var moved = landmarks
        for i in stride(from: 0, to: moved.count, by: 3) {
            moved[i] += Float(left)
            moved[i + 1] += Float(top)
        }
        return moved
    }

    /// The square twice as large as the face in its middle: what the landmarker finds best.
    public static func around(_ landmarks: [Float]) -> FaceWindow {
        let box = FaceBox(landmarks)
        let half = max(1, Int(max(box.width, box.height)))
        let x = Int(box.x.rounded(.toNearestOrEven))
        let y = Int(box.y.rounded(.toNearestOrEven))
        return FaceWindow(left: x - half, top: y - half, width: 2 * half, height: 2 * half)
    }
}

/// Where to look for a face in a picture of that size, one try after another: the whole, the whole with a border, then tiles that
/// overlap and are halved `levels` times. A landmarker finds faces of at least a tenth of what it sees, with some room around them.
public func searchPlan(width: Int, height: Int, levels: Int = 3) -> [[FaceWindow]] {
    let pad = max(width, height) / 3
    var plan = [
        [FaceWindow(left: 0, top: 0, width: width, height: height)],
        [FaceWindow(left: -pad, top: -pad, width: width + 2 * pad, height: height + 2 * pad)],
    ]
    var side = min(width, height) / 2
    for _ in 0..<levels where side >= smallestTilePx {
        let lefts = starts(width, side)
        plan.append(
            starts(height, side).flatMap { top in lefts.map { FaceWindow(left: $0, top: top, width: side, height: side) } })
        side /= 2
    }
    return plan
}

/// Landmarks (478 x 3) of the largest face of a photo, in its pixels; nil where there is none. Some hundred looks where there is none.
///
/// `look` landmarks of all faces in a part of the photo, in the part's pixels; the landmarker sees each part by itself
public func findFace(width: Int, height: Int, look: (FaceWindow) throws -> [[Float]]) rethrows -> [Float]? {
    for windows in searchPlan(width: width, height: height) {
        let found = try windows.flatMap { window in try look(window).map(window.back) }
            .sorted { FaceBox($0).area > FaceBox($1).area }
        if windows.count == 1 {
            if let face = found.first { return face }
            continue
        }
        // A tile may cut a face, or see one in a pattern: what is one is one in the middle of its own window, too.
        for face in found {
            let window = FaceWindow.around(face)
            if let again = try look(window).max(by: { FaceBox($0).area < FaceBox($1).area }) { return window.back(again) }
        }
    }
    return nil
}

/// The larger side of the landmarks' box.
public func faceSize(_ landmarks: [Float]) -> Float {
    let box = FaceBox(landmarks)
    return max(box.width, box.height)
}

/// By how many degrees a face is turned clockwise: 0, 90, 180 or 270. Up to 60 degrees it counts as upright.
public func turnOf(_ landmarks: [Float]) -> Int {
    let numbers = dimensions(landmarks)
    let (from, to) = (numbers * rightEyeCorner, numbers * leftEyeCorner)
    let radians = atan2(Double(landmarks[to + 1] - landmarks[from + 1]), Double(landmarks[to] - landmarks[from]))
    let degrees = (radians * 180 / .pi + 360).truncatingRemainder(dividingBy: 360)
    if min(degrees, 360 - degrees) <= 60 { return 0 }
    return [90, 180, 270].min { abs(degrees - Double($0)) < abs(degrees - Double($1)) } ?? 0
}

/// Where tiles begin that overlap by a third and end at the border.
private func starts(_ length: Int, _ side: Int) -> [Int] {
    let gaps = max(1, ((length - side) * 3 + 2 * side - 1) / (2 * side))
    let step = Double(length - side) / Double(gaps)
    return (0...gaps).map { $0 == gaps ? length - side : Int(Double($0) * step) }
}
