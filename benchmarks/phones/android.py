"""Measure on an Android phone: install, start, wait, fetch, merge.

    python benchmarks/phones/android.py --apk app.apk --apk app-androidTest.apk --sustained -o pixel8.json
    python benchmarks/phones/android.py --executor-runner cmake-out-android/executor_runner -o pixel8-runner.json

The app measures whole frames; ExecuTorch's executor_runner times execute() alone, for which no app is needed. **Not run on a
phone yet**: tested with a stand-in for adb that says what the real one is documented to say.
"""

from __future__ import annotations

import re
import shlex
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from phone_tools import Said, call, completed, finished, seconds_and_runs

from mobile_bilayer import Bundle, cli
from mobile_bilayer.benchmark.profile import METHOD
from mobile_bilayer.benchmark.result import FORMAT_VERSION, STAGES, Load, Result, merge
from mobile_bilayer.benchmark.show import show
from mobile_bilayer.benchmark.statistics import Statistics, spread
from mobile_bilayer.capture.images import check_input, check_output
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.runtime.bundle import bundle_mib, bundle_sha256, shipped_bundle
from mobile_bilayer.runtime.manifest import CORE_ML

PACKAGE = "dev.mobilebilayer.demo"
TEST = f"{PACKAGE}.BenchmarkTest"
RESULTS = f"/sdcard/Android/data/{PACKAGE}/files/benchmark"
FOLDER = "/data/local/tmp/mobile_bilayer"  # where adb may put programs and run them
ABIS = ("arm64-v8a", "x86_64")  # that the app is built for; the second is an emulator's
SPARE_S = 240  # for the app's start, its warm-up and its end
COOL_S = 600  # to wait at most for a phone that is warm from the run before
THERMAL = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")  # PowerManager's states, from 0
WARM_UP = 10  # executions of executor_runner
EXECUTIONS = 200

STATES = {
    "unauthorized": "Unlock the phone and allow debugging for this computer; if it does not ask, revoke its authorisations in the developer options and plug it in again",
    "authorizing": "Unlock the phone and allow debugging for this computer",
    "offline": "Unplug it and plug it in again, or run `adb reconnect offline`",
    "no permissions": "Linux keeps the device from you: install udev's rules (Debian: android-sdk-platform-tools-common), then plug it in again",
    "recovery": "It is in recovery: start it as usual",
    "bootloader": "It is in its bootloader: start it as usual",
    "sideload": "It waits for an update: start it as usual",
}
# Of `adb install`: what to do.
FAILURES = {
    "INSTALL_FAILED_NO_MATCHING_ABIS": "The app holds no native libraries for this phone's processor. Build it for the ABI that the phone has.",
    "INSTALL_FAILED_UPDATE_INCOMPATIBLE": f"An app of that name with another signature is there. Run `adb uninstall {PACKAGE}` first; its data goes with it.",
    "INSTALL_FAILED_INSUFFICIENT_STORAGE": "The phone has no space left. Make some.",
    "INSTALL_FAILED_OLDER_SDK": "The phone's Android is older than the app needs. Use a newer phone.",
    "INSTALL_FAILED_VERSION_DOWNGRADE": f"A newer app is there. Run `adb uninstall {PACKAGE}` first; its data goes with it.",
    "INSTALL_FAILED_USER_RESTRICTED": "The phone refused. Allow installation over USB in its developer options, and confirm on its screen.",
    "INSTALL_FAILED_TEST_ONLY": "The app is for tests only. Build it with `./gradlew assembleRelease`, or install it with `adb install -t`.",
}


@dataclass(frozen=True)
class Device:
    """A line of `adb devices -l`."""

    serial: str
    state: str
    model: str = ""

    def __str__(self) -> str:
        return f"{self.serial} ({self.model or self.state})"


@dataclass(frozen=True)
class Thermal:
    """Of `dumpsys thermalservice`: the phone's state, and its sensors' degrees Celsius by name."""

    state: str
    temperatures_c: dict[str, float] = field(default_factory=dict)


def parse_devices(text: str) -> list[Device]:
    """Of `adb devices -l`: its head, and what the daemon says of its start, are no devices."""
    found = []
    for line in text.splitlines():
        match = re.match(r"^(\S+)\s+(no permissions|[a-z]+)\b(.*)$", line)
        if match and not line.startswith(("*", "List of devices", "adb")):
            model = re.search(r"\bmodel:(\S+)", match[3])
            found.append(Device(match[1], match[2], model[1].replace("_", " ") if model else ""))
    return found


