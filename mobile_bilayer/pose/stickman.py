"""A face as lines: for people to look at, and as the paper's networks take it."""

from __future__ import annotations

import cv2
import numpy as np

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.landmarks import CONTOURS

# RGB as in the paper's pictures, which have no irises. Later ones lie on top.
COLOURS = {
    "face oval": (255, 255, 255),
    "right brow": (255, 0, 0),
    "left brow": (0, 255, 0),
    "nose": (0, 0, 255),
    "right eye": (255, 0, 255),
    "left eye": (0, 255, 255),
    "right iris": (255, 160, 255),
    "left iris": (160, 255, 255),
    "lips": (255, 255, 0),
}
# The paper's: points to join, whether the last is joined to the first, RGB. Later ones lie on top.
PARTS_68 = [
    ([*range(17)], False, (255, 255, 255)),  # jaw
    ([*range(17, 22)], False, (255, 0, 0)),  # right brow
    ([*range(22, 27)], False, (0, 255, 0)),  # left brow
    ([27, 28, 29, 30, 33], False, (0, 0, 255)),  # nose, its ridge
    ([*range(31, 36)], False, (0, 0, 255)),  # and under it
    ([*range(36, 42)], True, (255, 0, 255)),  # right eye
    ([*range(42, 48)], True, (0, 255, 255)),  # left eye
    ([*range(48, 60)], True, (255, 255, 0)),  # outer lips
    ([*range(60, 68)], True, (255, 255, 0)),  # inner lips
]
_SHIFT = 6  # binary places of a pixel that OpenCV draws to


def draw_stickman(landmarks: np.ndarray, side_px: int = 256) -> np.ndarray:
    """Coloured lines on black, for people to look at: (side_px, side_px, 3) uint8 RGB.

    landmarks  (478, 2 or 3) in [-1, 1] of the picture; what lies outside it is cut off
    """
    landmarks = np.asarray(landmarks)
    if landmarks.shape not in {(478, 2), (478, 3)} or not np.isfinite(landmarks).all():
        raise MobileBilayerError(
            f"Landmarks have shape {landmarks.shape}; they must be (478, 2) or (478, 3) and finite. "
            "Bring them into the crop with Crop.to_keypoints first."
        )
    _check_side(side_px)
    # Keypoint -1 is the left edge of pixel 0, whose centre OpenCV calls 0. Far points would overflow its integers.
    centres = (landmarks[:, :2].clip(-4, 4) + 1) * (side_px / 2) - 0.5
    fixed = np.rint(centres * 2**_SHIFT).astype(np.int32)
    picture = np.zeros((side_px, side_px, 3), np.uint8)
    thickness = max(1, round(side_px / 192))
    for name, lines in CONTOURS.items():
        for line in lines:
            cv2.polylines(picture, [fixed[line]], False, COLOURS[name], thickness, cv2.LINE_AA, _SHIFT)
    return picture


def draw_keypoints_stickman(keypoints: np.ndarray, side_px: int = 256, thickness: int = 2) -> np.ndarray:
    """The paper's stickman, an input of its networks: (side_px, side_px, 3) uint8 RGB, 1 where no line is.

    keypoints  (68, 2) in [-1, 1] of the crop; what lies outside it is cut off

    A keypoint k becomes pixel (k + 1) / 2 * side_px, its fraction dropped; no line is smoothed. Networks take the
    picture as value / 255 * 2 - 1.
    """
    keypoints = np.asarray(keypoints, np.float32)
    if keypoints.shape != (68, 2) or not np.isfinite(keypoints).all():
        raise MobileBilayerError(
            f"Keypoints have shape {keypoints.shape}; they must be (68, 2) and finite. "
            "Make them with keypoints_68, and bring them into the crop with Crop.to_keypoints."
        )
    _check_side(side_px)
    # Far points would overflow OpenCV's integers.
    pixels = ((keypoints.clip(-4, 4) + 1) / 2 * side_px).astype(np.int32)
    picture = np.ones((side_px, side_px, 3), np.uint8)
    for points, closed, colour in PARTS_68:
        cv2.polylines(picture, [pixels[points]], closed, colour, thickness)
    return picture


def _check_side(side_px: int) -> None:
    if not 1 <= side_px <= 8192:
        raise MobileBilayerError(f"A stickman of {side_px} px was asked for; the side must be in 1..8192. Try 256.")
