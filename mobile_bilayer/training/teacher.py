"""Train a teacher on prepared clips: on a CPU, a GPU or many, with the paper's losses, each with a weight.

What a step sees depends on the seed and its number alone. So a run that was killed goes on as if nothing had been,
and several processes together take the very step that one would take.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision import MixedPrecision
from lightning_fabric.strategies import DDPStrategy
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from tensorboardX import SummaryWriter
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import default_collate

from mobile_bilayer.capture.images import write_image
from mobile_bilayer.compositing import composite, identity_grid, resize
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
from mobile_bilayer.perceptual import VGG19, VGGFACE, Lpips, Vgg
from mobile_bilayer.student.network import StudentConfig, landmark_warp
from mobile_bilayer.student.weights import load_student
from mobile_bilayer.teacher.blocks import warp
from mobile_bilayer.teacher.config import TeacherConfig
from mobile_bilayer.teacher.landmark import GRID, LANDMARK, RIM, LandmarkTeacher, Windows
from mobile_bilayer.teacher.teacher import Teacher
from mobile_bilayer.teacher.weights import load_teacher, make_teacher, save_teacher
from mobile_bilayer.training.discriminator import DiscriminatorConfig, PatchDiscriminator, draw_stickmen, judged
from mobile_bilayer.training.losses import (
    discriminator_hinge,
    feature_matching,
    generator_hinge,
    l1,
    mask_bce,
    perceptual_l1,
)
from mobile_bilayer.training.run import (
    Budget,
    Log,
    batches,
    cosine_rate,
    interrupts,
    moving_average,
    read_checkpoint,
    split,
    write_checkpoint,
)
from mobile_bilayer.weights import read_config

MOST_LOST = 20  # steps on end without a finite gradient
PRECISIONS = ("32-true", "bf16-mixed")
LOSSES = ("l1", "lpips", "lf", "mask", "alpha", "vgg19", "vggface", "gan", "feature_matching")


@dataclass(frozen=True)
class TeacherTraining:
    """How a teacher is trained.

    losses  the weight of each; what is missing or 0 is switched off.
            l1, lpips         of the result
            lf                L1 of what lies under it: the paper's lf, or the coarse stage's image
            mask, alpha       cross-entropy of the person's alpha, in the target and (landmark mode) in the source
            vgg19, vggface    L1 of the features of networks that the user brings, of the result with lf detached
            gan, feature_matching  of the discriminator
    """

    losses: dict[str, float] = field(
        default_factory=lambda: {"l1": 10.0, "lpips": 10.0, "lf": 3.0, "mask": 2.0, "alpha": 0.5}
    )
    sources: int = 4  # of a step, all processes together
    targets: int = 1  # of a source
    learning_rate: float = 1e-3
    coarse_rate: float = 3e-4  # of the landmark mode's coarse stage, which starts trained
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-8
    weight_decay: float = 0.01
    spectral_norm: bool = False  # on the teacher's convolutions and linear layers; the discriminator always has it
    warm_up_steps: int = 100
    ema: float = 0.998
    clip: float = 10.0  # largest norm of the gradient
    mouth_and_eyes: float = 8.0  # weight of their pixels; 1 elsewhere
    window: int = 40  # in 64ths of the frame: the part that the fine levels work on; 64: all of it
    at_face: float = 0.5  # share of the windows that lie on the face; the others lie anywhere
    frozen_norm: float = 0.2  # last share of the run, with fixed batch norm, as at inference
    discriminator_width: int = 16  # the paper's is 64
    held_out: int = 8  # identities kept for validation
    validation_pairs: int = 24
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "betas", tuple(self.betas))
        unknown = sorted(set(self.losses) - set(LOSSES))
        if unknown:
            raise MobileBilayerError(f"There is no loss {unknown[0]!r}. Choose of {', '.join(LOSSES)}.")
        wrong = [name for name, weight in self.losses.items() if not 0 <= weight < float("inf")]
        if wrong:
            raise MobileBilayerError(f"The weight of {wrong[0]} is {self.losses[wrong[0]]}; it must be 0 or more.")
        if not any(self.losses.get(name) for name in ("l1", "lpips", "vgg19", "vggface", "gan", "feature_matching")):
            raise MobileBilayerError("No loss looks at the result. Give l1, lpips or another one a weight.")
        for name in ("sources", "targets", "learning_rate", "warm_up_steps", "clip", "validation_pairs"):
            if not getattr(self, name) > 0:
                raise MobileBilayerError(f"{name} is {getattr(self, name)}; it must be above 0.")
        if not 4 * RIM <= self.window <= GRID:
            raise MobileBilayerError(f"window is {self.window}; it must be in {4 * RIM}..{GRID} (64ths of the frame).")

    def weight(self, name: str) -> float:
        return self.losses.get(name, 0.0)

    @property
    def judged(self) -> bool:
        """By a discriminator."""
        return bool(self.weight("gan") or self.weight("feature_matching"))


PAPER_TRAINING = TeacherTraining(
    losses={"gan": 0.5, "feature_matching": 10.0, "lpips": 10.0, "lf": 10.0, "mask": 10.0},
    sources=40,
    learning_rate=2e-4,
    betas=(0.5, 0.999),
    eps=1e-7,
    weight_decay=0.0,
    spectral_norm=True,
    warm_up_steps=1,
    mouth_and_eyes=1.0,
    window=GRID,
    frozen_norm=0.0,
    discriminator_width=64,
)
"""The paper's, with LPIPS where it has VGG19 and VGGFace: those need files. For the prior none."""


