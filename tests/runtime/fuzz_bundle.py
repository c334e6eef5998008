"""Damaged and hostile bundles, avatars and programs: each opens, or is refused in words.

`python tests/runtime/fuzz_bundle.py --mutations 100000` runs some processes of mutations, each made from its number alone:
`--start` goes on from there, and `--start N --mutations 1` does one again. A short form is in test_fuzz_bundle.py.
"""

from __future__ import annotations

import argparse
import copy
import faulthandler
import hashlib
import json
import mmap
import os
import random
import signal
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from mobile_bilayer import Avatar, Bundle, MobileBilayerError
from mobile_bilayer.runtime.executorch_file import read_program
from mobile_bilayer.runtime.inspection import inspect, to_json
from mobile_bilayer.runtime.program import Program
from mobile_bilayer.samples import sample_photo

LONGEST_S = 30  # of one mutation; they take milliseconds
WORDS = (0, 1, 2, 3, 7, 255, 2**15, 2**16 - 1, 2**20, 2**30, 2**31 - 1, 2**31, 2**32 - 1)
ODD = [
    None,
    True,
    -1,
    0,
    1,
    0.5,
    1e30,
    -1e30,
    10**40,
    float("nan"),
    float("inf"),
    "",
    "x",
    "../x",
    "\ud800",
    "a\0b",
    [],
    {},
    [[]],
    [None],
    {"": {}},
]


@dataclass(frozen=True)
class Base:
    """What is mutated: whole files, and small ones where only the outside is read."""

    folder: Path  # to write into
    bundle: Bundle
    small: dict[str, bytes]  # files of a bundle whose program and golden vectors are a few bytes
    avatar: bytes
    inputs: dict[str, list[np.ndarray]]

    @property
    def program(self) -> bytes:
        return self.bundle.contents[self.bundle.manifest.program]


def make_base(folder: Path) -> Base:
    bundle = Bundle.open()
    avatar = bundle.avatar(*sample_photo("astronaut"))
    avatar.save(folder / "base.avatar")
    small = {bundle.manifest.program: bundle.contents[bundle.manifest.program][:120], "MODEL_CARD.md": b"# A card\n"}
    small["golden.safetensors"] = save({"image": np.zeros(3, np.uint8)})
    hashes = {name: hashlib.sha256(data).hexdigest() for name, data in small.items()}
    small["manifest.json"] = replace(bundle.manifest, sha256=hashes).to_json().encode()
    rng = np.random.default_rng(0)
    inputs = {
        name: [rng.random(t.shape, np.float32) for t in spec.inputs] for name, spec in bundle.manifest.methods.items()
    }
    bundle.program  # noqa: B018  loads the runtime before processes split
    return Base(folder, bundle, small, (folder / "base.avatar").read_bytes(), inputs)


def damaged(data: bytes, rng: random.Random, low: int = 0, high: int | None = None) -> bytes:
    """Some bytes between low and high changed, or all cut off, repeated, moved or filled with zeros from somewhere on."""
    out, high = bytearray(data), len(data) if high is None else high
    for _ in range(rng.choice([1, 1, 1, 2, 4, 16])):
        i = rng.randrange(low, min(high, len(out))) if min(high, len(out)) > low else 0
        kind = rng.randrange(10)
        if kind < 3:
            out[i : i + 1] = bytes([rng.randrange(256)])
        elif kind < 5 and i < len(out):
            out[i] ^= 1 << rng.randrange(8)
        elif kind < 7:
            size = rng.choice([2, 4, 8])
            out[i : i + size] = (rng.choice(WORDS) % 2 ** (8 * size)).to_bytes(size, "little")
        elif kind == 7:
            j = rng.randrange(low, high)
            out[i : i + 8] = data[j : j + 8]
        elif kind == 8:
            del out[i : i + rng.choice([1, 4, 100])]
        else:
            out = out[:i] + (bytes(len(out) - i) if rng.random() < 0.5 else b"")
            break
    return bytes(out)


def spoilt(values: dict, rng: random.Random) -> dict:
    """Some value anywhere inside taken out, or made another; some key added."""
    values = copy.deepcopy(values)
    for _ in range(rng.choice([1, 1, 2, 4])):
        parent: dict | list = values
        while True:
            keys = list(parent) if isinstance(parent, dict) else list(range(min(len(parent), 600)))
            if not keys:
                break
            key = rng.choice(keys)
            inner = parent[key]
            if isinstance(inner, (dict, list)) and inner and rng.random() < 0.85:
                parent = inner
                continue
            kind = rng.random()
            if kind < 0.15:
                del parent[key]
            elif kind < 0.25 and isinstance(parent, dict):
                parent[rng.choice(["unknown", "../x", "", "format_version", "\u202e"])] = copy.deepcopy(rng.choice(ODD))
            elif kind < 0.35 and isinstance(parent, list):
                parent.append(copy.deepcopy(rng.choice([inner, *ODD])))
            elif kind < 0.6 and isinstance(inner, (int, float)) and not isinstance(inner, bool):
                parent[key] = rng.choice([inner + 1, -inner, inner * 1e9, float(inner), str(inner), inner + 1e-3])
            else:
                parent[key] = copy.deepcopy(rng.choice(ODD))
            break
    return values


