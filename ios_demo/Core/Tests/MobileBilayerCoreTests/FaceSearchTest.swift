import XCTest

@testable import MobileBilayerCore

/// A landmarker as MediaPipe's: it sees what lies whole in a window, with room, and is a tenth of it at least.
private final class Landmarker {
    let faces: [[Float]]
    var looks: [FaceWindow] = []

    init(_ faces: [Float]...) { self.faces = faces }

    func look(_ window: FaceWindow) -> [[Float]] {
        looks.append(window)
        return faces.filter { points in
            let room = faceSize(points) / 4
            let x = stride(from: 0, to: points.count, by: 3).map { points[$0] }
            let y = stride(from: 1, to: points.count, by: 3).map { points[$0] }
            let across = (Float(window.left) + room)...(Float(window.left + window.width) - room)
            let down = (Float(window.top) + room)...(Float(window.top + window.height) - room)
            return faceSize(points) >= 0.1 * Float(max(window.width, window.height))
                && across.contains(x.min()!) && across.contains(x.max()!) && down.contains(y.min()!) && down.contains(y.max()!)
        }.map { FaceWindow(left: -window.left, top: -window.top, width: 1, height: 1).back($0) }
    }
}

/// Where a face is looked for in a photo: the plan is Python's, and so is what comes of it.
final class FaceSearchTest: XCTestCase {
    private func face(_ left: Float, _ top: Float, _ sidePx: Float) -> [Float] {
        let points = headCrop(driver.landmarks[52]).toKeypoints(driver.landmarks[52])
        let size = faceSize(points)
        return points.enumerated().map { i, value in
            switch i % 3 {
            case 0: (value / size + 0.5) * sidePx + left
            case 1: (value / size + 0.2) * sidePx + top
            default: value / size * sidePx
            }
        }
    }

    private func window(_ value: [Int]) -> FaceWindow {
        FaceWindow(left: value[0], top: value[1], width: value[2], height: value.last!)
    }

    func test_the_plan_is_the_one_of_Python() throws {
        for (given, wanted) in try goldenCases("search.json") {
            let asked = try ["width", "height", "levels"].map { Int(try numbers(given[$0])[0]) }
            let all = try numbers(wanted["windows"]).map { Int($0) }
            let plan = searchPlan(width: asked[0], height: asked[1], levels: asked[2])
            XCTAssertEqual(plan.flatMap { $0 }, stride(from: 0, to: all.count, by: 4).map { window(Array(all[$0..<($0 + 4)])) })
            XCTAssertEqual(plan.map { Double($0.count) }, try numbers(wanted["counts"]))
        }
    }

    func test_where_it_is_looked_again_how_large_a_face_is_and_how_it_is_turned_are_as_in_Python() throws {
        let frames = try goldenCases("head.json").map { try floats($0.given["landmarks"]) }
        var turns: Set<Int> = []
        for (given, wanted) in try goldenCases("found_face.json") {
            var points = frames[Int(try numbers(given["driver"])[0])]
            for _ in 0..<Int(try numbers(given["quarters"])[0]) {
                let before = points
                points = before.indices.map { $0 % 2 == 0 ? -before[$0 + 1] : before[$0 - 1] }
            }
            XCTAssertEqual(FaceWindow.around(points), window(try numbers(wanted["window"]).map { Int($0) }))
            assertNear(try numbers(wanted["face_size"]), [Double(faceSize(points))], 1e-3)
            XCTAssertEqual(Double(turnOf(points)), try numbers(wanted["turn"])[0])
            turns.insert(turnOf(points))
        }
        XCTAssertEqual(turns, [0, 90, 180, 270])
    }

    func test_PO5_a_face_that_fills_its_photo_is_found_with_a_border_and_a_tiny_one_in_tiles_where_they_are() {
        let filling = face(10, 15, 200)
        let tight = Landmarker(filling)
        assertNear(filling.doubles, findFace(width: 220, height: 240, look: tight.look)?.doubles ?? [], 1e-3)
        XCTAssertEqual(tight.looks.count, 2)
        let small = face(1500, 700, 40)
        let large = Landmarker(small)
        assertNear(small.doubles, findFace(width: 2048, height: 1152, look: large.look)?.doubles ?? [], 1e-3)
        XCTAssertEqual(large.looks.last, FaceWindow.around(small))
    }

    func test_PO5_what_only_a_tile_takes_for_a_face_is_none_and_the_largest_of_several_is_taken() {
        let small = face(1500, 700, 40)
        let landmarker = Landmarker(small)
        let pattern = face(100, 100, 80)
        let found = findFace(width: 2048, height: 1152) { window in
            let isTile = window.width == 288 && window.left <= 100 && window.top <= 100
            return landmarker.look(window) + (isTile ? [pattern] : [])
        }
        assertNear(small.doubles, found?.doubles ?? [], 1e-3)
        XCTAssertTrue(landmarker.looks.contains(FaceWindow.around(pattern)))  // it was looked at again

        let (near, far) = (face(300, 200, 250), face(50, 50, 120))
        assertNear(near.doubles, findFace(width: 640, height: 480, look: Landmarker(far, near).look)?.doubles ?? [], 1e-3)
    }

    func test_PO5_without_a_face_every_part_is_looked_at_once_and_there_is_none() {
        let nobody = Landmarker()
        XCTAssertNil(findFace(width: 1024, height: 768, look: nobody.look))
        XCTAssertEqual(nobody.looks, searchPlan(width: 1024, height: 768).flatMap { $0 })
        XCTAssertNil(findFace(width: 80, height: 60, look: Landmarker().look))
    }
}
