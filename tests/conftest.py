"""Prepared clips made of numbers: a template's face that turns, nods and speaks, drawn as flat colours."""

import io
import os
import sys
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from mobile_bilayer.capture.images import AI_GENERATED
from mobile_bilayer.pose.head import HeadPose, face_template
from mobile_bilayer.pose.landmarks import LIPS

PREPARED_PX = 320


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """Where every file is at hand, a skipped test is a broken one: MOBILE_BILAYER_NO_SKIPS says so."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("MOBILE_BILAYER_NO_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and MOBILE_BILAYER_NO_SKIPS is set: {report.longrepr}"
    return report


def _turned_face(yaw: float, pitch: float, jaw: float = 0.0, shift: tuple[float, float] = (0, 0)) -> np.ndarray:
    """(478, 3) float32 landmarks in pixels of a prepared frame: seen from the front, the box's larger side is 128 px.

    yaw, pitch in radians; jaw is how far the lower lip drops and shift where the head goes, in pixels
    """
    template = face_template().points
    yawed = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    pitched = np.array([[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]])
    low, high = template[:, :2].min(0), template[:, :2].max(0)
    scale = 128 / (high - low).max()
    where = np.array([160, 160 + 128 / 6]) + shift - scale * (low + high) / 2
    xy = HeadPose(scale, yawed @ pitched, where).project(template)
    lips = np.array(LIPS)
    lower = lips[xy[lips, 1] > np.median(xy[lips, 1])]
    xy[lower, 1] += jaw
    return np.concatenate([xy, scale * template[:, 2:]], 1).astype(np.float32)


@pytest.fixture
def turned_face() -> Callable[..., np.ndarray]:
    """turned_face(yaw, pitch, jaw=0, shift=(0, 0)): landmarks as in a prepared frame."""
    return _turned_face


def _encoded(picture: np.ndarray, settings: dict) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, **settings)
    return file.getvalue()


@pytest.fixture(scope="session")
def write_clip() -> Callable[..., Path]:
    """Write a prepared clip: write_clip(path, identity="anna", count=6, encoded=False, **tensors).

    encoded  frames as JPEG and alphas as PNG, as `prepare` writes them; else pixels, as it did before there were tars
    """

    def write(path: Path, identity: str = "anna", count: int = 6, encoded: bool = False, **tensors: np.ndarray) -> Path:
        rng = np.random.default_rng(sum(identity.encode()))
        wall = cv2.resize(rng.integers(0, 256, (6, 6, 3), np.uint8), (PREPARED_PX,) * 2)
        skin, lips = rng.integers(60, 256, (2, 3)).tolist()
        shown, alphas, landmarks = [], [], []
        for i in range(count):
            swing = np.sin(2 * np.pi * i / max(count - 1, 1))
            points = _turned_face(0.4 * swing, 0.2 * np.cos(3 * i), jaw=2.0 * i, shift=(6 * swing, 2 * i))
            head = cv2.convexHull(points[:, :2].round().astype(np.int32))
            rgb, alpha = wall.copy(), np.zeros((PREPARED_PX,) * 2, np.uint8)
            cv2.fillConvexPoly(rgb, head, skin)
            cv2.fillConvexPoly(rgb, cv2.convexHull(points[LIPS, :2].round().astype(np.int32)), lips)
            cv2.fillConvexPoly(alpha, head, 255)
            shown.append(rgb)
            alphas.append(cv2.resize(alpha, (PREPARED_PX // 2,) * 2, interpolation=cv2.INTER_AREA))
            landmarks.append(points)
        whole = {
            "frames": np.stack(shown),
            "alphas": np.stack(alphas),
            "landmarks": np.stack(landmarks),
            "inside": np.tile(np.array([0, 0, PREPARED_PX, PREPARED_PX], np.float32), (count, 1)),
        }
        whole |= tensors
        if encoded:
            formats = {"frame": {"format": "JPEG", "quality": 95, "subsampling": 0}, "alpha": {"format": "PNG"}}
            for name, settings in formats.items():
                parts = [_encoded(picture, settings) for picture in whole[f"{name}s"]]
                whole[f"{name}s"] = np.frombuffer(b"".join(parts), np.uint8)
                whole[f"{name}_ends"] = np.cumsum([len(part) for part in parts])
        save_file(whole, path, {"identity": identity, "licence": "made by a test", "photos": "0"})
        return path

    return write


@pytest.fixture(scope="session")
def write_videos() -> Callable[[Path], list[str]]:
    """Write two videos of 50 frames without any tag into a folder, the index once behind and once before the frames: their names."""

    def write(folder: Path) -> list[str]:
        for name, options in (("index_last", {}), ("index_first", {"movflags": "faststart"})):
            with av.open(folder / f"{name}.mp4", "w", options=options) as video:
                stream = video.add_stream("h264", rate=25)
                stream.width = stream.height = 64
                for level in range(0, 250, 5):
                    picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), level, np.uint8))
                    video.mux(stream.encode(picture))
                video.mux(stream.encode())
        return ["index_last.mp4", "index_first.mp4"]

    return write


@pytest.fixture(scope="session")
def check_tagged() -> Callable[[Path, Path], None]:
    """Hold a video of write_videos and what a phone made of it against each other: tagged, and the same frames."""

    def content(path: Path) -> tuple[dict, list]:
        with av.open(path) as video:
            return video.metadata, [frame.to_ndarray(format="gray").mean() for frame in video.decode(video=0)]

    def check(before: Path, after: Path) -> None:
        plain, frames = content(before)
        tags, same = content(after)
        assert same == frames and len(frames) == 50 and np.ptp(frames) > 200
        assert "title" not in plain
        assert [tags[key] for key in ("title", "comment", "description")] == [AI_GENERATED] * 3

    return check


@pytest.fixture
def command_line(monkeypatch, capfd) -> Callable[[str | list[str]], tuple[int, str, str]]:
    """command_line("animate x.jpg"): exit code, stdout and stderr of the command line."""

    def call(line: str | list[str]) -> tuple[int, str, str]:
        from mobile_bilayer import cli

        arguments = line.split() if isinstance(line, str) else line
        monkeypatch.setattr(sys, "argv", ["mobile-bilayer", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        out, err = capfd.readouterr()
        return left.value.code, out, err

    return call
