"""A driving clip as landmarks: what is left of it once its pictures are forgotten."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from mobile_bilayer.capture.images import check_input, check_output, written_aside
from mobile_bilayer.errors import MobileBilayerError

TRACK_SUFFIXES = (".track", ".safetensors")
FORMAT, VERSION = "mobile_bilayer track", 1
LIMIT_PX = 100_000  # landmarks farther out than this are no landmarks

_FINEST_STEP_PX = Fraction(1, 256)
# Of few digits, and not any text that Fraction takes: 1e999999999 would hang it.
_WHOLE = "[1-9][0-9]{0,8}"
_RATIO = f"{_WHOLE}/{_WHOLE}"
_TENSORS = {"landmarks": "I16", "offsets": "I32", "times_s": "F64", "found": "BOOL"}


@dataclass(frozen=True, eq=False)
class TrackFrame:
    """One driving frame.

    landmarks  (478, 3) float32 in pixels of the driving picture
    time_s     seconds from the clip's start
    found      whether a face was seen; if not, the landmarks are those of another frame
    """

    landmarks: np.ndarray
    time_s: float
    found: bool


@dataclass(frozen=True, eq=False)
class Track:
    """Landmarks of a clip, one frame for each of its pictures.

    landmarks      (N, 478, 3) float32 in pixels of the driving picture
    times_s        (N,) float64 seconds from the clip's start, strictly growing
    found          (N,) bool, whether a face was seen; if not, the landmarks are those of another frame
    rate           frames per second, on average
    width, height  pixels of the driving picture
    origin         where it comes from and under which licence, for people to read

    `len()`, `track[i]` and `for frame in track` work; the last two give `TrackFrame`s.
    """

    landmarks: np.ndarray
    times_s: np.ndarray
    found: np.ndarray
    rate: Fraction
    width: int
    height: int
    origin: str = ""

    def __post_init__(self) -> None:
        count = len(self.landmarks) if np.ndim(self.landmarks) else 0
        if not count:
            raise MobileBilayerError("A track has no frames; it needs at least one. Choose a longer clip.")
        _check_array("landmarks", self.landmarks, (count, 478, 3), np.float32)
        _check_array("times_s", self.times_s, (count,), np.float64)
        _check_array("found", self.found, (count,), np.bool_)
        if not np.abs(self.landmarks).max() <= LIMIT_PX:  # so that NaN is refused as well
            raise MobileBilayerError(
                f"A track's landmarks must be finite pixels within {LIMIT_PX}; the largest is "
                f"{np.abs(self.landmarks).max()}. Track the clip again."
            )
        if not (np.isfinite(self.times_s).all() and (np.diff(self.times_s) > 0).all()):
            raise MobileBilayerError(
                "A track's times must be finite and grow from frame to frame. Track the clip again."
            )
        if not (isinstance(self.rate, Fraction) and 1 <= self.rate <= 1000):
            raise MobileBilayerError(
                f"A track's rate is {self.rate!r}; it must be a Fraction in 1..1000. Try Fraction(30)."
            )
        if not all(isinstance(side, int) and 0 < side <= 16384 for side in (self.width, self.height)):
            raise MobileBilayerError(
                f"A track's picture is {self.width}x{self.height}; both must be whole pixels in 1..16384. "
                "Take them from the clip's first frame."
            )

    def __len__(self) -> int:
        return len(self.landmarks)

    def __getitem__(self, index: int) -> TrackFrame:
        return TrackFrame(self.landmarks[index], float(self.times_s[index]), bool(self.found[index]))

    def __iter__(self) -> Iterator[TrackFrame]:
        return (self[i] for i in range(len(self)))

    def save(self, path: Path) -> None:
        """Write a .track file (safetensors), 2.9 kB a frame; a file already there is replaced at the end.

        Landmarks become 16-bit steps from an offset for each frame and axis. A step is a power of two, as fine as the
        largest face allows: 1/64 px up to a face of 1023 px. So the error stays below 0.008 px there, and below
        1/65,000 of the face's size for larger ones. What is loaded saves again without further error.
        """
        path = check_output(path, TRACK_SUFFIXES)
        step = _FINEST_STEP_PX
        while True:
            steps = np.rint(self.landmarks.astype(np.float64) / float(step)).astype(np.int64)
            low, high = steps.min(1), steps.max(1)
            if (high - low).max() < 2**16:
                break
            step *= 2
        offsets = low + 2**15
        tensors = {
            "landmarks": (steps - offsets[:, None]).astype(np.int16),
            "offsets": offsets.astype(np.int32),
            "times_s": np.ascontiguousarray(self.times_s),
            "found": np.ascontiguousarray(self.found),
        }
        metadata = {
            "format": FORMAT,
            "version": str(VERSION),
            "step_px": _ratio(step),
            "rate": _ratio(self.rate.limit_denominator(1001)),  # as VideoReader gives it
            "width": str(self.width),
            "height": str(self.height),
            "origin": self.origin,
        }
        try:
            with written_aside(path) as aside:
                aside.write_bytes(save(tensors, metadata))
        except OSError as error:
            raise MobileBilayerError(
                f"{path} could not be written: {error}. Free some space, or write elsewhere."
            ) from error

    @classmethod
    def load(cls, path: Path) -> Track:
        """The way back of `save`."""
        path = check_input(path, "track")
        try:
            with safe_open(path, "np") as file:
                metadata = file.metadata() or {}
                _check_version(metadata, path)
                tensors = {name: _tensor(file, name, kind, path) for name, kind in _TENSORS.items()}
        except (SafetensorError, OSError) as error:
            raise MobileBilayerError(
                f"{path} is not a track, or it is damaged ({error}). Copy it again, or track the clip again."
            ) from error
        steps = tensors["landmarks"].astype(np.int64)
        offsets = tensors["offsets"].astype(np.int64)
        if steps.ndim != 3 or offsets.shape != (len(steps), steps.shape[2]):
            raise _damaged(path, f"its landmarks have shape {steps.shape} and their offsets {offsets.shape}")
        step, rate = (Fraction(_text(metadata, name, _RATIO, path)) for name in ("step_px", "rate"))
        width, height = (int(_text(metadata, name, _WHOLE, path)) for name in ("width", "height"))
        landmarks = ((steps + offsets[:, None]) * float(step)).astype(np.float32)
        origin = metadata.get("origin", "")
        try:
            return cls(landmarks, tensors["times_s"], tensors["found"], rate, width, height, origin)
        except MobileBilayerError as error:
            raise MobileBilayerError(f"{path}: {error}") from error


def _check_array(name: str, array: np.ndarray, shape: tuple[int, ...], kind: type) -> None:
    if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype != kind:
        got = getattr(array, "dtype", type(array).__name__)
        raise MobileBilayerError(
            f"A track's {name} have shape {np.shape(array)} and type {got}; "
            f"they must be {shape} {np.dtype(kind)}. Convert them with numpy first."
        )


def _check_version(metadata: dict[str, str], path: Path) -> None:
    version = metadata.get("version", "")
    if metadata.get("format") != FORMAT or not re.fullmatch(_WHOLE, version):
        raise MobileBilayerError(f"{path} is a safetensors file, but not a track. Choose a .track file.")
    if int(version) > VERSION:
        raise MobileBilayerError(
            f"{path} is a track of version {version}; we read up to {VERSION}. "
            "Run `pip install --upgrade mobile-bilayer`, or track the clip again."
        )


def _tensor(file, name: str, kind: str, path: Path) -> np.ndarray:
    if name not in file.keys():  # noqa: SIM118 (not a dict)
        raise _damaged(path, f"it has no {name}")
    got = file.get_slice(name).get_dtype()
    if got != kind:  # asked first, for numpy has no word for some
        raise _damaged(path, f"its {name} are of type {got}, not {kind}")
    return file.get_tensor(name)


def _text(metadata: dict[str, str], name: str, pattern: str, path: Path) -> str:
    text = metadata.get(name, "")
    if not re.fullmatch(pattern, text):
        raise _damaged(path, f"its {name} is {text!r}")
    return text


def _ratio(value: Fraction) -> str:
    return f"{value.numerator}/{value.denominator}"


def _damaged(path: Path, why: str) -> MobileBilayerError:
    return MobileBilayerError(f"{path} is damaged: {why}. Copy it again, or track the clip again.")
