"""`mobile-bilayer gate`: the table, exit codes, and what it writes."""

import json
from pathlib import Path

import pytest

pytest.importorskip("torchmetrics", reason="LPIPS takes its heads from torchmetrics")

from mobile_bilayer.gates import figures, measure, public_set, rows
from mobile_bilayer.gates.measure import Measured
from mobile_bilayer.gates.rows import HELD_OUT, read_gates


@pytest.fixture
def measured(monkeypatch) -> Measured:
    """What the command will find: at first all gates as they are."""
    found = Measured(
        {gate.name: gate.value for gate in read_gates() if gate.how != HELD_OUT}, times_ms={"teacher": 310.0}
    )
    monkeypatch.setattr(measure, "measure", lambda *_, **__: found)
    monkeypatch.delenv("MOBILE_BILAYER_NO_SKIPS", raising=False)
    return found


def test_gates_that_hold_are_a_table_and_exit_code_0(command_line, measured):
    code, out, err = command_line("gate --short")
    assert code == 0 and err == ""
    assert "bundle.teacher.lpips" in out and f"{len(measured.values)} ok" in out and "teacher 310.0 ms" in out


def test_one_that_is_worse_is_named_with_exit_code_1(command_line, measured):
    measured.values["bundle.identity"] = 0.9
    code, out, err = command_line("gate")
    assert code == 1 and "worse" in out
    assert err.startswith("error: bundle.identity: worse than promised") and err.count("\n") == 1


def test_what_can_not_be_measured_says_why_and_fails_only_where_all_must_be(command_line, measured, monkeypatch):
    del measured.values["bundle.jitter"]
    measured.why_not["bundle.jitter"] = "the package mediapipe is missing"
    code, out, _ = command_line("gate")
    assert code == 0 and "not measured: the package mediapipe" in " ".join(out.split())
    monkeypatch.setenv("MOBILE_BILAYER_NO_SKIPS", "1")
    code, _, err = command_line("gate")
    assert code == 1 and err.startswith("error: bundle.jitter:")


def test_the_short_form_leaves_out_what_the_rows_say(command_line, measured):
    left = [gate.name for gate in read_gates() if not gate.short]
    for name in left:
        del measured.values[name]
    code, out, _ = command_line("gate --short")
    assert code == 0 and left and f"{len(left)} left out" in out
    assert command_line("gate")[0] == 2  # without --short nobody may leave them out


def test_the_report_has_each_rows_gate_number_and_verdict(command_line, measured, tmp_path):
    measured.values["size.macs"] *= 2
    code, _, _ = command_line(["gate", "--json", str(tmp_path / "gate.json")])
    report = json.loads((tmp_path / "gate.json").read_text())
    assert code == 1 and report["times_ms"] == {"teacher": 310.0}
    row = next(row for row in report["rows"] if row["name"] == "size.macs")
    assert (row["verdict"], row["measured"]) == ("worse", 2 * row["value"])
    assert {row["verdict"] for row in report["rows"]} == {"ok", "worse"}


