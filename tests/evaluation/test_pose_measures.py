"""Jitter, identity and apertures: by hand, on the samples, and through `mobile-bilayer evaluate pose`."""

import json
import os
from fractions import Fraction

import cv2
import numpy as np
import pytest

pytest.importorskip("torchmetrics", reason="measuring needs mobile-bilayer[evaluation]")
from mobile_bilayer import Avatar, Bundle, MobileBilayerError, Track
from mobile_bilayer.evaluation import pose as module
from mobile_bilayer.evaluation.metrics import Face
from mobile_bilayer.evaluation.pose import (
    SAME_PERSON,
    ClipJitter,
    PairValues,
    PoseReport,
    Settings,
    evaluate_pose,
    jitter,
)
from mobile_bilayer.samples import SAMPLES, sample_photo, sample_track

needs_model = pytest.mark.skipif(
    not os.environ.get("MOBILE_BILAYER_MODELS"), reason="MOBILE_BILAYER_MODELS names no folder with the models"
)


@pytest.fixture(scope="module")
def sources() -> dict[str, Avatar]:
    bundle = Bundle.open()
    return {name: bundle.avatar(*sample_photo(name)) for name in SAMPLES}


def part(frames: slice) -> Track:
    track = sample_track()
    return Track(
        track.landmarks[frames], track.times_s[frames], track.found[frames], track.rate, track.width, track.height
    )


@pytest.fixture(scope="module")
def clips() -> dict[str, Track]:
    return {"first.track": part(slice(0, 90)), "second.track": part(slice(90, 198))}


def face_100_px_between_the_eyes() -> np.ndarray:
    landmarks = np.zeros((478, 3))
    landmarks[33], landmarks[263] = (10, 20, 0), (70, 100, 0)
    return landmarks


def test_jitter_is_the_second_differences_root_mean_square_in_per_cent_of_the_eyes_distance():
    """All points go 1 px to and fro: second differences of 2 px, of 100."""
    swaying = np.stack([face_100_px_between_the_eyes() + [i % 2, 0, 9 * i] for i in range(8)])
    assert jitter(swaying) == pytest.approx(2.0)
    assert jitter(7 * swaying) == pytest.approx(2.0)
    steady = np.stack([face_100_px_between_the_eyes() + [3 * i, -i, 0] for i in range(8)])
    assert jitter(steady) == pytest.approx(0, abs=1e-9)  # steady motion is no jitter
    half = swaying.copy()
    half[:, ::2] = face_100_px_between_the_eyes()[::2]
    half[:, [33, 263]] = swaying[:, [33, 263]]
    assert jitter(half) == pytest.approx(2 * np.sqrt(240 / 478), rel=0.01)


def test_frames_without_a_face_are_no_jitter():
    landmarks = np.stack([face_100_px_between_the_eyes()] * 9)
    landmarks[4] += 50
    assert jitter(landmarks) > 10
    found = np.arange(9) != 4
    assert jitter(landmarks, found) == 0
    assert np.isnan(jitter(landmarks[:2])) and np.isnan(jitter(landmarks, np.zeros(9, bool)))


def test_the_shipped_driver_shakes_less_on_both_samples_than_as_tracked(sources, clips):
    report = evaluate_pose(clips, sources, drivers=1, frames=2, quick=True)
    assert [clip.name for clip in report.jitter] == list(clips)
    assert [clip.source for clip in report.jitter] == list(SAMPLES)
    for clip in report.jitter:
        assert clip.raw == pytest.approx(jitter(clips[clip.name].landmarks))
        assert 0.1 * clip.raw < clip.file < 0.7 * clip.raw
        assert clip.file < clip.live < 0.9 * clip.raw
    assert report.worst_ratios["file"] == max((c.file / c.raw, c.name) for c in report.jitter)
    assert report.sheet.shape == (3 * 160, 3 * 160, 3)  # photo, relative, absolute; drivers above
    assert np.isnan(report.table["relative"]["identity"])


class Looking:
    """In place of a detector: it finds in each render the landmarks that are handed in."""

    def __init__(self, found: list[np.ndarray | None]) -> None:
        self.found = iter(found)

    def look(self, _rgb: np.ndarray) -> Face | None:
        landmarks = next(self.found)
        return None if landmarks is None else Face(landmarks, np.full(128, 0.5))


def test_apertures_are_compared_by_ratio_and_identity_with_the_photo(sources, clips):
    avatar, driver = sources["astronaut"], module.driver_of(clips["second.track"], 12)
    assert len(driver.frames) == 12 and driver.frames[::11] == [0, 107] and 97 in driver.frames  # where he blinks
    avatar.neutral = driver.neutral
    asked = [128 * (avatar.move(motion) + 1) for motion in driver.motions]
    still = [128 * (avatar.source_landmarks[:, :2] + 1)] * 12
    photo, renders = Face(still[0], np.zeros(128)), [avatar.texture] * 12
    perfect = module.look(Looking(asked), avatar, photo, driver, renders)
    nothing = module.look(Looking(still), avatar, photo, driver, renders)
    assert perfect["eyes"].max() < 0.05 and perfect["lips"].max() < 0.06
    assert nothing["eyes"].max() > 0.5  # the driver blinks, the photo does not
    np.testing.assert_allclose(perfect["identity"], np.sqrt(128) * 0.5)
    lost = module.look(Looking([None, *asked[1:]]), avatar, photo, driver, renders)
    assert [np.isnan(lost[name]).tolist() for name in lost] == [[True] + [False] * 11] * 3


