"""What was measured as one HTML file: opened from disk, it asks no network for anything."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from torch import Tensor

from mobile_bilayer.capture.images import AI_GENERATED, DIGITAL_SOURCE_TYPE, webp, written_aside
from mobile_bilayer.evaluation.fidelity import REAL, STATIC, WARP, ClipRenders, Fidelity, plain
from mobile_bilayer.evaluation.methods import pictures
from mobile_bilayer.evaluation.metrics import (
    ARROWS,
    FACE_METRICS,
    METRICS,
    PART_METRICS,
    PIXEL_METRICS,
    STEADY_METRICS,
    Metric,
)
from mobile_bilayer.evaluation.steadiness import STEPS

LARGEST_ERROR = 0.25  # of [0, 1]: where the error maps end
NOTHING = 40  # grey of what is not measured
MOVING_PX = 128  # side of a frame that moves
STEP_MS = 60
MOST_PICTURED = 40  # clips, those with the largest errors: a report stays below some 15 MB
WORST = 3  # clips named for each method
RANKED_BY = "lpips"


@dataclass(frozen=True)
class ClipPictures:
    """WebPs of one clip. Columns: the source, the driver, each method but the static photo, which the source is.

    still   a frame of each; below, how far it is from the driver's
    moving  the driver and each method in small steps, without the source; None where too few frames follow each other
    target  which of the clip's frames is shown
    """

    still: bytes
    moving: bytes | None
    target: int


class Gallery:
    """Keeps pictures of each clip that `evaluate_fidelity` hands over: its `on_clip`."""

    def __init__(self) -> None:
        self.clips: dict[str, ClipPictures] = {}

    def __call__(self, seen: ClipRenders) -> None:
        pick = seen.pick
        wanted = seen.targets[pick]
        shown = [seen.source, wanted, *(render[pick] for name, render in seen.renders.items() if name != STATIC)]
        top = [pictures(frame[None])[0] for frame in shown]
        below = [
            _scale() if frame is wanted else _error_map(frame, wanted, seen.weight[pick, 0] > 0.5) for frame in shown
        ]
        still = webp([cv2.vconcat([cv2.hconcat(top), cv2.hconcat(below)])], quality=80)
        moving = webp(_moving(seen), quality=60, frame_ms=STEP_MS) if seen.moving else None
        self.clips[seen.clip.name] = ClipPictures(still, moving, seen.frames[pick])


def write_report(path: Path, result: Fidelity, gallery: Gallery, made_by: Mapping[str, str] | None = None) -> None:
    """Tables, intervals, worst clips, pictures.

    made_by  {method: what made its renders}
    """
    ranked_by = next((name for name in result.methods if name not in (STATIC, WARP)), WARP)
    order = sorted(result.clips, key=lambda clip: np.nan_to_num(-clip.mean(ranked_by, RANKED_BY), nan=-np.inf))
    pictured = [(clip, gallery.clips[clip.name]) for clip in order[:MOST_PICTURED] if clip.name in gallery.clips]
    means = {c.name: {m: {k: c.mean(m, k) for k in result.metrics} for m in result.methods} for c in result.clips}
    html = (
        _environment()
        .get_template("report.html")
        .render(
            ai_generated=AI_GENERATED,
            digital_source_type=DIGITAL_SOURCE_TYPE,
            result=result,
            tables=_tables(result, made_by or {}),
            sections=[_section(result, name) for name in result.metrics],
            ranked_by=ranked_by,
            ranking=METRICS[RANKED_BY],
            arrows=ARROWS,
            steps=STEPS,
            largest_error=LARGEST_ERROR,
            columns=["source", "driver", *(name for name in result.methods if name != STATIC)],
            pictured=pictured,
            ids={clip.name: f"clip-{i}" for i, (clip, _) in enumerate(pictured)},
            in_all=len(order),
            values=plain(means),
            digits={name: METRICS[name].digits for name in result.metrics},
            higher=[name for name in result.metrics if METRICS[name].better == "higher"],
        )
    )
    with written_aside(path) as aside:
        aside.write_text(html, "utf-8")


@dataclass(frozen=True)
class Cell:
    """A number of a table: as text, to sort by, and its interval as text; whether it is the best of its column."""

    text: str
    value: float | None
    interval: str = ""
    best: bool = False


@dataclass(frozen=True)
class Row:
    """Of a summary."""

    name: str
    made_by: str
    cells: list[Cell]


@dataclass(frozen=True)
class Summary:
    """A table of methods and metrics."""

    title: str
    heads: list[tuple[str, str]]  # with what they mean
    rows: list[Row]


@dataclass(frozen=True)
class Whisker:
    """A mean and its interval as shares of a chart's width, in %."""

    name: str
    cell: Cell
    at: float
    low: float
    high: float


