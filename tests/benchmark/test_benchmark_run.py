"""`mobile-bilayer benchmark run`: what it measures, and what it keeps apart."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from jsonschema import Draft202012Validator

from mobile_bilayer import MobileBilayerError
from mobile_bilayer.benchmark import machine, run
from mobile_bilayer.benchmark.load import cold_ms
from mobile_bilayer.benchmark.profile import OUTSIDE
from mobile_bilayer.benchmark.result import Result, schema
from mobile_bilayer.benchmark.run import CameraClock, Costs, Pipeline, Setting, read_fidelity, run_benchmark
from mobile_bilayer.runtime.bundle import Bundle, bundle_title, shipped_bundle
from mobile_bilayer.runtime.core_ml_program import DEVICES, count_devices
from mobile_bilayer.samples import sample_photo, sample_track

needs_model = pytest.mark.skipif(
    "MOBILE_BILAYER_MODELS" not in os.environ, reason="MOBILE_BILAYER_MODELS names no folder with face_landmarker.task"
)
SHORT = Setting(seconds=1.3, threads=1, warmup=3)


@pytest.fixture(autouse=True)
def no_cold_starts(monkeypatch):
    """A process takes seconds to import torch: `ran` alone starts one."""
    monkeypatch.setattr(run, "cold_ms", lambda *_: 30.0)


@pytest.fixture(scope="module")
def track_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("driver") / "talk.track"
    sample_track().save(path)
    return path


@pytest.fixture(scope="module")
def ran(track_file) -> Result:
    """A short run of the shipped bundle, driven by a track: nothing beyond the package is needed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "COLD_STARTS", 1)
        return run_benchmark(None, Setting(seconds=1.3, threads=1, warmup=3, with_profile=True), track_file)


def test_what_is_written_meets_the_schema(ran):
    Draft202012Validator(schema()).validate(json.loads(ran.to_json()))


def test_of_a_track_camera_and_landmarks_are_not_measured_and_it_says_why(ran):
    assert ran.stages_ms["camera"] is None and ran.stages_ms["landmarks"] is None and ran.stages_ms["display"] is None
    for place in ("stages_ms.camera", "stages_ms.landmarks"):
        assert "a track" in ran.not_measured[place]
    assert "A frame here is not end to end: it is without camera and landmarks." in ran.warnings


def test_stages_are_parts_of_the_whole_frame_and_execute_of_the_network(ran):
    whole, parts = ran.stages_ms["frame"], [ran.stages_ms[name] for name in ("network", "composite")]
    assert whole.count == ran.iterations > 5
    assert sum(part.mean for part in parts) <= whole.mean < 1.5 * sum(part.mean for part in parts)
    assert 0 < ran.execute_ms.mean < ran.stages_ms["network"].mean


def test_the_bundle_is_named_by_hash_size_and_operators(ran):
    files = list(shipped_bundle().iterdir())
    assert ran.bundle_sha256 == hashlib.sha256((shipped_bundle() / "manifest.json").read_bytes()).hexdigest()
    assert ran.bundle_mib == pytest.approx(sum(file.stat().st_size for file in files) / 2**20)
    assert (
        ran.delegated_operators > 50
        and ran.undelegated_operators == {}
        and ran.undelegated_count == 0
        and ran.share == 1
    )
    assert (ran.backend, ran.precision, ran.threads, ran.compute_unit) == ("xnnpack", "int8", 1, "cpu")


def test_frames_are_counted_by_the_second_and_never_above_the_camera(ran):
    assert [moment.second for moment in ran.over_time] == [0]
    assert 0 < ran.fps < 30.5 and ran.duration_s >= 1.3
    assert sum(moment.frames for moment in ran.over_time) <= ran.iterations


def test_operators_are_timed_where_that_was_asked_for(ran):
    assert any("Convolution" in name for name in ran.operators_ms) and OUTSIDE not in ran.operators_ms
    assert sum(ran.operators_ms.values()) < 3 * ran.execute_ms.p50


