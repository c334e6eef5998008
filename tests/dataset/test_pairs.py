"""Pairs from prepared clips: what is drawn at a landmark must lie where the points say."""

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mobile_bilayer.dataset import pairs
from mobile_bilayer.dataset.pairs import (
    NO_AUGMENTATION,
    Augmentation,
    PairBatches,
    Pairs,
    PreparedClip,
    load_clips,
    make_example,
    mouth_and_eyes,
    to_tensors,
)
from mobile_bilayer.dataset.shards import write_tar
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.pose.crop import head_crop
from mobile_bilayer.pose.head import POINTS, TORSO_POINTS, mirrored_points, network_points
from mobile_bilayer.pose.landmarks import MESH

GEOMETRY = replace(Augmentation(), moved=1, gain=0)  # all that moves, nothing that changes colours
SHAPES = {
    "image": (256, 256, 3),
    "alpha": (128, 128),
    "source_points": (POINTS, 2),
    "source_keypoints": (68, 2),
    "target": (2, 256, 256, 3),
    "target_alpha": (2, 128, 128),
    "background": (2, 256, 256, 3),
    "points": (2, POINTS, 2),
    "keypoints": (2, 68, 2),
    "weight": (2, 256, 256),
}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def dots(landmarks: np.ndarray, landmark: int, side_px: int) -> np.ndarray:
    """(N, side, side) uint8, black but for a soft dot at one landmark. Pixel i's centre lies at i + 0.5."""
    centres = (np.arange(side_px) + 0.5) * 320 / side_px
    x, y = landmarks[:, landmark, 0, None, None], landmarks[:, landmark, 1, None, None]
    return np.rint(255 * np.exp(-((centres - x) ** 2 + (centres[:, None] - y) ** 2) / (2 * 5**2))).astype(np.uint8)


def middle_of(picture: np.ndarray) -> np.ndarray:
    """Where its brightness lies, xy of [-1, 1] across the picture."""
    bright = picture.astype(np.float64)
    if bright.ndim == 3:
        bright = bright[..., 0]
    centres = (np.arange(len(bright)) + 0.5) / len(bright) * 2 - 1
    return np.array([(bright * centres).sum(), (bright * centres[:, None]).sum()]) / bright.sum()


@pytest.fixture
def clip(tmp_path, write_clip) -> PreparedClip:
    return PreparedClip(write_clip(tmp_path / "anna.safetensors"))


def test_an_example_has_the_shapes_it_says(clip):
    example = make_example(clip, 0, [1, 2], Augmentation(), rng())
    assert {name: value.shape for name, value in example.items()} == SHAPES
    for name, value in example.items():
        assert value.dtype == (np.float32 if name.endswith("points") else np.uint8)


def test_without_augmentation_points_are_the_keypoints_of_the_sources_crop(clip):
    example = make_example(clip, 0, [3], NO_AUGMENTATION, rng())
    crop = head_crop(clip.landmarks[0])
    np.testing.assert_allclose(
        example["source_points"], network_points(crop.to_keypoints(clip.landmarks[0])), atol=1e-4
    )
    np.testing.assert_allclose(example["points"][0], network_points(crop.to_keypoints(clip.landmarks[3])), atol=1e-4)
    np.testing.assert_allclose(example["points"][0, -3:], TORSO_POINTS, atol=1e-4)


def test_without_augmentation_the_image_is_the_sources_crop(clip):
    example = make_example(clip, 0, [3], NO_AUGMENTATION, rng())
    crop = head_crop(clip.landmarks[0])
    want = crop.cut(clip.frame(0)[0]).astype(int)
    assert np.abs(example["image"] - want).mean() < 0.5  # two ways to round, and bilinear against cubic