class Shown(NamedTuple):
    """What the losses compare: pictures (B, 3, h, w) in [-1, 1], alphas (B, 1, h, w) in [0, 1].

    image, target  and the weight of its pixels
    detached       the image, as the perceptual losses see it
    under          what lies under the image, with its own target and weight: it may be larger
    mask           and what it should be
    alpha          the same of the source, or None
    """

    image: Tensor
    target: Tensor
    weight: Tensor
    detached: Tensor
    under: tuple[Tensor, Tensor, Tensor]
    mask: tuple[Tensor, Tensor]
    alpha: tuple[Tensor, Tensor] | None


def pixel_weights(batch: dict[str, Tensor], mouth_and_eyes: float) -> Tensor:
    """(B * T, 1, 256, 256): 0 in padding, 1, or `mouth_and_eyes` there."""
    stored = batch["weight"]  # 0, 1, or 9 in mouth and eyes
    return stored.clamp(max=1) + (stored - 1).clamp(min=0) * ((mouth_and_eyes - 1) / 8)


class LandmarkStep(nn.Module):
    """A batch through a `LandmarkTeacher`."""

    def __init__(self, teacher: LandmarkTeacher, training: TeacherTraining) -> None:
        super().__init__()
        self.teacher, self.training_config = teacher, training

    def forward(self, batch: dict[str, Tensor], windows: Windows | None) -> Shown:
        def cut(x: Tensor) -> Tensor:
            return windows.cut(x) if windows else x

        def inner(x: Tensor) -> Tensor:
            return windows.inner(x) if windows else x

        background, target = batch["background"] * 2 - 1, batch["target"] * 2 - 1
        avatar, frame = self.teacher(batch["image"], batch["source_points"], batch["points"], background, windows)
        grid = identity_grid(background.shape[-1], background).permute(2, 0, 1).expand(len(background), -1, -1, -1)
        image = composite(avatar.texture, cut(background), frame.layers, cut(grid).permute(0, 2, 3, 1))
        image = inner(image)
        weight = pixel_weights(batch, self.training_config.mouth_and_eyes)
        under = composite(avatar.image, background, frame.coarse)
        wanted = inner(cut(resize(batch["target_alpha"], background.shape[-1])))
        times = len(avatar.image) // len(batch["alpha"])
        return Shown(
            image=image,
            target=inner(cut(target)),
            weight=inner(cut(weight)),
            detached=image,
            under=(under, target, weight),
            mask=(inner(frame.layers.a[:, 3:4]), wanted),
            alpha=(avatar.code.alpha[::times], batch["alpha"]),
        )


