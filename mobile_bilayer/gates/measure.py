"""What is measured for the rows of benchmarks/gates.toml, by their names."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from mobile_bilayer.compositing import Layers, composite
from mobile_bilayer.dataset.pairs import mouth_and_eyes
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.evaluation.methods import pictures, student_method, teacher_method
from mobile_bilayer.evaluation.metrics import Recogniser, identity_distance, l1, psnr
from mobile_bilayer.evaluation.steadiness import STEPS, flicker, in_steps, jitter
from mobile_bilayer.gates.public_set import REFERENCE, SIDE_PX, Source, open_source, read_reference
from mobile_bilayer.gates.speed import Ratio, one_core, slow_over_quick
from mobile_bilayer.perceptual import Lpips
from mobile_bilayer.pose.head import POINTS, network_points
from mobile_bilayer.runtime.avatar import Avatar
from mobile_bilayer.runtime.bundle import Bundle
from mobile_bilayer.runtime.executorch_file import read_program
from mobile_bilayer.samples import SAMPLES, sample_photo
from mobile_bilayer.student.network import SIZES, FrameNetwork, Student, Upsample
from mobile_bilayer.student.weights import SHIPPED, load_student
from mobile_bilayer.teacher import load_teacher
from mobile_bilayer.teacher.fixed import look_at_a_frame, lower_teacher

METRICS = ("lpips", "l1", "mouth_and_eyes", "psnr_db")
TRACKED_MS = 40  # from one frame shown to the tracker to the next
Progress = Callable[[str, int, int | None], None]


@dataclass
class Measured:
    """By a row's name: its number, or why there is none.

    times_ms  what ratios were made of: of this machine, for the reader
    """

    values: dict[str, float] = field(default_factory=dict)
    why_not: dict[str, str] = field(default_factory=dict)
    times_ms: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    def add(self, names: tuple[str, ...], measure: Callable[[], tuple[float, ...]]) -> None:
        """What can't be measured here for want of a package or a model says so."""
        try:
            self.values |= dict(zip(names, measure(), strict=True))
        except ModuleNotFoundError as error:
            self.why_not |= dict.fromkeys(names, f"the package {error.name} is missing")
        except MobileBilayerError as error:
            self.why_not |= dict.fromkeys(names, str(error))


@dataclass(frozen=True)
class Drawn:
    """What was rendered of one source. Pictures are (N, 3, 256, 256) in [0, 1], in steps of 1/255, of poses and then moved photos.

    bundle, float   as a host shows a bundle's layers, and as torch composes the float student's
    layers          of the bundle, for each picture; float_layers of the float student
    """

    source: Source
    avatar: Avatar
    bundle: Tensor
    float: Tensor
    layers: list[Layers]
    float_layers: list[Layers]

    @cached_property
    def landmarks(self) -> list[np.ndarray]:
        return [*self.source.poses.values(), *(photo.landmarks for photo in self.source.moved.values())]

    def composed(self, layers: Layers) -> Tensor:
        """(1, 3, 256, 256) in [0, 1], by the formula in torch."""
        texture, behind = _tensor([self.avatar.texture]), _tensor([self.avatar.background])
        return composite(texture * 2 - 1, behind * 2 - 1, layers).clamp(-1, 1) / 2 + 0.5


@torch.no_grad()
def draw(bundle: Bundle, student: Student, source: Source) -> Drawn:
    """Every pose and every moved photo of a source: by the bundle's program and the host's compositor, and in float."""
    avatar = bundle.avatar(*sample_photo(source.name))
    landmarks = [*source.poses.values(), *(photo.landmarks for photo in source.moved.values())]
    of_bundle = [avatar.layers(points[:, :2]) for points in landmarks]
    batch = source.batch([points[:, :2] for points in landmarks])
    code = student.encoder(batch["image"], batch["source_points"])
    of_float = [
        student.frame(code.landmark_features, code.map_features, batch["source_points"], points[None])
        for points in batch["points"]
    ]
    return Drawn(
        source,
        avatar,
        _tensor([avatar.compose(*layers) for layers in of_bundle]),
        _tensor(pictures(student_method(student)(batch).clamp(-1, 1) / 2 + 0.5)),
        [Layers(*(torch.from_numpy(x)[None] for x in layers)) for layers in of_bundle],
        of_float,
    )


