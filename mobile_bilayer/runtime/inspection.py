"""What a bundle, a program, a Core ML package or an avatar holds, told without running it."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from zipfile import is_zipfile

from safetensors import SafetensorError, safe_open

from mobile_bilayer.capture.images import check_input
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.runtime.avatar import FORMAT as AVATAR_FORMAT
from mobile_bilayer.runtime.avatar import TENSORS as AVATAR_TENSORS
from mobile_bilayer.runtime.avatar import VERSION as AVATAR_VERSION
from mobile_bilayer.runtime.bundle import LARGEST_FILE, REQUIRED, bundle_reader, bundle_sha256, check_points
from mobile_bilayer.runtime.executorch_file import (
    DELEGATES,
    FileMethod,
    FileTensor,
    read_program,
    runtime_version,
    without_overload,
)
from mobile_bilayer.runtime.manifest import CORE_ML, Manifest, MethodSpec

CARD_LINES = 8  # of a model card's beginning


@dataclass(frozen=True)
class Value:
    """An input, an output or a stored tensor. low and high are its range; None where nothing is said."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Method:
    """What a program computes.

    delegated    operators inside the backend, and how many of each; None where their format is not known here
    undelegated  operators outside of it
    share        of the operators, those inside; None where it is not known
    """

    name: str
    inputs: list[Value]
    outputs: list[Value]
    delegated: dict[str, int] | None
    undelegated: dict[str, int]
    share: float | None


@dataclass(frozen=True)
class File:
    """A file of a bundle. ok: its hash is the manifest's; None where there is none to compare with."""

    name: str
    bytes: int
    sha256: str
    ok: bool | None = None


@dataclass
class Inspection:
    """What was found.

    facts     words and numbers, by what they are
    problems  sentences: what is not as it should be
    """

    path: str
    kind: str
    facts: dict[str, str | int] = field(default_factory=dict)
    methods: list[Method] = field(default_factory=list)
    tensors: list[Value] = field(default_factory=list)
    files: list[File] = field(default_factory=list)
    card: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def inspect(path: Path | str) -> Inspection:
    """Tell what is in a bundle (a folder or a zip), NAME.pte, NAME.mlpackage or NAME.avatar.

    Raises MobileBilayerError for what is none of these, or can't be read. What can be read but is wrong, as a hash, is
    among the problems.
    """
    path = Path(path)
    if path.suffix == ".mlpackage":
        return _package(path)
    if path.suffix == ".pte":
        return _program(path)
    if path.suffix == ".avatar":
        return _avatar(path)
    if path.is_file() and path.suffix != ".zip" and not is_zipfile(path):
        raise MobileBilayerError(
            f"{path} is none of what can be inspected: a bundle (a folder or a zip), NAME.pte, NAME.mlpackage or NAME.avatar. "
            "Of weights `mobile-bilayer export` makes a bundle."
        )
    return _bundle(path)


def _bundle(path: Path) -> Inspection:
    read = bundle_reader(path)
    text = read("manifest.json")
    manifest = Manifest.from_json(text, str(path))
    found = Inspection(str(path), "bundle", _facts(manifest, json.loads(text)["format_version"]))
    found.facts["sha256"] = bundle_sha256(path)
    contents = {}
    for name, wanted in manifest.sha256.items():
        try:
            data = read(name)
        except MobileBilayerError as error:
            found.files.append(File(name, 0, "", False))
            found.problems.append(str(error).removeprefix(f"{path}: "))
            continue
        file = File(name, len(data), hashlib.sha256(data).hexdigest())
        found.files.append(File(name, file.bytes, file.sha256, file.sha256 == wanted))
        if file.sha256 == wanted:
            contents[name] = data
        else:
            found.problems.append(f"{name} has not the sha256 that the manifest says: it was changed or damaged.")
    try:
        check_points(manifest, path)
    except MobileBilayerError as error:
        found.problems.append(str(error).removeprefix(f"{path}: "))
    found.facts["bytes"] = len(text) + sum(file.bytes for file in found.files)
    found.card = contents.get("MODEL_CARD.md", b"").decode("utf-8", "replace").splitlines()[:CARD_LINES]
    try:
        inside = _methods_of(manifest, contents, found.problems)
    except MobileBilayerError as error:
        found.problems.append(str(error))
        inside = {}
    if inside:
        lacking = sorted(set(manifest.methods) - set(inside))
        found.problems += [f"The program lacks {name}. Export the bundle again." for name in lacking]
    found.problems += [f"The manifest does not name {name}. Export the bundle again." for name in REQUIRED if name not in manifest.sha256]
    found.methods = [_joined(name, spec, inside.get(name), found.problems) for name, spec in manifest.methods.items()]
    return found


