"""Paint the high-frequency texture: once per avatar."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from mobile_bilayer.batch_norm import BatchNorm
from mobile_bilayer.teacher.blocks import AdaptiveBlock, AdaptiveSpade, LevelParams, activate, conv3x3
from mobile_bilayer.teacher.config import TeacherConfig


class TextureGenerator(nn.Module):
    """Parameters of each level to a texture (B, 3, S, S), [-1, 1]."""

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        widths, side = config.texture_widths, config.start_px
        norm = (config.norm_eps, config.norm_momentum)
        self.start = nn.Parameter(torch.randn(1, widths[0], side, side))
        self.blocks = nn.ModuleList()
        norm1: BatchNorm = BatchNorm(widths[0], *norm)
        for inputs, outputs in pairwise(widths):
            side *= 2
            self.blocks.append(AdaptiveBlock(inputs, outputs, norm1, AdaptiveSpade(outputs, side, *norm), late=False))
            norm1 = AdaptiveSpade(outputs, side, *norm)
        self.last_norm = norm1
        self.head = conv3x3(widths[-1], 3)

    def forward(self, params: list[LevelParams]) -> Tensor:
        x = self.start.expand(len(params[0].skip), -1, -1, -1)
        norm: tuple[Tensor, ...] = ()
        for block, level in zip(self.blocks, params, strict=True):
            x = block(x, norm, level)
            norm = level.next_norm
        return torch.tanh(self.head(activate(self.last_norm(x, *norm))))
