"""Teacher weights out and in, of both kinds of teachers."""

from __future__ import annotations

from pathlib import Path

import torch

from mobile_bilayer.teacher.config import TeacherConfig
from mobile_bilayer.teacher.landmark import LandmarkTeacher
from mobile_bilayer.teacher.teacher import Teacher
from mobile_bilayer.weights import load_weights, save_weights

SHIPPED = Path(__file__).parents[1] / "assets" / "teacher.safetensors"  # its card: TEACHER_CARD.md beside it
KINDS = {"none": Teacher, "landmark": LandmarkTeacher}  # by TeacherConfig.prior


def make_teacher(config: TeacherConfig) -> Teacher | LandmarkTeacher:
    """With random weights."""
    return KINDS[config.prior](config)


def check_weights_output(path: Path) -> Path:
    """`path`, when weights can be written there. Call it before long work."""
    from mobile_bilayer.capture.images import check_output

    return check_output(path, (".safetensors",))


def save_teacher(
    teacher: Teacher | LandmarkTeacher, path: Path, facts: dict[str, object], dtype: torch.dtype = torch.float32
) -> None:
    """Write weights; `facts` (where they come from, steps, metrics) go to the header.

    dtype  torch.float32, which keeps every value, or torch.float16
    """
    save_weights(teacher, check_weights_output(Path(path)), facts, dtype)


def load_teacher(path: Path = SHIPPED) -> tuple[Teacher | LandmarkTeacher, dict[str, object]]:
    """The teacher in evaluation mode (float32), and the facts it was saved with."""
    return load_weights(Path(path), "teacher", "mobile-bilayer train teacher", TeacherConfig, make_teacher)
