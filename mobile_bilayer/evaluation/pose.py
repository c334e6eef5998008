"""Does it shake, and does the face stay its own: motion from some drivers to other people's photos."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from mobile_bilayer.capture.images import written_aside
from mobile_bilayer.capture.tracking import track_video
from mobile_bilayer.capture.video import VideoReader
from mobile_bilayer.dataset.prepare import VIDEO_SUFFIXES
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.evaluation.fidelity import interval, plain
from mobile_bilayer.evaluation.metrics import Face, FaceMeasures, Metric, identity_distance
from mobile_bilayer.evaluation.steadiness import jitter
from mobile_bilayer.pose.crop import head_crop
from mobile_bilayer.pose.head import Motion, put_together, take_apart
from mobile_bilayer.pose.neutral import neutral_of
from mobile_bilayer.pose.retarget import MODES, Mode, Retargeter, eyes_of, lid_share, lip_opening
from mobile_bilayer.pose.stabilizer import Stabilizer, stabilize
from mobile_bilayer.pose.stickman import draw_stickman
from mobile_bilayer.pose.track import TRACK_SUFFIXES, Track
from mobile_bilayer.runtime.avatar import Avatar
from mobile_bilayer.runtime.bundle import Bundle

Progress = Callable[[str, int, int | None], None]

PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".heic", ".avif")
SAME_PERSON = 0.6  # dlib's own threshold
TILE_PX = 160  # of the sheet
POSE_METRICS = {
    "identity": Metric("identity", "lower", 3, "L2 distance of dlib's 128 numbers of render and photo"),
    "eyes": Metric(
        "eyes",
        "lower",
        3,
        "how far lids are open, of how far at rest, in render (of the photo) and driver: |difference|",
    ),
    "lips": Metric(
        "lips", "lower", 3, "how far lips are apart, over the mouth's width, in render and driver: |difference|"
    ),
}


@dataclass(frozen=True)
class ClipJitter:
    """Of all landmarks, in % of the outer eye corners' distance.

    raw   the driver's, as tracked
    file  the source's, with frames behind to look at; live without
    """

    name: str
    source: str
    frames: int
    raw: float
    file: float
    live: float


@dataclass(frozen=True)
class PairValues:
    """One driver on one source.

    frames  which of the driver's were looked at
    values  {metric: (T,)}; NaN where the render shows no face, or nobody looked
    """

    driver: str
    source: str
    mode: Mode
    frames: list[int]
    values: dict[str, np.ndarray]


@dataclass(frozen=True)
class Settings:
    """How it was measured."""

    drivers: int
    sources: int
    frames: int
    quick: bool


@dataclass(frozen=True)
class PoseReport:
    """What was measured.

    sheet  (H, W, 3) uint8: drivers on top, sources to the left; of each pair relative, then absolute
    """

    settings: Settings
    jitter: list[ClipJitter]
    pairs: list[PairValues]
    sheet: np.ndarray

    @property
    def table(self) -> dict[str, dict[str, float]]:
        """{mode: {metric: mean over frames; same person: share of frames below 0.6; no face: frames without one}}."""
        out = {}
        for mode in MODES:
            values = {name: self._values(mode, name) for name in POSE_METRICS}
            identity = values["identity"]
            seen = identity[~np.isnan(identity)]
            out[mode] = {
                name: float(np.nanmean(v)) if (~np.isnan(v)).any() else np.nan for name, v in values.items()
            } | {
                "same_person": float((seen < SAME_PERSON).mean()) if len(seen) else np.nan,
                "no_face": float(np.isnan(values["lips"]).sum()),
            }
        return out

    @property
    def intervals(self) -> dict[str, dict[str, tuple[float, float]]]:
        """{mode: {metric: where 95 % of the means lie}} when other sources are drawn from the same ones."""
        out: dict[str, dict[str, tuple[float, float]]] = {}
        for mode in MODES:
            pairs = [pair for pair in self.pairs if pair.mode == mode]
            people = np.repeat([pair.source for pair in pairs], [len(pair.frames) for pair in pairs])
            out[mode] = {}
            for name in POSE_METRICS:
                values = self._values(mode, name)
                has = ~np.isnan(values)
                out[mode][name] = interval(values[has], people[has])
        return out

    @property
    def worst_ratios(self) -> dict[str, tuple[float, str]]:
        """{"file", "live": the largest jitter of an output over its driver's, and of which clip}."""
        return {
            kind: max((getattr(clip, kind) / clip.raw, clip.name) for clip in self.jitter) for kind in ("file", "live")
        }

    @property
    def mean_ratios(self) -> dict[str, float]:
        return {kind: float(np.mean([getattr(c, kind) / c.raw for c in self.jitter])) for kind in ("file", "live")}

    def _values(self, mode: Mode, metric: str) -> np.ndarray:
        return np.concatenate([pair.values[metric] for pair in self.pairs if pair.mode == mode])

    def save(self, path: Path, made_by: str | None = None) -> None:
        """Everything but the sheet as JSON; null where there is no number."""
        intervals = self.intervals
        report = {
            "settings": asdict(self.settings),
            "made_by": made_by,
            "metrics": {name: {"better": m.better, "meaning": m.meaning} for name, m in POSE_METRICS.items()},
            "modes": {
                mode: row | {"intervals": {name: list(intervals[mode][name]) for name in POSE_METRICS}}
                for mode, row in self.table.items()
            },
            "jitter": {
                "mean_ratio": self.mean_ratios,
                "worst_ratio": {kind: list(worst) for kind, worst in self.worst_ratios.items()},
                "per_clip": [asdict(clip) for clip in self.jitter],
            },
            "per_pair": [asdict(pair) for pair in self.pairs],
        }
        with written_aside(path) as aside:
            aside.write_text(json.dumps(plain(report), indent=1, allow_nan=False, ensure_ascii=False) + "\n", "utf-8")


def load_drivers(folder: Path, on_progress: Progress | None = None) -> dict[str, Track]:
    """Tracks of a folder's videos and .track files, by their names."""
    paths = _files(folder, (*VIDEO_SUFFIXES, *TRACK_SUFFIXES), "videos or tracks")
    out = {}
    for done, path in enumerate(paths, 1):
        out[path.name] = (
            Track.load(path) if path.suffix.lower() in TRACK_SUFFIXES else track_video(VideoReader(path), None, str(path)).track
        )
        if on_progress:
            on_progress("Tracking", done, len(paths))
    return out


def load_sources(folder: Path, count: int, bundle: Bundle) -> dict[str, Avatar]:
    """Avatars of `count` of a folder's photos, evenly spread over their names."""
    if count < 1:
        raise MobileBilayerError(f"{count} photos were asked for; at least 1 is needed. Try 20.")
    paths = _spread(_files(folder, PHOTO_SUFFIXES, "photos"), count)
    return {path.name: bundle.avatar(path) for path in paths}


def evaluate_pose(
    clips: dict[str, Track],
    sources: dict[str, Avatar],
    drivers: int = 5,
    frames: int = 8,
    quick: bool = False,
    on_progress: Progress | None = None,
) -> PoseReport:
    """Jitter of every clip, on one source each; then `drivers` of the clips on every source, in both modes.

    frames  of each pair are rendered and looked at, evenly spread
    quick   without looking at renders, which takes a fifth of a second each: jitter alone
    """
    if min(drivers, frames) < 1 or not clips or not sources:
        raise MobileBilayerError(
            f"{drivers} drivers and {frames} frames of {len(clips)} clips on {len(sources)} photos were asked for; 1 or more "
            "of each are needed."
        )
    names = list(sources)
    measured = []
    for done, (name, track) in enumerate(clips.items()):
        source = names[done % len(names)]
        measured.append(clip_jitter(name, track, source, sources[source]))
        if on_progress:
            on_progress("Jitter", done + 1, len(clips))
    measured = [clip for clip in measured if clip.raw > 0]  # NaN of clips of fewer than three frames as well
    if not measured:
        raise MobileBilayerError("No clip has three frames with a face that moves. Give longer ones.")
    chosen = {name: driver_of(clips[name], frames) for name in _spread(list(clips), drivers)}
    pairs, rows = [], [_drivers_row(chosen.values())]
    with nullcontext() if quick else FaceMeasures() as faces:
        for done, (name, avatar) in enumerate(sources.items(), 1):
            photo = faces.look(avatar.texture) if faces else None
            tiles = [avatar.texture]
            for driver_name, driver in chosen.items():
                for mode in MODES:
                    avatar.mode, avatar.neutral = mode, driver.neutral
                    renders = [avatar.render(motion) for motion in driver.motions]
                    values = look(faces, avatar, photo, driver, renders) if faces else _nothing(renders)
                    pairs.append(PairValues(driver_name, name, mode, driver.frames, values))
                    tiles.append(renders[driver.farthest])
            rows.append(_row(tiles))
            if on_progress:
                on_progress("Looking", done, len(sources))
    settings = Settings(len(chosen), len(sources), frames, quick)
    return PoseReport(settings, measured, pairs, np.concatenate(rows))


def clip_jitter(name: str, track: Track, source_name: str, source: Avatar) -> ClipJitter:
    """What of a driver's tremble reaches a source."""
    retargeter = Retargeter(source.source_landmarks, neutral_of(track))
    from_file = np.stack([retargeter(m) for m in stabilize(track.landmarks, track.times_s, track.found)])
    stabilizer, live = Stabilizer(), []
    for points, time_s, found in zip(track.landmarks, track.times_s.tolist(), track.found.tolist(), strict=True):
        if not found:
            stabilizer.reset()
        live.append(retargeter(stabilizer(take_apart(points), time_s)))
    return ClipJitter(
        name,
        source_name,
        len(track),
        jitter(track.landmarks, track.found),
        jitter(from_file, track.found),
        jitter(np.stack(live), track.found),
    )


@dataclass(frozen=True)
class Driver:
    """Frames of a clip, as they drive an avatar.

    frames    which of the clip's, all with a face
    motions   one each
    neutral   the clip's
    """

    frames: list[int]
    motions: list[Motion]
    neutral: Motion

    @property
    def farthest(self) -> int:
        """Which of them is turned most away from the neutral one."""
        rest = self.neutral.pose.rotation
        return int(np.argmin([np.trace(motion.pose.rotation @ rest.T) for motion in self.motions]))


def driver_of(track: Track, count: int) -> Driver:
    """`count` frames with a face, evenly spread."""
    frames = _spread(np.flatnonzero(track.found).tolist(), count)
    motions = {i: m for i, m in enumerate(stabilize(track.landmarks, track.times_s, track.found)) if i in set(frames)}
    return Driver(frames, [motions[i] for i in frames], neutral_of(track))


def look(
    faces: FaceMeasures, avatar: Avatar, photo: Face | None, driver: Driver, renders: Sequence[np.ndarray]
) -> dict[str, np.ndarray]:
    """`POSE_METRICS` of each render of a driver's motions, against the photo's face and the driver."""
    values = _nothing(renders)
    at_photo, at_rest = eyes_of(take_apart(avatar.source_landmarks).face), eyes_of(driver.neutral.face)
    for i, (motion, rgb) in enumerate(zip(driver.motions, renders, strict=True)):
        face = faces.look(rgb)
        if face is None:
            continue
        got = take_apart(face.landmarks).face
        if photo is not None:
            values["identity"][i] = identity_distance(face.descriptor, photo.descriptor)
        mine, theirs = (
            [lid_share(now.openness, rest.openness) for now, rest in zip(eyes_of(seen), rests, strict=True)]
            for seen, rests in ((got, at_photo), (motion.face, at_rest))
        )
        values["eyes"][i] = np.abs(np.subtract(mine, theirs)).mean()
        values["lips"][i] = abs(lip_opening(got) - lip_opening(motion.face))
    return values


def _nothing(renders: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    return {metric: np.full(len(renders), np.nan) for metric in POSE_METRICS}


def _files(folder: Path, suffixes: tuple[str, ...], what: str) -> list[Path]:
    if not folder.is_dir():
        raise MobileBilayerError(f"{folder} is no folder; a folder of {what} is needed. Check the path.")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes)
    if not paths:
        raise MobileBilayerError(f"{folder} has no {what}. Choose another folder.")
    return paths


def _spread(items: list, count: int) -> list:
    """At most `count` of them, evenly spread, the first and the last included."""
    return [
        items[i]
        for i in sorted(set(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int).tolist()))
    ]


def _row(tiles: Sequence[np.ndarray]) -> np.ndarray:
    return cv2.hconcat([cv2.resize(tile, (TILE_PX, TILE_PX), interpolation=cv2.INTER_AREA) for tile in tiles])


def _drivers_row(drivers: Iterable[Driver]) -> np.ndarray:
    blank = np.zeros((256, 256, 3), np.uint8)
    tiles = [blank]
    for driver in drivers:
        crop = head_crop(put_together(driver.neutral))
        tiles += [draw_stickman(crop.to_keypoints(put_together(driver.motions[driver.farthest])), 256), blank]
    return _row(tiles)
