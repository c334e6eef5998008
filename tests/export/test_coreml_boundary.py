"""What goes into a Core ML program and comes out of it, and what `inspect` tells of one."""

from pathlib import Path

import numpy as np
import pytest

from mobile_bilayer import Bundle, MobileBilayerError
from mobile_bilayer.runtime.core_ml_program import CoreMLProgram
from mobile_bilayer.runtime.inspection import inspect


@pytest.fixture(scope="module")
def program(core_ml) -> CoreMLProgram:
    return CoreMLProgram(core_ml.packages(), core_ml.manifest.methods, "here", "evaluator")


def inputs_of(bundle: Bundle, method: str) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.random(t.shape, np.float32) for t in bundle.manifest.methods[method].inputs]


@pytest.mark.parametrize("method", ["encode_avatar", "render_layers"])
def test_a_view_gives_the_same_as_its_copy_and_another_type_is_refused(core_ml, program, method):
    arrays = inputs_of(core_ml, method)
    wanted = program.run(method, *arrays)
    for view in (
        np.asfortranarray,
        lambda x: np.ascontiguousarray(x[..., ::-1])[..., ::-1],
        lambda x: np.repeat(x, 2, -1)[..., ::2],
    ):
        for got, one in zip(program.run(method, *[view(x) for x in arrays]), wanted, strict=True):
            np.testing.assert_array_equal(got, one)
    for kind in (np.float64, np.uint8):
        with pytest.raises(MobileBilayerError, match="float32 in numpy"):
            program.run(method, *[x.astype(kind) for x in arrays])


def test_RU3_outputs_kept_across_calls_stay_as_they_were(core_ml, program):
    arrays = inputs_of(core_ml, "render_layers")
    first = program.run("render_layers", *arrays)
    copies = [x.copy() for x in first]
    second = program.run("render_layers", *arrays[:3], arrays[3] + np.float32(0.1))
    for a, b, c in zip(first, copies, second, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.shares_memory(a, c)


def test_a_core_ml_bundle_is_told_whole(core_ml):
    found = inspect(core_ml.where)
    assert not found.problems and all(file.ok for file in found.files)
    assert (found.facts["backend"], found.facts["minimum_runtime"]) == ("coreml", "iOS 15 or macOS 12")
    for method in found.methods:
        assert method.share == 1 and method.delegated["conv"] > 5 and method.undelegated == {}


def test_a_package_without_its_bundle_is_told(core_ml):
    found = inspect(Path(core_ml.where, core_ml.manifest.program, "encode_avatar.mlpackage"))
    (method,) = found.methods
    assert found.facts["minimum_runtime"] == "iOS 15" and method.name == "encode_avatar"
    image = method.inputs[0]
    assert (image.name, image.shape, image.dtype, image.low, image.high) == (
        "image",
        (1, 3, 256, 256),
        "picture",
        0,
        255,
    )
    assert [v.name for v in method.outputs] == ["landmark_features", "map_features", "alpha"]
    assert found.facts["bytes"] == sum(file.bytes for file in found.files) > 1000


def test_a_damaged_package_is_refused(core_ml, tmp_path):
    package = tmp_path / "render_layers.mlpackage"
    package.mkdir()
    (package / "Manifest.json").write_text("{}")
    with pytest.raises(MobileBilayerError, match=r"render_layers\.mlpackage can't be read as a Core ML package"):
        inspect(package)
