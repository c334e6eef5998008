"""Core ML bundles: right for any face, refused when wrong, honest about what was not run."""

import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from mobile_bilayer.export import bundle as module
from mobile_bilayer.export import coreml, coreml_tools
from mobile_bilayer.export.bundle import TOLERANCES, compare, export_bundle, refuse_over_tolerance, sample_inputs
from mobile_bilayer.export.coreml import Packages, choose_ios, convert, convert_student, ios_needed
from mobile_bilayer.export.coreml_tools import coremltools
from mobile_bilayer.export.executorch import EncodeAvatar, RenderLayers
from mobile_bilayer.export.mil_evaluator import MilProgram

from mobile_bilayer import Bundle, MobileBilayerError
from mobile_bilayer.quantization.recipes import Recipe
from mobile_bilayer.runtime.core_ml_program import CoreMLProgram
from mobile_bilayer.runtime.manifest import METHODS
from mobile_bilayer.samples import SAMPLES
from mobile_bilayer.student.weights import load_student


@pytest.fixture
def quick(exported, core_ml, monkeypatch):
    """`export_bundle` for Core ML with packages that are there already: quick(out, files)."""
    monkeypatch.setattr(module, "CALIBRATION_PAIRS", 1)
    monkeypatch.setattr(module, "CHECKED_PAIRS", 1)

    def export(out: Path, files: dict[str, bytes] | None = None) -> Bundle:
        packages = Packages(files or core_ml.packages(), 15)
        monkeypatch.setattr(module, "convert_student", lambda *_: packages)
        return export_bundle(exported.weights, exported.prepared, out, backend="coreml")

    return export


def program_of(bundle: Bundle) -> CoreMLProgram:
    return CoreMLProgram(bundle.packages(), bundle.manifest.methods, "here", "evaluator")


@pytest.fixture(scope="module")
def program(core_ml) -> CoreMLProgram:
    return program_of(core_ml)


def test_a_core_ml_bundle_opens_and_verifies_and_says_that_it_is_slow_here(core_ml):
    bundle = Bundle.open(core_ml.where)
    about = bundle.manifest
    assert (about.backend, about.precision, about.program) == ("coreml", "fp16", "student-custom-256-fp16-coreml")
    assert about.minimum_runtime == "iOS 15 or macOS 12"
    for method in METHODS:
        assert f"{about.program}/{method}.mlpackage/Data/com.apple.CoreML/model.mlmodel" in about.sha256
    with pytest.warns(UserWarning, match=r"macOS and iOS only.*slower than a phone"):
        assert set(bundle.verify()) == set(bundle.golden()[1])


def test_a_package_exported_after_one_photo_drives_another_as_eager_does(exported, program):
    """Nothing of the example that it was converted with is left in it."""
    apart = [
        float((a[0] - b[0]).abs().mean())
        for a in exported.inputs["encode_avatar"]
        for b in exported.inputs["encode_avatar"]
    ]
    assert max(apart) > 0.05  # there are two people
    for encode, render in zip(exported.inputs["encode_avatar"], exported.inputs["render_layers"], strict=True):
        with torch.no_grad():
            wanted = EncodeAvatar(exported.student.encoder)(*encode), RenderLayers(exported.student.frame)(*render)
        got = (
            program.run("encode_avatar", *(x.numpy() for x in encode)),
            program.run("render_layers", *(x.numpy() for x in render)),
        )
        for ours, theirs in zip([*got[0], *got[1]], [*wanted[0], *wanted[1]], strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), atol=5e-3 * max(1, float(theirs.abs().max())))


def test_landmarks_prior_and_flow_are_float32_and_the_trunk_is_fp16(program):
    frame = program._programs["render_layers"]
    kinds = {op.outputs[0].name: (op.op_type, frame._type_name(op.outputs[0].dtype)) for op in frame._operations}
    convolutions = [kind for name, kind in kinds.values() if name == "conv"]
    assert convolutions[-1] == "fp32" and set(convolutions[:-1]) == {"fp16"}
    assert {kind for name, kind in kinds.values() if name in ("exp", "matmul", "tanh", "real_div")} == {"fp32"}


