"""How long one thing takes, of another, on one core of this machine.

Processor time is taken, of frames by turns: what other programs do at the time changes neither much.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from mobile_bilayer.benchmark.machine import on_one_core, runtime_threads

ROUNDS, WARM = 9, 2
RUNS = 5  # of the quick one, before and after each of the slow one's


@dataclass(frozen=True)
class Ratio:
    """Medians over the turns."""

    ratio: float
    slow_ms: float
    quick_ms: float


def slow_over_quick(slow: Callable[[], object], quick: Callable[[], object], rounds: int = ROUNDS) -> Ratio:
    """How many times as long `slow` takes."""
    turns = []
    for _ in range(WARM + rounds):
        before = [_ms(quick) for _ in range(RUNS)]
        took = _ms(slow)
        turns.append((took, np.median(before + [_ms(quick) for _ in range(RUNS)])))
    slow_ms, quick_ms = np.array(turns[WARM:]).T
    return Ratio(float(np.median(slow_ms / quick_ms)), float(np.median(slow_ms)), float(np.median(quick_ms)))


@contextmanager
def one_core() -> Iterator[None]:
    """This process on one core, ExecuTorch's threads too. For a whole command: a program that was loaded before them crashes."""
    with runtime_threads(1), on_one_core():
        yield


def _ms(run: Callable[[], object]) -> float:
    begun = time.process_time()
    run()
    return 1000 * (time.process_time() - begun)
