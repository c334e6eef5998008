"""From student weights to a bundle, proven before it is written."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from mobile_bilayer.export.backends import BACKENDS, CORE_ML_DELEGATE, check_soc
from mobile_bilayer.export.card import foreign_card, model_card
from mobile_bilayer.export.contract import ALPHA, LAYERS_A, LAYERS_B, check_network, load_module
from mobile_bilayer.export.coreml import PRECISIONS as CORE_ML_PRECISIONS
from mobile_bilayer.export.coreml import choose_ios, convert_student, refuse_newer
from mobile_bilayer.export.coreml_tools import IOS, OLDEST_IOS, core_ml_runs_here, coremltools
from mobile_bilayer.export.executorch import (
    EXPLAINED,
    INT8,
    EncodeAvatar,
    GraphProgram,
    Lowered,
    RenderLayers,
    export_for,
    lower,
    lower_exported,
)
from mobile_bilayer.export.first_wrong import first_wrong
from mobile_bilayer.export.program_file import DelegatedCoreML, check_program
from safetensors.numpy import save
from torch import Tensor, nn
from torch.utils.data import default_collate

from mobile_bilayer.background import fill_behind
from mobile_bilayer.compositing import Layers, composite
from mobile_bilayer.dataset.pairs import NO_AUGMENTATION, load_clips, make_example, to_tensors
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.crop import CROP_UP, head_crop
from mobile_bilayer.pose.head import HEAD_POINTS, POINTS, TORSO_POINTS, face_template, network_points
from mobile_bilayer.pose.landmarks import MESH
from mobile_bilayer.pose.neutral import neutral_of
from mobile_bilayer.pose.retarget import Retargeter
from mobile_bilayer.pose.stabilizer import StabilizerConfig
from mobile_bilayer.quantization.recipes import Recipe
from mobile_bilayer.quantization.twins import median_ms, refuse_larger, warn_slower
from mobile_bilayer.runtime.bundle import CHANNELS, CHECKED, Bundle
from mobile_bilayer.runtime.core_ml_program import CoreMLProgram
from mobile_bilayer.runtime.manifest import (
    CORE_ML,
    FORMAT_VERSION,
    METHODS,
    Manifest,
    MethodSpec,
    TensorSpec,
    template_points,
)
from mobile_bilayer.runtime.program import Program
from mobile_bilayer.samples import SAMPLES, sample_photo, sample_track
from mobile_bilayer.student.network import AvatarCode, Student, size_of
from mobile_bilayer.student.weights import load_student

# Of each backend; and the one that it has unless another is asked for.
PRECISIONS = {name: about.precisions for name, about in BACKENDS.items()} | {CORE_ML: CORE_ML_PRECISIONS}
USUAL = {name: about.usual for name, about in BACKENDS.items()} | {CORE_ML: "fp16"}
RUN_HERE = (CORE_ML, *(name for name, about in BACKENDS.items() if about.runs_here))  # Core ML's by the evaluator
RUN, EVALUATED, LOWERED = "run", "evaluated", "lowered only"
CALIBRATION_PAIRS, CHECKED_PAIRS = 128, 8
NOT_RUN = "not run here, as it runs on Apple's systems only"
NO_DELEGATE = "not run here, as ExecuTorch's Core ML delegate runs inside apps only"
NO_RUNTIME = "not run here, as its runtime is not in ExecuTorch's Python package"
COMPOSITE_PX = 64  # golden composites are a quarter of the size: the bundle stays small


@dataclass(frozen=True)
class Tolerance:
    """How far an exported output may be from the float student: at worst, and on average."""

    largest: float
    mean: float


# Of these the errors are in standard deviations, and their worst value is let go far: what it leads to is measured, for
# the layers are computed from what the program itself encoded.
FEATURES = ("landmark_features", "map_features")
# Flow is in [-1, 1]: 0.002 is a quarter of a pixel at 256.
TOLERANCES = {
    "fp32": {
        "landmark_features": Tolerance(5e-4, 5e-5),
        "map_features": Tolerance(5e-4, 5e-5),
        "alpha": Tolerance(1e-3, 1e-4),
        "flow": Tolerance(1e-4, 1e-5),
        "gate": Tolerance(1e-3, 1e-4),
        "mask": Tolerance(1e-3, 1e-4),
        "layers_b": Tolerance(1e-3, 1e-4),
        "composed": Tolerance(2e-3, 2e-4),
    },
    "int8": {
        "landmark_features": Tolerance(0.5, 0.01),
        "map_features": Tolerance(1.5, 0.015),
        "alpha": Tolerance(0.15, 0.005),
        "flow": Tolerance(0.02, 0.002),
        "gate": Tolerance(0.15, 0.01),
        "mask": Tolerance(0.2, 0.005),
        "layers_b": Tolerance(0.15, 0.01),
        "composed": Tolerance(0.5, 0.01),
    },
    # Core ML. Landmarks, prior and heads are float32.
    "fp16": {
        "landmark_features": Tolerance(0.01, 0.001),
        "map_features": Tolerance(0.03, 0.002),
        "alpha": Tolerance(5e-3, 1e-4),
        "flow": Tolerance(2e-3, 1e-4),
        "gate": Tolerance(1e-2, 3e-4),
        "mask": Tolerance(1e-2, 2e-4),
        "layers_b": Tolerance(5e-3, 2e-4),
        "composed": Tolerance(3e-2, 5e-4),
    },
}
TOLERANCES["w8a8"] = TOLERANCES["int8"]  # it is the same graph
# Only weights lose bits, so each frame errs alike. Four bits are few: on 27 people the flow is 0.18 pixels off on average.
TOLERANCES["palettized6"] = {
    "landmark_features": Tolerance(0.3, 0.015),
    "map_features": Tolerance(1.0, 0.02),
    "alpha": Tolerance(0.15, 0.003),
    "flow": Tolerance(0.02, 0.001),
    "gate": Tolerance(0.1, 0.003),
    "mask": Tolerance(0.15, 0.003),
    "layers_b": Tolerance(0.1, 0.0015),
    "composed": Tolerance(0.5, 0.005),
}
TOLERANCES["w8"] = TOLERANCES["palettized6"]
TOLERANCES["palettized4"] = {
    "landmark_features": Tolerance(0.5, 0.05),
    "map_features": Tolerance(2.0, 0.06),
    "alpha": Tolerance(0.3, 0.005),
    "flow": Tolerance(0.05, 0.003),
    "gate": Tolerance(0.2, 0.004),
    "mask": Tolerance(0.4, 0.008),
    "layers_b": Tolerance(0.12, 0.002),
    "composed": Tolerance(1.0, 0.008),
}


def real_inputs(student: nn.Module, prepared: Path, pairs: int, seed: int) -> dict[str, list[tuple[Tensor, ...]]]:
    """Inputs of both methods from prepared clips: different clips, any two frames of each."""
    clips = load_clips(prepared)
    rng = np.random.default_rng(seed)
    inputs: dict[str, list[tuple[Tensor, ...]]] = {"encode_avatar": [], "render_layers": []}
    for place in rng.permutation(np.resize(np.arange(len(clips)), pairs)):
        clip = clips[place]
        source, target = rng.choice(len(clip), 2, replace=False)
        batch = to_tensors(default_collate([make_example(clip, int(source), [int(target)], NO_AUGMENTATION, rng)]))
        with torch.no_grad():
            code = AvatarCode(*student.encoder(batch["image"], batch["source_points"]))
        inputs["encode_avatar"].append((batch["image"], batch["source_points"]))
        inputs["render_layers"].append(
            (code.landmark_features, code.map_features, batch["source_points"], batch["points"])
        )
    return inputs


def sample_inputs(student: nn.Module, name: str, frame: int | None = None) -> dict[str, Tensor]:
    """A sample photo and a frame of the shipped track (the one with the widest mouth by default), as networks take them."""
    rgb, landmarks = sample_photo(name)
    crop = head_crop(landmarks)
    texture = crop.cut(rgb)
    keypoints = crop.to_keypoints(landmarks)
    track = sample_track()
    if frame is None:
        frame = int(np.abs(track.landmarks[:, 14, 1] - track.landmarks[:, 13, 1]).argmax())
    moved = Retargeter(keypoints, neutral_of(track))(track[frame].landmarks)
    image = torch.from_numpy(np.ascontiguousarray(texture.transpose(2, 0, 1)))
    return {
        "image": image,
        "source_points": torch.from_numpy(network_points(keypoints)),
        "driving_points": torch.from_numpy(network_points(moved)),
    }


def golden_vectors(student: nn.Module, name: str = SAMPLES[0]) -> dict[str, np.ndarray]:
    """Inputs of a public-domain photo, and what the float student makes of them. Every port reads these."""
    inputs = sample_inputs(student, name)
    image, source, driving = inputs["image"], inputs["source_points"][None], inputs["driving_points"][None]
    with torch.no_grad():
        code = AvatarCode(*student.encoder(image[None].float() / 255, source))
        # What is stored is what goes in: features as fp16.
        features, maps = code.landmark_features.half().float(), code.map_features.half().float()
        layers = Layers(*student.frame(features, maps, source, driving))
        stored = Layers(layers.a.half().float(), layers.b.half().float())
        texture = torch.nn.functional.avg_pool2d(image[None].float(), 256 // COMPOSITE_PX).round().byte()
        alpha = torch.nn.functional.interpolate(code.alpha, size=COMPOSITE_PX, mode="area")[0, 0].numpy()
        behind = fill_behind(np.ascontiguousarray(texture[0].permute(1, 2, 0).numpy()), alpha)
        background = torch.from_numpy(behind).permute(2, 0, 1)[None]
        composed = composite(texture.float() / 127.5 - 1, background.float() / 127.5 - 1, stored)
    return {
        "image": image.numpy(),
        "source_points": source[0].numpy(),
        "driving_points": driving[0].numpy(),
        "landmark_features": code.landmark_features.half().numpy(),
        "map_features": code.map_features.half().numpy(),
        "alpha": code.alpha.half().numpy(),
        "layers_a": layers.a.half().numpy(),
        "layers_b": layers.b.half().numpy(),
        "composite_texture": texture[0].permute(1, 2, 0).contiguous().numpy(),
        "composite_background": behind,
        "composed": composed[0].permute(1, 2, 0).contiguous().half().numpy(),
    }


def compare(
    student: nn.Module,
    program: Program | CoreMLProgram | DelegatedCoreML | GraphProgram,
    inputs: dict[str, list[tuple[Tensor, ...]]],
) -> dict[str, Tolerance]:
    """Errors of a program against the float student, on real inputs: largest and mean of each output."""
    found: dict[str, list[np.ndarray]] = {}
    encoded, values = [], {}
    for image, source in inputs["encode_avatar"]:
        got = program.run("encode_avatar", image.numpy(), source.numpy())
        with torch.no_grad():
            wanted = EncodeAvatar(student.encoder)(image, source)
        for name, ours, theirs in zip(METHODS["encode_avatar"][1], got, wanted, strict=True):
            found.setdefault(name, []).append(ours - theirs.numpy())
            values.setdefault(name, []).append(theirs.numpy())
        encoded.append(got[:2])
    for name in FEATURES:
        deviation = max(float(np.std(values[name])), 1e-6)
        found[name] = [error / deviation for error in found[name]]
    for arguments, features, (image, _) in zip(inputs["render_layers"], encoded, inputs["encode_avatar"], strict=True):
        a, b = program.run("render_layers", *features, *(x.numpy() for x in arguments[2:]))
        with torch.no_grad():
            wanted_a, wanted_b = RenderLayers(student.frame)(*arguments)
            texture = image * 2 - 1
            behind = torch.zeros_like(texture)
            ours = composite(texture, behind, Layers(torch.from_numpy(a), torch.from_numpy(b))).numpy()
            theirs = composite(texture, behind, Layers(wanted_a, wanted_b)).numpy()
        errors = a - wanted_a.numpy()
        for name, channels in CHANNELS.items():
            found.setdefault(name, []).append(errors[:, channels])
        found.setdefault("layers_b", []).append(b - wanted_b.numpy())
        found.setdefault("composed", []).append(ours - theirs)
    return {
        name: Tolerance(max(float(np.abs(e).max()) for e in errors), float(np.mean([np.abs(e).mean() for e in errors])))
        for name, errors in found.items()
    }


class OverTolerance(MobileBilayerError):
    """An exported program is too far from its float student."""


def refuse_over_tolerance(errors: dict[str, Tolerance], precision: str) -> None:
    """Raises OverTolerance that names the first output over its tolerance."""
    for name, error in errors.items():
        allowed = TOLERANCES[precision][name]
        if not (error.largest <= allowed.largest and error.mean <= allowed.mean):  # so that NaN is refused as well
            raise OverTolerance(
                f"The exported {precision} program is wrong in {name}: {error.mean:.5f} from the float student on average "
                f"and {error.largest:.4f} at worst; {allowed.mean} and {allowed.largest} are allowed. Nothing was written. "
                "Calibrate on more and more varied clips, or export it in a higher precision."
            )


@contextmanager
def _naming_the_layer(
    student: nn.Module,
    checked: dict[str, list[tuple[Tensor, ...]]],
    calibration: dict[str, list[tuple[Tensor, ...]]],
    backend: str,
    precision: str,
    recipe: Recipe | None,
    trained: Student | None,
) -> Iterator[None]:
    """Has a refusal say which layer first goes wrong. A student trained in int8 is a graph already, without layers."""
    try:
        yield
    except OverTolerance as error:
        if trained is not None:
            raise
        few = {name: examples[:2] for name, examples in checked.items()}
        some = {name: examples[:16] for name, examples in calibration.items()}
        raise OverTolerance(f"{error} {first_wrong(student, few, some, backend, precision, recipe)}") from error


@dataclass(frozen=True)
class _Made:
    """A student's program for one backend: its name, its files, what it needs, and what is outside the delegate."""

    backend: str
    name: str
    files: dict[str, bytes]
    minimum_runtime: str
    undelegated: dict[str, list[str]]
    share: float = 1.0


