"""Videos and photos to prepared clips: cropped frames, landmarks and masks in one file a clip."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
from safetensors.numpy import save

from mobile_bilayer.capture.images import read_image, written_aside
from mobile_bilayer.capture.landmarker import Landmarker, Segmenter, detect_padded
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.crop import Crop, head_crop

SIDE_PX = 320  # a prepared frame
HEAD_PX = 256  # what `head_crop` covers of it: the rest is room for motion and augmentation
VIDEO_SUFFIXES = (".mp4", ".mov", ".mkv", ".webm", ".avi")


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


def prepare(data: Path, out: Path, split: str | None, frames_per_second: float, jobs: int) -> list[str]:
    """Prepare all clips of `data` into `out`, several at once; finished ones are kept. Returns what failed."""
    from rich.progress import track

    if jobs < 1:
        raise MobileBilayerError(f"jobs is {jobs}; at least one clip must be prepared at a time. Try 1.")
    if not 0 < frames_per_second <= 1000:
        raise MobileBilayerError(f"{frames_per_second} frames per second were asked for; it must be in 0..1000. Try 5.")
    clips = find_clips(data, split)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MobileBilayerError(f"The folder {out} can't be made ({error}). Choose another folder.") from error
    todo = [clip for clip in clips if not (out / f"{clip.name}.safetensors").exists()]
    results = _results(todo, out, frames_per_second, jobs)
    return [failure for failure in track(results, "Preparing clips", total=len(todo)) if failure]


def _results(todo: list[Clip], out: Path, frames_per_second: float, jobs: int) -> Iterator[str | None]:
    """What `_prepare_clip` returns, in the order in which clips are finished."""
    if jobs == 1:
        yield from (_prepare_clip(clip, out, frames_per_second) for clip in todo)
        return
    left, running = todo[::-1], set[Future[str | None]]()
    # Spawned, not forked: a fork of a process whose MediaPipe or OpenCV threads run can hang.
    with ProcessPoolExecutor(jobs, get_context("spawn"), cv2.setNumThreads, (1,)) as pool:
        try:
            while left or running:
                while left and len(running) < jobs:  # no clip waits in the pool, or Ctrl-C would have to wait for it
                    running.add(pool.submit(_prepare_clip, left.pop(), out, frames_per_second))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
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


def _prepare_clip(clip: Clip, out: Path, frames_per_second: float) -> str | None:
    """Write one clip's file, or return why there is none. The pictures are read twice, for they may not fit memory."""
    try:
        with Landmarker(video=False) as landmarker:
            found = {
                number: points
                for number, rgb in enumerate(_pictures(clip, frames_per_second))
                if (points := detect_padded(landmarker, rgb)) is not None
            }
        if len(found) < 2:
            return f"{clip.name}: fewer than two {'photos' if clip.photos else 'frames'} with a face"
        boxes = {number: head_crop(points) for number, points in found.items()}
        if not clip.photos:  # one camera: one box for the whole clip
            middle = np.median([(c.x_px, c.y_px, c.half_px) for c in boxes.values()], axis=0)
            boxes = dict.fromkeys(boxes, Crop(*middle.tolist()))
        frames, alphas, landmarks, insides = [], [], [], []
        with Segmenter() as segmenter:
            for number, rgb in enumerate(_pictures(clip, frames_per_second)):
                if number not in boxes:
                    continue
                head = boxes[number]
                box = Crop(head.x_px, head.y_px, head.half_px * SIDE_PX / HEAD_PX)
                frame = box.cut(rgb, SIDE_PX)
                alpha = cv2.resize(segmenter.alpha(frame), (SIDE_PX // 2,) * 2, interpolation=cv2.INTER_AREA)
                frames.append(frame)
                alphas.append(np.round(alpha * 255).astype(np.uint8))
                landmarks.append((box.to_keypoints(found[number]) + [1, 1, 0]) * (SIDE_PX / 2))
                insides.append(_inside(rgb.shape, box))
        tensors = {
            "frames": np.stack(frames),
            "alphas": np.stack(alphas),
            "landmarks": np.stack(landmarks).astype(np.float32),
            "inside": np.stack(insides).astype(np.float32),
        }
        path = out / f"{clip.name}.safetensors"
        facts = {"identity": clip.identity, "licence": clip.licence, "photos": str(int(clip.photos))}
        with written_aside(path) as aside:
            aside.write_bytes(save(tensors, facts))
    except MobileBilayerError as error:
        return f"{clip.name}: {error}"
    except OSError as error:
        return f"{clip.name}: its prepared file could not be written ({error}). Free some space, or write elsewhere."
    return None


def _inside(shape: tuple[int, ...], box: Crop) -> np.ndarray:
    """Left, top, right, bottom of the picture in the prepared frame's pixels: beyond is only padding."""
    corners = box.to_keypoints(np.array([[0, 0], [shape[1], shape[0]]], np.float32))
    return np.clip((corners + 1) * (SIDE_PX / 2), 0, SIDE_PX).reshape(4)
