"""What of a student becomes int8, and how: a recipe, and the PT2E quantizer that follows it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer_utils import QuantizationConfig
from torchao.quantization.pt2e import HistogramObserver, MinMaxObserver, MovingAverageMinMaxObserver
from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, SharedQuantizationSpec

from mobile_bilayer.errors import MobileBilayerError

OBSERVERS = {
    "histogram": HistogramObserver,  # the range that loses least, which may cut outliers off
    "minmax": MinMaxObserver,  # all that was seen
    "moving": MovingAverageMinMaxObserver,  # its mean over examples
}
# Int8 has 256 values. What each of these would lose by it, which `quantize --sensitivity` measures.
STAYS_FLOAT = {
    "landmarks": "of [-1, 1] across 256 px they would move in whole pixels",
    "prior": "its flow spans half the frame: its steps would be a pixel, and the face would tremble",
    "top": "the last of the U-Net: half of the flicker that int8 adds came from its rounding, for a tenth of the MACs",
    "heads": "flow, blend and mask leave the network here; the learned flow is added to the prior's",
    "flow": "the same steps again, after the addition",
    "map_head": "computed once a photo, and kept for all its frames",
    "feature_head": "computed once a photo, and kept for all its frames",
    "alpha_head": "computed once a photo: the cut-out behind all its frames",
}


@dataclass(frozen=True)
class Recipe:
    """What becomes int8. The default is what ships.

    int8         modules of encoder and frame network, by their path, as "trunk" or "trunk.mid8"; all else stays float,
                 for the reasons that `STAYS_FLOAT` gives
    per_channel  each output channel of a weight has a scale of its own
    observer     how ranges of activations are found after training: one of `OBSERVERS`. Quantization-aware training
                 follows them itself, as "moving" does
    symmetric    ranges of activations lie around 0, so that no zero point is needed; half of them is lost behind a ReLU
    """

    int8: tuple[str, ...] = ("trunk",)
    per_channel: bool = True
    observer: str = "minmax"
    symmetric: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "int8", tuple(self.int8))
        if not self.int8:
            raise MobileBilayerError('int8 names no module, so nothing would be quantized. Try ("trunk",).')
        if self.observer not in OBSERVERS:
            raise MobileBilayerError(f"observer is {self.observer!r}; it must be one of {', '.join(OBSERVERS)}.")

    def holds(self, node: torch.fx.Node) -> bool:
        """Whether a node of an exported method comes from a module that becomes int8."""
        paths = [str(path) for path, _ in node.meta.get("nn_module_stack", {}).values()]
        return any(path.endswith(f"network.{part}") for path in paths for part in self.int8)


class RecipeQuantizer(XNNPACKQuantizer):
    """Int8 inside a recipe's modules, upsampling included."""

    def __init__(self, recipe: Recipe | None = None, aware: bool = False, float_sums: bool = True) -> None:
        """aware: for quantization-aware training. float_sums: as a frame needs them, or smaller by some hundred bytes."""
        super().__init__()
        self.recipe, self.float_sums = recipe or Recipe(), float_sums
        self.set_global(_config(self.recipe, aware))
        self.set_filter_function(
            lambda node: node.op == "get_attr" or self.recipe.holds(node)
        )  # weights name no module

    def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
        # Not super().annotate: it would carry int8 on through slices, into the flow.
        model = self._annotate_for_quantization_config(model)
        for node in model.graph.nodes:
            if node.op == "call_function" and not self.recipe.holds(node):
                node.meta.pop("quantization_annotation", None)  # concatenations pass the filter by
            if node.target == torch.ops.aten.add.Tensor and self.float_sums:
                # Convolutions round what they read of them. A term that comes from outside, or goes past convolutions, is not
                # rounded at all: three tenths of the flicker that int8 added.
                node.meta.pop("quantization_annotation", None)
                for reader in node.users:
                    if reader.target in (torch.ops.aten.relu.default, torch.ops.aten.relu_.default):
                        reader.meta.pop("quantization_annotation", None)
            if node.target == torch.ops.aten.upsample_bilinear2d.vec and self.recipe.holds(node):
                # The quantizer leaves it out, and the trunk would fall to pieces: its values keep their scale.
                source = node.args[0]
                made = source.meta.get("quantization_annotation")
                if made is not None and made.output_qspec is not None:
                    shared = SharedQuantizationSpec(source)
                    node.meta["quantization_annotation"] = QuantizationAnnotation(
                        input_qspec_map={source: shared},
                        output_qspec=SharedQuantizationSpec((source, node)),
                        _annotated=True,
                    )
        return model


def _config(recipe: Recipe, aware: bool) -> QuantizationConfig:
    """XNNPACK's own, but for what the recipe says of activations."""
    config = get_symmetric_quantization_config(is_per_channel=recipe.per_channel, is_qat=aware)
    changes: dict[str, object] = {}
    if recipe.symmetric:
        changes["qscheme"] = torch.per_tensor_symmetric
    if not aware:
        changes["observer_or_fake_quant_ctr"] = OBSERVERS[recipe.observer].with_args(eps=2**-12)
    activation: QuantizationSpec = replace(config.input_activation, **changes)
    return replace(config, input_activation=activation, output_activation=activation)
