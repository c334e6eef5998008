"""Other people's networks: exported when they meet the contract, refused with what is expected when not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_network import Network
from mobile_bilayer.export import bundle as module
from mobile_bilayer.export.bundle import (
    Proof,
    compare,
    export_bundle,
    export_proven,
    refuse_over_tolerance,
    sample_inputs,
)
from mobile_bilayer.export.contract import check_network, load_module
from mobile_bilayer.export.executorch import EncodeAvatar, GraphProgram, RenderLayers, export_methods, lower

from mobile_bilayer import Bundle, MobileBilayerError
from mobile_bilayer.runtime.manifest import MethodSpec
from mobile_bilayer.runtime.program import Program
from mobile_bilayer.samples import SAMPLES, sample_photo, sample_track
from mobile_bilayer.student.network import SIZES, Student

FACTORY = "foreign_network:load"


def check(network: torch.nn.Module) -> None:
    """`check_network` as export calls it."""
    samples = [sample_inputs(network, name) for name in SAMPLES]
    photos = [(each["image"][None].float() / 255, each["source_points"][None]) for each in samples]
    check_network(network.eval(), photos, (samples[0]["driving_points"][None], photos[0][1]))


def test_a_foreign_networks_bundle_opens_verifies_and_animates(foreign):
    bundle = Bundle.open(foreign.bundle.where)
    assert set(bundle.verify()) == set(bundle.golden()[1])
    about = bundle.manifest
    assert (about.size, about.precision, about.backend) == ("custom", "fp32", "xnnpack")
    assert [t.shape for t in about.methods["encode_avatar"].outputs[:2]] == [(1, 144, 5), (1, 6, 16, 16)]
    assert "`foreign_network:load`" in bundle.card
    avatar, track = bundle.avatar(*sample_photo(SAMPLES[0])), sample_track()
    avatar.neutral = track[0].landmarks
    assert avatar.render(track[40]).shape == (256, 256, 3)


def test_an_xnnpack_file_exported_after_one_photo_drives_another_as_eager_does(foreign):
    """Nothing of the example that it was lowered with is left in it."""
    images = [example[0] for example in foreign.inputs["encode_avatar"]]
    assert max(float((a - b).abs().mean()) for a in images for b in images) > 0.05  # there are two people
    run = foreign.bundle.program.run
    for encode, render in zip(foreign.inputs["encode_avatar"], foreign.inputs["render_layers"], strict=True):
        with torch.no_grad():
            wanted = EncodeAvatar(foreign.network.encoder)(*encode), RenderLayers(foreign.network.frame)(*render)
        got = [run("encode_avatar", *(x.numpy() for x in encode)), run("render_layers", *(x.numpy() for x in render))]
        for ours, theirs in zip([*got[0], *got[1]], [*wanted[0], *wanted[1]], strict=True):
            np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-4)


def test_a_foreign_network_is_exported_in_int8_by_its_trunks(foreign, tmp_path):
    options = {"module": FACTORY, "twin": False}
    bundle, proof = export_proven(foreign.weights, foreign.prepared, tmp_path / "out", "int8", **options)
    assert proof.how == "run" and proof.share == 1 and len(bundle.verify())
    assert len(bundle.contents[bundle.manifest.program]) < len(foreign.lowered.data)
    assert bundle.manifest.student == foreign.bundle.manifest.student  # an avatar fits both


def test_a_foreign_network_becomes_core_ml_packages(foreign, tmp_path):
    bundle, proof = export_proven(foreign.weights, foreign.prepared, tmp_path / "out", backend="coreml", module=FACTORY)
    assert (
        bundle.manifest.precision == "fp16" and isinstance(proof, Proof) and max(proof.of_allowed("fp16").values()) < 1
    )


def test_a_network_without_trunks_is_exported_in_float_alone(foreign):
    bare = Network().eval()
    bare.frame.body, bare.frame.forward = bare.frame.trunk, None
    del bare.frame.trunk
    with pytest.raises(MobileBilayerError, match=r"Frame has no submodule `trunk`.*or export fp32"):
        lower(bare, foreign.inputs, "fp16", backend="vulkan")


# The contract


def with_encoder(change) -> Network:
    """The network, its encoder's outputs changed."""
    return with_part("encoder", change)


