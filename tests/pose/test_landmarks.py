"""The lists of landmarks, against MediaPipe's own."""

import pytest

from mobile_bilayer.pose.landmarks import CONTOURS, LEFT_EYE, LEFT_IRIS, LIPS, MESH, NOSE, OVAL, RIGHT_EYE, RIGHT_IRIS


@pytest.fixture(scope="module")
def connections():
    from mediapipe.tasks.python.vision import FaceLandmarksConnections

    return lambda name: getattr(FaceLandmarksConnections, f"FACE_LANDMARKS_{name}")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("face oval", "FACE_OVAL"),
        ("right brow", "RIGHT_EYEBROW"),
        ("left brow", "LEFT_EYEBROW"),
        ("nose", "NOSE"),
        ("right eye", "RIGHT_EYE"),
        ("left eye", "LEFT_EYE"),
        ("right iris", "RIGHT_IRIS"),
        ("left iris", "LEFT_IRIS"),
        ("lips", "LIPS"),
    ],
)
def test_contours_join_the_points_that_mediapipe_joins(connections, ours, theirs):
    joined = [frozenset(pair) for line in CONTOURS[ours] for pair in zip(line, line[1:], strict=False)]
    assert len(joined) == len(set(joined))
    assert set(joined) == {frozenset((edge.start, edge.end)) for edge in connections(theirs)}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(LIPS, "LIPS"), (RIGHT_EYE, "RIGHT_EYE"), (LEFT_EYE, "LEFT_EYE")],
)
def test_lips_and_eyes_are_whole(connections, ours, theirs):
    assert set(ours) == {point for edge in connections(theirs) for point in (edge.start, edge.end)}


def test_irises_have_their_centre_as_well(connections):
    for ours, theirs in [(RIGHT_IRIS, "RIGHT_IRIS"), (LEFT_IRIS, "LEFT_IRIS")]:
        around = {point for edge in connections(theirs) for point in (edge.start, edge.end)}
        assert set(ours) - around == {min(ours)}


def test_the_oval_lies_on_the_face_contour():
    assert set(OVAL) <= set(CONTOURS["face oval"][0])
    assert 10 in OVAL and 152 in OVAL  # forehead and chin


def test_the_mesh_takes_each_of_its_128_landmarks_once():
    assert len(MESH) == len(set(MESH)) == 128
    assert set(MESH) <= set(range(478))
    assert set(NOSE) <= set(MESH)
