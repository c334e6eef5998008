"""Whose faces are lost, and whose eyes are misread: by group of people, and with what may hide a face.

There is no truth to compare with; but a face's mirror image has the same eyes, the other way round. So each picture is
looked at again, mirrored: what the two looks say of the gap between the lids differs by about the error of either. A face
that is turned elsewhere in its mirror image is a wrong pose: worse than none.

Changes are made to the same pictures: less light, glasses or a hat drawn on. There the picture as it was is the measure.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from mobile_bilayer.capture.images import read_image, written_aside
from mobile_bilayer.capture.landmarker import Landmarker, detect_padded
from mobile_bilayer.capture.tracking import FaceTracker
from mobile_bilayer.capture.video import VideoReader
from mobile_bilayer.dataset.prepare import VIDEO_SUFFIXES
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.head import face_template, take_apart
from mobile_bilayer.pose.retarget import eyes_of

Progress = Callable[[str, int, int | None], None]

WRONG_DEGREES = 15.0  # two looks at one face that are farther apart: one is wrong
LOOK_EVERY = 5  # frames of a clip; all are tracked
DIM = 20.0  # mean of a picture's levels, of 255


@dataclass(frozen=True)
class Look:
    """A picture looked at twice.

    found  whether there is a face
    wrong  whether the second look shows it turned elsewhere; None without one
    gap    mean |difference| of both eyes' openness in the two looks, % of the eye's width; None without a second one
    """

    found: bool
    wrong: bool | None = None
    gap: float | None = None


@dataclass(frozen=True)
class GroupRow:
    """What was measured of a group: shares of its pictures with a face, and of those the wrong ones; the mean gap's error."""

    group: str
    files: int
    pictures: int
    found: float
    wrong: float | None
    gap: float | None


@dataclass(frozen=True)
class GroupReport:
    """Rows of all, of each group, and of each change made to all of them."""

    rows: list[GroupRow]

    def save(self, path: Path) -> None:
        """As JSON; null where nothing could be compared."""
        with written_aside(path) as aside:
            aside.write_text(
                json.dumps([asdict(row) for row in self.rows], indent=1, ensure_ascii=False) + "\n", "utf-8"
            )


def read_groups(path: Path, data: Path | None = None) -> dict[Path, list[str]]:
    """Files and their groups, from a CSV with the columns file and group: a row for each group of a file.

    data  the folder that the paths begin from; None: the CSV's own. A group may be empty: the file counts among all
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = [(reader.line_num, row) for row in reader]
            columns = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise MobileBilayerError(f"{path} can't be read ({error}). Save it as CSV in UTF-8.") from error
    if lacking := [name for name in ("file", "group") if name not in columns]:
        raise MobileBilayerError(
            f"{path} has the columns {', '.join(map(str, columns)) or 'none'} and lacks {', '.join(lacking)}. Add them."
        )
    folder = path.parent if data is None else data
    out: dict[Path, list[str]] = {}
    for line, row in rows:
        if not row["file"] or not (folder / row["file"]).is_file():
            raise MobileBilayerError(
                f"{path}, line {line}: there is no file {row['file']!r} in {folder}. Correct the line, or name the folder "
                "with --data."
            )
        out.setdefault(folder / row["file"], []).extend([row["group"]] if row["group"] else [])
    if not out:
        raise MobileBilayerError(f"{path} has no rows. Add one for each group of a file.")
    return out


def evaluate_groups(files: dict[Path, list[str]], frames: int = 50, on_progress: Progress | None = None) -> GroupReport:
    """Look at the first `frames` frames of each video, and at each photo."""
    if frames < 1:
        raise MobileBilayerError(f"{frames} frames of each clip were asked for; at least 1 is needed. Try 50.")
    looks: dict[Path, list[Look]] = {}
    changed: dict[str, list[Look]] = {name: [] for name in CHANGES}
    with Landmarker(video=False) as landmarker:
        for done, path in enumerate(files, 1):
            looks[path] = []
            for rgb, points, shown in _pictures(path, frames, landmarker):
                looks[path].append(_mirrored(landmarker, rgb, points) if shown else Look(points is not None))
                if shown and points is not None:
                    still = detect_padded(landmarker, rgb)
                    for name, change in CHANGES.items() if still is not None else ():
                        changed[name].append(compare(still, detect_padded(landmarker, change(rgb, points))))
            if on_progress:
                on_progress("Looking", done, len(files))
    names = sorted({name for groups in files.values() for name in groups})
    rows = [row("all", len(files), [look for each in looks.values() for look in each])]
    for name in names:
        its = [path for path, groups in files.items() if name in groups]
        rows.append(row(name, len(its), [look for path in its for look in looks[path]]))
    rows += [row(name, len(files), its) for name, its in changed.items()]
    return GroupReport(rows)


def row(group: str, files: int, looks: list[Look]) -> GroupRow:
    """The row of a group's looks."""
    compared = [look for look in looks if look.gap is not None]
    return GroupRow(
        group,
        files,
        len(looks),
        float(np.mean([look.found for look in looks])) if looks else 0.0,
        float(np.mean([look.wrong for look in compared])) if compared else None,
        float(np.mean([look.gap for look in compared])) if compared else None,
    )


