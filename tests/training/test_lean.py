"""A lean student out of one that is not: its U-Net learns what the other's gives, what is not splatted for it stays bit by bit."""

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
from mobile_bilayer.student.resize import resized
from mobile_bilayer.student.weights import load_student, save_student
from mobile_bilayer.training.lean import (
    LeanTraining,
    all_given,
    both_layers,
    in_small_steps,
    inputs_of,
    label_losses,
    lean_losses,
    lean_of,
    read_alike,
    steady_loss,
    train_lean,
)
from mobile_bilayer.training.student import render

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


def layers_before(start: Path, batch: dict[str, torch.Tensor]) -> Layers:
    student = load_student(start)[0].eval()
    return both_layers(student.frame, student, batch)[1]


def batch_of(prepared: Path) -> dict[str, torch.Tensor]:
    data = Pairs(load_clips(prepared), 2, NO_AUGMENTATION, 0)
    return to_tensors(default_collate([data[i] for i in range(2)]))


def test_the_lean_one_is_held_to_the_layers_that_the_student_gives(start, prepared):
    student, batch = load_student(start)[0].eval(), batch_of(prepared)
    ours = both_layers(student.frame, student, batch)
    with torch.no_grad():
        whole, _, _ = student(batch["image"], batch["source_points"], batch["points"])
    for layers in ours:
        for layer, wanted in zip(layers, whole, strict=True):
            torch.testing.assert_close(layer, wanted, atol=1e-6, rtol=1e-5)
    assert [layers.a.requires_grad for layers in ours] == [True, False]
    assert sum(lean_losses(ours[1], ours[1], torch.zeros(4, 3, 256, 256), batch, LeanTraining()).values()) == 0


@pytest.mark.parametrize(("layer", "channel", "term"), [("a", 0, "flow"), ("a", 2, "shares"), ("a", 3, "shares"), ("b", 1, "paint")])
def test_each_layer_has_a_term_and_all_are_seen_in_the_picture(start, prepared, layer, channel, term):
    batch = batch_of(prepared)
    old = layers_before(start, batch)
    other = Layers(old.a.clone(), old.b.clone())
    getattr(other, layer)[:, channel] -= 0.1
    off = render(other, batch) - render(old, batch)
    terms = {name: float(value) for name, value in lean_losses(other, old, off, batch, LeanTraining()).items()}
    assert {name for name, value in terms.items() if value > 1e-6} == {term, "picture"}


def test_what_is_read_after_splatting_is_what_is_read_before(start, prepared):
    """By it is chosen what a lean one splats."""
    student, batch = load_student(start)[0].eval(), batch_of(prepared)
    features, maps, source, driving = inputs_of(student, batch)
    frame, rows = student.frame, torch.cat([driving, source - driving, features, source], 2).transpose(1, 2)
    with torch.no_grad():
        wanted = frame.splat32(frame.read(frame.given32(rows)), rows[:, :2])
        given = all_given(frame, features, maps, source, driving)
        torch.testing.assert_close(frame.read(given.flatten(2)).unflatten(2, (32, 32)), wanted, atol=1e-5, rtol=1e-4)


def test_what_is_splatted_at_32_px_is_what_tells_most(start, prepared):
    """Of all that a lean one could read there nothing is nearer to what the other reads than what `read_alike` chooses."""
    before = load_student(start)[0]
    lean = resized(before, lean_of(TINY))
    given = all_given(before.frame, *inputs_of(before, batch_of(prepared)))

    def lost() -> float:
        with torch.no_grad():
            read = [frame.spread(frame.read(given.flatten(2)).unflatten(2, (32, 32))) for frame in (before.frame, lean.frame)]
            read[0] -= before.frame.read32.bias.reshape(1, -1, 1, 1)
            return float((read[0] - read[1] + lean.frame.spread32.bias.reshape(1, -1, 1, 1)).square().sum())

    by_weights = lost()
    read_alike(lean.frame, before.frame, given)
    with torch.no_grad():
        values = before.frame.read(given.flatten(2)).transpose(0, 1).flatten(1)
    least = float(torch.linalg.svdvals(values)[lean.config.splatted :].square().sum())
    assert lost() == pytest.approx(least, rel=1e-3)
    assert least < 0.9 * by_weights


def test_targets_lie_behind_each_other_on_a_straight_way(prepared):
    batch = batch_of(prepared)
    first, second = batch["points"].unflatten(0, (2, 2)).unbind(1)
    walked = in_small_steps(batch, torch.tensor([0.1, 0.5]))
    points = walked["points"].unflatten(0, (2, 3))
    torch.testing.assert_close(points[:, 0], first)
    torch.testing.assert_close(points[0, 2], first[0] + 0.2 * (second[0] - first[0]))
    torch.testing.assert_close(points[1, 2], second[1])
    assert all(len(walked[name]) == 6 for name in ("target", "background", "weight")) and len(walked["image"]) == 2
    assert torch.equal(walked["weight"][:3], batch["weight"][:1].expand(3, -1, -1, -1))


