import XCTest

@testable import MobileBilayerCore

private func noise(_ seed: Int) -> UInt8 { UInt8(truncatingIfNeeded: UInt32(truncatingIfNeeded: seed) &* 2_654_435_769 >> 24) }

/// A frame as a camera lays it out: luma, and chroma at half the size; or the colours themselves.
private struct Camera {
    let width: Int
    let height: Int
    let rowStride: Int
    let pixelStride: Int
    var colours = YuvColours.fullBt601
    var lastByteAbsent = true
    var pixel: (_ x: Int, _ y: Int) -> UInt8 = { noise($0 * 7919 + $1) }
    var chroma: (_ plane: Int, _ x: Int, _ y: Int) -> UInt8 = { noise(($0 + 1) * 104_729 + $1 * 31 + $2) }

    private func plane(_ width: Int, _ height: Int, _ stride: Int, _ pixelStride: Int, _ value: (Int, Int) -> UInt8) -> [UInt8] {
        let last = (height - 1) * stride + (width - 1) * pixelStride + 1
        var data = [UInt8](repeating: 99, count: lastByteAbsent ? last : height * stride)  // what lies between is no picture
        for y in 0..<height {
            for x in 0..<width { data[y * stride + x * pixelStride] = value(x, y) }
        }
        return data
    }

    /// Planes of their own, as Android has them; strides and an absent last byte are theirs.
    func planes<R>(_ crop: FrameCrop? = nil, _ use: (YuvImage) throws -> R) rethrows -> R {
        let chromaStride = pixelStride == 2 ? rowStride : rowStride / 2
        let y = plane(width, height, rowStride, 1, pixel)
        let u = plane((width + 1) / 2, (height + 1) / 2, chromaStride, pixelStride) { chroma(0, $0, $1) }
        let v = plane((width + 1) / 2, (height + 1) / 2, chromaStride, pixelStride) { chroma(1, $0, $1) }
        return try y.withUnsafeBytes { y in
            try u.withUnsafeBytes { u in
                try v.withUnsafeBytes { v in
                    try use(
                        YuvImage(
                            width: width, height: height, y: YuvPlane(y, rowStride: rowStride, pixelStride: 1),
                            u: YuvPlane(u, rowStride: chromaStride, pixelStride: pixelStride),
                            v: YuvPlane(v, rowStride: chromaStride, pixelStride: pixelStride), colours: colours, crop: crop))
                }
            }
        }
    }

    /// As an iPhone has them.
    func biplanar<R>(_ crop: FrameCrop? = nil, _ use: (YuvImage) throws -> R) rethrows -> R {
        let y = plane(width, height, rowStride, 1, pixel)
        let both = plane((width + 1) / 2 * 2, (height + 1) / 2, rowStride, 1) { chroma($0 % 2, $0 / 2, $1) }
        return try y.withUnsafeBytes { y in
            try both.withUnsafeBytes { both in
                try use(
                    .biplanar(
                        width: width, height: height, luma: y, lumaStride: rowStride, chroma: both, chromaStride: rowStride,
                        colours: colours, crop: crop))
            }
        }
    }

    func bgra<R>(_ crop: FrameCrop? = nil, _ use: (BgraImage) throws -> R) rethrows -> R {
        let data = plane(4 * width, height, 4 * rowStride, 1) { x, y in [12, 34, pixel(x / 4, y), 56][x % 4] }
        return try data.withUnsafeBytes { data in
            try use(BgraImage(width: width, height: height, data: data, rowStride: 4 * rowStride, crop: crop))
        }
    }

