// Stands for MediaPipeTasksVision 0.10.35, CocoaPods.
import CoreVideo
import Foundation

public enum RunningMode: UInt, Sendable {
    case image
    case video
    case liveStream
}

open class BaseOptions: NSObject {
    public var modelAssetPath = ""
}

open class TaskOptions: NSObject {
    public var baseOptions = BaseOptions()

    public override init() {}
}

open class FaceLandmarkerOptions: TaskOptions {
    public var runningMode = RunningMode.image
    public weak var faceLandmarkerLiveStreamDelegate: (any FaceLandmarkerLiveStreamDelegate)?
    public var numFaces = 1
}

/// The method may be left out in MediaPipe; it is asked for here, so that it is written right.
public protocol FaceLandmarkerLiveStreamDelegate: NSObjectProtocol {
    func faceLandmarker(
        _ faceLandmarker: FaceLandmarker, didFinishDetection result: FaceLandmarkerResult?, timestampInMilliseconds: Int,
        error: (any Error)?)
}

open class NormalizedLandmark: NSObject {
    public var x: Float { 0 }
    public var y: Float { 0 }
    public var z: Float { 0 }
}

open class FaceLandmarkerResult: NSObject {
    public var faceLandmarks: [[NormalizedLandmark]] { [] }
}

/// In CVPixelBuffers of type 32BGRA.
open class MPImage: NSObject {
    public init(pixelBuffer: CVPixelBuffer) throws {}
}

open class FaceLandmarker: NSObject {
    public init(options: FaceLandmarkerOptions) throws {}

    public func detect(image: MPImage) throws -> FaceLandmarkerResult { FaceLandmarkerResult() }
    public func detectAsync(image: MPImage, timestampInMilliseconds: Int) throws {}
}
