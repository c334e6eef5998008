"""Float, half and int8 in one table. What is measured is the exported file, as a phone would run it.

No row of XNNPACK's has weights alone in int8: with ranges found when values come, the runtime (ExecuTorch 1.5.1) runs convolutions
at some sizes and fails at others. Core ML's packages, with weights of 8, 6 and 4 bits alone, are computed by an
evaluator outside macOS, which says nothing of time.
"""

from __future__ import annotations

import csv
import json
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rich.box import SIMPLE_HEAD
from rich.table import Table

from mobile_bilayer.capture.images import written_aside
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.evaluation.fidelity import ClipRenders, evaluate_fidelity, plain
from mobile_bilayer.evaluation.methods import open_students, student_method
from mobile_bilayer.evaluation.metrics import psnr
from mobile_bilayer.export.bundle import CALIBRATION_PAIRS, program_bundle, real_inputs
from mobile_bilayer.export.coreml import convert_student
from mobile_bilayer.export.coreml_tools import coremltools
from mobile_bilayer.export.executorch import lower, with_half_trunks
from mobile_bilayer.perceptual import Lpips
from mobile_bilayer.quantization.recipes import Recipe
from mobile_bilayer.quantization.twins import median_ms
from mobile_bilayer.runtime.bundle import Bundle
from mobile_bilayer.runtime.manifest import CORE_ML
from mobile_bilayer.student.network import Student
from mobile_bilayer.student.weights import load_student

FLOAT = "float student"  # in torch: what the others are held against
WEIGHTS_ALONE = ("w8", "palettized6", "palettized4")  # Core ML's
VARIANTS = ("fp32", "fp16 weights", "int8", *WEIGHTS_ALONE)
CASTS = {"dim_order_ops._to_dim_order_copy.default": "into and out of the half-precision trunk"}


@dataclass(frozen=True)
class Row:
    """One exported file.

    file_kb    of the program, both methods
    frame_ms   median of a frame, all rows in turns; one thread where the runtime has one; NaN of what an evaluator computes
    float_psnr, float_lpips  of its images against the float student's
    psnr, lpips              against the real pictures
    identity, jitter         as `evaluate fidelity` has them; NaN with --quick
    """

    name: str
    file_kb: float
    frame_ms: float
    float_psnr: float
    float_lpips: float
    psnr: float
    lpips: float
    identity: float
    jitter: float


def variant_files(student: Student, name: str, inputs: dict[str, list], recipe: Recipe) -> dict[str, bytes] | bytes:
    """The exported file of one of `VARIANTS`; of Core ML's, both packages' files by path."""
    if name in WEIGHTS_ALONE:
        return convert_student(student, {method: of_method[:1] for method, of_method in inputs.items()}, name).files
    if name == "fp32":
        return lower(student, inputs, "fp32").data
    if name == "fp16 weights":
        return lower(with_half_trunks(student), inputs, "fp32", explained=CASTS).data
    assert name == "int8", name
    return lower(student, inputs, "int8", recipe).data


def made_here(variants: Sequence[str]) -> list[str]:
    """Those that can be made on this machine. Warns of what is left out."""
    if not set(variants) & set(WEIGHTS_ALONE):
        return list(variants)
    try:
        coremltools()
    except MobileBilayerError as error:
        warnings.warn(f"{', '.join(WEIGHTS_ALONE)} are left out. {error}", stacklevel=2)
        return [name for name in variants if name not in WEIGHTS_ALONE]
    return list(variants)