@pytest.mark.parametrize("flip", [0, 1])
@pytest.mark.parametrize("augmentation", [NO_AUGMENTATION, GEOMETRY], ids=["still", "moved"])
def test_a_dot_at_a_landmark_lies_where_the_points_say(tmp_path, write_clip, augmentation, flip):
    place = MESH.index(33)  # the right eye's outer corner
    still = PreparedClip(write_clip(tmp_path / "clip.safetensors"))
    where, where_alpha = (dots(still.landmarks, MESH[place], side) for side in (320, 160))
    write_clip(tmp_path / "clip.safetensors", alphas=where_alpha, frames=where[..., None].repeat(3, -1))
    clip = PreparedClip(tmp_path / "clip.safetensors")
    seen = mirrored_points()[place] if flip else place  # a mirrored left eye is a right eye
    for seed in range(6):
        example = make_example(clip, seed % 3, [4, 5], replace(augmentation, flip=flip), rng(seed))
        pictures = [(example["image"], example["source_points"]), (example["alpha"], example["source_points"])]
        for t in range(2):
            pictures += [(example[name][t], example["points"][t]) for name in ("target", "target_alpha")]
        for picture, points in pictures:
            # 1/1000 of the frame is an eighth of a pixel at 256.
            np.testing.assert_allclose(middle_of(picture), points[seen], atol=0.002)


@pytest.mark.parametrize("flip", [0, 1])
def test_the_background_moves_with_the_camera(tmp_path, write_clip, flip):
    """A dot on the wall, with nobody there, is in the target and the background at one place."""
    where = np.zeros((6, 320, 320, 3), np.uint8)
    where[:, 60:80, 90:110] = 255
    nobody = np.zeros((6, 160, 160), np.uint8)
    clip = PreparedClip(write_clip(tmp_path / "clip.safetensors", alphas=nobody, frames=where))
    example = make_example(clip, 0, [4, 5], replace(GEOMETRY, flip=flip), rng(1))
    np.testing.assert_array_equal(example["background"], example["target"])
    assert not np.array_equal(example["target"][0], example["image"])


def test_colours_change_alike_in_source_target_and_background(tmp_path, write_clip):
    grey = np.full((6, 320, 320, 3), (90, 120, 150), np.uint8)
    clip = PreparedClip(write_clip(tmp_path / "clip.safetensors", frames=grey))
    seen = set()
    for seed in range(4):
        example = make_example(clip, 0, [1], Augmentation(), rng(seed))
        shown = np.concatenate([example[name].reshape(-1, 3) for name in ("image", "target", "background")])
        assert (shown == shown[0]).all()
        seen.add(tuple(shown[0].tolist()))
    assert len(seen) == 4


def test_padding_weighs_nothing_and_mouth_and_eyes_most(tmp_path, write_clip):
    inside = np.tile(np.array([40, 0, 320, 279], np.float32), (6, 1))
    clip = PreparedClip(write_clip(tmp_path / "clip.safetensors", inside=inside))
    crop = head_crop(clip.landmarks[0])
    weight = make_example(clip, 0, [0], NO_AUGMENTATION, rng())["weight"][0]
    assert set(np.unique(weight)) == {0, 10, 90}
    scale = 128 / crop.half_px
    left = (40 - crop.x_px) * scale + 128  # where the picture begins and ends in the crop
    bottom = (279 - crop.y_px) * scale + 128
    assert (weight[:, : int(left)] == 0).all() and (weight[int(np.ceil(bottom)) :] == 0).all()
    assert (weight[: int(bottom) - 1, int(np.ceil(left)) + 1 :] > 0).all()
    lips = ((crop.to_keypoints(clip.landmarks[0])[13, :2] + 1) * 128).astype(int)
    assert weight[lips[1], lips[0]] == 90 and weight[10, 128] == 10


def test_mouth_and_eyes_are_centred_on_their_landmarks():
    points = np.zeros((POINTS, 2), np.float32)
    points[:40] = 10 * [(-0.31, -0.31), (0.31, -0.31), (0.31, 0.31), (-0.31, 0.31)]  # lips, a square
    grown = mouth_and_eyes(points)
    rows, columns = np.nonzero(grown)
    # 0.31 * 128 px, grown by a quarter and 2 px, is 51.6 px about the middle, between pixels 127 and 128.
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (76, 179, 76, 179)


def test_flipping_twice_is_no_flip():
    twins = mirrored_points()
    np.testing.assert_array_equal(twins[twins], np.arange(POINTS))


