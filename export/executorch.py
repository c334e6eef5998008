"""A student as an ExecuTorch program: lowered to XNNPACK, the trunks in int8 if asked for."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
from executorch.exir import to_edge_transform_and_lower
from torch import Tensor, nn
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, SharedQuantizationSpec

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.student.network import AvatarEncoder, FrameNetwork, Student

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


class TrunkQuantizer(XNNPACKQuantizer):
    """Int8 inside the trunk, upsampling included; landmarks, prior and heads stay float (the flow is sub-pixel)."""

    def __init__(self) -> None:
        super().__init__()
        self.set_global(get_symmetric_quantization_config(is_per_channel=True))
        self.set_filter_function(lambda node: node.op == "get_attr" or _in_trunk(node))  # weights name no module

    def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
        # Not super().annotate: it would carry int8 on through slices, into the flow.
        model = self._annotate_for_quantization_config(model)
        for node in model.graph.nodes:
            if node.op == "call_function" and not _in_trunk(node):
                node.meta.pop("quantization_annotation", None)  # concatenations pass the filter by
            if node.target == torch.ops.aten.upsample_bilinear2d.vec and _in_trunk(node):
                # The quantizer leaves it out, and the trunk would fall to pieces: its values keep their scale.
                source = node.args[0]
                made = source.meta.get("quantization_annotation")
                if made is not None and made.output_qspec is not None:
                    shared = SharedQuantizationSpec(source)
                    node.meta["quantization_annotation"] = QuantizationAnnotation(
                        input_qspec_map={source: shared}, output_qspec=SharedQuantizationSpec((source, node)), _annotated=True
                    )
        return model


def _in_trunk(node: torch.fx.Node) -> bool:
    return any(str(path).endswith("network.trunk") for path, _ in node.meta.get("nn_module_stack", {}).values())


@dataclass(frozen=True)
class Lowered:
    """A program and what stayed outside the delegate: operator names by method."""

    data: bytes
    undelegated: dict[str, list[str]]


def export_methods(
    student: Student, calibration: dict[str, list[tuple[Tensor, ...]]], quantized: bool
) -> dict[str, torch.export.ExportedProgram]:
    """Both methods as torch.export has them: float, or with the trunk quantized on the calibration inputs."""
    modules = {"encode_avatar": EncodeAvatar(student.encoder), "render_layers": RenderLayers(student.frame)}
    exported = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch and executorch
        for name, module in modules.items():
            if not calibration[name]:
                raise MobileBilayerError(f"There is nothing to calibrate {name} on; give it prepared clips.")
            # An example's memory layout becomes the program's: a permuted picture would bake in its strides.
            inputs = [tuple(x.contiguous() for x in example) for example in calibration[name]]
            exported[name] = torch.export.export(module.eval(), inputs[0])
            if quantized:
                prepared = prepare_pt2e(exported[name].module(), TrunkQuantizer())
                with torch.no_grad():
                    for example in inputs:
                        prepared(*example)
                converted = convert_pt2e(prepared)
                _refuse_int8_outside_the_trunk(converted, name)
                exported[name] = torch.export.export(converted, inputs[0])
    return exported


def lower(student: Student, calibration: dict[str, list[tuple[Tensor, ...]]], precision: str) -> Lowered:
    """Export, quantize on real inputs, and lower both methods into one program.

    calibration  inputs of each method, at least one; the first also fixes the shapes
    precision    "fp32" or "int8"

    Raises MobileBilayerError when an operator stays outside the delegate without an explanation.
    """
    if precision not in PRECISIONS:
        raise MobileBilayerError(f"The precision is {precision!r}; it must be one of {', '.join(PRECISIONS)}.")
    exported = export_methods(student, calibration, quantized=precision == "int8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch and executorch
        edge = to_edge_transform_and_lower(exported, partitioner={name: [XnnpackPartitioner()] for name in exported})
        undelegated = {name: _outside(edge.exported_program(name).graph_module) for name in exported}
        for name, operators in undelegated.items():
            unexplained = sorted(set(operators) - set(EXPLAINED))
            if unexplained:
                raise MobileBilayerError(
                    f"{name}: XNNPACK does not take {', '.join(unexplained)}. Rewrite them in the network, or explain them in EXPLAINED."
                )
        return Lowered(edge.to_executorch().buffer, undelegated)


def _refuse_int8_outside_the_trunk(graph: torch.fx.GraphModule, method: str) -> None:
    """A quantized value either comes from the trunk or goes into it. Landmarks, prior and flow never are."""
    for node in graph.graph.nodes:
        if str(node.target) != "quantized_decomposed.quantize_per_tensor.default" or _in_trunk(node.args[0]):
            continue
        readers = [reader for dequantized in node.users for reader in dequantized.users]
        if not all(_in_trunk(reader) for reader in readers):
            raise MobileBilayerError(
                f"{method}: {node.args[0]} would be int8 outside the trunk, and the flow would lose its sub-pixel steps."
            )


def _outside(graph: torch.fx.GraphModule) -> list[str]:
    names = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    return [n for n in (_short(name) for name in names) if n not in ("executorch_call_delegate", "getitem")]


def _short(target: str) -> str:
    if "getitem" in target:
        return "getitem"
    return target.split("EdgeOpOverload: ")[-1].split(">")[0]
