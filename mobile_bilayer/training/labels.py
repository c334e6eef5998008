"""What only a teacher can show: one person's picture, moved by another. Rendered once, learned from many times.

Real pairs show a person as that person moves. In use somebody else drives, so a student also learns from its teacher's
renders of photos and tracks that never met, with faces that do more than their driver did.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from mobile_bilayer.capture.images import written_aside
from mobile_bilayer.compositing import composite
from mobile_bilayer.dataset.pairs import PreparedClip, crop_picture, mouth_and_eyes
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.head import HeadPose, Motion, network_points, take_apart
from mobile_bilayer.pose.neutral import Neutral
from mobile_bilayer.pose.retarget import Retargeter
from mobile_bilayer.student.network import Student
from mobile_bilayer.student.weights import load_student
from mobile_bilayer.teacher.landmark import LandmarkTeacher
from mobile_bilayer.teacher.weights import load_teacher
from mobile_bilayer.weights import read_config

SHARD = 50  # labels in a file
FORMAT = 2  # of what is in it
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class LabelConfig:
    """Which pairs are labelled.

    exaggeration  largest factor on the driver's change of expression; drawn from 1 / it .. it
    turn          standard deviation of what is added to the driver's yaw and pitch, degrees
    near          how far the second driving frame is from the first, of the way to another one
    """

    count: int = 400
    exaggeration: float = 1.5
    turn: float = 5.0
    near: float = 0.15
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 < self.near <= 1 or self.exaggeration < 1 or self.turn < 0:
            raise MobileBilayerError(
                f"count is {self.count}, near {self.near}, exaggeration {self.exaggeration}, turn {self.turn}; they must be "
                "at least 1, in (0, 1], at least 1 and at least 0."
            )


class CrossPairs:
    """Endless examples: a source, and another person's motion put on it. Example `index` depends on clips, config and index."""

    def __init__(self, clips: list[PreparedClip], config: LabelConfig) -> None:
        self.clips, self.config = clips, config
        self.drivers = [clip for clip in clips if len(clip) > 4 and not clip.photos]
        if not self.drivers or len({clip.identity for clip in clips}) < 2:
            raise MobileBilayerError(
                "To drive one person with another, the prepared clips must show two people or more, one in a video of 5 "
                "frames or more."
            )
        self._neutral: dict[str, Motion] = {}

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """image, background (256, 256, 3) uint8; source_points (K, 2), points (2, K, 2): two moments close together."""
        rng = np.random.default_rng([self.config.seed, index, 3])
        driver = self.drivers[rng.integers(len(self.drivers))]
        others = [clip for clip in self.clips if clip.identity != driver.identity]
        source = others[rng.integers(len(others))]
        frame = int(rng.integers(len(source)))
        image, background, landmarks = crop_picture(source, frame)
        put = Retargeter(landmarks, self.neutral(driver))
        first, second = (self._motion(driver, rng) for _ in range(2))
        moved = put(first)
        near = moved + self.config.near * (put(second) - moved)
        return {
            "image": image,
            "background": background,
            "source_points": network_points(landmarks),
            "points": np.stack([network_points(moved), network_points(near)]),
        }

    def neutral(self, clip: PreparedClip) -> Motion:
        """What of a driver means "as in the photo"."""
        if clip.name not in self._neutral:
            neutral = Neutral()
            for landmarks in clip.landmarks:
                neutral.add(take_apart(landmarks), 1.0)
            self._neutral[clip.name] = neutral.motion
        return self._neutral[clip.name]

    def _motion(self, clip: PreparedClip, rng: np.random.Generator) -> Motion:
        """One of the driver's frames, the likelier the more it does; expression and turn varied."""
        distance = np.abs(clip.pose - np.median(clip.pose, 0)).mean(1) + 1e-9
        pose, face = take_apart(clip.landmarks[rng.choice(len(clip), p=distance / distance.sum())])
        rest = self.neutral(clip).face
        face = rest + self.config.exaggeration ** rng.uniform(-1, 1) * (face - rest)
        (yaw, pitch) = np.radians(self.config.turn) * rng.normal(size=2)
        (s, c), (t, d) = (np.sin(yaw), np.cos(yaw)), (np.sin(pitch), np.cos(pitch))
        turn = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]]) @ np.array([[1, 0, 0], [0, d, -t], [0, t, d]])
        return Motion(HeadPose(pose.scale, turn @ pose.rotation, pose.shift), face)


