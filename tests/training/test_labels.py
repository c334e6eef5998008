"""What a teacher shows of people who drive each other."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("lightning_fabric", reason="training needs mobile-bilayer[train]")
from test_student import TINY, log, needs_weights

from mobile_bilayer.compositing import composite
from mobile_bilayer.dataset.pairs import crop_picture, load_clips
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.perceptual import Lpips
from mobile_bilayer.student.network import Student, StudentConfig, landmark_warp
from mobile_bilayer.student.weights import load_student, save_student
from mobile_bilayer.teacher.landmark import LANDMARK
from mobile_bilayer.teacher.weights import make_teacher, save_teacher
from mobile_bilayer.training import labels as training_labels
from mobile_bilayer.training import student as training_student
from mobile_bilayer.training.distill import distill
from mobile_bilayer.training.labels import CrossPairs, LabelConfig, label, load_labeller, write_labels
from mobile_bilayer.training.student import TrainingConfig, label_losses, train_student, validation_batch


@pytest.fixture(autouse=True)
def two_pairs_to_validate_on(monkeypatch):
    """Not twelve."""
    monkeypatch.setattr(training_student, "validation_batch", lambda held, _, seed: validation_batch(held, 2, seed))


@pytest.fixture
def student(tmp_path) -> Path:
    torch.manual_seed(0)
    network = Student(TINY)
    torch.nn.init.normal_(network.frame.heads.weight, std=0.3)
    save_student(network, tmp_path / "student.safetensors", {})
    return tmp_path / "student.safetensors"


def test_nobody_drives_themselves_and_two_moments_lie_close_together(prepared):
    clips = load_clips(prepared)
    pairs = CrossPairs(clips, LabelConfig(near=0.1))
    pictures = {c.identity: {crop_picture(c, i)[0].tobytes() for i in range(len(c))} for c in clips}
    whose, neutral = [], pairs.neutral
    pairs.neutral = lambda clip: (whose.append(clip.identity), neutral(clip))[1]
    for index in range(6):
        example = pairs[index]
        assert example["image"].shape == example["background"].shape == (256, 256, 3)
        (shown,) = (identity for identity, of in pictures.items() if example["image"].tobytes() in of)
        assert shown != whose[-1]
        first, near = example["points"]
        other = CrossPairs(clips, LabelConfig(near=1.0))[index]["points"][1]
        assert np.abs(near - first).max() <= 0.11 * np.abs(other - first).max() + 1e-6
        assert np.abs(first - example["source_points"]).max() > 1e-3  # it does move


def test_an_example_depends_on_settings_and_number_alone(prepared):
    clips = load_clips(prepared)
    one, two, other = (CrossPairs(clips, LabelConfig(seed=seed)) for seed in (1, 1, 2))
    assert one[0]["points"].size
    assert all(np.array_equal(one[3][name], two[3][name]) for name in one[3])
    assert not np.array_equal(one[3]["points"], other[3]["points"])


def test_one_person_alone_can_drive_nobody(prepared):
    clips = [clip for clip in load_clips(prepared) if clip.identity == "anna"]
    with pytest.raises(MobileBilayerError, match="two people"):
        CrossPairs(clips, LabelConfig())


def test_layers_of_a_label_are_the_teachers_own(prepared, student):
    network = load_labeller(student)
    example = CrossPairs(load_clips(prepared), LabelConfig())[0]
    image, background = (torch.from_numpy(example[n]).permute(2, 0, 1)[None] / 255 for n in ("image", "background"))
    source, driving = torch.from_numpy(example["source_points"])[None], torch.from_numpy(example["points"][:1])
    made = label(network, image, background, source, driving)
    with torch.no_grad():
        layers, _, _ = network(image, source, driving)
    assert torch.equal(made["a"], layers.a)
    torch.testing.assert_close(made["target"], composite(image * 2 - 1, background * 2 - 1, layers).clamp(-1, 1))


def test_a_full_size_teacher_labels_as_well(prepared, tmp_path):
    torch.manual_seed(0)
    teacher = make_teacher(replace(LANDMARK, coarse=TINY, generator_width=2, generator_max_width=16, keypoints_width=8))
    save_teacher(teacher, tmp_path / "teacher.safetensors", {})
    made = write_labels(load_clips(prepared), tmp_path / "teacher.safetensors", tmp_path / "out", LabelConfig(count=1))
    batch = made.batch(np.array([0]), torch.device("cpu"))
    # Untrained it is the warp, on a background that stands still.
    warped = landmark_warp(batch["image"] * 2 - 1, batch["source_points"], batch["points"][:, 0])
    middle = (..., slice(96, 160), slice(96, 160))
    assert (batch["target"] * 2 - 1 - warped)[middle].abs().mean() < 0.05


def test_labels_are_made_once_and_a_run_that_was_killed_goes_on(prepared, student, tmp_path, monkeypatch):
    clips, config = load_clips(prepared), LabelConfig(count=5)
    monkeypatch.setattr(training_labels, "SHARD", 2)
    seen: list[int] = []
    write_labels(clips, student, tmp_path / "out", replace(config, count=3), lambda _, done, __: seen.append(done))
    first = write_labels(clips, student, tmp_path / "out", config, lambda _, done, __: seen.append(done))
    assert seen == [1, 2, 3, 3, 4, 5]  # the half-filled file of the third is made anew
    assert len(first) == 5
    whole = write_labels(clips, student, tmp_path / "other", config)
    assert all(torch.equal(first.tensors[name], whole.tensors[name]) for name in first.tensors)
    write_labels(clips, student, tmp_path / "out", replace(config, seed=9))
    assert len(list((tmp_path / "out").iterdir())) == 7  # others beside them


@needs_weights
def test_a_student_that_is_the_teacher_has_nothing_to_learn_of_it(prepared, student, tmp_path):
    labels = write_labels(load_clips(prepared), student, tmp_path / "out", LabelConfig(count=2))
    batch, config = labels.batch(np.array([0, 1]), torch.device("cpu")), TrainingConfig(lpips_px=256)
    network, lpips = load_student(student)[0], Lpips()
    terms = label_losses(network, batch, lpips, config, (0, 0))
    assert terms["label_layers"] < 2e-3 and terms["label_l1"] < 5e-3 and terms["label_lpips"] < 5e-3
    torch.nn.init.normal_(network.frame.heads.weight, std=0.3)
    worse = label_losses(network, batch, lpips, config, (0, 0))
    assert all(worse[name] > 2 * terms[name] for name in ("label_layers", "label_l1", "label_lpips"))


@needs_weights
def test_a_teacher_is_asked_about_mouth_and_eyes_and_elsewhere_only_if_told(prepared, student, tmp_path):
    labels = write_labels(load_clips(prepared), student, tmp_path / "out", LabelConfig(count=2))
    batch, network, lpips = labels.batch(np.array([0, 1]), torch.device("cpu")), load_student(student)[0], Lpips()
    terms = ("label_l1", "label_lpips", "label_layers")

    def wrong(where: torch.Tensor, outside: float) -> dict[str, float]:
        """With other pixels and another flow there than the teacher's."""
        small = torch.nn.functional.interpolate(where.float(), size=64, mode="area") > 0.5
        other = batch | {"target": torch.where(where, 1 - batch["target"], batch["target"]), "a": batch["a"].clone()}
        other["a"][:, :2] += 0.2 * small
        got = label_losses(network, other, lpips, TrainingConfig(lpips_px=256, outside=outside), (0, 0))
        right = label_losses(network, batch, lpips, TrainingConfig(lpips_px=256, outside=outside), (0, 0))
        return {name: float((got[name] - right[name]).detach()) for name in terms}

    inside = batch["weight"] > 5
    far = torch.nn.functional.max_pool2d(inside.float(), 65, 1, 32) == 0  # LPIPS looks around a pixel
    unasked, asked, mouth = wrong(far, 0.0), wrong(far, 0.5), wrong(inside, 0.0)
    for name in terms:
        assert abs(unasked[name]) < 0.05 * mouth[name], name
        assert asked[name] > 0.1 * mouth[name], name


