"""Landmarks tremble and people move: a One-Euro filter that tells them apart, part by part of a head taken apart.

Casiez et al. 2012: a low pass whose cut-off rises with speed. As in their Algorithm 1, speed is how far the new value lies
from what was given out last; here without their second low pass, which would be late by frames, and for all points of a
part at once: the mean of many is a calmer speed, and a part keeps its shape. Units are those of the face's template, so
one setting suits every size of picture, and times are the frames' own, so it suits every rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from operator import sub

import numpy as np

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.head import HeadPose, Motion, face_template, nearest_rows, rotation_of, take_apart
from mobile_bilayer.pose.retarget import BROWS, IRISES, LOWER_LIDS, UPPER_LIDS

# What they leave of motion that comes and goes in 8, 4 and 2 frames. They are for frames that are KERNEL_S or less apart;
# from there to NO_KERNEL_S they fade, for what goes on between frames so far apart is motion.
WIDE = (1 / 64, 6 / 64, 15 / 64, 20 / 64, 15 / 64, 6 / 64, 1 / 64)  # 0.62, 0.13, 0
NARROW = (0.0, 1 / 32, 8 / 32, 14 / 32, 8 / 32, 1 / 32, 0.0)  # 0.79, 0.38, 0
SHARP = (0.0, -0.05, 0.25, 0.6, 0.25, -0.05, 0.0)  # 0.95, 0.7, 0
ALONE = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)  # all of it
REACH = 3  # frames to each side
KERNEL_S, NO_KERNEL_S = 1 / 24, 1 / 10

BLOCK, BEHIND = 256, 64  # frames at once, and how many more the way back begins from


@dataclass(frozen=True)
class Smoothing:
    """How one part is smoothed.

    rest_hz   cut-off when nothing moves: lower is calmer
    speed_hz  by how much the cut-off rises for each template unit (distance of the outer eye corners) a second
    newest    weight of the newest frame as it was read; the one before it has the rest
    kernel    of a file: weights of three frames before, this one and three behind
    """

    rest_hz: float
    speed_hz: float
    newest: float = 1.0
    kernel: tuple[float, ...] = ALONE

    def __post_init__(self) -> None:
        if not (0 < self.rest_hz < math.inf and 0 <= self.speed_hz < math.inf and 0 < self.newest <= 1):
            raise MobileBilayerError(
                f"A smoothing has rest_hz {self.rest_hz}, speed_hz {self.speed_hz} and newest {self.newest}; the first must be "
                "above 0, the second not below, the third in 0..1. Try 2, 40 and 0.7."
            )
        if len(self.kernel) != 2 * REACH + 1 or not math.isclose(sum(self.kernel), 1, abs_tol=1e-6):
            raise MobileBilayerError(
                f"A kernel has {len(self.kernel)} weights and adds up to {sum(self.kernel):g}; {2 * REACH + 1} weights that "
                "add up to 1 are needed. Try 0, 0, 0.25, 0.5, 0.25, 0, 0."
            )


@dataclass(frozen=True)
class StabilizerConfig:
    """Smoothing of each part, live unless said otherwise; a pause longer than `gap_s` starts anew."""

    pose: Smoothing = Smoothing(2.0, 12.0, 0.5)
    skin: Smoothing = Smoothing(1.0, 25.0, 0.5)
    brows: Smoothing = Smoothing(1.0, 60.0, 0.5)
    mouth: Smoothing = Smoothing(6.0, 16.0, 0.5)
    lids: Smoothing = Smoothing(2.0, 80.0, 0.7)
    gaze: Smoothing = Smoothing(1.0, 60.0, 0.55)
    gap_s: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.gap_s < math.inf:
            raise MobileBilayerError(f"A stabiliser's gap_s is {self.gap_s}; it must be above 0. Try 0.5.")


# For files: kernels have taken what trembles, so that faster motion may pass.
FILE = StabilizerConfig(
    pose=Smoothing(2.0, 20.0, kernel=WIDE),
    skin=Smoothing(1.0, 40.0, kernel=WIDE),
    brows=Smoothing(1.0, 60.0, kernel=NARROW),
    mouth=Smoothing(3.0, 120.0, kernel=NARROW),
    lids=Smoothing(2.0, 80.0, kernel=SHARP),
    gaze=Smoothing(1.0, 60.0, kernel=SHARP),
)

# Each part, and the field of the config that smooths it.
PARTS = ("skin", "brows", "mouth", "lids", "lids", "gaze", "gaze")


def parts() -> np.ndarray:
    """(478,) which of `PARTS` each landmark belongs to: the person's right eye before the left one."""
    height = face_template().points[:, 1]
    out = np.zeros(len(height), np.int64)
    out[height > 0.17] = 2  # from the upper lip down, chin and jaw included
    out[BROWS.ravel()] = 1
    for side in (0, 1):
        out[UPPER_LIDS[side]] = out[LOWER_LIDS[side]] = 3 + side
        out[IRISES[side]] = 5 + side
    return out