def load_labeller(path: Path) -> LandmarkTeacher | Student:
    """A teacher with the landmark prior, or a student, which may teach a smaller one."""
    if "frame_widths" in read_config(path):
        return load_student(path)[0]
    teacher, _ = load_teacher(path)
    if not isinstance(teacher, LandmarkTeacher):
        raise MobileBilayerError(f"{path} is a teacher without the landmark prior; it can't teach a student. Give one with it.")
    return teacher


@torch.no_grad()
def label(teacher: LandmarkTeacher | Student, image: Tensor, background: Tensor, source: Tensor, driving: Tensor) -> dict[str, Tensor]:
    """What the teacher makes of one example.

    image, background  (1, 3, 256, 256) in [0, 1]; source, driving (1, K, 2)
    returns            target (1, 3, 256, 256) in [-1, 1], and its flow, gate and mask, a (1, 4, 64, 64)
    """
    behind = background * 2 - 1
    if isinstance(teacher, Student):
        layers, _, _ = teacher(image, source, driving)
        texture = image * 2 - 1
    else:
        avatar, frame = teacher(image, source, driving, behind)
        layers, texture = frame.layers, avatar.texture
    return {"target": composite(texture, behind, layers).clamp(-1, 1), "a": F.interpolate(layers.a, size=64, mode="area")}


class Labels:
    """Labelled examples in memory, as `write_labels` leaves them in a folder."""

    def __init__(self, paths: list[Path], mark: str = "") -> None:
        self.mark = mark  # of what they were made
        parts = []
        for path in paths:
            with safe_open(path, "pt") as file:
                parts.append({name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 (not a dict)
        self.tensors = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    def __len__(self) -> int:
        return len(self.tensors["image"])

    def batch(self, indices: np.ndarray, device: torch.device) -> dict[str, Tensor]:
        """Pictures (B, 3, 256, 256) in [0, 1], `target` too; points (B, 2, K, 2); weight (B, 1, 256, 256) of the first ones."""
        out = {}
        for name, value in self.tensors.items():
            value = value[torch.from_numpy(indices)].to(device)
            out[name] = value.permute(0, 3, 1, 2).float() / 255 if value.dtype == torch.uint8 else value.float()
        first = out["points"][:, 0].cpu().numpy()
        weight = np.stack([1 + 8.0 * mouth_and_eyes(points) for points in first])
        out["weight"] = torch.from_numpy(weight).float()[:, None].to(device)
        return out


def write_labels(
    prepared: list[PreparedClip], weights: Path, out: Path, config: LabelConfig, on_progress: Progress | None = None
) -> Labels:
    """Let the teacher of `weights` render `config.count` examples into `out`; what is there already is kept.

    A file is of these clips, this teacher and these settings, or it is another file.
    """
    teacher = load_labeller(weights)
    pairs = CrossPairs(prepared, config)
    settings = repr((FORMAT, asdict(config) | {"count": 0})).encode()
    what = [weights.read_bytes(), settings, *(c.name.encode() + c.landmarks.tobytes() for c in prepared)]
    mark = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in what)).hexdigest()[:12]
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MobileBilayerError(f"The folder {out} can't be made ({error}). Choose another --output.") from error
    paths = []
    for begin in range(0, config.count, SHARD):
        end = min(begin + SHARD, config.count)
        path = out / f"labels-{mark}-{begin:05d}-{end:05d}.safetensors"
        paths.append(path)
        if _whole(path):
            continue
        rows: list[dict[str, Tensor]] = []
        for index in range(begin, end):
            example = {name: torch.from_numpy(value) for name, value in pairs[index].items()}
            image, background = (example[name].permute(2, 0, 1)[None].float() / 255 for name in ("image", "background"))
            made = label(teacher, image, background, example["source_points"][None], example["points"][:1])
            target = ((made["target"][0].permute(1, 2, 0) + 1) * 127.5).round().byte()
            rows.append(example | {"target": target, "a": made["a"][0].half()})
            if on_progress:
                on_progress("Labelling", index + 1, config.count)
        tensors = {name: torch.stack([row[name] for row in rows]).contiguous() for name in rows[0]}
        with written_aside(path) as aside:
            aside.write_bytes(save(tensors))
    return Labels(paths, f"{mark}-{config.count}")


def _whole(path: Path) -> bool:
    try:
        with safe_open(path, "pt") as file:
            return bool(list(file.keys()))
    except (OSError, SafetensorError):
        return False
