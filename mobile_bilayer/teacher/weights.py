"""Teacher weights as safetensors: the config as JSON in the header.

In fp16 values of one dimension (biases, batch norm) stay float32, as in a student's file: a running mean much larger
than its deviation would lose too much.
"""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.teacher.config import TeacherConfig
from mobile_bilayer.teacher.landmark import LandmarkTeacher
from mobile_bilayer.teacher.teacher import Teacher

KINDS = {"none": Teacher, "landmark": LandmarkTeacher}  # by TeacherConfig.prior
_COUNTER = "num_batches_tracked"  # of batch norm: only training counts


def check_weights_output(path: Path) -> Path:
    """`path`, when weights can be written there. Call it before long work."""
    from mobile_bilayer.capture.images import check_output

    return check_output(path, (".safetensors",))


def save_teacher(teacher: Teacher, path: Path, facts: dict[str, object], dtype: torch.dtype = torch.float32) -> None:
    """Write weights; `facts` (where they come from, steps, metrics) go to the header.

    dtype  torch.float32, which keeps every value, or torch.float16
    """
    from mobile_bilayer.capture.images import written_aside

    assert dtype in (torch.float32, torch.float16)
    path = check_weights_output(path)
    tensors = {
        name: value.detach().cpu().to(dtype if value.ndim > 1 else torch.float32).contiguous()
        for name, value in teacher.state_dict().items()
        if not name.endswith(_COUNTER)
    }
    broken = [name for name, value in tensors.items() if not value.isfinite().all()]
    if broken:
        kind = str(dtype).removeprefix("torch.")
        advice = "Save float32." if dtype == torch.float16 else "Train with a lower learning rate."
        raise MobileBilayerError(
            f"Weights that are not finite in {kind} can't be saved: {', '.join(broken[:3])}. {advice}"
        )
    header = {"config": json.dumps(asdict(teacher.config)), "facts": json.dumps(facts)}
    try:
        with written_aside(path) as aside:
            aside.write_bytes(save(tensors, header))
    except OSError as error:
        raise MobileBilayerError(
            f"{path} could not be written ({error}). Free some space, or write elsewhere."
        ) from error


def load_teacher(path: Path) -> tuple[Teacher, dict[str, object]]:
    """The teacher in evaluation mode (float32), and the facts it was saved with."""
    path = Path(path)
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (not a dict)
        values, facts = json.loads(header["config"]), json.loads(header["facts"])
        unknown = set(dict(values)) - {f.name for f in fields(TeacherConfig)}
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise MobileBilayerError(
            f"{path} can't be read as teacher weights ({error}). `mobile-bilayer teacher import` writes such a file."
        ) from error
    if unknown:
        raise MobileBilayerError(
            f"{path} has settings that this version does not know: {', '.join(sorted(unknown))}. "
            "Update mobile_bilayer, or make the file again."
        )
    try:
        return filled(TeacherConfig(**values), tensors).eval(), facts
    except (MobileBilayerError, RuntimeError, TypeError) as error:  # a bad value, or tensors of another shape
        raise MobileBilayerError(f"{path} does not fit its own config: {error} Make it again.") from error


def filled(config: TeacherConfig, tensors: dict[str, Tensor]) -> Teacher:
    """A teacher with these values. Batch norm's counters may be missing; nothing else may."""
    with torch.random.fork_rng(devices=[]):  # loading changes nobody's random numbers
        teacher = KINDS[config.prior](config)
    counters = {name: value for name, value in teacher.state_dict().items() if name.endswith(_COUNTER)}
    teacher.load_state_dict(counters | tensors)
    return teacher
