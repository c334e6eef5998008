"""How far a render is from the real frame: in pixels, to people's eyes, in landmarks, to a face recogniser.

What is measured from frame to frame is in steadiness.py. Every measure here takes N renders and N targets and gives (N,) numbers, one a pair. Pictures are (N, 3, H, W) in [0, 1];
those of faces are single (H, W, 3) uint8 RGB, as detectors take them.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from mobile_bilayer.dataset.pairs import IMAGE_PX
from mobile_bilayer.perceptual import Lpips
from mobile_bilayer.pose.head import take_apart
from mobile_bilayer.pose.keypoints import keypoints_68
from mobile_bilayer.pose.landmarks import MESH
from mobile_bilayer.pose.retarget import EYE_CORNERS, LOWER_LIPS, UPPER_LIPS, eyes_of, lip_opening


@dataclass(frozen=True)
class Metric:
    """What a number means, for tables and reports."""

    title: str
    better: Literal["lower", "higher", "real"]  # "real": as the real frames' is
    digits: int  # worth showing behind the point
    meaning: str


PIXEL_METRICS = {
    "l1": Metric("L1", "lower", 4, "mean |difference| of [0, 1] where the target is picture and not padding"),
    "mouth_and_eyes": Metric("mouth, eyes", "lower", 4, "L1 in the target's mouth and eyes and a little around"),
    "lpips": Metric("LPIPS", "lower", 4, "distance of what a network sees, of all these the nearest to people's eyes: LPIPS 0.1, SqueezeNet 1.1, whole frame"),
    "ssim": Metric(
        "SSIM", "higher", 3,
        "structural similarity: Gaussian window 11x11, sigma 1.5, K 0.01 and 0.03; mean of RGB, whole frame, borders mirrored",
    ),
    "psnr": Metric("PSNR dB", "higher", 2, "peak signal-to-noise ratio of the whole frame; 100 at most"),
}
PART_METRICS = {
    "opened_mouth": Metric(
        "opened mouth", "lower", 3, "L1 between the lips of targets that open them, where the source shows none of it"
    ),
    "mouth_contrast": Metric(
        "mouth contrast", "higher", 2,
        "of the same mouths: how far light and dark lie apart there (standard deviation of greys), in render and target, the "
        "smaller over the larger; a blur where teeth should be has little of it",
    ),
    "shut_eyes": Metric("shut eyes", "lower", 3, "L1 around each of the target's eyes that is less than half as open as the source's"),
}  # fmt: skip
FACE_METRICS = {
    "keypoints": Metric(
        "keypoints %", "lower", 2,
        "mean distance of 468 landmarks detected anew in both frames, % of the target's outer eye corners' distance",
    ),
    "identity": Metric(
        "identity", "lower", 3, "L2 distance of dlib's 128 numbers for a face; of one person some 0.3, of two some 0.85"
    ),
}  # fmt: skip
STEADY_METRICS = {
    "jitter": Metric(
        "jitter %", "lower", 2,
        "a driver that goes straight from frame to frame in small steps: root mean square of the second difference of "
        "landmarks detected anew, % of the outer eye corners' distance",
    ),
    "flicker": Metric(
        "flicker", "lower", 2,
        "the same driver: mean |difference| of each frame and the one before it, moved as an optical flow between them "
        "says, grey levels of 255",
    ),
    "clip_jitter": Metric(
        "clip jitter %", "real", 2, "jitter from each of the clip's frames to the next: most of it is motion, as the real frames' is"
    ),
    "clip_flicker": Metric(
        "clip flicker", "real", 2, "flicker from each of the clip's frames to the next: the real frames' is the yardstick"
    ),
}  # fmt: skip
METRICS = PIXEL_METRICS | FACE_METRICS | STEADY_METRICS | PART_METRICS
OFTEN_NONE = PART_METRICS | FACE_METRICS  # NaN of these is left out of a mean; NaN of anything else is a fault that it must show
ARROWS = {"lower": "↓", "higher": "↑", "real": ""}
NEED_FACES = (*FACE_METRICS, "jitter", "clip_jitter")

SKIN = slice(0, 468)  # of the 478; the irises behind them follow the gaze more than the face
OUTER_EYE_CORNERS = (33, 263)
OPENED = 0.07  # of a mouth's width, beyond twice the source's opening: there the source shows nothing to warp
SHUT = 0.5  # of the source's eye
GREY = (0.299, 0.587, 0.114)  # of red, green and blue
PSNR_LIMIT_DB = 100.0  # of equal pictures, whose true value would make every mean infinite


def l1(render: Tensor, target: Tensor, where: Tensor) -> Tensor:
    """Mean absolute difference of the pixels that `where` (N, 1, H, W) bool says; 0 where there are none."""
    error = (render - target).abs().mean(1, keepdim=True) * where
    return error.sum((1, 2, 3)) / where.sum((1, 2, 3)).clamp(min=1)


def ssim(render: Tensor, target: Tensor) -> Tensor:
    """Structural similarity as its authors computed it: `METRICS["ssim"].meaning`."""
    # A single pair would come back without its dimension.
    return structural_similarity_index_measure(
        render, target, sigma=1.5, data_range=1.0, k1=0.01, k2=0.03, reduction="none"
    ).reshape(-1)


def psnr(render: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, `PSNR_LIMIT_DB` at most."""
    ratio = peak_signal_noise_ratio(render, target, data_range=1.0, dim=(1, 2, 3), reduction="none")
    return ratio.clamp(max=PSNR_LIMIT_DB)


