"""What android.py and ios.py have in common: calling a tool, and finishing what a phone has measured."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from mobile_bilayer.benchmark.profile import METHOD
from mobile_bilayer.benchmark.result import Result
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.runtime.bundle import Bundle, bundle_sha256
from mobile_bilayer.runtime.inspection import inspect

SUSTAINED_S = 600
INSTALL = {
    "adb": "Install Android's platform-tools (Debian: `apt-get install adb`), and put them on your PATH.",
    "xcrun": "It comes with Xcode, which needs a Mac: run this there, and `xcode-select --install` first.",
    "xcodebuild": "It comes with Xcode, which needs a Mac: run this there.",
}


@dataclass(frozen=True)
class Said:
    """What a tool said, on both streams, and its exit code."""

    text: str
    code: int


def call(
    *command: str | Path,
    timeout_s: float = 60,
    while_waiting: Callable[[float], None] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Said:
    """Run a tool to its end. A tool that is missing, or hangs, is a MobileBilayerError; an exit code is not.

    environment    variables beside our own
    while_waiting  called about once a second with the seconds since the start
    """
    words = [str(word) for word in command]
    begun = time.monotonic()
    try:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=os.environ | dict(environment or {}),
        )
    except OSError as error:
        raise MobileBilayerError(
            f"{words[0]} can't be run ({error.strerror}). {INSTALL.get(words[0], 'Check the path.')}"
        ) from error
    with process:
        try:
            while True:
                spent = time.monotonic() - begun
                try:
                    text, _ = process.communicate(timeout=min(1.0, max(timeout_s - spent, 0.01)))
                    return Said(text, process.returncode)
                except subprocess.TimeoutExpired:
                    if time.monotonic() - begun >= timeout_s:
                        raise MobileBilayerError(
                            f"`{' '.join(words)[:200]}` did not end in {timeout_s:.0f} s. Look at the phone: it may ask something, or be asleep."
                        ) from None
                    if while_waiting is not None:
                        while_waiting(time.monotonic() - begun)
        except BaseException:
            process.kill()
            raise


def completed(result: Result, bundle: Path) -> Result:
    """With what a phone can't know: how many operators are inside of the backend. Of this very bundle only."""
    if bundle_sha256(bundle) != result.bundle_sha256:
        return result
    render = next(method for method in inspect(bundle).methods if method.name == METHOD)
    if render.delegated is None:
        return result
    inside, outside = sum(render.delegated.values()), sum(render.undelegated.values())
    on_cpu = (
        {"cpu": inside + outside} if Bundle.open(bundle).manifest.backend == "xnnpack" else result.operators_by_device
    )
    known = {"delegated_operators": inside, "undelegated_count": outside, "operators_by_device": on_cpu}
    names = result.undelegated_operators or dict.fromkeys(render.undelegated, "the manifest does not say")
    return replace(result, **known, undelegated_operators=names).with_reasons(result.not_measured)


def finished(result: Result, *more: str) -> Result:
    """With all warnings in the file, as of a run on this machine."""
    return replace(result, warnings=tuple(dict.fromkeys([*more, *result.all_warnings()])))


def seconds_and_runs(seconds: int, sustained: bool, repeats: int | None) -> tuple[int, int]:
    """How long each run is, and how many there are: one of ten minutes if sustained, else three unless told."""
    seconds = SUSTAINED_S if sustained else seconds
    count = repeats if repeats is not None else 1 if sustained else 3
    if not 1 <= seconds <= 24 * 3600 or not 1 <= count <= 100:
        raise MobileBilayerError(
            f"seconds is {seconds} and repeats {count}; they must be in 1..86400 and 1..100. Leave them out."
        )
    return seconds, count
