"""Videos and photos to prepared clips: cropped frames, landmarks and masks, in tars of 64 clips."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import count
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np

from mobile_bilayer.capture.images import read_image, written_aside
from mobile_bilayer.capture.landmarker import TURNS, Landmarker, Segmenter, detect_padded, find_turn
from mobile_bilayer.dataset.shards import SIDE_PX, encode_clip, encode_frame, read_index, write_tar
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.crop import Crop, head_crop

HEAD_PX = 256  # what `head_crop` covers of a prepared frame: the rest is room for motion and augmentation
CLIPS_PER_TAR = 64
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi")
# Two frames have a cut between them when their thumbnails differ by so much, of [0, 1], and by so many times as much as
# the clip's usually do. In joined clips of TV news cuts came to 0.03..0.14, at 5 to 60 times the usual.
CUT, CUT_TIMES = 0.025, 4.0
TURN_LOOKS = 3  # pictures that say whether a clip lies on its side
SURE_CUT = 0.15  # is one whatever is usual; no camera that moved came to more than 0.07


@dataclass(frozen=True)
class Clip:
    """Files that show one person before one background: a video, or a few photos."""

    name: str
    identity: str
    files: tuple[Path, ...]
    licence: str
    photos: bool = False


def find_clips(data: Path, split: str | None) -> list[Clip]:
    """Clips of a folder: by its index.csv (file, identity, split, kind, licence), else each video is one.

    split  keeps the rows of this split; None keeps all
    """
    if not data.is_dir():
        raise MobileBilayerError(f"{data} is not a folder. Name the folder that holds your videos.")
    index = data / "index.csv"
    if index.is_file():
        clips = _indexed_clips(index, split)
    elif split:
        raise MobileBilayerError(
            f"{data} has no index.csv that could say what belongs to the split {split!r}. "
            "Write one, or leave out --split."
        )
    else:
        videos = sorted(p for p in data.rglob("[!.]*") if p.suffix.lower() in VIDEO_SUFFIXES)
        if not videos:
            raise MobileBilayerError(
                f"{data} holds neither an index.csv nor a video ({', '.join(VIDEO_SUFFIXES)}). Put videos into it."
            )
        names = ["__".join(p.relative_to(data).with_suffix("").parts) for p in videos]
        clips = [Clip(name, name, (path,), "unknown") for name, path in zip(names, videos, strict=True)]
    twins = [name for name, count in Counter(clip.name for clip in clips).items() if count > 1]
    if twins:
        raise MobileBilayerError(
            f"{data} has several clips named {twins[0]}; their prepared files would overwrite each other. Rename one."
        )
    return clips


def _indexed_clips(index: Path, split: str | None) -> list[Clip]:
    try:
        with index.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets put a byte-order mark first
            reader = csv.DictReader(file)
            rows = [(reader.line_num, row) for row in reader]
            columns = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MobileBilayerError(f"{index} can't be read ({error}). Save it as CSV in UTF-8.") from error
    needed = ["file", "identity", "kind", "licence"] + (["split"] if split else [])
    lacking = [name for name in needed if name not in columns]
    if lacking:
        raise MobileBilayerError(
            f"{index} has the columns {', '.join(map(str, columns))} and lacks {', '.join(lacking)}. Add them."
        )
    clips: list[Clip] = []
    photos: dict[str, list[dict[str, str]]] = {}
    missing: list[str] = []
    for line, row in rows:
        if split and row["split"] != split:
            continue
        if not row["file"] or not row["identity"] or row["kind"] not in ("video", "photo"):
            raise MobileBilayerError(
                f"{index}, line {line}: file is {row['file']!r}, identity {row['identity']!r}, kind {row['kind']!r}; "
                "the first two must not be empty, and kind is video or photo. Correct the line."
            )
        path = index.parent / row["file"]
        if not path.is_file():
            missing.append(row["file"])
        elif row["kind"] == "video":
            clips.append(Clip(path.stem, row["identity"], (path,), row["licence"] or "unknown"))
        else:
            photos.setdefault(row["identity"], []).append(row)
    if missing:
        raise MobileBilayerError(
            f"{index} names {len(missing)} files that are not there: {', '.join(missing[:3])}"
            f"{', ...' if len(missing) > 3 else ''}. Paths are relative to it; correct them, or remove the lines."
        )
    for identity, shown in photos.items():
        files = tuple(index.parent / row["file"] for row in shown)
        name = "photos_" + re.sub(r"[^\w.-]", "_", identity)
        clips.append(Clip(name, identity, files, shown[0]["licence"] or "unknown", photos=True))
    if not clips:
        splits = ", ".join(sorted({row["split"] or "''" for _, row in rows})) if split else ""
        raise MobileBilayerError(
            f"{index} has {len(rows)} rows, none of the split {split!r}. Choose one of {splits}."
            if splits
            else f"{index} has no rows. Add some, or delete it: then each video of the folder is a clip."
        )
    return clips


@dataclass(frozen=True)
class Prepared:
    """What the tars of one job hold: how many clips, and in how many tars; and the clips left out, with the reason."""

    clips: int
    tars: int
    left_out: list[str]


@dataclass(frozen=True, eq=False)
class _Tar:
    """Some clips in one file. Until all are done they lie, a file each, in a hidden folder beside it."""

    path: Path
    clips: tuple[Clip, ...]

    @property
    def folder(self) -> Path:
        return self.path.with_name(f".{self.path.stem}")

    def file(self, clip: Clip) -> Path:
        return self.folder / f"{clip.name}.safetensors"

    def reason(self, clip: Clip) -> Path:
        """The file that says why a clip is left out, and keeps it from being tried again."""
        return self.folder / f"{clip.name}.left-out"

    def unfinished(self) -> list[Clip]:
        if self.path.exists():
            return []
        there = set(os.listdir(self.folder)) if self.folder.is_dir() else set()
        return [clip for clip in self.clips if there.isdisjoint({self.file(clip).name, self.reason(clip).name})]

    def finish(self) -> None:
        """Join the files, aside, and remove them. Killed at any point, the next call does what was left to do."""
        if not self.path.exists():
            self.folder.mkdir(exist_ok=True)
            reasons = {clip.name: self.reason(clip) for clip in self.clips}
            left_out = {name: path.read_text("utf-8") for name, path in reasons.items() if path.exists()}
            whole = self.folder / ".whole.tar"
            write_tar(whole, [self.file(clip) for clip in self.clips if clip.name not in left_out], left_out)
            os.replace(whole, self.path)
        shutil.rmtree(self.folder, ignore_errors=True)


def parse_share(text: str) -> tuple[int, int]:
    """"2/8" to (2, 8): the second of eight jobs."""
    number, _, jobs = text.partition("/")
    if not (number.isdecimal() and jobs.isdecimal() and 1 <= int(number) <= int(jobs)):
        raise MobileBilayerError(f"The shard is {text!r}; it must be 1/N to N/N, as 2/8 for the second of eight jobs.")
    return int(number), int(jobs)


def prepare(
    data: Path,
    out: Path,
    split: str | None,
    frames_per_second: float,
    jobs: int,
    share: tuple[int, int] = (1, 1),
    on_progress: Callable[[str, int, int | None], None] = lambda *_: None,
) -> Prepared:
    """Prepare the clips of `data` into `out`, `jobs` at once. What is finished is kept, and what failed stays left out.

    share  (i, n): this call's tars are the i-th and every n-th after it, so that n calls can fill one folder
    """
    if jobs < 1:
        raise MobileBilayerError(f"jobs is {jobs}; at least one clip must be prepared at a time. Try 1.")
    if not 0 < frames_per_second <= 1000:
        raise MobileBilayerError(f"{frames_per_second} frames per second were asked for; it must be in 0..1000. Try 5.")
    clips = find_clips(data, split)
    try:
        out.mkdir(parents=True, exist_ok=True)
        _claim(out, clips, split, frames_per_second)
        groups = [tuple(clips[i : i + CLIPS_PER_TAR]) for i in range(0, len(clips), CLIPS_PER_TAR)]
        tars = [_Tar(out / f"clips-{i:05d}-of-{len(groups):05d}.tar", group) for i, group in enumerate(groups)]
        tars = tars[share[0] - 1 :: share[1]]
        todo = {tar: tar.unfinished() for tar in tars}
        left = {tar: len(unfinished) for tar, unfinished in todo.items()}
        total, finished = sum(len(tar.clips) for tar in tars), count(1)

        def finish(tar: _Tar) -> None:
            tar.finish()
            on_progress("Tars", next(finished), len(tars))

        on_progress("Clips", total - sum(left.values()), total)
        on_progress("Tars", 0, len(tars))
        for tar in tars:
            if not left[tar]:
                finish(tar)
        work = [(tar, clip) for tar, unfinished in todo.items() for clip in unfinished]
        for tar, clip, why in _results(work, frames_per_second, jobs):
            if why is not None:
                tar.folder.mkdir(exist_ok=True)
                with written_aside(tar.reason(clip)) as aside:
                    aside.write_text(why, "utf-8")
            left[tar] -= 1
            on_progress("Clips", total - sum(left.values()), total)
            if not left[tar]:
                finish(tar)
    except OSError as error:
        raise MobileBilayerError(
            f"Filling {out} stopped ({error}). Check that there is space and that you may write there, and run again: "
            "finished clips are kept."
        ) from error
    indices = [read_index(tar.path) for tar in tars]
    left_out = [f"{name}: {why}" for _, reasons in indices for name, why in reasons.items()]
    return Prepared(sum(len(entries) for entries, _ in indices), len(tars), left_out)


def _claim(out: Path, clips: list[Clip], split: str | None, frames_per_second: float) -> None:
    """Write prepare.json, which says what the folder is for; or refuse a folder that is for something else."""
    rows = [[c.name, c.identity, c.licence, c.photos, *(path.name for path in c.files)] for c in clips]
    wanted = {
        "format": 1,
        "fps": float(frames_per_second),
        "split": split,
        "clips": len(clips),
        "clips_per_tar": CLIPS_PER_TAR,
        "clip_list_sha256": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
    }
    path = out / "prepare.json"
    if not path.exists():
        if any(out.glob("[!.]*.safetensors")) or any(out.glob("[!.]*.tar")):
            raise MobileBilayerError(
                f"{out} holds clips and no prepare.json that says from what. They can still be read; "
                "to prepare more, choose another folder."
            )
        with written_aside(path) as aside:
            aside.write_text(json.dumps(wanted, indent=1) + "\n")
    try:
        # Read even where we have just written it: another job, with other options, may have come in between.
        found = dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise MobileBilayerError(f"{path} is damaged ({error}). Choose another folder, or empty this one.") from error
    other = [f"{name} {found.get(name)}, now {value}" for name, value in wanted.items() if found.get(name) != value]
    if other:
        raise MobileBilayerError(
            f"{out} was prepared from other data or with other options ({'; '.join(other)}). "
            "Use the same ones to continue, or choose another folder."
        )


def _results(
    work: list[tuple[_Tar, Clip]], frames_per_second: float, jobs: int
) -> Iterator[tuple[_Tar, Clip, str | None]]:
    """What `_prepare_clip` returns, in the order in which clips are finished."""
    if jobs == 1:
        for tar, clip in work:
            yield tar, clip, _prepare_clip(clip, tar.file(clip), frames_per_second)
        return
    left, running = work[::-1], dict[Future[str | None], tuple[_Tar, Clip]]()
    # Spawned, not forked: a fork of a process whose MediaPipe or OpenCV threads run can hang.
    with ProcessPoolExecutor(jobs, get_context("spawn"), cv2.setNumThreads, (1,)) as pool:
        try:
            while left or running:
                while left and len(running) < jobs:  # no clip waits in the pool, or Ctrl-C would have to wait for it
                    tar, clip = left.pop()
                    running[pool.submit(_prepare_clip, clip, tar.file(clip), frames_per_second)] = (tar, clip)
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield *running.pop(future), future.result()
        except BrokenProcessPool as error:
            raise MobileBilayerError(
                "A process that prepared a clip was killed, perhaps for want of memory. "
                "Run again with fewer --jobs: finished clips are kept."
            ) from error


def _pictures(clip: Clip, frames_per_second: float) -> Iterator[np.ndarray]:
    from mobile_bilayer.capture.video import VideoReader

    if clip.photos:
        yield from map(read_image, clip.files)
        return
    due = 0.0
    with VideoReader(clip.files[0]) as video:
        for frame in video:
            if frame.time_s + 1e-6 >= due:
                due = max(due + 1 / frames_per_second, frame.time_s)
                yield frame.rgb


def _prepare_clip(clip: Clip, path: Path, frames_per_second: float) -> str | None:
    """Write one clip's file, or return why there is none. The pictures are read twice, for they may not fit memory.

    Raises what is not the clip's fault, and would befall every other clip.
    """
    with (
        Landmarker(video=False) as landmarker,
        Landmarker(video=False, sure=True) as sure,
        Segmenter() as segmenter,
    ):
        try:
            content = _content(clip, frames_per_second, landmarker, sure, segmenter)
        # All that files from anywhere can bring about: one of them must not stop 150,000 others for ever.
        except (MobileBilayerError, RuntimeError, ValueError, cv2.error) as error:
            gone = [file for file in clip.files if not file.is_file()]
            if gone:
                raise MobileBilayerError(
                    f"{gone[0]} was there and is gone. Bring it back, and run again: finished clips are kept."
                ) from error
            return str(error) or type(error).__name__
    if content is None:
        return f"fewer than two {'photos' if clip.photos else 'frames'} with a face"
    path.parent.mkdir(exist_ok=True)
    with written_aside(path) as aside:
        aside.write_bytes(content)
    return None


def _content(
    clip: Clip, frames_per_second: float, landmarker: Landmarker, sure: Landmarker, segmenter: Segmenter
) -> bytes | None:
    """A clip's file; None with fewer than two faces. One that lies on its side or stands on its head is refused."""
    found: dict[int, np.ndarray] = {}
    turns: list[int] = []  # of the first pictures with a face; or of the first of all, while there is none
    for number, rgb in enumerate(_pictures(clip, frames_per_second)):
        points = detect_padded(landmarker, rgb)
        if points is not None:
            found[number] = points
        if number == 0 or (points is not None and len(found) <= TURN_LOOKS):
            turns.append(find_turn(sure, rgb, points))
    if any(turns) and (len(found) < 2 or 2 * np.count_nonzero(turns) > len(turns)):
        raise MobileBilayerError(f"the face {TURNS[max(turns)]}; turn the {'photos' if clip.photos else 'video'} upright first")
    if len(found) < 2:
        return None
    boxes = {number: head_crop(points) for number, points in found.items()}
    if not clip.photos:  # one camera: one box for the whole clip
        middle = np.median([(c.x_px, c.y_px, c.half_px) for c in boxes.values()], axis=0)
        boxes = dict.fromkeys(boxes, Crop(*middle.tolist()))
    pictures, landmarks, insides, thumbnails = [], [], [], []
    for number, rgb in enumerate(_pictures(clip, frames_per_second)):
        if number not in boxes:
            continue
        head = boxes[number]
        box = Crop(head.x_px, head.y_px, head.half_px * SIDE_PX / HEAD_PX)
        frame = box.cut(rgb, SIDE_PX)
        alpha = cv2.resize(segmenter.alpha(frame), (SIDE_PX // 2,) * 2, interpolation=cv2.INTER_AREA)
        pictures.append(encode_frame(frame, np.round(alpha * 255).astype(np.uint8)))
        landmarks.append((box.to_keypoints(found[number]) + [1, 1, 0]) * (SIDE_PX / 2))
        insides.append(_inside(rgb.shape, box))
        thumbnails.append(cv2.resize(frame, (16, 16), interpolation=cv2.INTER_AREA))
    shots = None if clip.photos else find_shots(np.stack(thumbnails))
    facts = {"identity": clip.identity, "licence": clip.licence, "photos": str(int(clip.photos))}
    return encode_clip(pictures, np.stack(landmarks), np.stack(insides), facts, shots)


def find_shots(thumbnails: np.ndarray) -> np.ndarray:
    """The number of each frame's shot (N,) int64, from 0. thumbnails: (N, 16, 16, 3) uint8."""
    change = np.abs(np.diff(thumbnails.astype(np.float32), axis=0)).mean((1, 2, 3)) / 255
    cuts = change > max(CUT, min(CUT_TIMES * float(np.median(change)), SURE_CUT))
    return np.concatenate([[0], np.cumsum(cuts)])


def _inside(shape: tuple[int, ...], box: Crop) -> np.ndarray:
    """Left, top, right, bottom of the picture in the prepared frame's pixels: beyond is only padding."""
    corners = box.to_keypoints(np.array([[0, 0], [shape[1], shape[0]]], np.float32))
    return np.clip((corners + 1) * (SIDE_PX / 2), 0, SIDE_PX).reshape(4)
