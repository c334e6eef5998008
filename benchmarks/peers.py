"""What students are compared with beside the teacher: a generator of the size of FOMM's. And how either is called."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobile_bilayer.runtime.executorch_file import quiet_runtime


def runner(data: bytes, method: str, inputs: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
    """Calls a method. It holds the program and its bytes, which the method does not."""
    program = quiet_runtime().load_program(data)
    kept = (program, program.load_method(method), data)
    return lambda: kept[1].execute(list(inputs))


class Scaled(nn.Module):
    """A batch norm that stands before its ReLU and convolution: a product and a sum. One behind a convolution is part of that."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain, self.bias = (nn.Parameter(torch.rand(1, width, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain + self.bias


class FommGenerator(nn.Module):
    """A generator of the size of the First Order Motion Model's for 256 px (Siarohin et al., NeurIPS 2019), with random weights.

    64 channels at 256 px, two blocks down to 256 channels at 64 px, six residual blocks there, two blocks up. What it lacks of
    a frame: the warp of its features, which no mobile delegate takes, and the network that says where to. It doubles sides
    bilinearly, as XNNPACK has no nearest.
    """

    def __init__(self, width: int = 64, most: int = 512, downs: int = 2, blocks: int = 6) -> None:
        super().__init__()
        widths = [min(most, width * 2**i) for i in range(downs + 1)]
        self.first = nn.Conv2d(3, width, 7, padding=3)
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in zip(widths, widths[1:], strict=False))
        last = widths[-1]
        self.norms = nn.ModuleList(Scaled(last) for _ in range(blocks))
        self.inner = nn.ModuleList(nn.Conv2d(last, last, 3, padding=1) for _ in range(2 * blocks))
        self.up = nn.ModuleList(
            nn.Conv2d(b, a, 3, padding=1) for a, b in reversed(list(zip(widths, widths[1:], strict=False)))
        )
        self.last = nn.Conv2d(width, 3, 7, padding=3)

    def forward(self, image: Tensor) -> Tensor:
        """image (1, 3, 256, 256) in [0, 1]; the same comes out."""
        x = torch.relu(self.first(image))
        for conv in self.down:
            x = F.avg_pool2d(torch.relu(conv(x)), 2)
        for i, norm in enumerate(self.norms):
            x = x + self.inner[2 * i + 1](torch.relu(self.inner[2 * i](torch.relu(norm(x)))))
        for conv in self.up:
            x = torch.relu(conv(F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)))
        return torch.sigmoid(self.last(x))
