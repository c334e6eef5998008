import AVFoundation
import CoreVideo
import Foundation
import Metal
import MobileBilayerCore

/// Records what a compositor draws as an MP4 (H.264, no sound) that says in its metadata that it is AI-generated.
///
/// Until it is whole there is only a file beside it. The audio session is left alone.
@MainActor
final class Recorder {
    private let output: Output
    private let sidePx: Int
    private var cache: CVMetalTextureCache?
    private var firstNs: Int64?
    private var finished = false

    /// Throws `MobileBilayerError` where nothing can be recorded there.
    init(url: URL, sidePx: Int = 512) throws {
        self.sidePx = sidePx
        do {
            output = try Output(url, sidePx)
        } catch {
            throw error as? MobileBilayerError ?? MobileBilayerError(Words.recordingFailed(error.localizedDescription), cause: error)
        }
    }

    /// Whether no frame more can be written, as where there is no space left: `finish` says why.
    var hasFailed: Bool { output.hasFailed }

    /// One frame more: what `compositor` draws now, never mirrored. It is left out where the encoder is too far behind.
    func append(from compositor: MetalCompositor, capturedNs: Int64) {
        if finished { return }
        if cache == nil { CVMetalTextureCacheCreate(nil, nil, compositor.device, nil, &cache) }
        guard let cache, let pixels = output.next() else { return }
        var made: CVMetalTexture?
        // Said, as Core Video leaves open what is the default.
        let usage = [kCVMetalTextureUsage: MTLTextureUsage.renderTarget.rawValue] as CFDictionary
        CVMetalTextureCacheCreateTextureFromImage(nil, cache, pixels, usage, MetalCompositor.pixelFormat, sidePx, sidePx, 0, &made)
        guard let made, let target = CVMetalTextureGetTexture(made) else { return output.leave() }
        let begin = firstNs ?? capturedNs
        firstNs = begin
        let frame = Frame(pixels: pixels, texture: made, sinceFirstNs: capturedNs - begin)
        let output = output
        var given = false
        compositor.draw(into: target, mirrored: false) { commands in
            given = true
            // Sendable, or Swift would take it for one of the main thread's, and stop the app where it is not called there.
            commands.addCompletedHandler { @Sendable commands in
                if commands.status == .completed { output.append(frame) } else { output.leave() }
            }
        }
        if !given { output.leave() }
    }

    /// No frame comes any more: the whole video, or nil where there was no frame.
    ///
    /// Throws `MobileBilayerError` where it could not be written; then there is no file.
    func finish() async throws -> URL? {
        if finished { return nil }
        finished = true
        return try await output.finish()
    }
}

/// A frame on its way to the encoder. Nobody else has it.
private struct Frame: @unchecked Sendable {
    let pixels: CVPixelBuffer
    /// The graphics draw through it: it has to live as long as they do.
    let texture: CVMetalTexture
    let sinceFirstNs: Int64
}

/// What writes the file, on a queue of its own.
private final class Output: @unchecked Sendable {  // the queue has what changes, the lock the count of what is on its way
    /// Frames between the graphics and the encoder; more would only fill the memory.
    private static let most = 4

    private let file: URL
    private let aside: URL
    private let writer: AVAssetWriter
    private let input: AVAssetWriterInput
    private let adaptor: AVAssetWriterInputPixelBufferAdaptor
    private let queue = DispatchQueue(label: "recorder")
    private let onTheirWay = DispatchGroup()
    private let lock = NSLock()
    private var count = 0
    private var written = 0

    init(_ file: URL, _ sidePx: Int) throws {
        self.file = file
        aside = file.deletingLastPathComponent().appendingPathComponent(".part-\(file.lastPathComponent)")
        try? FileManager.default.removeItem(at: aside)
        writer = try AVAssetWriter(outputURL: aside, fileType: .mp4)
        input = AVAssetWriterInput(
            mediaType: .video,
            outputSettings: [
                AVVideoCodecKey: AVVideoCodecType.h264,
                AVVideoWidthKey: sidePx,
                AVVideoHeightKey: sidePx,
                AVVideoCompressionPropertiesKey: [
                    AVVideoAverageBitRateKey: 4_000_000, AVVideoExpectedSourceFrameRateKey: 30, AVVideoMaxKeyFrameIntervalDurationKey: 1,
                ],
                AVVideoColorPropertiesKey: [
                    AVVideoColorPrimariesKey: AVVideoColorPrimaries_ITU_R_709_2,
                    AVVideoTransferFunctionKey: AVVideoTransferFunction_ITU_R_709_2,
                    AVVideoYCbCrMatrixKey: AVVideoYCbCrMatrix_ITU_R_709_2,
                ],
            ])
        input.expectsMediaDataInRealTime = true
        adaptor = AVAssetWriterInputPixelBufferAdaptor(
            assetWriterInput: input,
            sourcePixelBufferAttributes: [
                kCVPixelBufferPixelFormatTypeKey as String: kCVPixelFormatType_32BGRA,
                kCVPixelBufferWidthKey as String: sidePx,
                kCVPixelBufferHeightKey as String: sidePx,
                kCVPixelBufferMetalCompatibilityKey as String: true,
            ])
        writer.add(input)
        if !writer.startWriting() { throw writer.error ?? MobileBilayerError(Words.recordingFailed("the encoder")) }
        writer.startSession(atSourceTime: .zero)
    }

    /// The writer may be asked from any thread.
    var hasFailed: Bool { writer.status == .failed }

    /// Pixels to be drawn into, which come back by `append` or `leave`; nil where too many are on their way.
    func next() -> CVPixelBuffer? {
        lock.lock()
        defer { lock.unlock() }
        guard count < Output.most, let pool = adaptor.pixelBufferPool else { return nil }
        var pixels: CVPixelBuffer?
        CVPixelBufferPoolCreatePixelBuffer(nil, pool, &pixels)
        guard let pixels else { return nil }
        count += 1
        onTheirWay.enter()
        return pixels
    }

    /// What the graphics drew.
    func append(_ frame: Frame) {
        queue.async { [self] in
            let time = CMTime(value: frame.sinceFirstNs / 1000, timescale: 1_000_000)
            if input.isReadyForMoreMediaData, adaptor.append(frame.pixels, withPresentationTime: time) { written += 1 }
            leave()
        }
    }

    /// A frame is not on its way any more.
    func leave() {
        lock.lock()
        count -= 1
        lock.unlock()
        onTheirWay.leave()
    }

    func finish() async throws -> URL? {
        await withCheckedContinuation { all in onTheirWay.notify(queue: queue) { all.resume() } }
        if written == 0, writer.status == .writing {
            writer.cancelWriting()
            try? FileManager.default.removeItem(at: aside)
            return nil
        }
        do {
            if writer.status == .writing {
                input.markAsFinished()
                await writer.finishWriting()
            }
            if writer.status != .completed { throw writer.error ?? MobileBilayerError(Words.recordingFailed("the encoder")) }
            try tagMp4(aside)
            try? FileManager.default.removeItem(at: file)
            try FileManager.default.moveItem(at: aside, to: file)
            return file
        } catch {
            try? FileManager.default.removeItem(at: aside)
            throw error as? MobileBilayerError ?? MobileBilayerError(Words.recordingFailed(error.localizedDescription), cause: error)
        }
    }
}
