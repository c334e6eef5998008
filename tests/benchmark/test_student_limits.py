"""student_limits.py measures what it says."""

import os

import numpy as np
import pytest
import torch
from student_limits import OWN_COLOUR, PHOTO, Measure, errors, share_of_photo

from mobile_bilayer.dataset.pairs import load_clips


def test_a_share_is_of_the_means_and_leaves_out_pairs_without_a_number():
    photo = np.array([[1.0, np.nan], [3.0, 4.0], [2.0, np.nan]])
    shares = share_of_photo(photo * 0.5, photo)
    assert shares == ["0.500 ± 0.000", "0.500 ± 0.000"]
    assert share_of_photo(np.full((3, 2), np.nan), photo) == ["–", "–"]


@pytest.mark.skipif(not os.environ.get("MOBILE_BILAYER_MODELS"), reason="MOBILE_BILAYER_MODELS names no folder with the models")
def test_mouths_that_open_are_measured_where_they_open(tmp_path, write_clip):
    """The drawn lips are of one colour, the same when open: one colour is all there is to know."""
    write_clip(tmp_path / "a.safetensors", count=6)
    with torch.no_grad():
        rows = errors(load_clips(tmp_path), {}, 24, Measure(), lambda done: None)
    opened = ~np.isnan(rows[PHOTO][:, 2])
    assert 0 < opened.sum() < 24 and np.array_equal(opened, ~np.isnan(rows[OWN_COLOUR][:, 2]))
    assert rows[OWN_COLOUR][opened, 2].max() < 0.02 and np.isfinite(rows[PHOTO][:, :2]).all()
