"""The picture with the person taken out."""

import numpy as np
import pytest
from PIL import Image

from mobile_bilayer.background import change_background, fill_behind
from mobile_bilayer.errors import MobileBilayerError

SIDE = 96


def person(left: int = 30, right: int = 60, top: int = 20) -> np.ndarray:
    """(H, W) float32 alpha, 1 in a block that reaches the lower edge."""
    alpha = np.zeros((SIDE, SIDE), np.float32)
    alpha[top:, left:right] = 1
    return alpha


def test_a_constant_picture_stays_constant():
    rgb = np.full((SIDE, SIDE, 3), (10, 130, 250), np.uint8)
    for alpha in (person(), np.zeros_like(person()), np.ones_like(person()), person(0, SIDE, 0)):
        filled = fill_behind(rgb, alpha)
        assert filled.dtype == np.uint8 and np.abs(filled.astype(int) - rgb).max() <= 1


@pytest.mark.parametrize("box", [(30, 60, 20), (0, SIDE, 12), (12, SIDE, 0), (0, SIDE - 3, 0)])
def test_the_persons_colour_never_leaks(box):
    """Blue is only the person's. Boxes leave much, a strip, or a column (the dilation takes two more)."""
    alpha = person(*box)
    rgb = np.zeros((SIDE, SIDE, 3), np.uint8)
    rgb[..., 0] = 200
    rgb[alpha > 0] = (0, 0, 255)
    filled = fill_behind(rgb, alpha)
    assert filled[..., 2].max() == 0
    assert np.abs(filled[..., 0].astype(int) - 200).max() <= 1


def test_a_background_far_from_the_person_is_not_touched():
    rgb = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    filled = fill_behind(rgb, person(40, 60, 60))
    np.testing.assert_array_equal(filled[:40], rgb[:40])


def test_colours_flow_in_from_their_own_side():
    rgb = np.zeros((SIDE, SIDE, 3), np.uint8)
    rgb[:, : SIDE // 2, 0], rgb[:, SIDE // 2 :, 1] = 255, 255
    filled = fill_behind(rgb, person(20, 76, 0)).astype(int)
    left, right = filled[50, 24], filled[50, 71]
    assert left[0] > left[1] + 50 and right[1] > right[0] + 50
    np.testing.assert_allclose(left[[0, 1]], right[[1, 0]], atol=1)


def test_a_mirrored_picture_is_filled_as_in_a_mirror():
    rgb = np.random.default_rng(4).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    alpha = person(20, 50, 30)
    mirrored = fill_behind(np.ascontiguousarray(rgb[:, ::-1]), np.ascontiguousarray(alpha[:, ::-1]))
    np.testing.assert_allclose(mirrored[:, ::-1].astype(int), fill_behind(rgb, alpha).astype(int), atol=1)


def test_a_wide_picture_has_no_dark_hole_where_little_is_known():
    rgb = np.full((16, 1024, 3), 180, np.uint8)
    alpha = np.ones((16, 1024), np.float32)
    alpha[:, :60] = 0
    assert np.abs(fill_behind(rgb, alpha).astype(int) - 180).max() <= 1


def test_a_person_everywhere_leaves_the_pictures_mean():
    rgb = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    filled = fill_behind(rgb, np.ones((SIDE, SIDE), np.float32))
    assert np.abs(filled - rgb.reshape(-1, 3).mean(0)).max() <= 0.51


def test_inputs_are_left_unchanged():
    rgb, alpha = np.random.default_rng(2).integers(0, 256, (SIDE, SIDE, 3), np.uint8), person()
    before = rgb.copy(), alpha.copy()
    fill_behind(rgb, alpha)
    np.testing.assert_array_equal(rgb, before[0])
    np.testing.assert_array_equal(alpha, before[1])


def textures() -> tuple[np.ndarray, np.ndarray]:
    return np.random.default_rng(3).integers(0, 256, (2, 64, 64, 3), np.uint8)


def test_the_chosen_background_stands_behind(tmp_path):
    texture, kept = textures()
    np.testing.assert_array_equal(change_background("keep", texture, kept), kept)
    assert (change_background("#20a0ff", texture, kept) == (0x20, 0xA0, 0xFF)).all()
    blurred = change_background("blur", texture, kept).astype(float)
    assert blurred.std() < kept.std() / 3 and abs(blurred.mean() - kept.mean()) < 2
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[:, 32:96] = (1, 2, 3)  # the square in its middle
    Image.fromarray(picture).save(tmp_path / "wall.png")
    assert (change_background(tmp_path / "wall.png", texture, kept) == (1, 2, 3)).all()


@pytest.mark.parametrize("choice", ["#20a0f", "#20a0fg", "blurr", "no/such/wall.png"])
def test_a_background_that_is_none_is_refused(choice):
    with pytest.raises(MobileBilayerError, match=choice):
        change_background(choice, *textures())