class PixelMeasures:
    """All of `PIXEL_METRICS`."""

    def __init__(self) -> None:
        self._lpips = Lpips()

    @torch.no_grad()
    def __call__(self, render: Tensor, target: Tensor, weight: Tensor) -> dict[str, np.ndarray]:
        """weight (N, 1, H, W): 0 outside the picture, 1 in it, more in mouth and eyes, as `to_tensors` gives it."""
        values = {
            "l1": l1(render, target, weight > 0.5),
            "mouth_and_eyes": l1(render, target, weight > 2),
            "lpips": self._lpips(render * 2 - 1, target * 2 - 1),
            "ssim": ssim(render, target),
            "psnr": psnr(render, target),
        }
        return {name: value.double().numpy() for name, value in values.items()}


def changed_parts(source: np.ndarray, target: np.ndarray, points: np.ndarray) -> dict[str, np.ndarray]:
    """Where a target shows what its source can't: {"opened_mouth", "shut_eyes": (256, 256) bool}, all False where it does not.

    source, target  landmarks (478, 3) in pixels; points (K, 2) the target's network points in [-1, 1] of its crop
    """
    before, after = take_apart(source).face, take_apart(target).face
    mouth, eyes = np.zeros((IMAGE_PX, IMAGE_PX), np.uint8), np.zeros((IMAGE_PX, IMAGE_PX), np.uint8)
    pixels = (points + 1) * (IMAGE_PX / 2) - 0.5  # OpenCV calls pixel 0's centre 0
    if lip_opening(after) - 2 * max(lip_opening(before), 0) > OPENED:
        outline = pixels[[MESH.index(i) for i in (*UPPER_LIPS, *LOWER_LIPS[::-1])]]
        cv2.fillPoly(mouth, [np.rint(outline).astype(np.int32)], 1)
    for was, now, corners in zip(eyes_of(before), eyes_of(after), EYE_CORNERS, strict=True):
        if now.openness < SHUT * was.openness:
            right, left = pixels[[MESH.index(i) for i in corners]]
            along = left - right
            half, angle = 0.5 * np.hypot(*along), np.degrees(np.arctan2(along[1], along[0]))
            x, y = np.rint((right + left) / 2).astype(int).tolist()
            cv2.ellipse(eyes, (x, y), (round(1.1 * half), round(0.6 * half)), float(angle), 0, 360, 1, -1)
    return {"opened_mouth": mouth.astype(bool), "shut_eyes": eyes.astype(bool)}


