"""Train a student on prepared clips: pairs of frames of one person."""

from __future__ import annotations

import csv
import json
import math
import pickle
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, default_collate

from mobile_bilayer.capture.images import write_image
from mobile_bilayer.compositing import Layers, composite
from mobile_bilayer.dataset.pairs import (
    NO_AUGMENTATION,
    Augmentation,
    PairBatches,
    Pairs,
    PreparedClip,
    load_clips,
    make_example,
    to_tensors,
)
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.perceptual import Lpips
from mobile_bilayer.student.network import Student, StudentConfig
from mobile_bilayer.student.weights import load_student, save_student


@dataclass(frozen=True)
class TrainingConfig:
    """How a student is trained."""

    sources: int = 4  # of a step
    targets: int = 2  # of a source
    learning_rate: float = 1e-3
    warm_up_steps: int = 150
    weight_decay: float = 0.01
    ema: float = 0.999
    l1: float = 2.0
    lpips: float = 1.0
    paint: float = 1.0  # L1 of the paint by itself, mostly in mouth and eyes: barely blended in, it would hardly learn
    alpha: float = 0.1  # binary cross-entropy of the person's mask, in source and target
    mouth_and_eyes: float = 8.0  # weight of their pixels; 1 elsewhere
    lpips_px: int = 128  # LPIPS looks at a random window of this side
    frozen_norm: float = 0.2  # last share of the run, with fixed batch norm, as at inference
    held_out: int = 8  # identities kept for validation
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("sources", "targets", "learning_rate", "lpips_px"):
            if getattr(self, name) <= 0:
                raise MobileBilayerError(f"{name} is {getattr(self, name)}; it must be above 0.")
        if self.lpips_px > 256:
            raise MobileBilayerError(f"lpips_px is {self.lpips_px}; a picture has 256 px. Try 144.")
        if self.held_out < 0 or self.warm_up_steps < 1:
            raise MobileBilayerError(
                f"held_out is {self.held_out} and warm_up_steps {self.warm_up_steps}; they must be at least 0 and 1."
            )


