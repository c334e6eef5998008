"""The Android app, as far as it can be checked without a phone or an Android SDK: types, manifest, resources, assets, native libraries."""

import hashlib
import importlib.util
import os
import re
import shutil
import struct
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from mobile_bilayer import Avatar, Bundle
from mobile_bilayer.capture.images import AI_GENERATED, read_image
from mobile_bilayer.samples import SAMPLES

DEMO = Path(__file__).parents[2] / "android_demo"
MAIN = DEMO / "app" / "src" / "main"
TOOLS = ("java", "npm", "aapt2")
needs_tools = pytest.mark.skipif(
    any(shutil.which(name) is None for name in TOOLS) or not Path("/usr/lib/apt/apt-helper").exists(),
    reason="needs Java 17, npm, aapt2 and Debian's apt: android_demo/README.md",
)


def run(script: Path, *arguments, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(script), *map(str, arguments)]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)


def copied(to: Path) -> Path:
    """The demo's sources in another place, to be broken."""
    ignored = shutil.ignore_patterns("bundles", "portraits", "*.task", "build", "__pycache__", "test")
    return Path(shutil.copytree(DEMO, to / "repository" / "android_demo", ignore=ignored))


@needs_tools
def test_the_whole_app_type_checks_and_its_manifest_and_resources_link():
    done = run(DEMO / "typecheck" / "check.py")
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-10_000:]
    assert "Compiling android_demo/app/src/androidTest/kotlin" in done.stdout


@needs_tools
def test_a_wrong_type_in_the_app_is_seen(tmp_path):
    demo = copied(tmp_path)
    # A small app and core with one mistake: what is checked is the way there, and this takes a third of the time.
    for file in demo.glob("*/src/main/kotlin/dev/mobilebilayer/*/*.kt"):
        if file.name not in ("Heat.kt", "FramePacer.kt"):
            file.unlink()
    file = demo / "app/src/main/kotlin/dev/mobilebilayer/demo/Heat.kt"
    text = file.read_text("utf-8")
    assert text.count(".currentThermalStatus") == 1
    file.write_text(text.replace(".currentThermalStatus", ".currentThermalStatus.toString()"), "utf-8")
    done = run(demo / "typecheck" / "check.py")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Heat.kt" in done.stderr and "does not compile" in done.stderr


@needs_tools
def test_a_text_that_is_not_in_the_resources_is_seen(tmp_path):
    demo = copied(tmp_path)
    layout = demo / "app/src/main/res/layout/live.xml"
    layout.write_text(layout.read_text("utf-8").replace("@string/record", "@string/no_such_text"), "utf-8")
    done = run(demo / "typecheck" / "check.py")
    assert done.returncode == 1 and "no_such_text" in done.stderr and "aapt2 link refuses" in done.stderr


@needs_tools
def test_the_wrapper_is_gradles_own_and_takes_the_version_that_it_names():
    """The hashes are those that Gradle publishes of 9.3.1: of gradle-wrapper.jar, and of the archive that it fetches."""
    wrapper = DEMO / "gradle" / "wrapper"
    jar = hashlib.sha256((wrapper / "gradle-wrapper.jar").read_bytes()).hexdigest()
    assert jar == "b3a875ddc1f044746e1b1a55f645584505f4a10438c1afea9f15e92a7c42ec13"
    properties = (wrapper / "gradle-wrapper.properties").read_text("utf-8")
    assert "distributions/gradle-9.3.1-bin.zip" in properties
    assert "distributionSha256Sum=b266d5ff6b90eada6dc3b20cb090e3731302e553a27c5d3e4df1f0d76beaff06" in properties
    assert os.access(DEMO / "gradlew", os.X_OK)


def test_a_stub_of_another_version_than_gradle_takes_is_seen(tmp_path):
    demo = copied(tmp_path)
    catalog = demo / "gradle" / "libs.versions.toml"
    catalog.write_text(catalog.read_text("utf-8").replace('camerax = "', 'camerax = "9.'), "utf-8")
    done = run(demo / "typecheck" / "check.py")
    assert done.returncode == 1 and re.search(r"stands for androidx.camera:camera-\w+ 1\S+; .* has 9\.", done.stderr)


def test_a_missing_tool_of_the_type_check_is_named_with_the_way_to_get_it(tmp_path):
    done = run(DEMO / "typecheck" / "check.py", PATH=str(tmp_path))
    assert done.returncode == 2 and "java is not installed. Run `apt-get install" in done.stderr