def manifest_text(base: Base, rng: random.Random) -> bytes:
    whole = base.small["manifest.json"]
    kind = rng.randrange(12)
    if kind < 7:
        return json.dumps(spoilt(json.loads(whole), rng)).encode("utf-8", "surrogatepass")
    if kind < 9:
        return damaged(whole, rng)
    if kind == 9:
        deep = rng.choice([10, 1000, 100_000])
        return rng.choice([b"[" * deep, b'{"a":' * deep, b"[" * deep + b"]" * deep])
    if kind == 10:  # one key twice, or a number that is none
        text = whole.decode()
        extra = rng.choice(
            [
                '"size": "S",',
                '"crop_up": NaN,',
                '"crop_up": -Infinity,',
                '"crop_up": 1e999,',
                '"image_px": ' + "9" * 5000 + ",",
            ]
        )
        return text.replace("{", "{" + extra, 1).encode()
    return rng.choice(
        [
            whole.decode().encode("utf-16"),
            b"\xef\xbb\xbf" + whole,
            whole + whole,
            b"",
            b"null",
            bytes(rng.randbytes(50)),
        ]
    )


def fill(folder: Path, contents: dict[str, bytes]) -> None:
    for old in folder.iterdir():
        old.rmdir() if old.is_dir() and not old.is_symlink() else old.unlink()
    for name, data in contents.items():
        (folder / name).write_bytes(data)


def fuzz_manifest(base: Base, rng: random.Random) -> None:
    folder = base.folder / "bundle"
    fill(folder, base.small | {"manifest.json": manifest_text(base, rng)})
    Bundle.open(folder)


def fuzz_folder(base: Base, rng: random.Random) -> None:
    """Files cut, swapped, gone or linked, their hashes as they were."""
    contents, folder = dict(base.small), base.folder / "bundle"
    names = [name for name in contents if name != "manifest.json"]
    first, second = rng.sample(names, 2)
    kind = rng.randrange(8)
    if kind == 0:
        contents[first], contents[second] = contents[second], contents[first]
    elif kind == 1:
        contents[first] = contents[second]
    elif kind < 5:
        contents[first] = damaged(contents[first], rng)
    fill(folder, contents)
    if kind >= 5:
        (folder / first).unlink()
        if kind == 6:
            target = rng.choice(
                ["/dev/zero", "/dev/stdin", "/etc/passwd", ".", first, second, "none", "/proc/self/mem"]
            )
            (folder / first).symlink_to(target)
        elif kind == 7:
            rng.choice([os.mkfifo, os.mkdir])(folder / first)
    refused = False
    try:
        Bundle.open(folder)
    except MobileBilayerError:
        refused = True
        raise
    finally:
        assert refused or contents == base.small, "a changed file was accepted"


def zip_bytes(base: Base, rng: random.Random) -> bytes:
    members = list(base.small.items())
    file = BytesIO()
    with (
        warnings.catch_warnings(),
        zipfile.ZipFile(file, "w", rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])) as archive,
    ):
        warnings.simplefilter("ignore")  # that a name is there twice
        kind = rng.randrange(8)
        prefix = rng.choice(["", "", "b/", "../", "/", "a/b/", "C:\\"])
        rng.shuffle(members)
        for name, data in members:
            info = zipfile.ZipInfo(prefix + name)
            if kind == 0 and rng.random() < 0.5:
                info.external_attr = 0o120777 << 16  # a link
                data = b"/etc/passwd"
            archive.writestr(info, data)
        if kind == 1:
            name, data = rng.choice(members)
            archive.writestr(prefix + name, damaged(data, rng))
        elif kind == 2:
            archive.writestr(
                rng.choice(["../../evil", "/etc/evil", "b/../manifest.json", "x/manifest.json", "a\0b"]), b"evil"
            )
        elif kind == 3:
            archive.writestr("bomb", bytes(5 * 2**20), zipfile.ZIP_DEFLATED)
    data = file.getvalue()
    if kind == 4:  # sizes that are not so, in one of the two places that tell them
        data = bytearray(data)
        marks = [i for i in range(len(data) - 4) if data[i : i + 4] in (b"PK\x01\x02", b"PK\x03\x04")]
        i = rng.choice(marks)
        place = i + (20 if data[i + 2] == 1 else 18) + rng.choice([0, 4])
        data[place : place + 4] = rng.choice(WORDS).to_bytes(4, "little")
    return damaged(bytes(data), rng) if kind > 4 else bytes(data)


