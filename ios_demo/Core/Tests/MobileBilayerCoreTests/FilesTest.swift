import XCTest

@testable import MobileBilayerCore

/// JSON and safetensors, the forms that all files have; hashes and zips.
final class FilesTest: XCTestCase {
    private func file(_ header: String, _ data: [UInt8] = []) -> Data {
        let length = withUnsafeBytes(of: UInt64(header.utf8.count).littleEndian) { [UInt8]($0) }
        return Data(length + Array(header.utf8) + data)
    }

    func test_JSON_comes_back_as_it_was_written() throws {
        let value = Json.object([
            "text": .text("a \"quote\", a \\ and a\nline, ü 😀"),
            "numbers": .list([.whole(1), .whole(-2), .number(0.5), .number(1e-7), .number(3)]),
            "nothing": .null,
            "yes": .bool(true),
            "empty": .list([]),
            "deep": .object(["list": .list([.object(["a": .whole(1)]), .object([:])])]),
        ])
        XCTAssertEqual(try Json.parse(try value.write(), where: "here"), value)
        XCTAssertEqual(try Json.parse("\"\\ud83d\\ude00 \\u00fc\"", where: "here"), .text("😀 ü"))
    }

    func test_what_is_no_JSON_is_refused_by_its_place() {
        let texts = [
            "", "{", "[1, 2", "[1,]", "{\"a\": 1,}", "{\"a\": 1, \"a\": 2}", "{a: 1}", "'a'", "\"a", "NaN", "[Infinity]", "-",
            "01", "1.", ".5", "+1", "1e", "1e999", "tru", "null null", "[1] x", "\"\\x\"", "\"\\u12g4\"", "\"\\ud83d\"", "\"a\nb\"",
            String(repeating: "[", count: 100_000), String(repeating: "{\"a\":", count: 100_000),
        ]
        for text in texts { assertSays("here is not JSON", refusal { _ = try Json.parse(text, where: "here") }) }
    }

    func test_numbers_that_JSON_does_not_have_are_not_written() {
        for value in [Double.nan, .infinity] { assertSays("number", refusal { _ = try Json.object(["fps": .number(value)]).write() }) }
    }

    func test_tensors_come_back_as_they_were_saved() throws {
        let tensors: [(String, Tensor)] = [
            ("wide", try Tensor(.f64, [2], .doubles([1.5, -2]))),
            ("long", try Tensor(.i64, [1], .longs([1 << 40]))),
            ("floats", try Tensor.of([1, -0.25, .greatestFiniteMagnitude, 0, .leastNonzeroMagnitude, 3], [2, 3])),
            ("whole", try Tensor(.i32, [3], .ints([-1, 0, 7]))),
            ("short", try Tensor(.i16, [1], .shorts([-300]))),
            ("bytes", try Tensor(.u8, [2, 2], .bytes([255, 0, 1, 2]))),
            ("none", Tensor.zeros([0, 4])),
            ("one", try Tensor(.bool, [], .bytes([1]))),
        ]
        let back = try Safetensors.load(try Safetensors(tensors, metadata: ["who": "we"]).save(), where: "here")
        XCTAssertEqual(back.metadata, ["who": "we"])
        XCTAssertEqual(back.names, tensors.map(\.0))
        for (name, tensor) in tensors {
            let got = try XCTUnwrap(back.tensors[name])
            XCTAssertEqual(got.dtype, tensor.dtype)
            XCTAssertEqual(got.shape, tensor.shape)
            XCTAssertEqual(got.data, tensor.data, name)
        }
    }

    func test_half_precision_numbers_are_read_as_what_they_are() {
        let bits: [UInt16] = [0x0000, 0x8000, 0x3c00, 0xc000, 0x7bff, 0x0001, 0x03ff, 0x0400, 0x7c00, 0xfc00, 0x3555]
        let wanted: [Float] = [0, -0, 1, -2, 65504, 5.9604645e-8, 6.097555e-5, 6.1035156e-5, .infinity, -.infinity, 0.33325195]
        XCTAssertEqual(bits.map(Safetensors.halfToFloat), wanted)
        XCTAssertTrue(Safetensors.halfToFloat(0x7e00).isNaN)
    }