    /// Red, green and blue of a pixel, by the definition: Kr and Kb of the matrix, 219 and 224 steps of the video range.
    func rgb(_ x: Int, _ y: Int) -> [UInt8] {
        let video = colours == .videoBt601 || colours == .videoBt709
        let (kr, kb) = colours == .fullBt601 || colours == .videoBt601 ? (0.299, 0.114) : (0.2126, 0.0722)
        let luma = (Double(pixel(x, y)) - (video ? 16 : 0)) / (video ? 219 : 255)
        let cb = (Double(chroma(0, x / 2, y / 2)) - 128) / (video ? 224 : 255)
        let cr = (Double(chroma(1, x / 2, y / 2)) - 128) / (video ? 224 : 255)
        let red = luma + 2 * (1 - kr) * cr
        let blue = luma + 2 * (1 - kb) * cb
        let green = (luma - kr * red - kb * blue) / (1 - kr - kb)
        return [red, green, blue].map { UInt8(min(max($0 * 255, 0), 255).rounded()) }
    }
}

/// Camera frames in, an upright picture out.
final class FramesTest: XCTestCase {
    /// Whether the pixel is, within 1, what it must be.
    private func isRight(_ wanted: [UInt8], _ got: RgbaImage, _ x: Int, _ y: Int) -> Bool {
        let at = 4 * (y * got.width + x)
        return got.pixels[at + 3] == 255 && (0..<3).allSatisfy { abs(Int(wanted[$0]) - Int(got.pixels[at + $0])) <= 1 }
    }

    private func assertPicture(
        _ camera: Camera, _ got: RgbaImage, left: Int = 0, top: Int = 0, width: Int, height: Int, rotation: Int = 0,
        file: StaticString = #filePath, line: UInt = #line
    ) {
        let size = rotation % 180 == 0 ? [width, height] : [height, width]
        XCTAssertEqual([got.width, got.height], size, file: file, line: line)
        for y in 0..<height {
            for x in 0..<width {
                let to: (Int, Int)
                switch rotation {
                case 0: to = (x, y)
                case 90: to = (height - 1 - y, x)  // clockwise: what was on top is on the right
                case 180: to = (width - 1 - x, height - 1 - y)
                default: to = (y, width - 1 - x)
                }
                if !isRight(camera.rgb(left + x, top + y), got, to.0, to.1) { return XCTFail("pixel \(x), \(y)", file: file, line: line) }
            }
        }
    }

    func test_AN3_strides_and_an_absent_last_chroma_byte_give_the_references_colours() throws {
        for (rowStride, pixelStride) in [(384, 2), (352, 2), (384, 1)] {
            for absent in [true, false] {
                let camera = Camera(width: 352, height: 288, rowStride: rowStride, pixelStride: pixelStride, lastByteAbsent: absent)
                let got = try camera.planes { try YuvConverter().toRgba($0, rotation: 0) }
                assertPicture(camera, got, width: 352, height: 288)
            }
        }
    }

    func test_AN3_the_two_planes_of_an_iPhone_in_full_and_video_range_and_by_both_matrices() throws {
        for colours in YuvColours.allCases {
            for rowStride in [176, 192] {
                let camera = Camera(width: 176, height: 144, rowStride: rowStride, pixelStride: 2, colours: colours)
                let got = try camera.biplanar { try YuvConverter().toRgba($0, rotation: 0) }
                assertPicture(camera, got, width: 176, height: 144)
            }
        }
    }

    func test_AN3_the_crop_is_cut_before_it_is_turned() throws {
        let camera = Camera(width: 352, height: 288, rowStride: 384, pixelStride: 2)
        for (left, top) in [(16, 24), (17, 23), (32, 48)] {  // also such as halve chroma
            let crop = FrameCrop(left: left, top: top, right: left + 320, bottom: top + 240)
            for rotation in rightAngles {
                let got = try camera.biplanar(crop) { try YuvConverter().toRgba($0, rotation: rotation) }
                assertPicture(camera, got, left: left, top: top, width: 320, height: 240, rotation: rotation)
            }
        }
    }

