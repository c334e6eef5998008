"""What of a driver means "as in the photo": found from all frames, so that no single one, the first least, decides.

The pose is the mean one, of frames that look towards the camera: the avatar's head is, on the whole, where the photo's is,
which is where it looks best. The face is a mean as well, of those among them that show it at rest, lips shut and eyes open.
How much a frame counts is a smooth function of these and of nothing else, so a clip that begins later has nearly the same
neutral.
"""

from __future__ import annotations

import math

import numpy as np

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.head import HeadPose, Motion, nearest_rows, put_together, rotation_of, take_apart
from mobile_bilayer.pose.retarget import openings
from mobile_bilayer.pose.track import Track

# A frame counts less by e (2.7) for the first so many degrees from frontal, for lips so many mouth widths further apart,
# and for lids so many eye widths closer together.
ANGLE, LIPS, LIDS = 20.0, 0.05, 0.06
MEMORY_S = 60.0  # live: what is longer ago hardly counts
HOLD_S, EASE_S = 0.5, 0.5  # how long a lost face keeps its last motion, and how long it then takes to the neutral one
LARGEST_STEP = 0.1  # live: of the way to a frame that shows the face more at rest than all before


def frontal(motion: Motion) -> float:
    """How much a frame counts for the pose: 1 from the front, and less when turned."""
    (a, _, _), (_, b, _), (_, _, c) = motion.pose.rotation.tolist()
    cosine = (a + b + c - 1) / 2
    angle = math.degrees(math.acos(min(max(cosine, -1.0), 1.0)))
    return math.exp(-((angle / ANGLE) ** 2))


def restful(motion: Motion) -> float:
    """How much a frame counts for the face, among those as frontal; above 0, for comparing frames."""
    open_eyes, open_lips = openings(motion.face)
    open_eyes, open_lips = min(open_eyes, 1.0), min(max(open_lips, 0.0), 1.0)
    return math.exp(open_eyes / LIDS - open_lips / LIPS)


class Neutral:
    """The neutral motion of what was seen until now: `neutral.add(motion, step_s)`, then `neutral.motion`.

    live  forget what is long ago, and change slowly
    """

    def __init__(self, live: bool = False) -> None:
        self.live = live
        self._seen_s = self._rest_s = 0.0  # how long frames counted, for the pose and for the face
        self._rows, self._scale, self._shift, self._face = np.zeros((2, 3)), 0.0, np.zeros(2), np.zeros((478, 3))

    def add(self, motion: Motion, step_s: float) -> None:
        """A frame that was shown for so many seconds, above 0."""
        first = not self._seen_s
        kept = math.exp(-step_s / MEMORY_S) if self.live else 1.0
        seen_s = step_s * frontal(motion)
        rest_s = seen_s * restful(motion)
        self._seen_s, self._rest_s = kept * self._seen_s + seen_s, kept * self._rest_s + rest_s
        pose, face = seen_s / self._seen_s, rest_s / self._rest_s
        if self.live and not first:
            pose, face = min(pose, LARGEST_STEP), min(face, LARGEST_STEP)
        self._rows += pose * (motion.pose.rotation[:2] - self._rows)
        self._scale += pose * (motion.pose.scale - self._scale)
        self._shift = self._shift + pose * (motion.pose.shift - self._shift)
        self._face = self._face + face * (motion.face - self._face)

    @property
    def motion(self) -> Motion:
        """What means "as in the photo"; there must have been a frame."""
        rows, _ = nearest_rows(*self._rows.tolist())
        return Motion(HeadPose(self._scale, rotation_of(rows), self._shift), self._face)


def neutral_of(track: Track) -> Motion:
    """The neutral motion of a clip, from all its frames with a face."""
    if not track.found.any():
        raise MobileBilayerError("The track has no frame in which a face was found. Choose another clip.")
    neutral = Neutral()
    # Each frame is shown until the next one; the last one as long as the one before.
    steps = np.diff(track.times_s, append=2 * track.times_s[-1] - track.times_s[-2] if len(track) > 1 else 1.0)
    for points, step_s, found in zip(track.landmarks, steps.tolist(), track.found.tolist(), strict=True):
        if found:
            neutral.add(take_apart(points), min(step_s, 1.0))
    return neutral.motion


def ease_to_neutral(last: Motion, neutral: Motion, lost_s: float) -> Motion:
    """What a face lost for `lost_s` seconds is thought to do: its last motion for HOLD_S, the neutral one EASE_S later."""
    share = min(max((lost_s - HOLD_S) / EASE_S, 0.0), 1.0)
    share *= share * (3 - 2 * share)  # smooth at both ends
    if share in (0, 1):
        return neutral if share else last
    return take_apart((1 - share) * put_together(last) + share * put_together(neutral))
