import CoreML
import CoreVideo
import Foundation
import MobileBilayerCore

/// Core ML's compute units, by the names that results have for them.
let computeUnits: [(name: String, units: MLComputeUnits)] = [
    ("all", .all), ("neural_engine", .cpuAndNeuralEngine), ("gpu", .cpuAndGPU), ("cpu", .cpuOnly),
]

/// A bundle's packages behind Core's door, which serialises calls and checks what comes in.
///
/// Inputs lie in arrays that are filled anew, and outputs are written into ours where Core ML can.
final class CoreMLProgram: Program {
    private var methods: [String: CoreMLMethod]

    private init(_ methods: [String: CoreMLMethod]) { self.methods = methods }

    /// The program of `bundle`, ready to run on `unit`, one of `computeUnits`. The first time ever it is compiled, which may take
    /// seconds.
    ///
    /// Throws `MobileBilayerError` if it does not load, or takes or gives something else than the manifest says.
    static func load(_ bundle: ModelBundle, unit: String) throws -> CoreMLProgram {
        let compiled = try compiledPackages(bundle)
        var methods: [String: CoreMLMethod] = [:]
        for (name, spec) in bundle.manifest.methods {
            guard let url = compiled[name] else { continue }
            do {
                let model = try MLModel(contentsOf: url, configuration: configuration(unit))
                methods[name] = try CoreMLMethod(model, spec) { Words.otherModel(bundle.place, name, $0) }
            } catch let error as MobileBilayerError {
                throw error
            } catch {
                throw notLoaded(bundle, name, error)
            }
        }
        return CoreMLProgram(methods)
    }

    func execute(_ method: String, inputs: [Tensor], outputs: [Tensor]) throws {
        try methods[method]?.execute(inputs: inputs, outputs: outputs)
    }

    func close() { methods = [:] }
}

/// As Core ML is asked to compute.
func configuration(_ unit: String) -> MLModelConfiguration {
    let configuration = MLModelConfiguration()
    configuration.computeUnits = computeUnits.first { $0.name == unit }?.units ?? .all
    return configuration
}

/// One package, and what goes in and out of it.
private final class CoreMLMethod {
    private enum Input {
        case numbers(MLMultiArray)
        case picture(PictureBuffer)
    }

    private let model: MLModel
    private let inputs: [Input]
    private let provider: MLDictionaryFeatureProvider
    private let options = MLPredictionOptions()
    private let outputs: [(name: String, ours: MLMultiArray)]

    /// `other` says that the package is another one, and in what.
    init(_ model: MLModel, _ spec: MethodSpec, other: (String) -> String) throws {
        self.model = model
        let taken = model.modelDescription.inputDescriptionsByName
        let given = model.modelDescription.outputDescriptionsByName
        var inputs: [Input] = []
        var features: [String: MLFeatureValue] = [:]
        for one in spec.inputs {
            switch taken[one.name]?.type {
            case .multiArray:
                let array = try CoreMLMethod.array(one, taken[one.name], other)
                inputs.append(.numbers(array))
                features[one.name] = MLFeatureValue(multiArray: array)
            case .image where one.shape.count == 4 && one.shape[1] == 3:
                let picture = try PictureBuffer(width: one.shape[3], height: one.shape[2])
                inputs.append(.picture(picture))
                features[one.name] = MLFeatureValue(pixelBuffer: picture.buffer)
            default:
                throw MobileBilayerError(other("its input \(one.name)"))
            }
        }
        self.inputs = inputs
        outputs = try spec.outputs.map { ($0.name, try CoreMLMethod.array($0, given[$0.name], other)) }
        provider = try MLDictionaryFeatureProvider(dictionary: features)
        options.outputBackings = Dictionary(uniqueKeysWithValues: outputs.map { ($0.name, $0.ours) })
    }

    func execute(inputs tensors: [Tensor], outputs into: [Tensor]) throws {
        for (input, tensor) in zip(inputs, tensors) {
            switch input {
            case .numbers(let array):
                array.withUnsafeMutableBytes { bytes, _ in tensor.floats.withUnsafeBytes(bytes.copyMemory) }
            case .picture(let picture):
                picture.fill(planes: tensor.floats)
            }
        }
        let made = try model.prediction(from: provider, options: options)
        for (output, tensor) in zip(outputs, into) {
            guard let array = made.featureValue(for: output.name)?.multiArrayValue, array.dataType == .float32 else {
                throw NoNumbers(output: output.name)
            }
            // Core ML may lay rows out at distances of its own.
            let strides = array.strides.map(\.intValue)
            array.withUnsafeBytes { copyRows($0.bindMemory(to: Float.self), shape: tensor.shape, strides: strides, into: &tensor.floats) }
        }
    }

