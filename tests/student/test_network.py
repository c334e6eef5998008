"""The student before training: it must start as the landmark warp."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mobile_bilayer.compositing import composite
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.head import POINTS, face_template, network_points
from mobile_bilayer.pose.landmarks import MESH
from mobile_bilayer.student.network import (
    EYES,
    MOUTH,
    MOUTH_INSIDE,
    SIZES,
    FrameNetwork,
    Smooth,
    Student,
    StudentConfig,
    landmark_warp,
)
from mobile_bilayer.student.splat import pixel_centres

GATE, MASK = 1 - 1 / (1 + math.exp(3.9)), 1 / (1 + math.exp(-4))  # of the untrained network: 0.980, 0.982


@pytest.fixture(scope="module", params=[StudentConfig(), SIZES["S"]], ids=["lids half open", "lids shut"])
def student(request) -> Student:
    torch.manual_seed(0)
    return Student(request.param).eval()


def face(batch: int, seed: int = 0) -> torch.Tensor:
    """(batch, K, 2) points spread over the middle of the frame."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(batch, POINTS, 2, generator=generator) * 0.8 - 0.4


def picture(batch: int) -> torch.Tensor:
    return torch.rand(batch, 3, 256, 256, generator=torch.Generator().manual_seed(5))


@torch.no_grad()
def frame_of(student: Student, image, source, driving):
    return student(image, source, driving)[0]


def test_an_untrained_student_driven_by_its_own_landmarks_shows_the_photo(student):
    image, points = picture(1), face(1)
    layers = frame_of(student, image, points, points)
    assert (layers.a[:, :2] == 0).all()
    torch.testing.assert_close(layers.a[:, 2], torch.full((1, 64, 64), GATE))
    torch.testing.assert_close(layers.a[:, 3], torch.full((1, 64, 64), MASK))
    texture = image * 2 - 1
    out = composite(texture, texture, layers)
    kept = 1 - MASK + MASK * GATE  # of the texture, with itself as background: 0.981
    assert (out - kept * texture).abs().max() <= MASK * (1 - GATE) + 1e-5  # the rest is paint, within [-1, 1]


def test_the_prior_flow_follows_the_nearest_landmarks(student):
    driving = face(1)
    way = torch.tensor([0.07, -0.03])
    flow = prior(student.frame, driving + way, driving)[0, :2]
    column, row = ((driving[0] + 1) * 32).long().clamp(0, 63).unbind(1)
    at_landmarks = flow[:, row, column].T
    # Weights of at least 0.8 (half a pixel away at most) against 0.02 for standing still.
    torch.testing.assert_close(at_landmarks, way.expand(POINTS, 2), rtol=0.025, atol=0)


