"""MediaPipe's face landmarker and selfie segmenter behind two small calls."""

from __future__ import annotations

import os

os.environ.setdefault("GLOG_minloglevel", "2")  # MediaPipe's start-up chatter

import numpy as np

from mobile_bilayer.capture.models import FACE_LANDMARKER, SELFIE_SEGMENTER, model_bytes
from mobile_bilayer.errors import MobileBilayerError

LANDMARKS = 478  # with the iris points


def _image(rgb: np.ndarray):
    import mediapipe as mp

    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise MobileBilayerError(
            f"A picture has shape {rgb.shape} and type {rgb.dtype}; it must be HxWx3 uint8 RGB."
        )
    return mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(rgb))


class Landmarker:
    """478 landmarks of one face.

    `video=True` tracks from frame to frame (make a fresh one for each clip); `False` looks at each
    picture by itself. With several faces the largest is taken.
    """

    def __init__(self, video: bool = True) -> None:
        from mediapipe.tasks.python import BaseOptions, vision

        self._video = video
        self._last_ms = -1
        mode = vision.RunningMode.VIDEO if video else vision.RunningMode.IMAGE
        self._task = vision.FaceLandmarker.create_from_options(
            vision.FaceLandmarkerOptions(
                base_options=BaseOptions(model_asset_buffer=model_bytes(FACE_LANDMARKER)),
                running_mode=mode,
                num_faces=1 if video else 4,
            )
        )

    def __enter__(self) -> Landmarker:
        return self

    def __exit__(self, *_exc) -> None:
        self._task.close()

    def detect(self, rgb: np.ndarray, time_s: float = 0.0) -> np.ndarray | None:
        """Landmarks (478, 3) float32 in pixels (z in the same unit, smaller is nearer), or None.

        rgb     (H, W, 3) uint8, upright and not mirrored
        time_s  the frame's time in its clip; only used in video mode
        """
        image = _image(rgb)
        if self._video:
            # MediaPipe refuses times that do not grow.
            self._last_ms = max(self._last_ms + 1, round(time_s * 1000))
            faces = self._task.detect_for_video(image, self._last_ms).face_landmarks
        else:
            faces = self._task.detect(image).face_landmarks
        if not faces:
            return None
        height, width = rgb.shape[:2]
        found = [
            np.array([(p.x * width, p.y * height, p.z * width) for p in face], np.float32) for face in faces
        ]
        return max(found, key=lambda points: np.ptp(points[:, 0]) * np.ptp(points[:, 1]))


class Segmenter:
    """The person's alpha, for training data."""

    def __init__(self) -> None:
        from mediapipe.tasks.python import BaseOptions, vision

        self._task = vision.ImageSegmenter.create_from_options(
            vision.ImageSegmenterOptions(
                base_options=BaseOptions(model_asset_buffer=model_bytes(SELFIE_SEGMENTER)),
                output_confidence_masks=True,
                output_category_mask=False,
            )
        )

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(self, *_exc) -> None:
        self._task.close()

    def alpha(self, rgb: np.ndarray) -> np.ndarray:
        """(H, W) float32 in [0, 1], 1 where the person is."""
        return self._task.segment(_image(rgb)).confidence_masks[-1].numpy_view().reshape(rgb.shape[:2]).copy()
