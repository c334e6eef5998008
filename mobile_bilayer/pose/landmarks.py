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

CONTOURS = {
    "face oval": [[10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152, 148,
                   176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109, 10]],
    "right brow": [[46, 53, 52, 65, 55], [70, 63, 105, 66, 107]],
    "left brow": [[276, 283, 282, 295, 285], [300, 293, 334, 296, 336]],
    "nose": [[168, 6, 197, 195, 5, 4, 1, 19, 94, 2],
             [98, 97, 2, 326, 327, 294, 278, 344, 440, 275, 4, 45, 220, 115, 48, 64, 98]],
    "right eye": [[33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246, 33]],
    "left eye": [[263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466, 263]],
    "right iris": [[469, 470, 471, 472, 469]],
    "left iris": [[474, 475, 476, 477, 474]],
    "lips": [[61, 146, 91, 181, 84, 17, 314, 405, 321, 375, 291, 409, 270, 269, 267, 0, 37, 39, 40, 185, 61],
             [78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308, 415, 310, 311, 312, 13, 82, 81, 80, 191, 78]],
}  # fmt: skip
"""The lines that people know from pictures of a face mesh: MediaPipe's contours, each as points to join.

Closed lines end where they begin. Right and left are the person's.
"""
