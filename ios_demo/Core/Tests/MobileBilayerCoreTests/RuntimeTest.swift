import Foundation
import XCTest

@testable import MobileBilayerCore

/// What apps plug their runtimes in with.
final class RuntimeTest: XCTestCase {
    private let folder = FileManager.default.temporaryDirectory.appendingPathComponent("RuntimeTest-\(UUID().uuidString)")

    override func tearDown() { try? FileManager.default.removeItem(at: folder) }

    /// The shipped bundle, whose program is a folder of packages.
    private func packages() throws -> ModelBundle {
        var manifest = String(decoding: try Data(contentsOf: shippedFolder.appendingPathComponent("manifest.json")), as: UTF8.self)
        let program = shipped.manifest.program
        let digits = try XCTUnwrap(shipped.manifest.sha256[program])
        var files: [String: Data] = [:]
        for name in ["encode_avatar", "render_layers"] {
            for part in ["Manifest.json", "Data/com.apple.CoreML/model.mlmodel"] {
                files["packages/\(name).mlpackage/\(part)"] = Data("\(name) \(part)".utf8)
            }
        }
        let hashes = files.map { "\"\($0.key)\": \"\(sha256($0.value))\"" }.joined(separator: ", ")
        manifest = manifest.replacingOccurrences(of: "\"\(program)\": \"\(digits)\"", with: hashes)
        manifest = manifest.replacingOccurrences(of: "\"program\": \"\(program)\"", with: "\"program\": \"packages\"")
        manifest = manifest.replacingOccurrences(of: "\"backend\": \"xnnpack\"", with: "\"backend\": \"coreml\"")
        for name in ["golden.safetensors", "MODEL_CARD.md"] { files[name] = shipped.contents[name] }
        for (name, digits) in shipped.manifest.sha256 where files[name] == nil && name != program {
            files[name] = shipped.contents[name] ?? Data(digits.utf8)
        }
        return try ModelBundle.open("packages") { $0 == "manifest.json" ? Data(manifest.utf8) : files[$0] }
    }

    func test_a_program_of_packages_is_written_as_the_folder_that_it_is() throws {
        let bundle = try packages()
        try bundle.writeProgram(to: folder)
        let found = try FileManager.default.subpathsOfDirectory(atPath: folder.path).filter { name in
            var isFolder: ObjCBool = false
            return FileManager.default.fileExists(atPath: folder.appendingPathComponent(name).path, isDirectory: &isFolder)
                && !isFolder.boolValue
        }
        XCTAssertEqual(found.sorted(), bundle.contents.keys.filter { $0.hasPrefix("packages/") }.sorted())
        for name in found { XCTAssertEqual(try Data(contentsOf: folder.appendingPathComponent(name)), bundle.contents[name]) }
    }

    func test_a_program_of_one_file_is_written_alone_and_replaces_what_was_there() throws {
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        try Data("old".utf8).write(to: folder.appendingPathComponent("old.pte"))
        try shipped.writeProgram(to: folder)
        XCTAssertEqual(try FileManager.default.contentsOfDirectory(atPath: folder.path), [shipped.manifest.program])
        let written = try Data(contentsOf: folder.appendingPathComponent(shipped.manifest.program))
        XCTAssertEqual(sha256(written), shipped.manifest.sha256[shipped.manifest.program])
    }

    func test_a_program_that_cant_be_written_leaves_nothing_and_says_what_to_do() throws {
        try Data("a file".utf8).write(to: folder)
        let inside = folder.appendingPathComponent("programs")
        assertSays("could not be written", refusal { try shipped.writeProgram(to: inside) })
        XCTAssertEqual(try Data(contentsOf: folder), Data("a file".utf8))
        try FileManager.default.removeItem(at: folder)
    }

    func test_AN2_outputs_with_rows_at_distances_of_their_own_are_read_as_they_lie() {
        // 2 x 2 x 3, rows of 3 in 4, planes of 8 in 10.
        let lies: [Float] = [0, 1, 2, -1, 3, 4, 5, -1, -1, -1, 6, 7, 8, -1, 9, 10, 11]
        var out = [Float](repeating: -2, count: 12)
        lies.withUnsafeBufferPointer { copyRows($0, shape: [2, 2, 3], strides: [10, 4, 1], into: &out) }
        XCTAssertEqual(out, (0..<12).map(Float.init))
        // Columns first.
        let columns: [Float] = [0, 3, 1, 4, 2, 5]
        out = [Float](repeating: -2, count: 6)
        columns.withUnsafeBufferPointer { copyRows($0, shape: [2, 3], strides: [1, 2], into: &out) }
        XCTAssertEqual(out, [0, 1, 2, 3, 4, 5])
    }

    func test_AN2_fewer_numbers_than_a_shape_asks_for_are_never_read_beyond() {
        let lies: [Float] = [0, 1, 2, 3, 4]
        var out = [Float](repeating: -2, count: 6)
        lies.withUnsafeBufferPointer { copyRows($0, shape: [2, 3], strides: [3, 1], into: &out) }
        XCTAssertEqual(out, [0, 1, 2, -2, -2, -2])
    }

    func test_IO1_the_fastest_compute_unit_is_taken_and_of_those_as_fast_the_first() throws {
        func choose(_ times: [(String, Double)]) throws -> UnitChoice {
            try UnitChoice.choose(times.map(\.0)) { unit in try XCTUnwrap(times.first { $0.0 == unit }).1 }
        }
        XCTAssertEqual(try choose([("all", 4), ("neural_engine", 2), ("gpu", 6), ("cpu", 1.9)]).unit, "neural_engine")
        let first = try choose([("all", 2), ("cpu", 1.95)])
        XCTAssertEqual(first, UnitChoice(unit: "all", ms: 2, notes: ["cpu: 2.0 ms a frame"]))
    }

    func test_IO1_a_compute_unit_that_gives_something_else_is_not_taken_and_told_of() throws {
        func measure(_ unit: String) throws -> Double {
            if unit != "cpu" { throw MobileBilayerError("flow is 0.3 from the golden vectors; at most 0.01 is right.") }
            return 9
        }
        let choice = try UnitChoice.choose(["all", "neural_engine", "cpu"], measure: measure)
        XCTAssertEqual(choice.unit, "cpu")
        XCTAssertEqual(choice.notes.count, 2)
        assertSays("neural_engine: flow is 0.3", choice.notes[1])
        assertSays("all: flow is 0.3", refusal { _ = try UnitChoice.choose(["all", "gpu"], measure: measure) })
    }
}
