"""ExecuTorch's other backends: lowered, read again, and never called run when they were not."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from mobile_bilayer.export import backends, coreml
from mobile_bilayer.export import bundle as module
from mobile_bilayer.export.backends import BACKENDS, EXECUTORCH, check_qnn, check_soc
from mobile_bilayer.export.bundle import PRECISIONS, TOLERANCES, USUAL, Proof, export_bundle, export_proven
from mobile_bilayer.export.executorch import Lowered, lower_exported
from mobile_bilayer.export.program_file import DelegatedCoreML, check_program

from mobile_bilayer import Bundle, MobileBilayerError
from mobile_bilayer.runtime.manifest import METHODS, MethodSpec, TensorSpec

FACTORY = "foreign_network:load"


@pytest.fixture(scope="session")
def vulkan(foreign, tmp_path_factory) -> tuple[Bundle, Proof]:
    """In int8: the graph of XNNPACK's, taken by Vulkan."""
    out = tmp_path_factory.mktemp("vulkan") / "int8-vulkan"
    return export_proven(foreign.weights, foreign.prepared, out, "int8", backend="vulkan", module=FACTORY)


@pytest.fixture(scope="session")
def delegate(foreign, tmp_path_factory) -> tuple[Bundle, Proof]:
    out = tmp_path_factory.mktemp("delegate") / "fp16-coreml-delegate"
    return export_proven(foreign.weights, foreign.prepared, out, backend="coreml-delegate", module=FACTORY)


def test_a_vulkan_bundle_is_lowered_whole_and_says_that_it_was_not_run(vulkan):
    bundle, proof = vulkan
    about = bundle.manifest
    assert (about.backend, about.precision, about.minimum_runtime) == ("vulkan", "int8", EXECUTORCH)
    assert proof.how == "lowered only" and proof.share == 1
    assert set(proof.errors) == set(TOLERANCES["int8"]) and max(proof.of_allowed("int8").values()) <= 1
    assert not any(spec.undelegated or spec.largest_error for spec in about.methods.values())
    text = bundle.contents["PROOF.md"].decode()
    assert "- Vulkan itself: not run here, as its runtime is not in ExecuTorch's Python package." in text
    assert "The graph before it was lowered" in text and "100.0% of the operators in VulkanBackend" in text
    assert "passed" not in text
    methods = check_program(bundle.contents[about.program], about.methods, "VulkanBackend", "here")
    assert set(methods) == set(METHODS) and all(
        call.backend == "VulkanBackend" for call in methods["render_layers"].calls
    )
    assert bundle.golden()  # for the phone


def test_RU1_a_bundle_for_phones_opens_here_and_says_which_one_runs_here(vulkan, delegate):
    for bundle, _ in (vulkan, delegate):
        opened = Bundle.open(bundle.where)
        words = f"'{opened.manifest.backend}', whose runtime is not in ExecuTorch's Python package.*run the student's bundle for xnnpack"
        with pytest.raises(MobileBilayerError, match=words):
            _ = opened.program


def test_RU1_animate_with_such_a_bundle_ends_with_the_remedy(vulkan, tmp_path, command_line):
    code, _, err = command_line(["animate", "--bundle", vulkan[0].where, "-o", str(tmp_path / "out.mp4")])
    assert code == 2 and "--backend xnnpack" in err
    assert not list(tmp_path.iterdir())


def test_a_core_ml_delegates_program_is_taken_out_and_computed(delegate, foreign):
    bundle, proof = delegate
    assert proof.how == "evaluated" and proof.share == 1
    assert bundle.manifest.minimum_runtime == f"{EXECUTORCH}, iOS 15 or macOS 12"
    text = bundle.contents["PROOF.md"].decode()
    assert "Core ML itself: not run here" in text and "passed" not in text
    methods = check_program(bundle.contents[bundle.manifest.program], bundle.manifest.methods, "CoreMLBackend", "here")
    program = DelegatedCoreML(methods, "here")
    assert all(program._programs[name][0].ios == 15 for name in METHODS)  # one for both methods would need 18
    frame = program._programs["render_layers"][0]
    kinds = [frame._type_name(op.outputs[0].dtype) for op in frame._operations if op.op_type == "conv"]
    assert kinds[-1] == "fp32" and set(kinds[:-1]) == {"fp16"}  # the heads, and the trunk
    errors = {name: error for spec in bundle.manifest.methods.values() for name, error in spec.largest_error.items()}
    assert set(errors) == set(TOLERANCES["fp16"])


