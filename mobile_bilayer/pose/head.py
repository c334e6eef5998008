"""A rigid head from landmarks, and the points that the face mesh lacks: hair, neck, torso."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load

from mobile_bilayer.pose.landmarks import MESH

# In the template's units: 1 is the distance of the outer eye corners; x right, y down, z away from the camera.
HEAD_POINTS = np.array(
    [
        *[(0, -1.45, 0.5), (-0.6, -1.3, 0.5), (0.6, -1.3, 0.5), (-0.95, -0.9, 0.7), (0.95, -0.9, 0.7)],  # hair
        *[(-1.05, -0.2, 1.0), (1.05, -0.2, 1.0), (-0.95, 0.4, 0.9), (0.95, 0.4, 0.9), (0, -1.2, 1.2)],  # sides, crown
        *[(-0.6, 1.05, 0.6), (0.6, 1.05, 0.6), (0, 1.2, 0.35)],  # neck
    ],
    np.float32,
)
# In crop coordinates: shoulders stay where they are when the head moves.
TORSO_POINTS = np.array([(-0.8, 0.93), (0, 0.98), (0.8, 0.93)], np.float32)
_MESH = np.array(MESH)
_HEAD = np.concatenate([HEAD_POINTS, np.ones((len(HEAD_POINTS), 1))], 1)  # with ones, for the shift
POINTS = len(MESH) + len(HEAD_POINTS) + len(TORSO_POINTS)


@dataclass(frozen=True)
class FaceTemplate:
    """The mean face of many people.

    points  (478, 3) float32, symmetric; units as `HEAD_POINTS`
    rigid   indices of landmarks that expressions hardly move
    mirror  (478,) index of each landmark's left-right twin
    jaw     (478,) float32, how far down each landmark goes when the lips part by 1; symmetric, 0 in the upper face
    """

    points: np.ndarray
    rigid: np.ndarray
    mirror: np.ndarray
    jaw: np.ndarray


@cache
def face_template() -> FaceTemplate:
    """The template shipped with the package."""
    return FaceTemplate(**load((files("mobile_bilayer") / "assets" / "face_template.safetensors").read_bytes()))


class HeadPose(NamedTuple):  # as the next one: a dataclass takes six times as long to make, and a frame makes seven
    """Weak perspective: picture = scale * (rotation @ template)[:2] + shift.

    scale     pixels (or keypoint units) a template unit
    rotation  (3, 3), template to camera
    shift     (2,)
    """

    scale: float
    rotation: np.ndarray
    shift: np.ndarray

    def project(self, points: np.ndarray) -> np.ndarray:
        """Template points (N, 3) to the picture (N, 2) float32."""
        # In rows of x and y, and by `dot`: NumPy takes half as long as with columns and `@`, here and below.
        xy = (self.scale * self.rotation[:2]).dot(points.T)
        xy += self.shift[:, None]
        return xy.T.astype(np.float32, order="C")


class Motion(NamedTuple):
    """A head taken apart: where it is, and the face in its own frame, with its shape and expression.

    face  (478, 3) in the template's units, seen from the front; what depth hides is the template's
    """

    pose: HeadPose
    face: np.ndarray


Fit = tuple[float, tuple["Row", "Row"], tuple[float, float]]  # scale, two rows of the rotation, and shift


@cache
def _solver() -> tuple[np.ndarray, list[float]]:
    """(4, 478) that takes landmarks to an affine map's columns and the mean of the rigid ones; and the template's mean."""
    template = face_template()
    rigid = template.points[template.rigid].astype(np.float64)
    middle = rigid.mean(0)
    out = np.zeros((4, len(template.points)))  # the others have no say
    out[:3, template.rigid] = np.linalg.pinv(rigid - middle)
    out[3, template.rigid] = 1 / len(rigid)
    return out, middle.tolist()


def fit_head(landmarks: np.ndarray) -> HeadPose:
    """Least-squares head pose of landmarks (478, 2 or 3), in their unit; z is not used.

    Lips, brows and chin have no say: what they do moves neither the place nor the size found.
    """
    scale, rows, shift = _fit(landmarks)
    return HeadPose(scale, rotation_of(rows), np.array(shift))


def _fit(landmarks: np.ndarray) -> Fit:
    solver, middle = _solver()
    # The solver's first rows add up to 0: there is no mean to be taken off before.
    (a, u, *_), (b, v, *_), (c, w, *_), (x, y, *_) = solver.dot(np.asarray(landmarks, np.float64)).tolist()
    rows, scale = nearest_rows((a, b, c), (u, v, w))
    return scale, rows, (x - scale * dot(rows[0], middle), y - scale * dot(rows[1], middle))


Row = Sequence[float]  # of three: plain numbers, as NumPy takes longer for so few


def nearest_rows(first: Row, second: Row) -> tuple[tuple[Row, Row], float]:
    """The two orthonormal rows nearest to these, and the mean of the singular values.

    In closed form, (A A^T)^(-1/2) A: phones have no decomposition at hand.
    """
    a, b, d = dot(first, first), dot(first, second), dot(second, second)
    root = math.sqrt(max(a * d - b * b, 1e-24))  # the product of the singular values
    total = math.sqrt(a + d + 2 * root)  # their sum
    p, q, r = (d + root) / (total * root), -b / (total * root), (a + root) / (total * root)
    (x, y, z), (u, v, w) = first, second
    rows = (p * x + q * u, p * y + q * v, p * z + q * w), (q * x + r * u, q * y + r * v, q * z + r * w)
    return rows, total / 2


def rotation_of(rows: tuple[Row, Row]) -> np.ndarray:
    """The rotation (3, 3) with these first two rows."""
    (a, b, c), (d, e, f) = rows
    return np.array((a, b, c, d, e, f, b * f - c * e, c * d - a * f, a * e - b * d)).reshape(3, 3)


def dot(a: Row, b: Row) -> float:
    """The inner product."""
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def unposed(landmarks: np.ndarray, pose: HeadPose) -> np.ndarray:
    """The face (478, 3) in the template's units, without head pose. What depth hides stays the template's."""
    (a, b, c), (d, e, f), (g, h, i) = pose.rotation.tolist()
    (x, y), per = pose.shift.tolist(), 1 / pose.scale
    # (landmarks - shift) / scale along the rows that are seen, the template along the one that is not.
    seen = np.array([(a * per, b * per, c * per), (d * per, e * per, f * per), (0.0, 0.0, 0.0)][: landmarks.shape[1]])
    u, v = x * per, y * per
    hidden = np.array(
        [
            [g * g, g * h, g * i],
            [h * g, h * h, h * i],
            [i * g, i * h, i * i],
            [-u * a - v * d, -u * b - v * e, -u * c - v * f],
        ]
    )
    out = _template().dot(hidden)
    out += np.asarray(landmarks, np.float64).dot(seen)
    return out


@cache
def _template() -> np.ndarray:
    """(478, 4): the template, and ones."""
    points = face_template().points.astype(np.float64)
    return np.concatenate([points, np.ones((len(points), 1))], 1)


def take_apart(landmarks: np.ndarray) -> Motion:
    """Head pose and face of landmarks (478, 2 or 3), in any unit; `put_together` is the way back."""
    landmarks = np.asarray(landmarks, np.float64)
    pose = fit_head(landmarks)
    return Motion(pose, unposed(landmarks, pose))


def put_together(motion: Motion) -> np.ndarray:
    """Landmarks (478, 2) float32 in the unit of the pose."""
    return motion.pose.project(motion.face)


def network_points(landmarks: np.ndarray) -> np.ndarray:
    """The points that the networks take: mesh, head and torso.

    landmarks  (478, 2 or 3) in [-1, 1] of the source's crop
    returns    (POINTS, 2) float32 in the same coordinates
    """
    scale, ((a, b, c), (d, e, f)), shift = _fit(landmarks)
    head = _HEAD.dot(np.array([[scale * a, scale * d], [scale * b, scale * e], [scale * c, scale * f], shift]))
    return np.concatenate([landmarks.take(_MESH, 0)[:, :2], head, TORSO_POINTS], dtype=np.float32)


def mirrored_points() -> np.ndarray:
    """(POINTS,) index of each network point's left-right twin."""
    mesh_place = {landmark: place for place, landmark in enumerate(MESH)}
    mesh = [mesh_place[int(face_template().mirror[landmark])] for landmark in MESH]
    out = list(mesh)
    for points in (HEAD_POINTS, TORSO_POINTS):
        flipped = points * np.array([-1] + [1] * (points.shape[1] - 1), np.float32)
        twins = np.abs(flipped[:, None] - points[None]).sum(-1).argmin(1)
        out += [len(out) + int(t) for t in twins]
    return np.array(out)
