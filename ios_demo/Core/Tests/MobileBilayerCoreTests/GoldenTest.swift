import XCTest

@testable import MobileBilayerCore

/// golden/: what every port of the motion must give. Python wrote it.
final class GoldenTest: XCTestCase {
    private let constants: Json = must { try goldenFile("constants.json") }
    private let frames: [[Float]] = must { try goldenCases("head.json").map { try floats($0.given["landmarks"]) } }

    func test_every_golden_file_has_a_test_here() throws {
        let tested: Set<String> = [
            "constants.json", "head_crop.json", "head.json", "stabilizer.json", "neutral.json", "lost_face.json", "retarget.json",
            "ratios.json", "network_points.json", "cut.json", "background.json", "search.json",
            "found_face.json",
        ]
        let files = try FileManager.default.contentsOfDirectory(atPath: root.appendingPathComponent("golden").path)
        XCTAssertEqual(Set(files.filter { $0.hasSuffix(".json") }), tested)
    }

    func test_the_face_template_is_the_one_of_Python() throws {
        let python = try Data(contentsOf: assets.appendingPathComponent("face_template.safetensors"))
        let here = root.appendingPathComponent("ios_demo/Core/Sources/MobileBilayerCore/Resources/face_template.safetensors")
        XCTAssertEqual(try Data(contentsOf: here), python)
    }

    func test_constants_are_those_of_Python() throws {
        func same(_ name: String, _ value: [Int]) throws { XCTAssertEqual(try numbers(constants[name]), value.map(Double.init), name) }
        try same("mesh", mesh)
        try same("template_rigid", faceTemplate().rigid)
        try same("part_of_landmark", parts())
        try same("mouth_corners", mouthCorners)
        try same("upper_lips", upperLips)
        try same("lower_lips", lowerLips)
        try same("outer_upper_lips", outerUpperLips)
        try same("outer_lower_lips", outerLowerLips)
        try same("eye_corners", eyeCorners.flatMap { $0 })
        try same("upper_lids", upperLids.flatMap { $0 })
        try same("lower_lids", lowerLids.flatMap { $0 })
        try same("irises", irises.flatMap { $0 })
        try same("brows", brows.flatMap { $0 })
        func near(_ name: String, _ value: [Double]) throws { assertNear(try numbers(constants[name]), value, 1e-6, name) }
        try near("crop_up", [cropUp])
        try near("largest_shift", [largestShift])
        try near("scale_range", [scaleRange.lowerBound, scaleRange.upperBound])
        try near("proportion_range", [proportionRange.lowerBound, proportionRange.upperBound])
        try near("shut_lids", [shutLidsOpening])
        try near("shut_lips", [shutLipsOpening])
        try near("tight_lips", [tightLips])
        try near("most_shut", [mostShut])
        try near("widest_lids", [widestLids])
        try near("upper_lid", [upperLid])
        try near("upper_lip", [upperLip])
        try near("neutral_hold_s", [holdS])
        try near("neutral_ease_s", [easeS])
        try near("head_points", headPoints.flatMap { $0.doubles })
        try near("torso_points", torsoPoints.flatMap { $0.doubles })
        try near("template_points", faceTemplate().points.doubles)
        try near("template_jaw", faceTemplate().jaw.doubles)
        let configs: [(String, StabilizerConfig)] = [("stabilizer", .live), ("stabilizer_file", .file)]
        for (key, config) in configs {
            let parts: [(String, Smoothing)] = [
                ("pose", config.pose), ("skin", config.skin), ("brows", config.brows), ("mouth", config.mouth), ("lids", config.lids),
                ("gaze", config.gaze),
            ]
            let wanted = try XCTUnwrap(constants[key])
            for (name, part) in parts {
                let values = try XCTUnwrap(wanted[name])
                let read = try ["rest_hz", "speed_hz", "newest", "kernel"].flatMap { try numbers(values[$0]) }
                assertNear(read, [part.restHz, part.speedHz, part.newest] + part.kernel, 1e-6, name)
            }
            XCTAssertEqual(try number(wanted["gap_s"]), config.gapS)
        }
        XCTAssertEqual(try number(constants["neutral_angle"]), 20)  // the neutral's own numbers are private: neutral.json shows them
    }

