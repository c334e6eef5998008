"""coremltools, if it works here, without what its import has to say."""

from __future__ import annotations

import logging
import platform
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec
from io import StringIO
from types import ModuleType

from mobile_bilayer.errors import MobileBilayerError

NATIVE = ("libmilstoragepython", "libmodelpackage")  # reads and writes weights; writes packages

# Of each precision the oldest iOS that has its operators; `coreml.ios_needed` asks the finished program as well.
OLDEST_IOS = {"fp16": 15, "w8a8": 17, "w8": 16, "palettized6": 16, "palettized4": 16}
IOS = {15: "iOS 15 or macOS 12", 16: "iOS 16 or macOS 13", 17: "iOS 17 or macOS 14", 18: "iOS 18 or macOS 15"}

SUPPORTED = "Core ML packages are made with Python 3.11 to 3.13 on macOS, or on Linux on x86-64."


@contextmanager
def quietly() -> Iterator[None]:
    """Lose warnings, log lines and progress bars of coremltools: what it has to say to users comes as an exception."""
    before = logging.root.manager.disable
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            logging.disable(logging.CRITICAL)
            yield
    finally:
        logging.disable(before)


@cache
def coremltools() -> ModuleType:
    """The library. Asked for before any long work, as only some machines can save a package.

    Raises MobileBilayerError when it is missing, or has no native parts for this Python and system.
    """
    found = find_spec("coremltools")
    if found is None:
        raise MobileBilayerError(
            "Core ML packages need coremltools. Install it with: pip install 'mobile-bilayer[coreml]'. " + SUPPORTED
        )
    # Not found by import: that would say much, and go on without.
    missing = [name for name in NATIVE if PathFinder.find_spec(name, found.submodule_search_locations) is None]
    if missing:
        raise MobileBilayerError(
            f"coremltools has no native parts here ({', '.join(missing)}; Python {sys.version_info[0]}.{sys.version_info[1]}, "
            f"{platform.system()} {platform.machine()}), and would fail when it saves. {SUPPORTED}"
        )
    with quietly():
        import coremltools as library
    return library


def core_ml_runs_here() -> bool:
    """Whether this machine can predict with Core ML itself."""
    return sys.platform == "darwin"
