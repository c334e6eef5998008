"""From videos and photos to prepared clips."""

import os
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from safetensors.numpy import load_file

from mobile_bilayer.capture.images import write_image
from mobile_bilayer.capture.video import VideoWriter
from mobile_bilayer.dataset import prepare as preparing
from mobile_bilayer.dataset.pairs import load_clips
from mobile_bilayer.dataset.prepare import Clip, find_clips, prepare
from mobile_bilayer.errors import MobileBilayerError
from mobile_bilayer.samples import sample_photo

needs_models = pytest.mark.skipif(
    "MOBILE_BILAYER_MODELS" not in os.environ, reason="MOBILE_BILAYER_MODELS names no folder with MediaPipe's models"
)
HEADER = "file,identity,split,kind,licence\n"
STEP_PX = 6  # the photo's motion from frame to frame


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def write_index(folder: Path, text: str) -> Path:
    (folder / "index.csv").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """(256, 256, 3): a face with room to its left and right."""
    return np.ascontiguousarray(sample_photo("astronaut")[0][:256, 96:352])


def write_video(path: Path, pictures: list[np.ndarray], rate: int = 10) -> None:
    with VideoWriter(path, Fraction(rate), *pictures[0].shape[1::-1]) as video:
        for picture in pictures:
            video.write(picture)


def moved(picture: np.ndarray, right_px: int) -> np.ndarray:
    return cv2.warpAffine(
        picture, np.float32([[1, 0, right_px], [0, 1, 0]]), picture.shape[1::-1], borderMode=cv2.BORDER_REPLICATE
    )


def test_without_an_index_each_video_is_a_clip_of_its_own(tmp_path):
    touch(tmp_path, "b.mp4", "a.MOV", "notes.txt", "anna/1.mp4", "ben/1.mp4", "anna/._1.mp4")
    clips = find_clips(tmp_path, None)
    assert [clip.name for clip in clips] == ["a", "anna__1", "b", "ben__1"]  # and not twice "1"
    assert clips[1] == Clip("anna__1", "anna__1", (tmp_path / "anna" / "1.mp4",), "unknown")


def test_an_index_names_people_splits_and_licences(tmp_path):
    touch(tmp_path, "clips/x.mp4", "clips/y.mp4", "photos/1.jpg", "photos/2.jpg", "photos/3.jpg")
    rows = [
        "clips/x.mp4,anna,train,video,CC0",
        "clips/y.mp4,ben,eval,video,MIT",
        "photos/1.jpg,cem,train,photo,CC-BY",
        "photos/2.jpg,cem,train,photo,CC-BY",
        "photos/3.jpg,dora/2,eval,photo,",
    ]
    write_index(tmp_path, "\ufeff" + HEADER + "\n".join(rows) + "\n")  # a spreadsheet's byte-order mark
    photos = tmp_path / "photos"
    train = [
        Clip("x", "anna", (tmp_path / "clips/x.mp4",), "CC0"),
        Clip("photos_cem", "cem", (photos / "1.jpg", photos / "2.jpg"), "CC-BY", photos=True),
    ]
    assert find_clips(tmp_path, "train") == train
    everything = find_clips(tmp_path, None)
    assert [clip.name for clip in everything] == ["x", "y", "photos_cem", "photos_dora_2"]
    assert everything[3].licence == "unknown"


@pytest.mark.parametrize(
    ("index", "split", "told"),
    [
        ("file,identity\nx.mp4,anna\n", None, "kind, licence"),
        ("file,identity,kind,licence\nx.mp4,anna,video,CC0\n", "train", "split"),
        ("", None, "lacks file"),
        (HEADER, None, "no rows"),
        (HEADER + "x.mp4,anna,train,video,CC0\n", "test", "'test'.*train"),
        (HEADER + "x.mp4,anna,train,film,CC0\n", None, "line 2.*film"),
        (HEADER + "x.mp4,anna,train,video,CC0\nx.mp4,,train,video,CC0\n", None, "line 3"),
        (HEADER + "x.mp4,anna\n", None, "line 2"),
        (HEADER + "x.mp4,anna,train,video,CC0\nno.mp4,ben,train,video,CC0\n", None, r"1 files.*no\.mp4"),
        (HEADER + "x.mp4,anna,train,video,CC0\nmore/x.mp4,ben,train,video,CC0\n", None, "several clips named x"),
    ],
)
def test_a_wrong_index_says_what_is_wrong(tmp_path, index, split, told):
    touch(tmp_path, "x.mp4", "more/x.mp4")
    write_index(tmp_path, index)
    with pytest.raises(MobileBilayerError, match=told):
        find_clips(tmp_path, split)


def test_an_index_that_is_no_text_is_named(tmp_path):
    (tmp_path / "index.csv").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(MobileBilayerError, match=r"index\.csv"):
        find_clips(tmp_path, None)


