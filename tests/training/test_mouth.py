"""Teeth: a run sees mouths that open and nothing else, and leaves the rest of a student as it was."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

pytest.importorskip("lightning_fabric", reason="training needs mobile-bilayer[train]")
from mobile_bilayer.export.card import model_card

from mobile_bilayer.compositing import Layers, composite
from mobile_bilayer.dataset.pairs import NO_AUGMENTATION, PreparedClip, apertures, load_clips, to_tensors
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.student.network import Student, StudentConfig
from mobile_bilayer.student.weights import load_student, save_student
from mobile_bilayer.training.mouth import (
    OPEN,
    SHUT,
    Mouths,
    MouthTraining,
    in_window,
    inside,
    lights,
    see,
    train_mouth,
    window,
    window_grid,
)
from mobile_bilayer.training.mouth_critic import mouth_windows

TINY = StudentConfig((4, 4, 8, 8), (12, 8, 8, 8), features=4, codes=4, fine_codes=2, sigma_mouth=0.025)
NEEDS_SQUEEZENET = pytest.mark.skipif(
    not (Path(os.environ.get("MOBILE_BILAYER_MODELS", "")) / "squeezenet1_1_features.npz").is_file(),
    reason="MOBILE_BILAYER_MODELS names no folder with squeezenet1_1_features.npz",
)


def batch_of(folder: Path, count: int = 2) -> dict[str, torch.Tensor]:
    data = Mouths(load_clips(folder), 2, NO_AUGMENTATION, 0)
    return to_tensors(default_collate([data[i] for i in range(count)]))


@pytest.fixture
def start(tmp_path) -> Path:
    torch.manual_seed(0)
    student = Student(TINY)
    for parameter in student.frame.heads.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    path = tmp_path / "start.safetensors"
    save_student(student, path, {"steps": 7})
    return path


def test_sources_are_shut_and_targets_open_in_the_same_shot(tmp_path, write_clip):
    wanted = np.array([0.0, 0.2, 0.1, 0.02, 0.05, 0.3, 0.06, 0.1])
    face = PreparedClip(write_clip(tmp_path / "ben.safetensors", identity="ben")).landmarks[0]
    landmarks = np.tile(face, (len(wanted), 1, 1))
    landmarks[:, 14, :2] = face[13, :2]
    landmarks[:, 14, 1] += wanted * np.linalg.norm(face[33, :2] - face[263, :2])
    shots = np.repeat([0, 1], len(wanted) // 2)
    clip = PreparedClip(write_clip(tmp_path / "anna.safetensors", count=len(wanted), landmarks=landmarks, shots=shots))
    np.testing.assert_allclose(apertures(clip.landmarks)[:, 2], wanted, atol=1e-5)
    drawn = []
    data = Mouths([clip], 3, NO_AUGMENTATION, 0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mobile_bilayer.training.mouth.make_example", lambda clip, *chosen: drawn.append(chosen[:2]))
        for i in range(40):
            data[i]
    for source, targets in drawn:
        assert len(targets) == 3 and all(wanted[t] > OPEN for t in targets[:2])
        assert {shots[t] for t in targets} == {shots[source]}
    # Of the second shot, where no mouth is shut, the least open one.
    assert {source for source, _ in drawn} == {i for i in range(4) if wanted[i] < SHUT} | {4}
    assert {t for _, targets in drawn for t in targets[:2]} == {1, 2, 5, 7}
    assert {t for _, targets in drawn for t in targets[2:]} == set(range(8))  # one of three is any


def test_clips_without_an_open_mouth_are_refused(tmp_path, write_clip):
    first = PreparedClip(write_clip(tmp_path / "opens.safetensors")).landmarks[:1]
    clip = PreparedClip(write_clip(tmp_path / "shut.safetensors", count=3, landmarks=first.repeat(3, 0)))
    with pytest.raises(MobileBilayerError, match="No mouth opens"):
        Mouths([clip], 1, NO_AUGMENTATION, 0)


def test_a_window_shows_what_the_compositor_does(prepared):
    batch = batch_of(prepared)
    torch.manual_seed(0)
    count = len(batch["points"])
    a = torch.cat([0.1 * torch.randn(count, 2, 64, 64), torch.rand(count, 2, 64, 64)], 1)
    layers = Layers(a, torch.rand(count, 3, 128, 128) - 0.5)
    texture = (batch["image"] * 2 - 1).repeat_interleave(count // len(batch["image"]), 0)
    whole = composite(texture, batch["background"] * 2 - 1, layers)
    seen = window(texture, batch["background"] * 2 - 1, layers, window_grid(batch["points"]))
    for picture, part, (rows, columns) in zip(whole, seen, mouth_windows(batch["points"]), strict=True):
        assert torch.allclose(picture[:, rows, columns], part, atol=1e-4)


def test_places_of_the_picture_are_the_same_places_of_its_window(prepared):
    batch = batch_of(prepared)
    student = Student(TINY)
    source = batch["source_points"].repeat_interleave(2, 0)
    share, places = inside(student, source, batch["points"])
    grid = window_grid(batch["points"])
    assert share.amax() > 0.5 and places.shape[1:] == (1, 28, 2)
    small = in_window(places, grid)
    assert small.abs().amax() < 0.9
    picture = batch["target"]
    assert torch.allclose(see(picture, places), see(see(picture, grid), small), atol=1e-4)


def test_lights_are_the_same_wherever_they_are_and_differ_in_spread():
    torch.manual_seed(0)
    picture = torch.rand(1, 3, 8, 8)
    centres = (torch.arange(8) + 0.5) / 4 - 1
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    grid = torch.stack([x, y], -1).reshape(1, 1, 64, 2)
    mixed = picture.flatten(2)[..., torch.randperm(64)].reshape_as(picture)
    assert torch.allclose(lights(picture, grid), lights(mixed, grid), atol=1e-6)
    grey = lights(picture.mean((2, 3), keepdim=True).expand_as(picture), grid)
    assert (lights(picture, grid) - grey).abs().mean() > 0.1


@NEEDS_SQUEEZENET
def test_what_a_student_already_draws_elsewhere_costs_nothing_and_what_changes_there_does(prepared, start):
    from lightning_fabric import Fabric

    from mobile_bilayer.perceptual import Lpips
    from mobile_bilayer.training.mouth import mouth_losses
    from mobile_bilayer.training.mouth_critic import MouthCritic

    batch, training = batch_of(prepared), MouthTraining()
    before, student = load_student(start)[0], load_student(start)[0]
    critic = MouthCritic(Fabric(accelerator="cpu"), training.critic, training.critic_rate)

    def terms() -> dict[str, torch.Tensor]:
        return mouth_losses(student.frame, before, batch, Lpips(), critic, training)

    same = terms()
    assert same["elsewhere"].item() == 0 and all(same[name].item() > 0 for name in ("l1", "lpips", "lights", "critic"))
    with torch.no_grad():
        student.frame.heads.bias[2] += 1  # blend, everywhere
    assert terms()["elsewhere"].item() > 0.1


@NEEDS_SQUEEZENET
def test_a_run_goes_on_and_changes_the_frame_network_alone(prepared, start, tmp_path):
    training = MouthTraining(sources=1, targets=2, warm_up_steps=1, held_out=0)

    def train(steps: int, training: MouthTraining = training) -> Student:
        return load_student(train_mouth(prepared, tmp_path / "run", start, training, steps=steps, workers=0))[0]

    train(2)
    first = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)
    after = train(4)
    second = torch.load(tmp_path / "run/checkpoint.pt", weights_only=True)
    assert (first["step"], second["step"]) == (2, 4)
    assert [state["critic"]["optimizer"]["state"][0]["step"] for state in (first, second)] == [2, 4]
    before = load_student(start)[0]
    same = {name for name, value in before.state_dict().items() if torch.equal(value, after.state_dict()[name])}
    changed = set(before.state_dict()) - same
    assert changed and all(name.startswith("frame.") for name in changed)
    assert not any("running" in name or "tracked" in name for name in changed)
    header, *rows = (tmp_path / "run/log.csv").read_text().splitlines()
    assert float(rows[-1].split(",")[header.split(",").index("loss_lights")]) > 0
    assert (tmp_path / "run/sheet-000004.png").is_file()
    facts = load_student(tmp_path / "run/student.safetensors")[1]
    assert facts["steps"] == 7 and [leg["steps"] for leg in facts["mouth"]] == [4]
    assert "Then mouths alone**: 4 steps, 8 windows of 2 people" in model_card(after, facts)
    with pytest.raises(MobileBilayerError, match="other settings"):
        train(5, replace(training, lights=0.0))


def test_a_student_without_a_mouth_is_refused(prepared, tmp_path):
    path = tmp_path / "old.safetensors"
    save_student(Student(replace(TINY, sigma_mouth=0.0)), path, {})
    with pytest.raises(MobileBilayerError, match=r"old\.safetensors is of a student whose prior opens no mouth"):
        train_mouth(prepared, tmp_path / "run", path, MouthTraining(), steps=1)
    assert not (tmp_path / "run").exists()


def test_another_encoder_is_no_student_from_before(prepared, start, tmp_path):
    other = tmp_path / "other.safetensors"
    save_student(Student(TINY), other, {})
    with pytest.raises(MobileBilayerError, match=r"other\.safetensors has another encoder than .*start\.safetensors"):
        train_mouth(prepared, tmp_path / "run", start, MouthTraining(), steps=1, like=other)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("settings", [{"targets": 0}, {"learning_rate": float("nan")}, {"lights": -1.0}])
def test_settings_that_teach_nothing_are_refused(settings):
    with pytest.raises(MobileBilayerError, match=f"{next(iter(settings))} "):
        MouthTraining(**settings)
