"""The evaluator of saved Core ML programs: every operator as torch computes it, and nothing that it does not know."""

import logging
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mobile_bilayer.export import coreml
from mobile_bilayer.export.coreml import convert
from mobile_bilayer.export.coreml_tools import coremltools, quietly
from mobile_bilayer.export.mil_evaluator import OPERATORS, MilProgram
from torch import Tensor, nn
from torch.nn import functional as F

from mobile_bilayer import MobileBilayerError

X, Y = (1, 8, 6, 6), (1, 8, 6, 6)
# What a line computes, and the operators that are in the program for it.
CASES = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "real_div": lambda x, y: x / (y * y + 0.5),
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "exp": lambda x, y: torch.exp(x) + y,
    "relu": lambda x, y: torch.relu(x) + y,
    "sigmoid": lambda x, y: torch.sigmoid(x) + y,
    "tanh": lambda x, y: torch.tanh(x) + y,
    "clip": lambda x, y: torch.clamp(x, -0.5, 0.25) + y,
    "conv": lambda x, y: (
        F.conv2d(x, WEIGHT, BIAS, stride=2, padding=1) + F.conv2d(y, WEIGHT, BIAS, stride=(2, 2), padding=1)
    ),
    "conv with groups, dilated, without a border": lambda x, y: (
        F.conv2d(x, WEIGHT[:, :4], groups=2, dilation=2) + F.conv2d(y, WEIGHT[:, :4], groups=2, dilation=2)
    ),
    "linear": lambda x, y: F.linear(x, ROWS, ROW) + F.linear(y, ROWS, ROW),
    "matmul": lambda x, y: x @ y,
    "matmul of one that is transposed": lambda x, y: x.transpose(-1, -2) @ y + x @ y.transpose(-1, -2),
    "avg_pool": lambda x, y: F.avg_pool2d(x, 2) + F.avg_pool2d(y, 2),
    "avg_pool with a border": lambda x, y: F.avg_pool2d(x, 3, 2, 1) + F.avg_pool2d(y, 3, 2, 1),
    "reduce_mean": lambda x, y: x.mean((2, 3), keepdim=True) + y,
    "upsample_bilinear": lambda x, y: F.interpolate(x + y, scale_factor=2.0, mode="bilinear", align_corners=False),
    "upsample_bilinear, corner to corner": lambda x, y: F.interpolate(
        x + y, scale_factor=2.0, mode="bilinear", align_corners=True
    ),
    "pixel_shuffle": lambda x, y: F.pixel_shuffle(x + y, 2),
    "slice_by_index": lambda x, y: x[:, 1:7:2, 2:, :4] + y[:, :3, :4, 2:],
    "split": lambda x, y: torch.split(x, [3, 5], 1)[0] * torch.split(y, [3, 5], 1)[1][:, :3],
    "concat": lambda x, y: torch.cat([x, y], 1),
    "reshape": lambda x, y: (x + y).reshape(1, 4, 12, 6),
    "transpose": lambda x, y: (x + y).permute(0, 2, 3, 1) * 1.5,
    "expand_dims": lambda x, y: (x + y).unsqueeze(1) * 1.5,
    "squeeze": lambda x, y: (x + y).squeeze(0) * 1.5,
}
torch.manual_seed(0)
WEIGHT, BIAS, ROWS, ROW = torch.randn(8, 8, 3, 3), torch.randn(8), torch.randn(5, 6), torch.randn(5)


class Lines(nn.Module):
    """Functions of two tensors, as a module."""

    def __init__(self, *functions) -> None:
        super().__init__()
        self.functions = functions

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return tuple(function(x, y) for function in self.functions)


def written(folder: Path, files: dict[str, bytes]) -> Path:
    package = folder / "method.mlpackage"
    (package / "Data" / "com.apple.CoreML" / "weights").mkdir(parents=True)  # empty where a program has none
    for name, data in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_bytes(data)
    return package


def package_of(
    module: nn.Module, examples: tuple[Tensor, ...], folder: Path, precision="fp16", ios=16, pictures=()
) -> Path:
    names = ("x", "y")[: len(examples)]
    exported = torch.export.export(module.eval(), examples)
    count = len(exported.graph_signature.user_outputs)
    outputs = tuple(f"out{i}" for i in range(count)) if count > 1 else ("out",)
    files = convert(exported, names, outputs, precision, ios, pictures)
    return written(folder, files)


