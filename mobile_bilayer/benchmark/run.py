"""Run a bundle on this machine as an app would run it, whole frames against a camera's clock, and tell what it cost."""

from __future__ import annotations

import itertools
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Protocol

import numpy as np

from mobile_bilayer.benchmark import machine
from mobile_bilayer.benchmark.load import cold_ms, load_ms
from mobile_bilayer.benchmark.profile import METHOD, profile
from mobile_bilayer.benchmark.result import FORMAT_VERSION, STAGES, Fidelity, Load, Moment, Result
from mobile_bilayer.benchmark.statistics import Statistics, spread
from mobile_bilayer.capture.images import check_input
from mobile_bilayer.capture.models import FACE_LANDMARKER, is_at_hand
from mobile_bilayer.capture.tracking import FaceTracker
from mobile_bilayer.capture.video import VideoReader
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.head import network_points
from mobile_bilayer.pose.track import TRACK_SUFFIXES, Track
from mobile_bilayer.runtime.animate import Follower
from mobile_bilayer.runtime.avatar import Avatar
from mobile_bilayer.runtime.bundle import Bundle, bundle_mib, bundle_sha256, bundle_title, shipped_bundle
from mobile_bilayer.runtime.executorch_file import runtime_version, without_overload
from mobile_bilayer.runtime.inspection import inspect
from mobile_bilayer.runtime.manifest import CORE_ML
from mobile_bilayer.samples import sample_photo, sample_track

LONGEST_S = 24 * 3600
MOST_REPEATS = 100
PHOTO_PX, SWING_PX, SWING_FRAMES = 448, 24, 90  # of the sample photo as a camera sees it: side, and how it moves
COLD_STARTS, WARM_STARTS = 3, 3

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Setting:
    """How to measure.

    seconds      of counted frames; a run of two minutes or more has a sustained figure
    threads      of ExecuTorch and OpenCV; None: as many as they choose
    repeats      parts of the run whose medians are compared
    warmup       frames before those that count
    camera_fps   how fast the clock is that stands for a camera
    with_profile  operator by operator too
    """

    seconds: float = 60.0
    threads: int | None = None
    repeats: int = 3
    warmup: int = 30
    camera_fps: float = 30.0
    with_profile: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.seconds <= LONGEST_S:
            raise MobileBilayerError(f"seconds is {self.seconds}; it must be above 0 and at most {LONGEST_S}. Try 60.")
        if not 1 <= self.repeats <= MOST_REPEATS:
            raise MobileBilayerError(f"repeats is {self.repeats}; it must be in 1..{MOST_REPEATS}. Try 3.")


@dataclass(frozen=True)
class Costs:
    """Seconds that a frame spent in each stage, None where it has none; when it ended, and the runtime's part."""

    stages_s: dict[str, float | None]
    execute_s: float
    ended_s: float


class Driver(Protocol):
    """Where a frame's picture, or its landmarks, come from. absent: why a stage is not part of the run."""

    absent: dict[str, str]

    def take(self) -> np.ndarray | None:
        """The camera stage: a picture (H, W, 3) uint8 RGB; None where there are none."""

    def landmarks(self, rgb: np.ndarray | None, time_s: float) -> np.ndarray | None:
        """The landmarks stage."""

    def close(self) -> None: ...


class Pictures:
    """Pictures, in which MediaPipe finds the face."""

    def __init__(self, pictures: Iterator[np.ndarray], absent: dict[str, str]) -> None:
        self.absent, self._pictures = absent, pictures
        self._tracker = FaceTracker(live=True)

    def take(self) -> np.ndarray:
        return next(self._pictures)

    def landmarks(self, rgb: np.ndarray, time_s: float) -> np.ndarray | None:
        return self._tracker.see(rgb, time_s)

    def close(self) -> None:
        self._tracker.__exit__()


class Landmarks:
    """A track: nothing is looked at."""

    def __init__(self, track: Track, absent: dict[str, str]) -> None:
        self.absent = absent
        there = [points for points, found in zip(track.landmarks, track.found, strict=True) if found]
        if not there:
            raise MobileBilayerError("The driving track has no frame with a face. Choose another.")
        self._points = itertools.cycle(there + there[::-1])

    def take(self) -> None:
        return None

    def landmarks(self, rgb: None, time_s: float) -> np.ndarray:
        return next(self._points)

    def close(self) -> None: ...


