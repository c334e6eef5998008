import MobileBilayerCore
import SwiftUI
import UIKit
import XCTest

@testable import Demo

/// The benchmark as the driver script starts it: `-only-testing:DemoTests/BenchmarkTests/testLiveModeIsMeasured`, with seconds in
/// BENCHMARK_SECONDS. It attaches the result.
final class BenchmarkTests: XCTestCase {
    @MainActor
    func testLiveModeIsMeasured() async throws {
        let seconds = ProcessInfo.processInfo.environment["BENCHMARK_SECONDS"].flatMap { Int($0) } ?? 60
        let stage = Stage()
        if let failure = stage.failure { throw failure }
        let window = try shown(StageView(stage: stage))
        defer { window.isHidden = true }
        UIApplication.shared.isIdleTimerDisabled = true
        let measured = try await BenchmarkRun(seconds: seconds) { stage.show($0) }.measure { _, _, _ in }
        XCTAssertGreaterThan(measured.result.iterations, seconds, "only \(measured.result.iterations) frames")
        let attachment = XCTAttachment(data: try Data(contentsOf: measured.file), uniformTypeIdentifier: "public.json")
        attachment.name = measured.file.lastPathComponent
        attachment.lifetime = .keepAlways
        add(attachment)
    }
}

/// A window with this view before all others: what is not on the screen is not drawn.
@MainActor
func shown(_ view: some View) throws -> UIWindow {
    let scenes = UIApplication.shared.connectedScenes.compactMap { $0 as? UIWindowScene }
    let window = UIWindow(windowScene: try XCTUnwrap(scenes.first, "the app has no scene"))
    window.rootViewController = UIHostingController(rootView: view)
    window.makeKeyAndVisible()
    return window
}
