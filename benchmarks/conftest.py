"""Everything on one core: phones differ in their number, and ratios stay comparable."""

import os
from collections.abc import Callable, Iterator

import cv2
import pytest
import torch
from mobile_bilayer.export.bundle import sample_inputs
from peers import runner

from mobile_bilayer import Avatar, Bundle, Track
from mobile_bilayer.benchmark.machine import runtime_threads
from mobile_bilayer.pose.neutral import neutral_of
from mobile_bilayer.samples import sample_photo, sample_track
from mobile_bilayer.student.weights import load_student
from mobile_bilayer.teacher import load_teacher
from mobile_bilayer.teacher.fixed import TeacherFrame, look_at_a_frame, lower_teacher


@pytest.fixture(autouse=True, scope="session")
def one_runtime_thread() -> Iterator[None]:
    """ExecuTorch's pool of one thread: two that share a core would wait for each other."""
    with runtime_threads(1):
        yield


@pytest.fixture(autouse=True)
def one_core() -> Iterator[None]:
    """This process on one core, and one thread for each library."""
    threads, cv_threads = torch.get_num_threads(), cv2.getNumThreads()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_setaffinity") else None
    if cores:
        os.sched_setaffinity(0, {max(cores)})
    yield
    if cores:
        os.sched_setaffinity(0, cores)
    torch.set_num_threads(threads)
    cv2.setNumThreads(cv_threads)


@pytest.fixture(scope="module")
def track() -> Track:
    return sample_track()


@pytest.fixture(scope="module")
def avatar(track: Track) -> Avatar:
    avatar = Bundle.open().avatar(*sample_photo("astronaut"))
    avatar.neutral = neutral_of(track)
    return avatar


@pytest.fixture(scope="session")
def teacher_frame() -> TeacherFrame:
    """The teacher at work on a sample photo."""
    inputs = sample_inputs(load_student()[0], "astronaut")
    image = inputs["image"][None].float() / 255
    teacher = load_teacher()[0].eval()
    return look_at_a_frame(teacher, image, inputs["source_points"][None], inputs["driving_points"][None])


@pytest.fixture(scope="session")
def teacher_program(teacher_frame) -> bytes:
    """Lowered once: it takes a minute."""
    return lower_teacher(teacher_frame)


@pytest.fixture(scope="session")
def teacher(teacher_frame, teacher_program) -> Callable[[], object]:
    """One frame of the teacher."""
    return runner(teacher_program, "forward", teacher_frame.inputs)
