"""benchmarks/phones/ios.py, with stand-ins for Xcode's tools: what they say is understood, and errors say what to do."""

import json

import ios
import pytest

from mobile_bilayer import MobileBilayerError
from mobile_bilayer.benchmark.result import Result

UDID = "00008130-000A1B2C3D4E001C"


def test_iphones_are_found_among_other_devices(said):
    assert ios.parse_devices(said("devicectl_one.json")) == [ios.Device(UDID, "Test phone")]
    assert ios.choose(ios.parse_devices(said("devicectl_two.json")), "Other phone").udid.startswith("00008120")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("devicectl_none.json", "No iPhone is known to this Mac"),
        ("devicectl_two.json", "Several iPhones are connected: Test phone (00008130"),
        ("devicectl_unpaired.json", "is not paired: unlock it, plug it in and trust this Mac"),
        ("devicectl_unavailable.json", "is not connected: plug it in"),
        ("devicectl_developer_mode.json", "is not in developer mode: Settings"),
    ],
)
def test_an_iphone_that_can_not_be_used_says_what_to_do(said, file, words):
    with pytest.raises(MobileBilayerError) as error:
        ios.choose(ios.parse_devices(said(file)), None)
    assert words in str(error.value)


@pytest.mark.parametrize("text", ["", "{}", '{"result": {"devices": [{}, 3]}}', '{"result": []}'])
def test_devices_that_are_not_understood_ask_for_another_xcode(text):
    with pytest.raises(MobileBilayerError, match="Update Xcode"):
        ios.parse_devices(text)


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("xcodebuild_failed.txt", "XCTAssertGreaterThan failed"),
        ("xcodebuild_locked.txt", "The iPhone is locked. Unlock it"),
        ("xcodebuild_crashed.txt", "The app crashed"),
    ],
)
def test_a_test_that_did_not_pass_says_why(said, file, words):
    with pytest.raises(MobileBilayerError, match=words):
        ios.parse_xcodebuild(said(file), 65)


def test_a_test_that_passed_is_no_error_but_success_without_its_words_is(said):
    ios.parse_xcodebuild(said("xcodebuild_ok.txt"), 0)
    with pytest.raises(MobileBilayerError, match="xcodebuild ended with 0"):
        ios.parse_xcodebuild("", 0)


@pytest.fixture
def xcode(said, values, tmp_path, fake_tool, monkeypatch):
    """xcode(**changed replies): tools with which all goes well, but for what was changed."""
    exported = tmp_path / "exported"
    exported.mkdir()
    (exported / "manifest.json").write_text(said("xcresulttool_manifest.json"))
    (exported / "8A7E0F5B-1.json").write_text(
        json.dumps(values(device="iPhone 15 Pro", backend="coreml", compute_unit="all"))
    )
    listed = tmp_path / "listed.json"
    listed.write_text(said("devicectl_one.json"))
    (tmp_path / "Demo.xctestrun").write_text("<plist/>")
    monkeypatch.chdir(tmp_path)

    def make(**changed):
        well = {
            "list": {"of": "devicectl list", "copies": [str(listed), "--json-output"]},
            "export": {"of": "xcresulttool export attachments", "copies": [str(exported), "--output-path"]},
        }
        fake_tool("xcrun", [reply | changed.get(name, {}) for name, reply in well.items()])
        return fake_tool(
            "xcodebuild",
            [{"of": "test-without-building", "says": [said("xcodebuild_ok.txt")]} | changed.get("test", {})],
        )

    return make


def test_BE3_the_test_runs_on_the_iphone_and_its_attachment_is_the_result(xcode, script, tmp_path):
    asked = xcode()
    code, out, err = script(ios, "--xctestrun", "Demo.xctestrun", "--sustained", "-o", "iphone.json")
    assert (code, err) == (0, "") and "iPhone 15 Pro" in out
    kept = Result.load_file(tmp_path / "iphone.json")
    assert "compute_unit is all, but the CPU ran 70 of 70 operators." in kept.warnings
    (line,) = asked()
    assert f"-destination id={UDID}" in line and "-only-testing:DemoTests/BenchmarkTests" in line


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"test": {"code": 65, "says": ["** TEST EXECUTE FAILED **"]}}, "xcodebuild ended with 65"),
        (
            {"export": {"code": 64, "copies": None, "says": ["Error: Unknown option '--path'"]}},
            "Update Xcode to 16 or newer",
        ),
        ({"list": {"code": 1, "copies": None}}, "`xcrun devicectl` failed"),
    ],
)
def test_what_goes_wrong_is_one_line_exit_code_2_and_no_file(xcode, script, tmp_path, changed, words):
    xcode(**changed)
    code, out, err = script(ios, "--xctestrun", "Demo.xctestrun", "--repeats", "1")
    assert code == 2 and out == "" and words in err and err.count("\n") == 1
    assert not (tmp_path / "ios.json").exists()


@pytest.mark.parametrize("names", [[], ["a_0_1.json", "b_0_2.json"], ["a_0_1.png"]])
def test_there_must_be_one_attached_result(tmp_path, names):
    attached = [{"exportedFileName": f"{i}", "suggestedHumanReadableName": name} for i, name in enumerate(names)]
    (tmp_path / "manifest.json").write_text(json.dumps([{"attachments": attached}]))
    with pytest.raises(
        MobileBilayerError, match=f"has {sum(name.endswith('json') for name in names)} attached results; one is needed"
    ):
        ios.attachment(tmp_path)


def test_without_a_mac_it_says_so(script, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, out, err = script(ios, "--xctestrun", "Demo.xctestrun", "-o", str(tmp_path / "a.json"))
    assert (code, out) == (2, "") and "xcrun can't be run" in err and "needs a Mac" in err


def test_an_xctestrun_that_is_not_there_is_named(xcode, script):
    xcode()
    code, _, err = script(ios, "--xctestrun", "none.xctestrun")
    assert code == 2 and "none.xctestrun does not exist" in err
