import SwiftUI

@main
struct DemoApp: App {
    /// Tests have the phone for themselves: no screen of ours runs beside them.
    private let isTested = ProcessInfo.processInfo.environment["XCTestConfigurationFilePath"] != nil

    var body: some Scene {
        WindowGroup {
            if isTested {
                Color.black
            } else {
                NavigationStack { LiveScreen() }
            }
        }
    }
}
