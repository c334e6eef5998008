"""The square around a head, by hand."""

import numpy as np
import pytest

from mobile_bilayer.pose.crop import Crop, head_crop


def ramp(height: int = 120, width: int = 200) -> np.ndarray:
    """Red grows by one a column, green by one a row."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[..., 0] = np.arange(width)
    rgb[..., 1] = np.arange(height)[:, None]
    return rgb


def test_the_head_crop_follows_the_papers_rule():
    landmarks = np.full((478, 3), 150, np.float32)
    landmarks[10], landmarks[152] = (120, 50, 999), (180, 290, -999)
    crop = head_crop(landmarks)  # the box is 60 x 240 around (150, 170)
    assert (crop.x_px, crop.half_px) == (150, 240)
    assert crop.y_px == pytest.approx(170 - 240 / 6)


def test_keypoints_are_minus_one_to_one_across_the_crop():
    crop = Crop(100, 60, 40)
    points = np.array([[60, 20, 40], [140, 100, -20], [100, 60, 0]], np.float32)
    keypoints = crop.to_keypoints(points)
    np.testing.assert_allclose(keypoints, [[-1, -1, 1], [1, 1, -0.5], [0, 0, 0]], atol=1e-6)
    assert keypoints.dtype == np.float32
    np.testing.assert_allclose(crop.to_pixels(keypoints), points, atol=1e-4)


def test_points_are_not_changed_in_place():
    points = np.ones((478, 3), np.float32)
    Crop(100, 60, 40).to_keypoints(points)
    Crop(100, 60, 40).to_pixels(points)
    assert (points == 1).all()


def test_the_matrix_takes_pixel_centres_to_where_their_keypoints_are():
    crop, side_px = Crop(83.25, 41.5, 61.75), 256
    pixels = np.array([[0, 0], [83, 41], [150, 100]], np.float64)  # indices: the centre of pixel i lies at i + 0.5
    moved = np.column_stack([pixels, np.ones(3)]) @ crop.matrix(side_px).T
    by_keypoints = (crop.to_keypoints(pixels + 0.5) + 1) / 2 * side_px - 0.5
    np.testing.assert_allclose(moved, by_keypoints, atol=1e-3)


def test_a_crop_on_whole_pixels_is_that_part_of_the_picture():
    rgb = ramp()
    np.testing.assert_array_equal(Crop(100, 60, 32).cut(rgb, 64), rgb[28:92, 68:132])


@pytest.mark.parametrize(
    "half_px",
    [
        20.0,
        45.0,
        59.0,
    ],
)
def test_each_pixel_of_a_crop_shows_what_lies_under_its_centre(half_px):
    """Enlarged, reduced a little, and reduced so far that it is averaged first."""
    crop, side_px = Crop(100.4, 60.3, half_px), 48
    cut = crop.cut(ramp().astype(np.float32), side_px)
    centres = (np.arange(side_px) + 0.5) / side_px * 2 * half_px - half_px
    # The ramp's value at x is x - 0.5: pixel 0 is 0 at its centre. The outermost pixels may see the border.
    inner, tenth_px = slice(2, -2), 0.1 * 2 * half_px / side_px
    np.testing.assert_allclose(cut[24, inner, 0], (100.4 + centres - 0.5)[inner], atol=tenth_px)
    np.testing.assert_allclose(cut[inner, 24, 1], (60.3 + centres - 0.5)[inner], atol=tenth_px)


def test_outside_the_picture_its_border_is_repeated():
    rgb = ramp(40, 40)
    rgb[..., 2] = 7
    cut = Crop(0, 20, 20).cut(rgb, 40)  # the left half lies outside
    np.testing.assert_array_equal(cut[:, :20], np.repeat(rgb[:, :1], 20, axis=1))
    np.testing.assert_array_equal(cut[:, 20:], rgb[:, :20])
    far = Crop(500, -500, 100).cut(rgb, 40)  # all of it lies outside, beyond the upper right corner
    assert (far == [39, 0, 7]).all()


def test_a_crop_much_larger_than_the_picture_repeats_the_border_as_well():
    cut = Crop(20, 20, 400).cut(ramp(40, 40), 64)
    assert (cut[:28, :28] == 0).all()
    assert (cut[-28:, -28:] == [39, 39, 0]).all()


def test_fine_patterns_are_averaged_when_they_shrink():
    stripes = np.zeros((400, 400, 3), np.uint8)
    stripes[:, ::2] = 200
    cut = Crop(200, 200, 200).cut(stripes, 50).astype(int)
    assert np.abs(cut[:, 2:-2] - 100).max() <= 5
