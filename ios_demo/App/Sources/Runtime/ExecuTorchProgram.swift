import ExecuTorchRuntime
import Foundation
import MobileBilayerCore

/// ExecuTorch's module behind Core's door, which serialises calls and checks what comes in.
final class ExecuTorchProgram: Program {
    private var runner: ExecuTorchRunner?

    private init(_ runner: ExecuTorchRunner) { self.runner = runner }

    /// The program of `bundle`, which lies in `file`, ready to run.
    ///
    /// Throws `MobileBilayerError` if it does not load, or if its backend would run nothing of it.
    static func load(_ bundle: ModelBundle, file: URL) throws -> ExecuTorchProgram {
        let manifest = bundle.manifest
        let runner = ExecuTorchRunner(path: file.path)
        for (method, spec) in manifest.methods.sorted(by: { $0.key < $1.key }) {
            let runs: [String]
            do {
                runs = try runner.load(method, inputs: spec.inputs.map(\.shape))
            } catch {
                let program = "\(bundle.place): \(manifest.program)"
                let runtime = "ExecuTorch \(execuTorchVersion)"
                throw MobileBilayerError(Words.notLoaded(runtime, program, "\(error)", manifest.minimumRuntime), cause: error)
            }
            guard let backend = backends.first(where: { $0.backend == manifest.backend })?.registered, runs.contains(backend) else {
                throw MobileBilayerError(
                    Words.notDelegated(bundle.place, manifest.backend, method, runs.joined(separator: ", ")))
            }
        }
        return ExecuTorchProgram(runner)
    }

    func execute(_ method: String, inputs: [Tensor], outputs: [Tensor]) throws {
        var filled = 0
        try runner?.execute(
            method,
            fill: { i, into in
                inputs[i].floats.withUnsafeBufferPointer { from in _ = into.update(from: from) }
            },
            take: { i, from in
                if i >= outputs.count || from.count != outputs[i].floats.count { throw OtherOutputs(output: i, numbers: from.count) }
                outputs[i].floats.withUnsafeMutableBufferPointer { into in _ = into.update(from: from) }
                filled += 1
            })
        if filled != outputs.count { throw OtherOutputs(output: filled, numbers: 0) }
    }

    func close() { runner = nil }
}

/// The program gave others than the manifest tells of.
private struct OtherOutputs: Error {
    let output: Int
    let numbers: Int
}
