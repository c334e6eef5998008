import Foundation
import XCTest

@testable import MobileBilayerCore

final class Mp4TagTest: XCTestCase {
    private func box(_ type: String, _ parts: [UInt8]...) -> [UInt8] {
        let content = parts.flatMap { $0 }
        return (0..<4).map { UInt8(truncatingIfNeeded: (8 + content.count) >> (24 - 8 * $0)) } + Array(type.utf8) + content
    }

    private func zeros(_ count: Int) -> [UInt8] { [UInt8](repeating: 0, count: count) }

    private var ftyp: [UInt8] { box("ftyp", Array("isom".utf8), zeros(4)) }
    private var frames: [UInt8] { box("mdat", (0..<1000).map { UInt8(truncatingIfNeeded: $0) }) }
    private var header: [UInt8] { box("mvhd", zeros(100)) }

    private func inFile<R>(_ content: [UInt8], _ use: (URL) throws -> R) throws -> R {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID().uuidString).mp4")
        try Data(content).write(to: file)
        defer { try? FileManager.default.removeItem(at: file) }
        return try use(file)
    }

    private func tagged(_ boxes: [UInt8]...) throws -> [UInt8] {
        try inFile(boxes.flatMap { $0 }) { file in
            try tagMp4(file)
            return [UInt8](try Data(contentsOf: file))
        }
    }

    private func has(_ bytes: [UInt8], _ words: String) -> Bool { Data(bytes).range(of: Data(words.utf8)) != nil }

    func test_a_tag_is_written_into_the_index_behind_the_frames_and_no_other_byte_changes() throws {
        let before = ftyp + frames
        let got = try tagged(ftyp, frames, box("moov", header, box("udta", box("xyz ", zeros(6)))))
        XCTAssertEqual(Array(got.prefix(before.count)), before)
        XCTAssertTrue(has(got, aiGenerated) && has(got, "mvhd") && has(got, "xyz "))
        XCTAssertFalse(has(got, "free"))
        // The index fills the rest of the file.
        XCTAssertEqual(got[before.count..<before.count + 4].reduce(0) { $0 << 8 | Int($1) }, got.count - before.count)
    }

    func test_an_index_before_the_frames_becomes_free_space_so_that_no_frame_moves() throws {
        let moov = box("moov", header)
        let got = try tagged(ftyp, moov, frames)
        let begin = ftyp.count + moov.count
        XCTAssertEqual(Array(got[begin..<begin + frames.count]), frames)
        XCTAssertEqual(Array(got[ftyp.count + 4..<ftyp.count + 8]), Array("free".utf8))
        XCTAssertEqual(Array(got[begin + frames.count + 4..<begin + frames.count + 8]), Array("moov".utf8))
    }

    func test_a_file_that_was_tagged_before_has_one_tag() throws {
        try inFile(ftyp + frames + box("moov", header)) { file in
            try tagMp4(file, words: "first words")
            let once = try Data(contentsOf: file)
            try tagMp4(file, words: "other words")
            let twice = try Data(contentsOf: file)
            XCTAssertEqual(once.count, twice.count)
            XCTAssertTrue(has([UInt8](once), "first words"))
            XCTAssertFalse(has([UInt8](twice), "first words"))
        }
    }

    func test_a_large_frame_box_and_one_up_to_the_files_end_are_read() throws {
        let large = [0, 0, 0, 1] + Array("mdat".utf8) + [0, 0, 0, 0, 0, 0, 0, 24] + zeros(8)
        XCTAssertTrue(has(try tagged(ftyp, large, box("moov", header)), aiGenerated))
        let open = zeros(4) + Array("mdat".utf8) + zeros(50)
        XCTAssertTrue(has(try tagged(ftyp, box("moov", header), open), aiGenerated))
    }

    func test_videos_of_python_are_tagged_for_it_to_read() throws {
        let folder = try exchange()
        for name in ["index_last.mp4", "index_first.mp4"] {
            let copy = folder.appendingPathComponent("tagged_\(name)")
            try? FileManager.default.removeItem(at: copy)
            try FileManager.default.copyItem(at: folder.appendingPathComponent(name), to: copy)
            try tagMp4(copy)
        }
    }

    func test_what_is_no_whole_video_is_refused_and_left_as_it_was() throws {
        let bad: [([UInt8], String)] = [
            ([], "0 indices"),
            (ftyp + frames, "0 indices"),
            (box("moov", header) + frames, "begins with 'moov'"),
            (ftyp + box("moov", header) + box("moov", header), "2 indices"),
            (ftyp + frames.prefix(500), "'mdat' at 16 has 1008 of 500 bytes"),
            (ftyp + box("moov", header, [0, 0, 1, 0]), "4 bytes are left over"),
            (Array("not a video at all".utf8), "bytes"),
        ]
        for (content, why) in bad {
            try inFile(content) { file in
                let told = refusal { try tagMp4(file) }
                XCTAssertTrue(told.contains(why), told)
                XCTAssertEqual([UInt8](try Data(contentsOf: file)), content)
            }
        }
        XCTAssertTrue(refusal { try tagMp4(URL(fileURLWithPath: "/nowhere/there.mp4")) }.contains("could not be tagged"))
    }
}
