import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import mobile_bilayer
from mobile_bilayer import Bundle
from mobile_bilayer.dataset.pairs import NO_AUGMENTATION, load_clips, make_example, to_tensors
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.evaluation.methods import open_students, static_photo, student_method, warp_method
from mobile_bilayer.runtime.bundle import bundle_sha256
from mobile_bilayer.student.network import SIZES, Student
from mobile_bilayer.student.weights import load_student, save_student

ASSETS = Path(mobile_bilayer.__file__).parent / "assets"


@pytest.fixture
def batch(tmp_path, write_clip):
    clip = load_clips(write_clip(tmp_path / "a.safetensors", count=4).parent)[0]
    example = make_example(clip, 0, [1, 3], NO_AUGMENTATION, np.random.default_rng(0))
    return to_tensors({name: torch.from_numpy(value)[None] for name, value in example.items()})


def test_methods_need_nothing_of_the_driver_but_its_points(batch):
    """What a method could see of the real frame it might show."""
    given = {name: batch[name] for name in ("image", "source_points", "points")}
    for method in (static_photo, warp_method, student_method(Student(SIZES["S"]).eval())):
        assert method(given).shape == (2, 3, 256, 256)


def test_a_float_student_is_drawn_as_its_bundle_is(batch):
    """One was exported from the other."""
    drawn = student_method(load_student(ASSETS / "student-S.safetensors")[0])(batch)
    bundled = student_method(Bundle.open())(batch)
    assert 0 < (drawn - bundled).abs().mean() < 0.01
    assert (bundled - static_photo(batch)).abs().mean() > 0.05


@pytest.fixture
def weights(tmp_path):
    """weights("runs/a/student.safetensors", size="S", **config): a file of random ones."""

    def write(place: str, size: str = "S", **config) -> Path:
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        save_student(Student(replace(SIZES[size], **config)), path, {"steps": 3})
        return path

    return write


def test_rows_are_called_by_size_and_precision(weights):
    paths = [None, *(weights(f"{size}.safetensors", size) for size in SIZES)]
    paths += [weights("odd.safetensors", features=5)]
    names = [student.name for student in open_students(paths)]
    assert names == ["S int8", *(f"{size} float" for size in SIZES), "odd float"]


def test_the_priors_numbers_make_no_other_size(weights):
    (student,) = open_students([weights("a.safetensors", sigma_mouth=0.0)])
    assert student.name == "S float" and student.made_by.endswith("a.safetensors, 3 steps")


def test_what_has_one_name_is_told_apart_by_where_paths_differ(weights):
    runs = [weights(f"runs/{name}/student.safetensors") for name in ("first", "second")]
    assert [s.name for s in open_students(runs)] == ["S float first", "S float second"]
    files = [weights("runs/first/one.safetensors"), weights("runs/first/two.safetensors")]
    assert [s.name for s in open_students(files)] == ["S float one", "S float two"]
    assert [s.name for s in open_students([None, *files, ASSETS / "student-S-256-int8-xnnpack"])] == [
        "S int8 shipped",
        "S float one",
        "S float two",
        "S int8 student-S-256-int8-xnnpack",
    ]


def test_where_no_part_of_the_paths_tells_all_apart_their_ends_do(weights):
    files = [weights(f"runs/{place}.safetensors") for place in ("first/one", "first/two", "second/one")]
    students = open_students(files)
    assert [s.name for s in students] == ["S float first/one", "S float first/two", "S float second/one"]
    files = [
        weights(f"{day}/{run}/student.safetensors") for day in ("monday", "tuesday") for run in ("first", "second")
    ]
    made_by = [s.made_by for s in open_students(files)]
    assert made_by == [
        f"{day}/{run}/student.safetensors, 3 steps" for day in ("monday", "tuesday") for run in ("first", "second")
    ]


@pytest.fixture
def bundle_at(tmp_path):
    """bundle_at("a/my-bundle"): a copy of the shipped one, of another hash, its name as it was."""

    def write(place: str) -> Path:
        folder = shutil.copytree(ASSETS / "student-S-256-int8-xnnpack", tmp_path / place)
        (folder / "manifest.json").write_text(
            (folder / "manifest.json").read_text("utf-8") + "\n" * len(place), "utf-8"
        )
        return folder

    return write


def test_bundles_of_one_name_are_told_apart_by_folder_and_hash(bundle_at):
    bundles = [bundle_at(place) for place in ("first/my-bundle", "the-second/my-bundle")]
    students = open_students(bundles)
    assert [s.name for s in students] == ["S int8 first", "S int8 the-second"]
    assert [s.made_by for s in students] == [f"student-S-256-int8-xnnpack, {bundle_sha256(b)[:12]}" for b in bundles]
    assert students[0].made_by != students[1].made_by


def test_a_point_in_a_folders_name_is_part_of_it(bundle_at):
    assert [s.name for s in open_students([bundle_at("S-0.5"), bundle_at("S-0.75")])] == [
        "S int8 S-0.5",
        "S int8 S-0.75",
    ]


def test_one_student_twice_is_refused(weights):
    path = weights("runs/a.safetensors")
    with pytest.raises(MobileBilayerError, match="given twice"):
        open_students([path, path.parent / ".." / "runs" / "a.safetensors"])
