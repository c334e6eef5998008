"""What is measured: everything that renders a source's later frames."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from mobile_bilayer.background import fill_behind
from mobile_bilayer.compositing import Layers, composite
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.paths import shortest_ends
from mobile_bilayer.runtime.bundle import Bundle, bundle_title, shipped_bundle
from mobile_bilayer.student.network import Student, landmark_warp, size_of
from mobile_bilayer.student.weights import load_student
from mobile_bilayer.teacher import load_teacher
from mobile_bilayer.teacher.landmark import LandmarkTeacher

WEIGHTS = ".safetensors"  # what student weights end in; all else is a bundle
Method = Callable[[dict[str, Tensor]], Tensor]
"""One source and N driving frames in, frames (N, 3, 256, 256) in [-1, 1] out.

Of `to_tensors`' batch it may use the source, which is `image` and `source_points`, and what a driver gives, `points`.
"""


@dataclass(frozen=True)
class Measured:
    """A method, what its row is called, and what made its renders."""

    name: str
    method: Method
    made_by: str


def static_photo(batch: dict[str, Tensor]) -> Tensor:
    """The method that does nothing."""
    return (batch["image"] * 2 - 1).expand(len(batch["points"]), -1, -1, -1)


def warp_method(batch: dict[str, Tensor]) -> Tensor:
    """The landmark warp, in which nothing is learned."""
    return landmark_warp(static_photo(batch), batch["source_points"], batch["points"])


def student_method(student: Bundle | Student) -> Method:
    """A bundle's program, as a phone runs it, or a float student; the background is the source's own, inpainted."""

    def run(name: str, *inputs: Tensor) -> list[Tensor]:
        """A bundle's method or the student's own, which are the same functions."""
        if isinstance(student, Bundle):
            return [torch.from_numpy(x) for x in student.program.run(name, *(x.numpy() for x in inputs))]
        return list({"encode_avatar": student.encoder, "render_layers": student.frame}[name](*inputs))

    @torch.no_grad()
    def method(batch: dict[str, Tensor]) -> Tensor:
        image, source = batch["image"], batch["source_points"]
        features, maps, alpha = run("encode_avatar", image, source)
        background = _behind(image, alpha.numpy())
        out = []
        for points in batch["points"]:  # one at a time, as they are used
            layers = Layers(*run("render_layers", features, maps, source, points[None]))
            out.append(composite(image * 2 - 1, background, layers))
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


def open_students(paths: Sequence[Path | None]) -> list[Measured]:
    """Students to measure: weights that `train student` wrote, bundles (a folder or a zip), and None: the shipped bundle.

    Rows are called by size and precision, as "S int8", and weights of a shape without a name by their file; where that names
    several, by what differs in their paths too.
    """
    if len({None if path is None else path.resolve() for path in paths}) < len(paths):
        raise MobileBilayerError("A student was given twice. Give each one once.")
    ends = iter(shortest_ends([path for path in paths if path and path.suffix == WEIGHTS], least=2))
    opened = [_open_student(path, next(ends) if path and path.suffix == WEIGHTS else "") for path in paths]
    names = _told_apart([student.name for student in opened], paths)
    return [Measured(name, student.method, student.made_by) for name, student in zip(names, opened, strict=True)]


def open_teacher(path: Path) -> Measured:
    """A teacher that starts from the landmark warp."""
    teacher, facts = load_teacher(path)
    if teacher.config.prior != "landmark":
        raise MobileBilayerError(
            f"{path} is a teacher with the prior {teacher.config.prior!r}; only those with the prior landmark are "
            "measured here. Give one of them."
        )
    return Measured("teacher", teacher_method(teacher), f"{path.name}, {facts.get('steps')} steps")


def _open_student(path: Path | None, end: str) -> Measured:
    """end: of weights the end of their path, which no other weights share."""
    if path is not None and path.suffix == WEIGHTS:
        student, facts = load_student(path)
        name = f"{size_of(student.config) or path.stem} float"
        return Measured(name, student_method(student), f"{end}, {facts.get('steps')} steps")
    path = path or shipped_bundle()
    bundle = Bundle.open(path)
    about = bundle.manifest
    return Measured(f"{about.size} {about.precision}", student_method(bundle), bundle_title(path))


def _told_apart(names: Sequence[str], paths: Sequence[Path | None]) -> list[str]:
    """Names, and behind those that are there more than once what differs in their paths.

    That is the last part that no two of them share; or where there is none, the shortest ends that differ.
    """
    out = list(names)
    for name in set(names):
        places = [i for i, other in enumerate(names) if other == name]
        if len(places) == 1:
            continue
        # None, the shipped one, is a path of a word; a shorter path has fewer parts: all of it is taken.
        short = [Path("shipped") if (path := paths[i]) is None else _without_suffix(path.resolve()) for i in places]
        depth = max(len(path.parts) for path in short)
        candidates = [[p.parts[-k] if k <= len(p.parts) else str(p) for p in short] for k in range(1, depth + 1)]
        candidates += [["/".join(p.parts[-k:]) for p in short] for k in range(2, depth + 1)]
        words = next(words for words in candidates if len(set(words)) == len(words))
        for i, word in zip(places, words, strict=True):
            out[i] = f"{name} {word}"
    return out


def _without_suffix(path: Path) -> Path:
    """A folder may be called S-0.5: only what all weights end in says nothing."""
    return path.with_suffix("") if path.suffix == WEIGHTS else path


def _behind(image: Tensor, alpha: np.ndarray) -> Tensor:
    """The source (1, 3, 256, 256) in [0, 1] without the person, whose alpha is (1, 1, h, h): the same in [-1, 1]."""
    full = cv2.resize(alpha[0, 0].clip(0, 1), (256, 256), interpolation=cv2.INTER_LINEAR)
    behind = fill_behind(pictures(image)[0], full)
    return torch.from_numpy(behind).permute(2, 0, 1)[None].float() / 127.5 - 1


def pictures(frames: Tensor) -> list[np.ndarray]:
    """(N, 3, H, W) in [0, 1] to N of (H, W, 3) uint8 RGB. NaN, which no screen can show, is black."""
    rounded = (frames.nan_to_num(0) * 255).round().byte()
    return [np.ascontiguousarray(rgb) for rgb in rounded.permute(0, 2, 3, 1).numpy()]