@needs_weights
def test_what_moves_as_the_landmarks_say_is_steady(prepared, tmp_path):
    torch.manual_seed(0)
    untrained = Student(StudentConfig())  # but for the 2 % of paint and the mask, it is the warp
    save_student(untrained, tmp_path / "untrained.safetensors", {})
    labels = write_labels(load_clips(prepared), tmp_path / "untrained.safetensors", tmp_path / "out", LabelConfig(count=2))
    batch = labels.batch(np.array([0, 1]), torch.device("cpu"))
    config = TrainingConfig(steady=2.0)
    steady = label_losses(untrained.eval(), batch, Lpips(), config, (0, 0))["label_steady"]
    torch.nn.init.normal_(untrained.frame.heads.weight[:2], std=2.0)  # a flow that follows its own mind
    restless = label_losses(untrained, batch, Lpips(), config, (0, 0))["label_steady"]
    assert steady < 0.5 * restless


@needs_weights
def test_distilling_trains_another_size_and_goes_on_where_it_stopped(prepared, student, tmp_path):
    config = replace(TINY, frame_widths=(4, 5, 8, 9))
    options = {"teacher": student, "start": student, "labels": 2, "workers": 0}
    distill(prepared, tmp_path / "run", config, steps=1, **options)
    path = distill(prepared, tmp_path / "run", config, steps=2, **options)
    rows = log(tmp_path / "run")
    assert [row["step"] for row in rows] == [0, 1, 2] and rows[-1]["loss_label_l1"] > 0
    loaded, facts = load_student(path)
    assert loaded.config == config and facts["labels"] == 2 and facts["steps"] == 2
    for other in ({"labels": 3}, {"rate": 1e-2}, {"seed": 7}):
        with pytest.raises(MobileBilayerError, match="other settings"):
            distill(prepared, tmp_path / "run", config, steps=3, **options | other)


