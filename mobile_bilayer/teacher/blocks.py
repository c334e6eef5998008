"""What the teacher's networks are made of."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobile_bilayer.batch_norm import BatchNorm


class LevelParams(NamedTuple):
    """The adaptive parameters of one level of a generator, from the identity: rows are output channels.

    norm       of the norm after the block's first convolution: one tensor, or two where gain and bias have each one
    skip       (B, width, in + 1) of the 1x1 convolution beside the block; the last column is the bias
    next_norm  of the norm that comes after the block: the next block's first, or the last
    """

    norm: tuple[Tensor, ...]
    skip: Tensor
    next_norm: tuple[Tensor, ...]

    def repeated(self, times: int) -> LevelParams:
        """For `times` frames of each avatar."""
        if times == 1:
            return self
        norm, next_norm = (tuple(p.repeat_interleave(times, 0) for p in part) for part in (self.norm, self.next_norm))
        return LevelParams(norm, self.skip.repeat_interleave(times, 0), next_norm)


def activate(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def upsample(x: Tensor) -> Tensor:
    """Twice the side, nearest."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def downsample(x: Tensor) -> Tensor:
    """Half the side, 2x2 average."""
    return F.avg_pool2d(x, 2)


def conv3x3(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=1)


def warp(texture: Tensor, uv: Tensor) -> Tensor:
    """texture (B, 3, S, S) read at uv (B, S, S, 2), xy in [-1, 1]; bilinear, nothing outside."""
    return F.grid_sample(texture, uv, mode="bilinear", padding_mode="zeros", align_corners=False)


def adaptive_conv(x: Tensor, params: Tensor) -> Tensor:
    """1x1 convolution with weights of its own for each of the batch.

    x       (B, in, h, w), or (1, in, h, w) for all of the batch
    params  (B, out, in + 1), the last column is the bias
    """
    flat = x.flatten(2).expand(len(params), -1, -1)
    return torch.baddbmm(params[:, :, -1:], params[:, :, :-1], flat).unflatten(2, x.shape[2:])


class AdaptiveBatchNorm(BatchNorm):
    """Batch norm whose gain and bias come from the identity: (B, width, 2), gain - 1 and bias."""

    def __init__(self, width: int, eps: float, momentum: float | None) -> None:
        super().__init__(width, eps, momentum, affine=False)

    def forward(self, x: Tensor, params: Tensor) -> Tensor:
        gain, bias = params[:, :, 0] + 1, params[:, :, 1]
        if not self.training:  # one product and one sum, small tensors apart
            gain = gain * torch.rsqrt(self.running_var + self.eps)
            return torch.addcmul((bias - gain * self.running_mean)[:, :, None, None], x, gain[:, :, None, None])
        return torch.addcmul(bias[:, :, None, None], super().forward(x), gain[:, :, None, None])


class AdaptiveSpade(BatchNorm):
    """Batch norm whose gain and bias are maps: adaptive 1x1 convolutions of a learned map of features.

    gain, bias  (B, width, width + 1)
    """

    def __init__(self, width: int, side_px: int, eps: float, momentum: float | None) -> None:
        super().__init__(width, eps, momentum, affine=False)
        self.features = nn.Parameter(torch.randn(1, width, side_px, side_px))

    def forward(self, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        gain_map, bias_map = adaptive_conv(self.features, gain), adaptive_conv(self.features, bias)
        return torch.addcmul(bias_map, super().forward(x), gain_map + 1)


class ResidualBlock(nn.Module):
    """Activation, convolution, activation, convolution, beside the identity or a 1x1 convolution. No norm.

    resize  "" keeps the side, "up" doubles it before the convolutions, "down" halves it after them
    """

    def __init__(self, inputs: int, outputs: int, resize: str = "") -> None:
        super().__init__()
        self.resize = resize
        self.conv1, self.conv2 = conv3x3(inputs, outputs), conv3x3(outputs, outputs)
        self.skip = nn.Conv2d(inputs, outputs, 1) if resize or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.with_features(x)[0]

    def with_features(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The block's output, and what its second convolution sees."""
        inner = activate(x)
        if self.resize == "up":
            x, inner = upsample(x), upsample(inner)
        features = activate(self.conv1(inner))
        out, beside = self.conv2(features), self.skip(x)
        if self.resize == "down":
            out, beside = downsample(out), downsample(beside)
        return out + beside, features


class AdaptiveBlock(nn.Module):
    """Norm, activation, convolution, norm, activation, convolution, beside an adaptive 1x1; doubles the side.

    norm1  applied to the input with the parameters that the level before gave; plain in the first block
    late   the side doubles only before the second convolution (the paper's "efficient" upsampling)
    """

    def __init__(self, inputs: int, outputs: int, norm1: BatchNorm, norm2: BatchNorm, late: bool) -> None:
        super().__init__()
        self.late = late
        self.norm1, self.norm2 = norm1, norm2
        self.conv1, self.conv2 = conv3x3(inputs, outputs), conv3x3(outputs, outputs)

    def forward(self, x: Tensor, norm1: tuple[Tensor, ...], params: LevelParams) -> Tensor:
        """x (B, in, h, w); returns (B, out, 2 h, 2 w). norm1 is () in the first block."""
        inner = activate(self.norm1(x, *norm1))
        inner = self.conv1(inner if self.late else upsample(inner))
        inner = activate(self.norm2(inner, *params.norm))
        inner = self.conv2(upsample(inner) if self.late else inner)
        return inner + adaptive_conv(upsample(x), params.skip)


def average_frames(x: Tensor, frames: int) -> Tensor:
    """(B * frames, ...) to (B, ...)."""
    return x if frames == 1 else x.unflatten(0, (-1, frames)).mean(1)
