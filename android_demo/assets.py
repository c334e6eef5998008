#!/usr/bin/env python3
"""Put into the app what it runs: `python android_demo/assets.py`.

A bundle (the shipped one, or --bundle, which may be given several times: the app takes the best that runs on its phone), MediaPipe's
face landmarker, and two public-domain portraits with their avatars. Needs mobile_bilayer installed; the landmarker is downloaded
once, as for `mobile-bilayer`. Nothing of it is committed.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from mobile_bilayer import Bundle, MobileBilayerError
from mobile_bilayer.capture.images import write_image
from mobile_bilayer.capture.models import FACE_LANDMARKER, model_bytes
from mobile_bilayer.runtime.bundle import bundle_reader, shipped_bundle
from mobile_bilayer.samples import SAMPLES, sample_photo

ASSETS = Path(__file__).resolve().parent / "app" / "src" / "main" / "assets"
MADE = ("bundles", "portraits", FACE_LANDMARKER.name)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--bundle", type=Path, action="append", help="a bundle to ship, in place of the shipped one")
    arguments.add_argument("--to", type=Path, default=ASSETS, help=f"the app's assets (default: {ASSETS})")
    given = arguments.parse_args()
    try:
        put(given.bundle or [], given.to)
    except MobileBilayerError as error:
        print(f"assets.py: {error}", file=sys.stderr)
        return 2
    print(f"{given.to}: {', '.join(MADE)}")
    return 0


def put(paths: list[Path], to: Path) -> None:
    """Write all of it aside, then in place of what was there."""
    bundles = {path: Bundle.open(path) for path in paths or [shipped_bundle()]}
    by_name = {bundle.manifest.name: bundle for bundle in bundles.values()}
    if len(by_name) < len(bundles):
        raise MobileBilayerError(f"Two of the bundles have the name {' or '.join(by_name)}. Name each once.")
    if len({bundle.manifest.student for bundle in bundles.values()}) > 1:
        raise MobileBilayerError(
            f"{' and '.join(by_name)} hold different students, and no avatar fits both. Export all from one student."
        )
    here = [bundle for bundle in bundles.values() if bundle.manifest.backend == "xnnpack"]
    if not here:
        raise MobileBilayerError(
            f"None of {', '.join(by_name)} is for xnnpack, which every phone runs and this machine makes the avatars with. Add one."
        )
    model = model_bytes(FACE_LANDMARKER)
    to.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".assets-", dir=to.parent) as aside:
        made = Path(aside)
        for path, bundle in bundles.items():
            files = {"manifest.json": bundle_reader(path)("manifest.json"), **bundle.contents}
            for name, content in files.items():
                file = made / "bundles" / bundle.manifest.name / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
        (made / FACE_LANDMARKER.name).write_bytes(model)
        (made / "portraits").mkdir()
        for name in SAMPLES:
            rgb, landmarks = sample_photo(name)
            write_image(made / "portraits" / f"{name}.jpg", rgb, ai_generated=False)
            here[0].avatar(rgb, landmarks).save(made / "portraits" / f"{name}.avatar")
        for name in MADE:
            old = to / name
            shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
            (made / name).rename(old)


if __name__ == "__main__":
    sys.exit(main())
