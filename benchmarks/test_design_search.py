"""The table of the design search tells the truth about what it times."""

import re

import pytest
import torch
from design_search import Part, Trunk, Variant, heads, macs, networks, row, splats
from torch import nn

from mobile_bilayer.student.network import SIZES


def test_multiplications_are_counted_as_in_a_program_where_upsampling_is_none():
    found = {variant.name: macs(variant.module, variant.inputs) for variant in networks()}
    assert found["XS"] < 0.04e9 < found["S"] < 0.06e9 < found["M"] < 0.25e9
    assert set(SIZES) <= set(found)
    layer = nn.Conv2d(4, 8, 3, padding=1, bias=False)
    assert macs(layer, (torch.zeros(1, 4, 16, 16),)) == 4 * 8 * 9 * 256


def test_heads_give_the_same_shapes_but_for_the_one_at_64_pixels():
    shapes = {}
    for variant in heads():
        with torch.no_grad():
            out = variant.module(*variant.inputs)
        shapes[variant.name] = [tuple(x.shape[1:]) for x in out] if isinstance(out, tuple) else [tuple(out.shape[1:])]
    assert shapes.pop("lf at 64 px") == [(7, 64, 64)]
    assert set(map(tuple, shapes.values())) == {((4, 64, 64), (3, 128, 128))}


def test_a_row_has_all_its_numbers():
    x = (torch.randn(1, 8, 16, 16),)
    cells = row(Variant("layers", "one", nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()), x), rounds=2).split("|")[3:-1]
    assert len(cells) == 6 and all(re.fullmatch(r" \d+\.\d+ ", cell) for cell in cells)


@pytest.mark.parametrize("variant", list(splats())[:2], ids=lambda v: v.name)
def test_a_splat_runs_as_it_is_timed(variant):
    points, channels, side = map(int, re.findall(r"\d+", variant.name))
    with torch.no_grad():
        assert variant.module(*variant.inputs).shape == (1, channels, side, side)
    assert variant.inputs[0].shape == (1, channels, points) and isinstance(variant.module, Part)
    assert not isinstance(variant.module, Trunk)