@pytest.fixture(scope="module")
def all_lines(tmp_path_factory) -> MilProgram:
    """All cases in one package: a conversion takes seconds."""
    examples = torch.randn(X), torch.randn(Y)
    return MilProgram(package_of(Lines(*CASES.values()), examples, tmp_path_factory.mktemp("lines")))


@pytest.mark.parametrize("name", list(CASES))
def test_an_operator_is_computed_as_torch_does(name, all_lines):
    assert name.split(",")[0].split(" ")[0] in all_lines.operators
    torch.manual_seed(1)
    x, y = torch.randn(X), torch.randn(Y)  # not the examples
    got = all_lines.run({"x": x.numpy(), "y": y.numpy()})[f"out{list(CASES).index(name)}"]
    np.testing.assert_allclose(got, CASES[name](x, y).numpy(), atol=2e-5, rtol=2e-5)


def test_every_operator_that_is_known_has_a_test():
    by_hand = {"cast", "identity", "quantize", "dequantize", "constexpr_affine_dequantize", "constexpr_lut_to_dense"}
    assert {name.split(",")[0].split(" ")[0] for name in CASES} | by_hand == set(OPERATORS)


def test_quantize_rounds_moves_and_stays_within_eight_bits():
    x = torch.tensor([[-100.0, 0.26, 0.74, 100.0]])
    got = OPERATORS["quantize"](x, np.float32(0.5), "int8", np.int8(3))
    assert got.tolist() == [[-128, 4, 4, 127]]
    assert OPERATORS["quantize"](x, np.float32(0.5), "uint8", np.uint8(3)).tolist() == [[0, 4, 4, 203]]
    by_row = OPERATORS["quantize"](x.T.reshape(2, 2), np.array([0.5, 10.0]), "int8", np.array([0, 1], np.int8), 0)
    assert by_row.tolist() == [[-128, 1], [1, 11]]


def test_dequantize_is_the_way_back_by_number_and_by_channel():
    values = np.array([[-128, 4], [4, 127]], np.int8)
    assert OPERATORS["dequantize"](values, np.float32(0.5), np.int8(4)).tolist() == [[-66, 0], [0, 61.5]]
    got = OPERATORS["constexpr_affine_dequantize"](values, np.int8([0, 4]), np.float32([1, 0.5]), np.int32(1))
    assert got.tolist() == [[-128, 0], [4, 61.5]]


