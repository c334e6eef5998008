import XCTest

@testable import MobileBilayerCore

final class CompositorTest: XCTestCase {
    private func noise(_ sidePx: Int, _ seed: UInt64 = 0) -> [Float] {
        var random = Noise(seed)
        return random.floats(3 * sidePx * sidePx)
    }

    /// Planes of one value each.
    private func planes(_ sidePx: Int, _ values: Float...) -> [Float] {
        values.flatMap { [Float](repeating: $0, count: sidePx * sidePx) }
    }

    private func run(_ side: Int, _ a: Int, _ b: Int, _ texture: [Float], _ background: [Float], _ layers: [Float], _ lf: [Float])
        -> [Float]
    {
        Compositor(sidePx: side, aPx: a, bPx: b).composite(texture: texture, background: background, layersA: layers, layersB: lf)
    }

    func test_the_golden_layers_give_the_golden_picture() throws {
        let golden = try shipped.golden()
        let got = try golden.composed(golden.numbers("layers_a"), golden.numbers("layers_b"))
        let tolerance = try XCTUnwrap(golden.tolerances["composed_from_golden"])
        assertNear(try golden.numbers("composed").doubles, got.doubles, tolerance, "pixel")
    }

    func test_zero_flow_leaves_a_checkerboard_exactly_unchanged() {
        let board: [Float] = (0..<(3 * 64 * 64)).map { ($0 / 3 % 64 + $0 / 3 / 64) % 2 == 0 ? -1 : 1 }
        let black = [Float](repeating: 0, count: board.count)
        XCTAssertEqual(run(64, 16, 32, board, black, planes(16, 0, 0, 1, 1), planes(32, 0, 0, 0)), board)
    }

    func test_a_flow_of_whole_pixels_shifts_the_texture_and_repeats_its_border() {
        let side = 64
        let texture = noise(side)
        for (right, down) in [(1, 0), (0, 1), (-3, 5), (17, -40)] {
            // A pixel is 2 / side of [-1, 1]. The flow says where to read.
            let layers = planes(32, Float(right) * 2 / Float(side), Float(down) * 2 / Float(side), 1, 1)
            let got = run(side, 32, 32, texture, [Float](repeating: 0, count: texture.count), layers, planes(32, 0, 0, 0))
            let wanted: [Double] = got.indices.map { i in
                let x = min(max(i / 3 % side + right, 0), side - 1)
                let y = min(max(i / 3 / side + down, 0), side - 1)
                return Double(texture[3 * (y * side + x) + i % 3])
            }
            assertNear(wanted, got.doubles, 1e-4, "\(right) \(down): pixel")
        }
    }

    func test_half_a_pixel_of_flow_is_the_mean_of_two_neighbours() {
        let side = 64
        let texture = noise(side)
        let black = [Float](repeating: 0, count: texture.count)
        let got = run(side, 64, 32, texture, black, planes(64, 1 / Float(side), 0, 1, 1), planes(32, 0, 0, 0))
        for i in got.indices where i / 3 % side < side - 1 {
            if abs(got[i] - (texture[i] + texture[i + 3]) / 2) >= 1e-4 { return XCTFail("pixel \(i)") }
        }
    }

    func test_mask_zero_shows_the_background_and_gate_zero_the_low_frequencies() {
        let (texture, background) = (noise(64), noise(64, 1))
        let lf = planes(32, 0.25, -0.5, 0.75)
        XCTAssertEqual(run(64, 16, 32, texture, background, planes(16, 0, 0, 1, 0), lf), background)
        let got = run(64, 16, 32, texture, background, planes(16, 0, 0, 0, 1), lf)
        let wanted: [Double] = got.indices.map { [0.25, -0.5, 0.75][$0 % 3] }
        assertNear(wanted, got.doubles, 1e-6)
    }

    func test_a_flow_that_is_no_number_or_far_outside_reads_the_texture_somewhere() {
        for flow: Float in [.nan, .infinity, -1e30] {
            _ = run(64, 16, 32, noise(64), noise(64, 1), planes(16, flow, flow, 1, 1), planes(32, 0, 0, 0))
        }
    }

    func test_RU4_values_are_clamped_before_they_are_cast_and_what_is_no_number_is_black() {
        let frame: [Float] = [1.7, 1e9, .infinity, -3, -1e9, -.infinity, .nan, 1, -1]
        XCTAssertEqual(toRgb(frame), [255, 255, 255, 0, 0, 0, 0, 255, 0])
        XCTAssertEqual(toRgb([0]), [128])  // 127.5
    }

    func test_every_level_comes_back_from_floats_as_it_went() {
        let levels = [UInt8](0...255)
        XCTAssertEqual([toFloat(levels)[0], toFloat(levels)[255]], [-1, 1])
        XCTAssertEqual(toRgb(toFloat(levels)), levels)
    }
}