def compare_precisions(
    weights: Path,
    prepared: Path,
    pictures: Path,
    bundles: Sequence[Path] = (),
    calibration: int = CALIBRATION_PAIRS,
    recipe: Recipe | None = None,
    quick: bool = False,
    on_progress: Callable[[str, int, int | None], None] | None = None,
    variants: Sequence[str] = VARIANTS,
) -> list[Row]:
    """Export a student in every precision and measure the files, and those of `bundles` with them.

    prepared  clips to calibrate on; pictures  clips to measure on, best of other people
    """
    student, facts = load_student(weights)
    given = open_bundles(bundles)
    inputs = real_inputs(student, prepared, max(0, calibration), seed=0)
    variants = made_here(variants)
    opened: dict[str, Bundle] = {}
    with tempfile.TemporaryDirectory() as folder:
        first = None
        for done, name in enumerate(variants, 1):
            files = variant_files(student, name, inputs, recipe or Recipe())
            if name in WEIGHTS_ALONE:
                about = replace(first.manifest, backend=CORE_ML, program=name)
                opened[name] = replace(first, manifest=about, contents={f"{name}/{path}": data for path, data in files.items()}, where=name)
            else:
                if first is None:
                    first = program_bundle(Path(folder), student, files, facts, weights)
                opened[name] = replace(first, contents=first.contents | {first.manifest.program: files})
            if on_progress:
                on_progress("Exporting", done, len(variants))
    opened |= given
    methods = {FLOAT: student_method(student), **{name: student_method(bundle) for name, bundle in opened.items()}}
    images = _AgainstFloat()
    result = evaluate_fidelity(pictures, methods, quick=quick, on_progress=on_progress, on_clip=images)
    frame = [x.numpy() for x in inputs["render_layers"][0]]
    timed = {name: b for name, b in opened.items() if b.manifest.backend != CORE_ML or b.program.engine != "evaluator"}
    took = median_ms({name: partial(b.program.run, "render_layers", *frame) for name, b in timed.items()}, rounds=60)
    rows = []
    for name, bundle in opened.items():
        of_float, table = images.means(name), result.table[name]
        rows.append(
            Row(
                name,
                program_size(bundle) / 1000,
                took.get(name, float("nan")),
                *of_float,
                *(table.get(metric, float("nan")) for metric in ("psnr", "lpips", "identity", "jitter")),
            )
        )
    return rows


def program_size(bundle: Bundle) -> int:
    """Bytes of the program, or of Core ML's packages."""
    packages = bundle.packages()
    return sum(map(len, packages.values())) if packages else len(bundle.contents[bundle.manifest.program])


def open_bundles(paths: Sequence[Path]) -> dict[str, Bundle]:
    """By the names that their rows have."""
    if not paths:
        return {}
    if any(path.suffix == ".safetensors" for path in paths):
        raise MobileBilayerError(
            "--bundle takes bundles, whose files are measured; float weights are the first argument."
        )
    names = [measured.name for measured in open_students(list(paths))]
    opened = {f"{path.name}, {name}": Bundle.open(path) for path, name in zip(paths, names, strict=True)}
    for bundle in opened.values():
        if bundle.manifest.backend not in ("xnnpack", CORE_ML):
            raise MobileBilayerError(
                f"{bundle.where} is for {bundle.manifest.backend}; --bundle takes those for xnnpack and {CORE_ML}. Leave it out."
            )
    return opened


class _AgainstFloat:
    """Sees every clip's renders, and holds them against the float student's."""

    def __init__(self) -> None:
        self.values: dict[str, list[np.ndarray]] = {}
        self._lpips = Lpips()

    @torch.no_grad()
    def __call__(self, seen: ClipRenders) -> None:
        wanted = seen.renders[FLOAT]
        for name, render in seen.renders.items():
            if name != FLOAT:
                pair = torch.stack([psnr(render, wanted), self._lpips(render * 2 - 1, wanted * 2 - 1).reshape(-1)])
                self.values.setdefault(name, []).append(pair.numpy())

    def means(self, name: str) -> tuple[float, float]:
        return tuple(float(x) for x in np.concatenate(self.values[name], 1).mean(1))


COLUMNS = {
    "file_kb": ("file", "kB", 0),
    "frame_ms": ("frame", "ms", 2),
    "float_psnr": ("PSNR of", "float, dB", 1),
    "float_lpips": ("LPIPS of", "float", 4),
    "psnr": ("PSNR of", "picture", 2),
    "lpips": ("LPIPS of", "picture", 4),
    "identity": ("identity", "", 3),
    "jitter": ("jitter", "%", 2),
}


def comparison_table(rows: list[Row]) -> Table:
    """For a terminal."""
    table = Table(
        "",
        title="Exported files, against the float student and real pictures",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )
    for first, second, _ in COLUMNS.values():
        table.add_column(f"{first}\n{second}", justify="right", vertical="bottom", no_wrap=True)
    for row in rows:
        values = ((getattr(row, key), digits) for key, (_, _, digits) in COLUMNS.items())
        table.add_row(row.name, *("–" if np.isnan(value) else f"{value:.{digits}f}" for value, digits in values))
    return table


def write_comparison(folder: Path, rows: list[Row]) -> list[Path]:
    """compare.csv and .json."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "compare.csv", folder / "compare.json"]
    with written_aside(paths[0]) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)
    with written_aside(paths[1]) as aside:
        aside.write_text(json.dumps(plain([asdict(row) for row in rows]), indent=1) + "\n", "utf-8")
    return paths
