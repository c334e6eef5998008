"""A trunk of three layers, at the path where recipes look for one."""

import pytest
import torch
from torch import nn


class Trunk(nn.Module):
    """A convolution with batch norm behind it, and a batch norm that stands alone."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.second, self.alone = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.third = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.third(self.alone(torch.relu(self.second(self.first(x)))))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.heads = Trunk(), nn.Conv2d(4, 2, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.heads(self.trunk(x))


class Method(nn.Module):
    """What is exported: a network and nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.network = Network()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.network(x)


@pytest.fixture(scope="module")
def method() -> Method:
    """In evaluation mode, with batch norms that have seen something. A module's tests leave it as it is."""
    torch.manual_seed(0)
    method = Method().train()
    for _ in range(20):
        method(torch.randn(8, 3, 16, 16))
    return method.eval()


@pytest.fixture(scope="session")
def examples() -> list[tuple[torch.Tensor]]:
    """A hundred different ones."""
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(1, 3, 16, 16, generator=generator),) for _ in range(100)]
