"""What pays per millisecond through XNNPACK: layers, heads, splats and whole frame networks, in float and in int8.

    python benchmarks/design_search.py -o benchmarks/DESIGN_SEARCH.md

One thread. Milliseconds are of one machine, the ratios beside them travel a little further: int8 pays where the processor
multiplies bytes (AVX-VNNI, AVX-512 VNNI, Arm dot product), which the table's head says of the machine that made it.
"""

from __future__ import annotations

import os
import platform
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import torch
import typer
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mobile_bilayer.batch_norm import BatchNorm
from mobile_bilayer.pose.head import POINTS
from mobile_bilayer.student.network import SIZES, WHOLE, FrameNetwork, Separable, StudentConfig, Upsample, conv, mix
from mobile_bilayer.student.splat import gaussians, pixel_centres, splat, square_offsets

DOT_PRODUCTS = ("avx512_vnni", "avx_vnni", "asimddp", "i8mm", "amx_int8")


@dataclass(frozen=True)
class Variant:
    """Something to be timed.

    float_only  its int8 is of no interest: the part stays float in every student
    """

    group: str
    name: str
    module: nn.Module
    inputs: tuple[Tensor, ...]
    float_only: bool = False


class Trunk(nn.Module):
    """A module where the quantizer of `export` looks for the trunk, which is what it makes int8."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.network = nn.Module()
        self.network.trunk = module

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.network.trunk(*inputs)


class Frame(nn.Module):
    """A whole frame network, trunk in int8 where asked for."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.network = FrameNetwork(config)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(self.network(*inputs))


class Part(nn.Module):
    """A function of tensors, and the modules that it uses."""

    def __init__(self, function: Callable[..., Tensor], *modules: nn.Module) -> None:
        super().__init__()
        self.function, self.used = function, nn.ModuleList(modules)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


