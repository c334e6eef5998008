"""What a frame costs between the landmarker and the network: it is to be below 0.3 ms on one core.

`pytest benchmarks/test_motion_speed.py --benchmark-columns=median,iqr,rounds`. Milliseconds are of one machine; what is
checked is how many times the network's own frame takes longer.
"""

import itertools
import time

import numpy as np
import pytest

from mobile_bilayer import Track
from mobile_bilayer.pose.crop import head_crop
from mobile_bilayer.pose.head import Motion, network_points, take_apart
from mobile_bilayer.pose.neutral import Neutral, neutral_of
from mobile_bilayer.pose.retarget import Retargeter
from mobile_bilayer.pose.stabilizer import Stabilizer, stabilize

LIMIT_MS = 0.3


@pytest.fixture
def frames(track: Track):
    """Landmarks and times without end: the driver forwards and backwards."""
    there = list(track.landmarks)
    return zip(itertools.cycle(there + there[::-1]), itertools.count(0, 0.04), strict=False)


@pytest.mark.benchmark(group="motion")
def test_stabiliser_and_retargeting_of_a_live_frame(benchmark, avatar, track, frames):
    stabilizer, retargeter = Stabilizer(), Retargeter(avatar.source_landmarks, neutral_of(track))

    def step() -> np.ndarray:
        landmarks, time_s = next(frames)
        return network_points(retargeter(stabilizer(take_apart(landmarks), time_s)))

    benchmark.extra_info["limit_ms"] = LIMIT_MS
    assert np.isfinite(benchmark(step)).all()


@pytest.mark.benchmark(group="motion")
def test_stabiliser_alone(benchmark, frames):
    stabilizer = Stabilizer()
    motions = [(take_apart(landmarks), time_s) for landmarks, time_s in itertools.islice(frames, 50)]
    again = itertools.cycle(motions)
    assert isinstance(benchmark(lambda: stabilizer(*next(again))), Motion)


@pytest.mark.benchmark(group="motion")
def test_retargeting_alone(benchmark, avatar, track):
    retargeter = Retargeter(avatar.source_landmarks, neutral_of(track))
    motion = take_apart(track.landmarks[100])
    assert np.isfinite(benchmark(lambda: retargeter(motion))).all()


@pytest.mark.benchmark(group="motion")
def test_the_crop_of_a_photo(benchmark, track):
    crop = benchmark(lambda: head_crop(track.landmarks[100]))
    assert crop.half_px > 10


@pytest.mark.benchmark(group="motion of a file")
def test_stabiliser_of_a_file_200_frames(benchmark, track):
    motions = benchmark(lambda: list(stabilize(track.landmarks, track.times_s, track.found)))
    assert len(motions) == len(track)


@pytest.mark.benchmark(group="motion of a camera")
def test_a_neutral_frame_that_follows(benchmark, avatar, track):
    neutral, motion = Neutral(live=True), take_apart(track.landmarks[100])
    retargeter = Retargeter(avatar.source_landmarks, motion)

    def step() -> Retargeter:
        neutral.add(motion, 0.04)
        return retargeter.with_neutral(neutral.motion)

    benchmark(step)


def test_motion_costs_a_tenth_of_a_frame_at_most(avatar, track):
    """Medians of turns taken one after the other, so that a busy machine slows both."""
    stabilizer, retargeter = Stabilizer(), Retargeter(avatar.source_landmarks, neutral_of(track))
    moved = retargeter(track.landmarks[100])
    avatar.layers(moved)  # loads the program
    motion_s, frame_s = [], []
    for i in range(100):
        begun = time.perf_counter()
        retargeter(stabilizer(take_apart(track.landmarks[i]), i / 25))
        between = time.perf_counter()
        avatar.compose(*avatar.layers(moved))
        motion_s.append(between - begun)
        frame_s.append(time.perf_counter() - between)
    assert np.median(motion_s) < 0.1 * np.median(frame_s)
