"""What a network must be to be exported, and a check that it is.

Ours meet it, and so may yours: `mobile-bilayer export WEIGHTS --module package:factory` calls `factory(Path(WEIGHTS))`.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.head import POINTS

ALPHA, LAYERS_A, LAYERS_B = (1, 1, 128, 128), (1, 4, 64, 64), (1, 3, 128, 128)
LANDMARK_FEATURES, MAP_FEATURES = (1, POINTS, "F"), (1, "C", "H", "W")
SAME = 1e-5  # outputs that differ by less are the same


class Network(Protocol):
    """A module with two submodules. Batches are of one; all is float32; K network points are `network_points()`'s, in [-1, 1].

    encoder(image (1, 3, 256, 256) in [0, 1], source_landmarks (1, K, 2)) is `encode_avatar`, once a photo. Returns
        landmark_features (1, K, F)     of any F
        map_features (1, C, H, W)       of any C, H, W
        alpha (1, 1, 128, 128)          the person in the photo, [0, 1]
    frame(landmark_features, map_features, source_landmarks (1, K, 2), landmarks (1, K, 2)) is `render_layers`. Returns
        layers_a (1, 4, 64, 64)         flow xy in units of [-1, 1], gate in [0, 1], mask in [0, 1]
        layers_b (1, 3, 128, 128)       lf, [-1, 1]

    The same inputs give the same outputs, and inputs are not changed in place. What the frame knows of the photo comes
    through the features. For int8 and Vulkan's fp16 each has a submodule `trunk`, which takes and returns tensors: what
    lies outside it stays float32. Operators that a backend does not take are refused by name.
    """

    encoder: nn.Module
    frame: nn.Module


def load_module(name: str, weights: Path) -> nn.Module:
    """The network that `package:factory` makes of a weights file, in evaluation mode. The package's code is run.

    Raises MobileBilayerError when there is none.
    """
    package, _, factory = name.partition(":")
    if not package or not factory.isidentifier():
        raise MobileBilayerError(f"The module is {name!r}; it must be package:factory, as my_network.students:load.")
    if not weights.is_file():
        raise MobileBilayerError(f"{weights} does not exist; {name} is called with a weights file. Check the path.")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        found = getattr(importlib.import_module(package), factory)
        network = found(weights)
    except Exception as error:  # somebody else's code
        raise MobileBilayerError(
            f"{name} makes no network of {weights}: {type(error).__name__}: {error}. It must be importable from here, and take a path."
        ) from error
    if not isinstance(network, nn.Module):
        raise MobileBilayerError(
            f"{name} gives a {type(network).__name__}; a torch.nn.Module is needed. See export/README.md."
        )
    return network.eval()


@torch.no_grad()
def check_network(network: nn.Module, photos: list[tuple[Tensor, Tensor]], driving: tuple[Tensor, Tensor]) -> None:
    """Whether a network meets the contract, and makes use of what it is given.

    photos   image and source landmarks of two different people
    driving  landmarks of two different frames

    Raises MobileBilayerError that says what is expected instead.
    """
    for part in ("encoder", "frame"):
        if not isinstance(getattr(network, part, None), nn.Module):
            raise MobileBilayerError(
                f"{type(network).__name__} has no submodule `{part}`. A network has `encoder` and `frame`; see export/README.md."
            )
    (image, source), (other_image, _) = photos
    wanted = {"landmark_features": LANDMARK_FEATURES, "map_features": MAP_FEATURES, "alpha": ALPHA}
    code = _call(network.encoder, "encoder", wanted, image, source)
    other = _call(network.encoder, "encoder", wanted, other_image, source)
    wanted = {"layers_a": LAYERS_A, "layers_b": LAYERS_B}

    def render(code: list[Tensor], landmarks: Tensor) -> list[Tensor]:
        return _call(network.frame, "frame", wanted, *code[:2], source, landmarks)

    layers = render(code, driving[0])
    _refuse_outside(code[2], 0, 1, "alpha")
    _refuse_outside(layers[0][:, 2:], 0, 1, "layers_a's gate and mask")
    _refuse_outside(layers[1], -1, 1, "layers_b")
    if not _differ(code[:2], other[:2]):
        raise MobileBilayerError(
            "The encoder gives two different photos the same features: a face is frozen in, or the image is not used. "
            "Features must come from the image."
        )
    if not _differ(layers, render(other, driving[0])):
        raise MobileBilayerError(
            "The frame gives two different photos' features the same layers: a face is frozen in. Layers must come from the "
            "features that it is given."
        )
    if not _differ(layers, render(code, driving[1])):
        raise MobileBilayerError(
            "The frame gives two different driving frames the same layers: its landmarks are not used. Layers must come "
            "from the landmarks."
        )


def _call(module: nn.Module, name: str, wanted: dict[str, tuple], *inputs: Tensor) -> list[Tensor]:
    """Outputs, of the shapes that are wanted; the same when asked twice, and the inputs as they were."""
    runs = []
    for _ in range(2):
        given = [x.clone() for x in inputs]
        try:
            outputs = module(*given)
        except Exception as error:  # somebody else's code
            shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
            raise MobileBilayerError(
                f"The {name} can't be called with {shapes}: {type(error).__name__}: {error}. See export/README.md."
            ) from error
        if any(not torch.equal(a, b) for a, b in zip(given, inputs, strict=True)):
            raise MobileBilayerError(f"The {name} changes its inputs in place. Let it work on copies.")
        runs.append(outputs)
    outputs = runs[0]
    names = ", ".join(f"{key} {_text(shape)}" for key, shape in wanted.items())
    if not isinstance(outputs, tuple) or len(outputs) != len(wanted):
        got = f"{len(outputs)} values" if isinstance(outputs, (tuple, list)) else f"a {type(outputs).__name__}"
        raise MobileBilayerError(f"The {name} gives {got}; it must give a tuple of {names}.")
    for (key, shape), value, again in zip(wanted.items(), outputs, runs[1], strict=True):
        if not isinstance(value, Tensor) or value.dtype != torch.float32 or not _fits(value, shape):
            got = f"{tuple(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__
            raise MobileBilayerError(f"The {name} gives {key} as {got}; it must be {_text(shape)} float32.")
        if not value.isfinite().all():
            raise MobileBilayerError(
                f"The {name} gives {key} with values that are infinite or not numbers. Look at its weights."
            )
        if not torch.equal(value, again):
            raise MobileBilayerError(
                f"The {name} gives another {key} for the same inputs. It must be in evaluation mode, and keep nothing between calls."
            )
    return list(outputs)


def _fits(value: Tensor, shape: tuple) -> bool:
    """Whether a shape is the wanted one; letters stand for any side."""
    return value.ndim == len(shape) and all(
        isinstance(b, str) or a == b for a, b in zip(value.shape, shape, strict=True)
    )


def _text(shape: tuple) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


def _refuse_outside(values: Tensor, low: float, high: float, name: str) -> None:
    if values.min() < low - 1e-3 or values.max() > high + 1e-3:
        raise MobileBilayerError(
            f"{name} goes from {float(values.min()):.3g} to {float(values.max()):.3g}; it must stay in [{low}, {high}]."
        )


def _differ(some: list[Tensor], others: list[Tensor]) -> bool:
    return any(float((a - b).abs().max()) > SAME for a, b in zip(some, others, strict=True))