def test_EX7_an_operator_newer_than_the_delegates_target_is_refused_by_name(delegate, foreign, monkeypatch):
    bundle, proof = delegate
    seen = []
    monkeypatch.setattr(coreml, "ios_needed", lambda operators: (seen.extend(operators), (18, "conv"))[1])
    with pytest.raises(MobileBilayerError, match="uses conv, which needs iOS 18; it was to be for iOS 15"):
        module._prove(foreign.network, bundle, foreign.inputs, proof.share, {})
    assert {"conv", "upsample_bilinear", "matmul"} & set(seen)


def test_a_fault_in_a_core_ml_delegate_is_refused(delegate, foreign):
    """Two outputs of the program change places behind the evaluator's back."""
    about = delegate[0].manifest
    methods = check_program(delegate[0].contents[about.program], about.methods, "CoreMLBackend", "here")
    program = DelegatedCoreML(methods, "here")
    module.refuse_over_tolerance(module.compare(foreign.network, program, foreign.inputs), "fp16")
    _, inputs, _ = program._programs["render_layers"]
    call = methods["render_layers"].calls[0]
    places = list(call.places)
    landmarks = inputs.index("landmarks"), inputs.index("source_landmarks")
    places[landmarks[0]], places[landmarks[1]] = places[landmarks[1]], places[landmarks[0]]
    program._methods["render_layers"] = replace(methods["render_layers"], calls=(replace(call, places=tuple(places)),))
    with pytest.raises(MobileBilayerError, match="wrong in flow"):
        module.refuse_over_tolerance(module.compare(foreign.network, program, foreign.inputs), "fp16")


def test_a_quantized_graph_that_errs_is_refused_before_it_is_lowered(foreign, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "lower_exported", lambda *_, **__: pytest.fail("it was lowered in vain"))
    monkeypatch.setattr(module, "GraphProgram", lambda graphs: type("Zeros", (), {"run": staticmethod(zeros)}))

    def zeros(method: str, *arrays):
        shapes = {
            "encode_avatar": [(1, 144, 5), (1, 6, 16, 16), (1, 1, 128, 128)],
            "render_layers": [(1, 4, 64, 64), (1, 3, 128, 128)],
        }
        return [torch.zeros(shape).numpy() for shape in shapes[method]]

    with pytest.raises(MobileBilayerError, match="program is wrong in"):
        export_bundle(foreign.weights, foreign.prepared, tmp_path / "out", "fp32", backend="vulkan", module=FACTORY)
    assert not list(tmp_path.iterdir())


# What a file says of itself


SPEC = MethodSpec((TensorSpec("x", (1, 3, 8, 8)),), (TensorSpec("out", (1, 3, 8, 8)),))


class Warp(torch.nn.Module):
    """What needs an operator that XNNPACK does not take, beside some that it does."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (torch.nn.functional.grid_sample(2.0 * x, x[:, :2].permute(0, 2, 3, 1), align_corners=False),)


class Normed(torch.nn.Module):
    """A planted fault: its norm takes the batch's own statistics, in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = torch.nn.Conv2d(3, 3, 3, padding=1), torch.nn.BatchNorm2d(3, track_running_stats=False)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.norm(self.conv(x)),)


def graph_of(network: torch.nn.Module) -> dict[str, torch.export.ExportedProgram]:
    return {"render_layers": torch.export.export(network.eval(), (torch.rand(1, 3, 8, 8),))}


