"""benchmarks/gates.toml: every promised figure, a row each."""

from __future__ import annotations

import math
import re
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from datetime import date
from pathlib import Path
from typing import Literal

from mobile_bilayer.capture.images import check_input, written_aside
from mobile_bilayer.errors import MobileBilayerError

ROOT = Path(__file__).parents[2]  # of a clone of the project
GATES = ROOT / "benchmarks" / "gates.toml"
HELD_OUT = (
    "held-out clips"  # measured by tests/evaluation/test_gates.py, which needs clips that are not ours to publish
)
# What `measure` knows to measure, and what it takes.
HOW = {
    "public set": "sample photos, driven by the shipped track; against the teacher's renderings and the photos themselves",
    "int8 against float": "the same frames, layer by layer, composed by one compositor",
    "compositor": "the same layers, composed as a host does and by the formula in torch",
    "identity": "dlib's descriptors of photo and renderings, at the landmarks that drove them",
    "steadiness": "frames of the track, and straight steps between them",
    "speed": "one core, frames by turns, median of the turns' ratios",
    "sizes": "counted",
    HELD_OUT: "pytest tests/evaluation/test_gates.py",
}
AFTER_A_FAILURE = "worse than promised, or not measured where all must be. Mend it; or, if it is worth it, loosen the gate in benchmarks/gates.toml and say why in its `reason`."
MOVED = ("value", "best", "set")  # by `tighten`


@dataclass(frozen=True)
class Gate:
    """One promised figure.

    name     of what is measured
    what     in words
    unit     of value and margin
    value    the gate
    best     that it ever was
    margin   how much worse than the gate is noise: of runs, of processors, of versions of what we stand on
    set      date and commit that set it
    how      which measurement: one of `HOW`
    short    whether `gate --short` measures it
    by_hand  moved by hand only: a faster processor would tighten it for all others
    reason   why the value is worse than the best
    """

    name: str
    what: str
    unit: str
    better: Literal["lower", "higher"]
    value: float
    best: float
    margin: float
    set: str
    how: str
    short: bool = True
    by_hand: bool = False
    reason: str = ""

    def worse_by(self, measured: float, than: float | None = None) -> float:
        """How much worse a number is than the gate; below 0 where it is better."""
        off = measured - (self.value if than is None else than)
        return off if self.better == "lower" else -off

    def holds(self, measured: float) -> bool:
        return self.worse_by(measured) <= self.margin  # NaN does not

    def may_tighten(self, measured: float) -> bool:
        """Better beyond the margin: luck is no progress."""
        return not self.by_hand and self.worse_by(measured) < -self.margin


def read_gates(path: Path = GATES) -> list[Gate]:
    """All rows. Raises MobileBilayerError for one that can't be right, as a gate loosened without a reason."""
    if path == GATES and not path.is_file():
        raise MobileBilayerError(
            f"{path} does not exist: gates come with the project's repository. Clone it and run `pip install -e '.[dev]'` there."
        )
    try:
        text = check_input(path, "gates").read_text("utf-8")
        rows = tomllib.loads(text).get("gate", [])
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MobileBilayerError(f"{path} is no TOML ({error}). Correct it.") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise MobileBilayerError(f"{path} has no [[gate]]; each promised figure is one. Add them.")
    gates = [_gate(row, path) for row in rows]
    names = [gate.name for gate in gates]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise MobileBilayerError(f"{path}: {twice[0]} is there twice. Leave one.")
    return gates


def _gate(row: Mapping[str, object], path: Path) -> Gate:
    where = f"{path}: {row.get('name', 'a row without a name')}"
    known = {field.name: field for field in fields(Gate)}
    if unknown := sorted(set(row) - set(known)):
        raise MobileBilayerError(f"{where}: there is no {unknown[0]} in a gate. Its parts are {', '.join(known)}.")
    for name, field in known.items():
        if name not in row:
            if field.default is MISSING:
                raise MobileBilayerError(f"{where}: {name} is missing. Add it.")
            continue
        kinds = {"float": (int, float), "bool": bool}.get(str(field.type), str)
        value = row[name]
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            raise MobileBilayerError(
                f"{where}: {name} is {value!r}, which is no {str(field.type).split('[')[0]}. Correct it."
            )
    gate = Gate(**row)
    if gate.better not in ("lower", "higher"):
        raise MobileBilayerError(f"{where}: better is {gate.better!r}; it must be lower or higher.")
    if gate.how not in HOW:
        raise MobileBilayerError(f"{where}: how is {gate.how!r}; it must be one of {', '.join(HOW)}.")
    if not all(map(math.isfinite, (gate.value, gate.best, gate.margin))) or gate.margin < 0:
        raise MobileBilayerError(f"{where}: value, best and margin must be numbers, and the margin not below 0.")
    loosened = gate.worse_by(gate.value, gate.best)
    if loosened > 0 and not gate.reason.strip():
        raise MobileBilayerError(
            f'{where}: its value {gate.value:g} is worse than its best, {gate.best:g}. Gates only tighten: say why in `reason = "..."`, '
            "or mend what made it worse."
        )
    if loosened < 0:
        raise MobileBilayerError(
            f"{where}: its value {gate.value:g} is better than its best, {gate.best:g}. Set best too."
        )
    return gate


def tighten(path: Path, measured: Mapping[str, float], set_by: str) -> list[str]:
    """Move the gates that are beaten beyond their margin; the names of those moved. Nothing else in the file changes."""
    gates, text, moved = read_gates(path), path.read_text("utf-8"), []
    wanted = []
    for gate in gates:
        number = measured.get(gate.name)
        if number is not None and gate.may_tighten(number):
            number = number if isinstance(number, int) else float(f"{number:.4g}")
            best = number if gate.worse_by(number, gate.best) < 0 else gate.best
            new = replace(gate, value=number, best=best, set=set_by)
            for part in MOVED:
                text = _with(text, gate.name, part, getattr(new, part), path)
            moved.append(gate.name)
            gate = new
        wanted.append(gate)
    if moved:
        with written_aside(path) as aside:
            aside.write_text(text, "utf-8")
            if read_gates(aside) != wanted:
                raise MobileBilayerError(
                    f"{path} is written in a way that can't be edited safely. Move these by hand: {', '.join(moved)}."
                )
    return moved


def _with(text: str, name: str, part: str, value: float | str, path: Path) -> str:
    """The file with one number of one row changed: comments and order stay."""
    shown = f'"{value}"' if isinstance(value, str) else repr(value)
    row = re.compile(r"^\[\[gate\]\]$.*?(?=^\[\[gate\]\]$|\Z)", re.MULTILINE | re.DOTALL)
    line = re.compile(rf'^({part} = )("[^"\n]*"|[^\s#]+)', re.MULTILINE)
    for found in row.finditer(text):
        if re.search(rf'^name = "{re.escape(name)}"', found[0], re.MULTILINE):
            changed, count = line.subn(lambda match: match[1] + shown, found[0])
            if count == 1:
                return text[: found.start()] + changed + text[found.end() :]
    raise MobileBilayerError(f"{path}: {name} has no line `{part} = ...` of its own. Write one, and try again.")


def today(root: Path = ROOT) -> str:
    """Date and commit, as a row's `set` has them."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
        )
        commit = done.stdout.strip()
    except OSError:
        commit = ""
    return f"{date.today()}, {commit or 'no commit'}"
