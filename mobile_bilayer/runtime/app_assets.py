"""What the apps of both phones ship: bundles, MediaPipe's face landmarker, and two public-domain portraits with their avatars."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from mobile_bilayer.capture.images import write_image
from mobile_bilayer.capture.models import FACE_LANDMARKER, model_bytes
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.runtime.bundle import Bundle, bundle_reader
from mobile_bilayer.samples import SAMPLES, sample_photo

MADE = ("bundles", "portraits", FACE_LANDMARKER.name)


def put_assets(paths: Sequence[Path], to: Path, on_step: Callable[[str], object] = print) -> None:
    """Write all of it aside, then in place of what was there; what else lies in `to` stays.

    paths    bundles of one student, one of them for xnnpack: the app takes the best that runs on its phone
    to       the app's folder, which holds `MADE` afterwards
    on_step  told of each thing that takes a while
    """
    bundles = {path: Bundle.open(path) for path in paths}
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
    on_step(f"Looking for {FACE_LANDMARKER.name}")
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
            on_step(f"Making the avatar of {name}")
            rgb, landmarks = sample_photo(name)
            write_image(made / "portraits" / f"{name}.jpg", rgb, ai_generated=False)
            here[0].avatar(rgb, landmarks).save(made / "portraits" / f"{name}.avatar")
        for name in MADE:
            old = to / name
            shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
            (made / name).rename(old)
