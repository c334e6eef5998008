import os

import numpy as np
import pytest

pytest.importorskip("torchmetrics", reason="LPIPS takes its heads from torchmetrics")

from mobile_bilayer import Bundle
from mobile_bilayer.dataset.pairs import load_clips
from mobile_bilayer.evaluation.fidelity import METRICS, chosen_frames, evaluate_fidelity

needs_weights = pytest.mark.skipif(
    not os.environ.get("MOBILE_BILAYER_MODELS"), reason="SqueezeNet's weights: set MOBILE_BILAYER_MODELS to their folder"
)


def test_frames_are_spread_over_the_clip_and_leave_out_the_source(tmp_path, write_clip):
    write_clip(tmp_path / "a.safetensors", count=9)
    assert chosen_frames(load_clips(tmp_path)[0], 4) == [2, 4, 6, 8]


@needs_weights
def test_a_clip_that_does_not_move_costs_the_static_photo_and_the_warp_nothing(tmp_path, write_clip):
    """The sums are of what is compared: with equal frames everything but the student's int8 noise is zero."""
    path = write_clip(tmp_path / "a.safetensors", count=4)
    from safetensors.numpy import load_file, save_file

    tensors = {name: np.repeat(value[:1], 4, 0) for name, value in load_file(path).items()}
    save_file(tensors, path, {"identity": "anna", "licence": "none", "photos": "0"})
    result = evaluate_fidelity(tmp_path, Bundle.open(), targets=2)
    assert result.pairs == 2 and set(result.table) == {"static photo", "landmark warp", "student"}
    for metric in METRICS:
        assert result.table["static photo"][metric] == pytest.approx(0, abs=1e-6)
        assert result.table["landmark warp"][metric] == pytest.approx(0, abs=2e-3)
        assert 0 < result.table["student"][metric] < 0.3


@needs_weights
def test_a_moving_mouth_costs_the_static_photo_more_than_the_warp(tmp_path, write_clip):
    write_clip(tmp_path / "a.safetensors", count=6)
    result = evaluate_fidelity(tmp_path, Bundle.open(), targets=2)
    static, warp = (result.table[name]["mouth_and_eyes"] for name in ("static photo", "landmark warp"))
    assert static > 1.2 * warp > 0
    assert result.sheet.shape == (256, 5 * 256, 3) and result.sheet.dtype == np.uint8
