"""Instructions that a frame takes on arm64 processors, counted under emulation: `python benchmarks/instructions.py FOLDER`.

Needs make, g++-aarch64-linux-gnu and qemu-user (Debian's names), and the `executorch` folder of an unpacked arm64 wheel:
pip download --platform manylinux_2_28_aarch64 --only-binary=:all: --no-deps executorch==1.5.1
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from mobile_bilayer import Bundle
from mobile_bilayer.runtime.bundle import shipped_bundle

RUNNER = Path(__file__).parents[1] / "export" / "runner"
CPUS = ("cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n1")  # qemu's `max` computes int8 wrong
FRAMES = 5


def instructions(folder: Path, cpu: str, bundle: Path, frames: int) -> int:
    """Of a whole run: start, one avatar, so many frames. `folder` holds the runner and the plugin."""
    program = Bundle.open(bundle).manifest.program
    call = ["qemu-aarch64", "-plugin", folder / "count_instructions.so", "-cpu", cpu, "-L", "/usr/aarch64-linux-gnu"]
    call += [
        folder / "runner",
        bundle / program,
        bundle / "golden.safetensors",
        folder / "out.safetensors",
        str(frames),
    ]
    done = subprocess.run(call, check=True, capture_output=True, text=True)
    return int(re.search(r"instructions: (\d+)", done.stderr)[1])


def main(
    executorch: Annotated[Path, typer.Argument(help="The folder `executorch` of an unpacked arm64 wheel.")],
    bundle: Annotated[list[Path] | None, typer.Option(help="Bundle folders; default: the shipped one.")] = None,
) -> None:
    """Print a table, Markdown: millions of instructions a frame, and of start and avatar together."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make = [
            "make",
            "-s",
            "-C",
            RUNNER,
            f"OUT={folder}",
            f"EXECUTORCH={executorch.resolve()}",
            "CXX=aarch64-linux-gnu-g++",
        ]
        subprocess.run([*make, folder / "runner", folder / "count_instructions.so"], check=True, stdout=sys.stderr)
        print("| bundle | cpu | a frame, millions | start and avatar |\n|---|---|---|---|")
        for path in bundle or [shipped_bundle()]:
            for cpu in CPUS:
                one, many = (instructions(folder, cpu, path, frames) for frames in (1, 1 + FRAMES))
                frame = (many - one) / FRAMES
                print(f"| {path.name} | {cpu} | {frame / 1e6:.1f} | {(one - frame) / 1e6:.0f} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
