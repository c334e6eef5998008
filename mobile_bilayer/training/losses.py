"""The paper's losses, one function each; the trainer weights them.

Each is a mean over the batch of something that a sample has by itself. So the mean of n processes' losses, with
equal shares of a batch, is one process's loss over the whole batch, and DDP's mean gradient is its gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch import distributed as dist
from torch.nn import functional as F

LAYER_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)  # of the five layers that the paper compares, the finest first


def weighted_mean(error: Tensor, weight: Tensor | None = None) -> Tensor:
    """Weighted over each sample, then plain over the batch.

    error    (B, C, H, W)
    weight   (B, 1, H, W), at least 0, or None; a sample without any weight counts as 0
    returns  scalar
    """
    if weight is None:
        return error.mean()
    dims = (1, 2, 3)
    return ((error * weight).sum(dims) / (weight.sum(dims) * error.shape[1]).clamp_min(1e-6)).mean()


def l1(first: Tensor, second: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean absolute difference of two (B, C, H, W); weight as in `weighted_mean`. The paper: x 10, on lf alone."""
    return weighted_mean((first - second).abs(), weight)


def mask_bce(mask: Tensor, wanted: Tensor, weight: Tensor | None = None) -> Tensor:
    """Binary cross-entropy of a predicted mask. The paper: x 10.

    mask    (B, 1, H, W), probabilities; what a resize left a bit outside [0, 1] is fine
    wanted  (B, 1, H, W), [0, 1], soft
    """
    mask = mask.clamp(1e-6, 1 - 1e-6)  # finite, with a finite slope
    return weighted_mean(F.binary_cross_entropy(mask, wanted, reduction="none"), weight)


def perceptual_l1(
    read: Callable[[Tensor], list[Tensor]],
    first: Tensor,
    second: Tensor,
    weight: Tensor | None = None,
    layer_weights: Sequence[float] = LAYER_WEIGHTS,
) -> Tensor:
    """L1 of a frozen network's features, a weighted sum over its layers. The paper: VGG19 x 10, VGGFace x 0.01.

    read           pictures (B, 3, H, W) to features, (B, C, h, w) each: a `Vgg`
    first, second  (B, 3, H, W), [-1, 1]; gradients flow through `first`
    weight         (B, 1, H, W) or None, averaged down to each layer's size
    """
    with torch.no_grad():
        wanted = read(second)
    terms = []
    for ours, theirs, share in zip(read(first), wanted, layer_weights, strict=True):
        here = None if weight is None else F.adaptive_avg_pool2d(weight, ours.shape[-2:])
        terms.append(share * l1(ours, theirs, here))
    return torch.stack(terms).sum()


def feature_matching(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """L1 of the discriminator's features, the mean over its blocks; no gradient flows to `real`. The paper: x 10."""
    return torch.stack([l1(a, b.detach()) for a, b in zip(fake, real, strict=True)]).mean()


def _mean_of_all(scores: Tensor) -> Tensor:
    """The mean over every process's batch, of equal sizes, differentiable with respect to all of them."""
    mean = scores.mean()
    if not (dist.is_available() and dist.is_initialized()):
        return mean
    # torch.distributed.nn.functional.all_reduce is deprecated in favour of this one; a build without `distributed`
    # can't import it.
    from torch.distributed._functional_collectives import all_reduce

    return all_reduce(mean, "sum", dist.group.WORLD) / dist.get_world_size()


def _hinge(higher: Tensor, lower: Tensor) -> Tensor:
    """0 where `higher` are above the mean of `lower`, and `lower` below that of `higher`, by 1 or more."""
    return F.relu(1 - (higher - _mean_of_all(lower))).mean() + F.relu(1 + (lower - _mean_of_all(higher))).mean()


def discriminator_hinge(real: Tensor, fake: Tensor) -> Tensor:
    """Relativistic average hinge loss of the discriminator, of its scores (B, 1, h, w). The paper: x 0.5.

    Each score is judged against the mean of the other side's, over all processes. The fake picture is to be detached.
    """
    return _hinge(real, fake)


def generator_hinge(real: Tensor, fake: Tensor) -> Tensor:
    """The same for the generator: fake is to look more real than real does. No gradient flows to `real`."""
    return _hinge(fake, real.detach())
