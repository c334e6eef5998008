"""From student weights to a bundle, proven before it is written."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from mobile_bilayer.export.card import model_card
from mobile_bilayer.export.executorch import EXPLAINED, METHODS, PRECISIONS, EncodeAvatar, Lowered, RenderLayers, lower
from safetensors.numpy import save
from torch import Tensor
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
from mobile_bilayer.runtime.manifest import FORMAT_VERSION, Manifest, MethodSpec, TensorSpec, template_points
from mobile_bilayer.samples import SAMPLES, sample_photo, sample_track
from mobile_bilayer.student.network import Student, size_of
from mobile_bilayer.student.weights import load_student

CALIBRATION_PAIRS, CHECKED_PAIRS = 128, 8  # with 64, a map feature of one face in eight was clipped
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
}


def real_inputs(student: Student, prepared: Path, pairs: int, seed: int) -> dict[str, list[tuple[Tensor, ...]]]:
    """Inputs of both methods from prepared clips: different clips, any two frames of each."""
    clips = load_clips(prepared)
    rng = np.random.default_rng(seed)
    inputs: dict[str, list[tuple[Tensor, ...]]] = {"encode_avatar": [], "render_layers": []}
    for place in rng.permutation(np.resize(np.arange(len(clips)), pairs)):
        clip = clips[place]
        source, target = rng.choice(len(clip), 2, replace=False)
        batch = to_tensors(default_collate([make_example(clip, int(source), [int(target)], NO_AUGMENTATION, rng)]))
        with torch.no_grad():
            code = student.encoder(batch["image"], batch["source_points"])
        inputs["encode_avatar"].append((batch["image"], batch["source_points"]))
        inputs["render_layers"].append(
            (code.landmark_features, code.map_features, batch["source_points"], batch["points"])
        )
    return inputs


def sample_inputs(student: Student, name: str, frame: int | None = None) -> dict[str, Tensor]:
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


def golden_vectors(student: Student, name: str = SAMPLES[0]) -> dict[str, np.ndarray]:
    """Inputs of a public-domain photo, and what the float student makes of them. Every port reads these."""
    inputs = sample_inputs(student, name)
    image, source, driving = inputs["image"], inputs["source_points"][None], inputs["driving_points"][None]
    with torch.no_grad():
        code = student.encoder(image[None].float() / 255, source)
        # What is stored is what goes in: features as fp16.
        features, maps = code.landmark_features.half().float(), code.map_features.half().float()
        layers = student.frame(features, maps, source, driving)
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


def compare(student: Student, bundle: Bundle, inputs: dict[str, list[tuple[Tensor, ...]]]) -> dict[str, Tolerance]:
    """Errors of a bundle's program against the float student, on real inputs: largest and mean of each output."""
    found: dict[str, list[np.ndarray]] = {}
    encoded, values = [], {}
    for image, source in inputs["encode_avatar"]:
        got = bundle.program.run("encode_avatar", image.numpy(), source.numpy())
        with torch.no_grad():
            wanted = EncodeAvatar(student.encoder)(image, source)
        for spec, ours, theirs in zip(bundle.manifest.methods["encode_avatar"].outputs, got, wanted, strict=True):
            found.setdefault(spec.name, []).append(ours - theirs.numpy())
            values.setdefault(spec.name, []).append(theirs.numpy())
        encoded.append(got[:2])
    for name in FEATURES:
        deviation = max(float(np.std(values[name])), 1e-6)
        found[name] = [error / deviation for error in found[name]]
    for arguments, features, (image, _) in zip(inputs["render_layers"], encoded, inputs["encode_avatar"], strict=True):
        a, b = bundle.program.run("render_layers", *features, *(x.numpy() for x in arguments[2:]))
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


def refuse_over_tolerance(errors: dict[str, Tolerance], precision: str) -> None:
    """Raises MobileBilayerError that names the first output over its tolerance."""
    for name, error in errors.items():
        allowed = TOLERANCES[precision][name]
        if not (error.largest <= allowed.largest and error.mean <= allowed.mean):  # so that NaN is refused as well
            raise MobileBilayerError(
                f"The exported {precision} program is wrong in {name}: {error.mean:.5f} from the float student on average "
                f"and {error.largest:.4f} at worst; {allowed.mean} and {allowed.largest} are allowed. Nothing was written. "
                "Calibrate on more and more varied clips, or export fp32."
            )


