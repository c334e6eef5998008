"""A refusal says which layer first goes wrong, and whether torch's graph was wrong already."""

import copy

import pytest
import torch
from mobile_bilayer.export import bundle as bundle_module
from mobile_bilayer.export import first_wrong as module
from mobile_bilayer.export.bundle import export_bundle
from mobile_bilayer.export.first_wrong import first_wrong, tapped

from mobile_bilayer.errors import MobileBilayerError


def told(foreign, backend="xnnpack", precision="fp32") -> str:
    return first_wrong(foreign.network, foreign.inputs, foreign.inputs, backend, precision)


def planted(student: torch.nn.Module) -> torch.nn.Module:
    """The second convolution of the frame's trunk gives too much, as if its scale were another's."""
    student = copy.deepcopy(student)
    with torch.no_grad():
        student.frame.trunk[2].weight *= 1.5
    return student


def test_layers_are_given_once_in_the_order_in_which_they_are_done(foreign):
    network, taps = tapped(foreign.network)
    with torch.no_grad():
        outputs = network.frame(*foreign.inputs["render_layers"][0])
        plain = foreign.network.frame(*foreign.inputs["render_layers"][0])
    names = [f"trunk.{i} (ReLU)" for i in (1, 3)]
    assert taps["render_layers"].names == ["motion (Linear)", *names, "trunk.5 (ReLU)", "heads (Conv2d)"]
    assert len(outputs) == len(plain) + 5
    assert all(torch.equal(a, b) for a, b in zip(outputs, plain, strict=False))
    assert not foreign.network.frame._forward_hooks


@pytest.mark.parametrize(("backend", "precision"), [("xnnpack", "fp32"), ("xnnpack", "int8"), ("coreml", "fp16")])
def test_where_every_layer_is_right_none_is_blamed(backend, precision, foreign):
    assert "first goes wrong" not in told(foreign, backend, precision)


def test_a_fault_in_the_graph_is_found_at_its_layer(foreign, monkeypatch):
    real = module.export_for
    monkeypatch.setattr(module, "export_for", lambda about, student, *rest: real(about, planted(student), *rest))
    sentence = told(foreign, precision="int8")
    assert sentence.startswith("Of torch's graph, before it is lowered, render_layers first goes wrong in trunk.3 (ReLU): ")
    assert "before it trunk.1 (ReLU) is " in sentence and "the lowering" not in sentence


def test_a_fault_of_the_lowering_is_told_from_one_of_the_graph(foreign, monkeypatch):
    real = module.lower_exported

    def faulty(graphs, *rest):
        student, _ = tapped(foreign.network)
        return real(module.export_for(module.BACKENDS["xnnpack"], planted(student), foreign.inputs, "fp32"), *rest)

    monkeypatch.setattr(module, "lower_exported", faulty)
    sentence = told(foreign)
    assert sentence.startswith(
        "Layer by layer torch's graph, before it is lowered, is right. Of the program for XNNPACK "
        "render_layers first goes wrong in trunk.3 (ReLU): "
    )
    assert sentence.endswith(". So it is the lowering, which no calibration mends: see export/README.md.")


def test_a_fault_of_the_conversion_to_core_ml_is_found_at_its_layer(foreign, monkeypatch):
    real = module.convert

    def faulty(graph, inputs, *rest):
        if "landmark_features" in inputs:
            student, _ = tapped(foreign.network)
            graph = module.export_methods(planted(student), foreign.inputs, False)["render_layers"]
        return real(graph, inputs, *rest)

    monkeypatch.setattr(module, "convert", faulty)
    assert "Of the Core ML program render_layers first goes wrong in trunk.3 (ReLU): " in told(foreign, "coreml", "fp16")


def test_a_layer_that_is_not_a_number_is_found(foreign, monkeypatch):
    real = module.export_for

    def broken(about, student, *rest):
        student = planted(student)
        with torch.no_grad():
            student.encoder.read.bias.fill_(float("nan"))
        return real(about, student, *rest)

    monkeypatch.setattr(module, "export_for", broken)
    assert "encode_avatar first goes wrong in read (Linear): nan%" in told(foreign)


def test_what_cannot_be_looked_at_is_said(foreign, monkeypatch):
    def refuse(*_):
        raise MobileBilayerError("no")

    monkeypatch.setattr(module, "lower_exported", refuse)
    assert told(foreign).endswith("Layer by layer the program for XNNPACK can't be looked at, as it does not run with its layers as outputs.")


def test_a_refused_export_names_the_layer_and_leaves_nothing(foreign, tmp_path, monkeypatch):
    monkeypatch.setattr(bundle_module, "lower", lambda student, *rest: bundle_module.lower_exported(
        bundle_module.export_for(bundle_module.BACKENDS["xnnpack"], planted(student), *rest), bundle_module.BACKENDS["xnnpack"], "fp32"
    ))  # fmt: skip
    monkeypatch.setattr(module, "export_for", lambda about, student, *rest: real(about, planted(student), *rest))
    real = bundle_module.export_for
    with pytest.raises(MobileBilayerError, match=r"is wrong in .* render_layers first goes wrong in trunk.3"):
        export_bundle(foreign.weights, foreign.prepared, tmp_path / "out", "fp32", module="foreign_network:load")
    assert not list(tmp_path.iterdir())
