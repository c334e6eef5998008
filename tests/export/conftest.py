"""One export of a tiny student, for all tests here: lowering takes most of a minute, whatever its size."""

import copy
from dataclasses import dataclass
from pathlib import Path

import foreign_network
import pytest
import torch
from mobile_bilayer.export import bundle as export_bundle_module
from mobile_bilayer.export import executorch as executorch_module
from mobile_bilayer.export.backends import BACKENDS
from mobile_bilayer.export.executorch import Lowered

from mobile_bilayer import Bundle
from mobile_bilayer.student.network import Student, StudentConfig
from mobile_bilayer.student.weights import load_student, save_student

TINY = StudentConfig(
    frame_widths=(8, 8, 8, 8),
    encoder_widths=(16, 8, 8, 8),
    features=5,
    codes=3,
    fine_codes=2,
    sigma_lid=0.025,
    sigma_mouth=0.025,
)


@dataclass
class Exported:
    """A tiny student's export: what went in, and what came out."""

    weights: Path
    prepared: Path
    student: Student
    inputs: dict[str, list[tuple[torch.Tensor, ...]]]  # real ones, which it was not calibrated on
    graphs: dict[str, torch.export.ExportedProgram]  # both methods, quantized, before they were lowered
    lowered: Lowered
    bundle: Bundle


@pytest.fixture(scope="session")
def exported(tmp_path_factory, write_clip) -> Exported:
    """`export_bundle` as people call it, in int8, but on few pairs; the program is kept for other tests."""
    folder = tmp_path_factory.mktemp("export")
    prepared = folder / "prepared"
    prepared.mkdir()
    for identity in ("anna", "bert"):
        write_clip(prepared / f"{identity}.safetensors", identity)
    torch.manual_seed(0)
    student = Student(TINY)
    with torch.no_grad():
        student(torch.rand(4, 3, 256, 256), *[torch.rand(4, 144, 2) * 1.6 - 0.8] * 2)  # sets the batch norms
        student.frame.heads.weight.normal_(0, 0.02)  # an untrained flow is the prior alone
    weights = folder / "student.safetensors"
    save_student(student, weights, {"steps": 7, "validation": {"l1_mouth_eyes": 0.0567}})
    student, _ = load_student(weights)
    kept = {}

    def lower(*arguments) -> Lowered:
        kept["lowered"] = real_lower(*arguments)
        return kept["lowered"]

    def export_methods(*arguments, **options) -> dict[str, torch.export.ExportedProgram]:
        kept["graphs"] = real_export(*arguments, **options)
        return copy.deepcopy(kept["graphs"])  # lowering may change what it is given

    real_lower, real_export = export_bundle_module.lower, executorch_module.export_methods
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executorch_module, "export_methods", export_methods)
        patch.setattr(export_bundle_module, "lower", lower)
        patch.setattr(export_bundle_module, "CALIBRATION_PAIRS", 4)
        patch.setattr(export_bundle_module, "CHECKED_PAIRS", 2)
        bundle = export_bundle_module.export_bundle(weights, prepared, folder / "tiny-int8", "int8", twin=False)
    inputs = export_bundle_module.real_inputs(student, prepared, 3, seed=1)
    return Exported(weights, prepared, student, inputs, kept["graphs"], kept["lowered"], bundle)


@pytest.fixture(scope="session")
def core_ml(exported, tmp_path_factory) -> Bundle:
    """The same tiny student for Core ML in fp16, its encoder taking a picture; checked on few pairs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_bundle_module, "CALIBRATION_PAIRS", 1)
        patch.setattr(export_bundle_module, "CHECKED_PAIRS", 2)
        out = tmp_path_factory.mktemp("coreml") / "tiny-fp16"
        return export_bundle_module.export_bundle(
            exported.weights, exported.prepared, out, backend="coreml", image_input=True
        )


@dataclass
class Foreign:
    """A network that is not ours: its weights, prepared clips, real inputs; and an XNNPACK program of it in float32.

    The program holds, beside both methods, two faulty `render_layers`: another corner rule, and swapped channels.
    """

    weights: Path
    prepared: Path
    network: torch.nn.Module
    inputs: dict[str, list[tuple[torch.Tensor, ...]]]
    lowered: Lowered
    bundle: Bundle


@pytest.fixture(scope="session")
def few_pairs():
    """Exports calibrate on few pairs, and are checked on few."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_bundle_module, "CALIBRATION_PAIRS", 2)
        patch.setattr(export_bundle_module, "CHECKED_PAIRS", 2)
        yield


@pytest.fixture(scope="session")
def foreign(tmp_path_factory, write_clip, few_pairs) -> Foreign:
    """Exported once through the command's function, for all tests here."""
    folder = tmp_path_factory.mktemp("foreign")
    prepared = folder / "prepared"
    prepared.mkdir()
    for identity in ("anna", "bert"):
        write_clip(prepared / f"{identity}.safetensors", identity)
    weights = foreign_network.save(folder / "mine.safetensors")
    network = foreign_network.load(weights).eval()
    inputs = export_bundle_module.real_inputs(network, prepared, 3, seed=1)
    faults = {"corner": foreign_network.OtherCorners, "swap": foreign_network.SwappedChannels}
    graphs = executorch_module.export_methods(network, inputs, False)
    for name, fault in faults.items():
        faulty = executorch_module.RenderLayers(fault(network.frame)).eval()
        graphs[name] = torch.export.export(faulty, inputs["render_layers"][0])
    lowered = executorch_module.lower_exported(graphs, BACKENDS["xnnpack"], "fp32")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_bundle_module, "lower", lambda *_: lowered)
        bundle = export_bundle_module.export_bundle(
            weights, prepared, folder / "fp32", "fp32", module="foreign_network:load"
        )
    return Foreign(weights, prepared, network, inputs, lowered, bundle)