def export_bundle(
    weights: Path,
    prepared: Path,
    out: Path,
    precision: str = "int8",
    card: str | None = None,
    recipe: Recipe | None = None,
    calibration: int | None = None,
    trained: Student | None = None,
    twin: bool = True,
) -> Bundle:
    """Lower a student, compare the program with it on real inputs, and write a bundle folder.

    weights      what `train student` wrote
    prepared     prepared clips to calibrate on and to compare with
    out          folder to write; an older bundle there is replaced, anything else is not
    card         the model card's text; by default it is made from the facts in the weights
    recipe       what becomes int8; by default what ships
    calibration  pairs to calibrate on; by default `CALIBRATION_PAIRS`
    trained      the same weights with int8 trunks, from quantization-aware training
    twin         whether an int8 program is held against the same one in float, which takes as long again

    Raises MobileBilayerError, and writes nothing, when an output is over its tolerance, or when int8 saves no space. Warns
    when int8 is slower here.
    """
    out = Path(out)
    if precision not in PRECISIONS:
        raise MobileBilayerError(f"The precision is {precision!r}; it must be one of {', '.join(PRECISIONS)}.")
    check_folder(out)
    student, facts = load_student(weights)
    torch.manual_seed(0)
    pairs = CALIBRATION_PAIRS if calibration is None else max(0, calibration)
    inputs = real_inputs(student, prepared, pairs + CHECKED_PAIRS, seed=0)
    lowered = lower(trained or student, {name: values[:pairs] for name, values in inputs.items()}, precision, recipe)
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        bundle = _write(aside, student, lowered, facts, weights, precision, out.name, card)
        errors = compare(student, bundle, {name: values[pairs:] for name, values in inputs.items()})
        refuse_over_tolerance(errors, precision)
        if twin and precision == "int8":
            _compare_with_twin(bundle, student, {name: values[pairs:] for name, values in inputs.items()})
        methods = {
            name: replace(spec, largest_error={k: round(e.largest, 6) for k, e in errors.items() if _belongs(k, spec)})
            for name, spec in bundle.manifest.methods.items()
        }
        manifest = replace(bundle.manifest, methods=methods)
        (aside / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
        Bundle.open(aside).verify()
        aside.chmod(0o755)
        old = Path(f"{aside}.old")
        if out.exists():
            out.rename(old)
        aside.rename(out)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return Bundle.open(out)


def _compare_with_twin(bundle: Bundle, student: Student, inputs: dict[str, list[tuple[Tensor, ...]]]) -> None:
    name = bundle.manifest.program
    data = lower(student, inputs, "fp32").data
    refuse_larger(len(bundle.contents[name]), len(data))
    programs = {"int8": bundle.program, "float": replace(bundle, contents={name: data}).program}
    frame = [x.numpy() for x in inputs["render_layers"][0]]
    took = median_ms({key: partial(program.run, "render_layers", *frame) for key, program in programs.items()})
    warn_slower(took["int8"], took["float"])


def check_folder(out: Path) -> None:
    """Whether a bundle may be written there, asked before the long work. Only a bundle is ever replaced."""
    if out.exists() or out.is_symlink():
        try:
            known = {"manifest.json", *Manifest.from_json((out / "manifest.json").read_bytes(), str(out)).sha256}
            others = sorted(file.name for file in out.iterdir() if file.name not in known)
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
    student: Student,
    lowered: Lowered,
    facts: dict[str, object],
    weights: Path,
    precision: str,
    name: str,
    card: str | None,
) -> Bundle:
    golden = golden_vectors(student)
    allowed = TOLERANCES[precision]
    tolerances = {k: allowed[k].largest for k in CHECKED if k in allowed}
    for k in FEATURES:  # there in the features' own unit, and they are stored as float16
        values = golden[k].astype(np.float32)
        tolerances[k] = tolerances[k] * float(values.std()) + float(np.abs(values).max()) * 2**-11
    tolerances["composed_from_golden"] = 1 / 255
    size = size_of(student.config) or "custom"
    program = f"student-{size}-256-{precision}-xnnpack.pte"
    contents = {
        program: lowered.data,
        "golden.safetensors": save(golden, {"tolerances": json.dumps(tolerances), "photo": SAMPLES[0]}),
        "MODEL_CARD.md": (card or model_card(student, facts)).encode(),
    }
    template = face_template()
    config = student.config
    points = (1, POINTS, 2)
    features = TensorSpec("landmark_features", (1, POINTS, config.features + 3))
    maps = TensorSpec("map_features", (1, config.frame_widths[1], 32, 32))
    undelegated = {m: {op: EXPLAINED[op] for op in ops} for m, ops in lowered.undelegated.items()}
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        name=name,
        student=hashlib.sha256(weights.read_bytes()).hexdigest()[:16],
        size=size,
        precision=precision,
        backend="xnnpack",
        minimum_runtime="executorch 1.5.1",
        program=program,
        sha256={k: hashlib.sha256(v).hexdigest() for k, v in contents.items()},
        methods={
            "encode_avatar": MethodSpec(
                (TensorSpec("image", (1, 3, 256, 256), 0, 1), TensorSpec("source_landmarks", points)),
                (features, maps, TensorSpec("alpha", (1, 1, 128, 128), 0, 1)),
                undelegated["encode_avatar"],
            ),
            "render_layers": MethodSpec(
                (features, maps, TensorSpec("source_landmarks", points), TensorSpec("landmarks", points)),
                (TensorSpec("layers_a", (1, 4, 64, 64)), TensorSpec("layers_b", (1, 3, 128, 128), -1, 1)),
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
        (folder / file).write_bytes(data)
    (folder / "manifest.json").write_text(manifest.to_json(), encoding="utf-8")
    return Bundle.open(folder)


def program_bundle(
    folder: Path, student: Student, program: bytes, facts: dict[str, object], weights: Path
) -> Bundle:
    """A bundle around any program of a student's two methods, to measure it: written to a folder that is thrown away."""
    none = {name: [] for name in METHODS}
    return _write(folder, student, Lowered(program, none), facts, weights, "fp32", "measured", None)


def _rows(points: np.ndarray) -> tuple:
    return tuple(tuple(round(float(v), 6) for v in row) for row in points)
