"""A bundle: what a phone loads, read and run on this machine."""

from __future__ import annotations

import hashlib
import json
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from errno import ENOENT
from functools import cached_property
from importlib.resources import files
from os import strerror
from pathlib import Path

import cv2
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from mobile_bilayer.background import fill_behind
from mobile_bilayer.capture.images import check_rgb, read_image
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.crop import CROP_UP, head_crop
from mobile_bilayer.pose.head import HEAD_POINTS, TORSO_POINTS, face_template, network_points
from mobile_bilayer.pose.landmarks import MESH
from mobile_bilayer.runtime.avatar import Avatar, check_landmarks
from mobile_bilayer.runtime.compositor import composite, to_float
from mobile_bilayer.runtime.core_ml_program import CoreMLProgram
from mobile_bilayer.runtime.manifest import CORE_ML, Manifest
from mobile_bilayer.runtime.program import Program

LARGEST_MANIFEST, LARGEST_FILE, LARGEST = 4 * 2**20, 64 * 2**20, 256 * 2**20  # bytes; the last of all files together
REQUIRED = ("golden.safetensors", "MODEL_CARD.md")
CHANNELS = {"flow": slice(0, 2), "gate": slice(2, 3), "mask": slice(3, 4)}  # of layers_a
# What `Bundle.verify` looks at. layers_a by its parts: a tolerance that suits a mask would pass any flow. The last
# is the compositor alone.
CHECKED = ("landmark_features", "map_features", "alpha", *CHANNELS, "layers_b", "composed", "composed_from_golden")


def shipped_bundle() -> Path:
    """The bundle that comes with the package."""
    return Path(str(files("mobile_bilayer") / "assets" / "student-S-256-int8-xnnpack"))


def bundle_sha256(path: Path) -> str:
    """Of its manifest.json, which has the hashes of all other files."""
    return hashlib.sha256(bundle_reader(path)("manifest.json")).hexdigest()


def bundle_title(path: Path) -> str:
    """Its name, and the beginning of its hash: what tells two bundles of one name apart, and a bundle from its re-export."""
    text = bundle_reader(path)("manifest.json")
    return f"{Manifest.from_json(text, str(path)).name}, {hashlib.sha256(text).hexdigest()[:12]}"


def bundle_mib(path: Path) -> float:
    """All of its files."""
    read = bundle_reader(path)
    text = read("manifest.json")
    return (len(text) + sum(len(read(name)) for name in Manifest.from_json(text, str(path)).sha256)) / 2**20


