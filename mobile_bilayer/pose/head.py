"""A rigid head from landmarks, and the points that the face mesh lacks: hair, neck, torso."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib.resources import files

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
POINTS = len(MESH) + len(HEAD_POINTS) + len(TORSO_POINTS)


@dataclass(frozen=True)
class FaceTemplate:
    """The mean face of many people.

    points  (478, 3) float32, symmetric; units as `HEAD_POINTS`
    rigid   indices of landmarks that expressions hardly move
    mirror  (478,) index of each landmark's left-right twin
    """

    points: np.ndarray
    rigid: np.ndarray
    mirror: np.ndarray


@cache
def face_template() -> FaceTemplate:
    """The template shipped with the package."""
    return FaceTemplate(**load((files("mobile_bilayer") / "assets" / "face_template.safetensors").read_bytes()))


@dataclass(frozen=True)
class HeadPose:
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
        return (self.scale * points @ self.rotation[:2].T + self.shift).astype(np.float32)


@cache
def _rigid_solver() -> tuple[np.ndarray, np.ndarray]:
    template = face_template()
    rigid = template.points[template.rigid].astype(np.float64)
    middle = rigid.mean(0)
    return np.linalg.pinv(rigid - middle), middle


def fit_head(landmarks: np.ndarray) -> HeadPose:
    """Least-squares head pose of landmarks (478, 2 or 3), in their unit; z is not used."""
    solver, middle = _rigid_solver()
    seen = landmarks[face_template().rigid, :2].astype(np.float64)
    affine = (solver @ (seen - seen.mean(0))).T  # (2, 3)
    u, sizes, vt = np.linalg.svd(affine, full_matrices=False)
    rows = u @ vt  # nearest orthonormal rows
    scale = float(sizes.mean())
    shift = seen.mean(0) - scale * rows @ middle
    return HeadPose(scale, np.vstack([rows, np.cross(rows[0], rows[1])]), shift)


def network_points(landmarks: np.ndarray) -> np.ndarray:
    """The points that the networks take: mesh, head and torso.

    landmarks  (478, 2 or 3) in [-1, 1] of the source's crop
    returns    (POINTS, 2) float32 in the same coordinates
    """
    return np.concatenate(
        [landmarks[MESH, :2].astype(np.float32), fit_head(landmarks).project(HEAD_POINTS), TORSO_POINTS]
    )


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
