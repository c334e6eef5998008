"""A saved Core ML program, computed in torch: what the file says, operator by operator, on any machine.

Core ML itself runs on Apple's systems only, and a conversion that succeeds may still be wrong. So an export is loaded
again from its files and computed here. Values of type fp16 are rounded to it after each operator, so that overflow
and NaN show; sums inside an operator are kept in float32, as Apple does not say how each of its chips adds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mobile_bilayer.export.coreml_tools import coremltools, quietly
from torch import Tensor
from torch.nn import functional as F

from mobile_bilayer.errors import MobileBilayerError

OPERATORS: dict[str, Callable[..., Any]] = {}
"""By the name of a MIL operator: a function of that operator's own inputs, by their own names."""
IOS_OF = {6: 15, 7: 16, 8: 17, 9: 18, 10: 26}  # of a specification's version: the oldest that reads it
TORCH_TYPES = {"int8": torch.int8, "uint8": torch.uint8, "int16": torch.int16, "int32": torch.int32, "bool": torch.bool}


def operator(name: str) -> Callable[[Callable], Callable]:
    """Decorator: this is how `name` is computed."""

    def register(function: Callable) -> Callable:
        OPERATORS[name] = function
        return function

    return register


# Constants arrive as they are written: strings, numbers and arrays. `_list` and `_tensor` make of them what torch takes.
def _list(values: Any) -> list[int]:
    return [int(v) for v in np.asarray(values).reshape(-1)]


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    array = np.asarray(value)
    return torch.from_numpy(array.astype(np.float32) if array.dtype.kind == "f" else array.copy())


OPERATORS |= {
    "add": lambda x, y: _tensor(x) + _tensor(y),
    "sub": lambda x, y: _tensor(x) - _tensor(y),
    "mul": lambda x, y: _tensor(x) * _tensor(y),
    "real_div": lambda x, y: _tensor(x) / _tensor(y),
    "maximum": lambda x, y: torch.maximum(_tensor(x), _tensor(y)),
    "minimum": lambda x, y: torch.minimum(_tensor(x), _tensor(y)),
    "exp": torch.exp,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "identity": lambda x: x,
    "cast": lambda x, dtype: x,  # every output is given its type below
}


@operator("clip")
def _clip(x: Tensor, alpha: float, beta: float) -> Tensor:
    return x.clamp(float(alpha), float(beta))


@operator("conv")
def _conv(
    x: Tensor, weight: Any, strides: Any, pad_type: str, pad: Any, dilations: Any, groups: int, bias: Any = None
) -> Tensor:
    return F.conv2d(
        _padded(x, pad_type, pad),
        _tensor(weight),
        None if bias is None else _tensor(bias),
        _list(strides),
        0,
        _list(dilations),
        int(groups),
    )


def _padded(x: Tensor, pad_type: str, pad: Any) -> Tensor:
    if pad_type == "valid":
        return x
    if pad_type != "custom":
        raise MobileBilayerError(f"The evaluator does not know the padding {pad_type!r}.")
    top, bottom, left, right = _list(pad)
    return F.pad(x, (left, right, top, bottom))


@operator("avg_pool")
def _avg_pool(
    x: Tensor,
    kernel_sizes: Any,
    strides: Any,
    pad_type: str,
    pad: Any,
    exclude_padding_from_average: bool,
    ceil_mode: bool = False,
) -> Tensor:
    if ceil_mode or (exclude_padding_from_average and any(_list(pad))):
        raise MobileBilayerError("The evaluator knows no avg_pool with ceil_mode, or with a border left out.")
    return F.avg_pool2d(_padded(x, pad_type, pad), _list(kernel_sizes), _list(strides))


@operator("linear")
def _linear(x: Tensor, weight: Any, bias: Any = None) -> Tensor:
    return F.linear(x, _tensor(weight), None if bias is None else _tensor(bias))


@operator("matmul")
def _matmul(x: Any, y: Any, transpose_x: bool = False, transpose_y: bool = False) -> Tensor:
    x, y = _tensor(x), _tensor(y)
    return (x.transpose(-1, -2) if transpose_x else x) @ (y.transpose(-1, -2) if transpose_y else y)