def test_a_cold_load_is_that_of_a_fresh_process_and_without_its_imports(ran):
    """Which would take seconds."""
    assert 0 < ran.load.cold_ms < 1500


def test_a_bundle_that_a_fresh_process_can_not_load_is_named(tmp_path):
    with pytest.raises(MobileBilayerError, match="none can't be loaded in a process of its own"):
        cold_ms(tmp_path / "none", 1)


def test_threads_are_as_before_afterwards(ran):
    from executorch.extension.pybindings.portable_lib import _threadpool_get_thread_count

    before = _threadpool_get_thread_count()
    with machine.runtime_threads(before + 1) as count:
        assert count == before + 1 == _threadpool_get_thread_count()
    assert _threadpool_get_thread_count() == before


def test_what_the_thread_pool_has_to_say_is_not_heard():
    """In a process of its own: it speaks only once, and whether on Python's stderr or on the real one depends."""
    code = "import io, sys; sys.stderr = heard = io.StringIO(); from mobile_bilayer.benchmark import machine\n"
    code += "with machine.runtime_threads(2): pass\nassert not heard.getvalue(), heard.getvalue()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_BE2_load_first_frame_and_warm_frames_are_told_apart(track_file, monkeypatch):
    """The first frame and those that warm up are made slow: the statistics don't show it, the first frame does."""
    real, seen = Pipeline.frame, []

    def frame(self, time_s) -> Costs:
        seen.append(time_s)
        slow_s = 0.4 if len(seen) <= 2 else 0.0
        costs = real(self, time_s)
        time.sleep(slow_s)
        return Costs(
            costs.stages_s | {"frame": costs.stages_s["frame"] + slow_s}, costs.execute_s, costs.ended_s + slow_s
        )

    monkeypatch.setattr(Pipeline, "frame", frame)
    result = run_benchmark(None, SHORT, track_file)
    assert result.first_frame_ms > 400 > result.stages_ms["frame"].p99
    assert len(seen) == result.warmup_count + result.iterations and result.warmup_count == 3
    assert result.load.first_ever_ms is None and "just installed" in result.not_measured["load.first_ever_ms"]
    assert result.load.cold_ms == 30.0 and 0 < result.load.warm_ms < 5000


@pytest.fixture(scope="module")
def undelegated(tmp_path_factory) -> Path:
    """The shipped student, lowered without a partitioner."""
    from executorch.exir import to_edge_transform_and_lower
    from mobile_bilayer.export.bundle import sample_inputs
    from mobile_bilayer.export.executorch import export_methods

    from mobile_bilayer.student.weights import load_student

    student, _ = load_student()
    sample = sample_inputs(student, "astronaut")
    image, source, driving = (sample[name][None] for name in ("image", "source_points", "driving_points"))
    image = image.float() / 255
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations inside torch and executorch
        code = student.encoder(image, source)
        inputs = {
            "encode_avatar": [(image, source)],
            "render_layers": [(code.landmark_features, code.map_features, source, driving)],
        }
        program = to_edge_transform_and_lower(export_methods(student, inputs, quantized=False)).to_executorch().buffer
    folder = tmp_path_factory.mktemp("bundle") / "undelegated"
    shutil.copytree(shipped_bundle(), folder)
    about = json.loads((folder / "manifest.json").read_text("utf-8"))
    (folder / about["program"]).write_bytes(program)
    about["sha256"][about["program"]] = hashlib.sha256(program).hexdigest()
    about["precision"] = "fp32"
    (folder / "manifest.json").write_text(json.dumps(about), "utf-8")
    return folder


def test_BE1_a_program_without_delegates_is_flagged_in_the_file_and_in_the_table(
    undelegated, track_file, tmp_path, command_line, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "140")
    file = tmp_path / "slow.json"
    line = ["benchmark", "run", str(undelegated), "--seconds", "1", "--driving", str(track_file), "-o", str(file)]
    code, out, err = command_line(line)
    assert (code, err) == (0, "")
    result = Result.load_file(file)
    assert result.delegated_operators == 0 and result.undelegated_count > 50
    assert any("convolution" in name for name in result.undelegated_operators)
    assert result.warnings[0].startswith("NOTHING IS DELEGATED") and "WARNING NOTHING IS DELEGATED" in out
    assert result.execute_ms.p50 < result.stages_ms["frame"].p50


