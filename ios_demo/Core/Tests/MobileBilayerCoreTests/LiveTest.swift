import XCTest

@testable import MobileBilayerCore

private let ms: Int64 = 1_000_000
private let s: Int64 = 1_000_000_000

/// A phone in front of the recorded driver, with a clock of its own: camera, landmarks and display run while the network computes,
/// as they do in their threads.
private final class Phone: Program {
    struct Shown {
        let atNs: Int64
        let capturedNs: Int64
        let lost: Bool
        let points: [Float]
    }

    let fps: Int64
    let periodNs: Int64
    private let landmarksNs: Int64
    private let networkNs: Int64
    private let slowNs: Int64
    private var events: [(atNs: Int64, order: Int, act: () -> Void)] = []
    private var order = 0
    private var waiting: Int64?  // a camera frame, by its time: the latest wins here as well
    private var landmarksBusy = false
    private var latestPoints: [Float] = []
    private var pointsOf: [Int64: [Float]] = [:]
    private var seenNs: Int64 = 0
    private var calls = 0

    private(set) var pipeline: LivePipeline!
    var nowNs: Int64 = 0
    var captured = 0
    var seen = 0
    var latenciesNs: [(slow: Bool, ns: Int64)] = []  // whether the network was slow, and from capture to layers
    var shown: [Shown] = []

    /// What lies before the camera at a time: 478 x 3 in pixels, or nil.
    var scene: (Int64) -> [Float]? = { atNs in driver.landmarks[Int(atNs / (40 * ms)) % driver.landmarks.count] }

    init(_ fps: Int64, landmarksMs: Int64, networkMs: Int64, slowMs: Int64) throws {
        self.fps = fps
        periodNs = s / fps
        landmarksNs = landmarksMs * ms
        networkNs = networkMs * ms
        slowNs = slowMs * ms
        pipeline = LivePipeline(try goldenAvatar(), shipped.network(self))
    }

    func execute(_ method: String, inputs: [Tensor], outputs: [Tensor]) {
        calls += 1
        latestPoints = inputs[3].floats.map { $0 }
        advance(nowNs + (calls % 40 == 0 ? slowNs : networkNs))
    }

    func close() {}

    func at(_ atNs: Int64, _ act: @escaping () -> Void) {
        let place = events.firstIndex { $0.atNs > atNs } ?? events.count
        events.insert((atNs, order, act), at: place)
        order += 1
    }

    func run(_ untilNs: Int64) throws {
        at(0) { self.camera() }
        at(1) { self.display() }
        while nowNs < untilNs {
            advance(events[0].atNs)
            while nowNs < untilNs, try step() { continue }
        }
    }

    private func step() throws -> Bool {
        let slow = (calls + 1) % 40 == 0
        let latestNs = seenNs
        if !(try pipeline.step()) { return false }
        XCTAssertEqual(latestNs, pipeline.drawnNs, "an older frame was drawn than the latest")
        latenciesNs.append((slow, nowNs - pipeline.drawnNs))
        pointsOf[pipeline.drawnNs] = latestPoints
        return true
    }

    private func advance(_ untilNs: Int64) {
        while let event = events.first, event.atNs <= untilNs {
            events.removeFirst()
            nowNs = event.atNs
            event.act()
        }
        nowNs = untilNs
    }

    private func camera() {
        captured += 1
        waiting = nowNs
        landmarks()
        at(nowNs + periodNs) { self.camera() }
    }

    private func landmarks() {
        guard !landmarksBusy, let capturedNs = waiting else { return }
        waiting = nil
        landmarksBusy = true
        at(nowNs + landmarksNs) {
            self.landmarksBusy = false
            self.seen += 1
            do {
                try self.pipeline.see(self.scene(capturedNs), capturedNs: capturedNs)
            } catch {
                XCTFail("\(error)")
            }
            self.seenNs = capturedNs
            self.landmarks()
        }
    }

    private func display() {
        if let layers = pipeline.show() {
            shown.append(Shown(atNs: nowNs, capturedNs: layers.capturedNs, lost: layers.lost, points: pointsOf[layers.capturedNs] ?? []))
        }
        at(nowNs + s / 60) { self.display() }
    }