def separable(width: int, kernel: int) -> nn.Sequential:
    """Depthwise and 1x1 convolution, each with norm and ReLU."""
    depthwise = nn.Conv2d(width, width, kernel, padding=kernel // 2, groups=width, bias=False)
    return nn.Sequential(depthwise, BatchNorm(width), nn.ReLU(), mix(width, width), nn.ReLU())


def layers() -> Iterator[Variant]:
    for width, side in ((16, 64), (32, 32), (64, 16), (80, 8)):
        x = (torch.randn(1, width, side, side),)
        blocks = {
            "dense 3x3": lambda w=width: conv(w, w),
            "depthwise 3x3 + 1x1": lambda w=width: separable(w, 3),
            "depthwise 5x5 + 1x1": lambda w=width: separable(w, 5),
        }
        for name, block in blocks.items():
            yield Variant(f"4 layers, {width} channels, {side} px", name, nn.Sequential(*(block() for _ in range(4))), x)


def heads(width: int = 16, paint: int = 12) -> Iterator[Variant]:
    """Layers of 16 channels at 64 px to the flow, gate and mask, and to lf."""
    x = (torch.randn(1, width, 64, 64),)
    group = f"heads of {width} channels"
    flow, narrow, both = (nn.Conv2d(width, n, 3, padding=1) for n in (4, 7, 16))
    separable = Separable(width, 16)
    squeeze, up, at128 = mix(width, paint), Upsample(64), nn.Conv2d(paint, 3, 3, padding=1)
    turned = nn.ConvTranspose2d(width, 3, 2, 2)

    def painted(a: Tensor) -> tuple[Tensor, Tensor]:
        return flow(a), at128(torch.relu(up(squeeze(a))))

    def shuffled(a: Tensor, layer: nn.Module = both) -> tuple[Tensor, Tensor]:
        out = layer(a)
        return out[:, :4], nn.functional.pixel_shuffle(out[:, 4:], 2)

    yield Variant(group, "lf at 64 px", Part(narrow, narrow), x, True)
    yield Variant(group, "lf at 128 px, pixel shuffle", Part(shuffled, both), x, True)
    yield Variant(group, "lf at 128 px, pixel shuffle, separable", Part(lambda a: shuffled(a, separable), separable), x, True)
    yield Variant(group, "lf at 128 px, transposed 2x2", Part(lambda a: (flow(a), turned(a)), flow, turned), x, True)
    yield Variant(group, f"lf at 128 px, {paint} channels there", Part(painted, flow, squeeze, up, at128), x, True)


def splats() -> Iterator[Variant]:
    for points, channels, side in (
        (POINTS, 8, 64), (POINTS, 8, 32), (POINTS, 33, 32), (POINTS, 45, 32), (POINTS, 33, 64), (68, 33, 32), (478, 33, 32),
    ):  # fmt: skip
        centres = pixel_centres(side)
        inputs = torch.rand(1, channels, points), torch.rand(1, 2, points) * 2 - 1
        part = Part(lambda v, p, c=centres: splat(v, *gaussians(square_offsets(p, c), 100.0)))
        yield Variant("splat", f"{points} points, {channels} channels, {side} px", part, inputs, True)


def networks() -> Iterator[Variant]:
    shapes = SIZES | WHOLE
    shapes["S, 24 channels at 32 px, 48 at 16 px"] = replace(SIZES["S"], frame_widths=(16, 24, 48, 64))
    shapes["S-whole, painted at 128 px"] = replace(WHOLE["S-whole"], paint_width=12)
    shapes["S, without lids and mouth"] = replace(SIZES["S"], sigma_lid=0.0, sigma_mouth=0.0)
    for name, config in shapes.items():
        points = torch.rand(1, POINTS, 2) - 0.5
        features = torch.randn(1, POINTS, config.features + 3), torch.randn(1, config.frame_widths[1], 32, 32)
        yield Variant("frame network", name, Frame(config), (*features, points, 0.9 * points))


def lower(module: nn.Module, inputs: tuple[Tensor, ...], int8: bool) -> bytes:
    """The module as an ExecuTorch program for XNNPACK."""
    from mobile_bilayer.export.backends import BACKENDS
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    from mobile_bilayer.quantization.recipes import RecipeQuantizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch and executorch
        exported = torch.export.export(module.eval(), inputs)
        if int8:
            prepared = prepare_pt2e(exported.module(), RecipeQuantizer())
            with torch.no_grad():
                prepared(*inputs)
            exported = torch.export.export(convert_pt2e(prepared), inputs)
        return BACKENDS["xnnpack"].to_edge({"forward": exported}, "int8" if int8 else "fp32", None).to_executorch().buffer


def median_ms(program: bytes, inputs: tuple[Tensor, ...], rounds: int) -> float:
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(program).load_method("forward")
    times = []
    for _ in range(rounds + 3):
        begun = time.perf_counter()
        method.execute(list(inputs))
        times.append(time.perf_counter() - begun)
    return 1000 * float(np.median(times[3:]))


def macs(module: nn.Module, inputs: tuple[Tensor, ...]) -> float:
    """Multiplications of convolutions and matrix products; of a program, where upsampling is none."""
    exporting, torch.compiler.is_exporting = torch.compiler.is_exporting, lambda: True
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module.eval()(*inputs)
    finally:
        torch.compiler.is_exporting = exporting
    return counter.get_total_flops() / 2


def machine() -> str:
    try:
        flags = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        flags = ""
    found = [flag for flag in DOT_PRODUCTS if flag in flags]
    name = next((line.split(":")[1].strip() for line in flags.splitlines() if line.startswith("model name")), platform.processor())
    return f"{platform.machine()}, {name or 'unknown'}, one thread; int8 dot product: {', '.join(found) or 'none'}"


def row(variant: Variant, rounds: int) -> str:
    """A line of the table."""
    module = variant.module
    count = macs(module, variant.inputs)
    alone = module if isinstance(module, (Frame, Part)) else Trunk(module)
    in_float = median_ms(lower(alone, variant.inputs, int8=False), variant.inputs, rounds)
    cells = [variant.group, variant.name, f"{count / 1e6:.1f}", f"{in_float:.2f}", f"{count / in_float / 1e6:.1f}"]
    if variant.float_only:
        cells += ["", "", ""]
    else:
        in_int8 = median_ms(lower(alone, variant.inputs, int8=True), variant.inputs, rounds)
        cells += [f"{in_int8:.2f}", f"{count / in_int8 / 1e6:.1f}", f"{in_float / in_int8:.2f}"]
    return "| " + " | ".join(cells) + " |"


def main(
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Markdown file to write.")] = None,
    rounds: Annotated[int, typer.Option(help="Runs of each, of which the median is taken.")] = 60,
    only: Annotated[str, typer.Option(help="Groups that begin so.")] = "",
) -> None:
    """Time every variant through ExecuTorch's XNNPACK, one after the other."""
    from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool

    _unsafe_reset_threadpool(1)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    lines = [
        f"Made by `python benchmarks/design_search.py`: {machine()}.",
        "",
        "| group | variant | MMACs | float ms | GMAC/s | int8 ms | GMAC/s | float / int8 |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines))
    for variants in (layers(), heads(), splats(), networks()):
        for variant in variants:
            if variant.group.startswith(only):
                lines.append(row(variant, rounds))
                print(lines[-1], flush=True)
    if output is not None:
        from mobile_bilayer.capture.images import written_aside

        text = output.read_text("utf-8") if output.exists() else "# What pays per millisecond\n\n"
        with written_aside(output) as aside:  # what was written above the table stays
            aside.write_text(text.split("Made by `python")[0] + "\n".join(lines) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
