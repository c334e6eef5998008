"""Prepared clips of the sample portraits: faces that a detector finds."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mobile_bilayer.pose.crop import Crop, head_crop
from mobile_bilayer.samples import sample_photo


@pytest.fixture(scope="session")
def write_portrait(write_clip) -> Callable[..., Path]:
    """write_portrait(path, "astronaut", shifts_px=(0, 5)): a frame for each, the head so many pixels further right."""

    def write(path: Path, name: str, shifts_px: tuple[float, ...]) -> Path:
        rgb, landmarks = sample_photo(name)
        crop = head_crop(landmarks)
        half = crop.half_px * 320 / 256  # a prepared frame is wider than the crop
        frames, moved = [], []
        for shift in shifts_px:
            wide = Crop(crop.x_px - shift * half / 160, crop.y_px, half)
            frames.append(wide.cut(rgb, 320))
            moved.append((wide.to_keypoints(landmarks) + np.array([1, 1, 0], np.float32)) * 160)
        return write_clip(path, name, len(frames), frames=np.stack(frames), landmarks=np.stack(moved))

    return write