def test_EX1_an_operator_that_the_backend_does_not_take_is_named_at_export():
    with pytest.raises(MobileBilayerError, match=r"render_layers: XNNPACK does not take aten.grid_sampler_2d"):
        lower_exported(graph_of(Warp()), BACKENDS["xnnpack"], "fp32")


class Meant(torch.nn.Module):
    """A mean that XNNPACK does not take, a layer of torch's own, and a whole number that makes another type."""

    def __init__(self) -> None:
        super().__init__()
        self.larger = torch.nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        x = self.larger(x) * 2
        return (x.mean((1, 2)),)


def test_all_that_is_refused_is_named_at_once_with_the_line_that_asks_for_it():
    """Else whoever brings a network waits minutes for each."""
    graphs = {"encode_avatar": graph_of(Meant())["render_layers"], **graph_of(Warp())}
    with pytest.raises(MobileBilayerError) as told:
        lower_exported(graphs, BACKENDS["xnnpack"], "fp32")
    first, second = str(told.value).split("; ", 1)
    assert first.startswith("encode_avatar: XNNPACK does not take ") and second.startswith("render_layers: XNNPACK does not take ")
    assert re.search(r"aten\.mean\.dim \(test_backends\.py, line \d+: return \(x\.mean\(\(1, 2\)\),\)\)", first)
    for name in ("upsample_nearest2d", "_to_dim_order_copy"):
        assert re.search(rf"{name}\S* \(test_backends\.py, line \d+: x = self\.larger\(x\) \* 2\)", first)
    assert re.search(r"aten\.grid_sampler_2d\.default \(test_backends\.py, line \d+: return \(torch\.nn", second)
    assert second.endswith("export/README.md says how.")


def test_a_fault_a_norm_left_in_training_mode_does_not_become_an_xnnpack_program():
    with pytest.raises(MobileBilayerError, match=r"XNNPACK (does not take .*norm|can't be lowered for)"):
        lower_exported(graph_of(Normed()), BACKENDS["xnnpack"], "fp32")


@pytest.fixture(scope="module")
def warp() -> Lowered:
    """A program with an operator outside the delegate, which is explained."""
    explained = {"aten.grid_sampler_2d.default": "a test"}
    return lower_exported(graph_of(Warp()), BACKENDS["xnnpack"], "fp32", explained)


def test_the_delegated_share_counts_operators_inside_and_outside(warp):
    assert set(warp.undelegated["render_layers"]) == {"aten.grid_sampler_2d.default"}
    assert warp.delegated["render_layers"] >= 2 and 0.5 < warp.share < 1


def test_an_operator_outside_that_the_manifest_does_not_name_is_refused(warp):
    with pytest.raises(
        MobileBilayerError, match=r"render_layers has aten.grid_sampler_2d outside XnnpackBackend.*does not name"
    ):
        check_program(warp.data, {"render_layers": SPEC}, "XnnpackBackend", "here")
    named = replace(SPEC, undelegated={"aten.grid_sampler_2d.default": "a test"})
    assert check_program(warp.data, {"render_layers": named}, "XnnpackBackend", "here")["render_layers"].undelegated


@pytest.mark.parametrize(
    ("method", "spec", "delegate", "words"),
    [
        ("encode_avatar", SPEC, "XnnpackBackend", "lacks encode_avatar"),
        (
            "render_layers",
            replace(SPEC, inputs=(TensorSpec("x", (1, 3, 8, 9)),)),
            "XnnpackBackend",
            r"takes .*\(1, 3, 8, 8\)",
        ),
        ("render_layers", replace(SPEC, outputs=()), "XnnpackBackend", r"gives .*manifest says \[\]"),
        ("render_layers", SPEC, "VulkanBackend", "made for XnnpackBackend; it must be VulkanBackend"),
    ],
)
def test_a_file_that_is_not_what_its_manifest_says_is_refused(method, spec, delegate, words, warp):
    with pytest.raises(MobileBilayerError, match=words):
        check_program(warp.data, {method: spec}, delegate, "here")


