"""One table of exported files."""

import csv
import json
import sys
import warnings
from dataclasses import replace
from math import isnan, nan

import pytest
import torch

pytest.importorskip("torchmetrics", reason="LPIPS takes its heads from torchmetrics")
from mobile_bilayer.export.executorch import HalfTrunk

from mobile_bilayer import Bundle, MobileBilayerError
from mobile_bilayer.quantization import compare
from mobile_bilayer.quantization.compare import FLOAT, Row, compare_precisions, comparison_table, write_comparison
from mobile_bilayer.student.weights import SHIPPED

ROW = Row("int8", 1441.2, 9.0, 40.1, 0.001, 23.0, 0.08, nan, nan)


@pytest.fixture
def prepared(tmp_path, write_clip):
    folder = tmp_path / "prepared"
    folder.mkdir()
    write_clip(folder / "anna.safetensors", "anna", count=3)
    return folder


def test_a_bundle_is_measured_as_the_file_that_it_is(prepared, monkeypatch):
    """The shipped one, against the weights that it was made of; beside it its own program under another name."""
    bundle = Bundle.open()
    shipped = bundle.contents[bundle.manifest.program]
    monkeypatch.setattr(compare, "variant_files", lambda *_: shipped)
    monkeypatch.setattr(
        compare, "median_ms", lambda runs, rounds: {name: float(run() is not None) for name, run in runs.items()}
    )
    rows = compare_precisions(SHIPPED, prepared, prepared, [bundle_path()], 1, quick=True, variants=("fp32",))
    assert [row.name for row in rows] == ["fp32", f"{bundle_path().name}, S int8"]
    first, second = rows
    assert first.file_kb == pytest.approx(len(shipped) / 1000) and first.frame_ms == 1
    assert 30 < first.float_psnr < 60 and 0 < first.float_lpips < 0.02
    assert (first.float_psnr, first.lpips) == pytest.approx((second.float_psnr, second.lpips))


def bundle_path():
    from mobile_bilayer.runtime.bundle import shipped_bundle

    return shipped_bundle()


def test_half_precision_keeps_what_the_trunk_gives():
    torch.manual_seed(0)
    trunk = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.Conv2d(8, 4, 3)).eval()
    x = torch.randn(1, 3, 16, 16)
    with torch.no_grad():
        wanted = trunk(x)
        got = HalfTrunk(trunk)(x)
    assert got.dtype == torch.float32 and 0 < (got - wanted).abs().max() < 0.01


def test_the_table_shows_what_was_not_measured_as_a_dash(tmp_path):
    table = comparison_table([ROW])
    assert [next(iter(column.cells)) for column in table.columns] == [
        "int8", "1441", "9.00", "40.1", "0.0010", "23.00", "0.0800", "–", "–",
    ]  # fmt: skip
    text, data = write_comparison(tmp_path / "out", [ROW])
    with text.open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == ["int8"]
    assert json.loads(data.read_text())[0]["identity"] is None


def test_float_weights_are_no_bundle(prepared):
    with pytest.raises(MobileBilayerError, match="--bundle takes bundles"):
        compare_precisions(SHIPPED, prepared, prepared, [SHIPPED])
    assert FLOAT not in compare.VARIANTS


def test_a_bundle_for_another_backend_is_refused_by_name(monkeypatch):
    shipped = Bundle.open()
    for_vulkan = replace(shipped, manifest=replace(shipped.manifest, backend="vulkan"), where="gpu")
    monkeypatch.setattr(compare.Bundle, "open", lambda *_: for_vulkan)
    with pytest.raises(MobileBilayerError, match="gpu is for vulkan; --bundle takes those for xnnpack and coreml"):
        compare.open_bundles([bundle_path()])


@pytest.mark.parametrize(("variant", "share", "least_db"), [("w8", (0.2, 0.4), 38), ("palettized4", (0.1, 0.3), 25)])
def test_weights_alone_are_measured_but_not_timed_where_an_evaluator_computes_them(prepared, monkeypatch, variant, share, least_db):
    """Four bits are a seventh of float's size, and seen in the picture; what cannot be timed is no number."""
    pytest.importorskip("coremltools")
    monkeypatch.setattr(compare, "median_ms", lambda runs, rounds: dict.fromkeys(runs, 1.0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an evaluator is slow
        rows = compare_precisions(SHIPPED, prepared, prepared, [], 1, quick=True, variants=("fp32", variant))
    whole, few = rows
    assert (whole.name, few.name) == ("fp32", variant)
    assert share[0] * whole.file_kb < few.file_kb < share[1] * whole.file_kb
    assert least_db < few.float_psnr < whole.float_psnr - 20
    assert whole.frame_ms == 1 and isnan(few.frame_ms) == (sys.platform != "darwin")


def test_without_coremltools_its_rows_are_left_out_with_a_reason(monkeypatch):
    def missing():
        raise MobileBilayerError("Core ML packages need coremltools.")

    monkeypatch.setattr(compare, "coremltools", missing)
    with pytest.warns(UserWarning, match="w8, palettized6, palettized4 are left out. Core ML packages need coremltools"):
        assert compare.made_here(compare.VARIANTS) == ["fp32", "fp16 weights", "int8"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--qat --compare", "Give one of them"),
        ("--steps 5", "Give --qat too"),
        ("--observer mean", "mean"),
        ("--qat --steps 0", "more than 0"),
        ("--qat", "needs an end"),
        ("--calibration 0", "nothing to calibrate"),
    ],
)
def test_what_cannot_be_done_is_refused_and_nothing_written(command_line, prepared, tmp_path, options, words):
    code, _, err = command_line(f"quantize {SHIPPED} {prepared} -o {tmp_path}/out {options}")
    assert code == 2 and words in err and err.count("error:") == 1
    assert not (tmp_path / "out").exists()
