"""The stabiliser: calm where nothing moves, and not late where something does."""

import os
from dataclasses import replace

import numpy as np
import pytest

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose import stabilizer as module
from mobile_bilayer.pose.crop import head_crop
from mobile_bilayer.pose.head import HeadPose, Motion, face_template, network_points, put_together, take_apart
from mobile_bilayer.pose.retarget import BROWS, IRISES, LOWER_LIDS, UPPER_LIDS, Retargeter, lip_opening, openness
from mobile_bilayer.pose.stabilizer import PARTS, SHARP, Smoothing, Stabilizer, StabilizerConfig, parts, stabilize
from mobile_bilayer.samples import sample_photo, sample_track

needs_model = pytest.mark.skipif(
    "MOBILE_BILAYER_MODELS" not in os.environ, reason="MOBILE_BILAYER_MODELS names no folder with face_landmarker.task"
)


def face() -> Motion:
    """A real face at rest, 107 px between the outer eye corners."""
    return take_apart(sample_track()[52].landmarks)


def with_face(motion: Motion, change) -> Motion:
    """The same, its face (478, 3) changed in place by a function."""
    moved = motion.face.copy()
    change(moved)
    return Motion(motion.pose, moved)


def shifted(motion: Motion, right: float) -> Motion:
    """To the right by so many distances of the eyes."""
    pose = motion.pose
    return Motion(HeadPose(pose.scale, pose.rotation, pose.shift + [right * pose.scale, 0]), motion.face)


def turned(motion: Motion, yaw: float) -> Motion:
    """To the side by so many radians."""
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    return Motion(HeadPose(motion.pose.scale, turn @ motion.pose.rotation, motion.pose.shift), motion.face)


def shut_lids(motion: Motion, share: float = 1.0) -> Motion:
    """Lids this share of the way to meeting."""

    def shut(moved: np.ndarray) -> None:
        moved[UPPER_LIDS] += share * (moved[LOWER_LIDS] - moved[UPPER_LIDS])

    return with_face(motion, shut)


def dropped_jaw(motion: Motion, far: float) -> Motion:
    def drop(moved: np.ndarray) -> None:
        moved[:, 1] += far * face_template().jaw

    return with_face(motion, drop)


def raised_brows(motion: Motion, far: float) -> Motion:
    def lift(moved: np.ndarray) -> None:
        moved[BROWS, 1] -= far

    return with_face(motion, lift)


def glance(motion: Motion, far: float) -> Motion:
    def look(moved: np.ndarray) -> None:
        moved[IRISES, 0] += far

    return with_face(motion, look)


def live(motions: list[Motion], rate: float = 30, config: StabilizerConfig | None = None) -> list[Motion]:
    stabilizer = Stabilizer(config)
    return [stabilizer(motion, i / rate) for i, motion in enumerate(motions)]


def from_file(motions: list[Motion], rate: float = 30) -> list[Motion]:
    landmarks = np.stack([put_together(motion) for motion in motions])
    return list(stabilize(landmarks, np.arange(len(motions)) / rate, np.ones(len(motions), bool)))


def gone(now: Motion, before: Motion, after: Motion) -> float:
    """What share of the way from `before` to `after` is gone."""
    a, b, here = (put_together(motion).astype(np.float64) for motion in (before, after, now))
    return float(((here - a) * (b - a)).sum() / ((b - a) ** 2).sum())


def jitter(landmarks: np.ndarray) -> float:
    """Root mean square of the second difference, in % of the distance of the outer eye corners."""
    flat = landmarks[..., :2].astype(np.float64)
    second = flat[2:] - 2 * flat[1:-1] + flat[:-2]
    return float(100 * np.sqrt((second**2).sum(2).mean()) / np.linalg.norm(flat[:, 33] - flat[:, 263], axis=1).mean())


