// Stands for ExecuTorch 1.5.1, Swift package.
import Foundation

public enum DataType: Int8, Sendable {
    case byte
    case float = 6
}

public enum ShapeDynamism: UInt8, Sendable {
    case `static`
    case dynamicBound
}

public protocol Scalar {
    static var dataType: DataType { get }
}

extension Float: Scalar {
    public static var dataType: DataType { .float }
}

public final class AnyTensor: NSObject, ValueConvertible {
    public init(
        bytesNoCopy pointer: UnsafeMutableRawPointer, shape: [Int], strides: [Int] = [], dimensionOrder: [Int] = [], dataType: DataType,
        shapeDynamism: ShapeDynamism = .dynamicBound
    ) {}

    public func asValue() -> Value { Value() }
}

public final class Tensor<T: Scalar> {
    private init() {}

    public func withUnsafeBytes<R>(_ body: (UnsafeBufferPointer<T>) throws -> R) rethrows -> R {
        try body(UnsafeBufferPointer(start: nil, count: 0))
    }
}

public final class Value: NSObject {
    public func tensor<T: Scalar>() -> Tensor<T>? { nil }
}

public protocol ValueConvertible {
    func asValue() -> Value
}

public final class MethodMetadata: NSObject {
    public var backendNames: [String] { [] }
}

public enum ModuleLoadMode: Int, Sendable {
    case file
    case mmap
}

open class Module: NSObject {
    public init(filePath: String, loadMode: ModuleLoadMode) {}

    public func load(_ method: String) throws {}
    public func methodMetadata(_ method: String) throws -> MethodMetadata { MethodMetadata() }
    public func execute(_ method: String, _ inputs: [any ValueConvertible]) throws -> [Value] { [] }
}
