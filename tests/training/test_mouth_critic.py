"""The critic of mouths: it learns what real ones have."""


import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

pytest.importorskip("lightning_fabric", reason="training needs mobile-bilayer[train]")
from mobile_bilayer.pose.head import POINTS
from mobile_bilayer.pose.keypoints import keypoints_68
from mobile_bilayer.pose.landmarks import LIPS, MESH
from mobile_bilayer.samples import sample_photo
from mobile_bilayer.training.discriminator import draw_stickmen
from mobile_bilayer.training.mouth_critic import WINDOW_PX, MouthCritic, mouth_windows


def mouths(right: float = 0) -> dict[str, torch.Tensor]:
    """A batch of two equal grey pictures with a sample's landmarks; those real have bright stripes where the mouth is."""
    _, landmarks = sample_photo("astronaut")
    low, high = landmarks[:, :2].min(0), landmarks[:, :2].max(0)
    points = (landmarks[:, :2] - (low + high) / 2) / (high - low).max() + [right, 0]  # half of the picture's side
    network = np.zeros((2, POINTS, 2), np.float32)
    network[:, : len(MESH)] = points[MESH]
    target = torch.full((2, 3, 256, 256), 0.5)
    rows, columns = mouth_windows(torch.from_numpy(network))[0]
    target[:, :, rows, columns][:, :, 28:36, 16:48:4] = 1.0
    keypoints = torch.from_numpy(np.stack([keypoints_68(points)] * 2)).float()
    return {"points": torch.from_numpy(network), "target": target, "keypoints": keypoints}


@pytest.mark.parametrize("right", [0.0, 0.9, -0.9])
def test_the_window_is_around_the_mouth_and_inside_the_picture(right):
    batch = mouths(right)
    for points, (rows, columns) in zip(batch["points"], mouth_windows(batch["points"]), strict=True):
        lips = (points[: len(LIPS)].numpy() + 1) * 128
        assert (rows.start < lips[:, 1]).all() and (lips[:, 1] < rows.stop).all()
        assert rows.start >= 0 and rows.stop <= 256 and rows.stop - rows.start == WINDOW_PX
        assert columns.start >= 0 and columns.stop <= 256 and columns.stop - columns.start == WINDOW_PX
        if not right:
            assert (columns.start < lips[:, 0]).all() and (lips[:, 0] < columns.stop).all()


def test_it_learns_what_real_mouths_have_and_judges_fake_ones():
    torch.manual_seed(0)
    batch, critic = mouths(), MouthCritic(Fabric(accelerator="cpu"), 0.1, 2e-3)
    rows, columns = mouth_windows(batch["points"])[0]
    real, stickmen = (x[:, :, rows, columns] for x in (batch["target"] * 2 - 1, draw_stickmen(batch["keypoints"], 256)))
    bare = torch.zeros_like(real)
    losses = [float(critic.terms(bare, real, stickmen)["critic"]) for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]
    fake = bare.clone().requires_grad_()
    terms = critic.terms(fake, real, stickmen)
    before = float((terms["mouth_critic"] + terms["mouth_features"]).detach())
    (terms["mouth_critic"] + terms["mouth_features"]).backward()
    assert fake.grad.abs().sum() > 0
    better = critic.terms(real.clone(), real, stickmen)
    assert float(better["mouth_features"]) == 0 and float(better["mouth_critic"]) < before
    assert not any(parameter.requires_grad for parameter in critic.network.parameters())  # a student's step leaves it alone
