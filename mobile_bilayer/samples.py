"""Two photos and a driving track to try everything with: no download, and no landmark model.

`assets/samples.safetensors` was made with `detect_photo(rgb)` of each photo, beside its (height, width).
`assets/driving.track` was made with `track_video(VideoReader(path)).track` of the clip that its `origin` names, of
which the frames named there were saved as a `Track` of their own, with times from 0.
"""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
from safetensors.numpy import load

from mobile_bilayer.capture.images import read_image
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.track import Track

SAMPLES = ("astronaut", "grace_hopper")


def sample_photo(name: str) -> tuple[np.ndarray, np.ndarray]:
    """A public-domain portrait: (H, W, 3) uint8 RGB, and its landmarks (478, 3) float32 in pixels.

    name  one of `SAMPLES`; the photos come with scikit-image and Matplotlib
    """
    if name not in SAMPLES:
        raise MobileBilayerError(f"There is no sample photo {name!r}. Choose one of {', '.join(SAMPLES)}.")
    rgb = _astronaut() if name == "astronaut" else _grace_hopper()
    known = load((_assets() / "samples.safetensors").read_bytes())
    height, width = known[f"{name}.size"].tolist()
    if rgb.shape != (height, width, 3):
        raise MobileBilayerError(
            f"The installed photo {name} has shape {rgb.shape}; we know its landmarks at {(height, width, 3)}. "
            "Install the scikit-image and Matplotlib that mobile-bilayer asks for, or use a photo of your own."
        )
    return rgb, known[f"{name}.landmarks"]


def sample_track() -> Track:
    """Somebody talks, blinks and turns the head, for a few seconds; `origin` says where it comes from."""
    with as_file(_assets() / "driving.track") as path:
        return Track.load(path)


def _assets():
    return files("mobile_bilayer") / "assets"


def _astronaut() -> np.ndarray:
    from skimage.data import astronaut

    return astronaut()


def _grace_hopper() -> np.ndarray:
    from matplotlib.cbook import get_sample_data

    return read_image(Path(get_sample_data("grace_hopper.jpg", asfileobj=False)))
