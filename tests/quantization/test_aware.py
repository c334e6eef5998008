"""Training with int8's rounding: what is converted is what was trained."""

import copy
import csv
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("lightning_fabric", reason="training needs mobile-bilayer[train]")
from mobile_bilayer import MobileBilayerError
from mobile_bilayer.dataset.pairs import NO_AUGMENTATION, load_clips
from mobile_bilayer.quantization import aware as module
from mobile_bilayer.quantization.aware import AWARE_TRAINING, AwareTrunk, Int8Trunk, aware, train_aware
from mobile_bilayer.quantization.calibrate import int8_convolutions, refuse_int8_outside
from mobile_bilayer.quantization.recipes import Recipe
from mobile_bilayer.student.network import Student, StudentConfig
from mobile_bilayer.student.weights import load_student, save_student
from mobile_bilayer.training.student import validation_batch

needs_weights = pytest.mark.skipif(
    not (Path(os.environ.get("MOBILE_BILAYER_MODELS", "")) / "squeezenet1_1_features.npz").is_file(),
    reason="MOBILE_BILAYER_MODELS names no folder with squeezenet1_1_features.npz",
)
TINY = StudentConfig(frame_widths=(4, 4, 8, 8), encoder_widths=(12, 8, 8, 8), features=4, codes=4)


@pytest.fixture(scope="module")
def trained(method, examples) -> AwareTrunk:
    """The trunk of three layers after a few steps that move weights and batch norms, in evaluation mode."""
    pictures = torch.cat([x for (x,) in examples])
    trunk = AwareTrunk(method.network.trunk, (pictures[:4],), Recipe())
    optimizer = torch.optim.SGD(trunk.parameters(), lr=0.02)
    for step in range(10):
        before = trunk.float_state()["alone.running_mean"].clone()
        optimizer.zero_grad()
        x = pictures[8 * step : 8 * step + 8]
        (trunk(x) - 2 * x[:, :1]).square().mean().backward()
        optimizer.step()
        assert not torch.equal(before, trunk.float_state()["alone.running_mean"])
    return trunk.eval()


@pytest.fixture(scope="module")
def converted(trained) -> torch.fx.GraphModule:
    return trained.converted(Recipe(), "render_layers")


def test_QU3_after_the_documented_move_to_evaluation_no_statistics_change(trained):
    before = {name: value.clone() for name, value in trained.float_state().items()}
    trained(5 * torch.randn(4, 3, 16, 16) + 3)
    assert "alone.running_mean" in before
    assert all(torch.equal(value, trained.float_state()[name]) for name, value in before.items())


def test_QU3_what_is_converted_does_not_depend_on_the_batch(converted):
    """Also where a batch norm is not right behind a convolution."""
    x = torch.randn(6, 3, 16, 16)
    x[1:] = 4 * x[1:] + 2
    with torch.no_grad():
        torch.testing.assert_close(converted(x)[:1], converted(x[:1]), rtol=0, atol=1e-6)
    assert int8_convolutions(converted) == 3


def test_QU3_what_is_converted_is_near_what_was_trained(trained, converted, examples):
    x = torch.cat([x for (x,) in examples[:4]])
    with torch.no_grad():
        rounded, got = trained(x), converted(x)
    assert (got - rounded).abs().mean() < 0.02 * rounded.std()
    assert (got - rounded).abs().max() < 0.2 * rounded.std()


def test_what_is_converted_is_known_as_the_trunk_when_it_is_exported_again(method, converted, examples):
    """`export` looks there for int8 that should not be."""
    method = copy.deepcopy(method)
    method.network.trunk = Int8Trunk(converted)
    graph = torch.export.export(method.eval(), examples[0]).graph_module
    refuse_int8_outside(graph, Recipe(), "render_layers")
    assert int8_convolutions(graph) == 3


def test_its_float_weights_are_those_that_were_trained(trained, method, examples):
    trunk = copy.deepcopy(method.network.trunk)
    before = trunk.first[0].weight.clone()
    missing, left_over = trunk.load_state_dict(trained.float_state(), strict=False)
    assert not left_over and all(name.endswith("num_batches_tracked") for name in missing)
    assert not torch.equal(before, trunk.first[0].weight)
    x = torch.cat([x for (x,) in examples[:4]])
    with torch.no_grad():
        wanted = trained(x)
        assert (trunk.eval()(x) - wanted).abs().mean() < 0.08 * wanted.std()


@needs_weights
def test_a_run_goes_on_where_it_stopped_and_its_float_weights_are_near_what_it_gives(tmp_path, write_clip, monkeypatch):
    monkeypatch.setattr(module, "validation_batch", lambda held, _, seed: validation_batch(held, 2, seed))
    made = []

    def aware_once(*arguments):
        """Preparing takes longer than all of the training."""
        made.append(made[0] if made else aware(*arguments))
        return copy.deepcopy(made[0])

    monkeypatch.setattr(module, "aware", aware_once)
    folder = tmp_path / "prepared"
    folder.mkdir()
    for name in ("anna", "ben"):
        write_clip(folder / f"{name}.safetensors", identity=name)
    torch.manual_seed(0)
    save_student(Student(TINY), tmp_path / "student.safetensors", {"steps": 7})
    training = replace(AWARE_TRAINING, sources=1, lpips_px=64, warm_up_steps=1)
    out = tmp_path / "run"

    def train(steps: int, **options):
        settings = {"training": training, "augmentation": NO_AUGMENTATION, "workers": 0, **options}
        return train_aware(tmp_path / "student.safetensors", folder, out, steps=steps, **settings)

    try:
        train(1)
        weights, student = train(2)
        with pytest.raises(MobileBilayerError, match="other settings"):
            train(3, recipe=Recipe(per_channel=False))
    finally:
        torch.set_flush_denormal(False)
    with (out / "log.csv").open(newline="") as file:
        assert [int(row["step"]) for row in csv.DictReader(file)] == [0, 1, 2]
    floats, facts = load_student(weights)
    assert facts["steps"] == 7 and facts["quantization_aware"]["steps"] == 2
    batch = validation_batch(load_clips(folder), 2, 0)
    with torch.no_grad():
        got, wanted = (s(batch["image"], batch["source_points"], batch["points"])[0].a for s in (student, floats))
    assert 0 < (got - wanted).abs().mean() < 0.02


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(MobileBilayerError, match="has heads in int8 too. Leave --qat out"):
        aware(Student(TINY), {}, Recipe(int8=("trunk", "heads")))
