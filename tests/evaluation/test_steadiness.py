"""Pictures and points whose steadiness is known beforehand."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mobile_bilayer.dataset.pairs import load_clips
from mobile_bilayer.evaluation.steadiness import STEPS, consecutive_frames, flicker, in_steps, jitter


def moving(speed_px: float, count: int = 4) -> torch.Tensor:
    """(count, 3, 128, 128) in [0, 1]: a smooth texture that goes to the right."""
    rng = np.random.default_rng(0)
    texture = cv2.GaussianBlur(rng.uniform(0, 1, (160, 256, 3)).astype(np.float32), (0, 0), 3)
    texture = (texture - texture.min()) / np.ptp(texture)
    frames = [
        cv2.warpAffine(texture, np.float32([[1, 0, speed_px * i - 64], [0, 1, -16]]), (128, 128), flags=cv2.INTER_CUBIC)
        for i in range(count)
    ]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).clamp(0, 1)


@pytest.mark.parametrize("speed_px", [0.3, 2.0, 5.5])
def test_what_only_moves_does_not_flicker(speed_px):
    frames = moving(speed_px)
    changed = 255 * (frames[1:] - frames[:-1]).abs().mean().item()
    assert changed > 1.5 and flicker(frames) < min(0.5, changed / 4)


def test_what_stands_still_does_not_flicker_at_all():
    assert flicker(moving(0)) == 0


@pytest.mark.parametrize("sigma", [2.0, 6.0])
def test_noise_of_each_frame_is_flicker(sigma):
    """The difference of two normal numbers is 2 sigma / sqrt(pi) on average."""
    frames = moving(2.0)
    noise = torch.randn(frames.shape, generator=torch.Generator().manual_seed(0)) * sigma / 255
    assert flicker(frames + noise) == pytest.approx(2 * sigma / np.pi**0.5, rel=0.15)


def test_light_that_comes_and_goes_is_flicker():
    frames = moving(2.0) / 2
    frames[1::2] += 5 / 255
    assert flicker(frames) == pytest.approx(5, rel=0.1)


def test_one_frame_alone_has_no_flicker():
    assert np.isnan(flicker(moving(1.0, count=1)))


def test_points_go_straight_and_evenly_from_frame_to_frame():
    points = torch.tensor([[[0.0, 0.0]], [[1.0, 0.5]], [[0.0, 0.5]]])
    between = in_steps(points)
    assert STEPS == 4 and between.shape == (9, 1, 2)
    assert between[:, 0, 0].tolist() == [0, 0.25, 0.5, 0.75, 1, 0.75, 0.5, 0.25, 0]
    assert between[:, 0, 1].tolist() == [0, 0.125, 0.25, 0.375, 0.5, 0.5, 0.5, 0.5, 0.5]


def test_where_the_driver_turns_there_is_no_jitter_and_elsewhere_there_is():
    corners = np.array([[0, 0], [40, 10], [0, 30]], float)  # of a way that all points take
    face = np.random.default_rng(0).uniform(0, 100, (478, 2))
    face[33], face[263] = (30, 40), (70, 70)  # 50 apart
    way = face + in_steps(torch.from_numpy(corners)[:, None]).numpy()
    assert jitter(way) > 10
    assert jitter(way, turns=STEPS) == pytest.approx(0, abs=1e-9)
    way[2] += 1  # second differences 1, -2, 1 in x and y, at three of the six places that count: sqrt(12 / 6) px
    assert jitter(way, turns=STEPS) == pytest.approx(100 * 2**0.5 / 50, rel=1e-6)


@pytest.mark.parametrize(
    ("shots", "count", "frames"),
    [
        ([0] * 9, 3, [3, 4, 5]),
        ([0] * 9, 99, list(range(9))),
        ([0, 0, 0, 0, 1, 1, 1, 1, 1], 3, [0, 1, 2]),  # the source's shot, not the longest
        ([0, 0, 1, 1, 1, 1, 2, 2, 2], 3, [2, 3, 4]),  # two frames are too few
        ([0, 0, 1, 1, 0, 0, 0, 0, 0], 0, []),
    ],
)
def test_frames_behind_each_other_never_lie_across_a_cut(tmp_path: Path, write_clip, shots, count, frames):
    write_clip(tmp_path / "a.safetensors", count=9, shots=np.array(shots))
    assert consecutive_frames(load_clips(tmp_path)[0], count) == frames