def choose(devices: list[Device], serial: str | None) -> Device:
    """The one that is meant and ready. Raises MobileBilayerError that says what to do."""
    if not devices:
        raise MobileBilayerError(
            "No phone is connected. Plug one in with a cable for data, switch on USB debugging in its developer options, and look at `adb devices`."
        )
    named = [device for device in devices if serial in (None, device.serial)]
    if not named:
        raise MobileBilayerError(
            f"No phone has the serial {serial}; connected are {', '.join(map(str, devices))}. Name one of them."
        )
    ready = [device for device in named if device.state == "device"]
    if len(ready) > 1:
        raise MobileBilayerError(
            f"Several phones are connected: {', '.join(map(str, ready))}. Choose one: --serial {ready[0].serial}."
        )
    if not ready:
        one = named[0]
        raise MobileBilayerError(f"The phone {one.serial} is {one.state}. {STATES.get(one.state, 'Plug it in again')}.")
    return ready[0]


def parse_install(text: str, apk: Path) -> None:
    """Of `adb install`. Raises MobileBilayerError for a failure."""
    failure = re.search(r"\b(INSTALL_[A-Z_]+)(?:: ([^\]\n]*))?", text)
    if failure:
        remedy = FAILURES.get(failure[1], "Look the name up among Android's package manager's errors.")
        raise MobileBilayerError(
            f"{apk} could not be installed: {failure[1]}{f' ({failure[2].strip()[:200]})' if failure[2] else ''}. {remedy}"
        )
    if not re.search(r"^Success\b", text, re.MULTILINE):
        raise MobileBilayerError(
            f"{apk} could not be installed: {last_line(text)}. Try `adb install -r {apk}` by hand."
        )


def parse_instrumentation(text: str) -> str:
    """Of `pm list instrumentation`: what runs tests in our app."""
    for line in text.splitlines():
        match = re.match(r"^instrumentation:(\S+) \(target=(\S+)\)", line)
        if match and match[2] == PACKAGE:
            return match[1]
    raise MobileBilayerError(
        f"The benchmark of {PACKAGE} is not installed: it lies in the second APK, app-androidTest.apk (`./gradlew assembleAndroidTest`). Give it with --apk."
    )


def parse_instrument(text: str) -> None:
    """Of `am instrument -w`, whose exit code is 0 whatever happens. Raises MobileBilayerError unless the test passed."""
    if "Unable to find instrumentation" in text or "INSTRUMENTATION_FAILED" in text:
        raise MobileBilayerError(
            f"The phone found no benchmark to start: {last_line(text)}. Install both APKs again: --apk."
        )
    crash = re.search(r"(?:shortMsg|longMsg)=(.*)", text)
    if crash and "OK (" not in text:
        long = re.search(r"longMsg=(.*)", text)
        raise MobileBilayerError(
            f"The app crashed on the phone: {(long or crash)[1].strip()[:200]}. `adb logcat -b crash -d` says where; on little memory, close other apps."
        )
    if failed := re.search(r"FAILURES!!!", text):
        why = re.search(r"^(?:[\w.$]*(?:Error|Exception|Assert\w*))(?::.*)?$", text[: failed.start()], re.MULTILINE)
        raise MobileBilayerError(
            f"The benchmark failed on the phone: {why[0].strip()[:300] if why else last_line(text)}. Keep the screen on and the app before all others."
        )
    if not re.search(r"^OK \([1-9]\d* tests?\)", text, re.MULTILINE):
        raise MobileBilayerError(
            f"The benchmark ended without a word of success: {last_line(text)}. Look at the phone, and try again."
        )


def parse_thermal(text: str) -> Thermal:
    """Of `dumpsys thermalservice` (Android 10 and newer); "unknown" where there is none."""
    status = re.search(r"^Thermal Status: (\d+)", text, re.MULTILINE)
    state = THERMAL[int(status[1])] if status and int(status[1]) < len(THERMAL) else "unknown"
    part = text.partition("Current temperatures from HAL:")[2].partition("Current cooling devices")[0] or text
    rows = re.findall(r"Temperature\{mValue=(-?[\d.]+), mType=-?\d+, mName=([^,}]*), mStatus=\d+\}", part)
    return Thermal(state, {name: float(value) for value, name in rows if 0 < float(value) < 150})


