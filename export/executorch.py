"""A student as an ExecuTorch program: lowered to XNNPACK, the trunks in int8 if asked for."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from torch import Tensor, nn

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.quantization.calibrate import check_examples, int8_convolutions, quantize, refuse_int8_outside
from mobile_bilayer.quantization.equalize import equalized
from mobile_bilayer.quantization.recipes import Recipe
from mobile_bilayer.runtime.manifest import METHODS
from mobile_bilayer.student.network import AvatarEncoder, FrameNetwork, FrameTrunk, Student

PRECISIONS = ("fp32", "int8")
# Operators that may stay outside the delegate, and why. Today none needs to.
EXPLAINED: dict[str, str] = {}


class EncodeAvatar(nn.Module):
    """The method that a phone calls once a photo."""

    def __init__(self, encoder: AvatarEncoder) -> None:
        super().__init__()
        self.network = encoder

    def forward(self, image: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(self.network(image, landmarks))


class RenderLayers(nn.Module):
    """The method that a phone calls every frame."""

    def __init__(self, frame: FrameNetwork) -> None:
        super().__init__()
        self.network = frame

    def forward(
        self, landmark_features: Tensor, map_features: Tensor, source_landmarks: Tensor, landmarks: Tensor
    ) -> tuple[Tensor, Tensor]:
        return tuple(self.network(landmark_features, map_features, source_landmarks, landmarks))


@dataclass(frozen=True)
class Lowered:
    """A program and what stayed outside the delegate: operator names by method."""

    data: bytes
    undelegated: dict[str, list[str]]


def export_methods(
    student: Student,
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
    if quantized and isinstance(student.frame.trunk, FrameTrunk) and "render_layers" in methods:
        student = equalized(student, calibration["render_layers"])
    modules = {"encode_avatar": EncodeAvatar(student.encoder), "render_layers": RenderLayers(student.frame)}
    exported = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch and executorch
        for name in methods:
            # An example's memory layout becomes the program's: a permuted picture would bake in its strides.
            inputs = [tuple(x.contiguous() for x in example) for example in calibration[name]]
            exported[name] = torch.export.export(modules[name].eval(), inputs[0])
            if quantized:
                if not int8_convolutions(exported[name].graph_module):
                    exported[name] = torch.export.export(
                        quantize(exported[name].module(), inputs, recipe, name), inputs[0]
                    )
                refuse_int8_outside(exported[name].graph_module, recipe, name)
    return exported


def lower(
    student: Student,
    calibration: dict[str, list[tuple[Tensor, ...]]],
    precision: str,
    recipe: Recipe | None = None,
    methods: tuple[str, ...] = tuple(METHODS),
    explained: Mapping[str, str] = EXPLAINED,
) -> Lowered:
    """Export, quantize on real inputs, and lower the methods into one program.

    student      one whose trunks are int8 already, as quantization-aware training leaves them, keeps its ranges
    calibration  inputs of each method, at least one; the first also fixes the shapes
    precision    "fp32" or "int8"
    recipe       what becomes int8; by default what ships
    explained    operators that may stay outside the delegate

    Raises MobileBilayerError when an operator stays outside the delegate without an explanation, or int8 was asked for
    and nothing became int8.
    """
    if precision not in PRECISIONS:
        raise MobileBilayerError(f"The precision is {precision!r}; it must be one of {', '.join(PRECISIONS)}.")
    exported = export_methods(student, calibration, precision == "int8", recipe, methods)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch and executorch
        edge = to_edge_transform_and_lower(exported, partitioner={name: [XnnpackPartitioner()] for name in exported})
        undelegated = {name: _outside(edge.exported_program(name).graph_module) for name in exported}
        for name, operators in undelegated.items():
            unexplained = sorted(set(operators) - set(explained))
            if unexplained:
                raise MobileBilayerError(
                    f"{name}: XNNPACK does not take {', '.join(unexplained)}. Rewrite them in the network, or explain them in EXPLAINED."
                )
        return Lowered(edge.to_executorch().buffer, undelegated)


def _outside(graph: torch.fx.GraphModule) -> list[str]:
    names = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    return [n for n in (_short(name) for name in names) if n not in ("executorch_call_delegate", "getitem")]


def _short(target: str) -> str:
    if "getitem" in target:
        return "getitem"
    return target.split("EdgeOpOverload: ")[-1].split(">")[0]
