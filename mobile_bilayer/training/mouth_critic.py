"""A small critic of mouths in a student's training: teeth that are there or not have a mean, which is neither."""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional as F

from mobile_bilayer.dataset.pairs import IMAGE_PX
from mobile_bilayer.pose.landmarks import LIPS
from mobile_bilayer.training.discriminator import DiscriminatorConfig, PatchDiscriminator, judged
from mobile_bilayer.training.losses import discriminator_hinge, feature_matching, generator_hinge

WINDOW_PX = 64  # side, of 256: a mouth's width is some 45
SEEN_PX = 32  # what it sees of it: paint has 128 px, not more
FEATURES = 10  # weight of matched features against the score's, as the paper has it


class MouthCritic:
    """A `PatchDiscriminator` that learns beside a student, seeing nothing but a window around the mouth.

    Names of its terms are `NAMES`; the last is its own loss, which is not the student's to bring down.
    """

    NAMES = ("mouth_critic", "mouth_features", "critic")

    def __init__(self, fabric: Fabric, weight: float, learning_rate: float) -> None:
        self.weight, self._fabric = weight, fabric
        self.network = PatchDiscriminator(DiscriminatorConfig(SEEN_PX, scores_px=8, blocks=2, width=16))
        optimizer = torch.optim.Adam(self.network.parameters(), learning_rate, (0.5, 0.99))
        self._wrapped, self.optimizer = fabric.setup(self.network, optimizer)

    def terms(self, fake: Tensor, real: Tensor, stickmen: Tensor) -> dict[str, Tensor]:
        """Learn a step from windows (N, 3, W, W) in [-1, 1], then judge the fake ones."""
        fake, real, stickmen = (F.interpolate(x, size=SEEN_PX, mode="area") for x in (fake, real, stickmen))
        self.network.requires_grad_(True)
        (of_fake, of_real), _ = judged(self._wrapped, fake.detach(), real, stickmen)
        loss = discriminator_hinge(of_real, of_fake)
        self.optimizer.zero_grad(set_to_none=True)
        self._fabric.backward(loss)
        self.optimizer.step()
        self.network.requires_grad_(False)
        (of_fake, of_real), features = judged(self._wrapped, fake, real, stickmen)
        matched = feature_matching([f for f, _ in features], [r for _, r in features])
        terms = (self.weight * generator_hinge(of_real, of_fake), self.weight * FEATURES * matched, loss.detach())
        return dict(zip(self.NAMES, terms, strict=True))

    def state_dict(self) -> dict:
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])


def mouth_windows(points: Tensor) -> list[tuple[slice, slice]]:
    """Of each of N pictures of 256 px, with network points (N, K, 2) in [-1, 1]: rows and columns of the window."""
    middles = (points[:, : len(LIPS)].mean(1) + 1) * (IMAGE_PX / 2) - WINDOW_PX / 2
    corners = middles.round().long().clamp(0, IMAGE_PX - WINDOW_PX)
    return [(slice(y, y + WINDOW_PX), slice(x, x + WINDOW_PX)) for x, y in corners.tolist()]