@operator("upsample_bilinear")
def _upsample_bilinear(
    x: Tensor,
    scale_factor_height: float,
    scale_factor_width: float,
    align_corners: bool,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    if half_pixel_centers is not None and bool(half_pixel_centers) == bool(align_corners):
        raise MobileBilayerError("The evaluator knows no upsample_bilinear with corners and centres of pixels at once.")
    scale = (float(scale_factor_height), float(scale_factor_width))
    return F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=bool(align_corners))


@operator("pixel_shuffle")
def _pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    return F.pixel_shuffle(x, int(upscale_factor))


@operator("slice_by_index")
def _slice_by_index(
    x: Tensor,
    begin: Any,
    end: Any,
    stride: Any = None,
    begin_mask: Any = None,
    end_mask: Any = None,
    squeeze_mask: Any = None,
) -> Tensor:
    sides = range(x.ndim)
    begin, end = _list(begin), _list(end)
    steps = [1] * x.ndim if stride is None else _list(stride)
    whole_begin, whole_end, squeezed = (
        [False] * x.ndim if mask is None else _list(mask) for mask in (begin_mask, end_mask, squeeze_mask)
    )
    if min(steps) < 1 or any(squeezed):
        raise MobileBilayerError("The evaluator knows no slice_by_index backwards, or one that drops a side.")
    return x[
        tuple(slice(None if whole_begin[i] else begin[i], None if whole_end[i] else end[i], steps[i]) for i in sides)
    ]


@operator("split")
def _split(x: Tensor, axis: int, num_splits: int | None = None, split_sizes: Any = None) -> tuple[Tensor, ...]:
    sizes = x.shape[int(axis)] // int(num_splits) if split_sizes is None else _list(split_sizes)
    return torch.split(x, sizes, int(axis))


@operator("concat")
def _concat(values: Sequence[Any], axis: int, interleave: bool = False) -> Tensor:
    if interleave:
        raise MobileBilayerError("The evaluator knows no concat that interleaves.")
    return torch.cat([_tensor(v) for v in values], int(axis))


@operator("reshape")
def _reshape(x: Any, shape: Any) -> Tensor:
    return _tensor(x).reshape(_list(shape))


@operator("transpose")
def _transpose(x: Tensor, perm: Any) -> Tensor:
    return _tensor(x).permute(_list(perm))


@operator("expand_dims")
def _expand_dims(x: Tensor, axes: Any) -> Tensor:
    for axis in sorted(_list(axes)):
        x = x.unsqueeze(axis)
    return x


@operator("squeeze")
def _squeeze(x: Tensor, axes: Any) -> Tensor:
    return x.squeeze(_list(axes))


@operator("reduce_mean")
def _reduce_mean(x: Tensor, axes: Any, keep_dims: bool) -> Tensor:
    return x.mean(_list(axes), keepdim=bool(keep_dims))


def _along(values: Any, axis: Any, sides: int) -> Tensor:
    """A number, or one for each place along `axis`, as what can be multiplied with a tensor of so many sides."""
    values = _tensor(values).float()
    return values if values.ndim == 0 else values.reshape([-1 if i == int(axis) % sides else 1 for i in range(sides)])


@operator("quantize")
def _quantize(input: Tensor, scale: Any, output_dtype: str, zero_point: Any = 0, axis: Any = 0) -> Tensor:
    low, high = {"int8": (-128, 127), "uint8": (0, 255)}[output_dtype]
    steps = torch.round(input / _along(scale, axis, input.ndim)) + _along(zero_point, axis, input.ndim)
    return steps.clamp(low, high)


@operator("dequantize")
def _dequantize(input: Any, scale: Any, zero_point: Any = 0, axis: Any = 0) -> Tensor:
    values = _tensor(input).float()
    return (values - _along(zero_point, axis, values.ndim)) * _along(scale, axis, values.ndim)


@operator("constexpr_affine_dequantize")
def _affine_dequantize(quantized_data: Any, zero_point: Any, scale: Any, axis: Any) -> Tensor:
    return _dequantize(quantized_data, scale, zero_point, axis)