@cache
def _parts() -> tuple[np.ndarray, np.ndarray]:
    """(478, 3) each number's part, and (parts, 1434) which takes the mean square of each part's distances."""
    whose = np.repeat(parts()[:, None], 3, 1)
    member = (whose.ravel() == np.arange(len(PARTS))[:, None]).astype(np.float64)
    return whose, 3 * member / member.sum(1, keepdims=True)


def share(speed, step_s: float, rest_hz, speed_hz):
    """How much of the way to the new value is gone at this speed, in a step of so many seconds: above 0, below 1.

    speed, rest_hz and speed_hz: numbers, or arrays of one a part
    """
    turns = (2 * math.pi * step_s) * (rest_hz + speed_hz * speed)
    return turns / (1 + turns)


class Stabilizer:
    """Frame by frame: `stabilizer(motion, time_s)`.

    The newest frame is first joined with the one before it, which takes what trembles from frame to frame and is late by
    half of one; a filter that looks at its own output would be as late, and leave half of the trembling.

    It starts anew by `reset()`, as after a lost face, and by itself after a pause or when time goes backwards.
    """

    def __init__(self, config: StabilizerConfig | None = None) -> None:
        self.config = config or StabilizerConfig()
        smoothings = [getattr(self.config, name) for name in PARTS]
        self._rest_hz, self._speed_hz = np.array([(s.rest_hz, s.speed_hz) for s in smoothings]).T
        self._newest = np.array([s.newest for s in smoothings]).take(_parts()[0])
        self.reset()

    def reset(self) -> None:
        """The next frame is given out as it is."""
        self._last: Motion | None = None
        self._read: Motion | None = None
        self._read_numbers: list[float] = []  # of its pose
        self._time_s = 0.0

    def __call__(self, motion: Motion, time_s: float) -> Motion:
        """The motion, calmer. Times are seconds, and grow."""
        step_s = time_s - self._time_s
        self._time_s = time_s
        if self._last is None or not 0 < step_s <= self.config.gap_s:
            self._last = motion
            self._read_numbers = _numbers(motion.pose)
        else:
            self._last = Motion(self._pose(motion.pose, step_s), self._face(motion.face, step_s))
        self._read = motion
        return self._last

    def _pose(self, pose: HeadPose, step_s: float) -> HeadPose:
        smoothing, newest = self.config.pose, self.config.pose.newest
        was, read, before = _numbers(self._last.pose), _numbers(pose), self._read_numbers
        self._read_numbers = read
        now = [b + newest * (a - b) for a, b in zip(read, before, strict=True)]
        a, b, c, d, e, f, x, y = steps = list(map(sub, now, was))
        # Points of a head lie half a unit from its middle, on average.
        far = math.sqrt((a * a + b * b + c * c + d * d + e * e + f * f) / 4 + x * x + y * y) / self._last.pose.scale
        part = share(far / step_s, step_s, smoothing.rest_hz, smoothing.speed_hz)
        return _pose_of([a + part * v for a, v in zip(was, steps, strict=True)])

    def _face(self, face: np.ndarray, step_s: float) -> np.ndarray:
        whose, mean = _parts()
        change = face - self._read.face
        change *= self._newest
        change += self._read.face
        change -= self._last.face
        speeds = np.sqrt(mean.dot((change * change).ravel()))
        speeds /= step_s
        change *= share(speeds, step_s, self._rest_hz, self._speed_hz).take(whose)
        change += self._last.face
        return change


