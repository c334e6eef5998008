"""The teacher's frame as it is timed: one avatar's parameters in it, and nothing else changed."""

import pytest
import torch
from mobile_bilayer.export.bundle import sample_inputs

from mobile_bilayer.student.weights import load_student
from mobile_bilayer.teacher import load_teacher
from mobile_bilayer.teacher.fixed import TeacherFrame, look_at_a_frame


@pytest.fixture(scope="module")
def seen() -> TeacherFrame:
    """The shipped teacher at work on a sample photo."""
    inputs = sample_inputs(load_student()[0], "astronaut")
    points = inputs["source_points"][None], inputs["driving_points"][None]
    return look_at_a_frame(load_teacher()[0], inputs["image"][None].float() / 255, *points)


def test_the_fixed_frame_gives_what_the_teacher_gives(seen):
    with torch.no_grad():
        for got, wanted in zip(seen.fixed(nearest=True)(*seen.inputs), seen.out, strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)


def test_looking_leaves_no_hooks_behind(seen):
    assert not seen.teacher.keypoints_embedder._forward_pre_hooks
    assert not seen.teacher.inference_generator._forward_hooks