def measure(
    path: Path | None = None, short: bool = False, reference: Path = REFERENCE, on_progress: Progress | None = None
) -> Measured:
    """All that this machine can measure of the bundle at `path`, or the shipped one; `short` leaves out what takes minutes.

    In a process of its own: see `one_core`.
    """
    with one_core():
        begun = time.perf_counter()
        bundle = Bundle.open(path)
        if bundle.manifest.backend != "xnnpack":
            raise MobileBilayerError(
                f"{bundle.where} is for {bundle.manifest.backend}; the gate measures bundles for xnnpack. Export one."
            )
        student, _ = load_student()
        measured, known = Measured(), read_reference(reference)
        steps = [
            lambda: measure_sizes(measured, bundle),
            lambda: measure_renderings(measured, draw_all(bundle, student), known, student_id()),
            lambda: measure_steadiness(measured, bundle),
            lambda: measure_speed(measured, bundle, short),
        ]
        if not short:
            steps.append(lambda: measure_teacher(measured, known))
        for done, step in enumerate(steps, 1):
            step()
            if on_progress:
                on_progress("Measuring", done, len(steps))
        measured.seconds = time.perf_counter() - begun
        return measured


def student_id() -> str:
    """Of the float student that ships, as a bundle's manifest has it."""
    return hashlib.sha256(SHIPPED.read_bytes()).hexdigest()[:16]


def draw_all(bundle: Bundle, student: Student) -> list[Drawn]:
    return [draw(bundle, student, open_source(name)) for name in SAMPLES]


@torch.no_grad()
def measure_renderings(
    measured: Measured, drawn: list[Drawn], reference: dict[str, dict[str, np.ndarray]], student: str
) -> None:
    """Against the teacher, the photos and the float student; the compositor against its formula; the face against the photo's."""
    for who in ("bundle", "float"):
        pairs = [_against_teacher(of, who, reference[of.source.name]) for of in drawn]
        _fidelity(measured, f"{who}.teacher", pairs)
        _fidelity(measured, f"{who}.picture", [_against_pictures(of, who) for of in drawn])
    measured.add(("bundle.float.psnr_db", "bundle.float.flow_px"), lambda: _int8_against_float(drawn, student))
    measured.values["compositor.difference"] = float(np.mean([_compositor(of) for of in drawn]))
    measured.add(("bundle.identity",), lambda: (_identity(drawn),))


Pairs = tuple[
    Tensor, Tensor, Tensor, Tensor
]  # renders, targets, and where (N, 1, H, W) is measured: all, mouth and eyes


def _against_teacher(of: Drawn, who: str, reference: dict[str, np.ndarray]) -> Pairs:
    poses = of.source.poses
    targets = _tensor([reference[name] for name in poses])
    return (
        getattr(of, who)[: len(poses)],
        targets,
        torch.ones_like(targets[:, :1]) > 0,
        _mouths_and_eyes(poses.values()),
    )


def _against_pictures(of: Drawn, who: str) -> Pairs:
    """Outside the face the picture itself is taken: there the wall moved with the head, as it never does."""
    moved = of.source.moved.values()
    targets = _tensor([photo.picture for photo in moved])
    face = torch.from_numpy(np.stack([photo.face for photo in moved]))[:, None]
    renders = torch.where(face, getattr(of, who)[len(of.source.poses) :], targets)
    return renders, targets, face, _mouths_and_eyes(photo.landmarks for photo in moved) & face


def _mouths_and_eyes(landmarks) -> Tensor:
    masks = [mouth_and_eyes(network_points(points)) for points in landmarks]
    return torch.from_numpy(np.stack(masks) > 0)[:, None]


