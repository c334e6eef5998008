#!/usr/bin/env python3
"""Check the whole app without an Android SDK: `python android_demo/typecheck/check.py`.

Its manifest and resources go through aapt2, and all of its Kotlin, the instrumented tests and core included, through the real
compiler: against the Android API (of level 23, the newest that Debian has), ExecuTorch's own classes, and stubs for the rest. Nothing
is run. Needs Java 17, aapt2, npm and Debian's apt (`apt-get install default-jdk-headless aapt npm`); fetches 140 MB once into a
cache folder. Exits with 0 when all is right, 1 when something of the app is wrong, 2 when something is missing.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent
sys.path.insert(0, str(DEMO))
from toolchain import (  # noqa: E402
    Missing,
    Wrong,
    cache_folder,
    check_hash,
    compile_kotlin,
    compiler,
    keep,
    npm_package,
    run,
    tool,
)

APP = DEMO / "app" / "src"
STUBS = HERE / "stubs"
NEWER = HERE / "newer"  # of Android itself, behind API 23: minSdk is 26, and more is guarded
CATALOG = DEMO / "gradle" / "libs.versions.toml"
PACKAGE = "dev.mobilebilayer.demo"
EXECUTORCH = "react-native-executorch@0.9.3"  # it carries the classes of ExecuTorch's AAR, which only Maven has
EXECUTORCH_SHA256 = "70a20a865b82f47ac46c82711d93c2038cf99eccbb9b287494219063f2217622"
EXECUTORCH_CLASSES = "android/libs/classes.jar"
NATIVE_LIBRARY = "third-party/android/libs/cpuinfo/arm64-v8a/libcpuinfo.so"  # what check_apk.py's test looks at
ANDROID = "libandroid-23-java_6.0.1+r72-6_all.deb"  # of Debian bullseye
ANDROID_SHA256 = "8af1b6df556971dda0a6da3536ea526a838e0c363afcdd454213d8bce94793e3"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--android-jar", type=Path, help="an android.jar of an SDK of yours, in place of API 23's")
    given = arguments.parse_args()
    return run(lambda: check(given.android_jar))


def check(android: Path | None) -> int:
    java = tool("java", "apt-get install default-jdk-headless")
    aapt2 = tool("aapt2", "apt-get install aapt")
    check_versions()
    cache = cache_folder()
    kotlin = compiler(cache)
    android = android or android_jar(cache)
    executorch = executorch_package(cache) / EXECUTORCH_CLASSES
    with tempfile.TemporaryDirectory(prefix="app-") as build:
        generated, core, app, tests = (Path(build, name) for name in ("generated", "core", "app", "tests"))
        resources(aapt2, android, Path(build), generated)
        # -no-jdk: what a phone lacks of Java is not there. Java is looked at, not compiled.
        compile_kotlin(
            java, kotlin, [DEMO / "core/src/main/kotlin", NEWER], core, [android], "core", "-no-jdk"
        )
        libraries = [core, android, executorch]
        compile_kotlin(java, kotlin, [APP / "main/kotlin", STUBS, NEWER, generated], app, libraries, "app", "-no-jdk")
        friends = f"-Xfriend-paths={app}"
        classes = [app, *libraries]
        sources = [APP / "androidTest/kotlin", STUBS, NEWER, generated]
        compile_kotlin(java, kotlin, sources, tests, classes, "app_test", "-no-jdk", friends)
    print("The app type-checks; its manifest and resources link. Nothing was run.")
    return 0


def android_jar(cache: Path) -> Path:
    """Android's API as Debian built it from source. From the mirror that apt uses, by apt's own downloader."""
    jar = cache / "android-23.jar"
    if jar.is_file():
        return jar
    helper = Path("/usr/lib/apt/apt-helper")
    if not helper.exists():
        raise Missing(
            "Android's API comes from Debian, and apt is not here. Name one of an Android SDK with --android-jar."
        )
    sites = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(SITE)"], capture_output=True, text=True
    ).stdout.split()
    mirrors = sorted({site for site in sites if site.endswith("/debian")})
    if not mirrors:
        raise Missing(
            "Android's API comes from Debian, and apt here names no mirror of it. Name one of an Android SDK with --android-jar."
        )
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="android-", dir=cache) as aside:
        package = Path(aside, ANDROID)
        for site in mirrors:
            print(f"Fetching {ANDROID} from {site} into {cache}", flush=True)
            address = f"{site}/pool/main/a/android-framework-23/{ANDROID}"
            done = subprocess.run([str(helper), "download-file", address, str(package)], capture_output=True, text=True)
            if done.returncode == 0:
                break
        else:
            raise Missing(
                f"{ANDROID} could not be fetched ({done.stderr.strip()[-300:]}). Check the network, and try again."
            )
        check_hash(package, ANDROID_SHA256, ANDROID)
        subprocess.run(["dpkg", "-x", str(package), str(Path(aside, "x"))], check=True)
        keep(Path(aside, "x/usr/share/java/com.android.android-23.jar"), jar)
    return jar


def executorch_package(cache: Path) -> Path:
    return npm_package(EXECUTORCH, EXECUTORCH_SHA256, cache, [EXECUTORCH_CLASSES, NATIVE_LIBRARY])


def check_versions() -> None:
    """A stub stands for the version that Gradle takes, where Gradle names one."""
    catalog = tomllib.loads(CATALOG.read_text("utf-8"))
    versions = {}
    for library in catalog["libraries"].values():
        version = library["version"]
        versions[library["module"]] = catalog["versions"][version["ref"]] if isinstance(version, dict) else version
    for stub in sorted(p for p in STUBS.rglob("*.*") if p.is_file()):
        named = re.match(r"// Stands for (\S+:\S+):([^:\s]+):", stub.read_text("utf-8"))
        if named and versions.get(named[1], named[2]) != named[2]:
            raise Wrong(f"{stub.name} stands for {named[1]} {named[2]}; {CATALOG.name} has {versions[named[1]]}.")


def resources(aapt2: str, android: Path, build: Path, generated: Path) -> None:
    """Compile and link the manifest, resources and assets, as the Android Gradle plugin does; R.java comes of it."""
    compiled = build / "resources.zip"
    aapt(aapt2, "compile", "--dir", str(APP / "main/res"), "-o", str(compiled))
    manifest = build / "AndroidManifest.xml"
    text = (APP / "main/AndroidManifest.xml").read_text("utf-8")
    # What Gradle fills in.
    text = text.replace("<manifest ", f'<manifest package="{PACKAGE}" ', 1).replace("${applicationId}", PACKAGE)
    manifest.write_text(text, "utf-8")
    aapt(
        *[
            aapt2,
            "link",
            "-I",
            str(android),
            "--manifest",
            str(manifest),
            "-o",
            str(build / "app.apk"),
            "--auto-add-overlay",
        ],
        *["--min-sdk-version", "26", "--target-sdk-version", "36", "-A", str(APP / "main/assets")],
        *["--java", str(generated), str(compiled)],
    )


def aapt(*command: str) -> None:
    print(f"Running aapt2 {command[1]}", flush=True)
    if subprocess.run(command).returncode:
        raise Wrong(f"aapt2 {command[1]} refuses the app's manifest or resources.")


if __name__ == "__main__":
    sys.exit(main())
