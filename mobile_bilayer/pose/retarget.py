"""The driver's motion, put on the source's own face: so that no face shape leaks."""

from __future__ import annotations

import numpy as np

from mobile_bilayer.pose.head import HeadPose, face_template, fit_head
from mobile_bilayer.pose.landmarks import LEFT_EYE, RIGHT_EYE

# Outer and inner corner, upper and lower lid.
EYES = {tuple(RIGHT_EYE): (33, 133, 159, 145), tuple(LEFT_EYE): (263, 362, 386, 374)}
LARGEST_SHIFT = 0.4  # of the head, in crop coordinates
SCALE_RANGE = (0.75, 1.33)  # of the head's size against the photo's


def unposed(landmarks: np.ndarray, pose: HeadPose) -> np.ndarray:
    """The face (478, 3) in the template's units, without head pose. What depth hides stays the template's."""
    template = face_template().points
    rest = (landmarks[:, :2] - pose.shift) / pose.scale - template @ pose.rotation[:2].T
    return template + rest @ pose.rotation[:2]


def retarget(source: np.ndarray, driving: np.ndarray, neutral: np.ndarray) -> np.ndarray:
    """Where the source's landmarks go when the driver has moved from `neutral` to `driving`.

    source            (478, 2 or 3) in [-1, 1] of the source's crop
    driving, neutral  (478, 2 or 3) in pixels of the driving picture
    returns           (478, 2) float32 in [-1, 1] of the source's crop

    Head pose and expression are taken apart; their changes are applied to the source's own pose and face.
    On driving == neutral that is the source, on source == neutral (in one picture's units) it is the driving frame.
    """
    pose_s, pose_d, pose_n = fit_head(source), fit_head(driving), fit_head(neutral)
    face_s, face_n = unposed(source, pose_s), unposed(neutral, pose_n)
    change = unposed(driving, pose_d) - face_n
    for part, eye in EYES.items():
        # A lid of a wide eye has farther to go: a blink must close every eye.
        change[list(part)] *= np.clip(_openness(face_s, eye) / max(_openness(face_n, eye), 1e-3), 0.5, 2)
    turn = pose_d.rotation @ pose_n.rotation.T
    scale = np.clip(pose_d.scale / pose_n.scale, *SCALE_RANGE)
    shift = (pose_d.shift - pose_n.shift) * (pose_s.scale / pose_n.scale)
    shift *= min(1.0, LARGEST_SHIFT / max(float(np.hypot(*shift)), 1e-6))
    return HeadPose(pose_s.scale * scale, turn @ pose_s.rotation, pose_s.shift + shift).project(face_s + change)


def _openness(face: np.ndarray, eye: tuple[int, int, int, int]) -> float:
    outer, inner, upper, lower = face[list(eye)]
    return float(np.linalg.norm(upper - lower) / np.linalg.norm(outer - inner))
