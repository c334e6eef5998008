import XCTest

@testable import MobileBilayerCore

final class BenchmarkTest: XCTestCase {
    func test_percentiles_lie_between_neighbours_as_NumPy_has_them() throws {
        // numpy.percentile([4, 1, 3, 2, 10], [50, 90, 99]), .mean(), .std(ddof=1) / .mean()
        let got = try Statistics.of([4, 1, 3, 2, 10])
        assertNear([3, 7.6, 9.76, 4, 0.883883], [got.p50, got.p90, got.p99, got.mean, got.cv], 1e-6)
        XCTAssertEqual(try Statistics.of([5]), Statistics(count: 1, mean: 5, p50: 5, p90: 5, p99: 5, cv: 0))
        assertSays("no measurement", refusal { _ = try StageTimes().statistics() })
    }

    func test_of_many_times_the_latest_are_kept() throws {
        let times = StageTimes(capacity: 4)
        for i in 1...10 { times.add(Double(i)) }
        XCTAssertEqual(try times.statistics(), try Statistics.of([7, 8, 9, 10]))
    }

    func test_BE3_frames_a_second_are_of_whole_frames_and_told_for_each_second() {
        let rate = FrameRate()
        XCTAssertEqual(rate.fps, 0)
        var nowMs: Int64 = 5000
        for _ in 0..<31 {  // 20 a second, for 1.5 s
            rate.shown(nowMs * 1_000_000)
            nowMs += 50
        }
        nowMs += 950
        rate.shown(nowMs * 1_000_000)
        XCTAssertEqual(rate.fps, 31 / 2.5, accuracy: 1e-9)
        XCTAssertEqual(rate.overTime(), [20, 11])
    }

    private func result() throws -> BenchmarkResult {
        var made = BenchmarkResult(
            device: "made by a test", chip: nil, os: "none", buildType: "debug", runtime: "coreml", toolVersions: ["swift": "6.0.3"],
            backend: "coreml", computeUnit: "all", threads: nil, bundle: "none", bundleSha256: shipped.sha256,
            bundleMib: Double(shipped.bytes) / 1_048_576, precision: "fp16", imagePx: 256, warmupCount: 10, iterations: 1800,
            durationS: 60, stages: ["network": try Statistics.of([1, 2, 3]), "frame": try Statistics.of([8])], fps: 29.97, dropped: 3,
            load: LoadTimes(firstEverMs: nil, coldMs: 81.5, warmMs: 20), undelegatedOperators: ["aten.foo": "not in the backend"],
            overTime: [Moment(second: 0, frames: 30, thermalState: "nominal")])
        made.firstFrameMs = 150
        made.repeats = 3
        made.repeatSpread = 0.02
        made.execute = try Statistics.of([1.5])
        made.cameraFps = 30
        made.packageMib = 2
        made.delegatedOperators = 70
        made.undelegatedCount = 2
        made.operatorsByDevice = ["neural_engine": 70, "cpu": 2]
        made.notMeasured = ["stages_ms.display": "no screen"]
        made.warnings = ["It was made by a test."]
        made.madeAt = Date(timeIntervalSince1970: 1_769_860_800.5)
        return made
    }

    func test_BE2_a_result_is_written_with_what_was_not_measured_as_null() throws {
        let read = try Json.parse(try result().toJson(), where: "result.json")
        XCTAssertEqual(read["format_version"], .whole(1))
        XCTAssertEqual(read["stages_ms"]?.object?.keys, BenchmarkResult.stages)
        let network = try XCTUnwrap(read["stages_ms"]?["network"])
        assertNear([3, 2, 2, 2.8, 2.98, 0.5], try ["count", "mean", "p50", "p90", "p99", "cv"].map { try number(network[$0]) }, 1e-9)
        XCTAssertEqual(read["stages_ms"]?["display"], .null)
        XCTAssertEqual(read["made_at"], .text("2026-01-31T12:00:00Z"))
        for name in ["energy_mj", "chip", "threads", "fidelity"] { XCTAssertEqual(read[name], .null, name) }
        // Load, first frame and steady state are told apart.
        XCTAssertEqual(read["load"], .object(["first_ever_ms": .null, "cold_ms": .number(81.5), "warm_ms": .number(20)]))
        XCTAssertEqual(read["first_frame_ms"], .number(150))
        let moment: JsonObject = [
            "second": .whole(0), "frames": .whole(30), "thermal_state": .text("nominal"), "temperature_c": .null,
        ]
        XCTAssertEqual(read["over_time"], .list([.object(moment)]))
    }

    func test_a_result_is_written_for_Python_to_read() throws {
        let folder = try exchange()
        try Data(try result().toJson().utf8).write(to: folder.appendingPathComponent("result_of_swift.json"))
    }

    func test_a_result_that_cant_be_one_is_refused() throws {
        func said(_ change: (inout BenchmarkResult) throws -> Void) throws -> String {
            var changed = try result()
            try change(&changed)
            return refusal { _ = try changed.toJson() }
        }
        assertSays("gpu", try said { $0.stages["gpu"] = try Statistics.of([1]) })
        assertSays("energy", try said { $0.energyMj = 3 })
        assertSays("npu", try said { $0.computeUnit = "npu" })
        assertSays("warm", try said { $0.overTime = [Moment(second: 0, frames: 30, thermalState: "warm")] })
        assertSays("its rate", try said { $0.fps = nil })
        assertSays("0 iterations", try said { $0.iterations = 0 })
        assertSays("number", try said { $0.fps = .nan })
    }
}
