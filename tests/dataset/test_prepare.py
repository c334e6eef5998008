"""From videos and photos to prepared clips."""

import os
import shutil
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from safetensors.numpy import load_file

from mobile_bilayer.capture.images import write_image
from mobile_bilayer.capture.video import VideoWriter
from mobile_bilayer.dataset import prepare as preparing
from mobile_bilayer.dataset import shards
from mobile_bilayer.dataset.pairs import PreparedClip, load_clips
from mobile_bilayer.dataset.prepare import Clip, Prepared, find_clips, find_shots, parse_share, prepare
from mobile_bilayer.dataset.shards import read_index
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
    monkeypatch.setattr(preparing, "Landmarker", lambda **_: nullcontext())
    monkeypatch.setattr(preparing, "detect_padded", lambda *_: next(upcoming))
    monkeypatch.setattr(preparing, "find_turn", lambda *_: 0)
    monkeypatch.setattr(preparing, "Segmenter", DotSegmenter)
    assert prepare(tmp_path, tmp_path / "out", None, frames_per_second=5, jobs=1).left_out == []
    (clip,) = load_clips(tmp_path / "out")
    assert clip.name == "photos_anna" and clip.photos
    for i in range(2):
        points, (rgb, alpha) = clip.landmarks[i], clip.frame(i)
        box = np.ptp(points[:, :2], axis=0)
        assert box.max() == pytest.approx(128, abs=0.01)  # 2 * 128 of 320 px are the head crop
        assert points[:, :2].min(0) + box / 2 == pytest.approx([160, 160 + 128 / 6], abs=0.01)
        for picture in (rgb[..., 0], alpha):
            bright, size = picture.astype(float), len(picture)
            places = (np.arange(size) + 0.5) * 320 / size
            middle = np.array([(bright * places).sum(), (bright * places[:, None]).sum()]) / bright.sum()
            np.testing.assert_allclose(middle, points[landmark, :2], atol=0.15)


