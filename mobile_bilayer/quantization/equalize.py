"""The same student with channels of more equal range.

A tensor in int8 has one scale: that of its loudest channel, and quiet channels are rounded as coarsely as that. Where a
channel is multiplied by s as it is made, and by 1 / s as it is read, nothing changes before rounding; ReLU, sums and
upsampling let s through. (Nagel et al. 2019, section 4.1, with ranges of activations in place of weights.) On people kept
out of training a quarter of the flicker that int8 adds went away.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from mobile_bilayer.student.network import FrameNetwork, Residual, Separable, Student

# Of the ratio between loudest and own range. All of it, 1, would make rows of the reading weights as unequal as channels were.
POWER = 0.5


class ChannelGain(nn.Module):
    """(B, C, h, w) times (C,)."""

    def __init__(self, gain: Tensor) -> None:
        super().__init__()
        self.register_buffer("gain", gain.reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain


@torch.no_grad()
def equalized(student: Student, examples: Sequence[tuple[Tensor, ...]]) -> Student:
    """A copy that computes the same, its frame network's trunk ready to be rounded.

    examples  real inputs of `render_layers`, of any batch, which ranges are measured on

    What the encoder gives stays as it is: an avatar is of a student, whatever precision renders it.
    """
    student = copy.deepcopy(student).eval()
    frame = student.frame
    trunk, top = frame.trunk, frame.top
    residuals = trunk.mid32, trunk.mid16, trunk.mid8
    ranges: dict[nn.Module, Tensor] = {}
    watched = (trunk.stem, *residuals, *(residual.first for residual in residuals))
    hooks = [module.register_forward_hook(partial(_see, ranges)) for module in watched]
    for example in examples:
        frame(*example)
    for hook in hooks:
        hook.remove()
    gains = {module: (seen.max() / seen) ** POWER for module, seen in ranges.items()}

    _scale(gains[trunk.stem], [trunk.stem, top.to64], [trunk.enc32, top.dec64])
    _scale(
        gains[trunk.mid16], [trunk.enc16, trunk.to16, trunk.mid16.second], [trunk.enc8, trunk.mid16.first, trunk.to32]
    )
    _scale(gains[trunk.mid8], [trunk.enc8, trunk.mid8.second], [trunk.mid8.first, trunk.to16])
    for residual in residuals:
        _scale(gains[residual.first], [residual.first], [residual.second])
    _scale(gains[trunk.mid32], *_at_32_px(frame))
    frame.map_gain = ChannelGain(gains[trunk.mid32])
    return student


@torch.no_grad()
def without_map_gain(student: Student) -> Student:
    """The same function in the parts that a student is saved with; in place."""
    frame = student.frame
    if isinstance(frame.map_gain, ChannelGain):
        _scale(1 / frame.map_gain.gain.flatten(), *_at_32_px(frame))
        frame.map_gain = nn.Identity()
    return student


def _at_32_px(frame: FrameNetwork) -> tuple[list[nn.Module], list[nn.Module]]:
    """What makes the channels at 32 px, beside the encoder's map features, and what reads them."""
    trunk = frame.trunk
    return [trunk.enc32, frame.spread32 if frame.config.lean else frame.read32, trunk.to32, trunk.mid32.second], [trunk.enc16, trunk.mid32.first, frame.top.to64]


def _scale(gain: Tensor, made_by: Sequence[nn.Module], read_by: Sequence[nn.Module]) -> None:
    for module in made_by:  # its norm or, without one, weights and bias
        last = next(m for m in module if isinstance(m, nn.BatchNorm2d)) if isinstance(module, nn.Sequential) else module
        last.weight *= gain.reshape(-1, *[1] * (last.weight.ndim - 1))
        last.bias *= gain
    for module in read_by:
        first = module[0] if isinstance(module, nn.Sequential) else module
        weight = first.pointwise.weight if isinstance(first, Separable) else first.weight
        weight /= gain.reshape(1, -1, 1, 1)


def _see(ranges: dict[nn.Module, Tensor], module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    seen = [output, *inputs] if isinstance(module, Residual) else [output]  # what it adds to has the gain of its sum
    for x in seen:
        loudest = x.abs().amax((0, 2, 3)).clamp(min=1e-3)
        ranges[module] = torch.maximum(ranges.get(module, loudest), loudest)
