import AVFoundation
import CoreMedia
import CoreVideo
import Foundation
import MobileBilayerCore

/// The phone's cameras: frames of type 420f on a thread of their own; what is late is dropped. Nothing of the sound is touched.
///
/// Frames are neither turned nor mirrored on their way: Core does the first, and the display alone is mirrored.
final class CameraSource: NSObject, AVCaptureVideoDataOutputSampleBufferDelegate, @unchecked Sendable {  // queues, and a lock
    /// For a preview.
    let session = AVCaptureSession()

    private let control = DispatchQueue(label: "camera control", qos: .userInitiated)  // configures, starts and stops
    private let frames = DispatchQueue(label: "camera", qos: .userInteractive)
    private let output = AVCaptureVideoDataOutput()
    private let onError: @Sendable (any Error) -> Void
    private let onInterrupted: @Sendable (Bool) -> Void
    private var observers: [any NSObjectProtocol] = []

    private let lock = NSLock()
    private var live: LiveSession?
    private var rotation = 90  // of most phones held upright

    /// `onInterrupted` says when another app takes the camera, and when it gives it back; both may come from any thread.
    init(onError: @escaping @Sendable (any Error) -> Void, onInterrupted: @escaping @Sendable (Bool) -> Void) {
        self.onError = onError
        self.onInterrupted = onInterrupted
        super.init()
        let center = NotificationCenter.default
        let began = center.addObserver(forName: AVCaptureSession.wasInterruptedNotification, object: session, queue: nil) {
            [weak self] _ in self?.onInterrupted(true)
        }
        let ended = center.addObserver(forName: AVCaptureSession.interruptionEndedNotification, object: session, queue: nil) {
            [weak self] _ in self?.onInterrupted(false)
        }
        // Nobody may be told of the end of an interruption during which the session was stopped, as behind the screen.
        let started = center.addObserver(forName: AVCaptureSession.didStartRunningNotification, object: session, queue: nil) {
            [weak self] _ in
            if let self { onInterrupted(session.isInterrupted) }
        }
        let failed = center.addObserver(forName: AVCaptureSession.runtimeErrorNotification, object: session, queue: nil) {
            [weak self] note in
            let why = (note.userInfo?[AVCaptureSessionErrorKey] as? any Error)?.localizedDescription ?? "no reason was given"
            self?.onError(MobileBilayerError(Words.cameraBroken(why)))
        }
        observers = [began, ended, started, failed]
    }

    deinit { observers.forEach(NotificationCenter.default.removeObserver) }

    /// Who gets the frames, if anybody.
    func feed(_ session: LiveSession?) { locked { live = session } }

    /// By how many degrees clockwise frames are to be turned from now on: see `PreviewView`.
    func turn(_ degrees: Int) { locked { rotation = degrees } }

    /// Whether there is a camera that looks that way.
    static func has(_ facing: Facing) -> Bool { device(facing) != nil }

    /// Open the camera that looks that way, or the only one, and start it; which one it was.
    func open(_ wanted: Facing) async throws -> Facing {
        try await withCheckedThrowingContinuation { continuation in
            control.async { continuation.resume(with: Result { try self.bind(wanted) }) }
        }
    }

    func start() {
        control.async { if !self.session.inputs.isEmpty, !self.session.isRunning { self.session.startRunning() } }
    }

    func stop() {
        control.async { if self.session.isRunning { self.session.stopRunning() } }
    }

    private func bind(_ wanted: Facing) throws -> Facing {
        let other: Facing = wanted == .front ? .back : .front
        let facing = CameraSource.device(wanted) != nil ? wanted : other
        guard let device = CameraSource.device(facing) else { throw MobileBilayerError(Words.cameraBroken("there is none")) }
        do {
            let input = try AVCaptureDeviceInput(device: device)
            session.beginConfiguration()
            defer { session.commitConfiguration() }
            session.automaticallyConfiguresApplicationAudioSession = false
            session.inputs.forEach(session.removeInput)
            guard session.canAddInput(input) else { throw MobileBilayerError(Words.cameraBroken("it can't be added")) }
            session.addInput(input)
            if session.canSetSessionPreset(.vga640x480) { session.sessionPreset = .vga640x480 }
            try addOutput()
        } catch let error as MobileBilayerError {
            throw error
        } catch {
            throw MobileBilayerError(Words.cameraBroken(error.localizedDescription), cause: error)
        }
        session.startRunning()
        return facing
    }

