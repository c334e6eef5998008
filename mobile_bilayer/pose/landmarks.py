"""Which of MediaPipe's 478 landmarks the networks take, and what they stand for."""

from __future__ import annotations

LIPS = [0, 13, 14, 17, 37, 39, 40, 61, 78, 80, 81, 82, 84, 87, 88, 91, 95, 146, 178, 181, 185, 191, 267, 269, 270,
        291, 308, 310, 311, 312, 314, 317, 318, 321, 324, 375, 402, 405, 409, 415]  # fmt: skip
RIGHT_EYE = [7, 33, 133, 144, 145, 153, 154, 155, 157, 158, 159, 160, 161, 163, 173, 246]  # the person's right
LEFT_EYE = [249, 263, 362, 373, 374, 380, 381, 382, 384, 385, 386, 387, 388, 390, 398, 466]
RIGHT_IRIS, LEFT_IRIS = [468, 469, 470, 471, 472], [473, 474, 475, 476, 477]
BROWS = [70, 63, 105, 66, 107, 300, 293, 334, 296, 336]
OVAL = [10, 297, 284, 389, 454, 361, 397, 379, 400, 152, 176, 150, 172, 132, 234, 162, 54, 67]
NOSE = [168, 6, 195, 1, 2, 164, 98, 327, 48, 278]
CHEEKS = [50, 280, 205, 425, 187, 411, 118, 347]

MESH = LIPS + RIGHT_EYE + LEFT_EYE + RIGHT_IRIS + LEFT_IRIS + BROWS + OVAL + NOSE + CHEEKS
"""The 128 landmarks of the mesh that the networks take, in the order they take them.

Behind them come `head.HEAD_POINTS` (hair and neck, moved by the head) and `head.TORSO_POINTS` (still).
"""
