"""Clips to tracks with a stand-in for MediaPipe; then MediaPipe itself, where its model file is at hand."""

import os
import subprocess
import sys
import threading
import weakref
from fractions import Fraction

import numpy as np
import pytest

from mobile_bilayer.capture import landmarker, tracking
from mobile_bilayer.capture.landmarker import Landmarker, detect_photo
from mobile_bilayer.capture.tracking import track_video
from mobile_bilayer.capture.video import Frame
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.quiet import quiet_stderr
from mobile_bilayer.samples import sample_photo

needs_model = pytest.mark.skipif(
    "MOBILE_BILAYER_MODELS" not in os.environ, reason="MOBILE_BILAYER_MODELS names no folder with face_landmarker.task"
)


class Clip:
    """Stands where a VideoReader can; pictures may be a generator."""

    rate = Fraction(25)

    def __init__(self, pictures):
        self.pictures = pictures

    def __iter__(self):
        for number, rgb in enumerate(self.pictures):
            yield Frame(rgb, number / 25)


def grey(value: int, height: int = 6, width: int = 8) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


@pytest.fixture
def stand_in(monkeypatch):
    """A landmarker that sees no face in black, and in other pictures one with all coordinates equal to the grey."""

    class StandIn:
        def __init__(self, video):
            assert video

        def __enter__(self):
            return self

        def __exit__(self, *_exc):
            pass

        def detect(self, rgb, time_s):
            value = float(rgb[0, 0, 0])
            return np.full((478, 3), value, np.float32) if value else None

    monkeypatch.setattr(tracking, "Landmarker", StandIn)


def test_every_frame_comes_out_and_a_lost_face_holds_its_pose(stand_in):
    clip = Clip([grey(v) for v in (0, 0, 5, 0, 9, 0, 0)])
    result = track_video(clip)
    track = result.track
    assert track.landmarks[:, 0, 0].tolist() == [5, 5, 5, 5, 9, 9, 9]
    assert track.found.tolist() == [False, False, True, False, True, False, False]
    np.testing.assert_allclose(track.times_s, np.arange(7) / 25)
    assert (track.rate, track.width, track.height) == (25, 8, 6)
    assert len(result.decode_s) == len(result.landmarks_s) == 7
    assert min(result.decode_s + result.landmarks_s) >= 0


def test_time_is_told_apart_by_where_it_went(stand_in, monkeypatch):
    now_s = [0.0]
    monkeypatch.setattr(tracking.time, "perf_counter", lambda: now_s[0])

    def pictures():
        for _ in range(3):
            now_s[0] += 2
            yield grey(7)

    def detect(_self, rgb, time_s):
        now_s[0] += 5
        return np.ones((478, 3), np.float32)

    monkeypatch.setattr(tracking.Landmarker, "detect", detect)

    def slow(_frame):
        now_s[0] += 100  # the caller's own time counts as neither

    result = track_video(Clip(pictures()), on_frame=slow)
    assert result.decode_s == [2, 2, 2]
    assert result.landmarks_s == [5, 5, 5]


def test_a_clip_without_a_face_is_told_by_its_name(stand_in):
    with pytest.raises(MobileBilayerError, match=r"no face found in holiday\.mp4, in none of its 3 frames"):
        track_video(Clip([grey(0)] * 3), name="holiday.mp4")


def test_a_clip_without_frames_is_told(stand_in):
    with pytest.raises(MobileBilayerError, match=r"holiday\.mp4 has no frames"):
        track_video(Clip([]), name="holiday.mp4")


def test_the_caller_sees_each_frame_and_may_end_a_clip_that_has_no_end(stand_in):
    def endless():
        while True:
            yield grey(3)

    seen = []

    def four(frame):
        seen.append(frame.time_s)
        return len(seen) < 4

    assert len(track_video(Clip(endless()), on_frame=four).track) == 4
    assert seen == [0, 1 / 25, 2 / 25, 3 / 25]


def test_pictures_of_another_size_half_way_count_in_pixels_of_the_first(stand_in):
    clip = Clip([grey(4, height=6, width=8), grey(4, height=12, width=32)])
    track = track_video(clip).track
    assert (track.width, track.height) == (8, 6)
    assert track.landmarks[1, 0].tolist() == [1, 2, 1]  # a quarter across and in depth, a half down


def test_no_picture_is_kept(stand_in):
    alive = []

    def pictures():
        for _ in range(50):
            rgb = grey(1)
            alive.append(weakref.ref(rgb))
            assert sum(ref() is not None for ref in alive) <= 3
            yield rgb

    assert len(track_video(Clip(pictures())).track) == 50


