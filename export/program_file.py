"""What an ExecuTorch file says of itself, read without its runtime: for backends that don't run here."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from mobile_bilayer.export.mil_evaluator import MilProgram

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.runtime.manifest import MethodSpec

FLOAT32 = 6  # ScalarType of the file's schema


@dataclass(frozen=True)
class Call:
    """A delegate's part: its backend, what it is given to run, and the places of its inputs and outputs among the values."""

    backend: str
    data: bytes
    places: tuple[int, ...]


@dataclass(frozen=True)
class FileMethod:
    """A method: shapes of its inputs and outputs, their places among its values, its delegates and other operators."""

    takes: list[tuple[int, ...]]
    gives: list[tuple[int, ...]]
    inputs: list[int]
    outputs: list[int]
    calls: list[Call]
    operators: list[str]


def read_program(data: bytes, where: str) -> dict[str, FileMethod]:
    """Methods of a file. Raises MobileBilayerError when it can't be read, or a tensor is not float32."""
    from executorch.exir._serialize._program import deserialize_pte_binary
    from executorch.exir.schema import DelegateCall, KernelCall

    try:
        program = deserialize_pte_binary(data).program
    except Exception as error:  # flatbuffers' own, by what is damaged
        raise MobileBilayerError(f"{where}: the program can't be read ({error}). Export or copy it again.") from error
    methods = {}
    for plan in program.execution_plan:
        calls, operators = [], []
        for instruction in (each.instr_args for chain in plan.chains for each in chain.instructions):
            if isinstance(instruction, DelegateCall):
                delegate = plan.delegates[instruction.delegate_index]
                blob = program.backend_delegate_data[delegate.processed.index].data
                calls.append(Call(delegate.id, bytes(blob), tuple(instruction.args)))
            elif isinstance(instruction, KernelCall):
                operators.append(plan.operators[instruction.op_index].name.replace("::", "."))
        tensors = {place: plan.values[place].val for place in (*plan.inputs, *plan.outputs)}
        if any(getattr(tensor, "scalar_type", None) != FLOAT32 for tensor in tensors.values()):
            raise MobileBilayerError(f"{where}: {plan.name} takes or gives what is not float32. Export it again.")
        takes, gives = ([tuple(tensors[i].sizes) for i in places] for places in (plan.inputs, plan.outputs))
        methods[plan.name] = FileMethod(takes, gives, list(plan.inputs), list(plan.outputs), calls, operators)
    return methods


def check_program(data: bytes, specs: dict[str, MethodSpec], delegate: str, where: str) -> dict[str, FileMethod]:
    """The file's methods, if they are what its manifest says.

    Raises MobileBilayerError for a missing method, another shape, another backend or an operator that is outside the
    delegate and not named.
    """
    methods = read_program(data, where)
    for name, spec in specs.items():
        if name not in methods:
            raise MobileBilayerError(f"{where}: the program lacks {name}. Export it again.")
        method = methods[name]
        for kind, got, wanted in (("takes", method.takes, spec.inputs), ("gives", method.gives, spec.outputs)):
            if got != [tensor.shape for tensor in wanted]:
                raise MobileBilayerError(
                    f"{where}: the program's {name} {kind} {got}, its manifest says {[t.shape for t in wanted]}. Export it again."
                )
        if {call.backend for call in method.calls} != {delegate}:
            found = ", ".join(sorted({call.backend for call in method.calls})) or "no backend"
            raise MobileBilayerError(f"{where}: {name} is made for {found}; it must be {delegate}. Export it again.")
        named = {
            ".".join(operator.split(".")[:2]) for operator in spec.undelegated
        }  # a file says `out` for the overload
        unnamed = sorted(set(method.operators) - named)
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
            if len(method.calls) != 1 or method.operators:
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

    def run(self, method: str, *arrays: np.ndarray) -> list[np.ndarray]:
        """Outputs of a method, float32."""
        about = self._methods[method]
        program, inputs, outputs = self._programs[method]
        values = dict(zip(about.inputs, arrays, strict=True))
        places = about.calls[0].places
        got = program.run({name: values[place] for name, place in zip(inputs, places, strict=False)})
        values |= {place: got[name] for name, place in zip(outputs, places[len(inputs) :], strict=True)}
        return [values[place] for place in about.outputs]