def open_driver(driving: Path | None) -> Driver:
    """A video, or a track. None: a sample photo that swings, or where MediaPipe's model is not at hand the shipped track."""
    if driving is not None and driving.suffix.lower() in TRACK_SUFFIXES:
        return Landmarks(
            Track.load(driving), dict.fromkeys(("camera", "landmarks"), "the driver is a track: it has no pictures")
        )
    if driving is not None:
        reader = VideoReader(driving)
        return Pictures(_again_and_again(reader), {})
    if is_at_hand(FACE_LANDMARKER):
        return Pictures(
            _swinging_photo(), {"camera": "the driver is a photo that is shifted: nothing is decoded. Name a video"}
        )
    reason = f"{FACE_LANDMARKER.name} is not here: set MOBILE_BILAYER_MODELS, or animate a photo of your own once"
    return Landmarks(
        sample_track(), {"camera": "the driver is the shipped track: it has no pictures", "landmarks": reason}
    )


def _again_and_again(reader: VideoReader) -> Iterator[np.ndarray]:
    while True:
        count = 0
        for frame in reader:
            count += 1
            yield frame.rgb
        if not count:
            raise MobileBilayerError(f"{reader.path} has no frames. Record it again.")


def _swinging_photo() -> Iterator[np.ndarray]:
    rgb, _ = sample_photo("astronaut")
    left = np.rint((1 + np.sin(2 * np.pi * np.arange(SWING_FRAMES) / SWING_FRAMES)) * SWING_PX).astype(int)
    frames = [np.ascontiguousarray(rgb[:PHOTO_PX, x : x + PHOTO_PX]) for x in left.tolist()]
    return itertools.cycle(frames)


class Pipeline:
    """One avatar, one driver: frame by frame."""

    def __init__(self, avatar: Avatar, driver: Driver) -> None:
        self._avatar, self._driver = avatar, driver
        self._follow = Follower(avatar)
        self._program = avatar.bundle.program

    def frame(self, time_s: float) -> Costs:
        """The frame that the camera took at `time_s`."""
        begun = time.perf_counter()
        rgb = self._driver.take()
        taken = time.perf_counter()
        points = self._driver.landmarks(rgb, time_s)
        seen = time.perf_counter()
        motion = self._follow(points, time_s)
        if motion is None:
            raise MobileBilayerError(
                "No face was seen in the driver's first frame. Choose a video that begins with one."
            )
        layers = self._avatar.layers(self._avatar.move(motion))
        drawn = time.perf_counter()
        self._avatar.compose(*layers)
        ended = time.perf_counter()
        stages = {
            "camera": taken - begun,
            "landmarks": seen - taken,
            "network": drawn - seen,
            "composite": ended - drawn,
        }
        stages |= dict.fromkeys(self._driver.absent) | {"display": None, "frame": ended - begun}
        return Costs(stages, getattr(self._program, "execute_s", math.nan), ended)