def with_frame(change) -> Network:
    return with_part("frame", change)


class Changed(torch.nn.Module):
    def __init__(self, part: torch.nn.Module, change) -> None:
        super().__init__()
        self.part, self.change = part, change

    def forward(self, *inputs: torch.Tensor) -> object:
        return self.change(self.part(*inputs), *inputs)


def with_part(name: str, change) -> Network:
    torch.manual_seed(3)
    network = Network()
    setattr(network, name, Changed(getattr(network, name), change))
    return network


def test_a_network_that_meets_the_contract_passes():
    torch.manual_seed(3)
    check(Network())


def test_a_network_of_ours_passes():
    check(Student(SIZES["XS"]))


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (torch.nn.Linear(2, 2), "Linear has no submodule `encoder`.*see export/README.md"),
        (
            with_encoder(lambda out, *_: out[:2]),
            r"encoder gives 2 values; it must give a tuple of landmark_features \(1, 144, F\)",
        ),
        (with_encoder(lambda out, *_: out[0]), "encoder gives a Tensor; it must give a tuple"),
        (
            with_encoder(lambda out, *_: (out[0][:, :68], *out[1:])),
            r"landmark_features as \(1, 68, 5\).*must be \(1, 144, F\)",
        ),
        (
            with_frame(lambda out, *_: (out[0][:, :3], out[1])),
            r"layers_a as \(1, 3, 64, 64\).*must be \(1, 4, 64, 64\) float32",
        ),
        (with_frame(lambda out, *_: (out[0].double(), out[1])), "layers_a as .*float64; it must be .*float32"),
        (with_frame(lambda out, *_: (out[0] / 0, out[1])), "layers_a with values that are infinite or not numbers"),
        (with_frame(lambda out, *_: (3 * out[0], out[1])), r"layers_a's gate and mask goes .*must stay in \[0, 1\]"),
        (
            with_encoder(lambda out, *_: (out[0] + torch.rand(1), *out[1:])),
            "another landmark_features for the same inputs",
        ),
        (with_encoder(lambda out, image, _: (image.zero_(), out)[1]), "encoder changes its inputs in place"),
        (with_frame(lambda out, *_: out[2]), "frame can't be called with .*IndexError"),
    ],
)
def test_a_network_that_breaks_the_contract_is_refused_with_what_is_expected(network, words):
    with pytest.raises(MobileBilayerError, match=words):
        check(network)


class Frozen(torch.nn.Module):
    """A planted fault: outputs of the first call, kept."""

    def __init__(self, part: torch.nn.Module) -> None:
        super().__init__()
        self.part, self.kept = part, None

    def forward(self, *inputs: torch.Tensor) -> object:
        if self.kept is None:
            self.kept = self.part(*inputs)
        return self.kept


def test_a_fault_a_face_frozen_into_the_encoder_is_refused():
    network = Network()
    network.encoder = Frozen(network.encoder)
    with pytest.raises(MobileBilayerError, match="two different photos the same features: a face is frozen in"):
        check(network)


def test_a_fault_a_face_frozen_into_the_frame_is_refused():
    constants = torch.rand(1, 144, 5), torch.rand(1, 6, 16, 16)
    network = Network()
    inner = network.frame
    network.frame = Changed(torch.nn.Identity(), lambda _, features, maps, source, landmarks: None)
    network.frame.forward = lambda features, maps, source, landmarks: inner(*constants, source, landmarks)
    with pytest.raises(MobileBilayerError, match="two different photos' features the same layers: a face is frozen in"):
        check(network)


def test_a_fault_landmarks_that_are_not_used_are_refused():
    network = Network()
    inner = network.frame
    network.frame = Changed(torch.nn.Identity(), None)
    network.frame.forward = lambda features, maps, source, landmarks: inner(features, maps, source, source)
    with pytest.raises(
        MobileBilayerError, match="two different driving frames the same layers: its landmarks are not used"
    ):
        check(network)


