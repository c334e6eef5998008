"""From a source and a driver to a video or a picture."""

from __future__ import annotations

import math
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from statistics import median

import cv2
import numpy as np

from mobile_bilayer.capture.camera import Camera
from mobile_bilayer.capture.images import IMAGE_SUFFIXES, check_output, write_image
from mobile_bilayer.capture.tracking import FaceTracker, track_video
from mobile_bilayer.capture.video import VIDEO_SUFFIXES, VideoReader, VideoWriter
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.crop import Crop, head_crop
from mobile_bilayer.pose.head import Motion, put_together, take_apart
from mobile_bilayer.pose.neutral import Neutral, ease_to_neutral, neutral_of
from mobile_bilayer.pose.retarget import MODES, Mode, openings
from mobile_bilayer.pose.stabilizer import Stabilizer, stabilize
from mobile_bilayer.pose.stickman import draw_stickman
from mobile_bilayer.pose.track import TRACK_SUFFIXES, Track
from mobile_bilayer.runtime.avatar import Avatar
from mobile_bilayer.runtime.bundle import Bundle
from mobile_bilayer.samples import SAMPLES, sample_photo, sample_track

STAGES = ("decode", "landmarks", "network", "composite", "encode")
PANEL_PX = 256
LONGEST_S = 24 * 3600
MOST_PANELS = 63  # beside one more: 16384 px, the widest that players and encoders take

Progress = Callable[[str, int, int | None], None]  # what is done, frames done, frames in all if known


@dataclass
class Report:
    """What `animate` wrote, and what each frame cost.

    lost      frames in which the driver's face was not seen
    stages_s  seconds of each frame, by stage; empty where a stage had nothing to do
    wall_s    seconds from the first frame read to the file's end
    """

    output: Path
    frames: int = 0
    lost: int = 0
    wall_s: float = 0.0
    stages_s: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in STAGES})

    def median_ms(self, stage: str) -> float | None:
        """Of one frame; None for a stage with nothing to do."""
        return 1000 * median(self.stages_s[stage]) if self.stages_s[stage] else None

    @property
    def frames_per_second(self) -> float:
        return self.frames / self.wall_s if self.wall_s else 0.0


def open_avatar(source: Avatar | Path | str | np.ndarray | None, bundle: Bundle) -> Avatar:
    """An avatar of what people may name: an avatar, its file, a photo, or a sample ("astronaut", the default).

    It is there to be changed: of an avatar given it is a copy, whose neutral frame and background are its own.
    """
    if isinstance(source, Avatar):
        return copy(source)
    if source is None:
        source = SAMPLES[0]
    if isinstance(source, str) and source in SAMPLES and not Path(source).exists():
        return bundle.avatar(*sample_photo(source))
    if isinstance(source, (str, Path)) and Path(source).suffix == ".avatar":
        return Avatar.load(source, bundle)
    return bundle.avatar(source)


def animate(
    source: Avatar | Path | str | np.ndarray | None = None,
    driving: Track | Path | str | None = None,
    output: Path | str = "out.mp4",
    *,
    bundle: Bundle | None = None,
    side_by_side: bool = False,
    background: str | Path = "keep",
    motion: Mode = "relative",
    neutral: int | None = None,
    seconds: float | None = None,
    on_progress: Progress | None = None,
) -> Report:
    """Write an MP4 in which the source moves like the driver, one frame for each of the driver's.

    While the driver's face is not seen, its last pose is held and then eased to the neutral one; the report counts it.

    source        a photo (path or (H, W, 3) uint8 RGB), an `Avatar` or its file, or a sample's name; default: a sample
    driving       a video, a `Track` or its file, or "camera:0"; default: the shipped track
    output        ends in .mp4; it appears only when it is complete
    side_by_side  source, driver (its stickman for a track) and result in one picture
    background    "keep", "blur", "#rrggbb" or a picture file
    motion        "relative": the source does what the driver does, with its own face; "absolute": it gets the driver's
                  face and pose, for a driver who is the source
    neutral       frame of the driver, from 0, that means "as in the photo"; default: found from all frames
    seconds       stop there; a camera without it runs until interrupted (KeyboardInterrupt ends it well)
    """
    output = check_output(Path(output), VIDEO_SUFFIXES)
    if seconds is not None and not 0 < seconds <= LONGEST_S:
        raise MobileBilayerError(f"seconds is {seconds}; it must be above 0 and at most {LONGEST_S}. Try 10.")
    _check_motion(motion)
    progress = on_progress or (lambda what, done, total: None)
    report = Report(output)
    bundle = bundle or Bundle.open()
    camera = _camera_index(driving)
    if camera is not None and neutral is not None:
        raise MobileBilayerError(
            "A camera has no frame to name as neutral: it is found while you move. Leave the neutral frame out."
        )
    video = None if camera is not None or _is_track(driving) else _open_video(driving, output)
    track = _load_track(driving) if camera is None and video is None else None
    avatar = open_avatar(source, bundle)
    avatar.show_before(background)
    avatar.mode = motion
    avatar.layers(avatar.source_landmarks)  # loads the program: start-up is no frame's cost
    begun = time.perf_counter()
    if camera is not None:
        _animate_camera(avatar, camera, output, side_by_side, seconds, report, progress)
    else:
        if video is not None:
            track = _track(video, str(driving), seconds, report, progress)
        avatar.neutral = _neutral(track, neutral)
        _animate_track(avatar, track, video, output, side_by_side, seconds, report, progress)
    report.wall_s = time.perf_counter() - begun
    return report


