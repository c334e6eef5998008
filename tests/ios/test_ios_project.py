"""The iOS app's project and what it ships, as far as they can be checked without Xcode: versions, flags, plists, assets, workflows."""

import os
import plistlib
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from mobile_bilayer import Avatar, Bundle
from mobile_bilayer.capture.images import AI_GENERATED, read_image
from mobile_bilayer.runtime.app_assets import MADE
from mobile_bilayer.runtime.executorch_file import DELEGATES
from mobile_bilayer.samples import SAMPLES

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "ios_demo"
ANDROID = ROOT / "android_demo"
APP = DEMO / "App"
# What asks for a reason in a privacy manifest, of Apple's list, by what our code would call.
REASONED = {
    "NSPrivacyAccessedAPICategoryUserDefaults": r"UserDefaults|@AppStorage|@SceneStorage",
    "NSPrivacyAccessedAPICategoryFileTimestamp": r"creationDate|modificationDate|\.contentModificationDate|\bfstat|\bgetattrlist",
    "NSPrivacyAccessedAPICategorySystemBootTime": r"systemUptime|mach_absolute_time",
    "NSPrivacyAccessedAPICategoryDiskSpace": r"volumeAvailableCapacity|systemFreeSize|\bstatv?fs",
    "NSPrivacyAccessedAPICategoryActiveKeyboards": r"activeInputModes",
}


@pytest.fixture(scope="module")
def project() -> dict:
    return yaml.safe_load((DEMO / "project.yml").read_text("utf-8"))


@pytest.fixture(scope="module")
def info() -> dict:
    return plistlib.loads((APP / "Info.plist").read_bytes())


def swift(*folders: Path) -> str:
    files = [file for folder in folders for file in sorted(folder.rglob("*.swift"))]
    assert files
    return "\n".join(file.read_text("utf-8") for file in files)


def run(*arguments: object, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(DEMO / "assets.py"), *map(str, arguments)]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)


def test_everything_that_the_project_is_made_of_is_there(project):
    places = [
        source if isinstance(source, dict) else {"path": source}
        for target in project["targets"].values()
        for source in target["sources"]
    ]
    made = [place["path"] for place in places if place.get("optional")]
    assert made == [f"App/Resources/{name}" for name in MADE]
    for place in places:
        assert place["path"] in made or (DEMO / place["path"]).exists(), place
        if place["path"].startswith("App/Resources") or place["path"].endswith(".xcprivacy"):
            assert place["buildPhase"] == "resources"
    assert all(
        place.get("type") == "folder" for place in places if Path(place["path"]).name in ("bundles", "portraits")
    )
    script = project["targets"]["Demo"]["preBuildScripts"][0]["script"]
    assert f"for name in {' '.join(MADE)};" in script and "python ios_demo/assets.py" in script
    assert (DEMO / project["packages"]["MobileBilayerCore"]["path"] / "Package.swift").is_file()
    for target in project["targets"].values():
        plist = target["settings"]["base"].get("INFOPLIST_FILE")
        assert target["settings"]["base"].get("GENERATE_INFOPLIST_FILE") or (DEMO / plist).is_file()
        for needed in target.get("dependencies", []):
            assert needed.get("package", "ExecuTorch") in project["packages"]
            assert needed.get("target", "Demo") in project["targets"]
    assert set(project["schemes"]["Demo"]["build"]["targets"]) <= set(project["targets"])


def test_versions_are_those_of_python_and_android(project):
    runtime = version("executorch")
    assert project["packages"]["ExecuTorch"]["branch"] == f"swiftpm-{runtime}"
    assert Bundle.open().manifest.minimum_runtime == f"executorch {runtime}"
    assert re.search(r'execuTorchVersion = "(.*)"', swift(APP / "Runtime"))[1] == runtime
    ours = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    assert project["settings"]["base"]["MARKETING_VERSION"] == ours
    pod = re.search(r"pod 'MediaPipeTasksVision', '(.*)'", (DEMO / "Podfile").read_text("utf-8"))[1]
    android = tomllib.loads((ANDROID / "gradle" / "libs.versions.toml").read_text("utf-8"))["versions"]
    assert pod == android["mediapipe"]
    ios = project["options"]["deploymentTarget"]["iOS"]
    assert f"platform :ios, '{ios}'" in (DEMO / "Podfile").read_text("utf-8")
    oldest = re.search(r"\.iOS\(\.v(\d+)\)", (DEMO / "Core" / "Package.swift").read_text("utf-8"))[1]
    assert int(oldest) <= float(ios)


