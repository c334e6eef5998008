"""From weights to a bundle: proven before it is written, or not written."""

import json
import math
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from mobile_bilayer.export import bundle as module
from mobile_bilayer.export.bundle import TOLERANCES, Tolerance, export_bundle, golden_vectors, refuse_over_tolerance
from mobile_bilayer.export.executorch import Lowered

from mobile_bilayer import Bundle, MobileBilayerError
from mobile_bilayer.pose.stabilizer import StabilizerConfig
from mobile_bilayer.samples import sample_photo, sample_track


@pytest.fixture
def quick(exported, monkeypatch):
    """`export_bundle` of the tiny student, with the program that was lowered for all tests."""
    monkeypatch.setattr(module, "lower", lambda *_: exported.lowered)
    monkeypatch.setattr(module, "CALIBRATION_PAIRS", 1)
    monkeypatch.setattr(module, "CHECKED_PAIRS", 1)
    return lambda out, **options: export_bundle(exported.weights, exported.prepared, out, twin=False, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_whole_export_opens_verifies_and_animates(exported):
    bundle = Bundle.open(exported.bundle.where)
    errors = bundle.verify()
    assert set(errors) == set(bundle.golden()[1])
    avatar = bundle.avatar(*sample_photo("astronaut"))
    track = sample_track()
    avatar.neutral = track[0].landmarks
    assert avatar.render(track[40]).shape == (256, 256, 3)


def test_the_manifest_says_what_was_exported_and_how_near_it_is(exported):
    manifest = exported.bundle.manifest
    assert manifest.name == "tiny-int8" and manifest.precision == "int8" and manifest.size == "custom"
    assert manifest.program == "student-custom-256-int8-xnnpack.pte"
    assert manifest.stabilizer == StabilizerConfig() and len(manifest.template_points) == 478
    errors = {k: v for spec in manifest.methods.values() for k, v in spec.largest_error.items()}
    assert set(errors) == set(TOLERANCES["int8"])
    assert all(0 <= error <= TOLERANCES["int8"][name].largest for name, error in errors.items())


def test_the_card_holds_the_weights_own_facts(exported):
    assert "7 steps" in exported.bundle.card and "l1 mouth eyes 0.0567" in exported.bundle.card


def test_nothing_but_the_bundle_is_left_and_others_may_read_it(exported):
    folder = Path(exported.bundle.where)
    assert {file.name for file in folder.parent.iterdir()} == {"prepared", "student.safetensors", "tiny-int8"}
    assert {file.name for file in folder.iterdir()} == {"manifest.json", *exported.bundle.manifest.sha256}
    assert folder.stat().st_mode & 0o777 == 0o755


def test_the_golden_layers_are_the_float_students_own(exported):
    """Run again from what is stored: a reader gets the stored output from the stored input."""
    import torch

    golden = golden_vectors(exported.student)
    with torch.no_grad():
        layers = exported.student.frame(
            *(torch.from_numpy(golden[k].astype(np.float32)) for k in ("landmark_features", "map_features")),
            *(torch.from_numpy(golden[k])[None] for k in ("source_points", "driving_points")),
        )
    np.testing.assert_allclose(golden["layers_a"], layers.a.numpy(), atol=1e-3)
    np.testing.assert_allclose(golden["layers_b"], layers.b.numpy(), atol=1e-3)


def test_a_given_card_is_kept_word_for_word(quick, tmp_path):
    assert quick(tmp_path / "out", card="# Ours\n").card == "# Ours\n"


def test_an_older_bundle_is_replaced(quick, exported, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(exported.bundle.where, out)
    assert quick(out, card="new").card == "new"
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("older", [False, True])
def test_an_export_whose_check_fails_writes_nothing_and_keeps_the_older_bundle(
    quick, exported, tmp_path, monkeypatch, older
):
    out = tmp_path / "out"
    if older:
        shutil.copytree(exported.bundle.where, out)
    before = contents(tmp_path)
    monkeypatch.setattr(module, "compare", lambda *_: {"flow": Tolerance(0.5, 0.5)})
    with pytest.raises(MobileBilayerError, match="flow"):
        quick(out)
    assert contents(tmp_path) == before


def test_an_export_that_breaks_off_leaves_nothing(quick, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "compare", interrupted)
    with pytest.raises(KeyboardInterrupt):
        quick(tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["file", "folder", "someone's manifest.json", "more than a bundle", "link"])
def test_what_is_no_bundle_is_never_replaced(quick, exported, tmp_path, kind):
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    elif kind == "more than a bundle":
        shutil.copytree(exported.bundle.where, out)
        (out / "notes.txt").write_text("mine")
    elif kind == "link":
        shutil.copytree(exported.bundle.where, tmp_path / "elsewhere")
        out.symlink_to(tmp_path / "elsewhere")
    else:
        out.mkdir()
        (out / "notes.txt").write_text("mine")
        if kind != "folder":
            (out / "manifest.json").write_text(json.dumps({"name": "my web app"}))
    before = contents(tmp_path)
    with pytest.raises(MobileBilayerError, match="Choose another output"):
        quick(out)
    assert contents(tmp_path) == before


def test_a_place_that_cannot_be_written_to_is_refused_before_the_long_work(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "lower", lambda *_: pytest.fail("it was lowered in vain"))
    (tmp_path / "file").write_text("")
    with pytest.raises(MobileBilayerError, match="can't be written to"):
        export_bundle(exported.weights, exported.prepared, tmp_path / "file" / "out")
    with pytest.raises(MobileBilayerError, match="int8"):
        export_bundle(exported.weights, exported.prepared, tmp_path / "out", precision="int4")


def test_weights_and_clips_that_are_none_are_refused(exported, tmp_path):
    (tmp_path / "text.safetensors").write_text("no weights")
    for weights in (tmp_path / "none", tmp_path / "text.safetensors", tmp_path):
        with pytest.raises(MobileBilayerError, match="weights"):
            export_bundle(weights, exported.prepared, tmp_path / "out")
    with pytest.raises(MobileBilayerError, match="prepared clips"):
        export_bundle(exported.weights, tmp_path / "none", tmp_path / "out")
    assert os.listdir(tmp_path) == ["text.safetensors"]


@pytest.mark.parametrize("precision", list(TOLERANCES))
@pytest.mark.parametrize("name", list(TOLERANCES["int8"]))
def test_an_output_over_its_tolerance_is_refused_by_name(precision, name):
    allowed = TOLERANCES[precision]
    exactly = dict(allowed)
    refuse_over_tolerance(exactly, precision)
    for wrong in (
        Tolerance(allowed[name].largest * 1.01, 0),
        Tolerance(0, allowed[name].mean * 1.01),
        Tolerance(math.nan, 0),
        Tolerance(0, math.nan),
        Tolerance(math.inf, 0),
    ):
        with pytest.raises(MobileBilayerError, match=rf"wrong in {name}\b"):
            refuse_over_tolerance(exactly | {name: wrong}, precision)


def test_QU1_the_error_is_that_of_pairs_which_it_was_not_calibrated_on(exported, tmp_path, monkeypatch):
    seen = {}

    def lower(_student, calibration, *_):
        seen["calibrated"] = calibration["encode_avatar"]
        return exported.lowered

    def compare(_student, _bundle, inputs):
        seen["held out"] = inputs["encode_avatar"]
        return {"flow": Tolerance(0.01, 0.001)}

    monkeypatch.setattr(module, "lower", lower)
    monkeypatch.setattr(module, "compare", compare)
    monkeypatch.setattr(module, "CHECKED_PAIRS", 2)
    bundle = export_bundle(exported.weights, exported.prepared, tmp_path / "out", calibration=3, twin=False)
    assert bundle.manifest.methods["render_layers"].largest_error == {"flow": 0.01}
    assert len(seen["calibrated"]) == 3 and len(seen["held out"]) == 2
    assert all(a[0] is not b[0] for a in seen["calibrated"] for b in seen["held out"])


@pytest.mark.parametrize("larger", [False, True])
def test_QU4_an_int8_bundle_is_held_against_its_float_twin(exported, tmp_path, monkeypatch, larger):
    """The twin is the same program, once with something behind it."""
    twin = Lowered(exported.lowered.data + bytes(16 * larger), exported.lowered.undelegated)
    asked = []

    def lower(_student, _calibration, precision, *_):
        asked.append(precision)
        return twin if precision == "fp32" else exported.lowered

    monkeypatch.setattr(module, "lower", lower)
    monkeypatch.setattr(module, "CALIBRATION_PAIRS", 1)
    monkeypatch.setattr(module, "CHECKED_PAIRS", 1)
    told = []
    monkeypatch.setattr(module, "warn_slower", lambda *took: told.append(took))
    out = tmp_path / "out"
    if larger:
        assert export_bundle(exported.weights, exported.prepared, out).manifest.precision == "int8"
        assert len(told) == 1 and min(told[0]) > 0
    else:
        with pytest.raises(MobileBilayerError, match="nothing is gained"):
            export_bundle(exported.weights, exported.prepared, out)
        assert not list(tmp_path.iterdir())
    assert asked == ["int8", "fp32"]
