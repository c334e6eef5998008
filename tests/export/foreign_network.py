"""Somebody else's network, small and of another architecture: no splat, no U-Net, other features."""

import copy
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

POINTS = 144


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 48, 3, 2, 1), nn.ReLU())
        self.maps, self.read, self.person = nn.Conv2d(48, 6, 3, 1, 1), nn.Linear(2, 5), nn.Conv2d(6, 1, 1)

    def forward(self, image: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        maps = self.maps(self.trunk(F.avg_pool2d(image * 2.0 - 1.0, 4)))  # (1, 6, 16, 16)
        features = self.read(landmarks) + maps.mean((2, 3), keepdim=True)[:, :1].reshape(1, 1, 1)
        alpha = F.interpolate(self.person(maps), scale_factor=8.0, mode="bilinear", align_corners=False)
        return features, maps, torch.sigmoid(alpha)


class Frame(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.motion = nn.Linear(2 * POINTS, 2 * 8 * 8)
        self.trunk = nn.Sequential(
            nn.Conv2d(13, 48, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(48, 48, 3, 1, 1),
            nn.ReLU(),
            nn.Conv2d(48, 16, 3, 1, 1),
            nn.ReLU(),
        )
        self.heads = nn.Conv2d(16, 7, 3, 1, 1)
        self.register_buffer("mean", torch.full((1, 1, POINTS), 1 / POINTS), persistent=False)

    def forward(self, features: Tensor, maps: Tensor, source: Tensor, landmarks: Tensor) -> tuple[Tensor, Tensor]:
        coarse = self.motion((landmarks - source).reshape(1, 2 * POINTS)).reshape(1, 2, 8, 8)
        flow = self._up(coarse, 4.0)
        seen = torch.bmm(self.mean, features).reshape(1, 5, 1, 1)
        heads = self.heads(self.trunk(torch.cat([self._up(maps, 2.0), flow, seen + 0.0 * flow[:, :1]], 1)))
        gates = torch.sigmoid(self._up(heads[:, 2:4], 2.0))
        flow = 0.2 * torch.tanh(self._up(flow + 0.1 * heads[:, :2], 2.0))
        return torch.cat([flow, gates], 1), torch.tanh(self._up(heads[:, 4:], 4.0))

    def _up(self, x: Tensor, times: float) -> Tensor:
        return F.interpolate(x, scale_factor=times, mode="bilinear", align_corners=self.corners)

    corners = False


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.frame = Encoder(), Frame()


class OtherCorners(nn.Module):
    """A planted fault."""

    def __init__(self, frame: Frame) -> None:
        super().__init__()
        self.frame = copy.deepcopy(frame)
        self.frame.corners = True

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        return self.frame(*inputs)


class SwappedChannels(nn.Module):
    """A planted fault: gate and mask change places."""

    def __init__(self, frame: Frame) -> None:
        super().__init__()
        self.frame = copy.deepcopy(frame)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.frame(*inputs)
        return torch.cat([a[:, :2], a[:, 3:], a[:, 2:3]], 1), b


def save(path: Path) -> Path:
    torch.manual_seed(3)
    save_file(Network().state_dict(), path)
    return path


def load(weights: Path) -> Network:
    network = Network()
    network.load_state_dict(load_file(weights))
    return network
