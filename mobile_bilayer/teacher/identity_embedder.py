"""Read who a person is from one or more photos: once per avatar."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mobile_bilayer.teacher.blocks import ResidualBlock, average_frames, conv3x3
from mobile_bilayer.teacher.config import TeacherConfig, doublings


class IdentityEmbedder(nn.Module):
    """Sources to identity embeddings, one for each level of the generators, coarsest first.

    images    (B, N, 3, S, S)  N sources of each person, [-1, 1]
    stickmen  (B, N, 3, S, S)  their keypoints drawn, [-1, 1]; None if the config says that it sees none
    masks     (B, N, 1, S, S)  the person's alpha, [0, 1]: the image is put on black with it
    returns   a list of (B, C, e, e): C is the texture generator's width after that level

    As in the paper's code, the second convolution and the skip of the last block lead nowhere: no gradient reaches them.
    """

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        self.sees_stickman = config.embedder_sees_stickman
        width = config.embedder_width
        self.stem = conv3x3(6 if self.sees_stickman else 3, width)
        self.down = nn.ModuleList()
        for i in range(1, doublings(config.embedding_px, config.image_px) + 1):
            wider = min(config.embedder_width * 2**i, config.embedder_max_width)
            self.down.append(ResidualBlock(width, wider, "down"))
            width = wider
        self.levels = nn.ModuleList()
        for wanted in config.texture_widths[1:]:
            self.levels.append(ResidualBlock(width, wanted))
            width = wanted

    def forward(self, images: Tensor, stickmen: Tensor | None, masks: Tensor) -> list[Tensor]:
        frames = images.shape[1]
        seen = images * masks - (1 - masks)
        if self.sees_stickman:
            seen = torch.cat([seen, stickmen], 2)
        x = self.stem(seen.flatten(0, 1))
        for block in self.down:
            x = block(x)
        if self.down:
            x, frames = average_frames(x, frames), 1
        embeddings = []  # of single frames, where no block down has made them one
        for block in self.levels:
            x, features = block.with_features(x)
            embeddings.append(average_frames(features, frames))
        return embeddings
