import Foundation

/// Bad input: says what we got, what we need and what to do next. The one error that people see.
public struct MobileBilayerError: LocalizedError, CustomStringConvertible {
    public let message: String
    public let cause: (any Error)?

    public init(_ message: String, cause: (any Error)? = nil) {
        self.message = message
        self.cause = cause
    }

    public var description: String { message }
    public var errorDescription: String? { message }
}