def _fidelity(measured: Measured, name: str, pairs: list[Pairs]) -> None:
    renders, targets, where, parts = (torch.cat(x) for x in zip(*pairs, strict=True))
    measured.values |= {
        f"{name}.l1": float(l1(renders, targets, where).mean()),
        f"{name}.mouth_and_eyes": float(l1(renders, targets, parts).mean()),
        f"{name}.psnr_db": float(psnr(renders, targets).mean()),
    }
    measured.add((f"{name}.lpips",), lambda: (float(Lpips()(renders * 2 - 1, targets * 2 - 1).mean()),))


def _int8_against_float(drawn: list[Drawn], student: str) -> tuple[float, float]:
    got = drawn[0].avatar.bundle.manifest.student
    if got != student:
        raise MobileBilayerError(f"this bundle's student is {got}, the float weights that ship are {student}")
    images, flows = [], []
    for of in drawn:
        for ours, theirs in zip(of.layers, of.float_layers, strict=True):
            images.append(float(psnr(of.composed(ours), of.composed(theirs))))
            flows.append(float((ours.a - theirs.a)[:, :2].abs().mean()) * SIDE_PX / 2)
    return float(np.mean(images)), float(np.mean(flows))


def _compositor(of: Drawn) -> float:
    wanted = torch.cat([of.composed(layers) for layers in of.layers])
    return 255 * float((of.bundle - _tensor(pictures(wanted))).abs().mean())


def _identity(drawn: list[Drawn]) -> float:
    recogniser = Recogniser()
    distances = []
    for of in drawn:
        photo = recogniser.describe(of.source.texture, _pixels(of.source.landmarks))
        for rgb, points in zip(pictures(of.bundle), of.source.poses.values(), strict=False):
            distances.append(identity_distance(recogniser.describe(rgb, _pixels(points)), photo))
    return float(np.mean(distances))


def measure_steadiness(measured: Measured, bundle: Bundle) -> None:
    """A driver that goes straight from frame to frame does not tremble: what does comes from what draws."""
    frames = []
    for name in SAMPLES:
        avatar = bundle.avatar(*sample_photo(name))
        walk = in_steps(torch.from_numpy(open_source(name).walk)).numpy()
        frames.append([avatar.compose(*avatar.layers(points)) for points in walk])
    measured.values["bundle.flicker"] = float(np.mean([flicker(_tensor(of)) for of in frames]))
    measured.add(("bundle.jitter",), lambda: (float(np.mean([_jitter(of) for of in frames])),))


def _jitter(frames: list[np.ndarray]) -> float:
    from mobile_bilayer.capture.landmarker import Landmarker, detect_padded

    with Landmarker(video=False) as landmarker:
        looks = [detect_padded(landmarker, rgb) for rgb in frames]
    found = np.array([look is not None for look in looks])
    return jitter(
        np.stack([np.zeros((478, 3), np.float32) if look is None else look for look in looks]), found, turns=STEPS
    )


def measure_speed(measured: Measured, bundle: Bundle, short: bool) -> None:
    """The full-size teacher's frame, of the student's own and of the tracker's."""
    from executorch.runtime import Runtime

    source = open_source(SAMPLES[0])
    avatar = bundle.avatar(*sample_photo(source.name))
    points = source.poses["mouth wide open"]
    batch = source.batch([points])
    seen = look_at_a_frame(load_teacher()[0], batch["image"], batch["source_points"], batch["points"])
    data = lower_teacher(seen)  # kept: the runtime reads weights where they are
    program = Runtime.get().load_program(data)
    method, inputs = program.load_method("forward"), list(seen.inputs)

    def teacher() -> None:
        method.execute(inputs)

    def keep(name: str, slow: str, quick: str, ratio: Ratio) -> float:
        measured.times_ms = {slow: ratio.slow_ms, quick: ratio.quick_ms} | measured.times_ms
        measured.values[name] = ratio.ratio
        return ratio.ratio

    keep("speed.teacher_over_bundle", "teacher", "bundle", slow_over_quick(teacher, lambda: avatar.layers(points)))
    measured.add(
        ("speed.teacher_over_tracking",),
        lambda: (keep("speed.teacher_over_tracking", "teacher", "tracking", _over_tracking(teacher)),),
    )
    if not short:
        keep("speed.teacher_over_XS", "teacher", "XS", slow_over_quick(teacher, _program_of("XS", source, points)))


