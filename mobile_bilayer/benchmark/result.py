"""A result file: what a benchmark found, on what, and what follows from it.

result.schema.json says what may be in one, for readers in any language; this reader checks against that very file, in
sentences. Phones write the same names (android_demo/core's BenchmarkResult.kt).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any

from mobile_bilayer.benchmark.statistics import Statistics, spread
from mobile_bilayer.capture.images import check_input, check_output, written_aside
from mobile_bilayer.errors import MobileBilayerError

FORMAT_VERSION = 1
LARGEST = 4 * 2**20  # bytes
STAGES = ("camera", "landmarks", "network", "composite", "display", "frame")
MINUTE = 60  # seconds that are compared
SUSTAINED = 120  # seconds of a run whose last minute is the headline
NOISE = 0.1  # of a median: repeats that differ by more were not alone on the machine
REMEDY = "Measure again, or copy the file again."


@dataclass(frozen=True)
class Load:
    """From the bundle's files to a program that can be run; None where it was not measured."""

    first_ever_ms: float | None
    cold_ms: float | None
    warm_ms: float | None


@dataclass(frozen=True)
class Moment:
    """A second of the run: frames that ended in it, and how warm the system said it was."""

    second: int
    frames: int
    thermal_state: str
    temperature_c: float | None


@dataclass(frozen=True)
class Fidelity:
    """Means of `mobile-bilayer evaluate fidelity` for the same bundle, and for the teacher if it was measured beside it."""

    method: str
    made_by: str
    pairs: int
    people: int
    student: dict[str, float]
    teacher: dict[str, float] | None


