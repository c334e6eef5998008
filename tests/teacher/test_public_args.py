"""args.txt, understood line by line."""

from dataclasses import replace
from pathlib import Path

import pytest

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.teacher import TeacherConfig
from mobile_bilayer.teacher.public_args import PublicArgs

# What the public training script asks for, where it gives sizes; the rest of its options below.
PAPER = """\
emb_max_channels: 512
emb_num_channels: 64
emb_output_tensor_size: 8
enh_bottleneck_tensor_size: 128
enh_max_channels: 128
enh_num_blocks: 8
enh_num_channels: 64
enh_unrolling_depth: 4
eps: 1e-07
image_size: 256
inf_input_tensor_size: 4
inf_max_channels: 256
inf_num_channels: 32
num_keypoints: 68
pse_in_channels: 136
pse_num_blocks: 4
pse_num_channels: 256
tex_input_tensor_size: 4
tex_max_channels: 512
tex_num_channels: 64
"""


@pytest.fixture
def read(tmp_path):
    """read(text, enhancer=True): the config of an args.txt."""

    def call(text: str | bytes, enhancer: bool = True) -> TeacherConfig:
        path = tmp_path / "args.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return PublicArgs.read(path).config(enhancer)

    return call


def test_the_papers_options_are_the_defaults(read):
    assert read(PAPER) == TeacherConfig()


def test_every_size_has_its_place(read, args, other):
    assert read(args) == other


def test_without_an_enhancer_its_options_are_of_no_concern(read, args, other):
    text = "".join(line for line in args.splitlines(True) if not line.startswith("enh_"))
    want = replace(
        other, enhancer_steps=0, enhancer_px=32, enhancer_width=64, enhancer_max_width=128, enhancer_blocks=8
    )
    assert read(text, enhancer=False) == want
    assert read(args + "enh_norm_layer_type: bn\n", enhancer=False) == want
    with pytest.raises(MobileBilayerError, match=r"args\.txt.*enh_unrolling_depth, enh_num_channels"):
        read(text)


def test_options_of_training_change_nothing(read, args, other):
    training = (
        "adam_beta1: 0.5\nadv_pred_type: ragan\nbatch_size: 40\nbn_momentum: 1.0\ncalc_stats: True\ndata_root: /a: b\n"
        "debug: False\ndis_num_blocks: 6\nlrs: identity_embedder: 2e-4, texture_generator: 2e-4\nnetworks_calc_stats: \n"
        "per_layer_weights: 0.03125, 0.0625, 0.125, 0.25, 1.0\nspn_layers: conv2d, linear\nwpr_loss_weight: 0.0\n"
        "inf_pred_source_data: False\npse_emb_source_pose: False\ninf_apply_masks: True\nenh_apply_masks: True\n"
        "spn_exceptions: inference_generator.gen_inf.heads\nnme_loss_weight: 1.0\nnum_source_frames: 8\nwgv_mode: none\nvisual_freq: -1\ninit_which_epoch: none\n"
    )
    assert read(args + training) == other


def test_line_ends_blank_lines_and_a_byte_order_mark_do_not_matter(read, args, other):
    assert read(b"\xef\xbb\xbf" + args.replace("\n", "\r\n\r\n").encode()) == other


