"""From keypoints to the inference generator's input: every frame."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from mobile_bilayer.teacher.blocks import activate
from mobile_bilayer.teacher.config import TeacherConfig


class KeypointsEmbedder(nn.Module):
    """keypoints (B, 2 K), x0, y0, x1, y1 and so on in [-1, 1] of the crop, to a pose code (B, C, start, start)."""

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        side = config.start_px
        self.shape = (config.generator_widths[0], side, side)
        hidden = [config.keypoints_width] * (config.keypoints_layers - 1)
        sizes = [2 * config.keypoints, *hidden, self.shape[0] * side**2]
        self.layers = nn.ModuleList(nn.Linear(inputs, outputs) for inputs, outputs in pairwise(sizes))

    def forward(self, keypoints: Tensor) -> Tensor:
        x = self.layers[0](keypoints)
        for layer in self.layers[1:]:
            x = layer(activate(x))
        return x.unflatten(1, self.shape)