def test_targets_are_never_the_source_and_mostly_far_from_it(clip, monkeypatch):
    chosen = []
    monkeypatch.setattr(pairs, "make_example", lambda _c, source, targets, *_: chosen.append((source, *targets)))
    made = Pairs([clip], 2, NO_AUGMENTATION, seed=0)
    for index in range(300):
        made[index]
    assert all(source not in targets for source, *targets in chosen)
    away = np.array([[np.abs(clip.pose[t] - clip.pose[s]).mean() for t in targets] for s, *targets in chosen])
    even = np.mean([np.abs(clip.pose[t] - clip.pose[s]).mean() for s in range(6) for t in range(6) if s != t])
    assert away.mean() > 1.05 * even


def test_a_pair_is_of_one_shot_unless_no_shot_has_two_frames(tmp_path, write_clip, monkeypatch):
    shots = np.array([0, 0, 0, 1, 1, 2])
    clip = PreparedClip(write_clip(tmp_path / "clip.safetensors", shots=shots))
    chosen = []
    monkeypatch.setattr(pairs, "make_example", lambda _c, source, targets, *_: chosen.append((source, *targets)))
    made = Pairs([clip], 2, NO_AUGMENTATION, seed=0)
    for index in range(100):
        made[index]
    assert all(shots[t] == shots[s] for s, *targets in chosen for t in targets)
    assert {s for s, *_ in chosen} == {0, 1, 2, 3, 4}  # the last has no other frame of its shot
    chosen.clear()
    made = Pairs([PreparedClip(write_clip(tmp_path / "cuts.safetensors", shots=np.arange(6)))], 2, NO_AUGMENTATION, seed=0)
    for index in range(100):
        made[index]
    assert len({s for s, *_ in chosen}) == 6 and all(s not in targets for s, *targets in chosen)


def test_a_blink_counts_as_much_as_a_turn_of_the_head(tmp_path, write_clip, turned_face):
    shut = turned_face(0, 0)
    for upper, lower in ((159, 145), (386, 374)):
        shut[upper] = shut[lower]
    faces = np.stack([turned_face(0, 0), shut, turned_face(0.1, 0)])
    clip = PreparedClip(write_clip(tmp_path / "clip.safetensors", count=3, landmarks=faces))
    blink, turn = (np.abs(clip.pose[i] - clip.pose[0]).mean() for i in (1, 2))
    assert blink > turn
    open_eyes, closed = pairs.apertures(faces)[:2, :2]
    assert (open_eyes > 0.15).all() and (closed == 0).all()


def test_much_footage_of_one_person_does_not_drown_the_others(tmp_path, write_clip):
    clips = [PreparedClip(write_clip(tmp_path / f"{i}", identity="anna", count=12)) for i in range(3)]
    clips.append(PreparedClip(write_clip(tmp_path / "ben", identity="ben", count=9)))
    chance = Pairs(clips, 1, NO_AUGMENTATION, seed=0).chance
    assert chance.sum() == pytest.approx(1)
    assert chance[:3].sum() / chance[3] == pytest.approx((36 / 9) ** 0.5)


def test_clips_are_drawn_as_often_as_their_chance_says(tmp_path, write_clip, monkeypatch):
    clips = [PreparedClip(write_clip(tmp_path / name, name, count)) for name, count in (("anna", 2), ("ben", 8))]
    made = Pairs(clips, 1, NO_AUGMENTATION, seed=0)
    assert made.chance == pytest.approx([1 / 3, 2 / 3])  # the roots of 2 and 8 are as 1 to 2
    monkeypatch.setattr(pairs, "make_example", lambda clip, *_: clip.identity)
    assert [made[index] for index in range(900)].count("anna") == pytest.approx(300, abs=45)  # three sigma


def same(first: dict, second: dict) -> bool:
    return all(np.array_equal(first[name], second[name]) for name in first | second)


def test_a_pair_depends_on_seed_and_index_alone(clip):
    made = Pairs([clip], 2, Augmentation(), seed=3)
    in_order = [made[index] for index in range(4)]
    assert all(same(Pairs([clip], 2, Augmentation(), seed=3)[index], in_order[index]) for index in (2, 0, 3, 1))
    assert len({example["image"].tobytes() for example in in_order}) == 4
    assert not same(Pairs([clip], 2, Augmentation(), seed=4)[0], in_order[0])