def test_stderr_is_silent_inside_and_back_outside_even_after_an_error(capfd):
    os.write(2, b"before ")
    with quiet_stderr():
        os.write(2, b"chatter ")
        print("chatter too", file=sys.__stderr__)
    os.write(2, b"between ")
    with pytest.raises(KeyError), quiet_stderr():
        os.write(2, b"chatter ")
        raise KeyError
    os.write(2, b"after")
    assert capfd.readouterr().err == "before between after"


def test_a_second_thread_that_silences_stderr_gives_it_back_as_well(capfd):
    inside, leave = threading.Event(), threading.Event()

    def silence():
        with quiet_stderr():
            inside.set()
            leave.wait(5)

    other = threading.Thread(target=silence)
    with quiet_stderr():
        other.start()
        inside.wait(0.2)  # it should not come in before we are out
    leave.set()
    other.join()
    os.write(2, b"after")
    assert capfd.readouterr().err == "after"


def test_silence_opens_no_file_for_good():
    before = os.listdir("/dev/fd") if os.path.isdir("/dev/fd") else pytest.skip("this system doesn't list open files")
    for _ in range(20):
        with quiet_stderr():
            pass
    assert len(os.listdir("/dev/fd")) == len(before)


TASKS = """
import os, sys
from skimage.data import astronaut
from mobile_bilayer.capture.landmarker import Landmarker, detect_photo
rgb = astronaut()
detect_photo(rgb)
with Landmarker() as landmarker:
    found = [landmarker.detect(rgb * seen, time_s=seen / 10) is not None for seen in (0, 1)]
print(found)
{after}
"""


@needs_model
def test_mediapipe_leaves_stderr_to_those_who_write_to_it():
    script = TASKS.format(after='os.write(2, b"mine "); print("and mine", file=sys.stderr)')
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout == "[False, True]\n"
    assert run.stderr == "mine and mine\n"


@needs_model
@pytest.mark.skipif(sys.platform == "win32", reason="closing stderr before the start is POSIX")
def test_mediapipe_works_without_stderr():
    close = ["sh", "-c", 'exec "$@" 2>&-', "sh"]
    run = subprocess.run([*close, sys.executable, "-c", TASKS.format(after="")], stdout=subprocess.PIPE, text=True)
    assert (run.returncode, run.stdout) == (0, "[False, True]\n")


@needs_model
def test_a_face_that_moves_is_followed_through_a_gap():
    rgb, known = sample_photo("astronaut")
    black = np.zeros_like(rgb)
    moved = np.roll(rgb, (20, 30), axis=(0, 1))
    track = track_video(Clip([black, rgb, rgb, black, moved, moved])).track
    assert track.found.tolist() == [False, True, True, False, True, True]
    np.testing.assert_array_equal(track.landmarks[0], track.landmarks[1])
    np.testing.assert_array_equal(track.landmarks[3], track.landmarks[2])
    eyes = [33, 133, 362, 263]  # 54 px apart, so 3 px is where an eye is
    np.testing.assert_allclose(track.landmarks[2, eyes, :2], known[eyes, :2], atol=3)
    np.testing.assert_allclose(track.landmarks[5, eyes, :2], known[eyes, :2] + [30, 20], atol=3)


@needs_model
def test_a_face_that_fills_its_photo_is_found_in_the_photos_own_pixels():
    rgb, known = sample_photo("astronaut")
    low, high = known[:, :2].min(0).astype(int) + 20, known[:, :2].max(0).astype(int) - 20
    tight = rgb[low[1] : high[1], low[0] : high[0]]
    with Landmarker(video=False) as without_border:
        assert without_border.detect(tight) is None
    points = detect_photo(tight)
    eyes = [33, 133, 362, 263]
    np.testing.assert_allclose(points[eyes, :2] + low, known[eyes, :2], atol=4)


@needs_model
def test_a_photo_without_a_face_is_told_with_its_size():
    with pytest.raises(MobileBilayerError, match="No face found in this picture of 80x60 pixels"):
        detect_photo(grey(128, height=60, width=80))


def test_something_that_is_no_picture_is_told_before_any_model_is_loaded(monkeypatch):
    monkeypatch.setattr(landmarker, "model_bytes", lambda _: pytest.fail("the model was loaded"))
    with pytest.raises(MobileBilayerError, match="HxWx3 uint8"):
        detect_photo(np.zeros((60, 80), np.uint8))
