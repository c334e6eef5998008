"""Pairs of frames of one person, as a student trains on them."""

from __future__ import annotations

import re
import warnings
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from mobile_bilayer.background import fill_behind
from mobile_bilayer.dataset.shards import (
    SIDE_PX,
    Contents,
    Entry,
    read_contents,
    read_entry,
    read_frame,
    read_index,
)
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.crop import Crop, head_crop
from mobile_bilayer.pose.head import HEAD_POINTS, TORSO_POINTS, fit_head, mirrored_points
from mobile_bilayer.pose.keypoints import MIRRORED_68, keypoints_68
from mobile_bilayer.pose.landmarks import LEFT_EYE, LIPS, MESH, RIGHT_EYE

IMAGE_PX = 256


@dataclass(frozen=True)
class Augmentation:
    """How much pairs are varied. Angles in degrees, shifts in parts of the frame."""

    source_angle: float = 10
    source_scale: float = 0.1
    source_shift: float = 0.04
    angle: float = 15  # of the target against the source
    scale: float = 0.15
    shift: float = 0.1
    moved: float = 0.5  # how many pairs get the motion above; the others keep one camera
    gain: float = 0.2
    flip: float = 0.5


NO_AUGMENTATION = Augmentation(0, 0, 0, 0, 0, 0, 0, 0, 0)


@dataclass(frozen=True)
class _Motion:
    """What is kept of a clip that was used: see `PreparedClip` for `points` and `pose`."""

    contents: Contents
    points: np.ndarray
    pose: np.ndarray


