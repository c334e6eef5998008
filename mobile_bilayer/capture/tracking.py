"""A driving clip to a track."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np

from mobile_bilayer.capture.landmarker import Landmarker
from mobile_bilayer.capture.video import Frame
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.track import Track


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


def track_video(
    video: Video, on_frame: Callable[[Frame], bool | None] | None = None, name: str = "this clip"
) -> Tracking:
    """Landmarks of every frame, in one pass that keeps no picture.

    A lost face holds its last pose, and before the first face its first one is used; both are marked as not found.

    on_frame  called with each frame when its landmarks are looked for, say for a progress bar; when it
              returns False the track ends with this frame, as it must for a camera
    name      what to call the clip in an error
    """
    points: list[np.ndarray] = []
    times_s, found, decode_s, landmarks_s = [], [], [], []
    width = height = before_first = 0
    frames = iter(video)
    with Landmarker(video=True) as landmarker:
        while True:
            start_s = time.perf_counter()
            frame = next(frames, None)
            if frame is None:
                break
            decoded_s = time.perf_counter()
            seen = landmarker.detect(frame.rgb, frame.time_s)
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
    if not points:
        raise MobileBilayerError(
            f"no face found in {name}, in none of its {len(times_s)} frames. "
            "Choose a clip of one face, upright and seen from the front."
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
