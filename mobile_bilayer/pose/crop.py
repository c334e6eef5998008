"""The square around a head, by the paper's rule, and the way between it and the picture.

Two crops, for two kinds of networks: `head_crop` from all 478 landmarks, for the student; `paper_crop` from the paper's
68 points and to the paper's letter, for weights trained with those. They differ: see `paper_crop`.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from mobile_bilayer.errors import MobileBilayerError

CROP_UP = 1 / 6  # of the half side: hair takes more room than the neck


@dataclass(frozen=True)
class Crop:
    """A square of the picture: centre and half side in pixels (pixel i covers [i, i + 1])."""

    x_px: float
    y_px: float
    half_px: float

    def to_keypoints(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 2 or 3) in pixels to [-1, 1] of the square; z keeps x's unit. float32."""
        points = np.asarray(points, np.float32)
        out = points / np.float32(self.half_px)
        out[..., 0] -= np.float32(self.x_px / self.half_px)
        out[..., 1] -= np.float32(self.y_px / self.half_px)
        return out

    def to_pixels(self, keypoints: np.ndarray) -> np.ndarray:
        """The way back of `to_keypoints`."""
        out = np.asarray(keypoints, np.float32) * np.float32(self.half_px)
        out[..., 0] += np.float32(self.x_px)
        out[..., 1] += np.float32(self.y_px)
        return out

    def matrix(self, side_px: int) -> np.ndarray:
        """(2, 3) affine map from the picture's pixel centres to those of a crop of `side_px`."""
        scale = side_px / (2 * self.half_px)
        left, top = self.x_px - self.half_px, self.y_px - self.half_px
        # Pixel i's centre is at i + 0.5 in both.
        return np.array(
            [[scale, 0, (0.5 - left) * scale - 0.5], [0, scale, (0.5 - top) * scale - 0.5]], np.float64
        )

    def cut(self, rgb: np.ndarray, side_px: int = 256, black_outside: bool = False) -> np.ndarray:
        """(side_px, side_px, C) of the picture; outside it, its border is repeated, or all is black."""
        # Shrinking by more than 2 would alias: average first.
        scale = side_px / (2 * self.half_px)
        if scale < 0.5:
            left, top = (int(np.floor(v - self.half_px)) for v in (self.x_px, self.y_px))
            side = int(np.ceil(2 * self.half_px)) + 1
            rows = np.clip(np.arange(top, top + side), 0, rgb.shape[0] - 1)
            columns = np.clip(np.arange(left, left + side), 0, rgb.shape[1] - 1)
            inner = rgb[rows][:, columns]
            if black_outside:  # done here: the cut from what is shrunk repeats its border
                inner[rows != np.arange(top, top + side)] = 0
                inner[:, columns != np.arange(left, left + side)] = 0
            shrunk = cv2.resize(inner, (round(side * scale),) * 2, interpolation=cv2.INTER_AREA)
            factor = shrunk.shape[1] / side
            moved = Crop((self.x_px - left) * factor, (self.y_px - top) * factor, self.half_px * factor)
            return moved.cut(shrunk, side_px)
        flags = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_LINEAR
        border = cv2.BORDER_CONSTANT if black_outside else cv2.BORDER_REPLICATE
        return cv2.warpAffine(rgb, self.matrix(side_px), (side_px, side_px), flags=flags, borderMode=border)


def head_crop(landmarks: np.ndarray) -> Crop:
    """The paper's rule: the landmarks' box, half side = its larger side, moved up by a sixth of it.

    landmarks  (478, 2 or 3) in pixels; the iris points never widen the box
    """
    low, high = landmarks[:, :2].min(0), landmarks[:, :2].max(0)
    size = float((high - low).max())
    x, y = (low + high) / 2
    return Crop(float(x), float(y) - size * CROP_UP, size)


def paper_crop(points: np.ndarray) -> Crop:
    """The paper's rule to the letter, all whole pixels: what weights trained with it expect.

    points  (68, 2) in pixels, as from `keypoints_68`

    Cut it with `black_outside=True`. These points begin at the brows and the mesh's at the hair line, so `head_crop` of
    the same face is larger, by a sixth on average, and its centre lies higher, by an eighth of the half side.
    """
    points = np.asarray(points)
    if points.shape != (68, 2) or not np.isfinite(points).all():
        raise MobileBilayerError(
            f"The points have shape {points.shape}; the paper's crop needs (68, 2), all finite. "
            "Make them with keypoints_68 first."
        )
    low, high = points.min(0), points.max(0)
    size = int((high - low).max())
    if size < 2:
        raise MobileBilayerError(
            f"The face is {(high - low).max():.2f} pixels large; it must be at least 2. Give its points in pixels."
        )
    x, y = np.round((low + high) / 2)
    return Crop(float(x), float(y) - size // 6, float(size))
