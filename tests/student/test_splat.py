"""Weighted averages over landmarks, against sums written out one by one."""

import numpy as np
import torch

from mobile_bilayer.student.splat import gather, gaussians, pixel_centres, splat, square_offsets

BATCH, POINTS, CHANNELS, SIDE = 2, 3, 4, 5


def factors(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """values (B, C, K), wx (B, K, S), wy (B, 1, S, K), without any symmetry."""
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(BATCH, CHANNELS, POINTS)).astype(np.float32)
    wx, wy = rng.uniform(0.1, 1, (2, BATCH, POINTS, SIDE)).astype(np.float32)
    return values, wx, np.ascontiguousarray(wy.transpose(0, 2, 1))[:, None]


def test_pixel_centres_lie_half_a_pixel_inside_the_frame():
    torch.testing.assert_close(pixel_centres(4), torch.tensor([-0.75, -0.25, 0.25, 0.75]))


def test_two_factors_multiply_to_the_gaussian_of_two_dimensions():
    points = torch.tensor([[[0.3, -0.1], [-0.6, 0.2]], [[0.9, 0.0], [0.9, -1.2]]])  # rows of x and of y
    sigma = torch.tensor([[0.2], [0.5]])
    wx, wy = gaussians(square_offsets(points, pixel_centres(SIDE)), 1 / (2 * sigma**2))
    for b in range(2):
        for k in range(2):
            for row in range(SIDE):
                for column in range(SIDE):
                    x, y = -1 + (2 * column + 1) / SIDE, -1 + (2 * row + 1) / SIDE
                    square = (x - points[b, 0, k]) ** 2 + (y - points[b, 1, k]) ** 2
                    want = torch.exp(-square / (2 * sigma[k, 0] ** 2))
                    torch.testing.assert_close(wx[b, k, column] * wy[b, 0, row, k], want)


def test_a_splat_is_the_sum_of_weight_times_value():
    values, wx, wy = factors(seed=0)
    want = np.zeros((BATCH, CHANNELS, SIDE, SIDE))
    for b, c, row, column in np.ndindex(want.shape):
        for k in range(POINTS):
            want[b, c, row, column] += values[b, c, k] * wx[b, k, column] * wy[b, 0, row, k]
    got = splat(*map(torch.from_numpy, (values, wx, wy)))
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_one_set_of_values_serves_a_whole_batch():
    values, wx, wy = map(torch.from_numpy, factors(seed=1))
    one = values[:1]
    torch.testing.assert_close(splat(one, wx, wy), splat(one.repeat(BATCH, 1, 1), wx, wy))


def test_gathering_is_the_weighted_mean_of_the_picture():
    _, wx, wy = factors(seed=2)
    image = np.random.default_rng(3).normal(size=(BATCH, CHANNELS, SIDE, SIDE)).astype(np.float32)
    want = np.zeros((BATCH, POINTS, CHANNELS))
    for b, k, c in np.ndindex(want.shape):
        total = weight = 0.0
        for row in range(SIDE):
            for column in range(SIDE):
                here = wx[b, k, column] * wy[b, 0, row, k]
                total += here * image[b, c, row, column]
                weight += here
        want[b, k, c] = total / weight
    got = gather(*map(torch.from_numpy, (image, wx, wy)))
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)  # its weight starts at 1e-4, against no weight at all


def test_a_landmark_reads_the_pixel_it_lies_on():
    image = torch.arange(2 * SIDE * SIDE, dtype=torch.float32).reshape(1, 2, SIDE, SIDE)
    centres = pixel_centres(SIDE)
    points = torch.stack([centres[3], centres[1]]).reshape(1, 2, 1)  # column 3, row 1
    read = gather(image, *gaussians(square_offsets(points, centres), torch.tensor([[1 / (2 * 0.05**2)]])))
    torch.testing.assert_close(read, image[:, :, 1, 3].reshape(1, 1, 2), rtol=2e-4, atol=1e-3)


def test_a_landmark_far_outside_reads_nothing_and_not_a_number_that_is_none():
    image = torch.ones(1, 2, SIDE, SIDE)
    far = torch.full((1, 2, 1), 50.0)
    read = gather(image, *gaussians(square_offsets(far, pixel_centres(SIDE)), torch.tensor([[200.0]])))
    assert (read == 0).all()