def test_the_prior_flow_takes_each_part_its_own_way(student):
    """Eyes may move and the mouth not: parts four narrow sigmas apart."""
    driving = torch.cat([face(1)[:, : POINTS // 2] * 0.3 - 0.4, face(1)[:, POINTS // 2 :] * 0.3 + 0.4], 1)
    source = driving.clone()
    source[:, : POINTS // 2, 0] += 0.05
    flow = prior(student.frame, source, driving)[0, :2]
    torch.testing.assert_close(flow[:, 19, 19], torch.tensor([0.05, 0]), rtol=0, atol=0.003)  # (-0.39, -0.39)
    torch.testing.assert_close(flow[:, 44, 44], torch.zeros(2), rtol=0, atol=0.003)  # (0.39, 0.39)


def test_what_is_splatted_at_32_px_is_as_wide_at_64_as_it_should_be(student):
    """Doubling widens it. Nearest to the Gaussians that were splatted, at 64 px themselves, are those of `sigma_narrow`."""
    driving, config = face(1), student.frame.config
    near = prior(student.frame, driving, driving)[0, 2]
    squares = (torch.stack(torch.meshgrid(pixel_centres(64), pixel_centres(64), indexing="xy")) - driving[0, :, :, None, None]).square().sum(1)

    def error(width: float) -> float:
        sigma = config.sigma_narrow * width
        total = (torch.exp(-squares / (2 * sigma**2)) + config.wide_share * torch.exp(-squares / (2 * config.sigma_wide**2))).sum(0)
        return float((near - total / (total + 1)).abs().mean())

    assert error(1.0) < 0.005 and all(error(1.0) < error(width) for width in (0.9, 0.95, 1.05, 1.1))


def prior(frame: FrameNetwork, source: torch.Tensor, driving: torch.Tensor) -> torch.Tensor:
    """(B, 3, 64, 64) of points (B, K, 2)."""
    return frame.prior(torch.cat([driving, source - driving], 2).mT)


def mouth_of(
    frame: FrameNetwork, source: torch.Tensor, driving: torch.Tensor, colours: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """How much is a mouth's inside, and its colours, of points and colours (B, K, ..)."""
    return frame.mouth(colours.mT, source.mT, driving.mT, frame.centres64)


def template_face(shut: float = 0.0, mouth: float = 0.0) -> torch.Tensor:
    """(1, K, 2) points of the template's face.

    shut   how far its lids have come together, 0..1
    mouth  how far its inner lips are apart, against their width
    """
    face = face_template().points * 0.45
    corners, upper, lower = (list(part) for part in MOUTH)
    line = (face[upper, 1] + face[lower, 1]) / 2
    # Lips are an oval: widest apart in the middle.
    x = (face[upper, 0] - face[corners, 0].mean()) / np.ptp(face[corners, 0]) * 2
    half = mouth / 2 * np.ptp(face[corners, 0]) * np.sqrt(1 - x**2)
    face[upper, 1], face[lower, 1] = line - half, line + half
    for _, upper, lower, _ in EYES:
        line = 0.3 * face[list(upper)] + 0.7 * face[list(lower)]
        for lid in (upper, lower):
            face[list(lid)] += shut * (line - face[list(lid)])
    return torch.from_numpy(network_points(face))[None]


@pytest.mark.parametrize("lean", [0.0, 0.5, -0.5])
def test_shut_lids_are_drawn_by_the_lids_and_not_by_their_mean(lean):
    """Just above where they meet the upper lid's skin is shown, just below the lower one's; leaning heads as well."""
    turn = torch.tensor([[math.cos(lean), math.sin(lean)], [-math.sin(lean), math.cos(lean)]])
    source, driving = template_face(0) @ turn, template_face(1) @ turn
    flows = {name: prior(FrameNetwork(config), source, driving)[:, :2] for name, config in
             (("half", StudentConfig()), ("shut", SIZES["S"]))}  # fmt: skip
    missed = dict.fromkeys(flows, 0.0)
    for corners, *lids, _ in EYES:
        first, last = (driving[0, MESH.index(corner)] for corner in corners)
        down = torch.stack([first[1] - last[1], last[0] - first[0]])  # as long as the eye is wide
        for lid, side in zip(lids, (-0.2, 0.2), strict=True):
            middle = MESH.index(lid[3])
            at = (driving[0, middle] + side * down).reshape(1, 1, 1, 2)
            for name, flow in flows.items():
                shown = torch.nn.functional.grid_sample(flow, at, align_corners=False).flatten()
                missed[name] += float((shown - (source - driving)[0, middle]).norm())
    assert missed["shut"] < 0.5 * missed["half"], missed


def test_open_eyes_move_as_they_always_did():
    wide, driving = template_face(-0.4), template_face(-0.3)  # as wide as lids count as open
    ours, before = (prior(FrameNetwork(c), driving, wide) for c in (SIZES["S"], StudentConfig()))
    torch.testing.assert_close(ours, before, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("lean", [0.0, 0.6])
@pytest.mark.parametrize("height", [0.3, 0.8])
def test_a_mouth_that_opens_is_painted_up_to_the_lips(height, lean):
    turn = torch.tensor([[math.cos(lean), math.sin(lean)], [-math.sin(lean), math.cos(lean)]])
    source, driving = template_face() @ turn, template_face(mouth=height) @ turn
    student = FrameNetwork(SIZES["S"])
    inside, colours = mouth_of(student, source, driving, torch.rand(1, POINTS, 3))
    torch.testing.assert_close(colours, inside * torch.tensor(MOUTH_INSIDE).reshape(1, 3, 1, 1))  # until it has learned
    upper, lower = (driving[0, MESH.index(lip[3])] for lip in MOUTH[1:])

    def at(share: float) -> float:  # 0 on the upper lip, 1 on the lower one
        where = (upper + share * (lower - upper)).reshape(1, 1, 1, 2)
        return float(torch.nn.functional.grid_sample(inside, where, align_corners=False))

    assert at(0.5) > 0.65 and 0.2 < at(0) < 0.75 and 0.2 < at(1) < 0.75
    away = 0.12 / float((lower - upper).norm())  # 15 of 256 px
    assert at(-away) < 0.05 and at(1 + away) < 0.05
    # As much in all as the oval's area.
    area = math.pi / 4 * height * float((driving[0, MESH.index(308)] - driving[0, MESH.index(78)]).norm()) ** 2
    assert float(inside.sum()) * (2 / 64) ** 2 == pytest.approx(area, rel=0.1)
    with torch.no_grad():
        gate = student(torch.zeros(1, POINTS, 27), torch.zeros(1, 32, 32, 32), source, driving).a[:, 2:3]
    middle = ((upper + lower) / 2).reshape(1, 1, 1, 2)
    assert torch.nn.functional.grid_sample(gate, middle, align_corners=False) < 0.2
    assert float(gate.max()) == pytest.approx(GATE, abs=1e-3)


def test_a_mouths_inside_gets_as_much_light_as_the_lips():
    student = FrameNetwork(SIZES["S"])
    with torch.no_grad():
        student.mouth.colours_of_lips.fill_(0.5)
    source, driving = template_face(), template_face(mouth=0.5)
    bright, dark = (
        mouth_of(student, source, driving, torch.full((1, POINTS, 3), light))[1] for light in (0.8, -0.8)
    )
    share = mouth_of(student, source, driving, torch.zeros(1, POINTS, 3))[0]
    torch.testing.assert_close(bright - dark, (0.5 * 1.6 * share).expand(-1, 3, -1, -1), atol=1e-4, rtol=1e-4)


def test_a_mouth_that_the_source_shows_open_is_warped_and_not_painted():
    student = FrameNetwork(SIZES["S"])
    for source, driving in ((0.0, 0.0), (0.4, 0.4), (0.4, 0.8), (0.4, 0.0)):
        source, driving = template_face(mouth=source), template_face(mouth=driving)
        share, colours = mouth_of(student, source, driving, torch.rand(1, POINTS, 3))
        assert (share == 0).all() and (colours == 0).all()


def test_far_from_the_face_the_prior_flow_falls_to_zero(student):
    driving = face(1) * 0.25 - torch.tensor([0.5, 0.5])
    *flow, near = prior(student.frame, driving + 0.1, driving)[0]
    assert max(abs(way[63, 63]) for way in flow) < 1e-4
    assert near[63, 63] < 1e-3  # "how near the face is"
    assert near[16, 16] > 0.9


def test_outputs_have_their_shapes_and_ranges():
    torch.manual_seed(1)
    student = Student(StudentConfig()).eval()
    with torch.no_grad():  # as if trained badly: heads far from their start
        for layer in (student.frame.heads, student.encoder.alpha_head):
            layer.weight.normal_(std=3)
        layers, paint, code = student(picture(2), face(2), face(6, seed=1))
    assert code.landmark_features.shape == (2, POINTS, 24 + 3)
    assert code.map_features.shape == (2, 32, 32, 32)
    assert code.alpha.shape == (2, 1, 128, 128)
    assert layers.a.shape == (6, 4, 64, 64) and layers.b.shape == paint.shape == (6, 3, 128, 128)
    for share in (code.alpha, layers.a[:, 2:]):
        assert share.min() >= 0 and share.max() <= 1
    assert layers.b.abs().max() <= 1 and paint.abs().max() <= 1
    reach = 0.3 + 0.8 * math.sqrt(2)  # the learned correction and the farthest landmark's way
    assert layers.a[:, :2].abs().max() <= reach


def test_the_last_features_at_a_landmark_are_the_sources_colours(student):
    colour = torch.tensor([0.2, 0.5, 0.9]).reshape(1, 3, 1, 1)
    with torch.no_grad():
        code = student.encoder(colour.expand(1, 3, 256, 256), face(1))
    want = (colour.reshape(1, 1, 3) * 2 - 1).expand(1, POINTS, 3)
    torch.testing.assert_close(code.landmark_features[..., -3:], want, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("size", "most"), [("XS", 0.04e9), ("S", 0.06e9), ("M", 0.25e9)])
def test_a_frame_costs_at_most_what_its_size_allows(size, most, monkeypatch):
    # As exported: bilinear upsampling is an operator there, not a matrix product.
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    frame = FrameNetwork(SIZES[size])
    features, maps = torch.zeros(1, POINTS, 27), torch.zeros(1, frame.config.frame_widths[1], 32, 32)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        frame(features, maps, face(1), face(1, seed=1))
    macs = counter.get_total_flops() / 2
    assert 0.8 * most < macs <= most


def test_a_face_painted_at_128_pixels_starts_as_one_painted_at_64():
    pictures = []
    for paint_width in (0, 5):
        torch.manual_seed(0)
        student = Student(StudentConfig(paint_width=paint_width)).eval()
        pictures.append(frame_of(student, picture(1), face(1), face(1, seed=1)))
    for ours, theirs in zip(*pictures, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_frame_network_is_small():
    parameters = sum(p.numel() for p in FrameNetwork(StudentConfig()).parameters())
    assert 0.2e6 < parameters < 0.3e6  # 0.3 MB in int8


def test_what_is_smoothed_keeps_its_mean_and_loses_what_trembles_from_pixel_to_pixel():
    smooth = Smooth(8)
    torch.manual_seed(0)
    rows = torch.randn(2, 3, 64)
    image = rows.reshape(6, 1, 8, 8)
    sixths = torch.tensor([1.0, 4.0, 1.0]) / 6
    wanted = nn.functional.conv2d(nn.functional.pad(image, (1, 1, 1, 1), mode="replicate"), torch.outer(sixths, sixths)[None, None])
    torch.testing.assert_close(smooth(rows), wanted.reshape(2, 3, 64), rtol=0, atol=1e-6)
    torch.testing.assert_close(smooth(torch.ones(1, 1, 64)), torch.ones(1, 1, 64))
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1
    assert float(smooth(board.reshape(1, 1, 64)).reshape(8, 8)[1:-1, 1:-1].abs().max()) == pytest.approx(1 / 9, abs=1e-6)


def test_upsampling_is_the_same_exported_as_trained(student, monkeypatch):
    torch.manual_seed(2)
    x = torch.randn(1, 4, 32, 32)
    trained = student.frame.top.up32(x)
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
    torch.testing.assert_close(student.frame.top.up32(x), trained, rtol=0, atol=1e-5)


def test_the_same_input_gives_the_same_output_and_is_left_unchanged(student):
    inputs = picture(1), face(1), face(1, seed=1)
    before = [x.clone() for x in inputs]
    first, second = frame_of(student, *inputs), frame_of(student, *inputs)
    assert torch.equal(first.a, second.a) and torch.equal(first.b, second.b)
    assert all(map(torch.equal, inputs, before))


def test_a_frame_does_not_depend_on_its_batch():
    torch.manual_seed(3)
    student = Student(StudentConfig()).eval()
    torch.nn.init.normal_(student.frame.heads.weight, std=0.1)
    image, source, driving = picture(2), face(2), face(4, seed=1)
    together = frame_of(student, image, source, driving)
    for i in range(4):
        alone = frame_of(student, image[i // 2 :][:1], source[i // 2 :][:1], driving[i : i + 1])
        torch.testing.assert_close(together.a[i : i + 1], alone.a, rtol=0, atol=1e-5)
        torch.testing.assert_close(together.b[i : i + 1], alone.b, rtol=0, atol=1e-5)


@pytest.mark.parametrize("widths", [(16, 32, 64), (16, 0, 64, 80)])
def test_widths_that_make_no_network_are_refused(widths):
    with pytest.raises(MobileBilayerError, match="frame_widths"):
        StudentConfig(frame_widths=widths)


def test_the_landmark_warp_moves_what_its_landmarks_move_and_nobodys_random_numbers():
    centres = (torch.arange(64) + 0.5) / 32 - 1
    texture = centres.expand(1, 3, 64, 64)  # each pixel shows its own x
    source = torch.rand(1, POINTS, 2, generator=torch.Generator().manual_seed(0)) - 0.5
    state = torch.get_rng_state()
    still = landmark_warp(texture, source, source)
    moved = landmark_warp(texture, source, source + torch.tensor([0.125, 0.0]))
    assert torch.equal(torch.get_rng_state(), state)
    torch.testing.assert_close(still, texture, atol=1e-5, rtol=0)
    # Among the landmarks, which all go right by 4 pixels, a pixel shows what was 4 pixels left of it.
    torch.testing.assert_close(moved[..., 28:36, 28:36], texture[..., 28:36, 24:32], atol=0.02, rtol=0)