def _facts(manifest: Manifest, version: int) -> dict[str, str | int]:
    names = ("name", "student", "size", "precision", "backend", "minimum_runtime", "program", "image_px")
    return {"format_version": version, **{name: getattr(manifest, name) for name in names}}


def _methods_of(manifest: Manifest, contents: dict[str, bytes], problems: list[str]) -> dict[str, Method]:
    """The program's own methods, if its files are what the manifest says."""
    if manifest.backend != CORE_ML:
        data = contents.get(manifest.program)
        if data is None:
            return {}
        methods = read_program(data, manifest.program).methods
        if manifest.backend not in DELEGATES:
            problems.append(f"The manifest's backend is {manifest.backend[:40]!r}; this mobile_bilayer knows {', '.join([CORE_ML, *DELEGATES])}.")
        for method in methods:
            wanted, used = DELEGATES.get(manifest.backend), sorted(set(method.backends))
            if wanted and used != [wanted]:
                problems.append(f"The program's {method.name} is made for {', '.join(used) or 'no backend'}; for {manifest.backend} it must be {wanted}.")
        return {method.name: _method(method) for method in methods}
    with tempfile.TemporaryDirectory(prefix="mobile_bilayer.") as folder:
        for name, data in contents.items():
            file = Path(folder, name)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
        packages = {name: Path(folder, manifest.program, f"{name}.mlpackage") for name in manifest.methods}
        return {name: _core_ml(package).methods[0] for name, package in packages.items() if package.is_dir()}


def _joined(name: str, spec: MethodSpec, inside: Method | None, problems: list[str]) -> Method:
    """What the manifest says of a method, and the operators that its program has."""
    values = [[Value(t.name, t.shape, "float32", t.low, t.high) for t in side] for side in (spec.inputs, spec.outputs)]
    if inside is None:
        return Method(name, *values, None, {}, None)
    for kind, ours, theirs in zip(("takes", "gives"), values, (inside.inputs, inside.outputs), strict=True):
        if [v.shape for v in ours] != [v.shape for v in theirs]:
            problems.append(
                f"The program's {name} {kind} {[v.shape for v in theirs]}, the manifest says {[v.shape for v in ours]}."
            )
    for kind, values_inside in (("takes", inside.inputs), ("gives", inside.outputs)):
        if others := sorted({v.dtype for v in values_inside} - {"float32", "picture"}):
            problems.append(f"The program's {name} {kind} {', '.join(others)}; it must be float32. Export the bundle again.")
    named = {without_overload(name) for name in spec.undelegated}
    if unnamed := sorted(name for name in inside.undelegated if without_overload(name) not in named):
        problems.append(
            f"{name} has operators outside of the backend that the manifest does not name: {', '.join(unnamed)}."
        )
    return Method(name, *values, inside.delegated, inside.undelegated, inside.share)


def _program(path: Path) -> Inspection:
    data = _read(path, "program")
    program = read_program(data, str(path))
    facts = {
        "format": f"{program.format}, schema version {program.schema_version}",
        "backend": ", ".join(sorted({name for m in program.methods for name in m.backends})) or "none",
        "minimum_runtime": f"not told; {runtime_version()} here can read it",
        "bytes": len(data),
    }
    methods = [_method(method) for method in program.methods]
    return Inspection(str(path), "ExecuTorch program", facts, methods, files=[_file(path.name, data)])


def _method(method: FileMethod) -> Method:
    inputs, outputs = ([_value(i, t) for i, t in enumerate(side)] for side in (method.inputs, method.outputs))
    return Method(method.name, inputs, outputs, method.delegated, method.undelegated, method.share)


def _value(place: int, tensor: FileTensor | None) -> Value:
    return Value(str(place), tensor.shape if tensor else (), tensor.dtype if tensor else "no tensor")


