"""README's table: from benchmarks/figures.json, which holds what was measured, when and by which command."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mobile_bilayer.capture.images import check_input, written_aside
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.gates.rows import ROOT, today

FIGURES, README = ROOT / "benchmarks" / "figures.json", ROOT / "README.md"
BEGIN, END = "<!-- figures: mobile-bilayer gate --table -->", "<!-- figures end -->"
FIDELITY = {
    "l1": 4,
    "mouth_and_eyes": 4,
    "opened_mouth": 3,
    "mouth_contrast": 2,
    "shut_eyes": 3,
    "lpips": 4,
    "identity": 3,
    "jitter": 2,
    "flicker": 2,
}  # and digits

TEACHER_MACS = 4_310_000_000  # of the paper's generator: tests/teacher/test_landmark.py counts them


@dataclass(frozen=True)
class Row:
    """A line of the table: how it is called, and where `evaluate fidelity` and the package have it.

    weights  beside the shipped ones; of a size without a bundle its weights are what takes room
    """

    title: str
    method: str
    size: str | None = None
    precision: str = ""
    weights: str | None = None


ROWS = (
    Row("static photo", "static photo"),
    Row("landmark warp", "landmark warp"),
    Row("student XS", "XS float", "XS", "float", "student-XS.safetensors"),
    Row("**student S**, the shipped bundle", "S int8", "S", "int8"),
    Row("student M", "M float", "M", "float", "student-M.safetensors"),
    Row("full-size teacher", "teacher", "teacher", "float", "teacher.safetensors"),
)


def figures_table(figures: Mapping[str, Mapping]) -> str:
    """Markdown."""
    heads = (
        "",
        "precision",
        "GMACs",
        "KiB",
        "times faster",
        "L1",
        "mouth, eyes",
        "opened mouth",
        "contrast there",
        "shut eyes",
        "LPIPS",
        "identity",
        "jitter",
        "flicker",
    )
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in ROWS:
        of = figures["rows"][row.method]
        ratio = of.get("teacher_over")
        cells = [
            row.title,
            row.precision or "–",
            f"{of['macs'] / 1e9:.3g}" if "macs" in of else "–",
            f"{of['bytes'] / 1024:.0f}" if "bytes" in of else "–",
            "–" if ratio is None else f"{ratio:.0f}",
            *(f"{of[metric]:.{digits}f}" for metric, digits in FIDELITY.items()),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(line.replace("|  |", "| |") for line in lines)


def read_figures(path: Path = FIGURES) -> dict:
    try:
        figures = json.loads(check_input(path, "figures").read_text("utf-8"))
        for row in ROWS:
            for metric in FIDELITY:
                float(figures["rows"][row.method][metric])
    except (ValueError, KeyError, TypeError) as error:
        raise MobileBilayerError(
            f"{path} lacks figures ({error!r}). Run `mobile-bilayer gate --table` with --fidelity and --ratios."
        ) from error
    return figures


def write_table(readme: Path = README, figures: Path = FIGURES) -> bool:
    """Put the table between its two comments; whether anything changed."""
    text = check_input(readme, "README").read_text("utf-8")
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise MobileBilayerError(f"{readme} must have one line {BEGIN} and one line {END} below it. Write them.")
    new = re.sub(
        f"{re.escape(BEGIN)}.*?{re.escape(END)}",
        lambda _: f"{BEGIN}\n\n{figures_table(read_figures(figures))}\n\n{END}",
        text,
        flags=re.DOTALL,
    )
    if new != text:
        with written_aside(readme) as aside:
            aside.write_text(new, "utf-8")
    return new != text


def cheap_figures() -> dict[str, dict[str, int]]:
    """Sizes and MACs, counted now: {method: {"macs", "bytes"}}. Bytes are of the bundle, or of weights without one."""
    from mobile_bilayer.gates.measure import frame_macs
    from mobile_bilayer.runtime.bundle import Bundle
    from mobile_bilayer.student.network import SIZES
    from mobile_bilayer.student.weights import SHIPPED

    out: dict[str, dict[str, int]] = {}
    for row in ROWS:
        out[row.method] = {}
        if row.method == "teacher":
            out[row.method]["macs"] = TEACHER_MACS
        if row.size in SIZES:
            out[row.method]["macs"] = frame_macs(row.size)
        if row.weights is not None:
            out[row.method]["bytes"] = SHIPPED.with_name(row.weights).stat().st_size
        elif row.size is not None:
            out[row.method]["bytes"] = sum(map(len, Bundle.open().contents.values()))
    return out


def take_figures(fidelity: Path | None, ratios: Path | None, path: Path = FIGURES) -> None:
    """Put reports' numbers into the figures: of `evaluate fidelity --json`, and of `pytest
    benchmarks/test_teacher_ratio.py --benchmark-json`. Sizes are counted now.
    """
    figures = json.loads(path.read_text("utf-8")) if path.is_file() else {"sources": {}, "rows": {}}
    rows = figures["rows"]
    for method, counted in cheap_figures().items():
        rows.setdefault(method, {}).update(counted)
    try:
        if fidelity is not None:
            report = json.loads(check_input(fidelity, "report").read_text("utf-8"))
            for row in ROWS:
                of = report["methods"][row.method]
                rows[row.method] |= {metric: float(of[metric]["mean"]) for metric in FIDELITY}
            about = f"{report['pairs']} pairs of {report['clips']} clips, {report['people']} people"
            figures["sources"]["fidelity"] = {
                "command": "mobile-bilayer evaluate fidelity prepared-eval/ --student ... --json",
                "set": about,
                "taken": today(),
            }
        if ratios is not None:
            report = json.loads(check_input(ratios, "report").read_text("utf-8"))
            found = {
                run["params"]["size"]: run["extra_info"]["teacher_over_student"]
                for run in report["benchmarks"]
                if run["params"]["precision"] == "int8"
            }
            rows["teacher"]["teacher_over"] = 1.0
            for row in ROWS:
                if row.size in found:
                    rows[row.method]["teacher_over"] = float(found[row.size])
            if "teacher_over" not in rows["S int8"]:
                raise KeyError("S")
            machine = f"{report['machine_info']['system']} {report['machine_info']['machine']}, {report['machine_info']['cpu']['brand_raw']}"
            figures["sources"]["ratios"] = {
                "command": "pytest benchmarks/test_teacher_ratio.py --benchmark-json",
                "machine": machine,
                "measured": report["datetime"],
            }
    except (ValueError, KeyError, TypeError) as error:
        raise MobileBilayerError(
            f"{fidelity or ratios} lacks what the table needs ({error!r}): of `evaluate fidelity --json` with all of "
            f"{', '.join(row.method for row in ROWS)}, or of `pytest benchmarks/test_teacher_ratio.py --benchmark-json`. Make it again."
        ) from error
    with written_aside(path) as aside:
        aside.write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", "utf-8")
    read_figures(path)
