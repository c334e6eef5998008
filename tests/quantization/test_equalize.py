"""Channels of more equal range: the same student, less to lose by rounding."""

import copy

import pytest
import torch
from mobile_bilayer.export.executorch import RenderLayers

from mobile_bilayer.pose.head import POINTS
from mobile_bilayer.quantization.calibrate import quantize
from mobile_bilayer.quantization.equalize import _at_32_px, _scale, equalized, without_map_gain
from mobile_bilayer.quantization.recipes import Recipe
from mobile_bilayer.student.network import Student, StudentConfig

WIDE = StudentConfig(frame_widths=(8, 8, 8, 8), encoder_widths=(12, 8, 8, 8), features=4, codes=4)


@pytest.fixture(scope="module")
def uneven() -> Student:
    """A student that draws something, with a channel at 32 px that is ten times as loud as the rest."""
    torch.manual_seed(0)
    student = Student(WIDE).eval()
    with torch.no_grad():
        torch.nn.init.normal_(student.frame.heads.weight, std=0.05)
        gain = torch.ones(8)
        gain[3] = 10
        _scale(gain, [*_at_32_px(student.frame)[0], student.encoder.map_head], _at_32_px(student.frame)[1])
    return student


@pytest.fixture(scope="module")
def inputs(uneven) -> list[tuple[torch.Tensor, ...]]:
    generator = torch.Generator().manual_seed(0)
    examples = []
    for _ in range(6):
        source = torch.rand(1, POINTS, 2, generator=generator) - 0.5
        with torch.no_grad():
            code = uneven.encoder(torch.rand(1, 3, 256, 256, generator=generator), source)
        examples.append((*code[:2], source, source + 0.05 * torch.rand(1, POINTS, 2, generator=generator)))
    return examples


@pytest.fixture(scope="module")
def even(uneven, inputs) -> Student:
    return equalized(uneven, inputs[:4])


def layers(student: Student, example: tuple[torch.Tensor, ...]) -> torch.Tensor:
    with torch.no_grad():
        a, b = student.frame(*example)
    return torch.cat([a.flatten(), b.flatten()])


def test_it_computes_the_same_from_the_same_avatar(uneven, even, inputs):
    torch.testing.assert_close(layers(even, inputs[5]), layers(uneven, inputs[5]), rtol=0, atol=2e-5)
    assert not torch.equal(even.frame.trunk.stem[1].weight, uneven.frame.trunk.stem[1].weight)
    image, source = torch.rand(1, 3, 256, 256), inputs[5][2]
    with torch.no_grad():
        assert all(
            torch.equal(*pair) for pair in zip(even.encoder(image, source), uneven.encoder(image, source), strict=True)
        )


def test_its_ranges_are_more_equal(uneven, even, inputs):
    def ranges(student: Student, part: str) -> torch.Tensor:
        """Of the channels that are in use, against the loudest."""
        seen = []
        module = student.frame.trunk.get_submodule(part)
        hook = module.register_forward_hook(lambda *call: seen.append(call[2].amax((0, 2, 3))))
        for example in inputs[:4]:
            layers(student, example)
        hook.remove()
        loudest = torch.stack(seen).amax(0)
        return loudest / loudest.max()

    assert ranges(even, "mid32").median() > 2 * ranges(uneven, "mid32").median()
    for part in ("stem", "mid32.first", "mid16.first", "mid8.first"):  # each is the root of what it was
        before = ranges(uneven, part)
        used = before > 0.01
        torch.testing.assert_close(ranges(even, part)[used], before[used] ** 0.5, rtol=1e-3, atol=0)


def test_int8_loses_less_of_it(uneven, even, inputs):
    def error(student: Student, name: str) -> float:
        method = RenderLayers(student.frame).eval()
        graph = torch.export.export(method, inputs[0]).module()
        with torch.no_grad():
            got = quantize(graph, inputs[:4], Recipe(), name)(*inputs[5])
        return float((torch.cat([x.flatten() for x in got]) - layers(uneven, inputs[5])).square().mean())

    # Where sums are rounded, as an encoder's are, unequal channels lose most; and where they are not, as a frame's, still.
    assert error(even, "encode_avatar") < 0.7 * error(uneven, "encode_avatar")
    assert error(even, "render_layers") < 0.9 * error(uneven, "render_layers")


def test_the_gain_of_map_features_can_be_put_back_into_weights(uneven, even, inputs):
    back = without_map_gain(copy.deepcopy(even))
    assert back.state_dict().keys() == uneven.state_dict().keys() != even.state_dict().keys()
    torch.testing.assert_close(layers(back, inputs[5]), layers(uneven, inputs[5]), rtol=0, atol=2e-5)
