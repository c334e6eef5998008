"""An ExecuTorch program on this machine: checked calls, numpy in and out."""

from __future__ import annotations

import logging
import threading
import warnings
from contextlib import redirect_stderr
from functools import cache
from io import StringIO
from typing import Any

import numpy as np

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.quiet import quiet_stderr
from mobile_bilayer.runtime.manifest import MethodSpec


@cache
def _runtime() -> Any:
    """ExecuTorch's runtime, without what its imports have to say."""
    with warnings.catch_warnings(), quiet_stderr():
        warnings.simplefilter("ignore")
        levels = {name: logging.getLogger(name).level for name in ("torchao", "torch.utils._pytree")}
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        from executorch.runtime import Runtime

        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        return Runtime.get()


class Program:
    """Methods of a program, called with numpy arrays.

    Calls are serialised: a runtime method must not be entered twice. What is returned is fresh on every call.
    """

    def __init__(self, data: bytes, methods: dict[str, MethodSpec], backend: str, where: str) -> None:
        runtime = _runtime()
        names = {"xnnpack": "XnnpackBackend"}
        if backend not in names or not runtime.backend_registry.is_available(names[backend]):
            raise MobileBilayerError(
                f"{where} is made for the backend {backend!r}, whose runtime is not in ExecuTorch's Python package: it runs on "
                f"phones. Here, run the student's bundle for {', '.join(sorted(names))} (mobile-bilayer export --backend xnnpack)."
            )
        if data[4:6] != b"ET":
            raise MobileBilayerError(f"{where}: the program is no ExecuTorch file. Export or copy the bundle again.")
        self._lock = threading.Lock()
        self._specs, self._where = methods, where
        try:
            # The runtime looks at the processor, and says so: on Python's stderr, which need not be the real one.
            with quiet_stderr(), redirect_stderr(StringIO()):
                self._program = runtime.load_program(data)
                self._methods = {name: self._program.load_method(name) for name in methods if name in self._program.method_names}
        except RuntimeError as error:
            raise MobileBilayerError(
                f"{where}: the ExecuTorch runtime here can't load the program ({error}). Export it again with this version."
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

        spec = self._specs[method]
        tensors = []
        for array, wanted in zip(arrays, spec.inputs, strict=True):
            if array.shape != wanted.shape or array.dtype != np.float32:
                raise MobileBilayerError(
                    f"{method} takes {wanted.name} as {wanted.shape} float32; got {array.shape} {array.dtype}."
                )
            tensors.append(torch.from_numpy(np.ascontiguousarray(array)))
        try:
            with self._lock:
                return [out.numpy().copy() for out in self._methods[method].execute(tensors)]
        except RuntimeError as error:  # XNNPACK looks at some of its operators only when they run
            raise MobileBilayerError(
                f"{self._where}: the ExecuTorch runtime here can't run {method} ({error}). Export it again, or in another precision."
            ) from error
