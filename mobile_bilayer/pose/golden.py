"""Golden vectors: what the functions around the network give, for ports to Kotlin and Swift.

Each file is `{"function", "says", "tolerance", "cases": [{"inputs", "outputs"}]}`; `constants.json` has what they take from
the face template and the settings. The arrays are nested lists, row by row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mobile_bilayer.background import change_background, fill_behind
from mobile_bilayer.capture.images import written_aside
from mobile_bilayer.capture.landmarker import Window, face_size, search_plan, turn_of
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose import neutral as n
from mobile_bilayer.pose import retarget as r
from mobile_bilayer.pose import stabilizer as s
from mobile_bilayer.pose.crop import CROP_UP, Crop, head_crop
from mobile_bilayer.pose.head import (
    HEAD_POINTS,
    TORSO_POINTS,
    HeadPose,
    face_template,
    fit_head,
    network_points,
    put_together,
    take_apart,
    unposed,
)
from mobile_bilayer.pose.landmarks import MESH
from mobile_bilayer.pose.neutral import Neutral, ease_to_neutral
from mobile_bilayer.pose.stabilizer import FILE, PARTS, Stabilizer, StabilizerConfig, parts, stabilize
from mobile_bilayer.samples import sample_photo, sample_track

TOLERANCE = 1e-4  # of a value: numbers are written with six digits behind the point
LEVELS = 2  # of a picture's 255: OpenCV's own ways to resize differ by one
FRAMES = (52, 78, 159, 186)  # of the sample track: at rest, turned, speaking, eyes shut
SEQUENCE = range(182, 187)  # eyes that shut


def golden_vectors() -> dict[str, dict]:
    """{file name: content}, from the shipped driver and one of the sample photos."""
    track = sample_track()
    _, photo = sample_photo("astronaut")
    crop = head_crop(photo)
    source = np.round(crop.to_keypoints(photo), 5)
    frames = [track.landmarks[i, :, :2] for i in FRAMES]
    neutral = take_apart(frames[0])
    return {
        "constants.json": _constants(),
        "head_crop.json": _cases(
            "head_crop, and to_keypoints of four landmarks",
            "Centre and half side, in pixels; keypoints in [-1, 1] of the square.",
            lambda landmarks: {
                "x_px": head_crop(landmarks).x_px,
                "y_px": head_crop(landmarks).y_px,
                "half_px": head_crop(landmarks).half_px,
                "keypoints": head_crop(landmarks).to_keypoints(landmarks[[0, 33, 263, 152]]),
            },
            [{"landmarks": points} for points in frames],
        ),
        "head.json": _cases(
            "fit_head, then unposed of every tenth landmark",
            "Landmarks in pixels to head pose and, in template units, the face without it.",
            lambda landmarks: {
                **_pose(fit_head(landmarks)),
                "face_every_tenth": unposed(landmarks, fit_head(landmarks))[::10],
            },
            [{"landmarks": points} for points in frames],
        ),
        "stabilizer.json": _cases(
            "Stabilizer, frame by frame from a fresh one (live); stabilize, of all frames (file)",
            "Landmarks in pixels to steady ones, put together again.",
            _stabilized,
            [{"times_s": track.times_s[SEQUENCE], "landmarks": track.landmarks[SEQUENCE, :, :2]}],
        ),
        "neutral.json": _cases(
            "Neutral(live), after all frames, each shown for a 25th of a second",
            "Landmarks in pixels to those that mean as in the photo.",
            _neutral,
            [{"live": True, "frames_of": "head.json"}, {"live": False, "frames_of": "head.json"}],
        ),
        "lost_face.json": _cases(
            "ease_to_neutral: last and neutral are cases of head.json, without their depth",
            "What a face does that is lost for so many seconds.",
            lambda last, neutral, lost_s: {
                "landmarks_every_third": put_together(
                    ease_to_neutral(take_apart(frames[last]), take_apart(frames[neutral]), lost_s)
                )[::3]
            },
            [{"last": 1, "neutral": 0, "lost_s": lost_s} for lost_s in (0.2, 0.6, 0.8, 1.2)],
        ),
        "retarget.json": _cases(
            "Retargeter: the driver is the n-th case of head.json, the neutral frame its first",
            "Keypoints of the source (in [-1, 1] of its crop) moved by a driver's landmarks.",
            lambda mode, driver: {"keypoints": r.retarget(source, frames[driver], neutral, mode)},
            [
                *({"mode": "relative", "driver": driver} for driver in range(len(FRAMES))),
                {"mode": "absolute", "driver": 1},
            ],
        )
        | {"source": _plain(source[:, :2])},
        "ratios.json": _cases(
            "lid_share, of lids now and at rest (openness)",
            "How far lids are open, of how far they are at rest.",
            lambda now, rest: {"share": r.lid_share(now, rest)},
            [
                {"now": n, "rest": o}
                for n, o in [(0.3, 0.3), (0.2, 0.3), (0.1, 0.3), (0.02, 0.3), (0.6, 0.3), (0.06, 0.1)]
            ],
        ),
        "network_points.json": _cases(
            "network_points",
            "Keypoints of a source to the points that a network takes: mesh, head, torso.",
            lambda keypoints: {"points": network_points(keypoints)},
            [{"keypoints": source[:, :2]}],
        ),
        "search.json": _cases(
            "search_plan",
            "Where to look for a face in a picture of that size: windows (left, top, width, height), and how many each try has.",
            _search,
            [
                {"width": 640, "height": 480, "levels": 3},
                {"width": 239, "height": 1001, "levels": 3},
                {"width": 1537, "height": 241, "levels": 3},
                {"width": 1024, "height": 1600, "levels": 2},
            ],
        ),
        "found_face.json": _cases(
            "Window.around, face_size and turn_of a face (the n-th case of head.json), turned clockwise by quarters",
            "The square to look at again (left, top, side), how large the face is, and by how many degrees it is turned.",
            lambda driver, quarters: _found(frames[driver], quarters),
            [{"driver": i, "quarters": quarters} for i in range(len(FRAMES)) for quarters in (i, i + 1)],
        ),
        "cut.json": _cases(
            "Crop.cut",
            "A square of a picture (rows of RGB, 0 to 255): enlarged, made a little smaller, and much smaller.",
            lambda x_px, y_px, half_px, side_px: {"rgb": Crop(x_px, y_px, half_px).cut(_picture(), side_px)},
            [
                {"x_px": 11.3, "y_px": 8.6, "half_px": 4.2, "side_px": 12},
                {"x_px": 2.5, "y_px": 13.1, "half_px": 8.4, "side_px": 12},
                {"x_px": 20.7, "y_px": 14.2, "half_px": 17.9, "side_px": 12},
            ],
            LEVELS,
        )
        | {"picture": _plain(_picture())},
        "background.json": _cases(
            "fill_behind, of the picture in cut.json and a disc; change_background of what it gives",
            "Where the disc's middle and radius are, in pixels; it is whole within, and fades over the next two. Pictures as rows of RGB.",
            _behind,
            [{"x": 22.0, "y": 14.0, "radius": 9.0}],
            LEVELS,
        ),
    }


def write_golden(folder: Path) -> list[Path]:
    """Write all of them; files already there are replaced at the end."""
    if folder.exists() and not folder.is_dir():
        raise MobileBilayerError(f"{folder} is a file; golden vectors need a folder. Choose another name.")
    vectors = golden_vectors()
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, content in vectors.items():
        # One array a line: short enough to read, and to compare.
        text = re.sub(
            r"\[\s+([-\d.,\s\[\]e]+?)\s+\](?=,?\n)",
            lambda m: "[" + "".join(m[1].split()) + "]",
            json.dumps(content, indent=1),
        )
        with written_aside(folder / name) as aside:
            aside.write_text(text + "\n", "utf-8")
        written.append(folder / name)
    return written


def _cases(
    function: str, says: str, call: Callable[..., dict], inputs: list[dict], tolerance: float = TOLERANCE
) -> dict:
    cases = [{"inputs": given, "outputs": call(**given)} for given in inputs]
    return {"function": function, "says": says, "tolerance": tolerance, "cases": _plain(cases)}


def _picture() -> np.ndarray:
    """(28, 40, 3) uint8: waves, with edges that any other way to resize would show."""
    y, x, c = np.meshgrid(np.arange(28), np.arange(40), np.arange(3), indexing="ij")
    waves = 110 + 60 * np.sin(x / (2 + c)) + 50 * np.cos(y / (3 - c)) + 30 * ((x // 5 + y // 4) % 2)
    return np.clip(np.rint(waves), 0, 255).astype(np.uint8)


def _search(width: int, height: int, levels: int) -> dict:
    plan = search_plan(width, height, levels)
    return {"counts": [len(windows) for windows in plan], "windows": [window for windows in plan for window in windows]}


def _found(points: np.ndarray, quarters: int) -> dict:
    for _ in range(quarters):
        points = np.stack([-points[:, 1], points[:, 0]], 1)
    window = Window.around(points)
    return {"window": [window.left, window.top, window.side], "face_size": face_size(points), "turn": turn_of(points)}


def _behind(x: float, y: float, radius: float) -> dict:
    picture = _picture()
    rows, columns = np.indices(picture.shape[:2])
    alpha = np.clip((radius + 2 - np.hypot(columns - x, rows - y)) / 2, 0, 1).astype(np.float32)
    filled = fill_behind(picture, alpha)
    square = filled[:, :28].copy()
    return {
        "filled": filled,
        "blurred_square": change_background("blur", square, square),
        "coloured_corner": change_background("#20a0ff", square, square)[:1, :1],
    }


def _stabilized(times_s: np.ndarray, landmarks: np.ndarray) -> dict:
    stabilizer = Stabilizer()
    live = [put_together(stabilizer(take_apart(p), t)) for p, t in zip(landmarks, times_s.tolist(), strict=True)]
    found = np.ones(len(times_s), bool)
    from_file = [put_together(motion) for motion in stabilize(landmarks, times_s, found)]
    return {"live_every_third": np.stack(live)[:, ::3], "file_every_third": np.stack(from_file)[:, ::3]}


def _neutral(live: bool, frames_of: str) -> dict:
    neutral = Neutral(live)
    for i in FRAMES:
        neutral.add(take_apart(sample_track().landmarks[i, :, :2]), 0.04)
    return {"landmarks_every_third": put_together(neutral.motion)[::3]}


def _constants() -> dict:
    template = face_template()
    return _plain(
        {
            "mesh": MESH,
            "head_points": HEAD_POINTS,
            "torso_points": TORSO_POINTS,
            "crop_up": CROP_UP,
            "template_points": template.points,
            "template_rigid": template.rigid,
            "template_jaw": template.jaw,
            "stabilizer": asdict(StabilizerConfig()),
            "stabilizer_file": asdict(FILE),
            "parts": PARTS,
            "part_of_landmark": parts(),
            **{
                f"{prefix}_{name.lower()}": getattr(module, name)
                for prefix, module, names in (
                    ("neutral", n, ("ANGLE", "LIPS", "LIDS", "MEMORY_S", "LARGEST_STEP", "HOLD_S", "EASE_S")),
                    ("stabilizer", s, ("BLOCK", "BEHIND", "REACH", "KERNEL_S", "NO_KERNEL_S")),
                )
                for name in names
            },
            **{
                name.lower(): getattr(r, name)
                for name in dir(r)
                if name.isupper() and not name.startswith("_") and name not in ("MODES", "MIDDLE")
            },
        }
    )


def _pose(pose: HeadPose) -> dict:
    return {"scale": pose.scale, "rotation": pose.rotation, "shift": pose.shift}


def _plain(value):
    """What JSON can hold, numbers with six digits behind the point."""
    match value:
        case dict():
            return {name: _plain(part) for name, part in value.items()}
        case np.ndarray() | np.generic():
            return _plain(value.tolist())
        case list() | tuple() | range():
            return [_plain(part) for part in value]
        case float():
            return round(value, 6)
    return value
