// Stands for AVFoundation, iOS 17 (SDK of Xcode 16): its capture half.
@_exported import CoreMedia
import Foundation
import QuartzCore

public struct AVMediaType: Hashable, Sendable {
    public static let video = AVMediaType()
}

public enum AVAuthorizationStatus: Int, Sendable {
    case notDetermined
    case restricted
    case denied
    case authorized
}

open class AVCaptureDevice: NSObject {
    public enum Position: Int, Sendable {
        case unspecified
        case back
        case front
    }

    public struct DeviceType: Hashable, Sendable {
        public static let builtInWideAngleCamera = DeviceType()
    }

    public final class RotationCoordinator: NSObject {
        public weak var device: AVCaptureDevice?
        /// Of a layer on the screen; 0 of another one.
        public var videoRotationAngleForHorizonLevelPreview: CGFloat { 0 }

        public init(device: AVCaptureDevice, previewLayer: CALayer?) {}
    }

    public class func `default`(_ deviceType: DeviceType, for mediaType: AVMediaType?, position: Position) -> AVCaptureDevice? { nil }

    public class func authorizationStatus(for mediaType: AVMediaType) -> AVAuthorizationStatus { .denied }

    public class func requestAccess(for mediaType: AVMediaType) async -> Bool { false }
}

open class AVCaptureInput: NSObject {}

public final class AVCaptureDeviceInput: AVCaptureInput {
    public init(device: AVCaptureDevice) throws {}
}

open class AVCaptureOutput: NSObject {
    public func connection(with mediaType: AVMediaType) -> AVCaptureConnection? { nil }
}

open class AVCaptureConnection: NSObject {
    public var isVideoMirroringSupported: Bool { false }
    public var isVideoMirrored: Bool {
        get { false }
        set {}
    }
    public var automaticallyAdjustsVideoMirroring: Bool {
        get { false }
        set {}
    }
    public var videoRotationAngle: CGFloat {
        get { 0 }
        set {}
    }
    public func isVideoRotationAngleSupported(_ videoRotationAngle: CGFloat) -> Bool { false }
}

/// All its methods may be left out on Apple's systems; these are asked for here, so that they are written right.
public protocol AVCaptureVideoDataOutputSampleBufferDelegate: NSObjectProtocol {
    func captureOutput(_ output: AVCaptureOutput, didOutput sampleBuffer: CMSampleBuffer, from connection: AVCaptureConnection)
}

public final class AVCaptureVideoDataOutput: AVCaptureOutput {
    public var videoSettings: [String: Any]! = [:]
    public var alwaysDiscardsLateVideoFrames = true

    public override init() {}

    public func setSampleBufferDelegate(
        _ sampleBufferDelegate: (any AVCaptureVideoDataOutputSampleBufferDelegate)?, queue sampleBufferCallbackQueue: DispatchQueue?
    ) {}
}

public let AVCaptureSessionErrorKey = "error"

open class AVCaptureSession: NSObject {
    public struct Preset: Hashable, Sendable {
        public static let vga640x480 = Preset()
    }

    public class var wasInterruptedNotification: NSNotification.Name { NSNotification.Name("interrupted") }
    public class var didStartRunningNotification: NSNotification.Name { NSNotification.Name("started") }
    public class var interruptionEndedNotification: NSNotification.Name { NSNotification.Name("ended") }
    public class var runtimeErrorNotification: NSNotification.Name { NSNotification.Name("error") }

    public var automaticallyConfiguresApplicationAudioSession = true
    public var sessionPreset = Preset()
    public var inputs: [AVCaptureInput] { [] }
    public var outputs: [AVCaptureOutput] { [] }
    public var isRunning: Bool { false }
    public var isInterrupted: Bool { false }
    public var synchronizationClock: CMClock? { nil }

    public override init() {}

    public func beginConfiguration() {}
    public func commitConfiguration() {}
    public func canSetSessionPreset(_ preset: Preset) -> Bool { false }
    public func canAddInput(_ input: AVCaptureInput) -> Bool { false }
    public func addInput(_ input: AVCaptureInput) {}
    public func removeInput(_ input: AVCaptureInput) {}
    public func canAddOutput(_ output: AVCaptureOutput) -> Bool { false }
    public func addOutput(_ output: AVCaptureOutput) {}
    public func startRunning() {}
    public func stopRunning() {}
}

public struct AVLayerVideoGravity: Hashable, Sendable {
    public static let resizeAspectFill = AVLayerVideoGravity()
}

open class AVCaptureVideoPreviewLayer: CALayer {
    public var session: AVCaptureSession?
    public var videoGravity = AVLayerVideoGravity()
    public var connection: AVCaptureConnection? { nil }
}
