"""Bundles: the shipped one works, and a damaged or foreign one is refused in words."""

import copy
import hashlib
import json
import os
import random
import shutil
import zipfile
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, save

from mobile_bilayer import Bundle, MobileBilayerError
from mobile_bilayer.pose.head import face_template
from mobile_bilayer.pose.stabilizer import StabilizerConfig
from mobile_bilayer.runtime import bundle as bundle_module
from mobile_bilayer.runtime.bundle import shipped_bundle
from mobile_bilayer.runtime.manifest import FORMAT_VERSION, Manifest
from mobile_bilayer.runtime.program import Program

REMEDY = r"Export|export|Copy|copy|Update|Check|no bundle"


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return Bundle.open()


@pytest.fixture
def folder(tmp_path, shipped) -> Path:
    """A copy of the shipped bundle, to be spoilt; its manifest as it is written today."""
    copied = Path(shutil.copytree(shipped_bundle(), tmp_path / "bundle"))
    (copied / "manifest.json").write_text(shipped.manifest.to_json())
    return copied


def first_version(folder: Path) -> dict:
    """The manifest as bundles had it before the second version."""
    values = manifest_of(folder)
    points = values.pop("template_points")
    del values["stabilizer"]
    return values | {"format_version": 1, "rigid_points": [points[i] for i in values["rigid"]]}


def manifest_of(folder: Path) -> dict:
    return json.loads((folder / "manifest.json").read_text())


def with_manifest(folder: Path, **changes: object) -> Path:
    (folder / "manifest.json").write_text(json.dumps(manifest_of(folder) | changes))
    return folder


def with_file(folder: Path, name: str, data: bytes) -> Path:
    """The bundle with another file in it, whose hash is right."""
    (folder / name).write_bytes(data)
    hashes = manifest_of(folder)["sha256"] | {name: hashlib.sha256(data).hexdigest()}
    return with_manifest(folder, sha256=hashes)


def refusal(path: Path, use=Bundle.open) -> str:
    """What is said of it; it says what to do as well."""
    with pytest.raises(MobileBilayerError, match=REMEDY) as caught:
        use(path)
    return str(caught.value)


def verify(path: Path) -> dict[str, float]:
    return Bundle.open(path).verify()


def test_the_shipped_bundle_computes_what_the_student_did(shipped):
    errors = shipped.verify()
    _, tolerances = shipped.golden()
    assert set(errors) == set(tolerances)
    assert all(0 <= error <= tolerances[name] for name, error in errors.items())


def test_the_shipped_bundle_is_of_the_newest_format():
    assert json.loads((shipped_bundle() / "manifest.json").read_text("utf-8"))["format_version"] == FORMAT_VERSION


def test_the_shipped_bundle_is_at_most_2_mb():
    assert sum(file.stat().st_size for file in shipped_bundle().rglob("*") if file.is_file()) <= 2e6


def test_the_shipped_bundle_has_no_operator_outside_the_backend(shipped):
    assert all(not spec.undelegated for spec in shipped.manifest.methods.values())


def test_the_shipped_bundle_holds_what_its_manifest_lists_and_a_card(shipped):
    assert {f.name for f in shipped_bundle().iterdir()} == {"manifest.json", *shipped.manifest.sha256}
    assert shipped.card.strip()


@pytest.mark.parametrize("prefix", ["", "student-S/"])
def test_a_zip_of_the_files_or_of_their_folder_is_a_bundle(shipped, tmp_path, prefix):
    path = tmp_path / "bundle.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in shipped_bundle().iterdir():
            archive.write(file, prefix + file.name)
    assert Bundle.open(path).contents == shipped.contents


def test_a_manifest_comes_back_as_it_was_written(shipped):
    assert Manifest.from_json(shipped.manifest.to_json(), "here") == shipped.manifest


