"""A lean student out of one that is not: its U-Net learns what the other's gives, all else stays bit by bit."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning_fabric", reason="training needs mobile-bilayer[train]")
from mobile_bilayer.export.card import model_card
from torch.utils.data import default_collate

from mobile_bilayer.compositing import Layers, composite
from mobile_bilayer.dataset.pairs import NO_AUGMENTATION, Pairs, load_clips, to_tensors
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.student.network import Student, StudentConfig
from mobile_bilayer.student.weights import load_student, save_student
from mobile_bilayer.training.lean import Beneath, LeanTraining, label_losses, layers_of, lean_losses, train_lean

TINY = StudentConfig((6, 8, 8, 8), (12, 8, 8, 8), features=4, codes=4, fine_codes=2, sigma_lid=0.025, sigma_mouth=0.025)


@pytest.fixture
def start(tmp_path) -> Path:
    torch.manual_seed(0)
    student = Student(TINY)
    with torch.no_grad():
        student.frame.heads.weight.normal_(std=0.1)
    path = tmp_path / "start.safetensors"
    save_student(student, path, {"steps": 7})
    return path


@pytest.fixture
def prepared(tmp_path, write_clip) -> Path:
    (tmp_path / "clips").mkdir()
    for name in ("anna", "ben"):
        write_clip(tmp_path / "clips" / f"{name}.safetensors", identity=name, count=6)
    return tmp_path / "clips"


def batch_of(prepared: Path) -> dict[str, torch.Tensor]:
    data = Pairs(load_clips(prepared), 2, NO_AUGMENTATION, 0)
    return to_tensors(default_collate([data[i] for i in range(2)]))


def test_what_lies_beneath_gives_the_layers_that_the_student_gives(start, prepared):
    student, batch = load_student(start)[0], batch_of(prepared)
    given, old = Beneath(student)(batch)
    with torch.no_grad():
        whole, _, _ = student(batch["image"], batch["source_points"], batch["points"])
        again = layers_of(student.frame, *given)
    for ours in (old, again):
        for layer, wanted in zip(ours, whole, strict=True):
            torch.testing.assert_close(layer, wanted, atol=1e-6, rtol=1e-5)
    assert sum(lean_losses(old, old, batch, LeanTraining()).values()) == 0


@pytest.mark.parametrize(("layer", "channel", "term"), [("a", 0, "flow"), ("a", 2, "shares"), ("a", 3, "shares"), ("b", 1, "paint")])
def test_each_layer_has_a_term_and_all_are_seen_in_the_picture(start, prepared, layer, channel, term):
    batch = batch_of(prepared)
    _, old = Beneath(load_student(start)[0])(batch)
    other = Layers(old.a.clone(), old.b.clone())
    getattr(other, layer)[:, channel] -= 0.1
    terms = {name: float(value) for name, value in lean_losses(other, old, batch, LeanTraining()).items()}
    assert {name for name, value in terms.items() if value > 1e-6} == {term, "picture"}


def test_a_run_comes_nearer_and_changes_the_unet_alone(start, prepared, tmp_path):
    training = LeanTraining(sources=2, held_out=1, warm_up_steps=1, ema=0.5)
    path = train_lean(prepared, tmp_path / "run", start, training, steps=3, workers=0)
    log = (tmp_path / "run" / "log.csv").read_text().splitlines()
    path = train_lean(prepared, tmp_path / "run", start, training, steps=25, workers=0)  # goes on
    assert (tmp_path / "run" / "log.csv").read_text().splitlines()[: len(log)] == log
    (lean, facts), before = load_student(path), load_student(start)[0]
    assert lean.config == replace(TINY, lean=True)
    assert facts["steps"] == 7 and [leg["steps"] for leg in facts["lean"]] == [25]
    for name, value in before.state_dict().items():
        if not name.startswith(("frame.trunk.", "frame.top.", "frame.heads.")):
            torch.testing.assert_close(lean.state_dict()[name], value)
    rows = [dict(zip(log[0].split(","), map(float, row.split(",")), strict=True)) for row in
            (tmp_path / "run" / "log.csv").read_text().splitlines()[1:]]  # fmt: skip
    assert rows[-1]["psnr_db"] > rows[0]["psnr_db"] + 1
    assert (tmp_path / "run/sheet-000025.png").is_file()
    assert f"Then made lean**: 25 steps, 100 pairs of 2 people, {facts['lean'][0]['minutes']} minutes" in model_card(lean, facts)


def test_a_second_run_learns_from_a_teacher_too(start, prepared, tmp_path):
    training = LeanTraining(sources=2, held_out=1, warm_up_steps=1, labelled=1)
    first = train_lean(prepared, tmp_path / "first", start, training, steps=1, workers=0)
    options = {"begin": first, "teacher": start, "labels": 2, "workers": 0}
    path = train_lean(prepared, tmp_path / "second", start, training, steps=2, **options)
    header, *rows = (tmp_path / "second/log.csv").read_text().splitlines()
    assert float(rows[-1].split(",")[header.split(",").index("loss_label_picture")]) > 0
    assert [(leg["steps"], leg["labels"]) for leg in load_student(path)[1]["lean"]] == [(1, 0), (2, 2)]
    with pytest.raises(MobileBilayerError, match="other settings"):
        train_lean(prepared, tmp_path / "second", start, training, steps=3, **options | {"labels": 3})
    torch.manual_seed(1)
    other = tmp_path / "other.safetensors"
    save_student(Student(replace(TINY, lean=True)), other, {})
    with pytest.raises(MobileBilayerError, match=r"other\.safetensors is not a lean student made out of"):
        train_lean(prepared, tmp_path / "third", start, training, steps=1, begin=other)


def test_pictures_count_as_the_teacher_has_them(start, prepared):
    """Of a teacher that shows what the student shows there is nothing to learn."""
    student, training = load_student(start)[0], LeanTraining()
    batch = batch_of(prepared)
    one = {name: value[::2] for name, value in batch.items() if len(value) == 4} | {
        name: value for name, value in batch.items() if len(value) == 2
    }
    one["points"] = one["points"][:, None]
    beneath = Beneath(student)
    with torch.no_grad():
        layers, _, _ = student(one["image"], one["source_points"], one["points"][:, 0])
        one["target"] = (composite(one["image"] * 2 - 1, one["background"] * 2 - 1, layers) + 1) / 2
        same = label_losses(student.frame, beneath, one, training)
        one["target"] = one["target"] + 0.05
        brighter = label_losses(student.frame, beneath, one, training)
    assert all(float(term) < 1e-5 for term in same.values())
    assert float(brighter["label_picture"]) == pytest.approx(training.labels * 0.1, rel=1e-4)
    assert all(float(brighter[name]) < 1e-5 for name in same if name != "label_picture")


def test_what_is_lean_already_is_refused(start, prepared, tmp_path):
    path = tmp_path / "lean.safetensors"
    save_student(Student(replace(TINY, lean=True)), path, {})
    with pytest.raises(MobileBilayerError, match="lean already"):
        train_lean(prepared, tmp_path / "run", path, LeanTraining(), steps=1)
    assert not (tmp_path / "run").exists()


def test_training_needs_a_rate():
    with pytest.raises(MobileBilayerError, match="learning_rate is 0"):
        LeanTraining(learning_rate=0)
