"""The public gate set: what it holds, and that the teacher's renderings are the teacher's."""

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torchmetrics", reason="the methods that render are beside the metrics")

from mobile_bilayer.evaluation.methods import pictures, teacher_method
from mobile_bilayer.gates.public_set import REFERENCE, SIDE_PX, driving_poses, open_source, read_reference
from mobile_bilayer.pose.head import network_points
from mobile_bilayer.pose.retarget import lip_opening, openness
from mobile_bilayer.samples import SAMPLES
from mobile_bilayer.teacher import load_teacher


def test_the_reference_is_small_and_says_that_it_is_ai_generated():
    assert REFERENCE.stat().st_size < 2**20
    with Image.open(REFERENCE) as image:
        assert "AI-generated" in str(image.getexif().get(0x010E))
        assert b"trainedAlgorithmicMedia" in REFERENCE.read_bytes()


def test_there_is_a_tile_for_each_photo_and_pose():
    reference = read_reference()
    assert list(reference) == list(SAMPLES)
    for tiles in reference.values():
        assert list(tiles) == list(driving_poses())
        assert all(tile.shape == (SIDE_PX, SIDE_PX, 3) for tile in tiles.values())


def test_the_poses_are_what_their_names_say():
    faces = {name: motion.face for name, motion in driving_poses().items()}
    assert openness(faces["eyes shut"]) < 0.1 < openness(faces["speaking"])
    assert (
        lip_opening(faces["lips shut"])
        < 0.02
        < 0.15
        < lip_opening(faces["speaking"])
        < lip_opening(faces["mouth wide open"])
    )


def test_the_reference_is_what_the_teacher_renders():
    source, name = open_source(SAMPLES[1]), "mouth wide open"
    frame = teacher_method(load_teacher()[0])(source.batch([source.poses[name]]))
    rendered = pictures(frame.clamp(-1, 1) / 2 + 0.5)[0].astype(float)
    kept = read_reference()[SAMPLES[1]]
    error = {pose: np.abs(rendered - tile).mean() for pose, tile in kept.items()}
    assert error[name] < 1.5  # what JPEG loses
    assert min(error, key=error.get) == name and sorted(error.values())[1] > 2 * error[name]


def test_a_moved_photo_has_its_landmarks_where_the_picture_has_them():
    source = open_source(SAMPLES[0])
    still, tilted = source.moved["still"], source.moved["tilted"]
    assert np.abs(still.picture.astype(int) - source.texture).mean() < 1
    np.testing.assert_allclose(still.landmarks, source.landmarks, atol=1e-5)
    # The pupils are dark in both.
    for photo in (still, tilted):
        x, y = ((photo.landmarks[468, :2] + 1) * (SIDE_PX / 2)).astype(int)
        around = photo.picture[y - 12 : y + 12, x - 12 : x + 12].mean(2)
        assert photo.picture[y - 1 : y + 2, x - 1 : x + 2].mean() < 0.75 * around.mean()
        assert photo.face[y, x] and not photo.face[4, 4]
    across = tilted.landmarks[263, :2] - tilted.landmarks[33, :2]
    before = source.landmarks[263, :2] - source.landmarks[33, :2]
    turned = np.degrees(np.arctan2(*across[::-1]) - np.arctan2(*before[::-1]))
    assert turned == pytest.approx(-8, abs=0.01)  # OpenCV turns counterclockwise


def test_a_batch_is_what_methods_take():
    source = open_source(SAMPLES[0])
    batch = source.batch(list(source.poses.values()))
    assert batch["image"].shape == (1, 3, 256, 256) and batch["image"].min() >= 0 and batch["image"].max() <= 1
    np.testing.assert_array_equal(batch["points"][3], network_points(list(source.poses.values())[3]))
