"""The golden vectors: as committed, as written, and as a port would use them."""

import json
from pathlib import Path

import numpy as np
import pytest

from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.crop import head_crop
from mobile_bilayer.pose.golden import LEVELS, TOLERANCE, write_golden
from mobile_bilayer.pose.head import face_template, fit_head, network_points, put_together, take_apart
from mobile_bilayer.pose.retarget import Retargeter
from mobile_bilayer.pose.stabilizer import Stabilizer, stabilize

COMMITTED = Path(__file__).parents[2] / "golden"


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("golden") / "new"
    write_golden(folder)
    return folder


def read(name: str) -> dict:
    return json.loads((COMMITTED / name).read_text("utf-8"))


def cases(name: str) -> list[tuple[dict, dict]]:
    return [(case["inputs"], case["outputs"]) for case in read(name)["cases"]]


def assert_same(got, wanted, where: str) -> None:
    if isinstance(wanted, dict):
        assert got.keys() == wanted.keys(), where
        for name in wanted:
            assert_same(got[name], wanted[name], f"{where}.{name}")
    elif isinstance(wanted, list) and wanted and isinstance(wanted[0], (dict, str)):
        assert len(got) == len(wanted), where
        for i, (one, other) in enumerate(zip(got, wanted, strict=True)):
            assert_same(one, other, f"{where}[{i}]")
    elif isinstance(wanted, str):
        assert got == wanted, where
    else:
        np.testing.assert_allclose(np.array(got, float), np.array(wanted, float), atol=1e-5, rtol=0, err_msg=where)


def test_the_committed_vectors_are_those_that_the_command_writes(written):
    names = sorted(path.name for path in written.iterdir())
    assert names == sorted(path.name for path in COMMITTED.glob("*.json"))
    for name in names:
        assert_same(json.loads((written / name).read_text("utf-8")), read(name), name)


def test_they_are_few_enough_to_be_read_at_once():
    assert sum(path.stat().st_size for path in COMMITTED.glob("*.json")) < 500_000


def test_every_file_says_what_it_is_and_how_close_a_port_must_come():
    for path in COMMITTED.glob("*.json"):
        if path.name != "constants.json":
            content = read(path.name)
            assert content["function"] and content["says"] and content["cases"]
            of_pictures = path.name in ("cut.json", "background.json")
            assert content["tolerance"] == (LEVELS if of_pictures else TOLERANCE)


def test_what_a_port_reads_gives_what_it_must_give():
    """From the files alone, as Kotlin and Swift have them: inputs are rounded to six digits."""
    landmarks = [np.array(given["landmarks"]) for given, _ in cases("head.json")]
    for points, (_, wanted) in zip(landmarks, cases("head.json"), strict=True):
        motion = take_apart(points)
        np.testing.assert_allclose(motion.pose.scale, wanted["scale"], atol=TOLERANCE)
        np.testing.assert_allclose(motion.pose.rotation, wanted["rotation"], atol=TOLERANCE)
        np.testing.assert_allclose(motion.pose.shift, wanted["shift"], atol=TOLERANCE)
        np.testing.assert_allclose(motion.face[::10], wanted["face_every_tenth"], atol=TOLERANCE)
    for given, wanted in cases("head_crop.json"):
        crop = head_crop(np.array(given["landmarks"]))
        np.testing.assert_allclose(
            [crop.x_px, crop.y_px, crop.half_px], [wanted[k] for k in ("x_px", "y_px", "half_px")]
        )
    source = np.array(read("retarget.json")["source"])
    for given, wanted in cases("retarget.json"):
        got = Retargeter(source, landmarks[0], given["mode"])(landmarks[given["driver"]])
        np.testing.assert_allclose(got, wanted["keypoints"], atol=TOLERANCE)
    for given, wanted in cases("network_points.json"):
        np.testing.assert_allclose(network_points(np.array(given["keypoints"])), wanted["points"], atol=TOLERANCE)
    ((given, wanted),) = cases("stabilizer.json")
    frames, times_s = np.array(given["landmarks"]), np.array(given["times_s"])
    stabilizer = Stabilizer()
    live = [put_together(stabilizer(take_apart(p), t)) for p, t in zip(frames, times_s, strict=True)]
    np.testing.assert_allclose(np.stack(live)[:, ::3], wanted["live_every_third"], atol=TOLERANCE)
    file = [put_together(motion) for motion in stabilize(frames, times_s, np.ones(len(frames), bool))]
    np.testing.assert_allclose(np.stack(file)[:, ::3], wanted["file_every_third"], atol=TOLERANCE)


def test_the_constants_are_enough_to_fit_a_head_without_this_package():
    """Least squares by another way, of the template's rigid points as they are in the file."""
    constants = read("constants.json")
    rigid = np.array(constants["template_rigid"])
    template = np.array(constants["template_points"])[rigid]
    (given, wanted), *_ = cases("head.json")
    seen = np.array(given["landmarks"])[rigid]
    affine = np.linalg.lstsq(template - template.mean(0), seen - seen.mean(0), rcond=None)[0].T
    u, sizes, vt = np.linalg.svd(affine, full_matrices=False)
    np.testing.assert_allclose((u @ vt), wanted["rotation"][:2], atol=1e-4)
    assert sizes.mean() == pytest.approx(wanted["scale"], abs=1e-3)
    np.testing.assert_allclose(template, face_template().points[rigid], atol=1e-6)


def test_the_vectors_show_what_they_are_there_for():
    """A head that turns, lips that part, eyes that shut: in the files, not only in their names."""
    rest, turned, *_ = (fit_head(np.array(given["landmarks"])).rotation for given, _ in cases("head.json"))
    assert np.degrees(np.arccos((np.trace(rest.T @ turned) - 1) / 2)) > 8
    keypoints = [np.array(wanted["keypoints"]) for _, wanted in cases("retarget.json")]
    assert keypoints[2][14, 1] - keypoints[2][13, 1] > 3 * (keypoints[0][14, 1] - keypoints[0][13, 1])
    assert keypoints[3][145, 1] - keypoints[3][159, 1] < 0.1 * (keypoints[0][145, 1] - keypoints[0][159, 1])


def test_a_file_in_the_folders_place_is_refused_and_old_vectors_are_replaced(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(MobileBilayerError, match="is a file"):
        write_golden(tmp_path / "taken")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "head.json").write_text("older")
    (tmp_path / "old" / "mine.txt").write_text("kept")
    paths = write_golden(tmp_path / "old")
    assert json.loads((tmp_path / "old" / "head.json").read_text())["cases"]
    assert (tmp_path / "old" / "mine.txt").read_text() == "kept" and len(paths) == 13
