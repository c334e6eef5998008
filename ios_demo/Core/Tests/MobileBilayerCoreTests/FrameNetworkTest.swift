import XCTest

@testable import MobileBilayerCore

final class FrameNetworkTest: XCTestCase {
    /// Takes its time, and notes calls that overlap or come after close.
    private final class SlowProgram: Program {
        let started = DispatchSemaphore(value: 0)
        let go: DispatchSemaphore?
        let inside = Counter()
        let wrong = Counter()
        let done = Counter()
        let closed = Counter()

        init(go: DispatchSemaphore? = nil) { self.go = go }

        func execute(_ method: String, inputs: [Tensor], outputs: [Tensor]) {
            if inside.add() > 1 || closed.value > 0 { wrong.add() }
            started.signal()
            _ = go?.wait(timeout: .now() + 5)
            usleep(1000)
            inside.add(-1)
            done.add()
        }

        func close() {
            if inside.value > 0 { wrong.add() }
            closed.add()
        }
    }

    private struct Broken: Error {}

    private final class BrokenProgram: Program {
        func execute(_ method: String, inputs: [Tensor], outputs: [Tensor]) throws { throw Broken() }
        func close() {}
    }

    private final class ShortProgram: Program {
        func execute(_ method: String, inputs: [Tensor], outputs: [Tensor]) { outputs[0].floats = [1, 2] }
        func close() {}
    }

    private static func inputs(_ method: String) -> [Tensor] { shipped.method(method).inputs.map { Tensor.zeros($0.shape) } }

    private static func outputs(_ method: String) -> [Tensor] { shipped.method(method).outputs.map { Tensor.zeros($0.shape) } }

    private static func render(_ network: FrameNetwork) throws {
        try network.run("render_layers", inputs: inputs("render_layers"), outputs: outputs("render_layers"))
    }

    func test_AN1_calls_from_many_threads_never_overlap() {
        let program = SlowProgram()
        let network = shipped.network(program)
        let failed = Counter()
        let workers = (0..<8).map { _ in
            Worker {
                for _ in 0..<10 {
                    do { try FrameNetworkTest.render(network) } catch { failed.add() }
                }
            }
        }
        for worker in workers { XCTAssertTrue(worker.join(seconds: 20)) }
        XCTAssertEqual([program.done.value, program.wrong.value, failed.value], [80, 0, 0])
    }

    func test_AN1_closing_waits_for_the_call_that_runs_and_a_call_after_it_is_refused() {
        let go = DispatchSemaphore(value: 0)
        let program = SlowProgram(go: go)
        let network = shipped.network(program)
        let failed = Counter()
        let caller = Worker {
            do { try FrameNetworkTest.render(network) } catch { failed.add() }
        }
        XCTAssertEqual(program.started.wait(timeout: .now() + 5), .success)
        let closer = Worker { network.close() }
        XCTAssertFalse(closer.join(seconds: 0.05))  // it waits
        XCTAssertEqual(program.closed.value, 0)
        go.signal()
        XCTAssertTrue(closer.join(seconds: 5))
        XCTAssertTrue(caller.join(seconds: 5))
        XCTAssertEqual([program.closed.value, program.wrong.value, program.done.value, failed.value], [1, 0, 1, 0])
        assertSays("was closed", refusal { try FrameNetworkTest.render(network) })
        network.close()
        XCTAssertEqual(program.closed.value, 1)
    }

    func test_AN1_a_second_start_works() throws {
        shipped.network(SlowProgram()).close()
        let second = SlowProgram()
        let network = shipped.network(second)
        try FrameNetworkTest.render(network)
        network.close()
        XCTAssertEqual(second.done.value, 1)
    }

    private func refusedImage(_ image: Tensor) -> String {
        let program = GoldenProgram()
        let network = shipped.network(program)
        let points = Tensor.zeros([1, pointCount, 2])
        let said = refusal {
            try network.run("encode_avatar", inputs: [image, points], outputs: FrameNetworkTest.outputs("encode_avatar"))
        }
        XCTAssertEqual(program.calls, 0)  // nothing reached the program
        return said
    }

    func test_AN2_a_frame_of_another_size_is_refused_by_expected_and_got() {
        assertSays("image as (1, 3, 256, 256) F32; got (1, 3, 224, 224) F32", refusedImage(Tensor.zeros([1, 3, 224, 224])))
    }

    func test_AN2_bytes_in_place_of_floats_are_refused_by_expected_and_got() throws {
        let bytes = [UInt8](repeating: 0, count: 3 * 256 * 256)
        assertSays("F32; got (1, 3, 256, 256) U8", refusedImage(try Tensor(.u8, [1, 3, 256, 256], .bytes(bytes))))
    }

    func test_AN2_a_flat_vector_of_keypoints_and_too_few_tensors_are_refused() {
        let program = GoldenProgram()
        let network = shipped.network(program)
        let inputs = FrameNetworkTest.inputs("render_layers")
        let flat = Array(inputs.prefix(3)) + [Tensor.zeros([288])]
        let outputs = FrameNetworkTest.outputs("render_layers")
        func said(_ inputs: [Tensor], _ outputs: [Tensor], _ method: String = "render_layers") -> String {
            refusal { try network.run(method, inputs: inputs, outputs: outputs) }
        }
        assertSays("landmarks as (1, 144, 2) F32; got (288) F32", said(flat, outputs))
        assertSays("takes 4 tensors", said(Array(inputs.prefix(3)), outputs))
        assertSays("gives layers_a", said(inputs, [outputs[1], outputs[0]]))
        assertSays("no method forward", said(inputs, outputs, "forward"))
        XCTAssertEqual(program.calls, 0)
    }

    func test_AN2_a_tensor_has_as_many_numbers_as_its_shape_says() {
        assertSays("(2, 3)", refusal { _ = try Tensor.of([Float](repeating: 0, count: 5), [2, 3]) })
        assertSays("U8", refusal { _ = try Tensor(.u8, [2], .floats([0, 0])) })
    }

    func test_AN2_outputs_of_another_size_are_refused_by_expected_and_got() {
        let said = refusal { try FrameNetworkTest.render(shipped.network(ShortProgram())) }
        assertSays("2 numbers as layers_a of render_layers; 16384 are right", said)
    }

    func test_what_the_runtime_throws_becomes_an_error_that_names_the_bundle() {
        let said = refusal { try FrameNetworkTest.render(shipped.network(BrokenProgram())) }
        for part in [shippedFolder.path, "Broken", "render_layers"] { assertSays(part, said) }
    }
}
