import CoreVideo
import Foundation
import MediaPipeTasksVision
import MobileBilayerCore

private let model = "face_landmarker.task"
private let faces = 4  // that are looked for in a photo, or a part of it

/// MediaPipe's face landmarker on a live stream: pictures in by `look`, on the camera's thread, and landmarks out on MediaPipe's own.
///
/// One picture is looked at at a time, and `look` waits for it: meanwhile the camera drops what is late, and the picture's memory is used
/// again. `close` waits too, and nothing is looked at after it.
final class FaceTracker: NSObject, FaceLandmarkerLiveStreamDelegate, @unchecked Sendable {  // by its lock, and one picture at a time
    /// Landmarks 478 x 3 in pixels of the picture, in an array that is used again, or nil; when it was captured; how many ms it took.
    typealias OnFace = @Sendable (_ landmarks: [Float]?, _ capturedNs: Int64, _ tookMs: Double) throws -> Void

    private let onFace: OnFace
    private let onError: @Sendable (any Error) -> Void
    private let done = DispatchSemaphore(value: 0)

    // Behind the lock: whoever holds it may call MediaPipe, which is not asked for two things at once.
    private let lock = NSLock()
    private var landmarker: FaceLandmarker?
    private var stampMs = 0
    private var picture: PictureBuffer?

    // Of the picture that is looked at.
    private let asked = NSLock()
    private var capturedNs: Int64 = 0
    private var beganNs: Int64 = 0
    private var size = (width: 0, height: 0)

    // MediaPipe's thread only.
    private var points = [Float](repeating: 0, count: 3 * landmarkCount)

    /// Takes some tenths of a second.
    init(onError: @escaping @Sendable (any Error) -> Void, onFace: @escaping OnFace) throws {
        self.onFace = onFace
        self.onError = onError
        super.init()
        let options = try FaceTracker.options(.liveStream)
        options.faceLandmarkerLiveStreamDelegate = self
        landmarker = try FaceTracker.made(options)
    }

    /// Look for a face in an upright picture that is not mirrored, and wait until that is done.
    func look(_ rgba: RgbaImage, capturedNs: Int64) throws {
        lock.lock()
        do {
            defer { lock.unlock() }
            guard let landmarker else { return }
            if picture?.width != rgba.width || picture?.height != rgba.height {
                picture = try PictureBuffer(width: rgba.width, height: rgba.height)
            }
            guard let picture else { return }
            picture.fill(rgba)
            asked.lock()
            self.capturedNs = capturedNs
            beganNs = nowNs()
            size = (rgba.width, rgba.height)
            asked.unlock()
            stampMs = max(stampMs + 1, Int(capturedNs / 1_000_000))  // MediaPipe asks that it grows
            while done.wait(timeout: .now()) == .success {}  // of a picture that was not waited for to its end
            do {
                try landmarker.detectAsync(image: MPImage(pixelBuffer: picture.buffer), timestampInMilliseconds: stampMs)
            } catch {
                throw MobileBilayerError(Words.landmarksFailed(error.localizedDescription), cause: error)
            }
        }
        _ = done.wait(timeout: .now() + 1)  // a picture that MediaPipe passed over is not waited for long
    }

    func faceLandmarker(
        _ faceLandmarker: FaceLandmarker, didFinishDetection result: FaceLandmarkerResult?, timestampInMilliseconds: Int,
        error: (any Error)?
    ) {
        defer { done.signal() }
        asked.lock()
        let (capturedNs, beganNs, size) = (capturedNs, beganNs, size)
        asked.unlock()
        do {
            if let error { throw MobileBilayerError(Words.landmarksFailed(error.localizedDescription), cause: error) }
            let tookMs = Double(nowNs() - beganNs) / 1e6
            guard let face = result?.faceLandmarks.first else { return try onFace(nil, capturedNs, tookMs) }
            try FaceTracker.fill(&points, face, width: size.width, height: size.height)
            try onFace(points, capturedNs, tookMs)
        } catch {
            onError(error)
        }
    }

    /// No picture is looked at any more; waits for the one that is.
    func close() {
        lock.lock()
        defer { lock.unlock() }
        landmarker = nil
    }

    /// Landmarks, 478 x 3 in pixels, of the largest face in a photo, or nil; where a face is hard to find, as Core's `findFace` does.
    /// Takes some tenths of a second, seconds where there is none.
    static func find(_ photo: RgbImage) throws -> [Float]? {
        let several = try options(.image)
        several.numFaces = faces
        let landmarker = try made(several)
        return try findFace(width: photo.width, height: photo.height) { window in
            try autoreleasepool { try look(landmarker, photo, window) }
        }
    }

