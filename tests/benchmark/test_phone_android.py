"""benchmarks/phones/android.py, with a stand-in for adb: what the tools say is understood, and errors say what to do."""

import json
from pathlib import Path

import android
import numpy as np
import pytest

from mobile_bilayer import Bundle, MobileBilayerError
from mobile_bilayer.benchmark.result import Result
from mobile_bilayer.runtime.bundle import bundle_sha256, shipped_bundle
from mobile_bilayer.runtime.inspection import inspect


def test_devices_are_read_past_the_daemons_words(said):
    assert android.parse_devices(said("adb_devices_one.txt")) == [android.Device("37091FDJH0058C", "device", "Pixel 8")]
    assert [device.model for device in android.parse_devices(said("adb_devices_two.txt"))] == ["Pixel 8", "SM A525F"]
    assert android.parse_devices(said("adb_devices_none.txt")) == []


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("adb_devices_none.txt", "No phone is connected. Plug one in"),
        ("adb_devices_unauthorized.txt", "is unauthorized. Unlock the phone and allow debugging"),
        ("adb_devices_offline.txt", "is offline. Unplug it"),
        ("adb_devices_no_permissions.txt", "is no permissions. Linux keeps the device from you"),
        (
            "adb_devices_two.txt",
            "Several phones are connected: 37091FDJH0058C (Pixel 8), R5CT1234ABC (SM A525F). Choose one: --serial",
        ),
    ],
)
def test_a_phone_that_can_not_be_used_says_what_to_do(said, file, words):
    with pytest.raises(MobileBilayerError) as error:
        android.choose(android.parse_devices(said(file)), None)
    assert words in str(error.value)


def test_of_several_phones_the_named_one_is_taken(said):
    devices = android.parse_devices(said("adb_devices_two.txt"))
    assert android.choose(devices, "R5CT1234ABC").model == "SM A525F"
    with pytest.raises(MobileBilayerError, match="No phone has the serial X; connected are 37091FDJH0058C"):
        android.choose(devices, "X")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        (
            "adb_install_no_matching_abis.txt",
            "INSTALL_FAILED_NO_MATCHING_ABIS (Failed to extract native libraries, res=-113). The app holds no native",
        ),
        (
            "adb_install_update_incompatible.txt",
            "Run `adb uninstall dev.mobilebilayer.demo` first; its data goes with it.",
        ),
    ],
)
def test_a_failed_installation_says_why(said, file, words):
    with pytest.raises(MobileBilayerError) as error:
        android.parse_install(said(file), Path("app.apk"))
    assert "app.apk could not be installed" in str(error.value) and words in str(error.value)


def test_an_installation_that_succeeds_is_no_error(said):
    android.parse_install(said("adb_install_success.txt"), Path("app.apk"))


def test_the_benchmark_is_found_among_other_tests(said):
    assert (
        android.parse_instrumentation(said("pm_list_instrumentation.txt"))
        == "dev.mobilebilayer.demo.test/androidx.test.runner.AndroidJUnitRunner"
    )
    with pytest.raises(MobileBilayerError, match=r"not installed: it lies in the second APK"):
        android.parse_instrumentation("instrumentation:com.x/y (target=com.x)\n")


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("am_instrument_not_installed.txt", "found no benchmark to start"),
        ("am_instrument_crashed.txt", "The app crashed on the phone: Process crashed."),
        (
            "am_instrument_out_of_memory.txt",
            "The app crashed on the phone: java.lang.OutOfMemoryError: Failed to allocate",
        ),
        (
            "am_instrument_failed.txt",
            "The benchmark failed on the phone: java.lang.AssertionError: it is not done in time.",
        ),
    ],
)
def test_am_instrument_always_exits_with_0_so_its_words_tell(said, file, words):
    with pytest.raises(MobileBilayerError) as error:
        android.parse_instrument(said(file))
    assert words in str(error.value)