class PreparedClip:
    """A clip of a prepared folder: a file of its own, or part of a tar. It is read when first needed."""

    def __init__(self, where: Path | Entry) -> None:
        self.entry = where if isinstance(where, Entry) else read_entry(where)

    @property
    def name(self) -> str:
        return self.entry.name

    @property
    def identity(self) -> str:
        return self.entry.identity

    @property
    def photos(self) -> bool:
        """Made of photos, whose backgrounds differ; else of a video."""
        return self.entry.photos

    @property
    def landmarks(self) -> np.ndarray:
        """(N, 478, 3) float32, pixels of the prepared frame."""
        return _motion(self).contents.landmarks

    @property
    def inside(self) -> np.ndarray:
        """(N, 4) float32: left, top, right, bottom of what is picture, and not padding."""
        return _motion(self).contents.inside

    @property
    def shots(self) -> np.ndarray:
        """(N,) int64: frames between two cuts have the same number."""
        return _motion(self).contents.shots

    @property
    def points(self) -> np.ndarray:
        """(N, K, 2) float32: mesh and head points, pixels. The torso's depend on the source."""
        return _motion(self).points

    @property
    def pose(self) -> np.ndarray:
        """(N, D) float32: frames whose rows differ much, differ much in pose and expression."""
        return _motion(self).pose

    def __len__(self) -> int:
        return self.entry.frames

    def frame(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """RGB (SIDE_PX, SIDE_PX, 3) uint8 and alpha (SIDE_PX / 2, SIDE_PX / 2) uint8."""
        return read_frame(self.entry, _motion(self).contents, index)


APERTURES_COUNT = 0.3  # of the difference between two frames


def apertures(landmarks: np.ndarray) -> np.ndarray:
    """How far eyes and mouth are open, (N, 3): height against width of both eyes, and of the mouth against the eyes' distance.

    landmarks  (N, 478, 2 or 3)
    """

    def apart(first: int, second: int) -> np.ndarray:
        return np.linalg.norm(landmarks[:, first, :2] - landmarks[:, second, :2], axis=1)

    pairs = ((159, 145, 33, 133), (386, 374, 263, 362), (13, 14, 33, 263))
    return np.stack([apart(a, b) / np.maximum(apart(c, d), 1e-3) for a, b, c, d in pairs], 1)


_KEPT_FRAMES = 20_000  # of the clips used last: some 200 MB in each process
_kept: OrderedDict[PreparedClip, _Motion] = OrderedDict()  # the one used last comes last


def _motion(clip: PreparedClip) -> _Motion:
    if clip in _kept:
        _kept.move_to_end(clip)
        return _kept[clip]
    contents = read_contents(clip.entry)
    points = np.stack([np.concatenate([p[MESH, :2], fit_head(p).project(HEAD_POINTS)]) for p in contents.landmarks])
    half = np.array([head_crop(p).half_px for p in contents.landmarks])
    places = points - points.mean(1, keepdims=True) * 0.7  # where the head is counts a little
    weight = np.ones(places.shape[1])
    weight[: len(LIPS + RIGHT_EYE + LEFT_EYE)] = 2.5
    pose = (places / half[:, None, None] * weight[:, None]).reshape(len(places), -1)
    # Lids move few points and those a little: without this a blink would count as no change.
    pose = np.concatenate([pose, pose.shape[1] * APERTURES_COUNT * apertures(contents.landmarks)], 1).astype(np.float32)
    _kept[clip] = _Motion(contents, points, pose)
    while len(_kept) > 1 and sum(map(len, _kept)) > _KEPT_FRAMES:
        _kept.popitem(last=False)
    return _kept[clip]


def load_clips(folder: Path) -> list[PreparedClip]:
    """All clips of a prepared folder; of those in tars, only the index is read."""
    # Names that begin with a dot are what a killed `prepare` had not finished.
    entries = [read_entry(path) for path in sorted(folder.glob("[!.]*.safetensors"))]
    tars = sorted(folder.glob("[!.]*.tar"))
    for path in tars:
        entries += read_index(path)[0]
    if not entries:
        raise MobileBilayerError(f"{folder} holds no prepared clips. Run `mobile-bilayer prepare VIDEOS -o {folder}`.")
    if tars and (whole := re.search(r"-of-(\d+)$", tars[0].stem)) and len(tars) < int(whole[1]):
        warnings.warn(
            f"{folder} holds {len(tars)} of {int(whole[1])} tars: `mobile-bilayer prepare` has not finished there.",
            stacklevel=2,
        )
    return [PreparedClip(entry) for entry in entries]


def _turn(angle: float, scale: float, shift: np.ndarray) -> np.ndarray:
    """(3, 3) similarity about the middle of a 256 px crop."""
    matrix = np.eye(3)
    matrix[:2] = cv2.getRotationMatrix2D((IMAGE_PX / 2 - 0.5,) * 2, angle, scale)
    matrix[:2, 2] += shift * IMAGE_PX
    return matrix


def _apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Pixel points (i covers [i, i + 1]) of the prepared frame to [-1, 1] of the crop."""
    moved = (points - 0.5) @ matrix[:2, :2].T + matrix[:2, 2] + 0.5
    return (moved / (IMAGE_PX / 2) - 1).astype(np.float32)


def _warp(picture: np.ndarray, matrix: np.ndarray, border: int = cv2.BORDER_REPLICATE) -> np.ndarray:
    return cv2.warpAffine(picture, matrix[:2], (IMAGE_PX, IMAGE_PX), flags=cv2.INTER_LINEAR, borderMode=border)


def make_example(
    clip: PreparedClip, source: int, targets: list[int], augmentation: Augmentation, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """One source and several targets in its crop.

    image (256, 256, 3) uint8, alpha (128, 128) uint8, source_points (K, 2), source_keypoints (68, 2); and for each of
    T targets: target (T, 256, 256, 3), target_alpha (T, 128, 128), background (T, 256, 256, 3) uint8, points (T, K, 2),
    keypoints (T, 68, 2), weight (T, 256, 256) uint8: 0 outside the picture, 10 in it, up to 90 in mouth and eyes.
    """
    rgb, alpha = clip.frame(source)
    crop = head_crop(clip.landmarks[source])
    base = np.eye(3)
    base[:2] = crop.matrix(IMAGE_PX)
    plus_minus = lambda size: rng.uniform(-size, size)  # noqa: E731
    to_source = base
    if augmentation != NO_AUGMENTATION:
        to_source = (
            _turn(
                plus_minus(augmentation.source_angle),
                np.exp(plus_minus(augmentation.source_scale)),
                rng.uniform(-1, 1, 2) * augmentation.source_shift,
            )
            @ base
        )
    torso = Crop(crop.x_px, crop.y_px, crop.half_px).to_pixels(TORSO_POINTS)
    twice = np.diag([2.0, 2.0, 1.0])
    twice[:2, 2] = 0.5  # from the half-size alpha's pixel centres

    def alpha_at(matrix: np.ndarray, small: np.ndarray) -> np.ndarray:
        full = _warp(small, matrix @ twice)
        return cv2.resize(full, (IMAGE_PX // 2,) * 2, interpolation=cv2.INTER_AREA)

    behind = fill_behind(rgb, cv2.resize(alpha, (SIDE_PX, SIDE_PX)).astype(np.float32) / 255)
    out = {
        "image": _warp(rgb, to_source),
        "alpha": alpha_at(to_source, alpha),
        "source_points": _apply(to_source, np.concatenate([clip.points[source], torso])),
        "source_keypoints": _apply(to_source, keypoints_68(clip.landmarks[source])),
    }
    per_target: dict[str, list[np.ndarray]] = {
        k: [] for k in ("target", "target_alpha", "background", "points", "keypoints", "weight")
    }
    for index in targets:
        to_target = to_source
        if rng.random() < augmentation.moved:
            to_target = (
                _turn(
                    plus_minus(augmentation.angle),
                    np.exp(plus_minus(augmentation.scale)),
                    rng.uniform(-1, 1, 2) * augmentation.shift,
                )
                @ to_source
            )
        target_rgb, target_alpha = clip.frame(index)
        per_target["target"].append(_warp(target_rgb, to_target))
        per_target["target_alpha"].append(alpha_at(to_target, target_alpha))
        per_target["background"].append(_warp(behind, to_target))
        points = np.concatenate([clip.points[index], torso])
        per_target["points"].append(_apply(to_target, points))
        per_target["keypoints"].append(_apply(to_target, keypoints_68(clip.landmarks[index])))
        left, top, right, bottom = clip.inside[index]
        inside = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
        inside[int(np.ceil(top)) : int(bottom), int(np.ceil(left)) : int(right)] = 255
        weight = _warp(inside, to_target, cv2.BORDER_CONSTANT) // 255 * 10
        per_target["weight"].append(weight + 80 * mouth_and_eyes(per_target["points"][-1]) * (weight > 0))
    out |= {name: np.stack(values) for name, values in per_target.items()}
    if augmentation.gain:
        gain = 1 + rng.uniform(-1, 1, 3) * augmentation.gain * np.array([0.4, 0.4, 0.4]) + plus_minus(augmentation.gain)
        gamma = np.exp(plus_minus(augmentation.gain))
        ramp = 255 * np.power(np.arange(256)[:, None] / 255, gamma) * gain
        table = np.clip(np.rint(ramp), 0, 255).astype(np.uint8)
        for name in ("image", "target", "background"):
            out[name] = np.take_along_axis(table, out[name].reshape(-1, 3), 0).reshape(out[name].shape)
    if rng.random() < augmentation.flip:
        twins = mirrored_points()
        for name, value in out.items():
            if name.endswith("points"):
                out[name] = value[..., MIRRORED_68 if name.endswith("keypoints") else twins, :] * np.array([-1, 1], np.float32)
            else:
                axis = {"image": 1, "alpha": 1}.get(name, 2)
                out[name] = np.ascontiguousarray(np.flip(value, axis))
    return out


def crop_picture(clip: PreparedClip, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A frame as an avatar is made of it: RGB (256, 256, 3) uint8 of the head's crop, the same without the person, and
    landmarks (478, 2) float32 in [-1, 1] of it.
    """
    rgb, alpha = clip.frame(index)
    to_crop = np.eye(3)
    to_crop[:2] = head_crop(clip.landmarks[index]).matrix(IMAGE_PX)
    behind = fill_behind(rgb, cv2.resize(alpha, (SIDE_PX, SIDE_PX)).astype(np.float32) / 255)
    return _warp(rgb, to_crop), _warp(behind, to_crop), _apply(to_crop, clip.landmarks[index][:, :2])


_AT = {landmark: place for place, landmark in enumerate(MESH)}
_PARTS = [[_AT[i] for i in part] for part in (LIPS, RIGHT_EYE, LEFT_EYE)]


def mouth_and_eyes(points: np.ndarray) -> np.ndarray:
    """(256, 256) uint8, 1 in mouth and eyes and a little around. points: (K, 2) network points."""
    canvas = np.zeros((IMAGE_PX, IMAGE_PX), np.uint8)
    for part in _PARTS:
        outline = (points[part] + 1) * (IMAGE_PX / 2) - 0.5  # OpenCV calls pixel 0's centre 0
        middle = outline.mean(0)
        grown = middle + (outline - middle) * 1.25 + np.sign(outline - middle) * 2
        cv2.fillConvexPoly(canvas, cv2.convexHull(np.rint(grown).astype(np.int32)), 1)
    return canvas


class Pairs(Dataset):
    """Endless examples: a source, and targets of the same shot that differ much from it in pose and expression.

    Example `index` depends on clips, seed and index alone: whoever makes it, and whenever.
    """

    def __init__(self, clips: list[PreparedClip], targets: int, augmentation: Augmentation, seed: int) -> None:
        self.clips, self.targets, self.augmentation, self.seed = clips, targets, augmentation, seed
        frames: dict[str, int] = {}
        for clip in clips:
            frames[clip.identity] = frames.get(clip.identity, 0) + len(clip)
        # People with much footage are shown more often, but not in proportion.
        chance = np.array([len(c) / frames[c.identity] * min(frames[c.identity], 100) ** 0.5 for c in clips])
        self.chance = chance / chance.sum()
        self._up_to = np.cumsum(self.chance)  # `Generator.choice` would sum up all clips' chances for each example

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """As `make_example` returns it."""
        cv2.setNumThreads(1)
        rng = np.random.default_rng([self.seed, index])
        clip = self.clips[min(int(np.searchsorted(self._up_to, rng.random(), "right")), len(self.clips) - 1)]
        # Behind a cut lies another background, and other clothes: nothing that landmarks could tell.
        _, shot, frames = np.unique(clip.shots, return_inverse=True, return_counts=True)
        paired = np.flatnonzero(frames[shot] > 1)
        source = int(paired[rng.integers(len(paired))]) if len(paired) else int(rng.integers(len(clip)))
        near = shot == shot[source] if len(paired) else np.full(len(clip), True)
        distance = np.abs(clip.pose - clip.pose[source]).mean(1)
        # The further, the likelier; never the source itself.
        chance = np.where(near, distance**1.5 + 1e-9, 0)
        chance[source] = 0
        targets = rng.choice(len(clip), self.targets, p=chance / chance.sum(), replace=True)
        return make_example(clip, source, [int(t) for t in targets], self.augmentation, rng)


@dataclass(frozen=True)
class PairBatches:
    """Which of `Pairs` each step takes, for a DataLoader's `batch_sampler`; endless.

    Step s has the indices from s * sources on, and of several processes each takes an equal part of them. So the
    data are the same after a resume, for any number of workers, and, all parts together, of processes.
    """

    first_step: int
    sources: int  # of a step, all processes together
    rank: int = 0
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.sources < 1 or self.sources % self.world_size:
            raise MobileBilayerError(
                f"A step has {self.sources} sources, for {self.world_size} processes; "
                f"they must share them evenly. Try {max(1, round(self.sources / self.world_size)) * self.world_size}."
            )

    def __iter__(self) -> Iterator[list[int]]:
        share = self.sources // self.world_size
        for step in count(self.first_step):
            begin = step * self.sources + self.rank * share
            yield list(range(begin, begin + share))


def to_tensors(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Collated uint8 pictures to what the networks take: (B, 3, 256, 256) in [0, 1]; targets flattened to B * T."""
    out = {}
    for name, value in batch.items():
        if name in ("target", "target_alpha", "background", "points", "keypoints", "weight"):
            value = value.flatten(0, 1)
        if name in ("image", "target", "background"):
            value = value.permute(0, 3, 1, 2).float() / 255
        elif name in ("alpha", "target_alpha"):
            value = value.unsqueeze(1).float() / 255
        elif name == "weight":
            value = value.unsqueeze(1).float() / 10
        out[name] = value
    return out
