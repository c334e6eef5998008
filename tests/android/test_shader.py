"""The shader that phones composite with, beside the host's compositor.

As Android has it, on real GLES (Mesa's, without a screen); the SPIR-V that iOS' Metal is made of, written as GLES; and the Metal
file itself, compiled for this processor with what stands for Metal's library (ios_demo/typecheck/metal).
"""

import ctypes
import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mobile_bilayer import Bundle
from mobile_bilayer.runtime.compositor import composite, to_float, to_rgb
from mobile_bilayer.samples import SAMPLES, sample_photo, sample_track

METAL = Path(__file__).parents[2] / "ios_demo"
specification = importlib.util.spec_from_file_location("shader", METAL / "shader.py")
shader = importlib.util.module_from_spec(specification)
specification.loader.exec_module(shader)

UNITS = ("avatar", "background", "layersA", "layersB")

os.environ.setdefault("PYOPENGL_PLATFORM", "egl")
os.environ.setdefault("EGL_PLATFORM", "surfaceless")
try:
    from OpenGL import EGL as egl
    from OpenGL import GLES3 as gl

    MISSING = ""
except (ImportError, AttributeError) as error:  # the second where there is no libEGL
    MISSING = str(error)


class Gles:
    """A GLES 3 context without a screen, and the two shaders as one program."""

    def __init__(self, vertex: str, fragment: str) -> None:
        self.display = egl.eglGetDisplay(egl.EGL_DEFAULT_DISPLAY)
        try:
            egl.eglInitialize(self.display, ctypes.c_long(), ctypes.c_long())
        except egl.EGLError:
            skip_for("EGL has no display without a screen")
        egl.eglBindAPI(egl.EGL_OPENGL_ES_API)
        wanted = [egl.EGL_RENDERABLE_TYPE, egl.EGL_OPENGL_ES3_BIT, egl.EGL_SURFACE_TYPE, 0, egl.EGL_NONE]
        configs, count = (egl.EGLConfig * 1)(), ctypes.c_long()
        assert egl.eglChooseConfig(self.display, (egl.EGLint * len(wanted))(*wanted), configs, 1, count) and count.value
        version = (egl.EGLint * 3)(egl.EGL_CONTEXT_CLIENT_VERSION, 3, egl.EGL_NONE)
        self.context = egl.eglCreateContext(self.display, configs[0], egl.EGL_NO_CONTEXT, version)
        assert egl.eglMakeCurrent(self.display, egl.EGL_NO_SURFACE, egl.EGL_NO_SURFACE, self.context)
        self.program = gl.glCreateProgram()
        for kind, source in ((gl.GL_VERTEX_SHADER, vertex), (gl.GL_FRAGMENT_SHADER, fragment)):
            gl.glAttachShader(self.program, self._shader(kind, source))
        gl.glLinkProgram(self.program)
        assert gl.glGetProgramiv(self.program, gl.GL_LINK_STATUS), gl.glGetProgramInfoLog(self.program)
        gl.glUseProgram(self.program)
        for unit, name in enumerate(UNITS):
            gl.glUniform1i(gl.glGetUniformLocation(self.program, name), unit)
        names = [name for name in ("mirrored", "display.mirrored") if gl.glGetUniformLocation(self.program, name) >= 0]
        self.mirrored = gl.glGetUniformLocation(self.program, names[0])
        self.set_mirrored = (
            gl.glUniform1i if names[0] == "mirrored" else gl.glUniform1ui
        )  # the second is 32 bits of a buffer

    def close(self) -> None:
        egl.eglMakeCurrent(self.display, egl.EGL_NO_SURFACE, egl.EGL_NO_SURFACE, egl.EGL_NO_CONTEXT)
        egl.eglDestroyContext(self.display, self.context)
        egl.eglTerminate(self.display)

    @staticmethod
    def _shader(kind: int, source: str) -> int:
        shader = gl.glCreateShader(kind)
        gl.glShaderSource(shader, source)
        gl.glCompileShader(shader)
        assert gl.glGetShaderiv(shader, gl.GL_COMPILE_STATUS), gl.glGetShaderInfoLog(shader)
        return shader

    def frame(self, texture, background, layers_a, layers_b, side_px: int | None = None, mirrored: bool = False):
        """(side_px, side_px, 3) uint8 of pictures (H, H, 3) uint8 and layers (C, h, w), as a phone's screen gets it."""
        side = side_px or len(background)
        pictures = [(texture, gl.GL_RGB8, gl.GL_RGB), (background, gl.GL_RGB8, gl.GL_RGB)]
        layers = [(layers_a, gl.GL_RGBA16F, gl.GL_RGBA), (layers_b, gl.GL_RGB16F, gl.GL_RGB)]
        gl.glPixelStorei(gl.GL_UNPACK_ALIGNMENT, 1)
        gl.glPixelStorei(gl.GL_PACK_ALIGNMENT, 1)
        for unit, (values, kept, given) in enumerate(pictures + layers):
            of_bytes = kept == gl.GL_RGB8
            data = np.ascontiguousarray(values if of_bytes else values.transpose(1, 2, 0).astype(np.float32))
            gl.glActiveTexture(gl.GL_TEXTURE0 + unit)
            gl.glBindTexture(gl.GL_TEXTURE_2D, gl.glGenTextures(1))
            kind = gl.GL_UNSIGNED_BYTE if of_bytes else gl.GL_FLOAT
            gl.glTexImage2D(gl.GL_TEXTURE_2D, 0, kept, data.shape[1], data.shape[0], 0, given, kind, data)
            for name in (gl.GL_TEXTURE_MIN_FILTER, gl.GL_TEXTURE_MAG_FILTER):
                gl.glTexParameteri(gl.GL_TEXTURE_2D, name, gl.GL_LINEAR)
            for name in (gl.GL_TEXTURE_WRAP_S, gl.GL_TEXTURE_WRAP_T):
                gl.glTexParameteri(gl.GL_TEXTURE_2D, name, gl.GL_CLAMP_TO_EDGE)
        screen = gl.glGenRenderbuffers(1)
        gl.glBindRenderbuffer(gl.GL_RENDERBUFFER, screen)
        gl.glRenderbufferStorage(gl.GL_RENDERBUFFER, gl.GL_RGBA8, side, side)
        gl.glBindFramebuffer(gl.GL_FRAMEBUFFER, gl.glGenFramebuffers(1))
        gl.glFramebufferRenderbuffer(gl.GL_FRAMEBUFFER, gl.GL_COLOR_ATTACHMENT0, gl.GL_RENDERBUFFER, screen)
        self.set_mirrored(self.mirrored, mirrored)
        gl.glViewport(0, 0, side, side)
        gl.glDrawArrays(gl.GL_TRIANGLES, 0, 3)
        out = np.zeros((side, side, 4), np.uint8)
        gl.glReadPixels(0, 0, side, side, gl.GL_RGBA, gl.GL_UNSIGNED_BYTE, out)
        assert gl.glGetError() == gl.GL_NO_ERROR
        assert (out[..., 3] == 255).all()
        return out[::-1, :, :3]  # GLES counts rows from below


