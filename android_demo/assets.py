#!/usr/bin/env python3
"""Put into the app what it runs: `python android_demo/assets.py`.

A bundle (the shipped one, or --bundle, which may be given several times: the app takes the best that runs on its phone), MediaPipe's
face landmarker, and two public-domain portraits with their avatars. Needs mobile_bilayer installed; the landmarker is downloaded
once, as for `mobile-bilayer`. Nothing of it is committed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mobile_bilayer import MobileBilayerError
from mobile_bilayer.runtime.app_assets import MADE, put_assets
from mobile_bilayer.runtime.bundle import shipped_bundle

ASSETS = Path(__file__).resolve().parent / "app" / "src" / "main" / "assets"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--bundle", type=Path, action="append", help="a bundle to ship, in place of the shipped one")
    arguments.add_argument("--to", type=Path, default=ASSETS, help=f"the app's assets (default: {ASSETS})")
    given = arguments.parse_args()
    try:
        put_assets(given.bundle or [shipped_bundle()], given.to)
    except MobileBilayerError as error:
        print(f"assets.py: {error}", file=sys.stderr)
        return 2
    print(f"{given.to}: {', '.join(MADE)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