def test_processes_share_the_indices_of_a_step():
    assert list(islice(PairBatches(0, 3), 2)) == [[0, 1, 2], [3, 4, 5]]
    assert list(islice(PairBatches(3, 4, rank=1, world_size=2), 2)) == [[14, 15], [18, 19]]
    with pytest.raises(MobileBilayerError, match="6 sources, for 4 processes.*Try 8"):
        PairBatches(0, 6, rank=0, world_size=4)
    with pytest.raises(MobileBilayerError, match="0 sources"):
        PairBatches(0, 0)


def test_batches_are_the_same_with_workers_after_a_resume_and_from_several_processes(tmp_path, write_clip):
    clips = [write_clip(tmp_path / f"{name}.safetensors", name, count=4, encoded=True) for name in ("anna", "ben")]
    write_tar(tmp_path / "clips.tar", clips, {})
    for path in clips:
        path.unlink()
    made = Pairs(load_clips(tmp_path), 2, Augmentation(), seed=5)

    def batches(count: int, workers: int = 0, **which) -> list[dict[str, torch.Tensor]]:
        spawn = "spawn" if workers else None
        loader = DataLoader(
            made, batch_sampler=PairBatches(**which), num_workers=workers, multiprocessing_context=spawn
        )
        return list(islice(loader, count))

    whole = batches(4, first_step=0, sources=2)
    assert not same(whole[0], whole[1])
    for ours, want in zip(batches(4, workers=2, first_step=0, sources=2), whole, strict=True):
        assert same(ours, want)
    for ours, want in zip(batches(2, first_step=2, sources=2), whole[2:], strict=True):
        assert same(ours, want)
    parts = [batches(4, first_step=0, sources=2, rank=rank, world_size=2) for rank in range(2)]
    for first, second, want in zip(*parts, whole, strict=True):
        assert same({name: torch.cat([first[name], second[name]]) for name in first}, want)


def test_of_many_clips_only_those_drawn_are_read_and_only_some_are_kept(tmp_path, write_clip, monkeypatch):
    one = write_clip(tmp_path / "one", count=2, encoded=True)
    for number in range(8):
        clips = [tmp_path / f"{number}-{i}.safetensors" for i in range(25)]
        for path in clips:
            path.hardlink_to(one)
        write_tar(tmp_path / f"{number}.tar", clips, {})
        for path in clips:
            path.unlink()
    read, read_contents = [], pairs.read_contents
    monkeypatch.setattr(pairs, "read_contents", lambda entry: read.append(entry.name) or read_contents(entry))
    monkeypatch.setattr(pairs, "_KEPT_FRAMES", 9)
    made = Pairs(load_clips(tmp_path), 1, NO_AUGMENTATION, seed=0)
    assert len(made.clips) == 200 and not read
    for index in range(12):
        made[index]
        assert sum(len(clip) for clip in pairs._kept) <= 9
    assert len(read) == len(set(read)) == 12
    # Of two frames each, four clips fit: the last ones, and they are not read again.
    latest = [clip for name in read[-4:] for clip in made.clips if clip.name == name]
    assert [clip.landmarks.shape for clip in latest] == 4 * [(2, 478, 3)] and len(read) == 12
    gone = next(clip for clip in made.clips if clip.name == read[0])
    assert gone.pose.shape[0] == 2 and len(read) == 13


def test_a_batch_becomes_what_the_networks_take(clip):
    batch = next(iter(DataLoader(Pairs([clip], 2, Augmentation(), seed=0), batch_sampler=PairBatches(0, 3))))
    tensors = to_tensors(batch)
    assert {name: tuple(value.shape) for name, value in tensors.items()} == {
        "image": (3, 3, 256, 256),
        "alpha": (3, 1, 128, 128),
        "source_points": (3, POINTS, 2),
        "source_keypoints": (3, 68, 2),
        "target": (6, 3, 256, 256),
        "target_alpha": (6, 1, 128, 128),
        "background": (6, 3, 256, 256),
        "points": (6, POINTS, 2),
        "keypoints": (6, 68, 2),
        "weight": (6, 1, 256, 256),
    }
    assert tensors["image"].max() <= 1 and set(tensors["weight"].unique().tolist()) <= {0.0, 1.0, 9.0}
    # A source's targets stay together.
    torch.testing.assert_close(tensors["points"][2:4], batch["points"][1])


