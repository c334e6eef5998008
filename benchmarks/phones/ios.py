"""Measure on an iPhone: build for testing, run the benchmark as an XCTest, fetch its attachment, merge.

    python benchmarks/phones/ios.py --xctestrun Demo.xctestrun --sustained -o iphone.json

Needs a Mac with Xcode 16 or newer. **Not run on an iPhone yet**: tested with stand-ins for xcrun and xcodebuild that say what
the real ones are documented to say. On a Mac itself, without an iPhone, `mobile-bilayer benchmark run` runs a Core ML bundle, and
asks coremltools' compute plan where its operators run; of an iPhone Xcode's performance report tells that.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from phone_tools import call, completed, finished, seconds_and_runs

from mobile_bilayer import cli
from mobile_bilayer.benchmark.result import Result, merge
from mobile_bilayer.benchmark.show import show
from mobile_bilayer.capture.images import check_output
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.runtime.bundle import shipped_bundle

TEST = "DemoTests/BenchmarkTests/testLiveModeIsMeasured"
SPARE_S = 600  # for installing, the app's start and its end

Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True)
class Device:
    """An entry of `xcrun devicectl list devices`. why_not: what keeps it from being used; empty if nothing does."""

    udid: str
    name: str
    why_not: str = ""

    def __str__(self) -> str:
        return f"{self.name} ({self.udid})"


def parse_devices(text: str) -> list[Device]:
    """Of `devicectl list devices --json-output`: iPhones and iPads."""
    try:
        entries = json.loads(text)["result"]["devices"]
        found = []
        for entry in entries:
            hardware, about, connection = (
                entry.get(f"{part}Properties", {}) for part in ("hardware", "device", "connection")
            )
            if hardware.get("platform", "iOS") not in ("iOS", "iPadOS"):
                continue
            found.append(
                Device(
                    hardware["udid"],
                    about.get("name") or hardware.get("marketingName") or "iPhone",
                    _why_not(about, connection),
                )
            )
        return found
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MobileBilayerError(
            f"`xcrun devicectl list devices` said what is not understood here ({error!r}). Update Xcode."
        ) from error


def _why_not(about: dict, connection: dict) -> str:
    if connection.get("pairingState") == "unpaired":
        return "is not paired: unlock it, plug it in and trust this Mac"
    if connection.get("tunnelState") == "unavailable":
        return "is not connected: plug it in, unlock it"
    if about.get("developerModeStatus") == "disabled":
        return "is not in developer mode: Settings, Privacy & Security, Developer Mode"
    return ""


def choose(devices: list[Device], udid: str | None) -> Device:
    """The one that is meant and ready. Raises MobileBilayerError that says what to do."""
    if not devices:
        raise MobileBilayerError("No iPhone is known to this Mac. Plug one in, unlock it and trust this Mac.")
    named = [device for device in devices if udid in (None, device.udid, device.name)]
    if not named:
        raise MobileBilayerError(
            f"No iPhone is called {udid}; known are {', '.join(map(str, devices))}. Name one of them."
        )
    ready = [device for device in named if not device.why_not]
    if len(ready) > 1:
        raise MobileBilayerError(
            f"Several iPhones are connected: {', '.join(map(str, ready))}. Choose one: --device {ready[0].udid}."
        )
    if not ready:
        raise MobileBilayerError(f"{named[0]} {named[0].why_not}.")
    return ready[0]


def parse_xcodebuild(text: str, code: int) -> None:
    """Of `xcodebuild test-without-building`. Raises MobileBilayerError unless the test passed."""
    if code == 0 and "** TEST EXECUTE SUCCEEDED **" in text:
        return
    known = {
        r"is not installed|[Cc]ould not install|application failed to install": "The app can't be installed. Sign it with a team that has this iPhone: open the project in Xcode once.",
        r"device is locked|[Uu]nlock .* to (?:continue|Continue)": "The iPhone is locked. Unlock it, and keep it so.",
        r"[Tt]ests in the target .* can't be run|no such module|not a valid xctestrun": "The .xctestrun is not of this app. Build it again: xcodebuild build-for-testing.",
        r"Restarting after unexpected exit|crashed": "The app crashed. Its report lies in Xcode, Devices and Simulators, View Device Logs.",
    }
    for pattern, remedy in known.items():
        if found := re.search(rf"^.*(?:{pattern}).*$", text, re.MULTILINE):
            raise MobileBilayerError(f"The benchmark did not run: {found[0].strip()[:300]}. {remedy}")
    failed = re.search(r"error: .*", text)
    raise MobileBilayerError(
        f"The benchmark failed on the iPhone: {failed[0].removeprefix('error: ')[:300] if failed else f'xcodebuild ended with {code}'}. "
        "Keep the screen on and the app before all others."
    )


def attachment(folder: Path) -> Path:
    """Of what `xcresulttool export attachments` wrote: the one result file."""
    try:
        tests = json.loads((folder / "manifest.json").read_text("utf-8"))
        named = [
            (one.get("suggestedHumanReadableName", ""), one["exportedFileName"])
            for test in tests
            for one in test.get("attachments", [])
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise MobileBilayerError(
            f"The test's attachments can't be read ({error}). Update Xcode to 16 or newer."
        ) from error
    results = [file for name, file in named if name.endswith(".json") or file.endswith(".json")]
    if len(results) != 1:
        raise MobileBilayerError(
            f"The test has {len(results)} attached results; one is needed. Its attachments: {[name for name, _ in named][:5]}."
        )
    return folder / Path(results[0]).name


def measure_once(device: Device, xctestrun: Path, seconds: int, what: str, progress: Progress) -> Result:
    """One run: its attachment."""
    with tempfile.TemporaryDirectory(prefix="mobile_bilayer.") as name:
        folder = Path(name)
        said = call(
            *("xcodebuild", "test-without-building", "-xctestrun", xctestrun, "-destination", f"id={device.udid}"),
            *(f"-only-testing:{TEST}", "-resultBundlePath", folder / "run.xcresult"),
            timeout_s=seconds + SPARE_S,
            environment={"TEST_RUNNER_BENCHMARK_SECONDS": str(seconds)},  # the test gets it without the prefix
            while_waiting=lambda spent: progress(what, min(int(spent), seconds), seconds),
        )
        parse_xcodebuild(said.text, said.code)
        out = folder / "attachments"
        said = call(
            "xcrun", "xcresulttool", "export", "attachments", "--path", folder / "run.xcresult", "--output-path", out
        )
        if said.code:
            raise MobileBilayerError(
                f"The test's attachments can't be exported: {said.text.strip()[-300:]}. Update Xcode to 16 or newer."
            )
        return Result.load_file(attachment(out))


app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)


@app.command(epilog="Example:  ios.py --xctestrun build/Products/Demo_iphoneos.xctestrun --sustained -o iphone.json")
def measure(
    xctestrun: Annotated[Path, typer.Option(help="Of the app: `xcodebuild build-for-testing` writes it.")],
    device: Annotated[
        str | None, typer.Option(help="Which iPhone, by UDID or name, if several are connected.", show_default=False)
    ] = None,
    seconds: Annotated[int, typer.Option(help="Of counted frames, each run.")] = 60,
    sustained: Annotated[
        bool, typer.Option("--sustained", help="Ten minutes, once: the last one is the headline.")
    ] = False,
    repeats: Annotated[
        int | None, typer.Option(help="Runs to merge. Default: 3, sustained: 1.", show_default=False)
    ] = None,
    bundle: Annotated[
        Path | None, typer.Option(help="Bundle that the app holds. Default: the shipped one.", show_default=False)
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Result to write, NAME.json.")] = Path("ios.json"),
) -> None:
    """Measure on an iPhone with Xcode's tools, and write one result."""
    check_output(output, (".json",))
    seconds, count = seconds_and_runs(seconds, sustained, repeats)
    with tempfile.TemporaryDirectory(prefix="mobile_bilayer.") as folder:
        listed = Path(folder, "devices.json")
        said = call("xcrun", "devicectl", "list", "devices", "--json-output", listed)
        if said.code or not listed.is_file():
            raise MobileBilayerError(
                f"`xcrun devicectl` failed: {said.text.strip()[-300:]}. Update Xcode to 16 or newer."
            )
        chosen = choose(parse_devices(listed.read_text("utf-8")), device)
    if not xctestrun.is_file():
        raise MobileBilayerError(
            f"{xctestrun} does not exist (.xctestrun). `xcodebuild build-for-testing` writes it, on a Mac."
        )
    with cli.progress_bar() as progress:
        runs = [measure_once(chosen, xctestrun, seconds, f"Run {i + 1} of {count}", progress) for i in range(count)]
    result = finished(completed(merge(runs), shipped_bundle() if bundle is None else bundle))
    result.save(output)
    show({str(output): result}, cli.out)
    cli.out.print(str(output), soft_wrap=True, markup=False)


if __name__ == "__main__":
    cli.main(app)
