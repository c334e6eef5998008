import Foundation
import XCTest

@testable import MobileBilayerCore

/// The repository, wherever the tests are run from.
let root: URL = {
    var folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    while !FileManager.default.fileExists(atPath: folder.appendingPathComponent("golden/constants.json").path) {
        precondition(folder.path != "/", "golden/ is not above this file")
        folder = folder.deletingLastPathComponent()
    }
    return folder
}()

let assets = root.appendingPathComponent("mobile_bilayer/assets")
let shippedFolder = assets.appendingPathComponent("student-S-256-int8-xnnpack")

/// What a test can't go on without.
func must<T>(_ make: () throws -> T) -> T {
    do {
        return try make()
    } catch {
        fatalError("\(error)")
    }
}

let shipped: ModelBundle = must { try ModelBundle.open(shippedFolder) }

/// The shipped driver: 198 frames at 25 a second.
let driver: Track = must {
    let file = assets.appendingPathComponent("driving.track")
    return try Track.load(Data(contentsOf: file), where: file.path)
}

/// A file of golden/.
func goldenFile(_ name: String) throws -> Json {
    try Json.parse(String(contentsOf: root.appendingPathComponent("golden/\(name)"), encoding: .utf8), where: name)
}

/// Inputs and outputs of each case of a file of golden/.
func goldenCases(_ name: String) throws -> [(given: Json, wanted: Json)] {
    let cases = try XCTUnwrap(try goldenFile(name)["cases"]?.list)
    return try cases.map { (try XCTUnwrap($0["inputs"]), try XCTUnwrap($0["outputs"])) }
}

/// All numbers of nested lists, row by row.
func numbers(_ value: Json?) throws -> [Double] {
    guard let value else { throw MobileBilayerError("There are no such numbers. Look into the golden file.") }
    if let list = value.list { return try list.flatMap(numbers) }
    return [try XCTUnwrap(value.number)]
}

func number(_ value: Json?) throws -> Double {
    let all = try numbers(value)
    XCTAssertEqual(all.count, 1)
    return all[0]
}

func floats(_ value: Json?) throws -> [Float] { try numbers(value).map { Float($0) } }

extension [Float] {
    var doubles: [Double] { map { Double($0) } }
}

extension [Double] {
    /// Every `step`-th point of `size` numbers each.
    func points(_ step: Int, _ size: Int) -> [Double] { enumerated().filter { $0.offset / size % step == 0 }.map(\.element) }
}

/// Fails unless all numbers are as near as golden files ask for; says which one is not.
func assertNear(
    _ wanted: [Double], _ got: [Double], _ tolerance: Double = 1e-4, _ what: String = "value", file: StaticString = #filePath,
    line: UInt = #line
) {
    guard wanted.count == got.count else {
        return XCTFail("\(what) has \(got.count) numbers, \(wanted.count) are right", file: file, line: line)
    }
    for i in wanted.indices where !(abs(wanted[i] - got[i]) <= tolerance) {
        return XCTFail("\(what) \(i) is \(got[i]), \(wanted[i]) is right within \(tolerance)", file: file, line: line)
    }
}

/// What is said of bad input; every such message says what to do as well.
func refusal(file: StaticString = #filePath, line: UInt = #line, _ use: () throws -> Void) -> String {
    do {
        try use()
    } catch let error as MobileBilayerError {
        let text = error.message
        let sentences = text.filter { $0 == "." || $0 == ";" }.count
        XCTAssertTrue(text.hasSuffix(".") && sentences >= 2, "no remedy: \(text)", file: file, line: line)
        return text
    } catch {
        XCTFail("another error: \(error)", file: file, line: line)
        return ""
    }
    XCTFail("it was not refused", file: file, line: line)
    return ""
}

/// Fails unless `part` is in what was said.
func assertSays(_ part: String, _ said: String, file: StaticString = #filePath, line: UInt = #line) {
    XCTAssertTrue(said.contains(part), "'\(part)' is not in: \(said)", file: file, line: line)
}

