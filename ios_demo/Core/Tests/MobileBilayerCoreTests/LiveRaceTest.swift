import XCTest

@testable import MobileBilayerCore

private let s: Int64 = 1_000_000_000

/// A network that a frame stays in until it is let go; what the app does meanwhile is done in between.
private final class HeldProgram: Program, @unchecked Sendable {  // one thread at a time, by the semaphores
    private let inside = DispatchSemaphore(value: 0)
    private let free = DispatchSemaphore(value: 0)
    private var result: Result<Bool, any Error> = .success(false)
    private(set) var points: [Float] = []
    let closed = Counter()
    var failure: (any Error)?
    private(set) var pipeline: LivePipeline!

    init() throws { pipeline = LivePipeline(try goldenAvatar(), shipped.network(self)) }

    func execute(_ method: String, inputs: [Tensor], outputs: [Tensor]) throws {
        points = inputs[3].floats.map { $0 }
        inside.signal()
        XCTAssertEqual(free.wait(timeout: .now() + 10), .success)
        if let failure { throw failure }
    }

    func close() { closed.add() }

    /// What step() says of the frame that waits, which is in the network while `meanwhile` is done.
    func step(meanwhile: () -> Void = {}) throws -> Bool {
        let network = Worker { self.result = Result { try self.pipeline.step() } }
        XCTAssertEqual(inside.wait(timeout: .now() + 10), .success, "no frame came into the network: \(result)")
        meanwhile()
        free.signal()
        XCTAssertTrue(network.join(seconds: 10))
        return try result.get()
    }

    func see(_ frame: Int, _ capturedNs: Int64) throws { try pipeline.see(driver.landmarks[frame], capturedNs: capturedNs) }

    /// `step`, and live mode is closed meanwhile.
    func stepAndClose() throws -> Bool {
        let calls = Counter()
        var closing: Worker?
        let drawn = try step {
            closing = Worker {
                calls.add()
                self.pipeline.close()
                calls.add()
            }
            waitUntil("close begins") { calls.value == 1 }
            usleep(50_000)
            XCTAssertEqual([calls.value, closed.value], [1, 0], "close does not wait")
            pipeline.resume(nowNs: 0)  // by whoever did not hear of it
        }
        XCTAssertEqual(closing?.join(seconds: 10), true)
        XCTAssertEqual(closed.value, 1)
        return drawn
    }
}

/// What comes while a frame is on its way: no result of before is shown.
final class LiveRaceTest: XCTestCase {
    private let source = networkPoints(atRest)

    private func fromPhoto(_ points: [Float]) -> Double {
        zip(points, source).reduce(0.0) { $0 + Double(abs($1.0 - $1.1)) } / Double(points.count)
    }

    func test_IO3_a_frame_in_the_network_when_the_app_leaves_and_comes_back_is_not_drawn() throws {
        let held = try HeldProgram()
        try held.see(0, s)
        let drawn = try held.step {
            held.pipeline.pause()
            held.pipeline.resume(nowNs: 2 * s)
        }
        XCTAssertFalse(drawn)
        XCTAssertEqual(held.pipeline.drawnNs, Int64.min)
        XCTAssertNil(held.pipeline.show())
        try held.see(1, 3 * s)
        XCTAssertTrue(try held.step())
        XCTAssertEqual(held.pipeline.show()?.capturedNs, 3 * s)
    }

    func test_IO3_after_a_pause_the_face_is_where_it_is_now_not_held_back_by_where_it_was() throws {
        func turned(_ meanwhile: (LivePipeline) -> Void) throws -> Double {
            let held = try HeldProgram()
            try held.see(52, s)
            XCTAssertTrue(try held.step())
            meanwhile(held.pipeline)
            try held.see(78, s + s / 50)
            XCTAssertTrue(try held.step())
            return fromPhoto(held.points)
        }
        let after = try turned {
            $0.pause()
            $0.resume(nowNs: s + s / 100)
        }
        let without = try turned { _ in }
        XCTAssertTrue(without > 2e-3 && after > 1.05 * without, "\(after) and \(without)")
    }

    func test_AN5_a_frame_in_the_network_when_the_picture_turns_is_not_drawn_and_is_not_what_is_neutral() throws {
        let held = try HeldProgram()
        try held.see(78, s)
        XCTAssertFalse(try held.step { held.pipeline.restart(nowNs: 2 * s) })
        XCTAssertNil(held.pipeline.show())
        try held.see(52, 3 * s)
        XCTAssertTrue(try held.step())
        XCTAssertLessThan(fromPhoto(held.points), 2e-3)  // the first frame of the new picture is as in the photo
        XCTAssertNotNil(held.pipeline.show())
    }

    func test_IO3_layers_that_wait_for_the_screen_while_the_app_comes_back_are_not_shown() throws {
        let held = try HeldProgram()
        try held.see(0, s)
        XCTAssertTrue(try held.step())
        held.pipeline.resume(nowNs: 2 * s)
        XCTAssertNil(held.pipeline.show())
        try held.see(1, 3 * s)
        XCTAssertTrue(try held.step())
        held.pipeline.pause()
        XCTAssertNil(held.pipeline.show())
    }

    func test_AN5_layers_that_wait_for_the_screen_while_the_picture_turns_are_not_shown() throws {
        let held = try HeldProgram()
        try held.see(0, s)
        XCTAssertTrue(try held.step())
        held.pipeline.restart(nowNs: 2 * s)
        XCTAssertNil(held.pipeline.show())
    }

    func test_AN5_landmarks_of_before_that_come_late_do_not_stand_for_the_new_picture() throws {
        let held = try HeldProgram()
        try held.see(52, s)
        XCTAssertTrue(try held.step())  // what is neutral
        try held.see(78, 2 * s)
        held.pipeline.restart(nowNs: 3 * s)
        try held.see(159, 4 * s)
        held.pipeline.resume(nowNs: 5 * s)  // the frame of 4 s waits, and is from before as well
        XCTAssertFalse(try held.pipeline.step())
        try held.see(78, 6 * s)
        XCTAssertTrue(try held.step())
        XCTAssertLessThan(fromPhoto(held.points), 2e-3)
    }

    func test_AN1_a_frame_in_the_network_when_live_mode_is_closed_is_not_drawn_and_close_waits_for_it() throws {
        let held = try HeldProgram()
        try held.see(0, s)
        XCTAssertFalse(try held.stepAndClose())
        XCTAssertNil(held.pipeline.show())
        let begun = nowNs()
        XCTAssertFalse(try held.pipeline.step(waitNs: 20 * s))
        XCTAssertLessThan(nowNs() - begun, 10 * s)
        try held.see(1, 2 * s)
        XCTAssertFalse(try held.pipeline.step())
    }

    func test_AN1_layers_that_wait_for_the_screen_when_live_mode_is_closed_are_not_shown() throws {
        let held = try HeldProgram()
        try held.see(0, s)
        XCTAssertTrue(try held.step())
        held.pipeline.close()
        XCTAssertNil(held.pipeline.show())
    }

    func test_AN1_what_the_runtime_says_of_a_frame_is_told_but_not_when_live_mode_was_closed_meanwhile() throws {
        let held = try HeldProgram()
        held.failure = MobileBilayerError("out of memory. Close other apps.")
        try held.see(0, s)
        assertSays("out of memory", refusal { _ = try held.step() })
        XCTAssertNil(held.pipeline.show())
        try held.see(1, 2 * s)
        XCTAssertFalse(try held.stepAndClose())
    }
}
