"""LPIPS, against numbers of its authors' own package."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.data import astronaut
from torch.nn import functional as F

from mobile_bilayer.errors import MobileBilayerError

pytest.importorskip("torchmetrics", reason="LPIPS takes its heads from torchmetrics")
from mobile_bilayer.perceptual import Lpips, squeezenet_weights

WEIGHTS = "squeezenet1_1_features.npz"
needs_weights = pytest.mark.skipif(
    not (Path(os.environ.get("MOBILE_BILAYER_MODELS", "")) / WEIGHTS).is_file(),
    reason=f"MOBILE_BILAYER_MODELS names no folder with {WEIGHTS}",
)


@pytest.fixture(scope="module")
def lpips() -> Lpips:
    return Lpips()


def part(start: int, end: int) -> torch.Tensor:
    """(1, 3, S, S) in [-1, 1], a square of the astronaut's picture."""
    rgb = astronaut()[start:end, start:end]
    return torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 127.5 - 1


# By richzhang's lpips 0.1.4, LPIPS(net="squeeze", version="0.1"), on torchvision's SqueezeNet 1.1.
@needs_weights
@pytest.mark.parametrize(
    ("start", "end", "mirrored", "faded"),
    [(0, 256, 0.5742715, 0.0279935), (100, 291, 0.5864787, 0.0268631)],  # an odd side: pooling rounds up
)
def test_distances_are_those_of_the_authors(lpips, start, end, mirrored, faded):
    picture = part(start, end)
    with torch.no_grad():
        assert lpips(picture, picture.flip(-1)).item() == pytest.approx(mirrored, abs=2e-5)
        assert lpips(picture, picture * 0.5).item() == pytest.approx(faded, abs=2e-5)


@needs_weights
def test_equal_pictures_are_at_no_distance_and_noise_adds_to_it(lpips):
    picture = part(160, 256)
    noise = torch.randn(picture.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        distances = [lpips(picture + share * noise, picture).item() for share in (0, 0.05, 0.2, 0.8)]
    assert distances[0] == 0 and distances == sorted(distances) and distances[3] > 0.3


@needs_weights
def test_each_picture_of_a_batch_has_its_own_distance(lpips):
    first, second = part(160, 256), part(100, 196)
    with torch.no_grad():
        both = lpips(torch.cat([first, second]), torch.cat([second, second]))
        assert both.shape == (2,) and both[1] == 0
        torch.testing.assert_close(both[0], lpips(first, second)[0])


@needs_weights
def test_a_weight_map_ignores_what_it_leaves_out(lpips):
    picture = part(0, 256)
    changed = picture.clone()
    changed[..., :48] = -picture[..., :48]
    weight = torch.zeros(1, 1, 256, 256)
    weight[..., 208:] = 1  # farther from the change than the last layer sees
    with torch.no_grad():
        assert lpips(changed, picture) > 0.05
        assert lpips(changed, picture, weight) < 1e-6
        assert lpips(changed, picture, 1 - weight) > lpips(changed, picture)


@needs_weights
def test_an_even_weight_map_is_no_weight_map(lpips):
    first, second = part(160, 256), part(100, 196)
    with torch.no_grad():
        torch.testing.assert_close(lpips(first, second, torch.full((1, 1, 96, 96), 3.0)), lpips(first, second))


@needs_weights
def test_gradients_reach_the_first_picture_only(lpips):
    first, second = part(160, 256).requires_grad_(), part(100, 196).requires_grad_()
    lpips(first, second).sum().backward()
    assert first.grad.abs().max() > 0 and second.grad is None
    assert not any(p.requires_grad for p in lpips.parameters())


@needs_weights
def test_the_gradient_is_a_number_where_no_feature_fires():
    lpips = Lpips()
    for name, value in lpips.named_parameters():
        if name.endswith("bias"):
            value.fill_(-100)
    first = part(192, 256).requires_grad_()
    lpips(first, part(100, 164)).sum().backward()
    assert torch.isfinite(first.grad).all()


@needs_weights
def test_the_gradient_is_the_slope_of_the_distance():
    noise = torch.rand(2, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).double()  # pooling sees no ties
    first, second = part(192, 256) + 0.1 * noise[0], part(180, 244) + 0.1 * noise[1]
    lpips = Lpips().double()
    first.requires_grad_()
    start = lpips(first, second)
    (slope,) = torch.autograd.grad(start.sum(), first)
    way = F.normalize(slope.flatten(), dim=0).reshape(slope.shape)
    with torch.no_grad():
        quotient = (lpips(first + 1e-7 * way, second) - lpips(first - 1e-7 * way, second)) / 2e-7
    torch.testing.assert_close(quotient.sum(), (slope * way).sum(), rtol=1e-3, atol=0)


def test_damaged_weights_are_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MOBILE_BILAYER_MODELS", str(tmp_path))
    np.savez(tmp_path / WEIGHTS, **{"features.0.weight": np.zeros(1000, np.float32)})
    whole = (tmp_path / WEIGHTS).read_bytes()
    for content in (b"", b"not an archive", whole[:-200]):
        (tmp_path / WEIGHTS).write_bytes(content)
        with pytest.raises(MobileBilayerError, match=WEIGHTS):
            squeezenet_weights()
