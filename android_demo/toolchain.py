"""What both checks need: the Kotlin compiler, and packages that are fetched once, checked by their hash, and kept.

Fetched files lie in MOBILE_BILAYER_CACHE, or in the user's cache; a file or folder appears there when it is whole.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMPILER = "kotlin-compiler@2.4.20"
COMPILER_SHA256 = "c23dab400d7ce5ea8b6c909947c0ca5454189e4bb1108695b5f464500e5e950f"
JVM_TARGET = "11"


class Missing(Exception):
    """Something that has to be installed first."""


class Wrong(Exception):
    """Something of ours that a tool refuses; what it said was printed."""


def tool(name: str, remedy: str) -> str:
    found = shutil.which(name)
    if not found:
        raise Missing(f"{name} is not installed. Run `{remedy}`.")
    return found


def cache_folder() -> Path:
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mobile_bilayer"
    return Path(os.environ.get("MOBILE_BILAYER_CACHE") or usual)


def compiler(cache: Path) -> Path:
    """The folder of the Kotlin compiler."""
    return npm_package(COMPILER, COMPILER_SHA256, cache)


def npm_package(name: str, sha256: str, cache: Path, only: Sequence[str] = ()) -> Path:
    """The folder of a package of the npm registry: all of it, or the files `only` (paths inside it)."""
    folder = cache / name.replace("@", "-")
    if folder.is_dir():
        return folder
    npm = tool("npm", "apt-get install npm")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="npm-", dir=cache) as aside:
        print(f"Fetching {name} into {cache}", flush=True)
        done = subprocess.run([npm, "pack", "--silent", name], cwd=aside, capture_output=True, text=True)
        packed = next(Path(aside).glob("*.tgz"), None)
        if done.returncode or packed is None:
            raise Missing(
                f"npm could not fetch {name} ({done.stderr.strip()[-300:]}). Check the network, and try again."
            )
        check_hash(packed, sha256, name)
        with tarfile.open(packed) as archive:
            wanted = [archive.getmember(f"package/{path}") for path in only]
            safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.4 brought it; the hash is known
            archive.extractall(aside, members=wanted or None, **safely)
        keep(Path(aside, "package"), folder)
    return folder


def check_hash(file: Path, sha256: str, name: str) -> None:
    got = hashlib.sha256(file.read_bytes()).hexdigest()
    if got != sha256:
        raise Missing(f"{name} has sha256 {got[:12]}…, not {sha256[:12]}…. Do not use it; try another registry.")


def keep(whole: Path, place: Path) -> None:
    """Move what is whole to its place in the cache."""
    try:
        whole.rename(place)
    except OSError:
        if not place.exists():  # else another check was faster
            raise


def compile_kotlin(
    java: str, kotlin: Path, sources: Sequence[Path], output: Path, classes: Sequence[Path], name: str, *more: str
) -> None:
    """Kotlin in folders `sources`, where Java may lie as well to be looked at, to `output`. Warnings are errors."""
    shown = ", ".join(str(s.relative_to(ROOT)) for s in sources if s.is_relative_to(ROOT))
    print(f"Compiling {shown}", flush=True)
    command = [
        *[java, "-Xmx1g", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"],  # quickest for the few seconds that it runs
        *["-cp", str(kotlin / "lib" / "kotlin-compiler.jar"), "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"],
        *["-kotlin-home", str(kotlin), "-Werror", "-jvm-target", JVM_TARGET],
        *["-module-name", name, "-d", str(output), *more],
        *(["-cp", os.pathsep.join(map(str, classes))] if classes else []),
        *map(str, sources),
    ]
    if subprocess.run(command).returncode:
        raise Wrong(f"{shown} does not compile.")


def run(check) -> int:
    """0 when all is right, 1 when something of ours is wrong, 2 when something is missing."""
    try:
        return check()
    except (Missing, Wrong) as error:
        print(f"check.py: {error}", file=sys.stderr)
        return 2 if isinstance(error, Missing) else 1
