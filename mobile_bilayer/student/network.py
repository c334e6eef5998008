"""The student: an avatar encoder that runs once a photo, and a frame network that runs every frame.

The frame network never samples the texture. It splats, around the driving landmarks, what the encoder
read from the source at its own landmarks: a coarse picture of the source, already in the target's pose.
From it a small U-Net predicts the layers that the compositor joins. Before training its output *is* the
landmark warp, but for lids that shut and mouths that open; it can only learn what the warp lacks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mobile_bilayer.batch_norm import BatchNorm
from mobile_bilayer.compositing import Layers, bilinear_matrix, composite
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.head import POINTS
from mobile_bilayer.pose.landmarks import BROWS, LEFT_EYE, LEFT_IRIS, LIPS, MESH, RIGHT_EYE, RIGHT_IRIS
from mobile_bilayer.pose.retarget import EYE_CORNERS, LOWER_LIDS, LOWER_LIPS, UPPER_LIDS, UPPER_LIPS
from mobile_bilayer.student.splat import gather, gaussians, pixel_centres, splat, square_distances, square_offsets

IMAGE_PX = 256
SHARP_POINTS = len(LIPS + RIGHT_EYE + LEFT_EYE + RIGHT_IRIS + LEFT_IRIS + BROWS)  # the first of the network points
# Of each eye: left and right corner in an upright picture, upper lid, lower lid below it, iris.
EYES = (
    (*(part[0].tolist() for part in (EYE_CORNERS, UPPER_LIDS, LOWER_LIDS)), RIGHT_IRIS),
    (*(part[1, ::-1].tolist() for part in (EYE_CORNERS, UPPER_LIDS, LOWER_LIDS)), LEFT_IRIS),
)
MOUTH_INSIDE = (-0.7, -1.1, -1.1)  # its colour before `tanh` and before training: a dark red
MOUTH_BLEND = 8.0  # of a mouth's inside: it begins as paint
# Inner corners of the lips in an upright picture, from left to right, and between them upper and lower lip.
MOUTH = ([78, 308], UPPER_LIPS[1:-1].tolist(), LOWER_LIPS[1:-1].tolist())


@dataclass(frozen=True)
class StudentConfig:
    """Shape of a student. Widths are channels at 64, 32, 16 and 8 pixels."""

    frame_widths: tuple[int, int, int, int] = (16, 32, 64, 64)
    encoder_widths: tuple[int, int, int, int] = (32, 64, 96, 128)
    features: int = 24  # read from the source at each landmark
    codes: int = 12  # learned for each landmark, splatted at 32 px
    fine_codes: int = 4  # learned for each landmark, splatted at 64 px
    paint_width: int = 0  # channels at 128 px, where lf is painted; 0: at 64 px, four pixels at once, at half the cost
    sigma_narrow: float = 0.06  # of the prior flow, in [-1, 1] units
    sigma_wide: float = 0.25
    sigma_sharp: float = 0.04  # of what the two miss at lips, eyes and brows
    wide_share: float = 0.02  # weight of the wide Gaussians
    still: float = 0.02  # weight of "does not move": far from the face the flow falls to zero
    still_sharp: float = 0.05
    sigma_lid: float = 0.0  # of lids that shut (`Lids`); 0: the prior leaves them half open
    sigma_mouth: float = 0.0  # of a mouth's inside (`Mouth`); 0: a mouth that opens shows stretched lips at first
    flow_reach: float = 0.3  # largest learned correction of the flow

    def __post_init__(self) -> None:
        for name in ("frame_widths", "encoder_widths"):
            if len(getattr(self, name)) != 4 or min(getattr(self, name)) < 1:
                raise MobileBilayerError(f"{name} is {getattr(self, name)}; it must be four channel counts above 0.")
        object.__setattr__(self, "frame_widths", tuple(self.frame_widths))
        object.__setattr__(self, "encoder_widths", tuple(self.encoder_widths))


SIZES = {
    "XS": StudentConfig((8, 16, 32, 48), fine_codes=2, sigma_lid=0.025, sigma_mouth=0.025),
    "S": StudentConfig(sigma_lid=0.025, sigma_mouth=0.025),
    "M": StudentConfig((24, 56, 104, 128), fine_codes=8, sigma_lid=0.025, sigma_mouth=0.025),
}


def size_of(config: StudentConfig) -> str | None:
    """The name of this shape, whatever its prior's numbers are; None for a shape that has none."""
    learned = ("frame_widths", "encoder_widths", "features", "codes", "fine_codes", "paint_width")
    shape = [getattr(config, part) for part in learned]
    return next((name for name, known in SIZES.items() if [getattr(known, part) for part in learned] == shape), None)


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
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), BatchNorm(outputs)]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if act else []))