def test_golden_vectors_that_differ_are_found(folder):
    golden = load((folder / "golden.safetensors").read_bytes())
    data = (folder / "golden.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    golden["composed"] = golden["composed"] + np.float16(1)
    message = refusal(with_file(folder, "golden.safetensors", save(golden, header)), verify)
    assert "composed" in message and str(folder) in message


def test_a_flow_that_is_off_by_three_pixels_is_found_though_a_mask_might_be(folder):
    golden, tolerances = Bundle.open(folder).golden()
    golden["layers_a"] = golden["layers_a"].copy()
    golden["layers_a"][:, :2] += np.float16(3 * 2 / 256)
    data = save(golden, {"tolerances": json.dumps(tolerances)})
    assert tolerances["mask"] > 3 * 2 / 256
    assert "flow is" in refusal(with_file(folder, "golden.safetensors", data), verify)


# Bundles that are none.


def test_a_bundle_that_is_not_there_is_refused(tmp_path):
    assert str(tmp_path / "none") in refusal(tmp_path / "none")


def test_an_empty_folder_is_refused(tmp_path):
    assert "manifest.json" in refusal(tmp_path)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04 and then nothing", b"PK\x05\x06" + bytes(18)])
def test_a_file_that_is_no_bundle_is_refused(tmp_path, content):
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    assert str(path) in refusal(path)


@pytest.mark.parametrize("which", ["manifest.json", "program", "golden.safetensors", "MODEL_CARD.md"])
def test_a_bundle_without_one_of_its_files_is_refused_by_the_files_name(folder, which):
    name = manifest_of(folder)["program"] if which == "program" else which
    (folder / name).unlink()
    message = refusal(folder)
    assert name in message and str(folder) in message


@pytest.mark.parametrize("which", ["program", "golden.safetensors", "MODEL_CARD.md"])
def test_one_flipped_bit_is_refused_by_the_files_name(folder, which):
    name = manifest_of(folder)["program"] if which == "program" else which
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    message = refusal(folder)
    assert name in message and "sha256" in message


@pytest.mark.parametrize("which", ["golden.safetensors", "MODEL_CARD.md"])
def test_a_manifest_must_list_every_file(folder, which):
    hashes = manifest_of(folder)["sha256"]
    del hashes[which]
    assert which in refusal(with_manifest(folder, sha256=hashes))


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_truncated_manifest_is_refused(folder, share):
    text = (folder / "manifest.json").read_bytes().rstrip()
    (folder / "manifest.json").write_bytes(text[: int(len(text) * share)])
    assert "manifest.json is not JSON" in refusal(folder)


@pytest.mark.parametrize("text", [b"\xff\xfe\x00", b"[" * 100_000, b"1" * 10_000, b"null", b"[]", b'"text"', b"{}"])
def test_json_that_is_no_manifest_is_refused(folder, text):
    (folder / "manifest.json").write_bytes(text)
    assert "manifest.json" in refusal(folder)


def test_a_newer_format_asks_for_an_update_and_an_older_one_for_an_export(folder):
    assert "Update mobile_bilayer" in refusal(with_manifest(folder, format_version=99))
    assert "Export the bundle again" in refusal(with_manifest(folder, format_version=0))


def test_a_newer_format_is_told_before_its_new_keys(folder):
    assert "format version 3" in refusal(with_manifest(folder, format_version=3, colour="blue"))


def test_a_manifest_names_the_face_template_and_how_motion_is_smoothed(folder):
    values = manifest_of(folder)
    assert values["format_version"] == 2
    np.testing.assert_allclose(values["template_points"], face_template().points, atol=1e-6)
    assert values["stabilizer"] == json.loads(json.dumps(asdict(StabilizerConfig())))
    assert Bundle.open(folder).manifest.stabilizer == StabilizerConfig()


def test_a_smoothing_of_its_own_is_read(folder):
    calm = manifest_of(folder)["stabilizer"]
    calm["pose"]["rest_hz"], calm["gap_s"] = 0.25, 0.75
    config = Bundle.open(with_manifest(folder, stabilizer=calm)).manifest.stabilizer
    assert (config.pose.rest_hz, config.gap_s) == (0.25, 0.75) and config.lids == StabilizerConfig().lids


def test_a_bundle_of_the_first_version_opens_and_is_written_as_one_of_the_second(folder, shipped):
    (folder / "manifest.json").write_text(json.dumps(first_version(folder)))
    manifest = Bundle.open(folder).manifest
    assert manifest == shipped.manifest and json.loads(manifest.to_json())["format_version"] == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rigid_points", None),  # left out
        ("rigid_points", [[0, 0, 0]]),
        ("rigid_points", "all"),
        ("rigid", None),
        ("rigid", [1, 2, 3]),
        ("crop_up", None),
        ("template_points", []),  # which it had not
        ("stabilizer", {}),
    ],
)
def test_a_first_version_that_is_none_is_refused_by_the_key(folder, key, value):
    values = first_version(folder) | {key: value}
    if value is None:
        del values[key]
    (folder / "manifest.json").write_text(json.dumps(values))
    assert key in refusal(folder)