def test_a_fault_a_face_that_export_froze_is_refused(foreign):
    """Eager is right, the graph is not: of several people its outputs differ."""

    class FrozenByTracing(torch.nn.Module):
        def __init__(self, encoder: torch.nn.Module) -> None:
            super().__init__()
            with torch.no_grad():
                self.kept = encoder(*foreign.inputs["encode_avatar"][0])

        def forward(self, image: torch.Tensor, landmarks: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(x.clone() for x in self.kept)

    frozen = Network()
    frozen.load_state_dict(foreign.network.state_dict())
    frozen.encoder = FrozenByTracing(foreign.network.encoder)
    graphs = export_methods(frozen, foreign.inputs, False)
    with pytest.raises(MobileBilayerError, match="wrong in (landmark|map)_features"):
        refuse_over_tolerance(compare(foreign.network, GraphProgram(graphs), foreign.inputs), "fp32")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("foreign_network", "it must be package:factory"),
        (":load", "it must be package:factory"),
        ("no_such_package:load", "ModuleNotFoundError"),
        ("foreign_network:nothing", "AttributeError"),
        ("foreign_network:save", "gives a PosixPath; a torch.nn.Module is needed"),
        ("json:loads", "makes no network of .*TypeError"),
    ],
)
def test_a_factory_that_is_none_is_refused_before_the_long_work(name, words, foreign, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "real_inputs", lambda *_: pytest.fail("it began in vain"))
    weights = tmp_path / "copy.safetensors"
    weights.write_bytes(foreign.weights.read_bytes())
    with pytest.raises(MobileBilayerError, match=words):
        export_bundle(weights, foreign.prepared, tmp_path / "out", module=name)
    assert [file.name for file in tmp_path.iterdir()] == ["copy.safetensors"]


def test_a_factory_is_found_where_the_command_is_called(tmp_path, monkeypatch):
    (tmp_path / "network_of_mine.py").write_text("import torch\ndef make(path): return torch.nn.Dropout()\n")
    (tmp_path / "weights").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(__import__("sys").path))
    assert not load_module("network_of_mine:make", tmp_path / "weights").training
    with pytest.raises(MobileBilayerError, match="does not exist"):
        load_module("network_of_mine:make", Path("nowhere"))


# Faults planted into what XNNPACK runs


def faulty(foreign, name: str):
    """The program, one of its faulty methods in place of render_layers."""
    specs = foreign.bundle.manifest.methods
    render = specs["render_layers"]
    program = Program(foreign.lowered.data, {"encode_avatar": specs["encode_avatar"], name: render}, "xnnpack", "here")

    class Instead:
        def run(self, method: str, *arrays: np.ndarray) -> list[np.ndarray]:
            return program.run(name if method == "render_layers" else method, *arrays)

    assert isinstance(render, MethodSpec)
    return Instead()


@pytest.mark.parametrize(("name", "words"), [("corner", "wrong in (flow|gate)"), ("swap", "wrong in gate")])
def test_a_fault_in_an_xnnpack_program_is_refused(name, words, foreign):
    """By the looser tolerances too."""
    precision = "fp16"
    refuse_over_tolerance(compare(foreign.network, faulty(foreign, "render_layers"), foreign.inputs), precision)
    with pytest.raises(MobileBilayerError, match=words):
        refuse_over_tolerance(compare(foreign.network, faulty(foreign, name), foreign.inputs), precision)


def test_a_fault_an_int8_flow_of_an_xnnpack_program_is_refused(foreign):
    program = faulty(foreign, "render_layers")

    class Rounded:
        def run(self, method: str, *arrays: np.ndarray) -> list[np.ndarray]:
            outputs = program.run(method, *arrays)
            if method == "render_layers":
                outputs[0][:, :2] = np.rint(outputs[0][:, :2] * 127) / 127
            return outputs

    for precision in ("fp32", "fp16"):
        with pytest.raises(MobileBilayerError, match="wrong in flow"):
            refuse_over_tolerance(compare(foreign.network, Rounded(), foreign.inputs), precision)
