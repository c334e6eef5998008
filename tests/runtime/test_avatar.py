"""Avatars of the shipped bundle: rendering, what they refuse, and the file they are kept in."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load, save

from mobile_bilayer import Avatar, Bundle, MobileBilayerError
from mobile_bilayer.runtime.animate import open_avatar
from mobile_bilayer.runtime.compositor import composite, to_float, to_rgb
from mobile_bilayer.samples import SAMPLES, sample_photo, sample_track

CLOSE_GREY_LEVELS = 12  # mean of |rendered - photo| on the neutral frame; a photo moved by 10 px is farther off


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open()


@pytest.fixture(scope="module")
def made(bundle) -> dict[str, Avatar]:
    return {name: bundle.avatar(*sample_photo(name)) for name in SAMPLES}


@pytest.fixture(scope="module")
def track():
    return sample_track()


@pytest.fixture
def avatar(made) -> Avatar:
    """Fresh: without a neutral frame."""
    return open_avatar(made["astronaut"], made["astronaut"].bundle)


def distance(first: np.ndarray, second: np.ndarray) -> float:
    return float(np.abs(first.astype(float) - second).mean())


def test_a_frame_is_256_px_of_rgb_and_fresh_each_time(avatar, track):
    frames = [avatar.render(track[i]) for i in (0, 40, 80)]
    assert all(frame.shape == (256, 256, 3) and frame.dtype == np.uint8 for frame in frames)
    assert not any(np.shares_memory(a, b) for a, b in itertools.combinations(frames, 2))
    kept = [frame.copy() for frame in frames]
    avatar.render(track[120])
    for frame, was in zip(frames, kept, strict=True):
        np.testing.assert_array_equal(frame, was)
    assert distance(frames[0], frames[1]) > 0.1 and distance(frames[1], frames[2]) > 0.1


def test_the_same_landmarks_give_the_same_picture_and_stay_as_they_are(avatar, track):
    landmarks = track[30].landmarks
    kept = landmarks.copy()
    avatar.render(track[0])
    first = avatar.render(landmarks)
    avatar.render(track[90])
    np.testing.assert_array_equal(avatar.render(landmarks), first)
    np.testing.assert_array_equal(landmarks, kept)


@pytest.mark.parametrize("name", SAMPLES)
def test_on_the_neutral_frame_the_avatar_looks_as_in_the_photo(made, track, name):
    avatar = open_avatar(made[name], made[name].bundle)
    assert distance(avatar.render(track[0]), avatar.texture) < CLOSE_GREY_LEVELS
    moved = np.roll(avatar.texture, 10, axis=1)
    assert distance(moved, avatar.texture) > CLOSE_GREY_LEVELS


def test_the_first_frame_is_the_neutral_one_and_any_other_can_be(avatar, track):
    assert avatar.neutral is None
    at_rest = avatar.render(track[52])
    np.testing.assert_array_equal(avatar.neutral, track[52].landmarks)
    avatar.neutral = track[120].landmarks
    assert distance(avatar.render(track[52]), at_rest) > 0.1
    # At rest is at rest, whichever frame with shut lips stands for it: rounding may tip a grey level.
    assert distance(avatar.render(track[120]), at_rest) < 0.1


def test_the_neutral_frame_is_a_copy_of_what_was_given(avatar, track):
    landmarks = track[0].landmarks.copy()
    avatar.render(landmarks)
    landmarks += 50
    np.testing.assert_array_equal(avatar.neutral, track[0].landmarks)


def test_landmarks_with_and_without_depth_of_any_number_type_and_track_frames_are_taken(avatar, track):
    avatar.neutral = track[0].landmarks
    frame = track[60]
    wanted = avatar.render(frame)
    for landmarks in (frame.landmarks, frame.landmarks[:, :2], frame.landmarks.astype(np.float64)):
        np.testing.assert_array_equal(avatar.render(landmarks), wanted)
    assert distance(avatar.render(frame.landmarks.round().astype(np.int32)), wanted) < 3


def spoilt(change) -> np.ndarray:
    landmarks = sample_track()[0].landmarks.copy()
    return change(landmarks)


def with_value(value: float):
    def change(landmarks: np.ndarray) -> np.ndarray:
        landmarks[17, 1] = value
        return landmarks

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda points: points[:468], "468.*face_landmarker.task"),
        (lambda points: points[:, :1], "478 points of 2 or 3"),
        (lambda points: points.T, "478 points of 2 or 3"),
        (lambda points: points[None], "478 points of 2 or 3"),
        (lambda points: points.astype(str), "478 points of 2 or 3"),
        (lambda points: points > 0, "478 points of 2 or 3"),
        (lambda points: points.astype(object), "478 points of 2 or 3"),
        (lambda points: points.astype(complex), "478 points of 2 or 3"),
        (lambda points: None, "478 points of 2 or 3"),
        (lambda points: np.empty((0, 3)), "478 points of 2 or 3"),
        (with_value(np.nan), "not a number"),
        (with_value(np.inf), "not a number"),
        (with_value(1e30), "no face"),
        (lambda points: points.astype(np.float64) * 1e200, "no face"),
        (lambda points: points * 0, "no face"),
        (lambda points: points * np.float32([1, 0, 1]), "no face"),
    ],
)
def test_landmarks_that_are_no_face_are_refused_in_words(avatar, change, words):
    with pytest.raises(MobileBilayerError, match=words):
        avatar.render(spoilt(change))
    assert avatar.neutral is None
    avatar.neutral = spoilt(change) if spoilt(change) is not None else np.zeros(3)
    with pytest.raises(MobileBilayerError):
        avatar.render(sample_track()[0])


def test_landmarks_of_a_photo_are_checked_as_well(bundle):
    rgb, landmarks = sample_photo("astronaut")
    for wrong in (landmarks[:468], landmarks[:, :2], landmarks * np.nan, landmarks * 0):
        with pytest.raises(MobileBilayerError):
            bundle.avatar(rgb, wrong)


def test_a_photo_must_be_rgb_bytes(bundle):
    rgb, landmarks = sample_photo("astronaut")
    for wrong in (rgb[..., 0], rgb.astype(np.float32), np.dstack([rgb, rgb[..., :1]]), rgb[:0]):
        with pytest.raises(MobileBilayerError, match="HxWx3 uint8"):
            bundle.avatar(wrong, landmarks)


def test_layers_have_the_ranges_that_the_manifest_names(avatar):
    a, b = avatar.layers(avatar.source_landmarks)
    assert a.shape == (4, 64, 64) and b.shape == (3, 128, 128)
    assert np.isfinite(a).all() and a[2:].min() >= 0 and a[2:].max() <= 1 and np.abs(b).max() <= 1


def test_frames_drawn_from_several_threads_are_those_of_one(avatar, track):
    from concurrent.futures import ThreadPoolExecutor

    avatar.neutral = track[0].landmarks
    frames = [track[i] for i in range(0, 80, 10)]
    wanted = [avatar.render(frame) for frame in frames]
    with ThreadPoolExecutor(4) as pool:
        for got, one in zip(pool.map(avatar.render, frames), wanted, strict=True):
            np.testing.assert_array_equal(got, one)


# The file.


@pytest.fixture
def saved(avatar, tmp_path) -> Path:
    avatar.save(tmp_path / "me.avatar")
    return tmp_path / "me.avatar"


def test_an_avatar_comes_back_as_it_was_saved(avatar, saved, track, bundle):
    again = Avatar.load(saved, bundle)
    for frame in (track[0], track[70]):
        np.testing.assert_array_equal(again.render(frame), avatar.render(frame))
    assert [file.name for file in saved.parent.iterdir()] == ["me.avatar"]


def test_the_file_says_that_it_is_ai_generated_and_is_small(saved):
    assert b"AI-generated" in saved.read_bytes()[:4000]
    assert saved.stat().st_size < 1e6


def rewritten(path: Path, header: dict | None = None, **tensors: np.ndarray | None) -> Path:
    """The file with other tensors (None takes one out) or another header."""
    data = path.read_bytes()
    was = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    all_tensors = {name: value for name, value in (load(data) | tensors).items() if value is not None}
    path.write_bytes(save(all_tensors, was | (header or {})))
    return path


def load_refusal(path: Path, bundle: Bundle) -> str:
    with pytest.raises(MobileBilayerError, match=r"Run|makes one|Update|Check|needed") as caught:
        Avatar.load(path, bundle)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("content", ["none", "folder", b"", b"hello", b"\xff" * 100, "cut", "header cut"])
def test_a_file_that_is_no_avatar_is_refused(saved, bundle, content):
    if isinstance(content, bytes):
        saved.write_bytes(content)
    elif content == "none":
        saved = saved.with_name("none.avatar")
    elif content == "folder":
        saved = saved.parent
    else:
        saved.write_bytes(saved.read_bytes()[: 40 if content == "header cut" else -1000])
    load_refusal(saved, bundle)


def test_a_track_is_no_avatar(tmp_path, bundle):
    sample_track().save(tmp_path / "talk.track")
    assert "not an avatar" in load_refusal(tmp_path / "talk.track", bundle)


def test_an_avatar_of_another_student_or_version_is_refused(saved, bundle):
    assert "student 0123456789abcdef" in load_refusal(rewritten(saved, {"student": "0123456789abcdef"}), bundle)
    assert "version 2" in load_refusal(rewritten(saved, {"version": "2"}), bundle)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("texture", None),
        ("texture", np.zeros((256, 256, 4), np.uint8)),
        ("alpha", np.zeros((128, 128), np.float32)),
        ("landmark_features", np.zeros((1, 2, 3), np.float32)),
        ("map_features", np.zeros(0, np.float32)),
        ("source_landmarks", np.full((478, 3), np.nan, np.float32)),
        ("source_landmarks", np.zeros((478, 3), np.float32)),
    ],
)
def test_a_tensor_that_is_missing_or_wrong_is_refused_by_name(saved, bundle, name, value):
    message = load_refusal(rewritten(saved, **{name: value}), bundle)
    assert name in message


@pytest.mark.parametrize("kind", ["bfloat16", "float8_e5m2", "float8_e4m3fn"])
def test_a_type_that_numpy_lacks_is_refused(saved, bundle, kind):
    import torch
    from safetensors.torch import load as load_torch
    from safetensors.torch import save as save_torch

    data = saved.read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    tensors = load_torch(data)
    saved.write_bytes(save_torch(tensors | {"map_features": tensors["map_features"].to(getattr(torch, kind))}, header))
    load_refusal(saved, bundle)


def test_a_file_far_too_large_is_refused_unread(saved, bundle):
    with saved.open("r+b") as file:
        file.truncate(17 * 2**20)
    assert "larger than 16 MiB" in load_refusal(saved, bundle)


def test_an_avatar_is_not_written_where_it_cannot_be(avatar, tmp_path):
    for path in (tmp_path / "me.png", tmp_path, tmp_path / "none" / "me.avatar"):
        with pytest.raises(MobileBilayerError):
            avatar.save(path)
    assert not list(tmp_path.iterdir())


# What stands behind.


@pytest.fixture
def picture(tmp_path) -> Path:
    """Green on its left, red on its right; wider than high."""
    rgb = np.zeros((90, 200, 3), np.uint8)
    rgb[:, :100, 1], rgb[:, 100:, 0] = 255, 255
    Image.fromarray(rgb).save(tmp_path / "wall.png")
    return tmp_path / "wall.png"


def halves() -> tuple[np.ndarray, np.ndarray]:
    """Layers that show the texture on the left half, and nothing of it on the right."""
    a = np.zeros((4, 64, 64), np.float32)
    a[2], a[3, :, :32] = 1, 1
    return a, np.zeros((3, 128, 128), np.float32)


def test_a_background_changes_what_is_behind_and_nothing_else(avatar, picture):
    """Mask 1 on the left, 0 on the right; in the middle 4 px, one of a layer's, are mixed."""
    kept = avatar.compose(*halves())
    np.testing.assert_array_equal(kept[:, 132:], avatar.background[:, 132:])
    for choice in ("keep", "blur", "#20a0ff", str(picture), picture):
        avatar.show_before(choice)
        got = avatar.compose(*halves())
        np.testing.assert_array_equal(got[:, :124], avatar.texture[:, :124])
        changed = distance(got[:, 132:], kept[:, 132:])
        assert changed == 0 if choice == "keep" else changed > 0.5
    avatar.show_before("#20a0ff")
    assert (avatar.compose(*halves())[:, 132:] == (0x20, 0xA0, 0xFF)).all()
    avatar.show_before(str(picture))
    assert (avatar.compose(*halves())[:, 140:] == (255, 0, 0)).all()


