"""One person's face through a clip or before a camera, frame by frame; and a driving clip to a track."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np

from mobile_bilayer.capture.landmarker import TURNS, Landmarker, Window, face_size, find_faces, find_turn
from mobile_bilayer.capture.video import Frame
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.track import Track

NEAR = 0.75  # of the face's size: a face farther from where our person was last seen is elsewhere
GROWTH = 2.0  # one that is so many times larger or smaller, too
REACH = 5.0  # of the face's size in a second: how fast other people are thought to move
FORGET_S = 2.0  # out of sight for so long, others are forgotten
LOOK_S = 0.2  # between two looks at the whole picture for somebody who is lost and was alone
SEARCH_S = 0.5  # before the first and second search in every corner; before each later one twice as long


class Video(Iterable[Frame], Protocol):
    """What a VideoReader and a Camera have in common."""

    rate: Fraction  # frames per second


@dataclass(frozen=True, eq=False)
class Tracking:
    """A track, and what each of its frames cost.

    decode_s     seconds spent waiting for the picture, a list of N
    landmarks_s  seconds spent finding landmarks in it, a list of N
    """

    track: Track
    decode_s: list[float]
    landmarks_s: list[float]


class FaceTracker:
    """One person's landmarks, frame by frame. Make a fresh one for each clip.

    Who is followed: first the largest face, then the one near where it was last seen. A face elsewhere is the same
    person's, after a cut or a fast move, unless it was there already when ours was last seen. Such people are known to
    be others wherever they go, until they were out of sight for 2 s. So the track never goes over to somebody who shares
    the picture; but who stands alone after a cut, or comes when ours is gone, is taken for the same person.

    live  never look for tiny faces, which takes longer than a frame may
    """

    turned: int = 0  # by how many degrees clockwise the picture is, when that is why no face is taken

    def __init__(self, live: bool = False) -> None:
        self._live, self._levels = live, 0 if live else 2
        self._video = Landmarker(video=True)
        self._all: Landmarker | None = None  # sees all faces, but each picture by itself
        self._sure: Landmarker | None = None
        self._window: Window | None = None  # what `_video` sees; None: the whole picture
        self._last: np.ndarray | None = None
        self._last_rgb: np.ndarray | None = None  # the picture of `_last`; None: it was looked at for others
        self._others: list[tuple[np.ndarray, float]] = []  # their landmarks, and when they were last seen
        self._look_at_s = self._search_at_s = float("-inf")
        self._search_after_s = SEARCH_S

    def __enter__(self) -> FaceTracker:
        return self

    def __exit__(self, *_exc) -> None:
        for landmarker in (self._video, self._all, self._sure):
            if landmarker is not None:
                landmarker.__exit__()

    def see(self, rgb: np.ndarray, time_s: float) -> np.ndarray | None:
        """Landmarks (478, 3) float32 in pixels of our person's face, or None while it is not seen.

        rgb     (H, W, 3) uint8, not mirrored; it must not be changed afterwards
        time_s  the frame's time in its clip
        """
        if self._window is None:
            points = self._video.detect(rgb, time_s)
        else:
            points = self._window.back(self._video.detect(self._window.cut(rgb), time_s))
        if self._last is None:
            return self._begin(rgb, time_s, points)
        if points is not None and _is_near(points, self._last) and not (self._last_rgb is None and self._others):
            return self._keep(points, rgb)
        return self._look_around(rgb, time_s, points)

    def _begin(self, rgb: np.ndarray, time_s: float, seen: np.ndarray | None) -> np.ndarray | None:
        if seen is None and time_s < self._search_at_s:
            return None
        faces = self._search(rgb, time_s) if seen is None else self._faces(rgb) or [seen]
        if self._sure is None:
            self._sure = Landmarker(video=False, sure=True)
        self.turned = find_turn(self._sure, rgb, faces[0] if faces else None)
        if self.turned or not faces:
            return None
        return self._go_to(faces[0], seen, rgb)

    def _look_around(self, rgb: np.ndarray, time_s: float, seen: np.ndarray | None) -> np.ndarray | None:
        """Our person is not where they were: who is there, in the whole picture?"""
        if self._last_rgb is not None:  # until now they were
            company = [face for face in self._faces(self._last_rgb) if not _is_near(face, self._last)]
            remembered = [known for known in self._others if not any(_is_near(face, known[0]) for face in company)]
            self._others = [(face, time_s) for face in company] + remembered
            self._last_rgb = None
            self._look_at_s, self._search_at_s, self._search_after_s = time_s, time_s + SEARCH_S, SEARCH_S
        if time_s < self._look_at_s and not self._others:  # those must not get out of hand
            return None
        self._look_at_s = time_s + LOOK_S
        faces = self._faces(rgb) if time_s < self._search_at_s else self._search(rgb, time_s)
        if not faces and seen is not None:
            faces = [seen]
        ours = self._without_others(faces, time_s)
        if ours:
            return self._go_to(next((face for face in ours if _is_near(face, self._last)), ours[0]), seen, rgb)
        if faces and self._window != Window.around(self._last):
            self._see_only(self._last)  # or it would be the others that are seen
        return None

    def _without_others(self, faces: list[np.ndarray], time_s: float) -> list[np.ndarray]:
        """Faces that are not the others'. Where those are is remembered."""
        left, others = list(faces), []
        for other, seen_s in self._others:
            # Nearer to where ours was than to where the other was: ours. Unless the other has gone there.
            theirs = [
                face
                for face in left
                if _distance(face, other) <= 1 + REACH * (time_s - seen_s)
                and (_distance(face, other) < _distance(face, self._last) or _is_near(other, self._last))
            ]
            if theirs:
                nearest = theirs[int(np.argmin([_distance(face, other) for face in theirs]))]
                left = [face for face in left if face is not nearest]
                others.append((nearest, time_s))
            elif time_s - seen_s <= FORGET_S:
                others.append((other, seen_s))
        self._others = others
        return left

    def _go_to(self, ours: np.ndarray, seen: np.ndarray | None, rgb: np.ndarray) -> np.ndarray:
        """Follow this face from now on; `seen` is what the video's landmarker follows."""
        if seen is not None and _is_near(seen, ours):
            return self._keep(seen, rgb)
        self._see_only(ours)
        return self._keep(ours, rgb)

    def _keep(self, points: np.ndarray, rgb: np.ndarray) -> np.ndarray:
        self._last, self._last_rgb = points, rgb
        if self._window is not None and not self._window.has_in_its_middle(points):
            self._see_only(points, settle=False)  # for each step of a face that goes by it would take too long
        return points

    def _see_only(self, points: np.ndarray, settle: bool = True) -> None:
        """The video's landmarker begins anew, and sees only what is around these landmarks."""
        self._window = Window.around(points)
        self._video.__exit__()
        self._video = Landmarker(video=True, settle=settle and not self._live)

    def _faces(self, rgb: np.ndarray) -> list[np.ndarray]:
        return self._all_faces().faces(rgb)

    def _search(self, rgb: np.ndarray, time_s: float) -> list[np.ndarray]:
        """With a border around the picture and in its parts, too. The next time comes later and later."""
        self._search_at_s = time_s + self._search_after_s
        self._search_after_s *= 2
        return find_faces(self._all_faces(), rgb, self._levels)

    def _all_faces(self) -> Landmarker:
        if self._all is None:
            self._all = Landmarker(video=False)
        return self._all


