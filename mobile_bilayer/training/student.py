"""Train a student on prepared clips: pairs of frames of one person, and what a teacher makes of other pairs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import default_collate

from mobile_bilayer.capture.images import write_image
from mobile_bilayer.compositing import Layers, composite
from mobile_bilayer.dataset.pairs import (
    NO_AUGMENTATION,
    Augmentation,
    Pairs,
    PreparedClip,
    load_clips,
    make_example,
    to_tensors,
)
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.perceptual import Lpips
from mobile_bilayer.student.network import Student, StudentConfig, landmark_warp
from mobile_bilayer.student.resize import resized
from mobile_bilayer.student.weights import load_student, save_student
from mobile_bilayer.training.labels import Labels
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

LOSSES = ("paint", "l1", "lpips", "mask", "alpha")
LABEL_LOSSES = ("label_l1", "label_lpips", "label_layers", "label_steady")


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
    lpips: float = 2.0
    paint: float = 1.0  # L1 of the paint by itself, mostly in mouth and eyes: barely blended in, it would hardly learn
    alpha: float = 0.1  # binary cross-entropy of the person's mask, in source and target
    mouth_and_eyes: float = 8.0  # weight of their pixels; 1 elsewhere
    lpips_px: int = 128  # LPIPS looks at a random window of this side
    labelled: int = 1  # sources of a step that the teacher has labelled, if there are labels, beside the others
    labels: float = 0.3  # weight of their losses; the three below are parts of it
    outside: float = 0.0  # weight of what a teacher shows outside of mouth and eyes, where real pairs teach better than ours
    layers: float = 0.5  # L1 of its flow, in tenths of the frame
    # L1 of a frame a little later and the first one warped as the landmarks say, on the person. What is blurred differs
    # least: at 2.0 hair was smoothed within 200 steps (LPIPS of held-out people 0.075 to 0.085), and flicker was low without.
    steady: float = 0.0
    frozen_norm: float = 0.2  # last share of the run, with fixed batch norm, as at inference
    held_out: int = 8  # identities kept for validation
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("sources", "targets", "learning_rate", "lpips_px"):
            if getattr(self, name) <= 0:
                raise MobileBilayerError(f"{name} is {getattr(self, name)}; it must be above 0.")
        if self.lpips_px > 256:
            raise MobileBilayerError(f"lpips_px is {self.lpips_px}; a picture has 256 px. Try 144.")
        if not 0 <= self.outside <= 1:
            raise MobileBilayerError(f"outside is {self.outside}; it must be in 0..1.")
        if self.held_out < 0 or self.warm_up_steps < 1:
            raise MobileBilayerError(
                f"held_out is {self.held_out} and warm_up_steps {self.warm_up_steps}; they must be at least 0 and 1."
            )


def validation_batch(clips: list[PreparedClip], pairs: int, seed: int) -> dict[str, Tensor]:
    """Fixed pairs without augmentation."""
    rng = np.random.default_rng(seed)
    # Of the same shot: nobody can tell what lies behind a cut.
    own = [c for c in clips if (c.shots == c.shots[0]).sum() > 1] or clips
    videos = [c for c in own if len(c) > 4] or own
    chosen = [videos[i] for i in np.linspace(0, len(videos) - 1, pairs).round().astype(int)]
    far = [int((np.abs(c.pose - c.pose[0]).mean(1) * (c.shots == c.shots[0])).argmax()) for c in chosen]
    examples = [make_example(c, 0, [target], NO_AUGMENTATION, rng) for c, target in zip(chosen, far, strict=True)]
    return to_tensors(default_collate(examples))


def render(layers: Layers, batch: dict[str, Tensor]) -> Tensor:
    """(B * T, 3, 256, 256) in [-1, 1], not clamped."""
    targets = len(batch["target"]) // len(batch["image"])
    texture = (batch["image"] * 2 - 1).repeat_interleave(targets, 0)
    return composite(texture, batch["background"] * 2 - 1, layers)


def losses(
    out: Tensor,
    layers: Layers,
    paint: Tensor,
    alpha: Tensor,
    batch: dict[str, Tensor],
    lpips: Lpips,
    config: TrainingConfig,
    corner: tuple[int, int],
) -> dict[str, Tensor]:
    """Each term, weighted; their sum is what falls. out: what `render` makes of the layers."""
    target = batch["target"] * 2 - 1
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


def label_losses(
    student: nn.Module, batch: dict[str, Tensor], lpips: Lpips, config: TrainingConfig, corner: tuple[int, int]
) -> dict[str, Tensor]:
    """The same for a batch of `Labels`: against the teacher's image and its layers, and from one moment to the next."""
    points = batch["points"] if config.steady else batch["points"][:, :1]
    moments = points.shape[1]
    layers, _, _ = student(batch["image"], batch["source_points"], points.flatten(0, 1))
    pictures = [(batch[name] * 2 - 1).repeat_interleave(moments, 0) for name in ("image", "background")]
    shown = composite(*pictures, layers)
    out, a = shown[::moments], layers.a[::moments]
    target = batch["target"] * 2 - 1
    weight = config.outside + (1 - config.outside) * (batch["weight"] - 1).clamp(min=0) / 8
    top, left = corner
    window = (..., slice(top, top + config.lpips_px), slice(left, left + config.lpips_px))
    # Not gate, lf and mask: a teacher paints at 256 px what a student had better warp. Told to blend in as much as it does
    # (gate 0.87 in the mean, where a student's is 0.97), a student painted what it can't at 128 px, and LPIPS of real frames rose.
    wrong = (a[:, :2] - batch["a"][:, :2]).abs()
    # Elsewhere a flow says nothing.
    seen = batch["a"][:, 2:3] * batch["a"][:, 3:4] * F.interpolate(weight, size=wrong.shape[-1], mode="area")
    terms = {
        "label_l1": config.l1 * (weight * (out - target).abs()).sum() / weight.sum().clamp(min=1) / 3,
        "label_lpips": config.lpips * lpips(out[window], target[window], weight[window]).mean(),
        "label_layers": config.layers * 10 * (seen * wrong).sum() / seen.sum().clamp(min=1) / 2,
    }
    if config.steady:
        later, later_a = shown[1::moments], layers.a[1::moments]
        warped = landmark_warp(out.detach(), *points.unbind(1))
        person = F.interpolate((a[:, 3:4] * later_a[:, 3:4]).detach(), size=out.shape[-1]) > 0.9
        terms["label_steady"] = config.steady * (person * (later - warped).abs()).sum() / person.sum().clamp(min=1) / 3
    return {name: config.labels * term for name, term in terms.items()}


