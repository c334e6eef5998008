import Foundation

/// A program that runs: what an app plugs a runtime in by, as Core ML's models or ExecuTorch's Module.
///
/// An implementation may count on it that calls never overlap, never come after `close`, and fit the manifest. It writes into the
/// floats of the outputs that are given, and keeps no input.
public protocol Program: AnyObject {
    /// Run `method`: `inputs` in the manifest's order, `outputs` filled in the same.
    func execute(_ method: String, inputs: [Tensor], outputs: [Tensor]) throws

    func close()
}

/// A `Program` behind a door: native code aborts the process for what is an error here.
///
/// Shapes and types are checked against the bundle's manifest before each call. Calls are serialised, from whatever thread; `close`
/// waits for the call that runs, and later calls are refused. It may be called again. To start again, make another one.
public final class FrameNetwork: @unchecked Sendable {  // the lock is around all that changes
    private let program: any Program
    private let methods: [String: MethodSpec]
    private let place: String
    private let lock = NSLock()
    private var closed = false

    /// `place` names the bundle in errors.
    init(_ program: any Program, _ methods: [String: MethodSpec], where place: String) {
        self.program = program
        self.methods = methods
        self.place = place
    }

    /// Run `method`: `inputs` in the manifest's order, `outputs` filled in the same. Nothing is allocated here.
    ///
    /// Throws `MobileBilayerError` for what does not fit, for a call after `close`, and for what the program throws.
    public func run(_ method: String, inputs: [Tensor], outputs: [Tensor]) throws {
        guard let spec = methods[method] else {
            throw MobileBilayerError("\(place) has no method \(method). It has \(methods.keys.sorted().joined(separator: ", ")).")
        }
        try check(method, "takes", spec.inputs, inputs)
        try check(method, "gives", spec.outputs, outputs)
        lock.lock()
        defer { lock.unlock() }
        if closed { throw MobileBilayerError("\(place) was closed while \(method) was asked for. Open it again.") }
        do {
            try program.execute(method, inputs: inputs, outputs: outputs)
        } catch let error as MobileBilayerError {
            throw error
        } catch {
            throw MobileBilayerError(
                "\(place): the runtime could not run \(method) (\(error)). Export the bundle for this runtime's version.", cause: error)
        }
        for i in outputs.indices where outputs[i].floats.count != spec.outputs[i].count {
            throw MobileBilayerError(
                "\(place): the runtime gave \(outputs[i].floats.count) numbers as \(spec.outputs[i].name) of \(method); "
                    + "\(spec.outputs[i].count) are right. Export the bundle for this runtime's version.")
        }
    }

    /// Waits for the call that runs, if any, and closes the program, once.
    public func close() {
        lock.lock()
        defer { lock.unlock() }
        if closed { return }
        closed = true
        program.close()
    }

    private func check(_ method: String, _ verb: String, _ wanted: [TensorSpec], _ got: [Tensor]) throws {
        if got.count != wanted.count {
            let names = wanted.map(\.name).joined(separator: ", ")
            throw MobileBilayerError(
                "\(place): \(method) \(verb) \(wanted.count) tensors (\(names)); got \(got.count). Give them in that order.")
        }
        for i in got.indices where got[i].dtype != .f32 || got[i].shape != wanted[i].shape {
            throw MobileBilayerError(
                "\(place): \(method) \(verb) \(wanted[i].name) as \(text(wanted[i].shape)) F32; got \(text(got[i].shape)) "
                    + "\(got[i].dtype.rawValue). Convert it first.")
        }
    }
}
