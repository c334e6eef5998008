"""How close a render comes to the real frame, on people never trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from mobile_bilayer.background import fill_behind
from mobile_bilayer.compositing import Layers, composite
from mobile_bilayer.dataset.pairs import NO_AUGMENTATION, PreparedClip, load_clips, make_example, to_tensors
from mobile_bilayer.perceptual import Lpips
from mobile_bilayer.runtime.bundle import Bundle
from mobile_bilayer.student.network import FrameNetwork, StudentConfig

METRICS = ("l1", "mouth_and_eyes", "lpips")


@dataclass(frozen=True)
class Fidelity:
    """Means over pairs, by method and metric; and a sheet of some of them.

    table  {"static photo" | "landmark warp" | "student": {"l1" | "mouth_and_eyes" | "lpips": value}}; L1 of [0, 1]
    pairs  how many
    sheet  (H, W, 3) uint8: source, driver, landmark warp, student, error of the student times 4
    """

    table: dict[str, dict[str, float]]
    pairs: int
    sheet: np.ndarray


def chosen_frames(clip: PreparedClip, count: int) -> list[int]:
    """Evenly spread over the clip, the last included; the first is the source."""
    return [int(i) for i in np.linspace(0, len(clip) - 1, count + 1).round().astype(int)[1:]]


def evaluate_fidelity(
    prepared: Path,
    bundle: Bundle,
    targets: int = 4,
    videos_only: bool = True,
    on_progress: Callable[[str, int, int | None], None] | None = None,
) -> Fidelity:
    """Drive each clip's first frame by its own later frames, and compare with them.

    videos_only  leave out clips made of photos, whose backgrounds differ
    """
    clips = load_clips(prepared)
    if videos_only:
        clips = [c for c in clips if not c.path.name.startswith("photos_")] or clips
    lpips = Lpips()
    warp = FrameNetwork(StudentConfig())  # its prior has nothing learned
    sums = {name: dict.fromkeys(METRICS, 0.0) for name in ("static photo", "landmark warp", "student")}
    pairs, rows = 0, []
    rng = np.random.default_rng(0)
    for done, clip in enumerate(clips, 1):
        batch = to_tensors(default_collate([make_example(clip, 0, chosen_frames(clip, targets), NO_AUGMENTATION, rng)]))
        wanted = batch["target"] * 2 - 1
        texture = (batch["image"] * 2 - 1).expand_as(wanted)
        renders = {
            "static photo": texture,
            "landmark warp": _warped(warp, texture, batch),
            "student": _student(bundle, batch),
        }
        for name, render in renders.items():
            for metric, value in _metrics(render, wanted, batch["weight"], lpips).items():
                sums[name][metric] += value
        pairs += len(wanted)
        rows.append(_row(batch, renders))
        if on_progress:
            on_progress("Evaluating", done, len(clips))
    table = {name: {metric: value / pairs for metric, value in row.items()} for name, row in sums.items()}
    return Fidelity(table, pairs, np.concatenate(rows))


@torch.no_grad()
def _warped(network: FrameNetwork, texture: Tensor, batch: dict[str, Tensor]) -> Tensor:
    points = batch["points"]
    flow = network.prior(batch["source_points"].expand_as(points), points)[:, :2]
    ones = torch.ones_like(flow)
    return composite(texture, texture, Layers(torch.cat([flow, ones], 1), torch.zeros(len(points), 3, 64, 64)))


@torch.no_grad()
def _student(bundle: Bundle, batch: dict[str, Tensor]) -> Tensor:
    """As a phone would: the bundle's program, and the source's own inpainted background."""
    image, source = batch["image"], batch["source_points"]
    features, maps, alpha = bundle.program.run("encode_avatar", image.numpy(), source.numpy())
    rgb = np.ascontiguousarray((image[0].permute(1, 2, 0) * 255).round().byte().numpy())
    behind = fill_behind(rgb, cv2.resize(alpha[0, 0].clip(0, 1), (256, 256), interpolation=cv2.INTER_LINEAR))
    background = torch.from_numpy(behind).permute(2, 0, 1)[None].float() / 127.5 - 1
    out = []
    for points in batch["points"]:
        a, b = bundle.program.run("render_layers", features, maps, source.numpy(), points[None].numpy())
        out.append(composite(image * 2 - 1, background, Layers(torch.from_numpy(a), torch.from_numpy(b))))
    return torch.cat(out)


@torch.no_grad()
def _metrics(render: Tensor, wanted: Tensor, weight: Tensor, lpips: Lpips) -> dict[str, float]:
    """Sums over the pairs."""
    render = ((render.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1  # what a screen shows
    error = (render - wanted).abs().mean(1, keepdim=True) / 2
    inside, part = (weight > 0.5).float(), (weight > 2).float()
    return {
        "l1": float(((error * inside).sum((1, 2, 3)) / inside.sum((1, 2, 3))).sum()),
        "mouth_and_eyes": float(((error * part).sum((1, 2, 3)) / part.sum((1, 2, 3)).clamp(min=1)).sum()),
        "lpips": float(lpips(render, wanted).sum()),
    }


def _row(batch: dict[str, Tensor], renders: dict[str, Tensor]) -> np.ndarray:
    """One line of the sheet: the target that differs most from the source."""
    wanted = batch["target"] * 2 - 1
    pick = int((renders["static photo"] - wanted).abs().mean((1, 2, 3)).argmax())
    error = (renders["student"][pick] - wanted[pick]).abs() * 4 - 1
    columns = [batch["image"][0] * 2 - 1, wanted[pick], renders["landmark warp"][pick], renders["student"][pick], error]
    line = torch.cat(columns, 2).clamp(-1, 1)
    return ((line + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