def test_the_app_is_built_with_the_runtime_that_exports_its_bundles():
    versions = tomllib.loads((DEMO / "gradle" / "libs.versions.toml").read_text("utf-8"))["versions"]
    program = (MAIN / "kotlin/dev/mobilebilayer/demo/ExecuTorchProgram.kt").read_text("utf-8")
    assert re.search(r'EXECUTORCH = "(.*)"', program)[1] == versions["executorch"] == version("executorch")
    compiler = re.search(r'COMPILER = "kotlin-compiler@(.*)"', (DEMO / "toolchain.py").read_text("utf-8"))[1]
    assert compiler == versions["kotlin"]


def test_every_text_for_people_is_in_the_resources_and_every_one_is_used():
    strings = re.findall(r'<string name="(\w+)"', (MAIN / "res/values/strings.xml").read_text("utf-8"))
    kotlin = {file.name: file.read_text("utf-8") for file in MAIN.rglob("*.kt")}
    others = "".join(file.read_text("utf-8") for file in MAIN.rglob("*.xml"))
    code = "".join(kotlin.values())
    assert (
        kotlin
        and [name for name in strings if f"R.string.{name}" not in code and f"@string/{name}" not in others] == []
    )
    for name, text in kotlin.items():
        assert not re.search(r'MobileBilayerError\(\s*"|setText\("|\.text = "\w|setTitle\("|setMessage\("', text), name
    assert not re.search(r'android:(text|label|contentDescription)="[^@]', others)


def test_the_benchmark_is_where_its_driver_script_looks_for_it():
    test = (DEMO / "app/src/androidTest/kotlin/dev/mobilebilayer/demo/BenchmarkTest.kt").read_text("utf-8")
    build = (DEMO / "app/build.gradle.kts").read_text("utf-8")
    assert "package dev.mobilebilayer.demo\n" in test and "class BenchmarkTest" in test
    assert 'getString("seconds")' in test
    assert 'applicationId = "dev.mobilebilayer.demo"' in build
    assert 'testInstrumentationRunner = "androidx.test.runner.AndroidJUnitRunner"' in build
    assert 'getExternalFilesDir("benchmark")' in (MAIN / "kotlin/dev/mobilebilayer/demo/BenchmarkRun.kt").read_text(
        "utf-8"
    )


def test_one_command_puts_bundle_landmarker_and_portraits_into_the_app(tmp_path):
    to = tmp_path / "assets"
    (to / "bundles" / "an older one").mkdir(parents=True)
    (to / "composite.frag").write_text("kept")
    done = run(DEMO / "assets.py", "--to", to)
    assert done.returncode == 0, done.stderr
    (bundle,) = (to / "bundles").iterdir()
    opened = Bundle.open(bundle)
    assert opened.manifest == Bundle.open().manifest
    assert (to / "composite.frag").read_text() == "kept" and (to / "face_landmarker.task").stat().st_size > 1_000_000
    for name in SAMPLES:
        assert Avatar.load(to / "portraits" / f"{name}.avatar", opened).texture.std() > 20
        assert read_image(to / "portraits" / f"{name}.jpg").shape[2] == 3
        assert AI_GENERATED.encode() not in (to / "portraits" / f"{name}.jpg").read_bytes()  # it is a photo


def test_bundles_that_one_app_can_not_hold_are_refused_and_nothing_changes(tmp_path):
    to = tmp_path / "assets"
    shipped = Bundle.open().where
    twin = shutil.copytree(shipped, tmp_path / "twin")
    vulkan = Path(shutil.copytree(shipped, tmp_path / "vulkan"))
    manifest = vulkan / "manifest.json"
    manifest.write_text(manifest.read_text("utf-8").replace('"backend": "xnnpack"', '"backend": "vulkan"'), "utf-8")
    for bundles, why in (
        ([shipped, twin], "Name each once"),
        ([vulkan], "Add one"),
        ([tmp_path / "none"], "does not exist"),
    ):
        done = run(DEMO / "assets.py", "--to", to, *(part for bundle in bundles for part in ("--bundle", bundle)))
        assert done.returncode == 2 and why in done.stderr, done.stderr
        assert not to.exists()


def elf(aligns: list[int], bits: int = 64, offset: int = 0) -> bytes:
    """An ELF file's headers: one loaded part for each alignment, and one that is not loaded."""
    head = b"\x7fELF" + bytes([2 if bits == 64 else 1, 1, 1]) + bytes(9)
    head += struct.pack("<HHIQQQIHHHHHH", 3, 183, 1, 0, 64, 0, 0, 64, 56, len(aligns) + 1, 0, 0, 0)
    parts = [struct.pack("<IIQQQQQQ", 1, 5, offset, 0x10000 * i, 0, 8, 8, align) for i, align in enumerate(aligns)]
    return head + b"".join(parts) + struct.pack("<IIQQQQQQ", 4, 4, 0, 0, 0, 8, 8, 4)


