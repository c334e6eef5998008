"""What students are compared with, as XNNPACK takes all of it: the full-size teacher, and a generator of the size of FOMM's."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from torch import Tensor, nn
from torch.nn import functional as F

from mobile_bilayer.runtime.executorch_file import quiet_runtime
from mobile_bilayer.teacher.blocks import AdaptiveBatchNorm, LevelParams, activate


def lowered(module: nn.Module, inputs: tuple[Tensor, ...]) -> bytes:
    """In float. Nothing may stay outside the delegate: it would be a comparison of kernels, not of networks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch and executorch
        edge = to_edge_transform_and_lower(
            torch.export.export(module.eval(), inputs), partitioner=[XnnpackPartitioner()]
        )
    outside = [str(n.target) for n in edge.exported_program().graph.nodes if n.op == "call_function"]
    assert all("delegate" in name or "getitem" in name for name in outside), outside
    return edge.to_executorch().buffer


def runner(data: bytes, method: str, inputs: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
    """Calls a method. It holds the program and its bytes, which the method does not."""
    program = quiet_runtime().load_program(data)
    kept = (program, program.load_method(method), data)
    return lambda: kept[1].execute(list(inputs))


class FixedNorm(nn.Module):
    """A batch norm with one avatar's parameters: a product and a sum."""

    def __init__(self, norm: nn.BatchNorm2d, params: tuple[Tensor, ...]) -> None:
        super().__init__()
        if isinstance(norm, AdaptiveBatchNorm):
            gain, bias = params[0][0, :, 0] + 1, params[0][0, :, 1]
        else:
            gain, bias = norm.weight, norm.bias
        gain = gain * torch.rsqrt(norm.running_var + norm.eps)
        self.register_buffer("gain", gain.detach()[None, :, None, None])
        self.register_buffer("bias", (bias - gain * norm.running_mean).detach()[None, :, None, None])

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain + self.bias


class FixedTeacher(nn.Module):
    """Embedder and generator with one avatar's parameters in them.

    nearest  doubles sides as the teacher does. Bilinear, which XNNPACK takes and nearest not, costs no less
    """

    def __init__(self, teacher: nn.Module, params: list[LevelParams], nearest: bool) -> None:
        super().__init__()
        generator = teacher.inference_generator
        self.embedder, self.nearest, self.sides = teacher.keypoints_embedder, nearest, generator.sides_px
        self.convs, self.norms, self.skips = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        before: tuple[Tensor, ...] = ()
        for block, level in zip(generator.blocks, params, strict=False):
            self.convs.extend([block.conv1, block.conv2])
            self.norms.extend([FixedNorm(block.norm1, before), FixedNorm(block.norm2, level.norm)])
            skip = nn.Conv2d(level.skip.shape[2] - 1, level.skip.shape[1], 1)
            skip.weight = nn.Parameter(level.skip[0, :, :-1, None, None].detach())
            skip.bias = nn.Parameter(level.skip[0, :, -1].detach())
            self.skips.append(skip)
            before = level.next_norm
        self.norms.append(FixedNorm(generator.last_norm, before))
        self.heads = nn.ModuleList([generator.delta_uv, generator.lf, generator.seg, generator.blend])

    def up(self, x: Tensor) -> Tensor:
        if self.nearest:
            return F.interpolate(x, scale_factor=2.0, mode="nearest")
        return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)

    def forward(self, pose: Tensor, *extra: Tensor) -> tuple[Tensor, ...]:
        """extra: what the reader adds at the last sides, the smallest first."""
        x, first = self.embedder(pose), len(self.sides) - len(extra)
        for i, skip in enumerate(self.skips):
            if i >= first:
                x = x + extra[i - first]
            inner = self.convs[2 * i](activate(self.norms[2 * i](x)))
            inner = self.convs[2 * i + 1](self.up(activate(self.norms[2 * i + 1](inner))))
            x = inner + skip(self.up(x))
        x = activate(self.norms[-1](x + extra[-1]))
        uv, lf, seg, blend = (head(x) for head in self.heads)
        return torch.tanh(uv), torch.tanh(lf), seg, blend


class Scaled(nn.Module):
    """A batch norm that stands before its ReLU and convolution: a product and a sum. One behind a convolution is part of that."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain, self.bias = (nn.Parameter(torch.rand(1, width, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain + self.bias


class FommGenerator(nn.Module):
    """A generator of the size of the First Order Motion Model's for 256 px (Siarohin et al., NeurIPS 2019), with random weights.

    64 channels at 256 px, two blocks down to 256 channels at 64 px, six residual blocks there, two blocks up. What it lacks of
    a frame: the warp of its features, which no mobile delegate takes, and the network that says where to. It doubles sides
    bilinearly, as XNNPACK has no nearest.
    """

    def __init__(self, width: int = 64, most: int = 512, downs: int = 2, blocks: int = 6) -> None:
        super().__init__()
        widths = [min(most, width * 2**i) for i in range(downs + 1)]
        self.first = nn.Conv2d(3, width, 7, padding=3)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(widths, widths[1:], strict=False))
        last = widths[-1]
        self.norms = nn.ModuleList(Scaled(last) for _ in range(blocks))
        self.inner = nn.ModuleList(nn.Conv2d(last, last, 3, padding=1) for _ in range(2 * blocks))
        self.up = nn.ModuleList(
            nn.Conv2d(b, a, 3, padding=1) for a, b in reversed(list(zip(widths, widths[1:], strict=False)))
        )
        self.last = nn.Conv2d(width, 3, 7, padding=3)

    def forward(self, image: Tensor) -> Tensor:
        """image (1, 3, 256, 256) in [0, 1]; the same comes out."""
        x = torch.relu(self.first(image))
        for conv in self.down:
            x = F.avg_pool2d(torch.relu(conv(x)), 2)
        for i, norm in enumerate(self.norms):
            x = x + self.inner[2 * i + 1](torch.relu(self.inner[2 * i](torch.relu(norm(x)))))
        for conv in self.up:
            x = torch.relu(conv(F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)))
        return torch.sigmoid(self.last(x))