def test_a_first_version_for_another_face_template_is_refused(folder):
    values = first_version(folder)
    values["rigid_points"][7][1] += 0.01
    (folder / "manifest.json").write_text(json.dumps(values))
    assert "rigid_points are not those of the face template" in refusal(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"pose": None}, "stabilizer.pose is 'None'"),
        ({"pose": {"rest_hz": 1.0}}, "stabilizer.pose lacks"),
        ({"colour": 1.0}, "stabilizer has unknown colour"),
        ({"gap_s": -1}, "gap_s is -1"),
        ({"gap_s": float("nan")}, "stabilizer.gap_s is nan"),
        ({"lids": {"rest_hz": -2, "speed_hz": 1, "newest": 0.5, "kernel": [0, 0, 0, 1, 0, 0, 0]}}, "rest_hz -2"),
        ({"lids": {"rest_hz": 2, "speed_hz": 1, "newest": 0.5, "kernel": [0, 0, 0, 9, 0, 0, 0]}}, "adds up to 9"),
        ({"lids": {"rest_hz": 2, "speed_hz": 1, "newest": 0.5, "kernel": "narrow"}}, "stabilizer.lids.kernel"),
    ],
)
def test_a_smoothing_that_is_none_is_refused(folder, change, words):
    assert words in refusal(with_manifest(folder, stabilizer=manifest_of(folder)["stabilizer"] | change))


def test_an_unknown_key_is_refused_by_name(folder):
    assert "colour" in refusal(with_manifest(folder, colour="blue"))


def test_every_missing_key_is_refused_by_name(folder):
    whole = manifest_of(folder)
    for key in whole:
        (folder / "manifest.json").write_text(json.dumps({k: v for k, v in whole.items() if k != key}))
        assert key in refusal(folder)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format_version", "1"),
        ("format_version", True),
        ("name", 7),
        ("program", None),
        ("sha256", []),
        ("methods", []),
        ("mesh", "all"),
        ("mesh", [1.5]),
        ("mesh", [478]),
        ("mesh", [1, 1]),
        ("mesh", []),
        ("mesh", [0, 1, 2]),
        ("head_points", [[0, 0]]),
        ("head_points", [[0, 0, 0]]),
        ("torso_points", [[0, float("nan")], [0, 0], [0, 0]]),
        ("template_points", [[0, 0, 0]]),
        ("template_points", [[0, 0, 0]] * 478),
        ("rigid", [1, 2, 3]),
        ("stabilizer", []),
        ("stabilizer", {}),
        ("crop_up", "a sixth"),
        ("crop_up", 10**400),
        ("crop_up", float("inf")),
        ("image_px", 512),
        ("image_px", 10**30),
        ("image_px", 256.0),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_by_its_key(folder, key, value):
    assert key in refusal(with_manifest(folder, **{key: value}))


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "a/b", "a\\b", "..", ".hidden", "", "C:x", "a\nb", "a\0b", "x" * 200]
)
def test_file_names_that_lead_out_of_the_bundle_are_refused(folder, name):
    hashes = manifest_of(folder)["sha256"] | {name: "0" * 64}
    assert "no plain file name" in refusal(with_manifest(folder, sha256=hashes))


def test_a_program_that_is_not_among_the_files_is_refused(folder):
    assert "other.pte" in refusal(with_manifest(folder, program="other.pte"))


def test_a_name_in_place_of_a_hash_is_refused(folder):
    hashes = manifest_of(folder)["sha256"] | {"a": "0" * 63 + "G"}
    assert "64 hex digits" in refusal(with_manifest(folder, sha256=hashes))


@pytest.mark.parametrize("shape", [[], [1, 144], [1, 144, 28], [0, 144, 27], [10**30, 1, 1], [1] * 9, ["1"]])
def test_a_tensor_of_another_shape_than_the_programs_is_refused(folder, shape):
    methods = manifest_of(folder)["methods"]
    methods["render_layers"]["inputs"][0]["shape"] = shape
    with_manifest(folder, methods=methods)
    assert "landmark_features" in refusal(folder, verify) or "render_layers" in refusal(folder, verify)