@needs_model
def test_PO8_a_still_picture_with_sensor_noise_stays_still():
    """The keypoints of 100 noisy copies deviate by less than 0.15 px of 256, live and from a file."""
    from mobile_bilayer.capture.landmarker import Landmarker

    rgb, landmarks = sample_photo("astronaut")
    random = np.random.default_rng(0)
    with Landmarker(video=True) as landmarker:
        noisy = [np.clip(rgb + random.normal(0, 6, rgb.shape), 0, 255).round().astype(np.uint8) for _ in range(100)]
        seen = np.stack([landmarker.detect(picture, i / 30) for i, picture in enumerate(noisy)])
    retargeter = Retargeter(head_crop(landmarks).to_keypoints(landmarks), seen[-1])
    raw = np.stack([network_points(retargeter(points)) for points in seen])
    for motions in (live([take_apart(points) for points in seen]), from_file([take_apart(points) for points in seen])):
        keypoints = np.stack([network_points(retargeter(motion)) for motion in motions])
        deviation_px = 128 * keypoints.std(0)
        assert deviation_px.max() < 0.15
        assert deviation_px.mean() < 0.05
        assert 0 < jitter_of(keypoints) < 0.5 * jitter_of(raw)


def jitter_of(keypoints: np.ndarray) -> float:
    return float(np.sqrt((np.diff(keypoints, 2, axis=0) ** 2).mean()))


def test_PO8_landmarks_that_tremble_by_more_than_mediapipes_do_are_held():
    """0.12 % of the eyes' distance in every point, anew in every frame; 0.05 to 0.09 was measured, the most of it slow."""
    start, random = put_together(face()), np.random.default_rng(1)
    noisy = [take_apart(start + random.normal(0, 0.13, start.shape)) for _ in range(100)]
    for motions in (live(noisy), from_file(noisy)):
        points = np.stack([put_together(motion) for motion in motions])[20:]
        deviation = points.std(0) * 60 / 107  # in pixels of a crop of 256, whose eyes are 60 px apart
        assert deviation.mean() < 0.7 * 0.13 * 60 / 107
        assert deviation.max() < 0.08


STEPS = {
    "shift": lambda motion: shifted(motion, 0.1),
    "turn": lambda motion: turned(motion, 0.2),
    "lids": shut_lids,
    "jaw": lambda motion: dropped_jaw(motion, 0.15),
    "brows": lambda motion: raised_brows(motion, 0.05),
    "gaze": lambda motion: glance(motion, 0.04),
}


@pytest.mark.parametrize("step", STEPS)
def test_PO8_live_a_step_is_followed_within_60_ms(step):
    """Nine tenths of it one frame later, 33 ms at 30 frames a second; 0.38 or more at once."""
    before, after = face(), STEPS[step](face())
    motions = live([before] * 10 + [after] * 5)
    shares = [gone(motion, before, after) for motion in motions]
    assert shares[9] == pytest.approx(0, abs=1e-6)
    assert 0.38 < shares[10] < 0.7
    assert shares[11] > 0.89
    assert shares[14] > 0.98
    assert np.diff(shares[9:]).min() > 0 and max(shares) <= 1  # without overshooting


@pytest.mark.parametrize(
    ("move", "seen", "hz", "far"),
    [
        (turned, lambda motion: np.arcsin(motion.pose.rotation[0, 2]), 1, 0.4),
        (turned, lambda motion: np.arcsin(motion.pose.rotation[0, 2]), 2, 0.2),
        (dropped_jaw, lambda motion: lip_opening(motion.face), 2, 0.1),
        (dropped_jaw, lambda motion: lip_opening(motion.face), 4, 0.1),
    ],
)
@pytest.mark.parametrize("rate", [25, 30])
def test_live_motion_is_late_by_a_frame_at_most(move, seen, hz, far, rate):
    """Heads that turn and mouths that open and shut, some times a second: by the phase of what is given out."""
    motions = [move(face(), far * (1 - np.cos(2 * np.pi * hz * i / rate)) / 2) for i in range(3 * rate)]
    turn = np.exp(-2j * np.pi * hz * np.arange(2 * rate) / rate)
    given, got = (sum(np.array([seen(m) for m in moved[rate:]]) * turn) for moved in (motions, live(motions, rate)))
    frames = np.angle(given / got) / (2 * np.pi * hz) * rate
    assert 0.3 < frames < 1
    assert abs(got / given) > 0.73


@pytest.mark.parametrize("step", STEPS)
def test_a_file_is_followed_without_a_delay(step):
    before, after = face(), STEPS[step](face())
    there = [gone(motion, before, after) for motion in from_file([before] * 10 + [after] * 10)]
    back = [gone(motion, after, before) for motion in from_file([before] * 10 + [after] * 10)[::-1]]
    assert there[9] + there[10] == pytest.approx(1, abs=0.06)  # halfway between the two
    np.testing.assert_allclose(there, back, atol=0.06)  # and the same from behind
    assert abs(there[6]) < 0.03 and there[13] > 0.97


