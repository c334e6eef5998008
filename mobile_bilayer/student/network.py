"""The student: an avatar encoder that runs once a photo, and a frame network that runs every frame.

The frame network never samples the texture. It splats, around the driving landmarks, what the encoder
read from the source at its own landmarks: a coarse picture of the source, already in the target's pose.
From it a small U-Net predicts the layers that the compositor joins. Before training its output *is* the
landmark warp; it can only learn what the warp lacks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mobile_bilayer.compositing import Layers, bilinear_matrix
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.head import POINTS
from mobile_bilayer.student.splat import gather, gaussians, pixel_centres, splat

IMAGE_PX = 256


@dataclass(frozen=True)
class StudentConfig:
    """Shape of a student. Widths are channels at 64, 32, 16 and 8 pixels."""

    frame_widths: tuple[int, int, int, int] = (16, 32, 64, 80)
    encoder_widths: tuple[int, int, int, int] = (32, 64, 96, 128)
    features: int = 24  # read from the source at each landmark
    codes: int = 12  # learned for each landmark, splatted at 32 px
    fine_codes: int = 4  # learned for each landmark, splatted at 64 px
    paint_width: int = 12  # channels at 128 px, where lf is painted
    sigma_narrow: float = 0.06  # of the prior flow, in [-1, 1] units
    sigma_wide: float = 0.25
    wide_share: float = 0.02  # weight of the wide Gaussians
    still: float = 0.02  # weight of "does not move": far from the face the flow falls to zero
    flow_reach: float = 0.3  # largest learned correction of the flow

    def __post_init__(self) -> None:
        for name in ("frame_widths", "encoder_widths"):
            if len(getattr(self, name)) != 4 or min(getattr(self, name)) < 1:
                raise MobileBilayerError(f"{name} is {getattr(self, name)}; it must be four channel counts above 0.")
        object.__setattr__(self, "frame_widths", tuple(self.frame_widths))
        object.__setattr__(self, "encoder_widths", tuple(self.encoder_widths))


SIZES = {"S": StudentConfig()}


class AvatarCode(NamedTuple):
    """What the frame network needs to know of an avatar, computed once.

    landmark_features  (B, K, features + 3)  read at the source's landmarks; the last three are its colours
    map_features       (B, C, 32, 32)        of the source in its own pose: what stands still
    alpha              (B, 1, 128, 128)      the person in the source, [0, 1]
    """

    landmark_features: Tensor
    map_features: Tensor
    alpha: Tensor


def conv(inputs: int, outputs: int, stride: int = 1, act: bool = True) -> nn.Sequential:
    """3x3 convolution, batch norm (folded when exported), ReLU: what int8 kernels like best."""
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if act else []))


def mix(inputs: int, outputs: int) -> nn.Sequential:
    """1x1 convolution and batch norm, to change the number of channels."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs))


