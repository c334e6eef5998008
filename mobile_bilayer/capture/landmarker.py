"""MediaPipe's face landmarker and selfie segmenter behind a few small calls."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass

import cv2
import numpy as np

from mobile_bilayer.capture.images import check_rgb
from mobile_bilayer.capture.models import FACE_LANDMARKER, SELFIE_SEGMENTER, model_bytes
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.crop import head_crop
from mobile_bilayer.pose.head import fit_head
from mobile_bilayer.quiet import quiet_stderr

LANDMARKS = 478  # with the iris points
SMALLEST_PX = 32  # a face smaller than this shows too little to make an avatar of
BLURRY_PX = 80
MOST_OUTSIDE = 0.1  # of the landmarks
MOST_EMPTY = 0.4  # of the head crop
MOST_TURNED = 50  # degrees from frontal

TURNS = {90: "lies on its side", 180: "is upside down", 270: "lies on its side"}  # by degrees clockwise
_SMALLEST_TILE_PX = 120
# A face that a video's landmarker has only just found moves for some ten frames though it is still, by 0.5 px of 512 at
# first: so it is shown its first picture so often, as if it had been there before. Then it moves by 0.08.
_SETTLE, _SETTLE_STEP_MS = 10, 33


def detect_photo(rgb: np.ndarray) -> np.ndarray:
    """Landmarks (478, 3) float32 in pixels of the largest face of a photo (H, W, 3) uint8 RGB."""
    check_rgb(rgb)
    height, width = rgb.shape[:2]
    with Landmarker(video=False) as landmarker, Landmarker(video=False, sure=True) as sure:
        points = next(iter(find_faces(landmarker, rgb, levels=3)), None)
        turned = find_turn(sure, rgb, points)
    if turned:
        raise MobileBilayerError(f"The face in this picture {TURNS[turned]}. Turn the photo upright first.")
    if points is None:
        raise MobileBilayerError(
            f"No face found in this picture of {width}x{height} pixels, nor in parts of it; one is needed, upright, sharp, "
            "seen from the front and whole from hair to chin. Choose another photo, or cut this one to head and shoulders."
        )
    size_px = face_size(points)
    if size_px < SMALLEST_PX:
        raise MobileBilayerError(
            f"The face in this picture is too small: {size_px:.0f} pixels; at least {SMALLEST_PX} are needed and "
            "200 are good. Choose a photo from nearer by, or of more pixels."
        )
    for doubt in _doubts(points, width, height):
        warnings.warn(
            f"{doubt}; the avatar may not look like the person. Choose another photo if you can.", stacklevel=2
        )
    return points


def _doubts(points: np.ndarray, width: int, height: int) -> Iterator[str]:
    if face_size(points) < BLURRY_PX:
        yield f"The face in this picture is small ({face_size(points):.0f} pixels)"
    outside = ((points[:, :2] < 0) | (points[:, :2] > [width, height])).any(1).mean()
    if outside > MOST_OUTSIDE:
        yield f"{outside:.0%} of the face lie outside this picture"
    crop = head_crop(points)
    middle, half = np.array([crop.x_px, crop.y_px]), crop.half_px
    shown = np.clip(middle + half, 0, [width, height]) - np.clip(middle - half, 0, [width, height])
    empty = 1 - np.prod(shown / (2 * half))
    if empty > MOST_EMPTY:
        yield f"{empty:.0%} of head and shoulders lie outside this picture, where its border is repeated"
    cosine = (np.trace(fit_head(points).rotation) - 1) / 2
    angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
    if angle > MOST_TURNED:
        yield f"The face in this picture is turned by {angle:.0f} degrees, so that half of it is hidden"


def find_faces(landmarker: Landmarker, rgb: np.ndarray, levels: int = 0) -> list[np.ndarray]:
    """Landmarks of up to 4 faces, largest first: of the picture, else with a border, else the largest found in tiles.

    landmarker  in image mode. It finds faces of at least a tenth of what it sees, with some room around them
    levels      how often the tiles are halved, from half the picture's shorter side on
    """
    for windows in search_plan(rgb.shape[1], rgb.shape[0], levels):
        found = []
        for left, top, width, height in windows:
            seen = landmarker.faces(_cut(rgb, left, top, width, height))
            found += [points + np.float32([left, top, 0]) for points in seen]
        if len(windows) == 1:
            if found:
                return found
            continue
        # A tile may cut a face, or see one in a pattern: what is one is one in the middle of its own window, too.
        for points in sorted(found, key=_area, reverse=True):
            window = Window.around(points)
            again = window.back(next(iter(landmarker.faces(window.cut(rgb))), None))
            if again is not None:
                return [again]
    return []


def search_plan(width: int, height: int, levels: int) -> list[list[tuple[int, int, int, int]]]:
    """Where to look for a face, one try after another: windows (left, top, width, height) of a picture of that size.

    The whole picture, then it with a border, then tiles that overlap and are halved `levels` times.
    """
    pad = max(width, height) // 3
    plan = [[(0, 0, width, height)], [(-pad, -pad, width + 2 * pad, height + 2 * pad)]]
    side = min(width, height) // 2
    while levels and side >= _SMALLEST_TILE_PX:
        plan.append([(left, top, side, side) for top in _starts(height, side) for left in _starts(width, side)])
        side, levels = side // 2, levels - 1
    return plan


def _starts(length: int, side: int) -> list[int]:
    """Where tiles begin that overlap by a third and end at the border."""
    count = max(2, -(-(length - side) * 3 // (2 * side)) + 1)
    return np.linspace(0, length - side, count).astype(int).tolist()


def find_turn(sure: Landmarker, rgb: np.ndarray, points: np.ndarray | None) -> int:
    """By how many degrees a picture is turned clockwise: 0, 90, 180 or 270.

    sure    in image mode. Only it knows top from bottom: in every second picture that is upside down, the other one
            takes the mouth for the eyes (30 of 55 eval photos; this one 0 of 55, and 55 of 55 when upright)
    points  what was found in the picture, if anything
    """
    if points is not None and turn_of(points):
        return turn_of(points)
    if not sure.faces(rgb):
        for quarters in (2, 1, 3):
            way_back = np.ascontiguousarray(np.rot90(rgb, quarters))  # counterclockwise
            if any(turn_of(face) == 0 for face in sure.faces(way_back)):
                return 90 * quarters
    return 0


def turn_of(points: np.ndarray) -> int:
    """By how many degrees a face is turned clockwise: 0, 90, 180 or 270. Up to 60 degrees it counts as upright."""
    across = points[263, :2] - points[33, :2]  # the outer eye corners, from left to right of an upright face
    degrees = float(np.degrees(np.arctan2(across[1], across[0]))) % 360
    return 0 if min(degrees, 360 - degrees) <= 60 else min((90, 180, 270), key=lambda turn: abs(degrees - turn))


def face_size(points: np.ndarray) -> float:
    """The larger side of the landmarks' box."""
    return float(np.ptp(points[:, :2], axis=0).max())