    private func addOutput() throws {
        if session.outputs.isEmpty {
            output.videoSettings = [kCVPixelBufferPixelFormatTypeKey as String: kCVPixelFormatType_420YpCbCr8BiPlanarFullRange]
            output.alwaysDiscardsLateVideoFrames = true
            output.setSampleBufferDelegate(self, queue: frames)
            guard session.canAddOutput(output) else { throw MobileBilayerError(Words.cameraBroken("it gives no frames")) }
            session.addOutput(output)
        }
        guard let connection = output.connection(with: .video) else { return }
        if connection.isVideoMirroringSupported {
            connection.automaticallyAdjustsVideoMirroring = false
            connection.isVideoMirrored = false
        }
        if connection.isVideoRotationAngleSupported(0) { connection.videoRotationAngle = 0 }
    }

    func captureOutput(_ output: AVCaptureOutput, didOutput sampleBuffer: CMSampleBuffer, from connection: AVCaptureConnection) {
        let (live, rotation) = locked { (self.live, self.rotation) }
        guard let live, let frame = CMSampleBufferGetImageBuffer(sampleBuffer) else { return }
        do {
            CVPixelBufferLockBaseAddress(frame, .readOnly)
            defer { CVPixelBufferUnlockBaseAddress(frame, .readOnly) }
            try live.frame(CameraSource.yuv(frame), rotation: rotation, capturedNs: captured(sampleBuffer))
        } catch {
            onError(error)
        }
    }

    /// On the host's clock, which is `nowNs`'s.
    private func captured(_ sampleBuffer: CMSampleBuffer) -> Int64 {
        let stamp = CMSampleBufferGetPresentationTimeStamp(sampleBuffer)
        guard let clock = session.synchronizationClock else { return Int64(stamp.seconds * 1e9) }
        return Int64(CMSyncConvertTime(stamp, from: clock, to: CMClockGetHostTimeClock()).seconds * 1e9)
    }

    /// A locked frame, where it lies.
    static func yuv(_ frame: CVPixelBuffer) throws -> YuvImage {
        let (width, height) = (CVPixelBufferGetWidth(frame), CVPixelBufferGetHeight(frame))
        func plane(_ i: Int) throws -> (data: UnsafeRawBufferPointer, stride: Int) {
            guard let base = CVPixelBufferGetBaseAddressOfPlane(frame, i) else {
                throw MobileBilayerError(Words.cameraBroken("its frames have no plane \(i)"))
            }
            let stride = CVPixelBufferGetBytesPerRowOfPlane(frame, i)
            return (UnsafeRawBufferPointer(start: base, count: stride * CVPixelBufferGetHeightOfPlane(frame, i)), stride)
        }
        let (luma, chroma) = (try plane(0), try plane(1))
        let clean = CVImageBufferGetCleanRect(frame)
        let crop = FrameCrop(left: Int(clean.minX), top: Int(clean.minY), right: Int(clean.maxX), bottom: Int(clean.maxY))
        return .biplanar(
            width: width, height: height, luma: luma.data, lumaStride: luma.stride, chroma: chroma.data, chromaStride: chroma.stride,
            colours: colours(frame), crop: crop)
    }

    private static func colours(_ frame: CVPixelBuffer) -> YuvColours {
        let matrix = CVBufferCopyAttachment(frame, kCVImageBufferYCbCrMatrixKey, nil) as? String
        let is709 = matrix == kCVImageBufferYCbCrMatrix_ITU_R_709_2 as String
        let full = CVPixelBufferGetPixelFormatType(frame) == kCVPixelFormatType_420YpCbCr8BiPlanarFullRange
        return full ? (is709 ? .fullBt709 : .fullBt601) : (is709 ? .videoBt709 : .videoBt601)
    }

    static func device(_ facing: Facing) -> AVCaptureDevice? {
        AVCaptureDevice.default(.builtInWideAngleCamera, for: .video, position: facing == .front ? .front : .back)
    }

    private func locked<R>(_ act: () -> R) -> R {
        lock.lock()
        defer { lock.unlock() }
        return act()
    }
}