    func test_head_crops_and_keypoints() throws {
        for (given, wanted) in try goldenCases("head_crop.json") {
            let landmarks = try floats(given["landmarks"])
            let crop = headCrop(landmarks)
            let right = try ["x_px", "y_px", "half_px"].map { try number(wanted[$0]) }
            assertNear(right, [crop.xPx, crop.yPx, crop.halfPx])
            var four: [Float] = []
            for i in [0, 33, 263, 152] { four += landmarks[(2 * i)...(2 * i + 1)] }
            let keypoints = crop.toKeypoints(four, numbers: 2)
            assertNear(try numbers(wanted["keypoints"]), keypoints.doubles)
            assertNear(four.doubles, crop.toPixels(keypoints, numbers: 2).doubles)
        }
    }

    func test_head_poses_and_faces() throws {
        for (given, wanted) in try goldenCases("head.json") {
            let motion = takeApart(try floats(given["landmarks"]))
            assertNear(try numbers(wanted["scale"]), [motion.pose.scale], 1e-4, "scale")
            assertNear(try numbers(wanted["rotation"]), motion.pose.rotation, 1e-4, "rotation")
            assertNear(try numbers(wanted["shift"]), motion.pose.shift, 1e-4, "shift")
            assertNear(try numbers(wanted["face_every_tenth"]), motion.face.points(10, 3), 1e-4, "face")
        }
    }

    func test_a_face_put_together_is_what_was_taken_apart() {
        for landmarks in frames { assertNear(landmarks.doubles, putTogether(takeApart(landmarks)).doubles) }
    }

    func test_the_live_stabilizer() throws {
        let (given, wanted) = try goldenCases("stabilizer.json")[0]
        let stabilizer = Stabilizer()
        let times = try numbers(given["times_s"])
        let right = try XCTUnwrap(wanted["live_every_third"]?.list)
        for (i, landmarks) in try XCTUnwrap(given["landmarks"]?.list).enumerated() {
            let live = putTogether(stabilizer.stabilize(takeApart(try floats(landmarks)), timeS: times[i]))
            assertNear(try numbers(right[i]), live.doubles.points(3, 2))
        }
        XCTAssertEqual(right.count, 5)
    }

    func test_the_stabilizer_of_whole_clips() throws {
        let (given, wanted) = try goldenCases("stabilizer.json")[0]
        let frames = try XCTUnwrap(given["landmarks"]?.list).map { try floats($0) }
        let found = frames.map { _ in true }
        let track = Track(landmarks: frames, timesS: try numbers(given["times_s"]), found: found, width: 384, height: 384)
        var steady: [[Float]] = []
        stabilize(track) { steady.append(putTogether($0)) }
        let right = try XCTUnwrap(wanted["file_every_third"]?.list)
        XCTAssertEqual(steady.count, right.count)
        for (got, right) in zip(steady, right) { assertNear(try numbers(right), got.doubles.points(3, 2)) }
    }

    func test_a_whole_clip_is_as_long_as_before_calmer_and_begins_anew_behind_a_lost_face() {
        let many = (0..<700).map { driver.landmarks[$0 % 198] }
        var times: [Double] = []
        for i in 0..<700 { times.append(0.04 * Double(i) + (i < 600 ? 0.0 : 3.0)) }
        let found = (0..<700).map { !(300...309).contains($0) }
        let clip = times
        func steady(_ range: Range<Int>, _ found: [Bool]) -> [[Float]] {
            var out: [[Float]] = []
            let track = Track(landmarks: Array(many[range]), timesS: Array(clip[range]), found: found, width: 384, height: 384)
            stabilize(track) { out.append(putTogether($0)) }
            return out
        }
        let whole = steady(0..<700, found)
        XCTAssertEqual(whole.count, 700)
        // Alone between two gaps it is as if there were no other frames.
        let last = steady(600..<700, [Bool](repeating: true, count: 100))
        assertNear(last[0].doubles, whole[600].doubles, 1e-6)
        assertNear(putTogether(takeApart(many[305])).doubles, whole[305].doubles, 1e-6)
        func tremble(_ frames: [[Float]]) -> Double {
            var sum = 0.0
            for i in 1..<(frames.count - 1) {
                for k in stride(from: 0, to: 956, by: 7) {
                    let bend: Float = frames[i - 1][k] - 2 * frames[i][k] + frames[i + 1][k]
                    sum += Double(abs(bend))
                }
            }
            return sum
        }
        let raw = many.prefix(190).map { putTogether(takeApart($0)) }
        XCTAssertLessThan(tremble(Array(whole.prefix(190))), 0.6 * tremble(raw))
    }

    func test_what_is_neutral() throws {
        for (given, wanted) in try goldenCases("neutral.json") {
            let neutral = Neutral(live: given["live"] == .bool(true))
            for landmarks in frames { neutral.add(takeApart(landmarks), stepS: 0.04) }
            assertNear(try numbers(wanted["landmarks_every_third"]), putTogether(neutral.motion()).doubles.points(3, 2))
        }
    }