    func test_files_that_attack_are_refused_in_words() {
        func tensor(_ dtype: String, _ shape: String, _ offsets: String) -> String {
            "{\"a\":{\"dtype\":\"\(dtype)\",\"shape\":\(shape),\"data_offsets\":\(offsets)}}"
        }
        let four: [UInt8] = [0, 0, 0, 0]
        let second = tensor("U8", "[4]", "[2,6]").dropFirst().replacingOccurrences(of: "\"a\"", with: "\"b\"")
        let overlapping = tensor("U8", "[4]", "[0,4]").dropLast() + "," + second
        let files = [
            Data(), Data(count: 7), Data(count: 8), Data(repeating: 255, count: 64), Data("PK and then nothing".utf8),
            file("[]"), file("{}", four), file("{\"a\":1}"), file("{\"__metadata__\":{\"a\":1}}"), file("{\"__metadata__\":[]}"),
            file(tensor("F32", "[1]", "[0,8]"), four), file(tensor("F32", "[1]", "[4,8]"), four), file(tensor("F32", "[1]", "[4,0]"), four),
            file(tensor("F32", "[2]", "[0,4]"), four), file(tensor("F32", "[-1]", "[0,4]"), four),
            file(tensor("F32", "[1.0]", "[0,4]"), four), file(tensor("F32", "[4294967296,4294967296]", "[0,4]"), four),
            file(tensor("F32", "[65536,65536,0]", "[0,4]"), four), file(tensor("F32", "[2147483647,2147483647,4]", "[0,4]"), four),
            file(tensor("Q4", "[1]", "[0,4]"), four), file(tensor("F32", "[1]", "[0,4]"), four + four),
            file(tensor("F32", "[1]", "[4,8]"), four + four), file(String(overlapping), [0, 0, 0, 0, 0, 0]),
        ]
        for data in files { assertSays("here", refusal { _ = try Safetensors.load(data, where: "here") }) }
    }

    func test_whatever_byte_is_changed_the_golden_file_loads_or_is_refused_in_words() throws {
        let data = try Data(contentsOf: shippedFolder.appendingPathComponent("golden.safetensors"))
        var random = Noise(1)
        for _ in 0..<300 {
            var spoilt = data
            spoilt[Int.random(in: 0..<1200, using: &random)] = UInt8.random(in: 0...255, using: &random)
            do {
                _ = try Safetensors.load(spoilt, where: "here")
            } catch {
                XCTAssertTrue(error is MobileBilayerError, "\(error)")
            }
        }
        for length in [0, 8, 500, data.count - 1] { _ = refusal { _ = try Safetensors.load(data.prefix(length), where: "here") } }
    }

    func test_hashes_are_those_of_NIST() {
        // FIPS 180-4's examples, and lengths around a block's end.
        let wanted = [
            "": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
            "abc": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq":
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1",
            String(repeating: "a", count: 1_000_000): "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0",
            String(repeating: "a", count: 55): "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318",
            String(repeating: "a", count: 64): "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb",
        ]
        for (text, hash) in wanted {
            XCTAssertEqual(plainSha256(Data(text.utf8)), hash)
            XCTAssertEqual(sha256(Data(text.utf8)), hash)
        }
    }

    func test_what_is_deflated_comes_back_and_what_is_not_is_refused() throws {
        // zlib.compressobj(9, zlib.DEFLATED, -15) of b"abc" * 100 + bytes(range(256)) * 2, b"hello", and level 0.
        let packed = try XCTUnwrap(Data(base64Encoded: fixedBlock))
        XCTAssertEqual(inflate([UInt8](packed)[...], size: 5), Array("hello".utf8))
        XCTAssertNil(inflate([UInt8](packed)[...], size: 4))
        XCTAssertNil(inflate([UInt8](packed.dropLast())[...], size: 5))
        let stored: [UInt8] = [1, 5, 0, 250, 255] + Array("hello".utf8)
        XCTAssertEqual(inflate(stored[...], size: 5), Array("hello".utf8))
        var random = Noise(2)
        for _ in 0..<3000 { _ = inflate(random.bytes(40)[...], size: 100_000) }
        XCTAssertEqual(crc32(Array("123456789".utf8)), 0xcbf4_3926)
    }

