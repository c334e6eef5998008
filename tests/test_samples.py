"""The photos and the track that come along. None of them needs a model file or the network."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mobile_bilayer import samples
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.crop import head_crop
from mobile_bilayer.pose.head import fit_head, put_together
from mobile_bilayer.pose.neutral import neutral_of
from mobile_bilayer.samples import SAMPLES, sample_photo, sample_track

# By eye, in pixels: the person's right pupil, left pupil and the middle of the mouth.
BY_EYE = {
    "astronaut": [(203, 101), (247, 103), (222, 145)],
    "grace_hopper": [(222, 190), (307, 187), (265, 279)],
}


@pytest.mark.parametrize("name", SAMPLES)
def test_the_landmarks_of_a_photo_lie_where_one_sees_eyes_and_mouth(name):
    rgb, landmarks = sample_photo(name)
    assert rgb.dtype == np.uint8 and rgb.shape[2] == 3
    assert landmarks.shape == (478, 3) and landmarks.dtype == np.float32
    found = [landmarks[468, :2], landmarks[473, :2], landmarks[[13, 14], :2].mean(0)]
    np.testing.assert_allclose(found, BY_EYE[name], atol=4)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_photo_shows_one_head_that_looks_ahead_and_fits_its_crop(name):
    rgb, landmarks = sample_photo(name)
    turn = fit_head(landmarks).rotation
    assert np.degrees(np.arccos((np.trace(turn) - 1) / 2)) < 20
    crop = head_crop(landmarks)
    assert crop.x_px - crop.half_px / 2 > 0 and crop.x_px + crop.half_px / 2 < rgb.shape[1]


def test_a_photo_of_another_size_is_refused(monkeypatch):
    monkeypatch.setattr(samples, "_astronaut", lambda: np.zeros((512, 500, 3), np.uint8))
    with pytest.raises(MobileBilayerError, match=r"astronaut has shape \(512, 500, 3\).*\(512, 512, 3\)"):
        sample_photo("astronaut")


def test_an_unknown_photo_is_told_with_those_there_are():
    with pytest.raises(MobileBilayerError, match="'mona_lisa'.*astronaut, grace_hopper"):
        sample_photo("mona_lisa")


@pytest.fixture(scope="module")
def track():
    return sample_track()


def test_the_track_is_a_few_seconds_with_a_face_in_every_frame(track):
    assert 5 <= track.times_s[-1] <= 8 and track.times_s[0] == 0
    assert track.found.all()
    np.testing.assert_allclose(np.diff(track.times_s), float(1 / track.rate), atol=2e-3)
    assert (Path(samples.__file__).parent / "assets" / "driving.track").stat().st_size < 1_200_000


def test_the_track_says_where_it_comes_from_without_naming_a_folder(track):
    assert "p8048492.mp4, frames 102 to 299" in track.origin
    assert "Pexels licence" in track.origin
    assert not any(word in track.origin for word in ("clips", "..", "\\"))


def test_the_track_turns_talks_and_blinks(track):
    turns = np.array([fit_head(points).rotation for points in track.landmarks])
    yaw = np.degrees(np.arctan2(turns[:, 0, 2], turns[:, 2, 2]))
    assert 12 <= np.ptp(yaw) <= 25
    flat = track.landmarks[..., :2]
    eye_px = np.linalg.norm(flat[:, 33] - flat[:, 263], axis=1)
    lids = np.linalg.norm(flat[:, 159] - flat[:, 145], axis=1) / np.linalg.norm(flat[:, 33] - flat[:, 133], axis=1)
    assert lids.min() < 0.05 < 0.25 < np.median(lids)
    lips = np.linalg.norm(flat[:, 13] - flat[:, 14], axis=1) / eye_px
    opens = np.flatnonzero((lips[1:] > 0.05) & (lips[:-1] <= 0.05))
    assert len(opens) >= 8


def test_the_track_starts_and_rests_near_neutral(track):
    for landmarks in (track[0].landmarks, put_together(neutral_of(track))):
        turn = fit_head(landmarks).rotation
        assert np.degrees(np.arccos((np.trace(turn) - 1) / 2)) < 6
        assert np.linalg.norm(landmarks[13] - landmarks[14]) < 3  # px


def test_the_track_moves_without_cuts_or_trembling(track):
    flat = track.landmarks[..., :2].astype(np.float64)
    assert np.abs(np.diff(flat.mean(1), axis=0)).max() < 10  # px between frames, of a face 107 px between the eyes
    rigid = flat[:, [6, 168, 33, 263, 133, 362]]
    assert np.median(np.abs(rigid[2:] - 2 * rigid[1:-1] + rigid[:-2])) < 0.3  # px


def test_samples_need_neither_torch_nor_mediapipe_nor_a_model():
    script = """
import sys
from mobile_bilayer.samples import SAMPLES, sample_photo, sample_track
for name in SAMPLES:
    sample_photo(name)
sample_track()
print(sorted({"torch", "mediapipe"} & set(sys.modules)))
"""
    environment = {k: v for k, v in os.environ.items() if k != "MOBILE_BILAYER_MODELS"}
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert run.stdout == "[]\n", run.stderr
