"""An avatar: what is made once from a photo, and rendered every frame."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mobile_bilayer.background import change_background
from mobile_bilayer.capture.images import check_input, check_output, written_aside
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.head import Motion, network_points, take_apart
from mobile_bilayer.pose.retarget import Mode, Retargeter
from mobile_bilayer.pose.track import LIMIT_PX, TrackFrame
from mobile_bilayer.runtime.compositor import composite, to_float, to_rgb

if TYPE_CHECKING:
    from mobile_bilayer.runtime.bundle import Bundle

FORMAT, VERSION = "mobile_bilayer avatar", 1
LARGEST = 16 * 2**20  # bytes; an avatar of S has 0.8 MB
# name: dtype, shape; None is whatever the bundle's manifest says
TENSORS = {
    "texture": (np.uint8, (256, 256, 3)),
    "background": (np.uint8, (256, 256, 3)),
    "alpha": (np.uint8, (128, 128)),
    "landmark_features": (np.float32, None),
    "map_features": (np.float32, None),
    "source_landmarks": (np.float32, (478, 3)),
}


class Avatar:
    """One person, ready to be driven. Made by `Bundle.avatar`.

    texture           (256, 256, 3) uint8, the photo's head crop
    background        (256, 256, 3) uint8, the same without the person
    alpha             (128, 128) uint8, the person in the crop
    landmark_features, map_features  float32, what the frame network reads
    source_landmarks  (478, 3) float32 in [-1, 1] of the crop
    neutral           what of the driver means "as in the photo": its pixels (478, 2 or 3), a `Motion` or, None, the next
                      frame rendered. `neutral_of(track)` finds it
    mode              "relative" or "absolute": see `Retargeter`
    """

    def __init__(
        self,
        bundle: Bundle,
        texture: np.ndarray,
        background: np.ndarray,
        alpha: np.ndarray,
        landmark_features: np.ndarray,
        map_features: np.ndarray,
        source_landmarks: np.ndarray,
    ) -> None:
        self.bundle = bundle
        self.texture, self.background, self.alpha = texture, background, alpha
        self.landmark_features, self.map_features = landmark_features, map_features
        self.source_landmarks = source_landmarks
        self.mode: Mode = "relative"
        self._retargeter: Retargeter | None = None
        self.neutral = None
        self._source = take_apart(source_landmarks)
        self._source_points = network_points(source_landmarks)[None]
        self._texture = to_float(texture)
        self._behind = to_float(background)

    @property
    def neutral(self) -> np.ndarray | Motion | None:
        return self._neutral

    @neutral.setter
    def neutral(self, neutral: np.ndarray | Motion | None) -> None:
        self._neutral = neutral if neutral is None or isinstance(neutral, Motion) else np.array(neutral)
        self._fresh = False  # whether the retargeter has this one

    def show_before(self, background: str | Path) -> None:
        """Choose what stands behind: "keep", "blur", "#rrggbb" or a picture file."""
        self._behind = to_float(change_background(background, self.texture, self.background))

    def render(self, driving: np.ndarray | TrackFrame | Motion) -> np.ndarray:
        """The avatar moved as the driver has moved since its neutral frame. A fresh (256, 256, 3) uint8 RGB array.

        driving  landmarks (478, 2 or 3) in pixels of the driving frame, a frame of a Track, or a `Motion` as a
                 `Stabilizer` gives it: landmarks alone tremble

        Motion is relative: on the neutral frame the avatar looks as in the photo, but that its lips are shut if the
        driver's are. Set `avatar.neutral`, or let the first frame rendered be it. For a clip of the source's own person,
        with the photo taken from it, set it to the landmarks of that photo: then the pose is the driver's own.
        """
        return self.compose(*self.layers(self.move(driving)))

    def move(self, driving: np.ndarray | TrackFrame | Motion) -> np.ndarray:
        """The driver's motion on the source: landmarks (478, 2) in [-1, 1] of the source's crop."""
        motion = driving
        if not isinstance(driving, Motion):
            points = check_landmarks(driving.landmarks if isinstance(driving, TrackFrame) else driving)
            motion = take_apart(points)
            if self.neutral is None:
                self.neutral = points
        elif self.neutral is None:
            self.neutral = motion
        known = self._retargeter if self._retargeter and self._retargeter.mode == self.mode else None
        if known is None or not self._fresh:
            neutral = self.neutral if isinstance(self.neutral, Motion) else take_apart(check_landmarks(self.neutral))
            known = known.with_neutral(neutral) if known else Retargeter(self._source, neutral, self.mode)
            self._retargeter, self._fresh = known, True
        return known(motion)

    def layers(self, moved: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """layers_a (4, 64, 64) and layers_b (3, 128, 128) for landmarks in [-1, 1] of the source's crop."""
        points = network_points(moved)[None]
        a, b = self.bundle.program.run(
            "render_layers", self.landmark_features, self.map_features, self._source_points, points
        )
        return a[0], b[0]

    def compose(self, layers_a: np.ndarray, layers_b: np.ndarray) -> np.ndarray:
        """(256, 256, 3) uint8 RGB of one frame's layers."""
        return to_rgb(composite(self._texture, self._behind, layers_a, layers_b))

    def save(self, path: Path | str) -> None:
        """Write NAME.avatar (safetensors). It carries an AI-generated tag, as it is there to make such pictures."""
        path = check_output(Path(path), (".avatar",))
        tensors = {name: np.ascontiguousarray(getattr(self, name)) for name in TENSORS}
        header = {
            "format": FORMAT,
            "version": str(VERSION),
            "student": self.bundle.manifest.student,
            "content": "AI-generated avatar of a photo",
        }
        try:
            with written_aside(path) as aside:
                aside.write_bytes(save(tensors, header))
        except OSError as error:
            raise MobileBilayerError(f"{path} could not be written: {error}. Free some space, or write elsewhere.") from error

    @classmethod
    def load(cls, path: Path | str, bundle: Bundle | None = None) -> Avatar:
        """The way back of `save`. `bundle` must hold the same student as the one that made the avatar."""
        from mobile_bilayer.runtime.bundle import Bundle

        path = check_input(Path(path), "avatar")
        if path.stat().st_size > LARGEST:
            raise MobileBilayerError(
                f"{path} is larger than {LARGEST >> 20} MiB, so it is no avatar. `mobile-bilayer avatar PHOTO -o NAME.avatar` makes one."
            )
        bundle = bundle or Bundle.open()
        try:
            with safe_open(path, "np") as file:
                header = file.metadata() or {}
                known = TENSORS.keys() & set(file.keys())
                tensors = {name: file.get_tensor(name) for name in known}
        except (OSError, SafetensorError, TypeError, AttributeError) as error:  # the last two for types that numpy lacks
            raise MobileBilayerError(
                f"{path} is not an avatar, or it is damaged ({error}). Run `mobile-bilayer avatar PHOTO` again."
            ) from error
        if header.get("format") != FORMAT:
            raise MobileBilayerError(f"{path} is not an avatar. `mobile-bilayer avatar PHOTO -o NAME.avatar` makes one.")
        if header.get("version") != str(VERSION):
            raise MobileBilayerError(
                f"{path} has format version {header.get('version', 'none')[:20]}; this one reads {VERSION}. Update mobile_bilayer."
            )
        if header.get("student") != bundle.manifest.student:
            raise MobileBilayerError(
                f"{path} was made with the student {header.get('student', 'none')[:16]}; {bundle.where} holds "
                f"{bundle.manifest.student}. Run `mobile-bilayer avatar` on the photo again."
            )
        features, maps = (spec.shape for spec in bundle.manifest.methods["render_layers"].inputs[:2])
        shapes = {"landmark_features": features, "map_features": maps}
        for name, (kind, shape) in TENSORS.items():
            shape = shape or shapes[name]
            value = tensors.get(name)
            if value is None or value.shape != shape or value.dtype != kind:
                got = "missing" if value is None else f"{value.shape} {value.dtype}"
                raise MobileBilayerError(
                    f"{path}: {name} is {got}; it must be {shape} {np.dtype(kind)}. Run `mobile-bilayer avatar` again."
                )
            if kind == np.float32 and not np.isfinite(value).all():
                raise MobileBilayerError(f"{path}: {name} holds what is not a number. Run `mobile-bilayer avatar` again.")
        try:
            check_landmarks(tensors["source_landmarks"])
        except MobileBilayerError as error:
            raise MobileBilayerError(f"{path}: source_landmarks: {error} Run `mobile-bilayer avatar` again.") from error
        return cls(bundle, **tensors)


def check_landmarks(landmarks: np.ndarray) -> np.ndarray:
    """`landmarks` as float32, when they are (478, 2 or 3) finite numbers."""
    points = np.asarray(landmarks)
    if points.ndim != 2 or points.shape[0] != 478 or points.shape[1] not in (2, 3) or points.dtype.kind not in "fiu":
        hint = " (a model without iris points gives 468; use face_landmarker.task)" if points.shape[:1] == (468,) else ""
        raise MobileBilayerError(
            f"Landmarks have shape {points.shape} and type {points.dtype}{hint}; 478 points of 2 or 3 numbers are needed, "
            "in pixels of their picture."
        )
    if not np.isfinite(points).all():
        raise MobileBilayerError("Landmarks hold what is not a number. Leave out frames without a face.")
    if np.abs(points).max() > LIMIT_PX or not np.ptp(points[:, :2], 0).min() > 0:
        low, high = points[:, :2].min(0), points[:, :2].max(0)
        raise MobileBilayerError(
            f"Landmarks lie between {low.tolist()} and {high.tolist()}, which is no face in a picture. "
            "Leave out frames without a face."
        )
    return points.astype(np.float32)
