"""The crop that the paper's weights expect, against its formula by hand and by Pillow."""

import cv2
import numpy as np
import pytest
from PIL import Image

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.crop import Crop, head_crop, paper_crop
from mobile_bilayer.pose.keypoints import keypoints_68
from mobile_bilayer.samples import SAMPLES, sample_photo


def test_the_paper_crop_by_hand():
    points = np.full((68, 2), (150.0, 170.0))
    points[0], points[8] = (120.4, 50.2), (181.0, 249.9)  # a box of 60.6 x 199.7 around (150.7, 150.05)
    assert paper_crop(points) == Crop(151.0, 150.0 - 33, 199.0)  # 199 // 6 is 33


@pytest.mark.parametrize("name", SAMPLES)
def test_crop_and_keypoints_are_those_of_the_papers_formula(name):
    rgb, landmarks = sample_photo(name)
    points = keypoints_68(landmarks)
    low, high = points.min(0), points.max(0)
    centre = ((low + high) / 2).round().astype(int)
    size = int(max(high[0] - low[0], high[1] - low[1]))
    centre[1] -= size // 6
    box = (centre[0] - size, centre[1] - size, centre[0] + size, centre[1] + size)
    picture = Image.fromarray(rgb).crop(tuple(int(v) for v in box)).resize((256, 256), Image.Resampling.BICUBIC)

    crop = paper_crop(points)
    ours = [crop.x_px - crop.half_px, crop.y_px - crop.half_px, crop.x_px + crop.half_px, crop.y_px + crop.half_px]
    assert np.abs(np.subtract(ours, box)).max() < 1e-6
    wanted = ((points - centre + size) / (2 * size)) * 2 - 1
    np.testing.assert_allclose(crop.to_keypoints(points), wanted, atol=1e-5)

    cut = crop.cut(rgb, 256, black_outside=True)
    shift, _ = cv2.phaseCorrelate(np.asarray(picture).mean(2), cut.mean(2))
    assert np.hypot(*shift) < 0.1
    assert np.abs(cut.astype(int) - np.asarray(picture)).mean() < 2  # levels of 255: another cubic kernel


@pytest.mark.parametrize("half_px", [20, 30, 100])
def test_outside_the_picture_all_is_black_when_asked(half_px):
    """Enlarged, reduced a little, and reduced so far that it is averaged first."""
    rgb = np.full((400, 400, 3), 200, np.uint8)
    cut = Crop(0, 200, half_px).cut(rgb, 40, black_outside=True)
    assert (cut[:, :18] == 0).all()
    assert (cut[:, 22:] == 200).all()
    assert (Crop(2000, -2000, half_px).cut(rgb, 40, black_outside=True) == 0).all()


@pytest.mark.parametrize("name", SAMPLES)
def test_the_head_crop_is_larger_than_the_papers_and_higher(name):
    """All landmarks begin at the hair line, the 68 points at the brows. Measured: 1.17 and 1.10, 0.11 and 0.09."""
    _, landmarks = sample_photo(name)
    head, paper = head_crop(landmarks), paper_crop(keypoints_68(landmarks))
    assert 1.05 < head.half_px / paper.half_px < 1.25
    assert 0.05 < (paper.y_px - head.y_px) / paper.half_px < 0.16
    assert abs(paper.x_px - head.x_px) / paper.half_px < 0.02


@pytest.mark.parametrize("points", [np.zeros((478, 2)), np.zeros((68, 3)), np.full((68, 2), np.nan), []])
def test_anything_but_68_finite_points_is_told(points):
    with pytest.raises(MobileBilayerError, match=r"needs \(68, 2\)"):
        paper_crop(points)


def test_keypoints_given_as_pixels_are_told():
    points = np.random.default_rng(1).uniform(-0.5, 0.5, (68, 2))
    with pytest.raises(MobileBilayerError, match=r"pixels large; it must be at least 2"):
        paper_crop(points)
