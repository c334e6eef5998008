// Stands for Apple's AVFoundation, iOS 17: the half of it that writes videos.
import CoreMedia
import CoreVideo
import Foundation

public struct AVFileType: Sendable {
    public static let mp4 = AVFileType()
}

public struct AVVideoCodecType: Sendable {
    public static let h264 = AVVideoCodecType()
}

public let AVVideoCodecKey = "AVVideoCodecKey"
public let AVVideoWidthKey = "AVVideoWidthKey"
public let AVVideoHeightKey = "AVVideoHeightKey"
public let AVVideoCompressionPropertiesKey = "AVVideoCompressionPropertiesKey"
public let AVVideoAverageBitRateKey = "AverageBitRate"
public let AVVideoExpectedSourceFrameRateKey = "ExpectedFrameRate"
public let AVVideoMaxKeyFrameIntervalDurationKey = "MaxKeyFrameIntervalDuration"
public let AVVideoColorPropertiesKey = "AVVideoColorPropertiesKey"
public let AVVideoColorPrimariesKey = "ColorPrimaries"
public let AVVideoColorPrimaries_ITU_R_709_2 = "ITU_R_709_2"
public let AVVideoTransferFunctionKey = "TransferFunction"
public let AVVideoTransferFunction_ITU_R_709_2 = "ITU_R_709_2"
public let AVVideoYCbCrMatrixKey = "YCbCrMatrix"
public let AVVideoYCbCrMatrix_ITU_R_709_2 = "ITU_R_709_2"

open class AVAssetWriter: NSObject {
    public init(outputURL: URL, fileType: AVFileType) throws {}
    public enum Status: Int, Sendable { case unknown, writing, completed, failed, cancelled }
    open var status: Status { .unknown }
    open var error: (any Error)? { nil }
    open func add(_ input: AVAssetWriterInput) {}
    open func startWriting() -> Bool { false }
    open func startSession(atSourceTime: CMTime) {}
    open func cancelWriting() {}
    open func finishWriting() async {}
}

open class AVAssetWriterInput: NSObject {
    public init(mediaType: AVMediaType, outputSettings: [String: Any]?) {}
    open var isReadyForMoreMediaData: Bool { false }
    open var expectsMediaDataInRealTime = false
    open func markAsFinished() {}
}

open class AVAssetWriterInputPixelBufferAdaptor: NSObject {
    public init(assetWriterInput: AVAssetWriterInput, sourcePixelBufferAttributes: [String: Any]? = nil) {}
    open var pixelBufferPool: CVPixelBufferPool? { nil }
    open func append(_ pixelBuffer: CVPixelBuffer, withPresentationTime: CMTime) -> Bool { false }
}