@pytest.mark.parametrize("mode", [live, from_file])
def test_a_blink_of_three_frames_still_shuts_the_eyes(mode):
    start = face()
    blink = [shut_lids(start, share) for share in (0.6, 1.0, 0.6)]
    motions = mode([start] * 10 + blink + [start] * 10)
    seen = [openness(motion.face) for motion in motions]
    assert min(seen) < 0.25 * seen[0]
    moved = [Retargeter(put_together(start) / 107, start)(motion) for motion in motions]
    after = [openness(take_apart(points).face) for points in moved]
    assert min(after) < 0.1 * after[0]


def test_a_driver_who_speaks_keeps_his_lips_going():
    track = sample_track()
    raw = [lip_opening(take_apart(points).face) for points in track.landmarks]
    motions = list(stabilize(track.landmarks, track.times_s, track.found))
    calm = [lip_opening(motion.face) for motion in motions]
    assert np.std(calm) > 0.85 * np.std(raw)
    assert np.corrcoef(raw, calm)[0, 1] > 0.98


def test_the_shipped_drivers_jitter_falls_below_seven_tenths():
    track = sample_track()
    calm = np.stack([put_together(motion) for motion in stabilize(track.landmarks, track.times_s, track.found)])
    assert jitter(calm) < 0.7 * jitter(track.landmarks)
    motions = live([take_apart(points) for points in track.landmarks], 25)
    assert jitter(np.stack([put_together(motion) for motion in motions])) < 0.8 * jitter(track.landmarks)


def test_PO8_place_and_size_do_not_breathe_when_the_mouth_opens_and_the_eyes_shut():
    start = face()
    for change in (lambda m: dropped_jaw(m, 0.3), shut_lids, lambda m: raised_brows(m, 0.1), lambda m: glance(m, 0.05)):
        pose = take_apart(put_together(change(start))).pose
        assert pose.scale == pytest.approx(start.pose.scale, rel=0.01)
        assert np.abs(pose.shift - start.pose.shift).max() < 0.006 * start.pose.scale


def test_the_first_frame_and_the_first_after_a_reset_or_a_pause_are_given_as_they_are():
    start, other = face(), shifted(turned(face(), 0.3), 0.5)
    stabilizer = Stabilizer()
    assert stabilizer(start, 0.0) is start
    assert stabilizer(other, 0.03) is not other
    stabilizer.reset()
    assert stabilizer(start, 0.06) is start
    assert stabilizer(other, 0.7) is other  # 0.64 s later
    assert stabilizer(start, 0.1) is start  # another clip
    assert stabilizer(other, 0.1) is other  # no time went by


def test_frames_farther_apart_in_time_go_farther_towards_the_new_value():
    before, after = face(), shifted(face(), 0.004)
    shares = []
    for step_s in (1 / 120, 1 / 60, 1 / 30, 1 / 15):
        stabilizer = Stabilizer()
        stabilizer(before, 0.0)
        shares.append(gone(stabilizer(after, step_s), before, after))
    assert all(later > sooner for sooner, later in zip(shares, shares[1:], strict=False))


def test_the_size_and_place_of_the_picture_do_not_matter():
    track = sample_track()
    small = track.landmarks[:40]
    wanted = [put_together(m) for m in stabilize(small, track.times_s[:40], track.found[:40])]
    large = small * np.float32(4) + np.float32([700, -90, 0])
    got = [put_together(m) for m in stabilize(large, track.times_s[:40], track.found[:40])]
    np.testing.assert_allclose((np.stack(got) - [700, -90]) / 4, np.stack(wanted), atol=2e-4)


def test_frames_without_a_face_stay_as_they_are_and_the_next_one_starts_anew():
    track = sample_track()
    landmarks, times_s = track.landmarks[:30].copy(), track.times_s[:30]
    landmarks[12:18] = landmarks[11]
    found = np.ones(30, bool)
    found[12:18] = False
    motions = list(stabilize(landmarks, times_s, found))
    assert len(motions) == 30
    for i in range(12, 18):
        np.testing.assert_array_equal(motions[i].face, take_apart(landmarks[i]).face)
    alone = list(stabilize(landmarks[18:], times_s[18:], found[18:]))
    for got, wanted in zip(motions[18:], alone, strict=True):
        np.testing.assert_array_equal(got.face, wanted.face)
    before = list(stabilize(landmarks[:12], times_s[:12], found[:12]))
    np.testing.assert_array_equal(motions[11].face, before[11].face)