def parse_runner(text: str) -> tuple[list[float], float | None]:
    """Of executor_runner: milliseconds of each execution, and of the load, where it tells."""
    times = [float(ms) for ms in re.findall(r"Iteration \d+ of \d+: ([\d.]+) ms", text)]
    load = re.search(r"Model loaded in ([\d.]+) ms", text)
    if times:
        return times, float(load[1]) if load else None
    if re.search(r"Model executed successfully", text):
        raise MobileBilayerError(
            "This executor_runner tells no single times, only their sum. Build it from a newer ExecuTorch."
        )
    if "not executable" in text or "cannot execute" in text or "Exec format error" in text:
        raise MobileBilayerError(
            "This executor_runner is not made for the phone's processor. Build it with the NDK for arm64-v8a."
        )
    if missing := re.search(r"(?:Backend \S+ is not (?:registered|available)|[Mm]issing operator).*", text):
        raise MobileBilayerError(
            f"This executor_runner lacks what the program needs: {missing[0].strip()[:200]} Build it with that backend, and with its kernels."
        )
    raise MobileBilayerError(f"executor_runner failed: {last_line(text)}. Run it by hand in {FOLDER} to see more.")


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"


class Phone:
    """Calls of adb for one phone."""

    def __init__(self, serial: str | None) -> None:
        self.device = choose(parse_devices(call("adb", "devices", "-l").text), serial)

    def adb(self, *words: str | Path, **options) -> Said:
        said = call("adb", "-s", self.device.serial, *words, **options)
        if said.code and re.search(r"device '?.*'? not found|device offline|no devices/emulators found", said.text):
            raise MobileBilayerError(
                f"The phone {self.device.serial} went away: {last_line(said.text)}. Check the cable, and try again."
            )
        return said

    def shell(self, *words: str, **options) -> str:
        return self.adb("shell", *words, **options).text

    def prop(self, name: str) -> str:
        return self.shell("getprop", name).strip()

    def check_abi(self) -> str:
        """The phone's first ABI, when it is one that we build for."""
        abis = self.prop("ro.product.cpu.abilist")
        found = [abi for abi in abis.split(",") if abi in ABIS]
        if not found:
            raise MobileBilayerError(
                f"The phone {self.device} runs {abis or 'nothing that it tells'}; the app is built for {ABIS[0]}. Use a 64-bit phone."
            )
        return found[0]

    def name(self) -> str:
        return (
            " ".join(filter(None, (self.prop("ro.product.manufacturer"), self.prop("ro.product.model"))))
            or self.device.serial
        )

    def system(self) -> str:
        return f"Android {self.prop('ro.build.version.release')} (API {self.prop('ro.build.version.sdk')})"

    def thermal(self) -> Thermal:
        return parse_thermal(self.shell("dumpsys", "thermalservice"))


Progress = Callable[[str, int, int | None], None]


def cool_down(phone: Phone, progress: Progress) -> list[str]:
    """Wait until the phone says that it is cool. Warnings if it does not."""
    begun = time.monotonic()
    while (state := phone.thermal().state) not in ("none", "unknown"):
        spent = int(time.monotonic() - begun)
        if spent >= COOL_S:
            return [f"The phone was warm when a run began: its thermal state was {state}."]
        progress("Cooling", spent, COOL_S)
        time.sleep(5)
    return []


def measure_app(phone: Phone, apks: list[Path], seconds: int, repeats: int, progress: Progress) -> Result:
    """Whole frames, in the app."""
    for apk in apks:
        check_input(apk, "app")
        parse_install(phone.adb("install", "-r", "-t", apk, timeout_s=300).text, apk)
    if not re.search(r"^package:", phone.shell("pm", "path", PACKAGE), re.MULTILINE):
        raise MobileBilayerError(
            f"The app {PACKAGE} is not installed on {phone.device}. Give it and its tests: --apk app.apk --apk app-androidTest.apk."
        )
    runner = parse_instrumentation(phone.shell("pm", "list", "instrumentation"))
    found, warnings = [], []
    for i in range(repeats):
        warnings += cool_down(phone, progress)
        phone.shell("am", "force-stop", PACKAGE)  # so that each run has a cold load
        before = results_on(phone)
        what = f"Run {i + 1} of {repeats}"
        total = seconds + SPARE_S
        said = phone.shell(
            *("am", "instrument", "-w", "-e", "class", TEST, "-e", "seconds", str(seconds), runner),
            timeout_s=total,
            while_waiting=lambda spent, what=what: progress(what, min(int(spent), seconds), seconds),
        )
        parse_instrument(said)
        found.append(fetch(phone, before))
        state = phone.thermal().state
        if state not in ("none", "unknown"):
            warnings.append(f"The phone's thermal state was {state} at a run's end.")
    return finished(merge(found), *warnings)