def contrast(render: Tensor, target: Tensor, where: Tensor) -> Tensor:
    """(N,) of pictures' greys where (N, 1, H, W) bool says: the smaller standard deviation over the larger one, in [0, 1]."""
    count = where.sum((1, 2, 3)).clamp(min=1)

    def spread(picture: Tensor) -> Tensor:
        grey = (picture * picture.new_tensor(GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)
        middle = (grey * where).sum((1, 2, 3), keepdim=True) / count.view(-1, 1, 1, 1)
        return (((grey - middle) * where).square().sum((1, 2, 3)) / count).sqrt()

    ours, theirs = spread(render), spread(target)
    return torch.minimum(ours, theirs) / torch.maximum(ours, theirs).clamp(min=1e-3)


def parts(render: Tensor, target: Tensor, where: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """All of `PART_METRICS`, where (N, 1, H, W) bool of `changed_parts` say; NaN where that is nowhere."""
    where = where | {"mouth_contrast": where["opened_mouth"]}
    out = {}
    for name in PART_METRICS:
        measured = (contrast if name == "mouth_contrast" else l1)(render, target, where[name]).double().numpy()
        out[name] = np.where(where[name].any(-1).any(-1)[:, 0].numpy(), measured, np.nan)
    return out


@dataclass(frozen=True)
class Face:
    """What a detector and a recogniser see in a picture.

    landmarks   (478, 3) float32, pixels
    descriptor  (128,) float64
    """

    landmarks: np.ndarray
    descriptor: np.ndarray


def keypoint_distance(render: np.ndarray, target: np.ndarray) -> float:
    """Mean distance of the landmarks (478, 2 or 3) in the plane, in % of that of the target's outer eye corners."""
    right, left = target[list(OUTER_EYE_CORNERS), :2]
    apart = np.linalg.norm(render[SKIN, :2] - target[SKIN, :2], axis=1)
    return float(100 * apart.mean() / np.linalg.norm(right - left))


def identity_distance(render: np.ndarray, target: np.ndarray) -> float:
    """L2 distance of two descriptors (128,)."""
    return float(np.linalg.norm(render - target))


class Recogniser:
    """dlib's network for faces, which nothing here was trained with."""

    def __init__(self) -> None:
        import dlib  # here and not above: only who describes faces needs it

        # Importing face_recognition_models would need setuptools' old pkg_resources; the file alone is enough.
        package = importlib.metadata.distribution("face_recognition_models")
        weights = package.locate_file("face_recognition_models/models/dlib_face_recognition_resnet_model_v1.dat")
        self._dlib = dlib
        self._recogniser = dlib.face_recognition_model_v1(str(weights))

    def describe(self, rgb: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Descriptor (128,) float64 of the face at these landmarks (478, 2 or 3) of a picture (H, W, 3) uint8 RGB."""
        dlib = self._dlib
        # Ours call pixel 0's centre 0.5, dlib's 0, and dlib's are whole.
        points = np.rint(keypoints_68(landmarks)[:, :2] - 0.5).astype(int)
        (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
        where = dlib.full_object_detection(
            dlib.rectangle(left, top, right, bottom), [dlib.point(x, y) for x, y in points.tolist()]
        )
        return np.array(self._recogniser.compute_face_descriptor(rgb, where))


class FaceMeasures:
    """All of `FACE_METRICS`: detects and describes faces. A context manager, for the detector's sake."""

    def __init__(self) -> None:
        # Here and not above: only who measures faces needs a landmark model on this machine. No network sees what
        # these say; they look at finished pictures as a person would.
        from mobile_bilayer.capture.landmarker import Landmarker

        self.describe = Recogniser().describe
        self._landmarker = Landmarker(video=False)

    def __enter__(self) -> FaceMeasures:
        return self

    def __exit__(self, *exc) -> None:
        self._landmarker.__exit__(*exc)

    def look(self, rgb: np.ndarray) -> Face | None:
        """The face of a picture (H, W, 3) uint8 RGB, or None where there is none."""
        landmarks = self.landmarks(rgb)
        return None if landmarks is None else Face(landmarks, self.describe(rgb, landmarks))

    def landmarks(self, rgb: np.ndarray) -> np.ndarray | None:
        """(478, 3) float32, pixels, of that face."""
        from mobile_bilayer.capture.landmarker import detect_padded

        return detect_padded(self._landmarker, rgb)

    def __call__(self, renders: Sequence[np.ndarray], targets: Sequence[Face | None]) -> dict[str, np.ndarray]:
        """NaN where a render or its target shows no face."""
        values = np.full((2, len(renders)), np.nan)
        for i, (rgb, target) in enumerate(zip(renders, targets, strict=True)):
            if target is not None and (face := self.look(rgb)) is not None:
                values[0, i] = keypoint_distance(face.landmarks, target.landmarks)
                values[1, i] = identity_distance(face.descriptor, target.descriptor)
        return dict(zip(FACE_METRICS, values, strict=True))