def split(clips: list[PreparedClip], held_out: int) -> tuple[list[PreparedClip], list[PreparedClip]]:
    """Training and validation clips, of different people; with few people, validation shows the training clips."""
    people = sorted({clip.identity for clip in clips})
    if not held_out or len(people) < 4 * held_out:
        return clips, clips
    kept = set(people[:: len(people) // held_out][:held_out])
    return [c for c in clips if c.identity not in kept], [c for c in clips if c.identity in kept]


def validation_batch(clips: list[PreparedClip], pairs: int, seed: int) -> dict[str, Tensor]:
    """Fixed pairs without augmentation."""
    rng = np.random.default_rng(seed)
    videos = [c for c in clips if len(c) > 4] or clips
    chosen = [videos[i] for i in np.linspace(0, len(videos) - 1, pairs).round().astype(int)]
    examples = [
        make_example(c, 0, [int(np.abs(c.pose - c.pose[0]).mean(1).argmax())], NO_AUGMENTATION, rng) for c in chosen
    ]
    return to_tensors(default_collate(examples))


def render(layers: Layers, batch: dict[str, Tensor]) -> Tensor:
    """(B * T, 3, 256, 256) in [-1, 1], not clamped."""
    targets = len(batch["target"]) // len(batch["image"])
    texture = (batch["image"] * 2 - 1).repeat_interleave(targets, 0)
    return composite(texture, batch["background"] * 2 - 1, layers)


def losses(
    layers: Layers,
    paint: Tensor,
    alpha: Tensor,
    batch: dict[str, Tensor],
    lpips: Lpips,
    config: TrainingConfig,
    corner: tuple[int, int],
) -> dict[str, Tensor]:
    """Each term, weighted; their sum is what falls."""
    out, target = render(layers, batch), batch["target"] * 2 - 1
    # Stored weights are 0 (padding), 1, or 9 in mouth and eyes.
    weight = batch["weight"].clamp(max=1) + (batch["weight"] - 1).clamp(min=0) * ((config.mouth_and_eyes - 1) / 8)
    top, left = corner
    window = (..., slice(top, top + config.lpips_px), slice(left, left + config.lpips_px))
    near = batch["weight"].clamp(max=1)
    near = F.interpolate(near, size=layers.a.shape[-1], mode="area")
    wanted = F.interpolate(batch["target_alpha"], size=layers.a.shape[-1], mode="area")
    mask = F.binary_cross_entropy(layers.a[:, 3:4].clamp(1e-4, 1 - 1e-4), wanted, weight=near)
    painted = F.avg_pool2d((batch["weight"] - 1).clamp(min=0) / 8 + 0.02 * batch["weight"].clamp(max=1), 2)
    paint_error = (paint - F.avg_pool2d(target, 2)).abs()
    return {
        "paint": config.paint * (painted * paint_error).sum() / painted.sum() / 3,
        "l1": config.l1 * (weight * (out - target).abs()).sum() / weight.sum() / 3,
        "lpips": config.lpips * lpips(out[window], target[window], weight[window]).mean(),
        "mask": config.alpha * mask,
        "alpha": config.alpha * F.binary_cross_entropy(alpha.clamp(1e-4, 1 - 1e-4), batch["alpha"]),
    }


@torch.no_grad()
def validate(student: Student, batch: dict[str, Tensor], lpips: Lpips) -> tuple[dict[str, float], np.ndarray]:
    """L1 (of [0, 1]), the same in mouth and eyes, LPIPS; and a sheet: source, target, render, error."""
    student.eval()
    layers, _, _ = student(batch["image"], batch["source_points"], batch["points"])
    out = render(layers, batch).clamp(-1, 1)
    target = batch["target"] * 2 - 1
    error = (out - target).abs().mean(1, keepdim=True) / 2
    weight = batch["weight"]
    inside, part = (weight > 0.5).float(), (weight > 2).float()
    metrics = {
        "l1": float((error * inside).sum() / inside.sum()),
        "mouth_and_eyes": float((error * part).sum() / part.sum()),
        "lpips": float(lpips(out, target).mean()),
    }
    gate = layers.a[:, 2:3].expand(-1, 3, -1, -1)
    gate = F.interpolate(gate, size=256, mode="nearest")
    columns = [batch["image"], batch["target"], (out + 1) / 2, (error * 4).clamp(0, 1).expand(-1, 3, -1, -1), gate]
    sheet = torch.cat([torch.cat(list(c), 1) for c in columns], 2)
    rgb = (sheet.permute(1, 2, 0).clamp(0, 1) * 255).round().byte().cpu().numpy()
    return metrics, cv2.resize(rgb, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)


def _moving_average(decay: float):
    """Exponential, over a window that grows with the number of steps at first."""

    def update(averaged: list[Tensor], current: list[Tensor], number: Tensor | int) -> None:
        keep = min(decay, (1 + int(number)) / (10 + int(number)))
        for mean, value in zip(averaged, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1 - keep)
            else:
                mean.copy_(value)

    return update


def _batches(loader: DataLoader, fabric: Fabric) -> Iterator[dict[str, Tensor]]:
    try:
        for batch in loader:
            yield to_tensors(fabric.to_device(batch))
    except MobileBilayerError as error:  # out of a worker it comes with the worker's traceback before it
        raise MobileBilayerError(str(error).rsplit("MobileBilayerError: ", 1)[-1].strip()) from error


def train_student(
    prepared: Path,
    out: Path,
    config: StudentConfig,
    training: TrainingConfig,
    augmentation: Augmentation | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    start: Path | None = None,
    workers: int = 1,
    save_every_s: float = 300,
) -> Path:
    """Train until `steps` or `minutes` of training are reached, in all calls together; return the weights' path.

    `out` gets checkpoint.pt (to resume), student.safetensors (averaged weights), log.csv and sheets. The
    learning rate follows whichever of the two limits is nearer. `start` names weights to begin with instead of
    random ones; a checkpoint in `out` comes first.
    """
    if steps is None and minutes is None:
        raise MobileBilayerError("Training needs an end: give --steps, --minutes or both.")
    if any(end is not None and not end > 0 for end in (steps, minutes)):
        raise MobileBilayerError(f"Training was to end after {steps} steps or {minutes} minutes; give more than 0.")
    torch.set_flush_denormal(True)
    fabric = Fabric(accelerator="auto", devices=1)
    fabric.seed_everything(training.seed, verbose=False)
    clips, held = split(load_clips(prepared), training.held_out)
    out.mkdir(parents=True, exist_ok=True)
    student, lpips = Student(config), fabric.to_device(Lpips())
    if start is not None:
        begun, _ = load_student(start)
        if begun.config != config:
            raise MobileBilayerError(f"{start} holds a student of another shape. Train the shape it has, or start afresh.")
        student.load_state_dict(begun.state_dict())
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.03
    decayed = [p for n, p in student.named_parameters() if p.ndim > 1 and "codes" not in n and "sigma" not in n]
    chosen = {id(p) for p in decayed}
    optimizer = torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": training.weight_decay},
            {"params": [p for p in student.parameters() if id(p) not in chosen], "weight_decay": 0},
        ],
        lr=training.learning_rate,
        betas=(0.9, 0.99),
    )
    wrapped, optimizer = fabric.setup(student, optimizer)
    average = AveragedModel(student, multi_avg_fn=_moving_average(training.ema), use_buffers=True)
    step, elapsed = 0, 0.0
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        try:
            state = torch.load(checkpoint, map_location=fabric.device, weights_only=True)
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
            raise MobileBilayerError(
                f"{checkpoint} can't be read ({error}). Delete it to begin anew, or choose another --output."
            ) from error
        if state["config"] != json.dumps(asdict(config)):
            raise MobileBilayerError(f"{checkpoint} belongs to a student of another shape. Choose another --output.")
        student.load_state_dict(state["student"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step, elapsed = state["step"], state["elapsed_s"]
    data = Pairs(clips, training.targets, augmentation or Augmentation(), training.seed)
    # Spawned, not forked: a fork of a process whose OpenCV or torch threads run can hang.
    loader = DataLoader(
        data,
        batch_sampler=PairBatches(step, training.sources),
        num_workers=workers,
        multiprocessing_context="spawn" if workers else None,
        prefetch_factor=4 if workers else None,
    )
    shown = fabric.to_device(validation_batch(held, 12, training.seed))
    first_step = step  # means are of this call's steps

    def progress_now() -> float:
        return max(step / steps if steps else 0.0, elapsed / (60 * minutes) if minutes else 0.0)

    def save() -> None:
        metrics, sheet = validate(average.module, shown, lpips)
        state = {
            "config": json.dumps(asdict(config)),
            "student": student.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "elapsed_s": elapsed,
        }
        aside = checkpoint.with_suffix(".part")
        torch.save(state, aside)
        aside.replace(checkpoint)
        facts = {
            "steps": step,
            "pairs": step * training.sources * training.targets,
            "minutes": round(elapsed / 60, 1),
            "clips": len(clips),
            "identities": len({c.identity for c in clips}),
            "training": asdict(training),
            "validation": metrics,
        }
        save_student(average.module, out / "student.safetensors", facts)
        write_image(out / f"sheet-{step:06d}.png", sheet)
        new = not (out / "log.csv").exists()
        with (out / "log.csv").open("a", newline="") as file:
            row = {"step": step, "minutes": round(elapsed / 60, 2), **{k: round(v, 5) for k, v in (means | metrics).items()}}
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow(row)
        bar.console.print(f"step {step}: " + ", ".join(f"{k} {v:.4f}" for k, v in metrics.items()))

    means: dict[str, float] = {f"loss_{name}": 0.0 for name in ("paint", "l1", "lpips", "mask", "alpha")}
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.1f} %"), TimeElapsedColumn())
    with Progress(*columns) as bar:
        task = bar.add_task("Training", total=1.0, completed=min(1.0, progress_now()))
        if step == 0:
            save()  # the warp itself, to compare with
        saved, last = time.monotonic(), time.monotonic()
        batches = _batches(loader, fabric)
        while progress_now() < 1:
            done = progress_now()
            # A Python float: a NumPy scalar in the optimizer's state would make the checkpoint unreadable.
            cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done))
            rate = training.learning_rate * min(1.0, (step + 1) / training.warm_up_steps) * cosine
            for group in optimizer.param_groups:
                group["lr"] = rate
            wrapped.train()
            if done > 1 - training.frozen_norm:
                for module in student.modules():
                    if isinstance(module, nn.BatchNorm2d):
                        module.eval()
            batch = next(batches)
            # Of the step alone, as its batch is: a resumed run goes on as if it had not stopped.
            rng = np.random.default_rng([training.seed, step, 1])
            corner = tuple(rng.integers(256 - training.lpips_px + 1, size=2).tolist())
            layers, paint, code = wrapped(batch["image"], batch["source_points"], batch["points"])
            terms = losses(layers, paint, code.alpha, batch, lpips, training, corner)
            loss = torch.stack(list(terms.values())).sum()
            optimizer.zero_grad(set_to_none=True)
            fabric.backward(loss)
            norm = fabric.clip_gradients(wrapped, optimizer, max_norm=1.0, error_if_nonfinite=False)
            if torch.isfinite(norm):
                optimizer.step()
                average.update_parameters(student)
            step += 1
            for name, value in terms.items():
                means[f"loss_{name}"] += (float(value.detach()) - means[f"loss_{name}"]) / min(step - first_step, 100)
            now = time.monotonic()
            elapsed, last = elapsed + now - last, now
            bar.update(task, completed=min(1.0, progress_now()), description=f"Step {step}, loss {sum(means.values()):.3f}")
            if now - saved > save_every_s:
                save()
                saved = last = time.monotonic()
        save()
    return out / "student.safetensors"
