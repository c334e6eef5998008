"""What stands behind the person: made once per avatar."""

from __future__ import annotations

import re
from pathlib import Path

import cv2
import numpy as np

from mobile_bilayer.capture.images import read_image
from mobile_bilayer.errors import MobileBilayerError


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
        height, width = levels[-1].shape[:2]
        # By area, as `resize` grows them again: pyrDown's pixel i lies at 2i, which would push colours to a side.
        levels.append(cv2.resize(levels[-1], ((width + 1) // 2, (height + 1) // 2), interpolation=cv2.INTER_AREA))
    # Where even the coarsest level knows next to nothing, the mean of what is known; of all, if nothing is.
    weights = known[..., 0] if known.any() else np.ones_like(alpha)
    mean = np.average(rgb.reshape(-1, 3), 0, weights.reshape(-1)).astype(np.float32)
    filled = (levels[-1][..., :3] + 1e-3 * mean) / (levels[-1][..., 3:] + 1e-3)
    for level in levels[-2::-1]:
        filled = cv2.resize(filled, level.shape[1::-1], interpolation=cv2.INTER_LINEAR)
        weight = np.minimum(level[..., 3:], 1)
        filled = level[..., :3] + (1 - weight) * filled if level is levels[0] else (
            weight * level[..., :3] / np.maximum(level[..., 3:], 1e-3) + (1 - weight) * filled
        )  # fmt: skip
    return np.clip(np.rint(filled), 0, 255).astype(np.uint8)


def change_background(choice: str | Path, texture: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """What stands behind an avatar, (H, H, 3) uint8.

    choice   "keep", "blur", "#rrggbb", or a picture file, cut to a square from its middle
    texture  (H, H, 3) uint8, the head crop; kept the same without the person
    """
    side = texture.shape[0]
    if choice == "keep":
        return kept
    if choice == "blur":
        return cv2.GaussianBlur(kept, (0, 0), side / 24, borderType=cv2.BORDER_REPLICATE)
    if isinstance(choice, str) and choice.startswith("#"):
        if not re.fullmatch("#[0-9a-fA-F]{6}", choice):
            raise MobileBilayerError(f"The background colour is {choice!r}; it must look like #20a0ff.")
        return np.full_like(texture, [int(choice[i : i + 2], 16) for i in (1, 3, 5)])
    if not Path(choice).exists():
        raise MobileBilayerError(
            f"The background is {str(choice)!r}; it must be keep, blur, #rrggbb or an existing picture file."
        )
    picture = read_image(Path(choice))
    height, width = picture.shape[:2]
    cut = min(height, width)
    top, left = (height - cut) // 2, (width - cut) // 2
    square = picture[top : top + cut, left : left + cut]
    return cv2.resize(square, (side, side), interpolation=cv2.INTER_AREA if cut > side else cv2.INTER_CUBIC)
