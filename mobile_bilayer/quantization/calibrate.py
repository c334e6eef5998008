"""Post-training quantization of an exported method: calibrated on real inputs, or refused."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchao.quantization.pt2e import FakeQuantizeBase, ObserverBase
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.quantization.recipes import Recipe, RecipeQuantizer

FEW = 16  # different examples; with fewer, ranges are of a few faces
QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default
DEQUANTIZES = ("quantized_decomposed.dequantize_per_tensor", "quantized_decomposed.dequantize_per_channel")

Example = tuple[Tensor, ...]


def check_examples(examples: Sequence[Example], method: str, warn: bool = True) -> None:
    """Refuses none, warns of few different ones."""
    if not examples:
        raise MobileBilayerError(f"There is nothing to calibrate {method} on; give it prepared clips.")
    if not warn:
        return
    digests = {
        hashlib.sha256(b"".join(x.contiguous().numpy().tobytes() for x in example)).digest() for example in examples
    }
    if len(digests) < FEW:
        warnings.warn(
            f"{method} is calibrated on {len(digests)} different examples (of {len(examples)}): other faces may be clipped. "
            f"Give it {FEW} or more, of several people.",
            stacklevel=2,
        )


def quantize(graph: nn.Module, examples: Sequence[Example], recipe: Recipe, method: str) -> torch.fx.GraphModule:
    """The module of an exported method (`torch.export.export(..).module()`) with a recipe's parts in int8.

    Raises MobileBilayerError when an observer saw nothing, or nothing became int8.
    """
    # The encoder runs once a photo: its rounding does not flicker.
    prepared = prepare_pt2e(graph, RecipeQuantizer(recipe, float_sums=method != "encode_avatar"))
    with torch.no_grad():
        for example in examples:
            prepared(*example)
    refuse_unseen(prepared, method)
    converted = convert_pt2e(prepared)
    refuse_float(converted, recipe, method)
    return converted


def refuse_unseen(prepared: torch.fx.GraphModule, method: str) -> None:
    """An observer that saw nothing, or no number, has no range; converted, it would give garbage."""
    modules = dict(prepared.named_modules())
    for node in prepared.graph.nodes:
        observer = modules.get(node.target) if node.op == "call_module" else None
        if isinstance(observer, FakeQuantizeBase):
            observer = observer.activation_post_process
        if not isinstance(observer, ObserverBase) or not hasattr(observer, "min_val"):
            continue
        seen = torch.stack([observer.min_val.flatten(), observer.max_val.flatten()])
        if not seen.numel() or not seen.isfinite().all():
            raise MobileBilayerError(
                f"{method}: the range of {layer_of(node.args[0])} is {seen.tolist()} after calibration: it saw nothing, or no "
                "number. Calibrate on inputs that reach it, and look for NaN in the weights."
            )


def layer_of(node: torch.fx.Node) -> str:
    """A node's name and the module that it comes from."""
    paths = [str(path) for path, _ in node.meta.get("nn_module_stack", {}).values()]
    module = paths[-1].split("network.")[-1] if paths else ""
    return f"{module} ({node.name})" if module else node.name


def int8_convolutions(graph: torch.fx.GraphModule) -> int:
    """Convolutions and linear layers that take int8 values and int8 weights."""

    def is_int8(argument: object) -> bool:
        return isinstance(argument, torch.fx.Node) and str(argument.target).startswith(DEQUANTIZES)

    layers = [n for n in graph.graph.nodes if any(word in str(n.target) for word in ("aten.conv", "aten.linear"))]
    return sum(is_int8(layer.args[0]) and is_int8(layer.args[1]) for layer in layers)


def refuse_float(graph: torch.fx.GraphModule, recipe: Recipe, method: str) -> None:
    """A float graph must not be called int8."""
    if int8_convolutions(graph) == 0:
        raise MobileBilayerError(
            f"{method}: nothing became int8, no module is called {' or '.join(recipe.int8)}. Name modules that have "
            "convolutions, or export fp32."
        )


def refuse_int8_outside(graph: torch.fx.GraphModule, recipe: Recipe, method: str) -> None:
    """A quantized value either comes from the recipe's modules or goes into them. Landmarks, prior and flow never are."""
    for node in graph.graph.nodes:
        if node.target != QUANTIZE or recipe.holds(node.args[0]):
            continue
        readers = [reader for dequantized in node.users for reader in dequantized.users]
        if not all(recipe.holds(reader) for reader in readers):
            raise MobileBilayerError(
                f"{method}: {node.args[0]} would be int8 outside the {' and '.join(recipe.int8)}, and the flow would lose its "
                "sub-pixel steps."
            )
