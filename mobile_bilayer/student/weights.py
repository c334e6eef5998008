"""Student weights out and in: fp16."""

from __future__ import annotations

from pathlib import Path

import torch

from mobile_bilayer.student.network import Student, StudentConfig
from mobile_bilayer.weights import load_weights, save_weights

SHIPPED = Path(__file__).parents[1] / "assets" / "student-S.safetensors"


def save_student(student: Student, path: Path, facts: dict[str, object]) -> None:
    """Write weights; `facts` (steps, data, metrics) go to the header, for the model card."""
    save_weights(student, path, facts, torch.float16)


def load_student(path: Path = SHIPPED) -> tuple[Student, dict[str, object]]:
    """The student in evaluation mode (float32), and the facts it was saved with."""
    return load_weights(Path(path), "student", "mobile-bilayer train student", StudentConfig, Student)
