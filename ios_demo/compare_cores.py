#!/usr/bin/env python3
"""Hold the two cores against each other: `python ios_demo/compare_cores.py`.

What Kotlin's core shows (its public types, functions and values), Swift's has by the same name; what Swift's shows, Kotlin's has;
and the tests of both read the same golden files. Differences that are meant are listed here, each with its reason; one that is no
longer there is an error as well. Exits with 0 when they match, else with 1.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
KOTLIN = REPOSITORY / "android_demo/core/src"
SWIFT = REPOSITORY / "ios_demo/Core"

# Of Kotlin's names, what Swift's are.
RENAMED = {
    "Bundle": "ModelBundle",  # Foundation has a Bundle
    "Bundle.where": "ModelBundle.place",  # a keyword
    "LANDMARKS": "landmarkCount",  # parameters are named landmarks, and so on
    "POINTS": "pointCount",
    "SHUT_LIDS": "shutLidsOpening",
    "SHUT_LIPS": "shutLipsOpening",  # shutLips is the function
    "FILE": "StabilizerConfig.file",
    "LatestFrame.await": "LatestFrame.wait",  # a keyword
    "Rest.eyePlaces": "Rest.places",
    "Source.eyePoints": "Source.points",
    "BundleChoice.BACKENDS": "backends",  # generic types hold no values of their own
}
ONLY_KOTLIN = {
    "CaptureClock": "an iPhone's frames are stamped by the host's clock, which is nowNs",
    "YuvImage.cropLeft": "FrameCrop holds the four",
    "YuvImage.cropTop": "FrameCrop holds the four",
    "YuvImage.cropRight": "FrameCrop holds the four",
    "YuvImage.cropBottom": "FrameCrop holds the four",
    "YuvImage.cropped": "a crop is given when a frame is made",
    "YuvImage.of": "a benchmark on iOS shows pixel buffers, which the app makes",
}
ONLY_SWIFT = {
    "nowNs": "Kotlin has System.nanoTime",
    "sha256": "Kotlin has MessageDigest",
    "Numbers": "Kotlin's arrays say their type themselves",
    "JsonObject": "Kotlin has maps that keep their order",
    "YuvColours": "cameras of iPhones have four kinds of numbers, Android's one",
    "FrameCrop": "as YuvImage.cropLeft",
    "BgraImage": "a format of iPhones",
    "YuvImage.biplanar": "as iPhones lay luma and chroma out",
    "YuvImage.colours": "as YuvColours",
    "YuvImage.crop": "as YuvImage.cropLeft",
    "FrameNetwork.close": "Kotlin has it of AutoCloseable",
    "LivePipeline.close": "Kotlin has it of AutoCloseable",
    "MobileBilayerError.cause": "Kotlin has it of Exception",
    "MobileBilayerError.description": "how Swift prints an error",
    "MobileBilayerError.errorDescription": "how iOS shows one",
    "MobileBilayerError.message": "Kotlin has it of Exception",
    "Json.list": "Kotlin casts",
    "Json.number": "Kotlin casts",
    "Json.object": "Kotlin casts",
    "Json.text": "Kotlin casts",
    "Json.whole": "Kotlin casts",
    "Safetensors.names": "Kotlin's maps keep their order",
    "StabilizerConfig.live": "Kotlin has default arguments: what throws can be none",
    "ModelBundle.writeProgram": "Core ML's program is a folder; of Android's one file the app has an asset",
    "UnitChoice": "Core ML has several compute units for one bundle; on Android each has a bundle of its own",
    "copyRows": "Core ML lays outputs out at distances of its own; Android's tensors copy themselves",
}


def main() -> int:
    wrong = compare()
    for line in wrong:
        print(f"compare_cores.py: {line}", file=sys.stderr)
    return 1 if wrong else 0


def compare(kotlin_folder: Path = KOTLIN, swift_folder: Path = SWIFT) -> list[str]:
    """What does not match, one sentence each."""
    kotlin = kotlin_names(sources(kotlin_folder / "main", "kt"))
    swift, shown = swift_names(sources(swift_folder / "Sources", "swift"))
    wrong = []
    missing, unused = set(), RENAMED.keys() | ONLY_KOTLIN.keys()
    for name in sorted(kotlin):
        listed = next((key for key in (name, name.split(".")[0]) if key in ONLY_KOTLIN), None)
        if name in RENAMED:
            unused.discard(name)
        if listed:
            unused.discard(listed)
            if in_swift(name) in swift:
                wrong.append(f"{name} is listed as Kotlin's alone, and Swift has it. Take it off the list.")
        elif in_swift(name) not in swift:
            missing.add(name)
    wrong += [f"Kotlin shows {name}, and Swift lacks {in_swift(name)}." for name in sorted(missing)]
    wrong += [
        f"{name} is listed as Kotlin's, and Kotlin has no such name. Take it off the list." for name in sorted(unused)
    ]
    known = {in_swift(name) for name in kotlin}
    extra = {name for name in shown - known if not ({name, name.split(".")[0]} & ONLY_SWIFT.keys())}
    wrong += [f"Swift shows {name}, and Kotlin lacks it." for name in sorted(extra)]
    wrong += [
        f"{name} is listed as Swift's alone. Take it off the list."
        for name in sorted(ONLY_SWIFT.keys() - (shown - known))
    ]
    files = {"golden/": {path.name for path in (REPOSITORY / "golden").glob("*.json")}}
    for language, folder, ending in (
        ("Kotlin", kotlin_folder / "test", "kt"),
        ("Swift", swift_folder / "Tests", "swift"),
    ):
        files[language] = set(re.findall(r'golden(?:File|Cases)\("([\w.]+)"\)', "\n".join(sources(folder, ending))))
    for one in files:
        for other in files:
            if more := files[one] - files[other]:
                wrong.append(f"{one} has {', '.join(sorted(more))}, and {other} does not read it.")
    return wrong


def sources(folder: Path, ending: str) -> list[str]:
    return [path.read_text() for path in sorted(folder.rglob(f"*.{ending}"))]


def in_swift(name: str) -> str:
    """The name that Swift has for one of Kotlin's."""
    if name in RENAMED:
        return RENAMED[name]
    owner, dot, member = name.rpartition(".")
    return f"{RENAMED.get(owner, owner)}{dot}{camel(member)}"