def test_a_folder_without_videos_is_named(tmp_path):
    with pytest.raises(MobileBilayerError, match="nor a video"):
        find_clips(tmp_path, None)
    for path in (tmp_path / "absent", tmp_path / "file"):
        (tmp_path / "file").touch()
        with pytest.raises(MobileBilayerError, match="not a folder"):
            find_clips(path, None)


def test_a_split_needs_an_index(tmp_path):
    touch(tmp_path, "x.mp4")
    with pytest.raises(MobileBilayerError, match=r"index\.csv"):
        find_clips(tmp_path, "train")


def test_videos_that_would_overwrite_each_other_are_refused(tmp_path):
    touch(tmp_path, "x.mp4", "x.mov")
    with pytest.raises(MobileBilayerError, match="several clips named x"):
        find_clips(tmp_path, None)


@pytest.mark.parametrize(("rate", "jobs", "told"), [(5, 0, "jobs is 0"), (0, 1, "frames"), (float("nan"), 1, "frames")])
def test_numbers_that_make_no_sense_are_refused(tmp_path, rate, jobs, told):
    touch(tmp_path, "x.mp4")
    with pytest.raises(MobileBilayerError, match=told):
        prepare(tmp_path, tmp_path / "out", None, rate, jobs)
    assert not (tmp_path / "out").exists()


def test_an_output_that_is_a_file_is_refused(tmp_path):
    touch(tmp_path, "x.mp4", "out")
    with pytest.raises(MobileBilayerError, match="out"):
        prepare(tmp_path, tmp_path / "out", None, 5, 1)


