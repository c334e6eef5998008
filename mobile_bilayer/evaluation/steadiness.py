"""Does a render hold still where its driver does: landmarks that tremble, pixels that flicker.

Prepared clips have few frames a second: between two of them real motion is large, and hides both. So frames of a clip
are also driven by points that go straight from one of them to the next, in `STEPS` equal steps. Such a driver does not
tremble at all; whatever trembles then, or flickers, comes from the method.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
from torch import Tensor

from mobile_bilayer.dataset.pairs import PreparedClip

STEPS = 4  # from one frame to the next


def consecutive_frames(clip: PreparedClip, count: int) -> list[int]:
    """Up to `count` frames from the middle of the source's shot; where that has less than three, of the longest one."""
    shots, lengths = np.unique(clip.shots, return_counts=True)
    own = clip.shots[0]
    chosen = own if lengths[shots == own][0] >= 3 else shots[lengths.argmax()]
    frames = np.flatnonzero(clip.shots == chosen)
    first = max(0, (len(frames) - count) // 2)
    return frames[first : first + count].tolist()


def in_steps(points: Tensor) -> Tensor:
    """Points (N, K, 2) of N frames to ((N - 1) * STEPS + 1, K, 2): each STEPS-th is a frame's, straight lines between."""
    parts = [torch.lerp(a, b, step / STEPS) for a, b in zip(points, points[1:], strict=False) for step in range(STEPS)]
    return torch.stack([*parts, points[-1]])


def jitter(landmarks: np.ndarray, found: np.ndarray | None = None, turns: int | None = None) -> float:
    """Root mean square of the second difference of landmarks (N, 478, 2 or 3), in % of the outer eye corners' distance.

    found  (N,): frames without a face, and their neighbours, are left out
    turns  every so many frames the driver changes its course: there nothing is measured
    """
    flat = landmarks[..., :2].astype(np.float64)
    second = flat[2:] - 2 * flat[1:-1] + flat[:-2]
    known = np.ones(len(flat), bool) if found is None else found
    used = known[2:] & known[1:-1] & known[:-2]
    if turns is not None:
        used &= np.arange(1, len(flat) - 1) % turns != 0
    if not used.any():
        return np.nan
    eyes = np.linalg.norm(flat[:, 33] - flat[:, 263], axis=1)[known].mean()
    return float(100 * np.sqrt((second[used] ** 2).sum(2).mean()) / eyes)


def flicker(frames: Tensor) -> float:
    """How much frames (N, 3, H, W) in [0, 1] change beyond moving: mean |difference| of each and the one before it, when
    that is moved as an optical flow says, in grey levels of 255.

    The flow is found in the frames themselves. That of the real ones would call it flicker when a head turns a little
    less than the driver's, and then it does so in every frame; what trembles as a whole is for `jitter`. And nothing
    but what comes in at the border is left out as hidden: in steps as small as ours that changed no clean render's
    number, but where pixels flicker, flows there and back disagree, and up to 45 % of the picture would be passed over.
    """
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    shown = [np.ascontiguousarray(frame) for frame in frames.permute(0, 2, 3, 1).float().numpy()]
    greys = [cv2.cvtColor((frame * 255).round().clip(0, 255).astype(np.uint8), cv2.COLOR_RGB2GRAY) for frame in shown]
    height, width = greys[0].shape
    here = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).astype(np.float32)
    changes = []
    for i in range(1, len(shown)):
        there = here + search.calc(greys[i], greys[i - 1], None)
        moved = cv2.remap(shown[i - 1], there, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        inside = ((there >= 0) & (there <= [width - 1, height - 1])).all(2)
        changes.append(np.abs(moved - shown[i]).mean(2)[inside].mean())
    return float(255 * np.mean(changes)) if changes else np.nan