def test_a_benchmark_that_ran_is_no_error_and_silence_is_one(said):
    android.parse_instrument(said("am_instrument_ok.txt"))
    for text in ("", "\n\nTime: 0\n\nOK (0 tests)\n"):
        with pytest.raises(MobileBilayerError, match="without a word of success"):
            android.parse_instrument(text)


def test_BE3_the_thermal_state_and_the_sensors_of_now_are_read(said):
    found = android.parse_thermal(said("dumpsys_thermalservice.txt"))
    assert found == android.Thermal("moderate", {"VIRTUAL-SKIN": 41.5, "BIG": 68.0, "battery": 36.4})
    assert android.parse_thermal(said("dumpsys_thermalservice_cool.txt")).state == "none"
    assert android.parse_thermal("Can't find service: thermalservice\n") == android.Thermal("unknown", {})


@pytest.mark.parametrize("file", ["executor_runner.txt", "logcat_executor_runner.txt"])
def test_executor_runner_tells_each_execution_and_the_load(said, file):
    times, load = android.parse_runner(said(file))
    assert len(times) == 30 and times[0] == 19.5 and load == 11.482


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("executor_runner_old.txt", "tells no single times"),
        ("executor_runner_no_backend.txt", "lacks what the program needs: Backend XnnpackBackend is not registered"),
        ("executor_runner_wrong_abi.txt", "not made for the phone's processor"),
    ],
)
def test_an_executor_runner_that_does_not_run_says_why(said, file, words):
    with pytest.raises(MobileBilayerError, match=words):
        android.parse_runner(said(file))


@pytest.fixture
def phone(said, values, tmp_path, fake_tool):
    """phone(**changed replies): an adb on which all goes well, but for what was changed."""
    result = tmp_path / "on_phone.json"
    result.write_text(
        json.dumps(
            values(
                seconds=600,
                delegated_operators=None,
                undelegated_count=None,
                bundle_sha256=bundle_sha256(shipped_bundle()),
            )
        )
    )
    for apk in ("app.apk", "tests.apk"):
        (tmp_path / apk).write_bytes(b"PK")
    well = {
        "devices": {"of": "^devices", "says": [said("adb_devices_one.txt")]},
        "version": {"of": "^version", "says": ["Android Debug Bridge version 1.0.41\nVersion 36.0.0-13206524\n"]},
        "install": {"of": " install ", "says": [said("adb_install_success.txt")]},
        "abi": {"of": "getprop ro.product.cpu.abilist", "says": ["arm64-v8a,armeabi-v7a,armeabi\n"]},
        "maker": {"of": "getprop ro.product.manufacturer", "says": ["Google\n"]},
        "model": {"of": "getprop ro.product.model", "says": ["Pixel 8\n"]},
        "chip": {"of": "getprop ro.soc.model", "says": ["Tensor G3\n"]},
        "release": {"of": "getprop ro.build.version.release", "says": ["16\n"]},
        "sdk": {"of": "getprop ro.build.version.sdk", "says": ["36\n"]},
        "path": {"of": "pm path", "says": [said("pm_path.txt")]},
        "instrumentation": {"of": "pm list instrumentation", "says": [said("pm_list_instrumentation.txt")]},
        "thermal": {"of": "dumpsys thermalservice", "says": [said("dumpsys_thermalservice_cool.txt")]},
        "stop": {"of": "am force-stop"},
        "run": {"of": "am instrument", "says": [said("am_instrument_ok.txt")]},
        "ls": {"of": "shell ls ", "says": ["old.json\n", "new.json\nold.json\n"]},
        "pull": {"of": " pull ", "copies": [str(result), "pulled"], "says": ["1 file pulled\n"]},
        "mkdir": {"of": "shell (mkdir|chmod)"},
        "push": {"of": " push ", "says": ["1 file pushed\n"]},
        "date": {"of": "shell date", "says": ["1769860800.000\n"]},
        "runner": {"of": "executor_runner", "says": [said("executor_runner.txt")]},
        "logcat": {"of": "logcat", "says": [said("logcat_executor_runner.txt")]},
    }

    def make(**changed):
        return fake_tool("adb", [reply | changed.get(name, {}) for name, reply in well.items()])

    return make


