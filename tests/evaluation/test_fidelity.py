import json
import os

import numpy as np
import pytest
import torch

pytest.importorskip("torchmetrics", reason="LPIPS takes its heads from torchmetrics")

from mobile_bilayer import Bundle
from mobile_bilayer.dataset.pairs import load_clips
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.evaluation.fidelity import (
    LABEL_PX,
    ClipValues,
    Fidelity,
    Settings,
    chosen_frames,
    evaluate_fidelity,
    interval,
)
from mobile_bilayer.evaluation.methods import student_method
from mobile_bilayer.evaluation.metrics import FACE_METRICS, PART_METRICS, PIXEL_METRICS

needs_weights = pytest.mark.skipif(
    not os.environ.get("MOBILE_BILAYER_MODELS"), reason="MOBILE_BILAYER_MODELS names no folder with the models"
)


def black(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """A method that shows nothing."""
    return torch.full((len(batch["points"]), 3, 256, 256), -1.0)


def perfect(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """A method that cheats."""
    return batch["target"] * 2 - 1


def test_frames_are_spread_over_the_clip_and_leave_out_the_source(tmp_path, write_clip):
    write_clip(tmp_path / "a.safetensors", count=9)
    assert chosen_frames(load_clips(tmp_path)[0], 4) == [2, 4, 6, 8]


@needs_weights
def test_a_clip_that_does_not_move_costs_the_static_photo_and_the_warp_nothing(tmp_path, write_clip):
    """The means are of what is compared: with equal frames everything but the student's int8 noise is zero."""
    path = write_clip(tmp_path / "a.safetensors", count=4)
    from safetensors.numpy import load_file, save_file

    tensors = {name: np.repeat(value[:1], 4, 0) for name, value in load_file(path).items()}
    save_file(tensors, path, {"identity": "anna", "licence": "none", "photos": "0"})
    result = evaluate_fidelity(tmp_path, {"student": student_method(Bundle.open())}, targets=2, quick=True, frames=0)
    assert (result.pairs, result.people) == (2, 1)
    assert list(result.table) == ["static photo", "landmark warp", "student"]
    for metric in ("l1", "mouth_and_eyes", "lpips"):
        assert result.table["static photo"][metric] == pytest.approx(0, abs=1e-6)
        assert result.table["landmark warp"][metric] == pytest.approx(0, abs=2e-3)
        assert 0 < result.table["student"][metric] < 0.3
    assert result.table["static photo"]["ssim"] == pytest.approx(1, abs=1e-6)
    assert result.table["static photo"]["psnr"] == 100
    assert result.table["landmark warp"]["ssim"] > 0.99 > result.table["student"]["ssim"]


@needs_weights
def test_a_moving_mouth_costs_the_static_photo_more_than_the_warp(tmp_path, write_clip):
    write_clip(tmp_path / "a.safetensors", count=6)
    result = evaluate_fidelity(tmp_path, {}, targets=2, quick=True, frames=0)
    static, warp = (result.table[name]["mouth_and_eyes"] for name in ("static photo", "landmark warp"))
    assert static > 1.2 * warp > 0


@needs_weights
def test_a_method_is_measured_by_what_it_renders_and_shown_in_its_column(tmp_path, write_clip):
    for name in ("anna", "ben"):
        write_clip(tmp_path / f"{name}.safetensors", name)
    result = evaluate_fidelity(tmp_path, {"black": black, "perfect": perfect}, targets=2, quick=True, frames=0)
    assert list(result.table) == ["static photo", "landmark warp", "black", "perfect"]
    assert list(result.table["black"]) == [*PIXEL_METRICS, "opened_mouth", "mouth_contrast"]  # no eye shuts
    assert result.table["perfect"]["l1"] == 0 and result.table["perfect"]["psnr"] == 100
    # Source, driver, warp, black, perfect, and the error of the last: none.
    assert result.sheet.shape == (LABEL_PX + 2 * 256, 6 * 256, 3) and result.sheet.dtype == np.uint8
    line = result.sheet[LABEL_PX : LABEL_PX + 256].reshape(256, 6, 256, 3).swapaxes(0, 1)
    assert (line[1] == line[4]).all() and not (line[1] == line[0]).all()
    assert not line[3].any() and not line[5].any()
    assert all((label == 0).any() and (label == 255).any() for label in np.split(result.sheet[:LABEL_PX], 6, 1))


def test_a_number_of_targets_below_one_is_refused(tmp_path):
    with pytest.raises(MobileBilayerError, match="0 targets"):
        evaluate_fidelity(tmp_path, {}, targets=0)


def test_an_interval_is_of_people_and_not_of_pairs():
    """Two people, each always alike: means can only be 0, 0.5 and 1, whatever number of pairs there are."""
    values, people = np.array([0.0] * 50 + [1.0] * 50), np.array(["anna"] * 50 + ["ben"] * 50)
    assert interval(values, people) == (0, 1)
    assert interval(values, np.arange(100).astype(str)) == (  # 0.5 ± 1.96 * sqrt(0.25 / 100)
        pytest.approx(0.402, abs=0.02),
        pytest.approx(0.598, abs=0.02),
    )
    assert interval(values[:50] + 3, people[:50]) == (3, 3)
    assert np.isnan(interval(values[:0], people[:0])).all()


def test_differences_are_taken_pair_by_pair_beside_the_warp_and_the_last_method():
    """Each pair's error is another, and B's always 0.1 more than A's: the means' intervals overlap, the difference has none."""
    nan, rng = np.nan, np.random.default_rng(1)
    clips = []
    for i in range(12):
        warp = rng.uniform(1, 9, 2)
        values = {"static photo": warp, "landmark warp": warp, "A": warp - 0.3, "B": warp - 0.2}
        faces = {m: np.array([1.0, 2.0]) + 0.5 * (m == "B") for m in values}
        faces["A"][0] = nan if i else 1.0  # a face is lost: that pair is left out of what A is compared in
        others = dict.fromkeys(PIXEL_METRICS | PART_METRICS | FACE_METRICS, np.zeros(2))
        of_methods = {m: others | {"l1": v, "psnr": -v, "keypoints": faces[m]} for m, v in values.items()}
        clips.append(ClipValues(str(i), f"person {i}", [1, 2], np.full(2, True), of_methods))
    result = Fidelity(Settings("prepared", 2, True, False), clips, np.zeros((1, 1, 3), np.uint8))
    assert {reference: list(rows) for reference, rows in result.beside.items()} == {"landmark warp": ["A", "B"], "B": ["landmark warp", "A"]}
    assert result.beside["landmark warp"]["A"]["l1"] == pytest.approx((-0.3, -0.3, -0.3))
    assert result.beside["B"]["A"]["l1"] == pytest.approx((-0.1, -0.1, -0.1))
    assert result.beside["B"]["A"]["psnr"] == pytest.approx((0.1, 0.1, 0.1))
    assert result.beside["B"]["A"]["keypoints"] == pytest.approx((-0.5, -0.5, -0.5))
    assert result.intervals["A"]["l1"][1] > result.intervals["B"]["l1"][0]


def measured_by_hand() -> Fidelity:
    """Two clips of one method; in the first a render is lost, in the second a real face and another render."""

    def values(**of_faces: list[float]) -> dict:
        return {"some": {name: np.array(of_faces.get(name, [1.0, 2.0])) for name in PIXEL_METRICS | PART_METRICS | FACE_METRICS}}

    nan = np.nan
    clips = [
        ClipValues(
            "a", "anna", [1, 2], np.array([True, True]),
            values(keypoints=[4.0, nan], identity=[0.5, nan], opened_mouth=[nan, 0.5], mouth_contrast=[nan, 0.1], shut_eyes=[nan, nan]),
        ),
        ClipValues(
            "b", "ben", [1, 2], np.array([True, False]),
            values(keypoints=[nan, nan], identity=[nan, nan], opened_mouth=[0.25, 0.75], mouth_contrast=[0.4, 0.4], shut_eyes=[nan, nan]),
        ),
    ]
    return Fidelity(Settings("prepared", 2, True, False), clips, np.zeros((1, 1, 3), np.uint8))


def test_lost_faces_are_counted_and_the_others_averaged(tmp_path):
    result = measured_by_hand()
    assert result.lost == {"some": 2} and result.targets_lost == 1
    table = result.table["some"]
    assert "shut_eyes" not in table  # in none of the pairs
    assert (result.count("opened_mouth"), result.count("l1")) == (3, 4)
    of_mouths = {"opened_mouth": 0.5, "mouth_contrast": pytest.approx(0.3)}
    assert table == {"keypoints": 4.0, "identity": 0.5} | of_mouths | dict.fromkeys(PIXEL_METRICS, 1.5)


def test_a_render_that_is_not_a_number_is_not_passed_over():
    result = measured_by_hand()
    result.clips[0].values["some"]["l1"][1] = np.nan
    assert np.isnan(result.table["some"]["l1"])


def test_the_report_has_every_number_and_null_where_there_is_none(tmp_path):
    path = tmp_path / "fidelity.json"
    measured_by_hand().save(path, {"some": "a network"})
    assert [file.name for file in tmp_path.iterdir()] == ["fidelity.json"]  # nothing is left aside

    def refuse(word: str):
        raise AssertionError(f"{word} is no JSON")

    report = json.loads(path.read_text("utf-8"), parse_constant=refuse)
    assert report["settings"]["targets"] == 2 and report["settings"]["prepared"] == "prepared"
    assert {name: about["better"] for name, about in report["metrics"].items()} == {
        "l1": "lower", "mouth_and_eyes": "lower", "lpips": "lower", "ssim": "higher", "psnr": "higher",
        "opened_mouth": "lower", "mouth_contrast": "higher", "keypoints": "lower", "identity": "lower",
    }  # fmt: skip
    assert (report["clips"], report["people"], report["pairs"], report["targets_lost"]) == (2, 2, 4, 1)
    row = report["methods"]["some"]
    assert row["made_by"] == "a network" and row["lost"] == 2
    assert row["l1"] == {"mean": 1.5, "low": 1.5, "high": 1.5} and row["keypoints"]["mean"] == 4
    assert [clip["identity"] for clip in report["per_clip"]] == ["anna", "ben"]
    assert report["per_clip"][0]["values"]["some"]["keypoints"] == [4, None]
    assert report["per_clip"][1]["found"] == [True, False] and report["per_clip"][1]["frames"] == [1, 2]


def test_too_few_frames_to_tremble_are_refused(tmp_path):
    with pytest.raises(MobileBilayerError, match="2 frames behind each other"):
        evaluate_fidelity(tmp_path, {}, frames=2)


def late(batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """A method that flickers: every second frame is a fifth brighter than black."""
    out = black(batch)
    out[1::2] = -0.6
    return out


@needs_weights
def test_steadiness_is_measured_on_frames_behind_each_other_and_in_steps_between_them(tmp_path, write_clip):
    write_clip(tmp_path / "a.safetensors", count=6)
    write_clip(tmp_path / "b.safetensors", "ben", count=2, shots=np.array([0, 1]))  # none follows another
    shown = []
    result = evaluate_fidelity(tmp_path, {"late": late}, targets=1, quick=True, frames=3, on_clip=shown.append)
    assert [clip.consecutive for clip in result.clips] == [[1, 2, 3], [0]] and not result.clips[1].steadiness
    assert [len(seen.real) for seen in shown] == [3, 0]
    assert {name: len(frames) for name, frames in shown[0].moving.items()} == dict.fromkeys(result.methods, 9)
    assert result.metrics == [*PIXEL_METRICS, "flicker", "clip_flicker", "opened_mouth", "mouth_contrast"]
    flickers = {name: row["flicker"] for name, row in result.table.items()}
    assert flickers["static photo"] == 0 and flickers["late"] == pytest.approx(51)  # of 255, back and forth
    assert 0 < flickers["landmark warp"] < 5
    assert result.table["late"]["clip_flicker"] == 0  # each fourth frame alone is steady
    assert result.real == {"clip_flicker": result.clips[0].steadiness["real frames"]["clip_flicker"]}
    assert result.intervals["late"]["flicker"] == (pytest.approx(51), pytest.approx(51))
    result.save(tmp_path / "fidelity.json")
    report = json.loads((tmp_path / "fidelity.json").read_text("utf-8"))
    assert report["settings"]["frames"] == 3 and report["real_frames"]["clip_flicker"] > 0
    assert report["per_clip"][0]["consecutive"] == [1, 2, 3]
    assert report["per_clip"][0]["steadiness"]["late"]["flicker"] == pytest.approx(51)
    assert report["methods"]["late"]["flicker"]["mean"] == pytest.approx(51)
    assert report["metrics"]["clip_flicker"]["better"] == "real"
    beside = report["beside"]["landmark warp"]["late"]
    assert beside["flicker"]["mean"] == pytest.approx(51 - flickers["landmark warp"], abs=1e-3) and "clip_flicker" not in beside


@needs_weights
def test_faces_are_looked_for_in_renders_and_targets(tmp_path, write_portrait, write_clip):
    """A portrait that moves by 6 pixels in one clip and not in the other, and a clip in which nobody is."""
    pytest.importorskip("dlib", reason="knowing faces again needs mobile-bilayer[evaluation]")
    write_portrait(tmp_path / "a.safetensors", "astronaut", (0, 0, 6))
    write_clip(tmp_path / "b.safetensors", count=3, frames=np.full((3, 320, 320, 3), 128, np.uint8))
    result = evaluate_fidelity(tmp_path, {"black": black, "perfect": perfect}, targets=2, frames=0)
    assert result.lost == {"static photo": 0, "landmark warp": 0, "black": 2, "perfect": 0}
    assert result.targets_lost == 2
    still, moved = result.clips[0].values["static photo"]["keypoints"]
    assert still == pytest.approx(0, abs=1e-3) and 6 < moved < 14  # 6 of some 60 pixels between the eyes
    assert result.table["static photo"]["keypoints"] == pytest.approx((still + moved) / 2)
    assert result.table["landmark warp"]["keypoints"] < 0.3 * (still + moved) / 2
    assert result.table["perfect"]["keypoints"] == 0 and result.table["perfect"]["identity"] == 0
    assert np.isnan(result.table["black"]["keypoints"]) and np.isnan(result.table["black"]["identity"])
    assert 0 < result.table["static photo"]["identity"] < 0.3
