"""What many measured times come to. android_demo/core's Statistics.kt is its twin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mobile_bilayer.errors import MobileBilayerError


@dataclass(frozen=True)
class Statistics:
    """In the unit of the times: percentiles between neighbours, linearly; cv is the standard deviation of a sample over the mean."""

    count: int
    mean: float
    p50: float
    p90: float
    p99: float
    cv: float

    @classmethod
    def of(cls, times: Sequence[float]) -> Statistics:
        """Of at least one time."""
        if not len(times):
            raise MobileBilayerError("Statistics of no measurement were asked for. Measure longer.")
        values = np.asarray(times, np.float64)
        mean = float(values.mean())
        spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        p50, p90, p99 = np.percentile(values, [50, 90, 99]).tolist()
        return cls(len(values), mean, p50, p90, p99, spread / mean if mean > 0 else 0.0)


def spread(medians: Sequence[float]) -> float | None:
    """(Largest - smallest) / mean; None for one."""
    return (max(medians) - min(medians)) / float(np.mean(medians)) if len(medians) > 1 else None