def mix(inputs: int, outputs: int) -> nn.Sequential:
    """1x1 convolution and batch norm, to change the number of channels."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, bias=False), BatchNorm(outputs))


def _of_batch(values: Tensor, batch: int) -> Tensor:
    """(1, K, C) as (batch, K, C). A batch of one stays as it is: no delegate takes the empty expand."""
    return values if batch == 1 else values.expand(batch, -1, -1)


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


class EncoderTrunk(nn.Module):
    """A U-Net from 256 px down to 8 and up to 64: int8 when exported so."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        w64, w32, w16, w8 = config.encoder_widths
        self.stem = nn.Sequential(conv(3, 16, 2), conv(16, w64 - 8, 2))
        self.enc64 = conv(w64, w64)
        self.enc32 = nn.Sequential(conv(w64, w32, 2), Residual(w32))
        self.enc16 = nn.Sequential(conv(w32, w16, 2), Residual(w16))
        self.enc8 = nn.Sequential(conv(w16, w8, 2), Residual(w8))
        self.up8, self.up16, self.up32 = Upsample(8), Upsample(16), Upsample(32)
        self.to16, self.dec16 = mix(w8, w16), conv(w16, w16)
        self.to32, self.dec32 = mix(w16, w32), conv(w32, w32)
        self.to64, self.dec64 = mix(w32, w64), conv(w64, w64)

    def forward(self, picture: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """picture (B, 3, 256, 256) in [-1, 1], codes (B, 8, 64, 64); returns features at 64 and at 32 px."""
        x64 = self.enc64(torch.cat([self.stem(picture), codes], 1))
        x32 = self.enc32(x64)
        x16 = self.enc16(x32)
        x16 = self.dec16(x16 + self.up8(self.to16(self.enc8(x16))))
        x32 = self.dec32(x32 + self.up16(self.to32(x16)))
        return self.dec64(x64 + self.up32(self.to64(x32))), x32


class AvatarEncoder(nn.Module):
    """Read a source once."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        w64, w32, _, _ = config.encoder_widths
        self.codes = nn.Parameter(0.5 * torch.randn(1, POINTS, 8))
        self.register_buffer("centres", pixel_centres(64), persistent=False)
        self.trunk = EncoderTrunk(config)
        self.map_head = nn.Conv2d(w32, config.frame_widths[1], 3, padding=1)
        self.feature_head = nn.Conv2d(w64, config.features, 3, padding=1)
        self.alpha_mix, self.up64 = mix(w64, 8), Upsample(64)
        self.alpha_head = nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, image: Tensor, landmarks: Tensor) -> AvatarCode:
        """image (B, 3, 256, 256) in [0, 1]; landmarks (B, K, 2) in [-1, 1]."""
        picture = image * 2.0 - 1.0
        near = square_offsets(landmarks, self.centres)
        x64, x32 = self.trunk(picture, splat(self.codes, *gaussians(near, 1 / (2 * 0.04**2))))
        maps = torch.cat([self.feature_head(x64), nn.functional.avg_pool2d(picture, 4)], 1)
        read = gather(maps, *gaussians(near, 1 / (2 * 0.025**2)))
        return AvatarCode(read, self.map_head(x32), torch.sigmoid(self.alpha_head(self.up64(self.alpha_mix(x64)))))


def _rows(landmarks: list[int]) -> Tensor:
    """(n, K): a product with the network points picks these landmarks."""
    return nn.functional.one_hot(torch.tensor([MESH.index(i) for i in landmarks]), POINTS).float()


def _cross(first: Tensor, second: Tensor) -> Tensor:
    """(.., 1) of (.., 2) and (.., 2): the area that two vectors span, positive when the second is clockwise of the first."""
    return first[..., :1] * second[..., 1:] - first[..., 1:] * second[..., :1]


class Lids(nn.Module):
    """What moves the skin of shut lids.

    Where lids meet, the upper one's landmarks and the lower one's are in one place and want to move it differently. Their
    mean shows the pupil. So, as an eye shuts, they hand over to copies of themselves a quarter of its width outwards.
    On 30 pairs of an open and a shut eye the warp's L1 around it fell from 0.113 to 0.094.
    """

    outwards = 0.25  # of the eye's width
    shut, open = 0.07, 0.27  # height of an eye against its width

    def __init__(self) -> None:
        super().__init__()
        width = torch.cat([_rows(corners[1:]) - _rows(corners[:1]) for corners, *_ in EYES])
        gap = torch.stack([_rows(lower[2:5]).mean(0) - _rows(upper[2:5]).mean(0) for _, upper, lower, _ in EYES])
        lids = torch.cat([_rows(lid) for _, *both, _ in EYES for lid in both])
        side = torch.tensor([-1.0, 1.0] * len(EYES)).repeat_interleave(len(EYES[0][1]))[:, None]
        of_eye = torch.eye(len(EYES)).repeat_interleave(2 * len(EYES[0][1]), 0)
        faded = torch.stack([_rows([*upper, *lower, *iris]).sum(0) for _, upper, lower, iris in EYES], 1)
        # Rows of points to: each eye's width and gap, the lids, what lies outwards of them.
        rows = torch.cat([width, gap, lids, self.outwards * side * (of_eye @ width)])
        for name, matrix in (("rows", rows), ("of_eye", of_eye), ("faded", faded[:SHARP_POINTS])):
            self.register_buffer(name, matrix[None], persistent=False)

    def forward(self, moved: Tensor, driving: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """moved (B, K, 3): displacements and ones; driving (B, K, 2).

        Returns the copies (B, 28, 2), their displacements (B, 28, 2) and weights (B, 28, 1), and the weights of the first
        `SHARP_POINTS` points (B, SHARP_POINTS, 1).
        """
        batch, eyes, count = len(driving), len(EYES), self.of_eye.shape[1]
        picked = torch.bmm(_of_batch(self.rows, batch), driving)
        width, gap = picked[:, :eyes], picked[:, eyes : 2 * eyes]
        lids, out = picked[:, 2 * eyes : 2 * eyes + count], picked[:, 2 * eyes + count :]
        height = _cross(width, gap) / (_squares(width) + 1e-6)
        shut = torch.clamp((self.open - height) * (1.0 / (self.open - self.shut)), 0.0, 1.0)
        # Down is the eye's width turned by 90 degrees: (x, y) to (-y, x).
        copies = lids + torch.cat([-1.0 * out[:, :, 1:], out[:, :, :1]], 2)
        wanted = torch.bmm(_of_batch(self.rows[:, 2 * eyes : 2 * eyes + count], batch), moved)
        weights = torch.bmm(_of_batch(self.of_eye, batch), shut)
        return copies, wanted[:, :, :2], weights, 1.0 - torch.bmm(_of_batch(self.faded, batch), shut)


class Mouth(nn.Module):
    """Where a mouth is open that is not in the source: there is nothing to warp, all of it must be painted.

    Points fill what lies between the inner lips. Each weighs as much as the area that it stands for, so that the sum of
    their Gaussians is 1 in the mouth, 0 far from it, and one half at its rim, however far it is open.
    """

    across = (0.125, 0.375, 0.625, 0.875)  # from the upper lip to the lower one
    least, full = 0.02, 0.1  # height against width, beyond twice the source's

    def __init__(self, sigma: float) -> None:
        super().__init__()
        corners, upper, lower = MOUTH
        up, down, count = _rows(upper), _rows(lower), len(upper)
        width = (_rows(corners[1:]) - _rows(corners[:1])).expand(count, -1)
        self.precision = 1 / (2 * sigma**2)
        # What a point stands for: the columns share the width; the Gaussian's own integral is 2 pi sigma^2.
        self.share = 1.0 / (len(self.across) * (count + 1) * 2 * math.pi * sigma**2)
        filling = torch.cat([(1 - t) * up + t * down for t in self.across])
        of_column = torch.eye(count).repeat(len(self.across), 1)
        for name, matrix in (("rows", torch.cat([width, down - up])), ("filling", filling), ("of_column", of_column)):
            self.register_buffer(name, matrix[None], persistent=False)
        # What lies there has a colour of its own, and as much light as the lips: of people kept out of training it is met
        # with an L1 of 0.16, where one dark red came to 0.23.
        self.colours = nn.Parameter(torch.tensor(MOUTH_INSIDE).repeat(1, len(filling), 1))
        self.colours_of_lips = nn.Parameter(torch.zeros(1, len(filling), 1))

    def _load_from_state_dict(self, state: dict, prefix: str, *args: object) -> None:
        for name in ("colours", "colours_of_lips"):  # of weights from before they were learned
            state.setdefault(prefix + name, getattr(self, name).detach())
        super()._load_from_state_dict(state, prefix, *args)

    def forward(self, source: Tensor, driving: Tensor, colours: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
        """source, driving (B, K, 2), colours (B, K, 3) at the source's landmarks. Returns, at the S `centres`, how much is a mouth's inside (B, 1, S, S), some 0..1, and
        its colours times that (B, 3, S, S).
        """
        batch, count = len(driving), self.of_column.shape[2]
        # Of source and driving at once, by turns: (B, count * 2, 2).
        both = torch.bmm(_of_batch(self.rows, batch), torch.cat([source, driving], 2))
        width, gap = both[:, :count].reshape(batch, -1, 2), both[:, count:].reshape(batch, -1, 2)
        area = _cross(width, gap)
        height = (area / (_squares(width) + 1e-6)).reshape(batch, count, 2)
        area = area.reshape(batch, count, 2)[:, :, 1:]
        before, height = height[:, :, :1], height[:, :, 1:]
        before = torch.clamp(before, 0.0, 10.0)
        new = torch.clamp((height - 2.0 * before - self.least) * (1.0 / (self.full - self.least)), 0.0, 1.0)
        weights = torch.bmm(_of_batch(self.of_column, batch), area * new * self.share)
        filling = _of_batch(self.filling, batch)
        points = torch.bmm(filling, driving)
        inside = self.colours + self.colours_of_lips * torch.bmm(filling, colours)
        filled = splat(torch.cat([weights, weights * inside], 2), *gaussians(square_offsets(points, centres), self.precision))
        return filled[:, :1], filled[:, 1:]


def _squares(x: Tensor) -> Tensor:
    """(.., 1): squared lengths of (.., 2)."""
    return x[..., :1] * x[..., :1] + x[..., 1:] * x[..., 1:]


class FrameTrunk(nn.Module):
    """A U-Net from 64 px down to 8 and up to 32: int8 when exported so."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        w64, w32, w16, w8 = config.frame_widths
        self.stem = conv(config.fine_codes + 3 + 1 + 3, w64)
        self.enc32, self.enc16, self.enc8 = conv(w64, w32, 2), conv(w32, w16, 2), conv(w16, w8, 2)
        self.mid8, self.mid16, self.mid32 = Residual(w8), Residual(w16), Residual(w32)
        self.to16, self.to32 = mix(w8, w16), mix(w16, w32)
        self.up8, self.up16 = Upsample(8), Upsample(16)

    def forward(self, fine: Tensor, coarse: Tensor) -> tuple[Tensor, Tensor]:
        """fine (B, .., 64, 64), coarse (B, w32, 32, 32); returns features (B, w64, 64, 64) and (B, w32, 32, 32), both >= 0."""
        x64 = self.stem(fine)
        x32 = torch.relu(self.enc32(x64) + coarse)
        x16 = self.enc16(x32)
        x16 = self.mid16(x16 + self.up8(self.to16(self.mid8(self.enc8(x16)))))
        return x64, self.mid32(x32 + self.up16(self.to32(x16)))


class FrameTop(nn.Module):
    """Back up to 64 px. Float when the trunk is int8: what is rounded here reaches flow, mask and paint, and flickers."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        w64, w32, _, _ = config.frame_widths
        self.to64, self.up32, self.dec64 = mix(w32, w64), Upsample(32), conv(w64, w64)

    def forward(self, x64: Tensor, x32: Tensor) -> Tensor:
        """What the trunk returns; returns (B, w64, 64, 64)."""
        return self.dec64(x64 + self.up32(self.to64(x32)))


class FrameNetwork(nn.Module):
    """The layers of one frame."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        w64, w32, _, _ = config.frame_widths
        self.codes = nn.Parameter(0.5 * torch.randn(1, POINTS, config.codes))
        self.fine_codes = nn.Parameter(0.5 * torch.randn(1, POINTS, config.fine_codes))
        self.log_sigma = nn.Parameter(torch.full((POINTS, 1), math.log(0.07)))
        self.log_fine_sigma = nn.Parameter(torch.full((POINTS, 1), math.log(0.045)))
        self.register_buffer("ones", torch.ones(1, POINTS, 1), persistent=False)
        self.register_buffer("centres32", pixel_centres(32), persistent=False)
        self.register_buffer("centres64", pixel_centres(64), persistent=False)
        if config.sigma_lid:
            self.lids = Lids()
            sigmas = [config.sigma_sharp] * SHARP_POINTS + [config.sigma_lid] * self.lids.of_eye.shape[1]
            self.register_buffer("sharp", 1 / (2 * torch.tensor(sigmas)[:, None] ** 2), persistent=False)
        if config.sigma_mouth:
            self.mouth = Mouth(config.sigma_mouth)
        self.read32 = nn.Linear(config.features + 3 + config.codes + 3, w32)
        self.map_gain = nn.Identity()  # of map features, by channel: `quantization.equalize` sets one
        self.trunk, self.top = FrameTrunk(config), FrameTop(config)
        self.up32, self.up64 = Upsample(32), Upsample(64)
        # Flow x, flow y, blend, mask; and the paint's colours of four pixels, unless it is painted at 128 px.
        self.heads = nn.Conv2d(w64, 4 if config.paint_width else 16, 3, padding=1)
        nn.init.zeros_(self.heads.weight)
        nn.init.zeros_(self.heads.bias)
        with torch.no_grad():  # start as the warp: no correction, 2 % of paint, everything the person
            self.heads.bias[:4] = torch.tensor([0.0, 0.0, -3.9, 4.0])
        if config.paint_width:
            self.paint_mix = mix(w64, config.paint_width)
            self.paint = nn.Conv2d(config.paint_width, 3, 3, padding=1)
            nn.init.zeros_(self.paint.weight)
            nn.init.zeros_(self.paint.bias)

    def _load_from_state_dict(self, state: dict, prefix: str, *args: object) -> None:
        for name in ("weight", "bias"):  # of weights from when what was splatted was read, as a 1x1 convolution
            if (before := f"{prefix}trunk.read32.{name}") in state:
                state[f"{prefix}read32.{name}"] = state.pop(before).reshape_as(getattr(self.read32, name))
        for name in list(state):  # and of weights from when all of the U-Net was the trunk
            if name.startswith((f"{prefix}trunk.to64.", f"{prefix}trunk.dec64.")):
                state[name.replace("trunk.", "top.", 1)] = state.pop(name)
        super()._load_from_state_dict(state, prefix, *args)

    def prior(self, source: Tensor, driving: Tensor) -> Tensor:
        """(B, 3, 64, 64): flow of the landmarks alone (xy), and how near the face is (0..1).

        A wide average smooths a closing lid away. So what it misses at lips, eyes and brows is splatted once more,
        narrowly: on people kept out of training that took the warp's L1 in mouth and eyes from 0.0567 to 0.0534.
        """
        config = self.config
        narrow, wide = (1 / (2 * s**2) for s in (config.sigma_narrow, config.sigma_wide))
        moved = torch.cat([source - driving, _of_batch(self.ones, len(source))], 2)
        total = splat(moved, *gaussians(square_offsets(driving, self.centres64), narrow))
        # What is wide needs few pixels.
        total = total + config.wide_share * self.up32(splat(moved, *gaussians(square_offsets(driving, self.centres32), wide)))
        weight = total[:, 2:3]
        flow = total[:, :2] / (weight + config.still)

        moving, wanted, sharp = driving[:, :SHARP_POINTS], moved[:, :SHARP_POINTS, :2], 1 / (2 * config.sigma_sharp**2)
        weights = _of_batch(self.ones[:, :SHARP_POINTS], len(source))
        if config.sigma_lid:
            copies, of_copies, weights_of_copies, weights = self.lids(moved, driving)
            moving, wanted = torch.cat([moving, copies], 1), torch.cat([wanted, of_copies], 1)
            weights, sharp = torch.cat([weights, weights_of_copies], 1), self.sharp
        distance = square_distances(moving, driving)
        here = torch.bmm(torch.exp(distance * -narrow) + config.wide_share * torch.exp(distance * -wide), moved)
        missed = wanted - here[:, :, :2] / (here[:, :, 2:3] + config.still)
        extra = splat(torch.cat([missed * weights, weights], 2), *gaussians(square_offsets(moving, self.centres64), sharp))
        flow = flow + extra[:, :2] / (extra[:, 2:3] + config.still_sharp)
        return torch.cat([flow, weight / (weight + 1.0)], 1)

    def forward(self, landmark_features: Tensor, map_features: Tensor, source: Tensor, driving: Tensor) -> Layers:
        """The first two from `AvatarCode`; source, driving (B, K, 2) network points in [-1, 1]."""
        return self.with_paint(landmark_features, map_features, source, driving)[0]

    def with_paint(
        self, landmark_features: Tensor, map_features: Tensor, source: Tensor, driving: Tensor
    ) -> tuple[Layers, Tensor]:
        """The layers, and the paint (B, 3, 128, 128) in [-1, 1] before it is blended in: training looks at it too."""
        return self.paint_from(*self.look(landmark_features, map_features, source, driving))

    def look(
        self, landmark_features: Tensor, map_features: Tensor, source: Tensor, driving: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the heads see, at 64 px: features (B, w64, 64, 64), the prior (B, 3 or, with the mouth, 4, 64, 64) and the
        colours (B, 3, 64, 64) that the paint starts from: the source's, where its landmarks went.

        Numbers are written 1.0, not 1: an integer would leave a type conversion outside the delegate.
        """
        config = self.config
        batch = len(driving)
        moved = source - driving
        ones = _of_batch(self.ones, batch)
        landmark_colours = landmark_features[:, :, config.features :]

        # Read before it is splatted: landmarks are fewer than pixels. The bias is of pixels.
        coarse = torch.cat([landmark_features, _of_batch(self.codes, batch), moved, ones], 2)
        coarse = torch.cat([nn.functional.linear(coarse, self.read32.weight), ones], 2)
        coarse = splat(coarse, *gaussians(square_offsets(driving, self.centres32), 0.5 * torch.exp(-2.0 * self.log_sigma)))
        coarse = coarse[:, :-1] / (coarse[:, -1:] + 0.1) + self.read32.bias.reshape(1, -1, 1, 1)
        fine = torch.cat([_of_batch(self.fine_codes, batch), landmark_colours, ones], 2)
        fine = splat(fine, *gaussians(square_offsets(driving, self.centres64), 0.5 * torch.exp(-2.0 * self.log_fine_sigma)))
        fine = fine / (fine[:, -1:] + 0.1)
        prior = self.prior(source, driving)
        x64 = self.top(*self.trunk(torch.cat([fine, prior], 1), coarse + self.map_gain(map_features)))
        colours = fine[:, config.fine_codes : -1]
        if config.sigma_mouth:
            mouth, inside = self.mouth(source, driving, landmark_colours, self.centres64)
            prior, colours = torch.cat([prior, mouth], 1), colours - mouth * colours + inside
        return x64, prior, colours

    def paint_from(self, x64: Tensor, prior: Tensor, colours: Tensor) -> tuple[Layers, Tensor]:
        """Layers and paint from what `look` returns.

        All but convolution and resizing is of images as rows, (B, C, pixels): of XNNPACK's images the channels lie side by
        side, and where they are 3 or 1 it goes from pixel to pixel. A tenth of a frame of S was the product of blend and paint.
        """
        batch, side = len(x64), x64.shape[-1]
        heads, prior = _as_rows(self.heads(x64)), _as_rows(prior)
        flow = prior[:, :2] + self.config.flow_reach * torch.tanh(heads[:, :2])
        blend, mask = heads[:, 2:3], torch.sigmoid(heads[:, 3:4])
        if self.config.sigma_mouth:
            blend = blend + MOUTH_BLEND * prior[:, 3:]
        blend = torch.sigmoid(blend)
        large = _as_rows(self.up64(torch.cat([_as_rows(colours), blend], 1).reshape(batch, 4, side, side)))
        if self.config.paint_width:
            paint = self.paint(torch.relu(self.up64(self.paint_mix(x64))))
        else:
            paint = nn.functional.pixel_shuffle(heads[:, 4:].reshape(batch, 12, side, side), 2)
        paint = torch.tanh(large[:, :3] + _as_rows(paint))
        a = torch.cat([flow, 1.0 - blend, mask], 1).reshape(batch, 4, side, side)
        b = (large[:, 3:] * paint).reshape(batch, 3, 2 * side, 2 * side)
        return Layers(a, b), paint.reshape(batch, 3, 2 * side, 2 * side)


def _as_rows(image: Tensor) -> Tensor:
    """(B, C, H, W) as (B, C, H * W)."""
    return image.flatten(2)


@cache
def _untrained() -> FrameNetwork:
    with torch.random.fork_rng(devices=[]):  # its random weights are of no use, and cost nobody's random numbers
        return FrameNetwork(StudentConfig())


@torch.no_grad()
def landmark_warp(texture: Tensor, source: Tensor, driving: Tensor) -> Tensor:
    """The prior alone, in which nothing is learned: what every network here is measured against.

    texture (N, 3, H, H) in [-1, 1], which stands behind itself; source (N or 1, K, 2), driving (N, K, 2); returns
    (N, 3, H, H)
    """
    flow = _untrained().to(texture.device).prior(source.expand_as(driving), driving)[:, :2]
    layers = Layers(torch.cat([flow, torch.ones_like(flow)], 1), torch.zeros_like(flow[:, :1]).expand(-1, 3, -1, -1))
    return composite(texture, texture, layers)


class Student(nn.Module):
    """Encoder and frame network."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder, self.frame = AvatarEncoder(config), FrameNetwork(config)

    def forward(self, image: Tensor, source: Tensor, driving: Tensor) -> tuple[Layers, Tensor, AvatarCode]:
        """A source and T driving frames at once, as in training: layers, paint and the source's code.

        image (B, 3, 256, 256) in [0, 1]; source (B, K, 2); driving (B * T, K, 2), a source's frames together
        """
        code = self.encoder(image, source)
        targets = len(driving) // len(image)
        features, maps, points = (
            x.repeat_interleave(targets, 0) for x in (code.landmark_features, code.map_features, source)
        )
        return *self.frame.with_paint(features, maps, points, driving), code