class DotSegmenter:
    """Finds the brightness of a picture."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def alpha(self, rgb: np.ndarray) -> np.ndarray:
        return rgb[..., 0].astype(np.float32) / 255


@pytest.mark.parametrize("half_px", [70, 150, 400])  # enlarged, shrunk, and shrunk by more than two
def test_frames_alphas_and_landmarks_lie_on_each_other(tmp_path, monkeypatch, turned_face, half_px):
    """With a landmarker that knows where we have drawn a dot."""
    landmark, seen = 33, []
    for i in range(2):
        points = turned_face(0.3 * i, 0.1)
        points[:, :2] = (points[:, :2] - 160) * half_px / 128 + [400 + 9.3 * i, 380.6]
        x, y = points[landmark, :2]
        centres = np.arange(900) + 0.5
        soft = 2 * (half_px / 25) ** 2
        dot = np.rint(255 * np.exp(-((centres - x) ** 2 + (centres[:, None] - y) ** 2) / soft)).astype(np.uint8)
        write_image(tmp_path / f"{i}.png", dot[..., None].repeat(3, -1))
        seen.append(points)
    write_index(tmp_path, HEADER + "0.png,anna,train,photo,CC0\n1.png,anna,train,photo,CC0\n")
    upcoming = iter(seen)
    monkeypatch.setattr(preparing, "Landmarker", lambda video: nullcontext())
    monkeypatch.setattr(preparing, "detect_padded", lambda *_: next(upcoming))
    monkeypatch.setattr(preparing, "Segmenter", DotSegmenter)
    assert prepare(tmp_path, tmp_path / "out", None, frames_per_second=5, jobs=1) == []
    got = load_file(tmp_path / "out" / "photos_anna.safetensors")
    for i in range(2):
        box = np.ptp(got["landmarks"][i, :, :2], axis=0)
        assert box.max() == pytest.approx(128, abs=0.01)  # 2 * 128 of 320 px are the head crop
        assert got["landmarks"][i, :, :2].min(0) + box / 2 == pytest.approx([160, 160 + 128 / 6], abs=0.01)
        for picture in (got["frames"][i, ..., 0], got["alphas"][i]):
            bright, size = picture.astype(float), len(picture)
            places = (np.arange(size) + 0.5) * 320 / size
            middle = np.array([(bright * places).sum(), (bright * places[:, None]).sum()]) / bright.sum()
            np.testing.assert_allclose(middle, got["landmarks"][i, landmark, :2], atol=0.15)


@needs_models
def test_a_video_of_a_face_becomes_a_clip(tmp_path, face):
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    write_video(videos / "anna.mp4", [moved(face, STEP_PX * i) for i in range(7)])
    write_video(videos / "wall.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 3)
    failures = prepare(videos, out, None, frames_per_second=5, jobs=1)
    assert failures == ["wall: fewer than two frames with a face"]
    assert [path.name for path in out.iterdir()] == ["anna.safetensors"]

    (clip,) = load_clips(out)
    assert clip.identity == "anna" and len(clip) == 4  # 7 frames of 10 a second: every second one
    got = load_file(out / "anna.safetensors")
    # The photo's landmarks are known; the best affine map of them to the first frame's is that of the crop.
    known = sample_photo("astronaut")[1][:, :2] - [96, 0]
    to_frame = np.linalg.lstsq(np.column_stack([known, np.ones(478)]), got["landmarks"][0, :, :2])[0].T
    zoom = to_frame[0, 0]
    np.testing.assert_allclose(to_frame[:, :2], zoom * np.eye(2), atol=0.02)
    # By the crop's rule the face's larger side is 128 px, but that its box is the median of all frames'.
    assert np.ptp(got["landmarks"][0, :, :2], axis=0).max() == pytest.approx(128, rel=0.04)
    # One box for the clip: the face moves in it as in the video.
    ways = np.diff(got["landmarks"].mean(1)[:, :2], axis=0)
    np.testing.assert_allclose(ways, np.tile([2 * STEP_PX * zoom, 0], (3, 1)), atol=1)
    # The video's upper right corner is in the frame, at (right, top) of `inside`; the others lie beyond it.
    assert (got["inside"] == got["inside"][0]).all()
    left, top, right, bottom = got["inside"][0]
    assert left == 0 and bottom == 320 and 0 < top < right < 320

    def unlike(zoom: float, right_px: float = 0, down_px: float = 0) -> float:
        """How much the first frame's face differs from the photo, hung up by that corner and moved."""
        matrix = np.array([[zoom, 0, right - zoom * 256 + right_px], [0, zoom, top + down_px]])
        matrix[:, 2] += (zoom - 1) / 2  # between pixel centres
        want = cv2.warpAffine(face, matrix, (320, 320), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        return np.abs(got["frames"][0].astype(int) - want)[100:220, 100:220].mean()

    zoom = min(zoom * np.linspace(0.98, 1.02, 21), key=unlike)
    asides = ((0.75, 0), (-0.75, 0), (0, 0.75), (0, -0.75))
    assert all(unlike(zoom) < unlike(zoom, *aside) for aside in asides)
    # The person, and not the wall.
    nose = (got["landmarks"][0, 1, :2] / 2).astype(int)
    assert got["alphas"][0, nose[1], nose[0]] > 230 and got["alphas"][0].min() < 25


@needs_models
def test_photos_get_a_box_each(tmp_path, face):
    write_image(tmp_path / "1.png", face)
    write_image(tmp_path / "2.jpg", cv2.resize(moved(face, 30), (400, 400), interpolation=cv2.INTER_CUBIC))
    write_index(tmp_path, HEADER + "1.png,anna,train,photo,CC0\n2.jpg,anna,train,photo,CC0\n")
    assert prepare(tmp_path, tmp_path / "out", "train", frames_per_second=5, jobs=1) == []
    (clip,) = load_clips(tmp_path / "out")
    np.testing.assert_allclose(clip.landmarks[0], clip.landmarks[1], atol=2.5)
    box = np.ptp(clip.landmarks[..., :2], axis=1).max(-1)
    np.testing.assert_allclose(box, 128, atol=0.01)


@needs_models
def test_a_second_run_keeps_what_is_finished_and_does_the_rest(tmp_path, face):
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    write_video(videos / "anna.mp4", [face, moved(face, 5)])
    prepare(videos, out, None, 10, jobs=1)
    before = (out / "anna.safetensors").stat().st_mtime_ns
    write_video(videos / "ben.mp4", [moved(face, 5), face])
    prepare(videos, out, None, 10, jobs=1)
    assert (out / "anna.safetensors").stat().st_mtime_ns == before
    assert {path.name for path in out.iterdir()} == {"anna.safetensors", "ben.safetensors"}


@needs_models
def test_what_is_interrupted_leaves_nothing_behind(tmp_path, face, monkeypatch):
    write_video(tmp_path / "anna.mp4", [face, moved(face, 5)])

    def interrupted(*_):
        raise KeyboardInterrupt

    for name in ("Segmenter", "save"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(preparing, name, interrupted)
            prepare(tmp_path, tmp_path / "out", None, 10, jobs=1)
        assert not list((tmp_path / "out").iterdir())
    assert prepare(tmp_path, tmp_path / "out", None, 10, jobs=1) == []


@needs_models
def test_several_at_once_give_what_one_after_the_other_gives(tmp_path, face):
    videos = tmp_path / "videos"
    videos.mkdir()
    write_video(videos / "anna.mp4", [face, moved(face, 5)])
    (videos / "ben.mp4").write_bytes(b"not a video")
    failures = [prepare(videos, tmp_path / str(jobs), None, 10, jobs) for jobs in (1, 2)]
    assert failures[0] == failures[1] and len(failures[0]) == 1 and failures[0][0].startswith("ben: ")
    one, two = (load_file(tmp_path / jobs / "anna.safetensors") for jobs in "12")
    assert all(np.array_equal(one[name], two[name]) for name in one)