def test_methods_that_lack_a_tensor_are_refused_when_opened(folder):
    for direction in ("inputs", "outputs"):
        methods = copy.deepcopy(manifest_of(folder)["methods"])
        methods["render_layers"][direction].pop()
        assert "render_layers" in refusal(with_manifest(folder, methods=methods))


def test_an_unknown_backend_is_refused_by_name(folder):
    message = refusal(with_manifest(folder, backend="abacus"), verify)
    assert "abacus" in message and "xnnpack" in message


@pytest.mark.parametrize("content", [b"", b"ET", b"no program at all", b"\0" * 4000, "cut"])
def test_a_program_that_is_no_executorch_file_is_refused(folder, content):
    name = manifest_of(folder)["program"]
    data = (folder / name).read_bytes()[:5000] if content == "cut" else content
    assert str(folder) in refusal(with_file(folder, name, data), verify)


def test_golden_vectors_that_cannot_be_read_are_refused(folder):
    assert "golden.safetensors" in refusal(with_file(folder, "golden.safetensors", b"no tensors"), verify)


@pytest.mark.parametrize("kind", ["bfloat16", "float8_e5m2"])
def test_golden_vectors_of_a_type_that_numpy_lacks_are_refused(folder, kind):
    import torch
    from safetensors.torch import save as save_torch

    data = save_torch({"image": torch.zeros(3, 256, 256).to(getattr(torch, kind))}, {"tolerances": "{}"})
    assert "golden.safetensors" in refusal(with_file(folder, "golden.safetensors", data), verify)


@pytest.mark.parametrize("missing", ["image", "source_points", "alpha", "composed"])
def test_golden_vectors_that_lack_one_are_refused_by_its_name(folder, missing):
    golden, tolerances = Bundle.open(folder).golden()
    del golden[missing]
    data = save(golden, {"tolerances": json.dumps(tolerances)})
    message = refusal(with_file(folder, "golden.safetensors", data), verify)
    assert "golden.safetensors" in message and missing in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("image", np.zeros((3, 8, 8), np.uint8)),
        ("alpha", np.zeros(3, np.float16)),
        ("composed", np.zeros((), np.float16)),
        ("composite_texture", np.zeros((), np.uint8)),
    ],
)
def test_golden_vectors_of_another_shape_are_refused_by_name(folder, name, value):
    golden, tolerances = Bundle.open(folder).golden()
    data = save(golden | {name: value}, {"tolerances": json.dumps(tolerances)})
    message = refusal(with_file(folder, "golden.safetensors", data), verify)
    assert "golden.safetensors" in message and name in message


@pytest.mark.parametrize("tolerances", ["{}", "[]", "no JSON", '{"alpha": "wide"}', "null"])
def test_golden_tolerances_that_are_none_are_refused(folder, tolerances):
    golden, _ = Bundle.open(folder).golden()
    data = save(golden, {"tolerances": tolerances})
    assert "golden.safetensors" in refusal(with_file(folder, "golden.safetensors", data), verify)


def test_a_zip_entry_that_says_it_is_huge_is_refused_unread(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", bytes(65 * 2**20))
    assert "manifest.json is larger than 4 MiB" in refusal(path)


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, file.name)
    return path


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_that_holds_a_file_twice_is_refused(folder):
    path = zipped(folder)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("MODEL_CARD.md", b"another card")
    assert "MODEL_CARD.md' twice" in refusal(path)


def test_a_zip_entry_that_says_it_is_smaller_than_it_is_is_refused(folder):
    path = zipped(folder)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        size = archive.getinfo("golden.safetensors").file_size
    entry = data.rindex(b"golden.safetensors") - 46  # of the central directory
    assert data[entry + 24 : entry + 28] == size.to_bytes(4, "little")
    data[entry + 24 : entry + 28] = (1000).to_bytes(4, "little")
    path.write_bytes(data)
    assert "golden.safetensors" in refusal(path)


def test_a_zip_with_a_name_of_60_kB_is_refused_in_few_words(folder):
    path = zipped(folder)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo("manifest.json").header_offset
    data[entry + 26 : entry + 28] = (60_000).to_bytes(2, "little")
    path.write_bytes(data)
    assert len(refusal(path)) < 1000


