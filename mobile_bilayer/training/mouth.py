"""Teach a trained student teeth: a run that looks at mouths that open, and holds all else to what it was.

A student's own training shows it a mouth that opens now and then, among all else, and asks for the least error: of teeth that may or
may not show it draws the mean. Here each picture is a window around such a mouth, a critic tells what real ones look like, and
there must be as much light and dark as in the real one, wherever they are. All layers outside of mouths stay what they were.
"""

from __future__ import annotations

import hashlib
import json
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
from mobile_bilayer.compositing import Layers, identity_grid
from mobile_bilayer.dataset.pairs import (
    IMAGE_PX,
    NO_AUGMENTATION,
    Augmentation,
    Pairs,
    PreparedClip,
    apertures,
    load_clips,
    make_example,
    to_tensors,
)
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.evaluation.metrics import GREY
from mobile_bilayer.perceptual import Lpips
from mobile_bilayer.student.network import Student
from mobile_bilayer.student.weights import load_student, save_student
from mobile_bilayer.training.discriminator import draw_stickmen
from mobile_bilayer.training.mouth_critic import WINDOW_PX, MouthCritic, mouth_windows
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

LOSSES = ("l1", "lpips", "lights", "elsewhere", *MouthCritic.NAMES)
OPEN, SHUT = 0.08, 0.035  # height of a mouth against the eyes' distance


@dataclass(frozen=True)
class MouthTraining:
    """How teeth are taught."""

    sources: int = 4  # of a step
    targets: int = 6  # of a source; a third of them are of any mouth
    learning_rate: float = 6e-4
    critic_rate: float = 1e-3
    warm_up_steps: int = 50
    ema: float = 0.998
    l1: float = 1.0  # inside of mouths
    lpips: float = 1.0  # of windows, half as large again
    lights: float = 4.0  # L1 of a mouth's greys in order of brightness: where they are is no matter
    critic: float = 0.15  # and ten times that for its features
    elsewhere: float = 100.0  # of layers outside of mouths from what they were
    held_out: int = 8  # identities kept for validation
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("sources", "targets", "learning_rate", "critic_rate", "warm_up_steps"):
            if not getattr(self, name) > 0:
                raise MobileBilayerError(f"{name} is {getattr(self, name)}; it must be above 0.")
        for name in ("l1", "lpips", "lights", "critic", "elsewhere", "held_out"):
            if not getattr(self, name) >= 0:
                raise MobileBilayerError(f"{name} is {getattr(self, name)}; it must be at least 0.")


class Mouths(Pairs):
    """`Pairs` in which a mouth opens that the source shows shut, where a clip has such frames."""

    def __init__(self, clips: list[PreparedClip], targets: int, augmentation: Augmentation, seed: int) -> None:
        heights = [apertures(clip.landmarks)[:, 2] for clip in clips]
        kept = [i for i, height in enumerate(heights) if (height > OPEN).any() and (height < OPEN).any()]
        if not kept:
            raise MobileBilayerError("No mouth opens in these clips. Prepare some in which people speak or laugh.")
        super().__init__([clips[i] for i in kept], targets, augmentation, seed)
        self.heights = [heights[i] for i in kept]
        people = [clip.identity for clip in self.clips]
        count = {who: sum((h > OPEN).sum() for h, p in zip(self.heights, people, strict=True) if p == who) for who in people}
        # Half way between each person and each mouth the same.
        chance = np.array([(h > OPEN).sum() / count[p] * count[p] ** 0.5 for h, p in zip(self.heights, people, strict=True)])
        self._up_to = np.cumsum(chance / chance.sum())

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        cv2.setNumThreads(1)
        rng = np.random.default_rng([self.seed, index])
        which = min(int(np.searchsorted(self._up_to, rng.random(), "right")), len(self.clips) - 1)
        clip, height = self.clips[which], self.heights[which]
        first = int(rng.choice(np.flatnonzero(height > OPEN)))
        near = clip.shots == clip.shots[first]
        source = np.flatnonzero(near & (height < SHUT))
        if not len(source):  # the least open of the shot
            source = np.flatnonzero(near)[[height[near].argmin()]]
        targets = np.flatnonzero(near & (height > OPEN))
        # A third is of any: there, all is to stay as it was.
        others = self.targets // 3
        chosen = [first, *rng.choice(targets, self.targets - others - 1), *rng.choice(np.flatnonzero(near), others)]
        return make_example(clip, int(rng.choice(source)), [int(t) for t in chosen], self.augmentation, rng)


def window_grid(points: Tensor) -> Tensor:
    """(N, W, W, 2): where the pixels of each mouth's window lie in the picture's [-1, 1]. points: (N, K, 2)."""
    whole = identity_grid(IMAGE_PX, points)
    return torch.stack([whole[rows, columns] for rows, columns in mouth_windows(points)])


def see(layers: Tensor, grid: Tensor) -> Tensor:
    """Pictures or layers of any size at the grid's places: as `composite` enlarges them."""
    return F.grid_sample(layers, grid, padding_mode="border", align_corners=False)


