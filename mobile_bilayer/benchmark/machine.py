"""What this computer tells of itself: what it is, how warm, how much memory and energy. What it does not tell is None."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.quiet import quiet_stderr

THERMAL, ENERGY = Path("/sys/class/thermal"), Path("/sys/class/powercap")
TRIPS = ("active", "passive", "hot", "critical")  # the kernel's names, from a fan that turns to the end
HOTTEST_C, COLDEST_C = 150, -40  # sensors that say else are broken
TOOLS = ("mobile-bilayer", "torch", "mediapipe", "opencv-python", "numpy")


def _text(path: Path) -> str:
    """Empty where there is nothing to be read."""
    try:
        return path.read_text("utf-8", "replace").strip("\0 \n")
    except OSError:
        return ""


def device() -> str:
    """Maker and model, never the name that somebody gave it."""
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "hw.model") or "Mac"
    board = Path("/sys/firmware/devicetree/base/model")  # boards with ARM processors
    names = [_text(Path("/sys/class/dmi/id") / name) for name in ("sys_vendor", "product_name")]
    return (
        _text(board) or " ".join(name for name in names if name) or f"{platform.system()} {platform.machine()} computer"
    )


def chip() -> str | None:
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or None
    lines = [line.partition(":") for line in _text(Path("/proc/cpuinfo")).splitlines()]
    return (
        next((value.strip() for key, _, value in lines if key.strip() == "model name"), None)
        or platform.processor()
        or None
    )


def operating_system() -> str:
    """Name, version, and architecture."""
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        name = f"{platform.system()} {platform.release()}"
    return f"{name}, {platform.machine()}"


def tool_versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in TOOLS:
        with suppress(PackageNotFoundError):
            found[name.replace("-", "_")] = version(name)
    return found


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=5).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def thermal(folder: Path = THERMAL) -> tuple[str, float | None]:
    """The state, and the hottest sensor in degrees Celsius.

    "nominal", or the hottest trip point that any sensor has passed; "unknown" where there are none to pass.
    """
    hottest, state, known = None, -1, False
    for zone in sorted(folder.glob("thermal_zone*")):
        degrees = _degrees(zone / "temp")
        if degrees is None:
            continue
        hottest = degrees if hottest is None else max(hottest, degrees)
        for kind in zone.glob("trip_point_*_type"):
            limit, name = _degrees(kind.with_name(kind.name.replace("_type", "_temp"))), _text(kind)
            if name in TRIPS and limit is not None and limit > 0:  # 0 and less: a trip that is switched off
                known = True
                if degrees >= limit:
                    state = max(state, TRIPS.index(name))
    return ("unknown" if not known else "nominal" if state < 0 else TRIPS[state]), hottest


def _degrees(file: Path) -> float | None:
    try:
        value = int(_text(file)) / 1000
    except ValueError:
        return None
    return value if COLDEST_C < value < HOTTEST_C else None


class EnergyMeter:
    """Intel's and AMD's counters of what whole processor packages took, where Linux lets us read them.

    reason  why there is nothing to read; None where there is
    """

    method = "RAPL: all of the processor's packages, other programs too"

    def __init__(self, folder: Path = ENERGY) -> None:
        self._packages = [zone for zone in sorted(folder.glob("intel-rapl:*")) if zone.name.count(":") == 1]
        self._begun = self._read()
        self.reason = None
        if not self._begun:
            self.reason = (
                f"{folder} has no energy counters"
                if not self._packages
                else f"the energy counters in {folder} may not be read"
            )

    def joules(self) -> float | None:
        """Since this meter was made."""
        now = self._read()
        if not self._begun or now.keys() != self._begun.keys():
            return None
        # A counter that came to its end begins anew.
        spent = [
            now[zone] - begun if now[zone] >= begun else now[zone] - begun + self._range(zone)
            for zone, begun in self._begun.items()
        ]
        return sum(spent) / 1e6

    def _read(self) -> dict[Path, int]:
        found = {zone: _text(zone / "energy_uj") for zone in self._packages}
        return {zone: int(text) for zone, text in found.items() if text.isdigit()}

    def _range(self, zone: Path) -> int:
        return int(_text(zone / "max_energy_range_uj") or 0)


def peak_memory_mib() -> float | None:
    """Largest resident size of this process until now."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


@contextmanager
def runtime_threads(count: int | None) -> Iterator[int]:
    """ExecuTorch's and OpenCV's threads; None leaves both as they choose. Enter it before a program is loaded.

    Yields how many ExecuTorch has.
    """
    import cv2

    from mobile_bilayer.runtime.executorch_file import quiet_runtime

    if count is not None and not 1 <= count <= 256:
        raise MobileBilayerError(f"threads is {count}; it must be in 1..256. Leave it out to let the runtime choose.")
    quiet_runtime()
    from executorch.extension.pybindings.portable_lib import _threadpool_get_thread_count, _unsafe_reset_threadpool

    with quiet_stderr():
        usual, usual_cv = _threadpool_get_thread_count(), cv2.getNumThreads()
    if count is None:
        yield usual
        return
    with quiet_stderr():  # it says what it does
        _unsafe_reset_threadpool(count)
    cv2.setNumThreads(count)
    try:
        yield count
    finally:
        with quiet_stderr():
            _unsafe_reset_threadpool(usual)
        cv2.setNumThreads(usual_cv)
