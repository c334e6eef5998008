"""The driver's motion, put on the source's own face: so that no face shape leaks.

What a frame of the driver gives is compared with the driver's neutral frame, and the difference is done to the source.
Three things are not differences but ratios, so that shut is shut in every face:

lids   open by a share of how far the driver's do at rest: the source's lids by that share of how far they do in the photo
lips   part by as much of the mouth's width as the driver's do, whether or not they are parted in the photo
gaze   goes as many widths of the eye to the side
"""

from __future__ import annotations

import math
from copy import copy
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.head import HeadPose, Motion, Row, dot, face_template, put_together, take_apart

Mode = Literal["relative", "absolute"]
MODES: tuple[Mode, ...] = ("relative", "absolute")

LARGEST_SHIFT = 0.4  # of the head, in crop coordinates
SCALE_RANGE = (0.75, 1.33)  # of the head's size against the photo's
PROPORTION_RANGE = (0.8, 1.05)  # of the source's mouth and brows against the driver's; what is above is a smile
# Measured on 41 clips and 109 photos. Points of shut lids still are 0.02 to 0.1 eye widths apart, those of shut lips 0
# to 0.06 mouth widths, on most photos 0.02 at most.
SHUT_LIDS, SHUT_LIPS, TIGHT_LIPS = 0.08, 0.06, 0.02
MOST_SHUT = 0.35  # of their distance at rest, for narrow eyes
WIDEST_LIDS = 1.6  # of the same
# In a blink it is the upper lid that moves; when lips part, the lower one.
UPPER_LID, UPPER_LIP = 0.95, 0.15

EYE_CORNERS = np.array([(33, 133), (263, 362)])  # outer, inner; the person's right eye first, as everywhere below
UPPER_LIDS = np.array([(246, 161, 160, 159, 158, 157, 173), (466, 388, 387, 386, 385, 384, 398)])
LOWER_LIDS = np.array([(7, 163, 144, 145, 153, 154, 155), (249, 390, 373, 374, 380, 381, 382)])
IRISES = np.array([range(468, 473), range(473, 478)])  # the middle first
BROWS = np.array([(70, 63, 105, 66, 107), (300, 293, 334, 296, 336)])
MOUTH_CORNERS = (61, 291)
UPPER_LIPS = np.array([191, 80, 81, 82, 13, 312, 311, 310, 415])  # the inner edges, from the person's right
LOWER_LIPS = np.array([95, 88, 178, 87, 14, 317, 402, 318, 324])
OUTER_UPPER_LIPS = np.array([185, 40, 39, 37, 0, 267, 269, 270, 409])  # and the outer ones
OUTER_LOWER_LIPS = np.array([146, 91, 181, 84, 17, 314, 405, 321, 375])
MIDDLE = slice(3, 6)  # of lips


class Eye(NamedTuple):  # as `HeadPose`
    """What an eye does.

    width     from corner to corner
    openness  mean distance down of the three middle pairs of lid points, over the width
    gaze      of the iris from the middle of the corners, in widths
    """

    width: float
    openness: float
    gaze: Row


@dataclass(frozen=True)
class Rest:
    """A face that motion starts from: the source's, and the driver's in its neutral frame.

    motion       as it is in the picture
    face         (478, 3) the same with its lips shut
    eyes         as they are in the picture, the person's right one first
    lid_gaps     (2, 7, 3) from each upper lid point to the lower one
    lid_meets    (2, 7, 3) where the two would meet
    irises       (2, 5, 3) their points, from their first, the middle
    mouth_width  of the corners
    brow_height  mean distance of brows and eyes
    """

    motion: Motion
    face: np.ndarray
    eyes: tuple[Eye, Eye]
    lid_gaps: np.ndarray
    lid_meets: np.ndarray
    irises: np.ndarray
    mouth_width: float
    brow_height: float


def rest_of(motion: Motion) -> Rest:
    """What `move` needs to know of a face."""
    face = motion.face
    brows = face[BROWS].mean(1) - face[EYE_CORNERS].mean(1)
    return Rest(
        motion,
        shut_lips(face),
        eyes_of(face),
        face[LOWER_LIDS] - face[UPPER_LIDS],
        _lids_meet(face),
        face[IRISES] - face[IRISES[:, :1]],
        _mouth_width(face),
        float(np.linalg.norm(brows, axis=1).mean()),
    )


def eyes_of(face: np.ndarray) -> tuple[Eye, Eye]:
    """Both eyes of a face (478, 3), the person's right one first."""
    points = face.take(_EYE_POINTS, 0).reshape(9, 6)
    measures = (_EYE_MEASURES @ points).tolist()
    return _eye(*(row[:3] for row in measures)), _eye(*(row[3:] for row in measures))