@dataclass(frozen=True)
class Proof:
    """What was found out about an exported program before it was written.

    how     "run": as on a phone; "evaluated": what the file says was computed; "lowered only": the file was read
    checks  what was done and what was not, a sentence each
    errors  of each output against the float student, in what was computed: of a program that was lowered only, the graph
            in torch from which it was lowered
    share   of all operators, those in the delegate
    """

    how: str
    checks: tuple[str, ...]
    errors: dict[str, Tolerance]
    share: float

    def of_allowed(self, precision: str) -> dict[str, float]:
        """Of each output its error, as a share of the one that is allowed: at worst or on average, whichever is more."""
        allowed = TOLERANCES[precision]
        return {
            name: max(error.largest / allowed[name].largest, error.mean / allowed[name].mean)
            for name, error in self.errors.items()
        }


def _executorch(name: str, lowered: Lowered, backend: str, precision: str) -> _Made:
    runtime = BACKENDS[backend].minimum_runtime(precision)
    return _Made(backend, name, {name: lowered.data}, runtime, lowered.undelegated, lowered.share)


def export_bundle(weights: Path, prepared: Path, out: Path, *arguments: object, **options: object) -> Bundle:
    """`export_proven`'s bundle."""
    return export_proven(weights, prepared, out, *arguments, **options)[0]