def test_a_pause_between_frames_is_not_smoothed_over():
    start, other = face(), shifted(face(), 0.6)
    landmarks = np.stack([put_together(start)] * 5 + [put_together(other)] * 5)
    times_s = np.arange(10) / 25.0
    times_s[5:] += 2
    motions = list(stabilize(landmarks, times_s, np.ones(10, bool)))
    np.testing.assert_allclose(put_together(motions[4]), landmarks[4], atol=1e-3)
    np.testing.assert_allclose(put_together(motions[5]), landmarks[5], atol=1e-3)


def test_a_long_clip_is_taken_in_blocks_that_nobody_sees(monkeypatch):
    track = sample_track()
    whole = [put_together(m) for m in stabilize(track.landmarks, track.times_s, track.found)]
    monkeypatch.setattr(module, "BLOCK", 20)
    blocks = [put_together(m) for m in stabilize(track.landmarks, track.times_s, track.found)]
    assert len(blocks) == len(whole) == 198
    np.testing.assert_allclose(np.stack(blocks), np.stack(whole), atol=0.01)


@pytest.mark.parametrize(("rate", "kept"), [(30, 0.9), (15, 0.8), (8, 0.8)])
def test_a_head_that_shakes_once_a_second_does_so_at_every_frame_rate(rate, kept):
    yaws = 0.2 * np.sin(2 * np.pi * np.arange(4 * rate) / rate)
    seen = [np.arctan2(m.pose.rotation[0, 2], m.pose.rotation[2, 2]) for m in from_file([turned(face(), y) for y in yaws], rate)]
    middle = slice(rate, 3 * rate)
    assert np.ptp(seen[middle]) > kept * np.ptp(yaws[middle])


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_clips_of_a_few_frames_are_taken(frames):
    track = sample_track()
    motions = list(stabilize(track.landmarks[:frames], track.times_s[:frames], track.found[:frames]))
    assert len(motions) == frames
    np.testing.assert_allclose(put_together(motions[0]), track.landmarks[0, :, :2], atol=2)


def test_what_is_given_is_not_changed():
    start, other = face(), shifted(face(), 0.1)
    kept = start.face.copy(), other.face.copy(), other.pose.rotation.copy()
    stabilizer = Stabilizer()
    for i in range(5):
        stabilizer(start if i % 2 else other, i / 30)
    for value, was in zip((start.face, other.face, other.pose.rotation), kept, strict=True):
        np.testing.assert_array_equal(value, was)


def test_every_landmark_belongs_to_the_part_that_moves_it():
    whose = [PARTS[part] for part in parts()]
    assert {whose[i] for i in (159, 145, 386, 374)} == {"lids"}
    assert {whose[i] for i in range(468, 478)} == {"gaze"}
    assert {whose[i] for i in (13, 14, 61, 291, 152, 17)} == {"mouth"}
    assert {whose[i] for i in (70, 336)} == {"brows"}
    assert {whose[i] for i in (1, 33, 133, 10, 234)} == {"skin"}
    assert len(set(parts()[[159, 386]])) == 2  # each eye by itself: a wink is a wink


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rest_hz": 0.0}, "rest_hz 0.0"),
        ({"speed_hz": -1.0}, "speed_hz -1.0"),
        ({"newest": 1.5}, "newest 1.5"),
        ({"rest_hz": float("nan")}, "rest_hz nan"),
        ({"kernel": (0.5, 0.5, 0.5, 0.5, 0.5)}, "adds up to 2.5"),
    ],
)
def test_a_smoothing_that_is_none_is_refused(change, words):
    with pytest.raises(MobileBilayerError, match=words):
        replace(Smoothing(1.0, 10.0, 0.7, SHARP), **change)
    with pytest.raises(MobileBilayerError, match="gap_s is 0"):
        StabilizerConfig(gap_s=0)


def test_a_calmer_setting_is_calmer():
    """A face that sways slowly: the lower the cut-off, the less of it is left."""
    motions = [shifted(face(), 0.002 * (-1) ** (i // 3)) for i in range(60)]
    calm = replace(StabilizerConfig(), pose=Smoothing(0.2, 5.0, 0.69, SHARP))
    spread = [np.std([m.pose.shift[0] for m in live(motions, config=config)[20:]]) for config in (None, calm)]
    assert spread[1] < 0.6 * spread[0]