def test_what_a_converter_raises_is_an_error_for_people(monkeypatch):
    def broken(*_):
        try:
            raise AssertionError("this node is no picture")
        except AssertionError as error:  # as ExecuTorch's passes do
            raise KeyError("mystery\nand a page of graph") from error

    monkeypatch.setitem(BACKENDS, "xnnpack", replace(BACKENDS["xnnpack"], to_edge=broken))
    words = "XNNPACK can't be lowered for: KeyError: 'mystery.*, from AssertionError: this node is no picture. Rewrite"
    with pytest.raises(MobileBilayerError, match=words) as told:
        lower_exported({}, BACKENDS["xnnpack"], "fp32")
    assert "\n" not in str(told.value)


def test_EX1_the_export_loads_and_runs_the_file_and_records_the_runtime(foreign):
    about = foreign.bundle.manifest
    assert about.minimum_runtime == EXECUTORCH and EXECUTORCH.split()[1][0].isdigit()
    assert "- The file in ExecuTorch's runtime, with XNNPACK: run." in foreign.bundle.contents["PROOF.md"].decode()
    assert all(spec.largest_error for spec in about.methods.values())


def test_EX1_a_program_that_loads_and_does_not_run_is_refused(foreign, tmp_path, monkeypatch):
    """XNNPACK finds out some shapes only when they come."""

    class Broken:
        def execute(self, _tensors):
            raise RuntimeError("method->execute() failed with error 0x1")

    def prove(student, bundle, *_):
        bundle.program._methods["encode_avatar"] = Broken()
        return module._worst(student, [bundle.program], foreign.inputs, "fp32")

    monkeypatch.setattr(module, "lower", lambda *_: foreign.lowered)
    monkeypatch.setattr(module, "_prove", prove)
    with pytest.raises(MobileBilayerError, match="can't run encode_avatar: an internal error"):
        export_bundle(foreign.weights, foreign.prepared, tmp_path / "out", "fp32", module=FACTORY)
    assert not list(tmp_path.iterdir())


# What is asked for


@pytest.fixture
def line(foreign, tmp_path) -> list[str]:
    return [
        "export",
        str(foreign.weights),
        "--module",
        FACTORY,
        "--prepared",
        str(foreign.prepared),
        "-o",
        str(tmp_path / "out"),
    ]


def test_qnn_stops_before_the_long_work_and_says_all_that_it_needs(line, tmp_path, monkeypatch, command_line):
    monkeypatch.setattr(module, "_load", lambda *_: pytest.fail("it began in vain"))
    monkeypatch.delenv("QNN_SDK_ROOT", raising=False)
    code, _, err = command_line([*line, "--backend", "qnn", "--soc", "SM8650"])
    assert code == 2
    for words in (
        "QNN_SDK_ROOT",
        "Qualcomm AI Runtime SDK 2.37",
        "LD_LIBRARY_PATH",
        EXECUTORCH,
        "--soc (SM8450",
        "export for xnnpack",
    ):
        assert words in err
    assert not list(tmp_path.iterdir())


def test_an_sdk_folder_without_its_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("QNN_SDK_ROOT", str(tmp_path))
    with pytest.raises(MobileBilayerError, match=rf"lacks .*{tmp_path}/lib/x86_64-linux-clang/libQnnHtp.so"):
        check_qnn()


def test_python_parts_that_another_wheel_lacks_are_named(monkeypatch):
    """Also where the folder above them is not there."""
    monkeypatch.setattr(backends, "QNN_PYTHON", "executorch.no_such_folder.python.Adaptor")
    with pytest.raises(MobileBilayerError, match=r"lacks .*no_such_folder\.python\.Adaptor, which executorch's wheel"):
        check_qnn()


