import ExecuTorch
import Foundation

/// The version of ExecuTorch in the app: project.yml has the same.
public let execuTorchVersion = "1.5.1"

/// The backends that are in the app, by the names that they registered themselves by.
public func registeredBackends() -> [String] {
    (0..<mb_registered_backends()).compactMap { mb_registered_backend($0).map { String(cString: $0) } }
}

/// A program of ExecuTorch: plain buffers in and out. For one thread at a time, and never after it was let go.
///
/// Inputs lie in memory that is filled anew; the outputs' few objects a call are the runtime's own.
public final class ExecuTorchRunner {
    private struct Method {
        let inputs: [UnsafeMutableBufferPointer<Float>]
        let values: [any ValueConvertible]
    }

    private let module: Module
    private var methods: [String: Method] = [:]

    /// The program in this file, mapped into memory.
    public init(path: String) { module = Module(filePath: path, loadMode: .mmap) }

    deinit {
        for method in methods.values { method.inputs.forEach { $0.deallocate() } }
    }

    /// Load a method, whose inputs are of these shapes; the names of the backends that run parts of it.
    public func load(_ name: String, inputs: [[Int]]) throws -> [String] {
        try module.load(name)
        var buffers: [UnsafeMutableBufferPointer<Float>] = []
        var values: [any ValueConvertible] = []
        for shape in inputs {
            let count = shape.reduce(1, *)
            let numbers = UnsafeMutablePointer<Float>.allocate(capacity: count)
            numbers.initialize(repeating: 0, count: count)
            buffers.append(UnsafeMutableBufferPointer(start: numbers, count: count))
            values.append(AnyTensor(bytesNoCopy: UnsafeMutableRawPointer(numbers), shape: shape, dataType: .float))
        }
        methods[name] = Method(inputs: buffers, values: values)
        return try module.methodMetadata(name).backendNames
    }

    /// Run a method that was loaded. `fill` copies the i-th input to where it is read, `take` the i-th output from where it lies.
    public func execute(
        _ name: String, fill: (Int, UnsafeMutableBufferPointer<Float>) -> Void, take: (Int, UnsafeBufferPointer<Float>) throws -> Void
    ) throws {
        guard let method = methods[name] else { throw NotLoaded(method: name) }
        for (i, buffer) in method.inputs.enumerated() { fill(i, buffer) }
        let outputs: [Value] = try module.execute(name, method.values)
        for (i, output) in outputs.enumerated() {
            guard let tensor: Tensor<Float> = output.tensor() else { throw NoFloats(method: name, output: i) }
            try tensor.withUnsafeBytes { try take(i, $0) }
        }
    }
}

/// A method was asked for that was not loaded.
public struct NotLoaded: Swift.Error {
    public let method: String
}

/// An output is no tensor of floats.
public struct NoFloats: Swift.Error {
    public let method: String
    public let output: Int
}
