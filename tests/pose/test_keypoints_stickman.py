"""The paper's stickman: which pixels have which colour."""

import numpy as np
import pytest

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.stickman import draw_keypoints_stickman

SIDE_PX = 256
WHITE, RED, GREEN, BLUE = (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255)
MAGENTA, CYAN, YELLOW = (255, 0, 255), (0, 255, 255), (255, 255, 0)


def to_keypoints(pixels: np.ndarray) -> np.ndarray:
    """The keypoint in the middle of each pixel, so that truncation finds the pixel again."""
    return (np.asarray(pixels, np.float64) + 0.5) / SIDE_PX * 2 - 1


def chain(first: int, last: int) -> set[tuple[int, int]]:
    return {(i, i + 1) for i in range(first, last)}


def from_segment(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(SIDE_PX, SIDE_PX) each pixel's distance from the segment a b, in pixels."""
    y, x = np.mgrid[:SIDE_PX, :SIDE_PX]
    way, to = b - a, np.stack([x, y], -1) - a
    along = np.clip(to @ way / max(way @ way, 1), 0, 1)
    return np.linalg.norm(to - along[..., None] * way, axis=-1)


@pytest.mark.parametrize(
    ("points", "joined", "colour"),
    [
        (range(0, 17), chain(0, 16), WHITE),
        (range(17, 22), chain(17, 21), RED),
        (range(22, 27), chain(22, 26), GREEN),
        (range(27, 36), chain(27, 30) | {(30, 33)} | chain(31, 35), BLUE),
        (range(36, 42), chain(36, 41) | {(41, 36)}, MAGENTA),
        (range(42, 48), chain(42, 47) | {(47, 42)}, CYAN),
        (range(48, 68), chain(48, 59) | {(59, 48)} | chain(60, 67) | {(67, 60)}, YELLOW),
    ],
    ids=["jaw", "right brow", "left brow", "nose", "right eye", "left eye", "lips"],
)
def test_lines_of_a_part_run_where_the_paper_has_them_and_nowhere_else(points, joined, colour):
    pixels = np.zeros((68, 2), int)  # the other parts are dots in the upper left corner
    turns = np.linspace(0, 2 * np.pi, len(points), endpoint=False)
    pixels[points] = (130 + 100 * np.stack([np.cos(turns), np.sin(turns)], -1)).round()
    picture = draw_keypoints_stickman(to_keypoints(pixels))
    inked = (picture == colour).all(-1)
    inked[:4, :4] = False
    distance = np.min([from_segment(pixels[a], pixels[b]) for a, b in joined], axis=0)
    assert inked[distance < 0.5].all()
    assert not inked[distance > 2.5].any()
    rest = ~inked
    rest[:4, :4] = False
    assert (picture[rest] == 1).all()  # nothing smoothed, nothing of another colour


def level_lines(*ranges: range, row_px: float) -> np.ndarray:
    """Keypoints that lie in the upper left corner, but for some on a level line from column 64 to 191."""
    keypoints = np.full((68, 2), -1.0)
    for points in ranges:
        keypoints[points, 0] = np.linspace(-0.5, 0.5, len(points))
        keypoints[points, 1] = row_px / SIDE_PX * 2 - 1
    return keypoints


def test_a_line_is_three_pixels_thick_around_its_pixel_and_the_canvas_is_one():
    """OpenCV's thickness 2 is one pixel to each side."""
    picture = draw_keypoints_stickman(level_lines(range(17, 22), row_px=100))
    assert picture.shape == (SIDE_PX, SIDE_PX, 3) and picture.dtype == np.uint8
    assert (picture[99:102, 66:190] == RED).all()
    assert (picture[[98, 102], 66:190] == 1).all()


def test_the_fraction_of_a_pixel_is_dropped():
    whole = draw_keypoints_stickman(level_lines(range(17, 22), row_px=100))
    np.testing.assert_array_equal(draw_keypoints_stickman(level_lines(range(17, 22), row_px=100.9)), whole)
    assert (draw_keypoints_stickman(level_lines(range(17, 22), row_px=101)) != whole).any()


@pytest.mark.parametrize(
    ("below", "above", "colour"),
    [
        (range(0, 17), range(17, 22), RED),
        (range(17, 22), range(22, 27), GREEN),
        (range(22, 27), range(31, 36), BLUE),
        (range(31, 36), range(36, 42), MAGENTA),
        (range(36, 42), range(42, 48), CYAN),
        (range(42, 48), range(48, 60), YELLOW),
    ],
)
def test_later_parts_cover_earlier_ones(below, above, colour):
    picture = draw_keypoints_stickman(level_lines(below, above, row_px=100))
    assert (picture[100, 70:185] == colour).all()


def test_lines_are_as_thick_in_a_larger_picture_unless_asked_otherwise():
    keypoints = level_lines(range(17, 22), row_px=100)
    assert (draw_keypoints_stickman(keypoints, 512)[:, 256, 1] == 0).sum() == 3
    assert (draw_keypoints_stickman(keypoints, 512, thickness=1)[:, 256, 1] == 0).sum() == 1


def test_what_lies_outside_is_cut_off_and_keypoints_stay_as_they_were():
    keypoints = level_lines(range(17, 22), row_px=100)
    keypoints[17] = (-1e30, keypoints[18, 1])  # beyond all integers
    before = keypoints.copy()
    picture = draw_keypoints_stickman(keypoints)
    np.testing.assert_array_equal(keypoints, before)
    assert (picture[100, :190] == RED).all()
    assert (draw_keypoints_stickman(np.full((68, 2), 3.0)) == 1).all()


@pytest.mark.parametrize("keypoints", [np.zeros((478, 2)), np.zeros((68, 3)), np.full((68, 2), np.nan), np.zeros(136)])
def test_bad_keypoints_are_told(keypoints):
    with pytest.raises(MobileBilayerError, match=r"must be \(68, 2\)"):
        draw_keypoints_stickman(keypoints)


def test_a_bad_side_of_a_keypoints_stickman_is_told():
    with pytest.raises(MobileBilayerError, match="stickman of 0 px"):
        draw_keypoints_stickman(np.zeros((68, 2)), 0)
