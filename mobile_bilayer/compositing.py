"""The formula that every model shares, in torch.

head(p) = gate(p) * texture(p + flow(p)) + lf(p)
rgb(p)  = mask(p) * head(p) + (1 - mask(p)) * background(p)

The paper's image is the case gate = mask = 1. `runtime/compositor.py` is its twin without torch.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F


class Layers(NamedTuple):
    """What the per-frame network predicts.

    a  (B, 4, h, w)    flow x, flow y (of [-1, 1] across the frame), gate, mask (both [0, 1])
    b  (B, 3, h', w')  lf, [-1, 1]
    """

    a: Tensor
    b: Tensor


@cache
def bilinear_matrix(out_px: int, in_px: int) -> Tensor:
    """(out_px, in_px): linear interpolation with pixel centres at (i + 0.5) / n and the border repeated.

    Two products with it equal `F.interpolate(mode="bilinear", align_corners=False)` and are many times
    faster in training on a CPU.
    """
    place = (torch.arange(out_px) + 0.5) * in_px / out_px - 0.5
    low = place.floor()
    weight = place - low
    rows = torch.arange(out_px)
    matrix = torch.zeros(out_px, in_px)
    matrix.index_put_((rows, low.long().clamp(0, in_px - 1)), 1 - weight, accumulate=True)
    matrix.index_put_((rows, (low.long() + 1).clamp(0, in_px - 1)), weight, accumulate=True)
    return matrix


def resize(x: Tensor, side_px: int) -> Tensor:
    """(B, C, h, h) to (B, C, side_px, side_px), bilinear, half-pixel centres."""
    if x.shape[-1] == side_px:
        return x
    matrix = bilinear_matrix(side_px, x.shape[-1]).to(x)
    return matrix @ x @ matrix.T


def identity_grid(side_px: int, like: Tensor) -> Tensor:
    """(side_px, side_px, 2) xy of the pixel centres in [-1, 1]."""
    centres = (torch.arange(side_px, device=like.device, dtype=like.dtype) + 0.5) / side_px * 2 - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    return torch.stack([x, y], -1)


def composite(texture: Tensor, background: Tensor, layers: Layers, grid: Tensor | None = None) -> Tensor:
    """Join an avatar's texture and background with one frame's layers.

    texture     (B, 3, H, H), [-1, 1]
    background  (B, 3, S, S), [-1, 1]; S is the side of the result
    layers      at any size; resized bilinearly to S
    grid        (B, S, S, 2) or (S, S, 2) where the result's pixels lie in [-1, 1] of the texture, if it isn't the
                whole frame
    returns     (B, 3, S, S), not clamped (losses want to see what is out of range)

    The texture is sampled bilinearly with its border repeated.
    """
    side = background.shape[-1]
    a, lf = resize(layers.a, side), resize(layers.b, side)
    where = (identity_grid(side, texture) if grid is None else grid) + a[:, :2].permute(0, 2, 3, 1)
    warped = F.grid_sample(texture, where, padding_mode="border", align_corners=False)
    head = a[:, 2:3] * warped + lf
    return background + a[:, 3:4] * (head - background)
