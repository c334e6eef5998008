"""How close a render comes to the real frame, on people never trained on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from mobile_bilayer.capture.images import written_aside
from mobile_bilayer.dataset.pairs import NO_AUGMENTATION, PreparedClip, load_clips, make_example, to_tensors
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.evaluation.methods import Method, pictures, static_photo, warp_method
from mobile_bilayer.evaluation.metrics import (
    METRICS,
    NEED_FACES,
    OFTEN_NONE,
    PART_METRICS,
    STEADY_METRICS,
    FaceMeasures,
    PixelMeasures,
    changed_parts,
    parts,
)
from mobile_bilayer.evaluation.steadiness import STEPS, consecutive_frames, flicker, in_steps, jitter

STATIC, WARP = "static photo", "landmark warp"  # always measured
REAL = "real frames"  # whose steadiness is measured too
RESAMPLES = 2000  # of the people, for the intervals
LABEL_PX = 24  # height of the sheet's labels


@dataclass(frozen=True)
class ClipValues:
    """What was measured on one clip.

    frames  which of the clip's are the T targets; the first is the source
    found   (T,) bool, whether the real target shows a face; None when nobody looked
    values  {method: {metric: (T,) float64}}; NaN where the render or the target shows no face, or the part no change
    consecutive  frames that steadiness was measured on
    steadiness   {method, or REAL: {metric: value}}; NaN where faces are lost, or too few frames follow each other
    """

    name: str
    identity: str
    frames: list[int]
    found: np.ndarray | None
    values: dict[str, dict[str, np.ndarray]]
    consecutive: list[int] = field(default_factory=list)
    steadiness: dict[str, dict[str, float]] = field(default_factory=dict)

    def mean(self, method: str, metric: str) -> float:
        """NaN where there is no number."""
        if metric in STEADY_METRICS:
            return self.steadiness.get(method, {}).get(metric, np.nan)
        values = self.values[method][metric]
        return _mean(values[~np.isnan(values)] if metric in OFTEN_NONE else values)


@dataclass(frozen=True)
class ClipRenders:
    """What was rendered of one clip. Pictures are in [0, 1].

    frames, consecutive  as in `ClipValues`
    source   (3, 256, 256), the clip's first frame
    targets  (T, 3, 256, 256), weight (T, 1, 256, 256) as `to_tensors` gives it
    parts    {"opened_mouth", "shut_eyes": (T, 1, 256, 256) bool}, where there is something that the source does not show
    renders  {method: (T, 3, 256, 256)}, as a screen shows them, in steps of 1/255
    real     (N, 3, 256, 256), the consecutive frames
    moving   {method: ((N - 1) * STEPS + 1, 3, 256, 256)} in small steps from each of those to the next; empty where
             fewer than two follow each other
    """

    clip: PreparedClip
    frames: list[int]
    consecutive: list[int]
    source: Tensor
    targets: Tensor
    weight: Tensor
    parts: dict[str, Tensor]
    renders: dict[str, Tensor]
    real: Tensor
    moving: dict[str, Tensor]

    @property
    def pick(self) -> int:
        """The target that differs most from the source."""
        return int((self.source - self.targets).abs().mean((1, 2, 3)).argmax())


@dataclass(frozen=True)
class Settings:
    """How it was measured: with these and the same clips, the numbers come out the same."""

    prepared: str
    targets: int
    videos_only: bool
    quick: bool
    frames: int = 0  # behind each other, of each clip; none: without steadiness


@dataclass(frozen=True)
class Fidelity:
    """What was measured, clip by clip; and a sheet of some of it.

    sheet  (H, W, 3) uint8, a line a clip: source, driver, each method but the static photo, error of the last times 4
    """

    settings: Settings
    clips: list[ClipValues]
    sheet: np.ndarray

    @property
    def methods(self) -> list[str]:
        return list(self.clips[0].values)

    @property
    def metrics(self) -> list[str]:
        """Those that were measured, in `METRICS`' order."""
        measured = [name for name in METRICS if self.settings.frames or name not in STEADY_METRICS]
        measured = [name for name in measured if name not in PART_METRICS or self.count(name)]
        return [name for name in measured if not (self.settings.quick and name in NEED_FACES)]

    @property
    def pairs(self) -> int:
        return sum(len(clip.frames) for clip in self.clips)

    @property
    def people(self) -> int:
        return len({clip.identity for clip in self.clips})

    def count(self, metric: str) -> int:
        """Of how many pairs, or clips, there is a number."""
        return len(self._values(self.methods[0], metric)[0])

    @cached_property
    def table(self) -> dict[str, dict[str, float]]:
        """{method: {metric: mean over pairs, of steadiness over clips}}; of faces, over those found, NaN if none was."""
        return {m: {k: _mean(self._values(m, k)[0]) for k in self.metrics} for m in self.methods}

    @cached_property
    def intervals(self) -> dict[str, dict[str, tuple[float, float]]]:
        """{method: {metric: where 95 % of the means lie}} when other people are drawn from the same ones."""
        return {m: {k: interval(*self._values(m, k)) for k in self.metrics} for m in self.methods}

    @cached_property
    def real(self) -> dict[str, float]:
        """{metric of steadiness: mean over the clips' real frames}, for those that they have."""
        return {k: _mean(self._values(REAL, k)[0]) for k in self.metrics if METRICS[k].better == "real"}

    @cached_property
    def lost(self) -> dict[str, int]:
        """{method: renders without a face, of those whose target shows one}; empty when nobody looked."""
        if self.settings.quick:
            return {}
        missing = {m: [c.found & np.isnan(c.values[m]["keypoints"]) for c in self.clips] for m in self.methods}
        return {m: int(np.concatenate(of_clips).sum()) for m, of_clips in missing.items()}

    @property
    def targets_lost(self) -> int:
        """Real targets without a face that the detector finds: no method has a face metric there."""
        return sum(int((~c.found).sum()) for c in self.clips if c.found is not None)

    @cached_property
    def beside(self) -> dict[str, dict[str, dict[str, tuple[float, float, float]]]]:
        """{reference: {method: {metric: mean difference to the reference, and where 95 % of such means lie}}}.

        Of the same pairs, or clips, that both have a number of: it tells which of two is better where their intervals overlap.
        References are the landmark warp and, of several others, the last: the teacher, if there is one.
        """
        compared = [name for name in self.metrics if METRICS[name].better != "real"]
        others = [name for name in self.methods if name != STATIC]
        references = [WARP, *others[2:][-1:]]
        return {
            reference: {m: {k: self._difference(m, reference, k) for k in compared} for m in others if m != reference}
            for reference in references
            if len(others) > 1
        }

    def _difference(self, method: str, reference: str, metric: str) -> tuple[float, float, float]:
        (values, people), (others, _) = self._all(method, metric), self._all(reference, metric)
        difference = values - others
        has = ~np.isnan(difference) if metric in OFTEN_NONE | STEADY_METRICS else np.full(len(difference), True)
        return _mean(difference[has]), *interval(difference[has], people[has])

    def _values(self, method: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Values (P,) of all pairs, or clips, that have one, and whose each is (P,) str."""
        values, people = self._all(method, metric)
        has = ~np.isnan(values) if metric in OFTEN_NONE | STEADY_METRICS else np.full(len(values), True)
        return values[has], people[has]

    def _all(self, method: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Values of all pairs, of steadiness of all clips, NaN where there is none; and whose each is."""
        identities = [clip.identity for clip in self.clips]
        if metric in STEADY_METRICS:
            return np.array([clip.mean(method, metric) for clip in self.clips]), np.array(identities)
        values = np.concatenate([clip.values[method][metric] for clip in self.clips])
        return values, np.repeat(identities, [len(clip.frames) for clip in self.clips])

    def save(self, path: Path, made_by: Mapping[str, str] | None = None) -> None:
        """Everything but the sheet as JSON; null where there is no number.

        made_by  {method: what made its renders}
        """
        table, intervals, lost = self.table, self.intervals, self.lost

        def row(method: str) -> dict:
            measured = {
                metric: {"mean": mean, "low": intervals[method][metric][0], "high": intervals[method][metric][1]}
                for metric, mean in table[method].items()
            }
            return {"made_by": (made_by or {}).get(method), "lost": lost.get(method), **measured}

        report = {
            "settings": asdict(self.settings) | {"bootstrap": f"people, {RESAMPLES} times, 95 %"},
            "metrics": {k: {"better": METRICS[k].better, "meaning": METRICS[k].meaning} for k in self.metrics},
            "clips": len(self.clips),
            "people": self.people,
            "pairs": self.pairs,
            "targets_lost": None if self.settings.quick else self.targets_lost,
            "methods": {method: row(method) for method in self.methods},
            REAL.replace(" ", "_"): self.real or None,
            "beside": {
                reference: {m: {k: dict(zip(("mean", "low", "high"), d, strict=True)) for k, d in row.items()} for m, row in rows.items()}
                for reference, rows in self.beside.items()
            },
            "per_clip": [
                {"name": c.name, "identity": c.identity, "frames": c.frames, "found": c.found, "values": c.values}
                | ({"consecutive": c.consecutive, "steadiness": c.steadiness} if self.settings.frames else {})
                for c in self.clips
            ],
        }
        with written_aside(path) as aside:
            aside.write_text(json.dumps(plain(report), indent=1, allow_nan=False, ensure_ascii=False) + "\n", "utf-8")


def interval(values: np.ndarray, people: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of `values` (P,), by a bootstrap over `people` (P,): frames of one person are alike."""
    if not len(values):
        return np.nan, np.nan
    names, whose = np.unique(people, return_inverse=True)
    sums, counts = np.bincount(whose, values), np.bincount(whose)
    drawn = np.random.default_rng(0).integers(0, len(names), (RESAMPLES, len(names)))
    low, high = np.percentile(sums[drawn].sum(1) / counts[drawn].sum(1), [2.5, 97.5])
    return float(low), float(high)


def chosen_frames(clip: PreparedClip, count: int) -> list[int]:
    """Evenly spread over the clip, the last included; the first is the source."""
    return [int(i) for i in np.linspace(0, len(clip) - 1, count + 1).round().astype(int)[1:]]


def evaluate_fidelity(
    prepared: Path,
    methods: Mapping[str, Method],
    targets: int = 4,
    videos_only: bool = True,
    quick: bool = False,
    frames: int = 5,
    on_progress: Callable[[str, int, int | None], None] | None = None,
    on_clip: Callable[[ClipRenders], None] | None = None,
) -> Fidelity:
    """Drive each clip's first frame by its own later frames, and compare with them.

    methods      behind "static photo" and "landmark warp", which are always measured
    videos_only  leave out clips made of photos, whose backgrounds differ
    quick        without the metrics that must find faces
    frames       behind each other in each clip, to measure steadiness on; 0: without
    on_clip      sees what was rendered of each clip
    """
    if targets < 1:
        raise MobileBilayerError(f"{targets} targets of each clip were asked for; 1 or more are needed. Try 4.")
    if frames < 3 and frames != 0:
        raise MobileBilayerError(
            f"{frames} frames behind each other were asked for; 3 or more are needed to see what trembles, or 0 to leave "
            "that out. Try 5."
        )
    clips = load_clips(prepared)
    if videos_only:
        clips = [c for c in clips if not c.photos] or clips
    methods = {STATIC: static_photo, WARP: warp_method, **methods}
    pixels = PixelMeasures()
    measured, rows = [], [_labels(list(methods))]
    with nullcontext() if quick else FaceMeasures() as faces:
        for done, clip in enumerate(clips, 1):
            seen = _render(clip, methods, targets, frames)
            measured.append(_measure(seen, pixels, faces))
            rows.append(_row(seen))
            if on_clip:
                on_clip(seen)
            if on_progress:
                on_progress("Evaluating", done, len(clips))
    settings = Settings(str(prepared), targets, videos_only, quick, frames)
    return Fidelity(settings, measured, np.concatenate(rows))


def _render(clip: PreparedClip, methods: Mapping[str, Method], targets: int, frames: int) -> ClipRenders:
    wanted = chosen_frames(clip, targets)
    batch = _batch(clip, wanted)
    renders = {name: _shown(method(batch)) for name, method in methods.items()}
    consecutive = [] if clip.photos else consecutive_frames(clip, frames)
    real, moving = batch["target"][:0], {}
    if len(consecutive) > 1:
        follow = _batch(clip, consecutive)
        real = follow["target"]
        steps = {name: follow[name] for name in ("image", "source_points")} | {"points": in_steps(follow["points"])}
        moving = {name: _in_range(method(steps)) for name, method in methods.items()}
    changed = [
        changed_parts(clip.landmarks[0], clip.landmarks[frame], points)
        for frame, points in zip(wanted, batch["points"].numpy(), strict=True)
    ]
    parts_of = {name: torch.from_numpy(np.stack([of[name] for of in changed])[:, None]) for name in changed[0]}
    source, targets, weight = batch["image"][0], batch["target"], batch["weight"]
    return ClipRenders(clip, wanted, consecutive, source, targets, weight, parts_of, renders, real, moving)


def _measure(seen: ClipRenders, pixels: PixelMeasures, faces: FaceMeasures | None) -> ClipValues:
    values = {
        name: pixels(render, seen.targets, seen.weight) | parts(render, seen.targets, seen.parts)
        for name, render in seen.renders.items()
    }
    found = None
    if faces:
        targets = [faces.look(rgb) for rgb in pictures(seen.targets)]
        found = np.array([face is not None for face in targets])
        for name, render in seen.renders.items():
            values[name] |= faces(pictures(render), targets)
    steadiness = {}
    if seen.moving:
        steadiness[REAL] = _steadiness(seen.real, 1, faces)
        steadiness |= {name: _steadiness(moving, STEPS, faces) for name, moving in seen.moving.items()}
    clip = seen.clip
    return ClipValues(clip.name, clip.identity, seen.frames, found, values, seen.consecutive, steadiness)


def _steadiness(frames: Tensor, steps: int, faces: FaceMeasures | None) -> dict[str, float]:
    """{metric: value} of frames (N, 3, 256, 256) in [0, 1], of which each `steps`-th is one of the clip's."""
    values = {"clip_flicker": flicker(frames[::steps])}
    if steps > 1:
        values["flicker"] = flicker(frames)
    if faces:
        looks = [faces.landmarks(rgb) for rgb in pictures(frames)]
        found = np.array([look is not None for look in looks])
        landmarks = np.stack([np.zeros((478, 3), np.float32) if look is None else look for look in looks])
        values["clip_jitter"] = jitter(landmarks[::steps], found[::steps])
        if steps > 1:
            values["jitter"] = jitter(landmarks, found, turns=steps)
    return values


def _batch(clip: PreparedClip, targets: list[int]) -> dict[str, Tensor]:
    """The clip's first frame and these, as `to_tensors` gives them, unaltered."""
    rng = np.random.default_rng(0)  # of which nothing depends
    return to_tensors(default_collate([make_example(clip, 0, targets, NO_AUGMENTATION, rng)]))


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan


def plain(value):
    """What JSON can hold: arrays as lists, NaN as None, six digits."""
    match value:
        case dict():
            return {name: plain(part) for name, part in value.items()}
        case list() | tuple() | np.ndarray():
            return [plain(part) for part in value]
        case bool() | np.bool_():
            return bool(value)
        case float():
            return float(f"{value:.6g}") if np.isfinite(value) else None
    return value


def _in_range(render: Tensor) -> Tensor:
    """Frames in [-1, 1] to [0, 1]."""
    return (render.detach().cpu().float().clamp(-1, 1) + 1) / 2


def _shown(render: Tensor) -> Tensor:
    """Frames in [-1, 1] as a screen shows them, in [0, 1]: clamped, in steps of 1/255."""
    return (_in_range(render) * 255).round() / 255


def _row(seen: ClipRenders) -> np.ndarray:
    """One line of the sheet."""
    wanted = seen.targets[seen.pick]
    # The source's column is the static photo's.
    shown = [render[seen.pick] for name, render in seen.renders.items() if name != STATIC]
    error = ((shown[-1] - wanted).abs() * 4).clamp(max=1)
    return pictures(torch.cat([seen.source, wanted, *shown, error], 2)[None])[0]


def _labels(methods: list[str]) -> np.ndarray:
    """(LABEL_PX, W, 3) uint8: what the sheet's columns are."""
    texts = ["source", "driver", *(name for name in methods if name != STATIC), f"error of {methods[-1]}, x4"]
    line = np.full((LABEL_PX, 256 * len(texts), 3), 255, np.uint8)
    for i, text in enumerate(texts):
        cv2.putText(line, text, (256 * i + 6, LABEL_PX - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return line
