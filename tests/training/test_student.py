"""Training a tiny student on clips made of numbers."""

import csv
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("lightning_fabric", reason="training needs mobile-bilayer[train]")
from mobile_bilayer.capture.images import read_image
from mobile_bilayer.dataset.pairs import NO_AUGMENTATION, PreparedClip
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.crop import head_crop
from mobile_bilayer.pose.landmarks import MESH
from mobile_bilayer.student.network import StudentConfig
from mobile_bilayer.student.weights import load_student
from mobile_bilayer.training import student as training_student
from mobile_bilayer.training.run import split
from mobile_bilayer.training.student import TrainingConfig, train_student, validation_batch

needs_weights = pytest.mark.skipif(
    not (Path(os.environ.get("MOBILE_BILAYER_MODELS", "")) / "squeezenet1_1_features.npz").is_file(),
    reason="MOBILE_BILAYER_MODELS names no folder with squeezenet1_1_features.npz",
)
TINY = StudentConfig(frame_widths=(4, 4, 8, 8), encoder_widths=(12, 8, 8, 8), features=4, codes=4, paint_width=4)
SHORT = TrainingConfig(sources=1, targets=2, warm_up_steps=1, lpips_px=64, held_out=1, learning_rate=3e-3)


@pytest.fixture(autouse=True)
def two_pairs_to_validate_on(monkeypatch):
    """Not twelve."""
    monkeypatch.setattr(training_student, "validation_batch", lambda held, _, seed: validation_batch(held, 2, seed))


def log(out: Path) -> list[dict[str, float]]:
    with (out / "log.csv").open(newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def train(prepared: Path, out: Path, steps: int, config: StudentConfig = TINY, **options) -> Path:
    return train_student(prepared, out, config, SHORT, NO_AUGMENTATION, steps=steps, workers=0, **options)


@needs_weights
def test_training_writes_what_it_says_and_goes_on_where_it_stopped(prepared, tmp_path):
    out = tmp_path / "run"
    weights = train(prepared, out, steps=2)
    assert {path.name for path in out.iterdir()} == {
        ".lock",
        "checkpoint.pt",
        "student.safetensors",
        "log.csv",
        "sheet-000000.png",
        "sheet-000002.png",
    }
    assert weights == out / "student.safetensors"
    first, facts = load_student(weights)
    assert (facts["steps"], facts["pairs"], facts["clips"], facts["identities"]) == (2, 4, 2, 2)
    assert first.config == TINY
    # Two pairs under each other; source, target, render, error and gate beside each other.
    height, width, _ = read_image(out / "sheet-000002.png").shape
    assert height / width == pytest.approx(2 / 5, rel=0.01)
    momentum = torch.load(out / "checkpoint.pt", weights_only=True)["optimizer"]["state"][0]["exp_avg"]

    train(prepared, out, steps=4)
    assert [row["step"] for row in log(out)] == [0, 2, 4]
    state = torch.load(out / "checkpoint.pt", weights_only=True)
    assert state["step"] == 4 and state["optimizer"]["state"][0]["step"] == 4  # not begun anew
    assert not torch.equal(state["optimizer"]["state"][0]["exp_avg"], momentum)
    second, facts = load_student(weights)
    assert facts["steps"] == 4
    assert any(not torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))

    train(prepared, out, steps=4)  # done already
    done = torch.load(out / "checkpoint.pt", weights_only=True)
    assert done["step"] == 4 and all(map(torch.equal, done["student"].values(), state["student"].values()))


@needs_weights
def test_a_few_steps_bring_the_loss_down(tmp_path, write_clip):
    """One pair, seen again and again; batch norm stands still, so that validation sees what training does."""
    folder = tmp_path / "prepared"
    folder.mkdir()
    write_clip(folder / "anna.safetensors", count=2)
    out = tmp_path / "run"
    training = replace(SHORT, learning_rate=5e-3, targets=1, ema=0.5, frozen_norm=1.0)
    train_student(folder, out, TINY, training, NO_AUGMENTATION, steps=120, workers=0)
    rows = log(out)
    assert rows[-1]["l1"] < 0.8 * rows[0]["l1"]
    assert rows[-1]["lpips"] < rows[0]["lpips"]


