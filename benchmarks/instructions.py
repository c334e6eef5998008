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

import torch
import typer
from mobile_bilayer.export.backends import BACKENDS
from mobile_bilayer.export.bundle import sample_inputs
from mobile_bilayer.export.executorch import EncodeAvatar, lower_exported
from torch import Tensor, nn

from mobile_bilayer import Bundle
from mobile_bilayer.runtime.bundle import shipped_bundle
from mobile_bilayer.samples import SAMPLES
from mobile_bilayer.student.weights import load_student
from mobile_bilayer.teacher import load_teacher
from mobile_bilayer.teacher.fixed import TeacherFrame, look_at_a_frame

RUNNER = Path(__file__).parents[1] / "export" / "runner"
CPUS = ("cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n1")  # qemu's `max` computes int8 wrong
FRAMES = 5


class TeacherFrameMethod(nn.Module):
    """The teacher's frame behind the door that the runner knows: it takes what a student's frame takes, and hardly looks at it."""

    def __init__(self, frame: TeacherFrame) -> None:
        super().__init__()
        self.fixed = frame.fixed(nearest=False)
        for place, value in enumerate(frame.inputs):
            self.register_buffer(f"input{place}", value.clone())
        self.count = len(frame.inputs)

    def forward(self, features: Tensor, maps: Tensor, source: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor]:
        nothing = 0.0 * landmarks[0, 0, 0]
        uv, lf, seg, blend = self.fixed(*(getattr(self, f"input{i}") + nothing for i in range(self.count)))
        return torch.cat([uv, seg, blend], 1), lf


def write_teacher(path: Path) -> None:
    """The shipped teacher's frame, beside S's encoder, lowered in float."""
    student, _ = load_student()
    sample = sample_inputs(student, SAMPLES[0])
    image, source = sample["image"][None].float() / 255, sample["source_points"][None]
    frame = look_at_a_frame(load_teacher()[0].eval(), image, source, sample["driving_points"][None])
    with torch.no_grad():
        features, maps, _ = student.encoder(image, source)
    graphs = {
        "encode_avatar": torch.export.export(EncodeAvatar(student.encoder).eval(), (image, source)),
        "render_layers": torch.export.export(TeacherFrameMethod(frame).eval(), (features, maps, source, source)),
    }
    path.write_bytes(lower_exported(graphs, BACKENDS["xnnpack"], "fp32").data)


def instructions(folder: Path, cpu: str, program: Path, golden: Path, frames: int) -> int:
    """Of a whole run: start, one avatar, so many frames. `folder` holds the runner and the plugin, `golden` the inputs."""
    call = ["qemu-aarch64", "-plugin", folder / "count_instructions.so", "-cpu", cpu, "-L", "/usr/aarch64-linux-gnu"]
    call += [
        folder / "runner",
        program,
        golden / "golden.safetensors",
        folder / "out.safetensors",
        str(frames),
    ]
    done = subprocess.run(call, check=True, capture_output=True, text=True)
    return int(re.search(r"instructions: (\d+)", done.stderr)[1])


def main(
    executorch: Annotated[Path, typer.Argument(help="The folder `executorch` of an unpacked arm64 wheel.")],
    bundle: Annotated[list[Path] | None, typer.Option(help="Bundle folders; default: the shipped one.")] = None,
    teacher: Annotated[bool, typer.Option("--teacher", help="The full-size teacher's frame too; minutes.")] = False,
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
        paths = bundle or [shipped_bundle()]
        programs = {path.name: (path / Bundle.open(path).manifest.program, path, FRAMES) for path in paths}
        if teacher:
            write_teacher(folder / "teacher.pte")
            programs["teacher"] = (folder / "teacher.pte", shipped_bundle(), 1)
        for name, (program, golden, count) in programs.items():
            for cpu in CPUS:
                one, many = (instructions(folder, cpu, program, golden, frames) for frames in (1, 1 + count))
                frame = (many - one) / count
                print(f"| {name} | {cpu} | {frame / 1e6:.1f} | {(one - frame) / 1e6:.0f} |", flush=True)


if __name__ == "__main__":
    typer.run(main)
