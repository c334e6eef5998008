"""The app's Metal shader is what ios_demo/shader.py makes of Android's, and fits what draws with it."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

DEMO = Path(__file__).parents[2] / "ios_demo"
SOURCES = DEMO.parent / "android_demo" / "app" / "src" / "main" / "assets"
TOOLS = ("glslangValidator", "spirv-val", "spirv-cross")
needs_tools = pytest.mark.skipif(
    any(shutil.which(name) is None for name in TOOLS),
    reason="needs glslangValidator, spirv-val, spirv-cross: apt-get install glslang-tools spirv-tools spirv-cross",
)


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(DEMO / "shader.py"), *map(str, arguments)]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)


@pytest.fixture
def sources(tmp_path) -> Path:
    """Android's shader in another place, to be changed."""
    folder = tmp_path / "sources"
    folder.mkdir()
    for stage in ("vert", "frag"):
        shutil.copy(SOURCES / f"composite.{stage}", folder)
    return folder


def change(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert text.count(old) == 1
    file.write_text(text.replace(old, new), "utf-8")


@needs_tools
def test_the_committed_metal_is_what_androids_shader_gives():
    done = run("--check")
    assert done.returncode == 0, done.stderr


def test_the_committed_metal_names_the_very_sources_that_are_there():
    text = (DEMO / "App" / "Shaders" / "composite.metal").read_text("utf-8")
    for stage in ("vert", "frag"):
        content = (SOURCES / f"composite.{stage}").read_bytes()
        assert f"composite.{stage} ({hashlib.sha256(content).hexdigest()[:12]})" in text


@needs_tools
def test_a_changed_formula_is_another_metal_file_and_the_check_says_how_to_renew_it(sources, tmp_path):
    metal = tmp_path / "shaders" / "composite.metal"
    assert "is missing" in run("--check", "--sources", sources, "--to", metal).stderr
    assert run("--sources", sources, "--to", metal).returncode == 0
    assert run("--check", "--sources", sources, "--to", metal).returncode == 0
    change(sources / "composite.frag", "0.5 * a.xy", "0.25 * a.xy")
    done = run("--check", "--sources", sources, "--to", metal)
    assert done.returncode == 1 and "Run `python ios_demo/shader.py`" in done.stderr


@needs_tools
@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("vec3 head", "vec2 head", "glslangValidator refuses Android's shader"),
        ("#version 300 es", "#version 320 es", "not of '#version 300 es'"),
    ],
)
def test_a_shader_that_does_not_compile_is_refused_and_the_old_file_stays(sources, tmp_path, old, new, why):
    metal = tmp_path / "composite.metal"
    metal.write_text("as it was")
    change(sources / "composite.frag", old, new)
    done = run("--sources", sources, "--to", metal)
    assert done.returncode == 1 and why in done.stderr, done.stderr
    assert metal.read_text() == "as it was" and [file.name for file in tmp_path.iterdir() if file.is_file()] == [
        "composite.metal"
    ]


def test_a_missing_tool_is_named_with_the_way_to_get_it(tmp_path):
    done = run(PATH=str(tmp_path))
    assert done.returncode == 2 and "is not installed. Run `apt-get install" in done.stderr
    done = run("--sources", tmp_path)
    assert done.returncode == 2 and "composite.vert can't be read" in done.stderr


def test_metal_and_what_draws_with_it_agree_on_every_place():
    text = (DEMO / "App" / "Shaders" / "composite.metal").read_text("utf-8")
    textures = re.findall(r"texture2d<float> (\w+) \[\[texture\((\d)\)\]\]", text)
    samplers = re.findall(r"sampler (\w+)Smplr \[\[sampler\((\d)\)\]\]", text)
    names = ["avatar", "background", "layersA", "layersB"]
    assert textures == samplers == [(name, str(i)) for i, name in enumerate(names)]
    assert "constant Display& display [[buffer(0)]]" in text and re.search(
        r"struct Display\s*\{\s*uint mirrored;\s*\}", text
    )