def results_on(phone: Phone) -> set[str]:
    said = phone.adb("shell", "ls", RESULTS)
    return set() if said.code else {name.strip() for name in said.text.splitlines() if name.strip().endswith(".json")}


def fetch(phone: Phone, before: set[str]) -> Result:
    """The result that was not there before."""
    new = sorted(results_on(phone) - before)
    if len(new) != 1:
        raise MobileBilayerError(
            f"{RESULTS} on the phone has {'no new result' if not new else f'several new results: {new}'}. Another benchmark may run; try again."
        )
    with tempfile.TemporaryDirectory(prefix="mobile_bilayer.") as folder:
        said = phone.adb("pull", f"{RESULTS}/{new[0]}", folder)
        if said.code:
            raise MobileBilayerError(
                f"{new[0]} can't be fetched from the phone: {last_line(said.text)}. Copy it by hand."
            )
        return Result.load_file(Path(folder, new[0]))


def measure_runner(
    phone: Phone,
    executable: Path,
    bundle: Path,
    seconds: int | None,
    threads: int | None,
    repeats: int,
    progress: Progress,
) -> Result:
    """execute() alone, by ExecuTorch's executor_runner, on the bundle's golden inputs."""
    check_input(executable, "executor_runner")
    opened = Bundle.open(bundle)
    about = opened.manifest
    if about.backend == CORE_ML:
        raise MobileBilayerError(f"{bundle} is made for Core ML, which no Android phone has. Export it for xnnpack.")
    phone.shell("mkdir", "-p", FOLDER)
    with tempfile.TemporaryDirectory(prefix="mobile_bilayer.") as name:
        folder = Path(name)
        (folder / "program.pte").write_bytes(opened.contents[about.program])
        inputs = golden_inputs(opened)
        for place, array in inputs.items():
            (folder / f"{place}.bin").write_bytes(array.tobytes())
        for file in [executable, *sorted(folder.iterdir())]:
            target = f"{FOLDER}/{'executor_runner' if file == executable else file.name}"
            said = phone.adb("push", file, target, timeout_s=300)
            if said.code:
                raise MobileBilayerError(
                    f"{file.name} can't be copied to the phone: {last_line(said.text)}. Make space on it."
                )
    phone.shell("chmod", "755", f"{FOLDER}/executor_runner")
    flags = [
        "--model_path=program.pte",
        f"--method_name={METHOD}",
        "--print_output=none",
        f"--num_executions={EXECUTIONS + WARM_UP}",
    ]
    flags += [f"--inputs={','.join(f'{place}.bin' for place in inputs)}"] + (
        [] if threads is None else [f"--cpu_threads={threads}"]
    )
    line = f"cd {FOLDER} && ./executor_runner {shlex.join(flags)}"
    medians, times, loads, firsts, warnings, temperatures = [], [], [], [], [], []
    begun = time.monotonic()
    done = 0
    while done < repeats or (seconds is not None and time.monotonic() - begun < seconds):
        if done < repeats and seconds is None:
            warnings += cool_down(phone, progress)
        progress("executor_runner", done, None if seconds else repeats)
        since = phone.shell("date", "+%s.000").strip()
        said = phone.shell(line, timeout_s=600)
        if "Iteration " not in said:  # Android's builds log there, not to the terminal
            said += phone.shell("logcat", "-d", "-v", "raw", "-T", since, "-s", "ExecuTorch:V")
        one, load = parse_runner(said)
        firsts.append(one[0])
        counted = one[WARM_UP:] or one[1:] or one
        medians.append(float(np.median(counted)))
        times += counted
        loads += [] if load is None else [load]
        temperatures.append(phone.thermal().state)
        done += 1
    if temperatures[-1] not in ("none", "unknown"):
        warnings.append(f"The phone's thermal state was {temperatures[-1]} at the end.")
    why = dict.fromkeys([*(f"stages_ms.{stage}" for stage in STAGES), "fps"], "executor_runner runs no whole frames")
    why["load.first_ever_ms"] = why["load.warm_ms"] = (
        "executor_runner is a fresh process each time, and not the first one"
    )
    result = Result(
        format_version=FORMAT_VERSION,
        made_at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        device=phone.name(),
        chip=phone.prop("ro.soc.model") or None,
        os=phone.system(),
        build_type="executor_runner",
        runtime="executorch, as executor_runner was built",
        tool_versions={"adb": last_line(call("adb", "version").text.splitlines()[0])},
        bundle=about.name,
        bundle_sha256=bundle_sha256(bundle),
        backend=about.backend,
        compute_unit="cpu" if about.backend == "xnnpack" else "gpu" if about.backend == "vulkan" else "neural_engine",
        threads=threads,
        precision=about.precision,
        image_px=about.image_px,
        bundle_mib=bundle_mib(bundle),
        package_mib=None,
        warmup_count=WARM_UP,
        iterations=len(times),
        duration_s=max(sum(times) / 1000, 1e-6),
        interrupted=False,
        load=Load(None, float(np.median(loads)) if loads else None, None),
        first_frame_ms=firsts[0],
        stages_ms=dict.fromkeys(STAGES),
        execute_ms=Statistics.of(times),
        fps=None,
        camera_fps=None,
        dropped=0,
        over_time=(),
        peak_memory_mib=None,
        delegated_operators=None,
        undelegated_operators={},
        undelegated_count=None,
        operators_by_device=None,
        operators_ms=None,
        energy_mj=None,
        energy_method=None,
        fidelity=None,
        repeats=done,
        repeat_spread=spread(medians),
        not_measured=why,
        warnings=(),
    )
    return finished(completed(result, bundle), *warnings)