@dataclass(frozen=True)
class Section:
    """All of one metric.

    worst  {method: its worst clips and their values}
    clips  rows of all of them: name, and a cell for each method
    """

    key: str
    metric: Metric
    whiskers: list[Whisker]
    worst: dict[str, list[tuple[str, str]]]
    clips: list[tuple[str, list[Cell]]]


def _tables(result: Fidelity, made_by: Mapping[str, str]) -> list[Summary]:
    """Frame by frame, in motion, where a target shows what its source does not, and differences to a reference."""

    def rows(metrics: list[str]) -> list[Row]:
        best = {name: _best(result, name) for name in metrics}
        return [
            Row(
                m,
                made_by.get(m, ""),
                [_cell(k, result.table[m][k], result.intervals[m][k], m in best[k]) for k in metrics],
            )
            for m in result.methods
        ]

    def heads(metrics: list[str]) -> list[tuple[str, str]]:
        return [(f"{METRICS[k].title} {ARROWS[METRICS[k].better]}".strip(), METRICS[k].meaning) for k in metrics]

    compared = [name for name in result.metrics if name in PIXEL_METRICS | FACE_METRICS]
    tables = [Summary("Frame by frame", heads(compared), rows(compared))]
    if result.lost:
        tables[0].heads.append(("no face ↓", "renders in which no face is found, though the real frame shows one"))
        for row in tables[0].rows:
            row.cells.append(Cell(str(result.lost[row.name]), result.lost[row.name]))
    if result.settings.frames:
        steady = [name for name in result.metrics if name in STEADY_METRICS]
        real = Row(REAL, "", [_cell(name, result.real.get(name, np.nan)) for name in steady])
        tables.append(Summary("In motion", heads(steady), [real, *rows(steady)]))
    if new := [name for name in result.metrics if name in PART_METRICS]:
        tables.append(Summary("What the source does not show", heads(new), rows(new)))
    for reference, beside in result.beside.items():
        metrics = list(next(iter(beside.values())))
        rows_of = [Row(m, "", [_difference_cell(k, *row[k]) for k in metrics]) for m, row in beside.items()]
        tables.append(Summary(f"Beside the {reference}, pair by pair", heads(metrics), rows_of))
    return tables


def _difference_cell(metric: str, mean: float, low: float, high: float) -> Cell:
    """Green if people drawn anew would hardly change who is better."""
    if np.isnan(mean):
        return _cell(metric, mean)
    signed = [f"{value:+.{METRICS[metric].digits}f}" for value in (mean, low, high)]
    better = low > 0 if METRICS[metric].better == "higher" else high < 0
    return Cell(signed[0], mean, f"{signed[1]} to {signed[2]}", better)


def _best(result: Fidelity, metric: str) -> list[str]:
    """Methods whose mean reads as the best one's. The static photo is none: what does not move is steady, and itself.

    From each of the clip's frames to the next, the real ones are the aim, and less is not better.
    """
    if METRICS[metric].better == "real":
        return []
    texts = {
        m: _text(metric, row[metric]) for m, row in result.table.items() if m != STATIC and not np.isnan(row[metric])
    }
    if not texts:
        return []
    pick = min if METRICS[metric].better == "lower" else max
    first = pick(texts.values(), key=float)
    return [method for method, text in texts.items() if text == first]


