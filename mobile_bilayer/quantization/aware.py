"""Quantization-aware training: a float student learns on with its frame trunk rounded as int8 will round it.

Only that trunk is exported and prepared; all around it stays the student that training knows. The encoder needs none of
this: it runs once a photo, and its rounding does not flicker.
"""

from __future__ import annotations

import copy
import hashlib
import json
import warnings
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torchao.quantization.pt2e import (
    disable_observer,
    enable_observer,
    move_exported_model_to_eval,
    move_exported_model_to_train,
)
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e

from mobile_bilayer.batch_norm import BatchNorm
from mobile_bilayer.capture.images import write_image
from mobile_bilayer.dataset.pairs import Augmentation, Pairs, load_clips
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.perceptual import Lpips
from mobile_bilayer.quantization.calibrate import refuse_float, refuse_unseen
from mobile_bilayer.quantization.equalize import equalized, without_map_gain
from mobile_bilayer.quantization.recipes import Recipe, RecipeQuantizer
from mobile_bilayer.student.network import Student
from mobile_bilayer.student.weights import load_student, save_student
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
from mobile_bilayer.training.student import LOSSES, TrainingConfig, losses, render, validate, validation_batch

PREFIX = "network.trunk."
FIRST_RANGES = 8  # pairs that ranges are found on before the first step
# A hundredth of the rate that weights were found with. Batch norm stands still from the start: its statistics are good,
# and those of a small batch would move all that follows.
AWARE_TRAINING = TrainingConfig(learning_rate=1e-4, warm_up_steps=20, ema=0.99, frozen_norm=1.0)


class _Alone(nn.Module):
    """A trunk at the path where a recipe looks for it."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.network = nn.Module()
        self.network.trunk = trunk

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return self.network.trunk(*inputs)


class AwareTrunk(nn.Module):
    """A trunk that rounds weights and activations as int8 does, and learns through it.

    Batch norm is folded into its convolution in each step, as PT2E does it, so that what is rounded is what will be kept.
    """

    def __init__(self, trunk: nn.Module, example: tuple[Tensor, ...], recipe: Recipe) -> None:
        """example: inputs of a batch of 2 or more; any other batch may follow."""
        super().__init__()
        trunk = copy.deepcopy(trunk).train()
        for module in trunk.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.num_batches_tracked = None  # counting is an operator that no delegate takes
        batch = torch.export.Dim("batch", min=1, max=1024)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside torch
            exported = torch.export.export(_Alone(trunk), example, dynamic_shapes=(tuple({0: batch} for _ in example),))
            self.graph = prepare_qat_pt2e(exported.module(), RecipeQuantizer(recipe, aware=True))
        self.norm_learns, self._norm_moved = True, True
        self.train()

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return self.graph(*inputs)

    def train(self, mode: bool = True) -> AwareTrunk:
        """`eval()` of an exported graph is not allowed: torchao moves its norms, and ranges stand still.

        `norm_learns` says whether norms take a batch's statistics in training.
        """
        self.training = mode
        self.graph.apply(enable_observer if mode else disable_observer)
        learns = mode and self.norm_learns
        if learns != self._norm_moved:  # it takes a second
            (move_exported_model_to_train if learns else move_exported_model_to_eval)(self.graph)
            self._norm_moved = learns
        return self

    def float_state(self) -> dict[str, Tensor]:
        """Weights and batch norms, by the names that the float trunk has for them."""
        return {
            name.removeprefix(PREFIX): value
            for name, value in self.graph.state_dict().items()
            if name.startswith(PREFIX)
        }

    def converted(self, recipe: Recipe, method: str) -> torch.fx.GraphModule:
        """The same in int8, batch norm folded away; for any batch."""
        refuse_unseen(self.graph, method)
        graph = copy.deepcopy(self.graph)
        move_exported_model_to_eval(graph)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converted = convert_pt2e(graph)
        refuse_float(converted, recipe, method)
        return converted


class Int8Trunk(nn.Module):
    """What was converted, as a module: exported again, its operators are known as the trunk's, and it may be told `eval()`."""

    def __init__(self, graph: torch.fx.GraphModule) -> None:
        super().__init__()
        self.graph = graph

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        return self.graph(*inputs)

    def train(self, mode: bool = True) -> Int8Trunk:
        """Nothing to change: norms are folded away, or stand still."""
        self.training = mode
        return self


def aware(student: Student, batch: dict[str, Tensor], recipe: Recipe) -> Student:
    """An equalized copy whose frame trunk is an `AwareTrunk`, with ranges from a batch as `to_tensors` gives it."""
    outside = [part for part in recipe.int8 if part.split(".")[0] != "trunk"]
    if outside:
        raise MobileBilayerError(
            f"Quantization-aware training is for the trunk; the recipe has {', '.join(outside)} in int8 too. Leave --qat out."
        )
    student = copy.deepcopy(student).eval()
    arguments = batch["image"], batch["source_points"], batch["points"]
    seen: list[tuple[Tensor, ...]] = []
    with torch.no_grad():
        code = student.encoder(*arguments[:2])
        times = len(arguments[2]) // len(arguments[0])
        of_driving = (x.repeat_interleave(times, 0) for x in (*code[:2], arguments[1]))
        student = equalized(student, [(*of_driving, arguments[2])])
        hook = student.frame.trunk.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
        student(*arguments)
        hook.remove()
    student.frame.trunk = AwareTrunk(student.frame.trunk, tuple(x.detach() for x in seen[0]), recipe)
    set_norms(student.modules(), learn=False)
    with torch.no_grad():
        student(*arguments)
    return student.eval()


