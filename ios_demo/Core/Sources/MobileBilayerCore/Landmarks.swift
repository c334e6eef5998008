/// MediaPipe's face landmarks: the mesh and, behind it, both irises.
public let landmarkCount = 478

/// Landmarks farther out than this are no landmarks, in pixels.
let limitPx: Float = 100_000

private let lips = [
    0, 13, 14, 17, 37, 39, 40, 61, 78, 80, 81, 82, 84, 87, 88, 91, 95, 146, 178, 181, 185, 191, 267, 269, 270, 291, 308, 310,
    311, 312, 314, 317, 318, 321, 324, 375, 402, 405, 409, 415,
]
private let rightEye = [7, 33, 133, 144, 145, 153, 154, 155, 157, 158, 159, 160, 161, 163, 173, 246]
private let leftEye = [249, 263, 362, 373, 374, 380, 381, 382, 384, 385, 386, 387, 388, 390, 398, 466]
private let bothIrises = Array(468..<478)
private let bothBrows = [70, 63, 105, 66, 107, 300, 293, 334, 296, 336]
private let oval = [10, 297, 284, 389, 454, 361, 397, 379, 400, 152, 176, 150, 172, 132, 234, 162, 54, 67]
private let nose = [168, 6, 195, 1, 2, 164, 98, 327, 48, 278]
private let cheeks = [50, 280, 205, 425, 187, 411, 118, 347]

/// The 128 landmarks of the mesh that the networks take, in the order they take them.
let mesh: [Int] = [lips, rightEye, leftEye, bothIrises, bothBrows, oval, nose, cheeks].flatMap { $0 }

/// How many numbers a point of `landmarks` has: 2 or 3.
///
/// Landmarks are flat everywhere: x, y, x, y... or x, y, z, x, y, z..., of 478 points.
func dimensions(_ landmarks: [Float]) -> Int {
    let numbers = landmarks.count / landmarkCount
    precondition(
        landmarks.count % landmarkCount == 0 && (2...3).contains(numbers),
        "landmarks must be 478 points of 2 or 3 numbers. Call checkLandmarks first")
    return numbers
}

/// MediaPipe's normalized landmarks, of [0, 1] across the picture, to pixels; z keeps x's unit.
///
/// `normalized` 478 x 3; `width`, `height` of the upright picture
public func inPixels(_ normalized: [Float], width: Int, height: Int) -> [Float] {
    var out = normalized
    inPixels(&out, width: width, height: height)
    return out
}

/// The same in place.
public func inPixels(_ points: inout [Float], width: Int, height: Int) {
    for i in points.indices { points[i] *= Float(i % 3 == 1 ? height : width) }
}

/// `landmarks` as they are, when they are 478 points of 2 or 3 finite numbers that may be a face in a picture.
///
/// Throws `MobileBilayerError` otherwise.
@discardableResult
public func checkLandmarks(_ landmarks: [Float]) throws -> [Float] {
    let numbers = landmarks.count / landmarkCount
    if landmarks.count % landmarkCount != 0 || !(2...3).contains(numbers) {
        let few = landmarks.count % 468 == 0 && (2...3).contains(landmarks.count / 468)
        let hint = few ? " (a model without iris points gives 468; use face_landmarker.task)" : ""
        throw MobileBilayerError(
            "Landmarks hold \(landmarks.count) numbers\(hint); 478 points of 2 or 3 numbers are needed, in pixels of their picture.")
    }
    var lowX = Float.infinity
    var lowY = Float.infinity
    var highX = -Float.infinity
    var highY = -Float.infinity
    var finite = true
    var far = false
    for i in landmarks.indices {
        let value = landmarks[i]
        finite = finite && value.isFinite
        far = far || abs(value) > limitPx
        switch i % numbers {
        case 0:
            lowX = min(lowX, value)
            highX = max(highX, value)
        case 1:
            lowY = min(lowY, value)
            highY = max(highY, value)
        default: break
        }
    }
    if !finite { throw MobileBilayerError("Landmarks hold what is not a number. Leave out frames without a face.") }
    if far || highX <= lowX || highY <= lowY {
        throw MobileBilayerError(
            "Landmarks lie between [\(lowX), \(lowY)] and [\(highX), \(highY)], which is no face in a picture. "
                + "Leave out frames without a face.")
    }
    return landmarks
}
