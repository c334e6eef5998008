"""Where an exported program first goes wrong: its inner layers as more outputs, each held against the float student's."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from mobile_bilayer.export.backends import BACKENDS, CORE_ML_DELEGATE
from mobile_bilayer.export.coreml import choose_ios, convert
from mobile_bilayer.export.executorch import (
    INT8,
    EncodeAvatar,
    GraphProgram,
    RenderLayers,
    as_exported,
    export_for,
    export_methods,
    lower_exported,
)
from mobile_bilayer.export.mil_evaluator import MilProgram
from mobile_bilayer.export.program_file import DelegatedCoreML
from torch import Tensor, nn
from torch.export import ExportedProgram

from mobile_bilayer.batch_norm import BatchNorm
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.quantization.recipes import Recipe
from mobile_bilayer.runtime.executorch_file import read_program
from mobile_bilayer.runtime.manifest import METHODS, MethodSpec, TensorSpec
from mobile_bilayer.runtime.program import Program

# A layer is wrong when its error is more than this share of what it varies by. Inside S's int8 trunk 2 to 4 % are usual.
WRONG = {"fp32": 0.002, "fp16": 0.05}
WRONG_IN_FEW_BITS = 0.25
# Converters join these with the layer before, whose own values are then nowhere.
JOINED = (nn.modules.batchnorm._BatchNorm, BatchNorm, nn.ReLU, nn.ReLU6, nn.Hardtanh)
Run = Callable[[str, tuple[Tensor, ...]], list[np.ndarray]]
"""A method and its inputs: its outputs, those of the layers behind them."""


@dataclass
class Taps:
    """What the layers of one method gave in its last call, in the order in which they were done."""

    names: list[str] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def _drop(self, places: list[int]) -> None:
        for i in reversed(places):
            del self.names[i], self.values[i]

    def __deepcopy__(self, memo: dict) -> Taps:
        return self  # a copied network's hooks give to it, too

    def on(self, network: nn.Module) -> None:
        """Makes a network give what its layers give, behind its own outputs."""

        def keep(name: str) -> Callable[..., None]:
            def hook(layer: nn.Module, given: tuple, out: object) -> None:
                if isinstance(layer, JOINED):
                    self._drop([i for i, value in enumerate(self.values) if any(value is v for v in given)])
                known = [*self.values, *given]
                for place, value in enumerate(out if isinstance(out, tuple) else (out,)):
                    if isinstance(value, Tensor) and value.is_floating_point() and not any(value is v for v in known):
                        self.names.append(f"{name} ({type(layer).__name__}{f', output {place}' if place else ''})")
                        self.values.append(value)

            return hook

        def forget(*_: object) -> None:
            self.names.clear()
            self.values.clear()

        def give(layer: nn.Module, given: tuple, out: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            self._drop([i for i, value in enumerate(self.values) if any(value is v for v in out)])
            return (*out, *self.values)

        network.register_forward_pre_hook(forget)
        for name, layer in network.named_modules():
            if layer is not network:
                layer.register_forward_hook(keep(name))
        network.register_forward_hook(give)


def tapped(student: nn.Module) -> tuple[nn.Module, dict[str, Taps]]:
    """A copy of a student whose methods also give what their layers give."""
    taps = {name: Taps() for name in METHODS}
    student = copy.deepcopy(student)
    taps["encode_avatar"].on(student.encoder)
    taps["render_layers"].on(student.frame)
    return student, taps


def first_wrong(
    student: nn.Module,
    inputs: dict[str, list[tuple[Tensor, ...]]],
    calibration: dict[str, list[tuple[Tensor, ...]]],
    backend: str,
    precision: str,
    recipe: Recipe | None = None,
) -> str:
    """A sentence about the first layer that a program gets wrong: already in torch's graph, or not before it is lowered.

    student      the float student, of which the program is
    inputs       of each method, to compare on
    calibration  the same, to calibrate on

    It is exported once more, layers as outputs, which may by itself change how layers are joined.
    """
    student, taps = tapped(student)
    reference = as_exported(student, calibration, precision in INT8)
    about = BACKENDS.get(backend)
    if about is None:
        graphs = export_methods(student, calibration, precision in INT8, recipe)
    else:
        graphs = export_for(about, student, calibration, precision, recipe)
    stages: list[tuple[str, Callable[[], Run]]] = [("torch's graph, before it is lowered,", lambda: _of_graph(graphs))]
    if about is None:
        stages.append(("the Core ML program", lambda: _of_packages(graphs, precision, reference, inputs, taps)))
    elif about.runs_here or backend == CORE_ML_DELEGATE:
        stages.append((f"the program for {about.title.replace('The ', 'the ')}", lambda: _of_file(graphs, backend, precision, reference, inputs, taps)))
    right = ""
    for title, make in stages:
        try:
            found = _first(reference, make(), inputs, precision, taps)
        except (MobileBilayerError, RuntimeError, ValueError):  # XNNPACK does not run an int8 program whose layers are outputs
            return f"{right}Layer by layer {title} can't be looked at, as it does not run with its layers as outputs."
        if found:
            lowering = " So it is the lowering, which no calibration mends: see export/README.md." if right else ""
            return f"{right}Of {title} {found}{lowering}"
        right += f"Layer by layer {title} is right. "
    return f"{right}So the fault is where layers are joined, or it adds up over them."


def _first(
    reference: nn.Module, run: Run, inputs: dict[str, list[tuple[Tensor, ...]]], precision: str, taps: dict[str, Taps]
) -> str:
    """What the first wrong layer is; nothing if all are right."""
    most = WRONG.get(precision, WRONG_IN_FEW_BITS)
    for method, examples in inputs.items():
        errors: list[list[float]] = []
        for example in examples:
            wanted = _eager(reference, method, example)
            got = run(method, example)
            errors.append([_share(ours, theirs) for ours, theirs in zip(got, wanted, strict=True)])
        own = METHODS[method][1]
        mean = np.mean(errors, 0)
        names = [*taps[method].names, *own]
        ordered = [*mean[len(own) :], *mean[: len(own)]]  # outputs come last
        for place, (name, error) in enumerate(zip(names, ordered, strict=True)):
            if not error <= most:  # so that NaN is found as well
                before = f"; before it {names[place - 1]} is {ordered[place - 1]:.2%} off" if place else ""
                return f"{method} first goes wrong in {name}: {error:.1%} off{before}."
    return ""


def _eager(reference: nn.Module, method: str, example: tuple[Tensor, ...]) -> list[np.ndarray]:
    network = EncodeAvatar(reference.encoder) if method == "encode_avatar" else RenderLayers(reference.frame)
    with torch.no_grad():
        return [out.float().numpy() for out in network(*example)]


def _share(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The error, as a share of what the layer varies by."""
    if ours.shape != theirs.shape:
        return float("inf")
    error = np.sqrt(np.mean((ours.astype(np.float64) - theirs) ** 2))
    return float(error / max(theirs.std(), 1e-3 * np.abs(theirs).max(), 1e-6))