    private let fixedBlock = "y0jNyckHAA=="
}

/// Bundles: the shipped one, and such as are none.
final class BundleTest: XCTestCase {
    private func contents() throws -> [String: Data] {
        var out: [String: Data] = [:]
        for name in try FileManager.default.contentsOfDirectory(atPath: shippedFolder.path) {
            out[name] = try Data(contentsOf: shippedFolder.appendingPathComponent(name))
        }
        return out
    }

    private func manifest() throws -> JsonObject {
        let text = try String(contentsOf: shippedFolder.appendingPathComponent("manifest.json"), encoding: .utf8)
        return try XCTUnwrap(try Json.parse(text, where: "manifest.json").object)
    }

    private func open(_ files: [String: Data]) throws -> ModelBundle { try ModelBundle.open("my bundle") { files[$0] } }

    private func text(_ change: (inout JsonObject) throws -> Void) throws -> String {
        var values = try manifest()
        try change(&values)
        return try Json.object(values).write()
    }

    private func refusedManifest(_ change: (inout JsonObject) throws -> Void) throws -> String {
        let changed = try text(change)
        return refusal { _ = try Manifest.fromJson(changed, where: "my bundle") }
    }

    private func openWith(_ change: (inout JsonObject) throws -> Void) throws -> ModelBundle {
        var files = try contents()
        files["manifest.json"] = Data(try text(change).utf8)
        return try open(files)
    }

    func test_the_shipped_bundle_opens_and_says_what_it_is() throws {
        let manifest = shipped.manifest
        XCTAssertEqual([manifest.size, manifest.precision, manifest.backend], ["S", "int8", "xnnpack"])
        XCTAssertEqual(manifest.methods["render_layers"]?.outputs[0].shape, [1, 4, 64, 64])
        XCTAssertFalse(shipped.card.isEmpty)
        XCTAssertEqual(manifest.stabilizer, .live)
        XCTAssertEqual(shipped.sha256, sha256(try XCTUnwrap(try contents()["manifest.json"])))
        XCTAssertGreaterThan(shipped.bytes, 1_800_000)
    }

    /// A zip of stored files, by hand.
    private func zip(_ files: [(String, Data)]) -> Data {
        func little(_ value: Int, _ bytes: Int) -> [UInt8] { (0..<bytes).map { UInt8(value >> (8 * $0) & 255) } }
        var (out, directory): ([UInt8], [UInt8]) = ([], [])
        for (name, data) in files {
            let crc = little(Int(crc32([UInt8](data))), 4)
            let about = little(0, 8) + crc + little(data.count, 4) + little(data.count, 4) + little(name.utf8.count, 2)
            directory += little(0x0201_4b50, 4) + little(20, 2) + little(20, 2) + about + little(0, 12) + little(out.count, 4)
            directory += Array(name.utf8)
            out += little(0x0403_4b50, 4) + little(20, 2) + about + little(0, 2) + Array(name.utf8) + [UInt8](data)
        }
        let count = little(files.count, 2)
        return Data(
            out + directory + little(0x0605_4b50, 4) + little(0, 4) + count + count + little(directory.count, 4) + little(out.count, 4)
                + little(0, 2))
    }

