"""The iPhone's app, as far as it can be checked without Xcode: types against stubs, words, what others count on."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
DEMO = REPOSITORY / "ios_demo"
APP = DEMO / "App"
ANDROID = REPOSITORY / "android_demo"
CHECK = DEMO / "typecheck" / "check.py"
CACHE = os.environ.get("MOBILE_BILAYER_CACHE") or Path(
    os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "mobile_bilayer"
)
IN_FOLDER = os.path.lexists(Path(CACHE, "swift-trixie", "usr", "bin", "swift")) and os.geteuid() == 0
needs_swift = pytest.mark.skipif(
    shutil.which("swift") is None and not IN_FOLDER, reason="needs Swift 6: ios_demo/README.md"
)
specification = importlib.util.spec_from_file_location("typecheck_ios", CHECK)
typecheck = importlib.util.module_from_spec(specification)
specification.loader.exec_module(typecheck)


def run(script: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(script), *arguments]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)


@pytest.mark.swift
@needs_swift
def test_the_whole_app_and_its_tests_type_check_and_are_well_formed():
    done = run(CHECK)
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr[-10_000:]
    for name in ("ExecuTorchRuntime", "Demo", "DemoTests"):
        assert done.stdout.count(f"  {name}\n") == 2, name


@pytest.fixture
def small(tmp_path) -> Path:
    """The demo's sources in another place, to be broken: a Core and an app of one file each, which take a fraction of the time."""
    ignored = shutil.ignore_patterns(".build", "__pycache__", "Resources")
    demo = Path(shutil.copytree(DEMO, tmp_path / "repository" / "ios_demo", ignore=ignored))
    kept = {"MobileBilayerError.swift", "Heat.swift", "ExecuTorchRunner.swift"}
    for folder in ("Core/Sources", "App"):
        for file in (demo / folder).rglob("*.swift"):
            if file.name not in kept:
                file.unlink()
    for folder in (demo / "typecheck" / "stubs").iterdir():
        if folder.name not in ("Foundation", "XCTest", "ExecuTorch", "CoreGraphics", "CoreVideo", "CoreML"):
            shutil.rmtree(folder)
    (demo / "typecheck/stubs/CoreVideo/Metal.swift").unlink(missing_ok=True)
    (demo / "App/Tests/Empty.swift").write_text("import XCTest\n", "utf-8")
    return demo


@pytest.mark.swift
@needs_swift
@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('import Foundation\n\nfunc heatNow() -> Int { "warm" }\n', "does not compile as it is"),
        (
            "import CoreML\n\nfunc plan(_ plan: MLComputePlan) {}\n\nfunc heatNow() -> Int { 0 }\n",
            "does not compile as iOS 17 sees it",
        ),
        ("import Foundation\n\nfunc heatNow() -> Int {0}\n", "not well formed"),
    ],
)
def test_a_wrong_type_what_is_newer_than_the_oldest_ios_and_what_is_not_well_formed_are_seen(small, text, said):
    (small / "App/Sources/Heat.swift").write_text(text, "utf-8")
    done = run(small / "typecheck" / "check.py")
    assert done.returncode == 1 and said in done.stderr, done.stdout + done.stderr
    assert "Heat.swift" in done.stdout + done.stderr


def test_what_is_newer_than_the_oldest_ios_is_taken_out_and_no_line_moves():
    text = (APP / "Sources/Runtime/CoreMLProgram.swift").read_text("utf-8")
    assert "#available(iOS 17.4, *)" in text and "MLComputePlan.load(" in text
    old = typecheck.without_newer(text)
    assert "MLComputePlan.load(" not in old and "#available" not in old and "return nil" in old
    assert old.count("\n") == text.count("\n") and old.splitlines()[-3:] == text.splitlines()[-3:]
    stub = (
        "@available(iOS 17.0, *)\nstruct Known {}\n@available(iOS 18.0, *)\nstruct New {\n    let a = 1\n}\nlet b = 2\n"
    )
    assert typecheck.without_newer(stub) == "@available(iOS 17.0, *)\nstruct Known {}\n\n\n\n\nlet b = 2\n"


@pytest.mark.parametrize("asked", ["guard #available(iOS 18.0, *) else { return }", "if #available(iOS 18, *) {\n}"])
def test_a_way_of_asking_for_the_ios_that_the_check_does_not_understand_is_refused(asked):
    with pytest.raises(typecheck.Wrong, match=r"Ask by `if #available"):
        typecheck.without_newer(f"func f() {{\n    {asked}\n}}\n")