def _camera_index(driving: Track | Path | str | None) -> int | None:
    if not (isinstance(driving, str) and driving.startswith("camera:")):
        return None
    number = driving.removeprefix("camera:")
    if not re.fullmatch("[0-9]{1,3}", number):
        raise MobileBilayerError(f"The driver is {driving!r}; a camera is named camera:0, camera:1 and so on.")
    return int(number)


def _is_track(driving: Track | Path | str | None) -> bool:
    return driving is None or isinstance(driving, Track) or Path(driving).suffix.lower() in TRACK_SUFFIXES


def _load_track(driving: Track | Path | str | None) -> Track:
    if isinstance(driving, Track):
        return driving
    return sample_track() if driving is None else Track.load(Path(driving))


def _open_video(driving: Path | str, output: Path) -> VideoReader:
    if output.exists() and Path(driving).exists() and output.samefile(driving):
        raise MobileBilayerError(f"{output} is the driving video itself. Choose another output.")
    return VideoReader(Path(driving))


def _track(video: VideoReader, name: str, seconds: float | None, report: Report, progress: Progress) -> Track:
    total = _limit(video.frames, video.rate, seconds)
    done = 0

    def on_frame(frame) -> bool:
        nonlocal done
        done += 1
        progress("Tracking", done, total)
        return seconds is None or frame.time_s + 1 / float(video.rate) < seconds

    tracking = track_video(video, on_frame, name)
    report.stages_s["decode"], report.stages_s["landmarks"] = tracking.decode_s, tracking.landmarks_s
    return tracking.track


def _limit(frames: int | None, rate: Fraction, seconds: float | None) -> int | None:
    if seconds is None:
        return frames
    limit = max(1, round(seconds * rate))
    return limit if frames is None else min(frames, limit)


def _check_motion(motion: str) -> None:
    if motion not in MODES:
        raise MobileBilayerError(f"There is no motion {motion!r}. Choose one of {', '.join(MODES)}.")


def _neutral(track: Track, frame: int | None) -> Motion:
    if frame is None:
        return neutral_of(track)
    if not 0 <= frame < len(track) or not track.found[frame]:
        why = "no face was found in it" if 0 <= frame < len(track) else f"the driver has frames 0 to {len(track) - 1}"
        raise MobileBilayerError(f"Frame {frame} can't be the neutral one: {why}. Choose another, or leave it out.")
    return take_apart(track.landmarks[frame])


def driving_motions(track: Track, neutral: Motion) -> Iterator[Motion]:
    """A clip as it drives an avatar: each frame's motion, stabilised; where no face was found, see `ease_to_neutral`."""
    last, last_s = neutral, -math.inf
    motions = stabilize(track.landmarks, track.times_s, track.found)
    for time_s, found, motion in zip(track.times_s.tolist(), track.found.tolist(), motions, strict=True):
        if found:
            last, last_s = motion, time_s
        yield motion if found else ease_to_neutral(last, neutral, time_s - last_s)


def telling_frames(motions: Iterable[Motion], count: int) -> list[int]:
    """Which `count` of them, in order, show most of what a driver does; some twice where there are fewer.

    The one that is farthest from the mean, then again and again the one farthest from all chosen: in the direction that the head
    looks to and leans, in the eyes' openness, and in the lips', whose ratio goes half as far.
    """
    seen = []
    for pose, face in motions:
        eyes, lips = openings(face)
        seen.append([*pose.rotation[:2, 2], pose.rotation[1, 0], eyes, 2 * lips])
    seen = np.array(seen)
    chosen, far = [], np.linalg.norm(seen - seen.mean(0), axis=1)
    for _ in range(count):
        chosen.append(int(far.argmax()))
        away = np.linalg.norm(seen - seen[chosen[-1]], axis=1)
        far = away if len(chosen) == 1 else np.minimum(far, away)
    return sorted(chosen)