def detect_padded(landmarker: Landmarker, rgb: np.ndarray) -> np.ndarray | None:
    """Landmarks of a picture's largest face; tightly cropped faces are found with a border around them.

    landmarker  in image mode
    """
    return next(iter(find_faces(landmarker, rgb)), None)


@dataclass(frozen=True)
class Window:
    """A square of a picture, in whole pixels; it may reach beyond the picture, where it is black."""

    left: int
    top: int
    side: int

    @classmethod
    def around(cls, points: np.ndarray) -> Window:
        """Twice as large as the face in its middle: what the landmarker finds best."""
        low, high = points[:, :2].min(0), points[:, :2].max(0)
        half = max(1, int(face_size(points)))
        x, y = np.round((low + high) / 2).astype(int).tolist()
        return cls(x - half, y - half, 2 * half)

    def cut(self, rgb: np.ndarray) -> np.ndarray:
        return _cut(rgb, self.left, self.top, self.side, self.side)

    def has_in_its_middle(self, points: np.ndarray) -> bool:
        """Whether the face is about as large as the one this is around, and less than a third of it away."""
        fair = Window.around(points)
        moved = np.hypot(*(np.array([fair.left - self.left, fair.top - self.top]) + (fair.side - self.side) / 2))
        return moved <= self.side / 6 and 2 / 3 <= fair.side / self.side <= 3 / 2

    def back(self, points: np.ndarray | None) -> np.ndarray | None:
        """Landmarks found in the cut, in pixels of the picture."""
        return None if points is None else points + np.float32([self.left, self.top, 0])