class MetalFile:
    """App/Shaders/composite.metal, compiled as C++."""

    def __init__(self, folder: Path) -> None:
        library = folder / "composite.so"
        stand_in, shaders = METAL / "typecheck" / "metal", METAL / "App" / "Shaders"
        command = ["g++", "-std=c++17", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-attributes", "-shared", "-fPIC"]
        command += ["-I", str(stand_in), "-I", str(shaders), str(stand_in / "draw.cpp"), "-o", str(library)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        self.draw = ctypes.CDLL(str(library)).draw

    def frame(self, texture, background, layers_a, layers_b, side_px: int | None = None, mirrored: bool = False):
        """As Gles.frame."""
        side = side_px or len(background)
        pictures = [picture / np.float32(255) for picture in (texture, background)]
        layers = [plane.transpose(1, 2, 0).astype(np.float16) for plane in (layers_a, layers_b)]
        values = [np.ones((*each.shape[:2], 4), np.float32) for each in pictures + layers]
        for whole, each in zip(values, pictures + layers, strict=True):
            whole[..., : each.shape[2]] = each
        places = (ctypes.c_void_p * 4)(*(each.ctypes.data for each in values))
        out = np.zeros((side, side, 4), np.uint8)
        sides = (ctypes.c_int * 4)(*map(len, values))
        self.draw(places, sides, ctypes.c_uint(mirrored), side, out.ctypes.data_as(ctypes.c_void_p))
        assert (out[..., 3] == 255).all()
        return out[..., :3]


def skip_for(why: object) -> None:
    pytest.skip(f"needs GLES ({why}): apt-get install libegl1 libgles2 libgl1-mesa-dri, pip install PyOpenGL")


@pytest.fixture(scope="module", params=["android", "spirv", "metal"])
def gpu(request, tmp_path_factory) -> Iterator[Gles | MetalFile]:
    if request.param == "metal":
        if shutil.which("g++") is None:
            pytest.skip("needs g++: apt-get install g++")
        yield MetalFile(tmp_path_factory.mktemp("metal"))
        return
    if MISSING:
        skip_for(MISSING)
    if request.param == "android":
        sources = [(shader.SOURCES / f"composite.{stage}").read_text("utf-8") for stage in shader.STAGES]
    else:
        if missing := [tool for tool in shader.TOOLS if shutil.which(tool) is None]:
            pytest.skip(f"needs {', '.join(missing)}: apt-get install glslang-tools spirv-tools spirv-cross")
        sources = shader.gles()
    context = Gles(*sources)
    yield context
    context.close()


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    return Bundle.open().golden()[0]


def levels_apart(one: np.ndarray, other: np.ndarray) -> int:
    return int(np.abs(one.astype(int) - other).max())


def smooth(channels: int, side_px: int, low: float, high: float, seed: int) -> np.ndarray:
    """Layers as a network makes them: no pixel stands alone."""
    coarse = np.random.default_rng(seed).uniform(low, high, (channels, 8, 8)).astype(np.float32)
    return np.kron(coarse, np.ones((side_px // 8, side_px // 8), np.float32))


def test_the_golden_layers_give_the_golden_picture(gpu, golden):
    texture, background = golden["composite_texture"], golden["composite_background"]
    a, b = golden["layers_a"][0], golden["layers_b"][0]
    wanted = to_rgb(golden["composed"].astype(np.float32))
    assert levels_apart(wanted, texture) > 20  # so that something moves
    assert levels_apart(gpu.frame(texture, background, a, b), wanted) <= 1


@pytest.mark.parametrize("seed", range(3))
def test_on_random_layers_the_shader_and_the_host_agree_within_two_grey_levels(gpu, seed):
    rng = np.random.default_rng(seed)
    # Neighbours of a photo are near each other; half floats keep a flow to a fifteenth of a pixel.
    texture, background = (
        np.kron(rng.integers(0, 256, (16, 16, 3), np.uint8), np.ones((16, 16, 1), np.uint8)) for _ in "ab"
    )
    texture = np.stack([np.clip(c + np.linspace(-40, 40, 256), 0, 255) for c in texture.transpose(2, 0, 1)], -1).astype(
        np.uint8
    )
    a = np.concatenate([smooth(2, 64, -0.1, 0.1, seed), smooth(2, 64, 0, 1, seed + 9)])
    b = smooth(3, 128, -0.5, 0.5, seed + 20)
    a, b = (layers.astype(np.float16).astype(np.float32) for layers in (a, b))
    wanted = to_rgb(composite(to_float(texture), to_float(background), a, b))
    apart = np.abs(gpu.frame(texture, background, a, b).astype(int) - wanted)
    # On the edges of blocks a hundredth of a pixel is a grey level or two.
    assert np.percentile(apart, 99) <= 1 and apart.max() <= 4


@pytest.mark.parametrize("name", SAMPLES)
def test_an_avatar_that_turns_and_shuts_its_eyes_is_what_the_host_shows(gpu, name):
    avatar, track = Bundle.open().avatar(*sample_photo(name)), sample_track()
    avatar.neutral = track.landmarks[52]
    for frame in (78, 186):
        layers = avatar.layers(avatar.move(track[frame]))
        host = avatar.compose(*layers)
        assert levels_apart(gpu.frame(avatar.texture, avatar.background, *layers), host) <= 4
        assert np.abs(host.astype(int) - avatar.texture).mean() > 5  # so that something moves


def test_zero_flow_leaves_every_level_unchanged(gpu):
    board = np.arange(64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    still = np.stack([np.full((64, 64), v, np.float32) for v in (0, 0, 1, 1)])
    got = gpu.frame(board, np.zeros_like(board), still, np.zeros((3, 128, 128), np.float32))
    assert levels_apart(got, board) == 0


def test_a_mirrored_display_shows_the_same_from_right_to_left(gpu, golden):
    pictures = golden["composite_texture"], golden["composite_background"]
    layers = golden["layers_a"][0], golden["layers_b"][0]
    plain = gpu.frame(*pictures, *layers)
    assert levels_apart(gpu.frame(*pictures, *layers, mirrored=True), plain[:, ::-1]) <= 1
    assert levels_apart(plain, plain[:, ::-1]) > 20


def test_the_screen_may_be_larger_than_the_texture(gpu, golden):
    pictures = golden["composite_texture"], golden["composite_background"]
    layers = golden["layers_a"][0], golden["layers_b"][0]
    large = gpu.frame(*pictures, *layers, side_px=192)
    assert np.abs(large[1::3, 1::3].astype(int) - gpu.frame(*pictures, *layers)).max() <= 1  # the same pixel centres


def test_RU4_what_is_out_of_range_is_clamped_and_what_is_no_number_is_black(gpu):
    grey = np.full((64, 64, 3), 128, np.uint8)
    still = np.stack([np.full((64, 64), v, np.float32) for v in (0, 0, 1, 1)])
    for value, wanted in ((3.0, 255), (-3.0, 0), (np.nan, 0)):
        lf = np.full((3, 128, 128), value, np.float32)
        assert (gpu.frame(grey, grey, still, lf) == wanted).all(), value