def window(texture: Tensor, background: Tensor, layers: Layers, grid: Tensor) -> Tensor:
    """(N, 3, W, W): what `composite` shows there."""
    a, lf = see(layers.a, grid), see(layers.b, grid)
    head = a[:, 2:3] * see(texture, grid + a[:, :2].permute(0, 2, 3, 1)) + lf
    behind = see(background, grid)
    return behind + a[:, 3:4] * (head - behind)


def inside(student: Student, source: Tensor, driving: Tensor) -> tuple[Tensor, Tensor]:
    """How much is a mouth's inside that the source does not show (N, 1, 64, 64), 0..1; and 28 places in each (N, 1, 28, 2)."""
    mouth = student.frame.mouth
    source, driving = source.mT, driving.mT
    share, _ = mouth(driving.new_zeros(len(driving), 3, driving.shape[2]), source, driving, student.frame.centres64)
    return share.clamp(0, 1), mouth.places(driving).mT[:, None]


def lights(picture: Tensor, grid: Tensor) -> Tensor:
    """(N, 28): a mouth's greys, the dark ones first. picture (N, 3, W, W); grid (N, 1, 28, 2), places in it."""
    grey = (see(picture, grid)[:, :, 0] * picture.new_tensor(GREY)[:, None]).sum(1)
    return grey.sort(1).values


def in_window(places: Tensor, grid: Tensor) -> Tensor:
    """Places (N, 1, P, 2) of the picture's [-1, 1] in the window's."""
    middle = (grid[:, :1, :1] + grid[:, -1:, -1:]) / 2
    return (places - middle) * (IMAGE_PX / WINDOW_PX)