@dataclass(frozen=True)
class Result:
    """result.schema.json says what each field is; None is "not measured"."""

    format_version: int
    made_at: str
    device: str
    chip: str | None
    os: str
    build_type: str
    runtime: str
    tool_versions: dict[str, str]
    bundle: str
    bundle_sha256: str
    backend: str
    compute_unit: str
    threads: int | None
    precision: str
    image_px: int
    bundle_mib: float
    package_mib: float | None
    warmup_count: int
    iterations: int
    duration_s: float
    interrupted: bool
    load: Load
    first_frame_ms: float | None
    stages_ms: dict[str, Statistics | None]
    execute_ms: Statistics | None
    fps: float | None
    camera_fps: float | None
    dropped: int
    over_time: tuple[Moment, ...]
    peak_memory_mib: float | None
    delegated_operators: int | None
    undelegated_operators: dict[str, str]
    undelegated_count: int | None
    operators_by_device: dict[str, int] | None
    operators_ms: dict[str, float] | None
    energy_mj: float | None
    energy_method: str | None
    fidelity: Fidelity | None
    repeats: int
    repeat_spread: float | None
    not_measured: dict[str, str]
    warnings: tuple[str, ...]

    def to_json(self) -> str:
        """Indented, for people too."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: bytes | str, where: str) -> Result:
        """Strict. `where` names the file in errors."""
        try:
            values = json.loads(text, object_pairs_hook=_once, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise MobileBilayerError(f"{where} is no result of a benchmark: not JSON ({error}). {REMEDY}") from error
        version = values.get("format_version") if isinstance(values, dict) else None
        if type(version) is int and version > FORMAT_VERSION:
            raise MobileBilayerError(
                f"{where}: format_version is {version}; this mobile_bilayer reads {FORMAT_VERSION}. Update mobile_bilayer."
            )
        problem = _problem(values, schema(), "the result") or _beyond(values)
        if problem:
            raise MobileBilayerError(f"{where}: {problem}. {REMEDY}")
        made = {f.name: values[f.name] for f in fields(cls)}
        made["load"] = Load(**values["load"])
        made["stages_ms"] = {name: _statistics(values["stages_ms"][name]) for name in STAGES}
        made["execute_ms"] = _statistics(values["execute_ms"])
        made["over_time"] = tuple(Moment(**moment) for moment in values["over_time"])
        made["fidelity"] = None if values["fidelity"] is None else Fidelity(**values["fidelity"])
        made["warnings"] = tuple(values["warnings"])
        return cls(**made)

    def save(self, path: Path) -> None:
        """Write NAME.json, whole or not at all."""
        path, text = check_output(path, (".json",)), self.to_json()
        with written_aside(path) as aside:
            aside.write_text(text, "utf-8")

    @classmethod
    def load_file(cls, path: Path) -> Result:
        """The way back of `save`, also of what a phone wrote."""
        path = check_input(path, "result of a benchmark")
        if path.stat().st_size > LARGEST:
            raise MobileBilayerError(
                f"{path} is larger than {LARGEST >> 20} MiB, so it is no result of a benchmark. {REMEDY}"
            )
        return cls.from_json(path.read_bytes(), str(path))

    @property
    def first_minute_fps(self) -> float | None:
        """None of a run shorter than two minutes, as is the next."""
        return _mean_fps(self.over_time[:MINUTE]) if len(self.over_time) >= SUSTAINED else None

    @property
    def sustained_fps(self) -> float | None:
        """Of the last minute."""
        return _mean_fps(self.over_time[-MINUTE:]) if len(self.over_time) >= SUSTAINED else None

    @property
    def headline(self) -> str:
        """The one figure to quote, in words."""
        if self.fps is None:
            return (
                f"no frame rate: {self.execute_ms.p50:.2f} ms in execute() alone"
                if self.execute_ms
                else "no frame rate"
            )
        if self.sustained_fps is not None:
            return f"{self.sustained_fps:.1f} FPS sustained (last minute of {self.duration_s / 60:.0f}), whole frames"
        return f"{self.fps:.1f} FPS, whole frames, in {self.duration_s:.0f} s: too short to show what heat does"

    @property
    def share(self) -> float | None:
        """Of the operators, those in the backend."""
        if self.delegated_operators is None or self.undelegated_count is None:
            return None
        inside, outside = self.delegated_operators, self.undelegated_count
        return inside / (inside + outside) if inside + outside else None

    @property
    def median_ms(self) -> float | None:
        """Of a whole frame; of execute() where none was run."""
        one = self.stages_ms["frame"] or self.execute_ms
        return one.p50 if one else None

    def concerns(self) -> list[str]:
        """Sentences: what makes these numbers less than they seem, as far as the numbers themselves tell."""
        found = []
        named = ", ".join(list(self.undelegated_operators)[:5])
        if self.delegated_operators == 0:
            found.append(
                f"NOTHING IS DELEGATED: none of {self.undelegated_count or 'the'} operators runs in the backend {self.backend}, all in the runtime's own slow "
                "kernels. These times say nothing about the network; export it for a backend (mobile-bilayer export)."
            )
        elif self.share is None and named:
            found.append(f"Operators run outside the backend, how many is not told: {named}.")
        elif self.share is not None and self.share < 1:
            found.append(f"{1 - self.share:.0%} of the operators run outside the backend: {named}.")
        found += self._elsewhere()
        missing = [name for name in ("camera", "landmarks", "composite") if self.stages_ms[name] is None]
        if self.fps is None:
            found.append("Only execute() was timed: that is no frame rate.")
        elif missing:
            found.append(f"A frame here is not end to end: it is without {' and '.join(missing)}.")
        if self.build_type == "debug":
            found.append("A debug build was measured. Measure a release build.")
        if self.interrupted:
            found.append(f"The run was ended early, after {self.duration_s:.0f} s.")
        if not self.warmup_count:
            found.append("There was no warm-up: the first frames are in the statistics.")
        first, last = self.first_minute_fps, self.sustained_fps
        if first is not None and last < (1 - NOISE) * first:
            found.append(f"It slows down: {first:.1f} FPS in the first minute, {last:.1f} in the last.")
        if self.repeat_spread is not None and self.repeat_spread > NOISE:
            found.append(
                f"Medians of {self.repeats} repeats differ by {self.repeat_spread:.0%}: something else ran beside. Measure again."
            )
        return found

    def _elsewhere(self) -> list[str]:
        """That operators ran elsewhere than was asked, or that nobody knows."""
        if self.compute_unit == "cpu":
            return []
        if self.operators_by_device is None:
            return [f"compute_unit is {self.compute_unit}, but the backend does not tell where its operators ran."]
        total, cpu = sum(self.operators_by_device.values()), self.operators_by_device.get("cpu", 0)
        return (
            [f"compute_unit is {self.compute_unit}, but the CPU ran {cpu} of {total} operators."]
            if 2 * cpu > total
            else []
        )

    def all_warnings(self) -> list[str]:
        """The file's own, and `concerns`."""
        return list(dict.fromkeys([*self.warnings, *self.concerns()]))