def _centre(points: np.ndarray) -> np.ndarray:
    return (points[:, :2].min(0) + points[:, :2].max(0)) / 2


def _distance(face: np.ndarray, other: np.ndarray) -> float:
    """Of their middles, by the size of `other`."""
    return float(np.hypot(*(_centre(face) - _centre(other)))) / face_size(other)


def _is_near(face: np.ndarray, other: np.ndarray) -> bool:
    growth = face_size(face) / face_size(other)
    return _distance(face, other) <= NEAR and 1 / GROWTH <= growth <= GROWTH


def track_video(
    video: Video, on_frame: Callable[[Frame], bool | None] | None = None, name: str = "this clip"
) -> Tracking:
    """Landmarks of every frame, in one pass that keeps no picture but the last. Who is followed: see FaceTracker.

    A lost face holds its last pose, and before the first face its first one is used; both are marked as not found.

    on_frame  called with each frame when its landmarks are looked for, say for a progress bar; when it
              returns False the track ends with this frame, as it must for a camera
    name      what to call the clip in an error
    """
    points: list[np.ndarray] = []
    times_s, found, decode_s, landmarks_s = [], [], [], []
    width = height = before_first = 0
    frames = iter(video)
    with FaceTracker() as tracker:
        while True:
            start_s = time.perf_counter()
            frame = next(frames, None)
            if frame is None:
                break
            decoded_s = time.perf_counter()
            seen = tracker.see(frame.rgb, frame.time_s)
            landmarks_s.append(time.perf_counter() - decoded_s)
            decode_s.append(decoded_s - start_s)
            times_s.append(frame.time_s)
            found.append(seen is not None)
            if not width:
                height, width = frame.rgb.shape[:2]
            if seen is not None:
                # A clip may change its size half-way: all pixels are those of its first picture.
                across, down = width / frame.rgb.shape[1], height / frame.rgb.shape[0]
                points.append(seen * np.float32([across, down, across]))
            elif points:
                points.append(points[-1])
            else:
                before_first += 1
            if on_frame is not None and on_frame(frame) is False:
                break
    if not times_s:
        raise MobileBilayerError(f"{name} has no frames. Record it again.")
    if not points and tracker.turned:
        raise MobileBilayerError(f"The face in {name} {TURNS[tracker.turned]}. Turn the clip upright first.")
    if not points:
        raise MobileBilayerError(
            f"no face found in {name}, in none of its {len(times_s)} frames. "
            "Choose a clip of a face that is upright, seen from the front, sharp and whole from hair to chin."
        )
    track = Track(
        np.stack([points[0]] * before_first + points),
        np.array(times_s, np.float64),
        np.array(found),
        Fraction(video.rate),
        width,
        height,
    )
    return Tracking(track, decode_s, landmarks_s)
