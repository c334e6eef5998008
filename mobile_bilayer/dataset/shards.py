"""Prepared clips on disk: a safetensors file each, and 64 of them in a tar.

A tar holds `__index__` first (JSON: who is in it and where), then a member `NAME.safetensors` a clip: WebDataset's
tools pass over names like the first and read each other member as one sample. One member a clip, because its header
says where every frame lies: one is read without its neighbours, and the same bytes are a file of their own before.

Of N frames: `landmarks` (N, 478, 3) and `inside` (N, 4) float32; `frames`, JPEGs, and `alphas`, PNGs, one behind the
other as uint8, with the ends of each, `frame_ends` and `alpha_ends` (N,) int64; and `shots` (N,) int64, if there are
several. The metadata have identity, licence and photos. Clips prepared before there were tars are files of their own,
with pixels in `frames` and `alphas`.
"""

from __future__ import annotations

import json
import math
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from safetensors.numpy import save

from mobile_bilayer.errors import MobileBilayerError

SIDE_PX = 320  # a prepared frame
_RGB, _ALPHA = (SIDE_PX, SIDE_PX, 3), (SIDE_PX // 2, SIDE_PX // 2)
_INDEX, _FORMAT = "__index__", 1
# Of one frame; the first is the type, in safetensors' words.
_MOTION = {"landmarks": ("F32", 478, 3), "inside": ("F32", 4)}
_PIXELS = {"frames": ("U8", *_RGB), "alphas": ("U8", *_ALPHA)}
_ENDS = {"frame_ends": ("I64",), "alpha_ends": ("I64",)}
_SHOTS = {"shots": ("I64",)}
_TYPES = {"U8": np.dtype("u1"), "F32": np.dtype("<f4"), "I64": np.dtype("<i8")}


@dataclass(frozen=True, slots=True)
class Entry:
    """A prepared clip: what it is, and where.

    path     its own file, or the tar that it is in
    offset, size  of its safetensors in that file, in bytes
    """

    path: Path
    name: str
    identity: str
    licence: str
    photos: bool
    frames: int
    offset: int
    size: int

    def damaged(self, why: object) -> MobileBilayerError:
        return _damaged(self.path, f"clip {self.name}: {why}")


@dataclass(frozen=True)
class Contents:
    """What a clip holds, but for its pictures.

    landmarks  (N, 478, 3) float32, pixels of the prepared frame
    inside     (N, 4) float32: left, top, right, bottom of what is picture, and not padding
    shots      (N,) int64: frames between two cuts have the same number
    frames, alphas  (N, 2) int64: where in the file each begins and ends
    encoded    as JPEG and PNG, or pixels as they are
    """

    landmarks: np.ndarray
    inside: np.ndarray
    shots: np.ndarray
    frames: np.ndarray
    alphas: np.ndarray
    encoded: bool


def _damaged(path: Path, why: object) -> MobileBilayerError:
    return MobileBilayerError(
        f"{path} is not what `mobile-bilayer prepare` writes, or it is damaged ({why}). Delete it and prepare it again."
    )


def encode_frame(rgb: np.ndarray, alpha: np.ndarray) -> tuple[bytes, bytes]:
    """A JPEG of RGB (SIDE_PX, SIDE_PX, 3) uint8 and a PNG of its alpha (SIDE_PX / 2, SIDE_PX / 2) uint8.

    An alpha is mostly flat, so that the lossless PNG is smaller than a good JPEG.
    """
    settings = {
        cv2.IMWRITE_JPEG_QUALITY: 95,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR: cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    }
    _, jpeg = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [n for item in settings.items() for n in item])
    _, png = cv2.imencode(".png", alpha, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    return jpeg.tobytes(), png.tobytes()


def encode_clip(
    pictures: Sequence[tuple[bytes, bytes]],
    landmarks: np.ndarray,
    inside: np.ndarray,
    facts: dict[str, str],
    shots: np.ndarray | None = None,
) -> bytes:
    """A clip's file, of what `encode_frame` returns, (N, 478, 3), (N, 4), its identity, licence and photos, and (N,)."""
    tensors = {"landmarks": landmarks.astype(np.float32), "inside": inside.astype(np.float32)}
    if shots is not None and np.ptp(shots):
        tensors["shots"] = shots.astype(np.int64)
    for name, parts in zip(("frame", "alpha"), zip(*pictures, strict=True), strict=True):
        tensors[f"{name}s"] = np.frombuffer(b"".join(parts), np.uint8)
        tensors[f"{name}_ends"] = np.cumsum([len(part) for part in parts], dtype=np.int64)
    content = save(tensors, facts)
    # Metadata come in another order each time: sorted, the same clip is the same file.
    stop = 8 + int.from_bytes(content[:8], "little")
    header = json.dumps(json.loads(content[8:stop]), sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()
    assert len(header) <= stop - 8
    return content[:8] + header.ljust(stop - 8) + content[stop:]


@dataclass(frozen=True)
class _Tensor:
    kind: str
    shape: tuple[int, ...]
    start: int  # in the file, bytes
    stop: int


def _read(path: Path, *spans: tuple[int, int]) -> list[np.ndarray]:
    """Bytes start..stop of a file, for each span, (n,) uint8 of its own."""
    with path.open("rb", buffering=0) as file:
        out = []
        for start, stop in spans:
            file.seek(start)
            out.append(np.fromfile(file, np.uint8, stop - start))
            if len(out[-1]) != stop - start:
                raise ValueError(f"it ends at byte {start + len(out[-1])}, not {stop}")
        return out


def _header(path: Path, offset: int, size: int) -> tuple[dict[str, _Tensor], dict[str, str]]:
    """Tensors and metadata of the safetensors at `offset` of a file. ValueError, KeyError or TypeError: damaged."""
    (length,) = _read(path, (offset, offset + 8))
    start = 8 + int(length.view("<u8")[0])
    if start > size:
        raise ValueError(f"its header would end at byte {start} of {size}")
    (text,) = _read(path, (offset + 8, offset + start))
    header = json.loads(text.tobytes())
    facts = header.pop("__metadata__")
    tensors = {}
    for name, tensor in header.items():
        begin, end = tensor["data_offsets"]
        kind, shape = tensor["dtype"], tuple(tensor["shape"])
        if not 0 <= begin <= end <= size - start or end - begin != _TYPES[kind].itemsize * math.prod(shape):
            raise ValueError(f"{name} is cut off")
        tensors[name] = _Tensor(kind, shape, offset + start + begin, offset + start + end)
    count = (*tensors["landmarks"].shape, 0)[0]
    wanted = _MOTION | (_ENDS if "frame_ends" in tensors else _PIXELS) | (_SHOTS if "shots" in tensors else {})
    for name, (kind, *shape) in wanted.items():
        got = tensors[name]
        if (got.kind, got.shape) != (kind, (count, *shape)):
            raise ValueError(f"{name} is {got.kind} {got.shape}, not {kind} {(count, *shape)}")
    if count < 2:
        raise ValueError(f"it has {count} frames; a pair needs two")
    return tensors, facts


_BROKEN = (OSError, ValueError, KeyError, TypeError, AttributeError)  # of a header that is none


def read_entry(path: Path) -> Entry:
    """A clip in a file of its own."""
    try:
        size = path.stat().st_size
        tensors, facts = _header(path, 0, size)
        count = tensors["landmarks"].shape[0]
        photos = facts.get("photos") == "1"
        return Entry(path, path.stem, facts["identity"], facts.get("licence", "unknown"), photos, count, 0, size)
    except _BROKEN as error:
        raise _damaged(path, error) from error


def read_contents(entry: Entry) -> Contents:
    """All but the pictures."""
    try:
        tensors, _ = _header(entry.path, entry.offset, entry.size)
        if (count := tensors["landmarks"].shape[0]) != entry.frames:
            raise ValueError(f"it has {count} frames, and by the index {entry.frames}")
        encoded = "frame_ends" in tensors
        names = [*_MOTION, *(_ENDS if encoded else ()), *(_SHOTS if "shots" in tensors else ())]
        blocks = _read(entry.path, *((tensors[name].start, tensors[name].stop) for name in names))
        read = {
            name: block.view(_TYPES[tensors[name].kind]).reshape(tensors[name].shape)
            for name, block in zip(names, blocks, strict=True)
        }
        if not (np.isfinite(read["landmarks"]).all() and np.isfinite(read["inside"]).all()):
            raise ValueError("its landmarks are not finite")
        spans = {}
        for name in _PIXELS:
            size = tensors[name].stop - tensors[name].start
            ends = read[f"{name[:-1]}_ends"] if encoded else (np.arange(count) + 1) * (size // count)
            starts = np.concatenate([[0], ends[:-1]])
            if not (starts < ends).all() or ends[-1] != size:
                raise ValueError(f"the pictures in {name} do not end where it does")
            spans[name] = tensors[name].start + np.stack([starts, ends], 1)
        shots = read.get("shots", np.zeros(count, np.int64))
        return Contents(read["landmarks"], read["inside"], shots, **spans, encoded=encoded)
    except _BROKEN as error:
        raise entry.damaged(error) from error


def read_frame(entry: Entry, contents: Contents, index: int) -> tuple[np.ndarray, np.ndarray]:
    """RGB (SIDE_PX, SIDE_PX, 3) uint8 and alpha (SIDE_PX / 2, SIDE_PX / 2) uint8."""
    try:
        rgb, alpha = _read(entry.path, contents.frames[index].tolist(), contents.alphas[index].tolist())
        if not contents.encoded:
            return rgb.reshape(_RGB), alpha.reshape(_ALPHA)
        rgb, alpha = cv2.imdecode(rgb, cv2.IMREAD_COLOR_RGB), cv2.imdecode(alpha, cv2.IMREAD_GRAYSCALE)
    except (OSError, ValueError, cv2.error) as error:
        raise entry.damaged(error) from error
    if rgb is None or alpha is None or (rgb.shape, alpha.shape) != (_RGB, _ALPHA):
        raise entry.damaged(f"frame {index} is no JPEG of {_RGB} with a PNG of {_ALPHA}")
    return rgb, alpha


def write_tar(path: Path, clips: Iterable[Path], left_out: dict[str, str]) -> None:
    """Join clips in files of their own; `left_out` says, by name, why other clips are not there."""
    members, index, end = [], [], 0
    for entry in map(read_entry, clips):
        # Up to its first dot, a member's name is its key for WebDataset: no two clips may share it.
        info = tarfile.TarInfo(entry.name.replace("%", "%25").replace(".", "%2E") + ".safetensors")
        info.size = entry.size
        members.append((entry.path, info))
        row = asdict(entry) | {"offset": end + len(info.tobuf())}
        del row["path"]
        index.append(row)
        end = row["offset"] + _padded(entry.size)
    text = json.dumps({"format": _FORMAT, "clips": index, "left_out": left_out}, ensure_ascii=False, indent=1).encode()
    info = tarfile.TarInfo(_INDEX)
    info.size = len(text)
    with tarfile.open(path, "w:") as tar:
        tar.addfile(info, BytesIO(text))
        for source, info in members:
            with source.open("rb") as file:
                tar.addfile(info, file)


def read_index(path: Path) -> tuple[list[Entry], dict[str, str]]:
    """A tar's clips, and why others were left out. Reads nothing but the index."""
    try:
        with tarfile.open(path, "r:") as tar:
            first = tar.next()
            if first is None or first.name != _INDEX:
                raise ValueError(f"it does not begin with {_INDEX}")
            index = json.loads(tar.extractfile(first).read())
        if index["format"] != _FORMAT:
            raise ValueError(f"it has format {index['format']}; this version reads {_FORMAT}")
        begin = first.offset_data + _padded(first.size)  # of the first clip: the index counts from there
        entries = [Entry(path, **row | {"offset": begin + row["offset"]}) for row in index["clips"]]
        left_out = dict(index["left_out"])
        size = path.stat().st_size
    except (*_BROKEN, tarfile.TarError) as error:
        raise _damaged(path, error) from error
    for entry in entries:
        if entry.offset + entry.size > size:
            raise entry.damaged(f"the file ends at byte {size}, before the clip does")
    return entries, left_out


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