@pytest.mark.parametrize(("soc", "words"), [(None, "is None; qnn needs one of SM8450"), ("SM1", r"is SM1; .*\(Snapdragon 8 Gen 1\)")])
def test_the_processor_is_asked_for_by_name(soc, words):
    with pytest.raises(MobileBilayerError, match=words):
        check_soc("qnn", soc)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--soc", "SM8650"], "is for qnn, not for xnnpack"),
        (["--backend", "vulkan", "--precision", "w8a8"], "for vulkan it must be one of fp32, fp16, int8"),
        (["--backend", "coreml-delegate", "--precision", "int8"], "for coreml-delegate it must be one of fp16, w8a8"),
        (["--backend", "vulkan", "--ios", "17"], "are of Core ML"),
        (["--backend", "all", "--precision", "fp32"], "Leave --precision"),
    ],
)
def test_what_does_not_go_together_is_refused_before_the_long_work(
    options, words, line, tmp_path, monkeypatch, command_line
):
    monkeypatch.setattr(module, "_load", lambda *_: pytest.fail("it began in vain"))
    code, _, err = command_line([*line, *options])
    assert code == 2
    assert re.search(words, err)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def made_before(vulkan, delegate, foreign, monkeypatch):
    """`export_proven` with bundles that are there already; `failing` holds the backends that fail."""
    failing: dict[str, Exception] = {}
    proof = replace(delegate[1], how="run")
    known = {"vulkan": vulkan, "coreml-delegate": delegate, "xnnpack": (foreign.bundle, proof), "coreml": delegate}

    def export_proven(weights, prepared, out, *, backend, **_):
        if backend in failing:
            raise failing[backend]
        out.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(known[backend][0].where, out)
        return Bundle.open(out), replace(known[backend][1], errors=TOLERANCES[USUAL[backend]])

    monkeypatch.setattr(module, "export_proven", export_proven)
    return failing


def test_all_writes_each_backends_bundle_and_one_table(line, made_before, tmp_path, command_line):
    code, out, err = command_line([*line, "--backend", "all"])
    assert code == 0 and not err
    written = {folder.name for folder in (tmp_path / "out").iterdir()}
    assert written == {f"student-custom-256-{USUAL[name]}-{name}" for name in PRECISIONS if name != "qnn"}
    for words in ("xnnpack", "coreml", "vulkan", "lowered only", "evaluated", "run", "100.0%", "100%", "flow"):
        assert words in out
    assert "passed" not in out


def test_all_keeps_the_others_when_one_fails_and_says_which_and_why(line, made_before, tmp_path, command_line):
    made_before["vulkan"] = MobileBilayerError("render_layers: Vulkan does not take aten.mystery.")
    made_before["coreml"] = MobileBilayerError("Core ML packages need coremltools.")
    code, out, _ = command_line([*line, "--backend", "all"])
    assert code == 1
    assert "vulkan: render_layers: Vulkan does not take aten.mystery." in out and "coreml: Core ML packages need" in out
    assert out.count("failed") == 2 and len(list((tmp_path / "out").iterdir())) == 2


def test_all_stops_at_once_when_weights_or_clips_are_none(foreign, made_before, tmp_path, command_line):
    rest = ["--module", FACTORY, "-o", str(tmp_path / "out"), "--backend", "all"]
    for weights, prepared in ((tmp_path / "none", foreign.prepared), (foreign.weights, tmp_path / "none")):
        code, _, _ = command_line(["export", str(weights), "--prepared", str(prepared), *rest])
        assert code == 2
    assert not list(tmp_path.iterdir())


def test_all_does_not_write_into_a_bundle(vulkan, foreign, made_before, command_line):
    out = Path(vulkan[0].where)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    rest = ["--module", FACTORY, "-o", str(out), "--backend", "all"]
    code, _, err = command_line(["export", str(foreign.weights), "--prepared", str(foreign.prepared), *rest])
    assert code == 2 and "a folder for several is needed" in err
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before


def test_every_backend_has_tolerances_and_one_usual_precision():
    assert set(PRECISIONS) == {"xnnpack", "vulkan", "coreml-delegate", "qnn", "coreml"}
    for name, precisions in PRECISIONS.items():
        assert USUAL[name] in precisions and set(precisions) <= set(TOLERANCES)
