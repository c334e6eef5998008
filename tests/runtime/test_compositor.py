"""The compositor that a host runs: twin of the one in torch, and exact where nothing moves."""

import cv2
import numpy as np
import pytest
import torch

from mobile_bilayer import Bundle, compositing
from mobile_bilayer.runtime.compositor import composite, to_float, to_rgb


def planes(values: list[float], side_px: int) -> np.ndarray:
    """(C, side_px, side_px) float32, each plane of one value."""
    return np.stack([np.full((side_px, side_px), value, np.float32) for value in values])


def still(side_px: int, flow_x: float = 0.0, flow_y: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Layers that show the whole texture, moved as one."""
    return planes([flow_x, flow_y, 1, 1], side_px), planes([0, 0, 0], side_px)


def noise(side_px: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (side_px, side_px, channels)).astype(np.float32)


def in_torch(texture: np.ndarray, background: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    pictures = [torch.from_numpy(x.transpose(2, 0, 1).copy())[None] for x in (texture, background)]
    layers = compositing.Layers(torch.from_numpy(a)[None], torch.from_numpy(b)[None])
    return compositing.composite(*pictures, layers)[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("seed", range(3))
def test_on_random_layers_the_host_and_torch_agree_within_one_part_in_255(seed):
    rng = np.random.default_rng(seed)
    texture, background = noise(256, seed=seed), noise(256, seed=seed + 100)
    a = np.concatenate([rng.uniform(-0.7, 0.7, (2, 64, 64)), rng.uniform(0, 1, (2, 64, 64))]).astype(np.float32)
    b = rng.uniform(-1, 1, (3, 128, 128)).astype(np.float32)
    got, wanted = composite(texture, background, a, b), in_torch(texture, background, a, b)
    assert got.shape == (256, 256, 3) and got.dtype == np.float32
    assert np.abs(got - wanted).max() < 1 / 255


def test_on_the_golden_vectors_the_host_torch_and_the_file_agree_within_one_part_in_255():
    golden, _ = Bundle.open().golden()
    texture, background = to_float(golden["composite_texture"]), to_float(golden["composite_background"])
    a, b = golden["layers_a"][0].astype(np.float32), golden["layers_b"][0].astype(np.float32)
    got = composite(texture, background, a, b)
    assert np.abs(got - in_torch(texture, background, a, b)).max() < 1 / 255
    assert np.abs(got - golden["composed"].astype(np.float32)).max() < 1 / 255


def test_zero_flow_leaves_a_checkerboard_of_single_pixels_exactly_unchanged():
    board = np.where(np.indices((256, 256)).sum(0) % 2, 1, -1).astype(np.float32)
    texture = np.repeat(board[..., None], 3, 2)
    np.testing.assert_array_equal(composite(texture, np.zeros_like(texture), *still(64)), texture)


@pytest.mark.parametrize(("right", "down"), [(1, 0), (0, 1), (-3, 5), (17, -40)])
def test_a_flow_of_whole_pixels_shifts_the_texture_and_repeats_its_border(right, down):
    side = 64
    texture = noise(side)
    # A pixel is 2 / side of [-1, 1]. The flow says where to read, so the picture goes the other way.
    got = composite(texture, np.zeros_like(texture), *still(32, right * 2 / side, down * 2 / side))
    rows, columns = (np.clip(np.arange(side) + by, 0, side - 1) for by in (down, right))
    np.testing.assert_allclose(got, texture[rows][:, columns], atol=1e-4)


def test_half_a_pixel_of_flow_is_the_mean_of_two_neighbours():
    side = 64
    texture = noise(side)
    got = composite(texture, np.zeros_like(texture), *still(64, 1 / side))
    wanted = (texture[:, :-1] + texture[:, 1:]) / 2
    np.testing.assert_allclose(got[:, :-1], wanted, atol=1e-4)


def test_mask_zero_shows_the_background_and_gate_zero_the_low_frequencies():
    texture, background = noise(64), noise(64, seed=1)
    lf = planes([0.25, -0.5, 0.75], 128)
    np.testing.assert_array_equal(composite(texture, background, planes([0, 0, 1, 0], 64), lf), background)
    got = composite(texture, background, planes([0, 0, 0, 1], 64), lf)
    np.testing.assert_allclose(got, np.broadcast_to(np.float32([0.25, -0.5, 0.75]), got.shape), atol=1e-6)


def test_inputs_are_not_changed_and_the_result_is_fresh():
    texture, background = noise(64), noise(64, seed=1)
    a, b = still(64)
    inputs = [texture, background, a, b]
    before = [x.copy() for x in inputs]
    first = composite(*inputs)
    kept = first.copy()
    second = composite(noise(64, seed=2), *inputs[1:])
    assert not any(np.shares_memory(out, x) for out in (first, second) for x in inputs)
    np.testing.assert_array_equal(first, kept)
    for value, was in zip(inputs, before, strict=True):
        np.testing.assert_array_equal(value, was)
    rgb = to_rgb(first)
    assert not np.shares_memory(rgb, first)
    np.testing.assert_array_equal(first, kept)


def test_RU4_to_rgb_clamps_before_it_casts_and_makes_black_of_what_is_no_number():
    frame = np.array([1.7, 1e9, np.inf, -3, -1e9, -np.inf, np.nan, 1, -1], np.float32)
    assert to_rgb(frame).dtype == np.uint8
    assert to_rgb(frame).tolist() == [255, 255, 255, 0, 0, 0, 0, 255, 0]


def test_RU4_to_rgb_takes_the_nearest_level_and_never_the_one_below():
    exact = np.linspace(0, 255, 5101)  # every fiftieth of a level, half-way values too
    got = to_rgb((exact / 127.5 - 1).astype(np.float32)).astype(float)
    assert np.abs(got - exact).max() <= 0.5 + 1e-4
    assert to_rgb(np.float32([0]))[0] == 128  # 127.5


def test_every_level_comes_back_from_floats_as_it_went():
    levels = np.arange(256, dtype=np.uint8)
    floats = to_float(levels)
    assert floats.dtype == np.float32 and floats[0] == -1 and floats[255] == 1
    np.testing.assert_array_equal(to_rgb(floats), levels)


def test_threads_of_opencv_do_not_change_a_value():
    texture, background = noise(256), noise(256, seed=1)
    a, b = planes([0.01, -0.02, 0.9, 0.8], 64), planes([0.1, 0.1, 0.1], 128)
    threads = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        one = composite(texture, background, a, b)
        cv2.setNumThreads(4)
        np.testing.assert_array_equal(composite(texture, background, a, b), one)
    finally:
        cv2.setNumThreads(threads)
