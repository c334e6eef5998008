"""A student as an ExecuTorch program: exported, its trunks in int8 or fp16 if asked for, and lowered to a backend."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from executorch.exir import EdgeProgramManager
from executorch.exir.lowered_backend_module import get_lowered_submodules
from mobile_bilayer.export.backends import BACKENDS, Backend
from mobile_bilayer.export.coreml_tools import quietly
from torch import Tensor, nn

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.quantization.calibrate import check_examples, int8_convolutions, quantize, refuse_int8_outside
from mobile_bilayer.quantization.equalize import equalized
from mobile_bilayer.quantization.recipes import Recipe
from mobile_bilayer.runtime.manifest import METHODS
from mobile_bilayer.student.network import FrameNetwork, FrameTrunk

PRECISIONS = BACKENDS["xnnpack"].precisions
INT8 = ("int8", "w8a8")  # one graph: ExecuTorch's word for it, and Core ML's
# Operators that may stay outside the delegate, and why. Today none needs to, in any backend.
EXPLAINED: dict[str, str] = {}
TORCH = Path(torch.__file__).parent


class EncodeAvatar(nn.Module):
    """The method that a phone calls once a photo."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.network = encoder

    def forward(self, image: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(self.network(image, landmarks))


class RenderLayers(nn.Module):
    """The method that a phone calls every frame."""

    def __init__(self, frame: nn.Module) -> None:
        super().__init__()
        self.network = frame

    def forward(
        self, landmark_features: Tensor, map_features: Tensor, source_landmarks: Tensor, landmarks: Tensor
    ) -> tuple[Tensor, Tensor]:
        return tuple(self.network(landmark_features, map_features, source_landmarks, landmarks))


@contextmanager
def explained_failure(what: str) -> Iterator[None]:
    """What a converter raises, as an error for people: a network of their own may hold anything."""
    try:
        yield
    except MobileBilayerError:
        raise
    except Exception as error:  # torch's, executorch's and coremltools' own, by what they don't know
        cause = error
        while cause.__cause__ is not None:  # a pass manager wraps what a pass says
            cause = cause.__cause__
        words = dict.fromkeys(f"{type(e).__name__}: {(str(e).strip() or 'no reason given').splitlines()[0][:300]}" for e in (error, cause))
        raise MobileBilayerError(
            f"{what}: {', from '.join(words)}. Rewrite that part of the network: export/README.md says how."
        ) from error


class HalfTrunk(nn.Module):
    """A trunk whose weights, and what they are multiplied with, are float16."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.half_trunk = trunk.half()

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        out = self.half_trunk(*(x.half() for x in inputs))
        return tuple(x.float() for x in out) if isinstance(out, tuple) else out.float()


def with_half_trunks(student: nn.Module) -> nn.Module:
    """A copy whose trunks are float16. Landmarks, prior and heads stay float32, near what Core ML's packages have."""
    half = copy.deepcopy(student)
    for part in (half.encoder, half.frame):
        if not isinstance(getattr(part, "trunk", None), nn.Module):
            raise MobileBilayerError(
                f"{type(part).__name__} has no submodule `trunk`, so nothing would be fp16. Name what may be small so, or "
                "export fp32."
            )
        part.trunk = HalfTrunk(part.trunk)
    return half


@dataclass(frozen=True)
class Lowered:
    """A program and what stayed outside the delegate: operator names by method. `delegated` counts those inside."""

    data: bytes
    undelegated: dict[str, list[str]]
    delegated: dict[str, int] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Of all operators of both methods, those in the delegate."""
        inside, outside = sum(self.delegated.values()), sum(map(len, self.undelegated.values()))
        return inside / max(inside + outside, 1)


class GraphProgram:
    """Graphs of torch, called like `Program`: what a program is lowered from."""

    def __init__(self, graphs: dict[str, torch.export.ExportedProgram]) -> None:
        self._modules = {name: graph.module() for name, graph in graphs.items()}

    @torch.no_grad()
    def run(self, method: str, *arrays: np.ndarray) -> list[np.ndarray]:
        """Outputs of a method, float32."""
        return [out.numpy() for out in self._modules[method](*map(torch.from_numpy, arrays))]


def as_exported(
    student: nn.Module, calibration: dict[str, list[tuple[Tensor, ...]]], quantized: bool
) -> nn.Module:
    """The float student as int8 needs it: the same outputs, channels of equal range inside. Another's network is left as it is."""
    if quantized and isinstance(student.frame, FrameNetwork) and isinstance(student.frame.trunk, FrameTrunk):
        return equalized(student, calibration["render_layers"])
    return student


def export_methods(
    student: nn.Module,
    calibration: dict[str, list[tuple[Tensor, ...]]],
    quantized: bool,
    recipe: Recipe | None = None,
    methods: tuple[str, ...] = tuple(METHODS),
) -> dict[str, torch.export.ExportedProgram]:
    """The methods as torch.export has them: float, or int8 where the recipe says so, calibrated on real inputs.

    Raises MobileBilayerError when int8 was asked for and nothing became int8.
    """
    recipe = recipe or Recipe()
    for name in methods:
        check_examples(calibration[name], name, quantized)
    if "render_layers" in methods:
        student = as_exported(student, calibration, quantized)
    modules = {"encode_avatar": EncodeAvatar(student.encoder), "render_layers": RenderLayers(student.frame)}
    exported = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch and executorch
        for name in methods:
            # An example's memory layout becomes the program's: a permuted picture would bake in its strides.
            inputs = [tuple(x.contiguous() for x in example) for example in calibration[name]]
            with explained_failure(f"{name} can't be made a graph"):
                exported[name] = torch.export.export(modules[name].eval(), inputs[0])
            if quantized:
                if not int8_convolutions(exported[name].graph_module):
                    with explained_failure(f"{name} can't be made int8"):
                        rounded = quantize(exported[name].module(), inputs, recipe, name)
                        exported[name] = torch.export.export(rounded, inputs[0])
                refuse_int8_outside(exported[name].graph_module, recipe, name)
    return exported


def lower(
    student: nn.Module,
    calibration: dict[str, list[tuple[Tensor, ...]]],
    precision: str,
    recipe: Recipe | None = None,
    methods: tuple[str, ...] = tuple(METHODS),
    explained: Mapping[str, str] = EXPLAINED,
    backend: str = "xnnpack",
) -> Lowered:
    """Export, quantize on real inputs, and lower the methods into one program.

    student      one whose frame trunk is int8 already, as quantization-aware training leaves them, keeps its ranges
    calibration  inputs of each method, at least one; the first also fixes the shapes
    precision    of the backend's
    recipe       what becomes int8; by default what ships
    explained    operators that may stay outside the delegate
    backend      of `BACKENDS`

    Raises MobileBilayerError when an operator stays outside the delegate without an explanation, or int8 was asked for
    and nothing became int8.
    """
    about = BACKENDS[backend]
    if precision not in about.precisions:
        raise MobileBilayerError(f"The precision is {precision!r}; it must be one of {', '.join(about.precisions)}.")
    exported = export_for(about, student, calibration, precision, recipe, methods)
    return lower_exported(exported, about, precision, explained)


def export_for(
    backend: Backend,
    student: nn.Module,
    calibration: dict[str, list[tuple[Tensor, ...]]],
    precision: str,
    recipe: Recipe | None = None,
    methods: tuple[str, ...] = tuple(METHODS),
) -> dict[str, torch.export.ExportedProgram]:
    """Both methods as graphs of torch, in the precision that they will have."""
    if precision == "fp16" and not backend.chooses_fp16:
        student = with_half_trunks(student)
    return export_methods(student, calibration, precision in INT8, recipe, methods)


def lower_exported(
    exported: dict[str, torch.export.ExportedProgram],
    backend: Backend,
    precision: str,
    explained: Mapping[str, str] = EXPLAINED,
    soc: str | None = None,
) -> Lowered:
    """Graphs of torch, lowered into one program."""
    with quietly():  # deprecations inside torch and executorch, and what partitioners have to say
        with explained_failure(f"{backend.title} can't be lowered for"):
            edge = backend.to_edge(exported, precision, soc)
        left = {name: _outside(edge.exported_program(name).graph_module) for name in exported}
        refused = {name: dict.fromkeys(_told(node) for node in nodes if _name(node) not in explained) for name, nodes in left.items()}
        if any(refused.values()):
            words = "; ".join(f"{name}: {backend.title} does not take {', '.join(told)}" for name, told in refused.items() if told)
            raise MobileBilayerError(f"{words}. Rewrite them in the network: export/README.md says how.")
        undelegated = {name: [_name(node) for node in nodes] for name, nodes in left.items()}
        return Lowered(edge.to_executorch().buffer, undelegated, {name: _inside(edge, name) for name in exported})


def _inside(edge: EdgeProgramManager, method: str) -> int:
    """Operators that the delegate took."""
    parts = get_lowered_submodules(edge.exported_program(method).graph_module)
    return sum(len(_operators(lowered.original_module.graph_module)) for _, lowered, _ in parts)


def _outside(graph: torch.fx.GraphModule) -> list[torch.fx.Node]:
    return [node for node in _operators(graph) if _name(node) != "executorch_call_delegate"]


def _operators(graph: torch.fx.GraphModule) -> list[torch.fx.Node]:
    return [node for node in graph.graph.nodes if node.op == "call_function" and _name(node) != "getitem"]


def _name(node: torch.fx.Node) -> str:
    return _short(str(node.target))


def _told(node: torch.fx.Node) -> str:
    """An operator's name, and the innermost line of the network's own code that led to it: not torch's, where that is known."""
    lines = re.findall(r'File "([^"]+)", line (\d+), in [^\n]*\n\s*([^\n]*)', node.meta.get("stack_trace") or "")
    own = [line for line in lines if not line[0].startswith("<") and not Path(line[0]).is_relative_to(TORCH)]
    if not own:
        return _name(node)
    file, number, code = own[-1]
    return f"{_name(node)} ({Path(file).name}, line {number}: {code.strip()[:80]})"


def _short(target: str) -> str:
    if "getitem" in target:
        return "getitem"
    return target.split("EdgeOpOverload: ")[-1].split(">")[0]
