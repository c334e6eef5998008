"""What limits a student: its errors on people that it was trained on, and on those kept out of training.

    python benchmarks/student_limits.py prepared/ XS S M runs/mine/student.safetensors

Where both are alike, what was asked of it limits it, or nobody could know; where they are not, more people would help.
Takes a few minutes. The table is Markdown.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import default_collate

from mobile_bilayer import cli
from mobile_bilayer.dataset.pairs import NO_AUGMENTATION, Pairs, PreparedClip, load_clips, to_tensors
from mobile_bilayer.perceptual import Lpips
from mobile_bilayer.student.network import SIZES, FrameNetwork, Student
from mobile_bilayer.student.weights import SHIPPED, load_student
from mobile_bilayer.training.run import split
from mobile_bilayer.training.student import TrainingConfig, render

PHOTO, OWN_COLOUR = "photo", "each mouth in its own colour"
METRICS = ("mouth, eyes", "LPIPS", "opened mouth")
RESAMPLES = 500


class Measure:
    """Errors of renders of one pair; of an opened mouth NaN where none opens that was not open in the source."""

    def __init__(self) -> None:
        self.lpips, self.frame = Lpips(), FrameNetwork(SIZES["S"])  # of the latter only where a mouth is: nothing is learned there

    def opened(self, batch: dict[str, Tensor]) -> Tensor:
        """(1, 1, 256, 256) bool."""
        source, driving = batch["source_points"].mT, batch["points"].mT
        none = torch.zeros(len(driving), 3, driving.shape[2])
        share, _ = self.frame.mouth(none, source, driving, self.frame.centres64)
        return F.interpolate(share, size=256, mode="bilinear") > 0.5

    def __call__(self, out: Tensor, batch: dict[str, Tensor], opened: Tensor) -> list[float]:
        target = batch["target"] * 2 - 1
        error = (out - target).abs().mean(1, keepdim=True) / 2
        part = batch["weight"] > 2
        return [
            float(error[part].mean()),
            float(self.lpips(out, target).mean()),
            float(error[opened].mean()) if opened.sum() > 20 else np.nan,
        ]


def errors(
    clips: list[PreparedClip], students: dict[str, Student], pairs: int, measure: Measure, on_pair: Callable[[int], None]
) -> dict[str, np.ndarray]:
    """{name: (pairs, 3)}, of the photo that stands still first; and of mouths filled with what nobody tells a student."""
    data, rows = Pairs(clips, 1, NO_AUGMENTATION, seed=77), {PHOTO: [], OWN_COLOUR: [], **{name: [] for name in students}}
    for i in range(pairs):
        batch = to_tensors(default_collate([data[i]]))
        opened, target = measure.opened(batch), batch["target"] * 2 - 1
        rows[PHOTO].append(measure(batch["image"] * 2 - 1, batch, opened))
        for name, student in students.items():
            layers, _, _ = student(batch["image"], batch["source_points"], batch["points"])
            rows[name].append(measure(render(layers, batch).clamp(-1, 1), batch, opened))
        own = target.clone()
        if opened.any():
            own[0, :, opened[0, 0]] = target[0, :, opened[0, 0]].median(1, keepdim=True).values
        rows[OWN_COLOUR].append([np.nan, np.nan, measure(own, batch, opened)[2]])
        on_pair(i + 1)
    return {name: np.array(values) for name, values in rows.items()}


def share_of_photo(values: np.ndarray, photo: np.ndarray) -> list[str]:
    """Of each metric: mean over the photo's, and its standard error by a bootstrap over pairs."""
    texts = []
    for value, of_photo in zip(values.T, photo.T, strict=True):
        value, of_photo = value[~np.isnan(value)], of_photo[~np.isnan(value)]
        if not len(value):
            texts.append("–")
            continue
        drawn = np.random.default_rng(0).integers(0, len(value), (RESAMPLES, len(value)))
        spread = np.std(value[drawn].mean(1) / of_photo[drawn].mean(1))
        texts.append(f"{value.mean() / of_photo.mean():.3f} ± {spread:.3f}")
    return texts


app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command(epilog="Example:  student_limits.py prepared/ S runs/mine/student.safetensors --pairs 300")
def measure_limits(
    prepared: Annotated[Path, typer.Argument(help="What the students were trained on.")],
    students: Annotated[list[str], typer.Argument(help="Weights, or XS, S and M for the shipped ones.")],
    pairs: Annotated[int, typer.Option(help="Of either kind of people, not augmented.", min=20)] = 300,
) -> None:
    """Errors as shares of a photo's that stands still, on people trained on and kept out of training."""
    opened = {name: load_student(SHIPPED.with_name(f"student-{name}.safetensors") if name in SIZES else Path(name))[0].eval() for name in students}
    trained, kept = split(load_clips(prepared), TrainingConfig().held_out)
    measure, tables = Measure(), {}
    with torch.no_grad(), cli.progress_bar() as progress:
        for what, clips in (("trained on", trained), ("kept out", kept)):
            tables[what] = errors(clips, opened, pairs, measure, lambda done, what=what: progress(what, done, pairs))
    print("| |", " | ".join(f"{metric}: {what}" for metric in METRICS for what in tables), "|")
    print("|---" * (1 + len(METRICS) * len(tables)) + "|")
    for name in [*opened, OWN_COLOUR]:
        cells = zip(*(share_of_photo(table[name], table[PHOTO]) for table in tables.values()), strict=True)
        print(f"| {name} |", " | ".join(cell for pair in cells for cell in pair), "|")
    counts = {what: int((~np.isnan(table[PHOTO][:, 2])).sum()) for what, table in tables.items()}
    print(f"{pairs} pairs of either; a mouth opens in {counts['trained on']} and {counts['kept out']}.")


if __name__ == "__main__":
    cli.main(app)
