"""The driver's motion, put on the source's own face: so that no face shape leaks.

What a frame of the driver gives is compared with the driver's neutral frame, and the difference is done to the source.
Three things are not differences but ratios, so that shut is shut in every face:

lids   open by a share of how far the driver's do at rest: the source's lids by that share of how far they do in the photo
lips   part by as much of the mouth's width as the driver's do, whether or not they are parted in the photo
gaze   goes as many widths of the eye to the side
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import copy
from functools import cache
from operator import gt, sub
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


class Rest(NamedTuple):
    """A face that motion starts from: the source's, and the driver's in its neutral frame.

    motion       as it is in the picture
    face         (478, 3) the same with its lips shut
    eyes         as they are in the picture, the person's right one first
    eye_places   (38, 3) where lids and irises are put from: see `_sums`
    mouth_width  of the corners
    brow_height  mean distance of brows and eyes
    """

    motion: Motion
    face: np.ndarray
    eyes: tuple[Eye, Eye]
    eye_places: np.ndarray
    mouth_width: float
    brow_height: float


def rest_of(motion: Motion) -> Rest:
    """What `move` needs to know of a face."""
    sums = measure(motion.face)
    mouth, lips, right, left = sums[6:10].tolist()
    width = _length(mouth)
    return Rest(
        motion,
        _shut_lips(motion.face, lips[1] / width),
        _eyes(sums),
        sums[10:],
        width,
        (_length(right) + _length(left)) / 2,
    )


def measure(face: np.ndarray) -> np.ndarray:
    """(48, 3) all that is measured of a face (478, 3); `_sums` says what."""
    landmarks, weights = _sums()
    return weights.dot(face.take(landmarks, 0))


@cache
def _sums() -> tuple[np.ndarray, np.ndarray]:
    """All that is measured are weighted sums of landmarks: which those are (N,), and their weights (48, N).

    0 to 5    of each eye: along it, from its middle to the iris, from lid to lid
    6 and 7   from corner to corner of the mouth, from lip to lip
    8 and 9   of each eye: from it to its brow
    10 to 47  where pairs of lids meet, as often as `_EYE_POINTS` has their points, and the eyes' middles, as often
    """
    sums: list[dict[int, float]] = []
    for (outer, inner), iris, upper, lower in zip(EYE_CORNERS, IRISES, UPPER_LIDS, LOWER_LIDS, strict=True):
        sums.append({outer: 1, inner: -1})
        sums.append({iris[0]: 1} | _mean([outer, inner], -1))
        sums.append(_mean(lower[2:5], 1) | _mean(upper[2:5], -1))
    sums.append({MOUTH_CORNERS[0]: 1, MOUTH_CORNERS[1]: -1})
    sums.append(_mean(LOWER_LIPS[MIDDLE], 1) | _mean(UPPER_LIPS[MIDDLE], -1))
    sums += [_mean(brow, 1) | _mean(corners, -1) for brow, corners in zip(BROWS, EYE_CORNERS, strict=True)]
    lids = zip(UPPER_LIDS.ravel(), LOWER_LIDS.ravel(), strict=True)
    sums += 2 * [{upper: 1 - UPPER_LID, lower: UPPER_LID} for upper, lower in lids]
    sums += [_mean(corners, 1) for corners, iris in zip(EYE_CORNERS, IRISES, strict=True) for _ in iris]
    landmarks = sorted(set().union(*sums))
    return np.array(landmarks), np.array([[weights.get(landmark, 0.0) for landmark in landmarks] for weights in sums])


def _mean(landmarks: Sequence[int], weight: float) -> dict[int, float]:
    return dict.fromkeys(landmarks, weight / len(landmarks))


def _length(vector: Row) -> float:
    return max(math.sqrt(dot(vector, vector)), 1e-6)


def eyes_of(face: np.ndarray) -> tuple[Eye, Eye]:
    """Both eyes of a face (478, 3), the person's right one first."""
    return _eyes(measure(face))


def _eyes(sums: np.ndarray) -> tuple[Eye, Eye]:
    right, left = sums[:3].tolist(), sums[3:6].tolist()
    return _eye(*right), _eye(*left)


def _eye(along: Row, to_iris: Row, down: Row) -> Eye:
    width = _length(along)
    x, y, z = to_iris
    return Eye(width, down[1] / width, (x / width, y / width, z / width))


def openings(face: np.ndarray) -> tuple[float, float]:
    """Openness of both eyes, on average; mean distance down of the three middle pairs of lip points, in mouth widths."""
    sums = measure(face)
    (right, left), (mouth, lips) = _eyes(sums), sums[6:8].tolist()
    return (right.openness + left.openness) / 2, lips[1] / _length(mouth)


def openness(face: np.ndarray) -> float:
    """The first of `openings`."""
    return openings(face)[0]


def lip_opening(face: np.ndarray) -> float:
    """The second of `openings`."""
    return openings(face)[1]


def shut_lips(face: np.ndarray) -> np.ndarray:
    """The face (478, 3) with its lips shut; the jaw comes along. Lips that may be shut already stay as they are."""
    return _shut_lips(face, lip_opening(face))


def _shut_lips(face: np.ndarray, opening: float) -> np.ndarray:
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
    above, below = _above_and_below()
    return 1 + (brows - 1) * above + (mouth - 1) * below