def _section(result: Fidelity, metric: str) -> Section:
    cells = {
        m: _cell(metric, result.table[m][metric], result.intervals[m][metric], m in _best(result, metric))
        for m in result.methods
    }
    means = {m: result.table[m][metric] for m in result.methods}
    spans = {m: result.intervals[m][metric] for m in result.methods}
    if not np.isnan(real := result.real.get(metric, np.nan)):
        cells, means, spans = {REAL: _cell(metric, real)} | cells, {REAL: real} | means, {REAL: (real, real)} | spans
    spans = {m: span for m, span in spans.items() if not np.isnan(means[m])}
    low = min((low for low, _ in spans.values()), default=0.0)
    high = max((high for _, high in spans.values()), default=1.0)
    share = lambda value: round(100 * (value - low) / (high - low or 1), 2)  # noqa: E731
    whiskers = [Whisker(m, cells[m], share(means[m]), *map(share, span)) for m, span in spans.items()]
    values = {m: {clip.name: clip.mean(m, metric) for clip in result.clips} for m in result.methods}
    sign = 1 if METRICS[metric].better == "higher" else -1
    worst = {
        method: [
            (name, _text(metric, of[name]))
            for name in sorted(of, key=lambda name: sign * of[name])
            if not np.isnan(of[name])
        ][:WORST]
        for method, of in values.items()
        if method != STATIC
    }
    clips = [(clip.name, [_cell(metric, values[m][clip.name]) for m in result.methods]) for clip in result.clips]
    return Section(metric, METRICS[metric], whiskers, worst, clips)


def _text(metric: str, value: float) -> str:
    return f"{value:.{METRICS[metric].digits}f}"


def _cell(metric: str, value: float, span: tuple[float, float] | None = None, best: bool = False) -> Cell:
    if np.isnan(value):  # where a face is lost there is no number; elsewhere it is a fault to be seen
        return Cell("nan" if metric in PIXEL_METRICS else "–", None)
    return Cell(
        _text(metric, value), value, "" if span is None else f"{_text(metric, span[0])}–{_text(metric, span[1])}", best
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mobile_bilayer.evaluation", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_url"] = lambda data: "data:image/webp;base64," + base64.b64encode(data).decode()
    return environment


def _error_map(frame: Tensor, wanted: Tensor, inside: Tensor) -> np.ndarray:
    """(256, 256, 3) uint8: black where they are equal, bright from `LARGEST_ERROR` on, grey where there is no picture."""
    error = (frame - wanted).abs().mean(0).nan_to_num(1) / LARGEST_ERROR
    shown = _colours((error.clamp(max=1) * 255).round().byte().numpy())
    shown[~inside.numpy()] = NOTHING
    return shown


def _colours(values: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(cv2.applyColorMap(values, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)


@cache
def _scale() -> np.ndarray:
    """What the error maps' colours mean."""
    tile = np.full((256, 256, 3), NOTHING, np.uint8)
    tile[48:208, 60:84] = _colours(np.linspace(255, 0, 160).round().astype(np.uint8)[:, None].repeat(24, 1))
    for text, y in ((f"{LARGEST_ERROR} and more", 58), ("mean |difference|", 132), ("0", 208)):
        cv2.putText(tile, text, (96, y), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (220, 220, 220), 1, cv2.LINE_AA)
    return tile


def _moving(seen: ClipRenders) -> Sequence[np.ndarray]:
    """Frames side by side: the driver's, each shown until the next one, and what each method made of the way there."""
    columns = [[frame for frame in pictures(seen.real) for _ in range(STEPS)]]
    columns += [pictures(frames) for name, frames in seen.moving.items() if name != STATIC]
    small = [[cv2.resize(rgb, (MOVING_PX,) * 2, interpolation=cv2.INTER_AREA) for rgb in column] for column in columns]
    return [cv2.hconcat(row) for row in zip(*small, strict=False)]
