"""HDR pictures as sRGB. Signals come from the formulas of ITU-R BT.2100, BT.2087 and BT.2408."""

import numpy as np
import pytest
from test_video import make_still

from mobile_bilayer.capture.hdr import HLG, PQ, to_sdr
from mobile_bilayer.capture.video import VideoReader

# sRGB of matte things, none brighter than paper's knee: 0.6 of its light.
MATTE = np.array(
    [[0, 0, 0], [20, 20, 20], [64, 64, 64], [128, 128, 128], [180, 140, 120], [120, 70, 50], [30, 60, 190]]
)
BT709_TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])


def pq(nits: np.ndarray) -> np.ndarray:
    y = (nits / 10_000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


def hlg(nits: np.ndarray) -> np.ndarray:
    """Of a screen of 1000 nits."""
    light = nits / 1000
    luma = np.maximum((light * [0.2627, 0.6780, 0.0593]).sum(-1, keepdims=True), 1e-9)
    scene = light * luma ** (1 / 1.2 - 1)
    bright = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), bright)


SIGNALS = {PQ: pq, HLG: hlg}


def coded(srgb: np.ndarray, transfer: int) -> np.ndarray:
    """uint16 signals of these colours, with sRGB's white as bright as paper: 203 nits."""
    code = srgb / 255
    light = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    return np.rint(65535 * SIGNALS[transfer](203 * light @ BT709_TO_BT2020.T)).astype(np.uint16)


@pytest.mark.parametrize("transfer", SIGNALS)
def test_what_is_darker_than_paper_keeps_its_colour(transfer):
    rgb = to_sdr(coded(MATTE[None], transfer), transfer)
    assert rgb.dtype == np.uint8
    np.testing.assert_allclose(rgb[0].astype(int), MATTE, atol=2)


@pytest.mark.parametrize(("transfer", "percent"), [(PQ, 58.07), (HLG, 75)])  # BT.2408's signals of paper white
def test_paper_is_nearly_white_and_light_is_brighter(transfer, percent):
    ramp = np.linspace(0, 65535, 2000).astype(np.uint16)
    grey = to_sdr(np.repeat(ramp[None, :, None], 3, 2), transfer)[0].astype(int)
    assert (np.diff(grey, axis=0) >= 0).all() and (np.ptp(grey, axis=1) <= 1).all()
    assert 225 <= grey[round(20 * percent), 0] <= 240
    assert grey[0, 0] == 0 and grey[-1, 0] == 255


@pytest.mark.parametrize("transfer", SIGNALS)
def test_a_bright_colour_keeps_its_hue(transfer):
    light = 600 * np.array([1.0, 0.6, 0.4]) @ BT709_TO_BT2020.T  # nits of lit skin
    rgb = to_sdr(np.rint(65535 * SIGNALS[transfer](light[None, None])).astype(np.uint16), transfer)[0, 0] / 255
    linear = ((rgb + 0.055) / 1.055) ** 2.4
    np.testing.assert_allclose(linear / linear[0], [1, 0.6, 0.4], atol=0.02)


@pytest.mark.parametrize("transfer", SIGNALS)
def test_a_phones_hdr_clip_is_not_washed_out(tmp_path, transfer):
    picture = np.repeat(np.repeat(coded(MATTE[None], transfer), 32, 0), 32, 1)
    tags = {"color_trc": transfer, "color_primaries": 9, "colorspace": 9, "color_range": 1}  # BT.2020
    path = make_still(tmp_path / "phone.mp4", "libx264", "yuv420p10le", picture, {"crf": "4"}, **tags)
    frame = next(iter(VideoReader(path)))
    np.testing.assert_allclose(frame.rgb[16, 16::32].astype(int), MATTE, atol=6)
