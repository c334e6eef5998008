"""Paths as labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


def shortest_ends(paths: Sequence[Path], least: int = 1) -> list[str]:
    """Of different paths the shortest ends that tell them apart, as "mine/student.safetensors": all of as many parts, at least so many."""
    whole = [path.resolve().parts for path in paths]
    depth = next((k for k in range(least, 1000) if len({parts[-k:] for parts in whole}) == len(set(whole))), 1000)
    return [str(Path(*parts[-depth:])) for parts in whole]
