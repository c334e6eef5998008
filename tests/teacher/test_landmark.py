"""The teacher with the landmark prior: the paper's generator on top of a coarse stage."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mobile_bilayer.compositing import composite, identity_grid
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.head import POINTS
from mobile_bilayer.student.network import StudentConfig
from mobile_bilayer.teacher import TeacherConfig, load_teacher, save_teacher
from mobile_bilayer.teacher.landmark import LANDMARK, LandmarkTeacher, Windows

COARSE = StudentConfig(frame_widths=(4, 4, 8, 8), encoder_widths=(12, 8, 8, 8), features=4, codes=4, paint_width=4)
TINY = replace(LANDMARK, coarse=COARSE, generator_width=2, generator_max_width=16, keypoints_width=8)


@pytest.fixture
def teacher() -> LandmarkTeacher:
    """Not as made, where nothing is corrected, but a little off."""
    torch.manual_seed(0)
    made = LandmarkTeacher(TINY)
    with torch.no_grad():
        for value in made.parameters():
            value.add_(0.05 * torch.randn_like(value))
    return made.eval()


def inputs(sources: int = 1, targets: int = 1) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)

    def points(count: int) -> torch.Tensor:
        return torch.rand(count, POINTS, 2, generator=generator) * 1.6 - 0.8

    return {
        "image": torch.rand(sources, 3, 256, 256, generator=generator),
        "points": points(sources),
        "driving": points(sources * targets),
        "background": torch.rand(sources * targets, 3, 256, 256, generator=generator) * 2 - 1,
    }


def test_an_untrained_teacher_shows_what_its_coarse_stage_does():
    torch.manual_seed(0)
    teacher, given = LandmarkTeacher(TINY).eval(), inputs()
    with torch.no_grad():
        avatar, frame = teacher(**given)
        torch.testing.assert_close(
            teacher.render(**given), composite(avatar.image, given["background"], frame.coarse), atol=1e-5, rtol=0
        )


def test_the_generator_is_the_papers_at_its_full_size_and_the_weights_fit_20_mib():
    with torch.device("meta"):
        teacher = LandmarkTeacher()
    generator = teacher.inference_generator
    millions = sum(p.numel() for p in generator.parameters()) / 1e6
    assert millions == pytest.approx(4.12, abs=0.01)
    # 4.31 GMACs, and one head more: it tells how much is painted.
    given = {name: value[:1] for name, value in inputs().items()}
    real = LandmarkTeacher().eval()
    with FlopCounterMode(display=False) as counter:
        real(**given)
    macs = sum(counter.get_flop_counts()["LandmarkTeacher.inference_generator"].values()) / 2
    head = 32 * 9 * 256 * 256
    assert (macs - head) / 1e9 == pytest.approx(4.31, abs=0.006)
    assert sum(2 * p.numel() for p in teacher.state_dict().values()) < 20 * 2**20


def test_a_window_holds_what_the_whole_frame_has_there(teacher):
    given, windows = inputs(targets=3), Windows([(0, 5), (12, 24), (24, 0)], 40)
    with torch.no_grad():
        _, whole = teacher(**given)
        _, part = teacher(**given, windows=windows)
    for full, cut in zip(whole.layers, part.layers, strict=True):
        assert cut.shape[-1] == 160
        torch.testing.assert_close(windows.inner(cut), windows.inner(windows.cut(full)), atol=1e-5, rtol=1e-5)
    assert not torch.equal(part.layers.b[1], windows.cut(whole.layers.b)[1])  # without the rim it would not hold


def test_windows_are_counted_from_the_top_left_in_64ths():
    picture = torch.arange(64 * 64.0).view(1, 1, 64, 64)
    windows = Windows([(24, 3)], 40)
    assert windows.cut(picture)[0, 0, 0, 0] == 24 * 64 + 3
    # The lower edge is the frame's own: all of the rim that goes is above.
    assert windows.inner(windows.cut(picture))[0, 0, 0, 0] == (24 + 8) * 64 + 3 + 4
    assert windows.inner(windows.cut(picture)).shape[-1] == 32
    grid = identity_grid(128, picture).permute(2, 0, 1)[None]
    assert windows.cut(grid)[0, 0, 0, 0] == pytest.approx((6 + 0.5) / 64 - 1)


def test_frames_of_several_avatars_do_not_mix(teacher):
    given = inputs(sources=2, targets=2)
    with torch.no_grad():
        together = teacher.render(**given)
        for i in range(2):
            part = {n: v[i : i + 1] if n in ("image", "points") else v[2 * i : 2 * i + 2] for n, v in given.items()}
            torch.testing.assert_close(teacher.render(**part), together[2 * i : 2 * i + 2], atol=2e-4, rtol=0)


def test_every_parameter_learns(teacher):
    given = inputs()
    avatar, frame = teacher.train()(**given)
    image = composite(avatar.texture, given["background"], frame.layers)
    under = composite(avatar.image, given["background"], frame.coarse)
    (image.square().mean() + under.square().mean() + avatar.code.alpha.mean() + frame.paint.mean()).backward()
    idle = [name for name, value in teacher.named_parameters() if value.grad is None or not value.grad.any()]
    assert not idle


def test_saved_weights_give_the_same_frame(teacher, tmp_path):
    save_teacher(teacher, tmp_path / "teacher.safetensors", {"steps": 3})
    loaded, facts = load_teacher(tmp_path / "teacher.safetensors")
    assert isinstance(loaded, LandmarkTeacher) and loaded.config == TINY and facts == {"steps": 3}
    with torch.no_grad():
        torch.testing.assert_close(loaded.render(**inputs()), teacher.render(**inputs()))


@pytest.mark.parametrize("wrong", [{"prior": "landmark"}, {"coarse": COARSE}])
def test_a_coarse_stage_belongs_to_the_landmark_prior(wrong):
    with pytest.raises(MobileBilayerError, match="coarse"):
        TeacherConfig(**wrong)
