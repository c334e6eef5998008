"""Kotlin's core and Swift's show the same and are held to the same golden files: ios_demo/compare_cores.py."""

import importlib.util
import shutil
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "ios_demo" / "compare_cores.py"
specification = importlib.util.spec_from_file_location("compare_cores", SCRIPT)
compare_cores = importlib.util.module_from_spec(specification)
specification.loader.exec_module(compare_cores)


def test_the_cores_of_both_phones_match():
    assert compare_cores.compare() == []


@pytest.fixture
def copies(tmp_path) -> tuple[Path, Path]:
    """Both cores, to be changed."""
    for source, name in ((compare_cores.KOTLIN, "kotlin"), (compare_cores.SWIFT, "swift")):
        shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns(".build"))
    return tmp_path / "kotlin", tmp_path / "swift"


def change(folder: Path, name: str, old: str, new: str) -> None:
    (file,) = folder.rglob(name)
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


@pytest.mark.parametrize(
    ("of_swift", "file", "old", "new", "said"),
    [
        (True, "Stabilizer.swift", "func share(", "func portion(", "Kotlin shows share, and Swift lacks share"),
        (True, "FrameClock.swift", "public func restart(", "private func restart(", "Swift lacks FrameClock.restart"),
        (True, "Head.swift", "public final class Motion", "private final class Motion", "Swift lacks Motion"),
        (
            True,
            "Crop.swift",
            "public func headCrop(",
            "public func other() {}\npublic func headCrop(",
            "Kotlin lacks it",
        ),
        (True, "GoldenTest.swift", 'goldenCases("ratios.json")', "[]", "Swift does not read it"),
        (True, "LatestFrame.swift", "public func nowNs(", "private func nowNs(", "nowNs is listed as Swift's alone"),
        (
            False,
            "Follower.kt",
            "    fun resume()",
            "    fun more() = 1\n\n    fun resume()",
            "Swift lacks Follower.more",
        ),
        (False, "Retarget.kt", "const val LARGEST_SHIFT", "const val SHIFT", "Swift lacks shift"),
        (False, "Mp4Tag.kt", "fun tagMp4(", "fun tagVideo(", "Swift lacks tagVideo"),
        (
            False,
            "CaptureClock.kt",
            "class CaptureClock",
            "class SensorClock",
            "CaptureClock is listed as Kotlin's, and Kotlin has no such name",
        ),
        (False, "GoldenTest.kt", 'goldenCases("ratios.json")', "listOf()", "Kotlin does not read it"),
    ],
)
def test_what_one_core_has_and_the_other_lacks_is_named(copies, of_swift, file, old, new, said):
    kotlin, swift = copies
    change(swift if of_swift else kotlin, file, old, new)
    assert any(said in line for line in compare_cores.compare(kotlin, swift)), compare_cores.compare(kotlin, swift)
