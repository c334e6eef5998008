"""Results to look at: tables, a plot of frames a second over time, one HTML file."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mobile_bilayer.benchmark.result import STAGES, Result
from mobile_bilayer.capture.images import check_output, written_aside
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.paths import shortest_ends

NONE = "–"
WORDS = {"frame": "whole frame"}
COLOURS = ("#0b6bcb", "#d1495b", "#2e933c", "#8b5fbf", "#c77700", "#00838f", "#6d4c41", "#455a64")

Named = dict[str, Result]


def load_results(paths: Sequence[Path]) -> Named:
    """Results by the shortest ends of their paths that tell them apart."""
    if not paths:
        raise MobileBilayerError("No result was named. `mobile-bilayer benchmark run -o FILE` writes one.")
    if len({path.resolve() for path in paths}) < len(paths):
        raise MobileBilayerError("A result was named twice. Name each one once.")
    loaded = [Result.load_file(path) for path in paths]
    return dict(zip(shortest_ends(paths), loaded, strict=True))


# What is compared: words, value, digits. In the order of the table.
Row = tuple[str, Callable[[Result], float | None], int]


def _stage(name: str, figure: str) -> Callable[[Result], float | None]:
    return lambda result: getattr(result.stages_ms[name], figure) if result.stages_ms[name] else None


def rows(results: Sequence[Result], with_stages: bool = True) -> list[Row]:
    """Those of which at least one result has a value."""
    stages: list[Row] = [
        *((f"{WORDS.get(name, name)}, median ms", _stage(name, "p50"), 2) for name in STAGES),
        ("whole frame, p90 ms", _stage("frame", "p90"), 2),
        ("whole frame, p99 ms", _stage("frame", "p99"), 2),
        ("execute() alone, median ms", lambda r: r.execute_ms.p50 if r.execute_ms else None, 2),
    ]
    every: list[Row] = [
        ("FPS, whole frames", lambda r: r.fps, 1),
        ("FPS, first minute", lambda r: r.first_minute_fps, 1),
        ("FPS, last minute: sustained", lambda r: r.sustained_fps, 1),
        ("dropped frames", lambda r: None if r.fps is None else r.dropped, 0),
        *(stages if with_stages else []),
        ("first frame, ms", lambda r: r.first_frame_ms, 1),
        ("load, first ever, ms", lambda r: r.load.first_ever_ms, 1),
        ("load, cold, ms", lambda r: r.load.cold_ms, 1),
        ("load, warm, ms", lambda r: r.load.warm_ms, 1),
        ("peak memory, MiB", lambda r: r.peak_memory_mib, 0),
        ("bundle, MiB", lambda r: r.bundle_mib, 2),
        ("app, MiB", lambda r: r.package_mib, 1),
        ("energy a frame, mJ", lambda r: r.energy_mj, 1),
        ("operators delegated, %", lambda r: None if r.share is None else 100 * r.share, 1),
    ]
    for who in ("student", "teacher"):
        names = dict.fromkeys(name for r in results if r.fidelity for name in getattr(r.fidelity, who) or {})
        every += [(f"{name}, {who}", _fidelity(who, name), 4) for name in names]
    return [row for row in every if any(row[1](result) is not None for result in results)]


def _fidelity(who: str, name: str) -> Callable[[Result], float | None]:
    return lambda result: (getattr(result.fidelity, who) or {}).get(name) if result.fidelity else None


def facts(result: Result) -> dict[str, str]:
    """What was measured, on what."""
    what = "executions" if result.fps is None else "frames"
    threads = "threads not told" if result.threads is None else f"{result.threads} thread{'s' * (result.threads != 1)}"
    return {
        "device": ", ".join(filter(None, (result.device, result.chip, result.os))),
        "program": f"{result.bundle}, {result.precision}, {result.bundle_sha256[:12]}",
        "runs on": f"{result.runtime} ({result.build_type}), {result.backend}, {result.compute_unit}, {threads}",
        "measured": f"{result.made_at}, {result.iterations} {what} in {result.duration_s:.0f} s after {result.warmup_count} of warm-up",
        "repeats": _repeats(result),
        "thermal state": _heat(result),
        "headline": result.headline,
    }


def _repeats(result: Result) -> str:
    return "1" if result.repeat_spread is None else f"{result.repeats}, their medians within {result.repeat_spread:.1%}"


def _heat(result: Result) -> str:
    states = list(dict.fromkeys(moment.thermal_state for moment in result.over_time))
    degrees = [moment.temperature_c for moment in result.over_time if moment.temperature_c is not None]
    words = " then ".join(states) or "unknown"
    return f"{words}, {degrees[0]:.0f} to at most {max(degrees):.0f} °C" if degrees else words


def show(results: Named, out: Console) -> None:
    """Print: one result in full, several side by side with their ratios to the first. Warnings last, and loud."""
    for name, result in results.items():
        table = _table("", "")
        table.show_header = False
        for key, value in {"file": name, **facts(result)}.items():
            table.add_row(_clean(key), _clean(value), style="bold" if key == "headline" else "")
        out.print(table)
        out.print()
    if len(results) == 1:
        (result,) = results.values()
        out.print(_stages(result))
        out.print()
    out.print(_comparison(results))
    for name, result in results.items():
        if result.operators_ms:
            out.print()
            out.print(_operators(name, result))
    out.print()
    for name, result in results.items():
        for sentence in result.all_warnings():
            prefix = f"{name}: " if len(results) > 1 else ""
            out.print(_clean(f"WARNING {prefix}{sentence}", "bold red"), soft_wrap=True)
    if len(results) == 1:
        for place, reason in result.not_measured.items():
            out.print(_clean(f"not measured: {place} ({reason})", "dim"), soft_wrap=True)


def _table(*columns: str) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for i, name in enumerate(columns):
        table.add_column(_clean(name), justify="right" if i else "left", overflow="fold")
    if len(columns) == 2 and not any(columns):
        table.columns[1].justify = "left"
    return table


def _clean(words: object, style: str = "") -> Text:
    """Of a file that anybody may have made: no markup, nothing that moves a terminal's cursor."""
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(words)), style)


