// Stands for Foundation, iOS 17: what Linux' lacks of it. Compiled along with the app.
import Foundation

extension ProcessInfo {
    enum ThermalState: Int, Sendable {
        case nominal
        case fair
        case serious
        case critical
    }

    var thermalState: ThermalState { .nominal }
}

extension URL {
    func startAccessingSecurityScopedResource() -> Bool { false }
    func stopAccessingSecurityScopedResource() {}
}

class NSFileCoordinator: NSObject {
    struct ReadingOptions: OptionSet, Sendable {
        static let withoutChanges = ReadingOptions(rawValue: 1)
        let rawValue: UInt
    }

    func coordinate(
        readingItemAt url: URL, options: ReadingOptions = [], error outError: UnsafeMutablePointer<NSError?>?,
        byAccessor reader: (URL) -> Void
    ) { reader(url) }
}

/// Of ObjectiveC.
func autoreleasepool<Result>(invoking body: () throws -> Result) rethrows -> Result { try body() }
