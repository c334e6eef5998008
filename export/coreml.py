"""A student as Core ML packages, one for each method.

Two packages, not one with two functions: those need iOS 18, and Xcode makes a Swift class of each package. Landmarks,
prior and heads stay float32, the trunk between them is fp16: all in fp16 the flow is up to 0.013 from the float
student's on real frames, which is 1.7 pixels of 256; so it is 0.0007.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from mobile_bilayer.export.coreml_tools import IOS, OLDEST_IOS, coremltools, quietly
from mobile_bilayer.export.executorch import explained_failure, export_methods
from torch import Tensor, nn
from torch.export import ExportedProgram

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.quantization.recipes import Recipe
from mobile_bilayer.runtime.manifest import METHODS

PRECISIONS = tuple(OLDEST_IOS)
# Layers with fewer weights hold a tenth of S's. They take six bits where the others take four: the packages are 3 % larger, and of
# 27 people the flow is off by 0.18 pixels, 3.4 in the worst spot, in place of 0.33 and 7.7.
SMALL_LAYER, LEAST_BITS_OF_SMALL = 30_000, 6


@dataclass(frozen=True)
class Packages:
    """Both methods' packages: content by path, as "render_layers.mlpackage/Manifest.json", and the oldest iOS."""

    files: dict[str, bytes]
    ios: int


def choose_ios(precision: str, ios: int | None) -> int:
    """The iOS to convert for: the oldest that has the operators, or the one that was asked for.

    Raises MobileBilayerError, before any work, when that one is too old or unknown.
    """
    oldest = OLDEST_IOS[precision]
    if ios is None:
        return oldest
    if ios < oldest or ios not in IOS:
        raise MobileBilayerError(
            f"A Core ML program in {precision} can't be made for iOS {ios}: it needs iOS {oldest} at least, and iOS "
            f"{max(IOS)} is the newest known here. Leave the target out, or give iOS {oldest}."
        )
    return ios


def ios_needed(operators: list[str]) -> tuple[int, str]:
    """The oldest iOS that has all of these operators, and the operator that asks for it."""
    coremltools()
    from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry

    first = {name: min(int(version) for version in SSAOpRegistry.core_ops[name]) for name in operators}
    newest = max(operators, key=first.__getitem__)
    return max(first[newest], 6) + 9, newest  # opset 6 came with iOS 15


def refuse_newer(operators: list[str], ios: int) -> None:
    """Raises MobileBilayerError that names an operator which `ios` lacks."""
    needed, operator = ios_needed(operators)
    if needed > ios:
        raise MobileBilayerError(
            f"The program uses {operator}, which needs iOS {needed}; it was to be for iOS {ios}. Convert for iOS {needed}."
        )


def convert_student(
    student: nn.Module,
    calibration: dict[str, list[tuple[Tensor, ...]]],
    precision: str,
    ios: int | None = None,
    image_input: bool = False,
    recipe: Recipe | None = None,
) -> Packages:
    """Both methods of a student as packages.

    calibration  inputs of each method, at least one; the first also fixes the shapes
    precision    "fp16", "w8a8" (the graph that ExecuTorch's int8 has), "w8" (weights alone), "palettized6" or "palettized4"
    ios          to convert for; by default the oldest that has the operators
    image_input  encode_avatar takes a picture (RGB; Core ML makes it of a camera's 32BGRA), not numbers in [0, 1]
    recipe       of "w8a8": what becomes int8; by default what ships

    Raises MobileBilayerError when the machine, the precision or the target can't be.
    """
    if precision not in PRECISIONS:
        raise MobileBilayerError(f"The precision is {precision!r}; it must be one of {', '.join(PRECISIONS)}.")
    ios = choose_ios(precision, ios)
    coremltools()
    files: dict[str, bytes] = {}
    exported = export_methods(student, calibration, precision == "w8a8", recipe)
    for name, program in exported.items():
        pictures = ("image",) if image_input and name == "encode_avatar" else ()
        with explained_failure(f"{name} can't be made a Core ML package"):
            package = convert(program, *METHODS[name], precision, ios, pictures)
        files |= {f"{name}.mlpackage/{path}": data for path, data in package.items()}
    return Packages(files, ios)