class PaperStep(nn.Module):
    """A batch through a `Teacher`; everything on black with the predicted mask, as in the paper."""

    def __init__(self, teacher: Teacher, training: TeacherTraining) -> None:
        super().__init__()
        self.teacher, self.training_config = teacher, training

    def forward(self, batch: dict[str, Tensor], windows: Windows | None) -> Shown:
        target, side = batch["target"] * 2 - 1, batch["target"].shape[-1]
        hf, lf, seg = self.layers(batch)
        mask = seg.detach()

        def on_black(x: Tensor) -> Tensor:
            return x * mask - (1 - mask)

        weight = pixel_weights(batch, self.training_config.mouth_and_eyes)
        target = on_black(target)
        return Shown(
            image=on_black(lf + hf),
            target=target,
            weight=weight,
            detached=on_black(lf.detach() + hf),
            under=(on_black(lf), target, weight),
            mask=(seg, resize(batch["target_alpha"], side)),
            alpha=None,
        )

    def layers(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Warped texture, lf and seg, (B * T, ...)."""
        image = batch["image"] * 2 - 1
        alpha = resize(batch["alpha"], image.shape[-1])
        stickmen = draw_stickmen(batch["source_keypoints"], image.shape[-1])
        identity = self.teacher.identify(image[:, None], stickmen[:, None], alpha[:, None])
        poses = batch["keypoints"].unflatten(0, (len(image), -1)).flatten(2)
        posed = self.teacher.pose(identity.params, poses)
        uv, lf, seg = (x.flatten(0, 1) for x in (posed.uv, posed.lf, posed.seg))
        texture = identity.texture.repeat_interleave(poses.shape[1], 0)
        return warp(texture, uv), lf, seg


STEPS = {"landmark": LandmarkStep, "none": PaperStep}


@torch.no_grad()
def render(teacher: LandmarkTeacher | Teacher, batch: dict[str, Tensor]) -> Tensor:
    """(B * T, 3, 256, 256) in [-1, 1]: what people would see."""
    background = batch["background"] * 2 - 1
    if isinstance(teacher, LandmarkTeacher):
        return teacher.render(batch["image"], batch["source_points"], batch["points"], background).clamp(-1, 1)
    hf, lf, seg = PaperStep(teacher, PAPER_TRAINING).layers(batch)
    return (seg * (lf + hf) + (1 - seg) * background).clamp(-1, 1)


def generator_terms(shown: Shown, config: TeacherTraining, readers: dict[str, nn.Module]) -> dict[str, Tensor]:
    """The losses that need no discriminator, weighted. `readers`: the frozen networks, by the loss's name."""
    image, target, weight = shown.image, shown.target, shown.weight
    every = {
        "l1": lambda: l1(image, target, weight),
        "lpips": lambda: readers["lpips"](shown.detached, target, weight).mean(),
        "lf": lambda: l1(*shown.under),
        "mask": lambda: mask_bce(*shown.mask, weight.clamp(max=1)),
        "alpha": lambda: mask_bce(*shown.alpha),
        "vgg19": lambda: perceptual_l1(readers["vgg19"], shown.detached, target, weight),
        "vggface": lambda: perceptual_l1(readers["vggface"], shown.detached, target, weight),
    }
    absent = () if shown.alpha else ("alpha",)
    return {name: config.weight(name) * term() for name, term in every.items()
            if config.weight(name) and name not in absent}  # fmt: skip


def critic_terms(
    critic: nn.Module, shown: Shown, stickmen: Tensor, config: TeacherTraining
) -> dict[str, Tensor]:
    """The generator's losses that the discriminator gives."""
    (fake, real), features = judged(critic, shown.image, shown.target, stickmen)
    out = {}
    if config.weight("gan"):
        out["gan"] = config.weight("gan") * generator_hinge(real, fake)
    if config.weight("feature_matching"):
        matched = feature_matching([f for f, _ in features], [r for _, r in features])
        out["feature_matching"] = config.weight("feature_matching") * matched
    return out


def choose_windows(batch_points: Tensor, config: TeacherTraining, step: int, first: int, count: int) -> Windows | None:
    """Of this process's frames, whose numbers in the step's batch begin with `first`; the same whoever draws them."""
    if config.window == GRID:
        return None
    last = GRID - config.window
    corners = []
    for i in range(count):
        rng = np.random.default_rng([config.seed, step, first + i, 2])
        corner = rng.integers(0, last + 1, 2)
        if rng.random() < config.at_face:
            x, y = ((batch_points[i, :128].mean(0).cpu().numpy() + 1) / 2 * GRID).tolist()
            corner = np.array([y, x]) - config.window / 2 + rng.uniform(-5, 5, 2)
        corners.append(tuple(int(v) for v in np.clip(np.rint(corner), 0, last)))
    return Windows(corners, config.window)


def validation_batches(clips: list[PreparedClip], pairs: int, seed: int) -> list[dict[str, Tensor]]:
    """Fixed pairs without augmentation, evenly over the clips: a source and a frame of the half farthest from it."""
    rng = np.random.default_rng(seed)
    videos = [c for c in clips if len(c) > 4] or clips
    examples = []
    for i in np.linspace(0, len(videos) - 1, pairs).round().astype(int):
        distance = np.abs(videos[i].pose - videos[i].pose[0]).mean(1)
        target = int(rng.choice(np.argsort(distance)[len(distance) // 2 :]))
        examples.append(make_example(videos[i], 0, [target], NO_AUGMENTATION, rng))
    return [to_tensors(default_collate(examples[i : i + 4])) for i in range(0, pairs, 4)]


def warped(batch: dict[str, Tensor]) -> Tensor:
    """The landmark warp alone, to compare with; one target a source."""
    return landmark_warp(batch["image"] * 2 - 1, batch["source_points"], batch["points"])


def measure(shown: list[tuple[Tensor, dict[str, Tensor]]], lpips: nn.Module) -> dict[str, float]:
    """L1 (of [0, 1]), the same in mouth and eyes, LPIPS: means over pairs of renders and their batches."""
    sums, pairs = dict.fromkeys(("l1", "mouth_and_eyes", "lpips"), 0.0), 0
    for out, batch in shown:
        target, weight = batch["target"] * 2 - 1, batch["weight"]
        error = (out - target).abs().mean(1, keepdim=True) / 2
        for name, where in (("l1", weight > 0.5), ("mouth_and_eyes", weight > 2)):
            area = where.sum((1, 2, 3)).clamp(min=1)
            sums[name] += float(((error * where).sum((1, 2, 3)) / area).sum())
        sums["lpips"] += float(lpips(out, target).sum())
        pairs += len(out)
    return {name: total / pairs for name, total in sums.items()}


def draw_sheet(shown: list[tuple[Tensor, dict[str, Tensor]]], rows: int = 12) -> np.ndarray:
    """Source, target, landmark warp, render, error times 4; some of the pairs below each other."""
    lines = []
    for out, batch in shown:
        error = ((out - (batch["target"] * 2 - 1)).abs().mean(1, keepdim=True) * 2).clamp(0, 1).expand(-1, 3, -1, -1)
        columns = [batch["image"], batch["target"], (warped(batch) + 1) / 2, (out + 1) / 2, error]
        lines += list(torch.cat(columns, 3))
    chosen = [lines[i] for i in np.linspace(0, len(lines) - 1, min(rows, len(lines))).round().astype(int)]
    rgb = (torch.cat(chosen, 1).permute(1, 2, 0).clamp(0, 1) * 255).round().byte().cpu().numpy()
    return cv2.resize(rgb, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA)


def plain_copy(teacher: nn.Module) -> nn.Module:
    """In evaluation mode and without spectral norm's parametrizations: what is measured, shown and saved."""
    copied = make_teacher(teacher.config)
    state = {}
    for name, module in teacher.named_modules():
        if parametrize.is_parametrized(module):
            state[f"{name}.weight"] = module.weight.detach()
    own = {k: v for k, v in teacher.state_dict().items() if ".parametrizations." not in k}
    copied.load_state_dict(own | state)
    return copied.to(next(teacher.parameters()).device).eval()


def with_coarse_of(config: TeacherConfig, start: Path) -> TeacherConfig:
    """`config`, with a coarse stage of the shape that the weights of `start`, a student's or a teacher's, have."""
    found = read_config(start)
    shape = found if "frame_widths" in found else found.get("coarse")
    if config.coarse is None or shape is None:
        return config
    shape = (load_student if shape is found else load_teacher)(start)[0].config
    return replace(config, coarse=shape if isinstance(shape, StudentConfig) else shape.coarse)


def start_from(teacher: LandmarkTeacher | Teacher, path: Path) -> None:
    """Take a teacher's weights, or a student's for the coarse stage."""
    of_student = "frame_widths" in read_config(path)
    begun = (load_student if of_student else load_teacher)(path)[0]
    wanted = teacher.config.coarse if of_student else teacher.config
    got = begun.config if of_student else replace(begun.config, enhancer_steps=0)  # an enhancer is not trained
    if got != wanted:
        raise MobileBilayerError(f"{path} holds weights of another shape. Train the shape they have, or start afresh.")
    weights = {name: value for name, value in begun.state_dict().items() if not name.startswith("texture_enhancer.")}
    (teacher.coarse if of_student else teacher).load_state_dict(weights)


def make_optimizer(teacher: nn.Module, config: TeacherTraining) -> torch.optim.Optimizer:
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, value in teacher.named_parameters():
        plain = value.ndim < 2 or "codes" in name or "sigma" in name
        rate = config.coarse_rate if name.startswith("coarse.") else config.learning_rate
        groups.setdefault((rate, 0.0 if plain else config.weight_decay), []).append(value)
    return torch.optim.AdamW(
        [{"params": p, "lr": rate, "peak": rate, "weight_decay": decay} for (rate, decay), p in groups.items()],
        betas=config.betas,
        eps=config.eps,
    )


def make_fabric(devices: int, precision: str) -> Fabric:
    """Several processes share each step's batch. Those that torchrun or `fabric run` started are found by themselves."""
    nodes, accelerator = 1, "auto"
    if torch.distributed.is_torchelastic_launched():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
        # What `fabric run` was told. Fabric would read it too, and refuse the strategy that is needed here.
        told = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("LT_")}
        accelerator, precision = told.get("LT_ACCELERATOR", accelerator), told.get("LT_PRECISION", precision)
    if precision == "auto":
        # On processors without it, bf16 is many times slower than float32.
        fast = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        precision = "bf16-mixed" if fast or torch.cpu._is_avx512_bf16_supported() else "32-true"
    if precision not in PRECISIONS:
        raise MobileBilayerError(f"There is no precision {precision!r} to train in. Choose auto, {' or '.join(PRECISIONS)}.")
    if devices < 1:
        raise MobileBilayerError(f"{devices} devices were asked for; training needs at least 1.")
    strategy = DDPStrategy(find_unused_parameters=True) if devices * nodes > 1 else "auto"
    kind = "cuda" if torch.cuda.is_available() and accelerator in ("auto", "cuda", "gpu") else "cpu"
    plugin = KeepInputs(precision, kind) if precision == "bf16-mixed" else None
    try:
        fabric = Fabric(
            accelerator=accelerator, strategy=strategy, devices=devices, num_nodes=nodes,
            precision=None if plugin else precision, plugins=plugin,
        )  # fmt: skip
        fabric.launch()
    except (ValueError, RuntimeError) as error:
        raise MobileBilayerError(f"Training can't run so ({error}). Choose other --devices or --precision.") from error
    return fabric


class KeepInputs(MixedPrecision):
    """bf16 inside the network only: a grid of bf16 numbers would read the texture up to a pixel beside."""

    def convert_input(self, data: object) -> object:
        return data


def train_teacher(
    prepared: Path,
    out: Path,
    config: TeacherConfig = LANDMARK,
    training: TeacherTraining | None = None,
    augmentation: Augmentation | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    start: Path | None = None,
    vgg19: Path | None = None,
    vggface: Path | None = None,
    workers: int = 1,
    devices: int = 1,
    precision: str = "auto",
    sheet_every: int = 500,
    log_every: int = 10,
    save_every_s: float = 300,
) -> Path | None:
    """Train until `steps` or `minutes` of training are reached, in all calls together.

    Returns the weights' path; None in all processes but the first. `out` gets checkpoint.pt (to resume exactly),
    teacher.safetensors (averaged weights, fp16), log.csv and tensorboard/ (mean losses every `log_every` steps,
    validation every `sheet_every`), and a sheet to look at with each validation. `start` names weights to begin with: a
    teacher's, or a student's for the coarse stage. A checkpoint comes first.
    """
    training = training or (TeacherTraining() if config.prior == "landmark" else PAPER_TRAINING)
    budget = Budget(steps, minutes)
    files = {"vgg19": (vgg19, VGG19), "vggface": (vggface, VGGFACE)}
    for name, (path, _) in files.items():
        if bool(training.weight(name)) != (path is not None):
            raise MobileBilayerError(
                f"The loss {name} has the weight {training.weight(name)}, and its file is {path}. "
                f"Give both, --{name} FILE and --loss {name}=WEIGHT, or neither."
            )
    if config.image_px != 256:
        raise MobileBilayerError(f"image_px is {config.image_px}; prepared clips are cut to 256.")
    if config.prior == "none" and config.enhancer_steps:
        raise MobileBilayerError(
            f"enhancer_steps is {config.enhancer_steps}; training does not reach the texture enhancer. Set it to 0."
        )
    if config.prior == "landmark" and training.spectral_norm:
        raise MobileBilayerError("The landmark prior starts with weights of 0, which have no spectral norm. Train without.")
    for name, value, least in (("sheet_every", sheet_every, 1), ("log_every", log_every, 1), ("workers", workers, 0)):
        if value < least:
            raise MobileBilayerError(f"{name} is {value}; it must be at least {least}.")
    torch.set_flush_denormal(True)
    fabric = make_fabric(devices, precision)
    PairBatches(0, training.sources, fabric.global_rank, fabric.world_size)  # can the processes share them?
    fabric.seed_everything(training.seed, verbose=False)
    clips, held = split(load_clips(prepared), training.held_out)
    leads = fabric.global_rank == 0
    if leads:
        try:
            out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MobileBilayerError(f"The folder {out} can't be made ({error}). Choose another --output.") from error
    if start is not None:
        config = with_coarse_of(config, start)
    # What a checkpoint must agree with, or the steps would not be the same.
    settings = {"config": asdict(config), "training": asdict(training), "augmentation": asdict(augmentation or Augmentation())}
    checkpoint = out / "checkpoint.pt"
    state = read_checkpoint(checkpoint, json.dumps(settings), fabric.device)

    teacher = make_teacher(config)
    if start is not None and state is None:
        start_from(teacher, start)
    for module in teacher.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.02  # the paper's 1 needs its statistics computed anew after training
    if training.spectral_norm:
        for module in teacher.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                spectral_norm(module)
    readers: dict[str, nn.Module] = {"lpips": fabric.to_device(Lpips())}
    readers |= {name: fabric.to_device(Vgg(path, layout)) for name, (path, layout) in files.items() if path}

    optimizer = make_optimizer(teacher, training)
    step_module, optimizer = fabric.setup(STEPS[config.prior](teacher, training), optimizer)
    average = AveragedModel(teacher, multi_avg_fn=moving_average(training.ema), use_buffers=True)
    modules: dict[str, nn.Module] = {"teacher": teacher, "average": average}
    optimizers = {"optimizer": optimizer}
    critic = wrapped_critic = None
    if training.judged:
        critic = PatchDiscriminator(DiscriminatorConfig(width=training.discriminator_width))
        critic_optimizer = torch.optim.Adam(
            critic.parameters(), training.learning_rate, training.betas, training.eps
        )
        wrapped_critic, critic_optimizer = fabric.setup(critic, critic_optimizer)
        modules["critic"], optimizers["critic_optimizer"] = critic, critic_optimizer

    sums: dict[str, float] = {}  # of losses, since the last row of the log
    if state:
        for name, module in (modules | optimizers).items():
            module.load_state_dict(state[name])
        budget.step, budget.elapsed_s, sums = state["step"], state["elapsed_s"], state["sums"]
    shown = [fabric.to_device(b) for b in validation_batches(held, training.validation_pairs, training.seed)] if leads else []
    log = Log(out, budget.step) if leads else None
    board = SummaryWriter(str(out / "tensorboard"), purge_step=budget.step + 1, write_to_disk=leads)
    facts: dict[str, object] = {}
    validated = state["validated"] if state else -1  # the step

    def record(values: dict[str, float]) -> None:
        log.write({"step": budget.step, "minutes": round(budget.elapsed_s / 60, 2)} | {k: round(v, 6) for k, v in values.items()})
        for name, value in values.items():
            board.add_scalar(name.replace("_", "/", 1), value, budget.step)

    def validate() -> None:
        nonlocal validated
        if validated == budget.step:
            return
        validated = budget.step
        plain = plain_copy(average.module)
        pairs = [(render(plain, batch), batch) for batch in shown]
        metrics = measure(pairs, readers["lpips"])
        if not facts:
            facts["landmark_warp"] = measure([(warped(batch).clamp(-1, 1), batch) for batch in shown], readers["lpips"])
        record({f"validation_{k}": v for k, v in metrics.items()})
        sheet = draw_sheet(pairs)
        write_image(out / f"sheet-{budget.step:06d}.png", sheet)
        board.add_image("validation", sheet, budget.step, dataformats="HWC")
        facts.update(
            steps=budget.step,
            pairs=budget.step * training.sources * training.targets,
            minutes=round(budget.elapsed_s / 60, 1),
            clips=len(clips),
            identities=len({c.identity for c in clips}),
            training=asdict(training),
            validation=metrics,
        )
        save_teacher(plain, out / "teacher.safetensors", facts, torch.float16)
        bar.console.print(
            f"step {budget.step}: " + ", ".join(f"{k} {v:.4f} (warp {facts['landmark_warp'][k]:.4f})" for k, v in metrics.items())
        )

    def save() -> None:
        state = {name: module.state_dict() for name, module in (modules | optimizers).items()}
        state |= {"settings": json.dumps(settings), "step": budget.step, "elapsed_s": budget.elapsed_s}
        write_checkpoint(checkpoint, state | {"sums": sums, "validated": validated})

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.1f} %"), TimeElapsedColumn())
    with Progress(*columns, disable=not leads) as bar, interrupts() as asked:
        task = bar.add_task("Training", total=1.0, completed=budget.done)
        if leads and budget.step == 0:
            validate()
        saved_s = budget.elapsed_s
        data = Pairs(clips, training.targets, augmentation or Augmentation(), training.seed)
        batch_stream = batches(data, budget.step, training.sources, workers, fabric)
        first = fabric.global_rank * (training.sources // fabric.world_size) * training.targets
        lost = 0  # steps on end without a finite gradient
        budget.restart_clock()
        while True:
            done, stop = budget.done, bool(asked)
            if fabric.world_size > 1:  # one clock, one will
                done, stop = fabric.broadcast((done, stop))
            if done >= 1 or stop:
                break
            rate = cosine_rate(done, budget.step, training.warm_up_steps)
            for each in optimizers.values():
                for group in each.param_groups:
                    group["lr"] = group.get("peak", training.learning_rate) * rate
            step_module.train()
            if done > 1 - training.frozen_norm:
                for module in teacher.modules():
                    if isinstance(module, nn.BatchNorm2d):
                        module.eval()
            batch = next(batch_stream)
            windows = choose_windows(batch["points"], training, budget.step, first, len(batch["points"]))
            seen: Shown = step_module(batch, windows)
            terms = generator_terms(seen, training, readers)
            if critic is not None:
                stickmen = draw_stickmen(batch["keypoints"], batch["target"].shape[-1])
                stickmen = windows.inner(windows.cut(stickmen)) if windows else stickmen
                critic.requires_grad_(True)
                (fake, real), _ = judged(wrapped_critic, seen.image.detach(), seen.target, stickmen)
                # Where its features alone are matched, it must learn all the same.
                loss = (training.weight("gan") or 1.0) * discriminator_hinge(real, fake)
                critic_optimizer.zero_grad(set_to_none=True)
                fabric.backward(loss)
                norm = fabric.clip_gradients(wrapped_critic, critic_optimizer, max_norm=training.clip, error_if_nonfinite=False)
                if torch.isfinite(norm):
                    critic_optimizer.step()
                critic.requires_grad_(False)
                terms |= critic_terms(critic, seen, stickmen, training)
                terms["discriminator"] = loss.detach()
            loss = torch.stack([term for name, term in terms.items() if name != "discriminator"]).sum()
            optimizer.zero_grad(set_to_none=True)
            fabric.backward(loss)
            norm = fabric.clip_gradients(step_module, optimizer, max_norm=training.clip, error_if_nonfinite=False)
            lost = 0 if torch.isfinite(norm) else lost + 1
            if not lost:
                optimizer.step()
                average.update_parameters(teacher)
            elif lost == MOST_LOST:
                raise MobileBilayerError(
                    f"The gradients of {lost} steps on end are not finite: training has broken down at step {budget.step}. "
                    f"Go on from {checkpoint}, or from other weights, with a lower --rate."
                )
            budget.count_step()
            values = fabric.all_reduce(torch.stack([term.detach() for term in terms.values()]), reduce_op="mean")
            for name, value in zip(terms, values.tolist(), strict=True):
                sums[name] = sums.get(name, 0.0) + value
            if budget.step % log_every == 0:
                if leads:
                    record({f"loss_{name}": value / log_every for name, value in sums.items()})
                sums.clear()
            if leads:
                bar.update(task, completed=budget.done, description=f"Step {budget.step}")
                if budget.step % sheet_every == 0:
                    validate()
                    save()
                    saved_s = budget.elapsed_s
                elif budget.elapsed_s - saved_s > save_every_s:
                    save()
                    saved_s = budget.elapsed_s
                budget.restart_clock()
        if leads:
            if not stop:
                validate()
            save()
    board.close()
    fabric.barrier()
    if stop:
        raise KeyboardInterrupt
    return out / "teacher.safetensors" if leads else None
