"""Each part of a frame, and what comes before it, beside one frame of the full-size teacher, in one run, on one thread.

The teacher's frame is the unit: milliseconds change with the machine, how often a part fits into it hardly. extra_info has the
ratio of each row; what is asserted is a half of what was measured, or less.
`pytest benchmarks/test_peer_ratio.py --benchmark-columns=median,iqr,rounds`
"""

import itertools
import os
from collections.abc import Callable

import numpy as np
import pytest
import torch
from peers import FommGenerator, runner
from torch.utils.flop_counter import FlopCounterMode

from mobile_bilayer import Bundle
from mobile_bilayer.benchmark.run import open_driver
from mobile_bilayer.gates.speed import slow_over_quick
from mobile_bilayer.pose.head import network_points
from mobile_bilayer.quantization.twins import median_ms
from mobile_bilayer.samples import sample_photo
from mobile_bilayer.teacher.fixed import lower_whole

needs_model = pytest.mark.skipif(
    "MOBILE_BILAYER_MODELS" not in os.environ, reason="MOBILE_BILAYER_MODELS names no folder with face_landmarker.task"
)


@pytest.fixture
def beside_the_teacher(benchmark, teacher) -> Callable[[Callable[[], object], float], None]:
    """beside_the_teacher(part, least): a row, and that the part fits so often into a frame of the teacher, measured in turns."""

    def measure(part: Callable[[], object], least: float) -> None:
        # Warm ones, between the teacher's: a short part alone pays for the cache that the teacher left it.
        took = slow_over_quick(teacher, part)
        benchmark.pedantic(part, rounds=20, warmup_rounds=1)
        benchmark.extra_info |= {"teacher_ms": took.slow_ms, "part_ms": took.quick_ms, "teacher_over_part": took.ratio}
        assert took.ratio > least

    return measure


@pytest.mark.benchmark(group="peers")
def test_a_frame_of_the_teacher(benchmark, teacher):
    out = benchmark.pedantic(teacher, rounds=10, warmup_rounds=1)
    assert np.isfinite(out[0].numpy()).all()


@pytest.mark.benchmark(group="peers")
def test_a_generator_of_fomm_size_costs_several_frames_of_the_teacher(benchmark, teacher):
    torch.manual_seed(0)
    module, inputs = FommGenerator().eval(), (torch.rand(1, 3, 256, 256),)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        wanted = module(*inputs)
    gmacs = counter.get_total_flops() / 2e9
    run = runner(lower_whole(module, inputs), "forward", inputs)
    took = median_ms({"fomm_size": run, "teacher": teacher}, rounds=3)
    out = benchmark.pedantic(run, rounds=3)
    assert np.abs(out[0].numpy() - wanted.numpy()).max() < 1e-3
    ratio = took["fomm_size"] / took["teacher"]
    benchmark.extra_info |= took | {"gmacs": gmacs, "fomm_size_over_teacher": ratio}
    assert 49 < gmacs < 50
    assert ratio > 3


@pytest.mark.benchmark(group="parts of a frame")
def test_composite(beside_the_teacher, avatar, track):
    layers = avatar.layers(avatar.move(track[100]))
    beside_the_teacher(lambda: avatar.compose(*layers), 30)


@needs_model
@pytest.mark.benchmark(group="parts of a frame")
def test_tracking(beside_the_teacher):
    driver, times_s = open_driver(None), itertools.count(0, 1 / 30)
    try:
        beside_the_teacher(lambda: driver.landmarks(driver.take(), next(times_s)), 7)
    finally:
        driver.close()


@pytest.mark.benchmark(group="parts of a frame")
def test_whole_frame_from_landmarks(beside_the_teacher, avatar, track):
    beside_the_teacher(lambda: avatar.render(track[100]), 12)


@pytest.mark.benchmark(group="before the first frame")
def test_encode_avatar(beside_the_teacher, avatar):
    rgb = np.ascontiguousarray(avatar.texture.transpose(2, 0, 1))[None].astype(np.float32) / 255
    points = network_points(avatar.source_landmarks)[None]
    beside_the_teacher(lambda: avatar.bundle.program.run("encode_avatar", rgb, points), 4)


@pytest.mark.benchmark(group="before the first frame")
def test_a_photo_to_an_avatar(beside_the_teacher):
    bundle, photo = Bundle.open(), sample_photo("astronaut")
    beside_the_teacher(lambda: bundle.avatar(*photo), 3)


@pytest.mark.benchmark(group="before the first frame")
def test_a_bundle_loads_in_less_time_than_a_frame_of_the_teacher_takes(beside_the_teacher):
    beside_the_teacher(lambda: Bundle.open().program, 10)
