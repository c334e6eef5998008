"""Results made of numbers: no machine has measured them."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mobile_bilayer.benchmark.result import Result

HERE = Path(__file__).parent
RECORDED = HERE / "recorded"
# Of student_limits.py, of android.py and ios.py, and of fuzz_bundle.py:
BENCHMARKS = HERE.parents[1] / "benchmarks"
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS / "phones"), str(HERE.parent / "runtime")]


def _statistics(ms: float, count: int = 1800) -> dict:
    return {"count": count, "mean": 1.1 * ms, "p50": ms, "p90": 1.2 * ms, "p99": 1.5 * ms, "cv": 0.1}


def _values(seconds: int = 60, each: Callable[[int], int] = lambda second: 30, **changed) -> dict:
    """A phone's result that all is well with."""
    parts = {"camera": 2.0, "landmarks": 8.0, "network": 5.0, "composite": 1.5, "display": 0.5, "frame": 17.5}
    frames = [each(second) for second in range(seconds)]
    values = {
        "format_version": 1,
        "made_at": "2026-01-31T12:00:00Z",
        "device": "Google Pixel 8",
        "chip": "Tensor G3",
        "os": "Android 16",
        "build_type": "release",
        "runtime": "executorch 1.5.1",
        "tool_versions": {"kotlin": "2.4.20"},
        "bundle": "student-S-256-int8-xnnpack",
        "bundle_sha256": "ab" * 32,
        "backend": "xnnpack",
        "compute_unit": "cpu",
        "threads": 2,
        "precision": "int8",
        "image_px": 256,
        "bundle_mib": 1.9,
        "package_mib": 25.5,
        "warmup_count": 30,
        "iterations": max(sum(frames), 1),
        "duration_s": float(max(seconds, 1)),
        "interrupted": False,
        "load": {"first_ever_ms": 900.0, "cold_ms": 80.0, "warm_ms": 20.0},
        "first_frame_ms": 120.0,
        "stages_ms": {name: _statistics(ms) for name, ms in parts.items()},
        "execute_ms": _statistics(4.5),
        "fps": sum(frames) / max(seconds, 1),
        "camera_fps": 30.0,
        "dropped": 3,
        "over_time": [
            {"second": i, "frames": count, "thermal_state": "none", "temperature_c": None}
            for i, count in enumerate(frames)
        ],
        "peak_memory_mib": 180.0,
        "delegated_operators": 70,
        "undelegated_operators": {},
        "undelegated_count": 0,
        "operators_by_device": {"cpu": 70},
        "operators_ms": None,
        "energy_mj": None,
        "energy_method": None,
        "fidelity": None,
        "repeats": 3,
        "repeat_spread": 0.02,
        "not_measured": {"energy_mj": "the phone was charged over its cable"},
        "warnings": [],
    }
    return values | changed


@pytest.fixture
def values() -> Callable[..., dict]:
    """values(seconds=60, each=lambda second: 30, **changed): what is in a result file."""
    return _values


@pytest.fixture
def result() -> Callable[..., Result]:
    """The same, read."""
    return lambda *args, **changed: Result.from_json(json.dumps(_values(*args, **changed)), "here")


@pytest.fixture
def result_file(tmp_path) -> Callable[..., Path]:
    """result_file("a.json", ...): the same as a file in the test's folder."""

    def write(name: str, *args, **changed) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(_values(*args, **changed)))
        return path

    return write


@pytest.fixture
def said() -> Callable[[str], str]:
    """said("adb_devices_one.txt"): a tool's output, from the folder `recorded`."""
    return lambda name: (RECORDED / name).read_text("utf-8")


@pytest.fixture
def fake_tool(tmp_path, monkeypatch) -> Callable[..., Callable[[], list[str]]]:
    """fake_tool("adb", replies): a stand-in on PATH, see fake_tool.py; returns a function that tells what it was asked."""
    folder = tmp_path / "tools"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def make(name: str, replies: list[dict]) -> Callable[[], list[str]]:
        tool = folder / name
        tool.write_text(f"#!{sys.executable} -I\n" + (HERE / "fake_tool.py").read_text("utf-8"))
        tool.chmod(0o755)
        tool.with_name(f"{name}.replies.json").write_text(json.dumps(replies))
        return lambda: tool.with_name(f"{name}.asked").read_text("utf-8").splitlines()

    return make


@pytest.fixture
def script(monkeypatch, capfd) -> Callable[..., tuple[int, str, str]]:
    """script(module, "--serial", "x"): exit code, stdout and stderr of a script beside the package."""

    def run(module, *arguments: object) -> tuple[int, str, str]:
        from mobile_bilayer import cli

        monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main(module.app)
        out, err = capfd.readouterr()
        return left.value.code, out, err

    return run
