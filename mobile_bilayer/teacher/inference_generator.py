"""Predict one frame's layers: the only large network that runs every frame."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mobile_bilayer.batch_norm import BatchNorm
from mobile_bilayer.teacher.blocks import AdaptiveBatchNorm, AdaptiveBlock, LevelParams, activate, conv3x3
from mobile_bilayer.teacher.config import TeacherConfig


class FrameLayers(NamedTuple):
    """What the generator says of a frame.

    delta_uv  (B, 2, S, S)  xy: how far from itself each pixel reads the texture, [-1, 1] of [-1, 1] across the frame
    lf        (B, 3, S, S)  low-frequency layer, [-1, 1]
    seg       (B, 1, S, S)  the person's alpha, as a logit
    blend     (B, 1, S, S)  as a logit, how much of lf replaces what was warped; None in the paper's mode
    """

    delta_uv: Tensor
    lf: Tensor
    seg: Tensor
    blend: Tensor | None = None


class InferenceGenerator(nn.Module):
    """Pose code and an avatar's parameters to the layers of a frame."""

    def __init__(self, config: TeacherConfig, blends: bool = False) -> None:
        super().__init__()
        widths, norm = config.generator_widths, (config.norm_eps, config.norm_momentum)
        self.blocks = nn.ModuleList()
        norm1: BatchNorm = BatchNorm(widths[0], *norm)
        for inputs, outputs in pairwise(widths):
            self.blocks.append(AdaptiveBlock(inputs, outputs, norm1, AdaptiveBatchNorm(outputs, *norm), late=True))
            norm1 = AdaptiveBatchNorm(outputs, *norm)
        self.last_norm = norm1
        self.delta_uv, self.lf, self.seg = (conv3x3(widths[-1], n) for n in (2, 3, 1))
        self.blend = conv3x3(widths[-1], 1) if blends else None
        self.sides_px = [config.start_px * 2**k for k in range(config.levels + 1)]

    def forward(
        self,
        pose_code: Tensor,
        params: list[LevelParams],
        extra: dict[int, Tensor] | None = None,
        cut: tuple[int, Callable[[Tensor], Tensor]] | None = None,
    ) -> FrameLayers:
        """pose_code (B, C, start, start), from the keypoints embedder

        params     each level's, of the same batch (`LevelParams.repeated` for several frames of an avatar)
        extra      side in px to (B, C, side, side): added to the features when they are that wide, before the next
                   block or the last norm. None in the paper's mode
        cut        (side, function): at that side the features are cut to the windows that training looks at; what
                   `extra` holds from there on is cut already
        """
        extra = extra or {}
        assert set(extra) <= set(self.sides_px), f"extra has sides {sorted(extra)}; there are {self.sides_px}"
        x = pose_code
        norm: tuple[Tensor, ...] = ()
        for side, block, level in zip(self.sides_px, self.blocks, params, strict=False):  # one more side than blocks
            if cut and side == cut[0]:
                x = cut[1](x)
            x = block(x + extra[side] if side in extra else x, norm, level)
            norm = level.next_norm
        last = self.sides_px[-1]
        x = activate(self.last_norm(x + extra[last] if last in extra else x, *norm))
        blend = None if self.blend is None else self.blend(x)
        return FrameLayers(torch.tanh(self.delta_uv(x)), torch.tanh(self.lf(x)), self.seg(x), blend)
