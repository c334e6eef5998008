"""Read the args.txt of a public run: a `name: value` line for each option that it was trained with.

Options are of four kinds: those that give a size; those of which only one value is implemented here; those that only
matter for training; and unknown ones. Refused are lines of another form, a name that stands twice, a value of a wrong
type or one that is not implemented, and an unknown option of a network (`emb_`, `tex_`, `inf_`, `pse_`, `enh_`), which
may change what it computes. Other unknown options, of which training runs have many, are noted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.teacher.config import TeacherConfig

_SIZES = {
    "image_size": "image_px",
    "emb_output_tensor_size": "embedding_px",
    "emb_num_channels": "embedder_width",
    "emb_max_channels": "embedder_max_width",
    "tex_input_tensor_size": "start_px",
    "tex_num_channels": "texture_width",
    "tex_max_channels": "texture_max_width",
    "inf_num_channels": "generator_width",
    "inf_max_channels": "generator_max_width",
    "pse_num_channels": "keypoints_width",
    "pse_num_blocks": "keypoints_layers",
}
_ENHANCER_SIZES = {
    "enh_unrolling_depth": "enhancer_steps",
    "enh_num_channels": "enhancer_width",
    "enh_max_channels": "enhancer_max_width",
    "enh_bottleneck_tensor_size": "enhancer_px",
    "enh_num_blocks": "enhancer_blocks",
}
# What no network reads but these: how many keypoints (twice), or else once; and what has to agree with a size.
_OTHER_SIZES = ("pse_in_channels", "num_keypoints", "inf_input_tensor_size")

_FIXED: dict[str, object] = {
    "emb_activation_type": "leakyrelu",
    "emb_apply_masks": True,
    "emb_downsampling_type": "avgpool",
    "emb_norm_layer_type": "none",
    "inf_activation_type": "leakyrelu",
    "inf_norm_layer_type": "ada_bn",
    "inf_pred_segmentation": True,
    "inf_skip_layer_type": "ada_conv",
    "inf_upsampling_type": "nearest",
    "output_segmentation": True,
    "pse_activation_type": "leakyrelu",
    "pse_input_tensor": "poses",
    "pse_norm_layer_type": "none",
    "pse_use_harmonic_enc": False,
    "tex_activation_type": "leakyrelu",
    "tex_norm_layer_type": "ada_spade_bn",
    "tex_pixelwise_bias_type": "none",
    "tex_pred_segmentation": False,
    "tex_skip_layer_type": "ada_conv",
    "tex_upsampling_type": "nearest",
}
_ENHANCER_FIXED: dict[str, object] = {
    "enh_activation_type": "leakyrelu",
    "enh_downsampling_type": "avgpool",
    "enh_guiding_rgb_loss_type": "sse",
    "enh_norm_layer_type": "none",
    "enh_upsampling_type": "nearest",
}

# Known, and without effect here, but a wrong type is no public file. Training scripts leave the first two off even for
# the enhancer, which needs what they compute. The masks are off in all public inference, whatever the file says; the
# enhancer's guide uses the mask in any case.
_WITHOUT_EFFECT: dict[str, type] = {
    "inf_pred_source_data": bool,
    "pse_emb_source_pose": bool,
    "inf_apply_masks": bool,
    "enh_apply_masks": bool,
    "enh_detach_inputs": bool,
    "inf_calc_grad": bool,
    "pse_num_harmonics": int,
    "num_source_frames": int,
    "num_target_frames": int,
    "num_keypoints": int,
    "stickmen_thickness": int,
}
# For training only.
# fmt: off
_IGNORED = {
    "amp_loss_scale", "amp_opt_level", "batch_size", "bn_momentum", "calc_stats", "checkpoint_freq", "data_root",
    "dataloader_name", "dataset_name", "debug", "experiment_dir", "experiment_name", "init_experiment_dir",
    "init_networks", "init_which_epoch", "local_rank", "losses_test", "losses_train", "lrs", "metrics",
    "networks_calc_stats", "networks_test", "networks_to_train", "networks_train", "no_disk_write_ops",
    "num_epochs", "num_gpus", "num_visuals", "num_workers_per_process", "optims", "project_dir",
    "pretrained_weights_dir", "random_seed", "rank", "redirect_print_to_file", "runner_name", "skip_test",
    "spn_exceptions", "spn_layers", "spn_networks", "stats_calc_iters", "test_freq", "torch_home", "train_size", "use_apex",
    "use_closure", "use_half", "visual_freq", "which_epoch", "world_size",
}
# fmt: on
# Optimizer, weight averaging, discriminator and the losses.
# fmt: off
_IGNORED_STARTS = (
    "adam_", "wgv_", "dis_", "adv_", "fem_", "per_", "pix_", "seg_", "wpr_", "lps_", "ssm_", "csm_", "nme_",
)
# fmt: on
# Those of the enhancer are known without it, too.
_KNOWN = {*_SIZES, *_ENHANCER_SIZES, *_OTHER_SIZES, *_FIXED, *_ENHANCER_FIXED, *_WITHOUT_EFFECT, *_IGNORED}
_KNOWN |= {"eps", "emb_no_stickman", "output_stickmen"}
_NETWORKS = ("emb_", "tex_", "inf_", "pse_")
_STICKMAN_PX = 2  # how thick they are drawn here


@dataclass(frozen=True)
class PublicArgs:
    """An args.txt as read: each option's text and line."""

    path: Path
    values: dict[str, str]
    lines: dict[str, int]

    @classmethod
    def read(cls, path: Path) -> PublicArgs:
        try:
            text = path.read_text("utf-8-sig")
        except UnicodeDecodeError as error:
            raise MobileBilayerError(f"{path} is not text ({error}); it must hold `name: value` lines.") from error
        values: dict[str, str] = {}
        lines: dict[str, int] = {}
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            match = re.fullmatch(r"(\w+):(?: (.*))?", line.rstrip(), re.ASCII)
            if match is None:
                raise MobileBilayerError(
                    f"{path}, line {number}: {line.strip()[:80]!r} is no `name: value` line. Correct it."
                )
            name = match[1]
            if name in values:
                raise MobileBilayerError(
                    f"{path}, line {number}: {name} stands in line {lines[name]} already. Remove one."
                )
            values[name], lines[name] = (match[2] or "").strip(), number
        return cls(path, values, lines)

    def config(self, enhancer: bool) -> TeacherConfig:
        """The sizes; an option that asks for what is not implemented is refused."""
        sizes = _SIZES | (_ENHANCER_SIZES if enhancer else {})
        networks = (*_NETWORKS, "enh_") if enhancer else _NETWORKS
        if unknown := [name for name in self._unknown() if name.startswith(networks)]:
            raise MobileBilayerError(
                f"{self.path} has options of networks that this importer does not know: {self._with_lines(unknown)}. "
                "They may change what the networks compute. Remove those that were for training only."
            )
        keypoints = "pse_in_channels"  # networks read this one alone
        if keypoints not in self.values and "num_keypoints" in self.values:
            keypoints = "num_keypoints"
        missing = [name for name in (*sizes, keypoints, "eps") if name not in self.values]
        if missing:
            raise MobileBilayerError(
                f"{self.path} does not say {', '.join(missing)}. Add a `name: value` line for each."
            )
        fixed = _FIXED | (_ENHANCER_FIXED if enhancer else {})
        blind = "emb_no_stickman" in self.values and bool(self._value("emb_no_stickman", bool))
        if not blind:
            fixed["output_stickmen"] = True
        for name, wanted in fixed.items():
            if name in self.values and (got := self._value(name, type(wanted))) != wanted:
                raise self._error(name, f"only {wanted} is implemented, not {got}. Such weights can't be imported")
        for name, kind in _WITHOUT_EFFECT.items():
            if name in self.values:
                self._value(name, kind)
        numbers = {field: self._value(name, int) for name, field in sizes.items()}
        numbers["keypoints"] = self._value(keypoints, int)
        if keypoints == "pse_in_channels":
            numbers["keypoints"], rest = divmod(numbers["keypoints"], 2)
            if rest:
                raise self._error(keypoints, "it must be even, as a keypoint is two numbers. Correct it")
        start, wanted = "inf_input_tensor_size", numbers["start_px"]
        if start in self.values and self._value(start, int) != wanted:
            raise self._error(
                start,
                f"only {wanted} is implemented, which is tex_input_tensor_size: both generators must start at one "
                "size. Such weights can't be imported",
            )
        if not enhancer:
            numbers["enhancer_steps"] = 0
            numbers["enhancer_px"] = numbers["image_px"]  # unused, but it must fit
        sizes |= {keypoints: "keypoints"}
        eps = self._value("eps", float)
        try:
            return TeacherConfig(**numbers, norm_eps=eps, embedder_sees_stickman=not blind)
        except MobileBilayerError as error:
            names = ", ".join(f"{field} is {name}" for name, field in sizes.items() if field in str(error))
            raise MobileBilayerError(
                f"{self.path} describes no teacher: {error} (In that file {names or 'see eps'}.)"
            ) from error

    def notes(self) -> list[str]:
        """What is not followed, for people to know. After `config`, which checks the values."""
        notes = [
            f"{name} is True in {self.path.name}; it is not followed, as in all public inference"
            for name in ("inf_apply_masks", "enh_apply_masks")
            if self.values.get(name) == "True"
        ]
        blind = self.values.get("emb_no_stickman") == "True"
        thickness = self.values.get("stickmen_thickness")
        if not blind and thickness is not None and int(thickness) != _STICKMAN_PX:
            notes.append(
                f"stickmen_thickness is {thickness} in {self.path.name}; stickmen are drawn {_STICKMAN_PX} px thick here, "
                "so results differ unless source_stickmen are drawn as in that run"
            )
        if unknown := self._unknown():
            notes.append(
                f"{self.path.name} has options that are not known and not of a network, so they are not followed: "
                f"{self._with_lines(unknown)}"
            )
        return notes

    def _unknown(self) -> list[str]:
        return [name for name in self.values if name not in _KNOWN and not name.startswith(_IGNORED_STARTS)]

    def _with_lines(self, names: list[str]) -> str:
        return ", ".join(f"{name} (line {self.lines[name]})" for name in names)

    def _value(self, name: str, kind: type) -> object:
        text = self.values[name]
        if kind is str:
            return text
        if kind is bool and text in ("True", "False"):
            return text == "True"
        if kind is int and re.fullmatch(r"[+-]?\d{1,9}", text, re.ASCII):
            return int(text)
        if kind is float:
            try:
                return float(text)
            except ValueError:
                pass
        words = {bool: "True or False", int: "a whole number", float: "a number"}[kind]
        raise self._error(name, f"it must be {words}. Correct it")

    def _error(self, name: str, what: str) -> MobileBilayerError:
        return MobileBilayerError(f"{self.path}, line {self.lines[name]}: {name} is {self.values[name]!r}; {what}.")