def test_IO2_every_backend_of_executorch_that_a_bundle_may_ask_for_is_linked_whole_and_none_beside(project):
    choice = (DEMO / "Core/Sources/MobileBilayerCore/BundleChoice.swift").read_text("utf-8")
    listed = re.search(r"let backends: \[.*?\] = \[(.*?)\n?\]", choice, re.DOTALL)[1]
    known = dict(re.findall(r'\("([\w-]+)", "(\w+)"\)', listed))  # Core ML itself needs no library: a constant names it
    assert known == {name: DELEGATES[name] for name in known}
    asked = [name.removesuffix("-delegate") for name in known]
    runtime = project["targets"]["ExecuTorchRuntime"]
    flags = runtime["settings"]["base"]["OTHER_LDFLAGS"]
    forced = [
        re.fullmatch(r"\$\(BUILT_PRODUCTS_DIR\)/libbackend_(\w+)_\$\(ET_PLATFORM\)\.a", flags[i + 1])[1]
        for i, flag in enumerate(flags)
        if flag == "-force_load"
    ]
    linked = [needed["product"] for needed in runtime["dependencies"] if "sdk" not in needed]
    system = [needed["sdk"] for needed in runtime["dependencies"] if "sdk" in needed]
    assert system == [f"{name}.framework" for name in ("Accelerate", "CoreGraphics", "CoreImage", "CoreVideo")]
    assert asked and forced == asked and linked == ["executorch", *(f"backend_{name}" for name in asked)]
    assert flags[0] == "$(inherited)"
    platforms = {key: value for key, value in runtime["settings"]["base"].items() if key.startswith("ET_PLATFORM")}
    assert platforms == {"ET_PLATFORM[sdk=iphoneos*]": "ios", "ET_PLATFORM[sdk=iphonesimulator*]": "simulator"}
    # MediaPipe's flags come to the app by the pods; ExecuTorch's image knows nothing of the app's packages.
    assert "OTHER_LDFLAGS" not in project["targets"]["Demo"]["settings"]["base"]
    assert not any(needed.get("package") == "ExecuTorch" for needed in project["targets"]["Demo"]["dependencies"])
    assert "import MobileBilayerCore" not in swift(APP / "Runtime")


def test_what_mediapipe_registers_is_loaded_by_the_app_and_not_again_by_its_tests():
    pods = (DEMO / "Podfile").read_text("utf-8")
    assert re.search(r"target 'DemoTests' do\s+inherit! :search_paths\s+end", pods)
    hook = pods.partition("post_install do")[2]
    assert "Pods-*DemoTests/*.xcconfig" in hook
    pattern = re.search(r"gsub\(/(.*)/, ''\)", hook)[1]
    flags = '$(inherited) -force_load "${PODS_ROOT}/a b/libMediaPipeTasksCommon_device_graph.a" -ObjC -force_load c.a'
    assert re.sub(pattern, "", flags).split() == ["$(inherited)", "-ObjC"]


def test_the_shader_is_compiled_so_that_it_knows_what_is_no_number(project):
    assert project["targets"]["Demo"]["settings"]["base"]["MTL_FAST_MATH"] is False
    drawing = swift(APP / "Sources" / "Drawing")
    assert "_srgb" not in drawing  # numbers are those of files, as on Android
    for name in ("composite_vert", "composite_frag"):
        assert f'makeFunction(name: "{name}")' in drawing
        assert re.search(rf"^(vertex|fragment) \w+ {name}\(", (APP / "Shaders/composite.metal").read_text(), re.M)


def test_AN5_what_is_recorded_is_never_mirrored():
    drawing = APP / "Sources" / "Drawing"
    assert re.findall(r"mirrored: ([\w.]+)", (drawing / "Recorder.swift").read_text("utf-8")) == ["false"]
    assert "mirrored: content.mirrored" in (drawing / "CompositorView.swift").read_text("utf-8")


def test_AN5_how_a_sensor_lies_is_asked_of_the_phone_and_nothing_turns_the_frames_before_the_core_does():
    sources = APP / "Sources"
    assert "videoRotationAngleForHorizonLevelPreview" in (sources / "Screens" / "CameraPreview.swift").read_text(
        "utf-8"
    )
    assert not re.search(r"sensorDegrees|interfaceOrientation", swift(sources))
    camera = (sources / "Live" / "CameraSource.swift").read_text("utf-8")
    assert re.findall(r"(?:videoRotationAngle|isVideoMirrored) = (\w+)", camera) == ["false", "0"]