def float_student(student: Student) -> Student:
    """Its weights as a float student's, to be saved."""
    out = Student(student.config)
    out.frame.map_gain = copy.deepcopy(student.frame.map_gain)
    state = {name: value for name, value in student.state_dict().items() if ".graph." not in name}
    state |= {f"frame.trunk.{name}": value for name, value in student.frame.trunk.float_state().items()}
    missing, unexpected = out.load_state_dict(state, strict=False)
    assert not unexpected and all(name.endswith("num_batches_tracked") for name in missing), (missing, unexpected)
    return without_map_gain(out).eval()


def converted_student(student: Student, recipe: Recipe) -> Student:
    """Its frame trunk in int8, with the ranges that it learned: for `export_bundle(trained=)`."""
    out = copy.deepcopy(student)
    out.frame.trunk = Int8Trunk(out.frame.trunk.converted(recipe, "render_layers"))
    return out


def set_norms(modules: Iterable[nn.Module], learn: bool) -> None:
    """Whether batch norms take a batch's statistics, in trunks and around them."""
    for module in modules:
        if isinstance(module, AwareTrunk):
            module.norm_learns = learn
            module.train()
        elif isinstance(module, BatchNorm):
            module.train(learn)


def train_aware(
    weights: Path,
    prepared: Path,
    out: Path,
    recipe: Recipe | None = None,
    training: TrainingConfig = AWARE_TRAINING,
    augmentation: Augmentation | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    workers: int = 1,
    save_every_s: float = 300,
) -> tuple[Path, Student]:
    """Train on with rounding until `steps` or `minutes` are reached, in all calls together.

    `out` gets checkpoint.pt (to resume), student.safetensors (averaged float weights), log.csv and sheets, as other training
    does. Returns the weights' path and the averaged student, which `converted_student` makes int8.
    """
    recipe, budget = recipe or Recipe(), Budget(steps, minutes)
    student, facts = load_student(weights)
    torch.set_flush_denormal(True)
    fabric = Fabric(accelerator="cpu", devices=1)  # where the exported graphs are
    fabric.seed_everything(training.seed, verbose=False)
    clips, held = split(load_clips(prepared), training.held_out)
    out.mkdir(parents=True, exist_ok=True)
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.03
    student = aware(student, validation_batch(clips, FIRST_RANGES, training.seed), recipe)
    lpips = Lpips()
    optimizer = torch.optim.AdamW(student.parameters(), lr=training.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
    average = AveragedModel(student, multi_avg_fn=moving_average(training.ema), use_buffers=True)
    settings = json.dumps(
        {
            "weights": hashlib.sha256(weights.read_bytes()).hexdigest(),
            "recipe": asdict(recipe),
            "training": asdict(training),
        }
    )
    checkpoint = out / "checkpoint.pt"
    if state := read_checkpoint(checkpoint, settings, fabric.device):
        student.load_state_dict(state["student"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        budget.step, budget.elapsed_s = state["step"], state["elapsed_s"]
    log = Log(out, budget.step)
    data = Pairs(clips, training.targets, augmentation or Augmentation(), training.seed)
    shown = validation_batch(held, 12, training.seed)

    def save() -> dict[str, float]:
        metrics, sheet = validate(average.module, shown, lpips)
        write_checkpoint(
            checkpoint,
            {
                "settings": settings,
                "student": student.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "step": budget.step,
                "elapsed_s": budget.elapsed_s,
            },
        )
        learned = {"steps": budget.step, "minutes": round(budget.elapsed_s / 60, 1), "recipe": asdict(recipe)}
        save_student(
            float_student(average.module),
            out / "student.safetensors",
            facts | {"quantization_aware": learned, "validation": metrics},
        )
        write_image(out / f"sheet-{budget.step:06d}.png", sheet)
        return metrics

    stream = batches(data, budget.step, training.sources, workers, fabric)

    def take_step(done: float) -> dict[str, Tensor]:
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * cosine_rate(done, budget.step, training.warm_up_steps)
        set_norms(student.modules(), learn=done < 1 - training.frozen_norm)
        batch = next(stream)
        rng = np.random.default_rng([training.seed, budget.step, 1])  # of the step alone
        corner = tuple(rng.integers(256 - training.lpips_px + 1, size=2).tolist())
        layers, paint, code = student(batch["image"], batch["source_points"], batch["points"])
        picture = render(layers, batch)
        terms = losses(picture, layers, paint, code.alpha, batch, lpips, training, corner)
        loss = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        if torch.isfinite(norm):
            optimizer.step()
            average.update_parameters(student)
        return terms

    run_steps(budget, log, LOSSES, take_step, save, save_every_s)
    return out / "student.safetensors", average.module
