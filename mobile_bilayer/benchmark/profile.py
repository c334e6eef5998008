"""Where a frame's time goes, operator by operator, and what stays outside the delegate: ExecuTorch's event tracer."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.runtime.bundle import Bundle
from mobile_bilayer.runtime.manifest import CORE_ML

METHOD = "render_layers"
OUTSIDE = "outside the delegate"


def kind_of(event: str) -> str:
    """ "Convolution (NHWC, QC8) IGEMM #12" is one of "Convolution (NHWC, QC8) IGEMM"."""
    return re.sub(r" #\d+$", "", event)


def profile(bundle: Bundle, inputs: list[np.ndarray], rounds: int = 30) -> dict[str, float]:
    """{kind of operator: median ms of a frame}, the largest first; what no delegate ran is called `OUTSIDE`.

    inputs  of render_layers. XNNPACK is asked for each of its operators' times; tracing itself costs a little
    """
    if bundle.manifest.backend == CORE_ML:
        raise MobileBilayerError(
            f"{bundle.where} is made for Core ML, whose operators Xcode's performance report times. Profile an ExecuTorch bundle."
        )
    import torch
    from executorch.devtools import Inspector
    from executorch.extension.pybindings.portable_lib import _load_for_executorch_from_buffer

    program = _load_for_executorch_from_buffer(bundle.contents[bundle.manifest.program], enable_etdump=True)
    tensors = [torch.from_numpy(np.array(value, order="C")) for value in inputs]
    for _ in range(rounds):
        program.run_method(METHOD, tensors)
    with tempfile.TemporaryDirectory(prefix="mobile_bilayer.") as folder, warnings.catch_warnings():
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
            elif event.name.startswith(("OPERATOR_CALL", "native_call")):
                took[OUTSIDE] += ms
    return dict(sorted(took.items(), key=lambda item: -item[1]))
