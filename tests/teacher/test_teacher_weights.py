"""Teacher weights out and in."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.teacher import load_public, load_teacher, save_teacher


@pytest.fixture
def saved(random_teacher, tmp_path):
    path = tmp_path / "teacher.safetensors"
    save_teacher(random_teacher(), path, {"steps": 7})
    return path


def rewrite(path, change) -> None:
    """`change` gets the tensors and the header, and may alter both."""
    with safe_open(path, "pt") as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors, header)
    save_file(tensors, path, header)


def test_what_is_saved_is_loaded_as_it_was(saved, random_teacher):
    loaded, facts = load_teacher(saved)
    assert facts == {"steps": 7} and loaded.config == random_teacher().config and not loaded.training
    want = random_teacher().state_dict()
    for name, value in loaded.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, want[name], rtol=0, atol=0)


def test_the_small_checkpoint_still_computes_the_same_after_saving(reference, expected, tmp_path):
    path = tmp_path / "teacher.safetensors"
    save_teacher(load_public(reference / "runs"), path, {})
    given, wanted = expected
    with torch.no_grad():
        got = load_teacher(path)[0](**given)
    for name, want in wanted.items():
        torch.testing.assert_close(got[name], want, rtol=0, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_half_precision_halves_the_file_and_keeps_statistics(random_teacher, saved, tmp_path):
    teacher = random_teacher()
    teacher.inference_generator.last_norm.running_mean.fill_(1000.123)
    path = tmp_path / "half.safetensors"
    save_teacher(teacher, path, {}, torch.float16)
    assert path.stat().st_size < 0.6 * saved.stat().st_size
    loaded, _ = load_teacher(path)
    want = teacher.state_dict()
    for name, value in loaded.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            # Half precision has 11 bits, so it rounds by 2^-11 at most; below 6e-5 its step is 6e-8.
            exact = want[name].ndim == 1
            torch.testing.assert_close(value, want[name], rtol=0 if exact else 2**-11, atol=0 if exact else 3e-8)


def test_a_teacher_without_an_enhancer_comes_back_without(random_teacher, other, tmp_path):
    config = replace(other, enhancer_steps=0)
    save_teacher(random_teacher(config), tmp_path / "teacher.safetensors", {})
    loaded, _ = load_teacher(tmp_path / "teacher.safetensors")
    assert loaded.config == config and loaded.texture_enhancer is None


def test_a_setting_that_is_not_known_is_refused(saved):
    rewrite(saved, lambda _, header: header.update(config=json.dumps(json.loads(header["config"]) | {"wings": 2})))
    with pytest.raises(MobileBilayerError, match=r"teacher\.safetensors.*wings"):
        load_teacher(saved)


@pytest.mark.parametrize("config", ['{"image_px": 250}', '{"image_px": null}', "3", "{", "[1]", '{"prior": "wings"}'])
def test_a_config_that_makes_no_teacher_is_refused(saved, config):
    rewrite(saved, lambda _, header: header.update(config=config))
    with pytest.raises(MobileBilayerError, match=r"teacher\.safetensors"):
        load_teacher(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("inference_generator.lf.weight"),
        lambda tensors: tensors.update({"inference_generator.lf.weight": torch.zeros(1)}),
        lambda tensors: tensors.update({"inference_generator.lf.wings": torch.zeros(1)}),
    ],
    ids=["missing", "another shape", "left over"],
)
def test_a_tensor_that_does_not_fit_is_named(saved, change):
    rewrite(saved, lambda tensors, _: change(tensors))
    with pytest.raises(MobileBilayerError, match=r"(?s)teacher\.safetensors.*inference_generator\.lf\.w"):
        load_teacher(saved)


def test_what_is_no_weights_file_is_refused(tmp_path, saved):
    rewrite(saved, lambda _, header: header.clear())
    for name, content in {"text": b"not weights", "empty": b"", "cut": b"\x10\0\0\0\0\0\0\0{"}.items():
        (tmp_path / name).write_bytes(content)
    for name in ("teacher.safetensors", "text", "empty", "cut", "absent", ""):
        with pytest.raises(MobileBilayerError, match=str(tmp_path / name)):
            load_teacher(tmp_path / name)


def test_weights_that_are_not_finite_are_not_saved(random_teacher, saved):
    before, teacher = saved.read_bytes(), random_teacher()
    with torch.no_grad():
        teacher.inference_generator.lf.weight[0, 0] = 1e6
    with pytest.raises(MobileBilayerError, match=r"float16.*inference_generator\.lf\.weight.*save float32"):
        save_teacher(teacher, saved, {}, torch.float16)
    with torch.no_grad():
        teacher.inference_generator.lf.weight[0, 0] = float("inf")
    with pytest.raises(MobileBilayerError, match=r"float32.*inference_generator\.lf\.weight"):
        save_teacher(teacher, saved, {})
    assert saved.read_bytes() == before and [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_a_folder_that_is_not_there_is_named(random_teacher, tmp_path):
    with pytest.raises(MobileBilayerError, match="nowhere"):
        save_teacher(random_teacher(), tmp_path / "nowhere" / "teacher.safetensors", {})