def _cut(rgb: np.ndarray, left: int, top: int, width: int, height: int) -> np.ndarray:
    """A part of a picture; where it reaches beyond the picture it is black."""
    right, bottom = left + width, top + height
    inside = rgb[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)]
    if not inside.size:
        return np.zeros((height, width, 3), np.uint8)
    border = [max(beyond, 0) for beyond in (-top, bottom - rgb.shape[0], -left, right - rgb.shape[1])]
    return cv2.copyMakeBorder(inside, *border, cv2.BORDER_CONSTANT)


class Landmarker:
    """478 landmarks of faces.

    `video=True` tracks one face from frame to frame (make a fresh one for each clip); `False` looks at each picture by
    itself, and for up to 4 faces. `sure` ones find only what is a face beyond doubt. To `settle` on its first face takes a
    video's one ten times as long as any other picture does.
    """

    def __init__(self, video: bool = True, sure: bool = False, settle: bool = True) -> None:
        from mediapipe.tasks.python import BaseOptions, vision

        self._video = video
        self._start_s = None
        self._last_ms = -1
        self._later_ms = 0  # than the clip, for the pictures that were shown repeatedly
        self._settled = not settle
        self._first = True
        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_buffer=model_bytes(FACE_LANDMARKER)),
            running_mode=vision.RunningMode.VIDEO if video else vision.RunningMode.IMAGE,
            num_faces=1 if video else 4,
            min_face_detection_confidence=0.8 if sure else 0.5,
        )
        with quiet_stderr():
            self._task = vision.FaceLandmarker.create_from_options(options)

    def __enter__(self) -> Landmarker:
        return self

    def __exit__(self, *_exc) -> None:
        with quiet_stderr():
            self._task.close()

    def detect(self, rgb: np.ndarray, time_s: float = 0.0) -> np.ndarray | None:
        """Landmarks (478, 3) float32 in pixels (z in the same unit, smaller is nearer) of the largest face, or None.

        They may lie outside the picture.

        rgb     (H, W, 3) uint8, upright and not mirrored
        time_s  the frame's time in its clip; only used in video mode
        """
        return next(iter(self.faces(rgb, time_s)), None)

    def faces(self, rgb: np.ndarray, time_s: float = 0.0) -> list[np.ndarray]:
        """As `detect`, of all faces, largest first."""
        image = _image(rgb)
        with quiet_stderr() if self._first else nullcontext():
            if self._video:
                # MediaPipe wants whole milliseconds that grow. Files have other times as well.
                self._start_s = time_s if self._start_s is None else self._start_s
                self._last_ms = max(self._last_ms + 1, round((time_s - self._start_s) * 1000) + self._later_ms)
                faces = self._task.detect_for_video(image, self._last_ms).face_landmarks
                for _ in range(_SETTLE if faces and not self._settled else 0):
                    self._last_ms += _SETTLE_STEP_MS
                    self._later_ms += _SETTLE_STEP_MS
                    faces = self._task.detect_for_video(image, self._last_ms).face_landmarks or faces
                self._settled = self._settled or bool(faces)
            else:
                faces = self._task.detect(image).face_landmarks
        self._first = False
        height, width = rgb.shape[:2]
        found = [np.array([(p.x * width, p.y * height, p.z * width) for p in face], np.float32) for face in faces]
        return sorted(found, key=_area, reverse=True)


def _area(points: np.ndarray) -> float:
    return float(np.prod(np.ptp(points[:, :2], axis=0)))


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
