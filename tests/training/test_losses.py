"""The paper's losses: by hand, by NumPy, and two processes against one."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch import multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from mobile_bilayer.training.discriminator import DiscriminatorConfig, PatchDiscriminator
from mobile_bilayer.training.losses import (
    discriminator_hinge,
    feature_matching,
    generator_hinge,
    l1,
    mask_bce,
    perceptual_l1,
)


def maps(*rows: list[float]) -> Tensor:
    """(B, 1, 1, W), one row a sample."""
    return torch.tensor(rows)[:, None, None]


def test_l1_is_the_mean_difference():
    assert l1(maps([0.0, 1.0], [2.0, -3.0]), maps([0.5, 1.0], [0.0, 1.0])).item() == (0.5 + 0 + 2 + 4) / 4


def test_a_weight_counts_within_its_sample_only():
    error, weight = maps([1.0, 3.0], [5.0, 9.0]), maps([1.0, 3.0], [2.0, 0.0])
    by_sample = ((1 * 1 + 3 * 3) / 4 + 5) / 2  # over the batch it were (1 + 9 + 10) / 6
    assert l1(error, torch.zeros(2, 1, 1, 2), weight).item() == by_sample == 3.75
    colours = error.expand(-1, 3, -1, -1)
    assert l1(colours, torch.zeros(2, 3, 1, 2), weight).item() == pytest.approx(3.75)


def test_a_sample_without_weight_adds_nothing_but_is_counted():
    first = maps([1.0, 3.0], [5.0, 9.0]).requires_grad_()
    loss = l1(first, torch.zeros(2, 1, 1, 2), maps([1.0, 1.0], [0.0, 0.0]))
    loss.backward()
    assert loss.item() == 1
    torch.testing.assert_close(first.grad, maps([0.25, 0.25], [0.0, 0.0]))


def test_the_masks_loss_is_the_cross_entropy():
    mask, wanted = np.array([[0.9, 0.2], [0.5, 0.7]]), np.array([[1.0, 0.0], [0.3, 1.0]])
    entropy = -(wanted * np.log(mask) + (1 - wanted) * np.log(1 - mask))
    given = maps(*mask.tolist()), maps(*wanted.tolist())
    assert mask_bce(*given).item() == pytest.approx(entropy.mean(), rel=1e-5)
    weighted = (entropy[0] @ [1, 3] / 4 + entropy[1] @ [0, 2] / 2) / 2
    assert mask_bce(*given, maps([1.0, 3.0], [0.0, 2.0])).item() == pytest.approx(weighted, rel=1e-5)


def test_a_mask_that_is_sure_and_wrong_has_a_finite_loss_and_slope():
    mask = maps([0.0, 1.0], [-1e-6, 1 + 1e-6]).requires_grad_()
    loss = mask_bce(mask, maps([1.0, 0.0], [1.0, 0.0]))
    loss.backward()
    assert 10 < loss.item() < 20 and torch.isfinite(mask.grad).all()


def test_hinges_compare_each_score_with_the_mean_of_the_other_side():
    real, fake = maps([1.0, 3.0]), maps([0.0, 2.0])  # means 2 and 1
    # Real above 1 by: 0, 2; fake above 2 by: -2, 0. What is missing to 1, and to -1: 1, 0 and 0, 1.
    assert discriminator_hinge(real, fake).item() == (1 + 0) / 2 + (0 + 1) / 2
    # The other way round: fake lacks 3, 1; real exceeds -1 by 1, 3.
    assert generator_hinge(real, fake).item() == (3 + 1) / 2 + (1 + 3) / 2


def test_hinges_are_those_of_the_formula_on_any_scores():
    real, fake = np.random.default_rng(0).normal(0, 2, (2, 3, 1, 4, 4)).astype(np.float32)
    above, below = real - fake.mean(), fake - real.mean()
    critic = np.maximum(0, 1 - above).mean() + np.maximum(0, 1 + below).mean()
    generator = np.maximum(0, 1 + above).mean() + np.maximum(0, 1 - below).mean()
    given = torch.from_numpy(real), torch.from_numpy(fake)
    assert discriminator_hinge(*given).item() == pytest.approx(critic, rel=1e-5)
    assert generator_hinge(*given).item() == pytest.approx(generator, rel=1e-5)


def test_the_generators_loss_moves_the_fake_scores_alone_and_upwards():
    real, fake = maps([1.0, 3.0]).requires_grad_(), maps([0.0, 2.0]).requires_grad_()
    generator_hinge(real, fake).backward()
    # Every term is above 0: -1/2 for each score's own term, and -1/2 for its share in the mean.
    assert real.grad is None
    torch.testing.assert_close(fake.grad, maps([-1.0, -1.0]))
    discriminator_hinge(real, fake.detach()).backward()
    assert real.grad.max() <= 0 and real.grad.min() < 0


def test_features_are_matched_block_by_block():
    fake = [maps([1.0, 2.0]).requires_grad_(), maps([5.0]).requires_grad_()]
    real = [maps([0.0, 4.0]).requires_grad_(), maps([1.0]).requires_grad_()]
    loss = feature_matching(fake, real)
    loss.backward()
    assert loss.item() == (1.5 + 4) / 2
    torch.testing.assert_close(fake[0].grad, maps([0.25, -0.25]))
    assert real[0].grad is None and real[1].grad is None


def five_layers(x: Tensor) -> list[Tensor]:
    return [x + 0, 2 * x, nn.functional.avg_pool2d(x, 2), -x, x.mean((2, 3), keepdim=True)]


def test_the_papers_weights_count_deep_layers_most():
    first, second = torch.zeros(1, 3, 2, 2, requires_grad=True), torch.ones(1, 3, 2, 2, requires_grad=True)
    loss = perceptual_l1(five_layers, first, second)
    loss.backward()
    assert loss.item() == 1 / 32 + 2 / 16 + 1 / 8 + 1 / 4 + 1
    assert first.grad.abs().min() > 0 and second.grad is None


def test_a_weight_map_is_averaged_down_to_each_layer():
    first = torch.zeros(1, 1, 2, 4)
    first[..., :2] = 1  # the left half; pooled: 1, 0
    weight = torch.tensor([[[[1.0, 1.0, 3.0, 3.0], [1.0, 1.0, 3.0, 1.0]]]])  # pooled: 1, 2.5

    def read(x: Tensor) -> list[Tensor]:
        return [x, nn.functional.avg_pool2d(x, 2)]

    loss = perceptual_l1(read, first, torch.zeros_like(first), weight, layer_weights=(1.0, 10.0))
    assert loss.item() == pytest.approx(4 / 14 + 10 * 1 / 3.5)


def test_a_layer_without_a_weight_is_an_error():
    with pytest.raises(ValueError, match="zip"):
        perceptual_l1(lambda x: [x], torch.zeros(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))


NAMES = ("critic", "generator", "features", "perceptual", "l1", "mask")


class Trained(nn.Module):
    """All that takes part in the losses, as one module: a painter of pictures and masks, and a critic."""

    def __init__(self) -> None:
        super().__init__()
        self.paint = nn.Conv2d(3, 4, 3, padding=1)
        self.critic = PatchDiscriminator(DiscriminatorConfig(image_px=8, scores_px=4, blocks=2, width=4))

    def forward(self, name: str, image: Tensor, stickman: Tensor, weight: Tensor) -> Tensor:
        painted = self.paint(stickman)
        fake, mask = painted[:, :3].tanh(), painted[:, 3:].sigmoid()
        scores, features = self.critic(torch.cat([image, fake]), torch.cat([stickman, stickman]))
        real, faked = (50 * scores).chunk(2)  # far enough apart that the hinge is 0 for some: else means are all alike
        halves = [f.chunk(2) for f in features]
        return {
            "critic": lambda: discriminator_hinge(real, faked),
            "generator": lambda: generator_hinge(real, faked),
            "features": lambda: feature_matching([f for _, f in halves], [r for r, _ in halves]),
            "perceptual": lambda: perceptual_l1(five_layers, fake, image, weight),
            "l1": lambda: l1(fake, image, weight),
            "mask": lambda: mask_bce(mask, weight / 2, weight),
        }[name]()


def one_step(process: int, processes: int, folder: str) -> None:
    """Each loss of this process's share, and the gradient of each with respect to every parameter."""
    torch.manual_seed(0)
    model = Trained().double()
    image, stickman = torch.rand(2, 4, 3, 8, 8).double() * 2 - 1
    weight = 2 * torch.rand(4, 1, 8, 8).double() * torch.tensor([1.0, 0.01, 0.0, 1.0]).view(4, 1, 1, 1)
    share = slice(process * 4 // processes, (process + 1) * 4 // processes)
    if processes > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=process, world_size=processes)
        model = DistributedDataParallel(model, find_unused_parameters=True)
    found = {}
    for name in NAMES:
        model.zero_grad()
        loss = model(name, image[share], stickman[share], weight[share])
        loss.backward()
        found[name] = loss.detach()
        for parameter, value in model.named_parameters():
            if value.grad is not None:
                found[f"{name}: {parameter.removeprefix('module.')}"] = value.grad.clone()
    torch.save(found, Path(folder) / f"{process} of {processes}.pt")
    if processes > 1:
        dist.destroy_process_group()


def test_two_processes_have_the_losses_and_gradients_of_one_with_both_batches(tmp_path):
    mp.spawn(one_step, (2, str(tmp_path)), nprocs=2)
    one_step(0, 1, str(tmp_path))
    files = (tmp_path / f"{name}.pt" for name in ("0 of 1", "0 of 2", "1 of 2"))
    one, first, second = (torch.load(file, weights_only=True) for file in files)
    for name in NAMES:
        assert first[name] != second[name]  # the shares do differ
        torch.testing.assert_close((first[name] + second[name]) / 2, one[name])
    slopes = [name for name in one if ":" in name]
    assert {name.split(":")[0] for name in slopes if one[name].abs().max() > 1e-3} == set(NAMES)
    for name in slopes:
        for found in (first, second):
            torch.testing.assert_close(found[name], one[name], msg=lambda text, name=name: f"{name}: {text}")