def camel(name: str) -> str:
    """LARGEST_SHIFT as largestShift."""
    if not re.fullmatch(r"[A-Z][A-Z0-9_]*", name) or len(name) == 1:
        return name
    first, *others = name.lower().split("_")
    return first + "".join(map(str.capitalize, others))


def kotlin_names(texts: list[str]) -> set[str]:
    """Types, and functions and values as "Type.name" or, outside of types, as "name"; without what is private, internal or override."""
    names = set()
    declared = re.compile(
        r"(?P<indent> *)(?P<words>(?:(?:private|internal|protected|override|public|const|data|enum|inline|operator|lateinit|companion)\s+)*)"
        r"(?P<kind>class|object|interface|fun|val|var)\b(?:\s+<[^>]*>)?\s*(?:\w+\.)?(?P<name>\w+)?"
    )
    for text in texts:
        owner, hidden_from = "", 99
        lines = text.splitlines()
        for i, line in enumerate(lines):
            found = declared.match(line)
            if not found:
                continue
            depth = len(found["indent"])
            hidden_from = 99 if depth <= hidden_from else hidden_from
            if depth > hidden_from:
                continue
            words = found["words"].split()
            hidden = {"private", "internal", "protected", "override"} & set(words)
            if "companion" in words:
                hidden_from = depth if hidden else 99
                continue
            if found["kind"] in ("class", "object", "interface"):
                if hidden or depth > 4:
                    hidden_from = depth
                    continue
                if depth == 0:
                    owner = found["name"]
                    names.add(owner)
                    heading = "\n".join(lines[i:])
                    heading = heading[: heading.find("{")] if "{" in heading else heading
                    values = re.findall(r"(private |internal |override )?va[lr] (\w+)", heading.split("\n\n")[0])
                    names |= {f"{owner}.{name}" for hides, name in values if not hides}
                continue
            if depth == 0:
                owner = ""
            if not hidden and depth in (0, 4, 8) and found["name"] and (depth == 0 or owner):
                if depth == 8 and not in_companion(lines, i):
                    continue
                if depth == 4 and line.rstrip().endswith(",") and found["kind"] in ("val", "var"):
                    continue  # of a constructor, which was read with its type
                names.add(f"{owner}.{found['name']}" if owner and depth else found["name"])
    return names


def in_companion(lines: list[str], i: int) -> bool:
    """Whether what holds this line, of a depth of 8, is a public companion."""
    above = next((line for line in reversed(lines[:i]) if re.match(r" {4}\S", line)), "")
    return above.strip().startswith("companion object")


def swift_names(texts: list[str]) -> tuple[set[str], set[str]]:
    """The same of Swift: all that is not private, and of it what is public."""
    names, shown = set(), set()
    declared = re.compile(
        r"(?P<indent> *)(?:@\w+\s+)*(?P<words>(?:(?:public|private|fileprivate|internal|static|final|mutating|indirect|internal\(set\)"
        r"|private\(set\)|fileprivate\(set\))\s+)*)(?P<kind>class|struct|enum|protocol|func|let|var|case)\s+(?P<name>\w+)"
    )
    for text in texts:
        owner = ""
        for line in text.splitlines():
            found = declared.match(line)
            if not found or len(found["indent"]) > 4:
                continue
            words = set(found["words"].split())
            member = len(found["indent"]) == 4
            if found["kind"] in ("class", "struct", "enum", "protocol") and not member:
                owner = found["name"]
                if {"private", "fileprivate"} & words:
                    owner = ""
                    continue
                names.add(owner)
                shown |= {owner} if "public" in words else set()
                continue
            if not member:
                owner = ""
            if {"private", "fileprivate"} & words or (member and not owner) or found["kind"] == "case":
                continue
            name = f"{owner}.{found['name']}" if member else found["name"]
            names.add(name)
            if "public" in words:
                shown.add(name)
    return names, shown


if __name__ == "__main__":
    sys.exit(main())
