"""A Core ML program on this machine: by Core ML itself on macOS, elsewhere by our evaluator, which is slow."""

from __future__ import annotations

import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.runtime.manifest import MethodSpec
from mobile_bilayer.runtime.program import check_inputs


class CoreMLProgram:
    """The packages of a program, called like `Program`.

    files   content by path below the program's folder, as "render_layers.mlpackage/Manifest.json"
    engine  "Core ML", which needs macOS, or "evaluator"; by default what this machine can
    """

    def __init__(
        self, files: dict[str, bytes], methods: dict[str, MethodSpec], where: str, engine: str | None = None
    ) -> None:
        self.engine = engine or ("Core ML" if sys.platform == "darwin" else "evaluator")
        if self.engine == "Core ML" and sys.platform != "darwin":
            raise MobileBilayerError(f"{where} runs on macOS and iOS only, not on {sys.platform}.")
        from mobile_bilayer.export.mil_evaluator import MilProgram

        self._specs = methods
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="mobile_bilayer.")
        for path, data in files.items():
            file = Path(self._folder.name, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        packages = {name: Path(self._folder.name, f"{name}.mlpackage") for name in methods}
        self._programs = {name: MilProgram(package) for name, package in packages.items()}
        for name, spec in methods.items():
            self._check(name, spec, where)
        self._models = {name: _model(package) for name, package in packages.items()} if self.engine == "Core ML" else {}

    def _check(self, name: str, spec: MethodSpec, where: str) -> None:
        """Whether a package takes and gives what the manifest says."""
        program = self._programs[name]
        wanted = {t.name: t.shape for t in spec.inputs}
        if program.inputs != wanted or program.outputs != {t.name: t.shape for t in spec.outputs}:
            raise MobileBilayerError(
                f"{where}: the program's {name} takes {program.inputs} and gives {program.outputs}, which is not what its "
                "manifest says. Export or copy the bundle again."
            )

    def run(self, method: str, *arrays: np.ndarray) -> list[np.ndarray]:
        """Fresh outputs of a method, float32; inputs in the manifest's order."""
        spec, program = self._specs[method], self._programs[method]
        inputs: dict[str, np.ndarray] = {}
        for array, wanted in zip(check_inputs(method, spec, arrays), spec.inputs, strict=True):
            inputs[wanted.name] = _picture(array) if wanted.name in program.pictures else array
        with self._lock:
            if self._models:
                got = self._models[method].predict({k: _as_core_ml_takes_it(v) for k, v in inputs.items()})
            else:
                got = program.run(inputs)
        return [np.array(got[t.name], np.float32) for t in spec.outputs]


    def operators_by_device(self, method: str) -> dict[str, int] | None:
        """How many operators run on cpu, gpu and neural_engine, as Core ML plans it on this Mac; None from the evaluator."""
        if not self._models:
            return None
        from coremltools.models.compute_plan import MLComputePlan

        return count_devices(MLComputePlan.load_from_path(self._models[method].get_compiled_model_path()))


DEVICES = {"MLCPUComputeDevice": "cpu", "MLGPUComputeDevice": "gpu", "MLNeuralEngineComputeDevice": "neural_engine"}


def count_devices(plan: Any) -> dict[str, int]:
    """Of a compute plan, by the device that Core ML prefers for each operator; constants have none. Not run on a Mac yet."""
    usages = [
        plan.get_compute_device_usage_for_mlprogram_operation(operation)
        for operation in plan.model_structure.program.functions["main"].block.operations
    ]
    names = [DEVICES[type(usage.preferred_compute_device).__name__] for usage in usages if usage is not None]
    return dict(Counter(names))


def _model(package: Path) -> Any:
    from mobile_bilayer.export.coreml_tools import coremltools

    return coremltools().models.MLModel(str(package))


def _picture(image: np.ndarray) -> np.ndarray:
    """(1, 3, H, W) in [0, 1], red first, as a camera gives it: (H, W, 4) uint8, blue first."""
    rgb = np.rint(image[0].transpose(1, 2, 0) * 255).clip(0, 255).astype(np.uint8)
    return np.concatenate([rgb[:, :, ::-1], np.full_like(rgb[:, :, :1], 255)], 2)


def _as_core_ml_takes_it(value: np.ndarray) -> Any:
    if value.dtype != np.uint8:
        return value
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(value[:, :, 2::-1]))
