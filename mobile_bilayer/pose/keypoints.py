"""The 68 points of the paper, out of MediaPipe's 478 landmarks.

Their order is that of iBUG's 300-W faces. Right is the person's, so left in the picture:

    jaw 0-16 from the right ear over the chin (8) to the left ear
    brows 17-21 and 22-26, nose 27-30 down its ridge and 31-35 under it, all from right to left
    eyes 36-41 and 42-47, outer lips 48-59, inner lips 60-67: once around over the upper edge, from the right corner

The table was chosen against dlib's detector of these points, on 331 photos and frames of 145 people. How far the two
lie apart on 190 of 91 other people, by the distance of the outer eye corners:

    jaw 0.041, brows 0.032, nose 0.021, eyes 0.014, lips 0.019; all 0.026

The paper's own detector (face_alignment) is a third one, and was not compared.

Jaw points are the doubtful ones: a 68-point detector puts them on the contour that the camera sees, while ours stay on
the same skin when the head turns. Beyond 15 degrees of yaw they lie 0.10 apart, brows 0.05, the others 0.02 to 0.035.
"""

from __future__ import annotations

import numpy as np

from mobile_bilayer.errors import MobileBilayerError

# Two landmarks whose mean is the point; one alone is named twice. Means only where they come closer by 0.004 or more.
LANDMARKS_68 = np.array(
    [
        *[(127, 127), (234, 234), (93, 132), (132, 58), (58, 172), (136, 136), (150, 149), (176, 148)],  # jaw, right
        *[(152, 152), (377, 400), (378, 379), (365, 365), (397, 288), (288, 361), (361, 323), (454, 454), (356, 356)],
        *[(70, 70), (63, 63), (105, 66), (66, 107), (107, 55)],  # right brow
        *[(336, 285), (296, 336), (334, 296), (293, 293), (300, 300)],  # left brow
        *[(168, 168), (6, 197), (195, 5), (4, 4)],  # nose, its ridge
        *[(75, 75), (97, 97), (2, 2), (326, 326), (305, 305)],  # and under it
        *[(33, 33), (159, 160), (158, 158), (155, 173), (153, 153), (144, 144)],  # right eye
        *[(382, 398), (385, 385), (386, 387), (263, 263), (373, 373), (380, 380)],  # left eye
        *[(61, 61), (39, 40), (37, 37), (0, 0), (267, 267), (269, 270), (291, 291)],  # outer lips, upper edge
        *[(321, 405), (314, 314), (17, 17), (84, 84), (91, 181)],  # lower edge
        *[(78, 95), (82, 82), (13, 13), (312, 312), (308, 324), (317, 317), (14, 14), (87, 87)],  # inner lips
    ]
)
"""(68, 2) landmarks whose mean is each point."""

MIRRORED_68 = np.array(
    [
        *range(16, -1, -1),  # jaw
        *range(26, 16, -1),  # brows
        *[27, 28, 29, 30, 35, 34, 33, 32, 31],  # nose
        *[45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40],  # eyes
        *[54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55],  # outer lips
        *[64, 63, 62, 61, 60, 67, 66, 65],  # inner lips
    ]
)
"""(68,) each point's left-right twin: a mirrored face is `points[MIRRORED_68] * (-1, 1)`."""


def keypoints_68(landmarks: np.ndarray) -> np.ndarray:
    """The paper's 68 points.

    landmarks  (478, 2 or 3), in pixels or in [-1, 1] of a crop; z is not used
    returns    (68, 2) float32 in the same unit
    """
    landmarks = np.asarray(landmarks)
    if landmarks.shape not in {(478, 2), (478, 3)}:
        raise MobileBilayerError(
            f"Landmarks have shape {landmarks.shape}; the 68 points need (478, 2) or (478, 3). "
            "Take them from MediaPipe's face landmarker, iris points included."
        )
    return landmarks[LANDMARKS_68, :2].mean(1, dtype=np.float32)
