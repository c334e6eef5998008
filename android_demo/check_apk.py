#!/usr/bin/env python3
"""Check that an app runs on phones with memory pages of 16 KB: `python android_demo/check_apk.py APP.apk`.

Stores refuse others. Every part that is loaded (PT_LOAD) of every native library for 64 bits must be aligned to 16 KB, and so must a
library that lies uncompressed in the APK. The Gradle build runs this after each APK. Exits with 0 when all is right, 1 when a
library is not, 2 when this is no APK.
"""

from __future__ import annotations

import argparse
import struct
import sys
import zipfile
from pathlib import Path

PAGE = 0x4000
ELF64 = 2
PT_LOAD = 1


class NoApk(Exception):
    """What was given is no APK that can be read."""


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("apk", type=Path)
    given = arguments.parse_args()
    try:
        count, wrong = check(given.apk)
    except NoApk as error:
        print(f"check_apk.py: {error}", file=sys.stderr)
        return 2
    for line in wrong:
        print(f"check_apk.py: {line}", file=sys.stderr)
    if wrong:
        print("check_apk.py: take versions of these libraries that are built for pages of 16 KB.", file=sys.stderr)
        return 1
    print(f"{given.apk}: {count} native libraries, all aligned for pages of 16 KB")
    return 0


def check(apk: Path) -> tuple[int, list[str]]:
    """How many native libraries there are, and what is wrong with which."""
    wrong, count = [], 0
    try:
        with zipfile.ZipFile(apk) as archive, apk.open("rb") as raw:
            for entry in archive.infolist():
                if not (entry.filename.startswith("lib/") and entry.filename.endswith(".so")):
                    continue
                count += 1
                try:
                    wrong += [f"{entry.filename}: {why}" for why in misaligned(archive.read(entry))]
                except (ValueError, struct.error) as error:
                    raise NoApk(f"{apk}: {entry.filename} is no library ({error}). Build the app again.") from error
                if entry.compress_type == zipfile.ZIP_STORED and (place := begin(raw, entry)) % PAGE:
                    wrong.append(f"{entry.filename}: lies at {place:#x} in the APK, which is no multiple of {PAGE:#x}")
    except (OSError, zipfile.BadZipFile) as error:
        raise NoApk(f"{apk} can't be read as an APK ({error}). Build the app, or check the path.") from error
    if not count:
        raise NoApk(f"{apk} holds no native library (lib/*/*.so); the app has ExecuTorch's. Build it again.")
    return count, wrong


def begin(raw, entry: zipfile.ZipInfo) -> int:
    """Where an entry's content begins in the file: behind its own header, whose extra field may be another than the directory's."""
    raw.seek(entry.header_offset + 26)
    name, extra = struct.unpack("<HH", raw.read(4))
    return entry.header_offset + 30 + name + extra


def misaligned(library: bytes) -> list[str]:
    """What is wrong with the parts of an ELF file that are loaded. 32 bits have no large pages."""
    if library[:4] != b"\x7fELF":
        raise ValueError("it does not begin as one")
    if library[4] != ELF64:
        return []
    order = "<" if library[5] == 1 else ">"
    (table,) = struct.unpack_from(f"{order}Q", library, 32)
    size, count = struct.unpack_from(f"{order}HH", library, 54)
    wrong, loaded = [], 0
    for i in range(count):
        kind, _, offset, address, _, _, _, align = struct.unpack_from(f"{order}IIQQQQQQ", library, table + i * size)
        if kind != PT_LOAD:
            continue
        loaded += 1
        if align % PAGE or align == 0:
            wrong.append(f"loaded part {loaded} is aligned to {align:#x}, not to {PAGE:#x}")
        elif (address - offset) % align:
            wrong.append(
                f"loaded part {loaded} lies at {offset:#x} for {address:#x}, which differ by no multiple of {align:#x}"
            )
    if not loaded:
        raise ValueError("nothing of it is loaded")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
