"""Which part suffers from int8: one at a time, against the float student."""

from __future__ import annotations

import copy
import csv
import json
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table
from torch import Tensor, nn

from mobile_bilayer.capture.images import written_aside
from mobile_bilayer.compositing import Layers, composite
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.export.bundle import real_inputs
from mobile_bilayer.export.executorch import EncodeAvatar, RenderLayers
from mobile_bilayer.perceptual import Lpips
from mobile_bilayer.quantization.calibrate import check_examples, quantize
from mobile_bilayer.quantization.equalize import equalized
from mobile_bilayer.quantization.recipes import STAYS_FLOAT, Recipe
from mobile_bilayer.student.network import IMAGE_PX, Student
from mobile_bilayer.student.weights import load_student

MEASURED_PAIRS = 12
ENCODER_HEADS, FRAME_HEADS = ("map_head", "feature_head", "alpha_head"), ("top", "heads")
Values = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Damage:
    """What int8 in one part does to the composed image.

    network  "frame" or "encoder"
    float    whether the shipped recipe leaves it in float
    sqnr_db  signal against error of the composed image, in dB: less is worse
    lpips    of the image, against the float student's
    flow_px  mean error of the flow, in pixels of 256
    """

    part: str
    network: str
    float: bool
    sqnr_db: float
    lpips: float
    flow_px: float


class Pair(NamedTuple):
    """A source and a driving frame, as `real_inputs` gives them."""

    image: Tensor
    source: Tensor
    driving: Tensor