    func test_AN3_frames_of_blue_green_red_are_cut_and_turned_as_well() throws {
        let camera = Camera(width: 40, height: 30, rowStride: 48, pixelStride: 1)
        let crop = FrameCrop(left: 3, top: 5, right: 35, bottom: 29)
        for rotation in rightAngles {
            let got = try camera.bgra(crop) { try YuvConverter().toRgba($0, rotation: rotation) }
            XCTAssertEqual([got.width, got.height], rotation % 180 == 0 ? [32, 24] : [24, 32])
            let (x, y) = [0: (2, 1), 90: (22, 2), 180: (29, 22), 270: (1, 29)][rotation] ?? (0, 0)  // of the crop's pixel 2, 1
            XCTAssertEqual(Array(got.pixels[(4 * (y * got.width + x))...].prefix(4)), [camera.pixel(5, 6), 34, 12, 255])
        }
    }

    func test_odd_sizes_have_their_last_column_and_row() throws {
        let camera = Camera(width: 35, height: 21, rowStride: 40, pixelStride: 1)
        assertPicture(camera, try camera.planes { try YuvConverter().toRgba($0, rotation: 0) }, width: 35, height: 21)
        assertPicture(camera, try camera.biplanar { try YuvConverter().toRgba($0, rotation: 0) }, width: 35, height: 21)
    }

    func test_a_buffer_is_used_again_while_the_size_stays() throws {
        let converter = YuvConverter()
        try Camera(width: 64, height: 48, rowStride: 64, pixelStride: 2).biplanar { image in
            let first = try converter.toRgba(image, rotation: 0)
            XCTAssertTrue(try first === converter.toRgba(image, rotation: 180))
            let turned = try converter.toRgba(image, rotation: 90)
            XCTAssertEqual([turned.width, turned.height], [48, 64])
        }
    }

    func test_planes_that_are_too_short_crops_outside_and_odd_turns_are_refused_in_words() throws {
        let converter = YuvConverter()
        let camera = Camera(width: 64, height: 48, rowStride: 64, pixelStride: 2)
        camera.planes { image in
            func said(y: YuvPlane? = nil, u: YuvPlane? = nil, left: Int = 0, right: Int = 64, rotation: Int = 0) -> String {
                let crop = FrameCrop(left: left, top: 0, right: right, bottom: 48)
                let spoilt = YuvImage(width: 64, height: 48, y: y ?? image.y, u: u ?? image.u, v: image.v, crop: crop)
                return refusal { _ = try converter.toRgba(spoilt, rotation: rotation) }
            }
            let short = UnsafeRawBufferPointer(rebasing: image.y.data.prefix(64))
            assertSays("Y plane has 64 bytes", said(y: YuvPlane(short, rowStride: 64, pixelStride: 1)))
            assertSays("U plane", said(u: YuvPlane(image.u.data, rowStride: 32, pixelStride: 2)))
            assertSays("pixel stride 0", said(u: YuvPlane(image.u.data, rowStride: 64, pixelStride: 0)))
            for (left, right) in [(-1, 64), (0, 65), (10, 10)] { assertSays("crop", said(left: left, right: right)) }
            assertSays("45 degrees", said(rotation: 45))
        }
        camera.bgra { image in
            let cut = UnsafeRawBufferPointer(rebasing: image.data.dropLast())
            let short = BgraImage(width: 64, height: 48, data: cut, rowStride: image.rowStride)
            assertSays("BGRA plane", refusal { _ = try converter.toRgba(short, rotation: 0) })
        }
    }

    /// What the sensor reads of a scene, in front of a phone whose display is turned.
    ///
    /// A display is at 90 degrees when the phone was turned counter-clockwise by as much, seen by who looks at the screen. The camera on
    /// the back looks the same way as they do, and sees the scene turn clockwise; the front one looks against them. And the sensor
    /// is built in so that its picture is to be turned clockwise by its own orientation.
    private func frame(of orientation: Orientation, _ scene: [[UInt8]]) -> Camera {
        let turned = orientation.facing == .back ? orientation.displayDegrees : -orientation.displayDegrees
        var rows = scene
        for _ in 0..<((turned - orientation.sensorDegrees + 720) / 90 % 4) {
            let old = rows
            rows = old[0].indices.map { y in old.indices.map { x in old[old.count - 1 - x][y] } }
        }
        let seen = rows
        return Camera(
            width: seen[0].count, height: seen.count, rowStride: seen[0].count + 6, pixelStride: 2, pixel: { seen[$1][$0] },
            chroma: { _, _, _ in 128 })
    }

