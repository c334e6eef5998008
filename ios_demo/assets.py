#!/usr/bin/env python3
"""Put into the app what it runs: `python ios_demo/assets.py`.

Bundles, MediaPipe's face landmarker, and two public-domain portraits with their avatars. The bundles are the shipped one, for
ExecuTorch, and one for Core ML, which is exported here from the shipped weights where coremltools is
(`pip install 'mobile-bilayer[coreml]'`; some minutes); or those that --bundle names, which may be given several times: the app takes
the best that runs on its phone. The landmarker is downloaded once, as for `mobile-bilayer`. Nothing of it is committed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from safetensors.numpy import save_file

from mobile_bilayer import Bundle, MobileBilayerError
from mobile_bilayer.runtime.app_assets import MADE, put_assets
from mobile_bilayer.runtime.bundle import shipped_bundle
from mobile_bilayer.samples import SAMPLES, sample_photo, sample_track

ASSETS = Path(__file__).resolve().parent / "App" / "Resources"
MARGIN_PX = 32  # of a prepared frame around the head's crop of 256
FRAMES = range(0, 198, 9)  # of the shipped track


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--bundle", type=Path, action="append", help="a bundle to ship, in place of both")
    arguments.add_argument("--to", type=Path, default=ASSETS, help=f"the app's resources (default: {ASSETS})")
    arguments.add_argument(
        "--prepared", type=Path, help="prepared clips to compare Core ML's bundle with (default: made of the portraits)"
    )
    arguments.add_argument("--without-coreml", action="store_true", help="ship no Core ML bundle")
    given = arguments.parse_args()
    try:
        if given.bundle and (given.prepared or given.without_coreml):
            raise MobileBilayerError(
                "--bundle says which bundles are shipped. Leave --prepared and --without-coreml out."
            )
        with tempfile.TemporaryDirectory(prefix="mobile_bilayer.") as folder:
            bundles = given.bundle or [shipped_bundle()]
            if not given.bundle and not given.without_coreml:
                bundles = [core_ml_bundle(Path(folder), given.prepared), *bundles]
            put_assets(bundles, given.to)
    except MobileBilayerError as error:
        print(f"assets.py: {error}", file=sys.stderr)
        return 2
    print(f"{given.to}: {', '.join(MADE)}")
    return 0


def core_ml_bundle(folder: Path, prepared: Path | None) -> Path:
    """The shipped student for Core ML, exported into `folder`."""
    from mobile_bilayer.runtime.executorch_file import quiet_runtime

    quiet_runtime()  # before what export imports: that would have its say
    from mobile_bilayer.export.bundle import export_bundle
    from mobile_bilayer.export.coreml_tools import coremltools

    try:
        coremltools()
    except MobileBilayerError as error:
        raise MobileBilayerError(
            f"{error} Or run assets.py --without-coreml: then the app runs ExecuTorch alone."
        ) from error
    if prepared is None:
        prepared = folder / "prepared"
        prepared.mkdir()
        for name in SAMPLES:
            print(f"Moving {name}, to compare Core ML's frames with", flush=True)
            write_clip(prepared / f"{name}.safetensors", name)
    print("Exporting for Core ML; this takes some minutes", flush=True)
    shipped = Bundle.open()
    weights = shipped_bundle().parent / f"student-{shipped.manifest.size}.safetensors"
    bundle = folder / f"student-{shipped.manifest.size}-256-fp16-coreml"  # the folder's name is the bundle's
    export_bundle(weights, prepared, bundle, card=shipped.card, precision="fp16", backend="coreml")
    return bundle


def write_clip(path: Path, name: str) -> None:
    """A portrait that the shipped bundle moves as the shipped track does, as `prepare` would write it: a clip of nobody else."""
    rgb, landmarks = sample_photo(name)
    avatar, track = Bundle.open().avatar(rgb, landmarks), sample_track()
    avatar.neutral = track.landmarks[FRAMES[0]]
    frames, alphas, places = [], [], []
    for i in FRAMES:
        points = avatar.move(track[i])
        picture = avatar.compose(*avatar.layers(points))
        frames.append(cv2.copyMakeBorder(picture, *[MARGIN_PX] * 4, cv2.BORDER_REPLICATE))
        alphas.append(cv2.copyMakeBorder(avatar.alpha, *[MARGIN_PX // 2] * 4, cv2.BORDER_REPLICATE))
        half = len(picture) / 2
        whole = np.concatenate([points[:, :2], avatar.source_landmarks[:, 2:]], 1) * half
        places.append(whole + np.array([half + MARGIN_PX, half + MARGIN_PX, 0]))
    side_px = len(frames[0])
    clip = {
        "frames": np.stack(frames),
        "alphas": np.stack(alphas),
        "landmarks": np.stack(places).astype(np.float32),
        "inside": np.tile(np.array([0, 0, side_px, side_px], np.float32), (len(frames), 1)),
    }
    save_file(clip, path, {"identity": name, "licence": "public domain", "photos": "0"})


if __name__ == "__main__":
    sys.exit(main())
