import CoreVideo
import Foundation
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

    func test_AN3_a_cameras_frame_is_read_where_its_rows_lie_and_turned_upright() throws {
        let (width, height) = (642, 480)  // rows of 642 bytes lie further apart
        var made: CVPixelBuffer?
        let surface = [kCVPixelBufferIOSurfacePropertiesKey: [:] as CFDictionary] as CFDictionary
        let code = CVPixelBufferCreate(nil, width, height, kCVPixelFormatType_420YpCbCr8BiPlanarFullRange, surface, &made)
        XCTAssertEqual(code, kCVReturnSuccess)
        let frame = try XCTUnwrap(made)
        CVPixelBufferLockBaseAddress(frame, [])
        defer { CVPixelBufferUnlockBaseAddress(frame, []) }
        for plane in 0..<2 {  // grey, dark on the left and bright on the right
            let base = try XCTUnwrap(CVPixelBufferGetBaseAddressOfPlane(frame, plane))
            let stride = CVPixelBufferGetBytesPerRowOfPlane(frame, plane)
            for y in 0..<CVPixelBufferGetHeightOfPlane(frame, plane) {
                let row = base.advanced(by: y * stride).assumingMemoryBound(to: UInt8.self)
                for x in 0..<width { row[x] = plane == 1 ? 128 : x < width / 2 ? 60 : 200 }
            }
        }
        let upright = try YuvConverter().toRgba(CameraSource.yuv(frame), rotation: 90)
        XCTAssertEqual([upright.width, upright.height], [height, width])
        for (y, grey) in [(0, 60), (width / 2 - 1, 60), (width / 2, 200), (width - 1, 200)] {
            for x in [0, height - 1] {
                let at = 4 * (y * height + x)
                for c in 0..<3 { XCTAssertEqual(Int(upright.pixels[at + c]), grey, accuracy: 1) }
            }
        }
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
