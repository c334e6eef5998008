"""What everybody can measure on: two public-domain photos, the shipped track, and what the teacher makes of them.

`golden/gate_reference.jpg` has a line a photo and a column a pose, each tile a rendering of the teacher: its networks on
the photo's crop, composed by the formula in torch. `mobile-bilayer gate --make-reference` makes it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from mobile_bilayer.capture.images import read_image, write_image
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.evaluation.methods import pictures, teacher_method
from mobile_bilayer.gates.rows import ROOT
from mobile_bilayer.pose.crop import head_crop
from mobile_bilayer.pose.head import HeadPose, Motion, network_points
from mobile_bilayer.pose.neutral import neutral_of
from mobile_bilayer.pose.retarget import Retargeter
from mobile_bilayer.runtime.animate import driving_motions
from mobile_bilayer.samples import SAMPLES, sample_photo, sample_track
from mobile_bilayer.teacher import load_teacher
from mobile_bilayer.teacher.landmark import LandmarkTeacher

REFERENCE = ROOT / "golden" / "gate_reference.jpg"
SIDE_PX = 256
# Frames of the track in which it does most of something; and what is made of them, as its own turns are small.
FRAMES = {"lips shut": 13, "turned": 78, "nodding": 151, "speaking": 159, "eyes shut": 186}
TURNED = {"far to one side": -15.0, "far to the other": 15.0}  # degrees, of the neutral frame
WIDE = ("mouth wide open", 159, 1.7)  # so many times as far from the neutral face
# Frames between which steadiness is measured, a quarter of a second apart, through all of the track. Of five of them the jitter of
# bundles that differ in rounding alone went up and down by 0.03, of these by 0.004.
WALK = range(10, 197, 6)
# The photo itself, as if the head had moved in its plane: degrees, size, and shift in pixels of the crop.
MOVES = {
    "still": (0.0, 1.0, (0, 0)),
    "tilted": (8.0, 1.0, (0, 0)),
    "tilted, nearer": (-6.0, 1.08, (4, 6)),
    "aside": (0.0, 0.95, (-10, -4)),
}


@dataclass(frozen=True)
class MovedPhoto:
    """A picture that is known, as nobody had to render it.

    landmarks  (478, 3) in [-1, 1] of the source's crop
    picture    (256, 256, 3) uint8
    face       (256, 256) bool: where the head moved, and not the wall with it
    """

    landmarks: np.ndarray
    picture: np.ndarray
    face: np.ndarray


@dataclass(frozen=True)
class Source:
    """A photo and all that drives it.

    texture    (256, 256, 3) uint8, the head's crop
    landmarks  (478, 3) in [-1, 1] of it
    poses      {name: (478, 2) in [-1, 1]}, of which the teacher's renderings are known
    walk       (len(WALK), 478, 2)
    moved      {name: a known picture}
    """

    name: str
    texture: np.ndarray
    landmarks: np.ndarray
    poses: dict[str, np.ndarray]
    walk: np.ndarray
    moved: dict[str, MovedPhoto]

    def batch(self, landmarks: list[np.ndarray]) -> dict[str, Tensor]:
        """As methods take it (evaluation/methods.py)."""
        return {
            "image": torch.from_numpy(np.ascontiguousarray(self.texture.transpose(2, 0, 1)))[None].float() / 255,
            "source_points": torch.from_numpy(network_points(self.landmarks))[None],
            "points": torch.from_numpy(np.stack([network_points(points) for points in landmarks])),
        }


def driving_poses() -> dict[str, Motion]:
    """By name: frames of the stabilised track, and what is made of them."""
    neutral, motions = _driver()
    poses = {name: motions[frame] for name, frame in FRAMES.items()}
    for name, degrees in TURNED.items():
        pose = neutral.pose
        poses[name] = Motion(HeadPose(pose.scale, _about_y(degrees) @ pose.rotation, pose.shift), neutral.face)
    name, frame, times = WIDE
    poses[name] = Motion(motions[frame].pose, neutral.face + times * (motions[frame].face - neutral.face))
    return poses


def open_source(name: str) -> Source:
    """One of the sample photos."""
    rgb, landmarks = sample_photo(name)
    crop = head_crop(landmarks)
    texture, keypoints = crop.cut(rgb, SIDE_PX), crop.to_keypoints(landmarks)
    neutral, motions = _driver()
    retarget = Retargeter(keypoints, neutral)
    return Source(
        name,
        texture,
        keypoints,
        {pose: retarget(motion) for pose, motion in driving_poses().items()},
        np.stack([retarget(motions[frame]) for frame in WALK]),
        {how: _moved(rgb, crop.matrix(SIDE_PX), keypoints, *move) for how, move in MOVES.items()},
    )


@cache
def _driver() -> tuple[Motion, list[Motion]]:
    """Its neutral frame, and each frame of the shipped track, stabilised."""
    track = sample_track()
    neutral = neutral_of(track)
    return neutral, list(driving_motions(track, neutral))


def _about_y(degrees: float) -> np.ndarray:
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]])


def _moved(
    rgb: np.ndarray, to_crop: np.ndarray, keypoints: np.ndarray, degrees: float, size: float, shift: tuple[int, int]
) -> MovedPhoto:
    middle = (keypoints[:, :2].mean(0) + 1) * (SIDE_PX / 2) - 0.5  # OpenCV calls pixel 0's centre 0
    move = np.eye(3)
    move[:2] = cv2.getRotationMatrix2D(middle.astype(float).tolist(), degrees, size)
    move[:2, 2] += shift
    whole = np.eye(3)
    whole[:2] = to_crop
    flags = cv2.INTER_CUBIC if to_crop[0, 0] > 1 else cv2.INTER_LINEAR  # as `Crop.cut` does
    picture = cv2.warpAffine(rgb, (move @ whole)[:2], (SIDE_PX, SIDE_PX), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    pixels = (keypoints[:, :2] + 1) * (SIDE_PX / 2) - 0.5
    pixels = pixels @ move[:2, :2].T + move[:2, 2]
    landmarks = keypoints.copy()
    landmarks[:, :2] = (pixels + 0.5) / (SIDE_PX / 2) - 1
    face = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    cv2.fillConvexPoly(face, cv2.convexHull(np.rint(pixels).astype(np.int32)), 1)
    return MovedPhoto(landmarks, picture, face.astype(bool))


def make_reference(path: Path = REFERENCE, teacher: LandmarkTeacher | None = None) -> np.ndarray:
    """Render every pose of every photo with the teacher, and write the sheet. It carries the AI-generated tag."""
    method = teacher_method(teacher or load_teacher()[0])
    lines = []
    for name in SAMPLES:
        source = open_source(name)
        frames = method(source.batch(list(source.poses.values())))
        lines.append(np.concatenate(pictures(frames.clamp(-1, 1) / 2 + 0.5), 1))
    sheet = np.concatenate(lines)
    write_image(path, sheet)
    return sheet


def read_reference(path: Path = REFERENCE) -> dict[str, dict[str, np.ndarray]]:
    """{photo: {pose: (256, 256, 3) uint8}}"""
    sheet, poses = read_image(path), list(driving_poses())
    wanted = (SIDE_PX * len(SAMPLES), SIDE_PX * len(poses), 3)
    if sheet.shape != wanted:
        raise MobileBilayerError(
            f"{path} has shape {sheet.shape}; {wanted} are needed, a tile for each photo and pose. "
            "Run `mobile-bilayer gate --make-reference`, and look at what it made."
        )
    tiles = sheet.reshape(len(SAMPLES), SIDE_PX, len(poses), SIDE_PX, 3).swapaxes(1, 2)
    return {
        name: dict(zip(poses, map(np.ascontiguousarray, line), strict=True))
        for name, line in zip(SAMPLES, tiles, strict=True)
    }
