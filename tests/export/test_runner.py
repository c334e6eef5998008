"""The C++ runner: what a program gives without Python, here and on emulated arm64."""

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load, load_file, save

from mobile_bilayer import Bundle
from mobile_bilayer.runtime.bundle import CHANNELS, shipped_bundle

PROGRAM = shipped_bundle() / f"{shipped_bundle().name}.pte"
GOLDEN = shipped_bundle() / "golden.safetensors"
SOURCE = Path(__file__).parents[2] / "export" / "runner"
PARTS = ("landmark_features", "map_features", "alpha", "layers_a", "layers_b")


def needs(*tools: str) -> None:
    if lacking := [tool for tool in tools if shutil.which(tool) is None]:
        pytest.skip(f"{', '.join(lacking)} not installed")


def build(folder: Path, executorch: Path, compiler: str) -> Path:
    call = ["make", "-s", "-C", SOURCE, f"OUT={folder}", f"EXECUTORCH={executorch}", f"CXX={compiler}"]
    done = subprocess.run(call, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr  # warnings are on
    return folder / "runner"


@pytest.fixture(scope="module")
def runner(tmp_path_factory) -> Path:
    needs("make", "g++")
    import executorch

    return build(tmp_path_factory.mktemp("runner"), Path(next(iter(executorch.__path__))), "g++")


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open()


@pytest.fixture(scope="module")
def here(runner, bundle, tmp_path_factory) -> dict[str, np.ndarray]:
    return run([runner], tmp_path_factory.mktemp("here"))


def run(command: list, folder: Path, golden: Path = GOLDEN) -> dict[str, np.ndarray]:
    done = subprocess.run([*command, PROGRAM, golden, folder / "out.safetensors"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return load_file(folder / "out.safetensors")


def in_tolerance(got: dict[str, np.ndarray], bundle: Bundle) -> bool:
    golden, tolerances = bundle.golden()
    errors = {name: np.abs(got[name] - golden[name].astype(np.float32)) for name in PARTS}
    errors |= {name: errors["layers_a"][:, channels] for name, channels in CHANNELS.items()}
    return all(errors[name].max() <= tolerances[name] for name in errors if name in tolerances)


def test_the_runner_gives_what_python_gives(here, bundle):
    golden, _ = bundle.golden()
    source = golden["source_points"][None]
    features = [golden[name].astype(np.float32) for name in PARTS[:2]]
    wanted = bundle.program.run("encode_avatar", golden["image"].astype(np.float32)[None] / np.float32(255), source)
    wanted += bundle.program.run("render_layers", *features, source, golden["driving_points"][None])
    assert set(here) == set(PARTS)
    for name, value in zip(PARTS, wanted, strict=True):
        np.testing.assert_array_equal(here[name], value)
    assert in_tolerance(here, bundle)


def test_a_frame_computed_again_is_the_same(runner, here, tmp_path):
    done = subprocess.run([runner, PROGRAM, GOLDEN, tmp_path / "out", "3"], capture_output=True, text=True)
    assert "median of 3" in done.stdout
    for name, value in load_file(tmp_path / "out").items():
        np.testing.assert_array_equal(value, here[name])


def test_half_floats_are_read_as_numpy_reads_them(runner, here, bundle, tmp_path):
    """Whole halves, odd ones and subnormal ones: from float32 features of the same values comes the same frame."""
    data = GOLDEN.read_bytes()
    tensors = load(data)
    halves = np.random.default_rng(0).standard_normal(tensors["landmark_features"].shape).astype(np.float16)
    halves.reshape(-1)[:6] = [0, -0.0, 6e-8, -6e-8, 65504, 6.1e-5]
    outs = []
    for i, value in enumerate((halves, halves.astype(np.float32))):
        path = tmp_path / f"golden{i}.safetensors"
        path.write_bytes(save(tensors | {"landmark_features": value}))
        outs.append(run([runner], tmp_path, path))
    for name in PARTS:
        np.testing.assert_array_equal(outs[0][name], outs[1][name])
    assert not np.array_equal(outs[0]["layers_a"], here["layers_a"])


def test_what_the_runner_cannot_use_ends_with_a_sentence_and_status_2(runner, tmp_path):
    tensors = load(GOLDEN.read_bytes())
    del tensors["image"]
    (tmp_path / "lacking").write_bytes(save(tensors))
    (tmp_path / "wrong").write_bytes(save(tensors | {"image": np.zeros((3, 8, 8), np.uint8)}))
    (tmp_path / "cut").write_bytes(GOLDEN.read_bytes()[:100_000])
    (tmp_path / "text").write_bytes(b"text")
    (tmp_path / "cut.pte").write_bytes(PROGRAM.read_bytes()[:100_000])
    out = tmp_path / "out"
    for arguments, words in (
        ([], "usage"),
        ([PROGRAM, GOLDEN, out, "0"], "FRAMES"),
        ([tmp_path / "none.pte", GOLDEN, out], "none.pte"),
        ([tmp_path / "cut.pte", GOLDEN, out], "no program that this runtime can load"),
        ([PROGRAM, tmp_path / "none", out], "none can't be read"),
        ([PROGRAM, tmp_path / "text", out], "no safetensors"),
        ([PROGRAM, tmp_path / "lacking", out], "lacks image"),
        ([PROGRAM, tmp_path / "wrong", out], "differ in size"),
        ([PROGRAM, tmp_path / "cut", out], "damaged at"),
        ([PROGRAM, GOLDEN, tmp_path / "none" / "out"], "can't be written"),
    ):
        done = subprocess.run([runner, *arguments], capture_output=True, text=True)
        assert done.returncode == 2 and words in done.stderr.splitlines()[-1], (arguments, done)
        assert not out.exists()


# arm64. CI installs what is needed and says where the wheel for arm64 is unpacked.


@pytest.fixture(scope="module")
def arm64_runner(tmp_path_factory) -> Path:
    needs("make", "aarch64-linux-gnu-g++", "qemu-aarch64-static")
    wheel = os.environ.get("MOBILE_BILAYER_ARM64")
    if wheel is None:
        pytest.skip("MOBILE_BILAYER_ARM64 does not name the folder of an unpacked executorch wheel for arm64")
    return build(tmp_path_factory.mktemp("arm64"), Path(wheel, "executorch"), "aarch64-linux-gnu-g++")


@pytest.fixture(scope="module")
def arm64(arm64_runner, tmp_path_factory) -> dict[str, dict[str, np.ndarray]]:
    """Outputs by processor: without int8 dot products (a53, a72) and with. Qemu's `max` computes them wrong."""
    cpus = ("cortex-a53", "cortex-a72", "cortex-a76", "neoverse-n1")
    emulator = ["qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu", "-cpu"]
    return {cpu: run([*emulator, cpu, arm64_runner], tmp_path_factory.mktemp(cpu)) for cpu in cpus}


@pytest.mark.arm64
def test_arm64_is_within_the_manifests_tolerance_and_near_x86(arm64, here, bundle):
    for cpu, got in arm64.items():
        assert in_tolerance(got, bundle), cpu
        flow = np.abs(got["layers_a"][:, :2] - here["layers_a"][:, :2]).max()
        assert flow < 0.01, (cpu, flow)  # 1.3 pixels of 256


@pytest.mark.arm64
def test_arm64_processors_with_and_without_dot_products_agree_to_the_bit(arm64):
    first, *others = arm64.values()
    for other in others:
        for name in PARTS:
            np.testing.assert_array_equal(other[name], first[name])


@pytest.mark.arm64
def test_arm64_output_that_is_off_would_be_seen(arm64, bundle):
    got = {name: value.copy() for name, value in arm64["cortex-a76"].items()}
    got["layers_a"][:, 0] += np.float32(0.05)
    assert not in_tolerance(got, bundle)