def test_EX4_bright_and_dark_photos_keep_every_output_finite_and_in_tolerance(exported, program):
    """Also all black and all white, of which no trained network has seen one."""
    inputs = {"encode_avatar": [], "render_layers": []}
    for gain, shift in ((0.03, 0), (0.3, 0), (0.3, 0.7), (0, 0), (0, 1)):
        for (image, source), render in zip(
            exported.inputs["encode_avatar"], exported.inputs["render_layers"], strict=True
        ):
            image = ((image * gain + shift) * 255).round() / 255
            with torch.no_grad():
                code = exported.student.encoder(image, source)
            inputs["encode_avatar"].append((image, source))
            inputs["render_layers"].append((code.landmark_features, code.map_features, *render[2:]))
    refuse_over_tolerance(compare(exported.student, program, inputs), "fp16")


def test_EX4_fifty_crops_of_photos_dark_and_bright_keep_the_shipped_student_in_tolerance():
    """Two portraits at 25 exposures, from an eighth of their light to four times as much, each with another frame of a driver."""
    student, _ = load_student()
    inputs = {"encode_avatar": [], "render_layers": []}
    for name in SAMPLES:
        for frame, gain in zip(range(0, 198, 8), np.geomspace(1 / 8, 4, 25).tolist(), strict=True):
            sample = sample_inputs(student, name, frame)
            image = (sample["image"][None] * gain).round().clamp(max=255) / 255
            source, driving = sample["source_points"][None], sample["driving_points"][None]
            with torch.no_grad():
                code = student.encoder(image, source)
            inputs["encode_avatar"].append((image, source))
            inputs["render_layers"].append((code.landmark_features, code.map_features, source, driving))
    assert len(inputs["render_layers"]) == 50
    packages = convert_student(student, {method: of_method[:1] for method, of_method in inputs.items()}, "fp16")
    program = CoreMLProgram(packages.files, Bundle.open().manifest.methods, "here", "evaluator")
    refuse_over_tolerance(compare(student, program, inputs), "fp16")


def test_EX5_colours_and_a_grey_ramp_come_back_from_the_encoder_within_a_level(exported, program):
    """The last three features of a landmark are its colour: of one colour everywhere, that colour."""
    assert program._programs["encode_avatar"].pictures == {"image": "RGB"}
    source = exported.inputs["encode_avatar"][0][1].numpy()
    for rgb in ([255, 0, 0], [0, 255, 0], [0, 0, 255], *([level] * 3 for level in range(0, 256, 51))):
        image = np.broadcast_to(np.float32(rgb).reshape(1, 3, 1, 1) / 255, (1, 3, 256, 256)).copy()
        features, _, _ = program.run("encode_avatar", image, source)
        inside = np.abs(source[0]).max(1) < 0.9  # elsewhere a Gaussian is cut off
        assert np.abs((features[0, inside, -3:] + 1) * 127.5 - rgb).max() < 1


def test_EX6_without_native_parts_it_stops_before_the_long_work(exported, tmp_path, monkeypatch, command_line):
    monkeypatch.setattr(module, "load_student", lambda *_: pytest.fail("it began in vain"))
    coremltools.cache_clear()
    monkeypatch.setattr(coreml_tools, "NATIVE", ("libofnothing",))
    with pytest.raises(MobileBilayerError, match=r"no native parts here \(libofnothing; Python 3.*Linux on x86-64"):
        export_bundle(exported.weights, exported.prepared, tmp_path / "out", backend="coreml")
    monkeypatch.setattr(coreml_tools, "find_spec", lambda _: None)
    line = ["export", str(exported.weights), "--prepared", str(exported.prepared), "-o", str(tmp_path / "out")]
    code, _, err = command_line([*line, "--backend", "coreml"])
    assert code == 2 and "pip install 'mobile-bilayer[coreml]'" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(coreml_tools.core_ml_runs_here(), reason="Core ML is here")