def test_tighten_moves_a_gate_that_is_beaten(command_line, measured, monkeypatch, tmp_path):
    copy = tmp_path / "gates.toml"
    copy.write_text(rows.GATES.read_text("utf-8"), "utf-8")
    monkeypatch.setattr(rows, "GATES", copy)
    measured.values["bundle.teacher.lpips"] = 0.001
    code, out, _ = command_line("gate --tighten")
    assert code == 0 and "moved bundle.teacher.lpips" in " ".join(out.split())
    assert {gate.name: gate.value for gate in read_gates(copy)}["bundle.teacher.lpips"] == 0.001


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("gate --tighten --table", "three things to do"),
        ("gate --table --short", "are of measuring"),
        ("gate --make-reference --json a.json", "are of measuring"),
        ("gate --fidelity a.json", "Give --table too"),
        ("gate --tighten --bundle b", "Leave --bundle out"),
        ("gate --json a.txt", "must end in .json"),
        ("gate --table --fidelity none.json", "none.json does not exist"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(command_line, line, words):
    code, _, err = command_line(line)
    assert code == 2 and words in err and err.count("\n") == 1


def test_a_bundle_that_is_not_there_is_exit_code_2(tmp_path):
    from mobile_bilayer.errors import MobileBilayerError

    with pytest.raises(MobileBilayerError, match="does not exist"):
        measure.Bundle.open(tmp_path / "none")


def test_readmes_table_is_what_the_command_makes(tmp_path):
    copy = tmp_path / "README.md"
    copy.write_text(figures.README.read_text("utf-8"), "utf-8")
    assert not figures.write_table(copy)


def test_a_readme_with_another_number_is_mended(tmp_path):
    text = figures.README.read_text("utf-8")
    copy = tmp_path / "README.md"
    number = f"{figures.read_figures()['rows']['S int8']['lpips']:.4f}"
    assert number in text
    copy.write_text(text.replace(number, "0.0703"), "utf-8")
    assert figures.write_table(copy) and copy.read_text("utf-8") == text


def test_a_readme_without_the_comments_is_refused(tmp_path):
    from mobile_bilayer.errors import MobileBilayerError

    copy = tmp_path / "README.md"
    copy.write_text("# nothing", "utf-8")
    with pytest.raises(MobileBilayerError, match="must have one line"):
        figures.write_table(copy)
    assert copy.read_text("utf-8") == "# nothing"


def test_the_figures_that_are_cheap_still_hold():
    rows_of = figures.read_figures()["rows"]
    for method, counted in figures.cheap_figures().items():
        for name, number in counted.items():
            assert rows_of[method][name] == number, (method, name)


def test_figures_come_from_the_two_reports(tmp_path):
    fidelity = {"pairs": 2, "clips": 1, "people": 1, "methods": {}}
    for row in figures.ROWS:
        fidelity["methods"][row.method] = {metric: {"mean": 0.25} for metric in figures.FIDELITY}
    runs = [
        {"params": {"size": size, "precision": precision}, "extra_info": {"teacher_over_student": ratio}}
        for size, precision, ratio in (("S", "int8", 41.6), ("S", "fp32", 7), ("XS", "fp32", 8), ("XS", "int8", 80))
    ]
    ratios = {
        "benchmarks": runs,
        "datetime": "2026",
        "machine_info": {"system": "Linux", "machine": "x", "cpu": {"brand_raw": "y"}},
    }
    (tmp_path / "fidelity.json").write_text(json.dumps(fidelity))
    (tmp_path / "ratios.json").write_text(json.dumps(ratios))
    figures.take_figures(tmp_path / "fidelity.json", tmp_path / "ratios.json", tmp_path / "figures.json")
    table = figures.figures_table(figures.read_figures(tmp_path / "figures.json"))
    line = next(line for line in table.splitlines() if "student S" in line)
    assert "| 42 | 0.2500 |" in line and "int8" in line


@pytest.mark.parametrize("text", ["{}", "[]", "no JSON"])
def test_a_report_of_something_else_is_refused_and_nothing_is_written(tmp_path, text):
    from mobile_bilayer.errors import MobileBilayerError

    (tmp_path / "a.json").write_text(text)
    with pytest.raises(MobileBilayerError, match="lacks what the table needs"):
        figures.take_figures(tmp_path / "a.json", None, tmp_path / "figures.json")
    assert not Path(tmp_path / "figures.json").exists()


def test_a_reference_of_other_poses_is_refused(tmp_path):
    from mobile_bilayer.capture.images import read_image, write_image
    from mobile_bilayer.errors import MobileBilayerError

    write_image(tmp_path / "sheet.jpg", read_image(public_set.REFERENCE)[:, :256])
    with pytest.raises(MobileBilayerError, match="gate --make-reference"):
        public_set.read_reference(tmp_path / "sheet.jpg")