def _animate_track(
    avatar: Avatar,
    track: Track,
    video: VideoReader | None,
    output: Path,
    side_by_side: bool,
    seconds: float | None,
    report: Report,
    progress: Progress,
) -> None:
    crop = head_crop(put_together(avatar.neutral))
    # The driver's own pictures are read a second time only to be shown: memory stays flat.
    pictures = iter(video) if video is not None and side_by_side else None
    total = _limit(len(track), track.rate, seconds)
    width = PANEL_PX * (3 if side_by_side else 1)
    sound = video.path if video is not None and video.has_audio else None
    with VideoWriter(output, track.rate, width, PANEL_PX, sound) as writer:
        motions = driving_motions(track, avatar.neutral)
        for time_s, found, motion in zip(track.times_s.tolist(), track.found.tolist(), motions, strict=True):
            if report.frames >= total:
                break
            rgb = _render(avatar, motion, report)
            if side_by_side:
                picture = next(pictures, None) if pictures is not None else None
                driver = _stick(motion, crop) if picture is None else crop.cut(picture.rgb, PANEL_PX)
                rgb = cv2.hconcat([avatar.texture, driver, rgb])
            _write(writer, rgb, time_s, report)
            report.lost += not found
            progress("Rendering", report.frames, total)


def _animate_camera(
    avatar: Avatar,
    index: int,
    output: Path,
    side_by_side: bool,
    seconds: float | None,
    report: Report,
    progress: Progress,
) -> None:
    """Live: no look ahead. The first face seen is the neutral one, and becomes a better one while it goes on."""
    follow, crop = Follower(avatar), None
    with Camera(index) as camera, FaceTracker(live=True) as tracker:
        total = _limit(None, camera.rate, seconds)
        width = PANEL_PX * (3 if side_by_side else 1)
        with VideoWriter(output, camera.rate, width, PANEL_PX) as writer, _between_frames() as interrupted:
            frames = iter(camera)
            try:
                while not interrupted.is_set():
                    frame = _timed(lambda: next(frames, None), report, "decode")
                    if frame is None:
                        break
                    found = _timed(lambda: tracker.see(frame.rgb, frame.time_s), report, "landmarks")  # noqa: B023
                    report.lost += found is None
                    motion = follow(found, frame.time_s)
                    rgb = avatar.texture if motion is None else _render(avatar, motion, report)
                    if side_by_side:
                        crop = crop or (head_crop(found) if found is not None else _whole(frame.rgb))
                        rgb = cv2.hconcat([avatar.texture, crop.cut(frame.rgb, PANEL_PX), rgb])
                    _write(writer, rgb, frame.time_s, report)
                    progress("Live", report.frames, total)
                    if seconds is not None and frame.time_s >= seconds:
                        break
            except KeyboardInterrupt:
                interrupted.set()
            if not report.frames and interrupted.is_set():
                raise KeyboardInterrupt  # nothing was seen yet: there is no video to finish


class Follower:
    """A live driver's motion, frame by frame; it sets the avatar's neutral."""

    def __init__(self, avatar: Avatar) -> None:
        self._avatar = avatar
        self._stabilizer, self._neutral = Stabilizer(avatar.bundle.manifest.stabilizer), Neutral(live=True)
        self._motion: Motion | None = None
        self._time_s = self._seen_s = 0.0

    def __call__(self, landmarks: np.ndarray | None, time_s: float) -> Motion | None:
        """None until there was a face; where there is none any more, see `ease_to_neutral`."""
        step_s, self._time_s = time_s - self._time_s, time_s
        if landmarks is None:
            self._stabilizer.reset()
            if self._motion is None:
                return None
            return ease_to_neutral(self._motion, self._avatar.neutral, time_s - self._seen_s)
        self._seen_s = time_s
        self._motion = self._stabilizer(take_apart(landmarks), time_s)
        self._neutral.add(self._motion, min(max(step_s, 1e-3), 1.0))
        self._avatar.neutral = self._neutral.motion
        return self._motion


