"""Fit the texture to the source in a few learned steps: once per avatar."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from mobile_bilayer.teacher.blocks import ResidualBlock, activate, average_frames, conv3x3, warp
from mobile_bilayer.teacher.config import TeacherConfig, doublings


class TextureEnhancer(nn.Module):
    """Look at how the texture fails to show the source, and correct it; `steps` times.

    texture  (B, 3, S, S)     the texture generator's
    uv       (B, N, S, S, 2)  for the pose of each of N sources, where each pixel reads the texture
    lf       (B, N, 3, S, S)  and the low-frequency layer
    seg      (B, N, 1, S, S)  and the person's alpha as predicted, [0, 1]
    source   (B, N, 3, S, S)  [-1, 1]
    returns  (B, 3, S, S)     not clamped
    """

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        self.steps = config.enhancer_steps
        halvings = doublings(config.enhancer_px, config.image_px)
        capped = [min(config.enhancer_width * 2**i, config.enhancer_max_width) for i in range(halvings + 1)]
        widths = [config.enhancer_width, *capped[1:]]
        self.stem = conv3x3(6, widths[0])
        self.down = nn.ModuleList(ResidualBlock(*pair, "down") for pair in pairwise(widths))
        self.middle = nn.ModuleList(ResidualBlock(widths[-1], widths[-1]) for _ in range(config.enhancer_blocks))
        widths = [widths[-1], *capped[-2::-1]]
        self.up = nn.ModuleList(ResidualBlock(*pair, "up") for pair in pairwise(widths))
        self.head = conv3x3(widths[-1], 3)

    def forward(self, texture: Tensor, uv: Tensor, lf: Tensor, seg: Tensor, source: Tensor) -> Tensor:
        frames = uv.shape[1]
        uv, lf, seg, source = (x.flatten(0, 1) for x in (uv, lf, seg, source))
        for _ in range(self.steps):
            repeated = texture.repeat_interleave(frames, 0)
            gradient = gradient_of_error(repeated, uv, lf, seg, source)
            change = torch.tanh(self.update(torch.cat([repeated, gradient], 1), frames))
            texture = texture + (change if self.middle else average_frames(change, frames))
        return texture

    def update(self, x: Tensor, frames: int) -> Tensor:
        """(B * frames, 6, S, S), texture and gradient, to (B, 3, S, S).

        The last residual block is where frames become one. Where there is none, they stay apart: (B * frames, 3, S, S).
        """
        x = self.stem(x)
        for block in (*self.down, *self.middle):
            x = block(x)
        if self.middle:
            x = average_frames(x, frames)
        for block in self.up:
            x = block(x)
        return self.head(activate(x))


def gradient_of_error(texture: Tensor, uv: Tensor, lf: Tensor, seg: Tensor, source: Tensor) -> Tensor:
    """Of 1/2 * sum [seg * (lf + warp(texture, uv) - source)]^2 with respect to the texture, (B, 3, S, S).

    A number to look at: no gradient goes back through it. It is taken even where gradients are off.
    """
    with torch.inference_mode(False), torch.enable_grad():
        # Tensors made in inference mode can't be differentiated; their copies can.
        texture, uv, lf, seg, source = (x.detach().clone() for x in (texture, uv, lf, seg, source))
        texture.requires_grad_()
        error = seg * (lf + warp(texture, uv) - source)
        (gradient,) = torch.autograd.grad(0.5 * error.square().sum(), texture)
    return gradient
