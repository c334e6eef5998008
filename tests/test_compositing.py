"""The formula, by hand."""

import pytest
import torch
from torch.nn import functional as F

from mobile_bilayer.compositing import Layers, bilinear_matrix, composite, resize


def checkerboard(side_px: int = 256) -> torch.Tensor:
    """(1, 3, H, H) of single pixels at -1 and 1; the channels differ in sign and shade."""
    board = (torch.arange(side_px)[:, None] + torch.arange(side_px)) % 2 * 2.0 - 1
    return torch.stack([board, -board, 0.5 * board])[None]


def constant_layers(flow=(0.0, 0.0), gate=1.0, mask=1.0, lf=0.0) -> Layers:
    a = torch.tensor([*flow, gate, mask]).reshape(1, 4, 1, 1).repeat(1, 1, 64, 64)
    return Layers(a, torch.full((1, 3, 128, 128), lf))


def test_zero_flow_leaves_single_pixels_unchanged():
    texture = checkerboard()
    out = composite(texture, torch.zeros_like(texture), constant_layers())
    assert torch.equal(out, texture)


@pytest.mark.parametrize(("right", "down"), [(3, 0), (0, 5), (-2, 7)])
def test_a_flow_of_whole_pixels_reads_that_many_pixels_away(right, down):
    texture = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0)) * 2 - 1
    flow = (right * 2 / 256, down * 2 / 256)  # the frame's 256 pixels span [-1, 1]
    out = composite(texture, torch.zeros_like(texture), constant_layers(flow))
    rows, columns = (torch.arange(256) + down).clamp(0, 255), (torch.arange(256) + right).clamp(0, 255)
    want = texture[:, :, rows][:, :, :, columns]  # with the border repeated
    torch.testing.assert_close(out, want, rtol=0, atol=1e-5)


def test_half_a_pixel_of_flow_reads_the_mean_of_two():
    texture = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    out = composite(texture, torch.zeros_like(texture), constant_layers((1 / 256, 0)))
    torch.testing.assert_close(out[..., :-1], (texture[..., :-1] + texture[..., 1:]) / 2, rtol=0, atol=1e-5)


def test_gate_lf_and_mask_join_as_written():
    texture, background = torch.full((1, 3, 256, 256), 0.5), torch.full((1, 3, 256, 256), -0.4)
    out = composite(texture, background, constant_layers(gate=0.8, mask=0.75, lf=0.1))
    # head = 0.8 * 0.5 + 0.1 = 0.5; rgb = 0.75 * 0.5 + 0.25 * -0.4 = 0.275
    torch.testing.assert_close(out, torch.full_like(out, 0.275))


def test_what_is_out_of_range_stays_visible_to_losses():
    texture = torch.ones(1, 3, 256, 256)
    out = composite(texture, texture, constant_layers(lf=0.5))
    torch.testing.assert_close(out, torch.full_like(out, 1.5))


@pytest.mark.parametrize(("small", "large"), [(64, 256), (128, 256), (3, 7), (8, 4)])
def test_resizing_equals_pytorchs_bilinear(small, large):
    x = torch.randn(2, 4, small, small, generator=torch.Generator().manual_seed(2))
    want = F.interpolate(x, size=large, mode="bilinear", align_corners=False)
    torch.testing.assert_close(resize(x, large), want, rtol=0, atol=1e-5)


def test_doubling_two_pixels_by_hand():
    # Centres of the four lie at -0.25, 0.25, 0.75, 1.25 of the two's places 0 and 1.
    want = torch.tensor([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    torch.testing.assert_close(bilinear_matrix(4, 2), want)


def test_inputs_are_left_unchanged_and_gradients_reach_every_layer():
    texture, layers = checkerboard(), constant_layers((0.001, 0.002), gate=0.9, mask=0.9, lf=0.1)
    background = torch.zeros_like(texture)
    before = [x.clone() for x in (texture, *layers, background)]
    for x in layers:
        x.requires_grad_()
    composite(texture, background, layers).square().sum().backward()
    assert all(map(torch.equal, (texture, *layers, background), before))
    assert (layers.a.grad.abs().amax((0, 2, 3)) > 0).all() and layers.b.grad.abs().max() > 0
