#!/usr/bin/env python3
"""Compile core with warnings as errors, and run its tests on this machine's JVM: `python android_demo/core/check.py`.

Needs Java 17 and JUnit 5 (Debian: `apt-get install default-jdk-headless junit5`) and npm, which fetches the Kotlin compiler once,
90 MB, into a cache folder. Exits with 0 when all tests pass, 1 when code or tests are wrong, 2 when something is missing.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

CORE = Path(__file__).resolve().parent
sys.path.insert(0, str(CORE.parent))
from toolchain import JVM_TARGET, ROOT, Missing, cache_folder, compile_kotlin, compiler, run, tool  # noqa: E402

TEMPLATE = ROOT / "mobile_bilayer" / "assets" / "face_template.safetensors"
JUNIT = Path("/usr/share/java/junit-platform-console-standalone.jar")


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--junit", type=Path, default=JUNIT, help=f"JUnit 5's console launcher (default: {JUNIT})")
    arguments.add_argument("--only", help="run the tests of classes whose names match this pattern")
    given = arguments.parse_args()
    return run(lambda: check(given.junit, given.only))


def check(junit: Path, only: str | None) -> int:
    java = tool("java", "apt-get install default-jdk-headless")
    if not junit.is_file():
        raise Missing(f"{junit} is not there. Run `apt-get install junit5`, or name the file with --junit.")
    kotlin = compiler(cache_folder())
    with tempfile.TemporaryDirectory(prefix="core-") as build:
        main_classes, test_classes = Path(build, "main"), Path(build, "test")
        tests = [kotlin / "lib" / name for name in ("kotlin-test.jar", "kotlin-test-junit5.jar")] + [junit]
        release = f"-Xjdk-release={JVM_TARGET}"
        compile_kotlin(java, kotlin, [CORE / "src/main/kotlin"], main_classes, [], "core", release)
        shutil.copy(TEMPLATE, main_classes)  # as processResources does in build.gradle.kts
        # Tests may look at what is internal, as they may in Gradle.
        friends = f"-Xfriend-paths={main_classes}"
        classes = [main_classes, *tests]
        compile_kotlin(java, kotlin, [CORE / "src/test/kotlin"], test_classes, classes, "core_test", release, friends)
        return run_tests(java, [test_classes, main_classes, kotlin / "lib" / "kotlin-stdlib.jar", *tests], only)


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
