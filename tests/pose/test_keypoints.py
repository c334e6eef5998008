"""The paper's 68 points out of 478, against another detector's, MediaPipe's lines and a face seen from the front."""

import numpy as np
import pytest

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.head import face_template
from mobile_bilayer.pose.keypoints import LANDMARKS_68, MIRRORED_68, keypoints_68
from mobile_bilayer.pose.landmarks import CONTOURS
from mobile_bilayer.samples import sample_photo

# What dlib's detector of 68 points finds in the sample photos, in whole pixels; as wide as the photos.
DLIB = {
    "astronaut": [
        *[(180, 104), (180, 115), (181, 127), (182, 138), (185, 150), (191, 160), (200, 168), (209, 176), (220, 178)],
        *[(232, 177), (243, 171), (254, 164), (261, 153), (265, 142), (268, 131), (271, 119), (272, 107)],
        *[(187, 94), (192, 88), (201, 87), (209, 89), (216, 92), (236, 93), (244, 91), (252, 90), (260, 92), (265, 98)],
        *[(226, 102), (225, 111), (225, 119), (225, 127), (214, 131), (219, 133), (224, 135), (230, 133), (235, 132)],
        *[(195, 101), (201, 98), (207, 98), (213, 104), (206, 104), (200, 104)],
        *[(238, 105), (244, 101), (250, 101), (255, 104), (250, 107), (244, 106)],
        *[(201, 140), (209, 139), (218, 139), (224, 141), (230, 140), (237, 140), (245, 141)],
        *[(237, 151), (229, 156), (222, 156), (216, 155), (208, 150)],
        *[(204, 141), (217, 143), (224, 144), (229, 143), (242, 142), (229, 150), (223, 151), (217, 150)],
    ],
    "grace_hopper": [
        *[(174, 199), (176, 221), (181, 244), (188, 265), (198, 286), (211, 304), (228, 318), (248, 327), (271, 329)],
        *[(293, 325), (311, 314), (326, 299), (338, 279), (347, 259), (351, 236), (353, 213), (353, 189)],
        *[(188, 178), (195, 164), (209, 158), (226, 159), (240, 166)],
        *[(284, 164), (297, 155), (312, 152), (327, 156), (337, 168)],
        *[(264, 188), (265, 205), (266, 220), (267, 236), (246, 246), (256, 249), (267, 253), (278, 249), (288, 245)],
        *[(208, 195), (217, 188), (228, 188), (239, 196), (229, 198), (217, 199)],
        *[(290, 193), (300, 185), (310, 184), (319, 190), (311, 194), (300, 195)],
        *[(233, 277), (246, 273), (259, 271), (268, 273), (277, 272), (290, 272), (305, 273)],
        *[(291, 285), (278, 289), (269, 290), (259, 289), (246, 285)],
        *[(238, 277), (258, 278), (268, 278), (278, 278), (300, 275), (277, 279), (268, 280), (259, 279)],
    ],
}
JAW, BROWS, NOSE = np.arange(17), np.arange(17, 27), np.arange(27, 36)
RIGHT_EYE, LEFT_EYE = np.arange(36, 42), np.arange(42, 48)
EYES, LIPS = np.arange(36, 48), np.arange(48, 68)


@pytest.mark.parametrize(
    ("region", "mean", "most"),  # measured: means 0.056, 0.043, 0.022, 0.017, 0.018 of the outer eye corners' distance
    [(JAW, 0.06, 0.1), (BROWS, 0.05, 0.09), (NOSE, 0.03, 0.05), (EYES, 0.02, 0.045), (LIPS, 0.025, 0.045)],
    ids=["jaw", "brows", "nose", "eyes", "lips"],
)
def test_another_detector_finds_the_points_where_they_are(region, mean, most):
    apart = []
    for name, points in DLIB.items():
        found = np.array(points, np.float64)
        _, landmarks = sample_photo(name)
        eyes = np.linalg.norm(found[36] - found[45])
        apart.append(np.linalg.norm(keypoints_68(landmarks) - found, axis=1)[region] / eyes)
    assert np.mean(apart) < mean
    assert np.max(apart) < most