@needs_models
def test_a_video_of_a_face_becomes_a_clip(tmp_path, face):
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    write_video(videos / "anna.mp4", [moved(face, STEP_PX * i) for i in range(7)])
    write_video(videos / "wall.mp4", [np.full((64, 64, 3), 90, np.uint8)] * 3)
    result = prepare(videos, out, None, frames_per_second=5, jobs=1)
    assert result == Prepared(1, 1, ["wall: fewer than two frames with a face"])
    assert {path.name for path in out.iterdir()} == {"clips-00000-of-00001.tar", "prepare.json"}

    (clip,) = load_clips(out)
    assert clip.identity == "anna" and not clip.photos and len(clip) == 4  # 7 frames of 10 a second: every second one
    landmarks, inside, (rgb, alpha) = clip.landmarks, clip.inside, clip.frame(0)
    # The photo's landmarks are known; the best affine map of them to the first frame's is that of the crop.
    known = sample_photo("astronaut")[1][:, :2] - [96, 0]
    to_frame = np.linalg.lstsq(np.column_stack([known, np.ones(478)]), landmarks[0, :, :2])[0].T
    zoom = to_frame[0, 0]
    np.testing.assert_allclose(to_frame[:, :2], zoom * np.eye(2), atol=0.02)
    # By the crop's rule the face's larger side is 128 px, but that its box is the median of all frames'.
    assert np.ptp(landmarks[0, :, :2], axis=0).max() == pytest.approx(128, rel=0.04)
    # One box for the clip: the face moves in it as in the video.
    ways = np.diff(landmarks.mean(1)[:, :2], axis=0)
    np.testing.assert_allclose(ways, np.tile([2 * STEP_PX * zoom, 0], (3, 1)), atol=1)
    # The video's upper right corner is in the frame, at (right, top) of `inside`; the others lie beyond it.
    assert (inside == inside[0]).all()
    left, top, right, bottom = inside[0]
    assert left == 0 and bottom == 320 and 0 < top < right < 320

    def unlike(zoom: float, right_px: float = 0, down_px: float = 0) -> float:
        """How much the first frame's face differs from the photo, hung up by that corner and moved."""
        matrix = np.array([[zoom, 0, right - zoom * 256 + right_px], [0, zoom, top + down_px]])
        matrix[:, 2] += (zoom - 1) / 2  # between pixel centres
        want = cv2.warpAffine(face, matrix, (320, 320), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        return np.abs(rgb.astype(int) - want)[100:220, 100:220].mean()

    zoom = min(zoom * np.linspace(0.98, 1.02, 21), key=unlike)
    asides = ((0.75, 0), (-0.75, 0), (0, 0.75), (0, -0.75))
    assert all(unlike(zoom) < unlike(zoom, *aside) for aside in asides)
    # The person, and not the wall.
    nose = (landmarks[0, 1, :2] / 2).astype(int)
    assert alpha[nose[1], nose[0]] > 230 and alpha.min() < 25


@needs_models
@pytest.mark.parametrize(("quarters", "words"), [(1, "lies on its side"), (2, "is upside down"), (3, "lies on its side")])
def test_a_video_that_is_turned_is_left_out_and_the_reason_says_so(tmp_path, face, quarters, words):
    """Rotated in its pictures, with no metadata that says so."""
    videos = tmp_path / "videos"
    videos.mkdir()
    write_video(videos / "anna.mp4", [np.ascontiguousarray(np.rot90(moved(face, 3 * i), quarters)) for i in range(4)])
    (videos / "ben.mp4").write_bytes(b"not a video")
    result = prepare(videos, tmp_path / "out", None, frames_per_second=10, jobs=1)
    assert result.clips == 0 and result.left_out[0] == f"anna: the face {words}; turn the video upright first"


@needs_models
def test_photos_of_which_one_is_turned_are_taken_and_turned_ones_left_out(tmp_path, face):
    for name in "123":
        write_image(tmp_path / f"{name}.png", face if name < "3" else np.ascontiguousarray(np.rot90(face, 2)))
        write_image(tmp_path / f"turned{name}.png", np.ascontiguousarray(np.rot90(face, 2)))
    rows = [f"{name}.png,anna,train,photo,CC0\nturned{name}.png,ben,train,photo,CC0\n" for name in "123"]
    write_index(tmp_path, HEADER + "".join(rows))
    result = prepare(tmp_path, tmp_path / "out", None, frames_per_second=5, jobs=1)
    assert result.left_out == ["photos_ben: the face is upside down; turn the photos upright first"]
    (clip,) = load_clips(tmp_path / "out")
    assert clip.identity == "anna"


@needs_models
def test_photos_get_a_box_each(tmp_path, face):
    write_image(tmp_path / "1.png", face)
    write_image(tmp_path / "2.jpg", cv2.resize(moved(face, 30), (400, 400), interpolation=cv2.INTER_CUBIC))
    write_index(tmp_path, HEADER + "1.png,anna,train,photo,CC0\n2.jpg,anna,train,photo,CC0\n")
    assert prepare(tmp_path, tmp_path / "out", "train", frames_per_second=5, jobs=1).left_out == []
    (clip,) = load_clips(tmp_path / "out")
    np.testing.assert_allclose(clip.landmarks[0], clip.landmarks[1], atol=2.5)
    box = np.ptp(clip.landmarks[..., :2], axis=1).max(-1)
    np.testing.assert_allclose(box, 128, atol=0.01)


@needs_models
def test_several_at_once_give_what_one_after_the_other_gives(tmp_path, face):
    videos = tmp_path / "videos"
    videos.mkdir()
    write_video(videos / "anna.mp4", [face, moved(face, 5)])
    (videos / "ben.mp4").write_bytes(b"not a video")
    results = [prepare(videos, tmp_path / str(jobs), None, 10, jobs) for jobs in (1, 2)]
    assert results[0] == results[1] and results[0].clips == 1
    assert len(results[0].left_out) == 1 and results[0].left_out[0].startswith("ben: ")
    one, two = (tmp_path / jobs / "clips-00000-of-00001.tar" for jobs in "12")
    assert one.read_bytes() == two.read_bytes()


@needs_models
def test_what_is_interrupted_leaves_no_clip_behind(tmp_path, face, monkeypatch):
    write_video(tmp_path / "anna.mp4", [face, moved(face, 5)])

    def interrupted(*_):
        raise KeyboardInterrupt

    for name in ("Segmenter", "encode_frame", "encode_clip", "write_tar"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(preparing, name, interrupted)
            prepare(tmp_path, tmp_path / "out", None, 10, jobs=1)
        with pytest.raises(MobileBilayerError, match="no prepared clips"):
            load_clips(tmp_path / "out")
    assert prepare(tmp_path, tmp_path / "out", None, 10, jobs=1) == Prepared(1, 1, [])


FIVE = ("anna", "ben", "cem", "dora", "eve")
NO_FACE = "fewer than two frames with a face"


@pytest.fixture
def work(tmp_path, write_clip, monkeypatch) -> SimpleNamespace:
    """Five videos, two in a tar, and a stand-in for what looks at them: dora fails.

    tried  the names it was called for; it is interrupted at `stop_at`, as by Ctrl-C
    """
    videos = tmp_path / "videos"
    touch(videos, *(f"{name}.mp4" for name in FIVE))
    clips = {name: write_clip(tmp_path / name, name, count=2, encoded=True) for name in FIVE}
    given = SimpleNamespace(videos=videos, out=tmp_path / "out", tried=[], stop_at=None)

    def prepare_clip(clip: Clip, path: Path, _: float) -> str | None:
        given.tried.append(clip.name)
        if clip.name == given.stop_at:
            raise KeyboardInterrupt
        if clip.name == "dora":
            return NO_FACE
        path.parent.mkdir(exist_ok=True)
        shutil.copyfile(clips[clip.name], path)
        return None

    monkeypatch.setattr(preparing, "CLIPS_PER_TAR", 2)
    monkeypatch.setattr(preparing, "_prepare_clip", prepare_clip)
    return given


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_neighbours_share_a_tar_and_who_failed_is_written_down(work):
    seen = []
    result = prepare(work.videos, work.out, None, 5, jobs=1, on_progress=lambda *now: seen.append(now))
    assert result == Prepared(4, 3, [f"dora: {NO_FACE}"])
    tars = [work.out / f"clips-0000{i}-of-00003.tar" for i in range(3)]
    assert set(work.out.iterdir()) == {*tars, work.out / "prepare.json"}
    indices = [read_index(tar) for tar in tars]
    assert [[entry.name for entry in entries] for entries, _ in indices] == [["anna", "ben"], ["cem"], ["eve"]]
    assert [left_out for _, left_out in indices] == [{}, {"dora": NO_FACE}, {}]
    assert [clip.identity for clip in load_clips(work.out)] == ["anna", "ben", "cem", "eve"]
    assert seen[-2:] == [("Clips", 5, 5), ("Tars", 3, 3)]


def test_a_second_run_does_nothing_again_but_the_clips_of_a_tar_that_was_deleted(work):
    first = prepare(work.videos, work.out, None, 5, jobs=1)
    before = {path: path.stat().st_mtime_ns for path in work.out.iterdir()}
    work.tried.clear()
    assert prepare(work.videos, work.out, None, 5, jobs=1) == first
    assert work.tried == [] and {path: path.stat().st_mtime_ns for path in work.out.iterdir()} == before
    (work.out / "clips-00001-of-00003.tar").unlink()
    assert prepare(work.videos, work.out, None, 5, jobs=1) == first
    assert work.tried == ["cem", "dora"]


@pytest.mark.parametrize("stop_at", FIVE)
def test_a_run_that_is_stopped_at_a_clip_goes_on_with_it(work, stop_at):
    prepare(work.videos, work.out.with_name("whole"), None, 5, jobs=1)
    work.tried.clear()
    work.stop_at = stop_at
    with pytest.raises(KeyboardInterrupt):
        prepare(work.videos, work.out, None, 5, jobs=1)
    at = FIVE.index(stop_at)
    tars = [path.name for path in sorted(work.out.glob("*.tar"))]
    assert tars == [f"clips-0000{i}-of-00003.tar" for i in range(at // 2)]  # only whole ones
    work.stop_at = None
    prepare(work.videos, work.out, None, 5, jobs=1)
    assert work.tried == [*FIVE[: at + 1], *FIVE[at:]]
    assert contents(work.out) == contents(work.out.with_name("whole"))


@pytest.mark.parametrize(
    ("module", "name"), [(shards.tarfile.TarFile, "addfile"), (shards.tarfile.TarFile, "close"), (shutil, "rmtree")]
)
def test_a_run_that_is_killed_while_it_joins_clips_prepares_none_again(work, monkeypatch, module, name):
    prepare(work.videos, work.out.with_name("whole"), None, 5, jobs=1)
    work.tried.clear()

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, name, killed)
        prepare(work.videos, work.out, None, 5, jobs=1)
    for tar in work.out.glob("*.tar"):
        assert tar.read_bytes() == work.out.with_name("whole").joinpath(tar.name).read_bytes()
    prepare(work.videos, work.out, None, 5, jobs=1)
    assert work.tried == [*FIVE]
    assert contents(work.out) == contents(work.out.with_name("whole"))


def test_several_jobs_fill_one_folder(work):
    prepare(work.videos, work.out.with_name("whole"), None, 5, jobs=1)
    work.tried.clear()
    results = [prepare(work.videos, work.out, None, 5, jobs=1, share=(number, 2)) for number in (2, 1)]
    assert work.tried == ["cem", "dora", "anna", "ben", "eve"]
    assert results == [Prepared(1, 1, [f"dora: {NO_FACE}"]), Prepared(3, 2, [])]
    assert prepare(work.videos, work.out, None, 5, jobs=1, share=(7, 7)) == Prepared(0, 0, [])
    assert contents(work.out) == contents(work.out.with_name("whole"))


def test_a_share_counts_from_one():
    assert parse_share("1/1") == (1, 1) and parse_share("2/8") == (2, 8)
    for text in ("0/8", "9/8", "2", "/8", "2/", "-1/8", "a/b", "1/0", "1/2/3"):
        with pytest.raises(MobileBilayerError, match="1/N to N/N"):
            parse_share(text)


def test_a_folder_that_was_for_something_else_is_refused(work):
    write_index(work.videos, HEADER + "".join(f"{name}.mp4,{name},train,video,CC0\n" for name in FIVE))
    prepare(work.videos, work.out, "train", 5, jobs=1)
    before = contents(work.out)
    with pytest.raises(MobileBilayerError, match=r"out was prepared.*\(fps 5\.0, now 8\.0\)"):
        prepare(work.videos, work.out, "train", 8, jobs=1)
    with pytest.raises(MobileBilayerError, match="split train, now None"):
        prepare(work.videos, work.out, None, 5, jobs=1)
    write_index(work.videos, (work.videos / "index.csv").read_text().replace("anna,train", "anja,train"))
    with pytest.raises(MobileBilayerError, match=r"\(clip_list_sha256"):  # as many, but not the same
        prepare(work.videos, work.out, "train", 5, jobs=1)
    (work.videos / "index.csv").unlink()
    touch(work.videos, "fay.mp4")
    with pytest.raises(MobileBilayerError, match="clips 5, now 6"):
        prepare(work.videos, work.out, None, 5, jobs=1)
    assert contents(work.out) == before
    (work.out / "prepare.json").write_text("{")
    with pytest.raises(MobileBilayerError, match=r"prepare\.json is damaged"):
        prepare(work.videos, work.out, None, 5, jobs=1)


def test_a_folder_of_clips_from_before_there_were_tars_is_not_added_to(work, write_clip):
    work.out.mkdir()
    write_clip(work.out / "anna.safetensors")
    with pytest.raises(MobileBilayerError, match="no prepare.json"):
        prepare(work.videos, work.out, None, 5, jobs=1)
    assert [clip.name for clip in load_clips(work.out)] == ["anna"] and len(contents(work.out)) == 1


def without_models(monkeypatch) -> None:
    monkeypatch.setattr(preparing, "Landmarker", lambda **_: nullcontext())
    monkeypatch.setattr(preparing, "Segmenter", DotSegmenter)


def test_what_is_no_clips_fault_stops_the_run_and_is_not_held_against_it(tmp_path, monkeypatch):
    videos, out = tmp_path / "videos", tmp_path / "out"
    touch(videos, "anna.mp4", "ben.mp4")

    def offline(**_):
        raise MobileBilayerError("the model can't be downloaded")

    with monkeypatch.context() as patch, pytest.raises(MobileBilayerError, match="downloaded"):
        patch.setattr(preparing, "Landmarker", offline)
        prepare(videos, out, None, 5, jobs=1)
    without_models(monkeypatch)

    def unplugged(clip: Clip, *_):
        for path in videos.iterdir():
            path.unlink()
        raise MobileBilayerError(f"{clip.files[0]} can't be read")

    with monkeypatch.context() as patch, pytest.raises(MobileBilayerError, match=r"anna\.mp4.*is gone"):
        patch.setattr(preparing, "_content", unplugged)
        prepare(videos, out, None, 5, jobs=1)
    touch(videos, "anna.mp4", "ben.mp4")

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(MobileBilayerError, match="No space left.*run again"):
        patch.setattr(preparing, "_content", lambda *_: b"a clip")
        patch.setattr(Path, "write_bytes", full)
        prepare(videos, out, None, 5, jobs=1)
    assert not list(out.glob("**/*.left-out"))
    # Empty videos, though, are their own fault.
    assert [reason[:6] for reason in prepare(videos, out, None, 5, jobs=1).left_out] == ["anna: ", "ben: /"]


def test_shots_are_told_apart_and_motion_is_no_cut():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 256, (2, 16, 16, 3)).astype(np.float32)
    steps = rng.normal(0, 2, (2, 10, 16, 16, 3))  # sensor noise
    thumbnails = np.clip(np.concatenate([first + steps[0], second + steps[1]]), 0, 255).astype(np.uint8)
    np.testing.assert_array_equal(find_shots(thumbnails), np.repeat([0, 1], 10))
    np.testing.assert_array_equal(find_shots(np.stack([thumbnails[0], thumbnails[0], thumbnails[-1]])), [0, 0, 1])
    # A camera that always moves: each frame differs from the one before, none more than the others.
    moving = np.stack([np.roll(thumbnails[0] // 4, i, axis=1) for i in range(10)])
    assert not find_shots(moving).any()


def test_shots_are_written_where_there_are_several(tmp_path, monkeypatch, turned_face):
    """A clip whose wall changes from black to white half-way."""
    walls = [np.full((480, 480, 3), grey, np.uint8) for grey in (20, 20, 230, 230)]
    monkeypatch.setattr(preparing, "_pictures", lambda *_: iter(walls))
    monkeypatch.setattr(preparing, "detect_padded", lambda *_: turned_face(0, 0))
    monkeypatch.setattr(preparing, "find_turn", lambda *_: 0)

    class Nobody:
        def alpha(self, rgb):
            return np.zeros(rgb.shape[:2], np.float32)

    clip = preparing.Clip("wall", "anna", (tmp_path / "wall.mp4",), "CC0")
    path = tmp_path / "wall.safetensors"
    path.write_bytes(preparing._content(clip, 8, None, None, Nobody()))
    assert PreparedClip(path).shots.tolist() == [0, 0, 1, 1]
    walls[2:] = walls[:2]
    path.write_bytes(preparing._content(clip, 8, None, None, Nobody()))
    assert "shots" not in load_file(path) and not PreparedClip(path).shots.any()
