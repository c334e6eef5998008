import MobileBilayerCore
import XCTest

@testable import Demo

/// On a phone or a simulator: does what is in the app work together?
final class SmokeTests: XCTestCase {
    func test_IO1_the_chosen_bundle_computes_the_golden_vectors() throws {
        let choice = try Models.choice()
        let network = try Models.network()
        defer { network.close() }
        XCTAssertGreaterThanOrEqual(try choice.bundle.verify(network).count, 8)
    }

    func test_IO1_each_compute_unit_computes_the_golden_vectors() throws {
        let bundle = try Models.choice().bundle
        try XCTSkipUnless(bundle.manifest.backend == "coreml", "the chosen bundle is none of Core ML")
        for (unit, _) in computeUnits {
            let network = try Models.network(of: bundle, unit: unit)
            defer { network.close() }
            XCTAssertNoThrow(try bundle.verify(network), unit)
        }
    }

    func test_IO2_the_backends_are_in_the_app() throws {
        let names = try FileManager.default.contentsOfDirectory(atPath: try assetPlace("bundles").path)
        XCTAssertFalse(names.isEmpty)
        let notes = try Models.choice().notes
        XCTAssertFalse(notes.contains { $0.contains("this app has no") }, "\(notes)")
    }

    func test_an_avatar_of_a_photo_is_made_and_read_again() throws {
        let photo = try readPhoto(try asset("portraits/\(Avatars.first).jpg"))
        let landmarks = try XCTUnwrap(try FaceTracker.find(photo))
        let bundle = try Models.choice().bundle
        let network = try Models.network()
        defer { network.close() }
        let avatar = try bundle.avatar(photo, landmarks: landmarks, network: network)
        let back = try Avatar.load(try avatar.save(), where: "it", bundle: bundle)
        XCTAssertEqual(avatar.texture, back.texture)
        // Near to what a desktop made of the same photo, which came along.
        let theirs = try Avatars.load(Avatars.first).texture.pixels
        let apart = zip(theirs, avatar.texture.pixels).reduce(0) { $0 + abs(Int($1.0) - Int($1.1)) }
        XCTAssertLessThan(Double(apart) / Double(theirs.count), 8)
    }

    func test_AN1_a_portrait_drives_itself_is_closed_while_it_runs_and_starts_a_second_time() throws {
        for _ in 0..<2 {
            let errors = FirstError()
            let session = try LiveSession(try Avatars.load(Avatars.first)) { errors.told($0) }
            let source = try PortraitSource(session) { errors.told($0) }
            var drawn = 0
            let until = Date(timeIntervalSinceNow: 5)
            while Date() < until {
                if session.pipeline.show() != nil { drawn += 1 }
                Thread.sleep(forTimeInterval: 0.005)
            }
            session.close()  // a frame is on its way through each thread
            source.close()
            if let error = errors.first { throw error }
            XCTAssertGreaterThan(drawn, 20)
        }
    }

    func test_IO3_after_a_pause_no_frame_from_before_it_is_shown() throws {
        let errors = FirstError()
        let session = try LiveSession(try Avatars.load(Avatars.first)) { errors.told($0) }
        let source = try PortraitSource(session) { errors.told($0) }
        defer {
            source.close()
            session.close()
        }
        Thread.sleep(forTimeInterval: 2)
        session.pipeline.pause()
        XCTAssertNil(session.pipeline.show())
        Thread.sleep(forTimeInterval: 0.5)
        XCTAssertNil(session.pipeline.show())
        let resumedNs = nowNs()
        session.pipeline.resume()
        let until = Date(timeIntervalSinceNow: 5)
        var layers: Layers?
        while layers == nil, Date() < until { layers = session.pipeline.show() }
        XCTAssertGreaterThanOrEqual(try XCTUnwrap(layers).capturedNs, resumedNs)
        if let error = errors.first { throw error }
    }
}
