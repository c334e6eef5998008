"""A lean student out of one that is not: a run in which its U-Net learns what the other's gives, and what is splatted for it; all else stays.

What a lean one leaves out is a quarter of a frame of S in int8. Encoder and prior stay what they were, bit by bit, and the
layers are asked to be what they were: labels without end, of any pair. Trained anew on real pairs it would draw them as well,
but what they leave open, as hair and shoulders, it would draw in a way of its own: farther from its teacher, by 2 dB.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import default_collate

from mobile_bilayer.capture.images import write_image
from mobile_bilayer.compositing import Layers
from mobile_bilayer.dataset.pairs import Augmentation, Pairs, load_clips, to_tensors
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.student.network import IMAGE_PX, FrameNetwork, Student, StudentConfig, of_targets
from mobile_bilayer.student.resize import resized
from mobile_bilayer.student.weights import load_student, save_student
from mobile_bilayer.teacher import SHIPPED as TEACHER
from mobile_bilayer.training.labels import LabelConfig, write_labels
from mobile_bilayer.training.run import (
    Budget,
    Log,
    batches,
    cosine_rate,
    moving_average,
    read_checkpoint,
    run_steps,
    split,
    write_checkpoint,
)
from mobile_bilayer.training.student import render, validation_batch

LOSSES = ("flow", "shares", "paint", "picture", "steady")
LABEL_LOSSES = ("label_picture",)
EXAMPLES = 8  # sources on which it is found which channels tell most


@dataclass(frozen=True)
class LeanTraining:
    """How a lean student is taught. Losses are L1 against what the one before gives."""

    sources: int = 3  # of a step
    largest_step: float = 0.2  # of the way between two frames; of each source three targets lie behind each other on it
    learning_rate: float = 4e-3  # of the top, which has most to learn
    trunk_rate: float = 1e-3
    warm_up_steps: int = 50
    ema: float = 0.995
    flow: float = 10.0  # where the texture shows through; flow in [-1, 1] across the frame
    shares: float = 1.0  # gate and mask
    paint: float = 1.0  # lf
    picture: float = 4.0  # what is composed, of [-1, 1], mostly in mouth and eyes
    steady: float = 30.0  # flow and a fifth of the picture: by how much the error of the middle one of three is not their mean
    labelled: int = 3  # sources of a step that a teacher has labelled, if there are labels, beside the others
    labels: float = 4.0  # of what is composed, L1 against the teacher's picture, mostly in mouth and eyes
    held_out: int = 8  # identities kept for validation
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("sources", "largest_step", "learning_rate"):
            if getattr(self, name) <= 0:
                raise MobileBilayerError(f"{name} is {getattr(self, name)}; it must be above 0.")


def lean_of(config: StudentConfig) -> StudentConfig:
    """The shape of a student made lean. With one fine code eight channels reach the stem, as many as an int8 product takes at once."""
    return replace(config, lean=True, fine_codes=1)


@torch.no_grad()
def inputs_of(student: Student, batch: dict[str, Tensor]) -> tuple[Tensor, ...]:
    """What a frame network takes of each target of a batch."""
    return of_targets(student.encoder(batch["image"], batch["source_points"]), batch["source_points"], batch["points"])


@torch.no_grad()
def all_given(frame: FrameNetwork, features: Tensor, _: Tensor, source: Tensor, driving: Tensor) -> Tensor:
    """All that could be read of landmarks, splatted at 32 px: (B, n, 32, 32). To read after splatting is as well as before."""
    rows = torch.cat([driving, source - driving, features, source], 2).transpose(1, 2)
    return frame.splat32(frame.given32(rows), rows[:, :2])


@torch.no_grad()
def read_alike(frame: FrameNetwork, whole: FrameNetwork, given: Tensor) -> None:
    """Let a lean network splat at 32 px what tells most of what `whole` reads from `given` (B, n, 32, 32).

    Of S-whole a quarter of the channels holds all but 0.2 % of it, as squares. `resized`, which sees weights alone, loses 3 %.
    """
    read = whole.read(given.flatten(2)).transpose(0, 1).flatten(1)
    _, directions = torch.linalg.eigh(read @ read.T)  # the largest come last
    basis = directions[:, -frame.config.splatted :]
    frame.spread32.weight.copy_(basis)
    frame.read32.weight.copy_(basis.T @ whole.read32.weight)


def in_small_steps(batch: dict[str, Tensor], share: Tensor) -> dict[str, Tensor]:
    """The same batch of `Pairs` with two targets, whose each source has three targets instead: the first, and two behind it.

    share (B,): how far a step goes of the way from the first to the second. Pictures, weights and backgrounds are the first's.
    """
    first, second = batch["points"].unflatten(0, (-1, 2)).unbind(1)
    steps = torch.arange(3.0, device=share.device)[None, :] * share[:, None]
    points = first[:, None] + steps[..., None, None] * (second - first)[:, None]
    of_target = {name: batch[name][::2].repeat_interleave(3, 0) for name in ("target", "background", "weight")}
    return batch | of_target | {"points": points.flatten(0, 1)}


def _bend(error: Tensor) -> Tensor:
    """(B * 3, ..): by how much the middle one of each three is not the mean of the others, (B, ..)."""
    before, middle, after = error.unflatten(0, (-1, 3)).unbind(1)
    return middle - (before + after) / 2


def steady_loss(new: Layers, old: Layers, off: Tensor, batch: dict[str, Tensor], training: LeanTraining) -> Tensor:
    """Of a batch `in_small_steps`: what an error does from frame to frame trembles, however small it is. off: as for `lean_losses`."""
    warped, weight = old.a[1::3, 2:3] * old.a[1::3, 3:4], batch["weight"][1::3]
    flow = ((warped + 0.1) * _bend((new.a - old.a)[:, :2]).abs()).mean()
    picture = (weight * _bend(off).abs()).sum() / weight.sum() / 3
    return training.steady * (flow + 0.2 * picture)


def lean_losses(new: Layers, old: Layers, off: Tensor, batch: dict[str, Tensor], training: LeanTraining) -> dict[str, Tensor]:
    """Each term, weighted; their sum is what falls. off (N, 3, 256, 256): by how much what is composed of `new` is off, in [-1, 1]."""
    warped = old.a[:, 2:3] * old.a[:, 3:4]
    weight = batch["weight"]  # 9 in mouth and eyes, 1 elsewhere, 0 where there is no picture
    return {
        "flow": training.flow * ((warped + 0.1) * (new.a - old.a)[:, :2].abs()).mean(),
        "shares": training.shares * (new.a - old.a)[:, 2:].abs().mean(),
        "paint": training.paint * (new.b - old.b).abs().mean(),
        "picture": training.picture * (weight * off.abs()).sum() / weight.sum() / 3,
    }


def both_layers(lean: FrameNetwork, before: Student, batch: dict[str, Tensor]) -> tuple[Layers, Layers]:
    """What the lean network gives, and what it should give."""
    inputs = inputs_of(before, batch)
    with torch.no_grad():
        old = before.frame(*inputs)
    return lean(*inputs), old


def label_losses(lean: FrameNetwork, before: Student, batch: dict[str, Tensor], training: LeanTraining) -> dict[str, Tensor]:
    """The same of a batch of `Labels`, people driven by others; and what a teacher shows of them."""
    batch = batch | {"points": batch["points"][:, 0]}
    new, old = both_layers(lean, before, batch)
    shown = render(new, batch)
    wrong = (shown - (batch["target"] * 2 - 1)).abs()
    of_teacher = training.labels * (batch["weight"] * wrong).sum() / batch["weight"].sum() / 3
    return {**lean_losses(new, old, shown - render(old, batch), batch, training), "label_picture": of_teacher}


@torch.no_grad()
def validate(lean: FrameNetwork, before: Student, batch: dict[str, Tensor]) -> tuple[dict[str, float], np.ndarray]:
    """How far apart the two are: PSNR of pictures in dB, flow in pixels of 256, on average; and a sheet: source, before, now, error."""
    new, old = both_layers(lean, before, batch)
    pictures = [((render(layers, batch) + 1) / 2).clamp(0, 1) for layers in (old, new)]
    error = pictures[1] - pictures[0]
    metrics = {
        "psnr_db": float(-10 * torch.log10(error.square().mean())),
        "flow_px": float((new.a - old.a)[:, :2].norm(dim=1).mean()) * IMAGE_PX / 2,
        "paint_l1": float((new.b - old.b).abs().mean()) / 2,
    }
    columns = [batch["image"], *pictures, (error.abs().mean(1, keepdim=True) * 8).clamp(0, 1).expand(-1, 3, -1, -1)]
    sheet = torch.cat([torch.cat(list(c[:12]), 1) for c in columns], 2)
    rgb = (sheet.permute(1, 2, 0) * 255).round().byte().cpu().numpy()
    return metrics, cv2.resize(rgb, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)


def train_lean(
    prepared: Path,
    out: Path,
    start: Path,
    training: LeanTraining,
    steps: int | None = None,
    minutes: float | None = None,
    begin: Path | None = None,
    teacher: Path | None = None,
    labels: int = 0,
    workers: int = 1,
    save_every_s: float = 300,
    progress: Callable[[], AbstractContextManager] = nullcontext,
) -> Path:
    """Train until `steps` or `minutes` of training are reached, in all calls together; return the weights' path.

    start    weights of a student that is not lean, or not as lean as `lean_of`
    begin    weights of a lean one to begin with, of a run before; None: the nearest to `start`
    teacher  whose pictures are learned too: weights of a `LandmarkTeacher`, or of a student; None: the shipped teacher
    labels   how many it renders before training, into `out`; 0: none
    progress opened while they are made; gives `on_progress(what, done, total)` or None
    out      gets what `train_student` writes; the weights keep the facts of `start`, and have those of this run beside them
    """
    budget = Budget(steps, minutes)
    torch.set_flush_denormal(True)
    fabric = Fabric(accelerator="auto", devices=1)
    fabric.seed_everything(training.seed, verbose=False)
    before, facts = load_student(start)
    before.eval().requires_grad_(False)
    config = lean_of(before.config)
    if config == before.config or before.config.paint_width:
        raise MobileBilayerError(f"{start} is of a student that is lean already, or paints at 128 px: it can't be made lean.")
    student = resized(before, config).eval().requires_grad_(False)
    if begin is not None:
        student, facts = load_student(begin)
        if student.config != config or not all(map(torch.equal, before.encoder.parameters(), student.encoder.parameters())):
            raise MobileBilayerError(f"{begin} is not a lean student made out of {start}. Give one that is, or leave it out.")
        student = student.eval().requires_grad_(False)
    legs = facts.get("lean", [])
    clips, held = split(load_clips(prepared), training.held_out)
    out.mkdir(parents=True, exist_ok=True)
    made = None
    if labels:
        with progress() as on_progress:
            made = write_labels(clips, teacher or TEACHER, out, LabelConfig(labels, seed=training.seed), on_progress)
    before = fabric.to_device(before)
    data = Pairs(clips, 2, Augmentation(), training.seed)
    if begin is None and not before.config.lean:
        examples = to_tensors(default_collate([data[i] for i in range(EXAMPLES)]))
        read_alike(student.frame, before.frame, all_given(before.frame, *inputs_of(before, fabric.to_device(examples))))
    frame = student.frame
    top = nn.ModuleList([frame.top, frame.heads, frame.read32, frame.spread32, nn.ParameterList([frame.fine_codes])])
    learning = nn.ModuleList([top, frame.trunk]).requires_grad_(True)
    groups = [{"params": part.parameters(), "rate": rate} for part, rate in ((top, training.learning_rate), (frame.trunk, training.trunk_rate))]
    optimizer = torch.optim.Adam(groups, betas=(0.9, 0.99))
    fabric.to_device(student)
    optimizer = fabric.setup_optimizers(optimizer)
    average = AveragedModel(student, multi_avg_fn=moving_average(training.ema), use_buffers=True)
    begun = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (start, begin or start)]
    settings = json.dumps({"start": begun, "training": asdict(training), "labels": made.mark if made else None})
    checkpoint = out / "checkpoint.pt"
    if state := read_checkpoint(checkpoint, settings, fabric.device):
        student.load_state_dict(state["student"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        budget.step, budget.elapsed_s = state["step"], state["elapsed_s"]
    log = Log(out, budget.step)
    seen = fabric.to_device(validation_batch(held, 40, training.seed))

    def save() -> dict[str, float]:
        metrics, sheet = validate(average.module.frame, before, seen)
        state = {
            "settings": settings,
            "student": student.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": budget.step,
            "elapsed_s": budget.elapsed_s,
        }
        write_checkpoint(checkpoint, state)
        run = {
            "steps": budget.step,
            "pairs": budget.step * training.sources * 3,
            "minutes": round(budget.elapsed_s / 60, 1),
            "clips": len(clips),
            "identities": len({c.identity for c in clips}),
            "training": asdict(training),
            "labels": labels,
            "validation": metrics,
        }
        save_student(average.module, out / "student.safetensors", facts | {"lean": [*legs, run]})
        write_image(out / f"sheet-{budget.step:06d}.png", sheet)
        return metrics

    stream = batches(data, budget.step, training.sources, workers, fabric)

    def take_step(done: float) -> dict[str, Tensor]:
        for group in optimizer.param_groups:
            group["lr"] = group["rate"] * cosine_rate(done, budget.step, training.warm_up_steps)
        generator = torch.Generator().manual_seed(training.seed + budget.step)
        share = training.largest_step * torch.rand(training.sources, generator=generator)
        batch = in_small_steps(next(stream), share.to(fabric.device))
        new, old = both_layers(frame, before, batch)
        off = render(new, batch) - render(old, batch)
        terms = lean_losses(new, old, off, batch, training) | {"steady": steady_loss(new, old, off, batch, training)}
        if made is not None:
            chosen = np.random.default_rng([training.seed, budget.step, 1]).integers(len(made), size=training.labelled)
            more = label_losses(frame, before, made.batch(chosen, fabric.device), training)
            terms |= {name: terms.get(name, 0.0) + term for name, term in more.items()}
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(torch.stack(list(terms.values())).sum())
        norm = torch.nn.utils.clip_grad_norm_(learning.parameters(), 1.0)
        if torch.isfinite(norm):
            optimizer.step()
            average.update_parameters(student)
        return terms

    names = LOSSES + (LABEL_LOSSES if made is not None else ())
    run_steps(budget, log, names, take_step, save, save_every_s)
    return out / "student.safetensors"