@contextmanager
def _between_frames() -> Iterator[threading.Event]:
    """Ctrl-C sets the event and no more: an exception inside the encoder would tear the video. A second one stops."""
    asked = threading.Event()
    usual = signal.default_int_handler
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not usual:
        yield asked  # signals are not ours to handle: an exception is all that can come
        return

    def on_signal(*_args) -> None:
        asked.set()
        signal.signal(signal.SIGINT, usual)

    signal.signal(signal.SIGINT, on_signal)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, usual)


def _whole(rgb: np.ndarray) -> Crop:
    height, width = rgb.shape[:2]
    return Crop(width / 2, height / 2, min(width, height) / 2)


def _timed(call: Callable, report: Report, stage: str):
    begun = time.perf_counter()
    out = call()
    report.stages_s[stage].append(time.perf_counter() - begun)
    return out


def _render(avatar: Avatar, motion: Motion, report: Report) -> np.ndarray:
    layers = _timed(lambda: avatar.layers(avatar.move(motion)), report, "network")
    return _timed(lambda: avatar.compose(*layers), report, "composite")


def _write(writer: VideoWriter, rgb: np.ndarray, time_s: float, report: Report) -> None:
    _timed(lambda: writer.write(rgb, time_s), report, "encode")
    report.frames += 1


def _stick(motion: Motion, crop: Crop) -> np.ndarray:
    return draw_stickman(crop.to_keypoints(put_together(motion)), PANEL_PX)


def grid(
    sources: list[Avatar | Path | str | np.ndarray],
    driving: Track | Path | str | None = None,
    output: Path | str = "grid.png",
    *,
    bundle: Bundle | None = None,
    columns: int = 6,
    background: str | Path = "keep",
    motion: Mode = "relative",
    neutral: int | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Several sources moved by one driver, in one picture (.png, .jpg) or video (.mp4), below the driver's stickman.

    sources  as in `animate`, at least one
    columns  frames of the driver in a picture, those that differ most: turns, open mouths, shut eyes
    motion, neutral  as in `animate`
    """
    output = check_output(Path(output), (*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))
    if not sources:
        raise MobileBilayerError("A grid needs at least one source. Name one or more photos.")
    if not 1 <= columns <= MOST_PANELS or len(sources) > MOST_PANELS:
        raise MobileBilayerError(
            f"A grid of {columns} columns and {len(sources)} sources was asked for; both must be in 1..{MOST_PANELS}."
        )
    for path in (*sources, background):
        if isinstance(path, (str, Path)) and output.exists() and Path(path).exists() and output.samefile(path):
            raise MobileBilayerError(f"{output} is one of the pictures to be read. Choose another output.")
    if _camera_index(driving) is not None:
        raise MobileBilayerError("A grid needs a driver that can be looked at first: a video or a track, not a camera.")
    _check_motion(motion)
    progress = on_progress or (lambda what, done, total: None)
    bundle = bundle or Bundle.open()
    if _is_track(driving):
        track = _load_track(driving)
    else:
        track = _track(_open_video(driving, output), str(driving), None, Report(output), progress)
    rest = _neutral(track, neutral)
    crop = head_crop(put_together(rest))
    avatars = []
    for source in sources:
        avatar = open_avatar(source, bundle)
        avatar.show_before(background)
        avatar.neutral, avatar.mode = rest, motion
        avatars.append(avatar)
    blank = np.zeros((PANEL_PX, PANEL_PX, 3), np.uint8)
    if output.suffix.lower() in VIDEO_SUFFIXES:
        top = cv2.hconcat([blank, *(a.texture for a in avatars)])
        with VideoWriter(output, track.rate, top.shape[1], 2 * PANEL_PX) as writer:
            frames = zip(track.times_s.tolist(), driving_motions(track, rest), strict=True)
            for done, (time_s, moved) in enumerate(frames, 1):
                row = cv2.hconcat([_stick(moved, crop), *(a.render(moved) for a in avatars)])
                writer.write(cv2.vconcat([top, row]), time_s)
                progress("Rendering", done, len(track))
        return output
    wanted = telling_frames(driving_motions(track, rest), columns)
    motions = {i: moved for i, moved in enumerate(driving_motions(track, rest)) if i in set(wanted)}  # all would fill memory
    chosen = [motions[i] for i in wanted]
    rows = [cv2.hconcat([blank, *(_stick(moved, crop) for moved in chosen)])]
    for done, avatar in enumerate(avatars, 1):
        rows.append(cv2.hconcat([avatar.texture, *(avatar.render(moved) for moved in chosen)]))
        progress("Rendering", done, len(avatars))
    write_image(output, cv2.vconcat(rows))
    return output
