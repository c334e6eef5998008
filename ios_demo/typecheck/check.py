#!/usr/bin/env python3
"""Check the whole app without Xcode: `python ios_demo/typecheck/check.py`.

All of its Swift, its tests and Core included, goes through the real compiler in Swift 6's language mode with warnings as errors,
against stubs of Apple's frameworks, MediaPipe's and ExecuTorch's (`stubs`, one folder a module; each file names what it stands for),
and through `swift format lint --strict`. Then once more as iOS 16 sees it, without what is newer and what asks for it: so what is
newer is asked for. Nothing is run. Needs Swift 6, as Core/check.py finds it. Exits with 0 when all is right, 1 when something of the
app is wrong, 2 when something is missing.
"""

from __future__ import annotations

import argparse
import re
import shlex
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent
sys.path.insert(0, str(DEMO / "Core"))
from check import CORE, Missing, Swift  # noqa: E402

APP = DEMO / "App"
STUBS = HERE / "stubs"
BRIDGE = APP / "Sources" / "Demo-Bridging-Header.h"
# Modules that are there on Linux, without all that Apple's have: what they lack is compiled along with who uses them.
EXTENDED = ("Foundation", "XCTest")
OLDEST_IOS = 16
FLAGS = ["-swift-version", "6", "-warnings-as-errors", "-parse-as-library", "-wmo", "-Onone"]
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
            for what, edit in (("as it is", str), (f"as iOS {OLDEST_IOS} sees it", without_newer)):
                folder = Path(name, what.replace(" ", "-"))
                script = compile_all(folder, edit)
                print(f"Compiling the app {what}", flush=True)
                if swift.call(["sh", str(script)], [Path(name)]):
                    raise Wrong(f"The app does not compile {what}.")


def compile_all(build: Path, edit) -> Path:
    """A script that compiles all in its order. `edit` is what becomes of each text of the app and the stubs."""
    lines = ["set -e"]

    def module(name: str, files: list[Path], *more: str) -> None:
        out = build / f"{name}.swiftmodule"
        options = [*FLAGS, "-module-name", name, "-emit-module", "-emit-module-path", str(out), "-I", str(build), *more]
        # The program itself is lost; on the way to it all is looked at that the compiler looks at.
        command = ["swiftc", *options, "-emit-sil", "-o", "/dev/null", *map(str, files)]
        lines.append(f"echo '  {name}'")
        lines.append(shlex.join(command))

    def edited(name: str, folder: Path) -> list[Path]:
        return write(folder, sorted(folder.rglob("*.swift")), build / "sources" / name, edit)

    build.mkdir(parents=True)
    resources = build / "CoreResources.swift"
    resources.write_text(CORE_RESOURCES, "utf-8")
    module("MobileBilayerCore", [*sorted((CORE / "Sources/MobileBilayerCore").glob("*.swift")), resources])
    for name in in_order(STUBS):
        module(name, edited(name, STUBS / name))
    bridge = ["-import-objc-header", str(BRIDGE)] if BRIDGE.is_file() else []
    module("Demo", [*edited("Demo", APP / "Sources"), *beside("Foundation", build, edit)], "-enable-testing", *bridge)
    if any((APP / "Tests").rglob("*.swift")):
        module("DemoTests", [*edited("DemoTests", APP / "Tests"), *beside("XCTest", build, edit)], *bridge)
    script = build / "compile.sh"
    script.write_text("\n".join(lines) + "\n", "utf-8")
    return script


def beside(name: str, build: Path, edit) -> list[Path]:
    folder = STUBS / name
    return write(folder, sorted(folder.rglob("*.swift")), build / "sources" / name, edit)


def write(folder: Path, files: list[Path], to: Path, edit) -> list[Path]:
    """Copies of `files`, each with its text edited and with the place where its lines come from."""
    written = []
    for file in files:
        copy = to / file.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        text = edit(file.read_text("utf-8"))
        copy.write_text(f'#sourceLocation(file: "{file}", line: 1)\n{text}', "utf-8")
        written.append(copy)
    return written


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

    As many lines as before. Raises Wrong for another way of asking than `if #available(iOS N.M, *)`.
    """
    out, at = "", 0
    asked = re.compile(r"#available\(|@available\(iOS (\d+)[.\d]*, \*\)")
    while found := asked.search(text, at):
        if found[1] is None:
            begin = text.rfind("if ", at, found.start())
            version = re.match(r"#available\(iOS (\d+)[.\d]*, \*\) \{", text[found.start() :])
            if begin < 0 or text[begin : found.start()] != "if " or not version:
                line = text.count("\n", 0, found.start()) + 1
                raise Wrong(f"Line {line}: {text.splitlines()[line - 1].strip()} Ask by `if #available(iOS 17.0, *) {{`.")
            opened = text.index("{", found.start())
            ended = closing(text, opened)
            other = re.compile(r" else \{").match(text, ended)
            keep_from = other.end() - 1 if other else ended
            newer = int(version[1]) > OLDEST_IOS
            gone = (begin, keep_from) if newer else (begin, begin)
            # What is left is a block of its own.
            out += text[at : gone[0]] + ("do " if newer and other else "") + blank(text[gone[0] : gone[1]])
            at = gone[1] if newer else found.end()
            continue
        if int(found[1]) <= OLDEST_IOS:
            out += text[at : found.end()]
            at = found.end()
            continue
        ended = end_of_declaration(text, found.end())
        out += text[at : found.start()] + blank(text[found.start() : ended])
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
