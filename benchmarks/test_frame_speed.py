"""What one frame costs, part by part, with the shipped bundle and a real photo.

The groups put beside each other what is worth comparing in one run: read the ratios, not the milliseconds.
`pytest benchmarks --benchmark-group-by=group --benchmark-columns=median,iqr,rounds`
"""

import numpy as np
import pytest
import torch

from mobile_bilayer.compositing import Layers
from mobile_bilayer.compositing import composite as composite_torch
from mobile_bilayer.runtime.compositor import to_float
from mobile_bilayer.student.network import FrameNetwork, StudentConfig
from mobile_bilayer.student.splat import gaussians, pixel_centres, splat, square_offsets


@pytest.mark.benchmark(group="splat")
@pytest.mark.parametrize(("channels", "side_px"), [(3, 64), (8, 64), (42, 32)])
def test_splat_in_torch(benchmark, channels, side_px):
    points = torch.rand(1, 2, 144) * 2 - 1
    values, centres = torch.rand(1, channels, 144), pixel_centres(side_px)
    out = benchmark(lambda: splat(values, *gaussians(square_offsets(points, centres), 100.0)))
    assert out.shape == (1, channels, side_px, side_px)


@pytest.mark.benchmark(group="network")
def test_network_as_shipped(benchmark, avatar, track):
    moved = avatar.move(track[100])
    avatar.layers(moved)  # loads the program
    a, b = benchmark(lambda: avatar.layers(moved))
    assert np.isfinite(a).all() and np.isfinite(b).all()


@pytest.mark.benchmark(group="network")
def test_network_in_float_torch(benchmark, avatar, track):
    from mobile_bilayer.pose.head import network_points

    network = FrameNetwork(StudentConfig()).eval()
    features, maps = torch.from_numpy(avatar.landmark_features), torch.from_numpy(avatar.map_features)
    source = torch.from_numpy(network_points(avatar.source_landmarks)[None])
    driving = torch.from_numpy(network_points(avatar.move(track[100]))[None])
    with torch.no_grad():
        layers = benchmark(lambda: network(features, maps, source, driving))
    assert torch.isfinite(layers.a).all()


@pytest.mark.benchmark(group="composite")
def test_composite_on_the_host(benchmark, avatar, track):
    layers = avatar.layers(avatar.move(track[100]))
    rgb = benchmark(lambda: avatar.compose(*layers))
    assert rgb.shape == (256, 256, 3) and rgb.std() > 5


@pytest.mark.benchmark(group="composite")
def test_composite_in_torch(benchmark, avatar, track):
    layers = Layers(*(torch.from_numpy(x)[None] for x in avatar.layers(avatar.move(track[100]))))
    texture = torch.from_numpy(to_float(avatar.texture)).permute(2, 0, 1)[None]
    rgb = benchmark(lambda: (composite_torch(texture, texture, layers).clamp(-1, 1) * 127.5 + 127.5).round().byte())
    assert rgb.shape == (1, 3, 256, 256)


@pytest.mark.benchmark(group="whole frame")
def test_motion_without_the_network(benchmark, avatar, track):
    assert np.isfinite(benchmark(lambda: avatar.move(track[100]))).all()


@pytest.mark.benchmark(group="whole frame")
def test_whole_frame_from_landmarks(benchmark, avatar, track):
    rgb = benchmark(lambda: avatar.render(track[100]))
    assert rgb.shape == (256, 256, 3) and rgb.std() > 5
