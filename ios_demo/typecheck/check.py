#!/usr/bin/env python3
"""Check the whole app without Xcode: `python ios_demo/typecheck/check.py`.

All of its Swift, its tests and Core included, goes through the real compiler in Swift 6's language mode with warnings as errors,
against stubs of Apple's frameworks, MediaPipe's and ExecuTorch's (`stubs`, one folder a module; each file names what it stands for),
and through `swift format lint --strict`. Then once more as iOS 17 sees it, without what is newer and what asks for it: so what is
newer is asked for. Nothing is run. Needs Swift 6, as Core/check.py finds it. Exits with 0 when all is right, 1 when something of the
app is wrong, 2 when something is missing.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent
sys.path.insert(0, str(DEMO / "Core"))
from check import CORE, Missing, Swift  # noqa: E402

APP = DEMO / "App"
STUBS = HERE / "stubs"
# Modules that are there on Linux, without all that Apple's have: what they lack is compiled along with who uses them.
EXTENDED = ("Foundation", "XCTest")
OLDEST_IOS = (17, 0)
ASKED = re.compile(r"(?:(?P<asked>if #available)|@available)\(iOS (?P<major>\d+)\.(?P<minor>\d+), \*\)(?(asked) \{)")
OTHERWISE = re.compile(r"(?<!if )#available|#available(?!\(iOS \d+\.\d+, \*\) \{)|@available\((?!iOS \d+\.\d+, \*\))")
FLAGS = ["-swift-version", "6", "-parse-as-library", "-wmo", "-Onone"]
# SwiftPM makes this for a package with resources.
CORE_RESOURCES = "import Foundation\n\nextension Bundle { static let module = Bundle.main }\n"


class Wrong(Exception):
    """Something in the app or its stubs that is not right."""


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--only", choices=("types", "format"), help="one of the two checks")
    given = arguments.parse_args()
    try:
        check(Swift(install=False), given.only)
    except (Missing, Wrong) as error:
        print(f"typecheck/check.py: {error}", file=sys.stderr)
        return 2 if isinstance(error, Missing) else 1
    print("The app type-checks. Nothing was run.")
    return 0


def check(swift: Swift, only: str | None) -> None:
    if only != "types":
        options = ["--configuration", str(CORE / ".swift-format"), "--strict", "--recursive"]
        if swift.run(["format", "lint", *options, str(APP), str(STUBS)], []):
            raise Wrong("swift format lint finds what is not well formed.")
    if only != "format":
        with tempfile.TemporaryDirectory(prefix="ios-app-") as name:
            for what, edit in (("as it is", None), (f"as iOS {OLDEST_IOS[0]} sees it", without_newer)):
                script = compile_all(Path(name), what.replace(" ", "-"), edit)
                print(f"Compiling the app {what}", flush=True)
                if swift.call(["sh", str(script)], [Path(name)]):
                    raise Wrong(f"The app does not compile {what}.")


def compile_all(folder: Path, name: str, edit: Callable[[str], str] | None) -> Path:
    """A script that compiles all in its order, Core once for all scripts.

    `edit` is what becomes of each text of the app and the stubs, if anything.
    """
    build, core = folder / name, folder / "core"
    lines = ["set -e"]

    def module(name: str, files: list[Path], *more: str, to: Path = build) -> None:
        out = to / f"{name}.swiftmodule"
        found = ["-I", str(build), "-I", str(core)]
        # What is taken out leaves values behind that nobody uses.
        warnings = "-suppress-warnings" if edit else "-warnings-as-errors"
        options = [*FLAGS, warnings, "-module-name", name, "-emit-module", "-emit-module-path", str(out), *found, *more]
        # On the way to a program all is looked at that the compiler looks at. Never to /dev/null: it puts a file in its place.
        command = ["swiftc", *options, "-emit-sil", "-o", str(build / f"{name}.sil"), *map(str, files)]
        lines.append(f"echo '  {name}'")
        lines.append(shlex.join(command))

    def sources(name: str, folder: Path) -> list[Path]:
        files = sorted(folder.rglob("*.swift"))
        return (
            [write(file, build / "sources" / name / file.relative_to(folder), edit) for file in files]
            if edit
            else files
        )

    build.mkdir()
    if not core.exists():
        core.mkdir()
        resources = core / "CoreResources.swift"
        resources.write_text(CORE_RESOURCES, "utf-8")
        module("MobileBilayerCore", [*sorted((CORE / "Sources/MobileBilayerCore").glob("*.swift")), resources], to=core)
    # A framework's Swift sees the C of its umbrella header.
    (build / "module.modulemap").write_text(
        f'module ExecuTorchRuntime {{ umbrella header "{APP}/Runtime/ExecuTorchRuntime.h" }}\n', "utf-8"
    )
    for name in in_order(STUBS):
        module(name, sources(name, STUBS / name))
    module("ExecuTorchRuntime", sources("ExecuTorchRuntime", APP / "Runtime"), "-import-underlying-module")
    beside = {name: sources(name, STUBS / name) for name in EXTENDED}
    module("Demo", [*sources("Demo", APP / "Sources"), *beside["Foundation"]], "-enable-testing")
    module("DemoTests", [*sources("DemoTests", APP / "Tests"), *beside["XCTest"]])
    script = build / "compile.sh"
    script.write_text("\n".join(lines) + "\n", "utf-8")
    return script


def write(file: Path, to: Path, edit: Callable[[str], str]) -> Path:
    """A copy of `file`, its text edited; so are names of files in errors, which end alike."""
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(edit(file.read_text("utf-8")), "utf-8")
    return to


def in_order(stubs: Path) -> list[str]:
    """The stubbed modules, each behind those that it imports."""
    imports = {}
    for folder in sorted(path for path in stubs.iterdir() if path.is_dir() and path.name not in EXTENDED):
        texts = [file.read_text("utf-8") for file in folder.rglob("*.swift")]
        imports[folder.name] = {name for text in texts for name in re.findall(r"^(?:@\w+ )?import (\w+)", text, re.M)}
    done: list[str] = []
    while len(done) < len(imports):
        ready = [name for name in imports if name not in done and imports[name] & imports.keys() <= {*done, name}]
        if not ready:
            raise Wrong(f"The stubs of {', '.join(sorted(imports.keys() - set(done)))} import each other.")
        done += ready
    return done


def without_newer(text: str) -> str:
    """Swift as the oldest iOS sees it: declarations that came later are gone, and of `if #available` the else is left.

    As many lines as before. Raises Wrong for another way of asking than `if #available(iOS 17.4, *) {`.
    """
    if other := OTHERWISE.search(text):
        line = text.count("\n", 0, other.start())
        raise Wrong(
            f"'{text.splitlines()[line].strip()}' is not understood here. Ask by `if #available(iOS 17.4, *) {{`."
        )
    out, at = "", 0
    while found := ASKED.search(text, at):
        begin = ended = found.start()
        if (int(found["major"]), int(found["minor"])) <= OLDEST_IOS:
            begin = ended = found.end()
        elif found["asked"]:
            ended = closing(text, found.end() - 1)
            if text.startswith(" else {", ended):
                ended += len(" else ")
                out += text[at:begin] + "do "  # a block of its own is left
                at = begin
        else:
            ended = end_of_declaration(text, found.end())
        out += text[at:begin] + blank(text[begin:ended])
        at = ended
    return out + text[at:]


def closing(text: str, opened: int) -> int:
    """Behind the bracket that closes the one at `opened`."""
    depth = 0
    for i in range(opened, len(text)):
        depth += {"{": 1, "}": -1}.get(text[i], 0)
        if depth == 0:
            return i + 1
    raise Wrong("A bracket is not closed.")


def end_of_declaration(text: str, at: int) -> int:
    """Behind a declaration that begins at `at`: its body's end, or its line's."""
    start = re.compile(r"\s*").match(text, at).end()
    line_end = text.find("\n", start)
    line_end = len(text) if line_end < 0 else line_end
    opened = text.find("{", start, line_end)
    return closing(text, opened) if opened >= 0 else line_end


def blank(text: str) -> str:
    return "\n" * text.count("\n")


if __name__ == "__main__":
    sys.exit(main())
