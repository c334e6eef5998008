"""LPIPS on SqueezeNet 1.1: the distance that people's eyes agree with most, as loss and as metric."""

from __future__ import annotations

import os
from http.client import HTTPException
from importlib.resources import files
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mobile_bilayer.errors import MobileBilayerError

SQUEEZENET_URL = "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth"
FIRES = {3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128),
         9: (256, 48, 192), 10: (384, 48, 192), 11: (384, 64, 256), 12: (512, 64, 256)}  # fmt: skip
READ_AFTER = (1, 4, 7, 9, 10, 11, 12)  # the layers that LPIPS compares


class Fire(nn.Module):
    """SqueezeNet's block: squeeze, then expand by 1x1 and 3x3."""

    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(inputs, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.squeeze(x))
        return torch.relu(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1))


def squeezenet_weights() -> dict[str, Tensor]:
    """torchvision's SqueezeNet 1.1 features, from `MOBILE_BILAYER_MODELS` or by download (checked by its hash)."""
    override = os.environ.get("MOBILE_BILAYER_MODELS")
    path = Path(override or "") / "squeezenet1_1_features.npz"
    if override and path.is_file():
        try:
            with np.load(path) as arrays:
                return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
        except (OSError, EOFError, ValueError, BadZipFile) as error:
            raise MobileBilayerError(f"{path} can't be read ({error}). Copy it again, or delete it.") from error
    try:
        state = torch.hub.load_state_dict_from_url(
            SQUEEZENET_URL, map_location="cpu", check_hash=True, weights_only=True
        )
    except (OSError, HTTPException, RuntimeError) as error:  # the last is a wrong hash
        raise MobileBilayerError(
            f"SqueezeNet's weights could not be downloaded from {SQUEEZENET_URL} ({error}). Run again when online."
        ) from error
    return {name: value for name, value in state.items() if name.startswith("features.")}


class Lpips(nn.Module):
    """LPIPS, SqueezeNet, version 0.1; its learned heads come with torchmetrics.

    first, second  (B, 3, H, W) in [-1, 1]; gradients flow through `first`
    weight         (B, 1, H, W) or None: where differences count more
    returns        (B,)
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for place in range(13):
            if place in FIRES:
                layers.append(Fire(*FIRES[place]))
            elif place in (2, 5, 8):
                layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            else:
                layers.append(nn.Conv2d(3, 64, 3, 2) if place == 0 else nn.ReLU())
        self.features = nn.Sequential(*layers)
        self.load_state_dict(squeezenet_weights())
        heads = files("torchmetrics.functional.image") / "lpips_models" / "squeeze.pth"
        with heads.open("rb") as file:
            state = torch.load(file, map_location="cpu", weights_only=True)
        for i in range(len(READ_AFTER)):
            self.register_buffer(f"head{i}", state[f"lin{i}.model.1.weight"], persistent=False)
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), persistent=False)
        self.requires_grad_(False)

    def _read(self, x: Tensor) -> list[Tensor]:
        x = (x - self.shift) / self.scale
        out = []
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in READ_AFTER:
                out.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return out

    def forward(self, first: Tensor, second: Tensor, weight: Tensor | None = None) -> Tensor:
        with torch.no_grad():
            wanted = self._read(second)
        total = first.new_zeros(len(first))
        for i, (ours, theirs) in enumerate(zip(self._read(first), wanted, strict=True)):
            distance = F.conv2d((ours - theirs).square(), getattr(self, f"head{i}"))
            if weight is None:
                total = total + distance.mean((1, 2, 3))
            else:
                here = F.adaptive_avg_pool2d(weight, distance.shape[-2:])
                total = total + (distance * here).sum((1, 2, 3)) / here.sum((1, 2, 3)).clamp_min(1e-6)
        return total