def _over_tracking(teacher: Callable[[], object]) -> Ratio:
    """Of a video's tracker that has found its face, shown the sample photo again and again."""
    from mobile_bilayer.capture.landmarker import Landmarker

    rgb, at = sample_photo(SAMPLES[0])[0], 0
    with Landmarker() as landmarker:

        def track() -> None:
            nonlocal at
            at += TRACKED_MS
            landmarker.detect(rgb, at / 1000)

        track()
        return slow_over_quick(teacher, track)


def _program_of(size: str, source: Source, points: np.ndarray) -> Callable[[], object]:
    """A frame of another size's weights, lowered in int8; one example is enough to time it."""
    from executorch.runtime import Runtime

    from mobile_bilayer.export.executorch import lower

    student, _ = load_student(SHIPPED.with_name(f"student-{size}.safetensors"))
    batch = source.batch([points])
    with torch.no_grad():
        code = student.encoder(batch["image"], batch["source_points"])
    inputs = [code.landmark_features, code.map_features, batch["source_points"], batch["points"]]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that one example is few
        data = lower(student, {"render_layers": [tuple(inputs)]}, "int8", methods=("render_layers",)).data
    program = Runtime.get().load_program(data)
    method = program.load_method("render_layers")

    def frame() -> None:
        assert data and program  # kept: the runtime reads weights where they are
        method.execute(inputs)

    return frame


def measure_sizes(measured: Measured, bundle: Bundle) -> None:
    """What is downloaded, and what a frame computes."""
    about = bundle.manifest
    program = bundle.contents[about.program]
    measured.values |= {
        "size.bundle": sum(map(len, bundle.contents.values())),
        "size.program": len(program),
        "size.outside": sum(sum(method.undelegated.values()) for method in read_program(program, bundle.where).methods),
    }
    if about.size in SIZES:
        measured.values["size.macs"] = frame_macs(about.size)
    else:
        measured.why_not["size.macs"] = f"there is no size {about.size}"


@torch.no_grad()
def frame_macs(size: str) -> int:
    """Multiplications of one frame. Doubling sides counts as none, whether an operator does it where it is exported or products."""
    frame = FrameNetwork(SIZES[size])
    features, maps = (
        torch.zeros(1, POINTS, frame.config.features + 3),
        torch.zeros(1, frame.config.frame_widths[1], 32, 32),
    )
    points = torch.zeros(1, POINTS, 2)
    with FlopCounterMode(display=False) as counter:
        frame(features, maps, points, points)
    doubling = {f"FrameNetwork.{name}" for name, module in frame.named_modules() if isinstance(module, Upsample)}
    counts = counter.get_flop_counts()
    return (counter.get_total_flops() - sum(sum(counts.get(name, {}).values()) for name in doubling)) // 2


def measure_teacher(measured: Measured, reference: dict[str, dict[str, np.ndarray]]) -> None:
    """The teacher today, against its own renderings as committed."""
    method = teacher_method(load_teacher()[0])
    values = []
    for name in SAMPLES:
        source = open_source(name)
        today = _tensor(pictures(method(source.batch(list(source.poses.values()))).clamp(-1, 1) / 2 + 0.5))
        values.append(float(psnr(today, _tensor([reference[name][pose] for pose in source.poses])).mean()))
    measured.values["teacher.reference.psnr_db"] = float(np.mean(values))


def _tensor(frames: list[np.ndarray]) -> Tensor:
    """(H, W, 3) uint8 each, to (N, 3, H, W) in [0, 1]."""
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255


def _pixels(landmarks: np.ndarray) -> np.ndarray:
    return (landmarks[:, :2] + 1) * (SIDE_PX / 2)