def _of_graph(graphs: dict[str, ExportedProgram]) -> Run:
    program = GraphProgram(graphs)
    return lambda method, example: program.run(method, *(x.numpy() for x in example))


def _outputs(
    reference: nn.Module, inputs: dict[str, list[tuple[Tensor, ...]]], taps: dict[str, Taps]
) -> dict[str, list[tuple[str, tuple[int, ...]]]]:
    """Of each method all outputs, those of layers under numbered names, and their shapes."""
    shapes = {method: [out.shape for out in _eager(reference, method, examples[0])] for method, examples in inputs.items()}
    names = {method: [*METHODS[method][1], *(f"layer_{i}" for i in range(len(taps[method].names)))] for method in inputs}
    return {method: list(zip(names[method], shapes[method], strict=True)) for method in inputs}


def _of_packages(
    graphs: dict[str, ExportedProgram],
    precision: str,
    reference: nn.Module,
    inputs: dict[str, list[tuple[Tensor, ...]]],
    taps: dict[str, Taps],
) -> Run:
    names = {method: [name for name, _ in outputs] for method, outputs in _outputs(reference, inputs, taps).items()}
    programs = {}
    with tempfile.TemporaryDirectory(prefix="mobile_bilayer.") as folder:
        for method, graph in graphs.items():
            package = Path(folder, f"{method}.mlpackage")
            files = convert(graph, METHODS[method][0], tuple(names[method]), precision, choose_ios(precision, None))
            for path, data in files.items():
                (package / path).parent.mkdir(parents=True, exist_ok=True)
                (package / path).write_bytes(data)
            programs[method] = MilProgram(package)

    def run(method: str, example: tuple[Tensor, ...]) -> list[np.ndarray]:
        got = programs[method].run({name: x.numpy() for name, x in zip(METHODS[method][0], example, strict=True)})
        return [np.asarray(got[name], np.float32) for name in names[method]]

    return run


def _of_file(
    graphs: dict[str, ExportedProgram],
    backend: str,
    precision: str,
    reference: nn.Module,
    inputs: dict[str, list[tuple[Tensor, ...]]],
    taps: dict[str, Taps],
) -> Run:
    data = lower_exported(graphs, BACKENDS[backend], precision).data
    where = "the program with its layers as outputs"
    if backend == CORE_ML_DELEGATE:
        program = DelegatedCoreML({method.name: method for method in read_program(data, where).methods}, where)
    else:
        specs = {
            method: MethodSpec(
                tuple(TensorSpec(name, tuple(x.shape)) for name, x in zip(METHODS[method][0], inputs[method][0], strict=True)),
                tuple(TensorSpec(name, tuple(shape)) for name, shape in outputs),
            )
            for method, outputs in _outputs(reference, inputs, taps).items()
        }
        program = Program(data, specs, backend, where)
    return lambda method, example: program.run(method, *(x.numpy() for x in example))