def stabilize(
    landmarks: np.ndarray, times_s: np.ndarray, found: np.ndarray, config: StabilizerConfig | None = None
) -> Iterator[Motion]:
    """A whole clip, with the frames behind at hand: nothing comes late, and fast motion keeps most of its height.

    landmarks  (N, 478, 2 or 3), as in a `Track`; times_s (N,) and found (N,) too
    returns    N motions, one by one: memory stays flat

    Where no face was found, landmarks are only taken apart; what comes behind starts anew. Each frame is first joined with
    its neighbours by the `kernel` of each part; then the One-Euro filter goes once forwards and, from there, backwards.
    """
    config = config or FILE
    for first, last in _runs(times_s, found, config.gap_s):
        if found[first]:
            yield from _calm(landmarks[first:last], times_s[first:last].tolist(), config)
        else:
            yield from (take_apart(points) for points in landmarks[first:last])


def _runs(times_s: np.ndarray, found: np.ndarray, gap_s: float) -> list[tuple[int, int]]:
    """First and last + 1 of frames that go together: all with a face and no gap between, or all without a face."""
    starts = (np.diff(found) | (np.diff(times_s) > gap_s)).nonzero()[0] + 1
    edges = [0, *starts.tolist(), len(times_s)]
    return list(zip(edges[:-1], edges[1:], strict=True))


def _calm(landmarks: np.ndarray, times_s: list[float], config: StabilizerConfig) -> Iterator[Motion]:
    forwards, backwards = Stabilizer(config), Stabilizer(config)
    kernels = _kernels(config)
    ready: list[Motion] = []
    for start in range(0, len(times_s), BLOCK):
        stop = min(start + BLOCK, len(times_s))
        behind = range(start + len(ready), min(stop + BEHIND, len(times_s)))
        blended = _blend(landmarks, times_s, behind, *kernels)
        ready += [forwards(motion, times_s[i]) for motion, i in zip(blended, behind, strict=True)]
        backwards.reset()
        ends = reversed(list(enumerate(ready, start)))
        block = [backwards(motion, -times_s[i]) for i, motion in ends][::-1]
        yield from block[: stop - start]
        del ready[: stop - start]


def _blend(
    landmarks: np.ndarray, times_s: list[float], frames: range, pose: Sequence[float], face: np.ndarray
) -> Iterator[Motion]:
    """Frames joined with their neighbours; the first and the last frame of all stand for those that are missing."""
    known: dict[int, Motion] = {}
    last = len(landmarks) - 1
    for i in frames:
        near = [min(max(j, 0), len(landmarks) - 1) for j in range(i - REACH, i + REACH + 1)]
        known = {j: known.get(j) or take_apart(landmarks[j]) for j in near}
        motions = [known[j] for j in near]
        numbers = zip(*(_numbers(m.pose) for m in motions), strict=True)
        joined = [sum(w * v for w, v in zip(pose, values, strict=True)) for values in numbers]
        joined_face = sum(w * m.face for w, m in zip(face, motions, strict=True))
        step_s = (times_s[min(i + 1, last)] - times_s[max(i - 1, 0)]) / max(min(i + 1, last) - max(i - 1, 0), 1)
        part = min(max((NO_KERNEL_S - step_s) / (NO_KERNEL_S - KERNEL_S), 0.0), 1.0)
        if part < 1:
            alone = motions[REACH]
            joined = [a + part * (b - a) for a, b in zip(_numbers(alone.pose), joined, strict=True)]
            joined_face = alone.face + part * (joined_face - alone.face)
        yield Motion(_pose_of(joined), joined_face)


def _kernels(config: StabilizerConfig) -> tuple[Sequence[float], np.ndarray]:
    """(7,) weights of the pose, and (7, 478, 3) of each landmark."""
    return config.pose.kernel, np.array([getattr(config, name).kernel for name in PARTS]).T[:, _parts()[0]]


def _numbers(pose: HeadPose) -> list[float]:
    """The two rows that take a face to its picture, and the shift: eight numbers that may be added and weighted."""
    (a, b, c), (d, e, f), _ = pose.rotation.tolist()
    scale = pose.scale
    return [scale * a, scale * b, scale * c, scale * d, scale * e, scale * f, *pose.shift.tolist()]


def _pose_of(numbers: list[float]) -> HeadPose:
    """The pose nearest to such numbers."""
    rows, scale = nearest_rows(numbers[:3], numbers[3:6])
    return HeadPose(scale, rotation_of(rows), np.array(numbers[6:]))
