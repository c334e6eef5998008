"""Frames of a camera; a stand-in plays the camera."""

from fractions import Fraction
from itertools import islice

import cv2
import numpy as np
import pytest

from mobile_bilayer.capture.camera import Camera
from mobile_bilayer.errors import MobileBilayerError


class StandIn:
    """A blue picture three times, then nothing."""

    opened, rate = True, 15.0

    def __init__(self, _index):
        self.left, self.released = 3, False

    def isOpened(self):
        return self.opened

    def get(self, what):
        return {cv2.CAP_PROP_FPS: self.rate, cv2.CAP_PROP_FRAME_WIDTH: 6.0, cv2.CAP_PROP_FRAME_HEIGHT: 4.0}[what]

    def read(self):
        self.left -= 1
        return (True, np.full((4, 6, 3), (255, 0, 0), np.uint8)) if self.left >= 0 else (False, None)

    def release(self):
        self.released = True


@pytest.fixture
def stand_in(monkeypatch):
    made = []

    def make(index):
        made.append(StandIn(index))
        return made[-1]

    monkeypatch.setattr(cv2, "VideoCapture", make)
    return made


def test_frames_are_rgb_and_their_times_grow_from_zero(stand_in):
    with Camera(0) as camera:
        frames = list(islice(camera, 3))
        assert (camera.width, camera.height, camera.rate) == (6, 4, Fraction(15))
        assert (camera.has_audio, camera.frames) == (False, None)
    assert frames[0].rgb[0, 0].tolist() == [0, 0, 255]
    assert frames[0].time_s == 0
    assert frames[0].time_s < frames[1].time_s < frames[2].time_s < 60
    assert stand_in[0].released


def test_an_unplugged_camera_is_told(stand_in):
    with Camera(2) as camera, pytest.raises(MobileBilayerError, match="Camera 2 gives no pictures"):
        list(camera)


def test_a_camera_that_can_not_be_opened_is_told_and_let_go(stand_in, monkeypatch):
    monkeypatch.setattr(StandIn, "opened", False)
    with pytest.raises(MobileBilayerError, match="Camera 7 could not be opened"):
        Camera(7)
    assert stand_in[0].released


@pytest.mark.parametrize("named", [0.0, -1.0, float("nan"), 1e6])
def test_a_camera_without_a_sane_rate_counts_as_30(stand_in, monkeypatch, named):
    monkeypatch.setattr(StandIn, "rate", named)
    assert Camera(0).rate == 30


def test_a_number_without_a_camera_is_told():
    with pytest.raises(MobileBilayerError, match="Camera 99 could not be opened"):
        Camera(99)
