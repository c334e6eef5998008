"""A face as lines: what a driving frame looks like without its picture."""

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
    if not 1 <= side_px <= 8192:
        raise MobileBilayerError(f"A stickman of {side_px} px was asked for; the side must be in 1..8192. Try 256.")
    # Keypoint -1 is the left edge of pixel 0, whose centre OpenCV calls 0. Far points would overflow its integers.
    centres = (landmarks[:, :2].clip(-4, 4) + 1) * (side_px / 2) - 0.5
    fixed = np.rint(centres * 2**_SHIFT).astype(np.int32)
    picture = np.zeros((side_px, side_px, 3), np.uint8)
    thickness = max(1, round(side_px / 192))
    for name, lines in CONTOURS.items():
        for line in lines:
            cv2.polylines(picture, [fixed[line]], False, COLOURS[name], thickness, cv2.LINE_AA, _SHIFT)
    return picture