def _eye(along: Row, to_iris: Row, down: Row) -> Eye:
    width = max(math.sqrt(dot(along, along)), 1e-6)
    return Eye(width, down[1] / width, [step / width for step in to_iris])


def openness(face: np.ndarray) -> float:
    """Of both eyes, on average."""
    right, left = eyes_of(face)
    return (right.openness + left.openness) / 2


def lip_opening(face: np.ndarray) -> float:
    """Mean distance down of the three middle pairs of lip points, over the mouth's width."""
    return float((face[LOWER_LIPS[MIDDLE], 1] - face[UPPER_LIPS[MIDDLE], 1]).mean() / _mouth_width(face))


def shut_lips(face: np.ndarray) -> np.ndarray:
    """The face (478, 3) with its lips shut; the jaw comes along. Lips that may be shut already stay as they are."""
    opening = lip_opening(face)
    if opening <= SHUT_LIPS:
        return face
    spare = (1 - max(2 * SHUT_LIPS - opening, TIGHT_LIPS) / opening) * (face[LOWER_LIPS] - face[UPPER_LIPS])
    out = face.copy()
    out[:, 1] -= face_template().jaw * spare[MIDDLE, 1].mean()
    for upper, lower in ((UPPER_LIPS, LOWER_LIPS), (OUTER_UPPER_LIPS, OUTER_LOWER_LIPS)):
        out[upper] = face[upper] + UPPER_LIP * spare
        out[lower] = face[lower] - (1 - UPPER_LIP) * spare
    return out


def lid_share(now: float, rest: float) -> float:
    """How far an eye's lids are open, of how far they are at rest: 1 as at rest, 0 shut; both given as openness.

    From half shut on down the share falls faster than the distance does, for the points of shut lids don't meet.
    """
    rest = max(rest, 1e-3)
    shut = min(SHUT_LIDS / rest, MOST_SHUT)
    share = now / rest
    if share < 0.5:
        share = 0.5 * (share - shut) / (0.5 - shut)
    return min(max(share, 0.0), WIDEST_LIDS)


def proportions(source: Rest, neutral: Rest) -> np.ndarray:
    """(478, 3) what the driver's change is multiplied with: the source's brows and mouth against the driver's."""
    brows, mouth = (
        min(max(mine / max(theirs, 1e-3), PROPORTION_RANGE[0]), PROPORTION_RANGE[1])
        for mine, theirs in ((source.brow_height, neutral.brow_height), (source.mouth_width, neutral.mouth_width))
    )
    height = face_template().points[:, 1:2].astype(np.float64)
    # The eyes' line is at -0.37, the nose's tip at 0.03, the mouth at 0.4.
    above = np.clip((-0.42 - height) / 0.1, 0, 1)
    below = np.clip((height - 0.1) / 0.15, 0, 1)
    return np.repeat(1 + above * (brows - 1) + below * (mouth - 1), 3, axis=1)


def move(source: Rest, neutral: Rest, driving: Motion, scales: np.ndarray) -> Motion:
    """The source when the driver has moved from `neutral` to `driving`; scales are those of `proportions`."""
    face = source.face + scales * (driving.face - neutral.face)
    # Rounding and noise must not push one lip through the other.
    lips = face.take(_LIPS, 0)
    across = (lips[: len(UPPER_LIPS), 1] - lips[len(UPPER_LIPS) :, 1]) / 2
    if across.max() > 0:
        across = np.maximum(across, 0)
        face[UPPER_LIPS, 1] -= across
        face[LOWER_LIPS, 1] += across

    # Where the lids meet moves as the driver's does; from there it is the source's own gap, whatever the driver's shape.
    eyes = eyes_of(driving.face)
    shares = [lid_share(now.openness, rest.openness) for now, rest in zip(eyes, neutral.eyes, strict=True)]
    gaps = source.lid_gaps * np.array(shares)[:, None, None]
    upper = _lids_meet(driving.face)
    upper += source.lid_meets
    upper -= neutral.lid_meets
    upper -= UPPER_LID * gaps
    face[_LIDS] = np.concatenate([upper, upper + gaps]).reshape(-1, 3)

    corners = face.take(_CORNERS, 0)
    middles = [
        [
            middle + mine.width * (gaze + now - was)
            for middle, gaze, now, was in zip(there, mine.gaze, theirs.gaze, rest.gaze, strict=True)
        ]
        for there, mine, theirs, rest in zip(
            ((corners[:2] + corners[2:]) / 2).tolist(), source.eyes, eyes, neutral.eyes, strict=True
        )
    ]
    face[_IRISES] = (source.irises + np.array(middles)[:, None]).reshape(-1, 3)
    return Motion(moved_pose(source.motion.pose, neutral.motion.pose, driving.pose), face)


