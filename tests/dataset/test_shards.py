"""Clips in tars: what goes in comes out, and what is damaged is named."""

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mobile_bilayer.dataset import shards
from mobile_bilayer.dataset.pairs import load_clips
from mobile_bilayer.dataset.shards import (
    encode_clip,
    encode_frame,
    read_contents,
    read_entry,
    read_frame,
    read_index,
    write_tar,
)
from mobile_bilayer.errors import MobileBilayerError

# Dots, an escape, and more than fits into a tar's header.
NAMES = ("anna", "talk.1", "talk.2", "100%25", "Zoë " + 26 * "long ")
FACTS = {"identity": "anna", "licence": "CC0", "photos": "1"}


@pytest.fixture
def tar(tmp_path, write_clip) -> Path:
    """clips.tar, and a folder of the same clips in files of their own."""
    (tmp_path / "alone").mkdir()
    clips = [
        write_clip(tmp_path / "alone" / f"{name}.safetensors", f"who {i}", count=2 + i, encoded=True)
        for i, name in enumerate(NAMES)
    ]
    write_tar(tmp_path / "clips.tar", clips, {"wall": "fewer than two frames with a face"})
    return tmp_path / "clips.tar"


def test_what_goes_into_a_tar_comes_out_of_it(tar):
    entries, left_out = read_index(tar)
    assert left_out == {"wall": "fewer than two frames with a face"}
    assert [(e.name, e.identity, e.frames) for e in entries] == [
        (name, f"who {i}", 2 + i) for i, name in enumerate(NAMES)
    ]
    for entry in entries:
        alone = read_entry(tar.parent / "alone" / f"{entry.name}.safetensors")
        got, want = read_contents(entry), read_contents(alone)
        np.testing.assert_array_equal(got.landmarks, want.landmarks)
        np.testing.assert_array_equal(got.inside, want.inside)
        for index in range(entry.frames):
            for a, b in zip(read_frame(entry, got, index), read_frame(alone, want, index), strict=True):
                np.testing.assert_array_equal(a, b)


def test_a_tar_reads_as_tars_do_and_each_clip_is_a_sample_of_its_own(tar):
    entries, _ = read_index(tar)
    with tarfile.open(tar) as file:
        first, *members = file.getmembers()
        # WebDataset passes over __*__; what it calls a sample's key ends at the first dot, the rest is the extension.
        assert first.name == "__index__" and [row["name"] for row in json.load(file.extractfile(first))["clips"]]
        keys = [member.name.split(".", 1) for member in members]
        assert len({key for key, _ in keys}) == len(NAMES) and {ending for _, ending in keys} == {"safetensors"}
        for entry, member in zip(entries, members, strict=True):
            assert (entry.offset, entry.size) == (member.offset_data, member.size)
            alone = tar.parent / "alone" / f"{entry.name}.safetensors"
            assert file.extractfile(member).read() == alone.read_bytes()


def test_the_same_clips_make_the_same_tar(tar):
    clips = [tar.parent / "alone" / f"{name}.safetensors" for name in NAMES]
    write_tar(tar.with_name("again.tar"), clips, {"wall": "fewer than two frames with a face"})
    assert tar.with_name("again.tar").read_bytes() == tar.read_bytes()


def test_one_frame_is_read_without_its_neighbours(tar, monkeypatch):
    entry = read_index(tar)[0][2]
    contents, size, seen = read_contents(entry), tar.stat().st_size, []
    read = shards._read
    count = lambda path, *spans: seen.extend(stop - start for start, stop in spans) or read(path, *spans)  # noqa: E731
    monkeypatch.setattr(shards, "_read", count)
    read_frame(entry, contents, 1)
    assert seen == [contents.frames[1, 1] - contents.frames[1, 0], contents.alphas[1, 1] - contents.alphas[1, 0]]
    assert sum(seen) < size / 10


