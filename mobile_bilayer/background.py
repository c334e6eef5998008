"""What stands behind the person: made once per avatar."""

from __future__ import annotations

import cv2
import numpy as np


def fill_behind(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """The picture with the person taken out: colours flow in smoothly from around.

    rgb      (H, W, 3) uint8
    alpha    (H, W) float32 in [0, 1], 1 where the person is
    returns  (H, W, 3) uint8

    Push-pull: averages of what is known, at ever coarser sizes, fill what is not.
    """
    height, width = alpha.shape
    grown = cv2.dilate(alpha, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (max(3, width // 24) | 1,) * 2))
    known = np.clip(1 - 2 * grown, 0, 1)[..., None].astype(np.float32)
    levels = [np.concatenate([rgb.astype(np.float32) * known, known], -1)]
    while min(levels[-1].shape[:2]) > 2:
        levels.append(cv2.pyrDown(levels[-1]))
    filled = levels[-1][..., :3] / np.maximum(levels[-1][..., 3:], 1e-3)
    if levels[-1][..., 3].max() < 1e-3:  # the person is everywhere: nothing to learn from but the picture's mean
        filled = np.broadcast_to(rgb.mean((0, 1), dtype=np.float32), filled.shape)
    for level in levels[-2::-1]:
        filled = cv2.resize(filled, level.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        weight = np.minimum(level[..., 3:], 1)
        filled = level[..., :3] + (1 - weight) * filled if level is levels[0] else (
            weight * level[..., :3] / np.maximum(level[..., 3:], 1e-3) + (1 - weight) * filled
        )  # fmt: skip
    return np.clip(np.rint(filled), 0, 255).astype(np.uint8)
