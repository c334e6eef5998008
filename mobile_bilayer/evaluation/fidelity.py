"""How close a render comes to the real frame, on people never trained on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from mobile_bilayer.background import fill_behind
from mobile_bilayer.capture.images import written_aside
from mobile_bilayer.compositing import Layers, composite
from mobile_bilayer.dataset.pairs import NO_AUGMENTATION, PreparedClip, load_clips, make_example, to_tensors
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.evaluation.metrics import FACE_METRICS, METRICS, PIXEL_METRICS, FaceMeasures, PixelMeasures
from mobile_bilayer.runtime.bundle import Bundle
from mobile_bilayer.student.network import landmark_warp
from mobile_bilayer.teacher.landmark import LandmarkTeacher

Method = Callable[[dict[str, Tensor]], Tensor]
"""What is measured: `to_tensors`' batch of one source and its N targets in, frames (N, 3, 256, 256) in [-1, 1] out.

Of the target it may use what a driver gives, `points`; the rest is there to be compared with.
"""

RESAMPLES = 2000  # of the people, for the intervals
LABEL_PX = 24  # height of the sheet's labels


@dataclass(frozen=True)
class ClipValues:
    """What was measured on one clip.

    frames  which of the clip's are the T targets; the first is the source
    found   (T,) bool, whether the real target shows a face; None when nobody looked
    values  {method: {metric: (T,) float64}}; NaN where the render or the target shows no face
    """

    name: str
    identity: str
    frames: list[int]
    found: np.ndarray | None
    values: dict[str, dict[str, np.ndarray]]


@dataclass(frozen=True)
class Settings:
    """How it was measured: with these and the same clips, the numbers come out the same."""

    prepared: str
    targets: int
    videos_only: bool
    quick: bool


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
        return list(PIXEL_METRICS if self.settings.quick else METRICS)

    @property
    def pairs(self) -> int:
        return sum(len(clip.frames) for clip in self.clips)

    @property
    def people(self) -> int:
        return len({clip.identity for clip in self.clips})

    @property
    def table(self) -> dict[str, dict[str, float]]:
        """{method: {metric: mean over pairs}}; of faces, over those that were found, NaN if none was."""
        return {m: {k: _mean(self._values(m, k)[0]) for k in self.metrics} for m in self.methods}

    @property
    def intervals(self) -> dict[str, dict[str, tuple[float, float]]]:
        """{method: {metric: where 95 % of the means lie}} when other people are drawn from the same ones."""
        return {m: {k: interval(*self._values(m, k)) for k in self.metrics} for m in self.methods}

    @property
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

    def _values(self, method: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Values (P,) of all pairs that have one, and whose each is (P,) str."""
        values = np.concatenate([clip.values[method][metric] for clip in self.clips])
        people = np.repeat([clip.identity for clip in self.clips], [len(clip.frames) for clip in self.clips])
        # Only a lost face may be left out. NaN of anything else is a fault that the mean must show.
        has = ~np.isnan(values) if metric in FACE_METRICS else np.full(len(values), True)
        return values[has], people[has]

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
            "per_clip": [
                {"name": c.name, "identity": c.identity, "frames": c.frames, "found": c.found, "values": c.values}
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
    on_progress: Callable[[str, int, int | None], None] | None = None,
) -> Fidelity:
    """Drive each clip's first frame by its own later frames, and compare with them.

    methods      behind "static photo" and "landmark warp", which are always measured
    videos_only  leave out clips made of photos, whose backgrounds differ
    quick        without the metrics that must find faces
    """
    if targets < 1:
        raise MobileBilayerError(f"{targets} targets of each clip were asked for; 1 or more are needed. Try 4.")
    clips = load_clips(prepared)
    if videos_only:
        clips = [c for c in clips if not c.photos] or clips
    methods = {"static photo": static_photo, "landmark warp": warp_method, **methods}
    pixels = PixelMeasures()
    measured, rows = [], [_labels(list(methods))]
    rng = np.random.default_rng(0)
    with nullcontext() if quick else FaceMeasures() as faces:
        for done, clip in enumerate(clips, 1):
            frames = chosen_frames(clip, targets)
            batch = to_tensors(default_collate([make_example(clip, 0, frames, NO_AUGMENTATION, rng)]))
            renders = {name: _shown(method(batch)) for name, method in methods.items()}
            values = {name: pixels(render, batch["target"], batch["weight"]) for name, render in renders.items()}
            found = None
            if faces:
                real = [faces.look(rgb) for rgb in _pictures(batch["target"])]
                found = np.array([face is not None for face in real])
                for name, render in renders.items():
                    values[name] |= faces(_pictures(render), real)
            measured.append(ClipValues(clip.name, clip.identity, frames, found, values))
            rows.append(_row(batch, renders))
            if on_progress:
                on_progress("Evaluating", done, len(clips))
    return Fidelity(Settings(str(prepared), targets, videos_only, quick), measured, np.concatenate(rows))