def _package(path: Path) -> Inspection:
    if not path.is_dir():
        raise MobileBilayerError(f"{path} is no folder, so it is no Core ML package. Check the path.")
    return _core_ml(path)


def _core_ml(path: Path) -> Inspection:
    from mobile_bilayer.export.coreml_tools import coremltools, quietly
    from mobile_bilayer.export.mil_evaluator import IOS_OF

    library = coremltools()
    try:
        with quietly():
            spec = library.utils.load_spec(str(path))
        function = spec.mlProgram.functions["main"]
        operators = Counter(
            op.type for op in function.block_specializations[function.opset].operations if op.type != "const"
        )
        inputs = [_feature(put) for put in spec.description.input]
        outputs = [_feature(put) for put in spec.description.output]
        data = {str(f.relative_to(path)): f.read_bytes() for f in sorted(path.rglob("*")) if f.is_file()}
    except Exception as error:  # protobuf's and coremltools' own, by what is damaged
        raise MobileBilayerError(
            f"{path} can't be read as a Core ML package ({error}). Export or copy it again."
        ) from error
    if not operators:
        raise MobileBilayerError(f"{path} holds no program that we know. Export or copy it again.")
    ios = IOS_OF.get(spec.specificationVersion)
    files = [_file(name, content) for name, content in data.items()]
    facts = {
        "format": f"Core ML specification {spec.specificationVersion}",
        "backend": CORE_ML,
        "minimum_runtime": f"iOS {ios}" if ios else "not known here",
        "bytes": sum(file.bytes for file in files),
    }
    method = Method(path.stem, inputs, outputs, dict(sorted(operators.items())), {}, 1.0)
    return Inspection(str(path), "Core ML package", facts, [method], files=files)


def _feature(put: Any) -> Value:
    if put.type.WhichOneof("Type") == "imageType":
        image = put.type.imageType
        return Value(put.name, (1, 3, image.height, image.width), "picture", 0, 255)
    array = put.type.multiArrayType
    kinds = {65568: "float32", 65552: "float16", 65600: "float64", 131104: "int32"}
    return Value(put.name, tuple(array.shape), kinds.get(array.dataType, str(array.dataType)))


def _avatar(path: Path) -> Inspection:
    data = _read(path, "avatar")
    try:
        with safe_open(path, "np") as file:
            header = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118  no mapping
            tensors = [Value(name, tuple(s.get_shape()), s.get_dtype()) for name, s in slices.items()]
    except (OSError, SafetensorError) as error:
        raise MobileBilayerError(
            f"{path} is not an avatar, or it is damaged ({error}). Run `mobile-bilayer avatar PHOTO` again."
        ) from error
    if header.get("format") != AVATAR_FORMAT:
        raise MobileBilayerError(f"{path} is not an avatar. `mobile-bilayer avatar PHOTO -o NAME.avatar` makes one.")
    facts = {
        "format_version": header.get("version", "none"),
        "student": header.get("student", "none"),
        "content": header.get("content", ""),
    }
    found = Inspection(
        str(path), "avatar", facts | {"bytes": len(data)}, tensors=tensors, files=[_file(path.name, data)]
    )
    if header.get("version") != str(AVATAR_VERSION):
        found.problems.append(
            f"Its format version is {facts['format_version'][:20]}; this mobile_bilayer reads {AVATAR_VERSION}."
        )
    if lacking := sorted(AVATAR_TENSORS.keys() - slices.keys()):
        found.problems.append(f"It lacks {', '.join(lacking)}. Run `mobile-bilayer avatar PHOTO` again.")
    return found


def _read(path: Path, what: str) -> bytes:
    check_input(path, what)
    if path.stat().st_size > LARGEST_FILE:
        raise MobileBilayerError(f"{path} is larger than {LARGEST_FILE >> 20} MiB. This is no {what} of ours.")
    return path.read_bytes()


def _file(name: str, data: bytes) -> File:
    return File(name, len(data), hashlib.sha256(data).hexdigest())


def to_json(found: Inspection) -> str:
    """All that was found, as one JSON object."""
    return json.dumps(asdict(found), indent=1, ensure_ascii=False)
