"""The critic of mouths: it sees mouths alone, learns what real ones have, and is saved with the run."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

pytest.importorskip("lightning_fabric", reason="training needs mobile-bilayer[train]")
from mobile_bilayer.dataset.pairs import NO_AUGMENTATION
from mobile_bilayer.pose.head import POINTS
from mobile_bilayer.pose.keypoints import keypoints_68
from mobile_bilayer.pose.landmarks import LIPS, MESH
from mobile_bilayer.samples import sample_photo
from mobile_bilayer.student.network import StudentConfig
from mobile_bilayer.training.mouth_critic import WINDOW_PX, MouthCritic, mouth_windows
from mobile_bilayer.training.student import TrainingConfig, train_student

TINY = StudentConfig(frame_widths=(4, 4, 8, 8), encoder_widths=(12, 8, 8, 8), features=4, codes=4, paint_width=4)


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


def test_it_learns_what_real_mouths_have_and_tells_a_student_there_alone():
    torch.manual_seed(0)
    batch, critic = mouths(), MouthCritic(Fabric(accelerator="cpu"), 0.1, 2e-3)
    bare = torch.zeros(2, 3, 256, 256)
    losses = [float(critic.terms(batch, bare)["critic"]) for _ in range(40)]
    assert losses[-1] < 0.5 * losses[0]
    out = bare.clone().requires_grad_()
    terms = critic.terms(batch, out)
    before = float((terms["mouth_critic"] + terms["mouth_features"]).detach())
    (terms["mouth_critic"] + terms["mouth_features"]).backward()
    rows, columns = mouth_windows(batch["points"])[0]
    inside = torch.zeros(256, 256, dtype=torch.bool)
    inside[rows, columns] = True
    assert not out.grad[:, :, ~inside].any() and out.grad[:, :, inside].abs().sum() > 0
    better = critic.terms(batch, batch["target"] * 2 - 1)
    assert float(better["mouth_features"]) == 0 and float(better["mouth_critic"]) < before
    assert not any(parameter.requires_grad for parameter in critic.network.parameters())  # a student's step leaves it alone


@pytest.mark.skipif(
    not (Path(os.environ.get("MOBILE_BILAYER_MODELS", "")) / "squeezenet1_1_features.npz").is_file(),
    reason="MOBILE_BILAYER_MODELS names no folder with squeezenet1_1_features.npz",
)
def test_a_run_with_a_critic_goes_on_with_it(prepared, tmp_path):
    config = TrainingConfig(sources=1, targets=2, warm_up_steps=1, lpips_px=64, held_out=1, mouth_critic=0.03)

    def train(steps: int, training: TrainingConfig = config) -> dict:
        train_student(prepared, tmp_path, TINY, training, NO_AUGMENTATION, steps=steps, workers=0)
        return torch.load(tmp_path / "checkpoint.pt", weights_only=True)["critic"]

    first, second = train(2), train(4)
    assert [state["optimizer"]["state"][0]["step"] for state in (first, second)] == [2, 4]
    assert not torch.equal(first["optimizer"]["state"][0]["exp_avg"], second["optimizer"]["state"][0]["exp_avg"])
    header, *rows = (tmp_path / "log.csv").read_text().splitlines()
    column = header.split(",").index("loss_critic")
    assert float(rows[-1].split(",")[column]) > 0
    with pytest.raises(Exception, match="other settings"):
        train(5, replace(config, mouth_critic=0.0))