def static_photo(batch: dict[str, Tensor]) -> Tensor:
    """The method that does nothing."""
    return (batch["image"] * 2 - 1).expand_as(batch["target"])


def warp_method(batch: dict[str, Tensor]) -> Tensor:
    """The landmark warp, in which nothing is learned."""
    return landmark_warp(static_photo(batch), batch["source_points"], batch["points"])


def student_method(bundle: Bundle) -> Method:
    """As a phone would: the bundle's program, and the source's own inpainted background."""

    @torch.no_grad()
    def method(batch: dict[str, Tensor]) -> Tensor:
        image, source = batch["image"], batch["source_points"]
        features, maps, alpha = bundle.program.run("encode_avatar", image.numpy(), source.numpy())
        background = _behind(image, alpha)
        out = []
        for points in batch["points"]:
            a, b = bundle.program.run("render_layers", features, maps, source.numpy(), points[None].numpy())
            out.append(composite(image * 2 - 1, background, Layers(torch.from_numpy(a), torch.from_numpy(b))))
        return torch.cat(out)

    return method


def teacher_method(teacher: LandmarkTeacher) -> Method:
    """The teacher, with the background inpainted where it sees the person itself."""

    @torch.no_grad()
    def method(batch: dict[str, Tensor]) -> Tensor:
        avatar = teacher.encode(batch["image"], batch["source_points"])
        background = _behind(batch["image"], avatar.code.alpha.numpy())
        out = []
        for points in batch["points"]:  # one at a time, as they are used
            frame = teacher.look(avatar, points[None], background)
            out.append(composite(avatar.texture, background, frame.layers))
        return torch.cat(out)

    return method


def _behind(image: Tensor, alpha: np.ndarray) -> Tensor:
    """The source (1, 3, 256, 256) in [0, 1] without the person, whose alpha is (1, 1, h, h): the same in [-1, 1]."""
    full = cv2.resize(alpha[0, 0].clip(0, 1), (256, 256), interpolation=cv2.INTER_LINEAR)
    behind = fill_behind(_pictures(image)[0], full)
    return torch.from_numpy(behind).permute(2, 0, 1)[None].float() / 127.5 - 1


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


def _shown(render: Tensor) -> Tensor:
    """Frames in [-1, 1] as a screen shows them, in [0, 1]: clamped, in steps of 1/255."""
    return ((render.detach().cpu().float().clamp(-1, 1) + 1) * 127.5).round() / 255


def _pictures(frames: Tensor) -> list[np.ndarray]:
    """(N, 3, H, W) in [0, 1] to N of (H, W, 3) uint8 RGB. NaN, which no screen can show, is black."""
    rounded = (frames.nan_to_num(0) * 255).round().byte()
    return [np.ascontiguousarray(rgb) for rgb in rounded.permute(0, 2, 3, 1).numpy()]


def _row(batch: dict[str, Tensor], renders: dict[str, Tensor]) -> np.ndarray:
    """One line of the sheet: the target that differs most from the source."""
    wanted = batch["target"]
    pick = int((batch["image"] - wanted).abs().mean((1, 2, 3)).argmax())
    # The source's column is the static photo's.
    shown = [render[pick] for name, render in renders.items() if name != "static photo"]
    error = ((shown[-1] - wanted[pick]).abs() * 4).clamp(max=1)
    return _pictures(torch.cat([batch["image"][0], wanted[pick], *shown, error], 2)[None])[0]


def _labels(methods: list[str]) -> np.ndarray:
    """(LABEL_PX, W, 3) uint8: what the sheet's columns are."""
    texts = ["source", "driver", *(name for name in methods if name != "static photo"), f"error of {methods[-1]}, x4"]
    line = np.full((LABEL_PX, 256 * len(texts), 3), 255, np.uint8)
    for i, text in enumerate(texts):
        cv2.putText(line, text, (256 * i + 6, LABEL_PX - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return line
