// Stands for Core ML, iOS 17, with what iOS 17.4 tells of a plan.
@_exported import CoreVideo
import Foundation

public enum MLComputeUnits: Int, Sendable {
    case cpuOnly
    case cpuAndGPU
    case all
    case cpuAndNeuralEngine
}

open class MLModelConfiguration: NSObject {
    public var computeUnits = MLComputeUnits.all

    public override init() {}
}

public enum MLMultiArrayDataType: Int, Sendable {
    case double
    case float32
    case float16
    case int32
}

open class MLMultiArray: NSObject {
    public var dataType: MLMultiArrayDataType { .float32 }
    public var shape: [NSNumber] { [] }
    public var strides: [NSNumber] { [] }
    public var count: Int { 0 }

    public init(shape: [NSNumber], dataType: MLMultiArrayDataType) throws {}

    public func withUnsafeBytes<R>(_ body: (UnsafeRawBufferPointer) throws -> R) rethrows -> R {
        try body(UnsafeRawBufferPointer(start: nil, count: 0))
    }
    public func withUnsafeMutableBytes<R>(_ body: (UnsafeMutableRawBufferPointer, [Int]) throws -> R) rethrows -> R {
        try body(UnsafeMutableRawBufferPointer(start: nil, count: 0), [])
    }
}

public enum MLFeatureType: Int, Sendable {
    case invalid
    case int64
    case double
    case string
    case image
    case multiArray
    case dictionary
    case sequence
    case state
}

open class MLMultiArrayConstraint: NSObject {
    public var shape: [NSNumber] { [] }
    public var dataType: MLMultiArrayDataType { .float32 }
}

open class MLFeatureDescription: NSObject {
    public var type: MLFeatureType { .invalid }
    public var multiArrayConstraint: MLMultiArrayConstraint? { nil }
}

open class MLModelDescription: NSObject {
    public var inputDescriptionsByName: [String: MLFeatureDescription] { [:] }
    public var outputDescriptionsByName: [String: MLFeatureDescription] { [:] }
}

open class MLFeatureValue: NSObject {
    public var multiArrayValue: MLMultiArray? { nil }

    public init(multiArray value: MLMultiArray) {}
    public init(pixelBuffer value: CVPixelBuffer) {}
}

public protocol MLFeatureProvider {
    var featureNames: Set<String> { get }
    func featureValue(for featureName: String) -> MLFeatureValue?
}

open class MLDictionaryFeatureProvider: NSObject, MLFeatureProvider {
    public var featureNames: Set<String> { [] }

    public init(dictionary: [String: Any]) throws {}

    public func featureValue(for featureName: String) -> MLFeatureValue? { nil }
}

open class MLPredictionOptions: NSObject {
    public var outputBackings: [String: Any] = [:]

    public override init() {}
}

open class MLModel: NSObject {
    public var modelDescription: MLModelDescription { MLModelDescription() }

    public init(contentsOf url: URL, configuration: MLModelConfiguration) throws {}

    /// Deprecated from iOS 27 on.
    public class func compileModel(at modelURL: URL) throws -> URL { modelURL }

    public func prediction(from input: any MLFeatureProvider, options: MLPredictionOptions) throws -> any MLFeatureProvider { input }
}

public final class MLCPUComputeDevice: Sendable {}

public final class MLGPUComputeDevice: Sendable {}

public final class MLNeuralEngineComputeDevice: Sendable {}

public enum MLComputeDevice: Sendable {
    case cpu(MLCPUComputeDevice)
    case gpu(MLGPUComputeDevice)
    case neuralEngine(MLNeuralEngineComputeDevice)
}

@available(iOS 17.4, *)
public enum MLModelStructure: Sendable {
    public struct Program: Sendable {
        public struct Operation: Sendable {}

        public struct Block: Sendable {
            public let operations: [Operation]
        }

        public struct Function: Sendable {
            public let block: Block
        }

        public let functions: [String: Function]
    }

    case program(Program)
    case unsupported
}

@available(iOS 17.4, *)
public final class MLComputePlan: Sendable {
    public struct DeviceUsage: Sendable {
        public let preferred: MLComputeDevice
    }

    public let modelStructure: MLModelStructure

    private init() { modelStructure = .unsupported }

    public static func load(contentsOf url: URL, configuration: MLModelConfiguration) async throws -> MLComputePlan { MLComputePlan() }

    public func deviceUsage(for operation: MLModelStructure.Program.Operation) -> DeviceUsage? { nil }
}
