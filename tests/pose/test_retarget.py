"""Motion from one face to another, checked against motions that were made by hand."""

import numpy as np
import pytest

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose import retarget as module
from mobile_bilayer.pose.crop import head_crop
from mobile_bilayer.pose.head import HeadPose, Motion, face_template, fit_head, take_apart, unposed
from mobile_bilayer.pose.landmarks import BROWS, LEFT_EYE, LIPS, MESH, RIGHT_EYE
from mobile_bilayer.pose.retarget import (
    EYE_CORNERS,
    IRISES,
    LOWER_LIPS,
    UPPER_LIPS,
    Retargeter,
    eyes_of,
    lip_opening,
    rest_of,
    retarget,
    shut_lips,
)
from mobile_bilayer.samples import SAMPLES, sample_photo, sample_track

UPPER_LIDS, LOWER_LIDS = (159, 386), (145, 374)  # the middle of both eyes' lids
UPPER_FACE = face_template().points[:, 1] < 0.15  # above the upper lip


def source_face(name: str = SAMPLES[0]) -> np.ndarray:
    """(478, 3) in [-1, 1] of the crop of a real photo."""
    _, landmarks = sample_photo(name)
    return head_crop(landmarks).to_keypoints(landmarks)


def posed(face: np.ndarray, scale: float, shift: tuple[float, float], yaw: float = 0.0) -> np.ndarray:
    """(478, 2): template points seen from `yaw` radians aside."""
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    return HeadPose(scale, turn, np.array(shift)).project(face)


def with_eyes(openness: float) -> np.ndarray:
    """(478, 3): the template, all of whose lid points keep this share of their distance from the eye's line."""
    face = face_template().points.astype(np.float64).copy()
    for corners, lids in (
        ((33, 133), [7, 144, 145, 153, 154, 155, 157, 158, 159, 160, 161, 163, 173, 246]),
        ((263, 362), [249, 373, 374, 380, 381, 382, 384, 385, 386, 387, 388, 390, 398, 466]),
    ):
        first, last = face[list(corners)]
        along = (face[lids, 0] - first[0]) / (last[0] - first[0])
        line = first + along[:, None] * (last - first)
        face[lids, 1:] = line[:, 1:] + openness * (face[lids, 1:] - line[:, 1:])
    return face


def gaps(points: np.ndarray) -> np.ndarray:
    """How far the lids of both eyes are apart, across the line between the eye's corners."""
    places = ((33, 263), (133, 362), UPPER_LIDS, LOWER_LIDS)
    outer, inner, upper, lower = (points[list(place), :2].astype(float) for place in places)
    line = (inner - outer) / np.linalg.norm(inner - outer, axis=1, keepdims=True)
    between = lower - upper
    return np.abs(line[:, 0] * between[:, 1] - line[:, 1] * between[:, 0])


