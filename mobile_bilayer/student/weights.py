"""Student weights as safetensors: the config as JSON in the header.

Values are fp16; those of one dimension (biases, batch norm) stay float32: they are 1 % of the file, and a running
mean much larger than its deviation would lose too much.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from mobile_bilayer.capture.images import written_aside
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.student.network import Student, StudentConfig


def save_student(student: Student, path: Path, facts: dict[str, object]) -> None:
    """Write weights; `facts` (steps, data, metrics) go to the header, for the model card."""
    tensors = {
        name: value.detach().cpu().to(torch.float16 if value.ndim > 1 else torch.float32).contiguous()
        for name, value in student.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    broken = [name for name, value in tensors.items() if not value.isfinite().all()]
    if broken:
        raise MobileBilayerError(
            f"Weights that are not finite in fp16 can't be saved: {', '.join(broken[:3])}. "
            "Train with a lower learning rate."
        )
    header = {"config": json.dumps(asdict(student.config)), "facts": json.dumps(facts)}
    try:
        with written_aside(path) as aside:
            aside.write_bytes(save(tensors, header))
    except OSError as error:
        raise MobileBilayerError(
            f"{path} could not be written ({error}). Free some space, or write elsewhere."
        ) from error


def load_student(path: Path) -> tuple[Student, dict[str, object]]:
    """The student in evaluation mode (float32), and the facts it was saved with."""
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        values, facts = json.loads(header["config"]), json.loads(header["facts"])
        unknown = set(dict(values)) - {f.name for f in fields(StudentConfig)}
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise MobileBilayerError(
            f"{path} can't be read as student weights ({error}). `mobile-bilayer train student` writes such a file."
        ) from error
    if unknown:
        raise MobileBilayerError(
            f"{path} has settings that this version does not know: {', '.join(sorted(unknown))}. "
            "Update mobile_bilayer, or train again."
        )
    try:
        student = Student(StudentConfig(**values))
        missing, left_over = student.load_state_dict({k: v.float() for k, v in tensors.items()}, strict=False)
    except (MobileBilayerError, RuntimeError, TypeError) as error:  # a bad value, or tensors of another shape
        raise MobileBilayerError(f"{path} does not fit its own config: {error} Train again.") from error
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
    if missing or left_over:
        raise MobileBilayerError(
            f"{path} does not fit its own config: missing {missing[:3]}, left over {left_over[:3]}. Train again."
        )
    return student.eval(), facts
