"""The discriminator against its layers written out one by one."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.training.discriminator import DiscriminatorConfig, PatchDiscriminator

NARROW = DiscriminatorConfig(image_px=32, scores_px=8, blocks=4, width=2, max_width=6)


def pictures(count: int, side_px: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    both = torch.rand(2, count, 3, side_px, side_px, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return both[0], both[1]


def test_six_blocks_halve_a_picture_to_8_px_and_then_keep_its_size():
    config = DiscriminatorConfig(image_px=64, width=4, max_width=12)
    scores, features = PatchDiscriminator(config)(*pictures(2, 64))
    assert scores.shape == (2, 1, 8, 8)
    assert [tuple(f.shape) for f in features] == [
        (2, 8, 32, 32), (2, 12, 16, 16), (2, 12, 8, 8), (2, 12, 8, 8), (2, 12, 8, 8), (2, 12, 8, 8)
    ]  # fmt: skip


def test_by_default_channels_double_from_64_to_512():
    critic = PatchDiscriminator(DiscriminatorConfig())
    assert critic.first.weight.shape == (64, 6, 3, 3)
    with torch.no_grad():
        scores, features = critic(*pictures(1, 64))  # an eighth of 8 px of a side of 256
    assert [f.shape[1:] for f in features] == [
        (128, 32, 32), (256, 16, 16), (512, 8, 8), (512, 4, 4), (512, 2, 2), (512, 2, 2)
    ]  # fmt: skip
    assert scores.shape == (1, 1, 2, 2)
    # First; five blocks that halve; one that keeps its size, without a 1x1; score.
    widths = [(64, 128), (128, 256), (256, 512), (512, 512), (512, 512)]
    blocks = sum(9 * (a * b + b * b) + a * b + 3 * b for a, b in widths)
    wanted = (9 * 6 * 64 + 64) + blocks + 2 * (9 * 512 * 512 + 512) + (512 + 1)
    assert sum(p.numel() for p in critic.parameters()) == wanted


def test_scores_and_features_are_those_of_the_papers_blocks():
    critic = PatchDiscriminator(NARROW).eval()
    image, stickman = pictures(2, 32)

    def conv(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(x, layer.weight, layer.bias, padding=layer.weight.shape[-1] // 2)

    with torch.no_grad():
        scores, features = critic(image, stickman)
        x, wanted = conv(critic.first, torch.cat([image, stickman], 1)), []
        for block, halves in zip(critic.blocks, (True, True, False, False), strict=True):
            y = conv(block.conv2, F.leaky_relu(conv(block.conv1, F.leaky_relu(x, 0.2)), 0.2))
            x = F.avg_pool2d(y, 2) + F.avg_pool2d(conv(block.skip, x), 2) if halves else y + x
            wanted.append(x)
        torch.testing.assert_close(features, wanted)
        torch.testing.assert_close(scores, conv(critic.score, F.leaky_relu(x, 0.2)))


def test_every_convolution_stretches_nothing_by_more_than_one():
    critic = PatchDiscriminator(NARROW)
    with torch.no_grad():
        for p in critic.parameters():
            p.mul_(3)
        for _ in range(60):  # each call brings the estimate nearer
            critic(*pictures(1, 32))
    convolutions = [module for module in critic.modules() if isinstance(module, nn.Conv2d)]
    assert len(convolutions) == 12
    for layer in convolutions:
        norm = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), ord=2)
        assert norm.item() == pytest.approx(1, abs=0.02)


def test_both_the_image_and_the_stickman_count():
    critic = PatchDiscriminator(NARROW).eval()
    image, stickman = pictures(1, 32)
    other, _ = pictures(1, 32, seed=1)
    with torch.no_grad():
        first = critic(image, stickman)[0]
        assert not torch.allclose(first, critic(other, stickman)[0])
        assert not torch.allclose(first, critic(image, other)[0])


def test_a_window_is_scored_by_the_same_network():
    scores, features = PatchDiscriminator(NARROW)(*pictures(1, 24))
    assert scores.shape == (1, 1, 6, 6) and features[0].shape == (1, 4, 12, 12)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"image_px": 250}, "image_px"),
        ({"image_px": 0}, "image_px"),
        ({"image_px": 1024}, "image_px"),  # seven halvings, six blocks
        ({"scores_px": 0}, "scores_px"),
        ({"blocks": 0}, "blocks"),
        ({"width": 0}, "width"),
        ({"max_width": -1}, "max_width"),
    ],
)
def test_shapes_that_make_no_network_are_refused(values, named):
    with pytest.raises(MobileBilayerError, match=named):
        DiscriminatorConfig(**values)
