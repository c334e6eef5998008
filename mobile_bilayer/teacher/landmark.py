"""The teacher that starts from the landmark warp (`prior: landmark`): a hundred people are enough to train it.

The per-frame generator is the paper's, at its full size. What differs from the paper:

- A *coarse stage* comes first, shaped as a student: it moves the source as the landmarks say, splats what it read of
  the source around the driving landmarks, and gives layers at 64 px.
- The generator sees at every level from 16 px on what the coarse stage made of the source (`CoarseReader`), and
  corrects its layers: the flow, what is painted and how much of it, the mask. Untrained it changes nothing.
- The identity is what the coarse stage read at the source's landmarks. Gains and biases of the generator's norms follow
  it; the 1x1 convolutions beside its blocks are learned, and the same for everybody.
- The texture is the source plus a residual (`TextureResidual`), and lf lies on top of the coarse stage's. Gate, mask
  and background are part of the image, as in every model here but the paper's (compositing.py).
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobile_bilayer.compositing import Layers, composite, identity_grid, resize
from mobile_bilayer.pose.head import POINTS
from mobile_bilayer.student.network import AvatarCode, Student, StudentConfig
from mobile_bilayer.teacher.blocks import LevelParams, ResidualBlock, activate, conv3x3, downsample
from mobile_bilayer.teacher.config import TeacherConfig
from mobile_bilayer.teacher.inference_generator import InferenceGenerator
from mobile_bilayer.teacher.keypoints_embedder import KeypointsEmbedder

LANDMARK = TeacherConfig(
    prior="landmark",
    coarse=StudentConfig(sigma_lid=0.025, sigma_mouth=0.025),
    keypoints=2 * POINTS,  # each network point of the driving frame, and how far it is from the source's
    enhancer_steps=0,
    norm_eps=1e-5,
    norm_momentum=0.02,
)
GRID = 64  # windows are counted in 64ths of the frame
READER_WIDTHS = (16, 32, 64, 96, 128)  # at 256, 128, 64, 32 and 16 px


RIM = 4  # in 64ths: as far as a window's edge, which knows no neighbours, is felt


class Windows(NamedTuple):
    """The part of each frame that the fine levels work on: in training, two thirds of the work are enough.

    corners  (top, left) for each frame of the batch, in 64ths of the frame
    side     in 64ths
    """

    corners: list[tuple[int, int]]
    side: int

    def cut(self, x: Tensor) -> Tensor:
        """(B, C, S, S) to (B, C, s, s), s = S * side / 64."""
        return self._parts(x, self.corners, self.side, x.shape[-1] // GRID)

    def inner(self, x: Tensor) -> Tensor:
        """What was cut, without the rim that may differ from the whole frame's: s = S * (side - 2 * RIM) / 64."""
        last = GRID - self.side
        corners = [tuple(0 if c == 0 else 2 * RIM if c == last else RIM for c in corner) for corner in self.corners]
        return self._parts(x, corners, self.side - 2 * RIM, x.shape[-1] // self.side)

    @staticmethod
    def _parts(frames: Tensor, corners: list[tuple[int, ...]], side: int, scale: int) -> Tensor:
        size = side * scale
        at = [(top * scale, left * scale) for top, left in corners]
        return torch.stack([one[:, y : y + size, x : x + size] for one, (y, x) in zip(frames, at, strict=True)])


class LandmarkAvatar(NamedTuple):
    """What is known of a source before any driving frame. B avatars.

    image    (B, 3, S, S)  the source, [-1, 1]
    texture  (B, 3, S, S)  what is warped
    points   (B, K, 2)     the source's network points
    code     what the coarse stage read
    params   of the generator's levels
    """

    image: Tensor
    texture: Tensor
    points: Tensor
    code: AvatarCode
    params: list[LevelParams]

    def repeated(self, times: int) -> LandmarkAvatar:
        """For `times` frames of each avatar."""
        image, texture, points, *code = (
            x.repeat_interleave(times, 0) for x in (self.image, self.texture, self.points, *self.code)
        )
        return LandmarkAvatar(
            image, texture, points, AvatarCode(*code), [level.repeated(times) for level in self.params]
        )


class LandmarkFrame(NamedTuple):
    """What the teacher says of driving frames.

    layers  at S px, or of the windows: to be composed with the avatar's texture
    coarse  the coarse stage's, to be composed with the source
    paint   (B, 3, 128, 128) of the coarse stage, before it is blended in
    """

    layers: Layers
    coarse: Layers
    paint: Tensor


class CoarseReader(nn.Module):
    """Read what the coarse stage made of the source, for the generator's levels of 16 px and more."""

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        # The source moved and composed, the source and its background standing still, two alphas; at 64 px features,
        # flow, gate and prior.
        width = 3 + 3 + 3 + 3 + 2
        more = config.coarse.frame_widths[0] + 3 + 3
        self.convs, self.handed = nn.ModuleList(), nn.ModuleList()
        for i, wider in enumerate(READER_WIDTHS):
            self.convs.append(conv3x3(width + more * (i == 2), wider))
            self.handed.append(nn.Conv2d(wider, config.generator_widths[config.levels - i], 1))
            width = wider

    def forward(self, pictures: Tensor, at64: Tensor, windows: Windows | None) -> dict[int, Tensor]:
        """pictures (B, 14, 256, 256), at64 (B, .., 64, 64); returns what is added to the generator's features."""
        extra, x = {}, pictures
        for i, (conv, hand) in enumerate(zip(self.convs, self.handed, strict=True)):
            if i:
                x = downsample(x)
            side = x.shape[-1]
            x = activate(conv(torch.cat([x, at64], 1) if i == 2 else x))
            extra[side] = hand(windows.cut(x) if windows and side >= GRID else x)
        return extra


class IdentityParams(nn.Module):
    """What was read at the source's landmarks, to the parameters of the generator's levels.

    Norms follow the identity, at first not at all. The 1x1 convolutions are the same for everybody.
    """

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        widths, hidden = config.generator_widths, 64
        self.embed = nn.Linear(POINTS * (config.coarse.features + 3), hidden)
        self.norms = nn.ModuleList(nn.Linear(hidden, 4 * width) for width in widths[1:])  # two norms' gain and bias
        self.skips = nn.ParameterList()
        for inputs, outputs in pairwise(widths):
            skip = torch.zeros(1, outputs, inputs + 1)
            nn.init.kaiming_uniform_(skip[0, :, :-1], a=5**0.5)
            self.skips.append(nn.Parameter(skip))
        for norm in self.norms:
            nn.init.zeros_(norm.weight)
            nn.init.zeros_(norm.bias)

    def forward(self, landmark_features: Tensor) -> list[LevelParams]:
        """landmark_features (B, K, features + 3)."""
        identity = activate(self.embed(landmark_features.flatten(1)))
        params = []
        for norm, skip in zip(self.norms, self.skips, strict=True):
            first, second = norm(identity).unflatten(1, (2, -1, 2)).unbind(1)
            params.append(LevelParams((first,), skip.expand(len(identity), -1, -1), (second,)))
        return params


class TextureResidual(nn.Module):
    """What the source lacks as a texture: (B, 4, S, S), picture and alpha, to (B, 3, S, S) in [-1, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down = conv3x3(4, 8), ResidualBlock(8, 16, "down")
        self.middle, self.up = ResidualBlock(16, 16), ResidualBlock(16, 8, "up")
        self.head = conv3x3(8, 3)

    def forward(self, seen: Tensor) -> Tensor:
        x = self.stem(seen)
        return torch.tanh(self.head(activate(x + self.up(self.middle(self.down(x))))))


class LandmarkTeacher(nn.Module):
    """Source, landmarks and background to layers of the frame at full size."""

    flow_reach = 0.2  # largest correction of the coarse flow

    def __init__(self, config: TeacherConfig = LANDMARK) -> None:
        super().__init__()
        assert config.prior == "landmark"
        self.config = config
        self.coarse = Student(config.coarse)
        self.identity, self.texture = IdentityParams(config), TextureResidual()
        self.keypoints_embedder = KeypointsEmbedder(config)
        self.reader = CoarseReader(config)
        self.inference_generator = generator = InferenceGenerator(config, blends=True)
        for head in (self.texture.head, generator.delta_uv, generator.lf, generator.seg, generator.blend):
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
        # Little at first: what is painted lies where the coarse flow put it, and would double what a better flow moves.
        nn.init.constant_(generator.blend.bias, -2.0)

    def encode(self, image: Tensor, points: Tensor) -> LandmarkAvatar:
        """Once per avatar. image (B, 3, 256, 256) in [0, 1]; points (B, K, 2), its network points."""
        picture = image * 2 - 1
        code = self.coarse.encoder(image, points)
        texture = picture + self.texture(torch.cat([picture, resize(code.alpha, self.config.image_px)], 1))
        return LandmarkAvatar(picture, texture, points, code, self.identity(code.landmark_features))

    def look(
        self, avatar: LandmarkAvatar, driving: Tensor, background: Tensor, windows: Windows | None = None
    ) -> LandmarkFrame:
        """Every frame.

        avatar      of the same batch (`LandmarkAvatar.repeated`)
        driving     (B, K, 2) network points in [-1, 1] of the source's crop
        background  (B, 3, S, S), [-1, 1]: the source without the person
        """
        side = self.config.image_px
        frame, code = self.coarse.frame, avatar.code
        x64, prior, colours = frame.look(code.landmark_features, code.map_features, avatar.points, driving)
        coarse, paint = frame.paint_from(x64, prior, colours)
        flow, gate, mask = resize(coarse.a, side).split((2, 1, 1), 1)
        lf = resize(coarse.b, side)
        seen = torch.cat([avatar.image, resize(code.alpha, side)], 1)
        where = identity_grid(side, seen) + flow.permute(0, 2, 3, 1)
        moved = F.grid_sample(seen, where, padding_mode="border", align_corners=False)
        head = gate * moved[:, :3] + lf
        pictures = torch.cat([moved, head, avatar.image, background, mask], 1)
        extra = self.reader(pictures, torch.cat([x64, coarse.a[:, :3], prior[:, :3]], 1), windows)
        pose = torch.cat([driving, avatar.points - driving], 1).flatten(1)
        cut = (GRID, windows.cut) if windows else None
        out = self.inference_generator(self.keypoints_embedder(pose), avatar.params, extra, cut)
        if windows:
            flow, gate, mask, lf, head = map(windows.cut, (flow, gate, mask, lf, head))
        blend = torch.sigmoid(out.blend)
        # Painted is the coarse head plus lf: nothing changes at first, however much is blended in.
        painted = head + out.lf
        layers = Layers(
            torch.cat(
                [
                    flow + self.flow_reach * out.delta_uv,
                    gate * (1 - blend),
                    torch.sigmoid(torch.logit(mask, eps=1e-3) + out.seg),
                ],
                1,
            ),
            lf * (1 - blend) + blend * painted,
        )
        return LandmarkFrame(layers, coarse, paint)

    def forward(
        self, image: Tensor, points: Tensor, driving: Tensor, background: Tensor, windows: Windows | None = None
    ) -> tuple[LandmarkAvatar, LandmarkFrame]:
        """A source and T driving frames at once: driving (B * T, K, 2), a source's frames together."""
        avatar = self.encode(image, points)
        repeated = avatar.repeated(len(driving) // len(image))
        return repeated, self.look(repeated, driving, background, windows)

    def render(self, image: Tensor, points: Tensor, driving: Tensor, background: Tensor) -> Tensor:
        """As `forward`, composed: (B * T, 3, 256, 256) in about [-1, 1]."""
        avatar, frame = self(image, points, driving, background)
        return composite(avatar.texture, background, frame.layers)
