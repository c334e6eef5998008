"""Tracks: what they refuse, what their files keep, and which frame counts as neutral."""

import os
from fractions import Fraction

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load, load_file, save_file

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.track import Track, TrackFrame

RATE = Fraction(30000, 1001)


def make_track(frames: int = 4, face_px: float = 300, **changed) -> Track:
    """Random landmarks of a face that wanders through a 1280x720 picture."""
    random = np.random.default_rng(1)
    landmarks = random.uniform(0, face_px, (frames, 478, 3)) + random.uniform(0, 900, (frames, 1, 3))
    parts = {
        "landmarks": landmarks.astype(np.float32),
        "times_s": np.arange(frames) / float(RATE),
        "found": np.arange(frames) != 1,
        "rate": RATE,
        "width": 1280,
        "height": 720,
        "origin": "made here, déjà vu",
    }
    return Track(**(parts | changed))


def test_a_track_gives_its_frames_by_number_and_in_order():
    track = make_track()
    assert len(track) == 4
    assert isinstance(track[1], TrackFrame)
    assert [frame.found for frame in track] == [True, False, True, True]
    assert track[-1].time_s == pytest.approx(3 * 1001 / 30000)
    np.testing.assert_array_equal(track[2].landmarks, track.landmarks[2])
    with pytest.raises(IndexError):
        track[4]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"landmarks": np.zeros((0, 478, 3), np.float32)}, "no frames"),
        ({"landmarks": np.zeros((4, 468, 3), np.float32)}, r"\(4, 468, 3\)"),
        ({"landmarks": np.zeros((4, 478, 3))}, "float64"),
        ({"landmarks": np.full((4, 478, 3), np.nan, np.float32)}, "finite"),
        ({"landmarks": np.full((4, 478, 3), 1e9, np.float32)}, "finite"),
        ({"times_s": np.arange(3.0)}, r"\(3,\)"),
        ({"times_s": [0.0, 1.0, 2.0, 3.0]}, "list"),
        ({"times_s": np.array([0.0, 1.0, 1.0, 2.0])}, "grow"),
        ({"times_s": np.array([0.0, 1.0, 2.0, np.inf])}, "finite"),
        ({"found": np.ones(4)}, "bool"),
        ({"rate": 30.0}, "Fraction"),
        ({"rate": Fraction(0)}, "1..1000"),
        ({"width": 0}, "0x720"),
        ({"width": 1280.0}, "1280.0x720"),
        ({"height": 20000}, "1280x20000"),
    ],
)
def test_a_track_refuses_bad_parts_at_birth(changed, message):
    with pytest.raises(MobileBilayerError, match=message):
        make_track(**changed)


@pytest.mark.parametrize("suffix", [".track", ".safetensors"])
def test_a_saved_track_comes_back_with_landmarks_within_a_hundredth_of_a_pixel(tmp_path, suffix):
    track = make_track(face_px=1000)
    track.save(tmp_path / f"a{suffix}")
    back = Track.load(tmp_path / f"a{suffix}")
    assert 0 < np.abs(back.landmarks - track.landmarks).max() < 0.01
    assert back.landmarks.dtype == np.float32
    np.testing.assert_array_equal(back.times_s, track.times_s)
    np.testing.assert_array_equal(back.found, track.found)
    assert (back.rate, back.width, back.height, back.origin) == (RATE, 1280, 720, "made here, déjà vu")


def test_a_rate_given_as_a_float_is_kept_as_a_short_fraction(tmp_path):
    make_track(rate=Fraction(29.97)).save(tmp_path / "a.track")
    assert Track.load(tmp_path / "a.track").rate == Fraction(2997, 100)


def test_a_face_of_ordinary_size_is_kept_four_times_as_fine(tmp_path):
    track = make_track(face_px=250)
    track.save(tmp_path / "a.track")
    assert np.abs(Track.load(tmp_path / "a.track").landmarks - track.landmarks).max() < 1 / 511


def test_a_face_too_large_for_16_bits_loses_no_more_than_its_65000th_part(tmp_path):
    track = make_track(face_px=5000)
    track.save(tmp_path / "a.track")
    assert np.abs(Track.load(tmp_path / "a.track").landmarks - track.landmarks).max() < 5000 / 65000


def test_saving_a_loaded_track_changes_nothing(tmp_path):
    make_track().save(tmp_path / "a.track")
    once = Track.load(tmp_path / "a.track")
    once.save(tmp_path / "b.track")
    np.testing.assert_array_equal(Track.load(tmp_path / "b.track").landmarks, once.landmarks)


def test_a_track_takes_less_than_three_kilobytes_a_frame(tmp_path):
    make_track(frames=200).save(tmp_path / "a.track")
    assert (tmp_path / "a.track").stat().st_size < 200 * 3000


