"""Calibration on nothing is refused, on little warned of; what is called int8 is int8."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e

from mobile_bilayer import MobileBilayerError
from mobile_bilayer.quantization.calibrate import (
    QUANTIZE,
    check_examples,
    int8_convolutions,
    quantize,
    refuse_float,
    refuse_int8_outside,
    refuse_unseen,
)
from mobile_bilayer.quantization.recipes import Recipe, RecipeQuantizer
from mobile_bilayer.quantization.twins import median_ms, refuse_larger, warn_slower


def graph_of(method, examples):
    return torch.export.export(method, examples[0]).module()


def test_QU1_nothing_to_calibrate_on_is_refused():
    with pytest.raises(MobileBilayerError, match="nothing to calibrate render_layers"):
        check_examples([], "render_layers")


@pytest.mark.parametrize(("count", "of"), [(1, 1), (100, 1), (100, 15)])
def test_QU1_few_or_identical_examples_are_warned_of(examples, count, of):
    with pytest.warns(UserWarning, match=rf"render_layers is calibrated on {of} different examples \(of {count}\)"):
        check_examples([examples[i % of] for i in range(count)], "render_layers")


def test_QU1_a_hundred_varied_examples_are_not(examples):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_examples(examples, "render_layers")


def test_QU1_an_observer_that_saw_nothing_or_no_number_is_refused_by_its_layers_name(method, examples):
    method = copy.deepcopy(method)
    with torch.no_grad():
        method.network.trunk.second.bias[0] = torch.nan
        prepared = prepare_pt2e(graph_of(method, examples), RecipeQuantizer(Recipe(observer="minmax")))
        with pytest.raises(MobileBilayerError, match=r"render_layers: the range of \S+ .*saw nothing"):
            refuse_unseen(prepared, "render_layers")
        prepared(*examples[0])
        with pytest.raises(
            MobileBilayerError, match=r"the range of trunk \(relu_1\) is \[\[nan\], \[nan\]\].*NaN in the weights"
        ):
            refuse_unseen(prepared, "render_layers")


@pytest.fixture(scope="module")
def whole(method, examples) -> torch.fx.GraphModule:
    """By the recipe that ships."""
    return quantize(graph_of(method, examples), examples[:20], Recipe(), "render_layers")


def test_what_ships_gives_nearly_what_float_gives(method, examples, whole):
    assert int8_convolutions(whole) == 3
    refuse_int8_outside(whole, Recipe(), "render_layers")
    with torch.no_grad():
        got, wanted = whole(*examples[50]), method(*examples[50])
    assert 0 < (got - wanted).abs().mean() < 0.05 * wanted.abs().mean()


def test_another_recipe_gives_other_numbers_nearly_as_good(method, examples, whole):
    recipe = Recipe(int8=("trunk.third",), per_channel=False, observer="minmax", symmetric=True)
    graph = quantize(graph_of(method, examples), examples[:20], recipe, "m")
    assert int8_convolutions(graph) == 1
    with torch.no_grad():
        got, wanted = graph(*examples[50]), method(*examples[50])
        assert 0 < (got - wanted).abs().mean() < 0.08 * wanted.abs().mean()
        assert not torch.equal(got, whole(*examples[50]))
    points = [n.args[2] for n in graph.graph.nodes if n.target == QUANTIZE]
    assert points and set(points) == {0}  # symmetric
    with pytest.raises(MobileBilayerError, match=r"int8 outside the trunk\.third"):
        refuse_int8_outside(whole, recipe, "m")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"int8": ()}, "int8 names no module"),
        ({"observer": "mean"}, "mean.*histogram"),
    ],
)
def test_recipes_that_mean_nothing_are_refused(options, words):
    with pytest.raises(MobileBilayerError, match=words):
        Recipe(**options)


def test_QU4_a_float_graph_is_not_called_int8(method, examples):
    with pytest.raises(
        MobileBilayerError, match="render_layers: nothing became int8, no module is called branch or trunk"
    ):
        refuse_float(graph_of(method, examples), Recipe(int8=("branch", "trunk")), "render_layers")


def test_QU4_an_int8_file_must_be_smaller_than_its_float_twin():
    refuse_larger(1000, 4000)
    for size in (4000, 5000):
        with pytest.raises(MobileBilayerError, match=f"int8 program has {size // 1000} kB.*4 kB.*Export fp32"):
            refuse_larger(size, 4000)


def test_QU4_an_int8_file_that_is_slower_is_kept_with_a_warning_that_says_why():
    with pytest.warns(UserWarning, match=r"2\.00 ms in int8 and 1\.00 ms in float.*Int8 is kept: the file is smaller"):
        warn_slower(2.0, 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_slower(1.05, 1.0)


def test_times_are_medians_of_runs_in_turns():
    seen = []
    took = median_ms({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, rounds=4)
    assert set(took) == {"a", "b"} and "".join(seen) == "ab" * 7


class Sums(nn.Module):
    """What comes from outside is added to what a convolution made, and that to what the next one makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor, outside: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.first(x) + outside)
        return torch.relu(x + self.second(x))


class WithSums(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Module()
        self.network.trunk = Sums()

    def forward(self, x: torch.Tensor, outside: torch.Tensor) -> torch.Tensor:
        return self.network.trunk(x, outside)


@pytest.mark.parametrize(("method_name", "rounded"), [("render_layers", False), ("encode_avatar", True)])
def test_a_frames_sums_are_not_rounded(method_name, rounded):
    inputs = [(torch.randn(1, 4, 8, 8), torch.randn(1, 4, 8, 8)) for _ in range(4)]
    exported = torch.export.export(WithSums().eval(), inputs[0])
    graph = quantize(exported.module(), inputs, Recipe(), method_name)
    assert int8_convolutions(graph) == 2
    from_outside, last = (node for node in graph.graph.nodes if node.target == torch.ops.aten.add.Tensor)
    assert any(term.op == "placeholder" for term in from_outside.args) is not rounded
    assert any(term.target == torch.ops.aten.relu.default for term in last.args) is not rounded
    (output,) = graph.graph.output_node().args[0]
    assert (output.target == torch.ops.aten.relu.default) is not rounded