    private func temporary(_ name: String) -> URL {
        FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID().uuidString)-\(name)")
    }

    func test_a_zip_of_the_files_or_of_their_folder_is_a_bundle() throws {
        let path = temporary("bundle.zip")
        defer { try? FileManager.default.removeItem(at: path) }
        for prefix in ["", "student-S/"] {
            try zip(try contents().map { (prefix + $0.key, $0.value) }).write(to: path)
            XCTAssertEqual(try ModelBundle.open(path).manifest, shipped.manifest)
        }
        var spoilt = zip([("manifest.json", Data("{}".utf8))])
        spoilt[43] ^= 1  // the first byte of the file itself
        try spoilt.write(to: path)
        assertSays("can't be unpacked", refusal { _ = try ModelBundle.open(path) })
    }

    func test_a_zip_that_Python_packed_is_a_bundle() throws {
        let opened = try ModelBundle.open(try exchange().appendingPathComponent("bundle.zip"))
        XCTAssertEqual(opened.manifest, shipped.manifest)
        XCTAssertEqual(opened.contents, shipped.contents)
    }

    func test_what_is_no_bundle_is_refused_by_its_name() throws {
        let (file, folder) = (temporary("photo.jpg"), temporary("empty"))
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: false)
        for text in ["", "hello", "PK\u{3}\u{4} and then nothing", String(repeating: "PK\u{5}\u{6}", count: 20)] {
            try Data(text.utf8).write(to: file)
            assertSays(file.path, refusal { _ = try ModelBundle.open(file) })
        }
        assertSays("manifest.json is missing", refusal { _ = try ModelBundle.open(folder) })
        try FileManager.default.removeItem(at: file)
        try FileManager.default.removeItem(at: folder)
        assertSays("does not exist", refusal { _ = try ModelBundle.open(folder) })
    }

    func test_a_file_that_is_missing_or_was_changed_is_refused_by_its_name() throws {
        for name in shipped.manifest.sha256.keys {
            var files = try contents()
            files[name] = nil
            assertSays("\(name) is missing", refusal { _ = try open(files) })
            files = try contents()
            files[name]?.append(1)
            assertSays("\(name) has sha256", refusal { _ = try open(files) })
        }
    }

    func test_a_newer_bundle_asks_for_an_update_and_an_older_one_is_read_as_this_version() throws {
        assertSays("format version 3; this reader knows 1 to 2. Update", try refusedManifest { $0["format_version"] = .whole(3) })
        let old = try openWith { values in
            let points = try XCTUnwrap(values["template_points"]?.list)
            let rigid = try XCTUnwrap(values["rigid"]?.list)
            values["template_points"] = nil
            values["stabilizer"] = nil
            values["format_version"] = .whole(1)
            values["rigid_points"] = .list(try rigid.map { points[Int(try XCTUnwrap($0.whole))] })
        }
        XCTAssertEqual(old.manifest, shipped.manifest)
        let said = try refusedManifest { values in
            values["format_version"] = .whole(1)
            let count = try XCTUnwrap(values["rigid"]?.list).count
            values["rigid_points"] = .list([Json](repeating: .list([.number(0), .number(0), .number(0)]), count: count))
        }
        assertSays("rigid_points", said)
    }

    func test_every_value_of_the_manifest_has_its_kind() throws {
        let values = try manifest()
        for key in values.keys where key != "format_version" {
            for wrong: Json in [.null, .whole(17), .text("text"), .bool(true), .object([:]), .list([.text("x")])] {
                if wrong.text != nil, values[key]?.text != nil { continue }
                if wrong.whole != nil, ["image_px", "crop_up"].contains(key) { continue }
                assertSays("manifest.json", try refusedManifest { $0[key] = wrong })
            }
            assertSays("lacks \(key)", try refusedManifest { $0[key] = nil })
        }
        assertSays("has unknown extra", try refusedManifest { $0["extra"] = .whole(1) })
        assertSays("image_px is 512", try refusedManifest { $0["image_px"] = .whole(512) })
        let zeros = Json.text(String(repeating: "0", count: 64))
        for name in ["../evil", "/etc/x", ".hidden", "a/b", ""] {
            assertSays("is no plain file name", try refusedManifest { $0["sha256"] = .object([name: zeros]) })
        }
        assertSays("64 hex digits", try refusedManifest { $0["sha256"] = .object(["evil": .text(String(repeating: "0", count: 63))]) })
        assertSays("methods are [\"forward\"]", try refusedManifest { $0["methods"] = .object(["forward": .whole(1)]) })
        var files = try contents()
        files["manifest.json"] = Data("{".utf8)
        assertSays("is not JSON", refusal { _ = try open(files) })
    }

    func test_a_core_ml_bundle_has_a_package_for_each_method() throws {
        func changed(_ lists: [String]) throws -> String {
            try text { values in
                values["backend"] = .text("coreml")
                values["program"] = .text("student")
                let zeros = Json.text(String(repeating: "0", count: 64))
                var hashes: JsonObject = ["golden.safetensors": zeros, "MODEL_CARD.md": zeros]
                for name in lists { hashes["student/\(name).mlpackage/Manifest.json"] = zeros }
                values["sha256"] = .object(hashes)
            }
        }
        let both = try changed(["encode_avatar", "render_layers"])
        XCTAssertEqual(try Manifest.fromJson(both, where: "my bundle").sha256.count, 4)
        let one = try changed(["encode_avatar"])
        assertSays("render_layers.mlpackage", refusal { _ = try Manifest.fromJson(one, where: "my bundle") })
    }

    func test_a_program_made_for_other_points_is_refused() {
        let said = refusal {
            _ = try openWith { values in
                var mesh = try XCTUnwrap(values["mesh"]?.list)
                mesh.swapAt(0, 1)
                values["mesh"] = .list(mesh)
            }
        }
        assertSays("mesh is not what this version computes", said)
        assertSays("crop_up is not", refusal { _ = try openWith { $0["crop_up"] = .number(0.25) } })
    }

    /// The golden program, with something done to what it gives.
    private final class Spoilt: Program {
        private let golden = GoldenProgram()
        private let spoil: (String, [Tensor]) -> Void

        init(_ spoil: @escaping (String, [Tensor]) -> Void) { self.spoil = spoil }

        func execute(_ method: String, inputs: [Tensor], outputs: [Tensor]) {
            golden.execute(method, inputs: inputs, outputs: outputs)
            spoil(method, outputs)
        }

        func close() {}
    }

    func test_IO1_what_computes_as_the_student_did_is_verified_and_what_does_not_is_named() throws {
        let errors = try shipped.verify(shipped.network(GoldenProgram()))
        XCTAssertEqual(Set(errors.keys), Set(ModelBundle.checked))
        XCTAssertEqual(errors["flow"], 0)
        let moved = Spoilt { method, outputs in
            if method == "render_layers" { outputs[0].floats[0] += 3 * 2 / 256 }  // three pixels of flow, of a mask it would pass
        }
        assertSays("flow is", refusal { try shipped.verify(shipped.network(moved)) })
        let broken = Spoilt { _, outputs in outputs[0].floats[0] = .nan }
        assertSays("landmark_features is nan", refusal { try shipped.verify(shipped.network(broken)) })
    }
}

