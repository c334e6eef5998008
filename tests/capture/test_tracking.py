"""Clips to tracks with a stand-in for the tracker; then MediaPipe itself, where its model file is at hand."""

import os
import subprocess
import sys
import threading
import warnings
import weakref
from fractions import Fraction

import cv2
import numpy as np
import pytest

from mobile_bilayer.capture import landmarker, tracking
from mobile_bilayer.capture.landmarker import Landmarker, detect_photo
from mobile_bilayer.capture.tracking import track_video
from mobile_bilayer.capture.video import Frame
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.head import face_template
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
    """A tracker that sees no face in black, and in other pictures one with all coordinates equal to the grey."""

    class StandIn:
        turned = 0

        def __enter__(self):
            return self

        def __exit__(self, *_exc):
            pass

        def see(self, rgb, time_s):
            value = float(rgb[0, 0, 0])
            return np.full((478, 3), value, np.float32) if value else None

    monkeypatch.setattr(tracking, "FaceTracker", StandIn)


def test_PO4_every_frame_comes_out_and_a_lost_face_holds_its_pose(stand_in):
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

    def see(_self, rgb, time_s):
        now_s[0] += 5
        return np.ones((478, 3), np.float32)

    monkeypatch.setattr(tracking.FaceTracker, "see", see)

    def slow(_frame):
        now_s[0] += 100  # the caller's own time counts as neither

    result = track_video(Clip(pictures()), on_frame=slow)
    assert result.decode_s == [2, 2, 2]
    assert result.landmarks_s == [5, 5, 5]


def test_a_clip_without_a_face_is_told_by_its_name(stand_in):
    with pytest.raises(MobileBilayerError, match=r"no face found in holiday\.mp4, in none of its 3 frames"):
        track_video(Clip([grey(0)] * 3), name="holiday.mp4")


@pytest.mark.parametrize(("turned", "said"), [(90, "lies on its side"), (180, "is upside down"), (270, "on its side")])
def test_PO5_a_clip_that_is_turned_is_told(stand_in, monkeypatch, turned, said):
    monkeypatch.setattr(tracking.FaceTracker, "turned", turned)
    with pytest.raises(MobileBilayerError, match=rf"The face in holiday\.mp4 .*{said}.*Turn the clip upright"):
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


EYES = [33, 133, 362, 263]


def close(points: np.ndarray, known: np.ndarray, atol: float = 3) -> None:
    """3 px is where an eye is: those of the sample photos are 54 and 118 px apart."""
    np.testing.assert_allclose(points[EYES, :2], known[EYES, :2], atol=atol)


@needs_model
@pytest.mark.parametrize(
    "times_s", [[-0.033, 0, 0.033], [1, 1, 1], [0.0, 0.0004, 0.0008], [5, 4, 3], [1.7e9, 1.7e9 + 0.04, 1.7e9 + 0.08]]
)
def test_PO1_mediapipe_takes_any_times_and_goes_on(times_s):
    rgb, known = sample_photo("astronaut")
    with Landmarker(video=True) as tracker:
        for time_s in times_s:
            close(tracker.detect(rgb, time_s), known)


@needs_model
def test_PO1_a_second_clip_owes_nothing_to_the_first():
    rgb, _ = sample_photo("astronaut")
    other, _ = sample_photo("grace_hopper")
    alone = track_video(Clip([rgb] * 3)).track.landmarks
    track_video(Clip([other] * 3))
    np.testing.assert_array_equal(track_video(Clip([rgb] * 3)).track.landmarks, alone)


