"""What training gets from a prepared folder: the same batches after a resume, and plain words for a damaged clip."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("lightning_fabric", reason="training needs mobile-bilayer[train]")
from lightning_fabric import Fabric

from mobile_bilayer.dataset.pairs import Augmentation, Pairs, load_clips
from mobile_bilayer.dataset.shards import read_index, write_tar
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.student.network import StudentConfig
from mobile_bilayer.training import student as training_student
from mobile_bilayer.training.run import batches
from mobile_bilayer.training.student import TrainingConfig, train_student, validation_batch

needs_weights = pytest.mark.skipif(
    not (Path(os.environ.get("MOBILE_BILAYER_MODELS", "")) / "squeezenet1_1_features.npz").is_file(),
    reason="MOBILE_BILAYER_MODELS names no folder with squeezenet1_1_features.npz",
)
TINY = StudentConfig(frame_widths=(4, 4, 8, 8), encoder_widths=(12, 8, 8, 8), features=4, codes=4, paint_width=4)


@pytest.fixture
def prepared(tmp_path, write_clip) -> Path:
    clips = [write_clip(tmp_path / f"{name}.safetensors", name, count=4, encoded=True) for name in ("anna", "ben")]
    (tmp_path / "prepared").mkdir()
    write_tar(tmp_path / "prepared" / "clips.tar", clips, {})
    return tmp_path / "prepared"


@needs_weights
def test_a_resumed_run_sees_what_an_unbroken_one_sees(prepared, tmp_path, monkeypatch):
    seen, losses = [], training_student.losses
    monkeypatch.setattr(training_student, "validation_batch", lambda held, _, seed: validation_batch(held, 1, seed))
    monkeypatch.setattr(
        training_student, "losses", lambda *given: seen.append((given[4], given[-1])) or losses(*given)
    )
    training = TrainingConfig(sources=2, targets=1, warm_up_steps=1, lpips_px=64, held_out=0, seed=7)
    try:
        for out, steps in (("unbroken", 4), ("resumed", 1), ("resumed", 4)):
            train_student(prepared, tmp_path / out, TINY, training, steps=steps, workers=0)
    finally:
        torch.set_flush_denormal(False)
    assert len(seen) == 8
    for (want, corner), (batch, again) in zip(seen[:4], seen[4:], strict=True):
        assert corner == again and all(torch.equal(want[name], batch[name]) for name in want)
    images = [batch["image"].numpy().tobytes() for batch, _ in seen[:4]]
    assert len(set(images)) == 4 and len({corner for _, corner in seen}) > 1


def test_a_clip_that_a_worker_finds_damaged_is_told_without_a_traceback(prepared):
    for entry in read_index(prepared / "clips.tar")[0]:
        with entry.path.open("r+b") as file:
            file.seek(entry.offset)
            file.write(np.uint64(2**40).tobytes())
    data = Pairs(load_clips(prepared), 1, Augmentation(), seed=0)
    fabric = Fabric(accelerator="cpu", devices=1)
    with pytest.raises(MobileBilayerError, match=r"^\S*clips\.tar is not what.*Delete it and prepare it again\.$"):
        next(batches(data, first_step=0, sources=1, workers=1, fabric=fabric))