def _stages(result: Result) -> Table:
    table = _table("ms", "median", "p90", "p99", "mean", "CV", "count")
    parts = {WORDS.get(name, name): result.stages_ms[name] for name in STAGES} | {"execute() alone": result.execute_ms}
    for name, one in parts.items():
        values = ["not measured"] if one is None else [f"{v:.2f}" for v in (one.p50, one.p90, one.p99, one.mean)]
        values += [] if one is None else [f"{one.cv:.2f}", str(one.count)]
        table.add_row(_clean(name), *values, style="bold" if name == WORDS["frame"] else "")
    return table


def cells(results: Sequence[Result], row: Row) -> list[str]:
    """A row of the comparison: the first's value, then each with its ratio to the first's."""
    _, of, digits = row
    values = [of(result) for result in results]
    texts = [NONE if value is None else f"{value:.{digits}f}" for value in values]
    for i, value in enumerate(values):
        if i and value is not None and values[0]:
            texts[i] += f" ({value / values[0]:.2f}x)"
    return texts


def _comparison(results: Named) -> Table:
    table = _table("", *results)
    for row in rows(list(results.values()), with_stages=len(results) > 1):  # of one they have a table of their own
        table.add_row(row[0], *cells(list(results.values()), row))
    return table


OPERATOR_COLUMNS = ("ms a frame", "share")


def operators(result: Result, most: int = 12) -> list[list[str]]:
    """The costliest: what it is, and its columns."""
    total = sum(result.operators_ms.values())
    listed = list(result.operators_ms.items())[:most]
    return [[kind, f"{ms:.3f}", f"{ms / total:.1%}" if total else NONE] for kind, ms in listed]


def _operators(name: str, result: Result) -> Table:
    table = _table(f"{name}: operators", *OPERATOR_COLUMNS)
    for kind, *values in operators(result):
        table.add_row(_clean(kind), *values)
    return table


def plot(results: Named, path: Path) -> None:
    """PNG: frames of each second, and below what the system said of heat."""
    path = check_output(path, (".png",))
    figure = _figure(results)
    with written_aside(path) as aside:
        figure.savefig(aside, format="png", dpi=120)


