"""What frozen networks see: LPIPS on SqueezeNet 1.1, as loss and as metric; and the features of two VGGs.

LPIPS is the distance that people's eyes agree with most, and small: it is the loss we train with. The paper's VGG19 and
VGGFace need weights that the user brings.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from http.client import HTTPException
from importlib.resources import files
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors.torch import load_file
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
        x = torch.relu_(self.squeeze(x))
        return torch.relu_(torch.cat([self.expand1x1(x), self.expand3x3(x)], 1))


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
                layers.append(nn.Conv2d(3, 64, 3, 2) if place == 0 else nn.ReLU(inplace=True))
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
        if x.device.type == "cpu":
            # Two thirds of the time, there and back; the convolutions would reorder it for themselves, each time anew.
            x = x.contiguous(memory_format=torch.channels_last)
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


@dataclass(frozen=True)
class VggLayout:
    """One of the VGGs, as far as conv5_1: a stage is some 3x3 convolutions with ReLU, then 2x2 pooling."""

    name: str
    convolutions: tuple[int, ...]  # of each stage; of the last only what is read
    mean: tuple[float, float, float]  # of the pixels it was trained on, [0, 1], in its order of channels
    std: tuple[float, float, float]
    bgr: bool  # a caffe network: blue first, and its files may name the layers conv1_1, conv1_2, ...


VGG19 = VggLayout("VGG19", (2, 2, 4, 4, 1), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), bgr=False)
VGGFACE = VggLayout(
    "VGGFace", (2, 2, 3, 3, 1), (93.5940 / 255, 104.7624 / 255, 129.1863 / 255), (1 / 255, 1 / 255, 1 / 255), bgr=True
)


def _read_tensors(path: Path, layout: VggLayout) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {name: value for name, value in state.items() if isinstance(name, str) and isinstance(value, Tensor)}
    except FileNotFoundError as error:
        raise MobileBilayerError(
            f"There is no {path}. Give a file with {layout.name}'s weights, .safetensors or .pth, or set its loss to 0."
        ) from error
    except Exception as error:  # damaged bytes make the unpickler raise nearly anything
        first_line = (str(error).splitlines() or [type(error).__name__])[0]
        raise MobileBilayerError(
            f"{path} can't be read as {layout.name}'s weights ({first_line}). It must be a state dict, .safetensors or "
            ".pth: copy it again, or save the tensors alone."
        ) from error


class Vgg(nn.Module):
    """The features of a VGG that perceptual losses compare, with average in place of max pooling; frozen.

    x        (B, 3, H, W), RGB in [-1, 1], sides of 16 or more
    returns  5 features, after the ReLU of conv1_1 to conv5_1: (B, 64, H, W), (B, 128, H/2, W/2), ... (B, 512, H/16, W/16).
             These are layers 1, 6, 11, 20, 29 of torchvision's VGG19 and 1, 6, 11, 18, 25 of its VGG16.

    The weights are the user's file: a state dict with torchvision's names, with or without "features." in front; what
    lies beyond conv5_1 is ignored. VGG19 is torchvision's, and takes RGB with ImageNet's mean and deviation. VGGFACE is
    the VGG16 of Parkhi, Vedaldi and Zisserman in any conversion of its caffe model (caffe's names, conv1_1.weight, are
    read too): its own mean is taken from BGR in [0, 255], whatever the names, and nothing is divided.
    """

    def __init__(self, path: Path, layout: VggLayout = VGG19) -> None:
        super().__init__()
        tensors = {name.removeprefix("features."): value for name, value in _read_tensors(path, layout).items()}
        layers: list[nn.Module] = []
        self.read_after: list[int] = []
        caffe: dict[str, str] = {}  # torchvision's name of a layer: caffe's
        width = 3
        for stage, count in enumerate(layout.convolutions):
            if stage:
                layers.append(nn.AvgPool2d(2))
            self.read_after.append(len(layers) + 1)
            for i in range(count):
                caffe[str(len(layers))] = f"conv{stage + 1}_{i + 1}"
                outputs = min(64 << stage, 512)
                # Without values of its own (meta): it takes the file's.
                layers += [nn.Conv2d(width, outputs, 3, padding=1, device="meta"), nn.ReLU(inplace=True)]
                width = outputs
        self.features = nn.Sequential(*layers)
        self.bgr = layout.bgr
        self.register_buffer("shift", torch.tensor(layout.mean).view(1, 3, 1, 1) * 2 - 1, persistent=False)
        self.register_buffer("scale", torch.tensor(layout.std).view(1, 3, 1, 1) * 2, persistent=False)
        if layout.bgr and "conv1_1.weight" in tensors:
            tensors = {f"{place}.{kind}": tensors.get(f"{name}.{kind}") for place, name in caffe.items()
                       for kind in ("weight", "bias")}  # fmt: skip
        chosen = {}
        for name, blank in self.features.state_dict().items():
            value = tensors.get(name)
            if value is None or value.shape != blank.shape:
                got = "lacks it" if value is None else f"has {tuple(value.shape)}"
                raise MobileBilayerError(
                    f"{layout.name} needs features.{name} of {tuple(blank.shape)}; {path} {got}. "
                    f"Give a file with {layout.name}'s weights, with torchvision's names."
                )
            chosen[name] = value.float()
        self.features.load_state_dict(chosen, assign=True)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = ((x.flip(1) if self.bgr else x) - self.shift) / self.scale
        out = []
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in self.read_after:
                out.append(x)
        return out