def test_a_real_frame_changes_by_the_masks_share_of_the_background(avatar, track):
    avatar.neutral = track[0].landmarks
    layers = avatar.layers(avatar.move(track[60]))
    frames = {}
    for choice in ("#000000", "#ffffff"):
        avatar.show_before(choice)
        frames[choice] = avatar.compose(*layers).astype(float)
    # By the formula: white less black behind is 255 times what the mask leaves.
    ones = np.ones((256, 256, 3), np.float32)
    mask = layers[0][3]
    still = np.stack([0 * mask, 0 * mask, 0 * mask + 1, mask])
    left = 1 - composite(ones, 0 * ones, still, 0 * layers[1])
    unclamped = (frames["#000000"] > 0) & (frames["#ffffff"] < 255)
    assert unclamped.any()
    assert np.abs(frames["#ffffff"] - frames["#000000"] - 255 * left)[unclamped].max() <= 1.5


def test_blur_has_no_detail_left_but_the_same_colours(avatar):
    avatar.show_before("blur")
    blurred = avatar.compose(*halves())[:, 132:].astype(float)
    assert np.abs(np.diff(blurred, axis=0)).max() <= 12
    np.testing.assert_allclose(blurred.mean((0, 1)), avatar.background[:, 132:].mean((0, 1)), atol=12)


@pytest.mark.parametrize("choice", ["#12", "#ggffff", "#12345678", "none.png", "", "Keep", "folder", "text"])
def test_a_background_that_is_none_is_refused_and_the_old_one_kept(avatar, tmp_path, choice):
    (tmp_path / "text").write_text("no picture")
    named = {"folder": tmp_path, "text": tmp_path / "text"}.get(choice, choice)
    before = avatar.compose(*halves())
    with pytest.raises(MobileBilayerError):
        avatar.show_before(named)
    np.testing.assert_array_equal(avatar.compose(*halves()), before)


def test_compose_is_the_compositor_between_bytes(avatar):
    layers = avatar.layers(avatar.source_landmarks)
    wanted = to_rgb(composite(to_float(avatar.texture), to_float(avatar.background), *layers))
    np.testing.assert_array_equal(avatar.compose(*layers), wanted)