    func checkOrder(file: StaticString = #filePath, line: UInt = #line) {
        let ordered = zip(shown, shown.dropFirst()).allSatisfy { $1.capturedNs > $0.capturedNs }
        XCTAssertTrue(ordered, "a frame came twice, or late", file: file, line: line)
        // Whatever was seen is accounted for: shown, overtaken, refused, or still in one of two slots and two hands.
        let left = seen - (shown.count + pipeline.dropped + pipeline.refused)
        XCTAssertTrue((0...4).contains(left), "\(left) frames of \(seen) are nowhere", file: file, line: line)
        events = []
    }
}

final class LiveTest: XCTestCase {
    private let source = networkPoints(atRest)

    /// How far points lie from those of the photo with shut lips, on average; mouth and eyes move most, the torso never.
    private func fromPhoto(_ points: [Float]) -> Double {
        zip(points, source).reduce(0.0) { $0 + Double(abs($1.0 - $1.1)) } / Double(points.count)
    }

    private func rates() throws -> [Phone] {
        [
            try Phone(30, landmarksMs: 12, networkMs: 14, slowMs: 90), try Phone(60, landmarksMs: 6, networkMs: 6, slowMs: 45),
        ]
    }

    func test_a_live_run_at_30_and_60_frames_a_second_is_late_by_less_than_two_frames_but_for_slow_ones() throws {
        for phone in try rates() {
            try phone.run(8 * s)
            phone.checkOrder()
            let slow = phone.latenciesNs.filter(\.slow).map(\.ns)
            let usual = phone.latenciesNs.filter { !$0.slow }.map(\.ns)
            XCTAssertTrue(slow.count > 4 && usual.count > 200)
            XCTAssertLessThan(try XCTUnwrap(usual.max()), 2 * phone.periodNs, "\(phone.fps)")
            XCTAssertTrue(slow.allSatisfy { $0 > 2 * phone.periodNs })  // so that the test would see it
            XCTAssertGreaterThan(phone.pipeline.dropped, 0)
            // Behind a slow frame comes the newest one: what was overtaken is never shown.
            XCTAssertGreaterThan(Double(phone.shown.count), 8 * Double(phone.fps) * 0.85)
        }
    }

    func test_a_network_that_is_always_too_slow_drops_frames_and_does_not_fall_behind() throws {
        let phone = try Phone(60, landmarksMs: 5, networkMs: 40, slowMs: 40)
        try phone.run(10 * s)
        phone.checkOrder()
        let latest = try XCTUnwrap(phone.latenciesNs.suffix(50).map(\.ns).max())
        XCTAssertLessThan(latest, 40 * ms + 2 * phone.periodNs)  // its own time, and a frame's wait
        XCTAssertGreaterThan(phone.shown.count, 200)
        XCTAssertGreaterThan(phone.pipeline.dropped, 300)
    }

    func test_a_lost_face_is_held_then_eased_to_neutral_and_comes_back_at_once() throws {
        for phone in try rates() {
            let whole = phone.scene
            phone.scene = { (2 * s...4 * s).contains($0) ? nil : whole($0) }
            try phone.run(5 * s)
            phone.checkOrder()
            let before = try XCTUnwrap(phone.shown.last { $0.capturedNs < 2 * s })
            let lost = phone.shown.filter(\.lost)
            XCTAssertTrue(lost.allSatisfy { (2 * s...4 * s).contains($0.capturedNs) })
            XCTAssertGreaterThan(Double(lost.count), 1.7 * Double(phone.fps))
            for frame in lost {
                let lostS = Double(frame.capturedNs - before.capturedNs) / 1e9
                let moved = zip(frame.points, before.points).map { abs($0 - $1) }.max() ?? 0
                if lostS <= holdS { XCTAssertLessThan(moved, 1e-5, "held at \(lostS) s") }
                if lostS >= holdS + easeS { XCTAssertLessThan(fromPhoto(frame.points), 2e-3, "neutral at \(lostS) s") }
            }
            XCTAssertGreaterThan(fromPhoto(before.points), 4e-3)  // so that the test would see it
            let back = try XCTUnwrap(phone.shown.first { $0.capturedNs > 4 * s })
            XCTAssertTrue(!back.lost && back.capturedNs < 4 * s + 3 * phone.periodNs)
        }
    }