def golden_inputs(bundle: Bundle) -> dict[str, np.ndarray]:
    """Of render_layers, float32, in the program's order."""
    golden, _ = bundle.golden()
    names = {"source_landmarks": "source_points", "landmarks": "driving_points"}
    return {
        spec.name: golden[names.get(spec.name, spec.name)].astype(np.float32)
        for spec in bundle.manifest.methods[METHOD].inputs
    }


app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command(
    epilog="Examples:  android.py --apk app.apk --apk app-androidTest.apk --sustained  ·  android.py --executor-runner executor_runner --threads 1"
)
def measure(
    apk: Annotated[
        list[Path] | None, typer.Option(help="Apps to install first: the app, and its tests.", show_default=False)
    ] = None,
    serial: Annotated[
        str | None, typer.Option(help="Which phone, if several are connected: see `adb devices`.", show_default=False)
    ] = None,
    seconds: Annotated[int, typer.Option(help="Of counted frames, each run.")] = 60,
    sustained: Annotated[
        bool, typer.Option("--sustained", help="Ten minutes, once: the last one is the headline.")
    ] = False,
    repeats: Annotated[
        int | None, typer.Option(help="Runs to merge. Default: 3, sustained: 1.", show_default=False)
    ] = None,
    executor_runner: Annotated[
        Path | None,
        typer.Option(
            help="ExecuTorch's, built for the phone: instead of the app, time execute() alone.", show_default=False
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Of executor_runner. Default: as it chooses.", show_default=False)
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            help="Bundle that the app holds, or executor_runner is to run. Default: the shipped one.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Result to write, NAME.json.")] = Path("android.json"),
) -> None:
    """Measure on a phone over adb, and write one result."""
    check_output(output, (".json",))
    seconds, count = seconds_and_runs(seconds, sustained, repeats)
    if threads is not None and (executor_runner is None or not 1 <= threads <= 64):
        raise MobileBilayerError(
            "--threads is of executor_runner, 1 to 64; the app chooses its own. Leave it out, or give --executor-runner."
        )
    path = shipped_bundle() if bundle is None else bundle
    phone = Phone(serial)
    abi = phone.check_abi()
    with cli.progress_bar() as progress:
        if executor_runner is not None:
            result = measure_runner(
                phone, executor_runner, path, seconds if sustained else None, threads, count, progress
            )
        else:
            result = finished(completed(measure_app(phone, apk or [], seconds, count, progress), path))
    if abi != ABIS[0]:
        result = finished(result, f"Measured on an emulator ({abi}): this is no phone.")
    result.save(output)
    show({str(output): result}, cli.out)
    cli.out.print(str(output), soft_wrap=True, markup=False)


if __name__ == "__main__":
    cli.main(app)
