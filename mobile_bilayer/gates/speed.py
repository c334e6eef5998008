"""How long one thing takes, of another, on one core of this machine.

Processor time is taken, of frames by turns: what other programs do at the time changes neither much.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from mobile_bilayer.quiet import quiet_stderr
from mobile_bilayer.runtime.executorch_file import quiet_runtime

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
    """This process on one core, and one thread for each library: phones differ in their number, and ratios stay comparable.

    For a whole command: ExecuTorch's threads are new in it and after it, and a program that was loaded with others
    crashes.
    """
    quiet_runtime()
    from executorch.extension.pybindings.portable_lib import _threadpool_get_thread_count, _unsafe_reset_threadpool

    threads, cv_threads = torch.get_num_threads(), cv2.getNumThreads()
    with quiet_stderr():  # it looks at the processor, and says so
        pool = _threadpool_get_thread_count()
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else None
    try:
        torch.set_num_threads(1)
        cv2.setNumThreads(1)
        with quiet_stderr():
            _unsafe_reset_threadpool(1)
        if cores:
            os.sched_setaffinity(0, {max(cores)})
        yield
    finally:
        if cores:
            os.sched_setaffinity(0, cores)
        with quiet_stderr():
            _unsafe_reset_threadpool(pool)
        cv2.setNumThreads(cv_threads)
        torch.set_num_threads(threads)


def _ms(run: Callable[[], object]) -> float:
    begun = time.process_time()
    run()
    return 1000 * (time.process_time() - begun)