def convert(
    program: ExportedProgram,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    precision: str,
    ios: int,
    pictures: tuple[str, ...] = (),
) -> dict[str, bytes]:
    """One package's files. Inputs named in `pictures` are RGB pictures, scaled to the [0, 1] that the program takes.

    Raises MobileBilayerError when an operator needs a newer iOS than `ios`.
    """
    ct = coremltools()
    with quietly():
        kinds = [
            ct.ImageType(
                name=name, shape=(1, 3, *_side(program, place)), scale=1 / 255, color_layout=ct.colorlayout.RGB
            )
            if name in pictures
            else ct.TensorType(name=name, dtype=np.float32)  # from iOS 16 on they would be fp16, landmarks too
            for place, name in enumerate(inputs)
        ]
        model = ct.convert(
            program.run_decompositions({}),
            inputs=kinds,
            outputs=[ct.TensorType(name=name, dtype=np.float32) for name in outputs],
            minimum_deployment_target=ct.target[f"iOS{ios}"],
            compute_precision=ct.transform.FP16ComputePrecision(op_selector=between_convolutions()),
            skip_model_load=True,
        )
        if precision.startswith("palettized"):
            model = _palettized(ct, model, int(precision[-1]))
        if precision == "w8":
            model = _with_int8_weights(ct, model)
    operators = {operation.op_type for operation in model._mil_program.functions["main"].operations} - {"const"}
    refuse_newer(sorted(operators), ios)
    with tempfile.TemporaryDirectory() as folder, quietly():
        package = Path(folder) / "method.mlpackage"
        model.save(str(package))
        return {
            file.relative_to(package).as_posix(): file.read_bytes()
            for file in sorted(package.rglob("*"))
            if file.is_file() and file.name != "executorch_debug_handle_mapping.json"  # no phone reads it
        }


def _palettized(ct: Any, model: Any, bits: int) -> Any:
    """Weights of few values, but for the heads', which are float32, and never fewer than `LEAST_BITS_OF_SMALL` in small layers."""
    usual, of_small = (ct.optimize.coreml.OpPalettizerConfig(mode="kmeans", nbits=n) for n in (bits, max(bits, LEAST_BITS_OF_SMALL)))
    config = _of_convolutions(ct, model, lambda weights: of_small if weights < SMALL_LAYER else usual)
    return ct.optimize.coreml.palettize_weights(model, config)


def _with_int8_weights(ct: Any, model: Any) -> Any:
    """Weights in int8, each output channel with a scale of its own, but for the heads'; what is computed stays fp16."""
    int8 = ct.optimize.coreml.OpLinearQuantizerConfig(mode="linear_symmetric", dtype=np.int8)
    return ct.optimize.coreml.linear_quantize_weights(model, _of_convolutions(ct, model, lambda _: int8))


def _of_convolutions(ct: Any, model: Any, choose: Callable[[int], Any]) -> Any:
    """What `choose` says of how many weights a convolution has; None of the heads, which are float32, and of all that is none."""
    of_layers = {}
    for op in model._mil_program.functions["main"].find_ops(op_type="conv"):
        of_layers[op.name] = None if op.outputs[0].is_tensor_or_scalar_of("fp32") else choose(op.weight.val.size)
    return ct.optimize.coreml.OptimizationConfig(op_name_configs=of_layers)


def _side(program: ExportedProgram, place: int) -> tuple[int, int]:
    name = program.graph_signature.user_inputs[place]
    value = next(node.meta["val"] for node in program.graph.nodes if node.name == name)
    return tuple(int(n) for n in value.shape[2:])


def between_convolutions() -> Callable[[Any], bool]:
    """Whether an operator is fp16: those from the first convolution to the last but one, which is the trunk.

    Heads are the convolutions that no other one reads.
    """

    @cache
    def after(operation: Any) -> bool:
        if operation.op_type in ("conv", "quantize"):
            return True
        return any(after(made) for made in _makers(operation))

    @cache
    def before(operation: Any) -> bool:
        readers = [reader for var in operation.outputs for reader in var.child_ops]
        return any(reader.op_type == "conv" or before(reader) for reader in readers)

    return lambda operation: after(operation) and before(operation)


def _makers(operation: Any) -> list[Any]:
    values = [v for put in operation.inputs.values() for v in (put if isinstance(put, (list, tuple)) else [put])]
    return [value.op for value in values if value is not None and value.op is not None]
