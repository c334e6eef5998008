"""An int8 program beside its float twin: whether it is worth having."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Mapping

import numpy as np

from mobile_bilayer.errors import MobileBilayerError

SLOWER = 1.1  # of the twin's time: less is noise


def median_ms(runs: Mapping[str, Callable[[], object]], rounds: int = 30) -> dict[str, float]:
    """Of each, run in turns: whatever else the machine does, it does to all of them."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(rounds + 3):
        for name, run in runs.items():
            begun = time.perf_counter()
            run()
            if turn >= 3:  # warm
                times[name].append(1000 * (time.perf_counter() - begun))
    return {name: float(np.median(values)) for name, values in times.items()}


def refuse_larger(int8_bytes: int, float_bytes: int) -> None:
    """Raises MobileBilayerError when int8 saves no space: most likely a float graph under the int8 name."""
    if int8_bytes >= float_bytes:
        raise MobileBilayerError(
            f"The int8 program has {int8_bytes / 1000:.0f} kB, the same in float {float_bytes / 1000:.0f} kB: nothing is gained. "
            "Export fp32."
        )


def warn_slower(int8_ms: float, float_ms: float) -> None:
    """Says when int8 is slower here, and why it is kept."""
    if int8_ms > SLOWER * float_ms:
        warnings.warn(
            f"A frame takes {int8_ms:.2f} ms in int8 and {float_ms:.2f} ms in float on this machine. Int8 is kept: the file "
            "is smaller, and processors that multiply bytes (Arm dot product, AVX-VNNI) are several times faster in it.",
            stacklevel=2,
        )