def test_files_that_are_too_large_together_are_refused(folder, monkeypatch):
    monkeypatch.setattr(bundle_module, "LARGEST", 2**20)
    assert "larger than 1 MiB together" in refusal(folder)
    assert "larger than 1 MiB together" in refusal(zipped(folder))


def test_a_key_that_is_there_twice_is_refused(folder):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text.replace("{", '{"precision": "fp32", ', 1))
    assert "a key is there twice" in refusal(folder)


@pytest.mark.parametrize(("was", "becomes"), [('"size": "S', '"size": "S\\ud800'), ('"undelegated": {', '"undelegated": {"\\udfff": ""')])
def test_text_that_is_none_is_refused(folder, was, becomes):
    manifest = (folder / "manifest.json").read_text()
    spoilt = manifest.replace(was, becomes, 1)
    assert spoilt != manifest
    (folder / "manifest.json").write_text(spoilt)
    assert "half of a surrogate pair" in refusal(folder)


@pytest.mark.parametrize("kind", ["device", "pipe", "folder", "loop", "dangling"])
def test_what_is_no_file_is_refused_unread(folder, kind):
    card = folder / "MODEL_CARD.md"
    card.unlink()
    if kind == "pipe":
        os.mkfifo(card)
    elif kind == "folder":
        card.mkdir()
    else:
        card.symlink_to({"device": "/dev/zero", "loop": card, "dangling": folder / "none"}[kind])
    assert "MODEL_CARD.md" in refusal(folder)


def test_a_linked_file_is_what_its_hash_says_or_refused(folder, tmp_path):
    """Caches of downloads keep files elsewhere, and link them into folders."""
    card = folder / "MODEL_CARD.md"
    elsewhere = card.rename(tmp_path / "card")
    card.symlink_to(elsewhere)
    assert Bundle.open(folder).card == elsewhere.read_text("utf-8")
    elsewhere.write_text("another card")
    assert "sha256" in refusal(folder)


@pytest.mark.parametrize("seed", range(40))
def test_a_zip_with_a_few_wrong_bytes_opens_or_is_refused(tmp_path, seed):
    path = tmp_path / "bundle.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("manifest.json", "MODEL_CARD.md"):
            archive.writestr(name, (shipped_bundle() / name).read_bytes()[:300])
    rng = random.Random(seed)
    data = bytearray(path.read_bytes())
    for _ in range(6):
        data[rng.randrange(len(data))] = rng.randrange(256)
    path.write_bytes(data)
    with pytest.raises(MobileBilayerError):  # what is left of the manifest is no JSON
        Bundle.open(path)


def places(value: object, path: tuple = ()) -> list[tuple]:
    """Ways to every value inside; of long lists the first few."""
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value))[:5]
    else:
        inner = []
    return [path, *(place for key, item in inner for place in places(item, (*path, key)))]


ODD = [None, True, -1, 0, 1, 1e30, 10**40, float("nan"), float("inf"), "", "x", "../x", [], {}, [[]], [None], {"": {}}]


def test_300_spoilt_manifests_open_or_are_refused(folder, shipped):
    """Only MobileBilayerError comes out, of opening and of what a program is made from."""
    whole = manifest_of(folder)
    everywhere = [place for place in places(whole) if place]
    rng = random.Random(7)
    opened = 0
    for _ in range(300):
        spoilt = copy.deepcopy(whole)
        for _ in range(rng.choice([1, 1, 2, 4])):
            *way, last = rng.choice(everywhere)
            parent = spoilt
            try:
                for key in way:
                    parent = parent[key]
                kind = rng.random()
                if kind < 0.15:
                    del parent[last]
                elif kind < 0.25 and isinstance(parent, dict):
                    parent[rng.choice(["unknown", "../x", ""])] = rng.choice(ODD)
                else:
                    parent[last] = copy.deepcopy(rng.choice(ODD))
            except (KeyError, IndexError, TypeError):
                continue  # an earlier change took this place away
        (folder / "manifest.json").write_text(json.dumps(spoilt))
        try:
            bundle = Bundle.open(folder)
            opened += 1
            if opened <= 5:
                manifest = bundle.manifest
                Program(bundle.contents[manifest.program], manifest.methods, manifest.backend, "here")
        except MobileBilayerError as error:
            assert len(str(error)) < 1000
    assert opened < 300