def test_a_failed_save_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.track"
    make_track().save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(MobileBilayerError, match=r"a\.track could not be written.*no space left"):
        make_track(frames=2).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_only_track_names_are_written(tmp_path):
    with pytest.raises(MobileBilayerError, match=r"must end in \.track"):
        make_track().save(tmp_path / "a.npz")


def rewritten(path, drop: str = "", tensors: dict | None = None, **metadata: str) -> None:
    """The good track at `path` with some parts changed, or one left out."""
    with safe_open(path, "np") as file:
        known = file.metadata() | metadata
    parts = load_file(path) | (tensors or {})
    parts.pop(drop, None)
    known.pop(drop, None)
    save_file(parts, path, known)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "2"}, "version 2; we read up to 1"),
        ({"version": "one"}, "not a track"),
        ({"format": "something else"}, "not a track"),
        ({"rate": "30"}, "its rate is '30'"),
        ({"rate": "1/0"}, "its rate"),
        ({"rate": "1e999999999"}, "its rate"),
        ({"rate": "9000/1"}, "must be a Fraction in 1..1000"),
        ({"step_px": "-1/64"}, "its step_px"),
        ({"step_px": "999999999/1"}, "within 100000"),
        ({"width": "12.5"}, "its width"),
        ({"height": "99999999"}, "1..16384"),
        ({"drop": "height"}, "its height is ''"),
        ({"drop": "found"}, "has no found"),
        ({"drop": "landmarks"}, "has no landmarks"),
        ({"tensors": {"landmarks": np.zeros((4, 478, 3), np.float32)}}, "type F32, not I16"),
        ({"tensors": {"landmarks": np.zeros((4, 468, 3), np.int16)}}, r"\(4, 468, 3\)"),
        ({"tensors": {"landmarks": np.zeros(4, np.int16)}}, "shape"),
        ({"tensors": {"landmarks": np.zeros((0, 478, 3), "i2"), "offsets": np.zeros((0, 3), "i4")}}, "no frames"),
        ({"tensors": {"offsets": np.zeros((5, 3), np.int32)}}, "offsets"),
        ({"tensors": {"times_s": np.zeros(4)}}, "grow"),
        ({"tensors": {"times_s": np.array(0.0)}}, "times_s"),
        ({"tensors": {"found": np.ones(9, np.bool_)}}, "found"),
    ],
)
def test_a_malformed_track_is_told_with_its_name(tmp_path, change, message):
    path = tmp_path / "bad.track"
    make_track().save(path)
    rewritten(path, **change)
    with pytest.raises(MobileBilayerError, match=message) as caught:
        Track.load(path)
    assert "bad.track" in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"\0",
        b"not a track at all",
        (9).to_bytes(8, "little") + b'{"a": nul',
        (2**62).to_bytes(8, "little") + b"{}",
    ],
)
def test_a_file_of_another_kind_is_told_with_its_name(tmp_path, content):
    (tmp_path / "bad.track").write_bytes(content)
    with pytest.raises(MobileBilayerError, match=r"bad\.track"):
        Track.load(tmp_path / "bad.track")


def test_an_empty_or_missing_track_is_told(tmp_path):
    (tmp_path / "empty.track").touch()
    with pytest.raises(MobileBilayerError, match="empty"):
        Track.load(tmp_path / "empty.track")
    with pytest.raises(MobileBilayerError, match="does not exist"):
        Track.load(tmp_path / "none.track")


def test_a_cut_off_track_is_told_wherever_the_cut_is(tmp_path):
    make_track(frames=1).save(tmp_path / "a.track")
    whole = (tmp_path / "a.track").read_bytes()
    for length in [1, 7, 8, 9, 100, 400, 800, len(whole) - 2869, len(whole) - 1]:
        (tmp_path / "cut.track").write_bytes(whole[:length])
        with pytest.raises(MobileBilayerError, match=r"cut\.track"):
            Track.load(tmp_path / "cut.track")


def test_no_damaged_byte_of_the_header_raises_another_error(tmp_path):
    make_track(frames=1).save(tmp_path / "a.track")
    whole = (tmp_path / "a.track").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    random = np.random.default_rng(2)
    refused = 0
    for place in range(header):
        damaged = bytearray(whole)
        damaged[place] = random.integers(256)
        (tmp_path / "bad.track").write_bytes(damaged)
        try:
            Track.load(tmp_path / "bad.track")
        except MobileBilayerError as error:
            refused += 1
            assert "bad.track" in str(error)
    assert refused > header / 2


def test_the_file_is_plain_safetensors(tmp_path):
    make_track().save(tmp_path / "a.track")
    assert load((tmp_path / "a.track").read_bytes())["landmarks"].dtype == np.int16