def test_an_error_that_changes_evenly_does_not_tremble(start, prepared):
    batch = in_small_steps(batch_of(prepared), torch.tensor([0.1, 0.2]))
    old = layers_before(start, batch)
    training = LeanTraining()

    def loss_of(errors: list[float]) -> float:
        """Of a flow that is so far off in the three targets of each source."""
        new = Layers(old.a.clone(), old.b)
        new.a[:, 0] += torch.tensor(errors * 2)[:, None, None]
        return float(steady_loss(new, old, render(new, batch) - render(old, batch), batch, replace(training, steady=1.0)))

    shown = float((old.a[1::3, 2] * old.a[1::3, 3] + 0.1).mean())
    assert loss_of([0.0, 0.0, 0.0]) == 0
    # As flow alone: what is composed bends a little even so.
    assert loss_of([0.0, 0.01, 0.0]) > 0.005 * shown
    assert loss_of([0.01, 0.02, 0.03]) < 0.3 * loss_of([0.0, 0.01, 0.0])


def test_a_run_comes_nearer_and_changes_the_unet_alone(start, prepared, tmp_path):
    training = LeanTraining(sources=2, held_out=1, warm_up_steps=1, ema=0.5)
    path = train_lean(prepared, tmp_path / "run", start, training, steps=3, workers=0)
    log = (tmp_path / "run" / "log.csv").read_text().splitlines()
    path = train_lean(prepared, tmp_path / "run", start, training, steps=25, workers=0)  # goes on
    assert (tmp_path / "run" / "log.csv").read_text().splitlines()[: len(log)] == log
    (lean, facts), before = load_student(path), load_student(start)[0]
    assert lean.config == lean_of(TINY)
    assert facts["steps"] == 7 and [leg["steps"] for leg in facts["lean"]] == [25]
    for name, value in before.state_dict().items():
        if not name.startswith(("frame.trunk.", "frame.top.", "frame.heads.", "frame.read32.", "frame.fine_codes")):
            torch.testing.assert_close(lean.state_dict()[name], value)
    rows = [dict(zip(log[0].split(","), map(float, row.split(",")), strict=True)) for row in
            (tmp_path / "run" / "log.csv").read_text().splitlines()[1:]]  # fmt: skip
    assert rows[-1]["psnr_db"] > rows[0]["psnr_db"] + 1
    assert (tmp_path / "run/sheet-000025.png").is_file()
    assert f"Then made lean**: 25 steps, 150 pairs of 2 people, {facts['lean'][0]['minutes']} minutes" in model_card(lean, facts)


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
    save_student(Student(lean_of(TINY)), other, {})
    with pytest.raises(MobileBilayerError, match=r"other\.safetensors is not a lean student made out of"):
        train_lean(prepared, tmp_path / "third", start, training, steps=1, begin=other)


def test_pictures_count_as_the_teacher_has_them(start, prepared):
    """Of a teacher that shows what the student shows there is nothing to learn."""
    student, training = load_student(start)[0].eval(), LeanTraining()
    batch = batch_of(prepared)
    one = {name: value[::2] for name, value in batch.items() if len(value) == 4} | {
        name: value for name, value in batch.items() if len(value) == 2
    }
    one["points"] = one["points"][:, None]
    with torch.no_grad():
        layers, _, _ = student(one["image"], one["source_points"], one["points"][:, 0])
        one["target"] = (composite(one["image"] * 2 - 1, one["background"] * 2 - 1, layers) + 1) / 2
        same = label_losses(student.frame, student, one, training)
        one["target"] = one["target"] + 0.05
        brighter = label_losses(student.frame, student, one, training)
    assert all(float(term) < 1e-5 for term in same.values())
    assert float(brighter["label_picture"]) == pytest.approx(training.labels * 0.1, rel=1e-4)
    assert all(float(brighter[name]) < 1e-5 for name in same if name != "label_picture")


def test_what_is_lean_already_is_refused(start, prepared, tmp_path):
    path = tmp_path / "lean.safetensors"
    save_student(Student(lean_of(TINY)), path, {})
    with pytest.raises(MobileBilayerError, match="lean already"):
        train_lean(prepared, tmp_path / "run", path, LeanTraining(), steps=1)
    assert not (tmp_path / "run").exists()


def test_what_is_less_lean_can_be_made_leaner(start, prepared, tmp_path):
    """It keeps what it splats at 32 px, and has one fine code then."""
    before = resized(load_student(start)[0], replace(TINY, lean=True))
    less = tmp_path / "less.safetensors"
    save_student(before, less, {"lean": [{"steps": 3}]})
    path = train_lean(prepared, tmp_path / "run", less, LeanTraining(sources=1, held_out=1, learning_rate=1e-9, trunk_rate=1e-9), steps=1, workers=0)
    lean, facts = load_student(path)
    assert lean.config == lean_of(TINY) and [leg["steps"] for leg in facts["lean"]] == [3, 1]
    torch.testing.assert_close(lean.frame.read32.weight, load_student(less)[0].frame.read32.weight, atol=1e-6, rtol=0)


def test_training_needs_a_rate():
    with pytest.raises(MobileBilayerError, match="learning_rate is 0"):
        LeanTraining(learning_rate=0)