@operator("constexpr_lut_to_dense")
def _lut_to_dense(indices: Any, lut: Any, shape: Any) -> Tensor:
    lut = _tensor(lut)
    shape = _list(shape)
    width, count = (len(lut) - 1).bit_length(), int(np.prod(shape))
    bits = np.unpackbits(np.asarray(indices, np.uint8), bitorder="little")[: width * count].reshape(count, width)
    places = bits.astype(np.int64) @ (1 << np.arange(width))
    return lut[torch.from_numpy(places)].reshape(shape)


class MilProgram:
    """A saved package's program.

    ios       the oldest iOS that reads it
    inputs    shape of each input by name; a picture's is (1, 3, H, W)
    pictures  names of the inputs that are pictures, and their colours' order: "RGB" or "BGR"
    outputs   shape of each output by name
    operators names of all operators, constants left out

    Raises MobileBilayerError when there is an operator that is not known here.
    """

    def __init__(self, package: Path) -> None:
        ct = coremltools()
        from coremltools.converters.mil.frontend.milproto.load import load
        from coremltools.converters.mil.mil.types import builtin_to_string

        try:
            spec = ct.utils.load_spec(str(package))
            weights = package / "Data" / "com.apple.CoreML" / "weights"
            with quietly():
                program = load(spec, spec.specificationVersion, str(weights)).functions["main"]
        except Exception as error:  # protobuf's and coremltools' own, by what is damaged
            raise MobileBilayerError(f"{package.name} can't be read ({error}). Export or copy it again.") from error
        colours = ct.proto.FeatureTypes_pb2.ImageFeatureType
        self.name = package.name
        self.ios = IOS_OF.get(spec.specificationVersion)
        self.inputs = {name: tuple(var.shape) for name, var in program.inputs.items()}
        self.pictures = {
            put.name: colours.ColorSpace.Name(put.type.imageType.colorSpace)
            for put in spec.description.input
            if put.type.WhichOneof("Type") == "imageType"
        }
        self.outputs = {var.name: tuple(var.shape) for var in program.outputs}
        self._operations = program.operations
        self._type_name = builtin_to_string
        self.operators = sorted({op.op_type for op in self._operations} - {"const"})
        unknown = [name for name in self.operators if name not in OPERATORS]
        if unknown:
            raise MobileBilayerError(
                f"{self.name}: the evaluator does not know the operator {', '.join(unknown)}; nothing else here can tell "
                "whether the file is right. Add it to OPERATORS in export/mil_evaluator.py."
            )

    @torch.no_grad()
    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name, float32. A picture is given as a camera does: (H, W, 4) uint8, blue first, then alpha.

        Raises MobileBilayerError that names the operator whose value is the first to be infinite or not a number.
        """
        values: dict[str, Any] = {}
        for name, shape in self.inputs.items():
            array = inputs[name]
            if name in self.pictures:
                rgb = np.asarray(array)[:, :, [2, 1, 0]]
                array = (rgb if self.pictures[name] == "RGB" else rgb[:, :, ::-1]).transpose(2, 0, 1)[None]
            if array.shape != shape:
                raise MobileBilayerError(f"{self.name} takes {name} as {shape}; got {array.shape}.")
            values[name] = torch.from_numpy(array.astype(np.float32))
        for operation in self._operations:
            if operation.op_type == "const":
                values[operation.outputs[0].name] = operation.outputs[0].val
                continue
            arguments = {
                key: [values[v.name] for v in var] if isinstance(var, (list, tuple)) else values[var.name]
                for key, var in operation.inputs.items()
                if var is not None
            }
            results = OPERATORS[operation.op_type](**arguments)
            for var, result in zip(
                operation.outputs, results if isinstance(results, tuple) else (results,), strict=True
            ):
                values[var.name] = self._typed(result, var, operation)
        return {name: values[name].float().numpy() for name in self.outputs}

    def _typed(self, value: Tensor, var: Any, operation: Any) -> Tensor:
        """A result in the type that the program says it has: fp16 as float32 numbers that fp16 has."""
        kind = self._type_name(var.dtype)
        if kind in TORCH_TYPES:
            return value.to(TORCH_TYPES[kind])
        value = value.half().float() if kind == "fp16" else value.float()
        if not torch.isfinite(value).all():
            raise MobileBilayerError(
                f"{self.name}: {operation.name} ({operation.op_type}, {kind}) gives values that are infinite or not numbers."
            )
        return value