    func test_without_a_face_yet_nothing_is_shown() throws {
        let phone = try Phone(30, landmarksMs: 12, networkMs: 14, slowMs: 14)
        phone.scene = { _ in nil }
        try phone.run(s)
        XCTAssertEqual(phone.shown.count, 0)
        XCTAssertGreaterThan(phone.captured, 0)
    }

    func test_IO3_after_a_pause_no_frame_from_before_it_is_shown_and_the_neutral_is_kept() throws {
        for phone in try rates() {
            phone.at(2 * s) { phone.pipeline.pause() }
            phone.at(3 * s) { phone.pipeline.resume(nowNs: 3 * s) }
            try phone.run(4 * s)
            phone.checkOrder()
            let within = phone.shown.filter { (2 * s...3 * s).contains($0.atNs) || (2 * s..<3 * s).contains($0.capturedNs) }
            XCTAssertEqual(within.count, 0)
            let after = try XCTUnwrap(phone.shown.first { $0.atNs > 3 * s })
            XCTAssertGreaterThanOrEqual(after.capturedNs, 3 * s)
            XCTAssertGreaterThan(phone.pipeline.refused, 0)
            XCTAssertGreaterThan(fromPhoto(after.points), 2e-3)  // not neutral anew
        }
    }

    func test_AN5_after_a_rotation_what_is_neutral_is_found_anew_and_no_frame_of_the_old_picture_is_shown() throws {
        for phone in try rates() {
            let whole = phone.scene
            // The upright picture is another one now: the face lies elsewhere and is smaller.
            phone.scene = { atNs in
                guard let points = whole(atNs), atNs >= 2 * s else { return whole(atNs) }
                return points.enumerated().map { $0 % 3 == 2 ? $1 : 0.7 * $1 + 150 }
            }
            phone.at(2 * s) { phone.pipeline.restart(nowNs: 2 * s) }
            try phone.run(3 * s)
            phone.checkOrder()
            let after = phone.shown.filter { $0.atNs > 2 * s }
            XCTAssertTrue(after.allSatisfy { $0.capturedNs >= 2 * s })
            XCTAssertLessThan(fromPhoto(try XCTUnwrap(after.first).points), 2e-3)  // as in the photo
            XCTAssertTrue(after.allSatisfy { fromPhoto($0.points) < 0.1 })  // no jump by what the picture was moved
        }
    }

    func test_a_rotation_in_a_pause_does_not_end_it_and_what_is_neutral_is_found_anew_behind_it() throws {
        let phone = try Phone(30, landmarksMs: 12, networkMs: 14, slowMs: 14)
        let whole = phone.scene
        phone.scene = { atNs in atNs < 3 * s ? whole(atNs) : whole(atNs)?.map { $0 + 150 } }
        phone.at(2 * s) { phone.pipeline.pause() }
        phone.at(5 * s / 2) { phone.pipeline.restart(nowNs: 5 * s / 2) }
        phone.at(3 * s) { phone.pipeline.resume(nowNs: 3 * s) }
        try phone.run(4 * s)
        phone.checkOrder()
        let after = phone.shown.filter { $0.atNs > 2 * s }
        XCTAssertTrue(after.allSatisfy { $0.capturedNs >= 3 * s })
        XCTAssertLessThan(fromPhoto(try XCTUnwrap(after.first).points), 2e-3)
    }

    func test_frames_out_of_order_and_from_before_a_pause_are_refused() {
        let clock = FrameClock()
        XCTAssertTrue(clock.admit(10 * s))
        XCTAssertFalse(clock.admit(10 * s))
        XCTAssertFalse(clock.admit(9 * s))
        XCTAssertTrue(clock.admit(11 * s))
        XCTAssertEqual(clock.seconds(11 * s), 1)
        clock.pause()
        XCTAssertFalse(clock.admit(12 * s) || clock.isCurrent(11 * s))
        clock.resume(20 * s)
        XCTAssertFalse(clock.admit(19 * s))
        XCTAssertTrue(clock.admit(20 * s))
        XCTAssertEqual(clock.refused, 4)
        clock.restart(30 * s)
        XCTAssertFalse(clock.isCurrent(20 * s) || clock.admit(29 * s))
        XCTAssertTrue(clock.admit(30 * s))
        clock.pause()
        clock.restart(40 * s)
        XCTAssertTrue(clock.paused)
    }

    private final class Numbers: @unchecked Sendable {
        var all = [Int](repeating: 0, count: 1000)
    }

