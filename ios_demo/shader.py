#!/usr/bin/env python3
"""Make the app's Metal shader of Android's GLSL: `python ios_demo/shader.py`, after each change of android_demo's composite.vert or .frag.

glslangValidator compiles the two to SPIR-V, spirv-val checks it, spirv-cross writes Metal of it. `--check` writes nothing, and fails
where App/Shaders/composite.metal is not what would be written. Needs `apt-get install glslang-tools spirv-tools spirv-cross`; on a Mac
`brew install glslang spirv-tools spirv-cross`. Exits with 0 when all is well, 1 when a file is wrong, 2 when something is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DEMO = Path(__file__).resolve().parent
SOURCES = DEMO.parent / "android_demo" / "app" / "src" / "main" / "assets"
METAL = DEMO / "App" / "Shaders" / "composite.metal"
STAGES = ("vert", "frag")
TOOLS = ("glslangValidator", "spirv-val", "spirv-cross")
HEADER = """\
// Made by ios_demo/shader.py of Android's {names}, with {compiler} and spirv-cross as Debian 12 has them.
// Do not change it here.
//
// Textures and samplers 0 to 3: avatar, background, layersA, layersB. The vertex stage's buffer 0: whether to mirror, 32 bits.
// As in GLES, place (0, 0) is the first pixel of the first row of a texture, and clip space's y goes up. A Metal target's first row
// is its upper one, where GLES begins below: nothing is turned. Compile it without fast math, which takes away what asks for NaN.
"""


class Missing(Exception):
    """Something that has to be installed first."""


class Wrong(Exception):
    """A file of ours that is not as it must be."""


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="write nothing; fail where the file is not current")
    arguments.add_argument(
        "--sources", type=Path, default=SOURCES, help="the folder of composite.vert and composite.frag"
    )
    arguments.add_argument("--to", type=Path, default=METAL, help=f"the file to write (default: {METAL})")
    given = arguments.parse_args()
    try:
        text = metal(given.sources)
        if given.check:
            check(given.to, text)
        else:
            given.to.parent.mkdir(parents=True, exist_ok=True)
            aside = given.to.with_name(f"{given.to.name}.part")
            aside.write_text(text, "utf-8")
            aside.replace(given.to)
    except (Missing, Wrong) as error:
        print(f"shader.py: {error}", file=sys.stderr)
        return 2 if isinstance(error, Missing) else 1
    print(f"{given.to} is {'current' if given.check else 'written'}.")
    return 0


def check(file: Path, wanted: str) -> None:
    got = file.read_text("utf-8") if file.is_file() else ""
    if got != wanted:
        why = "differs from what Android's shader gives" if got else "is missing"
        raise Wrong(
            f"{file} {why}, by the tools that are here. Run `python ios_demo/shader.py`, look at the difference, and commit it."
        )


def metal(sources: Path = SOURCES) -> str:
    """The whole text of the Metal file."""
    names = " and ".join(f"composite.{stage} ({sha256(sources / f'composite.{stage}')[:12]})" for stage in STAGES)
    parts = []
    for stage in STAGES:
        options = ["--msl", "--msl-ios", "--msl-version", "20400", "--msl-decoration-binding"]
        options += ["--rename-entry-point", "main", f"composite_{stage}", stage]
        parts.append(cross(sources / f"composite.{stage}", options))
    begin = "#include <metal_stdlib>\n#include <simd/simd.h>\n\nusing namespace metal;\n"
    if not all(part.startswith(begin) for part in parts):
        raise Wrong("spirv-cross begins its Metal in another way than is known here. Look at ios_demo/shader.py.")
    return (
        HEADER.format(names=names, compiler=compiler()) + "\n" + begin + "".join(p.removeprefix(begin) for p in parts)
    )


def gles(sources: Path = SOURCES) -> list[str]:
    """The same SPIR-V as GLSL ES 3.0, vertex and fragment: what tests can run. `mirrored` is the uniform display.mirrored."""
    options = ["--es", "--version", "300", "--glsl-emit-ubo-as-plain-uniforms"]
    return [cross(sources / f"composite.{stage}", options) for stage in STAGES]


def sha256(file: Path) -> str:
    return hashlib.sha256(read(file).encode()).hexdigest()


def read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except OSError as error:
        raise Missing(f"{file} can't be read ({error.strerror}). It comes with the repository.") from error


def compiler() -> str:
    """The version of what makes the SPIR-V. Debian's spirv-cross tells none of its own."""
    return f"glslang {run('glslangValidator', '--version').splitlines()[0].rpartition(':')[2].strip()}"


def for_vulkan(text: str) -> str:
    """The source as SPIR-V wants it: ES 3.1, each place given by number, in the order in which they stand, no loose uniform."""
    if not text.startswith("#version 300 es\n"):
        raise Wrong("Android's shader is not of '#version 300 es'. Look at ios_demo/shader.py.")
    text = text.replace("#version 300 es", "#version 310 es", 1)
    text = re.sub(r"^(in|out) ", r"layout(location = 0) \1 ", text, flags=re.MULTILINE)
    binding = itertools.count()
    text = re.sub(
        r"^uniform sampler2D", lambda found: f"layout(binding = {next(binding)}) {found[0]}", text, flags=re.MULTILINE
    )
    block = r"layout(std140, binding = 0) uniform Display { bool \1; } display;\n#define \1 display.\1\n"
    return re.sub(r"^uniform bool (\w+);", block, text, flags=re.MULTILINE)


def cross(source: Path, options: list[str]) -> str:
    """A shader through SPIR-V, as spirv-cross writes it."""
    with tempfile.TemporaryDirectory(prefix="shader-") as folder:
        given, binary = Path(folder, source.name), Path(folder, "binary.spv")
        given.write_text(for_vulkan(read(source)), "utf-8")
        # Relaxed rules: gl_VertexID keeps its name.
        run("glslangValidator", "-V", "-R", "-S", source.suffix[1:], "-o", str(binary), str(given))
        run("spirv-val", "--target-env", "vulkan1.0", str(binary))
        return run("spirv-cross", str(binary), *options)


def run(tool: str, *arguments: str) -> str:
    found = shutil.which(tool)
    if not found:
        raise Missing(f"{tool} is not installed. Run `apt-get install glslang-tools spirv-tools spirv-cross`.")
    done = subprocess.run([found, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise Wrong(f"{tool} refuses Android's shader: {(done.stdout + done.stderr).strip()[-1000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
