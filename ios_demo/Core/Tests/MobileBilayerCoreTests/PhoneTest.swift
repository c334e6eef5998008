import XCTest

@testable import MobileBilayerCore

/// What an app's shell asks of core beside the frames themselves.
final class PhoneTest: XCTestCase {
    private func bundle(for backend: String) throws -> ModelBundle {
        let text = try String(contentsOf: shippedFolder.appendingPathComponent("manifest.json"), encoding: .utf8)
        var values = try XCTUnwrap(try Json.parse(text, where: "manifest.json").object)
        values["backend"] = .text(backend)
        values["name"] = .text("for \(backend)")
        if backend == "coreml" {
            values["program"] = .text("student")
            var hashes = try XCTUnwrap(values["sha256"]?.object)
            for name in ["encode_avatar", "render_layers"] {
                hashes["student/\(name).mlpackage/Manifest.json"] = .text(sha256(Data()))
            }
            values["sha256"] = .object(hashes)
        }
        let manifest = Data(try Json.object(values).write().utf8)
        return try ModelBundle.open(backend) { name in
            name == "manifest.json" ? manifest : name.hasPrefix("student/") ? Data() : shipped.contents[name]
        }
    }

    func test_IO2_the_best_bundle_that_the_app_can_run_is_taken_and_people_are_told_why_no_better_one() throws {
        let all = [try bundle(for: "xnnpack"), try bundle(for: "coreml")]
        let every: Set<String> = ["CoreML", "XnnpackBackend"]
        let best = try BundleChoice.choose(all, registered: every) { $0.manifest.backend }
        XCTAssertEqual(best.running, "coreml")
        XCTAssertEqual(best.notes, [])
        let stripped = try BundleChoice.choose(all, registered: ["XnnpackBackend"]) { $0.manifest.backend }
        XCTAssertEqual(stripped.running, "xnnpack")
        XCTAssertEqual(stripped.notes, ["for coreml: this app has no CoreML (it has XnnpackBackend). Link it with -force_load."])
        let other = try BundleChoice.choose(all, registered: every) { bundle in
            if bundle.manifest.backend == "coreml" { throw MobileBilayerError("flow is 0.3 off. Use another.") }
            return bundle.manifest.backend
        }
        XCTAssertEqual(other.running, "xnnpack")
        XCTAssertEqual(other.notes, ["for coreml: flow is 0.3 off. Use another."])
    }

    func test_IO2_if_no_bundle_runs_all_the_reasons_are_told() throws {
        let all = [try bundle(for: "xnnpack"), try bundle(for: "vulkan")]
        let told = refusal { _ = try BundleChoice.choose(all, registered: ["Other"]) { $0.place } }
        for part in ["for vulkan: this app has no vulkan", "for xnnpack: this app has no XnnpackBackend"] { assertSays(part, told) }
        assertSays("There is none", refusal { _ = try BundleChoice.choose([], registered: ["CoreML"]) { $0.place } })
    }

    func test_BE3_a_hot_phone_looks_at_fewer_frames_and_never_at_none() {
        for cameraFps in [60, 30] {
            for (heat, fps) in [(-1, 60), (0, 60), (1, 60), (2, 15), (3, 10), (4, 10)] {
                let pacer = FramePacer()
                pacer.heat = heat
                var admitted = 0
                for i in 0..<(10 * cameraFps) {
                    let late = i * 7919 % 5 * 500_000  // 0 to 2 ms
                    if pacer.admit(Int64(i * 1_000_000_000 / cameraFps + late)) { admitted += 1 }
                }
                let rate = Double(admitted) / 10
                XCTAssertLessThanOrEqual(abs(rate - Double(min(fps, cameraFps))), 0.11, "heat \(heat) at \(cameraFps)")
                XCTAssertEqual(pacer.spared, 10 * cameraFps - admitted)
            }
        }
    }

    func test_BE3_a_phone_that_cooled_down_has_all_frames_again_and_a_pause_leaves_no_burst() {
        let pacer = FramePacer()
        pacer.heat = 3
        for begin: Int64 in [0, 60_000] {
            // Ten a second, each as near to its time as the frames come.
            let admitted = stride(from: Int64(0), through: 176, by: 16).filter { pacer.admit((begin + $0) * 1_000_000) }
            XCTAssertEqual(admitted, [0, 80, 176])
        }
        pacer.heat = 1
        XCTAssertTrue((0..<12).allSatisfy { pacer.admit(61_000_000_000 + $0 * 16_000_000) })
        XCTAssertEqual([-1, 0, 2, 3, 4].map(FramePacer.name), ["unknown", "nominal", "serious", "critical", "unknown"])
    }

    func test_texels_have_the_channels_of_each_pixel_beside_each_other() {
        let planes: [Float] = [1, 2, 3, 4, 10, 20, 30, 40, 100, 200, 300, 400]
        let got = Texels(channels: 3, sidePx: 2).of(planes) { Array($0) }
        XCTAssertEqual(got, [1, 10, 100, 2, 20, 200, 3, 30, 300, 4, 40, 400])
        let padded = Texels(channels: 3, sidePx: 2, padded: true).of(planes) { Array($0) }
        XCTAssertEqual(padded, [1, 10, 100, 0, 2, 20, 200, 0, 3, 30, 300, 0, 4, 40, 400, 0])
    }
}
