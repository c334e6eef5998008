"""The formula of `compositing.py` without torch, as a host runs it. Golden vectors keep the two equal."""

from __future__ import annotations

import cv2
import numpy as np


def identity_grid(side_px: int) -> np.ndarray:
    """(side_px, side_px, 2) float32 xy of the pixel centres, in pixels from the first pixel's centre."""
    ramp = np.arange(side_px, dtype=np.float32)
    return np.stack(np.meshgrid(ramp, ramp), -1)


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
    where = identity_grid(side) + a[..., :2] * np.float32(side / 2)
    warped = cv2.remap(
        texture, np.ascontiguousarray(where), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    head = a[..., 2:3] * warped + _resized(layers_b, side)
    return background + a[..., 3:4] * (head - background)


def to_float(rgb: np.ndarray) -> np.ndarray:
    """uint8 [0, 255] to float32 [-1, 1]."""
    return rgb.astype(np.float32) / np.float32(127.5) - 1


def to_rgb(frame: np.ndarray) -> np.ndarray:
    """float [-1, 1] to uint8: clamped, then rounded, then cast, so that nothing wraps. What is not a number is black."""
    return np.rint(np.clip(np.nan_to_num(frame, nan=-1.0), -1, 1) * np.float32(127.5) + np.float32(127.5)).astype(np.uint8)


def _resized(layers: np.ndarray, side_px: int) -> np.ndarray:
    picture = np.ascontiguousarray(layers.transpose(1, 2, 0), np.float32)
    return cv2.resize(picture, (side_px, side_px), interpolation=cv2.INTER_LINEAR)