def merge(results: Sequence[Result]) -> Result:
    """Runs of one setting as one: that with the middle median, and how far the medians are apart."""
    if not results:
        raise MobileBilayerError("There are no results to merge. Measure at least once.")
    same = ("device", "os", "build_type", "runtime", "bundle_sha256", "backend", "compute_unit", "threads")
    for name in same:
        seen = list(dict.fromkeys(str(getattr(result, name)) for result in results))
        if len(seen) > 1:
            raise MobileBilayerError(
                f"Results with {name} {' and '.join(seen[:3])} are not repeats of one run. Merge those that agree."
            )
    medians = [result.median_ms for result in results]
    if None in medians:
        raise MobileBilayerError("A result has no time of frames, nor of execute(). Measure again.")
    middle = sorted(results, key=lambda result: result.median_ms)[(len(results) - 1) // 2]

    def of_all(name: str) -> list[float]:
        return [ms for result in results if (ms := getattr(result.load, name)) is not None]

    load = Load(
        next(iter(of_all("first_ever_ms")), None),  # later runs find what the first one left
        *(median(of_all(name)) if of_all(name) else None for name in ("cold_ms", "warm_ms")),
    )
    warnings = tuple(dict.fromkeys(sentence for result in results for sentence in result.warnings))
    return replace(middle, load=load, repeats=len(results), repeat_spread=spread(medians), warnings=warnings)


@cache
def schema() -> dict[str, Any]:
    """result.schema.json."""
    return json.loads((files("mobile_bilayer.benchmark") / "result.schema.json").read_text("utf-8"))


def _mean_fps(moments: Sequence[Moment]) -> float:
    return sum(moment.frames for moment in moments) / len(moments)


def _statistics(values: dict | None) -> Statistics | None:
    return None if values is None else Statistics(**values)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key is there twice")
    return values


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number")


KINDS = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool) and abs(v) < 2**53,
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and abs(v) < 1e300,  # nor NaN
    "null": lambda v: v is None,
}


def _problem(value: Any, about: dict[str, Any], name: str) -> str | None:
    """What is wrong first, in words; None if nothing is. `about` is a schema, as far as ours goes."""
    if "$ref" in about:
        return _problem(value, schema()["$defs"][about["$ref"].rpartition("/")[2]], name)
    shown = f"{name} is {json.dumps(value, ensure_ascii=False)[:60]}"
    kinds = about.get("type", list(KINDS))
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if not any(KINDS[kind](value) for kind in kinds):
        return f"{shown}; it must be of type {' or '.join(kinds)}"
    if "const" in about and (value != about["const"] or isinstance(value, bool)):
        return f"{shown}; it must be {about['const']}"
    if "enum" in about and value not in about["enum"]:
        return f"{shown}; it must be one of {', '.join(about['enum'])}"
    if isinstance(value, str):
        if len(value) < about.get("minLength", 0):
            return f"{name} is empty; it must say something"
        if "pattern" in about and not re.search(about["pattern"], value):
            return f"{shown}; it must look like {about['pattern']}"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if value < about.get("minimum", -math.inf):
            return f"{shown}; it must be at least {about['minimum']}"
        if value <= about.get("exclusiveMinimum", -math.inf):
            return f"{shown}; it must be above {about['exclusiveMinimum']}"
    if isinstance(value, dict):
        return _problem_inside(value, about, name)
    if isinstance(value, list):
        return next((p for i, item in enumerate(value) if (p := _problem(item, about["items"], f"{name}[{i}]"))), None)
    return None


def _problem_inside(value: dict[str, Any], about: dict[str, Any], name: str) -> str | None:
    known, rest = about.get("properties", {}), about["additionalProperties"]
    if lacking := [key for key in about.get("required", ()) if key not in value]:
        return f"{name} lacks {', '.join(lacking[:5])}"
    if rest is False and (unknown := sorted(set(value) - set(known))):
        return f"{name} has unknown {', '.join(key[:40] for key in unknown[:5])}"
    allowed = about.get("propertyNames", {}).get("enum")
    if allowed and (unknown := sorted(set(value) - set(allowed))):
        return f"{name} has unknown {', '.join(key[:40] for key in unknown[:5])}; it may have {', '.join(allowed)}"
    prefix = "" if name == "the result" else f"{name}."
    return next(
        (p for key, part in value.items() if (p := _problem(part, known.get(key, rest), f"{prefix}{key[:60]}"))), None
    )


def _beyond(values: dict[str, Any]) -> str | None:
    """What no schema says."""
    if (values["energy_mj"] is None) != (values["energy_method"] is None):
        return f"energy_mj is {values['energy_mj']} and energy_method {values['energy_method']}; give both or none"
    if (values["fps"] is None) != (values["stages_ms"]["frame"] is None):
        return "fps and stages_ms.frame must both be there, or both be null"
    places = {f"stages_ms.{name}": one for name, one in values["stages_ms"].items()} | {
        "execute_ms": values["execute_ms"]
    }
    for name, one in places.items():
        if one is not None and not one["p50"] <= one["p90"] <= one["p99"]:
            return f"{name} has percentiles that fall: {one['p50']}, {one['p90']}, {one['p99']}"
    seconds = [moment["second"] for moment in values["over_time"]]
    if any(b <= a for a, b in zip(seconds, seconds[1:], strict=False)):
        return "over_time has seconds that do not rise"
    for name in values["not_measured"]:
        at: Any = values
        for part in name.split("."):
            if not isinstance(at, dict) or part not in at:
                return f"not_measured names {name[:60]}, which is no place in a result"
            at = at[part]
        if at is not None:
            return f"not_measured names {name[:60]}, which is there"
    return None
