"""What a bundle says of itself.

manifest.schema.json says the same for readers in any language; a test holds the two together. The checks here are no
schema's, so that errors are sentences.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.head import face_template
from mobile_bilayer.pose.stabilizer import Smoothing, StabilizerConfig

CORE_ML = "coreml"  # the backend whose program is a folder
FORMAT_VERSION = 2  # 1 had `rigid_points` in place of the whole template, and no stabiliser
# method: names of its inputs, and of its outputs
METHODS = {
    "encode_avatar": (("image", "source_landmarks"), ("landmark_features", "map_features", "alpha")),
    "render_layers": (
        ("landmark_features", "map_features", "source_landmarks", "landmarks"),
        ("layers_a", "layers_b"),
    ),
}


@dataclass(frozen=True)
class TensorSpec:
    """An input or output: dtype is always float32. low and high say its range; None where there is none."""

    name: str
    shape: tuple[int, ...]
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class MethodSpec:
    """A method of the program."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    undelegated: dict[str, str] = field(default_factory=dict)  # operator outside the backend: why
    largest_error: dict[str, float] = field(default_factory=dict)  # of each output against the float student; features' in deviations


@dataclass(frozen=True)
class Manifest:
    """manifest.json.

    student          first 16 digits of the sha256 of the float weights: avatars fit every bundle of one student
    program          file name of the ExecuTorch program; of a Core ML one, the folder that holds a package for each method
    sha256           of every other file
    mesh             MediaPipe landmark indices, in the order the program takes them
    head_points      (x, y, z) in the face template's units, behind the mesh; moved by the head's fitted pose
    torso_points     (x, y) in crop coordinates, last; they stand still
    template_points  (x, y, z) of the face template's 478 landmarks
    rigid            landmark indices that the head's pose is fitted to
    stabilizer       how the driver's motion is smoothed, unless a user wants it otherwise
    crop_up          the crop's half side is the larger side of the landmarks' box, moved up by this share of it
    image_px         side of source, texture and result
    """

    format_version: int
    name: str
    student: str
    size: str
    precision: str
    backend: str
    minimum_runtime: str
    program: str
    sha256: dict[str, str]
    methods: dict[str, MethodSpec]
    mesh: tuple[int, ...]
    head_points: tuple[tuple[float, float, float], ...]
    torso_points: tuple[tuple[float, float], ...]
    template_points: tuple[tuple[float, float, float], ...]
    rigid: tuple[int, ...]
    stabilizer: StabilizerConfig
    crop_up: float
    image_px: int

    def to_json(self) -> str:
        """Indented, for people; long lists of numbers on one line."""
        text = json.dumps(asdict(self), indent=1)
        text = re.sub(r"\[\s+([-\d.e,\s]+?)\s+\]", lambda m: "[" + " ".join(m[1].split()) + "]", text)
        return re.sub(r"\],\n +\[", "], [", text) + "\n"  # and lists of points

    @classmethod
    def from_json(cls, text: bytes | str, where: str) -> Manifest:
        """Strict: every key there, none unknown, every value of its kind. `where` names the bundle in errors.

        A manifest of version 1 becomes one of this version.
        """
        try:
            values = json.loads(text, object_pairs_hook=_once)
        except (ValueError, RecursionError) as error:
            raise MobileBilayerError(f"{where}: manifest.json is not JSON ({error}). Export or copy the bundle again.") from error
        read = _Reader(f"{where}: manifest.json")
        values = read.of_kind(values, dict, "the manifest")
        version = read.of_kind(values.get("format_version"), int, "format_version")
        if version not in (1, FORMAT_VERSION):
            remedy = "Update mobile_bilayer." if version > FORMAT_VERSION else "Export the bundle again."
            raise MobileBilayerError(
                f"{where}: manifest.json has format version {version}; this reader knows 1 to {FORMAT_VERSION}. {remedy}"
            )
        if version == 1:
            values = _second_version(values, read)
        read.keys(values, cls, "the manifest")
        methods = read.of_kind(values["methods"], dict, "methods")
        if set(methods) != set(METHODS):
            raise read.error(f"methods are {sorted(methods)}; they must be {sorted(METHODS)}")
        numbers = {"head_points": 3, "template_points": 3, "torso_points": 2}
        out = {
            **{key: read.of_kind(values[key], str, key) for key in ("name", "student", "size", "precision", "backend", "minimum_runtime", "program")},
            **{key: read.points(values[key], size, key) for key, size in numbers.items()},
            **{key: read.landmarks(values[key], key) for key in ("mesh", "rigid")},
            "format_version": FORMAT_VERSION,
            "stabilizer": read.stabilizer(values["stabilizer"]),
            "crop_up": read.number(values["crop_up"], "crop_up"),
            "image_px": read.of_kind(values["image_px"], int, "image_px"),
            "sha256": {read.file(k, values): read.hash(v, k) for k, v in read.of_kind(values["sha256"], dict, "sha256").items()},
            "methods": {name: read.method(spec, name) for name, spec in methods.items()},
        }
        manifest = cls(**out)
        if manifest.image_px != 256:
            raise read.error(f"image_px is {manifest.image_px}; this reader runs 256")
        packages = [f"{manifest.program}/{name}.mlpackage/Manifest.json" for name in METHODS]
        for file in packages if manifest.backend == CORE_ML else [manifest.program]:
            if file not in manifest.sha256:
                raise read.error(f"sha256 does not list the program {file}")
        return manifest


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys differ, as readers disagree on which of two they take; of text that can be written."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise ValueError("a key is there twice")
    if any("\ud800" <= c <= "\udfff" for pair in pairs for text in pair if isinstance(text, str) for c in text):
        raise ValueError("half of a surrogate pair is no character")
    return values


