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
    reasons = {place: why for place, why in result.not_measured.items() if known.get(place) is None}
    names = result.undelegated_operators or dict.fromkeys(render.undelegated, "the manifest does not say")
    return replace(result, **known, undelegated_operators=names, not_measured=reasons)


def finished(result: Result, *more: str) -> Result:
    """With all warnings in the file, as of a run on this machine."""
    return replace(result, warnings=tuple(dict.fromkeys([*more, *result.all_warnings()])))