def test_EX6_what_was_not_run_is_said_to_be_not_run(exported, quick, core_ml, tmp_path, command_line):
    proof = core_ml.contents["PROOF.md"].decode()
    assert "- Core ML itself: not run here" in proof and "passed" not in proof
    quick(tmp_path / "out")
    line = ["export", str(exported.weights), "--prepared", str(exported.prepared), "-o", str(tmp_path / "out")]
    code, out, err = command_line([*line, "--backend", "coreml"])
    assert code == 0 and not err
    assert "Core ML itself: not run here" in " ".join(out.split()) and "passed" not in out
    assert "Needs iOS 15 or macOS 12." in out
    with pytest.raises(MobileBilayerError, match="macOS and iOS only"):
        CoreMLProgram(core_ml.packages(), core_ml.manifest.methods, "here", "Core ML")


@pytest.mark.parametrize(
    ("precision", "oldest"), [("fp16", 15), ("w8a8", 17), ("w8", 16), ("palettized6", 16), ("palettized4", 16)]
)
def test_EX7_a_target_is_chosen_by_precision_and_refused_below_it(precision, oldest, exported, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "load_student", lambda *_: pytest.fail("it began in vain"))
    assert choose_ios(precision, None) == choose_ios(precision, oldest) == oldest
    for ios in (oldest - 1, 14, 99):
        with pytest.raises(
            MobileBilayerError, match=rf"{precision} can't be made for iOS {ios}: it needs iOS {oldest}"
        ):
            export_bundle(exported.weights, exported.prepared, tmp_path / "out", precision, backend="coreml", ios=ios)


def test_EX7_a_program_says_which_operator_needs_which_ios():
    assert ios_needed(["add", "conv"])[0] == 15
    assert ios_needed(["conv", "resample"]) == (15, "resample")
    assert ios_needed(["constexpr_lut_to_dense", "conv"]) == (16, "constexpr_lut_to_dense")
    assert ios_needed(["constexpr_lut_to_dense", "conv", "quantize"]) == (17, "quantize")


