"""What follows from a result's numbers: statistics, headlines, warnings, merged repeats."""

import numpy as np
import pytest

from mobile_bilayer import MobileBilayerError
from mobile_bilayer.benchmark.result import merge
from mobile_bilayer.benchmark.statistics import Statistics, spread


def test_percentiles_lie_between_neighbours_as_in_kotlin():
    """The numbers of android_demo/core's BenchmarkTest.kt."""
    got = Statistics.of([4.0, 1.0, 3.0, 2.0, 10.0])
    np.testing.assert_allclose(
        [got.p50, got.p90, got.p99, got.mean, got.cv], [3.0, 7.6, 9.76, 4.0, 0.883883], atol=1e-6
    )
    assert Statistics.of([5.0]) == Statistics(1, 5.0, 5.0, 5.0, 5.0, 0.0)
    with pytest.raises(MobileBilayerError, match="no measurement"):
        Statistics.of([])


def test_the_spread_of_one_median_is_not_told():
    assert spread([2.0]) is None
    assert spread([1.0, 3.0]) == 1.0


def test_BE3_of_a_long_run_the_last_minute_is_the_headline(result):
    one = result(seconds=600, each=lambda second: 30 if second < 300 else 21)
    assert one.first_minute_fps == 30 and one.sustained_fps == 21 and one.fps == 25.5
    assert one.headline == "21.0 FPS sustained (last minute of 10), whole frames"
    assert "It slows down: 30.0 FPS in the first minute, 21.0 in the last." in one.concerns()


def test_BE3_a_short_run_says_that_it_shows_nothing_of_heat(result):
    one = result(seconds=119)
    assert one.sustained_fps is None and one.first_minute_fps is None
    assert "30.0 FPS" in one.headline and "too short to show what heat does" in one.headline


def test_a_good_result_has_no_warnings(result):
    assert result(seconds=600).all_warnings() == []


def test_BE1_zero_delegation_comes_first_and_loud(result):
    one = result(
        delegated_operators=0,
        undelegated_operators={"aten::convolution.out": "", "aten::add.out": ""},
        undelegated_count=70,
    )
    assert one.share == 0 and one.concerns()[0].startswith("NOTHING IS DELEGATED: none of 70 operators")


def test_BE1_operators_outside_are_named_with_their_share(result):
    one = result(delegated_operators=60, undelegated_operators={"aten::mm.out": ""}, undelegated_count=15)
    assert one.share == 0.8 and "20% of the operators run outside the backend: aten::mm.out." in one.concerns()


@pytest.mark.parametrize(
    ("devices", "words"),
    [
        ({"cpu": 60, "neural_engine": 10}, "compute_unit is neural_engine, but the CPU ran 60 of 70 operators."),
        (None, "compute_unit is neural_engine, but the backend does not tell where its operators ran."),
        ({"cpu": 5, "neural_engine": 65}, None),
    ],
)
def test_BE1_a_neural_engine_is_claimed_only_where_operators_ran_on_it(result, devices, words):
    concerns = result(compute_unit="neural_engine", operators_by_device=devices).concerns()
    assert concerns == ([] if words is None else [words])


def test_BE1_a_frame_without_camera_and_landmarks_says_so(result, values):
    stages = values()["stages_ms"] | {"camera": None, "landmarks": None}
    assert result(stages_ms=stages).concerns() == [
        "A frame here is not end to end: it is without camera and landmarks."
    ]


def test_BE1_execute_alone_is_never_a_frame_rate(result, values):
    one = result(stages_ms=dict.fromkeys(values()["stages_ms"]), fps=None, over_time=[])
    assert one.headline == "no frame rate: 4.50 ms in execute() alone"
    assert "Only execute() was timed: that is no frame rate." in one.concerns()


def test_BE2_without_warm_up_it_says_that_first_frames_are_in_the_statistics(result):
    assert "There was no warm-up: the first frames are in the statistics." in result(warmup_count=0).concerns()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"build_type": "debug"}, "debug build"),
        ({"interrupted": True}, "ended early"),
        ({"repeat_spread": 0.3}, "differ by 30%"),
    ],
)
def test_what_makes_numbers_worth_less_is_said(result, change, words):
    assert words in " ".join(result(**change).concerns())


def with_median(values, ms):
    stages = values()["stages_ms"]
    return stages | {"frame": stages["frame"] | {"p50": ms, "p90": ms, "p99": ms}}


def test_repeats_become_the_middle_one_with_their_spread(result, values):
    loads = [
        {"first_ever_ms": first, "cold_ms": cold, "warm_ms": 20.0}
        for first, cold in ((900.0, 80.0), (85.0, 90.0), (84.0, 70.0))
    ]
    runs = [
        result(stages_ms=with_median(values, ms), load=load, warnings=[f"of {ms}"])
        for ms, load in zip((20.0, 16.0, 18.0), loads, strict=True)
    ]
    merged = merge(runs)
    assert merged.stages_ms["frame"].p50 == 18.0 and merged.repeats == 3
    assert merged.repeat_spread == pytest.approx(4 / 18)
    assert merged.load.first_ever_ms == 900.0 and merged.load.cold_ms == 80.0
    assert merged.warnings == ("of 20.0", "of 16.0", "of 18.0")


@pytest.mark.parametrize(
    "change", [{"device": "Other"}, {"bundle_sha256": "cd" * 32}, {"threads": 4}, {"build_type": "debug"}]
)
def test_runs_of_different_settings_are_not_merged(result, change):
    (name,) = change
    with pytest.raises(MobileBilayerError, match=f"Results with {name}"):
        merge([result(), result(**change)])