    private static func look(_ landmarker: FaceLandmarker, _ photo: RgbImage, _ window: FaceWindow) throws -> [[Float]] {
        let picture = try PictureBuffer(width: window.width, height: window.height)
        picture.fill(photo, window)
        let found: [[NormalizedLandmark]]
        do {
            found = try landmarker.detect(image: MPImage(pixelBuffer: picture.buffer)).faceLandmarks
        } catch {
            throw MobileBilayerError(Words.landmarksFailed(error.localizedDescription), cause: error)
        }
        return try found.map { face in
            var points = [Float](repeating: 0, count: 3 * landmarkCount)
            try fill(&points, face, width: window.width, height: window.height)
            return points
        }
    }

    private static func fill(_ points: inout [Float], _ face: [NormalizedLandmark], width: Int, height: Int) throws {
        if face.count != landmarkCount { throw MobileBilayerError(Words.otherLandmarker(model, face.count, landmarkCount)) }
        for i in 0..<landmarkCount {
            points[3 * i] = face[i].x
            points[3 * i + 1] = face[i].y
            points[3 * i + 2] = face[i].z
        }
        inPixels(&points, width: width, height: height)
    }

    private static func options(_ mode: RunningMode) throws -> FaceLandmarkerOptions {
        let options = FaceLandmarkerOptions()
        options.baseOptions.modelAssetPath = try assetPlace(model).path
        options.runningMode = mode
        options.numFaces = 1
        return options
    }

    private static func made(_ options: FaceLandmarkerOptions) throws -> FaceLandmarker {
        do {
            return try FaceLandmarker(options: options)
        } catch {
            throw MobileBilayerError(Words.landmarksFailed(error.localizedDescription), cause: error)
        }
    }
}

/// A picture as MediaPipe and Core ML take it: 32BGRA, filled anew each time.
final class PictureBuffer {
    let width: Int
    let height: Int
    let buffer: CVPixelBuffer

    init(width: Int, height: Int) throws {
        self.width = width
        self.height = height
        var made: CVPixelBuffer?
        let surface = [kCVPixelBufferIOSurfacePropertiesKey: [:] as CFDictionary] as CFDictionary
        let code = CVPixelBufferCreate(nil, width, height, kCVPixelFormatType_32BGRA, surface, &made)
        guard let made else { throw MobileBilayerError(Words.noMemory(width, height, Int(code))) }
        buffer = made
    }

    func fill(_ rgba: RgbaImage) { fill(rgba.pixels, step: 4) }

    /// A part of a photo, of this picture's size; black where it reaches beyond the photo.
    func fill(_ rgb: RgbImage, _ part: FaceWindow) {
        var pixels = [UInt8](repeating: 0, count: 3 * width * height)
        let (left, right) = (max(part.left, 0), min(part.left + width, rgb.width))
        let (top, bottom) = (max(part.top, 0), min(part.top + height, rgb.height))
        for y in stride(from: top, to: bottom, by: 1) where left < right {
            let to = 3 * ((y - part.top) * width + left - part.left)
            let from = 3 * (y * rgb.width + left)
            pixels.replaceSubrange(to..<(to + 3 * (right - left)), with: rgb.pixels[from..<(from + 3 * (right - left))])
        }
        fill(pixels, step: 3)
    }

    /// `pixels` red, green and blue of each, `step` bytes apart.
    func fill(_ pixels: [UInt8], step: Int) {
        CVPixelBufferLockBaseAddress(buffer, [])
        defer { CVPixelBufferUnlockBaseAddress(buffer, []) }
        guard let base = CVPixelBufferGetBaseAddress(buffer) else { return }
        let stride = CVPixelBufferGetBytesPerRow(buffer)
        pixels.withUnsafeBufferPointer { pixels in
            var from = 0
            for y in 0..<height {
                let row = base.advanced(by: y * stride).assumingMemoryBound(to: UInt8.self)
                for x in 0..<width {
                    row[4 * x] = pixels[from + 2]
                    row[4 * x + 1] = pixels[from + 1]
                    row[4 * x + 2] = pixels[from]
                    row[4 * x + 3] = 255
                    from += step
                }
            }
        }
    }
}