def test_the_points_of_a_face_come_in_the_papers_order():
    points = keypoints_68(face_template().points)  # seen from the front, x to the right, y down
    x, y = points.T
    for left_to_right in (JAW[1:-1], BROWS, [31, 32, 33, 34, 35], [36, 37, 38, 39], [42, 43, 44, 45]):
        assert (np.diff(x[left_to_right]) > 0).all()
    for left_to_right in ([*range(48, 55)], [*range(60, 65)], [48, 59, 58, 57, 56, 55, 54], [60, 67, 66, 65, 64]):
        assert (np.diff(x[left_to_right]) > 0).all()
    for top_down in (JAW[:9], JAW[:7:-1], [27, 28, 29, 30, 33, 51, 62, 66, 57, 8]):
        assert (np.diff(y[top_down]) > 0).all()
    assert y[[37, 38, 43, 44]].max() < y[EYES[[0, 3, 6, 9]]].min()  # upper lids above the corners
    assert y[[40, 41, 46, 47]].min() > y[EYES[[0, 3, 6, 9]]].max()
    assert y[BROWS].max() < y[EYES].min()


@pytest.mark.parametrize(
    ("points", "line"),
    [
        (JAW, "face oval"),
        (BROWS[:5], "right brow"),
        (BROWS[5:], "left brow"),
        (RIGHT_EYE, "right eye"),
        (LEFT_EYE, "left eye"),
        (LIPS, "lips"),
    ],
)
def test_points_are_of_the_lines_that_mediapipe_draws(points, line):
    assert set(LANDMARKS_68[points].ravel()) <= {landmark for part in CONTOURS[line] for landmark in part}


def test_outer_and_inner_lips_are_not_mixed():
    outer, inner = (set(line) for line in CONTOURS["lips"])
    assert set(LANDMARKS_68[48:60].ravel()) <= outer
    assert set(LANDMARKS_68[60:68].ravel()) <= inner


def test_a_point_of_two_landmarks_is_their_mean_and_depth_is_dropped():
    landmarks = np.zeros((478, 3), np.float32)
    landmarks[105], landmarks[66], landmarks[152] = (10, 20, 99), (30, 50, -99), (7, 8, 9)
    points = keypoints_68(landmarks)
    assert points.shape == (68, 2) and points.dtype == np.float32
    np.testing.assert_array_equal(points[19], (20, 35))
    np.testing.assert_array_equal(points[8], (7, 8))
    np.testing.assert_array_equal(points, keypoints_68(landmarks[:, :2]))


def test_a_mirrored_face_has_mirrored_points():
    landmarks = np.random.default_rng(1).normal(size=(478, 2))  # as lopsided as can be
    mirrored = landmarks[face_template().mirror] * (-1, 1)
    np.testing.assert_allclose(keypoints_68(mirrored), keypoints_68(landmarks)[MIRRORED_68] * (-1, 1), atol=1e-6)


@pytest.mark.parametrize(("point", "twin"), [(0, 16), (8, 8), (17, 26), (30, 30), (31, 35), (36, 45), (41, 46)])
def test_twins_by_hand(point, twin):
    assert (MIRRORED_68[point], MIRRORED_68[twin]) == (twin, point)


@pytest.mark.parametrize(("point", "twin"), [(48, 54), (51, 51), (57, 57), (59, 55), (60, 64), (62, 62), (67, 65)])
def test_twins_of_lips_by_hand(point, twin):
    assert (MIRRORED_68[point], MIRRORED_68[twin]) == (twin, point)


@pytest.mark.parametrize("landmarks", [np.zeros((468, 3)), np.zeros((68, 2)), np.zeros((2, 478, 2)), []])
def test_anything_but_478_landmarks_is_told(landmarks):
    with pytest.raises(MobileBilayerError, match=r"need \(478, 2\)"):
        keypoints_68(landmarks)