/// Waits, but not for ever.
func waitUntil(_ what: String, _ isSo: () -> Bool) {
    let until = nowNs() + 10_000_000_000
    while !isSo() {
        if nowNs() > until { return XCTFail("still not so: \(what)") }
        usleep(100)
    }
}

/// A number behind a lock.
final class Counter: @unchecked Sendable {
    private let lock = NSLock()
    private var number = 0

    var value: Int { change { $0 } }

    @discardableResult
    func add(_ more: Int = 1) -> Int {
        change {
            $0 += more
            return $0
        }
    }

    func set(_ value: Int) { change { $0 = value } }

    private func change<R>(_ act: (inout Int) -> R) -> R {
        lock.lock()
        defer { lock.unlock() }
        return act(&number)
    }
}

/// A thread that can be waited for.
final class Worker: @unchecked Sendable {
    private let done = DispatchSemaphore(value: 0)

    init(_ act: @escaping @Sendable () -> Void) {
        let done = done
        Thread.detachNewThread {
            act()
            done.signal()
        }
    }

    /// Whether it ended in time.
    func join(seconds: Double) -> Bool { done.wait(timeout: .now() + seconds) == .success }
}

/// Numbers that look random and are the same in every run (SplitMix64).
struct Noise: RandomNumberGenerator {
    var state: UInt64

    init(_ seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z >> 31)
    }

    mutating func bytes(_ count: Int) -> [UInt8] { (0..<count).map { _ in UInt8(truncatingIfNeeded: next()) } }

    mutating func floats(_ count: Int) -> [Float] { (0..<count).map { _ in Float.random(in: -1...1, using: &self) } }
}

/// What the golden program gives: every call does as the float student did. Counts calls, and says when they come after close.
final class GoldenProgram: Program {
    private(set) var calls = 0
    private(set) var closed = 0
    private var kept: [String: [[Float]]] = [:]

    init() {
        let golden = must { try shipped.golden() }
        for name in ["encode_avatar", "render_layers"] {
            kept[name] = shipped.method(name).outputs.map { spec in must { try golden.numbers(spec.name) } }
        }
    }

    func execute(_ method: String, inputs: [Tensor], outputs: [Tensor]) {
        precondition(closed == 0, "executed after close")
        calls += 1
        guard let all = kept[method] else { return }
        for i in outputs.indices { copy(all[i], to: &outputs[i].floats) }
    }

    func close() { closed += 1 }
}

/// The person of the golden avatar on a neutral frame: as in the photo, with lips that are shut. 478 x 2 in [-1, 1] of the crop.
let atRest: [Float] = must { try floats(goldenCases("retarget.json")[0].wanted["keypoints"]) }

/// The person of the golden vectors: a public-domain photo.
func goldenAvatar() throws -> Avatar {
    let golden = try shipped.golden()
    let image = try golden.numbers("image")
    let pixels = image.count / 3
    var texture: [UInt8] = []
    for i in 0..<pixels {
        for c in 0..<3 { texture.append(UInt8((image[c * pixels + i] * 255).rounded())) }
    }
    let source = try floats(try goldenFile("retarget.json")["source"])
    var landmarks = [Float](repeating: 0.1, count: 3 * landmarkCount)
    for i in 0..<landmarkCount {
        landmarks[3 * i] = source[2 * i]
        landmarks[3 * i + 1] = source[2 * i + 1]
    }
    return Avatar(
        bundle: shipped, texture: try RgbImage(width: 256, height: 256, pixels: texture), background: RgbImage(width: 256, height: 256),
        alpha: [UInt8](repeating: 0, count: 128 * 128), landmarkFeatures: try golden.numbers("landmark_features"),
        mapFeatures: try golden.numbers("map_features"), sourceLandmarks: landmarks)
}

/// Where pytest puts what Python made, and looks for what Swift makes of it.
func exchange() throws -> URL {
    guard let folder = ProcessInfo.processInfo.environment["MOBILE_BILAYER_EXCHANGE"] else {
        throw XCTSkip("MOBILE_BILAYER_EXCHANGE names no folder: pytest does")
    }
    return URL(fileURLWithPath: folder)
}
