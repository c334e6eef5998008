"""Phones' HDR pictures (HLG, PQ) as sRGB: what is no brighter than paper looks as meant, what is brighter is dimmed."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

PQ, HLG = 16, 18  # transfer functions, by their number in ITU-T H.273

_WHITE_NITS = 203  # of white paper (ITU-R BT.2408): sRGB's 1.0
_PEAK_NITS = 1000  # of the brightest point; PQ may go on to 10,000, which is clipped
_KNEE = 0.6  # of paper white: light is compressed from here on
_BT2020_TO_BT709 = np.float32(
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
)  # ITU-R BT.2087
_BT709_LUMA = np.float32([[0.2126, 0.7152, 0.0722]])


def to_sdr(signal: np.ndarray, transfer: int) -> np.ndarray:
    """(H, W, 3) uint8 sRGB of an HDR picture.

    signal    (H, W, 3) uint16 RGB of BT.2020's primaries, 65535 the largest signal
    transfer  PQ or HLG
    """
    light = cv2.transform(cv2.LUT(signal, _light(transfer)), _BT2020_TO_BT709)
    if transfer == HLG:  # the scene's light so far; a screen of 1000 nits shows it with a gamma of 1.2 (BT.2100)
        luma = np.maximum(cv2.transform(light, _BT709_LUMA), 0)
        light *= (_PEAK_NITS / _WHITE_NITS * cv2.pow(luma, 0.2))[..., None]
    # All three by one factor, or bright skin would change its hue.
    brightest = cv2.reduce(light.reshape(-1, 3), 1, cv2.REDUCE_MAX).reshape(light.shape[:2])
    light *= _dimming(brightest)[..., None]
    return cv2.LUT(np.clip(65535 * light, 0, 65535).astype(np.uint16), _srgb())


def _dimming(light: np.ndarray) -> np.ndarray:
    """Factors that leave light up to the knee as it is, and take the peak to 1; the slope has no break."""
    peak = _PEAK_NITS / _WHITE_NITS
    light = np.clip(light, _KNEE, peak)
    above, top = (light - _KNEE) / (1 - _KNEE), (peak - _KNEE) / (1 - _KNEE)
    return (_KNEE + (1 - _KNEE) * above * (1 + above / top**2) / (1 + above)) / light


@cache
def _light(transfer: int) -> np.ndarray:
    """(1, 65536) float32: the light of each signal. PQ: of the screen, paper white is 1. HLG: of the scene, peak is 1."""
    signal = np.linspace(0, 1, 65536)
    if transfer == PQ:  # SMPTE ST 2084
        m1, m2, c1, c2, c3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128
        power = signal ** (1 / m2)
        light = (np.maximum(power - c1, 0) / (c2 - c3 * power)) ** (1 / m1) * 10_000
        return (np.minimum(light, _PEAK_NITS) / _WHITE_NITS).astype(np.float32)[None]
    a, b, c = 0.17883277, 0.28466892, 0.55991073  # ARIB STD-B67
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12).astype(np.float32)[None]


@cache
def _srgb() -> np.ndarray:
    """(1, 65536) uint8: the code of each linear light."""
    light = np.linspace(0, 1, 65536)
    code = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(255 * code).astype(np.uint8)[None]
