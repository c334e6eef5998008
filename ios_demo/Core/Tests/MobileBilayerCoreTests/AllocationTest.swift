import CountAllocations
import XCTest

@testable import MobileBilayerCore

/// No frame allocates: the bytes that malloc was asked for are counted, where it can be put in front of (glibc).
final class AllocationTest: XCTestCase {
    /// Bytes that a frame allocates in this thread, on average of 100 behind 50 that warm up.
    private func bytesPerFrame(_ frame: (Int) throws -> Void) throws -> UInt64 {
        if !countAllocationsWorks() { throw XCTSkip("allocations can't be counted here: run the tests on Linux") }
        for i in 0..<50 { try frame(i) }
        let before = allocatedBytes()
        for i in 50..<150 { try frame(i) }
        return (allocatedBytes() - before) / 100
    }

    private func assertNone(_ what: String, _ frame: (Int) throws -> Void) throws {
        let bytes = try bytesPerFrame(frame)
        XCTAssertLessThanOrEqual(bytes, 64, "\(what) allocates \(bytes) bytes a frame")
    }

    func test_the_count_sees_what_is_allocated() throws {
        var kept: [Float] = []
        let bytes = try bytesPerFrame { kept = [Float](repeating: Float($0), count: 956) }
        XCTAssertTrue((3824...4000).contains(bytes), "\(bytes)")
        XCTAssertEqual(kept[955], 149)
    }

    func test_from_landmarks_to_layers_no_frame_allocates() throws {
        let pipeline = LivePipeline(try goldenAvatar(), shipped.network(GoldenProgram()))
        let frames = driver.landmarks
        var shown = 0
        try assertNone("the live pipeline") { i in
            // Lost for half a second and more.
            try pipeline.see(i % 20 > 12 ? nil : frames[i % frames.count], capturedNs: 1 + Int64(i) * 70_000_000)
            _ = try pipeline.step(waitNs: i % 2 == 0 ? 0 : 1_000_000)
            if pipeline.show() != nil { shown += 1 }
        }
        XCTAssertEqual(shown, 150)
    }

    func test_a_camera_frame_of_the_same_size_allocates_nothing() throws {
        let bytes = [UInt8](repeating: 77, count: 4 * 384 * 144)
        let converter = YuvConverter()
        let orientation = try Orientation(sensorDegrees: 270, displayDegrees: 0, facing: .front)
        try bytes.withUnsafeBytes { data in
            let yuv = YuvImage.biplanar(
                width: 352, height: 144, luma: data, lumaStride: 384, chroma: data, chromaStride: 384, colours: .videoBt709)
            try assertNone("a conversion") { _ in _ = try converter.toRgba(yuv, rotation: orientation.rotation) }
            let bgra = BgraImage(width: 352, height: 144, data: data, rowStride: 4 * 384)
            try assertNone("a turn") { _ in _ = try converter.toRgba(bgra, rotation: orientation.rotation) }
        }
        var out = driver.landmarks[0].map { $0 }
        try assertNone("mapping back") { _ in
            inPixels(&out, width: 1, height: 1)
            orientation.toDisplay(&out, numbers: 3, width: 352)
            orientation.toFrame(&out, numbers: 3, width: 144, height: 352)
        }
    }

    func test_compositing_allocates_nothing() throws {
        let golden = try shipped.golden()
        let (a, b) = (try golden.numbers("layers_a"), try golden.numbers("layers_b"))
        let texture = try golden.numbers("composite_texture")
        let compositor = Compositor(sidePx: 64, aPx: 64, bPx: 128)
        var frame = [Float](repeating: 0, count: texture.count)
        var rgb = [UInt8](repeating: 0, count: texture.count)
        try assertNone("a composite") { _ in
            compositor.composite(texture: texture, background: texture, layersA: a, layersB: b, out: &frame)
            toRgb(frame, out: &rgb)
        }
        let texels = Texels(channels: 4, sidePx: 64)
        try assertNone("an upload") { _ in texels.of(a) { _ in } }
    }

    func test_measuring_allocates_nothing() throws {
        let times = StageTimes()
        let rate = FrameRate()
        try assertNone("a measurement") { i in
            times.add(Double(i))
            rate.shown(Int64(i) * 16_000_000)
        }
    }
}