def apk(path: Path, libraries: dict[str, bytes], aligned: bool = True) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("AndroidManifest.xml", "x" * 100)
        for name, content in libraries.items():
            entry = zipfile.ZipInfo(f"lib/{name}")
            gap = -(archive.fp.tell() + 30 + len(entry.filename)) % 0x4000  # as zipalign does, in the extra field
            entry.extra = struct.pack("<HH", 0xD935, gap - 4) + bytes(gap - 4) if aligned else b""
            archive.writestr(entry, content)
    return path


def test_AN4_libraries_aligned_for_pages_of_16_kb_pass(tmp_path):
    good = {"arm64-v8a/libone.so": elf([0x4000, 0x10000]), "armeabi-v7a/libold.so": elf([0x1000], bits=32)}
    done = run(DEMO / "check_apk.py", apk(tmp_path / "app.apk", good))
    assert done.returncode == 0 and "2 native libraries" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("library", "why"),
    [
        (elf([0x4000, 0x1000]), "loaded part 2 is aligned to 0x1000, not to 0x4000"),
        (elf([0]), "loaded part 1 is aligned to 0x0"),
        (elf([0x4000], offset=0x1000), "loaded part 1 lies at 0x1000 for 0x0, which differ"),
    ],
)
def test_AN4_a_library_for_pages_of_4_kb_fails_the_build_and_is_named(tmp_path, library, why):
    done = run(
        DEMO / "check_apk.py",
        apk(tmp_path / "app.apk", {"x86_64/libgood.so": elf([0x4000]), "arm64-v8a/libbad.so": library}),
    )
    assert done.returncode == 1
    assert f"lib/arm64-v8a/libbad.so: {why}" in done.stderr and "libgood" not in done.stderr


def test_AN4_a_library_that_lies_askew_in_the_apk_fails(tmp_path):
    done = run(DEMO / "check_apk.py", apk(tmp_path / "app.apk", {"arm64-v8a/libone.so": elf([0x4000])}, aligned=False))
    assert done.returncode == 1 and "no multiple of 0x4000" in done.stderr


@needs_tools
def test_AN4_real_libraries_of_an_android_build_are_read(tmp_path):
    specification = importlib.util.spec_from_file_location("typecheck_android", DEMO / "typecheck" / "check.py")
    typecheck = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(typecheck)
    real = (typecheck.executorch_package(typecheck.cache_folder()) / typecheck.NATIVE_LIBRARY).read_bytes()
    done = run(DEMO / "check_apk.py", apk(tmp_path / "app.apk", {"arm64-v8a/libcpuinfo.so": real}))
    assert done.returncode == 0, done.stderr
    # The same with the alignment of its loaded parts taken down to 4 KB.
    (table,) = struct.unpack_from("<Q", real, 32)
    bad = bytearray(real)
    for i in range(struct.unpack_from("<H", real, 56)[0]):
        if struct.unpack_from("<I", real, table + 56 * i)[0] == 1:
            struct.pack_into("<Q", bad, table + 56 * i + 48, 0x1000)
    done = run(DEMO / "check_apk.py", apk(tmp_path / "bad.apk", {"arm64-v8a/libcpuinfo.so": bytes(bad)}))
    assert done.returncode == 1 and "aligned to 0x1000" in done.stderr


def test_AN4_what_is_no_app_is_refused(tmp_path):
    text = tmp_path / "text.apk"
    text.write_text("not an app")
    cases = [(text, "can't be read as an APK"), (tmp_path / "none.apk", "can't be read")]
    cases += [
        (apk(tmp_path / "empty.apk", {}), "no native library"),
        (apk(tmp_path / "odd.apk", {"x86_64/a.so": b"odd"}), "is no library"),
    ]
    for path, why in cases:
        done = run(DEMO / "check_apk.py", path)
        assert done.returncode == 2 and why in done.stderr, done.stderr


def test_the_tag_that_the_app_writes_is_in_pythons_words():
    tag = (DEMO / "core/src/main/kotlin/dev/mobilebilayer/core/Mp4Tag.kt").read_text("utf-8")
    assert re.search(r'AI_GENERATED = "(.*)"', tag)[1] == AI_GENERATED