    func test_lost_faces() throws {
        var between = [Float](repeating: 0, count: 2 * landmarkCount)
        for (given, wanted) in try goldenCases("lost_face.json") {
            let last = takeApart(frames[Int(try number(given["last"]))])
            let neutral = takeApart(frames[Int(try number(given["neutral"]))])
            let eased = easeToNeutral(last, neutral, lostS: try number(given["lost_s"]), out: Motion(), between: &between)
            assertNear(try numbers(wanted["landmarks_every_third"]), putTogether(eased).doubles.points(3, 2))
        }
    }

    func test_a_drivers_motion_on_a_sources_face() throws {
        let source = try floats(try goldenFile("retarget.json")["source"])
        let neutral = takeApart(frames[0])
        let one = Retargeter(source: takeApart(source), neutral: takeApart(frames[1]))  // with another neutral, to be changed
        one.setNeutral(neutral)
        for (given, wanted) in try goldenCases("retarget.json") {
            let driving = frames[Int(try number(given["driver"]))]
            let mode = try XCTUnwrap(Mode(rawValue: given["mode"]?.text ?? ""))
            let right = try numbers(wanted["keypoints"])
            assertNear(right, retarget(source: source, driving: driving, neutral: frames[0], mode: mode).doubles)
            if mode == .relative { assertNear(right, one.retarget(takeApart(driving)).doubles) }
        }
    }

    func test_how_far_lids_are_open() throws {
        for (given, wanted) in try goldenCases("ratios.json") {
            let share = lidShare(now: try number(given["now"]), rest: try number(given["rest"]))
            assertNear(try numbers(wanted["share"]), [share])
        }
    }

    func test_the_points_that_networks_take() throws {
        for (given, wanted) in try goldenCases("network_points.json") {
            assertNear(try numbers(wanted["points"]), networkPoints(try floats(given["keypoints"])).doubles)
        }
    }

    private func picture(_ rows: Json?) throws -> RgbImage {
        let lines = try XCTUnwrap(rows?.list)
        return try RgbImage(width: XCTUnwrap(lines[0].list).count, height: lines.count, pixels: numbers(rows).map { UInt8($0) })
    }

    func test_squares_cut_out_of_a_picture() throws {
        let file = try goldenFile("cut.json")
        let from = try picture(file["picture"])
        let tolerance = try number(file["tolerance"])
        for (given, wanted) in try goldenCases("cut.json") {
            let crop = Crop(xPx: try number(given["x_px"]), yPx: try number(given["y_px"]), halfPx: try number(given["half_px"]))
            let got = crop.cut(from, sidePx: Int(try number(given["side_px"])))
            assertNear(try numbers(wanted["rgb"]), got.pixels.map(Double.init), tolerance, "half \(crop.halfPx): level")
        }
    }

    func test_what_stands_behind_a_person() throws {
        let tolerance = try number(try goldenFile("background.json")["tolerance"])
        let from = try picture(try goldenFile("cut.json")["picture"])
        for (given, wanted) in try goldenCases("background.json") {
            let (x, y, radius) = (try number(given["x"]), try number(given["y"]), try number(given["radius"]))
            let alpha: [Float] = (0..<(from.width * from.height)).map { i in
                let (right, down) = (Double(i % from.width) - x, Double(i / from.width) - y)
                let share: Double = (radius + 2 - (right * right + down * down).squareRoot()) / 2
                return Float(min(max(share, 0), 1))
            }
            let filled = fillBehind(from, alpha: alpha)
            assertNear(try numbers(wanted["filled"]), filled.pixels.map(Double.init), tolerance, "filled")
            let side = from.height
            var left: [UInt8] = []
            for row in 0..<side { left += filled.pixels[(3 * row * from.width)...].prefix(3 * side) }
            let square = try RgbImage(width: side, height: side, pixels: left)
            let blurred = try changeBackground("blur", kept: square).pixels.map(Double.init)
            assertNear(try numbers(wanted["blurred_square"]), blurred, tolerance, "blurred")
            let corner = try changeBackground("#20a0ff", kept: square).pixels.prefix(3).map(Double.init)
            XCTAssertEqual(try numbers(wanted["coloured_corner"]), corner)
            XCTAssertEqual(square, try changeBackground("keep", kept: square))
            for none in ["", "#20a0f", "beach.jpg", "#20a0fg"] {
                assertSays("#20a0ff", refusal { _ = try changeBackground(none, kept: square) })
            }
        }
    }
}