def test_an_embedder_without_stickman_is_read(read, args, other):
    text = args.replace("emb_no_stickman: False", "emb_no_stickman: True") + "output_stickmen: False\n"
    assert read(text) == replace(other, embedder_sees_stickman=False)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("emb_norm_layer_type", "bn", "only none"),
        ("inf_norm_layer_type", "ada_in", "only ada_bn"),
        ("tex_norm_layer_type", "ada_bn", "only ada_spade_bn"),
        ("enh_norm_layer_type", "bn", "only none"),
        ("pse_norm_layer_type", "bn", "only none"),
        ("tex_upsampling_type", "bilinear", "only nearest"),
        ("inf_upsampling_type", "bilinear", "only nearest"),
        ("enh_upsampling_type", "bilinear", "only nearest"),
        ("emb_downsampling_type", "maxpool", "only avgpool"),
        ("enh_downsampling_type", "maxpool", "only avgpool"),
        ("emb_activation_type", "relu", "only leakyrelu"),
        ("tex_activation_type", "relu", "only leakyrelu"),
        ("inf_activation_type", "relu", "only leakyrelu"),
        ("pse_activation_type", "relu", "only leakyrelu"),
        ("enh_activation_type", "relu", "only leakyrelu"),
        ("tex_skip_layer_type", "conv", "only ada_conv"),
        ("inf_skip_layer_type", "conv", "only ada_conv"),
        ("tex_pixelwise_bias_type", "ada", "only none"),
        ("enh_guiding_rgb_loss_type", "l1", "only sse"),
        ("emb_apply_masks", "False", "only True"),
        ("inf_pred_segmentation", "False", "only True"),
        ("pse_use_harmonic_enc", "True", "only False"),
        ("tex_pred_segmentation", "True", "only False"),
        ("output_stickmen", "False", "only True"),
        ("inf_input_tensor_size", "8", "only 4 is implemented, which is tex_input_tensor_size"),
        ("pse_in_channels", "11", "must be even"),
    ],
)
def test_what_is_not_implemented_is_refused_with_its_name_value_and_line(read, args, option, value, words):
    lines = [line for line in args.splitlines() if not line.startswith(f"{option}:")]
    text = "\n".join([*lines, f"{option}: {value}"])
    with pytest.raises(MobileBilayerError, match=rf"args\.txt, line {len(lines) + 1}: {option} is '{value}'.*{words}"):
        read(text)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("image_size 64", "line 26: 'image_size 64' is no `name: value` line"),
        ("image_size:64", "line 26"),
        ("two words: 3", "line 26"),
        (": 3", "line 26"),
        ("  batch_size: 3", "line 26"),
        ("eps: 1e-05", "line 26: eps stands in line 13 already"),
        ("eps: 1e-07", "line 26: eps stands in line 13 already"),
        ("inf_calc_grad: maybe", "line 26: inf_calc_grad is 'maybe'; it must be True or False"),
        ("stickmen_thickness: thick", "line 26: stickmen_thickness is 'thick'; it must be a whole number"),
        ("tex_wings: 2", r"does not know: tex_wings \(line 26\)\. "),
        ("emb_wings: 2\nhorns: 1\nenh_horns: 1", r"does not know: emb_wings \(line 26\), enh_horns \(line 28\)\. "),
        ("inf_wings: 2\npse_horns: 1", r"inf_wings \(line 26\), pse_horns \(line 27\)"),
    ],
)
def test_a_bad_line_is_named(read, args, line, words):
    with pytest.raises(MobileBilayerError, match=words):
        read(args + line + "\n")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("image_size: 32", "image_size: big", "line 14: image_size is 'big'; it must be a whole number"),
        ("image_size: 32", "image_size: 32.0", "line 14: image_size is '32.0'"),
        ("image_size: 32", "image_size: ", "line 14: image_size is ''"),
        ("image_size: 32", "image_size:", "line 14: image_size is ''"),
        ("eps: 1e-07", "eps: small", "line 13: eps is 'small'; it must be a number"),
        ("eps: 1e-07", "eps: nan", "norm_eps is nan"),
        ("num_keypoints: 5", "num_keypoints: many", "num_keypoints is 'many'; it must be a whole number"),
        ("pse_in_channels: 10", "pse_in_channels: 0", "keypoints is 0.*keypoints is pse_in_channels"),
        ("num_keypoints: 5\npse_in_channels: 10\n", "", "does not say pse_in_channels"),
        ("emb_no_stickman: False", "emb_no_stickman: 0", "line 4: emb_no_stickman is '0'; it must be True or False"),
        ("image_size: 32", "image_size: 36", "image_px is 36 and start_px is 4.*image_px is image_size"),
        (
            "tex_num_channels: 6",
            "tex_num_channels: 5",
            "embedder and texture do not fit.*texture_width is tex_num_channels",
        ),
        ("image_size: 32\n", "", "does not say image_size"),
        ("eps: 1e-07\n", "", "does not say eps"),
    ],
)
def test_a_bad_value_is_named(read, args, old, new, words):
    with pytest.raises(MobileBilayerError, match=words):
        read(args.replace(old, new))


