"""The rigid head: what is projected with a known pose must be found again."""

import cv2
import numpy as np
import pytest

from mobile_bilayer.pose.head import (
    HEAD_POINTS,
    POINTS,
    TORSO_POINTS,
    face_template,
    fit_head,
    mirrored_points,
    network_points,
)
from mobile_bilayer.pose.landmarks import MESH


def rotation(yaw: float = 0, pitch: float = 0, roll: float = 0) -> np.ndarray:
    """(3, 3) from degrees, in OpenCV's words."""
    around = [cv2.Rodrigues(np.radians(axis))[0] for axis in ([pitch, 0, 0], [0, yaw, 0], [0, 0, roll])]
    return around[2] @ around[1] @ around[0]


def posed(turn: np.ndarray, scale: float = 1, shift: tuple[float, float] = (0, 0)) -> np.ndarray:
    """The template (478, 3) as a camera far away sees it."""
    points = face_template().points.astype(np.float64) @ turn.T * scale
    points[:, :2] += shift
    return points.astype(np.float32)


@pytest.mark.parametrize("angles", [(0, 0, 0), (35, 0, 0), (-35, 10, -20), (5, -25, 90), (0, 30, 180)])
def test_a_known_pose_is_found_again(angles):
    turn = rotation(*angles)
    head = fit_head(posed(turn, scale=130, shift=(321.5, -40.25)))
    np.testing.assert_allclose(head.rotation, turn, atol=1e-3)
    assert head.scale == pytest.approx(130, rel=1e-4)
    np.testing.assert_allclose(head.shift, [321.5, -40.25], atol=0.05)


def test_the_found_pose_puts_points_where_the_head_is():
    turn = rotation(20, -10, 15)
    nose_to_crown = np.array([[0, 0, 0], [0, -1.5, 0.5]])
    seen = nose_to_crown @ turn.T[:, :2] * 0.4 + [0.1, 0.2]
    head = fit_head(posed(turn, 0.4, (0.1, 0.2)))
    np.testing.assert_allclose(head.project(nose_to_crown), seen, atol=1e-4)


def test_depth_is_not_looked_at():
    landmarks = posed(rotation(10), 100, (50, 50))
    flat = fit_head(landmarks[:, :2])
    landmarks[:, 2] = 1e6
    np.testing.assert_array_equal(fit_head(landmarks).rotation, flat.rotation)


def test_speech_hardly_moves_the_head():
    landmarks = posed(np.eye(3), 100)
    landmarks[[13, 14, 17, 0, 152, 61, 291]] += [0, 25, 0]  # lips and chin, by a quarter of the eyes' distance
    head = fit_head(landmarks)
    assert np.degrees(np.arccos((np.trace(head.rotation) - 1) / 2)) < 2
    assert head.scale == pytest.approx(100, rel=0.02)


def test_noise_of_a_pixel_turns_the_head_by_less_than_a_degree():
    random = np.random.default_rng(0)
    landmarks = posed(rotation(15, 5), 100) + random.normal(0, 1, (478, 3))
    turned = fit_head(landmarks).rotation @ rotation(15, 5).T
    assert np.degrees(np.arccos(np.clip((np.trace(turned) - 1) / 2, -1, 1))) < 1


def test_the_template_is_symmetric_with_the_eyes_one_apart():
    template = face_template()
    points = template.points
    np.testing.assert_allclose(points[template.mirror] * [-1, 1, 1], points, atol=1e-5)
    assert np.linalg.norm(points[33] - points[263]) == pytest.approx(1, abs=0.02)
    assert points[33, 0] < 0 < points[263, 0]  # the person's right is on the picture's left
    assert points[10, 1] < points[152, 1]  # y points down
    assert points[1, 2] < points[234, 2]  # z points away from the camera: the nose is nearer than the cheek
    for one, other in [(33, 263), (133, 362), (61, 291), (468, 473), (234, 454), (1, 1)]:
        assert template.mirror[one] == other and template.mirror[other] == one


def test_network_points_are_mesh_then_head_then_torso():
    landmarks = posed(rotation(10), 0.4)
    points = network_points(landmarks)
    assert points.shape == (POINTS, 2) == (144, 2) and points.dtype == np.float32
    np.testing.assert_array_equal(points[:128], landmarks[MESH, :2])
    np.testing.assert_allclose(points[128:141], HEAD_POINTS @ rotation(10).T[:, :2] * 0.4, atol=1e-4)
    np.testing.assert_array_equal(points[141:], TORSO_POINTS)


def test_a_moving_head_takes_its_hair_along_but_not_the_shoulders():
    still = network_points(posed(np.eye(3), 0.4))
    moved = network_points(posed(np.eye(3), 0.4, (0.2, -0.1))) - still
    np.testing.assert_allclose(moved[:141], np.tile([0.2, -0.1], (141, 1)), atol=1e-5)
    assert (moved[141:] == 0).all()


def test_mirroring_points_twice_changes_nothing():
    twins = mirrored_points()
    assert sorted(twins) == list(range(POINTS))
    np.testing.assert_array_equal(twins[twins], np.arange(POINTS))
    assert twins[MESH.index(33)] == MESH.index(263)
    assert twins[141] == 143 and twins[142] == 142  # shoulders, and the chest between them


def test_the_points_of_a_mirrored_face_are_the_mirrored_points():
    landmarks = posed(rotation(20, 5, 8), 0.4, (0.1, 0.05))
    flipped = (landmarks * [-1, 1, 1])[face_template().mirror]
    expected = network_points(landmarks)[mirrored_points()] * [-1, 1]
    np.testing.assert_allclose(network_points(flipped), expected, atol=1e-4)
