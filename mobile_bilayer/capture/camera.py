"""Frames of a camera."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction

import cv2

from mobile_bilayer.capture.video import FALLBACK_RATE, Frame
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.quiet import quiet_stderr


class Camera:
    """Frames of a camera as they come, not mirrored. Stands where a VideoReader can, but has no end.

    rate           frames per second that the camera names, or 30
    width, height  pixels
    frames, duration_s, has_audio  None, None, False
    """

    frames = None
    duration_s = None
    has_audio = False

    def __init__(self, index: int = 0) -> None:
        self._index = index
        with quiet_stderr():  # OpenCV tells of every way that it tries
            self._capture = cv2.VideoCapture(index)
        if not self._capture.isOpened():
            self._capture.release()
            raise MobileBilayerError(
                f"Camera {index} could not be opened. Check that it is plugged in, that no other program uses it "
                "and that this one may use it, or try another number; the first camera is 0."
            )
        named = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate = Fraction(named).limit_denominator(1001) if 1 <= named <= 240 else FALLBACK_RATE
        self.width = int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        self.height = int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT))

    def __enter__(self) -> Camera:
        return self

    def __exit__(self, *_exc) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[Frame]:
        """Times are of the clock, from the first frame, and grow strictly."""
        first_ns = last_ns = None
        while True:
            good, bgr = self._capture.read()
            if not good:
                raise MobileBilayerError(
                    f"Camera {self._index} gives no pictures any more. Plug it in again, or close what else uses it."
                )
            now_ns = time.monotonic_ns()
            first_ns = now_ns if first_ns is None else first_ns
            last_ns = now_ns if last_ns is None else max(now_ns, last_ns + 1_000_000)
            yield Frame(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), (last_ns - first_ns) / 1e9)