def test_what_is_no_text_is_refused(read):
    with pytest.raises(MobileBilayerError, match=r"args\.txt is not text"):
        read(b"\xff\xfe\x00")


def test_masks_that_public_inference_never_applies_are_noted(tmp_path: Path, args):
    path = tmp_path / "args.txt"
    path.write_text(args + "inf_apply_masks: True\nenh_apply_masks: False\n")
    (note,) = PublicArgs.read(path).notes()
    assert "inf_apply_masks" in note


def test_the_keypoints_embedders_inputs_say_how_many_keypoints_there_are(read, args, other):
    """68 in num_keypoints, which no network reads, is nothing to it."""
    assert read(args.replace("num_keypoints: 5", "num_keypoints: 68")) == other
    assert read(args.replace("num_keypoints: 5\n", "")) == other
    assert read(args.replace("pse_in_channels: 10\n", "")) == other


@pytest.mark.parametrize(
    ("old", "new", "change"),
    [
        ("emb_output_tensor_size: 4", "emb_output_tensor_size: 32", {"embedding_px": 32}),
        ("emb_output_tensor_size: 4", "emb_output_tensor_size: 6", {"embedding_px": 6}),
        ("enh_bottleneck_tensor_size: 8", "enh_bottleneck_tensor_size: 12", {"enhancer_px": 12}),
        ("enh_num_blocks: 3", "enh_num_blocks: 0", {"enhancer_blocks": 0}),
        ("enh_unrolling_depth: 2", "enh_unrolling_depth: 0", {"enhancer_steps": 0}),
        ("eps: 1e-07", "eps: 0.0", {"norm_eps": 0.0}),
    ],
)
def test_unusual_values_that_the_networks_can_have_are_taken(read, args, other, old, new, change):
    assert read(args.replace(old, new)) == replace(other, **change)


def test_unknown_options_of_no_network_are_noted_with_their_lines(tmp_path: Path, args, other):
    path = tmp_path / "args.txt"
    path.write_text(args + "wings: 2\nnme_wings: 1\nspn_exceptions: \nhorns_enh_: a\n")
    read = PublicArgs.read(path)
    assert read.config(enhancer=True) == other
    (note,) = read.notes()
    assert note.endswith("not followed: wings (line 26), horns_enh_ (line 29)")


def test_an_unknown_option_of_an_enhancer_that_is_not_there_is_noted(tmp_path: Path, args):
    path = tmp_path / "args.txt"
    path.write_text(args + "enh_wings: 2\n")
    read = PublicArgs.read(path)
    read.config(enhancer=False)
    (note,) = read.notes()
    assert "enh_wings (line 26)" in note


@pytest.mark.parametrize(("thickness", "blind", "noted"), [(3, False, True), (2, False, False), (3, True, False)])
def test_stickmen_of_another_thickness_are_noted_if_they_are_seen(tmp_path: Path, args, other, thickness, blind, noted):
    path = tmp_path / "args.txt"
    text = args.replace("emb_no_stickman: False", f"emb_no_stickman: {blind}")
    path.write_text(text + f"stickmen_thickness: {thickness}\n")
    read = PublicArgs.read(path)
    assert read.config(enhancer=True) == replace(other, embedder_sees_stickman=not blind)
    assert [note.startswith("stickmen_thickness is 3") for note in read.notes()] == [True] * noted
