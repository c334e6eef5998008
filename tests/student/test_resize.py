"""A student of another size begins with what one has learned."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.head import POINTS
from mobile_bilayer.student.network import SIZES, Student, StudentConfig
from mobile_bilayer.student.resize import LAYERS, resized
from mobile_bilayer.student.weights import load_student

SMALL = StudentConfig((6, 6, 8, 8), (12, 8, 8, 8), features=4, codes=4, fine_codes=2, sigma_lid=0.025, sigma_mouth=0.025)
WIDE = replace(SMALL, frame_widths=(9, 8, 12, 10), fine_codes=3)


@pytest.fixture
def student() -> Student:
    """With norms and heads as after training: nothing is 0 or 1 any more."""
    torch.manual_seed(0)
    student = Student(SMALL).eval()
    with torch.no_grad():
        for module in student.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(), module.running_var.uniform_(0.5, 2)
                module.weight.uniform_(0.5, 1.5), module.bias.normal_()
        student.frame.heads.weight.normal_(0, 0.3)
    return student


@torch.no_grad()
def layers(student: Student) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    image = torch.rand(1, 3, 256, 256, generator=generator)
    source = torch.rand(1, POINTS, 2, generator=generator) - 0.5
    return list(student(image, source, source * 0.9)[0])


def test_a_wider_student_renders_what_the_narrow_one_does(student):
    wide = resized(student, WIDE)
    assert wide.config == WIDE
    for ours, theirs in zip(layers(wide), layers(student), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_what_is_new_in_a_wider_student_can_learn(student):
    wide = resized(student, WIDE).train()
    image, points = torch.rand(2, 3, 256, 256), torch.rand(2, POINTS, 2) - 0.5
    out, _, _ = wide(image, points, points * 0.9)
    (out.a.square().sum() + out.b.square().sum()).backward()
    assert wide.frame.heads.weight.grad[:, 6:].abs().max() > 0  # what is read of the new channels


def test_back_to_the_narrow_shape_nothing_is_lost_when_what_was_added_is_read_by_nobody(student):
    again = resized(resized(student, WIDE), SMALL)
    for ours, theirs in zip(layers(again), layers(student), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_narrower_student_keeps_what_is_read_most(student):
    with torch.no_grad():
        student.frame.heads.weight[:, 1] = student.frame.trunk.enc32[0].weight[:, 1] = 0
        student.frame.top.dec64[0].weight[:, 1] = 0
    narrow = resized(student, replace(SMALL, frame_widths=(5, 6, 8, 8)))
    torch.testing.assert_close(narrow.frame.heads.weight, student.frame.heads.weight[:, [0, 2, 3, 4, 5]])
    assert all(value.isfinite().all() for value in layers(narrow))


def test_fewer_fine_codes_hold_what_is_read_of_them(student):
    """Of three that are sums of two nothing is lost with two; with one, no other sum is nearer to what the stem makes of them."""
    many = Student(replace(SMALL, fine_codes=3)).eval()
    many.load_state_dict(student.state_dict() | {name: value for name, value in many.state_dict().items() if "fine_codes" in name or "stem" in name})
    with torch.no_grad():
        many.frame.fine_codes[..., 2] = many.frame.fine_codes[..., 0] - 2 * many.frame.fine_codes[..., 1]
    for ours, theirs in zip(layers(resized(many, SMALL)), layers(many), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)

    def of_codes(student: Student, count: int) -> Tensor:
        return (student.frame.fine_codes[0] @ student.frame.trunk.stem[0].weight[:, :count].transpose(0, 1).flatten(1)).detach()

    lost = (of_codes(many, 3) - of_codes(resized(many, replace(SMALL, fine_codes=1)), 1)).square().sum()
    least = torch.linalg.svdvals(of_codes(many, 3))[1:].square().sum()
    assert float(lost) == pytest.approx(float(least), rel=1e-3) and least > 0


def test_the_list_of_layers_names_all_whose_width_depends_on_the_size():
    before, after = Student(SMALL).state_dict(), Student(WIDE).state_dict()
    changed = {name for name in before if before[name].shape != after[name].shape}
    assert changed and all(any(name == layer or name.startswith(layer + ".") for layer in LAYERS) for name in changed)


def test_a_lean_student_is_the_nearest_to_one_that_is_not(student):
    """Where each input's kernels are alike, half of the residuals' channels unread and those splatted at 32 px sums of a quarter of
    them it is the same one: but for the colours, which nothing smooths, and its flow and blend, which are smoothed.
    """
    trunk, top, heads = student.frame.trunk, student.frame.top.dec64[0], student.frame.heads
    with torch.no_grad():
        for residual in (trunk.mid32, trunk.mid16, trunk.mid8):
            weight = residual.second[0].weight
            weight[:, torch.randperm(weight.shape[1])[: weight.shape[1] // 2]] = 0
        for layer in (top, heads):
            layer.weight.copy_(layer.weight[:, :, 1:2, 1:2] * torch.randn(1, layer.weight.shape[1], 3, 3))
        read = student.frame.read32.weight
        few = replace(SMALL, lean=True).splatted
        read.copy_(torch.randn(len(read), few) @ read[:few])
    lean = resized(student, replace(SMALL, lean=True))
    lean.frame.smooth = nn.Identity()
    before, after = layers(student), layers(lean)
    torch.testing.assert_close(after[0], before[0], atol=1e-4, rtol=1e-4)
    assert (after[1] - before[1]).abs().mean() < 0.01
    again = resized(lean, SMALL)
    for ours, theirs in zip(layers(again), before, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_a_lean_student_of_another_is_nearer_to_it_than_any_one_of_its_channels_less(student):
    """Its kernels are the best of rank one: their error is what the singular values after the first say."""
    lean = resized(student, replace(SMALL, lean=True))
    for name, error in (("heads", 1e-5), ("top.dec64.0", 1e-5)):
        dense, layer = student.frame.get_submodule(name).weight, lean.frame.get_submodule(name)
        ours = (layer.pointwise.weight * layer.depthwise.weight.transpose(0, 1)).detach()
        left = torch.linalg.svdvals(dense.flatten(2).transpose(0, 1))[:, 1:].square().sum()
        assert float(((ours - dense) ** 2).sum() / left) == pytest.approx(1, abs=error)


def test_what_belongs_to_a_prior_that_the_other_lacks_begins_anew(student):
    without = Student(replace(SMALL, sigma_lid=0.0, sigma_mouth=0.0))
    assert torch.equal(resized(without, SMALL).frame.mouth.colours, Student(SMALL).frame.mouth.colours)
    assert resized(student, without.config).config == without.config


@pytest.mark.parametrize("size", SIZES)
def test_the_shipped_student_can_become_each_size(size):
    assert resized(load_student()[0], SIZES[size]).config == SIZES[size]


@pytest.mark.parametrize("name", ["features", "codes", "paint_width"])
def test_other_shapes_are_refused_by_name(student, name):
    with pytest.raises(MobileBilayerError, match=rf"{name} can't change from \d+ to 5"):
        resized(student, replace(SMALL, **{name: 5}))
