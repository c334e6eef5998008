"""MediaPipe's face landmarker and selfie segmenter behind a few small calls."""

from __future__ import annotations

from contextlib import nullcontext

import cv2
import numpy as np

from mobile_bilayer.capture.images import check_rgb
from mobile_bilayer.capture.models import FACE_LANDMARKER, SELFIE_SEGMENTER, model_bytes
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.quiet import quiet_stderr

LANDMARKS = 478  # with the iris points


def detect_photo(rgb: np.ndarray) -> np.ndarray:
    """Landmarks (478, 3) float32 in pixels of the largest face of a photo (H, W, 3) uint8 RGB."""
    check_rgb(rgb)
    with Landmarker(video=False) as landmarker:
        points = detect_padded(landmarker, rgb)
    if points is None:
        raise MobileBilayerError(
            f"No face found in this picture of {rgb.shape[1]}x{rgb.shape[0]} pixels; one is needed, upright, "
            "sharp and seen from the front. Choose another photo, or cut this one to head and shoulders."
        )
    return points


def detect_padded(landmarker: Landmarker, rgb: np.ndarray) -> np.ndarray | None:
    """Landmarks of a picture; tightly cropped faces are found with a border around them.

    landmarker  in image mode
    """
    points = landmarker.detect(rgb)
    if points is None:
        pad = max(rgb.shape[:2]) // 3
        points = landmarker.detect(cv2.copyMakeBorder(rgb, pad, pad, pad, pad, cv2.BORDER_CONSTANT))
        if points is not None:
            points[:, :2] -= pad
    return points


class Landmarker:
    """478 landmarks of one face.

    `video=True` tracks from frame to frame (make a fresh one for each clip); `False` looks at each
    picture by itself. With several faces the largest is taken.
    """

    def __init__(self, video: bool = True) -> None:
        from mediapipe.tasks.python import BaseOptions, vision

        self._video = video
        self._last_ms = -1
        self._first = True
        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_buffer=model_bytes(FACE_LANDMARKER)),
            running_mode=vision.RunningMode.VIDEO if video else vision.RunningMode.IMAGE,
            num_faces=1 if video else 4,
        )
        with quiet_stderr():
            self._task = vision.FaceLandmarker.create_from_options(options)

    def __enter__(self) -> Landmarker:
        return self

    def __exit__(self, *_exc) -> None:
        with quiet_stderr():
            self._task.close()

    def detect(self, rgb: np.ndarray, time_s: float = 0.0) -> np.ndarray | None:
        """Landmarks (478, 3) float32 in pixels (z in the same unit, smaller is nearer), or None.

        rgb     (H, W, 3) uint8, upright and not mirrored
        time_s  the frame's time in its clip; only used in video mode
        """
        image = _image(rgb)
        with quiet_stderr() if self._first else nullcontext():
            if self._video:
                # MediaPipe refuses times that do not grow.
                self._last_ms = max(self._last_ms + 1, round(time_s * 1000))
                faces = self._task.detect_for_video(image, self._last_ms).face_landmarks
            else:
                faces = self._task.detect(image).face_landmarks
        self._first = False
        if not faces:
            return None
        height, width = rgb.shape[:2]
        found = [np.array([(p.x * width, p.y * height, p.z * width) for p in face], np.float32) for face in faces]
        return max(found, key=lambda points: np.ptp(points[:, 0]) * np.ptp(points[:, 1]))


class Segmenter:
    """The person's alpha, for training data."""

    def __init__(self) -> None:
        from mediapipe.tasks.python import BaseOptions, vision

        self._first = True
        options = vision.ImageSegmenterOptions(
            base_options=BaseOptions(model_asset_buffer=model_bytes(SELFIE_SEGMENTER)),
            output_confidence_masks=True,
            output_category_mask=False,
        )
        with quiet_stderr():
            self._task = vision.ImageSegmenter.create_from_options(options)

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(self, *_exc) -> None:
        with quiet_stderr():
            self._task.close()

    def alpha(self, rgb: np.ndarray) -> np.ndarray:
        """(H, W) float32 in [0, 1], 1 where the person is."""
        image = _image(rgb)
        with quiet_stderr() if self._first else nullcontext():
            masks = self._task.segment(image).confidence_masks
        self._first = False
        return masks[-1].numpy_view().reshape(rgb.shape[:2]).copy()


def _image(rgb: np.ndarray):
    import mediapipe as mp

    return mp.Image(image_format=mp.ImageFormat.SRGB, data=check_rgb(rgb))
