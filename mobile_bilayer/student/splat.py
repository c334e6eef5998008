"""Weighted averages over landmarks as matrix products: nothing is sampled, every delegate takes it.

A Gaussian around a landmark is separable, w_k(x, y) = wx_k(x) * wy_k(y), so for values v
sum_k w_k(x, y) v_k = (v * wy) @ wx. Landmarks' values lie in rows, (B, C, K): so the products read them.
"""

from __future__ import annotations

import torch
from torch import Tensor


def pixel_centres(side_px: int) -> Tensor:
    """(side_px,) centres of pixels in [-1, 1]."""
    return (torch.arange(side_px) + 0.5) / side_px * 2 - 1


def square_offsets(points: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
    """How far pixels lie from landmarks, squared, along x and along y: what Gaussians of any width are made from.

    points   (B, 2, K), rows of x and of y in [-1, 1]
    centres  (S,) from `pixel_centres`
    returns  (B, K, S), (B, 1, S, K): as a splat's products read them
    """
    x, y = _column(points[:, :1]) - centres, points[:, 1:].reshape(len(points), 1, 1, -1) - centres[:, None]
    return x * x, y * y


def gaussians(squares: tuple[Tensor, Tensor], precision: Tensor | float) -> tuple[Tensor, Tensor]:
    """The two factors of each landmark's Gaussian.

    squares    from `square_offsets`
    precision  (K, 1): 1 / (2 sigma^2), or one number
    returns    wx (B, K, S), wy (B, 1, S, K)
    """
    x, y = squares
    across = -precision
    down = across.reshape(1, -1) if isinstance(across, Tensor) else across
    return torch.exp(x * across), torch.exp(y * down)


def gaussians_of_widths(squares: tuple[Tensor, Tensor], precisions: Tensor) -> tuple[Tensor, Tensor]:
    """As `gaussians`, of n widths around each landmark: all of the first, then all of the second ...

    precisions  (n,)
    returns     wx (B, n * K, S), wy (B, 1, S, n * K)
    """
    x, y = squares
    batch, points, side = x.shape
    wx = torch.exp(x.reshape(batch, 1, points, side) * -precisions.reshape(1, -1, 1, 1))
    wy = torch.exp(y.reshape(batch, side, 1, points) * -precisions.reshape(1, 1, -1, 1))
    return wx.reshape(batch, -1, side), wy.reshape(batch, 1, side, -1)


def square_distances(first: Tensor, second: Tensor) -> Tensor:
    """(B, J, K) of points (B, 2, J) and (B, 2, K), rows of x and of y."""
    x, y = (_column(first[:, i : i + 1]) - second[:, i : i + 1] for i in (0, 1))
    return x * x + y * y


def splat(values: Tensor, wx: Tensor, wy: Tensor) -> Tensor:
    """Sum over landmarks of weight times value, everywhere.

    values   (B, C, K) or (1, C, K)
    wx, wy   (B, K, S), (B, 1, S, K) from `gaussians`
    returns  (B, C, S, S)
    """
    batch, points, side = wx.shape
    channels = values.shape[1]
    # Reshapes and bmm, where unsqueeze and @ would read better: XNNPACK takes the ones and not the others.
    rows = (values.reshape(-1, channels, 1, points) * wy).reshape(batch, channels * side, points)
    return torch.bmm(rows, wx).reshape(batch, channels, side, side)


def gather(image: Tensor, wx: Tensor, wy: Tensor) -> Tensor:
    """What an image holds at the landmarks: the weighted mean under each Gaussian (the adjoint of `splat`).

    image    (B, C, S, S)
    wx, wy   (B, K, S), (B, 1, S, K) from `gaussians`
    returns  (B, K, C)
    """
    batch, points, side = wx.shape
    channels = image.shape[1]

    def total(x: Tensor) -> Tensor:  # over the last side; XNNPACK takes no sum, but this mean
        return x.reshape(batch, -1, 1, side).mean((2, 3), keepdim=True) * float(side)

    columns = torch.bmm(image.reshape(batch, channels * side, side), wx.transpose(1, 2))  # the sum over x
    columns = columns.reshape(batch, channels, side, points) * wy
    values = total(columns.permute(0, 3, 1, 2)).reshape(batch, points, channels)  # the sum over y
    weight = total(wx) * total(wy.reshape(batch, side, points).transpose(1, 2))
    return values / (weight + 1e-4).reshape(batch, points, 1)


def _column(row: Tensor) -> Tensor:
    """(B, 1, K) as (B, K, 1)."""
    return row.reshape(len(row), -1, 1)
