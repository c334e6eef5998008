"""The program: all of it in the delegate, int8 where that is harmless, and equal to the student."""

import numpy as np
import pytest
import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
from executorch.runtime import Runtime
from mobile_bilayer.export.backends import BACKENDS
from mobile_bilayer.export.executorch import EncodeAvatar, RenderLayers, lower, lower_exported
from torch import nn
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from mobile_bilayer import MobileBilayerError
from mobile_bilayer.quantization.calibrate import refuse_int8_outside
from mobile_bilayer.quantization.recipes import Recipe, RecipeQuantizer

QUANTIZE = "quantized_decomposed.quantize_per_tensor.default"


def trunk_nodes(graph: torch.fx.GraphModule) -> list[bool]:
    """Of each quantized value: whether it comes from the trunk."""
    return [
        any(str(path).endswith("network.trunk") for path, _ in node.args[0].meta.get("nn_module_stack", {}).values())
        for node in graph.graph.nodes
        if str(node.target) == QUANTIZE
    ]


def quantized(
    module: torch.nn.Module, example: tuple[torch.Tensor, ...], quantizer: XNNPACKQuantizer
) -> torch.fx.GraphModule:
    prepared = prepare_pt2e(torch.export.export(module.eval(), example).module(), quantizer)
    with torch.no_grad():
        prepared(*example)
    return convert_pt2e(prepared)


def test_no_operator_stays_outside_the_delegate(exported):
    assert exported.lowered.undelegated == {"encode_avatar": [], "render_layers": []}


def test_an_int8_program_of_the_shipped_shape_is_smaller_than_its_float_weights():
    """Of the tiny student most of the file is its graph; so the shipped one is asked."""
    from mobile_bilayer import Bundle
    from mobile_bilayer.student.network import SIZES, Student

    bundle = Bundle.open()
    assert bundle.manifest.precision == "int8"
    weights = sum(p.numel() for p in Student(SIZES[bundle.manifest.size]).parameters())
    assert len(bundle.contents[bundle.manifest.program]) < 0.5 * 4 * weights


def test_outputs_are_near_the_float_students(exported):
    """As measured on a tiny untrained student, twice over. Flow: half a pixel of 256 is 0.004."""
    for (image, source), render in zip(exported.inputs["encode_avatar"], exported.inputs["render_layers"], strict=True):
        with torch.no_grad():
            encoded = EncodeAvatar(exported.student.encoder)(image, source)
            a, b = (x.numpy() for x in RenderLayers(exported.student.frame)(*render))
        run = exported.bundle.program.run
        for got, wanted in zip(run("encode_avatar", image.numpy(), source.numpy()), encoded, strict=True):
            assert np.abs(got - wanted.numpy()).mean() < 0.1 * max(1, wanted.abs().max())
        got_a, got_b = run("render_layers", *(x.numpy() for x in render))
        assert np.abs(got_a - a)[:2].max() < 0.03 and np.abs(got_a - a).mean() < 0.02
        assert np.abs(got_b - b).mean() < 0.02


def test_the_flow_has_finer_steps_than_int8_has(exported):
    a, _ = exported.bundle.program.run("render_layers", *(x.numpy() for x in exported.inputs["render_layers"][0]))
    assert len(np.unique(a[0, :2])) > 1000  # int8 knows 256 values


def test_int8_stays_inside_the_trunk(exported):
    example = exported.inputs["render_layers"][0]
    graph = quantized(RenderLayers(exported.student.frame), example, RecipeQuantizer())
    refuse_int8_outside(graph, Recipe(), "render_layers")
    outputs = next(node for node in graph.graph.nodes if node.op == "output").args[0]
    for output in outputs:  # neither layers_a nor layers_b comes out of an int8 value
        assert "dequantize" not in str(output.target)
    convolutions = [node for node in graph.graph.nodes if "conv2d" in str(node.target)]
    heads = [node for node in convolutions if "network.heads" in str(node.meta["nn_module_stack"])]
    assert heads and all("quantize" not in str(user.target) for head in heads for user in head.users)
    assert sum(trunk_nodes(graph)) > 10