class Residual(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = conv(width, width), conv(width, width, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(self.first(x)))


class Upsample(nn.Module):
    """Twice the side, bilinear. Two products with fixed matrices in training: the same numbers, faster there."""

    def __init__(self, side_px: int) -> None:
        super().__init__()
        self.side_px = side_px
        self.register_buffer("matrix", bilinear_matrix(2 * side_px, side_px), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_exporting():
            return nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.matrix @ x @ self.matrix.T


class AvatarEncoder(nn.Module):
    """Read a source once."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        w64, w32, w16, w8 = config.encoder_widths
        self.codes = nn.Parameter(0.5 * torch.randn(1, POINTS, 8))
        self.register_buffer("centres", pixel_centres(64), persistent=False)
        self.stem = nn.Sequential(conv(3, 16, 2), conv(16, w64 - 8, 2))
        self.enc64 = conv(w64, w64)
        self.enc32 = nn.Sequential(conv(w64, w32, 2), Residual(w32))
        self.enc16 = nn.Sequential(conv(w32, w16, 2), Residual(w16))
        self.enc8 = nn.Sequential(conv(w16, w8, 2), Residual(w8))
        self.up8, self.up16, self.up32 = Upsample(8), Upsample(16), Upsample(32)
        self.to16, self.dec16 = mix(w8, w16), conv(w16, w16)
        self.to32, self.dec32 = mix(w16, w32), conv(w32, w32)
        self.to64, self.dec64 = mix(w32, w64), conv(w64, w64)
        self.map_head = nn.Conv2d(w32, config.frame_widths[1], 3, padding=1)
        self.feature_head = nn.Conv2d(w64, config.features, 3, padding=1)
        self.alpha_mix, self.up64 = mix(w64, 8), Upsample(64)
        self.alpha_head = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, image: Tensor, landmarks: Tensor) -> AvatarCode:
        """image (B, 3, 256, 256) in [0, 1]; landmarks (B, K, 2) in [-1, 1]."""
        picture = image * 2 - 1
        wx, wy = gaussians(landmarks, self.centres, 1 / (2 * 0.04**2))
        x64 = self.enc64(torch.cat([self.stem(picture), splat(self.codes, wx, wy)], 1))
        x32 = self.enc32(x64)
        x16 = self.enc16(x32)
        x8 = self.enc8(x16)
        x16 = self.dec16(x16 + self.up8(self.to16(x8)))
        x32 = self.dec32(x32 + self.up16(self.to32(x16)))
        x64 = self.dec64(x64 + self.up32(self.to64(x32)))
        colours = nn.functional.avg_pool2d(picture, 4)
        read = gather(torch.cat([self.feature_head(x64), colours], 1), *gaussians(landmarks, self.centres, 1 / (2 * 0.025**2)))
        return AvatarCode(read, self.map_head(x32), torch.sigmoid(self.alpha_head(self.up64(self.alpha_mix(x64)))))


class FrameNetwork(nn.Module):
    """The layers of one frame."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        w64, w32, w16, w8 = config.frame_widths
        self.codes = nn.Parameter(0.5 * torch.randn(1, POINTS, config.codes))
        self.fine_codes = nn.Parameter(0.5 * torch.randn(1, POINTS, config.fine_codes))
        self.log_sigma = nn.Parameter(torch.full((POINTS, 1), math.log(0.07)))
        self.log_fine_sigma = nn.Parameter(torch.full((POINTS, 1), math.log(0.045)))
        self.register_buffer("ones", torch.ones(1, POINTS, 1), persistent=False)
        self.register_buffer("centres32", pixel_centres(32), persistent=False)
        self.register_buffer("centres64", pixel_centres(64), persistent=False)
        self.read32 = nn.Conv2d(config.features + 3 + config.codes + 3, w32, 1)
        self.stem = conv(config.fine_codes + 3 + 1 + 3, w64)
        self.enc32, self.enc16, self.enc8 = conv(w64, w32, 2), conv(w32, w16, 2), conv(w16, w8, 2)
        self.mid8, self.mid16, self.mid32 = Residual(w8), Residual(w16), Residual(w32)
        self.to16, self.to32, self.to64 = mix(w8, w16), mix(w16, w32), mix(w32, w64)
        self.up8, self.up16, self.up32, self.up64 = Upsample(8), Upsample(16), Upsample(32), Upsample(64)
        self.dec64 = conv(w64, w64)
        self.heads = nn.Conv2d(w64, 4, 3, padding=1)  # flow x, flow y, blend, mask
        self.paint_mix = mix(w64, config.paint_width)
        self.paint = nn.Conv2d(config.paint_width, 3, 3, padding=1)
        nn.init.zeros_(self.heads.weight)
        nn.init.zeros_(self.paint.weight)
        with torch.no_grad():  # start as the warp: no correction, 2 % of paint, everything the person
            self.heads.bias.copy_(torch.tensor([0.0, 0.0, -3.9, 4.0]))
            self.paint.bias.zero_()

    def prior(self, source: Tensor, driving: Tensor) -> Tensor:
        """(B, 3, 64, 64): flow of the landmarks alone (xy), and how near the face is (0..1)."""
        config = self.config
        moved = torch.cat([source - driving, self.ones.expand(len(source), -1, -1)], 2)
        narrow = gaussians(driving, self.centres64, 1 / (2 * config.sigma_narrow**2))
        wide = gaussians(driving, self.centres64, 1 / (2 * config.sigma_wide**2))
        total = splat(moved, *narrow) + config.wide_share * splat(moved, *wide)
        weight = total[:, 2:3]
        return torch.cat([total[:, :2] / (weight + config.still), weight / (weight + 1)], 1)

    def forward(self, landmark_features: Tensor, map_features: Tensor, source: Tensor, driving: Tensor) -> Layers:
        """The first two from `AvatarCode`; source, driving (B, K, 2) network points in [-1, 1]."""
        config = self.config
        batch = len(driving)
        moved = source - driving
        ones = self.ones.expand(batch, -1, -1)
        colours = landmark_features[:, :, config.features :]

        coarse = torch.cat([landmark_features, self.codes.expand(batch, -1, -1), moved, ones], 2)
        coarse = splat(coarse, *gaussians(driving, self.centres32, 0.5 * torch.exp(-2 * self.log_sigma)))
        coarse = coarse / (coarse[:, -1:] + 0.1)
        fine = torch.cat([self.fine_codes.expand(batch, -1, -1), colours, ones], 2)
        fine = splat(fine, *gaussians(driving, self.centres64, 0.5 * torch.exp(-2 * self.log_fine_sigma)))
        fine = fine / (fine[:, -1:] + 0.1)
        prior = self.prior(source, driving)

        x64 = self.stem(torch.cat([fine, prior], 1))
        x32 = torch.relu(self.enc32(x64) + self.read32(coarse) + map_features)
        x16 = self.enc16(x32)
        x16 = self.mid16(x16 + self.up8(self.to16(self.mid8(self.enc8(x16)))))
        x32 = self.mid32(x32 + self.up16(self.to32(x16)))
        x64 = self.dec64(x64 + self.up32(self.to64(x32)))

        heads = self.heads(x64)
        flow = prior[:, :2] + config.flow_reach * torch.tanh(heads[:, :2])
        blend, mask = torch.sigmoid(heads[:, 2:3]), torch.sigmoid(heads[:, 3:4])
        start = self.up64(fine[:, config.fine_codes : -1])  # the source's colours, where its landmarks went
        paint = torch.tanh(start + self.paint(torch.relu(self.up64(self.paint_mix(x64)))))
        return Layers(torch.cat([flow, 1 - blend, mask], 1), self.up64(blend) * paint)


class Student(nn.Module):
    """Encoder and frame network."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.frame = AvatarEncoder(config), FrameNetwork(config)