def test_a_missing_tool_of_the_type_check_is_named_with_the_way_to_get_it(tmp_path):
    done = run(CHECK, PATH=str(tmp_path), MOBILE_BILAYER_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 2 and "swift is not installed. Get it from" in done.stderr


def test_every_stub_says_what_it_stands_for_and_those_of_libraries_the_version_that_is_taken():
    catalog = tomllib.loads((ANDROID / "gradle/libs.versions.toml").read_text("utf-8"))["versions"]
    for stub in (DEMO / "typecheck/stubs").rglob("*.swift"):
        first = stub.read_text("utf-8").splitlines()[0]
        assert re.match(r"// Stands for .*(iOS 1\d|Xcode 16|\d+\.\d+\.\d+)", first), stub
    text = (DEMO / "typecheck/stubs/MediaPipeTasksVision/MediaPipeTasksVision.swift").read_text("utf-8")
    assert text.startswith(f"// Stands for MediaPipeTasksVision {catalog['mediapipe']},")
    text = (DEMO / "typecheck/stubs/ExecuTorch/ExecuTorch.swift").read_text("utf-8")
    assert text.startswith(f"// Stands for ExecuTorch {version('executorch')},")


def test_the_app_is_built_with_the_runtime_that_exports_its_bundles():
    runner = (APP / "Runtime/ExecuTorchRunner.swift").read_text("utf-8")
    assert re.search(r'execuTorchVersion = "(.*)"', runner)[1] == version("executorch")


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++: apt-get install g++")
def test_IO2_what_lists_the_registered_backends_calls_what_executorch_has(tmp_path):
    headers = Path(importlib.util.find_spec("executorch").submodule_search_locations[0], "include")
    source = (APP / "Runtime/RegisteredBackends.mm").read_text("utf-8").replace("#import", "#include")
    (tmp_path / "backends.cpp").write_text(source, "utf-8")
    c10 = headers / "executorch/runtime/core/portable_type/c10"
    options = ["-std=c++17", "-fsyntax-only", "-D_Nullable=", "-DC10_USING_CUSTOM_GENERATED_MACROS"]
    command = ["g++", *options, f"-I{headers}", f"-I{c10}", f"-I{APP / 'Runtime'}", str(tmp_path / "backends.cpp")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Words that Android's app has by the same name, and says otherwise: why.
OTHERWISE = {
    "whatRuns": "Core ML has compute units, and ExecuTorch's Swift interface tells no threads",
    "notLoaded": "there are two runtimes",
    "graphicsRefuse": "Metal",
    "benchmarkResult": "its end is put together",
}


def plain(text: str) -> str:
    """Whatever is filled in, and however it is formatted, as {}."""
    return (
        re.sub(r"%(\d+\$)?[.\d]*[sdf@]|\\\((?:[^()]|\([^()]*\))*\)", "{}", text).replace("%%", "%").replace("\\n", "\n")
    )


def android_words() -> dict[str, str]:
    strings = (ANDROID / "app/src/main/res/values/strings.xml").read_text("utf-8")
    words = {}
    for name, text in re.findall(r'<string name="(\w+)">(.*?)</string>', strings):
        first, *others = name.split("_")
        words[first + "".join(map(str.capitalize, others))] = plain(text.replace("\\'", "'"))
    return words


def ios_words() -> dict[str, str]:
    text = (APP / "Sources/Words.swift").read_text("utf-8")
    declared = re.split(r"    static (?:let|func) (?=\w)", text)[1:]
    literals = [(part, re.findall(r'"((?:[^"\\]|\\\([^()]*\)|\\.)*)"', part)) for part in declared]
    return {re.match(r"\w+", part)[0]: plain("".join(found)) for part, found in literals}


def test_both_apps_say_the_same_in_the_same_words():
    android, ios = android_words(), ios_words()
    both = android.keys() & ios.keys()
    assert len(both) > 40 and both >= OTHERWISE.keys()
    assert {name: ios[name] for name in both - OTHERWISE.keys() if ios[name] != android[name]} == {}
    assert [name for name in OTHERWISE if ios[name] == android[name]] == []


def test_the_benchmark_is_where_its_driver_script_looks_for_it():
    script = (REPOSITORY / "benchmarks/phones/ios.py").read_text("utf-8")
    target, case, test = re.search(r'TEST = "(\w+)/(\w+)/(\w+)"', script).groups()
    text = (APP / f"Tests/{case}.swift").read_text("utf-8")
    assert target == "DemoTests" and f"final class {case}: XCTestCase" in text and f"func {test}()" in text
    assert '"TEST_RUNNER_BENCHMARK_SECONDS"' in script and 'environment["BENCHMARK_SECONDS"]' in text
    # It looks for the one attachment that is called NAME.json.
    assert "attachment.name = measured.file.lastPathComponent" in text and text.count("add(attachment)") == 1
    run = (APP / "Sources/Benchmark/BenchmarkRun.swift").read_text("utf-8")
    assert re.search(r'appendingPathComponent\("[^"]*-s\.json"\)', run.replace('"yyyy-MM-dd_HH-mm-ss"', ""))


@pytest.mark.parametrize("row", ["AN1", "IO1", "IO2", "IO3"])
def test_the_rows_that_need_a_phone_have_tests_for_one(row):
    tests = "".join(file.read_text("utf-8") for file in (APP / "Tests").glob("*.swift"))
    assert re.search(rf"func test_{row}_\w+\(", tests)


def test_nothing_of_the_app_touches_sound_or_the_network():
    code = "".join(file.read_text("utf-8") for file in (APP / "Sources").rglob("*.swift"))
    assert "automaticallyConfiguresApplicationAudioSession = false" in code
    assert not re.search(r"AVAudioSession|AVCaptureDevice.default\([^)]*\.audio|URLSession|NWConnection", code)