@needs_weights
def test_the_norms_learn_from_real_pairs_alone(prepared, student, tmp_path):
    """A few labelled pictures, made of faces that nobody pulls, once shifted them for all the real ones."""
    training = TrainingConfig(sources=1, targets=2, warm_up_steps=1, lpips_px=64, held_out=1)
    config, norms = load_student(student)[0].config, []
    for name, labels in (("plain", None), ("labelled", write_labels(load_clips(prepared), student, tmp_path, LabelConfig(2)))):
        train_student(prepared, tmp_path / name, config, training, steps=1, start=student, labels=labels, workers=0)
        state = torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["student"]
        norms.append({key: value for key, value in state.items() if "running" in key})
    assert len(norms[0]) > 20 and all(torch.equal(norms[0][key], norms[1][key]) for key in norms[0])


@needs_weights
def test_a_run_that_was_killed_goes_on_as_if_it_had_not_been(prepared, student, tmp_path):
    options = {"teacher": student, "start": student, "labels": 2, "workers": 0}
    whole = distill(prepared, tmp_path / "whole", TINY, steps=2, **options)
    distill(prepared, tmp_path / "parts", TINY, steps=1, **options)
    parts = distill(prepared, tmp_path / "parts", TINY, steps=2, **options)
    assert len(log(tmp_path / "parts")) == 3
    first, second = (load_student(path)[0].state_dict() for path in (whole, parts))
    assert len(first) > 100 and all(torch.equal(first[name], second[name]) for name in first)


def test_what_can_label_nothing_is_refused(prepared, student, tmp_path):
    (tmp_path / "broken").write_bytes(b"no weights")
    with pytest.raises(MobileBilayerError, match="broken can't be read"):
        distill(prepared, tmp_path / "run", TINY, teacher=tmp_path / "broken", start=student, steps=1)
    with pytest.raises(MobileBilayerError, match="--steps"):
        distill(prepared, tmp_path / "run", TINY, teacher=student, start=student)
    for name, value in (("count", 0), ("near", 0.0), ("exaggeration", 0.5), ("turn", -1.0)):
        with pytest.raises(MobileBilayerError, match=name):
            LabelConfig(**{name: value})
