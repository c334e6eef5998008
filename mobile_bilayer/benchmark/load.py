"""How long a bundle takes to load. As a program it does so in a process of its own: `python -m mobile_bilayer.benchmark.load BUNDLE [THREADS]`."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from mobile_bilayer.errors import MobileBilayerError

LONGEST_S = 300


def load_ms(path: Path) -> float:
    """From the files to methods that can be run; hashes are checked, as always. Not Python's own start, nor its imports."""
    from mobile_bilayer.runtime.bundle import Bundle

    begun = time.perf_counter()
    _ = Bundle.open(path).program
    return 1000 * (time.perf_counter() - begun)


def cold_ms(path: Path, threads: int) -> float:
    """The same in a fresh process; the files are in the system's memory by then, as they were just read."""
    call = [sys.executable, "-m", "mobile_bilayer.benchmark.load", str(path), str(threads)]
    try:
        ended = subprocess.run(call, capture_output=True, text=True, timeout=LONGEST_S)
        if ended.returncode:
            last = (ended.stderr.strip() or f"it ended with {ended.returncode}").splitlines()[-1][:300]
            raise ValueError(last)
        return float(ended.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise MobileBilayerError(
            f"{path} can't be loaded in a process of its own ({error}). Run `mobile-bilayer inspect` on it."
        ) from error


if __name__ == "__main__":
    from mobile_bilayer.benchmark.machine import runtime_threads

    with runtime_threads(int(sys.argv[2])):
        print(load_ms(Path(sys.argv[1])))