def export_proven(
    weights: Path,
    prepared: Path,
    out: Path,
    precision: str | None = None,
    card: str | None = None,
    recipe: Recipe | None = None,
    calibration: int | None = None,
    trained: Student | None = None,
    twin: bool = True,
    backend: str = "xnnpack",
    ios: int | None = None,
    image_input: bool = False,
    module: str | None = None,
    soc: str | None = None,
) -> tuple[Bundle, Proof]:
    """Lower a student, compare the program with it on real inputs, and write a bundle folder.

    weights      what `train student` wrote; with `module`, what its factory takes
    prepared     prepared clips to calibrate on and to compare with
    out          folder to write; an older bundle there is replaced, anything else is not
    precision    of `PRECISIONS`; by default the backend's usual one
    card         the model card's text; by default it is made from the facts in the weights
    recipe       what becomes int8; by default what ships
    calibration  pairs to calibrate on; by default `CALIBRATION_PAIRS`
    trained      the same weights with an int8 frame trunk, from quantization-aware training
    twin         whether XNNPACK's int8 program is held against the same one in float, which takes as long again
    backend      of `PRECISIONS`: ExecuTorch's are in backends.py, "coreml" makes Core ML packages
    ios          Core ML: the oldest iOS that is to run it; by default the oldest that can
    image_input  Core ML: encode_avatar takes a picture, not numbers
    module       "package:factory" of a network of your own, which meets `contract.Network`
    soc          QNN: the processor

    Raises MobileBilayerError, and writes nothing, when an output is over its tolerance, or when int8 saves no space. Warns
    when int8 is slower here.
    """
    out = Path(out)
    precision = _check_options(backend, precision, recipe, trained, ios, image_input, soc)
    check_folder(out)
    student, facts = _load(weights, module)
    samples = [sample_inputs(student, name) for name in SAMPLES[:2]]
    photos = [(each["image"][None].float() / 255, each["source_points"][None]) for each in samples]
    frames = [each["driving_points"][None] for each in samples]
    check_network(student, photos, (frames[0], photos[0][1]))
    torch.manual_seed(0)
    pairs = CALIBRATION_PAIRS if calibration is None else max(0, calibration)
    inputs = real_inputs(student, prepared, pairs + CHECKED_PAIRS, seed=0)
    first = {name: values[:pairs] for name, values in inputs.items()}
    checked = {name: values[pairs:] for name, values in inputs.items()}
    where_it_goes_wrong = partial(_naming_the_layer, student, checked, first, backend, precision, recipe, trained)
    name = f"student-{_size(student)}-256-{precision}-{backend}"
    graph_errors: dict[str, Tolerance] = {}
    if backend == CORE_ML:
        packages = convert_student(trained or student, first, precision, ios, image_input, recipe)
        files = {f"{name}/{path}": data for path, data in packages.files.items()}
        made = _Made(backend, name, files, IOS[packages.ios], {method: [] for method in METHODS})
    elif BACKENDS[backend].runs_here:
        lowered = lower(trained or student, first, precision, recipe)
        made = _executorch(f"{name}.pte", lowered, backend, precision)
    else:
        graphs = export_for(BACKENDS[backend], trained or student, first, precision, recipe)
        graph_errors = compare(student, GraphProgram(graphs), checked)
        with where_it_goes_wrong():
            refuse_over_tolerance(graph_errors, precision)
        lowered = lower_exported(graphs, BACKENDS[backend], precision, soc=soc)
        made = _executorch(f"{name}.pte", lowered, backend, precision)
    identity = Path(weights).read_bytes() + (module or "").encode()
    card = card or (model_card(student, facts) if module is None else foreign_card(student, module))
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        bundle = _write(aside, student, made, identity, precision, out.name, card)
        with where_it_goes_wrong():
            proof = _prove(student, bundle, checked, made.share, graph_errors)
        if twin and (backend, precision) == ("xnnpack", "int8"):
            _compare_with_twin(bundle, student, checked)
        of_file = proof.errors if proof.how != LOWERED else {}
        methods = {
            name: replace(spec, largest_error={k: round(e.largest, 6) for k, e in of_file.items() if _belongs(k, spec)})
            for name, spec in bundle.manifest.methods.items()
        }
        text = _proof_text(proof, precision).encode()
        (aside / "PROOF.md").write_bytes(text)
        sha256 = bundle.manifest.sha256 | {"PROOF.md": hashlib.sha256(text).hexdigest()}
        manifest = replace(bundle.manifest, methods=methods, sha256=sha256)
        (aside / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
        written = Bundle.open(aside)
        if backend in RUN_HERE:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that this is the evaluator is known
                written.verify()
        aside.chmod(0o755)
        old = Path(f"{aside}.old")
        if out.exists():
            out.rename(old)
        aside.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Bundle.open(out), proof


@dataclass(frozen=True)
class Row:
    """One bundle of `export_all`: where it is and what was found out, or why there is none."""

    backend: str
    precision: str
    path: Path
    size: int = 0
    proof: Proof | None = None
    failure: str = ""


def export_all(
    weights: Path,
    prepared: Path,
    out: Path,
    on_progress: Callable[[str, int, int | None], None] | None = None,
    **options: object,
) -> list[Row]:
    """A bundle for each backend in its usual precision, as OUT/student-S-256-int8-xnnpack. One that fails loses no other.

    QNN is left out: its programs are for one processor, and need an SDK.

    Raises MobileBilayerError when not even a beginning can be made: the weights or the clips are none.
    """
    out = Path(out)
    if out.is_file() or (out / "manifest.json").exists():
        raise MobileBilayerError(
            f"{out} is one bundle or a file; a folder for several is needed. Choose another output."
        )
    backends = [name for name in PRECISIONS if name != "qnn"]
    student = _load(weights, options.get("module"))[0]
    load_clips(prepared)
    rows = []
    for done, backend in enumerate(backends):
        if on_progress:
            on_progress("Exporting", done, len(backends))
        path = out / f"student-{_size(student)}-256-{USUAL[backend]}-{backend}"
        row = Row(backend, USUAL[backend], path)
        try:
            bundle, proof = export_proven(weights, prepared, path, backend=backend, **options)
            row = replace(row, size=sum(len(data) for data in bundle.contents.values()), proof=proof)
        except (MobileBilayerError, OSError) as error:  # a full disk, too
            row = replace(row, failure=str(error))
        rows.append(row)
    if on_progress:
        on_progress("Exporting", len(backends), len(backends))
    return rows


def _check_options(
    backend: str,
    precision: str | None,
    recipe: Recipe | None,
    trained: Student | None,
    ios: int | None,
    image_input: bool,
    soc: str | None,
) -> str:
    """The precision. Raises MobileBilayerError for what does not go together, or can't be done here: before the long work."""
    if backend not in PRECISIONS:
        raise MobileBilayerError(f"The backend is {backend!r}; it must be one of {', '.join(PRECISIONS)}.")
    precision = precision or USUAL[backend]
    if precision not in PRECISIONS[backend]:
        raise MobileBilayerError(
            f"The precision is {precision!r}; for {backend} it must be one of {', '.join(PRECISIONS[backend])}."
        )
    if precision not in INT8 and (recipe or trained):
        raise MobileBilayerError(
            f"A recipe and int8 trunks are of {' and '.join(INT8)}, not of {precision}. Leave them out, or export one of these."
        )
    if backend in BACKENDS:
        BACKENDS[backend].check()
    check_soc(backend, soc)
    if backend == CORE_ML:
        choose_ios(precision, ios)
        coremltools()
    elif ios is not None or image_input:
        raise MobileBilayerError("An iOS target and image input are of Core ML. Leave them out, or export for coreml.")
    return precision


def _load(weights: Path, module: str | None) -> tuple[nn.Module, dict[str, object]]:
    return load_student(weights) if module is None else (load_module(module, Path(weights)), {})


def _size(student: nn.Module) -> str:
    return (size_of(student.config) if isinstance(student, Student) else None) or "custom"


def _compare_with_twin(bundle: Bundle, student: Student, inputs: dict[str, list[tuple[Tensor, ...]]]) -> None:
    name = bundle.manifest.program
    data = lower(student, inputs, "fp32").data
    refuse_larger(len(bundle.contents[name]), len(data))
    programs = {"int8": bundle.program, "float": replace(bundle, contents={name: data}).program}
    frame = [x.numpy() for x in inputs["render_layers"][0]]
    took = median_ms({key: partial(program.run, "render_layers", *frame) for key, program in programs.items()})
    warn_slower(took["int8"], took["float"])


def _prove(
    student: nn.Module,
    bundle: Bundle,
    inputs: dict[str, list[tuple[Tensor, ...]]],
    share: float,
    graph_errors: dict[str, Tolerance],
) -> Proof:
    """What can be found out here about the bundle's program, as it was written. Raises when an error is too large."""
    about = bundle.manifest
    if about.backend == CORE_ML:
        engines = ["evaluator", *(["Core ML"] if core_ml_runs_here() else [])]
        programs = [CoreMLProgram(bundle.packages(), about.methods, bundle.where, engine) for engine in engines]
        checks = [
            "Our evaluator of the packages' programs: run.",
            f"Core ML itself: {'run' if core_ml_runs_here() else NOT_RUN}.",
        ]
        return Proof(
            RUN if core_ml_runs_here() else EVALUATED,
            tuple(checks),
            _worst(student, programs, inputs, about.precision),
            share,
        )
    backend = BACKENDS[about.backend]
    methods = check_program(bundle.contents[about.program], about.methods, backend.delegate, bundle.where)
    named = sorted({operator for spec in about.methods.values() for operator in spec.undelegated})
    outside = f"outside it: {', '.join(named)}" if named else "none is outside"
    read = f"The file, read again: both methods, shapes as the manifest says, {share:.1%} of the operators in {backend.delegate}, {outside}."
    if backend.runs_here:
        return Proof(
            RUN,
            (f"The file in ExecuTorch's runtime, with {backend.title}: run.", read),
            _worst(student, [bundle.program], inputs, about.precision),
            share,
        )
    graph = "The graph in torch, as it was before it was lowered: run."
    if about.backend == CORE_ML_DELEGATE:
        delegated = DelegatedCoreML(methods, bundle.where)
        refuse_newer(delegated.operators, OLDEST_IOS[about.precision])
        errors = _worst(student, [delegated], inputs, about.precision)
        checks = [
            "Our evaluator of the Core ML programs inside the file: run.",
            graph,
            read,
            f"Core ML itself: {NO_DELEGATE}.",
        ]
        return Proof(EVALUATED, tuple(checks), errors, share)
    return Proof(LOWERED, (graph, read, f"{backend.title} itself: {NO_RUNTIME}."), graph_errors, share)


def _worst(
    student: nn.Module, programs: list, inputs: dict[str, list[tuple[Tensor, ...]]], precision: str
) -> dict[str, Tolerance]:
    """Errors of all programs together. Raises MobileBilayerError when one is over its tolerance."""
    worst: dict[str, Tolerance] = {}
    for program in programs:
        errors = compare(student, program, inputs)
        refuse_over_tolerance(errors, precision)
        for name, error in errors.items():
            before = worst.get(name, Tolerance(0, 0))
            worst[name] = Tolerance(max(before.largest, error.largest), max(before.mean, error.mean))
    return worst


def _proof_text(proof: Proof, precision: str) -> str:
    """PROOF.md: what was run, what was not, and how near it came."""
    allowed = TOLERANCES[precision]
    rows = [
        f"| {name} | {error.largest:.5f} ({allowed[name].largest}) | {error.mean:.6f} ({allowed[name].mean}) |"
        for name, error in proof.errors.items()
    ]
    what = "The graph before it was lowered" if proof.how == LOWERED else "The program, read again from its files"
    return "\n".join(
        [
            "# What was checked",
            "",
            f"{what}, against the float student on {CHECKED_PAIRS} real pairs of frames: {proof.how}.",
            "",
            *(f"- {check}" for check in proof.checks),
            "",
            "| output | largest error (allowed) | mean error (allowed) |",
            "|---|---|---|",
            *rows,
            "",
            "Errors of features are in standard deviations; flow is in [-1, 1], so that 0.002 is a quarter of a pixel of 256.",
            "",
        ]
    )


def check_folder(out: Path) -> None:
    """Whether a bundle may be written there, asked before the long work. Only a bundle is ever replaced."""
    if out.exists() or out.is_symlink():
        try:
            names = Manifest.from_json((out / "manifest.json").read_bytes(), str(out)).sha256
            known = {
                "manifest.json",
                *names,
                *(str(folder) for name in names for folder in PurePosixPath(name).parents),
            }
            others = sorted(name for file in out.rglob("*") if (name := file.relative_to(out).as_posix()) not in known)
        except (OSError, MobileBilayerError) as error:
            raise MobileBilayerError(f"{out} exists and is no bundle we know. Choose another output.") from error
        if others or out.is_symlink():
            what = f"holds {others[0]}, which is no part of a bundle" if others else "is a link"
            raise MobileBilayerError(f"{out} {what}, so it is not replaced. Choose another output.")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()  # asking for permissions isn't reliable; trying is
    except OSError as error:
        raise MobileBilayerError(
            f"The folder {out.parent} for {out.name} can't be written to ({error}). Choose another folder."
        ) from error


def _belongs(name: str, spec: MethodSpec) -> bool:
    outputs = {t.name for t in spec.outputs}
    return name in outputs or ("layers_a" in outputs and name in (*CHANNELS, "composed"))


def _write(
    folder: Path,
    student: nn.Module,
    made: _Made,
    identity: bytes,
    precision: str,
    name: str,
    card: str,
) -> Bundle:
    golden = golden_vectors(student)
    allowed = TOLERANCES[precision]
    tolerances = {k: allowed[k].largest for k in CHECKED if k in allowed}
    for k in FEATURES:  # there in the features' own unit, and they are stored as float16
        values = golden[k].astype(np.float32)
        tolerances[k] = tolerances[k] * float(values.std()) + float(np.abs(values).max()) * 2**-11
    tolerances["composed_from_golden"] = 1 / 255
    contents = {
        **made.files,
        "golden.safetensors": save(golden, {"tolerances": json.dumps(tolerances), "photo": SAMPLES[0]}),
        "MODEL_CARD.md": card.encode(),
    }
    template = face_template()
    points = (1, POINTS, 2)
    features, maps = (TensorSpec(k, golden[k].shape) for k in FEATURES)
    undelegated = {m: {op: EXPLAINED[op] for op in ops} for m, ops in made.undelegated.items()}
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name=name,
        student=hashlib.sha256(identity).hexdigest()[:16],
        size=_size(student),
        precision=precision,
        backend=made.backend,
        minimum_runtime=made.minimum_runtime,
        program=made.name,
        sha256={k: hashlib.sha256(v).hexdigest() for k, v in contents.items()},
        methods={
            "encode_avatar": MethodSpec(
                (TensorSpec("image", (1, 3, 256, 256), 0, 1), TensorSpec("source_landmarks", points)),
                (features, maps, TensorSpec("alpha", ALPHA, 0, 1)),
                undelegated["encode_avatar"],
            ),
            "render_layers": MethodSpec(
                (features, maps, TensorSpec("source_landmarks", points), TensorSpec("landmarks", points)),
                (TensorSpec("layers_a", LAYERS_A), TensorSpec("layers_b", LAYERS_B, -1, 1)),
                undelegated["render_layers"],
            ),
        },
        mesh=tuple(MESH),
        head_points=_rows(HEAD_POINTS),
        torso_points=_rows(TORSO_POINTS),
        rigid=tuple(int(i) for i in template.rigid),
        template_points=template_points(),
        stabilizer=StabilizerConfig(),
        crop_up=CROP_UP,
        image_px=256,
    )
    for file, data in contents.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(data)
    (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    return Bundle.open(folder)


def program_bundle(folder: Path, student: Student, program: bytes, facts: dict[str, object], weights: Path) -> Bundle:
    """A bundle around any program of a student's two methods, to measure it: written to a folder that is thrown away."""
    made = _executorch("measured.pte", Lowered(program, {name: [] for name in METHODS}), "xnnpack", "fp32")
    return _write(folder, student, made, weights.read_bytes(), "fp32", "measured", model_card(student, facts))


def _rows(points: np.ndarray) -> tuple:
    return tuple(tuple(round(float(v), 6) for v in row) for row in points)
