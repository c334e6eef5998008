"""The phone's core in Swift: compiled with warnings as errors, tested on this machine, and fed with our files."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator
from safetensors.numpy import load_file, save_file

from mobile_bilayer import Avatar, Bundle
from mobile_bilayer.benchmark.result import Moment, Result, schema
from mobile_bilayer.runtime.animate import Follower, open_avatar
from mobile_bilayer.runtime.bundle import shipped_bundle
from mobile_bilayer.samples import sample_photo, sample_track

CHECK = Path(__file__).parents[2] / "ios_demo" / "Core" / "check.py"
CACHE = os.environ.get("MOBILE_BILAYER_CACHE") or Path(
    os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "mobile_bilayer"
)
IN_FOLDER = os.path.lexists(Path(CACHE, "swift-trixie", "usr", "bin", "swift")) and os.geteuid() == 0
needs_swift = pytest.mark.skipif(
    shutil.which("swift") is None and not IN_FOLDER, reason="needs Swift 6: ios_demo/README.md"
)


def check(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(CHECK), *arguments], env=os.environ | environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def avatar() -> Avatar:
    return Bundle.open().avatar(*sample_photo("astronaut"))


@pytest.fixture(scope="module")
def checked(avatar, write_videos, tmp_path_factory) -> tuple[subprocess.CompletedProcess, Path]:
    """One run of the whole check, and the folder through which files were exchanged."""
    folder = tmp_path_factory.mktemp("exchange")
    avatar.save(folder / "from_python.avatar")
    rgb, landmarks = sample_photo("astronaut")
    photo = {"rgb": rgb, "landmarks": landmarks.astype(np.float32), "alpha": avatar.alpha / np.float32(255)}
    save_file(photo, folder / "photo.safetensors")
    with zipfile.ZipFile(folder / "bundle.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for file in shipped_bundle().iterdir():
            packed.write(file, f"student/{file.name}")
    write_videos(folder)
    begun = time.monotonic()
    done = check(MOBILE_BILAYER_EXCHANGE=str(folder))
    print(f"ios_demo/Core/check.py took {time.monotonic() - begun:.0f} s")
    return done, folder


@pytest.mark.swift
@needs_swift
def test_core_builds_without_warnings_is_well_formed_and_passes_all_its_tests(checked):
    done, _ = checked
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-5_000:]
    counted = re.findall(r"Executed (\d+) tests, with (?:(\d+) tests? skipped and )?(\d+) failures", done.stdout)
    assert counted
    count, skipped, failed = max(counted, key=lambda numbers: int(numbers[0]))
    assert int(count) > 80 and not skipped and failed == "0"


@pytest.mark.swift
@needs_swift
@pytest.mark.parametrize("row", ["AN1", "AN2", "AN3", "AN5", "RU4", "IO1", "IO3", "BE2", "BE3"])
def test_the_rows_that_core_answers_for_are_tested_there(checked, row):
    assert re.search(rf"test_{row}_\w+' passed", checked[0].stdout)


@pytest.mark.swift
@needs_swift
def test_an_avatar_goes_to_the_phone_and_comes_back_as_it_was(checked, avatar):
    back = Avatar.load(checked[1] / "from_swift.avatar", avatar.bundle)
    for name in ("texture", "background", "alpha", "landmark_features", "map_features", "source_landmarks"):
        np.testing.assert_array_equal(getattr(back, name), getattr(avatar, name))


@pytest.mark.swift
@needs_swift
def test_of_a_whole_photo_the_phone_makes_the_texture_and_background_that_we_make(checked, avatar):
    got = load_file(checked[1] / "photo_of_swift.safetensors")
    apart = {name: np.abs(got[name].astype(int) - getattr(avatar, name)) for name in ("texture", "background")}
    assert apart["texture"].max() <= 2
    assert apart["background"].mean() < 0.5 and apart["background"].max() <= 6  # the alpha was rounded on its way


@pytest.mark.swift
@needs_swift
def test_a_whole_live_run_with_a_lost_face_moves_the_phones_avatar_as_ours(checked, avatar):
    got = load_file(checked[1] / "run_of_swift.safetensors")["moved"]
    alone = open_avatar(Avatar.load(checked[1] / "from_python.avatar", avatar.bundle), avatar.bundle)
    follow = Follower(alone)
    wanted = np.stack(
        [
            alone.move(follow(None if i in range(60, 96) else frame.landmarks, frame.time_s))
            for i, frame in enumerate(sample_track())
        ]
    )
    assert np.ptp(wanted, 0).max() > 0.1  # so that something moves
    np.testing.assert_allclose(got, wanted, atol=1e-4)


@pytest.mark.swift
@needs_swift
@pytest.mark.parametrize("name", ["index_last.mp4", "index_first.mp4"])
def test_a_video_that_the_phone_tagged_says_that_it_is_ai_generated_and_plays_as_before(checked, check_tagged, name):
    check_tagged(checked[1] / name, checked[1] / f"tagged_{name}")


@pytest.mark.swift
@needs_swift
def test_a_result_of_the_phone_is_one_that_we_read_and_that_meets_the_schema(checked):
    text = (checked[1] / "result_of_swift.json").read_bytes()
    Draft202012Validator(schema()).validate(json.loads(text))
    result = Result.from_json(text, "result_of_swift.json")
    assert result.stages_ms["network"].p50 == 2 and result.stages_ms["display"] is None and result.fps == 29.97
    assert result.over_time == (Moment(0, 30, "nominal", None),)


@pytest.mark.swift
@needs_swift
def test_the_phone_names_a_bundle_by_the_hash_and_the_size_that_we_do(checked):
    result = Result.from_json((checked[1] / "result_of_swift.json").read_bytes(), "result_of_swift.json")
    assert result.bundle_sha256 == hashlib.sha256((shipped_bundle() / "manifest.json").read_bytes()).hexdigest()
    assert result.bundle_mib == sum(file.stat().st_size for file in shipped_bundle().iterdir()) / 2**20


def test_a_missing_tool_is_named_with_the_way_to_get_it(tmp_path):
    done = check(PATH=str(tmp_path), MOBILE_BILAYER_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 2 and "swift is not installed. Get it from" in done.stderr
    assert not (tmp_path / "cache").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can install Swift")
def test_an_install_that_fails_leaves_nothing_behind(tmp_path):
    broken = tmp_path / "bin" / "debootstrap"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\necho no network; exit 1\n")
    broken.chmod(0o755)
    unshare = shutil.which("unshare")
    assert unshare is not None
    (broken.parent / "unshare").symlink_to(unshare)
    cache = tmp_path / "cache"
    done = check("--install", PATH=f"{broken.parent}{os.pathsep}/bin", MOBILE_BILAYER_CACHE=str(cache))
    assert done.returncode == 2 and "could not fetch Swift (no network)" in done.stderr
    assert not list(cache.iterdir())