def template_points() -> tuple:
    """Those of this version's face template, as a manifest has them."""
    return tuple(tuple(row) for row in face_template().points.astype(float).round(6).tolist())


def _second_version(values: dict, read: _Reader) -> dict:
    """A first manifest's values: it had the template's rigid points alone, which must be those that we know."""
    values = dict(values)
    for key in ("rigid", "rigid_points"):
        if key not in values:
            raise read.error(f"the manifest lacks {key}")
    rigid = read.landmarks(values["rigid"], "rigid")
    points = read.points(values.pop("rigid_points"), 3, "rigid_points")
    if len(rigid) != len(points):
        raise read.error(f"rigid has {len(rigid)} landmarks and rigid_points {len(points)}")
    known = template_points()
    if any(abs(a - b) > 1e-5 for i, point in zip(rigid, points, strict=True) for a, b in zip(known[i], point, strict=True)):
        raise read.error("rigid_points are not those of the face template that this version has")
    new = {"template_points": [list(row) for row in known], "stabilizer": json.loads(json.dumps(asdict(StabilizerConfig())))}
    if twice := set(new) & set(values):
        raise read.error(f"the manifest has unknown {', '.join(sorted(twice))}")
    return values | new


class _Reader:
    """Checks of one file's values."""

    def __init__(self, where: str) -> None:
        self.where = where

    def error(self, what: str) -> MobileBilayerError:
        return MobileBilayerError(f"{self.where}: {what}. Export or copy the bundle again.")

    def of_kind(self, value: Any, kind: type, name: str) -> Any:
        if not isinstance(value, kind) or isinstance(value, bool):
            raise self.error(f"{name} is {str(value)[:40]!r}; it must be of type {kind.__name__}")
        return value

    def keys(self, values: dict, cls: type, name: str) -> None:
        wanted = {f.name for f in fields(cls)}
        for kind, names in (("lacks", wanted - set(values)), ("has unknown", set(values) - wanted)):
            if names:
                raise self.error(f"{name} {kind} {', '.join(sorted(names)[:5])}")

    def number(self, value: Any, name: str) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e6:
            raise self.error(f"{name} is {str(value)[:40]}; it must be a number")
        return float(value)

    def points(self, value: Any, size: int, name: str) -> tuple:
        rows = [self.of_kind(row, list, name) for row in self.of_kind(value, list, name)]
        if not rows or any(len(row) != size for row in rows):
            raise self.error(f"{name} must be points of {size} numbers")
        return tuple(tuple(self.number(v, name) for v in row) for row in rows)

    def stabilizer(self, value: Any) -> StabilizerConfig:
        self.keys(self.of_kind(value, dict, "stabilizer"), StabilizerConfig, "stabilizer")
        parts = {name: self.smoothing(part, f"stabilizer.{name}") for name, part in value.items() if name != "gap_s"}
        try:
            return StabilizerConfig(**parts, gap_s=self.number(value["gap_s"], "stabilizer.gap_s"))
        except MobileBilayerError as error:
            raise self.error(f"stabilizer: {error}") from error

    def smoothing(self, value: Any, name: str) -> Smoothing:
        self.keys(self.of_kind(value, dict, name), Smoothing, name)
        numbers = {key: self.number(value[key], f"{name}.{key}") for key in ("rest_hz", "speed_hz", "newest")}
        kernel = tuple(self.number(v, f"{name}.kernel") for v in self.of_kind(value["kernel"], list, f"{name}.kernel"))
        try:
            return Smoothing(**numbers, kernel=kernel)
        except MobileBilayerError as error:
            raise self.error(f"{name}: {error}") from error

    def landmarks(self, value: Any, name: str) -> tuple[int, ...]:
        indices = tuple(self.of_kind(v, int, name) for v in self.of_kind(value, list, name))
        if not indices or len(set(indices)) != len(indices) or not all(0 <= i < 478 for i in indices):
            raise self.error(f"{name} must be different landmark indices in 0..477")
        return indices

    def file(self, name: str, manifest: dict) -> str:
        """A plain file name; of a Core ML program, one that lies in the program's folder."""
        parts = [name]
        if manifest["backend"] == CORE_ML and name.startswith(f"{manifest['program']}/") and name.count("/") < 8:
            parts = name.split("/")
        if not all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", part) for part in parts):
            raise self.error(f"{name[:60]!r} is no plain file name")
        return name

    def hash(self, value: Any, name: str) -> str:
        if not re.fullmatch("[0-9a-f]{64}", self.of_kind(value, str, f"sha256 of {name}")):
            raise self.error(f"sha256 of {name} must be 64 hex digits")
        return value

    def method(self, value: Any, name: str) -> MethodSpec:
        self.keys(self.of_kind(value, dict, name), MethodSpec, name)
        texts = self.of_kind(value["undelegated"], dict, f"{name}.undelegated")
        errors = self.of_kind(value["largest_error"], dict, f"{name}.largest_error")
        tensors = [
            tuple(self.tensor(v, name) for v in self.of_kind(value[kind], list, f"{name}.{kind}"))
            for kind in ("inputs", "outputs")
        ]
        for kind, got, wanted in zip(("takes", "gives"), tensors, METHODS[name], strict=True):
            if tuple(t.name for t in got) != wanted:
                names = ", ".join(t.name[:40] for t in got[:5])
                raise self.error(f"{name} {kind} {names or 'nothing'}; it must be {', '.join(wanted)}")
        return MethodSpec(
            *tensors,
            {k: self.of_kind(v, str, f"{name}.undelegated") for k, v in texts.items()},
            {k: self.number(v, f"{name}.largest_error") for k, v in errors.items()},
        )

    def tensor(self, value: Any, method: str) -> TensorSpec:
        self.keys(self.of_kind(value, dict, f"{method}'s tensors"), TensorSpec, f"a tensor of {method}")
        name = self.of_kind(value["name"], str, f"a tensor's name in {method}")
        shape = tuple(self.of_kind(n, int, f"{name}.shape") for n in self.of_kind(value["shape"], list, f"{name}.shape"))
        if not shape or len(shape) > 4 or not all(0 < n <= 4096 for n in shape):
            raise self.error(f"{name} of {method} has shape {list(shape)[:6]}")
        low, high = (None if value[k] is None else self.number(value[k], f"{name}.{k}") for k in ("low", "high"))
        return TensorSpec(name, shape, low, high)