class CameraClock:
    """Says which camera frame is to be taken next: the newest there is, or else the next one, when it comes."""

    def __init__(
        self, fps: float, now: Callable[[], float] = time.perf_counter, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._fps, self._now, self._sleep = fps, now, sleep
        self._begun_s = now()
        self._next = 0
        self.dropped = 0

    def wait(self) -> float:
        """The frame's time, seconds since the clock began. What was overtaken counts as dropped."""
        newest = math.floor((self._now() - self._begun_s) * self._fps + 1e-9)
        taken = max(self._next, newest)
        self.dropped += taken - self._next
        self._next = taken + 1
        time_s = taken / self._fps
        if (left := self._begun_s + time_s - self._now()) > 0:
            self._sleep(left)
        return time_s


def run_benchmark(
    bundle: Path | None = None,
    setting: Setting | None = None,
    driving: Path | None = None,
    fidelity: Path | None = None,
    on_progress: Progress | None = None,
) -> Result:
    """Measure a bundle (a folder or a zip; default: the shipped one) on this machine.

    driving   see `open_driver`
    fidelity  what `mobile-bilayer evaluate fidelity --json` wrote, with a row of this bundle

    KeyboardInterrupt ends it early and well, once frames were counted.
    """
    setting = setting or Setting()
    progress = on_progress or (lambda what, done, total: None)
    path = shipped_bundle() if bundle is None else Path(bundle)
    with ExitStack() as stack:
        threads = stack.enter_context(machine.runtime_threads(setting.threads))
        opened = Bundle.open(path)
        about = opened.manifest
        if about.backend == CORE_ML and opened.program.engine != "Core ML":
            raise MobileBilayerError(
                f"{path} is made for Core ML; the evaluator that stands for it here is no measure of it. Benchmark it on an "
                "iPhone or a Mac, or a bundle for xnnpack here."
            )
        if about.backend == CORE_ML and setting.with_profile:
            raise MobileBilayerError(
                f"{path} is made for Core ML, whose operators Xcode's performance report times. Leave --profile out."
            )
        _ = opened.program  # what does not run here says why, before a process of its own fails
        how_close = None if fidelity is None else read_fidelity(fidelity, opened)
        driver = open_driver(driving)
        stack.callback(driver.close)
        cold = []
        for i in range(COLD_STARTS):
            progress("Loading", i, COLD_STARTS)
            cold.append(cold_ms(path, threads))
        progress("Loading", COLD_STARTS, COLD_STARTS)
        load = Load(None, median(cold), median(load_ms(path) for _ in range(WARM_STARTS)))
        avatar = opened.avatar(*sample_photo("astronaut"))
        pipeline = Pipeline(avatar, driver)
        first = pipeline.frame(0.0)
        clock = CameraClock(setting.camera_fps)
        for i in range(1, setting.warmup):
            progress("Warming up", i + 1, setting.warmup)
            pipeline.frame(clock.wait())
        clock.dropped = 0
        meter = machine.EnergyMeter()
        costs, over_time, interrupted = _count(pipeline, clock, setting.seconds, progress)
        joules, memory_mib = meter.joules(), machine.peak_memory_mib()
        operators = profile(opened, render_inputs(avatar)) if setting.with_profile else None
    return _result(
        path=path,
        bundle=opened,
        setting=setting,
        threads=threads,
        driver=driver,
        load=load,
        first=first,
        costs=costs,
        over_time=over_time,
        interrupted=interrupted,
        dropped=clock.dropped,
        energy_mj=None if joules is None else 1000 * joules / len(costs),
        energy_reason=meter.reason,
        memory_mib=memory_mib,
        operators=operators,
        fidelity=how_close,
    )


def _count(
    pipeline: Pipeline, clock: CameraClock, seconds: float, progress: Progress
) -> tuple[list[Costs], list[Moment], bool]:
    """Frames until the time is over, or Ctrl-C. Temperatures are read between frames."""
    costs: list[Costs] = []
    states: list[tuple[str, float | None]] = [machine.thermal()]
    interrupted = False
    try:
        while not costs or costs[-1].ended_s - costs[0].ended_s < seconds:
            costs.append(pipeline.frame(clock.wait()))
            past = int(costs[-1].ended_s - costs[0].ended_s)
            if past >= len(states):
                states += [machine.thermal()] * (past + 1 - len(states))
                progress("Measuring", past, math.ceil(seconds))
    except KeyboardInterrupt:
        if len(costs) < 2:
            raise
        interrupted = True
    return costs, _over_time(costs, states), interrupted


def _over_time(costs: list[Costs], states: list[tuple[str, float | None]]) -> list[Moment]:
    """Whole seconds since the first frame's end, with what was read at each one's beginning."""
    ends = np.array([cost.ended_s for cost in costs]) - costs[0].ended_s
    counts = np.bincount(ends.astype(int))[: int(ends[-1])].tolist()
    return [Moment(second, count, *state) for second, (count, state) in enumerate(zip(counts, states, strict=False))]


def render_inputs(avatar: Avatar) -> list[np.ndarray]:
    """Of render_layers, for a driver that stands still."""
    points = network_points(avatar.source_landmarks)[None]
    return [avatar.landmark_features, avatar.map_features, points, points]


def _result(
    path: Path,
    bundle: Bundle,
    setting: Setting,
    threads: int,
    driver: Driver,
    load: Load,
    first: Costs,
    costs: list[Costs],
    over_time: list[Moment],
    interrupted: bool,
    dropped: int,
    energy_mj: float | None,
    energy_reason: str | None,
    memory_mib: float | None,
    operators: dict[str, float] | None,
    fidelity: Fidelity | None,
) -> Result:
    about = bundle.manifest
    render = next(method for method in inspect(path).methods if method.name == METHOD)
    delegated = None if render.delegated is None else sum(render.delegated.values())
    outside = sum(render.undelegated.values())
    if about.backend == CORE_ML:
        devices = bundle.program.operators_by_device(METHOD)
    else:
        devices = None if delegated is None else {"cpu": delegated + outside}
    explained = {without_overload(name): why for name, why in about.methods[METHOD].undelegated.items()}
    stages = {name: [cost.stages_s[name] for cost in costs] for name in STAGES}
    stages_ms = {
        name: None if None in times else Statistics.of([1000 * s for s in times]) for name, times in stages.items()
    }
    executed = [1000 * cost.execute_s for cost in costs]
    parts = np.array_split(np.array(stages["frame"]), min(setting.repeats, len(costs)))
    apart = costs[-1].ended_s - costs[0].ended_s
    why = {f"stages_ms.{name}": reason for name, reason in driver.absent.items()}
    why |= {
        "stages_ms.display": "nothing is shown on a screen here",
        "load.first_ever_ms": "only an app that was just installed knows it",
    }
    why["package_mib"] = "there is no app here"
    if energy_mj is None:
        why["energy_mj"] = why["energy_method"] = energy_reason or "the energy counters changed while they were read"
    if fidelity is None:
        why["fidelity"] = (
            "no report was named: --fidelity FILE, which `mobile-bilayer evaluate fidelity --json FILE` writes"
        )
    if operators is None:
        why["operators_ms"] = "not asked for: --profile"
    result = Result(
        format_version=FORMAT_VERSION,
        made_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        device=machine.device(),
        chip=machine.chip(),
        os=machine.operating_system(),
        build_type="wheel",
        runtime=runtime_version(),
        tool_versions=machine.tool_versions(),
        bundle=about.name,
        bundle_sha256=bundle_sha256(path),
        backend=about.backend,
        compute_unit="cpu" if about.backend != CORE_ML else "all",
        threads=threads,
        precision=about.precision,
        image_px=about.image_px,
        bundle_mib=bundle_mib(path),
        package_mib=None,
        warmup_count=setting.warmup,
        iterations=len(costs),
        duration_s=apart + costs[0].stages_s["frame"],
        interrupted=interrupted,
        load=load,
        first_frame_ms=1000 * first.stages_s["frame"],
        stages_ms=stages_ms,
        execute_ms=None if any(map(math.isnan, executed)) else Statistics.of(executed),
        fps=(len(costs) - 1) / apart if apart else 0.0,
        camera_fps=setting.camera_fps,
        dropped=dropped,
        over_time=tuple(over_time),
        peak_memory_mib=memory_mib,
        delegated_operators=delegated,
        undelegated_operators={
            name: explained.get(without_overload(name), "the manifest does not say") for name in render.undelegated
        },
        undelegated_count=outside,
        operators_by_device=devices,
        operators_ms=operators,
        energy_mj=energy_mj,
        energy_method=None if energy_mj is None else machine.EnergyMeter.method,
        fidelity=fidelity,
        repeats=len(parts),
        repeat_spread=spread([float(np.median(part)) for part in parts]),
        not_measured=why,
        warnings=(),
    )
    return replace(result.with_reasons(why), warnings=tuple(result.concerns()))


def read_fidelity(path: Path, bundle: Bundle) -> Fidelity:
    """The bundle's row of a report, and the teacher's if it is there. Raises MobileBilayerError if there is no such row."""
    remedy = (
        "`mobile-bilayer evaluate fidelity prepared-eval/ --student BUNDLE --teacher WEIGHTS --json FILE` writes one."
    )
    check_input(path, "report of fidelity")
    made_by = bundle_title(Path(bundle.where))
    try:
        report = json.loads(path.read_bytes())
        rows, pairs, people = report["methods"], int(report["pairs"]), int(report["people"])
        named = {name: row["made_by"] for name, row in rows.items()}
        means = {name: _means(row) for name, row in rows.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise MobileBilayerError(f"{path} is no report of fidelity ({error}). {remedy}") from error
    ours = [name for name, made in named.items() if made == made_by]
    if not ours:
        raise MobileBilayerError(
            f"{path} has no row of the bundle {made_by}, but of {', '.join(filter(None, named.values())) or 'none'}. {remedy}"
        )
    return Fidelity(ours[0], made_by, pairs, people, means[ours[0]], means.get("teacher"))


def _means(row: dict) -> dict[str, float]:
    return {
        name: float(value["mean"])
        for name, value in row.items()
        if isinstance(value, dict) and value["mean"] is not None
    }
