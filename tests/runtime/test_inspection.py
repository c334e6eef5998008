"""`inspect`: what is told of each kind of file, and of damaged ones."""

import hashlib
import json
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from mobile_bilayer import Bundle, MobileBilayerError
from mobile_bilayer.runtime import inspection
from mobile_bilayer.runtime.bundle import bundle_sha256, shipped_bundle
from mobile_bilayer.runtime.inspection import inspect, to_json
from mobile_bilayer.samples import sample_photo


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return Bundle.open()


@pytest.fixture
def folder(tmp_path) -> Path:
    return Path(shutil.copytree(shipped_bundle(), tmp_path / "bundle"))


def test_a_bundle_is_told_whole(shipped):
    found = inspect(shipped_bundle())
    about = shipped.manifest
    assert found.kind == "bundle" and not found.problems
    for name in ("size", "precision", "backend", "minimum_runtime", "program", "student", "format_version"):
        assert found.facts[name] == getattr(about, name)
    assert found.facts["bytes"] == sum(file.stat().st_size for file in shipped_bundle().iterdir())
    assert {file.name: file.sha256 for file in found.files} == about.sha256 and all(file.ok for file in found.files)
    encode, render = found.methods
    image = encode.inputs[0]
    assert (image.name, image.shape, image.dtype, image.low, image.high) == ("image", (1, 3, 256, 256), "float32", 0, 1)
    assert [v.name for v in render.outputs] == ["layers_a", "layers_b"]
    assert render.share == 1 and render.undelegated == {} and render.delegated["Conv2d"] > 10
    assert found.card[0].startswith("# Model card")


def test_a_zip_of_a_bundle_is_told_as_its_folder(folder):
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, f"b/{file.name}")
    zipped, plain = inspect(path), inspect(folder)
    assert (zipped.facts, zipped.methods, zipped.files) == (plain.facts, plain.methods, plain.files)


def test_a_bundle_is_told_by_the_hash_that_results_of_benchmarks_call_it_by(folder):
    wanted = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert inspect(folder).facts["sha256"] == wanted == bundle_sha256(folder)


@pytest.mark.parametrize("name", ["student.safetensors", "result.json", "manifest"])
def test_what_is_no_kind_of_file_that_it_knows_is_told_what_is(tmp_path, name):
    (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(MobileBilayerError, match=rf"{name} is none of what can be inspected: .*Of weights `mobile-bilayer export` makes a bundle"):
        inspect(tmp_path / name)


def test_a_zip_that_was_cut_off_is_called_a_bundle_that_cannot_be_read(tmp_path):
    (tmp_path / "my-bundle.zip").write_bytes(b"PK\x03\x04")
    with pytest.raises(MobileBilayerError, match="is no bundle: neither a folder nor a readable zip"):
        inspect(tmp_path / "my-bundle.zip")


def test_a_program_without_its_bundle_is_told(shipped, folder):
    found = inspect(folder / shipped.manifest.program)
    assert found.kind == "ExecuTorch program" and found.facts["format"] == "ET12, schema version 0"
    assert found.facts["backend"] == "XnnpackBackend"
    assert [m.name for m in found.methods] == ["encode_avatar", "render_layers"]
    assert [v.shape for v in found.methods[1].outputs] == [(1, 4, 64, 64), (1, 3, 128, 128)]
    assert found.methods == [m.__class__(m.name, m.inputs, m.outputs, m.delegated, {}, 1.0) for m in found.methods]


def test_an_avatar_is_told_and_one_of_another_version_is_a_problem(shipped, tmp_path):
    shipped.avatar(*sample_photo("astronaut")).save(tmp_path / "me.avatar")
    found = inspect(tmp_path / "me.avatar")
    assert found.kind == "avatar" and found.facts["student"] == shipped.manifest.student and not found.problems
    assert {v.name: v.shape for v in found.tensors}["texture"] == (256, 256, 3)
    header = {"format": "mobile_bilayer avatar", "version": "7"}
    save_file({"x": np.zeros(2, np.float32)}, tmp_path / "new.avatar", header)
    version, tensors = inspect(tmp_path / "new.avatar").problems
    assert "format version is 7; this mobile_bilayer reads 1" in version
    assert tensors.startswith("It lacks alpha, background, ")


def test_a_manifest_that_names_no_golden_vectors_is_a_problem(folder):
    """`Bundle.open` refuses it as well."""
    values = json.loads((folder / "manifest.json").read_text())
    del values["sha256"]["golden.safetensors"]
    (folder / "manifest.json").write_text(json.dumps(values))
    assert inspect(folder).problems == ["The manifest does not name golden.safetensors. Export the bundle again."]
    with pytest.raises(MobileBilayerError, match=r"golden\.safetensors"):
        Bundle.open(folder)


def test_a_program_that_lacks_a_method_is_a_problem(folder, monkeypatch):
    real = inspection.read_program
    monkeypatch.setattr(inspection, "read_program", lambda *a: replace(real(*a), methods=real(*a).methods[:1]))
    assert inspect(folder).problems == ["The program lacks render_layers. Export the bundle again."]


def test_a_changed_file_and_a_missing_one_are_told_beside_what_is_right(folder, shipped, command_line):
    golden = folder / "golden.safetensors"
    golden.write_bytes(golden.read_bytes() + b"x")
    (folder / "MODEL_CARD.md").unlink()
    found = inspect(folder)
    assert {file.name: file.ok for file in found.files} == {
        shipped.manifest.program: True,
        "golden.safetensors": False,
        "MODEL_CARD.md": False,
        "PROOF.md": True,
    }
    assert len(found.problems) == 2 and found.methods[0].share == 1
    code, out, err = command_line(["inspect", str(folder)])
    assert (
        code == 2
        and "WRONG" in out
        and "golden.safetensors has not the sha256" in err
        and "MODEL_CARD.md is missing" in err
    )


def test_a_program_that_is_not_the_manifests_is_a_problem(folder, shipped):
    text = json.loads((folder / "manifest.json").read_text())
    text["methods"]["render_layers"]["outputs"][0]["shape"] = [1, 4, 32, 32]
    (folder / "manifest.json").write_text(json.dumps(text))
    (problem,) = inspect(folder).problems
    assert "render_layers gives [(1, 4, 64, 64)" in problem and "(1, 4, 32, 32)" in problem


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        ("vulkan", "The program's encode_avatar is made for XnnpackBackend; for vulkan it must be VulkanBackend."),
        ("abacus", "The manifest's backend is 'abacus'; this mobile_bilayer knows coreml, xnnpack, vulkan, coreml-delegate, qnn."),
    ],
)
def test_a_program_for_another_backend_than_the_manifests_is_a_problem(backend, words, folder):
    text = json.loads((folder / "manifest.json").read_text()) | {"backend": backend}
    (folder / "manifest.json").write_text(json.dumps(text))
    assert inspect(folder).problems[0] == words