def test_colours_are_kept_nearly_and_alphas_exactly(tmp_path):
    x, y = np.meshgrid(np.arange(320), np.arange(320))
    ramps = np.stack([x // 2, y // 2, 255 - x // 2], -1).astype(np.uint8)
    red = np.full((320, 320, 3), (250, 20, 10), np.uint8)
    red[:, 160:] = (10, 20, 250)  # an edge between colours: it would bleed if colours had half the resolution
    alpha = np.random.default_rng(0).integers(0, 256, (160, 160), np.uint8)
    pictures = [encode_frame(rgb, alpha) for rgb in (ramps, red)]
    path = tmp_path / "anna.safetensors"
    path.write_bytes(encode_clip(pictures, np.zeros((2, 478, 3)), np.zeros((2, 4)), FACTS))
    entry = read_entry(path)
    assert (entry.name, entry.identity, entry.licence, entry.photos, entry.frames) == ("anna", "anna", "CC0", True, 2)
    for index, want in enumerate((ramps, red)):
        rgb, kept = read_frame(entry, read_contents(entry), index)
        assert np.abs(rgb.astype(int) - want).max() <= 6
        np.testing.assert_array_equal(kept, alpha)


def test_pixels_and_pictures_are_both_read(tmp_path, write_clip):
    both = [read_entry(write_clip(tmp_path / f"{i}.safetensors", encoded=bool(i))) for i in range(2)]
    assert both[1].size < both[0].size / 5
    pixels, pictures = (read_contents(entry) for entry in both)
    np.testing.assert_array_equal(pixels.landmarks, pictures.landmarks)
    written = load_file(both[0].path)
    for index in (0, 5):
        rgb, alpha = read_frame(both[0], pixels, index)
        np.testing.assert_array_equal(rgb, written["frames"][index])
        np.testing.assert_array_equal(alpha, written["alphas"][index])
        lossy, kept = read_frame(both[1], pictures, index)
        assert np.abs(lossy.astype(int) - rgb).mean() < 2
        np.testing.assert_array_equal(kept, alpha)


@pytest.mark.parametrize("part", [0, 100, 700, 0.3, 0.9])
def test_a_tar_that_is_cut_off_is_named(tar, part):
    whole = tar.read_bytes()
    tar.write_bytes(whole[: part if isinstance(part, int) else int(part * len(whole))])
    with pytest.raises(MobileBilayerError, match=r"clips\.tar.*[Dd]elete it") as told:
        load_clips(tar.parent)
    if part == 0.9:  # the index is whole, and says which clip is the first that isn't
        assert NAMES[-1] in str(told.value)


def test_a_tar_from_elsewhere_is_named(tmp_path):
    (tmp_path / "picture.jpg").write_bytes(b"any")
    with tarfile.open(tmp_path / "photos.tar", "w") as file:
        file.add(tmp_path / "picture.jpg", "picture.jpg")
    with pytest.raises(MobileBilayerError, match=r"photos\.tar.*__index__"):
        load_clips(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda index: index.update(format=2),
        lambda index: index.pop("left_out"),
        lambda index: index["clips"][0].pop("identity"),
        lambda index: index["clips"][0].update(offset="0"),
        lambda index: index["clips"].append(7),
    ],
)
def test_an_index_that_says_something_else_is_refused(tmp_path, write_clip, monkeypatch, change):
    clip = write_clip(tmp_path / "anna.safetensors", encoded=True)
    dumps = json.dumps

    def changed(index: dict, **options) -> str:
        change(index)
        return dumps(index, **options)

    with monkeypatch.context() as patch:
        patch.setattr(shards.json, "dumps", changed)
        write_tar(tmp_path / "clips.tar", [clip], {})
    with pytest.raises(MobileBilayerError, match=r"clips\.tar"):
        read_index(tmp_path / "clips.tar")


@pytest.mark.parametrize("where", [4, 100, 0.5])  # the header's length, the header, pictures
def test_a_damaged_clip_of_a_tar_is_named_with_its_tar(tar, where):
    entries, _ = read_index(tar)
    with tar.open("r+b") as file:
        file.seek(entries[1].offset + (where if isinstance(where, int) else int(where * entries[1].size)))
        file.write(40_000 * b"?" if where == 0.5 else b"\xff???")
    broken = load_clips(tar.parent)[1]
    with pytest.raises(MobileBilayerError, match=r"clips\.tar.*clip talk\.1"):
        [broken.frame(index) for index in range(len(broken))]
    load_clips(tar.parent)[0].frame(0)  # the others can still be read


def test_a_clip_with_other_frames_than_the_index_says_is_named(tar, write_clip):
    entry = read_index(tar)[0][1]
    shorter = write_clip(tar.with_name("shorter"), count=2, encoded=True).read_bytes()
    with tar.open("r+b") as file:
        file.seek(entry.offset)
        file.write(shorter)
    with pytest.raises(MobileBilayerError, match=r"clip talk\.1: it has 2 frames, and by the index 3"):
        read_contents(entry)


@pytest.mark.parametrize("ends", [[10, 5], [0, 10], [5, 10**6]])
def test_pictures_that_end_elsewhere_are_refused(tmp_path, write_clip, ends):
    path = write_clip(tmp_path / "anna.safetensors", count=2, encoded=True)
    save_file(load_file(path) | {"frame_ends": np.array(ends)}, path, FACTS)
    with pytest.raises(MobileBilayerError, match=r"anna\.safetensors.*frames"):
        load_clips(tmp_path)[0].frame(0)


def test_a_picture_of_another_size_is_refused(tmp_path):
    small = np.zeros((200, 200, 3), np.uint8)
    content = encode_clip(2 * [encode_frame(small, small[..., 0])], np.zeros((2, 478, 3)), np.zeros((2, 4)), FACTS)
    (tmp_path / "anna.safetensors").write_bytes(content)
    entry = read_entry(tmp_path / "anna.safetensors")
    with pytest.raises(MobileBilayerError, match=r"anna\.safetensors.*frame 1"):
        read_frame(entry, read_contents(entry), 1)