@needs_weights
def test_a_checkpoint_of_another_shape_is_refused(prepared, tmp_path):
    train(prepared, tmp_path / "run", steps=1)
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    with pytest.raises(MobileBilayerError, match=r"checkpoint\.pt.*another shape"):
        train(prepared, tmp_path / "run", steps=2, config=replace(TINY, codes=5))
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before


@needs_weights
def test_training_can_begin_with_given_weights(prepared, tmp_path):
    start = train(prepared, tmp_path / "first", steps=2)
    train(prepared, tmp_path / "second", steps=1, start=start)
    assert log(tmp_path / "second")[0]["l1"] == pytest.approx(log(tmp_path / "first")[1]["l1"], abs=2e-4)
    with pytest.raises(MobileBilayerError, match="codes can't change"):
        train(prepared, tmp_path / "third", 1, replace(TINY, codes=5), start=start)


@needs_weights
def test_training_can_begin_with_a_narrower_student(prepared, tmp_path):
    start = train(prepared, tmp_path / "first", steps=2)
    wide = replace(TINY, frame_widths=(5, 6, 9, 8))
    path = train(prepared, tmp_path / "second", 1, wide, start=start)
    assert log(tmp_path / "second")[0]["l1"] == pytest.approx(log(tmp_path / "first")[1]["l1"], abs=2e-4)
    assert load_student(path)[0].config == wide


def test_training_needs_an_end(prepared, tmp_path):
    with pytest.raises(MobileBilayerError, match="--steps"):
        train_student(prepared, tmp_path / "run", TINY, SHORT)
    assert not (tmp_path / "run").exists()


@needs_weights
def test_training_needs_clips(tmp_path):
    with pytest.raises(MobileBilayerError, match="no prepared clips"):
        train(tmp_path / "absent", tmp_path / "run", steps=1)


@pytest.mark.parametrize("name", ["sources", "targets", "learning_rate", "lpips_px"])
def test_settings_that_train_nothing_are_refused(name):
    with pytest.raises(MobileBilayerError, match=name):
        TrainingConfig(**{name: 0})


@pytest.mark.parametrize("settings", [{"outside": 1.5}, {"outside": -0.1}])
def test_weights_that_mean_nothing_are_refused(settings):
    with pytest.raises(MobileBilayerError, match=f"{next(iter(settings))} "):
        TrainingConfig(**settings)


def test_people_kept_for_validation_are_not_trained_on(tmp_path, write_clip):
    clips = [PreparedClip(write_clip(tmp_path / f"{i}", identity=f"person {i // 2}", count=2)) for i in range(16)]
    training, held = split(clips, held_out=2)
    people = [{clip.identity for clip in part} for part in (training, held)]
    assert len(people[1]) == 2 and len(people[0]) == 6 and not people[0] & people[1]
    assert len(training) + len(held) == 16
    assert split(clips[:6], held_out=2) == (clips[:6], clips[:6])  # too few people to spare any


def test_validation_shows_each_clip_against_its_most_different_frame(prepared):
    clips = [PreparedClip(path) for path in sorted(prepared.iterdir())]
    batch = validation_batch(clips, pairs=2, seed=0)
    assert batch["image"].shape == (2, 3, 256, 256) and batch["target"].shape == (2, 3, 256, 256)
    again = validation_batch(clips, pairs=2, seed=0)
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    nose = MESH.index(1)
    ways = (batch["points"] - batch["source_points"])[:, nose]
    for way, clip in zip(ways, clips, strict=True):
        farthest = np.abs(clip.pose - clip.pose[0]).mean(1).argmax()
        pixels = clip.landmarks[farthest, 1, :2] - clip.landmarks[0, 1, :2]
        np.testing.assert_allclose(way, pixels / head_crop(clip.landmarks[0]).half_px, atol=1e-4)