    private static func array(
        _ spec: TensorSpec, _ description: MLFeatureDescription?, _ other: (String) -> String
    ) throws -> MLMultiArray {
        let shape = spec.shape.map { NSNumber(value: $0) }
        guard let constraint = description?.multiArrayConstraint, constraint.dataType == .float32, constraint.shape == shape else {
            throw MobileBilayerError(other(spec.name))
        }
        return try MLMultiArray(shape: shape, dataType: .float32)
    }
}

/// An output is no array of floats.
private struct NoNumbers: Error {
    let output: String
}

extension PictureBuffer {
    /// Red, green and blue planes of [0, 1].
    fileprivate func fill(planes: [Float]) {
        let count = width * height
        var rgb = [UInt8](repeating: 0, count: 3 * count)
        for i in 0..<count {
            for c in 0..<3 { rgb[3 * i + c] = UInt8((min(max(planes[c * count + i], 0), 1) * 255).rounded()) }
        }
        fill(rgb, step: 3)
    }
}

/// The bundle's packages as this phone's Core ML has compiled them: once for each bundle and iOS, and kept.
func compiledPackages(_ bundle: ModelBundle) throws -> [String: URL] {
    let manifest = bundle.manifest
    let programs = try keptFolder(.cachesDirectory).appendingPathComponent("programs")
    let of = String(bundle.sha256.prefix(16))
    let folder = programs.appendingPathComponent("\(of) \(ProcessInfo.processInfo.operatingSystemVersionString)")
    let manager = FileManager.default
    let compiled = Dictionary(uniqueKeysWithValues: manifest.methods.keys.map { ($0, folder.appendingPathComponent("\($0).mlmodelc")) })
    // iOS empties caches where the phone is full, and not always all of a folder.
    if !compiled.values.allSatisfy({ manager.fileExists(atPath: $0.path) }) {
        let aside = manager.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        defer { try? manager.removeItem(at: aside) }
        try bundle.writeProgram(to: aside)
        let kept = aside.appendingPathComponent("compiled")
        do {
            try manager.createDirectory(at: kept, withIntermediateDirectories: true)
            for name in manifest.methods.keys {
                let package = aside.appendingPathComponent("\(manifest.program)/\(name).mlpackage")
                try manager.moveItem(at: MLModel.compileModel(at: package), to: kept.appendingPathComponent("\(name).mlmodelc"))
            }
            try manager.createDirectory(at: programs, withIntermediateDirectories: true)
            // Of an older iOS, or of which a part is gone.
            for old in try manager.contentsOfDirectory(at: programs, includingPropertiesForKeys: nil)
            where old.lastPathComponent.hasPrefix(of) {
                try manager.removeItem(at: old)
            }
            try manager.moveItem(at: kept, to: folder)
        } catch {
            throw notLoaded(bundle, manifest.program, error)
        }
    }
    return compiled
}

private func notLoaded(_ bundle: ModelBundle, _ what: String, _ error: any Error) -> MobileBilayerError {
    MobileBilayerError(
        Words.notLoaded("Core ML", "\(bundle.place): \(what)", error.localizedDescription, bundle.manifest.minimumRuntime), cause: error)
}

/// How many operators of render_layers Core ML means to run on each device; nil where it does not tell, as before iOS 17.4.
func operatorsByDevice(_ bundle: ModelBundle, unit: String) async throws -> [String: Int]? {
    guard bundle.manifest.backend == "coreml", let url = try compiledPackages(bundle)["render_layers"] else { return nil }
    if #available(iOS 17.4, *) {
        let plan = try await MLComputePlan.load(contentsOf: url, configuration: configuration(unit))
        guard case .program(let program) = plan.modelStructure, let main = program.functions["main"] else { return nil }
        var counts: [String: Int] = [:]
        for operation in main.block.operations {
            guard let device = plan.deviceUsage(for: operation)?.preferred else { continue }  // a constant
            switch device {
            case .cpu: counts["cpu", default: 0] += 1
            case .gpu: counts["gpu", default: 0] += 1
            case .neuralEngine: counts["neural_engine", default: 0] += 1
            @unknown default: break
            }
        }
        return counts
    } else {
        return nil
    }
}