    func test_the_latest_frame_wins_and_none_is_seen_twice_or_while_it_is_written() {
        let slot = LatestFrame(Numbers(), Numbers(), Numbers())
        XCTAssertNil(slot.take())
        let (torn, last) = (Counter(), Counter())
        let reader = Worker {
            while last.value < 20_000 {
                guard let frame = slot.wait(timeoutNs: s) else { continue }
                let first = frame.all[0]
                if frame.all.contains(where: { $0 != first }) || first <= last.value { torn.add() }
                last.set(first)
            }
        }
        for i in 1...20_000 {
            let into = slot.writing
            for k in into.all.indices { into.all[k] = i }
            slot.publish()
        }
        XCTAssertTrue(reader.join(seconds: 20))
        XCTAssertEqual(torn.value, 0)
        slot.publish()
        let taken = slot.take()
        slot.publish()
        XCTAssertFalse(taken === slot.writing)
    }

    func test_waiting_for_a_frame_ends_when_none_comes_and_as_soon_as_one_does() {
        let slot = LatestFrame(Numbers(), Numbers(), Numbers())
        XCTAssertNil(slot.wait(timeoutNs: 5 * ms))
        let mine = slot.writing
        slot.publish()
        XCTAssertTrue(mine === slot.wait(timeoutNs: 5 * ms))
        let begun = nowNs()
        let writer = Worker {
            usleep(20_000)
            slot.publish()
        }
        XCTAssertNotNil(slot.wait(timeoutNs: 20 * s))
        XCTAssertLessThan(nowNs() - begun, 10 * s)
        XCTAssertTrue(writer.join(seconds: 5))
    }

    private final class ShortProgram: Program {
        let inside = Counter()
        let wrong = Counter()
        let closed = Counter()

        func execute(_ method: String, inputs: [Tensor], outputs: [Tensor]) {
            if closed.value > 0 || inside.add() != 1 { wrong.add() }
            usleep(3000)
            inside.add(-1)
            if closed.value > 0 { wrong.add() }
        }

        func close() {
            if inside.value != 0 { wrong.add() }
            closed.add()
        }
    }

    func test_AN1_live_mode_stops_while_a_frame_is_in_the_network_and_starts_a_second_time() throws {
        for _ in 0...1 {
            let program = ShortProgram()
            let pipeline = LivePipeline(try goldenAvatar(), shipped.network(program))
            let (stop, drawn, failed) = (Counter(), Counter(), Counter())
            let loops: [@Sendable () throws -> Void] = [
                {
                    for points in driver.landmarks where stop.value == 0 {
                        try pipeline.see(points, capturedNs: nowNs())
                        usleep(1000)
                    }
                },
                { while stop.value == 0 { _ = try pipeline.step(waitNs: 10 * ms) } },
                {
                    while stop.value == 0 {
                        if pipeline.show() != nil { drawn.add() }
                        usleep(1000)
                    }
                },
            ]
            let workers = loops.map { loop in
                Worker {
                    do { try loop() } catch { failed.add() }
                }
            }
            usleep(150_000)
            pipeline.restart()
            waitUntil("frames are drawn") { drawn.value > 3 }
            waitUntil("a frame is in the network") { program.inside.value > 0 }
            pipeline.close()
            XCTAssertEqual(program.closed.value, 1)
            stop.set(1)
            for worker in workers { XCTAssertTrue(worker.join(seconds: 5)) }
            XCTAssertEqual([failed.value, program.wrong.value], [0, 0])
            XCTAssertFalse(try pipeline.step())
            XCTAssertNil(pipeline.show())
            pipeline.close()
        }
    }

    func test_landmarks_that_are_none_are_refused_before_they_are_kept() throws {
        let pipeline = LivePipeline(try goldenAvatar(), shipped.network(GoldenProgram()))
        let none = [Float](repeating: .nan, count: 3 * 478)
        assertSays("not a number", refusal { try pipeline.see(none, capturedNs: 1) })
        assertSays("468", refusal { try pipeline.see([Float](repeating: 0, count: 3 * 468), capturedNs: 1) })
        assertSays("3 are needed", refusal { try pipeline.see((0..<(2 * 478)).map { Float($0) }, capturedNs: 1) })
        XCTAssertFalse(try pipeline.step())
    }
}
