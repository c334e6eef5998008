/// Which way a camera looks.
public enum Facing: CaseIterable, Sendable {
    case front
    case back
}

/// How a camera's frames lie, and what follows. Networks always see an upright picture that is not mirrored; a mirror is for the
/// display only, and only with the front camera.
///
/// Of a session whose connection turns frames itself (videoRotationAngle) or mirrors them (isVideoMirrored), nothing is left to turn:
/// leave both as they are, and turn here.
public struct Orientation: Equatable, Sendable {
    /// Clockwise turn that makes the sensor's picture upright on a phone held in its natural way.
    public let sensorDegrees: Int
    /// How far the display is turned from its natural way, counter-clockwise: 0 for portrait, 90 with the phone's top to the left.
    public let displayDegrees: Int
    public let facing: Facing

    public init(sensorDegrees: Int, displayDegrees: Int, facing: Facing) throws {
        guard rightAngles.contains(sensorDegrees), rightAngles.contains(displayDegrees) else {
            throw MobileBilayerError(
                "A camera at \(sensorDegrees) and a display at \(displayDegrees) degrees; each must be 0, 90, 180 or 270.")
        }
        self.sensorDegrees = sensorDegrees
        self.displayDegrees = displayDegrees
        self.facing = facing
    }

    /// By how many degrees clockwise a frame is to be turned to be upright.
    public var rotation: Int {
        facing == .front ? (sensorDegrees + displayDegrees) % 360 : (sensorDegrees - displayDegrees + 360) % 360
    }

    /// Whether people expect to see the picture as in a mirror.
    public var mirroredDisplay: Bool { facing == .front }

    /// Points of the upright picture to where the display shows them, both in pixels of a picture that is `width` wide; in place.
    ///
    /// `points` flat, of `numbers` each
    public func toDisplay(_ points: inout [Float], numbers: Int, width: Int) {
        if !mirroredDisplay { return }
        for i in stride(from: 0, to: points.count, by: numbers) { points[i] = Float(width) - points[i] }
    }

    /// Points of the upright picture (`width` x `height`) to where they lie in the camera's own frame, its crop's corner being 0; in
    /// place.
    public func toFrame(_ points: inout [Float], numbers: Int, width: Int, height: Int) {
        let (width, height) = (Float(width), Float(height))
        for i in stride(from: 0, through: points.count - numbers, by: numbers) {
            let (x, y) = (points[i], points[i + 1])
            switch rotation {
            case 0: break
            case 90: (points[i], points[i + 1]) = (y, width - x)
            case 180: (points[i], points[i + 1]) = (width - x, height - y)
            default: (points[i], points[i + 1]) = (height - y, x)
            }
        }
    }
}

let rightAngles = [0, 90, 180, 270]