@cache
def _above_and_below() -> tuple[np.ndarray, np.ndarray]:
    """(478, 3) each: 1 in brows and forehead, and 1 from the mouth down."""
    height = np.repeat(face_template().points[:, 1:2].astype(np.float64), 3, axis=1)
    # The eyes' line is at -0.37, the nose's tip at 0.03, the mouth at 0.4.
    return np.clip((-0.42 - height) / 0.1, 0, 1), np.clip((height - 0.1) / 0.15, 0, 1)


class Source(NamedTuple):
    """The face that is moved.

    rest        as in the photo
    eye_points  (38, 3) its lids and irises in the photo, with lids that meet
    eye_ways    (8, 114) how those points, one after the other, go: when the right or the left lids are open as far as in the
                photo, and with each of the three numbers of the right and of the left gaze
    """

    rest: Rest
    eye_points: np.ndarray
    eye_ways: np.ndarray


def source_of(motion: Motion) -> Source:
    """What `move` needs to know of the face that is moved."""
    rest = rest_of(motion)
    ways = np.zeros((8, 38, 3))
    for eye, (upper, lower) in enumerate(zip(UPPER_LIDS, LOWER_LIDS, strict=True)):
        gaps = motion.face[lower] - motion.face[upper]
        ways[eye, 7 * eye : 7 * eye + 7] = -UPPER_LID * gaps
        ways[eye, 14 + 7 * eye : 21 + 7 * eye] = (1 - UPPER_LID) * gaps
        ways[2 + 3 * eye : 5 + 3 * eye, 28 + 5 * eye : 33 + 5 * eye] = rest.eyes[eye].width * np.eye(3)[:, None]
    points = motion.face[_EYE_POINTS]
    points[:28] = rest.eye_places[:28]
    return Source(rest, points, ways.reshape(8, -1))


def move(source: Source, neutral: Rest, driving: Motion, scales: np.ndarray) -> Motion:
    """The source when the driver has moved from `neutral` to `driving`; scales are those of `proportions`."""
    face = driving.face - neutral.face
    face *= scales
    face += source.rest.face
    # Rounding and noise must not push one lip through the other.
    heights = face.take(_LIP_HEIGHTS).tolist()
    if any(map(gt, heights[:9], heights[9:])):
        across = [max(upper - lower, 0.0) / 2 for upper, lower in zip(heights[:9], heights[9:], strict=True)]
        face[UPPER_LIPS, 1] -= across
        face[LOWER_LIPS, 1] += across

    # Where lids meet and where the eyes' middles are moves as the driver's do. From there it is the source's own gap by the
    # driver's ratio, and as many of the source's widths to the side, whatever the shape of the driver's eyes.
    sums = measure(driving.face)
    (right, left), (was_right, was_left) = _eyes(sums), neutral.eyes
    changes = [
        lid_share(right.openness, was_right.openness),
        lid_share(left.openness, was_left.openness),
        *map(sub, right.gaze, was_right.gaze),
        *map(sub, left.gaze, was_left.gaze),
    ]
    points = np.array(changes).dot(source.eye_ways).reshape(38, 3)
    points += source.eye_points
    points += sums[10:]
    points -= neutral.eye_places
    face[_EYE_POINTS] = points
    return Motion(moved_pose(source.rest.motion.pose, neutral.motion.pose, driving.pose), face)


def moved_pose(source: HeadPose, neutral: HeadPose, driving: HeadPose) -> HeadPose:
    """The source's pose, turned, shifted and scaled as the driver's was; within what its picture can show."""
    scale = min(max(driving.scale / neutral.scale, SCALE_RANGE[0]), SCALE_RANGE[1])
    unit = source.scale / neutral.scale
    (x, y), (was_x, was_y), (at_x, at_y) = driving.shift.tolist(), neutral.shift.tolist(), source.shift.tolist()
    x, y = unit * (x - was_x), unit * (y - was_y)
    within = min(1.0, LARGEST_SHIFT / max(math.hypot(x, y), 1e-6))
    turn = driving.rotation.dot(neutral.rotation.T)
    return HeadPose(source.scale * scale, turn.dot(source.rotation), np.array([at_x + within * x, at_y + within * y]))


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
        self.source, self.neutral = source_of(_apart(source)), rest_of(_apart(neutral))
        self._scales = proportions(self.source.rest, self.neutral)

    def with_neutral(self, neutral: np.ndarray | Motion) -> Retargeter:
        """The same with another neutral frame."""
        other = copy(self)
        other.neutral = rest_of(_apart(neutral))
        other._scales = proportions(other.source.rest, other.neutral)
        return other

    def __call__(self, driving: np.ndarray | Motion) -> np.ndarray:
        """(478, 2) float32 in [-1, 1] of the source's crop, of the driver's landmarks or motion."""
        motion = _apart(driving)
        if self.mode == "relative":
            return put_together(move(self.source, self.neutral, motion, self._scales))
        pose = moved_pose(self.source.rest.motion.pose, self.neutral.motion.pose, motion.pose)
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


_EYE_POINTS = np.concatenate([UPPER_LIDS.ravel(), LOWER_LIDS.ravel(), IRISES.ravel()])
_LIP_HEIGHTS = 3 * np.concatenate([UPPER_LIPS, LOWER_LIPS]) + 1  # where a face's numbers have them