def rounded(x: Tensor) -> Tensor:
    """A tensor as its own 256 values: what int8 makes of something that is no module, at best."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 1e-6)
    scale = (high - low) / 255
    return torch.fake_quantize_per_tensor_affine(x, scale, round(-low / scale) - 128, -128, 127)


def parts_of(network: nn.Module, heads: tuple[str, ...]) -> list[str]:
    """The whole trunk, each of its blocks that has weights, and what the recipe leaves in float."""
    blocks = [name for name, module in network.trunk.named_children() if any(True for _ in module.parameters())]
    return ["trunk", *(f"trunk.{name}" for name in blocks), *heads]


def measure_sensitivity(
    weights: Path,
    prepared: Path,
    calibration: int = 64,
    recipe: Recipe | None = None,
    on_progress: Callable[[str, int, int | None], None] | None = None,
    parts: tuple[str, ...] | None = None,
) -> list[Damage]:
    """Quantize one part at a time, the rest in float; the worst first.

    parts  only these; by default all blocks, and everything that stays float
    """
    recipe = recipe or Recipe()
    student, _ = load_student(weights)
    inputs = real_inputs(student, prepared, max(0, calibration) + MEASURED_PAIRS, seed=0)
    first = {name: values[: max(0, calibration)] for name, values in inputs.items()}
    for method, examples in first.items():
        check_examples(examples, method)
    student = equalized(student, first["render_layers"])  # as it is exported
    pairs = [
        Pair(image, source, render[3])
        for (image, source), render in zip(inputs["encode_avatar"], inputs["render_layers"], strict=True)
    ][calibration:]
    encode, frame = EncodeAvatar(student.encoder).eval(), RenderLayers(student.frame).eval()
    of_encoder, of_frame = parts_of(student.encoder, ENCODER_HEADS), parts_of(student.frame, FRAME_HEADS)
    whole = [("encoder", part) for part in of_encoder] + [("frame", part) for part in of_frame]
    whole += [("frame", part) for part in ("landmarks", "prior", "flow")]
    chosen = [(network, part) for network, part in whole if parts is None or part in parts]
    if not chosen:
        raise MobileBilayerError(
            f"No part is called {', '.join(parts or ())}. Choose of {', '.join(sorted({p for _, p in whole}))}."
        )
    lpips = Lpips()
    reference = run(encode, frame, pairs)
    exported = {}
    damages = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch
        for done, (network, part) in enumerate(chosen, 1):
            module, method = (encode, "encode_avatar") if network == "encoder" else (frame, "render_layers")
            used = {"encode": encode, "frame": frame}
            if part == "prior":
                with _prior_rounded(student):
                    got = run(**used, pairs=pairs)
            elif part in ("landmarks", "flow"):
                got = run(**used, pairs=pairs, **{part: rounded})
            else:
                if method not in exported:
                    exported[method] = torch.export.export(module, first[method][0])
                graph = copy.deepcopy(exported[method]).module()
                used["encode" if network == "encoder" else "frame"] = quantize(
                    graph, first[method], replace(recipe.of(method), int8=(part,)), method
                )
                got = run(**used, pairs=pairs)
            damages.append(_damage(part, network, got, reference, lpips))
            if on_progress:
                on_progress("Quantizing", done, len(chosen))
    return sorted(damages, key=lambda damage: damage.sqnr_db)


@torch.no_grad()
def run(
    encode: nn.Module, frame: nn.Module, pairs: list[Pair], landmarks: Values | None = None, flow: Values | None = None
) -> tuple[Tensor, Tensor]:
    """Images (N, 3, 256, 256) in [0, 1] and flows (N, 2, 64, 64) of pairs, each by itself.

    landmarks, flow  what becomes of both faces' landmarks, and of the finished flow
    """
    images, flows = [], []
    for image, source, driving in pairs:
        features, maps, _ = encode(image, source)
        if landmarks:
            source, driving = landmarks(source), landmarks(driving)
        a, b = frame(features, maps, source, driving)
        if flow:
            a = torch.cat([flow(a[:, :2]), a[:, 2:]], 1)
        texture = image * 2 - 1
        images.append((composite(texture, torch.zeros_like(texture), Layers(a, b)).clamp(-1, 1) + 1) / 2)
        flows.append(a[:, :2])
    return torch.cat(images), torch.cat(flows)


@contextmanager
def _prior_rounded(student: Student):
    frame, prior = student.frame, student.frame.prior
    frame.prior = lambda *points: rounded(prior(*points))
    try:
        yield
    finally:
        del frame.prior


def _damage(part: str, network: str, got: tuple[Tensor, Tensor], wanted: tuple[Tensor, Tensor], lpips: Lpips) -> Damage:
    (image, flow), (whole, steady) = got, wanted
    noise = (image - whole).square().mean().clamp(min=1e-12)
    with torch.no_grad():
        seen = float(lpips(image * 2 - 1, whole * 2 - 1).mean())
    return Damage(
        part,
        network,
        part in STAYS_FLOAT,
        float(10 * torch.log10(whole.square().mean() / noise)),
        seen,
        float((flow - steady).abs().mean()) * IMAGE_PX / 2,
    )


def sensitivity_table(damages: list[Damage]) -> Table:
    """For a terminal."""
    title = "One part in int8 at a time, the worst first"
    table = Table("part", "network", "ships as", title=title, box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for column in ("SQNR dB ↑", "LPIPS ↓", "flow px ↓"):
        table.add_column(column, justify="right", no_wrap=True)
    for d in damages:
        kept = "float" if d.float else "int8"
        table.add_row(d.part, d.network, kept, f"{d.sqnr_db:.1f}", f"{d.lpips:.5f}", f"{d.flow_px:.4f}")
    return table


def write_sensitivity(folder: Path, damages: list[Damage]) -> list[Path]:
    """sensitivity.csv, .json and .png."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"sensitivity.{suffix}" for suffix in ("csv", "json", "png")]
    with written_aside(paths[0]) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Damage)])
        writer.writeheader()
        writer.writerows(asdict(damage) for damage in damages)
    rows = [asdict(d) | {"stays_float_because": STAYS_FLOAT.get(d.part)} for d in damages]
    with written_aside(paths[1]) as aside:
        aside.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
    with written_aside(paths[2]) as aside:
        _plot(damages).savefig(aside, format="png", dpi=120)
    return paths


def _plot(damages: list[Damage]):
    """Matplotlib comes with MediaPipe."""
    from matplotlib.figure import Figure

    figure = Figure((8, 1 + 0.25 * len(damages)), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    places = np.arange(len(damages))[::-1]
    colours = ["#c05030" if d.float else "#3070b0" for d in damages]
    for axis, values, title in (
        (axes[0], [d.sqnr_db for d in damages], "SQNR of the image, dB (less is worse)"),
        (axes[1], [d.flow_px for d in damages], "flow error, px of 256"),
    ):
        axis.barh(places, values, color=colours)
        axis.set_title(title, fontsize=9)
    axes[0].set_yticks(places, [f"{d.network} {d.part}" for d in damages], fontsize=8)
    figure.suptitle("One part in int8 at a time (red: ships in float)", fontsize=10)
    return figure
