"""Where a frame's time goes, operator by operator, and what stays outside the delegate, as a Markdown table.

    python benchmarks/frame_profile.py [BUNDLE]

One thread. `mobile-bilayer benchmark run --profile` keeps the same in its result.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mobile_bilayer import Bundle
from mobile_bilayer.benchmark.machine import runtime_threads
from mobile_bilayer.benchmark.profile import METHOD, OUTSIDE, profile
from mobile_bilayer.benchmark.run import render_inputs
from mobile_bilayer.samples import sample_photo


def main(bundle: Annotated[Path | None, typer.Argument(help="Default: the shipped bundle.")] = None) -> None:
    """Print a table, Markdown."""
    with runtime_threads(1):
        opened = Bundle.open(bundle)
        took = profile(opened, render_inputs(opened.avatar(*sample_photo("astronaut"))))
    total = sum(took.values())
    print(
        f"{opened.manifest.name}, {METHOD}: {total:.2f} ms of operators; outside the delegate {took.get(OUTSIDE, 0):.2f} ms"
    )
    print("\n| operator | ms | share |\n|---|---|---|")
    for name, ms in took.items():
        if ms >= 0.005 * total:
            print(f"| {name} | {ms:.3f} | {ms / total:.1%} |")


if __name__ == "__main__":
    typer.run(main)