@needs_model
def test_BE1_of_a_video_every_stage_is_measured_and_decoding_is_the_camera(tmp_path):
    rgb, _ = sample_photo("astronaut")
    with av.open(str(tmp_path / "me.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 320, "yuv420p"
        for i in range(6):
            picture = np.ascontiguousarray(rgb[:320, 60 + i : 380 + i])
            out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        out.mux(stream.encode(None))
    result = run_benchmark(None, SHORT, tmp_path / "me.mp4")
    stages = result.stages_ms
    assert all(stages[name] is not None for name in ("camera", "landmarks", "network", "composite", "frame"))
    assert stages["landmarks"].p50 > 1 and stages["camera"].p50 > 0 and result.iterations > 6
    parts = sum(stages[name].mean for name in ("camera", "landmarks", "network", "composite"))
    assert stages["frame"].mean == pytest.approx(parts, rel=0.05)
    assert not [sentence for sentence in result.warnings if "end to end" in sentence]


@needs_model
def test_without_a_driver_landmarks_are_found_in_a_photo_that_swings():
    driver = run.open_driver(None)
    first = driver.landmarks(driver.take(), 0.0)
    for i in range(1, 10):
        last = driver.landmarks(driver.take(), i / 30)
    driver.close()
    assert "camera" in driver.absent and "landmarks" not in driver.absent
    assert abs((last - first)[:, 0].mean()) > 5


def test_without_the_landmark_model_it_says_so_and_asks_no_network(monkeypatch, tmp_path):
    monkeypatch.setenv("MOBILE_BILAYER_MODELS", str(tmp_path))
    driver = run.open_driver(None)
    assert driver.take() is None and driver.landmarks(None, 0.0).shape == (478, 3)
    assert "face_landmarker.task is not here" in driver.absent["landmarks"]


def test_BE1_of_core_ml_it_is_counted_where_operators_run():
    """With a compute plan as coremltools documents it; only a Mac makes one."""
    kinds = {name: type(name, (), {})() for name in DEVICES}
    usage = {name: SimpleNamespace(preferred_compute_device=device) for name, device in kinds.items()}
    operations = ["MLNeuralEngineComputeDevice"] * 3 + ["const", "MLCPUComputeDevice"]
    block = SimpleNamespace(operations=operations)
    program = SimpleNamespace(functions={"main": SimpleNamespace(block=block)})
    plan = SimpleNamespace(
        model_structure=SimpleNamespace(program=program), get_compute_device_usage_for_mlprogram_operation=usage.get
    )
    assert count_devices(plan) == {"neural_engine": 3, "cpu": 1}


@pytest.mark.parametrize(
    ("engine", "profiled", "words"),
    [("evaluator", False, "is no measure of it"), ("Core ML", True, "Leave --profile out")],
)
def test_BE1_what_stands_for_core_ml_here_is_not_measured_in_its_name(monkeypatch, engine, profiled, words):
    bundle = Bundle.open()
    core_ml = replace(bundle, manifest=replace(bundle.manifest, backend="coreml"))
    core_ml.__dict__["program"] = SimpleNamespace(engine=engine)
    monkeypatch.setattr(run.Bundle, "open", lambda path: core_ml)
    with pytest.raises(MobileBilayerError, match=words):
        run_benchmark(None, replace(SHORT, with_profile=profiled))


class Interrupting:
    """A pipeline at which Ctrl-C comes after so many frames."""

    def __init__(self, after: int) -> None:
        self.left, self.at_s = after, 0.0

    def frame(self, time_s: float) -> Costs:
        if not self.left:
            raise KeyboardInterrupt
        self.left, self.at_s = self.left - 1, self.at_s + 0.5
        return Costs({"frame": 0.1}, 0.05, self.at_s)


def test_ctrl_c_keeps_what_was_counted():
    costs, over_time, interrupted = run._count(Interrupting(5), CameraClock(1e6), 60, lambda *_: None)
    assert interrupted and len(costs) == 5
    assert [(moment.second, moment.frames) for moment in over_time] == [(0, 2), (1, 2)]


def test_ctrl_c_before_frames_were_counted_ends_as_everywhere():
    with pytest.raises(KeyboardInterrupt):
        run._count(Interrupting(1), CameraClock(1e6), 60, lambda *_: None)


def test_a_run_that_was_ended_early_is_a_valid_file_that_says_so(track_file, tmp_path, command_line, monkeypatch):
    real, seen = Pipeline.frame, []

    def frame(self, time_s) -> Costs:
        seen.append(time_s)
        if len(seen) > 40:
            raise KeyboardInterrupt
        return real(self, time_s)

    monkeypatch.setattr(Pipeline, "frame", frame)
    code, out, _ = command_line(["benchmark", "run", "--driving", str(track_file), "-o", str(tmp_path / "a.json")])
    result = Result.load_file(tmp_path / "a.json")
    assert code == 0 and result.interrupted and result.iterations == 10 and "ended early" in out


class Time:
    """A clock that only sleeping moves, and that somebody may set."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def test_a_fast_pipeline_waits_for_the_camera_and_drops_nothing():
    clock_time = Time()
    clock = CameraClock(30, clock_time, clock_time.sleep)
    times = []
    for _ in range(90):
        times.append(clock.wait())
        clock_time.sleep(0.010)
    np.testing.assert_allclose(times, np.arange(90) / 30)
    assert clock.dropped == 0 and clock_time.now_s == pytest.approx(100 + 89 / 30 + 0.010)


def test_a_slow_pipeline_takes_the_newest_frame_and_counts_those_that_were_overtaken():
    clock_time = Time()
    clock = CameraClock(30, clock_time, clock_time.sleep)
    times = []
    for _ in range(10):
        times.append(clock.wait())
        clock_time.sleep(0.1)
    np.testing.assert_allclose(times, np.arange(10) * 3 / 30)
    assert clock.dropped == 18


def zone(folder: Path, name: str, degrees: int, **trips: int) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "temp").write_text(f"{degrees}\n")
    for i, (kind, limit) in enumerate(trips.items()):
        (folder / name / f"trip_point_{i}_type").write_text(f"{kind}\n")
        (folder / name / f"trip_point_{i}_temp").write_text(f"{limit}\n")


@pytest.mark.parametrize(
    ("degrees", "state"), [(40_000, "nominal"), (85_000, "passive"), (96_000, "hot"), (101_000, "critical")]
)
def test_BE3_the_thermal_state_is_the_hottest_trip_point_that_was_passed(tmp_path, degrees, state):
    zone(tmp_path, "thermal_zone0", 30_000, critical=100_000)
    zone(tmp_path, "thermal_zone1", degrees, passive=85_000, hot=95_000, critical=100_000, active=0)
    assert machine.thermal(tmp_path) == (state, degrees / 1000)


def test_a_machine_that_tells_nothing_of_heat_is_unknown(tmp_path):
    assert machine.thermal(tmp_path / "none") == ("unknown", None)
    zone(tmp_path, "thermal_zone0", 27_800)
    zone(tmp_path, "thermal_zone1", -274_000, critical=100_000)  # broken
    assert machine.thermal(tmp_path) == ("unknown", 27.8)


def test_energy_is_that_of_all_packages_also_over_a_counters_end(tmp_path):
    def counters(*values: int) -> None:
        for i, value in enumerate(values):
            folder = tmp_path / f"intel-rapl:{i}"
            folder.mkdir(exist_ok=True)
            (folder / "energy_uj").write_text(str(value))
            (folder / "max_energy_range_uj").write_text("1000000000")
            (tmp_path / f"intel-rapl:{i}:0").mkdir(exist_ok=True)  # a core's part of the package
            (tmp_path / f"intel-rapl:{i}:0" / "energy_uj").write_text("77")

    counters(5_000_000, 999_000_000)
    meter = machine.EnergyMeter(tmp_path)
    counters(7_000_000, 1_000_000)
    assert meter.reason is None and meter.joules() == pytest.approx(4.0)


def test_without_energy_counters_it_says_so(tmp_path):
    meter = machine.EnergyMeter(tmp_path / "none")
    assert meter.joules() is None and "no energy counters" in meter.reason


def test_a_bundle_that_does_not_run_here_is_refused_with_the_remedy(tmp_path, monkeypatch):
    phones = shutil.copytree(shipped_bundle(), tmp_path / "phones")
    about = json.loads((phones / "manifest.json").read_text("utf-8")) | {"backend": "vulkan"}
    (phones / "manifest.json").write_text(json.dumps(about), "utf-8")
    monkeypatch.setattr(run, "cold_ms", lambda *_: pytest.fail("a process was started in vain"))
    with pytest.raises(
        MobileBilayerError, match=r"phones is made for the backend 'vulkan'.*Here, run the student's bundle for xnnpack"
    ):
        run_benchmark(phones, SHORT)


def test_a_load_that_fails_in_a_process_of_its_own_says_why(tmp_path):
    with pytest.raises(MobileBilayerError, match=r"in a process of its own \(.*none does not exist"):
        cold_ms(tmp_path / "none", 1)


@pytest.fixture
def report(tmp_path):
    """What `evaluate fidelity --json` writes, as far as it is read."""

    def row(made_by: str, lpips: float | None) -> dict:
        return {"made_by": made_by, "lost": 0, "lpips": {"mean": lpips, "low": 0.0, "high": 1.0}}

    rows = {
        "static photo": row("", 0.1),
        "S int8": row(bundle_title(shipped_bundle()), 0.08),
        "teacher": row("teacher, 9 steps", 0.083),
    }
    path = tmp_path / "fidelity.json"

    def write(**changed) -> Path:
        path.write_text(json.dumps({"pairs": 108, "people": 21, "methods": rows} | changed))
        return path

    return write


def test_fidelity_is_the_row_of_this_bundle_beside_the_teachers(report):
    found = read_fidelity(report(), Bundle.open())
    assert (found.method, found.pairs, found.people) == ("S int8", 108, 21)
    assert found.student == {"lpips": 0.08} and found.teacher == {"lpips": 0.083}


def test_another_bundle_of_the_same_name_and_student_is_not_taken_for_this_one(report, tmp_path):
    """As one of them in another precision."""
    other = shutil.copytree(shipped_bundle(), tmp_path / "other")
    (other / "manifest.json").write_text((other / "manifest.json").read_text("utf-8") + "\n", "utf-8")
    with pytest.raises(
        MobileBilayerError, match=r"has no row of the bundle student-S-256-int8-xnnpack, \w{12}, but of "
    ):
        read_fidelity(report(), Bundle.open(other))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"methods": {}}, "has no row of the bundle student-S"),
        ({"methods": 3}, "no report of fidelity"),
        ({"pairs": None}, "no report of fidelity"),
    ],
)
def test_a_report_without_this_bundle_is_refused(report, change, words):
    with pytest.raises(MobileBilayerError, match=words):
        read_fidelity(report(**change), Bundle.open())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("none", "none"),
        ("--seconds 0", "seconds is 0.0"),
        ("--seconds nan", "seconds is nan"),
        ("--repeats 0", "repeats is 0"),
        ("--threads 0", "threads is 0; it must be in 1..256"),
        ("--driving none.mp4", "none.mp4 does not exist"),
        ("--driving none.track", "none.track does not exist"),
        ("--fidelity none.json", "none.json does not exist"),
        ("-o result.txt", "must end in .json"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(command_line, tmp_path, monkeypatch, line, words):
    monkeypatch.chdir(tmp_path)
    code, out, err = command_line(f"benchmark run {line}")
    assert code == 2 and out == "" and words in err and err.startswith("error: ") and err.count("\n") == 1
    assert not list(tmp_path.iterdir())
