"""An ExecuTorch file against its manifest, and the Core ML programs inside one: for backends that don't run here."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
from mobile_bilayer.export.mil_evaluator import MilProgram

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.runtime.executorch_file import FileMethod, read_program, without_overload
from mobile_bilayer.runtime.manifest import MethodSpec


def check_program(data: bytes, specs: dict[str, MethodSpec], delegate: str, where: str) -> dict[str, FileMethod]:
    """The file's methods, if they are what its manifest says.

    Raises MobileBilayerError for a missing method, another shape or type, another backend or an operator that is outside
    the delegate and not named.
    """
    methods = {method.name: method for method in read_program(data, where).methods}
    for name, spec in specs.items():
        if name not in methods:
            raise MobileBilayerError(f"{where}: the program lacks {name}. Export it again.")
        method = methods[name]
        for kind, tensors, wanted in (("takes", method.inputs, spec.inputs), ("gives", method.outputs, spec.outputs)):
            if any(tensor is None or tensor.dtype != "float32" for tensor in tensors):
                raise MobileBilayerError(f"{where}: {name} {kind} what is not float32. Export it again.")
            if (got := [tensor.shape for tensor in tensors]) != [tensor.shape for tensor in wanted]:
                raise MobileBilayerError(
                    f"{where}: the program's {name} {kind} {got}, its manifest says {[t.shape for t in wanted]}. Export it again."
                )
        if {call.backend for call in method.calls} != {delegate}:
            found = ", ".join(sorted({call.backend for call in method.calls})) or "no backend"
            raise MobileBilayerError(f"{where}: {name} is made for {found}; it must be {delegate}. Export it again.")
        named = {without_overload(operator) for operator in spec.undelegated}
        unnamed = sorted({without_overload(operator) for operator in method.undelegated} - named)
        if unnamed:
            raise MobileBilayerError(
                f"{where}: {name} has {', '.join(unnamed)} outside {delegate}, which the manifest does not name. Export it again."
            )
    return methods


class DelegatedCoreML:
    """The Core ML programs inside a file, taken out and computed by the evaluator. Called like `Program`.

    Raises MobileBilayerError when there is more than them to compute.
    """

    def __init__(self, methods: dict[str, FileMethod], where: str) -> None:
        from executorch.backends.apple.coreml.executorchcoreml import unflatten_directory_contents

        self._folder = tempfile.TemporaryDirectory(prefix="mobile_bilayer.")
        self._methods = methods
        self._programs: dict[str, tuple[MilProgram, list[str], list[str]]] = {}
        for name, method in methods.items():
            if len(method.calls) != 1 or method.undelegated:
                raise MobileBilayerError(
                    f"{where}: {name} is more than one Core ML program, which the evaluator can't compute. Rewrite what stays outside."
                )
            folder = Path(self._folder.name, name)
            folder.mkdir()
            try:
                unflatten_directory_contents(method.calls[0].data, str(folder))
                (folder,) = folder.iterdir()
                names = json.loads((folder / "metadata.json").read_text())
            except (RuntimeError, OSError, ValueError) as error:
                raise MobileBilayerError(
                    f"{where}: the delegate of {name} holds no Core ML program ({error})."
                ) from error
            self._programs[name] = (MilProgram(folder / "model.mlpackage"), names["inputNames"], names["outputNames"])

    @property
    def operators(self) -> list[str]:
        """Of all programs inside."""
        return sorted({name for program, _, _ in self._programs.values() for name in program.operators})

    def run(self, method: str, *arrays: np.ndarray) -> list[np.ndarray]:
        """Outputs of a method, float32."""
        about = self._methods[method]
        program, inputs, outputs = self._programs[method]
        values = dict(zip(about.takes, arrays, strict=True))
        places = about.calls[0].places
        got = program.run({name: values[place] for name, place in zip(inputs, places, strict=False)})
        values |= {place: got[name] for name, place in zip(outputs, places[len(inputs) :], strict=True)}
        return [values[place] for place in about.gives]
