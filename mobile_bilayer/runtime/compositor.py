"""The formula of `compositing.py` without torch, as a host runs it. Golden vectors keep the two equal."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np


@cache
def identity_grid(side_px: int) -> np.ndarray:
    """(side_px, side_px, 2) float32 xy of the pixel centres, in pixels from the first pixel's centre. Read only."""
    ramp = np.arange(side_px, dtype=np.float32)
    grid = np.stack(np.meshgrid(ramp, ramp), -1)
    grid.flags.writeable = False
    return grid


def composite(texture: np.ndarray, background: np.ndarray, layers_a: np.ndarray, layers_b: np.ndarray) -> np.ndarray:
    """Join an avatar's texture and background with one frame's layers.

    texture, background  (H, H, 3) float32, [-1, 1]
    layers_a             (4, h, w) float32: flow x, flow y (of [-1, 1] across the frame), gate, mask
    layers_b             (3, h', w') float32: lf
    returns              (H, H, 3) float32, not clamped
    """
    side = texture.shape[0]
    # float32, and contiguous: only then is OpenCV's bilinear exact.
    a = _resized(layers_a, side)
    where = a[..., :2] * np.float32(side / 2)
    where += identity_grid(side)
    frame = cv2.remap(texture, where, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    # In place: fresh pages for every step would cost as much as the arithmetic.
    frame *= a[..., 2:3]
    frame += _resized(layers_b, side)
    frame -= background
    frame *= a[..., 3:4]
    frame += background
    return frame


def to_float(rgb: np.ndarray) -> np.ndarray:
    """uint8 [0, 255] to float32 [-1, 1]."""
    return rgb.astype(np.float32) / np.float32(127.5) - 1


def to_rgb(frame: np.ndarray) -> np.ndarray:
    """float [-1, 1] to uint8: clamped, then rounded, then cast, so that nothing wraps. What is not a number is black."""
    inside = np.fmin(np.fmax(frame, np.float32(-1)), np.float32(1))  # fmax takes the number of a number and a NaN
    inside *= np.float32(127.5)
    inside += np.float32(127.5)
    return np.rint(inside, out=inside).astype(np.uint8)


def _resized(layers: np.ndarray, side_px: int) -> np.ndarray:
    picture = np.ascontiguousarray(layers.transpose(1, 2, 0), np.float32)
    return cv2.resize(picture, (side_px, side_px), interpolation=cv2.INTER_LINEAR)