def test_a_folders_clips_are_loaded_in_order(tmp_path, write_clip):
    for name in ("ben", "anna"):
        write_clip(tmp_path / f"{name}.safetensors", identity=name)
    write_clip(tmp_path / ".0123456789ab.part.safetensors", identity="killed half-way")
    assert [clip.identity for clip in load_clips(tmp_path)] == ["anna", "ben"]


def test_tars_and_clips_of_their_own_are_read_from_one_folder(tmp_path, write_clip):
    (tmp_path / ".clips-00001-of-00002").mkdir()  # not finished
    one = write_clip(tmp_path / ".clips-00001-of-00002" / "cem.safetensors", "cem", encoded=True)
    write_tar(tmp_path / "clips-00000-of-00002.tar", [one], {"dora": "no face"})
    write_clip(tmp_path / "anna.safetensors")
    with pytest.warns(UserWarning, match="1 of 2 tars"):
        clips = load_clips(tmp_path)
    assert [(clip.name, clip.identity, len(clip)) for clip in clips] == [("anna", "anna", 6), ("cem", "cem", 6)]
    assert not any(clip.photos for clip in clips)
    np.testing.assert_array_equal(clips[1].landmarks, PreparedClip(one).landmarks)
    np.testing.assert_array_equal(clips[1].frame(3)[0], PreparedClip(one).frame(3)[0])


def test_a_folder_without_clips_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    write_tar(tmp_path / "empty" / "clips-00000-of-00001.tar", [], {"anna": "no face"})
    for folder in (tmp_path, tmp_path / "absent", tmp_path / "empty"):
        with pytest.raises(MobileBilayerError, match=str(folder)):
            load_clips(folder)


def test_damaged_clips_are_named(tmp_path, write_clip):
    path = tmp_path / "anna.safetensors"
    whole = write_clip(path).read_bytes()
    for content in (b"", b"not a clip", whole[:-1000], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(MobileBilayerError, match=r"anna\.safetensors.*prepare"):
            load_clips(tmp_path)


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("frames", np.zeros((6, 256, 256, 3), np.uint8)),
        ("frames", np.zeros((5, 320, 320, 3), np.uint8)),
        ("alphas", np.zeros((6, 160, 160), np.float32)),
        ("landmarks", np.zeros((6, 68, 3), np.float32)),
        ("landmarks", np.full((6, 478, 3), np.nan, np.float32)),
        ("inside", np.zeros((6, 2), np.float32)),
        ("shots", np.zeros(5, np.int64)),
    ],
)
def test_clips_with_wrong_tensors_are_named(tmp_path, write_clip, name, tensor):
    write_clip(tmp_path / "anna.safetensors", **{name: tensor})
    with pytest.raises(MobileBilayerError, match=r"anna\.safetensors"):
        [clip.pose for clip in load_clips(tmp_path)]  # shapes are seen at once, numbers when they are needed


def test_a_clip_of_one_frame_makes_no_pairs(tmp_path, write_clip):
    write_clip(tmp_path / "anna.safetensors", count=1)
    with pytest.raises(MobileBilayerError, match="two"):
        load_clips(tmp_path)


def test_the_papers_keypoints_lie_where_the_network_points_do(clip):
    """Both hold the outer corners of the eyes, whatever the augmentation did with the pair."""
    in_mesh, in_68 = [MESH.index(33), MESH.index(263)], [36, 45]
    for seed in range(4):
        out = make_example(clip, 0, [1, 2], replace(GEOMETRY, flip=seed % 2), rng(seed))
        np.testing.assert_allclose(out["source_keypoints"][in_68], out["source_points"][in_mesh], atol=1e-6)
        np.testing.assert_allclose(out["keypoints"][:, in_68], out["points"][:, in_mesh], atol=1e-6)