@contextmanager
def norm_as_at_inference(module: nn.Module) -> Iterator[None]:
    """Batch norm uses its averages and does not change them."""
    learning = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d) and m.training]
    for norm in learning:
        norm.eval()
    yield
    for norm in learning:
        norm.train()


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


def train_student(
    prepared: Path,
    out: Path,
    config: StudentConfig,
    training: TrainingConfig,
    augmentation: Augmentation | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    start: Path | None = None,
    labels: Labels | None = None,
    workers: int = 1,
    save_every_s: float = 300,
) -> Path:
    """Train until `steps` or `minutes` of training are reached, in all calls together; return the weights' path.

    `out` gets checkpoint.pt (to resume), student.safetensors (averaged weights), log.csv and sheets. The
    learning rate follows whichever of the two limits is nearer. `start` names weights to begin with instead of
    random ones, of any size; a checkpoint in `out` comes first. `labels` are a teacher's, to be learned beside the pairs.
    """
    budget = Budget(steps, minutes)
    torch.set_flush_denormal(True)
    fabric = Fabric(accelerator="auto", devices=1)
    fabric.seed_everything(training.seed, verbose=False)
    clips, held = split(load_clips(prepared), training.held_out)
    out.mkdir(parents=True, exist_ok=True)
    student, lpips = Student(config), fabric.to_device(Lpips())
    if start is not None:
        student.load_state_dict(resized(load_student(start)[0], config).state_dict())
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.03
    decayed = [p for n, p in student.named_parameters() if p.ndim > 1 and not any(word in n for word in ("codes", "sigma", "colours"))]
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
    average = AveragedModel(student, multi_avg_fn=moving_average(training.ema), use_buffers=True)
    # What a checkpoint must agree with, or its steps would be another run's.
    settings = json.dumps({"config": asdict(config), "training": asdict(training), "labels": labels.mark if labels else None})
    checkpoint = out / "checkpoint.pt"
    if state := read_checkpoint(checkpoint, settings, fabric.device):
        student.load_state_dict(state["student"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        budget.step, budget.elapsed_s = state["step"], state["elapsed_s"]
    log = Log(out, budget.step)
    data = Pairs(clips, training.targets, augmentation or Augmentation(), training.seed)
    shown = fabric.to_device(validation_batch(held, 12, training.seed))

    def save() -> dict[str, float]:
        metrics, sheet = validate(average.module, shown, lpips)
        state = {
            "settings": settings,
            "student": student.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": budget.step,
            "elapsed_s": budget.elapsed_s,
        }
        write_checkpoint(checkpoint, state)
        facts = {
            "steps": budget.step,
            "pairs": budget.step * training.sources * training.targets,
            "minutes": round(budget.elapsed_s / 60, 1),
            "clips": len(clips),
            "identities": len({c.identity for c in clips}),
            "training": asdict(training),
            "labels": len(labels) if labels is not None else 0,
            "validation": metrics,
        }
        save_student(average.module, out / "student.safetensors", facts)
        write_image(out / f"sheet-{budget.step:06d}.png", sheet)
        return metrics

    names = LOSSES + (() if labels is None else LABEL_LOSSES)
    stream = batches(data, budget.step, training.sources, workers, fabric)

    def take_step(done: float) -> dict[str, Tensor]:
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * cosine_rate(done, budget.step, training.warm_up_steps)
        wrapped.train()
        if done > 1 - training.frozen_norm:
            for module in student.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        batch = next(stream)
        # Of the step alone, as its batch is: a resumed run goes on as if it had not stopped.
        rng = np.random.default_rng([training.seed, budget.step, 1])
        corner = tuple(rng.integers(256 - training.lpips_px + 1, size=2).tolist())
        layers, paint, code = wrapped(batch["image"], batch["source_points"], batch["points"])
        terms = losses(render(layers, batch), layers, paint, code.alpha, batch, lpips, training, corner)
        if labels is not None:
            chosen = rng.integers(len(labels), size=training.labelled)
            # Its few pictures, and faces that nobody pulls, are no measure of what the norms will see.
            with norm_as_at_inference(student):
                terms |= label_losses(wrapped, labels.batch(chosen, fabric.device), lpips, training, corner)
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        norm = fabric.clip_gradients(wrapped, optimizer, max_norm=1.0, error_if_nonfinite=False)
        if torch.isfinite(norm):
            optimizer.step()
            average.update_parameters(student)
        return terms

    run_steps(budget, log, names, take_step, save, save_every_s)
    return out / "student.safetensors"
