"""Read the args.txt of a public run: a `name: value` line for each option that it was trained with.

Every line is understood or refused. Options are of four kinds: those that give a size; those of which only one value
is implemented here; those that only matter for training; and unknown ones, which are refused, as they may change what
the networks compute.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.teacher.config import TeacherConfig

_SIZES = {
    "image_size": "image_px",
    "num_keypoints": "keypoints",
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
# What only has to agree with a size.
_DERIVED = ("inf_input_tensor_size", "pse_in_channels")

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
    "stickmen_thickness": 2,
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
    "spn_layers", "spn_networks", "stats_calc_iters", "test_freq", "torch_home", "train_size", "use_apex",
    "use_closure", "use_half", "visual_freq", "which_epoch", "world_size",
}
# fmt: on
# Optimizer, weight averaging, discriminator and the losses.
_IGNORED_STARTS = ("adam_", "wgv_", "dis_", "adv_", "fem_", "per_", "pix_", "seg_", "wpr_", "lps_", "ssm_", "csm_")
# Those of the enhancer are known without it, too.
_KNOWN = {*_SIZES, *_ENHANCER_SIZES, *_DERIVED, *_FIXED, *_ENHANCER_FIXED, *_WITHOUT_EFFECT, *_IGNORED}
_KNOWN |= {"eps", "emb_no_stickman", "output_stickmen"}


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
        unknown = [
            f"{name} (line {line})"
            for name, line in self.lines.items()
            if name not in _KNOWN and not name.startswith(_IGNORED_STARTS)
        ]
        if unknown:
            raise MobileBilayerError(
                f"{self.path} has options that this importer does not know: {', '.join(unknown)}. They may change what the "
                "networks compute. Remove those that were for training only."
            )
        missing = [name for name in (*sizes, "eps") if name not in self.values]
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
        for name, wanted in zip(_DERIVED, (numbers["start_px"], 2 * numbers["keypoints"]), strict=True):
            if name in self.values and (got := self._value(name, int)) != wanted:
                raise self._error(
                    name, f"only {wanted} fits the other options, not {got}. Such weights can't be imported"
                )
        if not enhancer:
            numbers["enhancer_steps"] = 0
            numbers["enhancer_px"] = numbers["image_px"]  # unused, but it must fit
        elif numbers["enhancer_steps"] < 1:
            raise self._error("enh_unrolling_depth", "an enhancer needs one step at least")
        eps = self._value("eps", float)
        try:
            return TeacherConfig(**numbers, norm_eps=eps, embedder_sees_stickman=not blind)
        except MobileBilayerError as error:
            names = ", ".join(f"{field} is {name}" for name, field in sizes.items() if field in str(error))
            raise MobileBilayerError(
                f"{self.path} describes no teacher: {error} (In that file {names or 'see eps'}.)"
            ) from error

    def notes(self) -> list[str]:
        """What is not followed, for people to know."""
        return [
            f"{name} is True in {self.path.name}; it is not followed, as in all public inference"
            for name in ("inf_apply_masks", "enh_apply_masks")
            if self.values.get(name) == "True"
        ]

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
