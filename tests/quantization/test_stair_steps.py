"""A head that drifts slowly must not move in steps: what int8 in the flow would do to it."""

from typing import NamedTuple

import numpy as np
import pytest
import torch

from mobile_bilayer import Bundle
from mobile_bilayer.pose.crop import head_crop
from mobile_bilayer.pose.head import network_points
from mobile_bilayer.samples import sample_photo
from mobile_bilayer.student.weights import load_student

FRAMES, DRIFT_PX = 100, 10.0


class Drift(NamedTuple):
    """Flows (N, 2, 64, 64) in pixels of 256, of a head that drifts; and where it is the person (64, 64)."""

    flow: np.ndarray
    person: np.ndarray


@pytest.fixture(scope="module")
def drifts() -> tuple[Drift, Drift]:
    """The shipped bundle's and the float student's, of a sample photo."""
    rgb, landmarks = sample_photo("astronaut")
    crop = head_crop(landmarks)
    keypoints = crop.to_keypoints(landmarks)
    image = np.ascontiguousarray(crop.cut(rgb).transpose(2, 0, 1))[None].astype(np.float32) / 255
    source = network_points(keypoints)[None]
    bundle, (student, _) = Bundle.open(), load_student()
    features, maps, _ = bundle.program.run("encode_avatar", image, source)
    with torch.no_grad():
        code = student.encoder(torch.from_numpy(image), torch.from_numpy(source))
    ours, theirs = [], []
    for shift in np.linspace(0, DRIFT_PX / 128, FRAMES, dtype=np.float32):
        moved = keypoints.copy()
        moved[:, 0] += shift
        driving = network_points(moved)[None]
        ours.append(bundle.program.run("render_layers", features, maps, source, driving)[0])
        with torch.no_grad():
            points = torch.from_numpy(source), torch.from_numpy(driving)
            theirs.append(student.frame(code.landmark_features, code.map_features, *points).a.numpy())
    a, b = np.concatenate(ours), np.concatenate(theirs)
    person = b[:, 3].min(0) > 0.9
    return Drift(128 * a[:, :2], person), Drift(128 * b[:, :2], person)


def error_px(drift: Drift, reference: Drift) -> float:
    """Mean difference of the flows on the person."""
    return float(np.abs(drift.flow - reference.flow)[:, :, drift.person].mean())


def standing(drift: Drift) -> float:
    """Share of steps from frame to frame, on the person, that are none: below a fifth of the mean one."""
    steps = np.abs(np.diff(drift.flow[:, 0, drift.person], axis=0))
    return float((steps < 0.2 * steps.mean()).mean())


def unevenness(drift: Drift) -> float:
    """Root mean square of the second difference of areas of 16 px, in mean steps: 0 of a straight drift, above 1 of one
    that stands and jumps.
    """
    areas = drift.flow[:, 0].reshape(-1, 16, 4, 16, 4).mean((2, 4))
    x = areas[:, drift.person.reshape(16, 4, 16, 4).all((1, 3))]
    step = np.abs(x[-1] - x[0]).mean() / (len(x) - 1)
    return float(np.sqrt((np.diff(x, 2, axis=0) ** 2).mean()) / step)


def in_int8(drift: Drift) -> Drift:
    """What an int8 head over flows of half the frame would give: 256 values from -64 to 64 px."""
    return Drift(np.rint(drift.flow * 2) / 2, drift.person)


def test_QU5_a_slow_drift_in_int8_is_as_floats_to_a_quarter_of_a_pixel(drifts):
    shipped, floats = drifts
    assert shipped.person.mean() > 0.2
    assert error_px(shipped, floats) < 0.25


def test_QU5_a_slow_drift_in_int8_shows_no_stair_steps(drifts):
    """Measured: float 0.04 and 0.01; the shipped bundle 0.08 and 0.54, of a step of 0.1 px; an int8 head 0.82 and 1.35."""
    shipped, floats = drifts
    assert standing(floats) < 0.1 and unevenness(floats) < 0.05
    assert standing(shipped) < 0.15
    assert unevenness(shipped) < 0.7
    whole = np.diff(shipped.flow[:, 0, shipped.person].mean(1))  # noise of single pixels is gone
    assert whole.max() < 0 or whole.min() > 0  # the person never stands still, and never turns back


def test_QU5_a_flow_head_in_int8_fails_the_same_measure(drifts):
    planted = in_int8(drifts[1])
    assert standing(planted) > 0.6
    assert unevenness(planted) > 1