def test_the_app_asks_for_the_camera_in_androids_words_and_for_what_a_share_sheet_saves(info, project):
    asked = [key for key in info if key.endswith("UsageDescription")]
    # "Save Video" is the share sheet's own, and iOS ends an app without the second where somebody taps it.
    assert "ShareLink(Words.shareVideo" in swift(APP / "Sources")
    assert asked == ["NSCameraUsageDescription", "NSPhotoLibraryAddUsageDescription"]
    assert info["NSPhotoLibraryAddUsageDescription"].startswith("A video that you save")
    strings = (ANDROID / "app/src/main/res/values/strings.xml").read_text("utf-8")
    assert info["NSCameraUsageDescription"] == re.search(r'name="camera_needed">(.*)</string>', strings)[1]
    assert "UIBackgroundModes" not in info and info["ITSAppUsesNonExemptEncryption"] is False
    # No right beyond those of every app.
    assert not list(DEMO.rglob("*.entitlements"))
    assert "ENTITLEMENTS" not in (DEMO / "project.yml").read_text("utf-8") and not any(
        "entitlements" in target for target in project["targets"].values()
    )


def test_the_app_stands_in_portrait_and_landscape_and_has_one_window(info):
    assert {name.removeprefix("UIInterfaceOrientation") for name in info["UISupportedInterfaceOrientations"]} == {
        "Portrait",
        "LandscapeLeft",
        "LandscapeRight",
    }
    assert info["UIApplicationSceneManifest"] == {"UIApplicationSupportsMultipleScenes": False}
    assert info["UILaunchScreen"] == {} and info["UIRequiredDeviceCapabilities"] == ["arm64", "metal"]


def test_avatar_files_belong_to_the_app(info, project):
    (document,) = info["CFBundleDocumentTypes"]
    (exported,) = info["UTExportedTypeDeclarations"]
    assert document["LSItemContentTypes"] == [exported["UTTypeIdentifier"]] == ["dev.mobilebilayer.avatar"]
    assert document["LSHandlerRank"] == "Owner" and exported["UTTypeConformsTo"] == ["public.data"]
    assert exported["UTTypeTagSpecification"] == {"public.filename-extension": ["avatar"]}
    code = swift(APP / "Sources")
    assert '"dev.mobilebilayer.avatar"' in code
    # Results lie in Documents, and Files shows those of an app that has both; then files are opened where they lie, if asked for.
    assert info["UIFileSharingEnabled"] is info["LSSupportsOpeningDocumentsInPlace"] is True
    assert "startAccessingSecurityScopedResource" in code
    identifier = project["targets"]["Demo"]["settings"]["base"]["PRODUCT_BUNDLE_IDENTIFIER"]
    assert identifier == "dev.mobilebilayer.demo" and info["CFBundleIdentifier"] == "$(PRODUCT_BUNDLE_IDENTIFIER)"


def test_the_privacy_manifest_tells_of_no_tracking_no_data_and_of_what_our_code_calls():
    privacy = plistlib.loads((APP / "PrivacyInfo.xcprivacy").read_bytes())
    assert privacy["NSPrivacyTracking"] is False
    assert privacy["NSPrivacyTrackingDomains"] == privacy["NSPrivacyCollectedDataTypes"] == []
    told = {
        one["NSPrivacyAccessedAPIType"]: one["NSPrivacyAccessedAPITypeReasons"]
        for one in privacy["NSPrivacyAccessedAPITypes"]
    }
    code = swift(APP / "Sources", APP / "Runtime", DEMO / "Core" / "Sources")
    assert set(told) == {name for name, calls in REASONED.items() if re.search(calls, code)}
    assert told == {"NSPrivacyAccessedAPICategoryUserDefaults": ["CA92.1"]}  # of the app's own
    # What would send anything is not there.
    assert not re.search(r"URLSession|NWConnection|import Network|WKWebView", code)


def test_every_word_for_people_is_in_one_file_and_every_one_is_used():
    words = APP / "Sources" / "Words.swift"
    names = re.findall(r"^    static (?:let|func) (\w+)", words.read_text("utf-8"), re.M)
    others = [file for file in (APP / "Sources").rglob("*.swift") if file != words]
    code = "\n".join(file.read_text("utf-8") for file in others)
    assert names and [name for name in names if not re.search(rf"\bWords\.{name}\b", code)] == []
    for file in others:
        assert not re.search(
            r'MobileBilayerError\(\s*"|\bText\("|Button\("|\.navigationTitle\("|\.alert\("', file.read_text("utf-8")
        ), file.name