@pytest.mark.parametrize("bits", [2, 4, 6])
def test_a_palette_is_read_by_packed_numbers_the_lowest_bits_first(bits):
    places = [1, 2**bits - 1, 0, 2 ** (bits - 1)]
    packed = sum(place << (bits * i) for i, place in enumerate(places))
    data = np.frombuffer(packed.to_bytes((4 * bits + 7) // 8, "little"), np.uint8)
    palette = np.arange(2**bits, dtype=np.float32) * 10
    got = OPERATORS["constexpr_lut_to_dense"](data, palette, np.uint32([2, 2]))
    assert got.reshape(-1).tolist() == [10.0 * place for place in places]


class Trunk(nn.Module):
    """Three convolutions: the middle one is fp16, and so is the first."""

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        self.first, self.middle, self.last = (nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))
        with torch.no_grad():
            self.first.weight *= gain
            self.last.weight /= gain

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (self.last(torch.relu(self.middle(torch.relu(self.first(x))))),)


def test_values_of_fp16_are_rounded_to_it(tmp_path):
    torch.manual_seed(0)
    x, net = torch.randn(1, 16, 8, 8), Trunk()
    got = MilProgram(package_of(net, (x,), tmp_path)).run({"x": x.numpy()})["out"]

    def half(y: Tensor) -> Tensor:
        return y.half().float()

    with torch.no_grad():
        wanted = half(x)
        for layer in (net.first, net.middle):
            layer.weight.copy_(half(layer.weight))
            layer.bias.copy_(half(layer.bias))
            wanted = half(torch.relu(layer(wanted)))
        wanted = net.last(wanted).numpy()
    np.testing.assert_allclose(got, wanted, atol=1e-4)
    with torch.no_grad():
        exact = Trunk().last  # another net altogether: the tolerance can tell
        assert np.abs(got - exact(x).numpy()).max() > 0.1


def test_EX4_an_overflow_in_fp16_is_refused_by_the_name_of_its_operator(tmp_path):
    """In float32 the same network is well behaved: its last layer takes back what the first one adds."""
    torch.manual_seed(0)
    x, net = torch.randn(1, 16, 8, 8), Trunk(gain=2e5)
    with torch.no_grad():
        assert net(x)[0].abs().max() < 10
    program = MilProgram(package_of(net, (x,), tmp_path))
    with pytest.raises(MobileBilayerError, match=r"conv2d.*\(conv, fp16\).*infinite"):
        program.run({"x": x.numpy()})


@pytest.mark.parametrize("bits", [4, 6])
def test_a_palettized_package_holds_few_values_near_the_weights(bits, tmp_path, monkeypatch):
    monkeypatch.setattr(coreml, "SMALL_LAYER", 0)
    torch.manual_seed(0)
    x, net = torch.randn(1, 16, 8, 8), Trunk()
    program = MilProgram(package_of(net, (x,), tmp_path, f"palettized{bits}"))
    assert "constexpr_lut_to_dense" in program.operators and program.ios == 16
    with torch.no_grad():
        wanted = net(x)[0].numpy()
    error = np.abs(program.run({"x": x.numpy()})["out"] - wanted).mean() / np.abs(wanted).mean()
    assert 1e-3 < error < {4: 0.2, 6: 0.06}[bits]


def test_of_four_bits_small_layers_have_six(tmp_path, monkeypatch):
    """It is the small ones whose rounding is seen, and they hold hardly any of the weights."""
    torch.manual_seed(0)
    x, net, errors = torch.randn(1, 16, 8, 8), Trunk(), {}
    with torch.no_grad():
        wanted = net(x)[0].numpy()
    for small in (0, 10**9):
        monkeypatch.setattr(coreml, "SMALL_LAYER", small)
        program = MilProgram(package_of(net, (x,), tmp_path / str(small), "palettized4"))
        errors[small] = np.abs(program.run({"x": x.numpy()})["out"] - wanted).mean()
    assert errors[10**9] < 0.5 * errors[0]


@pytest.mark.parametrize("colours", ["RGB", "BGR"])
def test_EX5_a_cameras_pixels_reach_the_network_in_its_own_order_and_range(colours, tmp_path):
    """Pure colours and a grey ramp as 32BGRA: [0, 1] in the network, and the same level when it comes out again."""
    program = MilProgram(package_of(Doubled(), (torch.rand(1, 3, 4, 64),), tmp_path, pictures=("x",)))
    assert program.pictures == {"x": "RGB"}
    program.pictures["x"] = colours
    pixels = np.full((4, 64, 4), 255, np.uint8)
    for row, rgb in enumerate(([255, 0, 0], [0, 255, 0], [0, 0, 255])):
        pixels[row, :, :3] = rgb[::-1]
    pixels[3, :, :3] = np.arange(0, 256, 4)[:, None]
    got = (program.run({"x": pixels})["out"][0].transpose(1, 2, 0) + 1) * 127.5
    wanted = pixels[:, :, [2, 1, 0] if colours == "RGB" else [0, 1, 2]].astype(float)
    assert np.abs(got - wanted).max() < 0.01  # a level is 1


class Doubled(nn.Module):
    """[0, 1] to [-1, 1], as networks here begin."""

    def forward(self, x: Tensor) -> tuple[Tensor]:
        return (x * 2.0 - 1.0,)


def test_an_operator_that_is_not_known_stops_it_by_name(tmp_path):
    package = package_of(Lines(lambda x, y: torch.cos(x) + torch.erf(y)), (torch.rand(X), torch.rand(Y)), tmp_path)
    with pytest.raises(MobileBilayerError, match="does not know the operator cos, erf"):
        MilProgram(package)


def test_an_input_of_another_shape_and_a_damaged_package_are_refused(tmp_path):
    package = package_of(Lines(torch.maximum), (torch.rand(X), torch.rand(Y)), tmp_path)
    with pytest.raises(MobileBilayerError, match=r"takes y as \(1, 8, 6, 6\); got \(8, 6, 6\)"):
        MilProgram(package).run({"x": np.zeros(X, np.float32), "y": np.zeros(Y[1:], np.float32)})
    model = package / "Data" / "com.apple.CoreML" / "model.mlmodel"
    model.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    with pytest.raises(MobileBilayerError, match=r"method.mlpackage can't be read"):
        MilProgram(package)


def test_nothing_of_the_library_is_printed(capfd):
    coremltools()
    with quietly():
        print("chatter", file=sys.stderr)
        logging.getLogger("coremltools").error("chatter")
    assert capfd.readouterr().err == ""
