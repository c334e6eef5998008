"""Gates and what was measured: who holds, in a table and as JSON."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from mobile_bilayer.capture.images import written_aside
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.gates.measure import Measured
from mobile_bilayer.gates.rows import HELD_OUT, Gate, today

Word = Literal["ok", "better", "worse", "not measured", "left out"]
STYLES = {"worse": "bold red", "better": "green", "not measured": "yellow", "left out": "dim"}


@dataclass(frozen=True)
class Verdict:
    """One gate today.

    measured  None where there is no number; `why` says why
    """

    gate: Gate
    word: Word
    measured: float | None = None
    why: str = ""


def judge(gates: Sequence[Gate], measured: Measured, short: bool) -> list[Verdict]:
    """Of each gate that this command measures."""
    out = []
    for gate in gates:
        if gate.how == HELD_OUT:
            continue
        if gate.name in measured.values:
            number = measured.values[gate.name]
            word = "worse" if not gate.holds(number) else "better" if gate.may_tighten(number) else "ok"
            out.append(Verdict(gate, word, number))
        elif gate.name in measured.why_not:
            out.append(Verdict(gate, "not measured", why=measured.why_not[gate.name]))
        elif short and not gate.short:
            out.append(Verdict(gate, "left out"))
        else:
            raise MobileBilayerError(f"benchmarks/gates.toml: nothing measures {gate.name}. Correct its name.")
    return out


def fails(verdicts: Sequence[Verdict], all_needed: bool) -> list[Verdict]:
    """Those that fail a run. all_needed: where every file is at hand, what is not measured is broken."""
    return [v for v in verdicts if v.word == "worse" or (all_needed and v.word == "not measured")]


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """For a terminal."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in ("row", "gate", "measured", "margin", "verdict"):
        table.add_column(name, justify="left" if name in ("row", "verdict") else "right", no_wrap=name != "verdict")
    for v in verdicts:
        arrow = "≤" if v.gate.better == "lower" else "≥"
        shown = "–" if v.measured is None else _number(v.measured)
        word = Text(v.word + (f": {v.why}" if v.why else ""), STYLES.get(v.word, ""))
        table.add_row(v.gate.name, f"{arrow} {_number(v.gate.value)}", shown, _number(v.gate.margin), word)
    return table


def summary(verdicts: Sequence[Verdict], measured: Measured) -> str:
    counts = Counter(v.word for v in verdicts)
    times = ", ".join(f"{name} {ms:.1f} ms" for name, ms in measured.times_ms.items())
    return (
        ", ".join(f"{count} {word}" for word, count in counts.items())
        + f"; {measured.seconds:.0f} s"
        + (f"; one core of this machine, processor time: {times}" if times else "")
    )


def save_verdicts(path: Path, verdicts: Sequence[Verdict], measured: Measured, short: bool, bundle: str) -> None:
    """All of it, with what measured it."""
    report = {
        "made_by": "mobile-bilayer gate" + (" --short" if short else ""),
        "at": today(),
        "machine": f"{platform.system()} {platform.machine()}",
        "bundle": bundle,
        "seconds": round(measured.seconds, 1),
        "times_ms": {name: round(ms, 3) for name, ms in measured.times_ms.items()},
        "rows": [{"verdict": v.word, "measured": v.measured, "why": v.why or None, **asdict(v.gate)} for v in verdicts],
    }
    with written_aside(path) as aside:
        aside.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
