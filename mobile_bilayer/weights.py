"""Weights as safetensors: the network's config as JSON in the header, beside facts for the model card.

In fp16 values of one dimension (biases, batch norm) stay float32: they are 1 % of a file, and a running mean much
larger than its deviation would lose too much.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from mobile_bilayer.errors import MobileBilayerError

Config = TypeVar("Config")
Network = TypeVar("Network", bound=nn.Module)
_COUNTER = "num_batches_tracked"  # of batch norm: only training counts


def save_weights(network: nn.Module, path: Path, facts: dict[str, object], dtype: torch.dtype) -> None:
    """Write a network that has a `config`; `facts` (steps, data, metrics) go to the header.

    dtype  torch.float32, which keeps every value, or torch.float16
    """
    from mobile_bilayer.capture.images import written_aside  # it needs no camera, but capture imports more than torch

    assert dtype in (torch.float32, torch.float16)
    tensors = {
        name: value.detach().cpu().to(dtype if value.ndim > 1 else torch.float32).contiguous()
        for name, value in network.state_dict().items()
        if not name.endswith(_COUNTER)
    }
    broken = [name for name, value in tensors.items() if not value.isfinite().all()]
    if broken:
        kind = str(dtype).removeprefix("torch.")
        raise MobileBilayerError(
            f"Weights that are not finite in {kind} can't be saved: {', '.join(broken[:3])}. "
            "Train with a lower learning rate" + (", or save float32." if dtype == torch.float16 else ".")
        )
    header = {"config": json.dumps(asdict(network.config)), "facts": json.dumps(facts)}
    try:
        with written_aside(path) as aside:
            aside.write_bytes(save(tensors, header))
    except OSError as error:
        raise MobileBilayerError(
            f"{path} could not be written ({error}). Free some space, or write elsewhere."
        ) from error


def read_config(path: Path) -> dict[str, object]:
    """The config that weights were saved with: it tells what kind they are."""
    try:
        with safe_open(path, "pt") as file:
            return dict(json.loads((file.metadata() or {})["config"]))
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise MobileBilayerError(f"{path} can't be read as weights ({error}). Give a file that training wrote.") from error


def load_weights(
    path: Path, kind: str, writer: str, config_type: type[Config], make: Callable[[Config], Network]
) -> tuple[Network, dict[str, object]]:
    """The network in evaluation mode (float32), and the facts it was saved with.

    kind, writer  for errors: whose weights they should be, and the command that writes them
    """
    try:
        with safe_open(path, "pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (not a dict)
        values, facts = json.loads(header["config"]), json.loads(header["facts"])
        unknown = set(dict(values)) - {f.name for f in fields(config_type)}
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise MobileBilayerError(
            f"{path} can't be read as {kind} weights ({error}). `{writer}` writes such a file."
        ) from error
    if unknown:
        raise MobileBilayerError(
            f"{path} has settings that this version does not know: {', '.join(sorted(unknown))}. "
            "Update mobile_bilayer, or make the file again."
        )
    try:
        with torch.random.fork_rng(devices=[]):  # loading changes nobody's random numbers
            network = make(config_type(**values))
        missing, left_over = network.load_state_dict(tensors, strict=False)
    except (MobileBilayerError, RuntimeError, TypeError) as error:  # a bad value, or tensors of another shape
        raise MobileBilayerError(f"{path} does not fit its own config: {error} Make it again.") from error
    missing = [name for name in missing if not name.endswith(_COUNTER)]
    if missing or left_over:
        raise MobileBilayerError(
            f"{path} does not fit its own config: missing {missing[:3]}, left over {left_over[:3]}. Make it again."
        )
    return network.eval(), facts