def pair(source: str, mode: str, identity: list[float]) -> PairValues:
    values = {"identity": np.array(identity), "eyes": np.full(len(identity), 0.1), "lips": np.full(len(identity), 0.2)}
    values["lips"][np.isnan(identity)] = values["eyes"][np.isnan(identity)] = np.nan
    return PairValues("talk", source, mode, list(range(len(identity))), values)


def test_the_table_and_the_report_say_what_was_measured(tmp_path):
    clips = [ClipJitter("a", "me", 9, 2.0, 1.0, 1.5), ClipJitter("b", "me", 9, 1.0, 0.2, 0.9)]
    pairs = [
        pair("me", "relative", [0.2, 0.4]),
        pair("you", "relative", [0.3, np.nan]),
        pair("me", "absolute", [0.5, 0.7]),
        pair("you", "absolute", [0.9, 0.5]),
    ]
    report = PoseReport(Settings(1, 2, 2, False), clips, pairs, np.zeros((2, 2, 3), np.uint8))
    assert report.worst_ratios == {"file": (0.5, "a"), "live": (0.9, "b")}
    assert report.mean_ratios == {"file": pytest.approx(0.35), "live": pytest.approx(0.825)}
    relative, absolute = report.table["relative"], report.table["absolute"]
    assert relative["identity"] == pytest.approx(0.3) and relative["same_person"] == 1 and relative["no_face"] == 1
    assert absolute["identity"] == pytest.approx(0.65) and absolute["same_person"] == 0.5 and SAME_PERSON == 0.6
    low, high = report.intervals["absolute"]["identity"]
    assert low == pytest.approx(0.6) and high == pytest.approx(0.7)
    report.save(tmp_path / "pose.json", "a bundle")
    saved = json.loads((tmp_path / "pose.json").read_text("utf-8"))
    assert saved["made_by"] == "a bundle" and saved["modes"]["absolute"]["same_person"] == 0.5
    assert saved["per_pair"][1]["values"]["identity"] == [0.3, None]
    assert saved["jitter"]["per_clip"][0] == {
        "name": "a", "source": "me", "frames": 9, "raw": 2.0, "file": 1.0, "live": 1.5,
    }  # fmt: skip


def test_what_can_not_be_measured_is_said(sources, clips, tmp_path):
    for change in ({"drivers": 0}, {"frames": 0}):
        with pytest.raises(MobileBilayerError, match="1 or more"):
            evaluate_pose(clips, sources, **change)
    with pytest.raises(MobileBilayerError, match="three frames"):
        evaluate_pose({"short.track": part(slice(0, 2))}, sources, quick=True)
    with pytest.raises(MobileBilayerError, match="is no folder"):
        module.load_drivers(tmp_path / "none")
    with pytest.raises(MobileBilayerError, match="has no videos or tracks"):
        module.load_drivers(tmp_path)


def test_a_track_of_one_pose_is_left_out_of_the_jitter(sources, clips):
    still = Track(
        np.repeat(sample_track().landmarks[:1], 9, 0), np.arange(9) / 25, np.ones(9, bool), Fraction(25), 384, 384
    )
    report = evaluate_pose({"still": still} | clips, sources, drivers=1, frames=1, quick=True)
    assert [clip.name for clip in report.jitter] == list(clips)


@pytest.fixture
def run(monkeypatch, command_line, tmp_path):
    """run("clips photos"): exit code, stdout and stderr of `evaluate pose`, in a folder with both."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "clips").mkdir()
    part(slice(80, 120)).save(tmp_path / "clips" / "talk.track")
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "me.png"), sample_photo("astronaut")[0][..., ::-1])
    (tmp_path / "empty").mkdir()

    return lambda options: command_line(f"evaluate pose {options}")


@needs_model
def test_the_command_prints_a_table_of_80_columns_and_writes_report_and_sheet(run, tmp_path):
    pytest.importorskip("dlib", reason="knowing faces again needs mobile-bilayer[evaluation]")
    code, out, err = run("clips photos --frames 3 --json pose.json --sheet sheet.png")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert max(map(len, lines[:-2])) <= 80 and lines[-2:] == ["pose.json", "sheet.png"] and "…" not in out
    assert "1 drivers on 1 photos, 3 frames each" in out and "jitter from files: 0." in out
    report = json.loads((tmp_path / "pose.json").read_text("utf-8"))
    for mode, row in report["modes"].items():
        (line,) = [line for line in lines if line.startswith(mode)]
        shown = line.removeprefix(mode).split()
        assert [float(v) for v in shown[:3]] == pytest.approx([row[k] for k in ("identity", "eyes", "lips")], abs=1e-3)
        assert shown[3] == f"{row['same_person']:.1%}" and shown[4] == f"{row['no_face']:.0f}"
    assert report["modes"]["relative"]["identity"] < min(0.6, report["modes"]["absolute"]["identity"])
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (2 * 160, 3 * 160, 3)


@needs_model
def test_quick_is_jitter_alone(run):
    code, out, err = run("clips photos --quick")
    assert (code, err) == (0, "")
    assert [line.split(":")[0] for line in out.splitlines()] == ["jitter from files", "jitter live"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("nowhere photos", "nowhere is no folder"),
        ("clips empty", "empty has no photos"),
        ("empty photos", "empty has no videos or tracks"),
        ("clips photos --json pose.txt", "must end in .json"),
        ("clips photos --bundle nowhere", "nowhere does not exist"),
        ("clips photos --frames 0", "0 frames"),
    ],
)
@needs_model
def test_bad_options_are_one_line(run, tmp_path, options, words):
    code, out, err = run(options)
    assert (code, out) == (2, "") and words in err and err.startswith("error: ") and err.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips", "empty", "photos"]