def _figure(results: Named) -> Any:
    """Matplotlib comes with MediaPipe."""
    from matplotlib.figure import Figure

    shown = {name: result for name, result in results.items() if result.over_time}
    if not shown:
        raise MobileBilayerError(
            "None of these results has frames over time: they are shorter than a second. Measure longer."
        )
    warm = {n: r for n, r in shown.items() if any(m.temperature_c is not None for m in r.over_time)}
    figure = Figure((9, 6 if warm else 4), layout="constrained")
    axes = figure.subplots(2 if warm else 1, 1, sharex=True, squeeze=False, height_ratios=[2, 1][: 2 if warm else 1])[
        :, 0
    ]
    for colour, (name, result) in zip(_colours(len(shown)), shown.items(), strict=True):
        minutes = result.duration_s >= 120
        scale = 60 if max(r.duration_s for r in shown.values()) >= 120 else 1
        at = [(moment.second + 0.5) / scale for moment in result.over_time]
        frames = [moment.frames for moment in result.over_time]
        axes[0].plot(
            at, frames, color=colour, linewidth=1, alpha=0.5 if minutes else 1, marker="." if len(at) < 3 else None
        )
        label = f"{name}: {result.headline}".replace("$", r"\$")  # or it would be set as mathematics
        axes[0].plot([], [], color=colour, label=label)
        if minutes:
            for fps, ends in ((result.first_minute_fps, at[:60]), (result.sustained_fps, at[-60:])):
                axes[0].plot([ends[0], ends[-1]], [fps, fps], color=colour, linewidth=3, solid_capstyle="butt")
        for before, moment in zip(result.over_time, result.over_time[1:], strict=False):
            if moment.thermal_state != before.thermal_state:
                axes[0].axvline(moment.second / scale, color=colour, linestyle=":", linewidth=1)
                place = (moment.second / scale, 0.02)
                axes[0].annotate(
                    f"heat: {moment.thermal_state}",
                    place,
                    xycoords=("data", "axes fraction"),
                    color=colour,
                    fontsize=8,
                    rotation=90,
                )
        if name in warm:
            axes[1].plot(at, [m.temperature_c for m in result.over_time], color=colour, linewidth=1)  # None is a gap
    for camera in {result.camera_fps for result in shown.values()} - {None}:
        axes[0].axhline(camera, color="#888888", linestyle="--", linewidth=1, label=f"camera, {camera:g} FPS")
    axes[0].set_ylim(0, 1.1 * max(max(m.frames for m in r.over_time) for r in shown.values()) + 1)
    axes[0].set_ylabel("whole frames a second")
    if warm:
        axes[1].set_ylabel("hottest sensor, °C")
    axes[-1].set_xlabel("minutes" if scale == 60 else "seconds")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", fontsize=8, frameon=False)
    for axis in axes:
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    return figure


def _colours(count: int) -> list[str]:
    return [COLOURS[i % len(COLOURS)] for i in range(count)]


STYLE = """
:root { --page: #f6f6f4; --card: #fff; --ink: #1d2125; --soft: #666d75; --line: #dcdcd8; --loud: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --page: #15181b; --card: #1e2226; --ink: #e4e6e8; --soft: #9aa2aa; --line: #343a40; --loud: #ff8a80; } }
body { margin: 0 auto; max-width: 70rem; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2rem; } .loud { color: var(--loud); font-weight: 650; } .soft { color: var(--soft); }
.wide { overflow-x: auto; } figure { margin: 0; background: #fff; border-radius: 8px; } svg { display: block; max-width: 100%; height: auto; margin: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; background: var(--card); }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
th:first-child, td:first-child, .facts td { text-align: left; }
"""


def write_html(results: Named, path: Path) -> None:
    """One file that a browser shows without a network: tables, warnings, the plot."""
    path = check_output(path, (".html",))
    listed = list(results.values())
    parts = ["<h1>Benchmark</h1>"]
    for name, result in results.items():
        parts.append(f"<h2>{html.escape(name)}</h2>")
        parts += [f'<p class="loud">{html.escape(sentence)}</p>' for sentence in result.all_warnings()]
        parts.append(_html_table([], [[key, value] for key, value in facts(result).items()], "facts"))
    if any(result.over_time for result in listed):
        drawn = io.StringIO()
        _figure(results).savefig(drawn, format="svg")
        parts += [
            "<h2>Frames a second over time</h2>",
            f"<figure>{drawn.getvalue()[drawn.getvalue().index('<svg') :]}</figure>",
        ]
    parts += [
        "<h2>What it cost</h2>",
        _html_table(["", *results], [[row[0], *cells(listed, row)] for row in rows(listed)]),
    ]
    if len(listed) > 1:
        parts.append('<p class="soft">In brackets: ratios to the first.</p>')
    for name, result in results.items():
        if result.operators_ms:
            parts += [
                f"<h2>Operators: {html.escape(name)}</h2>",
                _html_table(["", *OPERATOR_COLUMNS], operators(result)),
            ]
    for name, result in results.items():
        if result.not_measured:
            missing = [[place, reason] for place, reason in result.not_measured.items()]
            parts += [f"<h2>Not measured: {html.escape(name)}</h2>", _html_table([], missing, "facts")]
    head = '<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    text = (
        f"{head}<title>Benchmark</title>\n<style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )
    with written_aside(path) as aside:
        aside.write_text(re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL), "utf-8")


def _html_table(head: list[str], body: list[list[str]], kind: str = "") -> str:
    def row(values: list[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(value)}</{tag}>" for value in values) + "</tr>"

    top = f"<thead>{row(head, 'th')}</thead>" if head else ""
    return (
        f'<div class="wide"><table class="{kind}">{top}<tbody>'
        + "\n".join(row(values, "td") for values in body)
        + "</tbody></table></div>"
    )
