"""Weighted averages over landmarks as matrix products: nothing is sampled, every delegate takes it.

A Gaussian around a landmark is separable, w_k(x, y) = wx_k(x) * wy_k(y), so for values v
sum_k w_k(x, y) v_k = (v * wy)^T @ wx.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pixel_centres(side_px: int) -> Tensor:
    """(side_px,) centres of pixels in [-1, 1]."""
    return (torch.arange(side_px) + 0.5) / side_px * 2 - 1


def gaussians(points: Tensor, centres: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
    """The two factors of each landmark's Gaussian.

    points     (B, K, 2) xy in [-1, 1]
    centres    (S,) from `pixel_centres`
    precision  (K, 1): 1 / (2 sigma^2), or one number
    returns    wx (B, K, S), wy (B, K, S)
    """
    x, y = points[..., 0:1] - centres, points[..., 1:2] - centres
    return torch.exp(-(x * x) * precision), torch.exp(-(y * y) * precision)


def splat(values: Tensor, wx: Tensor, wy: Tensor) -> Tensor:
    """Sum over landmarks of weight times value, everywhere.

    values   (B, K, C) or (1, K, C)
    wx, wy   (B, K, S)
    returns  (B, C, S, S)
    """
    batch, _, side = wx.shape
    rows = values.transpose(1, 2).unsqueeze(2) * wy.transpose(1, 2).unsqueeze(1)  # (B, C, S, K)
    channels = rows.shape[1]
    return (rows.reshape(batch, channels * side, -1) @ wx).reshape(batch, channels, side, side)


def gather(image: Tensor, wx: Tensor, wy: Tensor) -> Tensor:
    """What an image holds at the landmarks: the weighted mean under each Gaussian (the adjoint of `splat`).

    image    (B, C, S, S)
    wx, wy   (B, K, S)
    returns  (B, K, C)
    """
    columns = image @ wx.transpose(1, 2).unsqueeze(1)  # (B, C, S, K): the sum over x
    total = (columns * wy.transpose(1, 2).unsqueeze(1)).sum(2)  # (B, C, K)
    weight = wx.sum(2) * wy.sum(2)  # (B, K)
    return (total / (weight.unsqueeze(1) + 1e-4)).transpose(1, 2)
