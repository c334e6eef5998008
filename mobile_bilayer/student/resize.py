"""A student of another size that starts with what one has learned, instead of with nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.student.network import Student, StudentConfig

# What each layer writes and reads: channels at 64, 32, 16 and 8 px, or what is splatted there.
LAYERS = {
    "frame.fine_codes": (None, "codes"),
    "encoder.map_head": ("32", None),
    "frame.read32": ("splatted32", None),
    "frame.spread32": ("32", "splatted32"),
    "frame.trunk.stem": ("64", "splatted64"),
    "frame.trunk.enc32": ("32", "64"),
    "frame.trunk.enc16": ("16", "32"),
    "frame.trunk.enc8": ("8", "16"),
    "frame.trunk.mid8.first": ("inner8", "8"),
    "frame.trunk.mid16.first": ("inner16", "16"),
    "frame.trunk.mid32.first": ("inner32", "32"),
    "frame.trunk.mid8.second": ("8", "inner8"),
    "frame.trunk.mid16.second": ("16", "inner16"),
    "frame.trunk.mid32.second": ("32", "inner32"),
    "frame.trunk.to16": ("16", "8"),
    "frame.trunk.to32": ("32", "16"),
    "frame.top.to64": ("64", "32"),
    "frame.top.dec64.0.depthwise": ("64", None),
    "frame.top.dec64": ("64", "64"),
    "frame.heads.depthwise": ("64", None),
    "frame.heads": (None, "64"),
    "frame.paint_mix": (None, "64"),
}
TOP = ("frame.top.dec64.0", "frame.heads")  # separable or not


@torch.no_grad()
def resized(student: Student, config: StudentConfig) -> Student:
    """A student of the shape `config`.

    A wider one renders what `student` does: what is new is read by what is new alone, until it has learned something.
    A narrower one keeps the channels that are read most, and must be trained to render anything; of fewer fine codes the stem makes
    what is nearest to what it made of more; a lean one has the separable convolutions that are nearest to those that were not.

    Raises MobileBilayerError when more than frame_widths, fine_codes and lean differs.
    """
    other = [n for n in ("encoder_widths", "features", "codes", "paint_width") if getattr(student.config, n) != getattr(config, n)]
    if other:
        raise MobileBilayerError(
            f"A student's {other[0]} can't change from {getattr(student.config, other[0])} to {getattr(config, other[0])}. "
            "Only frame_widths, fine_codes and lean can; train one of that shape from random weights."
        )
    new = Student(config).eval()
    before, after = _lean_or_not(student.state_dict(), config.lean), new.state_dict()
    moves = _moves(before, student.config, config)
    if config.fine_codes < student.config.fine_codes:
        _first_tell_most(before, student.config.fine_codes, moves["64"][0])
    for name, value in after.items():
        layer = next((layer for layer in LAYERS if name.startswith(layer + ".") or name == layer), None)
        if layer is None or value.ndim == 0:
            if name in before:  # or it belongs to a prior that `student` does not have
                value.copy_(before[name])
            continue
        writes, reads = (moves.get(group) for group in LAYERS[layer])
        if layer == "frame.fine_codes":
            value[..., reads[1]] = before[name][..., reads[0]]
        elif value.ndim < 2 or reads is None:
            value[writes[1] if writes else ...] = before[name][writes[0] if writes else ...]
        else:
            rows = writes or (torch.arange(len(before[name])),) * 2
            value[rows[1]] = 0
            value[rows[1][:, None], reads[1]] = before[name][rows[0][:, None], reads[0]]
    return new


def _lean_or_not(weights: dict[str, Tensor], lean: bool) -> dict[str, Tensor]:
    """The same weights with layers that are lean, as near as such ones can be, or are not; all channels are still there."""
    weights = dict(weights)
    read, bias, spread, spread_bias = (f"frame.{name}" for name in ("read32.weight", "read32.bias", "spread32.weight", "spread32.bias"))
    if lean and bias in weights:
        u, s, v = torch.linalg.svd(weights[read], full_matrices=False)
        weights[read], weights[spread], weights[spread_bias] = v, u * s, weights.pop(bias)
    elif not lean and spread in weights:
        weights[read], weights[bias] = weights.pop(spread) @ weights[read], weights.pop(spread_bias)
    for layer in TOP:
        names = [f"{layer}.{part}" for part in ("weight", "bias", "depthwise.weight", "pointwise.weight", "pointwise.bias")]
        dense, bias, depthwise, pointwise, pointwise_bias = names
        if lean and dense in weights:
            kernels = weights.pop(dense)
            # Of each input, the kernel that its outputs have most in common.
            u, s, v = torch.linalg.svd(kernels.flatten(2).transpose(0, 1), full_matrices=False)
            weights[depthwise] = v[:, :1].reshape(-1, 1, *kernels.shape[2:])
            weights[pointwise] = (u[:, :, 0] * s[:, :1]).T[:, :, None, None].contiguous()
        elif not lean and pointwise in weights:
            weights[dense] = weights.pop(pointwise) * weights.pop(depthwise).transpose(0, 1)
        old, new = (bias, pointwise_bias) if lean else (pointwise_bias, bias)
        if old in weights:
            weights[new] = weights.pop(old)
    return weights


def _first_tell_most(weights: dict[str, Tensor], count: int, kept: Tensor) -> None:
    """Other fine codes, out of which the stem makes the same of its channels `kept`, and most of it out of the first."""
    codes, stem = weights["frame.fine_codes"], weights["frame.trunk.stem.0.weight"].clone()
    of_codes = stem[kept, :count].transpose(0, 1)
    u, s, v = torch.linalg.svd(codes[0] @ of_codes.flatten(1), full_matrices=False)
    weights["frame.fine_codes"] = (u * s)[None, :, :count]
    stem[kept, :count] = v[:count].reshape(of_codes.shape).transpose(0, 1)
    weights["frame.trunk.stem.0.weight"] = stem


def _moves(
    weights: dict[str, Tensor], before: StudentConfig, after: StudentConfig
) -> dict[str, tuple[Tensor, Tensor]]:
    """Of each group of channels: which are kept, and where they go."""
    moves = {}
    groups = "64", "32", "16", "8", "inner32", "inner16", "inner8"
    widths = ((*config.frame_widths, *config.inner_widths) for config in (before, after))
    for group, had, wanted in zip(groups, *widths, strict=True):
        read = sum(
            value.float().square().sum((0, *range(2, value.ndim)))
            for layer, (_, reads) in LAYERS.items()
            for name, value in weights.items()
            if reads == group and name.startswith(layer + ".") and value.ndim > 1
        )
        kept = torch.argsort(read, descending=True)[: min(had, wanted)].sort().values
        moves[group] = kept, torch.arange(len(kept))
    if after.lean:
        strength = weights["frame.spread32.weight"].norm(dim=0)
        kept = torch.argsort(strength, descending=True)[: after.splatted].sort().values
        moves["splatted32"] = kept, torch.arange(len(kept))
    else:
        moves["splatted32"] = moves["32"]
    had, wanted = before.fine_codes, after.fine_codes
    kept = torch.arange(min(had, wanted))
    rest = torch.arange(weights["frame.trunk.stem.0.weight"].shape[1] - had)
    moves["codes"] = kept, kept
    moves["splatted64"] = torch.cat([kept, had + rest]), torch.cat([kept, wanted + rest])
    return moves
