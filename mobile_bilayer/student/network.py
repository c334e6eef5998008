"""The student: an avatar encoder that runs once a photo, and a frame network that runs every frame.

The frame network never samples the texture. It splats, around the driving landmarks, what the encoder
read from the source at its own landmarks: a coarse picture of the source, already in the target's pose.
From it a small U-Net predicts the layers that the compositor joins. Before training its output *is* the
landmark warp, but for lids that shut and mouths that open; it can only learn what the warp lacks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
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
from mobile_bilayer.student.splat import (
    gather,
    gaussians,
    gaussians_of_widths,
    pixel_centres,
    splat,
    square_distances,
    square_offsets,
)

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
    # Residuals are half as wide inside, what is splatted at 32 px is a quarter; the two convolutions at 64 px are separable, flow
    # and blend that they give are smoothed, and nothing smooths the colours there that paint starts from. `training/lean.py`
    # makes such a student out of one that is not.
    lean: bool = False
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
        if self.lean and self.paint_width:
            raise MobileBilayerError(f"A lean student paints at 64 px, but paint_width is {self.paint_width}. Leave it 0, or lean False.")
        object.__setattr__(self, "frame_widths", tuple(self.frame_widths))
        object.__setattr__(self, "encoder_widths", tuple(self.encoder_widths))

    @property
    def inner_widths(self) -> tuple[int, ...]:
        """Channels between the two convolutions of the residuals at 32, 16 and 8 px."""
        return tuple(max(width // 2, 1) if self.lean else width for width in self.frame_widths[1:])

    @property
    def splatted(self) -> int:
        """Channels splatted at 32 px."""
        return max(self.frame_widths[1] // 4, 1) if self.lean else self.frame_widths[1]


SIZES = {
    "XS": StudentConfig((8, 16, 32, 48), fine_codes=2, sigma_lid=0.025, sigma_mouth=0.025),
    "S": StudentConfig(fine_codes=1, lean=True, sigma_lid=0.025, sigma_mouth=0.025),
    "M": StudentConfig((24, 56, 104, 128), fine_codes=8, sigma_lid=0.025, sigma_mouth=0.025),
}


# What `training/lean.py` makes S of: nearer to its teacher than an S that learns alone.
WHOLE = {"S-whole": replace(SIZES["S"], fine_codes=4, lean=False)}


def size_of(config: StudentConfig) -> str | None:
    """The name of this shape, whatever its prior's numbers are; None for a shape that has none."""
    learned = ("frame_widths", "encoder_widths", "features", "codes", "fine_codes", "lean", "paint_width")
    shape = [getattr(config, part) for part in learned]
    return next((name for name, known in (SIZES | WHOLE).items() if [getattr(known, part) for part in learned] == shape), None)


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


class Separable(nn.Module):
    """3x3 depthwise, then 1x1, with nothing between: of what 3x3 convolutions are, those of one kernel for each input."""

    def __init__(self, inputs: int, outputs: int, bias: bool = False) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


def _of_batch(values: Tensor, batch: int) -> Tensor:
    """(1, n, m) as (batch, n, m). A batch of one stays as it is: no delegate takes the empty expand."""
    return values if batch == 1 else values.expand(batch, -1, -1)


class Residual(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, width: int, inner: int | None = None) -> None:
        super().__init__()
        inner = width if inner is None else inner
        self.first, self.second = conv(width, inner), conv(inner, width, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.second(self.first(x)))


def _both_ways(images: Tensor, matrix: Tensor) -> Tensor:
    """Images (N, S, S), along rows and along columns times a matrix (T, S): (N, T, T). With it alone, not its transpose too."""
    for _ in range(2):
        images = nn.functional.linear(images, matrix).transpose(1, 2)
    return images


