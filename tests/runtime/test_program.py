"""A program's boundary: what goes in, what comes out, and what is said when the runtime does not take it."""

from collections.abc import Callable
from importlib.metadata import version

import numpy as np
import pytest

from mobile_bilayer import Bundle, MobileBilayerError
from mobile_bilayer.runtime.executorch_file import read_program
from mobile_bilayer.runtime.manifest import MethodSpec, TensorSpec
from mobile_bilayer.runtime.program import Program, check_inputs


@pytest.fixture(scope="module")
def shipped() -> Bundle:
    return Bundle.open()


@pytest.fixture(scope="module")
def data(shipped) -> bytes:
    return shipped.contents[shipped.manifest.program]


def inputs_of(bundle: Bundle, method: str) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.random(t.shape, np.float32) for t in bundle.manifest.methods[method].inputs]


# What goes in. `VIEWS` are in another order in memory than their copies.

VIEWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "channels last": lambda x: np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1),
    "Fortran's order": np.asfortranarray,
    "backwards": lambda x: np.ascontiguousarray(x[..., ::-1])[..., ::-1],
    "every other number": lambda x: np.repeat(x, 2, -1)[..., ::2],
    "odd strides where there is one": lambda x: np.lib.stride_tricks.as_strided(x, strides=(4, *x.strides[1:])),
    "read only": lambda x: np.frombuffer(x.tobytes(), np.float32).reshape(x.shape),
    "not at a number's place in memory": lambda x: (
        np.frombuffer(b"." + x.tobytes(), np.uint8)[1:].view(np.float32).reshape(x.shape)
    ),
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_gives_the_same_as_its_copy(shipped, view):
    for method in shipped.manifest.methods:
        arrays = inputs_of(shipped, method)
        wanted = shipped.program.run(method, *arrays)
        views = [VIEWS[view](x) for x in arrays]
        assert all(np.array_equal(a, b) for a, b in zip(arrays, views, strict=True))
        for got, one in zip(shipped.program.run(method, *views), wanted, strict=True):
            np.testing.assert_array_equal(got, one)


@pytest.mark.parametrize("view", VIEWS)
def test_what_a_program_is_given_is_a_copy_laid_out_row_by_row(view):
    x = np.arange(2 * 3 * 4, dtype=np.float32).reshape(1, 2, 3, 4)
    (got,) = check_inputs("m", MethodSpec((TensorSpec("x", (1, 2, 3, 4)),), ()), (VIEWS[view](x),))
    assert got.strides == (96, 48, 16, 4) and not np.shares_memory(got, x) and got.flags.writeable
    np.testing.assert_array_equal(got, x)


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.uint8, np.int32, np.dtype(">f4"), bool, object])
def test_numbers_of_another_type_are_refused_by_name(shipped, kind):
    arrays = inputs_of(shipped, "render_layers")
    arrays[2] = arrays[2].astype(kind)
    with pytest.raises(MobileBilayerError, match=r"render_layers takes source_landmarks as \(1, 144, 2\) float32"):
        shipped.program.run("render_layers", *arrays)


def test_another_shape_number_of_arrays_or_library_is_refused_in_words(shipped):
    import torch

    arrays = inputs_of(shipped, "encode_avatar")
    for wrong, words in (
        ([arrays[0][0], arrays[1]], r"takes image as \(1, 3, 256, 256\)"),
        (arrays[:1], "takes image, source_landmarks; got 1 arrays"),
        ([torch.from_numpy(arrays[0]), arrays[1]], "got Tensor"),
        ([arrays[0].tolist(), arrays[1]], "got list"),
    ):
        with pytest.raises(MobileBilayerError, match=words):
            shipped.program.run("encode_avatar", *wrong)


# What comes out.


def test_RU3_outputs_kept_across_calls_stay_as_they_were(shipped):
    arrays = inputs_of(shipped, "render_layers")
    kept, copies = [], []
    for i in range(10):
        kept.append(shipped.program.run("render_layers", *arrays[:3], arrays[3] + np.float32(0.05 * i)))
        copies.append([x.copy() for x in kept[-1]])
    for out, copied in zip(kept, copies, strict=True):
        for a, b in zip(out, copied, strict=True):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(kept, kept[1:], strict=False):
        assert not np.array_equal(a[0], b[0]) and not np.shares_memory(a[0], b[0])