@needs_model
@pytest.mark.parametrize(
    "view",
    [
        lambda rgb: rgb[:, ::-1],
        lambda rgb: rgb[:, : rgb.shape[1] * 3 // 4],
        lambda rgb: np.asfortranarray(rgb),
        lambda rgb: rgb[..., ::-1].copy()[..., ::-1],
    ],
    ids=["flipped", "cut", "by columns", "channels turned"],
)
def test_PO2_a_view_gives_what_its_copy_gives(view):
    seen = view(sample_photo("astronaut")[0])
    with Landmarker(video=False) as landmarker:
        points = landmarker.detect(seen)
        np.testing.assert_array_equal(points, landmarker.detect(np.ascontiguousarray(seen)))
    assert points is not None


@pytest.mark.parametrize("rgb", [np.zeros((9, 9)), np.zeros((9, 9, 4), np.uint8), np.zeros((9, 9, 3), np.float32)])
def test_PO2_what_is_no_rgb_is_refused(rgb):
    with pytest.raises(MobileBilayerError, match="HxWx3 uint8 RGB"):
        detect_photo(rgb)


@needs_model
def test_PO3_a_clip_may_begin_without_a_face_and_a_face_that_moves_is_followed_through_a_gap():
    rgb, known = sample_photo("astronaut")
    black = np.zeros_like(rgb)
    moved = np.roll(rgb, (20, 30), axis=(0, 1))
    track = track_video(Clip([black, rgb, rgb, black, moved, moved])).track
    assert track.found.tolist() == [False, True, True, False, True, True]
    np.testing.assert_array_equal(track.landmarks[0], track.landmarks[1])
    np.testing.assert_array_equal(track.landmarks[3], track.landmarks[2])
    close(track.landmarks[2], known)
    close(track.landmarks[5], known + np.float32([30, 20, 0]))


def two_people(left: bool = True, right: bool = True) -> np.ndarray:
    """The larger face of grace_hopper on the left, astronaut's on the right; a picture of 1024x600."""
    rgb = np.full((600, 1024, 3), 100, np.uint8)
    if left:
        rgb[:600, :512] = sample_photo("grace_hopper")[0][:600]
    if right:
        rgb[:512, 512:] = sample_photo("astronaut")[0]
    return rgb


@needs_model
def test_PO4_real_people_side_by_side_are_told_apart_when_one_leaves_and_comes_back():
    known = sample_photo("grace_hopper")[1]
    scenes = [two_people()] * 3 + [two_people(left=False)] * 8 + [two_people()] * 3
    track = track_video(Clip(scenes)).track
    assert track.found.tolist() == [True] * 3 + [False] * 8 + [True] * 3
    for frame in track:
        close(frame.landmarks, known)


@needs_model
@pytest.mark.parametrize(("width", "share"), [(3840, 0.03), (1920, 0.024)])
def test_PO5_a_tiny_face_of_a_large_photo_is_found(width, share):
    rgb, known = sample_photo("grace_hopper")
    by = share * width / np.ptp(known[:, 0])
    small = cv2.resize(rgb, None, fx=by, fy=by, interpolation=cv2.INTER_AREA)
    photo = np.full((width * 9 // 16, width, 3), 120, np.uint8)
    photo[700 : 700 + small.shape[0], 1500 : 1500 + small.shape[1]] = small
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        points = detect_photo(photo)
    close(points, known * np.float32(by) + np.float32([1500, 700, 0]), atol=2)
    assert ["is small" in str(warning.message) for warning in told] == ([True] if width == 1920 else [])


@needs_model
def test_PO5_a_tiny_face_of_a_clip_is_found_and_followed():
    rgb, known = sample_photo("grace_hopper")
    small = cv2.resize(rgb, None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)

    def picture(x: int) -> np.ndarray:
        frame = np.full((1080, 1920, 3), 120, np.uint8)
        frame[300 : 300 + small.shape[0], x : x + small.shape[1]] = small
        return frame

    places = range(900, 1100, 20)  # farther than the window of the first frame reaches
    track = track_video(Clip(map(picture, places))).track
    assert track.found.all()
    for points, x in zip(track.landmarks, places, strict=True):
        close(points, known * np.float32(0.4) + np.float32([x, 300, 0]))


@needs_model
def test_PO5_a_face_too_small_to_show_anything_is_told():
    small = cv2.resize(sample_photo("grace_hopper")[0], None, fx=0.13, fy=0.13, interpolation=cv2.INTER_AREA)
    photo = np.full((540, 960, 3), 120, np.uint8)
    photo[200 : 200 + small.shape[0], 400 : 400 + small.shape[1]] = small
    with pytest.raises(MobileBilayerError, match=r"too small: 2\d pixels; at least 32"):
        detect_photo(photo)


@needs_model
def test_PO5_a_face_that_fills_its_photo_is_found_in_the_photos_own_pixels():
    rgb, known = sample_photo("astronaut")
    low, high = known[:, :2].min(0).astype(int) + 20, known[:, :2].max(0).astype(int) - 20
    tight = rgb[low[1] : high[1], low[0] : high[0]]
    with Landmarker(video=False) as without_border:
        assert without_border.detect(tight) is None
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        points = detect_photo(tight)
    assert any("of the face lie outside this picture" in str(warning.message) for warning in told)
    close(points + np.float32([*low, 0]), known, atol=4)
    track = track_video(Clip([np.ascontiguousarray(tight)] * 3)).track
    assert track.found.all()
    close(track.landmarks[2] + np.float32([*low, 0]), known, atol=4)


@needs_model
@pytest.mark.parametrize("name", ["astronaut", "grace_hopper"])
@pytest.mark.parametrize(
    ("quarters", "said"), [(1, "lies on its side"), (2, "is upside down"), (3, "lies on its side")]
)
def test_PO5_a_turned_photo_or_clip_is_told(name, quarters, said):
    rgb = np.ascontiguousarray(np.rot90(sample_photo(name)[0], quarters))
    with pytest.raises(MobileBilayerError, match=f"{said}. Turn the photo upright"):
        detect_photo(rgb)
    with pytest.raises(MobileBilayerError, match=f"{said}. Turn the clip upright"):
        track_video(Clip([rgb] * 2))


@needs_model
def test_PO5_a_photo_without_a_face_is_told_with_its_size():
    with pytest.raises(MobileBilayerError, match="No face found in this picture of 80x60 pixels.*seen from the front"):
        detect_photo(grey(128, height=60, width=80))


def turned_points(degrees: float) -> np.ndarray:
    """A face of 200 px at (300, 300) whose head is turned to the side."""
    turn, _ = cv2.Rodrigues(np.array([0, np.radians(degrees), 0]))
    face = face_template().points
    return (200 / np.ptp(face[:, 1]) * face @ turn.T + [300, 300, 0]).astype(np.float32)


def test_PO5_a_profile_is_told():
    assert list(landmarker._doubts(turned_points(30), 600, 600)) == []
    assert ["turned by 70 degrees" in doubt for doubt in landmarker._doubts(turned_points(70), 600, 600)] == [True]


def test_PO6_a_photo_without_room_around_the_face_is_told():
    points = turned_points(0)  # 200 px high, so its crop is 400
    assert list(landmarker._doubts(points, 600, 600)) == []
    low = points - np.float32([100, 220, 0])  # of 400x400 pixels, a photo of 400x160 has 40 %
    assert ["60% of head and shoulders" in doubt for doubt in landmarker._doubts(low, 400, 160)] == [True]


@pytest.mark.parametrize(("degrees", "turn"), [(0, 0), (45, 0), (-45, 0), (90, 90), (-90, 270), (180, 180), (150, 180)])
def test_PO5_a_turn_is_told_from_a_tilt(degrees, turn):
    angle = np.radians(degrees)  # clockwise, as y goes down
    rotation = np.float32([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    assert landmarker.turn_of(face_template().points @ rotation.T) == turn


@needs_model
@pytest.mark.parametrize("edge", ["top", "left", "corner"])
def test_PO6_landmarks_go_on_beyond_the_border(edge):
    rgb, known = sample_photo("grace_hopper")
    low = (known[:, :2].min(0) + 0.1 * np.ptp(known[:, :2], axis=0)).astype(int)  # a tenth of the face is cut off
    x, y = {"top": (0, low[1]), "left": (low[0], 0), "corner": tuple(low)}[edge]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        points = detect_photo(np.ascontiguousarray(rgb[y:, x:]))
    assert ["border is repeated" in str(warning.message) for warning in told] == ([True] if edge == "corner" else [])
    assert (points[:, :2].min() < -5) if edge == "corner" else points[:, {"top": 1, "left": 0}[edge]].min() < -5
    close(points + np.float32([x, y, 0]), known, atol=5)


@needs_model
def test_PO12_one_face_gives_the_same_points_in_wide_high_and_square_pictures():
    rgb, known = sample_photo("grace_hopper")
    found = []
    for height, width in ((1080, 1080), (1920, 1080), (1080, 1920)):
        picture = np.full((height, width, 3), 90, np.uint8)
        picture[200 : 200 + rgb.shape[0], 250 : 250 + rgb.shape[1]] = rgb
        found.append(detect_photo(picture))
        close(found[-1], known + np.float32([250, 200, 0]))
    for points in found[1:]:
        np.testing.assert_allclose(points[:, :2], found[0][:, :2], atol=4)
        np.testing.assert_allclose(points[:, 2], found[0][:, 2], atol=12)  # depth is in pixels as well


@needs_model
@pytest.mark.parametrize("name", ["astronaut", "grace_hopper"])
def test_PO13_a_dim_picture_is_tracked_or_lost_but_not_wrong(name):
    rgb, known = sample_photo(name)
    found = 0
    for share in (0.2, 0.1, 0.05):
        dim = (rgb * share).astype(np.uint8)
        assert dim.mean() < 30
        points = next(iter(track_video(Clip([dim] * 2)).track.landmarks))
        close(points, known)
        found += 1
    assert found == 3


def test_something_that_is_no_picture_is_told_before_any_model_is_loaded(monkeypatch):
    monkeypatch.setattr(landmarker, "model_bytes", lambda _: pytest.fail("the model was loaded"))
    with pytest.raises(MobileBilayerError, match="HxWx3 uint8"):
        detect_photo(np.zeros((60, 80), np.uint8))