class Upsample(nn.Module):
    """Twice the side, bilinear: two products with a fixed matrix, or where that is exported XNNPACK's resizing.

    It has an image's channels lie side by side and puts them so first, so that of one channel or few products cost less.
    """

    def __init__(self, side_px: int, exported_as_products: bool = False) -> None:
        super().__init__()
        self.exported_as_products = exported_as_products
        self.register_buffer("matrix", bilinear_matrix(2 * side_px, side_px), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_exporting():
            return self.matrix @ x @ self.matrix.T
        if not self.exported_as_products:
            return nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
        rows = _both_ways(x.reshape(-1, *x.shape[2:]), self.matrix)
        return rows.reshape(*x.shape[:2], *rows.shape[1:])


class Smooth(nn.Module):
    """Each pixel and a sixth of each neighbour's difference to it, along rows and along columns: two products with a fixed matrix."""

    def __init__(self, side_px: int) -> None:
        super().__init__()
        edges = nn.functional.pad(torch.eye(side_px)[None], (0, 0, 1, 1), mode="replicate")[0]
        self.register_buffer("matrix", (edges[:-2] + 4 * edges[1:-1] + edges[2:]) / 6, persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """(B, C, S * S) to the same."""
        return _both_ways(rows.reshape(-1, *self.matrix.shape), self.matrix).reshape(rows.shape)


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
        near = square_offsets(landmarks.transpose(1, 2), self.centres)
        x64, x32 = self.trunk(picture, splat(self.codes.transpose(1, 2), *gaussians(near, 1 / (2 * 0.04**2))))
        maps = torch.cat([self.feature_head(x64), nn.functional.avg_pool2d(picture, 4)], 1)
        read = gather(maps, *gaussians(near, 1 / (2 * 0.025**2)))
        return AvatarCode(read, self.map_head(x32), torch.sigmoid(self.alpha_head(self.up64(self.alpha_mix(x64)))))


def _columns(landmarks: list[int]) -> Tensor:
    """(K, n): a product of rows over the network points with it picks these landmarks."""
    return nn.functional.one_hot(torch.tensor([MESH.index(i) for i in landmarks]), POINTS).float().T


def _sums_of_pairs(rows: int) -> Tensor:
    """(rows / 2, rows): adds the row of x and the row of y of each set of points."""
    return torch.eye(rows // 2).repeat_interleave(2, 1)


def _turns(rows: int) -> Tensor:
    """(rows, rows): turns each point of rows of x and y by 90 degrees, (x, y) to (-y, x), which is down if x was right."""
    return torch.block_diag(*[torch.tensor([[0.0, -1.0], [1.0, 0.0]])] * (rows // 2))


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
        width = torch.cat([_columns(corners[1:]) - _columns(corners[:1]) for corners, *_ in EYES], 1)
        gap = [_columns(lower[2:5]).mean(1) - _columns(upper[2:5]).mean(1) for _, upper, lower, _ in EYES]
        lids = torch.cat([_columns(lid) for _, *both, _ in EYES for lid in both], 1)
        side = torch.tensor([-1.0, 1.0] * len(EYES)).repeat_interleave(len(EYES[0][1]))
        of_eye = torch.eye(len(EYES)).repeat_interleave(2 * len(EYES[0][1]), 1)
        faded = torch.stack([_columns([*upper, *lower, *iris]).sum(1) for _, upper, lower, iris in EYES])
        # Columns of points to: each eye's width and gap, the lids.
        columns = torch.cat([width, torch.stack(gap, 1), lids], 1)
        # How much of them is left of the first points, and of the copies, when an eye shuts.
        handed_over = torch.cat([-1.0 * faded[:, :SHARP_POINTS], of_eye], 1)
        kept = torch.cat([torch.ones(1, SHARP_POINTS), torch.zeros(1, of_eye.shape[1])], 1)
        self.copies = of_eye.shape[1]
        for name, matrix in (("columns", columns), ("out", self.outwards * side * of_eye), ("handed_over", handed_over),
                             ("kept", kept), ("turn", _turns(2)), ("sum", _sums_of_pairs(2))):  # fmt: skip
            self.register_buffer(name, matrix[None], persistent=False)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """points (B, 4, K): rows of driving points and of their displacements.

        Returns the copies (B, 2, 28), their displacements (B, 2, 28), and the weights (B, 1, SHARP_POINTS + 28) of the first
        `SHARP_POINTS` points and of the copies.
        """
        batch, eyes = len(points), len(EYES)
        turn, add = _of_batch(self.turn, batch), _of_batch(self.sum, batch)
        picked = torch.bmm(points, _of_batch(self.columns, batch))
        driving, wanted = picked[:, :2], picked[:, 2:, 2 * eyes :]
        width, gap, lids = driving[:, :, :eyes], driving[:, :, eyes : 2 * eyes], driving[:, :, 2 * eyes :]
        turned = torch.bmm(turn, width)
        height = torch.bmm(add, turned * gap) / (torch.bmm(add, width * width) + 1e-6)
        shut = torch.clamp(height * (-1.0 / (self.open - self.shut)) + self.open / (self.open - self.shut), 0.0, 1.0)
        copies = lids + torch.bmm(turned, _of_batch(self.out, batch))
        return copies, wanted, self.kept + torch.bmm(shut, _of_batch(self.handed_over, batch))


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
        up, down, count = _columns(upper), _columns(lower), len(upper)
        width = _columns(corners[1:]) - _columns(corners[:1])
        self.precision = 1 / (2 * sigma**2)
        # What a point stands for: the columns share the width; the Gaussian's own integral is 2 pi sigma^2.
        self.share = 1.0 / (len(self.across) * (count + 1) * 2 * math.pi * sigma**2)
        one = torch.eye(count)
        filling = torch.cat([torch.cat([(1 - t) * one, t * one]) for t in self.across], 1)  # out of upper and lower lip
        of_column = one.repeat(1, len(self.across)) * self.share
        for name, matrix in (("columns", torch.cat([width, up, down], 1)), ("filling", filling), ("of_column", of_column),
                             ("turn", _turns(4)), ("sum", _sums_of_pairs(4))):  # fmt: skip
            self.register_buffer(name, matrix[None], persistent=False)
        # What lies there has a colour of its own, and as much light as the lips: of people kept out of training it is met
        # with an L1 of 0.16, where one dark red came to 0.23.
        self.points = filling.shape[1]
        self.colours = nn.Parameter(torch.tensor(MOUTH_INSIDE).repeat(1, self.points, 1))
        self.colours_of_lips = nn.Parameter(torch.zeros(1, self.points, 1))

    def _load_from_state_dict(self, state: dict, prefix: str, *args: object) -> None:
        for name in ("colours", "colours_of_lips"):  # of weights from before they were learned
            state.setdefault(prefix + name, getattr(self, name).detach())
        super()._load_from_state_dict(state, prefix, *args)

    def places(self, driving: Tensor) -> Tensor:
        """(B, 2, 28): where the points lie. driving (B, 2, K)."""
        return driving @ self.columns[:, :, 1:] @ self.filling

    def forward(self, colours: Tensor, source: Tensor, driving: Tensor, centres: Tensor) -> tuple[Tensor, Tensor]:
        """colours (B, 3, K) at the source's landmarks, source, driving (B, 2, K).

        Returns, at the S `centres`, how much is a mouth's inside (B, 1, S, S), some 0..1, and its colours times that
        (B, 3, S, S).
        """
        batch, count = len(driving), self.of_column.shape[1]
        turn, add = _of_batch(self.turn, batch), _of_batch(self.sum, batch)
        picked = torch.bmm(torch.cat([source, driving, colours], 1), _of_batch(self.columns, batch))
        both, width, lips = picked[:, :4], picked[:, :4, :1], picked[:, 2:, 1:]
        gap = both[:, :, 1 + count :] - both[:, :, 1 : 1 + count]
        filling = torch.bmm(lips, _of_batch(self.filling, batch))
        area = torch.bmm(add, torch.bmm(turn, width) * gap)
        height = area / (torch.bmm(add, width * width) + 1e-6)
        before, height = torch.clamp(height[:, :1], 0.0, 10.0), height[:, 1:]
        scale = 1.0 / (self.full - self.least)
        new = torch.clamp((height - 2.0 * before) * scale - self.least * scale, 0.0, 1.0)
        weights = torch.bmm(area[:, 1:] * new, _of_batch(self.of_column, batch))
        inside = self.colours.transpose(1, 2) + self.colours_of_lips.transpose(1, 2) * filling[:, 2:]
        near = square_offsets(filling[:, :2], centres)
        filled = splat(torch.cat([weights, weights * inside], 1), *gaussians(near, self.precision))
        return filled[:, :1], filled[:, 1:]


class FrameTrunk(nn.Module):
    """A U-Net from 64 px down to 8 and up to 32: int8 when exported so."""

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        w64, w32, w16, w8 = config.frame_widths
        self.stem = conv(config.fine_codes + 3 + 1 + 3, w64)
        self.enc32, self.enc16, self.enc8 = conv(w64, w32, 2), conv(w32, w16, 2), conv(w16, w8, 2)
        i32, i16, i8 = config.inner_widths
        self.mid8, self.mid16, self.mid32 = Residual(w8, i8), Residual(w16, i16), Residual(w32, i32)
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
        if config.lean:
            self.dec64[0] = Separable(w64, w64)

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
        self.register_buffer("ones", torch.ones(1, 1, POINTS), persistent=False)
        self.register_buffer("centres32", pixel_centres(32), persistent=False)
        self.register_buffer("centres64", pixel_centres(64), persistent=False)
        for name, weights in (("still", [config.still, config.still, 1.0]), ("still_sharp", [config.still_sharp] * 2 + [1e9])):
            self.register_buffer(name, torch.tensor(weights).reshape(1, 3, 1, 1), persistent=False)
        squares = torch.tensor([config.sigma_narrow, config.sigma_wide]) ** 2
        # Splatted at 32 px they are narrower by what doubling the side adds, the variance of bilinear interpolation, and as much higher.
        narrower = squares - (2.0 / 32) ** 2 / 6
        shares = torch.tensor([1.0, config.wide_share])
        self.register_buffer("precisions", 1 / (2 * squares), persistent=False)
        self.register_buffer("precisions32", 1 / (2 * narrower), persistent=False)
        self.register_buffer("shares", shares.reshape(1, 1, 2, 1), persistent=False)
        self.register_buffer("shares32", (shares * squares / narrower).reshape(1, 1, 2, 1), persistent=False)
        if config.sigma_lid:
            self.lids = Lids()
            sigmas = [config.sigma_sharp] * SHARP_POINTS + [config.sigma_lid] * self.lids.copies
            self.register_buffer("sharp", 1 / (2 * torch.tensor(sigmas)[:, None] ** 2), persistent=False)
        if config.sigma_mouth:
            self.mouth = Mouth(config.sigma_mouth)
        self.read32 = nn.Linear(config.features + 3 + config.codes + 3, config.splatted, bias=not config.lean)
        if config.lean:
            self.spread32 = nn.Linear(config.splatted, w32)
        self.map_gain = nn.Identity()  # of map features, by channel: `quantization.equalize` sets one
        self.trunk, self.top = FrameTrunk(config), FrameTop(config)
        self.up32, self.up64 = Upsample(32, exported_as_products=True), Upsample(64, exported_as_products=config.lean)
        if config.lean:
            self.smooth = Smooth(64)
        # Flow x, flow y, blend, mask; and the paint's colours of four pixels, unless it is painted at 128 px.
        outputs = 4 if config.paint_width else 16
        self.heads = Separable(w64, outputs, bias=True) if config.lean else nn.Conv2d(w64, outputs, 3, padding=1)
        last = self.heads.pointwise if config.lean else self.heads
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        with torch.no_grad():  # start as the warp: no correction, 2 % of paint, everything the person
            last.bias[:4] = torch.tensor([0.0, 0.0, -3.9, 4.0])
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

    def prior(self, points: Tensor) -> Tensor:
        """(B, 3, 64, 64): flow of the landmarks alone (xy), and how near the face is (0..1).

        points (B, 4, K): rows of the driving points, and of how far it is from there to where the source has them.

        A wide average smooths a closing lid away. So what it misses at lips, eyes and brows is splatted once more,
        narrowly: on people kept out of training that took the warp's L1 in mouth and eyes from 0.0567 to 0.0534.
        """
        config, batch = self.config, len(points)
        driving, moved = points[:, :2], points[:, 2:]
        values = torch.cat([moved, _of_batch(self.ones, batch)], 1).reshape(batch, 3, 1, -1)
        narrow_and_wide = gaussians_of_widths(square_offsets(driving, self.centres32), self.precisions32)
        total = self.up32(splat((values * self.shares32).reshape(batch, 3, -1), *narrow_and_wide))
        # Where flow is and how near the face is come out of one division; of what is added below the last is 0.
        prior = total / (total[:, 2:] + self.still)

        moving, wanted, sharp = driving[:, :, :SHARP_POINTS], moved[:, :, :SHARP_POINTS], 1 / (2 * config.sigma_sharp**2)
        weights = _of_batch(self.ones[:, :, :SHARP_POINTS], batch)
        if config.sigma_lid:
            copies, of_copies, weights = self.lids(points)
            moving, wanted, sharp = torch.cat([moving, copies], 2), torch.cat([wanted, of_copies], 2), self.sharp
        distance = square_distances(driving, moving).reshape(batch, 1, POINTS, -1)
        here = torch.exp(distance * -self.precisions.reshape(1, 2, 1, 1)).reshape(batch, 2 * POINTS, -1)
        here = torch.bmm((values * self.shares).reshape(batch, 3, -1), here)
        missed = wanted - here[:, :2] / (here[:, 2:] + config.still)
        near = square_offsets(moving, self.centres64)
        extra = splat(torch.cat([missed * weights, weights], 1), *gaussians(near, sharp))
        return prior + extra / (extra[:, 2:] + self.still_sharp)

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
        config, batch = self.config, len(driving)
        ones = _of_batch(self.ones, batch)
        rows = torch.cat([driving, source - driving, landmark_features, source], 2).transpose(1, 2)
        driving, source, landmark_colours = rows[:, :2], rows[:, -2:], rows[:, -5:-2]

        # Read before it is splatted: landmarks are fewer than pixels.
        coarse = self.spread(self.splat32(self.read(self.given32(rows)), driving))
        fine = torch.cat([_of_batch(self.fine_codes.transpose(1, 2), batch), landmark_colours, ones], 1)
        fine = splat(fine, *gaussians(square_offsets(driving, self.centres64), 0.5 * torch.exp(-2.0 * self.log_fine_sigma)))
        fine = fine / (fine[:, -1:] + 0.1)
        prior = self.prior(rows[:, :4])
        x64 = self.top(*self.trunk(torch.cat([fine, prior], 1), coarse + self.map_gain(map_features)))
        colours = fine[:, config.fine_codes : -1]
        if config.sigma_mouth:
            mouth, inside = self.mouth(landmark_colours, source, driving, self.centres64)
            prior, colours = torch.cat([prior, mouth], 1), colours - mouth * colours + inside
        return x64, prior, colours

    def given32(self, rows: Tensor) -> Tensor:
        """What is known of each landmark, (B, n, K): how far it is to the source's, features, colours, codes, and 1.

        rows (B, .., K): driving points, how far it is, features and colours, source points.
        """
        codes, ones = (_of_batch(x, len(rows)) for x in (self.codes.transpose(1, 2), self.ones))
        return torch.cat([rows[:, 2:-2], codes, ones], 1)

    def read(self, given: Tensor) -> Tensor:
        """(B, n, K), landmarks or pixels, to the channels that are splatted at 32 px, (B, splatted, K)."""
        weight = self.read32.weight
        weight = torch.cat([weight[:, -3:-1], weight[:, :-3], weight[:, -1:]], 1)[None]  # displacements come first in `given`
        return torch.bmm(_of_batch(weight, len(given)), given)

    def splat32(self, values: Tensor, driving: Tensor) -> Tensor:
        """Values (B, n, K) at driving (B, 2, K), averaged around them: (B, n, 32, 32), 0 where no landmark is near."""
        values = torch.cat([values, _of_batch(self.ones, len(values))], 1)
        total = splat(values, *gaussians(square_offsets(driving, self.centres32), 0.5 * torch.exp(-2.0 * self.log_sigma)))
        return total[:, :-1] / (total[:, -1:] + 0.1)

    def spread(self, splatted: Tensor) -> Tensor:
        """(B, splatted, 32, 32) to the channels of the trunk there, (B, w32, 32, 32)."""
        if not self.config.lean:
            return splatted + self.read32.bias.reshape(1, -1, 1, 1)
        weight, bias = self.spread32.weight[None], self.spread32.bias.reshape(1, -1, 1)
        spread = torch.bmm(_of_batch(weight, len(splatted)), _as_rows(splatted)) + bias
        return spread.reshape(len(splatted), -1, *splatted.shape[2:])

    def paint_from(self, x64: Tensor, prior: Tensor, colours: Tensor) -> tuple[Layers, Tensor]:
        """Layers and paint from what `look` returns.

        All but convolution and resizing is of images as rows, (B, C, pixels): of XNNPACK's images the channels lie side by
        side, and where they are 3 or 1 it goes from pixel to pixel. A tenth of a frame of S was the product of blend and paint.
        """
        batch, side = len(x64), x64.shape[-1]
        heads, prior = _as_rows(self.heads(x64)), _as_rows(prior)
        moves = self.smooth(heads[:, :3]) if self.config.lean else heads[:, :3]
        flow = prior[:, :2] + self.config.flow_reach * torch.tanh(moves[:, :2])
        blend, mask = moves[:, 2:], torch.sigmoid(heads[:, 3:4])
        if self.config.sigma_mouth:
            blend = blend + MOUTH_BLEND * prior[:, 3:]
        blend = torch.sigmoid(blend)
        a = torch.cat([flow, 1.0 - blend, mask], 1).reshape(batch, 4, side, side)
        colours = _as_rows(colours)
        if self.config.lean:  # a colour is that of four pixels
            paint = torch.tanh(colours.reshape(batch, 3, 1, -1) + heads[:, 4:].reshape(batch, 3, 4, -1))
            # A pixel shuffle in three steps: XNNPACK moves pairs of a pixel's channels faster than it weaves two planes. Then whole rows.
            paint = paint.reshape(batch, 12, side * side).transpose(1, 2).reshape(batch, side * side, 6, 2).transpose(1, 2)
            paint = paint.reshape(batch, 3, 2, side, 2 * side).transpose(2, 3)
            paint = paint.reshape(batch, 3, -1)
            blend = _as_rows(self.up64(blend.reshape(batch, 1, side, side)))
        else:
            if self.config.paint_width:
                paint = self.paint(torch.relu(self.up64(self.paint_mix(x64))))
            else:
                paint = nn.functional.pixel_shuffle(heads[:, 4:].reshape(batch, 12, side, side), 2)
            large = _as_rows(self.up64(torch.cat([colours, blend], 1).reshape(batch, 4, side, side)))
            paint, blend = torch.tanh(large[:, :3] + _as_rows(paint)), large[:, 3:]
        b = (blend * paint).reshape(batch, 3, 2 * side, 2 * side)
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
    flow = _untrained().to(texture.device).prior(torch.cat([driving, source - driving], 2).transpose(1, 2))[:, :2]
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
        return *self.frame.with_paint(*of_targets(code, source, driving)), code


def of_targets(code: AvatarCode, source: Tensor, driving: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a frame network takes of each target: features, map features, source and driving points. As for `Student`."""
    targets = len(driving) // len(source)
    features, maps, points = (x.repeat_interleave(targets, 0) for x in (code.landmark_features, code.map_features, source))
    return features, maps, points, driving