class Toy(torch.nn.Module):
    """A trunk and a head, where the networks have theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.heads = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(4, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.heads(torch.relu(self.trunk(x)))


class Method(torch.nn.Module):
    """What is exported: a network and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Toy()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)


def test_a_graph_quantized_everywhere_is_refused():
    """One whose trunk alone is quantized is not."""
    example = (torch.rand(1, 3, 16, 16),)
    refuse_int8_outside(quantized(Method(), example, RecipeQuantizer()), Recipe(), "render_layers")
    everywhere = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    graph = quantized(Method(), example, everywhere)
    assert not all(trunk_nodes(graph))
    with pytest.raises(MobileBilayerError, match=r"render_layers: .* would be int8 outside the trunk"):
        refuse_int8_outside(graph, Recipe(), "render_layers")


def test_an_example_in_another_memory_layout_does_not_reach_the_exporter(exported, monkeypatch):
    """Its strides would be baked in. Asked where export gets it: another lowering takes a minute."""
    seen = []

    class Seen(Exception):
        pass

    def export(_module, example):
        seen.extend(example)
        raise Seen

    monkeypatch.setattr(torch.export, "export", export)
    permuted = {
        name: [tuple(x.transpose(-1, -2).contiguous().transpose(-1, -2) for x in example) for example in examples]
        for name, examples in exported.inputs.items()
    }
    assert not permuted["encode_avatar"][0][0].is_contiguous()
    with pytest.raises(MobileBilayerError, match="encode_avatar can't be made a graph: Seen"):
        lower(exported.student, permuted, "int8")
    assert seen and all(x.is_contiguous() for x in seen)


def test_a_picture_in_another_memory_layout_gives_the_programs_same_results(exported):
    image, source = (x.numpy() for x in exported.inputs["encode_avatar"][0])
    channels_last = np.ascontiguousarray(image.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert not channels_last.flags["C_CONTIGUOUS"]
    run = exported.bundle.program.run
    outputs = [run("encode_avatar", picture, source) for picture in (channels_last, image)]
    for got, wanted in zip(*outputs, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_an_unknown_precision_and_nothing_to_calibrate_on_are_refused(exported):
    with pytest.raises(MobileBilayerError, match="int4.*fp32, int8"):
        lower(exported.student, exported.inputs, "int4")
    with pytest.raises(MobileBilayerError, match="nothing to calibrate encode_avatar"):
        lower(exported.student, {"encode_avatar": [], "render_layers": []}, "int8")


class Constants(nn.Module):
    """Weights that are worked on in `forward`, by operators that XNNPACK does not take, and a sum that is written twice."""

    def __init__(self) -> None:
        super().__init__()
        self.log_sigma = nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4))
        self.register_buffer("centres", torch.linspace(0, 1, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        narrow = torch.exp(-2 * self.log_sigma).T[None] + torch.zeros(1, 4, 1)
        return (x + self.centres) * narrow * torch.exp((x + self.centres) * self.log_sigma.T.reshape(1, 4, 3))


def test_what_depends_on_weights_alone_is_computed_at_export_and_what_is_written_twice_once():
    module, x = Constants().eval(), torch.rand(1, 4, 3)
    graph = torch.export.export(module, (x,))
    written = [str(node.target) for node in graph.graph.nodes]
    lowered = lower_exported({"forward": graph}, BACKENDS["xnnpack"], "fp32")
    assert lowered.share == 1 and lowered.delegated == {"forward": 5}  # a sum, three products, one exp
    (got,) = Runtime.get().load_program(lowered.data).load_method("forward").execute([x])
    torch.testing.assert_close(got, module(x))
    assert [str(node.target) for node in graph.graph.nodes] == written  # what is lowered is a copy