def driver_frames() -> tuple[np.ndarray, np.ndarray]:
    """Two frames of a real driver: at rest, and with another pose and expression."""
    track = sample_track()
    return track[0].landmarks, track[len(track) // 3].landmarks


def speaking(opening: float, width: float = 1.0) -> np.ndarray:
    """(478, 3): the template with a mouth so wide, whose lips part by this share of its width; the jaw follows."""
    face = shut_lips(face_template().points.astype(np.float64))
    mouth = LIPS
    face[mouth, 0] *= width
    gap = opening * np.linalg.norm(face[61] - face[291])
    middles = (face[UPPER_LIPS] + face[LOWER_LIPS]) / 2
    face[UPPER_LIPS], face[LOWER_LIPS] = middles, middles + [0, gap, 0]
    face[[152, 17, 200], 1] += gap / 2
    return face


def opening(landmarks: np.ndarray) -> float:
    """How far the lips' middle is open, by the distance of the mouth's corners, in the picture."""
    gap = np.linalg.norm(landmarks[[14, 87, 317], :2] - landmarks[[13, 82, 312], :2], axis=1).mean()
    return float(gap / np.linalg.norm(landmarks[61, :2] - landmarks[291, :2]))


@pytest.mark.parametrize("name", SAMPLES)
def test_a_driver_at_rest_leaves_the_source_as_it_is_but_for_lips_that_the_driver_keeps_shut(name):
    source = source_face(name)
    neutral = posed(speaking(0.01), 120, (500, 300))
    moved = retarget(source, neutral, neutral)
    assert moved.shape == (478, 2) and moved.dtype == np.float32
    np.testing.assert_allclose(moved[UPPER_FACE], source[UPPER_FACE, :2], atol=1e-5)
    assert opening(moved) < 0.06 and (name != "astronaut" or opening(source) > 0.1)  # who shows her teeth
    shut = shut_lips(take_apart(source).face)
    source_shut = take_apart(source).pose.project(shut)
    np.testing.assert_allclose(retarget(source_shut, neutral, neutral), source_shut, atol=1e-5)


def test_a_driver_who_is_the_source_gives_the_driving_frame():
    """To 0.1 px of 256 on average: lids and irises go by ratio, and keep the source's own lid line."""
    track = sample_track()
    crop = head_crop(track[0].landmarks)
    source = crop.to_keypoints(track[0].landmarks)
    retargeter = Retargeter(source, source)
    for frame in (10, 60, 120):
        driving = crop.to_keypoints(track[frame].landmarks)
        apart_px = 128 * np.linalg.norm(retargeter(driving) - driving[:, :2], axis=1)[MESH]
        assert apart_px.mean() < 0.1
        assert apart_px.max() < 1.0
        others = sorted(set(range(468)) - set(RIGHT_EYE + LEFT_EYE))
        np.testing.assert_allclose(retargeter(driving)[others], driving[others, :2], atol=2e-4)


def test_a_heads_pose_in_the_picture_becomes_the_sources_in_parts_of_its_face():
    """Drivers of 120 px a template unit, a source of 0.4: 12 px to the right are 0.04, and so on."""
    template = face_template().points
    source, neutral = posed(template, 0.4, (0.05, 0.1)), posed(template, 120, (500, 300))
    np.testing.assert_allclose(
        retarget(source, posed(template, 120, (512, 294)), neutral), posed(template, 0.4, (0.09, 0.08)), atol=1e-5
    )
    np.testing.assert_allclose(
        retarget(source, posed(template, 132, (500, 300)), neutral), posed(template, 0.44, (0.05, 0.1)), atol=1e-5
    )
    np.testing.assert_allclose(
        retarget(source, posed(template, 120, (500, 300), yaw=0.3), neutral),
        posed(template, 0.4, (0.05, 0.1), yaw=0.3),
        atol=1e-5,
    )


def test_a_turn_in_the_picture_turns_the_source_about_the_same_place_of_the_head():
    template = face_template().points
    angle = np.radians(20)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    source, neutral = posed(template, 0.4, (0, 0.1)), posed(template, 120, (500, 300))
    driving = HeadPose(120, turn, np.array([500, 300])).project(template)
    # By hand: around the source's own origin (0, 0.1), which stands still.
    wanted = (source - [0, 0.1]) @ turn[:2, :2].T + [0, 0.1]
    np.testing.assert_allclose(retarget(source, driving, neutral), wanted, atol=1e-5)


def test_no_face_shape_of_the_driver_leaks():
    """A driver with a face twice as wide, who only moves his head, moves the source's head and nothing in it."""
    wide = speaking(0.02) * np.float32([2, 1, 1])
    source = source_face()
    source[:, :2] = take_apart(source).pose.project(shut_lips(take_apart(source).face))
    moved = retarget(source, posed(wide, 100, (330, 190)), posed(wide, 100, (320, 200)))
    change = moved - source[:, :2]
    np.testing.assert_allclose(change, np.broadcast_to(change.mean(0), change.shape), atol=1e-5)


def test_in_absolute_mode_the_source_gets_the_drivers_pose_and_face_at_its_own_place():
    template = face_template().points
    source, neutral = posed(template, 0.4, (0.05, 0.1)), posed(template, 120, (500, 300), yaw=0.2)
    wide = speaking(0.3) * np.float32([1.1, 1, 1])
    moved = retarget(source, posed(wide, 120, (512, 300), yaw=0.3), neutral, "absolute")
    apart = take_apart(posed(wide, 120, (512, 300), yaw=0.3))
    np.testing.assert_allclose(take_apart(moved).face, apart.face, atol=1e-4)
    np.testing.assert_allclose(fit_head(moved).rotation, apart.pose.rotation, atol=1e-4)
    # Of the source are only place and size, and 12 px of 120 are 0.04 of 0.4.
    pose, was, start = apart.pose, fit_head(source), fit_head(neutral)
    np.testing.assert_allclose(fit_head(moved).shift, was.shift + (pose.shift - start.shift) / 300, atol=1e-4)
    with pytest.raises(MobileBilayerError, match="'sideways'.*relative, absolute"):
        retarget(source, neutral, neutral, "sideways")


@pytest.mark.parametrize("mode", ["relative", "absolute"])
def test_a_source_with_an_open_mouth_can_close_it(mode):
    """And opens it again as far as the driver does, whatever was in the photo."""
    neutral = posed(speaking(0.03), 120, (500, 300))
    for photo in (posed(speaking(0.4), 0.4, (0, 0.1)), posed(speaking(0.01), 0.4, (0, 0.1)), source_face()):
        retargeter = Retargeter(photo, neutral, mode)
        assert opening(retargeter(neutral)) < 0.06
        for wide in (0.2, 0.5):
            moved = retargeter(posed(speaking(wide), 120, (500, 300)))
            assert opening(moved) == pytest.approx(wide, rel=0.25)  # less in a mouth that a smile widens


def test_lips_part_by_as_much_of_the_mouths_width_as_the_drivers():
    source = posed(speaking(0.01), 0.4, (0, 0.1))
    for width in (0.85, 1.0, 1.2):  # of the driver's mouth
        neutral, open_wide = (posed(speaking(gap, width), 120, (500, 300)) for gap in (0.01, 0.4))
        assert opening(retarget(source, open_wide, neutral)) == pytest.approx(0.4, abs=0.05)


def test_lips_never_go_through_each_other():
    """A neutral frame with open lips, a source with shut ones, a driver who presses his together."""
    source = posed(speaking(0.0), 0.4, (0, 0.1))
    pressed = speaking(0.0)
    pressed[UPPER_LIPS, 1] += 0.02
    for neutral in (speaking(0.05), speaking(0.3)):
        moved = retarget(source, posed(pressed, 120, (500, 300)), posed(neutral, 120, (500, 300)))
        assert (moved[LOWER_LIPS, 1] - moved[UPPER_LIPS, 1] > -1e-6).all()


def test_an_open_mouth_is_shut_by_the_lower_lip_and_the_jaw():
    face = speaking(0.4)
    shut = shut_lips(face)
    assert lip_opening(face) == pytest.approx(0.4, abs=0.01) and lip_opening(shut) < 0.03
    up = (face - shut)[:, 1]
    assert up[14] > 4 * abs(up[13]) and 0.3 * up[14] < up[152] < 0.7 * up[14]
    np.testing.assert_array_equal(shut[UPPER_FACE], face[UPPER_FACE])
    slightly = speaking(0.04)
    assert shut_lips(slightly) is slightly


@pytest.mark.parametrize(("height", "factor"), [(0.7, 0.8), (0.95, 0.95), (1.0, 1.0)])
def test_brows_go_up_in_the_proportions_of_the_sources_own(height, factor):
    """The driver's brows stand `1 / height` times as far from the eyes as the source's; a fifth less is the least."""
    shut = speaking(0.02)
    driver, raised = shut.copy(), shut.copy()
    eyes = shut[[33, 133, 263, 362]].mean(0)
    driver[BROWS] = eyes + (shut[BROWS] - eyes) * [1, 1 / height, 1]
    raised[BROWS] = driver[BROWS] + [0, -0.05, 0]
    source = posed(shut, 0.4, (0, 0.1))
    moved = retarget(source, posed(raised, 120, (500, 300)), posed(driver, 120, (500, 300)))
    up = (source - moved)[BROWS, 1].mean() / 0.4
    assert up == pytest.approx(0.05 * factor, rel=0.03)


def test_gaze_goes_as_many_widths_of_the_eye_to_the_side():
    face, aside = speaking(0.02), speaking(0.02)
    aside[IRISES.ravel(), 0] += 0.04
    narrow = speaking(0.02)
    for middle, corners in zip((-0.33, 0.33), ((33, 133), (263, 362)), strict=True):
        narrow[list(corners), 0] = middle + 0.5 * (narrow[list(corners), 0] - middle)
    moved = retarget(posed(narrow, 0.4, (0, 0.1)), posed(aside, 120, (500, 300)), posed(face, 120, (500, 300)))
    still = retarget(posed(narrow, 0.4, (0, 0.1)), posed(face, 120, (500, 300)), posed(face, 120, (500, 300)))
    change = (moved - still)[IRISES.ravel()] / 0.4
    np.testing.assert_allclose(change, np.tile([0.02, 0], (10, 1)), atol=0.002)


@pytest.mark.parametrize("source_openness", [0.8, 1.0, 1.6])
def test_a_full_blink_of_a_narrow_eyed_driver_closes_a_wide_eyed_sources_lids(source_openness):
    neutral, shut = posed(with_eyes(0.8), 120, (500, 300)), posed(with_eyes(0.0), 120, (500, 300))
    source = posed(with_eyes(source_openness), 0.4, (0, 0.1))
    closed = retarget(source, shut, neutral)
    assert (gaps(source) > 0.02).all()
    assert (gaps(closed) < 0.03 * gaps(source)).all()


def test_half_a_blink_is_half_a_blink():
    neutral, half = posed(with_eyes(0.8), 120, (500, 300)), posed(with_eyes(0.4), 120, (500, 300))
    source = posed(with_eyes(1.4), 0.4, (0, 0.1))
    np.testing.assert_allclose(gaps(retarget(source, half, neutral)) / gaps(source), 0.5, atol=0.02)


def test_shut_lids_meet_though_the_drivers_landmarks_do_not_quite():
    """MediaPipe's points of shut lids are up to 0.09 eye widths apart, of which 0.05 in this driver."""
    face, shut = with_eyes(1.0), with_eyes(1.0)
    width = eyes_of(face)[0].width
    for upper, lower in ((159, 145), (386, 374), (160, 144), (387, 373), (158, 153), (385, 380)):
        shut[upper] = shut[lower] - [0, 0.05 * width, 0]
    closed = retarget(source_face(), posed(shut, 120, (500, 300)), posed(face, 120, (500, 300)))
    assert (gaps(closed) < 0.02 * gaps(source_face())).all()


def test_a_wink_is_a_wink():
    face, wink = with_eyes(1.0), with_eyes(1.0)
    wink[RIGHT_EYE] = with_eyes(0.0)[RIGHT_EYE]
    right, left = gaps(retarget(source_face(), posed(wink, 120, (500, 300)), posed(face, 120, (500, 300))))
    usual = gaps(source_face())
    assert right < 0.02 * usual[0] and left > 0.95 * usual[1]


def test_a_retargeter_gives_what_retarget_gives_and_takes_another_neutral_frame():
    source, (neutral, driving) = source_face(), driver_frames()
    retargeter = Retargeter(source, driving)
    other = retargeter.with_neutral(neutral)
    for mode in (driving, take_apart(driving)):
        np.testing.assert_array_equal(other(mode), retarget(source, driving, neutral))
    np.testing.assert_array_equal(retargeter(neutral), retarget(source, neutral, driving))


def test_the_face_taken_apart_does_not_turn_with_the_head():
    for yaw in (0.0, 0.3):
        apart = take_apart(posed(speaking(0.2), 120, (500, 300), yaw))
        np.testing.assert_allclose(apart.face[UPPER_FACE], face_template().points[UPPER_FACE], atol=2e-3)
        np.testing.assert_array_equal(unposed(posed(speaking(0.2), 120, (500, 300), yaw), apart.pose), apart.face)


def test_the_size_and_place_of_the_drivers_picture_do_not_matter():
    source, (neutral, driving) = source_face(), driver_frames()
    wanted = retarget(source, driving, neutral)
    for factor, shift in ((3.7, (0, 0)), (0.2, (-50, 900)), (1.0, (1234, -77))):
        move = lambda points: points[:, :2] * factor + np.float32(shift)  # noqa: B023, E731
        np.testing.assert_allclose(retarget(source, move(driving), move(neutral)), wanted, atol=1e-4)


def test_a_driver_who_walks_off_or_comes_close_does_not_take_the_source_out_of_its_picture():
    """A shift of at most 0.4 of the crop, and a size within 0.75 and 1.33 of the photo's."""
    template = face_template().points
    source, neutral = posed(template, 0.4, (0, 0.1)), posed(template, 120, (500, 300))
    far = retarget(source, posed(template, 120, (5000, 300)), neutral)
    np.testing.assert_allclose(far - source, np.broadcast_to([0.4, 0], far.shape), atol=1e-5)
    for pixels, factor in ((1200, 1.33), (12, 0.75)):
        assert fit_head(retarget(source, posed(template, pixels, (500, 300)), neutral)).scale == pytest.approx(
            0.4 * factor, rel=1e-4
        )


def test_depth_of_the_driver_is_not_needed_and_inputs_stay_as_they_are():
    source, (neutral, driving) = source_face(), driver_frames()
    kept = [x.copy() for x in (source, driving, neutral)]
    with_depth = retarget(source, driving, neutral)
    np.testing.assert_array_equal(retarget(source, driving[:, :2], neutral[:, :2]), with_depth)
    for value, was in zip((source, driving, neutral), kept, strict=True):
        np.testing.assert_array_equal(value, was)


def test_what_is_measured_of_a_face_is_what_its_landmarks_say():
    """By plain means and differences, of a face that no symmetry helps."""
    rng = np.random.default_rng(3)
    points = face_template().points + rng.normal(0, 0.02, (478, 3))
    for eye, (outer, inner), iris, upper, lower in zip(
        eyes_of(points), EYE_CORNERS, IRISES, module.UPPER_LIDS, module.LOWER_LIDS, strict=True
    ):
        width = np.linalg.norm(points[outer] - points[inner])
        assert eye.width == pytest.approx(width)
        assert eye.openness == pytest.approx((points[lower, 1] - points[upper, 1])[2:5].mean() / width)
        np.testing.assert_allclose(eye.gaze, (points[iris[0]] - (points[outer] + points[inner]) / 2) / width)
    mouth = np.linalg.norm(points[61] - points[291])
    apart = np.mean([points[a, 1] - points[b, 1] for a, b in ((87, 82), (14, 13), (317, 312))])
    assert lip_opening(points) == pytest.approx(apart / mouth)
    rest = rest_of(Motion(HeadPose(1.0, np.eye(3), np.zeros(2)), points))
    assert rest.mouth_width == pytest.approx(mouth)
    between = [points[brow].mean(0) - points[corners].mean(0) for brow, corners in zip(module.BROWS, EYE_CORNERS, strict=True)]
    assert rest.brow_height == pytest.approx(np.mean([np.linalg.norm(way) for way in between]))
