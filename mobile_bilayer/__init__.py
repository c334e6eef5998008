"""A live neural head avatar from one photo, small enough for a phone.

>>> from mobile_bilayer import Bundle, animate
>>> bundle = Bundle.open()
>>> avatar = bundle.avatar("photo.jpg")
>>> rgb = avatar.render(landmarks)  # (478, 2 or 3) in pixels of the driving frame; gives (256, 256, 3) uint8
>>> animate("photo.jpg", "driving.mp4", "out.mp4")
"""

from __future__ import annotations

from importlib import import_module

from mobile_bilayer.errors import MobileBilayerError

# Loaded at first use: torch and ExecuTorch take seconds, and `--help` needs neither.
_HOMES = {
    "Avatar": "runtime.avatar",
    "Bundle": "runtime.bundle",
    "Report": "runtime.animate",
    "Track": "pose.track",
    "TrackFrame": "pose.track",
    "animate": "runtime.animate",
    "grid": "runtime.animate",
}
__all__ = ["MobileBilayerError", *_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