@dataclass(frozen=True, eq=False)
class Bundle:
    """A checked bundle in memory. Make it with `Bundle.open`."""

    manifest: Manifest
    contents: dict[str, bytes]
    where: str

    @classmethod
    def open(cls, path: Path | str | None = None) -> Bundle:
        """The bundle at `path` (a folder or a zip), or the shipped one.

        Every file's sha256 is checked. Raises MobileBilayerError that says what is wrong.
        """
        path = shipped_bundle() if path is None else Path(path)
        read = bundle_reader(path)
        manifest = Manifest.from_json(read("manifest.json"), str(path))
        check_points(manifest, path)
        contents = {}
        for name in REQUIRED:
            if name not in manifest.sha256:
                raise MobileBilayerError(f"{path}: manifest.json does not list {name}. Export the bundle again.")
        for name, sha256 in manifest.sha256.items():
            contents[name] = read(name)
            got = hashlib.sha256(contents[name]).hexdigest()
            if got != sha256:
                raise MobileBilayerError(
                    f"{path}: {name} has sha256 {got[:12]}…, the manifest says {sha256[:12]}…: "
                    "it was changed or damaged. Export or copy the bundle again."
                )
        return cls(manifest, contents, str(path))

    @cached_property
    def program(self) -> Program | CoreMLProgram:
        """The program, loaded at first use. One for Core ML is computed by an evaluator where there is no Core ML."""
        if self.manifest.backend == CORE_ML:
            program = CoreMLProgram(self.packages(), self.manifest.methods, self.where)
            if program.engine != "Core ML":
                warnings.warn(
                    f"{self.where} is made for Core ML, which runs on macOS and iOS only. Here an evaluator computes the same, "
                    "for checks: it is many times slower than a phone.",
                    stacklevel=2,
                )
            return program
        about = self.manifest
        return Program(self.contents[about.program], about.methods, about.backend, self.where, about.minimum_runtime)

    def packages(self) -> dict[str, bytes]:
        """Of a Core ML bundle: content by path below the program's folder."""
        folder = f"{self.manifest.program}/"
        return {k.removeprefix(folder): v for k, v in self.contents.items() if k.startswith(folder)}

    @property
    def card(self) -> str:
        """MODEL_CARD.md."""
        return self.contents["MODEL_CARD.md"].decode("utf-8", "replace")

    def avatar(self, photo: Path | str | np.ndarray, landmarks: np.ndarray | None = None) -> Avatar:
        """An avatar of the largest face in a photo (a path, or (H, W, 3) uint8 RGB).

        landmarks  (478, 3) in the photo's pixels, if they are known; otherwise MediaPipe finds them
        """
        rgb = read_image(Path(photo)) if isinstance(photo, (str, Path)) else check_rgb(np.asarray(photo))
        if landmarks is None:
            from mobile_bilayer.capture.landmarker import detect_photo

            try:
                landmarks = detect_photo(rgb)
            except MobileBilayerError as error:
                raise MobileBilayerError(f"{photo}: {error}" if isinstance(photo, (str, Path)) else str(error)) from error
        landmarks = check_landmarks(landmarks)
        if landmarks.shape[1] != 3:
            raise MobileBilayerError(
                f"A photo's landmarks have shape {landmarks.shape}; (478, 3) is needed, in pixels. "
                "Leave them out to find them."
            )
        crop = head_crop(landmarks)
        texture = crop.cut(rgb, self.manifest.image_px)
        keypoints = crop.to_keypoints(landmarks)
        picture = np.ascontiguousarray(texture.transpose(2, 0, 1))[None].astype(np.float32) / 255
        features, maps, alpha = self.program.run("encode_avatar", picture, network_points(keypoints)[None])
        alpha = np.clip(alpha[0, 0], 0, 1)
        background = fill_behind(texture, cv2.resize(alpha, texture.shape[1::-1], interpolation=cv2.INTER_LINEAR))
        alpha = np.rint(alpha * 255).astype(np.uint8)
        return Avatar(self, texture, background, alpha, features, maps, keypoints.astype(np.float32))

    def golden(self) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """Golden vectors: real inputs, what the float student gives for them, and the tolerance of each output."""
        data = self.contents["golden.safetensors"]
        try:
            tensors = load(data)
            size = int.from_bytes(data[:8], "little")
            tolerances = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["tolerances"])
            tolerances = {name: float(tolerances[name]) for name in CHECKED}
        except (SafetensorError, KeyError, TypeError, AttributeError, ValueError) as error:
            raise MobileBilayerError(
                f"{self.where}: golden.safetensors can't be read ({error}). Export the bundle again."
            ) from error
        for name, shape in self._golden_shapes(tensors).items():
            got = tensors[name].shape if name in tensors else None
            if got != shape:
                found = "missing" if got is None else f"of shape {got}"
                raise MobileBilayerError(
                    f"{self.where}: golden.safetensors: {name} is {found}; it must be of shape {shape}. "
                    "Export the bundle again."
                )
        return tensors, tolerances

    def _golden_shapes(self, tensors: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
        encode, render = (self.manifest.methods[name] for name in ("encode_avatar", "render_layers"))
        image, points = (spec.shape for spec in encode.inputs)
        small = (*np.shape(tensors.get("composite_texture", 0)), 0)[0]  # composites may be of any side
        return {
            "image": image[1:],
            **dict.fromkeys(("source_points", "driving_points"), points[1:]),
            **{spec.name: spec.shape for spec in (*encode.outputs, *render.outputs)},
            **dict.fromkeys(("composite_texture", "composite_background", "composed"), (small, small, 3)),
        }

    def verify(self) -> dict[str, float]:
        """Run the golden inputs through the program and the compositor; largest error of each output.

        Raises MobileBilayerError when one is over its tolerance.
        """
        golden, tolerances = self.golden()
        image = golden["image"].astype(np.float32)[None] / 255
        source = golden["source_points"][None]
        got = dict(
            zip(
                ("landmark_features", "map_features", "alpha"),
                self.program.run("encode_avatar", image, source),
                strict=True,
            )
        )
        got["layers_a"], got["layers_b"] = self.program.run(
            "render_layers",
            golden["landmark_features"].astype(np.float32),
            golden["map_features"].astype(np.float32),
            source,
            golden["driving_points"][None],
        )
        texture, background = to_float(golden["composite_texture"]), to_float(golden["composite_background"])
        got["composed"] = composite(texture, background, got["layers_a"][0], got["layers_b"][0])
        got["composed_from_golden"] = composite(
            texture, background, golden["layers_a"][0].astype(np.float32), golden["layers_b"][0].astype(np.float32)
        )
        wanted = golden | {"composed_from_golden": golden["composed"]}
        for part, channels in CHANNELS.items():
            got[part], wanted[part] = got["layers_a"][:, channels], golden["layers_a"][:, channels]
        errors = {}
        for name in CHECKED:
            errors[name] = float(np.abs(got[name] - wanted[name].astype(np.float32)).max())
            if not errors[name] <= tolerances[name]:
                raise MobileBilayerError(
                    f"{self.where}: {name} is {errors[name]:.4f} from the golden vectors; at most {tolerances[name]} is right. "
                    "This runtime computes something else than the exported student: export again on this version."
                )
        return errors


def check_points(manifest: Manifest, path: Path) -> None:
    """A program made for other points than those computed here would be fed the wrong ones."""
    template = face_template()
    here = {
        "mesh": MESH,
        "head_points": HEAD_POINTS,
        "torso_points": TORSO_POINTS,
        "template_points": template.points,
        "rigid": template.rigid,
        "crop_up": CROP_UP,
    }
    for name, wanted in here.items():
        got = np.array(getattr(manifest, name))
        if got.shape != np.shape(wanted) or not np.allclose(got, wanted, rtol=0, atol=1e-5):
            raise MobileBilayerError(
                f"{path}: manifest.json: {name} is not what this version computes. "
                "Export the bundle again, or update mobile_bilayer."
            )


def bundle_reader(path: Path) -> Callable[[str], bytes]:
    """A function from a file name to its content, for a folder or a zip. It reads no more than `LARGEST` in all."""
    if path.is_dir():
        return _limited(lambda name, limit: _read_file(path / name, name, limit, path), path)
    if not path.exists():
        raise MobileBilayerError(f"{path} does not exist; a bundle (a folder or a zip) is needed. Check the path.")
    if not path.is_file():
        raise MobileBilayerError(f"{path} is no bundle: neither a folder nor a file. Check the path.")
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # zipfile raises what damage leads it to
        raise MobileBilayerError(f"{path} is no bundle: neither a folder nor a readable zip ({str(error)[:200]}).") from error
    names = archive.namelist()
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise MobileBilayerError(f"{path} holds {twice[0][:99]!r} twice, and readers may differ in which they take. Export the bundle again, and zip it once.")
    # File managers zip the folder itself: its name stands before each file's.
    inside = [name for name in names if name.count("/") == 1 and name.endswith("/manifest.json")]
    prefix = inside[0].removesuffix("manifest.json") if len(inside) == 1 and "manifest.json" not in names else ""
    return _limited(lambda name, limit: _read_member(archive, prefix + name, limit, path), path)


def _limited(read: Callable[[str, int], bytes], bundle: Path) -> Callable[[str], bytes]:
    left = LARGEST

    def limited(name: str) -> bytes:
        nonlocal left
        data = read(name, LARGEST_MANIFEST if name == "manifest.json" else LARGEST_FILE)
        left -= len(data)
        if left < 0:
            raise MobileBilayerError(f"{bundle}: its files are larger than {LARGEST >> 20} MiB together. This is no bundle of ours.")
        return data

    return limited


def _too_large(name: str, limit: int, bundle: Path) -> MobileBilayerError:
    return MobileBilayerError(f"{bundle}: {name} is larger than {limit >> 20} MiB. This is no bundle of ours.")


def _read_file(file: Path, name: str, limit: int, bundle: Path) -> bytes:
    """A link is followed, as the hash says what it must lead to; what is no file, as a device without an end, is not read."""
    try:
        if not file.is_file():
            raise OSError(ENOENT, "no file" if file.exists() else strerror(ENOENT))
        with file.open("rb") as opened:
            data = opened.read(limit + 1)
    except OSError as error:
        raise MobileBilayerError(
            f"{bundle}: {name} is missing or can't be read ({error.strerror}). A bundle holds manifest.json, a program, "
            "golden.safetensors and MODEL_CARD.md; export or copy it again."
        ) from error
    if len(data) > limit:
        raise _too_large(name, limit, bundle)
    return data


def _read_member(archive: zipfile.ZipFile, name: str, limit: int, bundle: Path) -> bytes:
    try:
        info = archive.getinfo(name)
        if info.file_size > limit:
            raise _too_large(name, limit, bundle)
        return archive.read(info)
    except KeyError as error:
        raise MobileBilayerError(f"{bundle}: {name} is missing. Export or copy the bundle again.") from error
    except Exception as error:  # zipfile raises what its codecs raise
        if isinstance(error, MobileBilayerError):
            raise
        raise MobileBilayerError(f"{bundle}: {name} can't be unpacked ({str(error)[:200]}). Copy the bundle again.") from error
