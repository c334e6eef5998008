"""A lean student out of one that is not: a run in which its U-Net learns what the other's gives, and what it reads at 32 px; all else stays.

What a lean one leaves out is a quarter of a frame of S in int8. Encoder, codes and prior stay what they were, bit by bit, and the
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
from mobile_bilayer.student.network import IMAGE_PX, FrameNetwork, Student
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


class Beneath(nn.Module):
    """All of a frame network that lies beneath its U-Net: what it hands over, and what the whole makes of that."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = student.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, batch: dict[str, Tensor]) -> tuple[tuple[Tensor, ...], Layers]:
        """What `layers_of` takes beside a network, and its layers: what the trunk reads at 64 px, all that could be read at 32,
        splatted (B, n, 32, 32), the encoder's map features, prior and colours."""
        times = len(batch["points"]) // len(batch["image"])
        code = self.student.encoder(batch["image"], batch["source_points"])
        features, maps, source = (x.repeat_interleave(times, 0) for x in (*code[:2], batch["source_points"]))
        driving, frame, seen = batch["points"], self.student.frame, []
        hook = frame.trunk.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        x64, prior, colours = frame.look(features, maps, source, driving)
        hook.remove()
        rows = torch.cat([driving, source - driving, features, source], 2).transpose(1, 2)
        given = frame.splat32(frame.given32(rows), rows[:, :2])
        return (seen[0], given, frame.map_gain(maps), prior, colours), frame.paint_from(x64, prior, colours)[0]


def layers_of(frame: FrameNetwork, fine: Tensor, given: Tensor, maps: Tensor, prior: Tensor, colours: Tensor) -> Layers:
    """What a network's U-Net makes of what lies beneath it. To read after splatting is as well: both are linear."""
    coarse = frame.spread(frame.read(given.flatten(2)).unflatten(2, given.shape[2:]))
    return frame.paint_from(frame.top(*frame.trunk(fine, coarse + maps)), prior, colours)[0]


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


def label_losses(frame: FrameNetwork, beneath: Beneath, batch: dict[str, Tensor], training: LeanTraining) -> dict[str, Tensor]:
    """The same of a batch of `Labels`, people driven by others; and what a teacher shows of them."""
    batch = batch | {"points": batch["points"][:, 0]}
    given, old = beneath(batch)
    new = layers_of(frame, *given)
    shown = render(new, batch)
    wrong = (shown - (batch["target"] * 2 - 1)).abs()
    of_teacher = training.labels * (batch["weight"] * wrong).sum() / batch["weight"].sum() / 3
    return {**lean_losses(new, old, shown - render(old, batch), batch, training), "label_picture": of_teacher}


@torch.no_grad()
def validate(frame: FrameNetwork, beneath: Beneath, batch: dict[str, Tensor]) -> tuple[dict[str, float], np.ndarray]:
    """How far apart the two are: PSNR of pictures in dB, flow in pixels of 256, on average; and a sheet: source, before, now, error."""
    given, old = beneath(batch)
    new = layers_of(frame, *given)
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

    start    weights of a student that is not lean
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
    if before.config.lean or before.config.paint_width:
        raise MobileBilayerError(f"{start} is of a student that is lean already, or paints at 128 px: it can't be made lean.")
    student = resized(before, replace(before.config, lean=True)).eval().requires_grad_(False)
    legs = []
    if begin is not None:
        student, facts = load_student(begin)
        if student.config != replace(before.config, lean=True) or not all(map(torch.equal, before.encoder.parameters(), student.encoder.parameters())):
            raise MobileBilayerError(f"{begin} is not a lean student made out of {start}. Give one that is, or leave it out.")
        student, legs = student.eval().requires_grad_(False), facts.get("lean", [])
    clips, held = split(load_clips(prepared), training.held_out)
    out.mkdir(parents=True, exist_ok=True)
    made = None
    if labels:
        with progress() as on_progress:
            made = write_labels(clips, teacher or TEACHER, out, LabelConfig(labels, seed=training.seed), on_progress)
    beneath = fabric.to_device(Beneath(before))
    data = Pairs(clips, 2, Augmentation(), training.seed)
    if begin is None:
        examples = to_tensors(default_collate([data[i] for i in range(EXAMPLES)]))
        read_alike(student.frame, before.frame, beneath(fabric.to_device(examples))[0][1])
    frame = student.frame
    top, trunk = nn.ModuleList([frame.top, frame.heads, frame.read32, frame.spread32]), frame.trunk
    learning = nn.ModuleList([top, trunk]).requires_grad_(True)
    groups = [{"params": part.parameters(), "rate": rate} for part, rate in ((top, training.learning_rate), (trunk, training.trunk_rate))]
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
        metrics, sheet = validate(average.module.frame, beneath, seen)
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
        given, old = beneath(batch)
        new = layers_of(frame, *given)
        off = render(new, batch) - render(old, batch)
        terms = lean_losses(new, old, off, batch, training) | {"steady": steady_loss(new, old, off, batch, training)}
        if made is not None:
            chosen = np.random.default_rng([training.seed, budget.step, 1]).integers(len(made), size=training.labelled)
            more = label_losses(frame, beneath, made.batch(chosen, fabric.device), training)
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