final class AvatarTest: XCTestCase {
    private let made = must { try goldenAvatar() }

    private func assertSame(_ a: Avatar, _ b: Avatar) {
        XCTAssertTrue(a.texture == b.texture && a.background == b.background && a.alpha == b.alpha)
        XCTAssertTrue(a.landmarkFeatures == b.landmarkFeatures && a.mapFeatures == b.mapFeatures)
        XCTAssertTrue(a.sourceLandmarks == b.sourceLandmarks)
    }

    func test_an_avatar_comes_back_as_it_was_saved_and_carries_the_tag() throws {
        let data = try made.save()
        assertSame(try Avatar.load(data, where: "me.avatar", bundle: shipped), made)
        let content = try XCTUnwrap(try Safetensors.load(data, where: "me.avatar").metadata["content"])
        assertSays("AI-generated", content)
    }

    private func fromPython() throws -> Avatar {
        let file = try exchange().appendingPathComponent("from_python.avatar")
        return try Avatar.load(try Data(contentsOf: file), where: "from_python.avatar", bundle: shipped)
    }

    func test_avatars_of_Python_are_read_and_written_back_for_it() throws {
        try fromPython().save().write(to: try exchange().appendingPathComponent("from_swift.avatar"))
    }

    func test_a_whole_photo_is_cut_and_its_background_filled_for_Python_to_compare() throws {
        let folder = try exchange()
        let given = try Safetensors.load(try Data(contentsOf: folder.appendingPathComponent("photo.safetensors")), where: "photo").tensors
        let rgb = try XCTUnwrap(given["rgb"])
        let photo = try RgbImage(width: rgb.shape[1], height: rgb.shape[0], pixels: rgb.bytes)
        let texture = headCrop(try XCTUnwrap(given["landmarks"]).floats).cut(photo)
        let background = fillBehind(texture, alpha: grown(try XCTUnwrap(given["alpha"]).floats, 128, 256))
        let tensors = try [("texture", texture), ("background", background)].map { name, picture in
            (name, try Tensor(.u8, [256, 256, 3], .bytes(picture.pixels)))
        }
        try Safetensors(tensors).save().write(to: folder.appendingPathComponent("photo_of_swift.safetensors"))
    }

