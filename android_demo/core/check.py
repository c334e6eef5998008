#!/usr/bin/env python3
"""Compile core with warnings as errors, and run its tests on this machine's JVM: `python android_demo/core/check.py`.

Needs Java 17 and JUnit 5 (Debian: `apt-get install default-jdk-headless junit5`) and npm, which fetches the Kotlin compiler once,
90 MB, into a cache folder. Exits with 0 when all tests pass, 1 when code or tests are wrong, 2 when something is missing.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

CORE = Path(__file__).resolve().parent
TEMPLATE = CORE.parents[1] / "mobile_bilayer" / "assets" / "face_template.safetensors"
COMPILER = "kotlin-compiler@2.4.20"
COMPILER_SHA256 = "c23dab400d7ce5ea8b6c909947c0ca5454189e4bb1108695b5f464500e5e950f"
JUNIT = Path("/usr/share/java/junit-platform-console-standalone.jar")
JVM_TARGET = "11"


class Missing(Exception):
    """Something that has to be installed first."""


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--junit", type=Path, default=JUNIT, help=f"JUnit 5's console launcher (default: {JUNIT})")
    arguments.add_argument("--only", help="run the tests of classes whose names match this pattern")
    given = arguments.parse_args()
    try:
        java = tool("java", "apt-get install default-jdk-headless")
        if not given.junit.is_file():
            raise Missing(f"{given.junit} is not there. Run `apt-get install junit5`, or name the file with --junit.")
        kotlin = compiler(cache_folder())
    except Missing as missing:
        print(f"check.py: {missing}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="core-") as build:
        main_classes, test_classes = Path(build, "main"), Path(build, "test")
        tests = [kotlin / "lib" / name for name in ("kotlin-test.jar", "kotlin-test-junit5.jar")] + [given.junit]
        compile_kotlin(java, kotlin, CORE / "src/main/kotlin", main_classes, [], "core")
        shutil.copy(TEMPLATE, main_classes)  # as processResources does in build.gradle.kts
        # Tests may look at what is internal, as they may in Gradle.
        friends = [f"-Xfriend-paths={main_classes}"]
        compile_kotlin(
            java, kotlin, CORE / "src/test/kotlin", test_classes, [main_classes, *tests], "core_test", friends
        )
        return run_tests(java, [test_classes, main_classes, kotlin / "lib" / "kotlin-stdlib.jar", *tests], given.only)


def tool(name: str, remedy: str) -> str:
    found = shutil.which(name)
    if not found:
        raise Missing(f"{name} is not installed. Run `{remedy}`.")
    return found


def cache_folder() -> Path:
    """MOBILE_BILAYER_CACHE, or the user's cache."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mobile_bilayer"
    return Path(os.environ.get("MOBILE_BILAYER_CACHE") or usual)


def compiler(cache: Path) -> Path:
    """The folder of the Kotlin compiler; fetched and checked if it is not there yet. It appears when it is whole."""
    folder = cache / COMPILER.replace("@", "-")
    if folder.is_dir():
        return folder
    npm = tool("npm", "apt-get install npm")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="kotlin-", dir=cache) as aside:
        print(f"Fetching {COMPILER} into {cache}", flush=True)
        done = subprocess.run([npm, "pack", "--silent", COMPILER], cwd=aside, capture_output=True, text=True)
        packed = next(Path(aside).glob("*.tgz"), None)
        if done.returncode or packed is None:
            raise Missing(
                f"npm could not fetch {COMPILER} ({done.stderr.strip()[-300:]}). Check the network, and try again."
            )
        got = hashlib.sha256(packed.read_bytes()).hexdigest()
        if got != COMPILER_SHA256:
            raise Missing(
                f"{COMPILER} has sha256 {got[:12]}…, not {COMPILER_SHA256[:12]}…. Do not use it; try another registry."
            )
        with tarfile.open(packed) as archive:
            archive.extractall(aside, filter="data")
        try:
            Path(aside, "package").rename(folder)
        except OSError:
            if not folder.is_dir():  # another check was faster
                raise
    return folder


def compile_kotlin(
    java: str, kotlin: Path, source: Path, output: Path, classes: list[Path], name: str, more: list[str] | None = None
) -> None:
    print(f"Compiling {source.relative_to(CORE)}", flush=True)
    command = [
        *[java, "-Xmx1g", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"],  # quickest for the few seconds that it runs
        *["-cp", str(kotlin / "lib" / "kotlin-compiler.jar"), "org.jetbrains.kotlin.cli.jvm.K2JVMCompiler"],
        *["-kotlin-home", str(kotlin), "-Werror", "-jvm-target", JVM_TARGET, f"-Xjdk-release={JVM_TARGET}"],
        *["-module-name", name, "-d", str(output), *(more or [])],
        *(["-cp", os.pathsep.join(map(str, classes))] if classes else []),
        str(source),
    ]
    if subprocess.run(command).returncode:
        print(f"check.py: {source.relative_to(CORE)} does not compile.", file=sys.stderr)
        raise SystemExit(1)


def run_tests(java: str, classes: list[Path], only: str | None) -> int:
    command = [
        *[java, "-ea", "-XX:+UseSerialGC", "-cp", os.pathsep.join(map(str, classes))],
        *["org.junit.platform.console.ConsoleLauncher", "--scan-classpath", str(classes[0]), "--fail-if-no-tests"],
        *["--disable-banner", "--disable-ansi-colors", "--details=tree", "--include-engine=junit-jupiter"],
        *(["--include-classname", only] if only else []),
    ]
    return 1 if subprocess.run(command, cwd=CORE).returncode else 0


if __name__ == "__main__":
    sys.exit(main())