@pytest.fixture
def measure(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    return lambda *arguments: script(android, *arguments)


def test_BE3_the_app_is_installed_run_for_ten_minutes_and_its_result_fetched(phone, measure, tmp_path):
    asked = phone()
    code, out, err = measure("--apk", "app.apk", "--apk", "tests.apk", "--sustained", "-o", "pixel8.json")
    assert (code, err) == (0, "")
    result = Result.load_file(tmp_path / "on_phone.json")
    kept = Result.load_file(tmp_path / "pixel8.json")
    assert kept.sustained_fps == 30 and "30.0 FPS sustained (last minute of 10)" in out
    assert result.delegated_operators is None and kept.warnings == ()
    render = next(method for method in inspect(shipped_bundle()).methods if method.name == "render_layers")
    assert kept.delegated_operators == sum(render.delegated.values()) and kept.share == 1
    said = asked()
    assert any("install -r -t app.apk" in line for line in said) and any(
        "install -r -t tests.apk" in line for line in said
    )
    (run,) = [line for line in said if "am instrument" in line]
    assert "-w -e class dev.mobilebilayer.demo.BenchmarkTest -e seconds 600 dev.mobilebilayer.demo.test/" in run
    assert run.startswith("-s 37091FDJH0058C shell")


def test_runs_are_merged_and_each_begins_with_the_app_closed(phone, measure, tmp_path):
    ls = ["old.json\n", "a.json\nold.json\n", "a.json\nold.json\n", "a.json\nb.json\nold.json\n"]
    asked = phone(ls={"says": ls})
    code, _, err = measure("--repeats", "2", "--seconds", "10", "-o", "a.json")
    assert (code, err) == (0, "")
    kept = Result.load_file(tmp_path / "a.json")
    assert kept.repeats == 2 and kept.repeat_spread == 0
    order = [line.split("shell ")[1].split(" -")[0] for line in asked() if "am " in line]
    assert order == ["am force-stop dev.mobilebilayer.demo", "am instrument"] * 2


def test_BE3_a_phone_that_stays_warm_is_measured_and_the_file_says_so(phone, measure, tmp_path, monkeypatch, said):
    monkeypatch.setattr(android, "COOL_S", 0)
    phone(thermal={"says": [said("dumpsys_thermalservice.txt")]})
    code, out, _ = measure("--repeats", "1", "--seconds", "10", "-o", "a.json")
    assert code == 0 and "WARNING The phone was warm when a run began: its thermal state was moderate." in out
    assert len(Result.load_file(tmp_path / "a.json").warnings) == 2


def test_a_result_of_another_bundle_is_not_completed(phone, measure, tmp_path, values):
    phone()
    (tmp_path / "on_phone.json").write_text(json.dumps(values(delegated_operators=None, undelegated_count=None)))
    code, _, _ = measure("--repeats", "1", "--seconds", "10", "-o", "a.json")
    assert code == 0 and Result.load_file(tmp_path / "a.json").delegated_operators is None


def test_BE1_executor_runner_times_execute_alone_on_real_inputs_and_claims_no_frame_rate(phone, measure, tmp_path):
    (tmp_path / "executor_runner").write_bytes(b"\x7fELF")
    asked = phone()
    code, out, err = measure(
        "--executor-runner", "executor_runner", "--threads", "1", "--repeats", "2", "-o", "runner.json"
    )
    assert (code, err) == (0, "") and "no frame rate" in out and "WARNING Only execute() was timed" in out
    kept = Result.load_file(tmp_path / "runner.json")
    assert kept.execute_ms.count == 2 * (30 - 10) and 4.4 < kept.execute_ms.p50 < 4.6 and kept.first_frame_ms == 19.5
    assert kept.load.cold_ms == 11.482 and kept.fps is None and kept.stages_ms["frame"] is None
    assert (kept.device, kept.chip, kept.os) == ("Google Pixel 8", "Tensor G3", "Android 16 (API 36)")
    assert kept.share == 1 and kept.repeat_spread == 0
    said = asked()
    pushed = [line for line in said if " push " in line]
    assert [Path(line.split()[-1]).name for line in pushed].count("program.pte") == 1 and len(pushed) == 6
    (run, _) = [line for line in said if "./executor_runner" in line]
    assert "--method_name=render_layers" in run and "--cpu_threads=1" in run
    assert "--inputs=landmark_features.bin,map_features.bin,source_landmarks.bin,landmarks.bin" in run


def test_executor_runner_that_logs_to_logcat_is_read_there(phone, measure, tmp_path):
    (tmp_path / "executor_runner").write_bytes(b"\x7fELF")
    asked = phone(runner={"says": [""]})
    code, _, _ = measure("--executor-runner", "executor_runner", "--repeats", "1", "-o", "runner.json")
    assert code == 0 and Result.load_file(tmp_path / "runner.json").execute_ms.count == 20
    assert any("logcat -d -v raw -T 1769860800.000 -s ExecuTorch:V" in line for line in asked())


def test_the_inputs_of_executor_runner_are_the_bundles_golden_ones_as_float32():
    inputs = android.golden_inputs(Bundle.open())
    specs = Bundle.open().manifest.methods["render_layers"].inputs
    assert list(inputs) == [spec.name for spec in specs]
    assert all(
        array.dtype == np.float32 and array.size == np.prod(spec.shape)
        for array, spec in zip(inputs.values(), specs, strict=True)
    )


@pytest.mark.parametrize(
    ("changed", "arguments", "words"),
    [
        ({"abi": {"says": ["armeabi-v7a,armeabi\n"]}}, [], "runs armeabi-v7a,armeabi; the app is built for arm64-v8a"),
        (
            {"path": {"says": [""], "code": 1}},
            [],
            "is not installed on 37091FDJH0058C (Pixel 8). Give it and its tests: --apk",
        ),
        ({"instrumentation": {"says": [""]}}, [], "the second APK"),
        (
            {"run": {"says": ["INSTRUMENTATION_RESULT: shortMsg=Process crashed.\nINSTRUMENTATION_CODE: 0\n"]}},
            [],
            "crashed on the phone",
        ),
        ({"run": {"says": ["error: device '37091FDJH0058C' not found\n"], "code": 1}}, [], "went away"),
        ({"ls": {"says": ["old.json\n"]}}, [], "has no new result"),
        (
            {"pull": {"says": ["adb: error: remote object does not exist\n"], "code": 1, "copies": None}},
            [],
            "can't be fetched",
        ),
        ({}, ["--apk", "none.apk"], "none.apk does not exist"),
        ({}, ["--executor-runner", "none"], "none does not exist"),
        ({}, ["--seconds", "0"], "seconds is 0"),
        ({}, ["--threads", "2"], "--threads is of executor_runner"),
        ({}, ["-o", "a.txt"], "must end in .json"),
        ({}, ["--serial", "X"], "No phone has the serial X"),
    ],
)
def test_what_goes_wrong_is_one_line_exit_code_2_and_no_file(phone, measure, tmp_path, changed, arguments, words):
    phone(**changed)
    code, out, err = measure("--repeats", "1", *arguments)
    assert code == 2 and out == "" and words in err and err.startswith("error: ") and err.count("\n") == 1
    assert not (tmp_path / "android.json").exists()


def test_without_adb_it_says_what_to_install(measure, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    code, _, err = measure()
    assert code == 2 and "adb can't be run" in err and "platform-tools" in err


def test_a_tool_that_hangs_is_ended_and_said_so(fake_tool, tmp_path):
    from phone_tools import call

    tool = tmp_path / "slow"
    tool.write_text("#!/bin/sh\nexec sleep 60\n")
    tool.chmod(0o755)
    seconds = []
    with pytest.raises(MobileBilayerError, match="did not end in 2 s"):
        call(tool, timeout_s=2, while_waiting=seconds.append)
    assert seconds and seconds[0] < 2