def test_a_program_that_takes_float16_is_a_problem(folder, monkeypatch):
    real = inspection.read_program

    def half(data: bytes, where: str):
        program = real(data, where)
        method = program.methods[1]
        inputs = [replace(tensor, dtype="float16") for tensor in method.inputs]
        return replace(program, methods=[program.methods[0], replace(method, inputs=inputs)])

    monkeypatch.setattr(inspection, "read_program", half)
    assert inspect(folder).problems == [
        "The program's render_layers takes float16; it must be float32. Export the bundle again."
    ]


def test_an_operator_that_the_manifest_does_not_name_is_a_problem(folder, shipped, monkeypatch):
    real = inspection.read_program

    def with_one_outside(data: bytes, where: str):
        program = real(data, where)
        program.methods[1].undelegated["aten::cumsum.out"] = 1
        return program

    monkeypatch.setattr(inspection, "read_program", with_one_outside)
    assert "manifest does not name: aten::cumsum.out" in inspect(folder).problems[0]
    text = json.loads((folder / "manifest.json").read_text())
    text["methods"]["render_layers"]["undelegated"] = {"aten.cumsum.default": "it is a test"}
    (folder / "manifest.json").write_text(json.dumps(text))
    found = inspect(folder)
    assert not found.problems and 0.99 < found.methods[1].share < 1


def test_a_damaged_program_with_a_right_hash_is_a_problem(folder, shipped):
    name = shipped.manifest.program
    data = (folder / name).read_bytes()[:50_000]
    (folder / name).write_bytes(data)
    text = json.loads((folder / "manifest.json").read_text())
    text["sha256"][name] = hashlib.sha256(data).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(text))
    assert "cut off" in inspect(folder).problems[0]


@pytest.mark.parametrize(
    "name",
    [
        "none.pte",
        "none.avatar",
        "none.mlpackage",
        "none",
        "text.pte",
        "text.avatar",
        "text.mlpackage",
        "text",
        "empty.pte",
        "folder.pte",
        "folder",
        "folder.mlpackage",
    ],
)
def test_what_is_none_of_these_is_refused_in_words(tmp_path, name):
    path = tmp_path / name
    if path.stem == "text":
        path.write_bytes(b"some text, and more of it" * 9)
    elif path.stem == "empty":
        path.touch()
    elif path.stem == "folder":
        path.mkdir()
    with pytest.raises(MobileBilayerError) as caught:
        inspect(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_the_command_prints_one_json_object(command_line):
    code, out, err = command_line("inspect --json")
    assert code == 0 and not err
    assert json.loads(out) == json.loads(to_json(inspect(shipped_bundle())))


def test_the_command_prints_tables_without_markup_or_control_codes_of_the_file(folder, command_line):
    text = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(text | {"name": "[red]me[/red]\u001b[2J\nnext"}))
    code, out, err = command_line(["inspect", str(folder)])
    assert code == 0 and not err and "\x1b[2J" not in out
    assert "[red]me[/red]" in out and "source_landmarks" in out and "operators in the backend (100.0%)" in out
