"""From identity embeddings to the adaptive parameters of a generator: once per avatar."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from mobile_bilayer.teacher.blocks import LevelParams
from mobile_bilayer.teacher.config import TeacherConfig, pooled_px


class Projector(nn.Module):
    """Embeddings (coarsest first) to the parameters of each level.

    Pooled to a level's size, an embedding is cut into one row for each output channel. Three linear layers turn a row
    into that channel's parameters: the row of a low-rank product.
    """

    def __init__(self, hidden_widths: list[int], widths: list[int], norm_columns: list[tuple[int, ...]]) -> None:
        """hidden_widths  of each level

        widths            of the generator: level k goes from widths[k] to widths[k + 1]
        norm_columns      of each level: how many columns each tensor of a norm has
        """
        super().__init__()
        self.widths = widths[1:]
        self.pooled = [pooled_px(width, hidden) for width, hidden in zip(widths[:-1], hidden_widths, strict=True)]
        self.norm_tensors = [len(columns) for columns in norm_columns]
        self.levels = nn.ModuleList()
        for k, (hidden, columns) in enumerate(zip(hidden_widths, norm_columns, strict=True)):
            inputs = self.pooled[k] ** 2 * hidden // widths[k]
            outputs = (*columns, widths[k] + 1, *columns)  # norm, skip, the next norm
            self.levels.append(
                nn.ModuleList(
                    nn.Sequential(nn.Linear(inputs, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, n))
                    for n in outputs
                )
            )

    def forward(self, embeddings: list[Tensor]) -> list[LevelParams]:
        params = []
        for embedding, level, side, width, n in zip(
            embeddings, self.levels, self.pooled, self.widths, self.norm_tensors, strict=True
        ):
            # It may enlarge: that repeats pixels.
            pooled = F.adaptive_avg_pool2d(embedding, side)
            rows = pooled.reshape(len(pooled) * width, -1)
            parts = [layers(rows).unflatten(0, (-1, width)) for layers in level]
            params.append(LevelParams(tuple(parts[:n]), parts[n], tuple(parts[n + 1 :])))
        return params


def texture_projector(config: TeacherConfig) -> Projector:
    """For the texture generator: a norm's gain and bias are each a 1x1 convolution."""
    widths = config.texture_widths
    return Projector(config.projector_widths, widths, [(width + 1, width + 1) for width in widths[1:]])


def inference_projector(config: TeacherConfig) -> Projector:
    """For the inference generator: a norm's gain and bias are one number each."""
    return Projector(config.projector_widths, config.generator_widths, [(2,)] * config.levels)