def mouth_losses(
    student: nn.Module, before: Student, batch: dict[str, Tensor], lpips: Lpips, critic: MouthCritic, training: MouthTraining
) -> dict[str, Tensor]:
    """Each term, weighted; the sum of all but the critic's own falls. before: the student as it was, whose encoder both have."""
    driving = batch["points"]
    targets = len(driving) // len(batch["image"])
    with torch.no_grad():
        code = before.encoder(batch["image"], batch["source_points"])
        features, maps, source, texture = (
            x.repeat_interleave(targets, 0)
            for x in (code.landmark_features, code.map_features, batch["source_points"], batch["image"] * 2 - 1)
        )
        old = before.frame(features, maps, source, driving)
        share, places = inside(before, source, driving)
        grid = window_grid(driving)
        real = see(batch["target"] * 2 - 1, grid)
        stickmen = see(draw_stickmen(batch["keypoints"], IMAGE_PX), grid)
        weight, opened = see(share, grid), (see(share, places).mean((1, 2, 3)) > 0.4).float()
        places = in_window(places, grid)
        wanted = lights(real, places)
    new = student(features, maps, source, driving)
    shown = window(texture, batch["background"] * 2 - 1, new, grid)
    # Mouths that don't open and eyes count most: their weight is 9.
    elsewhere = (1 - F.max_pool2d(share, 5, 1, 2)) * F.interpolate(batch["weight"], size=share.shape[-1], mode="area")
    changed = (new.a - old.a).abs() * new.a.new_tensor([10.0, 10.0, 1.0, 1.0]).view(1, 4, 1, 1)  # flow in tenths of the frame
    painted = (new.b - old.b).abs() * F.interpolate(elsewhere, size=new.b.shape[-1])
    larger = [F.interpolate(x, size=WINDOW_PX * 3 // 2, mode="bilinear") for x in (shown, real, 0.1 + weight)]
    wrong = (lights(shown, places) - wanted).abs().mean(1)
    return {
        "l1": training.l1 * (weight * (shown - real).abs()).sum() / weight.sum().clamp(min=1) / 3,
        "lpips": training.lpips * lpips(*larger).mean(),
        "lights": training.lights * (opened * wrong).sum() / opened.sum().clamp(min=1),
        "elsewhere": training.elsewhere * ((elsewhere * changed).mean() + painted.mean()),
        **critic.terms(shown, real, stickmen),
    }


@torch.no_grad()
def validate(student: Student, before: Student, batch: dict[str, Tensor]) -> tuple[dict[str, float], np.ndarray]:
    """Inside of mouths that open: L1, and the spread of greys against the real one's; elsewhere, the change of the picture; and a
    sheet of windows: source, target, before, now.
    """
    student.eval()
    targets = len(batch["target"]) // len(batch["image"])
    texture, source = ((x.repeat_interleave(targets, 0)) for x in (batch["image"] * 2 - 1, batch["source_points"]))
    grid = window_grid(batch["points"])
    share, places = inside(before, source, batch["points"])
    weight, places = see(share, grid), in_window(places, grid)
    shown = []
    for network in (before, student):
        layers, _, _ = network(batch["image"], batch["source_points"], batch["points"])
        shown.append(window(texture, batch["background"] * 2 - 1, layers, grid).clamp(-1, 1))
    real = see(batch["target"] * 2 - 1, grid)
    metrics = {}
    for name, picture in zip(("before", "now"), shown, strict=True):
        metrics[f"l1_{name}"] = float((weight * (picture - real).abs()).sum() / weight.sum() / 6)
        spread = [lights(x, places).std(1).mean() for x in (picture, real)]
        metrics[f"spread_{name}"] = float(spread[0] / spread[1])
    outside = 1 - F.max_pool2d(weight, 9, 1, 4)
    metrics["changed_outside"] = float((outside * (shown[1] - shown[0]).abs()).sum() / outside.sum() / 6)
    columns = [see(texture, window_grid(source)), real, *shown]
    rows = [torch.cat(row, 2) for row in zip(*(list(column) for column in columns), strict=True)]
    across = 4  # examples beside one another
    sheet = torch.cat([torch.cat(rows[i::across], 1) for i in range(across)], 2)
    rgb = ((sheet.permute(1, 2, 0) + 1) * 127.5).clamp(0, 255).round().byte().cpu().numpy()
    return metrics, cv2.resize(rgb, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)


def train_mouth(
    prepared: Path,
    out: Path,
    start: Path,
    training: MouthTraining,
    steps: int | None = None,
    minutes: float | None = None,
    like: Path | None = None,
    workers: int = 1,
    save_every_s: float = 300,
) -> Path:
    """Train until `steps` or `minutes` of training are reached, in all calls together; return the weights' path.

    start  a student's weights, with a mouth in its prior. Its encoder stays as it is, and so do its layers outside of mouths
    like   whose layers those elsewhere are held to; None: those of `start`. For a further run it is what the first began with
    out    gets what `train_student` writes; the weights keep the facts of `start`, and have those of this run beside them
    """
    budget = Budget(steps, minutes)
    torch.set_flush_denormal(True)
    fabric = Fabric(accelerator="auto", devices=1)
    fabric.seed_everything(training.seed, verbose=False)
    student, facts = load_student(start)
    if not student.config.sigma_mouth:
        raise MobileBilayerError(f"{start} is of a student whose prior opens no mouth; train one that has sigma_mouth.")
    before = load_student(like or start)[0].requires_grad_(False)
    if before.config != student.config or not all(map(torch.equal, before.encoder.parameters(), student.encoder.parameters())):
        raise MobileBilayerError(f"{like} has another encoder than {start}: no mouths were taught between them. Leave it out.")
    clips, held = split(load_clips(prepared), training.held_out)
    data = Mouths(clips, training.targets, Augmentation(), training.seed)
    seen = Mouths(held, 1, NO_AUGMENTATION, training.seed)
    out.mkdir(parents=True, exist_ok=True)
    before, lpips = fabric.to_device(before), fabric.to_device(Lpips())
    student.encoder.requires_grad_(False)
    optimizer = torch.optim.Adam(student.frame.parameters(), training.learning_rate, (0.5, 0.99))
    wrapped, optimizer = fabric.setup(student.frame, optimizer)
    critic = MouthCritic(fabric, training.critic, training.critic_rate)
    average = AveragedModel(student, multi_avg_fn=moving_average(training.ema), use_buffers=True)
    begun = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (start, like or start)]
    settings = json.dumps({"start": begun, "training": asdict(training)})
    checkpoint = out / "checkpoint.pt"
    if state := read_checkpoint(checkpoint, settings, fabric.device):
        student.load_state_dict(state["student"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        critic.load_state_dict(state["critic"])
        budget.step, budget.elapsed_s = state["step"], state["elapsed_s"]
    log = Log(out, budget.step)
    shown = fabric.to_device(to_tensors(default_collate([seen[i] for i in range(40)])))

    def save() -> dict[str, float]:
        metrics, sheet = validate(average.module, before, shown)
        state = {
            "settings": settings,
            "student": student.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "critic": critic.state_dict(),
            "step": budget.step,
            "elapsed_s": budget.elapsed_s,
        }
        write_checkpoint(checkpoint, state)
        run = {
            "steps": budget.step,
            "windows": budget.step * training.sources * training.targets,
            "minutes": round(budget.elapsed_s / 60, 1),
            "clips": len(data.clips),
            "identities": len({c.identity for c in data.clips}),
            "training": asdict(training),
            "validation": metrics,
        }
        legs = [*facts.get("mouth", []), run]
        save_student(average.module, out / "student.safetensors", facts | {"mouth": legs})
        write_image(out / f"sheet-{budget.step:06d}.png", sheet)
        return metrics

    stream = batches(data, budget.step, training.sources, workers, fabric)

    def take_step(done: float) -> dict[str, Tensor]:
        rate = cosine_rate(done, budget.step, training.warm_up_steps)
        for group in optimizer.param_groups:
            group["lr"] = training.learning_rate * rate
        wrapped.eval()  # batch norm as it was: mouths alone are no measure of what it will see
        terms = mouth_losses(wrapped, before, next(stream), lpips, critic, training)
        loss = torch.stack([term for name, term in terms.items() if name != "critic"]).sum()
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        norm = fabric.clip_gradients(wrapped, optimizer, max_norm=1.0, error_if_nonfinite=False)
        if torch.isfinite(norm):
            optimizer.step()
            average.update_parameters(student)
        return terms

    run_steps(budget, log, LOSSES, take_step, save, save_every_s)
    return out / "student.safetensors"
