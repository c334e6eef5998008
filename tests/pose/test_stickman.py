"""Stickmen: where lines fall, and in which colour."""

import numpy as np
import pytest

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.head import face_template
from mobile_bilayer.pose.stickman import draw_stickman

FAR = -3.0  # outside the picture
RIGHT_BROW, LEFT_BROW = [46, 53, 52, 65, 55], [276, 283, 282, 295, 285]  # their lower lines


def across(points: list[int], row: int, side_px: int) -> np.ndarray:
    """All landmarks far away, but for some on a level line through the centres of the pixels of `row`."""
    landmarks = np.full((478, 2), FAR)
    landmarks[points, 0] = np.linspace(-0.5, 0.5, len(points))
    landmarks[points, 1] = (row + 0.5) / side_px * 2 - 1
    return landmarks


@pytest.mark.parametrize(("points", "colour"), [(RIGHT_BROW, (255, 0, 0)), (LEFT_BROW, (0, 255, 0))])
def test_a_line_runs_through_the_pixels_under_it_in_its_colour(points, colour):
    picture = draw_stickman(across(points, row=100, side_px=256))
    assert (picture[100, 66:190] >= np.multiply(colour, 0.8)).all()  # OpenCV's thinnest line is not quite opaque
    assert (picture[..., np.equal(colour, 0)] == 0).all()
    rows = np.flatnonzero(picture[:, 70:180].any((1, 2)))
    assert set(rows) <= {99, 100, 101}


def test_lines_get_thicker_with_the_picture():
    picture = draw_stickman(across(RIGHT_BROW, row=200, side_px=768), 768)
    assert picture.shape == (768, 768, 3)
    assert (picture[199:202, 200:560] == (255, 0, 0)).all()


def test_a_line_between_two_rows_is_shared_by_both():
    picture = draw_stickman(across(RIGHT_BROW, row=100, side_px=256) + [0, 1 / 256])
    assert (picture[100:102, 70:180, 0] > 60).all()
    assert np.abs(picture[100, 70:180, 0].astype(int) - picture[101, 70:180, 0]).max() < 40


def test_a_face_shows_every_colour_on_black_and_nothing_outside_its_oval():
    keypoints = face_template().points / 2.5
    picture = draw_stickman(keypoints)
    assert picture.dtype == np.uint8 and picture.shape == (256, 256, 3)
    seen = {tuple(colour) for colour in np.where(picture > 200, 255, picture).reshape(-1, 3).tolist()}
    wanted = {(255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 0, 255), (0, 255, 255), (255, 255, 0)}
    assert wanted <= seen
    low, high = ((keypoints[:, :2] + 1) * 128).min(0), ((keypoints[:, :2] + 1) * 128).max(0)
    rows, columns = np.nonzero(picture.any(-1))
    assert low[0] - 2 < columns.min() and columns.max() < high[0] + 2
    assert low[1] - 2 < rows.min() and rows.max() < high[1] + 2
    # The person's right is on the picture's left.
    red, green = ((picture[..., channel] > 200) & (picture.max(-1) == picture.sum(-1)) for channel in (0, 1))
    assert np.nonzero(red)[1].max() < 128 < np.nonzero(green)[1].min()


def test_depth_changes_nothing_and_landmarks_stay_as_they_were():
    keypoints = face_template().points / 2.5
    before = keypoints.copy()
    np.testing.assert_array_equal(draw_stickman(keypoints), draw_stickman(keypoints[:, :2]))
    np.testing.assert_array_equal(keypoints, before)


def test_landmarks_beyond_all_bounds_do_no_harm():
    assert not draw_stickman(np.full((478, 3), 1e30)).any()


@pytest.mark.parametrize("landmarks", [np.zeros((468, 2)), np.zeros((478, 4)), np.full((478, 2), np.nan), []])
def test_bad_landmarks_are_told(landmarks):
    with pytest.raises(MobileBilayerError, match=r"must be \(478, 2\)"):
        draw_stickman(landmarks)


@pytest.mark.parametrize("side_px", [0, -1, 100_000])
def test_a_bad_side_is_told(side_px):
    with pytest.raises(MobileBilayerError, match=f"stickman of {side_px} px"):
        draw_stickman(np.zeros((478, 2)), side_px)