def compare(points: np.ndarray, again: np.ndarray | None) -> Look:
    """One face's landmarks (478, 3) and those found the second time, if any."""
    if again is None:
        return Look(False)
    first, second = take_apart(points), take_apart(again)
    cosine = (np.trace(first.pose.rotation @ second.pose.rotation.T) - 1) / 2
    gaps = [abs(a.openness - b.openness) for a, b in zip(eyes_of(first.face), eyes_of(second.face), strict=True)]
    return Look(True, bool(np.degrees(np.arccos(np.clip(cosine, -1, 1))) > WRONG_DEGREES), 100 * float(np.mean(gaps)))


def _mirrored(landmarker: Landmarker, rgb: np.ndarray, points: np.ndarray | None) -> Look:
    if points is None:
        return Look(False)
    mirror = detect_padded(landmarker, np.ascontiguousarray(rgb[:, ::-1]))
    if mirror is None:
        return Look(True)
    return compare(points, (mirror * np.float32([-1, 1, 1]) + np.float32([rgb.shape[1], 0, 0]))[face_template().mirror])


def _pictures(path: Path, frames: int, landmarker: Landmarker):
    """(picture, landmarks or None, whether to look at it twice) of a photo or of a clip's frames."""
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        rgb = read_image(path)
        yield rgb, detect_padded(landmarker, rgb), True
        return
    with VideoReader(path) as video, FaceTracker() as tracker:
        for number, frame in zip(range(frames), video, strict=False):
            yield frame.rgb, tracker.see(frame.rgb, frame.time_s), number % LOOK_EVERY == 0


def dimmed(rgb: np.ndarray, _points: np.ndarray | None = None) -> np.ndarray:
    """With so little light that the picture's mean is `DIM`."""
    return np.round(rgb * min(1.0, DIM / max(float(rgb.mean()), 1.0))).astype(np.uint8)


def with_glasses(rgb: np.ndarray, points: np.ndarray) -> np.ndarray:
    """With dark rims drawn around the eyes of a face (478, 3), and a bright streak on each lens."""
    out = rgb.copy()
    flat = points[:, :2].astype(np.float64)
    across = flat[263] - flat[33]
    angle, thick = float(np.degrees(np.arctan2(across[1], across[0]))), max(1, round(np.hypot(*across) / 40))
    middles = [(flat[outer] + flat[inner]) / 2 for outer, inner in ((33, 133), (263, 362))]
    half = np.hypot(*(middles[1] - middles[0])) * np.array([0.36, 0.27])
    for middle in middles:
        streak = out.copy()
        away = half * [0.5, 0.6]
        cv2.line(
            streak,
            _pixel(middle + away * [-1, 1]),
            _pixel(middle - away * [-1, 1]),
            (255, 255, 255),
            2 * thick,
            cv2.LINE_AA,
        )
        out = cv2.addWeighted(streak, 0.35, out, 0.65, 0)
    for middle in middles:
        cv2.ellipse(out, (_pixel(middle), tuple((2 * half).tolist()), angle), (25, 20, 20), thick, cv2.LINE_AA)
    along = across / np.hypot(*across)
    cv2.line(
        out,
        _pixel(middles[0] + half[0] * along),
        _pixel(middles[1] - half[0] * along),
        (25, 20, 20),
        thick,
        cv2.LINE_AA,
    )
    return out


def with_hat(rgb: np.ndarray, points: np.ndarray) -> np.ndarray:
    """With a dark cap drawn over forehead and hair of a face (478, 3), down to a little above its brows."""
    motion = take_apart(points)
    brim = np.array([(-0.95, -0.62, 0.25), (0, -0.72, -0.35), (0.95, -0.62, 0.25)])
    crown = np.array([(1.0, -1.1, 0.6), (0.55, -1.6, 0.5), (0, -1.75, 0.5), (-0.55, -1.6, 0.5), (-1.0, -1.1, 0.6)])
    outline = motion.pose.project(np.concatenate([brim, crown])).round().astype(np.int32)
    out = rgb.copy()
    cv2.fillPoly(out, [outline], (40, 45, 70), cv2.LINE_AA)
    return out


def _pixel(point: np.ndarray) -> tuple[int, int]:
    x, y = point.round().astype(int).tolist()
    return x, y


CHANGES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "made dim": dimmed,
    "glasses drawn": with_glasses,
    "hat drawn": with_hat,
}
