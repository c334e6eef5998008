"""Videos and photos to prepared clips: cropped frames, landmarks and masks in one file a clip."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from safetensors.numpy import save_file

from mobile_bilayer.capture.landmarker import Landmarker, Segmenter
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.crop import Crop, head_crop

SIDE_PX = 320  # a prepared frame
HEAD_PX = 256  # what `head_crop` covers of it: the rest is room for motion and augmentation


@dataclass(frozen=True)
class Clip:
    """Files that show one person before one background: a video, or a few photos."""

    name: str
    identity: str
    files: tuple[Path, ...]
    licence: str


def find_clips(data: Path, split: str | None) -> list[Clip]:
    """Clips of a folder: by its index.csv (file, identity, split, kind, licence), else each video is one."""
    index = data / "index.csv"
    if not index.is_file():
        videos = sorted(p for p in data.rglob("*") if p.suffix.lower() in {".mp4", ".mov", ".mkv", ".webm", ".avi"})
        if not videos:
            raise MobileBilayerError(f"{data} holds neither an index.csv nor a video.")
        return [Clip(p.stem, p.stem, (p,), "unknown") for p in videos]
    clips: list[Clip] = []
    photos: dict[str, list[dict[str, str]]] = {}
    with index.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if split and row["split"] != split:
                continue
            path = data / row["file"]
            if row["kind"] == "video":
                clips.append(Clip(path.stem, row["identity"], (path,), row["licence"]))
            else:
                photos.setdefault(row["identity"], []).append(row)
    for identity, rows in photos.items():
        files = tuple(data / row["file"] for row in rows)
        clips.append(Clip(f"photos_{identity}", identity, files, rows[0]["licence"]))
    return clips


def prepare(data: Path, out: Path, split: str | None, frames_per_second: float, jobs: int) -> list[str]:
    """Prepare all clips of `data` into `out`, several at once; finished ones are kept. Returns what failed."""
    from rich.progress import track

    out.mkdir(parents=True, exist_ok=True)
    todo = [c for c in find_clips(data, split) if not (out / f"{c.name}.safetensors").exists()]
    failures = []
    with ProcessPoolExecutor(jobs) as pool:
        results = pool.map(_prepare_clip, todo, [out] * len(todo), [frames_per_second] * len(todo))
        for failure in track(results, "Preparing clips", total=len(todo)):
            if failure:
                failures.append(failure)
    return failures


def _pictures(clip: Clip, frames_per_second: float) -> Iterator[np.ndarray]:
    from mobile_bilayer.capture.images import read_image
    from mobile_bilayer.capture.video import VideoReader

    for path in clip.files:
        if path.suffix.lower() in {".jpg", ".jpeg", ".png"}:
            yield read_image(path)
            continue
        due = 0.0
        with VideoReader(path) as video:
            for frame in video:
                if frame.time_s + 1e-6 >= due:
                    due = max(due + 1 / frames_per_second, frame.time_s)
                    yield frame.rgb


def _prepare_clip(clip: Clip, out: Path, frames_per_second: float) -> str | None:
    cv2.setNumThreads(1)
    pictures, landmarks = [], []
    try:
        with Landmarker(video=False) as landmarker:
            for rgb in _pictures(clip, frames_per_second):
                points = detect_padded(landmarker, rgb)
                if points is not None:
                    pictures.append(rgb)
                    landmarks.append(points)
    except MobileBilayerError as error:
        return f"{clip.name}: {error}"
    if len(pictures) < 2:
        return f"{clip.name}: fewer than two frames with a face"
    tracks = np.stack(landmarks)
    if len(clip.files) == 1:  # one camera: one box for the whole clip
        crops = [head_crop(points) for points in tracks]
        middle = np.median([(c.x_px, c.y_px, c.half_px) for c in crops], axis=0)
        boxes = [Crop(middle[0], middle[1], middle[2] * SIDE_PX / HEAD_PX)] * len(pictures)
    else:  # photos: each by itself
        boxes = [Crop(c.x_px, c.y_px, c.half_px * SIDE_PX / HEAD_PX) for c in map(head_crop, tracks)]
    with Segmenter() as segmenter:
        frames = np.stack([box.cut(rgb, SIDE_PX) for rgb, box in zip(pictures, boxes, strict=True)])
        alphas = [cv2.resize(segmenter.alpha(f), (SIDE_PX // 2,) * 2, interpolation=cv2.INTER_AREA) for f in frames]
    moved = np.stack([(b.to_keypoints(p) * [1, 1, 1] + [1, 1, 0]) * (SIDE_PX / 2) for b, p in zip(boxes, tracks, strict=True)])
    inside = np.stack([_inside(rgb.shape, box) for rgb, box in zip(pictures, boxes, strict=True)])
    path = out / f"{clip.name}.safetensors"
    aside = path.with_suffix(f".{os.getpid()}.part")
    save_file(
        {
            "frames": frames,
            "alphas": np.round(np.stack(alphas) * 255).astype(np.uint8),
            "landmarks": moved.astype(np.float32),
            "inside": inside.astype(np.float32),
        },
        aside,
        {"identity": clip.identity, "licence": clip.licence, "photos": str(int(len(clip.files) > 1))},
    )
    os.replace(aside, path)
    return None


def detect_padded(landmarker: Landmarker, rgb: np.ndarray) -> np.ndarray | None:
    """Landmarks of a picture; tightly cropped faces are found with a border around them."""
    points = landmarker.detect(rgb)
    if points is None:
        pad = max(rgb.shape[:2]) // 3
        bordered = cv2.copyMakeBorder(rgb, pad, pad, pad, pad, cv2.BORDER_CONSTANT)
        points = landmarker.detect(bordered)
        if points is not None:
            points[:, :2] -= pad
    return points


def _inside(shape: tuple[int, ...], box: Crop) -> np.ndarray:
    """Left, top, right, bottom of the picture in the prepared frame's pixels: beyond is only padding."""
    corners = box.to_keypoints(np.array([[0, 0], [shape[1], shape[0]]], np.float32))
    return np.clip((corners + 1) * (SIDE_PX / 2), 0, SIDE_PX).reshape(4)
