"""Student weights out and in."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.head import POINTS
from mobile_bilayer.student.network import Student, StudentConfig
from mobile_bilayer.student.weights import load_student, save_student

TINY = StudentConfig(frame_widths=(4, 4, 8, 8), encoder_widths=(12, 8, 8, 8), features=4, codes=4, paint_width=4)


@pytest.fixture
def student() -> Student:
    torch.manual_seed(0)
    return Student(TINY)


@pytest.fixture
def saved(student, tmp_path):
    path = tmp_path / "student.safetensors"
    save_student(student, path, {"steps": 7})
    return path


def rewrite(path, change) -> None:
    """`change` gets the tensors and the header, and may alter both."""
    with safe_open(path, "pt") as file:
        header, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors, header)
    save_file(tensors, path, header)


def test_what_is_saved_is_loaded_within_half_precision(student, saved):
    loaded, facts = load_student(saved)
    assert facts == {"steps": 7} and loaded.config == TINY and not loaded.training
    want = student.state_dict()
    for name, value in loaded.state_dict().items():
        # Half precision has 11 bits, so it rounds by 2^-11 at most; below 6e-5 its step is 6e-8.
        torch.testing.assert_close(value, want[name], rtol=2**-11, atol=3e-8, check_dtype=True)


def test_batch_norm_keeps_its_full_precision(student, tmp_path):
    norm = student.frame.trunk.stem[1]
    norm.running_mean.fill_(1000.123)
    save_student(student, tmp_path / "student.safetensors", {})
    loaded, _ = load_student(tmp_path / "student.safetensors")
    torch.testing.assert_close(loaded.frame.trunk.stem[1].running_mean, norm.running_mean, rtol=0, atol=0)


def test_saving_what_was_loaded_loses_nothing_more(saved, tmp_path):
    first, facts = load_student(saved)
    save_student(first, tmp_path / "again.safetensors", facts)
    again, facts_again = load_student(tmp_path / "again.safetensors")
    assert facts_again == facts
    assert all(map(torch.equal, first.state_dict().values(), again.state_dict().values()))


def test_a_setting_that_is_not_known_is_refused(saved):
    def change(_, header):
        header["config"] = json.dumps(json.loads(header["config"]) | {"wings": 2})

    rewrite(saved, change)
    with pytest.raises(MobileBilayerError, match=r"student\.safetensors.*wings"):
        load_student(saved)


@pytest.mark.parametrize("config", ['{"frame_widths": [1, 2]}', '{"frame_widths": null}', "3", "{", "[1]"])
def test_a_config_that_makes_no_student_is_refused(saved, config):
    rewrite(saved, lambda _, header: header.update(config=config))
    with pytest.raises(MobileBilayerError, match=r"student\.safetensors"):
        load_student(saved)


def test_a_missing_tensor_is_named(saved):
    rewrite(saved, lambda tensors, _: tensors.pop("frame.heads.weight"))
    with pytest.raises(MobileBilayerError, match=r"student\.safetensors.*frame\.heads\.weight"):
        load_student(saved)


def test_a_left_over_tensor_is_named(saved):
    rewrite(saved, lambda tensors, _: tensors.update(wings=torch.zeros(2)))
    with pytest.raises(MobileBilayerError, match=r"student\.safetensors.*wings"):
        load_student(saved)


def test_a_tensor_of_another_shape_is_named(saved):
    rewrite(saved, lambda tensors, _: tensors.update({"frame.heads.weight": torch.zeros(4, 5, 3, 3)}))
    with pytest.raises(MobileBilayerError, match=r"(?s)student\.safetensors.*frame\.heads\.weight"):
        load_student(saved)


def test_a_file_without_our_header_is_refused(saved):
    rewrite(saved, lambda _, header: header.clear())
    with pytest.raises(MobileBilayerError, match=r"student\.safetensors"):
        load_student(saved)


def test_what_is_no_weights_file_is_refused(tmp_path):
    for name, content in {"text": b"not weights", "empty": b"", "cut": b"\x10\0\0\0\0\0\0\0{"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MobileBilayerError, match=name):
            load_student(tmp_path / name)
    with pytest.raises(MobileBilayerError, match="absent"):
        load_student(tmp_path / "absent")
    with pytest.raises(MobileBilayerError, match=str(tmp_path)):
        load_student(tmp_path)


def test_weights_that_are_not_finite_are_not_saved(student, saved):
    before = saved.read_bytes()
    with torch.no_grad():
        student.frame.paint_mix[0].weight[0, 0] = 1e6  # beyond half precision
    with pytest.raises(MobileBilayerError, match=r"frame\.paint_mix"):
        save_student(student, saved, {})
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_a_folder_that_is_not_there_is_named(student, tmp_path):
    with pytest.raises(MobileBilayerError, match="nowhere"):
        save_student(student, tmp_path / "nowhere" / "student.safetensors", {})


def test_weights_from_before_render_the_same(tmp_path):
    """When what was splatted was read in the trunk, by a 1x1 convolution, and so was the last of the U-Net; and a mouth's
    inside had one colour."""
    config = replace(TINY, sigma_mouth=0.025)
    torch.manual_seed(0)
    student = Student(config).eval()
    path = tmp_path / "student.safetensors"
    save_student(student, path, {})

    def as_before(tensors, _):
        tensors["frame.trunk.read32.weight"] = tensors.pop("frame.read32.weight")[:, :, None, None]
        tensors["frame.trunk.read32.bias"] = tensors.pop("frame.read32.bias")
        for name in [name for name in tensors if name.startswith("frame.top.")]:
            tensors[name.replace("top", "trunk")] = tensors.pop(name)
        assert tensors.pop("frame.mouth.colours").shape[-1] == 3

    image, points = torch.rand(1, 3, 256, 256), torch.rand(1, POINTS, 2) - 0.5
    now, _ = load_student(path)
    rewrite(path, as_before)
    before, _ = load_student(path)
    with torch.no_grad():
        for ours, theirs in zip(now(image, points, 0.9 * points)[0], before(image, points, 0.9 * points)[0], strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
