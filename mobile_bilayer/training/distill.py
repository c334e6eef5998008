"""Distil a teacher into a student: real pairs, and what the teacher makes of pairs that nobody has filmed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from mobile_bilayer.dataset.pairs import load_clips
from mobile_bilayer.student.network import StudentConfig
from mobile_bilayer.student.resize import resized
from mobile_bilayer.student.weights import SHIPPED as STUDENT
from mobile_bilayer.student.weights import load_student
from mobile_bilayer.teacher.weights import SHIPPED as TEACHER
from mobile_bilayer.training.labels import LabelConfig, write_labels
from mobile_bilayer.training.run import Budget, split
from mobile_bilayer.training.student import TrainingConfig, train_student


def distill(
    prepared: Path,
    out: Path,
    config: StudentConfig,
    teacher: Path | None = None,
    start: Path | None = None,
    labels: int = 400,
    rate: float = 1e-3,
    outside: float = 0.0,
    steps: int | None = None,
    minutes: float | None = None,
    workers: int = 1,
    seed: int = 0,
    progress: Callable[[], AbstractContextManager] = nullcontext,
) -> Path:
    """Label, then train as `train_student` does; return the weights' path.

    teacher  weights of a `LandmarkTeacher`, or of a larger student; None: the shipped teacher
    start    weights of a student of any size; None: the shipped student
    progress  opened while labels are made; gives `on_progress(what, done, total)` or None
    outside  as in `TrainingConfig`
    labels   how many pairs the teacher renders before training, into `out`; those of people kept for validation are none
    """
    Budget(steps, minutes)  # does it have an end?
    training = TrainingConfig(sources=3, learning_rate=rate, outside=outside, seed=seed)
    clips, _ = split(load_clips(prepared), training.held_out)
    resized(load_student(start or STUDENT)[0], config)  # does it fit? Labels take minutes
    with progress() as on_progress:
        made = write_labels(clips, teacher or TEACHER, out, LabelConfig(labels, seed=seed), on_progress)
    return train_student(
        prepared, out, config, training, steps=steps, minutes=minutes, start=start or STUDENT, labels=made, workers=workers
    )
