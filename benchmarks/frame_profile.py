"""Where a frame's time goes, operator by operator, and what stays outside the delegate.

    python benchmarks/frame_profile.py [BUNDLE]

ExecuTorch's event tracer asks XNNPACK for each operator's time; tracing itself costs a little. One thread.
"""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Annotated

os.environ.setdefault("OMP_NUM_THREADS", "1")
import numpy as np
import torch
import typer
from mobile_bilayer.export.bundle import sample_inputs

from mobile_bilayer import Bundle
from mobile_bilayer.student.weights import load_student

METHOD = "render_layers"
OUTSIDE = "outside the delegate"


def frame_inputs(bundle: Bundle) -> list[torch.Tensor]:
    """Of a sample photo, as the bundle itself encodes it."""
    sample = sample_inputs(load_student()[0], "astronaut")
    source, driving = sample["source_points"][None], sample["driving_points"][None]
    features, maps, _ = bundle.program.run("encode_avatar", sample["image"][None].float().numpy() / 255, source.numpy())
    return [torch.from_numpy(features), torch.from_numpy(maps), source, driving]


def kind_of(event: str) -> str:
    """ "Convolution (NHWC, QC8) IGEMM #12" is one of "Convolution (NHWC, QC8) IGEMM"."""
    return re.sub(r" #\d+$", "", event)


def profile(bundle: Bundle, rounds: int = 30) -> dict[str, float]:
    """{kind of operator: median ms of a frame}, the largest first; what no delegate ran is called `OUTSIDE`."""
    from executorch.devtools import Inspector
    from executorch.extension.pybindings.portable_lib import _load_for_executorch_from_buffer

    inputs = frame_inputs(bundle)
    program = _load_for_executorch_from_buffer(bundle.contents[bundle.manifest.program], enable_etdump=True)
    for _ in range(rounds):
        program.run_method(METHOD, inputs)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that no tensors were kept
        file = Path(folder) / "frame.etdp"
        program.write_etdump_result_to_file(str(file))
        blocks = Inspector(etdump_path=str(file)).event_blocks
    took: dict[str, float] = defaultdict(float)
    for block in blocks:
        if block.name != "Execute":
            continue
        for event in block.events:
            ms = float(np.median(event.perf_data.raw))
            if event.is_delegated_op:
                took[kind_of(event.name)] += ms
            elif event.name.startswith("OPERATOR_CALL") or event.name.startswith("native_call"):
                took[OUTSIDE] += ms
    return dict(sorted(took.items(), key=lambda item: -item[1]))


def main(bundle: Annotated[Path | None, typer.Argument(help="Default: the shipped bundle.")] = None) -> None:
    """Print a table, Markdown."""
    from mobile_bilayer.runtime.executorch_file import quiet_runtime

    quiet_runtime()
    from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool

    _unsafe_reset_threadpool(1)  # before a program is loaded, which would keep the old one
    opened = Bundle.open(bundle)
    took = profile(opened)
    total = sum(took.values())
    print(f"{opened.manifest.name}, {METHOD}: {total:.2f} ms of operators; outside the delegate {took.get(OUTSIDE, 0):.2f} ms")
    print("\n| operator | ms | share |\n|---|---|---|")
    for name, ms in took.items():
        if ms >= 0.005 * total:
            print(f"| {name} | {ms:.3f} | {ms / total:.1%} |")


if __name__ == "__main__":
    typer.run(main)