    private func orientations() throws -> [Orientation] {
        try Facing.allCases.flatMap { facing in
            try rightAngles.map {
                try Orientation(sensorDegrees: facing == .front ? 270 : 90, displayDegrees: $0, facing: facing)
            }
        }
    }

    func test_AN5_in_all_eight_orientations_the_model_sees_an_upright_picture_that_is_not_mirrored() throws {
        // The person raises their left hand: to the right of a picture that is not mirrored. The sky is bright.
        let scene: [[UInt8]] = (0..<60).map { y in
            (0..<40).map { x in y < 10 ? 250 : (30...35).contains(x) && (20...25).contains(y) ? 200 : 40 }
        }
        let all = try orientations()
        XCTAssertEqual(all.count, 8)
        for orientation in all {
            let got = try frame(of: orientation, scene).biplanar { try YuvConverter().toRgba($0, rotation: orientation.rotation) }
            XCTAssertEqual([got.width, got.height], [40, 60])
            let levels = (0..<(40 * 60)).map { got.pixels[4 * $0] }
            XCTAssertTrue(levels == scene.flatMap { $0 }, "\(orientation)")
        }
    }

    func test_AN5_frames_are_turned_as_both_systems_documentation_says() throws {
        // Portrait, then the top turned to the left, upside down, to the right; usual sensors.
        let back = try rightAngles.map { try Orientation(sensorDegrees: 90, displayDegrees: $0, facing: .back).rotation }
        let front = try rightAngles.map { try Orientation(sensorDegrees: 270, displayDegrees: $0, facing: .front).rotation }
        XCTAssertEqual(back, [90, 0, 270, 180])
        XCTAssertEqual(front, [270, 0, 90, 180])
    }

    func test_normalized_landmarks_become_pixels_depth_in_the_unit_of_the_width() {
        XCTAssertEqual(inPixels([0.5, 0.5, -0.1, 0, 1, 1], width: 64, height: 48), [32, 24, -6.4, 0, 48, 64])
    }

    func test_AN5_only_the_front_cameras_display_is_a_mirror_and_only_the_display() throws {
        let points: [Float] = [32, 22, 5, 10, 50, 7]
        var (front, back) = (points, points)
        try Orientation(sensorDegrees: 270, displayDegrees: 0, facing: .front).toDisplay(&front, numbers: 3, width: 40)
        try Orientation(sensorDegrees: 90, displayDegrees: 0, facing: .back).toDisplay(&back, numbers: 3, width: 40)
        XCTAssertEqual(front, [8, 22, 5, 30, 50, 7])
        XCTAssertEqual(back, points)
    }

    func test_AN5_results_are_mapped_back_to_the_cameras_own_frame() throws {
        for orientation in try orientations() {
            // One bright pixel of the frame, found where it is in the upright picture.
            let turned = orientation.rotation % 180 != 0
            let camera = Camera(
                width: turned ? 60 : 40, height: turned ? 40 : 60, rowStride: 64, pixelStride: 2,
                pixel: { $0 == 12 && $1 == 31 ? 255 : 0 }, chroma: { _, _, _ in 128 })
            let upright = try camera.biplanar { try YuvConverter().toRgba($0, rotation: orientation.rotation) }
            let at = try XCTUnwrap((0..<(40 * 60)).first { upright.pixels[4 * $0] == 255 })
            var middle = [Float(at % 40) + 0.5, Float(at / 40) + 0.5]
            orientation.toFrame(&middle, numbers: 2, width: 40, height: 60)
            XCTAssertEqual(middle, [12.5, 31.5], "\(orientation)")
        }
        assertSays("45", refusal { _ = try Orientation(sensorDegrees: 45, displayDegrees: 0, facing: .back) })
    }
}
