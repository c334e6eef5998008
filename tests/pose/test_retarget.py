"""Motion from one face to another, checked against motions that were made by hand."""

import numpy as np
import pytest

from mobile_bilayer.pose.crop import head_crop
from mobile_bilayer.pose.head import HeadPose, face_template, fit_head
from mobile_bilayer.pose.retarget import retarget
from mobile_bilayer.samples import SAMPLES, sample_photo, sample_track

UPPER_LIDS, LOWER_LIDS = (159, 386), (145, 374)  # the middle of both eyes' lids


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


@pytest.mark.parametrize("name", SAMPLES)
def test_a_driver_at_rest_leaves_the_source_as_it_is(name):
    source, (neutral, _) = source_face(name), driver_frames()
    moved = retarget(source, neutral, neutral)
    assert moved.shape == (478, 2) and moved.dtype == np.float32
    np.testing.assert_allclose(moved, source[:, :2], atol=1e-5)


def test_a_driver_who_is_the_source_gives_the_driving_frame():
    track = sample_track()
    crop = head_crop(track[0].landmarks)
    source = crop.to_keypoints(track[0].landmarks)
    for frame in (10, 60, 120):
        driving = crop.to_keypoints(track[frame].landmarks)
        np.testing.assert_allclose(retarget(source, driving, source), driving[:, :2], atol=2e-5)


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
    template = face_template().points
    wide = template * np.float32([2, 1, 1])
    source = source_face()
    moved = retarget(source, posed(wide, 100, (330, 190)), posed(wide, 100, (320, 200)))
    change = moved - source[:, :2]
    np.testing.assert_allclose(change, np.broadcast_to(change.mean(0), change.shape), atol=1e-5)


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
