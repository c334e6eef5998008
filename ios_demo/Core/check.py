#!/usr/bin/env python3
"""Build Core with warnings as errors, run its tests and hold its sources to its format: `python ios_demo/Core/check.py`.

Needs Swift 6: the one on PATH, or on Debian one in a folder of its own, which `--install` fetches (root, debootstrap, 0.6 GB to
download, 3 GB on disk). Exits with 0 when all is well, 1 when code, tests or format are wrong, 2 when something is missing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

CORE = Path(__file__).resolve().parent
REPOSITORY = CORE.parents[1]
SUITE = "trixie"  # Debian's first release with Swift
PACKAGES = "swiftlang,ca-certificates,libc6-dev,libstdc++-14-dev,libncurses-dev,zlib1g-dev,git,binutils"
# Optimised, for it is this code's speed and memory that matter; tests look at what is internal.
BUILD = ["-c", "release", "--build-tests", "-Xswiftc", "-enable-testing", "-Xswiftc", "-warnings-as-errors"]
# The tool chain's folder becomes the root, with this repository and the folders that are named in their usual places; nothing of it
# is seen outside the process. $1 is the folder, up to "--" come those to be seen, behind it the command.
INSIDE = """
set -e
root="$1"; shift
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
while [ "$1" != -- ]; do mkdir -p "$root$1"; mount --bind "$1" "$root$1"; shift; done
shift
exec chroot "$root" "$@"
"""


class Missing(Exception):
    """Something that has to be installed first."""


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--only", help="run the tests whose names match this pattern, and nothing else")
    arguments.add_argument("--install", action="store_true", help="fetch Swift, if it is not there yet, and stop")
    arguments.add_argument(
        "--build-folder", type=Path, default=CORE / ".build", help="where to build (default: .build)"
    )
    given = arguments.parse_args()
    try:
        swift = Swift(given.install)
    except Missing as missing:
        print(f"check.py: {missing}", file=sys.stderr)
        return 2
    if given.install:
        return 0
    given.build_folder.mkdir(parents=True, exist_ok=True)
    seen = [given.build_folder.resolve()]
    if exchange := os.environ.get("MOBILE_BILAYER_EXCHANGE"):
        seen.append(Path(exchange).resolve())
    options = ["--package-path", str(CORE), "--scratch-path", str(seen[0]), *BUILD]
    steps = {
        "format": ["format", "lint", "--strict", "--recursive", "Sources", "Tests", "Package.swift"],
        "build": ["build", *options],
        "test": ["test", "--skip-build", *[o for o in options if o != "--build-tests"]],
    }
    if given.only:
        del steps["format"]
        steps["test"] += ["--filter", given.only]
    wrong = [name for name, command in steps.items() if swift.run(command, seen)]
    if wrong:
        print(f"check.py: wrong: {', '.join(wrong)}", file=sys.stderr)
    return 1 if wrong else 0


class Swift:
    """Swift as it is on PATH, or in a folder with a Debian of its own."""

    def __init__(self, install: bool) -> None:
        self.root = None
        # Debian keeps debootstrap and chroot where not every PATH looks.
        os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])
        if shutil.which("swift"):
            return
        self.root = cache_folder() / f"swift-{SUITE}"
        if not os.path.lexists(self.root / "usr/bin/swift"):  # a link that leads somewhere inside alone
            if not install:
                raise Missing(
                    "swift is not installed. Get it from swift.org, or on Debian run this again with --install."
                )
            fetch(self.root)
        if os.geteuid():
            raise Missing(f"Swift in {self.root} needs root, to be run in its own folder. Run this as root.")
        tool("unshare", "apt-get install util-linux")

    def run(self, command: list[str], seen: list[Path]) -> int:
        """`swift` with this command, in Core's folder; its exit code."""
        print(f"swift {' '.join(command)}", flush=True)
        return self.call(["swift", *command], seen)

    def call(self, command: list[str], seen: list[Path]) -> int:
        """The same of any program of the tool chain, without telling."""
        if self.root is None:
            return subprocess.run(command, cwd=CORE).returncode
        exchange = os.environ.get("MOBILE_BILAYER_EXCHANGE")
        inside = ["env", "-i", "-C", str(CORE), "PATH=/usr/bin:/bin", "HOME=/tmp"]
        if exchange:
            inside.append(f"MOBILE_BILAYER_EXCHANGE={Path(exchange).resolve()}")
        folders = [str(REPOSITORY), *map(str, seen)]
        mounted = ["unshare", "--mount", "sh", "-c", INSIDE, "sh", str(self.root), *folders, "--"]
        return subprocess.run([*mounted, *inside, *command]).returncode


def tool(name: str, remedy: str) -> str:
    found = shutil.which(name)
    if not found:
        raise Missing(f"{name} is not installed. Run `{remedy}`.")
    return found


def cache_folder() -> Path:
    """MOBILE_BILAYER_CACHE, or the user's cache."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mobile_bilayer"
    return Path(os.environ.get("MOBILE_BILAYER_CACHE") or usual)


def fetch(root: Path) -> None:
    """A small Debian with Swift in `root`, which appears when it is whole."""
    if os.geteuid():
        raise Missing("Swift can only be installed by root. Run this as root, or get Swift from swift.org.")
    debootstrap = tool("debootstrap", "apt-get install debootstrap")
    aside = root.with_name(f"{root.name}.part")
    remove(aside)
    aside.mkdir(parents=True)
    print(f"Fetching Swift into {root}", flush=True)
    command = [debootstrap, "--variant=minbase", f"--include={PACKAGES}", SUITE, str(aside)]  # from its usual mirror
    # In mounts of its own: what debootstrap mounts in the folder is gone when it ends.
    done = subprocess.run(["unshare", "--mount", *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        remove(aside)
        raise Missing(
            f"debootstrap could not fetch Swift ({done.stdout.strip()[-300:]}). Check the network, and try again."
        )
    shutil.rmtree(aside / "var/cache/apt/archives", ignore_errors=True)
    aside.rename(root)


def remove(folder: Path) -> None:
    """What an earlier try left; never what is mounted in it."""
    if folder.exists():
        if any(line.split()[1].startswith(f"{folder}/") for line in Path("/proc/mounts").read_text().splitlines()):
            raise Missing(f"{folder} still has mounts in it. Run `umount` on them, and try again.")
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