    func test_a_whole_live_run_with_a_lost_face_for_Python_to_compare() throws {
        let avatar = try fromPython()
        let follower = Follower()
        var renderer: Renderer?
        var moved: [Float] = []
        for (i, landmarks) in driver.landmarks.enumerated() {
            let motion = try XCTUnwrap(follower.follow((60...95).contains(i) ? nil : landmarks, timeS: driver.timesS[i]))
            let neutral = try XCTUnwrap(follower.neutral)
            renderer?.setNeutral(neutral)
            let drawn = try renderer ?? Renderer(avatar, shipped.network(GoldenProgram()), neutral)
            renderer = drawn
            moved += drawn.move(motion)
        }
        let tensor = try Tensor.of(moved, [driver.landmarks.count, landmarkCount, 2])
        try Safetensors([("moved", tensor)]).save().write(to: try exchange().appendingPathComponent("run_of_swift.safetensors"))
    }

    private func said(_ name: String? = nil, _ tensor: Tensor? = nil, words: [String: String] = [:]) throws -> String {
        let file = try Safetensors.load(try made.save(), where: "x")
        let tensors = file.names.compactMap { key -> (String, Tensor)? in
            if key == name { return tensor.map { (key, $0) } }
            return file.tensors[key].map { (key, $0) }
        }
        let data = try Safetensors(tensors, metadata: file.metadata.merging(words) { $1 }).save()
        return refusal { _ = try Avatar.load(data, where: "me.avatar", bundle: shipped) }
    }

    func test_what_is_no_avatar_of_this_student_is_refused_in_words() throws {
        assertSays("is not an avatar", try said(words: ["format": "mobile_bilayer track"]))
        assertSays("format version 2", try said(words: ["version": "2"]))
        assertSays("student feed", try said(words: ["student": "feed"]))
        assertSays("texture is missing", try said("texture"))
        assertSays("texture is (1) F32; it must be (256, 256, 3) U8", try said("texture", Tensor.zeros([1])))
        let none = try Tensor.of([Float](repeating: .nan, count: made.mapFeatures.count), [1, 32, 32, 32])
        assertSays("map_features holds what is not a number", try said("map_features", none))
        assertSays("source_landmarks: Landmarks lie between", try said("source_landmarks", Tensor.zeros([478, 3])))
        assertSays("me.avatar", refusal { _ = try Avatar.load(Data("hello".utf8), where: "me.avatar", bundle: shipped) })
    }