def fuzz_zip(base: Base, rng: random.Random) -> None:
    path = base.folder / "bundle.zip"
    path.write_bytes(zip_bytes(base, rng))
    Bundle.open(path)


def tensors_damaged(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file whose header lies, or is none."""
    size = int.from_bytes(data[:8], "little")
    header, rest = json.loads(data[8 : 8 + size]), data[8 + size :]
    kind = rng.randrange(8)
    if kind == 0:
        return struct.pack("<Q", rng.choice([0, 1, size - 1, size + 1, len(data), 2**31, 2**63, 2**64 - 1])) + data[8:]
    if kind == 1:
        return damaged(data, rng, 0, 8 + size)
    if kind == 2:
        return data[: rng.randrange(len(data))]
    if kind == 3:
        text = rng.choice(
            [b"[" * 5000, b"{}", b"null", b'"x"', b'{"a":' * 900, json.dumps(header).encode() + b" " * 2**21]
        )
        return struct.pack("<Q", len(text)) + text + rest
    names = [name for name in header if name != "__metadata__"]
    if kind == 4:
        header = spoilt(header, rng)
    elif kind == 5:  # two at one place
        first, second = rng.choice(names), rng.choice(names)
        header[first] = (
            copy.deepcopy(header[second])
            if rng.random() < 0.5
            else header[first] | {"data_offsets": header[second]["data_offsets"]}
        )
    elif kind == 6:
        name = rng.choice(names)
        header[name] |= rng.choice(
            [
                {"data_offsets": [0, 2**63]},
                {"data_offsets": [10, 0]},
                {"data_offsets": [-1, 8]},
                {"shape": [2**40, 2**40]},
                {"shape": [2**32, 2**32, 0]},
                {"shape": [-1]},
                {"shape": []},
                {"dtype": rng.choice(["F64", "BF16", "F8_E5M2", "I64", "U16", "BOOL", "C64", "X", "", None])},
            ]
        )
    else:
        floats = bytearray(rest)
        for _ in range(20):
            i = rng.randrange(0, len(rest) - 4)
            floats[i : i + 4] = struct.pack("<f", rng.choice([float("nan"), float("inf"), 3e38, -3e38, 1e-40]))
        rest = bytes(floats)
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + rest


def fuzz_avatar(base: Base, rng: random.Random) -> None:
    path = base.folder / "mutated.avatar"
    path.write_bytes(tensors_damaged(base.avatar, rng))
    Avatar.load(path, base.bundle)


def fuzz_golden(base: Base, rng: random.Random) -> None:
    """Golden vectors, as if their hash were right."""
    data = tensors_damaged(base.bundle.contents["golden.safetensors"], rng)
    replace(base.bundle, contents=base.bundle.contents | {"golden.safetensors": data}).golden()


def program_damaged(base: Base, rng: random.Random) -> bytes:
    """Bytes changed where few of them are weights: in the file's own table of contents, or in a delegate's graph."""
    data = base.program
    low, high = rng.choice(PLACES.setdefault(data[-64:], [(0, 100), (0, 23_000), *graphs(data), (0, len(data))]))
    return damaged(data, rng, low, high)


PLACES: dict[bytes, list[tuple[int, int]]] = {}


def graphs(data: bytes) -> list[tuple[int, int]]:
    found, i = [], -1
    while (i := data.find(b"XH00", i + 1)) >= 0:
        found.append((i, i + 32 + int.from_bytes(data[i + 10 : i + 14], "little")))
    return found


def fuzz_read_program(base: Base, rng: random.Random) -> None:
    """A program without a bundle, read but not loaded."""
    read_program(program_damaged(base, rng), "mutated.pte")


def fuzz_inspect(base: Base, rng: random.Random) -> None:
    """What can be read but is wrong is among the problems, which are said as errors are."""
    kind = rng.randrange(4)
    path = base.folder / ("inspected" + (".zip", ".avatar", ".pte", "")[kind])
    if kind == 0:
        path.write_bytes(zip_bytes(base, rng))
    elif kind == 1:
        path.write_bytes(tensors_damaged(base.avatar, rng))
    elif kind == 2:
        path.write_bytes(program_damaged(base, rng))
    else:
        path = base.folder / "bundle"
        fill(path, base.small | {"manifest.json": manifest_text(base, rng)})
    found = inspect(path)
    to_json(found).encode()
    if found.problems:
        raise MobileBilayerError(" ".join(found.problems))


def fuzz_run_program(base: Base, rng: random.Random) -> None:
    """A program as if its hash were right: loaded and run. Native code: in a process of its own, see `NATIVE`."""
    manifest = base.bundle.manifest
    program = Program(program_damaged(base, rng), manifest.methods, manifest.backend, "mutated")
    for name, arrays in base.inputs.items():
        program.run(name, *arrays)


KINDS: dict[str, Callable[[Base, random.Random], None]] = {
    "manifest": fuzz_manifest,
    "folder": fuzz_folder,
    "zip": fuzz_zip,
    "avatar": fuzz_avatar,
    "golden": fuzz_golden,
    "read program": fuzz_read_program,
    "inspect": fuzz_inspect,
}
# Whose crash is ExecuTorch's own, and is counted apart: a hash is there to keep such bytes away.
NATIVE = {"run program": fuzz_run_program}
# In turn. Programs take ten times as long.
USUAL = ["manifest", "folder", "zip", "avatar", "golden"] * 4 + ["read program", "inspect", *NATIVE]


def one(base: Base, seed: int, kinds: list[str]) -> str:
    """What became of a mutation: "opened" or "refused". Anything else is raised."""
    rng = random.Random(seed)
    kind = kinds[seed % len(kinds)]
    try:
        (KINDS | NATIVE)[kind](base, rng)
    except MobileBilayerError as error:
        assert str(error).rstrip().endswith((".", ").")) and len(str(error)) < 1500, f"no sentence: {str(error)[:2000]}"
        return "refused"
    return "opened"


@dataclass
class Result:
    counts: Counter
    failures: list[str]  # exceptions, crashes and hangs, each with its number
    native: list[str]  # crashes and hangs of programs that were run


def fuzz(start: int, mutations: int, kinds: list[str], report: Callable[[str], None] = lambda line: None) -> Result:
    """Run mutations in a process that is started again behind each one that kills it."""
    result = Result(Counter(), [], [])
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        base = make_base(Path(name))
        (base.folder / "bundle").mkdir()
        now, begun, said = mmap.mmap(-1, 16), time.monotonic(), time.monotonic()
        out = base.folder / "results"
        seed = start
        while seed < start + mutations:
            out.write_bytes(b"")
            child = os.fork()
            if not child:
                _work(base, seed, start + mutations, kinds, now, out)
            at, since = seed, time.monotonic()
            while True:
                done, status = os.waitpid(child, os.WNOHANG)
                if done:
                    break
                time.sleep(0.01)
                reached = struct.unpack("q", now[:8])[0]
                if reached != at:
                    at, since = reached, time.monotonic()
                if time.monotonic() - since > LONGEST_S:
                    os.kill(child, signal.SIGKILL)
                if time.monotonic() - said > 60:
                    said = time.monotonic()
                    report(
                        f"{at - start} in {said - begun:.0f} s, {len(result.failures)} failures so far, {len(result.native)} native"
                    )
            for line in out.read_text().splitlines():
                kind, what, text = line.split("\t", 2)
                result.counts[f"{kind}: {what}"] += 1
                if what == "failed":
                    result.failures.append(text.replace("\\n", "\n"))
                    report(result.failures[-1])
            if os.waitstatus_to_exitcode(status) == 0:
                break
            seed = struct.unpack("q", now[:8])[0]
            kind = kinds[seed % len(kinds)]
            code = -os.waitstatus_to_exitcode(status)
            what = "hung" if code == signal.SIGKILL else f"crashed by {signal.Signals(code).name if code > 0 else code}"
            result.counts[f"{kind}: {what}"] += 1
            (result.native if kind in NATIVE else result.failures).append(f"{seed} ({kind}) {what}")
            if kind not in NATIVE:
                report(result.failures[-1])
            seed += 1
    return result


def _work(base: Base, start: int, end: int, kinds: list[str], now: mmap.mmap, out: Path) -> None:
    """The child. It writes where it is before each mutation, and never returns."""
    quiet = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(quiet, descriptor)
    faulthandler.disable()  # pytest's: a crash is told by who waits
    lines = out.open("a", buffering=1)
    try:
        for seed in range(start, end):
            now[:8] = struct.pack("q", seed)
            kind = kinds[seed % len(kinds)]
            try:
                lines.write(f"{kind}\t{one(base, seed, kinds)}\t\n")
            except Exception:
                text = f"{seed} ({kind}) {traceback.format_exc()}".replace("\n", "\\n")
                lines.write(f"{kind}\tfailed\t{text}\n")
        lines.close()
        os._exit(0)
    finally:
        os._exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--kind", action="append", choices=[*KINDS, *NATIVE], help="Again and again; default: all.")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    kinds = options.kind or USUAL
    result = fuzz(options.start, options.mutations, kinds, lambda line: print(line, flush=True))
    for name, count in sorted(result.counts.items()):
        print(f"{count:7d}  {name}")
    for line in result.native:
        print(line)
    sys.exit(f"{len(result.failures)} failures" if result.failures else 0)


if __name__ == "__main__":
    main()
