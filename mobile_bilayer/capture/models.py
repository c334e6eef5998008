"""MediaPipe model files: found, downloaded once, and checked."""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from mobile_bilayer.errors import MobileBilayerError


@dataclass(frozen=True)
class ModelFile:
    """A file of Google's public model storage, known by its hash."""

    name: str
    url: str
    sha256: str


FACE_LANDMARKER = ModelFile(
    "face_landmarker.task",
    "https://storage.googleapis.com/mediapipe-models/face_landmarker/face_landmarker/float16/1/face_landmarker.task",
    "64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
)
SELFIE_SEGMENTER = ModelFile(
    "selfie_segmenter.tflite",
    "https://storage.googleapis.com/mediapipe-models/image_segmenter/selfie_segmenter/float16/latest/selfie_segmenter.tflite",
    "191ac9529ae506ee0beefa6b2c945a172dab9d07d1e802a290a4e4038226658b",
)


def model_bytes(model: ModelFile) -> bytes:
    """Content of a model file, from `MOBILE_BILAYER_MODELS`, the cache, or the network, in this order.

    The hash is checked on every use. Bytes and not a path: MediaPipe mishandles non-ASCII paths.

    Raises MobileBilayerError when the file is wrong or can't be had.
    """
    override = os.environ.get("MOBILE_BILAYER_MODELS")
    if override:
        path = Path(override) / model.name
        if not path.is_file():
            raise MobileBilayerError(
                f"MOBILE_BILAYER_MODELS is set to {override}, which holds no {model.name}. "
                f"Put the file there (from {model.url}) or unset the variable."
            )
        try:
            data = path.read_bytes()
        except OSError as error:
            raise MobileBilayerError(f"{path} could not be opened ({error}). Check that you may read it.") from error
        if hashlib.sha256(data).hexdigest() != model.sha256:
            raise MobileBilayerError(
                f"{path} is not the {model.name} we know (sha256 differs). Replace it with {model.url}."
            )
        return data
    cached = _cached(model)
    with suppress(OSError):  # absent or unreadable: fetch it again
        data = cached.read_bytes()
        if hashlib.sha256(data).hexdigest() == model.sha256:
            return data
    data = _download(model, cached)
    _store(data, cached)
    return data


def is_at_hand(model: ModelFile) -> bool:
    """Whether `model_bytes` would find the file without a network."""
    override = os.environ.get("MOBILE_BILAYER_MODELS")
    return (Path(override) / model.name if override else _cached(model)).is_file()


def _cached(model: ModelFile) -> Path:
    return user_cache_path("mobile_bilayer") / "models" / model.name


def _download(model: ModelFile, cached: Path) -> bytes:
    try:
        with urllib.request.urlopen(model.url, timeout=60) as response:
            data = response.read()
    except (OSError, http.client.HTTPException) as error:  # the latter when the line drops half-way
        raise MobileBilayerError(
            f"{model.name} could not be downloaded from {model.url} ({error}). "
            f"Download it by hand and save it as {cached}, or in a folder that MOBILE_BILAYER_MODELS names; "
            "or run again when online."
        ) from error
    got = hashlib.sha256(data).hexdigest()
    if got != model.sha256:
        raise MobileBilayerError(
            f"{model.url} sent a file with sha256 {got[:12]}…, not the {model.sha256[:12]}… we know. "
            "Nothing was kept. A proxy may have answered in its place; try again."
        )
    return data


def _store(data: bytes, path: Path) -> None:
    """Write aside, then rename. A cache that can't be written is no reason to stop."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.replace(aside, path)
        finally:
            with suppress(FileNotFoundError):  # renamed: all went well
                os.unlink(aside)