# What the runtime does not take: in words, not in codes.

RUNTIME = f"executorch {version('executorch')}"


def refusal(bundle: Bundle, data: bytes) -> str:
    with pytest.raises(MobileBilayerError) as caught:
        Program(data, bundle.manifest.methods, bundle.manifest.backend, "here", "executorch 99.0")
    assert "0x" not in str(caught.value) and "here: " in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("magic", "remedy"), [(b"ET13", "Update executorch"), (b"ET11", "Export the bundle again")])
def test_RU1_another_file_format_is_named_beside_the_runtimes(shipped, data, magic, remedy):
    message = refusal(shipped, data[:4] + magic + data[8:])
    assert magic.decode() in message and f"{RUNTIME}, reads ET12" in message and remedy in message
    assert "made for executorch 99.0" in message


def test_RU1_another_header_is_named_beside_the_runtimes(shipped, data):
    message = refusal(shipped, data[:8] + b"eh01" + data[12:])
    assert "eh01" in message and "reads eh00" in message


def test_RU1_a_newer_schema_is_named_beside_the_runtimes(shipped, data):
    # Of the program's table `version` has its default, and no place: it is given that of another small number.
    root = int.from_bytes(data[:4], "little")
    fields = root - int.from_bytes(data[root : root + 4], "little", signed=True)
    place = next(i for i in range(4, 4000, 4) if 0 < int.from_bytes(data[root + i : root + i + 4], "little") < 1000)
    newer = bytearray(data)
    newer[fields + 4 : fields + 6] = place.to_bytes(2, "little")
    message = refusal(shipped, bytes(newer))
    assert "schema version" in message and f"{RUNTIME} here reads 0" in message and "executorch 99.0" in message
    with pytest.raises(MobileBilayerError, match="schema version"):
        read_program(bytes(newer), "here")


def test_RU1_a_missing_backend_is_named_with_those_that_are_here(shipped, data):
    message = refusal(shipped, data.replace(b"XnnpackBackend", b"AbacusBackends"))
    assert "the backend AbacusBackends" in message and "XnnpackBackend" in message and RUNTIME in message


def test_RU1_a_missing_operator_is_named(shipped, tmp_path):
    data = undelegated_program()
    name = b"aten::cumsum"
    assert name in data
    spec = {"forward": MethodSpec((TensorSpec("x", (2, 3)),), (TensorSpec("y", (2, 3)),))}
    Program(data, spec, "xnnpack", "here")
    with pytest.raises(MobileBilayerError, match=r"needs the operator aten::abacus\.out"):
        Program(data.replace(name, b"aten::abacus"), spec, "xnnpack", "here")


def undelegated_program() -> bytes:
    """One operator, which stays outside of delegates."""
    import torch
    from executorch.exir import to_edge

    class Sum(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.cumsum(1)

    return to_edge(torch.export.export(Sum(), (torch.rand(2, 3),))).to_executorch().buffer


@pytest.mark.parametrize("share", [0.005, 0.5, 0.99])
def test_RU1_a_program_cut_short_is_said_to_be(shipped, data, share):
    assert "cut off, damaged" in refusal(shipped, data[: int(len(data) * share)])


def test_a_file_is_read_without_running_it(data):
    encode, render = read_program(data, "here").methods
    assert (encode.name, render.name) == ("encode_avatar", "render_layers")
    assert [t.shape for t in encode.inputs] == [(1, 3, 256, 256), (1, 144, 2)]
    assert {t.dtype for t in (*render.inputs, *render.outputs)} == {"float32"}
    assert render.backends == ("XnnpackBackend",) and render.share == 1 and not render.undelegated
    assert render.delegated["Conv2d"] > 10


def test_operators_outside_of_delegates_are_counted_by_name():
    (method,) = read_program(undelegated_program(), "here").methods
    assert method.undelegated == {"aten::cumsum.out": 1} and method.share == 0 and method.backends == ()


@pytest.mark.parametrize(
    "change", [lambda d: d[:3000], lambda d: d[:40] + bytes(3000) + d[3040:], lambda d: b"", lambda d: b"text" * 99]
)
def test_a_damaged_file_is_refused_in_words(data, change):
    with pytest.raises(MobileBilayerError, match=r"me\.pte.*(Export|copy)"):
        read_program(change(data), "me.pte")
