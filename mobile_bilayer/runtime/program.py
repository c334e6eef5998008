"""An ExecuTorch program on this machine: checked calls, numpy in and out."""

from __future__ import annotations

import threading
import time
from contextlib import redirect_stderr
from io import StringIO

import numpy as np

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.quiet import quiet_stderr
from mobile_bilayer.runtime.executorch_file import DELEGATES, check_format, quiet_runtime, why_not, words
from mobile_bilayer.runtime.manifest import MethodSpec

HERE = ("xnnpack",)  # QNN's counts itself as available too, without a processor to run on


class Program:
    """Methods of a program, called with numpy arrays.

    Calls are serialised: a runtime method must not be entered twice. What is returned is fresh on every call.

    execute_s  seconds that the last call spent in the runtime itself
    """

    execute_s = 0.0

    def __init__(
        self, data: bytes, methods: dict[str, MethodSpec], backend: str, where: str, made_for: str = ""
    ) -> None:
        runtime = quiet_runtime()
        if backend not in HERE or not runtime.backend_registry.is_available(DELEGATES[backend]):
            raise MobileBilayerError(
                f"{where} is made for the backend {backend!r}, whose runtime is not in ExecuTorch's Python package: it runs on "
                f"phones. Here, run the student's bundle for {', '.join(HERE)} (mobile-bilayer export --backend xnnpack)."
            )
        check_format(data, where, made_for)
        self._lock = threading.Lock()
        self._specs, self._where = methods, where
        try:
            # The runtime looks at the processor, and says so: on Python's stderr, which need not be the real one.
            with quiet_stderr(), redirect_stderr(StringIO()):
                self._program = runtime.load_program(data)
                self._methods = {name: self._program.load_method(name) for name in methods if name in self._program.method_names}
        except (RuntimeError, MemoryError) as error:
            raise MobileBilayerError(
                f"{where}: the ExecuTorch runtime here can't load the program: {why_not(data, runtime, error)}. "
                f"It is made for {made_for or 'another version'}: update executorch, or export it again."
            ) from error
        missing = set(methods) - set(self._methods)
        if missing:
            raise MobileBilayerError(f"{where}: the program lacks {', '.join(sorted(missing))}. Export the bundle again.")
        for name, spec in methods.items():
            meta = self._methods[name].metadata
            inputs = [tuple(meta.input_tensor_meta(i).sizes()) for i in range(meta.num_inputs())]
            outputs = [tuple(meta.output_tensor_meta(i).sizes()) for i in range(meta.num_outputs())]
            for kind, got, wanted in (("takes", inputs, spec.inputs), ("gives", outputs, spec.outputs)):
                if got != [t.shape for t in wanted]:
                    raise MobileBilayerError(
                        f"{where}: the program's {name} {kind} {got}, its manifest says "
                        f"{[t.shape for t in wanted]}. Export or copy the bundle again."
                    )

    def run(self, method: str, *arrays: np.ndarray) -> list[np.ndarray]:
        """Outputs of a method, float32; inputs in the manifest's order."""
        import torch

        tensors = [torch.from_numpy(array) for array in check_inputs(method, self._specs[method], arrays)]
        with self._lock:
            try:
                begun = time.perf_counter()
                outputs = self._methods[method].execute(tensors)
                self.execute_s = time.perf_counter() - begun
                return [out.numpy().copy() for out in outputs]
            except (RuntimeError, MemoryError) as error:  # XNNPACK looks at some of its operators only when they run
                raise MobileBilayerError(
                    f"{self._where}: the ExecuTorch runtime here can't run {method}: {words(error)}. Export it again, or in another precision."
                ) from error


def check_inputs(method: str, spec: MethodSpec, arrays: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """Copies of a method's inputs, laid out row by row: programs read memory, and know nothing of a view's strides."""
    if len(arrays) != len(spec.inputs):
        raise MobileBilayerError(f"{method} takes {', '.join(t.name for t in spec.inputs)}; got {len(arrays)} arrays.")
    for array, wanted in zip(arrays, spec.inputs, strict=True):
        if not isinstance(array, np.ndarray) or array.shape != wanted.shape or array.dtype != np.float32:
            got = f"{array.shape} {array.dtype}" if isinstance(array, np.ndarray) else type(array).__name__
            raise MobileBilayerError(f"{method} takes {wanted.name} as {wanted.shape} float32 in numpy; got {got}.")
    return [np.array(array, order="C") for array in arrays]
