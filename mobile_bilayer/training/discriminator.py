"""The critic of a teacher's training: is this patch of a picture real, given the pose that its stickman shows?"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.stickman import draw_keypoints_stickman


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Shape of the discriminator; the defaults are the paper's, a CPU wants some 8 to 16 channels."""

    image_px: int = 256  # square, side
    scores_px: int = 8  # blocks halve down to this side; those left over keep it
    blocks: int = 6
    width: int = 64  # channels before the first block; each block that halves doubles them
    max_width: int = 512

    def __post_init__(self) -> None:
        for name in ("scores_px", "blocks", "width", "max_width"):
            if getattr(self, name) < 1:
                raise MobileBilayerError(
                    f"{name} of the discriminator is {getattr(self, name)}; it must be at least 1."
                )
        if self.scores_px << self.halvings != self.image_px:
            raise MobileBilayerError(
                f"image_px of the discriminator is {self.image_px}; it must be scores_px ({self.scores_px}) doubled some "
                f"times, at most once a block (blocks is {self.blocks}). Try image_px 256, scores_px 8, blocks 6."
            )

    @property
    def halvings(self) -> int:
        return min(max(self.image_px // self.scores_px, 1).bit_length() - 1, self.blocks)


def draw_stickmen(keypoints: Tensor, side_px: int) -> Tensor:
    """(B, 68, 2) in [-1, 1] to the paper's stickmen (B, 3, side_px, side_px), [-1, 1]."""
    drawn = np.stack([draw_keypoints_stickman(k, side_px) for k in keypoints.detach().cpu().numpy()])
    return torch.from_numpy(drawn).to(keypoints.device).permute(0, 3, 1, 2).float() / 127.5 - 1


def _conv(inputs: int, outputs: int, side: int) -> nn.Module:
    return spectral_norm(nn.Conv2d(inputs, outputs, side, padding=side // 2))


class DownBlock(nn.Module):
    """Pre-activation residual block without norm: LeakyReLU, 3x3, LeakyReLU, 3x3, and average pooling if it halves.

    The skip takes the raw input, through a 1x1 convolution where the shape changes.
    """

    def __init__(self, inputs: int, outputs: int, halve: bool) -> None:
        super().__init__()
        self.halve = halve
        self.conv1 = _conv(inputs, outputs, 3)
        self.conv2 = _conv(outputs, outputs, 3)
        self.skip = _conv(inputs, outputs, 1) if halve or inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.leaky_relu(x, 0.2))
        y = self.conv2(F.leaky_relu(y, 0.2))
        if self.halve:
            # The paper pools after the 1x1: the same, as both are linear, at four times the cost.
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
        return self.skip(x) + y


class PatchDiscriminator(nn.Module):
    """Score each patch of a picture; spectral norm on every convolution.

    image     (B, 3, S, S), [-1, 1]
    stickman  (B, 3, S, S), [-1, 1]: the pose that the image claims to show
    returns   scores (B, 1, h, w), above 0 for real, h = scores_px where S = image_px; and the features after each block,
              the finest first

    Any S that can be halved as often will do, so a window of the picture as well. In training mode each call moves the
    estimate of the spectral norm a little: give real and fake as one batch where both must meet the same weights.
    """

    def __init__(self, config: DiscriminatorConfig) -> None:
        super().__init__()
        self.config = config
        widths = [min(config.width << i, config.max_width) for i in range(config.halvings + 1)]
        widths += widths[-1:] * (config.blocks - config.halvings)
        self.first = _conv(6, widths[0], 3)
        self.blocks = nn.ModuleList(
            DownBlock(a, b, halve=i < config.halvings) for i, (a, b) in enumerate(pairwise(widths))
        )
        self.score = _conv(widths[-1], 1, 1)

    def forward(self, image: Tensor, stickman: Tensor) -> tuple[Tensor, list[Tensor]]:
        x = self.first(torch.cat([image, stickman], 1))
        features = []
        for block in self.blocks:
            x = block(x)
            features.append(x)
        return self.score(F.leaky_relu(x, 0.2)), features


def judged(
    critic: nn.Module, fake: Tensor, real: Tensor, stickman: Tensor
) -> tuple[tuple[Tensor, ...], list[tuple[Tensor, ...]]]:
    """Scores and features of two pictures of the same poses, the fake ones first. One batch: they meet one network."""
    scores, features = critic(torch.cat([fake, real]), torch.cat([stickman, stickman]))
    return scores.chunk(2), [f.chunk(2) for f in features]
