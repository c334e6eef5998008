"""Everything on one core: phones differ in their number, and ratios stay comparable."""

import os
from collections.abc import Callable, Iterator

import cv2
import pytest
import torch
from mobile_bilayer.export.bundle import sample_inputs
from peers import FixedTeacher, lowered, runner

from mobile_bilayer import Avatar, Bundle, Track
from mobile_bilayer.benchmark.machine import runtime_threads
from mobile_bilayer.pose.neutral import neutral_of
from mobile_bilayer.samples import sample_photo, sample_track
from mobile_bilayer.student.weights import load_student
from mobile_bilayer.teacher import load_teacher


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
def seen() -> dict[str, object]:
    """The teacher at work on a sample photo: what its generator got, and what came out."""
    teacher, _ = load_teacher()
    teacher.eval()
    given: dict[str, object] = {"teacher": teacher}
    hooks = [
        teacher.keypoints_embedder.register_forward_pre_hook(lambda _, args: given.update(pose=args[0])),
        teacher.inference_generator.register_forward_hook(
            lambda _, args, out: given.update(
                params=args[1], extra=[args[2][side] for side in sorted(args[2])], out=out
            )
        ),
    ]
    inputs = sample_inputs(load_student()[0], "astronaut")
    image = inputs["image"][None].float() / 255
    with torch.no_grad():
        teacher.render(image, inputs["source_points"][None], inputs["driving_points"][None], image * 2 - 1)
    for hook in hooks:  # an export would call them with tensors that hold nothing
        hook.remove()
    return given


@pytest.fixture(scope="session")
def teacher_program(seen) -> bytes:
    """Lowered once: it takes a minute."""
    module = FixedTeacher(seen["teacher"], seen["params"], nearest=False)
    return lowered(module, (seen["pose"], *seen["extra"]))


@pytest.fixture(scope="session")
def teacher(seen, teacher_program) -> Callable[[], object]:
    """One frame of the teacher."""
    return runner(teacher_program, "forward", [seen["pose"], *seen["extra"]])