class Warp(torch.nn.Module):
    """What needs `resample`, in a precision that needs more."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (torch.nn.functional.grid_sample(x, x[:, :2].permute(0, 2, 3, 1), align_corners=False),)


def test_EX7_an_operator_newer_than_the_target_is_refused_by_name(monkeypatch):
    program = torch.export.export(Warp(), (torch.rand(1, 3, 8, 8),))
    assert convert(program, ("x",), ("out",), "fp16", 15)
    monkeypatch.setattr(
        coreml, "ios_needed", lambda operators: (17, "resample") if "resample" in operators else (15, "")
    )
    with pytest.raises(MobileBilayerError, match=r"uses resample, which needs iOS 17; it was to be for iOS 15"):
        convert(program, ("x",), ("out",), "fp16", 15)


def test_a_w8a8_package_is_executorchs_graph_and_keeps_the_flow_fine(exported, tmp_path):
    inputs, outputs = METHODS["render_layers"]
    files = convert(exported.graphs["render_layers"], inputs, outputs, "w8a8", 17)
    for name, data in files.items():
        (tmp_path / "a.mlpackage" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "a.mlpackage" / name).write_bytes(data)
    program = MilProgram(tmp_path / "a.mlpackage")
    assert program.ios == 17 and {"quantize", "dequantize"} <= set(program.operators)
    quantized = exported.graphs["render_layers"].module()
    for render in exported.inputs["render_layers"]:
        got = program.run(dict(zip(inputs, (x.numpy() for x in render), strict=True)))
        with torch.no_grad():
            wanted = quantized(*render)
        for name, theirs in zip(outputs, wanted, strict=True):
            error = np.abs(got[name] - theirs.numpy())  # fp16 moves a value across a step of int8 now and then
            assert error.mean() < 1e-4 and error.max() < 2e-3
        assert len(np.unique(got["layers_a"][0, :2])) > 1000  # int8 knows 256 values


def test_a_recipe_rules_the_graph_of_w8a8(exported, monkeypatch):
    asked = []
    monkeypatch.setattr(coreml, "export_methods", lambda *arguments: asked.append(arguments) or {})
    recipe = Recipe(observer="minmax")
    for precision in ("w8a8", "fp16"):
        convert_student(exported.student, exported.inputs, precision, recipe=recipe if precision == "w8a8" else None)
    assert [(quantized, followed) for _, _, quantized, followed in asked] == [(True, recipe), (False, None)]


@pytest.mark.parametrize(
    ("precision", "options", "words"),
    [
        ("fp16", {"recipe": Recipe()}, "of int8 and w8a8, not of fp16"),
        ("palettized6", {"trained": torch.nn.Identity()}, "of int8 and w8a8, not of palettized6"),
    ],
)
def test_a_recipe_that_core_ml_does_not_follow_is_refused(exported, tmp_path, monkeypatch, precision, options, words):
    monkeypatch.setattr(module, "load_student", lambda *_: pytest.fail("it began in vain"))
    with pytest.raises(MobileBilayerError, match=words):
        export_bundle(exported.weights, exported.prepared, tmp_path / "out", precision, backend="coreml", **options)
    assert not list(tmp_path.iterdir())


# Planted faults


def edited(files: dict[str, bytes], method: str, change) -> dict[str, bytes]:
    """Packages whose model of `method` was changed by `change(spec)`."""
    coremltools()
    from coremltools.proto import Model_pb2

    path = f"{method}.mlpackage/Data/com.apple.CoreML/model.mlmodel"
    spec = Model_pb2.Model.FromString(files[path])
    change(spec)
    return files | {path: spec.SerializeToString()}


def operations(spec):
    block = spec.mlProgram.functions["main"]
    return block.block_specializations[block.opset].operations


def refused(quick, out: Path, files: dict[str, bytes], match: str) -> None:
    with pytest.raises(MobileBilayerError, match=match):
        quick(out, files)
    assert not list(out.parent.iterdir())


def test_untouched_packages_are_accepted(quick, core_ml, tmp_path):
    same = edited(core_ml.packages(), "render_layers", lambda spec: None)
    assert quick(tmp_path / "out", same).manifest.backend == "coreml"


def test_a_fault_swapped_colours_are_refused(quick, core_ml, tmp_path):
    def swap(spec) -> None:
        (picture,) = [put.type.imageType for put in spec.description.input if put.name == "image"]
        picture.colorSpace = picture.ColorSpace.Value("BGR")

    refused(quick, tmp_path / "out", edited(core_ml.packages(), "encode_avatar", swap), "wrong in landmark_features")


def test_a_fault_swapped_channels_of_the_layers_are_refused(quick, core_ml, tmp_path):
    def swap(spec) -> None:
        last = next(op for op in operations(spec) if op.outputs[0].name == "layers_a")
        joined = next(op for op in operations(spec) if op.outputs[0].name == last.inputs["x"].arguments[0].name)
        arguments = joined.inputs["values"].arguments
        gate, mask = arguments[1].name, arguments[2].name
        arguments[1].name, arguments[2].name = mask, gate

    refused(quick, tmp_path / "out", edited(core_ml.packages(), "render_layers", swap), "wrong in gate")


def test_a_fault_another_corner_rule_is_refused(quick, core_ml, tmp_path):
    def corners(spec) -> None:
        named = {op.outputs[0].name: op for op in operations(spec)}
        for op in operations(spec):
            if op.type == "upsample_bilinear":
                constant = named[op.inputs["align_corners"].arguments[0].name]
                constant.attributes["val"].immediateValue.tensor.bools.values[0] = True

    refused(quick, tmp_path / "out", edited(core_ml.packages(), "render_layers", corners), "wrong in (flow|gate|mask|layers_b)")


class Instead:
    """A program whose outputs a function changes, or makes."""

    def __init__(self, run) -> None:
        self.run = run


def test_a_fault_a_norm_left_in_training_mode_is_refused(exported):
    import copy

    student = copy.deepcopy(exported.student).train()
    methods = {"encode_avatar": student.encoder, "render_layers": student.frame}

    @torch.no_grad()
    def run(name: str, *arrays: np.ndarray) -> list[np.ndarray]:
        return [x.numpy() for x in methods[name](*map(torch.from_numpy, arrays))]

    errors = compare(exported.student, Instead(run), exported.inputs)
    with pytest.raises(MobileBilayerError, match="wrong in landmark_features"):
        refuse_over_tolerance(errors, "fp16")
    with pytest.raises(MobileBilayerError, match="wrong in"):
        refuse_over_tolerance(errors, "w8a8")


def test_a_fault_an_int8_flow_is_refused(exported, program):
    def run(name: str, *arrays: np.ndarray) -> list[np.ndarray]:
        outputs = program.run(name, *arrays)
        if name == "render_layers":
            step = np.abs(outputs[0][:, :2]).max() / 127
            outputs[0][:, :2] = np.rint(outputs[0][:, :2] / step) * step
        return outputs

    with pytest.raises(MobileBilayerError, match="wrong in flow"):
        refuse_over_tolerance(compare(exported.student, Instead(run), exported.inputs), "fp16")


# The folder


@pytest.mark.parametrize(
    "name",
    ["{p}/../secret", "{p}//x", "{p}/", "other/x", "{p}/.hidden", "/{p}/x", "{p}/a\\b", "{p}" + "/a" * 9, "../{p}/x"],
)
def test_file_names_that_lead_out_of_the_programs_folder_are_refused(name, core_ml, tmp_path):
    import json

    folder = tmp_path / "bundle"
    shutil.copytree(core_ml.where, folder)
    values = json.loads((folder / "manifest.json").read_text())
    values["sha256"][name.format(p=values["program"])] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(values))
    with pytest.raises(MobileBilayerError, match="no plain file name"):
        Bundle.open(folder)


def test_a_changed_and_a_missing_file_of_a_package_are_named(core_ml, tmp_path):
    folder = tmp_path / "bundle"
    shutil.copytree(core_ml.where, folder)
    weights = next(folder.rglob("render_layers.mlpackage/**/weight.bin"))
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(MobileBilayerError, match=r"render_layers.mlpackage/Data/.*weight.bin has sha256"):
        Bundle.open(folder)
    weights.unlink()
    with pytest.raises(MobileBilayerError, match=r"weight.bin is missing"):
        Bundle.open(folder)


def test_a_zipped_core_ml_bundle_opens(core_ml, tmp_path):
    archive = shutil.make_archive(str(tmp_path / "bundle"), "zip", Path(core_ml.where).parent, Path(core_ml.where).name)
    assert Bundle.open(archive).packages() == core_ml.packages()


def test_an_older_core_ml_bundle_is_replaced_unless_it_holds_more(quick, core_ml, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(core_ml.where, out)
    assert quick(out).manifest.name == "out"
    note = out / core_ml.manifest.program / "notes.txt"
    note.write_text("mine")
    with pytest.raises(MobileBilayerError, match=r"notes.txt, which is no part of a bundle"):
        quick(out)
    assert note.read_text() == "mine"


def test_what_fits_no_backend_is_refused(exported, tmp_path):
    def export(**options) -> None:
        export_bundle(exported.weights, exported.prepared, tmp_path / "out", **options)

    with pytest.raises(MobileBilayerError, match="one of xnnpack, vulkan, coreml-delegate, qnn, coreml"):
        export(backend="abacus")
    with pytest.raises(MobileBilayerError, match="for coreml it must be one of fp16, w8a8, w8, palettized6, palettized4"):
        export(backend="coreml", precision="int8")
    for options in ({"ios": 17}, {"image_input": True}):
        with pytest.raises(MobileBilayerError, match="are of Core ML"):
            export(**options)


def test_a_core_ml_avatar_renders_as_the_other_bundles_do(exported, core_ml):
    """The same student twice: in int8 by ExecuTorch, in fp16 by the evaluator."""
    from mobile_bilayer.samples import sample_photo, sample_track

    track, frames = sample_track(), []
    for bundle in (exported.bundle, core_ml):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            avatar = bundle.avatar(*sample_photo(SAMPLES[0]))
            avatar.neutral = track[0].landmarks
            frames.append(avatar.render(track[40]).astype(float))
    assert np.abs(frames[0] - frames[1]).mean() < 5


def test_tolerances_are_tighter_the_more_bits_there_are():
    for name in TOLERANCES["fp16"]:
        fine, middle, coarse = (TOLERANCES[p][name] for p in ("fp16", "palettized6", "palettized4"))
        assert fine.largest < middle.largest <= coarse.largest and fine.mean < middle.mean <= coarse.mean