def test_one_command_puts_both_bundles_landmarker_and_portraits_into_the_app(tmp_path):
    pytest.importorskip("coremltools", reason="needs coremltools: pip install 'mobile-bilayer[coreml]'")
    to = tmp_path / "Resources"
    (to / "bundles" / "an older one").mkdir(parents=True)
    done = run("--to", to)
    assert done.returncode == 0, done.stderr
    assert "Exporting for Core ML" in done.stdout
    opened = {path.name: Bundle.open(path) for path in (to / "bundles").iterdir()}
    assert {(name, bundle.manifest.backend) for name, bundle in opened.items()} == {
        ("student-S-256-fp16-coreml", "coreml"),
        ("student-S-256-int8-xnnpack", "xnnpack"),
    }
    assert {bundle.manifest.student for bundle in opened.values()} == {Bundle.open().manifest.student}
    assert sorted(path.name for path in to.iterdir()) == sorted(MADE)
    for name in SAMPLES:
        for bundle in opened.values():
            assert Avatar.load(to / "portraits" / f"{name}.avatar", bundle).texture.std() > 20
        assert read_image(to / "portraits" / f"{name}.jpg").shape[2] == 3
        assert AI_GENERATED.encode() not in (to / "portraits" / f"{name}.jpg").read_bytes()  # it is a photo


def test_without_core_ml_the_shipped_bundle_is_there_alone(tmp_path):
    done = run("--to", tmp_path / "Resources", "--without-coreml")
    assert done.returncode == 0, done.stderr
    (bundle,) = (tmp_path / "Resources" / "bundles").iterdir()
    assert Bundle.open(bundle).manifest == Bundle.open().manifest


def test_what_assets_can_not_ship_is_refused_and_nothing_is_written(tmp_path):
    to = tmp_path / "Resources"
    shipped = Bundle.open().where
    core_ml = Path(shutil.copytree(shipped, tmp_path / "core_ml"))
    manifest = core_ml / "manifest.json"
    manifest.write_text(manifest.read_text("utf-8").replace('"backend": "xnnpack"', '"backend": "vulkan"'), "utf-8")
    for arguments, why in (
        (["--bundle", core_ml], "Add one"),
        (["--bundle", tmp_path / "none"], "does not exist"),
        (["--bundle", shipped, "--without-coreml"], "Leave --prepared and --without-coreml out"),
        (["--prepared", tmp_path / "none"], "holds no prepared clips"),
    ):
        done = run("--to", to, *arguments)
        assert done.returncode == 2 and why in done.stderr, done.stderr
        assert not to.exists()


def test_without_coremltools_assets_says_how_to_get_it_and_how_to_go_on_without(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\nfind = u.find_spec\nu.find_spec = lambda name, *a: None if name == 'coremltools' else find(name, *a)\n"
    )
    done = run(
        "--to", tmp_path / "Resources", PYTHONPATH=os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert "pip install 'mobile-bilayer[coreml]'" in done.stderr and "--without-coreml" in done.stderr
    assert not (tmp_path / "Resources").exists()


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / ".github" / "workflows").glob("*.yml")))
def test_workflows_can_be_read_and_call_what_is_there(name):
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text("utf-8"))
    assert workflow["name"] == Path(name).stem and workflow["jobs"]
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    commands = [(step["run"], ROOT / step.get("working-directory", ".")) for step in steps if "run" in step]
    assert commands and all(job.get("timeout-minutes") for job in workflow["jobs"].values())
    for command, folder in commands:
        assert folder.is_dir(), folder
        for called in re.findall(r"(?:^|\s)python (\S+\.py)|^(\.ci/\S+)|--package-path (\S+)", command, re.M):
            assert (folder / "".join(called)).exists(), command
        for called in re.findall(r"^pytest (.*)$", command, re.M):
            assert all((folder / path).exists() for path in called.split()), command
    for step in steps:
        assert "run" in step or re.fullmatch(r"[\w.-]+/[\w./-]+@v[\d.]+", step["uses"]), step


def test_the_macos_workflow_builds_and_tests_what_the_project_has(project):
    text = (ROOT / ".github" / "workflows" / "macos.yml").read_text("utf-8")
    assert text.startswith("# Not run yet")
    assert set(re.findall(r"-scheme (\w+)", text)) == set(project["schemes"])
    assert set(re.findall(r"-workspace (\S+)", text)) == {f"{project['name']}.xcworkspace"}
    for target, test in re.findall(r"-only-testing:(\w+)/(\w+)", text):
        assert target in project["targets"] and f"class {test}" in swift(APP / "Tests")