def moved_pose(source: HeadPose, neutral: HeadPose, driving: HeadPose) -> HeadPose:
    """The source's pose, turned, shifted and scaled as the driver's was; within what its picture can show."""
    scale = min(max(driving.scale / neutral.scale, SCALE_RANGE[0]), SCALE_RANGE[1])
    unit = source.scale / neutral.scale
    x, y = ((now - was) * unit for now, was in zip(driving.shift.tolist(), neutral.shift.tolist(), strict=True))
    within = min(1.0, LARGEST_SHIFT / max(math.hypot(x, y), 1e-6))
    turn = driving.rotation @ neutral.rotation.T
    return HeadPose(source.scale * scale, turn @ source.rotation, source.shift + np.array([within * x, within * y]))


class Retargeter:
    """`retarget` for many frames of one source and one neutral frame: what is the same in all of them is done once.

    relative  the source turns and changes as the driver does since the neutral frame
    absolute  the source gets the driver's pose, expression and face shape themselves; the neutral frame only says
              which place and size are the photo's. For a driver who is the source
    """

    def __init__(self, source: np.ndarray | Motion, neutral: np.ndarray | Motion, mode: Mode = "relative") -> None:
        """Landmarks (478, 2 or 3): source in [-1, 1] of its crop, neutral in pixels of the driver; or taken apart."""
        if mode not in MODES:
            raise MobileBilayerError(f"There is no motion {mode!r}. Choose one of {', '.join(MODES)}.")
        self.mode = mode
        self.source, self.neutral = (rest_of(_apart(face)) for face in (source, neutral))
        self._scales = proportions(self.source, self.neutral)

    def with_neutral(self, neutral: np.ndarray | Motion) -> Retargeter:
        """The same with another neutral frame."""
        other = copy(self)
        other.neutral = rest_of(_apart(neutral))
        other._scales = proportions(other.source, other.neutral)
        return other

    def __call__(self, driving: np.ndarray | Motion) -> np.ndarray:
        """(478, 2) float32 in [-1, 1] of the source's crop, of the driver's landmarks or motion."""
        motion = _apart(driving)
        if self.mode == "relative":
            return put_together(move(self.source, self.neutral, motion, self._scales))
        pose = moved_pose(self.source.motion.pose, self.neutral.motion.pose, motion.pose)
        return put_together(Motion(HeadPose(pose.scale, motion.pose.rotation, pose.shift), motion.face))


def retarget(source: np.ndarray, driving: np.ndarray, neutral: np.ndarray, mode: Mode = "relative") -> np.ndarray:
    """Where the source's landmarks go when the driver has moved from `neutral` to `driving`.

    source            (478, 2 or 3) in [-1, 1] of the source's crop
    driving, neutral  (478, 2 or 3) in pixels of the driving picture
    returns           (478, 2) float32 in [-1, 1] of the source's crop

    On driving == neutral that is the source, with shut lips if the driver's are. For more than a frame: `Retargeter`.
    """
    return Retargeter(source, neutral, mode)(driving)


def _apart(face: np.ndarray | Motion) -> Motion:
    return face if isinstance(face, Motion) else take_apart(face)


def _lids_meet(face: np.ndarray) -> np.ndarray:
    upper, lower = face.take(_LIDS, 0).reshape(2, 2, 7, 3)
    return upper + UPPER_LID * (lower - upper)


def _mouth_width(face: np.ndarray) -> float:
    return float(np.linalg.norm(face[MOUTH_CORNERS[0]] - face[MOUTH_CORNERS[1]]))


# In one row each: NumPy finds points so in half the time.
_LIPS = np.concatenate([UPPER_LIPS, LOWER_LIPS])
_LIDS = np.stack([UPPER_LIDS, LOWER_LIDS]).ravel()
_IRISES = IRISES.ravel()
_CORNERS = EYE_CORNERS.T.ravel()
# Of both eyes: corners, iris, three pairs of lid points; and what is taken of them: along, to the iris, down.
_EYE_POINTS = np.concatenate([EYE_CORNERS, IRISES[:, :1], UPPER_LIDS[:, 2:5], LOWER_LIDS[:, 2:5]], 1).T.ravel()
_EYE_MEASURES = np.array(
    [
        [1, -1, 0, 0, 0, 0, 0, 0, 0],
        [-1 / 2, -1 / 2, 1, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, -1 / 3, -1 / 3, -1 / 3, 1 / 3, 1 / 3, 1 / 3],
    ]
)
