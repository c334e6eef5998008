"""A teacher's frame with one avatar's parameters in it, written so that XNNPACK takes all of it: what its speed is measured on.

It is the keypoints' embedder and the generator, in float: the least that a frame of the teacher can cost. Its coarse
stage, and what it samples, would come on top.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobile_bilayer.teacher.blocks import AdaptiveBatchNorm, LevelParams, activate
from mobile_bilayer.teacher.landmark import LandmarkTeacher


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


@dataclass(frozen=True)
class TeacherFrame:
    """The teacher at work: what its embedder and generator got for one frame, and what came out."""

    teacher: LandmarkTeacher
    pose: Tensor
    params: list[LevelParams]
    extra: list[Tensor]
    out: tuple[Tensor, ...]

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self.pose, *self.extra

    def fixed(self, nearest: bool) -> FixedTeacher:
        return FixedTeacher(self.teacher, self.params, nearest).eval()


@torch.no_grad()
def look_at_a_frame(teacher: LandmarkTeacher, image: Tensor, source_points: Tensor, points: Tensor) -> TeacherFrame:
    """image (1, 3, 256, 256) in [0, 1]; source_points, points (1, K, 2)"""
    given: dict[str, object] = {}
    hooks = [
        teacher.keypoints_embedder.register_forward_pre_hook(lambda _, args: given.update(pose=args[0])),
        teacher.inference_generator.register_forward_hook(
            lambda _, args, out: given.update(
                params=args[1], extra=[args[2][side] for side in sorted(args[2])], out=out
            )
        ),
    ]
    try:
        teacher.render(image, source_points, points, image * 2 - 1)
    finally:
        for hook in hooks:  # an export would call them with tensors that hold nothing
            hook.remove()
    return TeacherFrame(teacher, **given)


def lower_teacher(frame: TeacherFrame) -> bytes:
    """As a program of ExecuTorch. It takes half a minute."""
    return lower_whole(frame.fixed(nearest=False), frame.inputs)


def lower_whole(module: nn.Module, inputs: tuple[Tensor, ...]) -> bytes:
    """A program of ExecuTorch, float, all of it in XNNPACK: else it would be a comparison of kernels, not of networks."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch and executorch
        exported = torch.export.export(module.eval(), inputs)
        edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    outside = [str(n.target) for n in edge.exported_program().graph.nodes if n.op == "call_function"]
    assert all("delegate" in name or "getitem" in name for name in outside), outside
    return edge.to_executorch().buffer