    func test_on_the_neutral_frame_the_avatars_points_are_those_of_its_photo() throws {
        let program = GoldenProgram()
        let neutral = takeApart(driver.landmarks[52])
        let renderer = try Renderer(made, shipped.network(program), neutral)
        let moved = renderer.move(neutral)
        assertNear(atRest.doubles, moved.doubles)
        let layers = Layers(shipped.manifest)
        try renderer.layers(moved, into: layers)
        XCTAssertTrue(layers.a.floats == (try shipped.golden().numbers("layers_a")))
        XCTAssertEqual(program.calls, 1)
    }

    func test_an_avatar_of_a_photo_has_its_head_crop_and_what_the_network_gives() throws {
        var random = Noise(3)
        let photo = try RgbImage(width: 400, height: 400, pixels: random.bytes(3 * 400 * 400))
        let landmarks = driver.landmarks[52]
        let network = shipped.network(GoldenProgram())
        let avatar = try shipped.avatar(photo, landmarks: landmarks, network: network)
        let crop = headCrop(landmarks)
        XCTAssertTrue(avatar.texture == crop.cut(photo))
        XCTAssertTrue(avatar.sourceLandmarks == crop.toKeypoints(landmarks))
        XCTAssertTrue(avatar.mapFeatures == (try shipped.golden().numbers("map_features")))
        XCTAssertTrue(avatar.alpha.contains(255) && avatar.alpha.contains { $0 <= 10 })
        func said(_ landmarks: [Float]) -> String { refusal { _ = try shipped.avatar(photo, landmarks: landmarks, network: network) } }
        assertSays("3 are needed", said((0..<956).map { Float($0) }))
        assertSays("468", said([Float](repeating: 1, count: 3 * 468)))
        assertSays("not a number", said([Float](repeating: .nan, count: 3 * 478)))
    }
}

final class TrackTest: XCTestCase {
    private let data = must { try Data(contentsOf: assets.appendingPathComponent("driving.track")) }

    func test_the_shipped_driver_is_read() throws {
        XCTAssertEqual(driver.landmarks.count, 198)
        XCTAssertEqual(driver.width, 384)
        XCTAssertTrue(driver.found.allSatisfy { $0 })
        XCTAssertEqual(driver.timesS[1] - driver.timesS[0], 0.04, accuracy: 1e-9)
        let wanted = try numbers(try goldenCases("head.json")[0].given["landmarks"])
        assertNear(wanted, wanted.indices.map { Double(driver.landmarks[52][$0 / 2 * 3 + $0 % 2]) })
    }

    private func said(_ words: [String: String] = [:], _ name: String? = nil, _ tensor: Tensor? = nil) throws -> String {
        let file = try Safetensors.load(data, where: "x")
        let tensors = file.names.compactMap { key -> (String, Tensor)? in
            if key == name { return tensor.map { (key, $0) } }
            return file.tensors[key].map { (key, $0) }
        }
        let changed = try Safetensors(tensors, metadata: file.metadata.merging(words) { $1 }).save()
        return refusal { _ = try Track.load(changed, where: "talk.track") }
    }

    func test_what_is_no_track_is_refused_in_words() throws {
        assertSays("not a track", try said(["format": "x"]))
        assertSays("version 2", try said(["version": "2"]))
        assertSays("step_px is '1e9'", try said(["step_px": "1e9"]))
        assertSays("found is missing", try said([:], "found"))
        let zeros = try Tensor(.f64, [198], .doubles([Double](repeating: 0, count: 198)))
        assertSays("times do not grow", try said([:], "times_s", zeros))
        assertSays("no pixels", try said(["step_px": "99999/1"]))
        assertSays("talk.track", refusal { _ = try Track.load(Data(count: 10), where: "talk.track") })
    }

    func test_a_clips_neutral_looks_ahead_and_has_a_calm_face() throws {
        let neutral = try neutralOf(driver)
        XCTAssertTrue(lipOpening(neutral.face) < 0.1 && openness(neutral.face) > 0.1)
        let none = [Bool](repeating: false, count: 198)
        let track = Track(landmarks: driver.landmarks, timesS: driver.timesS, found: none, width: 384, height: 384)
        assertSays("no frame in which a face", refusal { _ = try neutralOf(track) })
    }
}
