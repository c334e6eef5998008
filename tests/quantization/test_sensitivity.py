"""Damage part by part: a table that ranks, files to keep."""

import csv
import json

import pytest
import torch
from mobile_bilayer.export.executorch import EncodeAvatar, RenderLayers

from mobile_bilayer import MobileBilayerError
from mobile_bilayer.capture.images import read_image
from mobile_bilayer.pose.head import POINTS
from mobile_bilayer.quantization.recipes import STAYS_FLOAT, Recipe
from mobile_bilayer.quantization.sensitivity import (
    ENCODER_HEADS,
    FRAME_HEADS,
    Damage,
    measure_sensitivity,
    parts_of,
    rounded,
    sensitivity_table,
    write_sensitivity,
)
from mobile_bilayer.student.network import SIZES, Student, StudentConfig
from mobile_bilayer.student.weights import save_student

TINY = StudentConfig(frame_widths=(4, 4, 8, 8), encoder_widths=(12, 8, 8, 8), features=4, codes=4)
DAMAGES = [Damage("prior", "frame", True, 20.0, 0.01, 0.3), Damage("trunk", "frame", False, 40.0, 0.001, 0.02)]


@pytest.fixture
def files(tmp_path, write_clip):
    """Weights and prepared clips."""
    folder = tmp_path / "prepared"
    folder.mkdir()
    for name in ("anna", "ben"):
        write_clip(folder / f"{name}.safetensors", identity=name)
    torch.manual_seed(0)
    save_student(Student(TINY), tmp_path / "student.safetensors", {})
    return tmp_path / "student.safetensors", folder


@pytest.mark.filterwarnings("ignore:.*calibrated on")
def test_the_prior_in_int8_harms_the_flow_more_than_a_block_of_the_trunk(files, monkeypatch):
    monkeypatch.setattr("mobile_bilayer.quantization.sensitivity.MEASURED_PAIRS", 2)
    damages = measure_sensitivity(*files, calibration=2, parts=("prior", "trunk.mid8"))
    assert [d.part for d in damages] == ["prior", "trunk.mid8"]
    worst, least = damages
    assert worst.float and not least.float
    assert worst.flow_px > 10 * least.flow_px and worst.sqnr_db < least.sqnr_db
    with pytest.raises(MobileBilayerError, match="No part is called mid8"):
        measure_sensitivity(*files, calibration=1, parts=("mid8",))


def test_every_block_with_weights_is_a_part_and_all_that_stays_float():
    student = Student(SIZES["XS"])
    assert parts_of(student.frame, FRAME_HEADS)[:4] == ["trunk", "trunk.stem", "trunk.enc32", "trunk.enc16"]
    assert "trunk.up8" not in parts_of(student.frame, ())
    assert {*ENCODER_HEADS, *FRAME_HEADS} <= set(STAYS_FLOAT)


def test_each_part_has_convolutions_that_a_recipe_finds_in_what_is_exported():
    """One that has none would stop the measurement, after all those before it."""
    student = Student(TINY).eval()
    image, points = torch.rand(1, 3, 256, 256), torch.rand(1, POINTS, 2)
    code = student.encoder(image, points)
    for network, heads, module, example in (
        (student.encoder, ENCODER_HEADS, EncodeAvatar(student.encoder), (image, points)),
        (student.frame, FRAME_HEADS, RenderLayers(student.frame), (*code[:2], points, points)),
    ):
        convolutions = [n for n in torch.export.export(module, example).graph.nodes if "conv2d" in str(n.target)]
        for part in parts_of(network, heads):
            assert any(Recipe(int8=(part,)).holds(node) for node in convolutions), part


def test_a_rounded_tensor_has_256_values_and_is_near():
    x = torch.linspace(-1, 3, 10_000)
    assert len(rounded(x).unique()) == 256
    assert (rounded(x) - x).abs().max() < 1.01 * 4 / 255
    assert torch.equal(rounded(torch.zeros(5)), torch.zeros(5))


def test_the_report_is_a_table_a_csv_a_json_and_a_plot(tmp_path):
    assert sensitivity_table(DAMAGES).row_count == 2
    paths = write_sensitivity(tmp_path / "new" / "folder", DAMAGES)
    assert [path.suffix for path in paths] == [".csv", ".json", ".png"]
    with paths[0].open(newline="") as file:
        assert [row["part"] for row in csv.DictReader(file)] == ["prior", "trunk"]
    rows = json.loads(paths[1].read_text())
    assert rows[0]["stays_float_because"] and rows[1]["stays_float_because"] is None
    assert read_image(paths[2]).shape[1] == 960
