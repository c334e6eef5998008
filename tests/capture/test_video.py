"""Video files in and out. Inputs are made with PyAV; what is written is looked at with PyAV."""

import gc
import os
import struct
import subprocess
import sys
import tracemalloc
import warnings
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from mobile_bilayer.capture.video import VideoReader, VideoWriter, _Clock
from mobile_bilayer.errors import MobileBilayerError

RED, GREEN, BLUE, YELLOW = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)
HEIGHT, WIDTH = 32, 64
SOUND_HZ = 44100


def corners(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Quarters in red, green, blue and yellow: top left, top right, bottom left, bottom right."""
    rgb = np.empty((height, width, 3), np.uint8)
    rgb[: height // 2, : width // 2], rgb[: height // 2, width // 2 :] = RED, GREEN
    rgb[height // 2 :, : width // 2], rgb[height // 2 :, width // 2 :] = BLUE, YELLOW
    return rgb


def corner_colours(rgb: np.ndarray) -> list[tuple[int, ...]]:
    """In the same order, with each channel rounded to 0 or 255."""
    found = [rgb[4, 4], rgb[4, -5], rgb[-5, 4], rgb[-5, -5]]
    return [tuple(int(v > 127) * 255 for v in colour) for colour in found]


def noise(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def grey(value: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def make_clip(
    path: Path,
    pictures: list[np.ndarray],
    rate: Fraction = Fraction(30),
    times_s: list[float] | None = None,
    sound: str | None = None,
    sound_s: float = 1.0,
    click_s: float = 0.5,
    sound_hz: int = SOUND_HZ,
    **options: str,
) -> Path:
    """A clip; its sound is silence with one click."""
    with av.open(str(path), "w", options=options) as output:
        stream = output.add_stream("libx264", rate=rate, options={"preset": "ultrafast"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 90000)
        voice = output.add_stream(sound, rate=sound_hz, layout="mono") if sound else None
        for number, rgb in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(rgb, format="rgb24")
            frame.time_base = Fraction(1, 90000)
            frame.pts = round((times_s[number] if times_s else number / rate) * 90000)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if voice:
            wave = np.zeros((1, round(sound_s * sound_hz)), np.float32)
            wave[:, round(click_s * sound_hz) :][:, :200] = 0.9
            for start in range(0, wave.shape[1], 1024):
                frame = av.AudioFrame.from_ndarray(wave[:, start : start + 1024], format="fltp", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = sound_hz, start, Fraction(1, sound_hz)
                output.mux(voice.encode(frame))
            output.mux(voice.encode(None))
    return path


def make_still(path: Path, codec: str, pixels: str, picture: np.ndarray, options: dict | None = None, **tags) -> Path:
    """Three frames of a picture. `tags` are what the file says of it, such as color_trc."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=30, options=options or {})
        stream.height, stream.width = picture.shape[:2]
        stream.pix_fmt = pixels
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb48le" if picture.dtype == np.uint16 else "rgb24")
            matrix = {"dst_colorspace": tags["colorspace"], "dst_color_range": 1} if "colorspace" in tags else {}
            frame = frame.reformat(format=pixels, **matrix)
            frame.pts, frame.time_base = number, Fraction(1, 30)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def set_tkhd_matrix(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Overwrite the first track's display matrix. ISO 14496-12: (x, y) is shown at (a x + c y, b x + d y)."""
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # version 0
    one = 1 << 16
    content[at : at + 36] = struct.pack(">9i", a * one, b * one, 0, c * one, d * one, 0, 0, 0, 1 << 30)
    path.write_bytes(content)


def sound_of(path: Path) -> tuple[str, float, float]:
    """Codec, when the click is heard, and when the sound ends (seconds)."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        pieces = [(frame.time, np.abs(frame.to_ndarray()).max(0)) for frame in container.decode(stream)]
        click = next(at + np.argmax(wave > 0.4) / stream.rate for at, wave in pieces if (wave > 0.4).any())
        return stream.codec_context.codec.canonical_name, click, pieces[-1][0] + pieces[-1][1].size / stream.rate


# Clockwise degrees by which a player turns the stored picture, as the matrix a, b, c, d: a quarter turn
# clockwise takes right to down (b = 1) and down to left (c = -1).
TURNS = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


@pytest.mark.parametrize("clockwise", TURNS)
def test_CA1_rotated_phone_video_is_upright(tmp_path, clockwise):
    stored = np.ascontiguousarray(np.rot90(corners(), clockwise // 90))  # numpy turns counterclockwise
    path = make_clip(tmp_path / "phone.mp4", [stored] * 3)
    set_tkhd_matrix(path, *TURNS[clockwise])
    with VideoReader(path) as video:
        frames = list(video)
        assert (video.width, video.height) == (WIDTH, HEIGHT)
    assert [frame.rgb.shape for frame in frames] == [(HEIGHT, WIDTH, 3)] * 3
    assert corner_colours(frames[-1].rgb) == [RED, GREEN, BLUE, YELLOW]
    assert frames[-1].rgb.flags.c_contiguous and frames[-1].rgb.dtype == np.uint8


@pytest.mark.parametrize(
    ("matrix", "stored"),
    [
        ((-1, 0, 0, 1), lambda up: up[:, ::-1]),
        ((1, 0, 0, -1), lambda up: up[::-1]),
        ((0, 1, 1, 0), lambda up: up.transpose(1, 0, 2)),
        ((0, -1, -1, 0), lambda up: up[::-1, ::-1].transpose(1, 0, 2)),
    ],
    ids=["left and right", "up and down", "across one diagonal", "across the other"],
)
def test_CA1_mirrored_video_is_unmirrored(tmp_path, matrix, stored):
    path = make_clip(tmp_path / "mirrored.mp4", [np.ascontiguousarray(stored(corners()))])
    set_tkhd_matrix(path, *matrix)
    assert corner_colours(next(iter(VideoReader(path))).rgb) == [RED, GREEN, BLUE, YELLOW]


def test_CA1_a_rotated_clip_written_again_is_not_turned_twice(tmp_path):
    path = make_clip(tmp_path / "phone.mp4", [np.ascontiguousarray(np.rot90(corners()))])
    set_tkhd_matrix(path, *TURNS[90])
    with VideoReader(path) as video, VideoWriter(tmp_path / "a.mp4", video.rate, video.width, video.height) as out:
        for frame in video:
            out.write(frame.rgb)
    assert corner_colours(next(iter(VideoReader(tmp_path / "a.mp4"))).rgb) == [RED, GREEN, BLUE, YELLOW]


def test_CA1_pixels_that_are_not_square_are_made_so_before_the_turn(tmp_path):
    stored = np.ascontiguousarray(np.rot90(corners(64, 64))[:, ::2])  # each pixel is shown twice as wide as high
    path = make_still(tmp_path / "wide.mp4", "libx264", "yuv420p", stored, sample_aspect_ratio=Fraction(2))
    set_tkhd_matrix(path, *TURNS[90])
    with VideoReader(path) as video:
        assert (video.width, video.height) == (64, 64)
        frame = next(iter(video))
    assert frame.rgb.shape == (64, 64, 3)
    assert corner_colours(frame.rgb) == [RED, GREEN, BLUE, YELLOW]


def test_CA3_names_outside_ascii_work(tmp_path):
    folder = tmp_path / "Фото 写真 ä b"
    folder.mkdir()
    source = make_clip(folder / "видео 1%d.mp4", [grey(50)] * 3, sound="aac")
    with VideoWriter(folder / "ä b: 動画.mp4", Fraction(30), WIDTH, HEIGHT, audio_from=source) as out:
        for frame in VideoReader(source):
            out.write(frame.rgb)
    assert len(list(VideoReader(folder / "ä b: 動画.mp4"))) == 3


VARIABLE_S = [0, 1 / 15, 2 / 15, 2 / 15 + 1 / 60, 2 / 15 + 2 / 60, 3 / 15 + 2 / 60]


def test_CA5_times_are_those_of_the_file(tmp_path):
    path = make_clip(tmp_path / "vfr.mp4", [grey(9)] * 6, times_s=VARIABLE_S)
    np.testing.assert_allclose([frame.time_s for frame in VideoReader(path)], VARIABLE_S, atol=1e-4)


def test_CA5_times_start_at_zero_when_the_file_starts_late(tmp_path):
    path = make_clip(tmp_path / "late.mkv", [grey(9)] * 3, times_s=[2.0, 2.1, 2.3])
    np.testing.assert_allclose([frame.time_s for frame in VideoReader(path)], [0, 0.1, 0.3], atol=2e-3)


def test_CA5_written_times_are_kept(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", Fraction(30), WIDTH, HEIGHT) as out:
        for time_s in VARIABLE_S:
            out.write(grey(9), time_s)
    with av.open(str(tmp_path / "out.mp4")) as container:
        times_s = [frame.time for frame in container.decode(video=0)]
    np.testing.assert_allclose(times_s, VARIABLE_S, atol=2e-5)


@pytest.mark.parametrize(
    ("shown_s", "expected_s"),
    [
        ([-0.2, -0.1, 0.0], [0, 0.1, 0.2]),
        ([5.0, 5.0, 5.1], [0, 0.001, 0.1]),
        ([0.0, None, 0.2], [0, 0.1, 0.2]),
        ([None, None, None], [0, 0.1, 0.2]),
        ([7.0, 9.0, 0.0, 0.1], [0, 2.0, 2.1, 2.2]),
    ],
    ids=["negative", "repeated", "one missing", "all missing", "set back"],
)
def test_CA5_times_grow_even_when_the_file_is_wrong(shown_s, expected_s):
    clock = _Clock(Fraction(10))
    np.testing.assert_allclose([clock.time_s(t) for t in shown_s], expected_s, atol=1e-9)


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(25)])
def test_rates_are_exact_in_and_out(tmp_path, rate):
    with VideoWriter(tmp_path / "out.mp4", rate, WIDTH, HEIGHT) as out:
        for _ in range(5):
            out.write(grey(9))
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == rate
        assert stream.duration * stream.time_base == 5 / rate
        assert [frame.pts * frame.time_base for frame in container.decode(stream)] == [i / rate for i in range(5)]
    with VideoReader(tmp_path / "out.mp4") as video:
        assert (video.rate, video.frames, video.has_audio) == (rate, 5, False)
        assert video.duration_s == pytest.approx(float(5 / rate))


@pytest.mark.parametrize(
    ("name", "codec", "kept", "hz"),
    [
        ("phone.mp4", "aac", "aac", 44100),
        ("music.mkv", "mp3", "mp3", 44100),
        ("camera.mov", "pcm_s16le", "aac", 44100),
        ("studio.mkv", "flac", "aac", 96000),
    ],
)
def test_CA6_sound_is_kept_in_step_and_cut_to_the_pictures(tmp_path, name, codec, kept, hz):
    source = make_clip(tmp_path / name, [grey(9)] * 30, sound=codec, sound_s=3.0, click_s=0.5, sound_hz=hz)
    with VideoReader(source) as video:
        assert video.has_audio
        with VideoWriter(tmp_path / "out.mp4", video.rate, WIDTH, HEIGHT, audio_from=source) as out:
            for frame in video:
                out.write(frame.rgb, frame.time_s)
    codec_out, click_s, end_s = sound_of(tmp_path / "out.mp4")
    assert codec_out == kept
    assert click_s == pytest.approx(0.5, abs=0.005)
    assert end_s == pytest.approx(1.0, abs=0.11)  # one packet of sound; FLAC's are 96 ms
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.duration / av.time_base == pytest.approx(1.0, abs=0.11)


def test_CA6_copied_sound_is_bit_for_bit_the_same(tmp_path):
    source = make_clip(tmp_path / "in.mp4", [grey(9)] * 30, sound="aac", sound_s=0.9)
    with VideoWriter(tmp_path / "out.mp4", Fraction(30), WIDTH, HEIGHT, audio_from=source) as out:
        for frame in VideoReader(source):
            out.write(frame.rgb)

    def packets(path):
        with av.open(str(path)) as container:
            return [bytes(p) for p in container.demux(audio=0) if p.size and p.pts >= 0]

    assert len(packets(source)) > 30
    assert packets(tmp_path / "out.mp4") == packets(source)


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_CA6_sound_starts_with_the_first_picture(tmp_path, codec):
    times_s = [0.25 + i / 30 for i in range(20)]
    source = make_clip(tmp_path / "late.mkv", [grey(9)] * 20, times_s=times_s, sound=codec)  # click at 0.5 s
    with VideoWriter(tmp_path / "out.mp4", Fraction(30), WIDTH, HEIGHT, audio_from=source) as out:
        for frame in VideoReader(source):
            out.write(frame.rgb, frame.time_s)
    assert sound_of(tmp_path / "out.mp4")[1] == pytest.approx(0.25, abs=0.01)


def test_CA6_a_silent_driving_clip_is_no_error(tmp_path):
    source = make_clip(tmp_path / "silent.mp4", [grey(9)] * 3)
    with VideoWriter(tmp_path / "out.mp4", Fraction(30), WIDTH, HEIGHT, audio_from=source) as out:
        out.write(grey(9))
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [s.type for s in container.streams] == ["video"]


def test_CA7_memory_does_not_grow_with_the_clip(tmp_path):
    def peak_bytes(length: int) -> int:
        path = make_clip(tmp_path / f"{length}.mp4", [grey(9, 128, 128)] * length, sound="aac")
        tracemalloc.start()
        with VideoReader(path) as video, VideoWriter(tmp_path / "o.mp4", video.rate, 128, 128, audio_from=path) as out:
            for frame in video:
                out.write(frame.rgb, frame.time_s)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    peak_bytes(5)  # imports and caches
    assert peak_bytes(200) < peak_bytes(10) + 3 * 128 * 128 * 3


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs Linux: memory in use now")
def test_CA7_the_decoders_memory_does_not_grow_with_the_clip(tmp_path):
    """Without help from the garbage collector, which frames in a reference cycle would wait for."""

    def in_use_bytes() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    path = make_clip(tmp_path / "in.mp4", [grey(9, 360, 640)] * 300)  # 104 MB as YUV
    gc.disable()
    try:
        for number, _frame in enumerate(VideoReader(path)):
            if number == 20:
                early = in_use_bytes()
        assert in_use_bytes() < early + 30e6
    finally:
        gc.enable()


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs Linux: memory in use now")
def test_CA7_a_second_run_takes_no_more_memory_than_the_first(tmp_path):
    """In a process of its own, whose allocator gives back what is free: left alone, it keeps 15 MB or not, as it likes."""
    path = make_clip(tmp_path / "in.mp4", [grey(9, 360, 640)] * 60, sound="aac")
    run = subprocess.run([sys.executable, "-c", RUNS, path, tmp_path / "o.mp4"], capture_output=True, text=True, check=True)
    first, again = map(int, run.stdout.split())
    assert again < first + 10e6  # the clip's pictures are 41 MB: a run that kept them would show


# Prints the least memory in use after four runs, and after four more, in bytes.
RUNS = """
import ctypes, os, sys
from pathlib import Path
from mobile_bilayer.capture.video import VideoReader, VideoWriter

def in_use_after_a_run():
    with VideoReader(Path(sys.argv[1])) as video, VideoWriter(Path(sys.argv[2]), video.rate, 640, 360, audio_from=Path(sys.argv[1])) as out:
        for frame in video:
            out.write(frame.rgb, frame.time_s)
    give_back = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if give_back:
        give_back(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

print(*(min(in_use_after_a_run() for _ in range(4)) for _ in range(2)))
"""


def test_CA7_a_clip_can_be_read_twice(tmp_path):
    video = VideoReader(make_clip(tmp_path / "in.mp4", [grey(9)] * 4))
    assert [f.time_s for f in video] == [f.time_s for f in video]
    assert len(list(video)) == 4


def test_CA8_an_odd_size_grows_by_a_copy_of_its_edge(tmp_path):
    rgb = grey(40, 241, 427)
    rgb[:, -1] = rgb[-1] = 220
    with VideoWriter(tmp_path / "odd.mp4", Fraction(30), 427, 241) as out:
        for _ in range(3):
            out.write(rgb)
    frames = [frame.rgb for frame in VideoReader(tmp_path / "odd.mp4")]
    assert [frame.shape for frame in frames] == [(242, 428, 3)] * 3
    np.testing.assert_allclose(frames[-1][:, -2:].astype(int), 220, atol=12)
    np.testing.assert_allclose(frames[-1][-2:].astype(int), 220, atol=12)
    np.testing.assert_allclose(frames[-1][:230, :416].astype(int), 40, atol=6)


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "size"),
    [
        ("a.mp4", "libx264", "yuv444p", (427, 241)),
        ("a.avi", "mjpeg", "yuvj420p", (427, 241)),
        ("a.mp4", "mpeg4", "yuv420p", (63, 33)),
        ("a.mp4", "libx264", "yuv422p10le", (64, 33)),
        ("a.mov", "prores_ks", "yuv422p10le", (66, 34)),
        ("a.mov", "png", "rgba", (65, 33)),
    ],
)
def test_CA8_odd_sizes_and_ten_bits_are_read_as_they_are(tmp_path, name, codec, pixels, size):
    path = make_still(tmp_path / name, codec, pixels, corners(size[1], size[0]))
    with VideoReader(path) as video:
        frames = list(video)
        assert (video.width, video.height) == size
    assert [frame.rgb.shape for frame in frames] == [(size[1], size[0], 3)] * 3
    assert corner_colours(frames[-1].rgb) == [RED, GREEN, BLUE, YELLOW]


def test_CA8_the_number_of_frames_in_the_file_is_checked(tmp_path):
    (tmp_path / "out.mp4").write_bytes(b"old")
    out = VideoWriter(tmp_path / "out.mp4", Fraction(30), WIDTH, HEIGHT)
    with pytest.raises(MobileBilayerError, match="would hold 2 of the 3 frames"), out:
        out.write(grey(9))
        out.write(grey(9))
        out._written += 1  # a frame that the encoder lost
    assert (tmp_path / "out.mp4").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.mp4"]


def test_CA8_a_video_without_frames_is_not_written(tmp_path):
    with (
        pytest.raises(MobileBilayerError, match="No frame was given"),
        VideoWriter(tmp_path / "out.mp4", Fraction(30), WIDTH, HEIGHT),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_CA8_a_frame_of_another_size_is_refused(tmp_path):
    with (
        pytest.raises(MobileBilayerError, match=r"shape \(32, 60, 3\).*\(32, 64, 3\)"),
        VideoWriter(tmp_path / "out.mp4", Fraction(30), WIDTH, HEIGHT) as out,
    ):
        out.write(grey(9, width=60))


@pytest.mark.parametrize("times_s", [[-0.1], [0.0, 0.0], [0.5, 0.4], [float("nan")]])
def test_written_times_must_grow(tmp_path, times_s):
    with (
        pytest.raises(MobileBilayerError, match="must start at 0 or later and grow"),
        VideoWriter(tmp_path / "out.mp4", Fraction(30), WIDTH, HEIGHT) as out,
    ):
        for time_s in times_s:
            out.write(grey(9), time_s)


@pytest.mark.parametrize("frames_before", [0, 3])
def test_an_error_while_writing_leaves_the_old_video_and_nothing_else(tmp_path, frames_before):
    sound = make_clip(tmp_path / "in.mkv", [grey(9)] * 3, sound="pcm_s16le")
    (tmp_path / "out.mp4").write_bytes(b"old")
    with (
        pytest.raises(KeyboardInterrupt),
        VideoWriter(tmp_path / "out.mp4", Fraction(30), WIDTH, HEIGHT, audio_from=sound) as out,
    ):
        for _ in range(frames_before):
            out.write(grey(9))
        raise KeyboardInterrupt
    assert (tmp_path / "out.mp4").read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mkv", "out.mp4"]


def test_a_written_video_says_that_it_is_ai_generated_and_can_start_early(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", Fraction(30), WIDTH, HEIGHT) as out:
        out.write(grey(9))
    with av.open(str(tmp_path / "out.mp4")) as container:
        for key in ("title", "comment", "description"):
            assert container.metadata[key].startswith("AI-generated: ")
            assert "mobile_bilayer" in container.metadata[key]
    content = (tmp_path / "out.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # fast start


def test_colours_are_bt709_and_come_back(tmp_path):
    with VideoWriter(tmp_path / "out.mp4", Fraction(30), WIDTH, HEIGHT) as out:
        for _ in range(2):
            out.write(corners())
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
        luma = np.frombuffer(frame.planes[0], np.uint8)[0]
    assert frame.format.name == "yuv420p"
    assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (1, 1, 1, 1)
    assert luma == pytest.approx(16 + 219 * 0.2126, abs=1.5)  # BT.709's share of red
    rgb = next(iter(VideoReader(tmp_path / "out.mp4"))).rgb
    np.testing.assert_allclose(rgb[4, 4].astype(int), RED, atol=6)
    np.testing.assert_allclose(rgb[-5, -5].astype(int), YELLOW, atol=6)


@pytest.mark.parametrize(
    ("name", "said"), [("out.avi", r"must end in \.mp4"), ("out", "no suffix"), ("no/out.mp4", "does not exist")]
)
def test_an_output_that_can_not_be_is_told_up_front(tmp_path, name, said):
    with pytest.raises(MobileBilayerError, match=said):
        VideoWriter(tmp_path / name, Fraction(30), WIDTH, HEIGHT)


@pytest.mark.parametrize(
    ("rate", "width", "said"),
    [(Fraction(0), 8, "rate is 0"), (Fraction(30), 0, "0x32"), (Fraction(30), 20000, "20000x32")],
)
def test_impossible_rates_and_sizes_are_refused(tmp_path, rate, width, said):
    with pytest.raises(MobileBilayerError, match=said):
        VideoWriter(tmp_path / "out.mp4", rate, width, HEIGHT)


def test_a_missing_sound_clip_is_told_up_front(tmp_path):
    with pytest.raises(MobileBilayerError, match="does not exist"):
        VideoWriter(tmp_path / "out.mp4", Fraction(30), WIDTH, HEIGHT, audio_from=tmp_path / "no.mp4")


@pytest.mark.parametrize("name", ["cut.mp4", "cut.mkv"])
def test_a_clip_cut_off_gives_its_good_frames_and_warns(tmp_path, name):
    pictures = [noise(i) for i in range(90)]
    whole = make_clip(tmp_path / f"whole{Path(name).suffix}", pictures, movflags="faststart")
    content = whole.read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    expected = [frame.rgb for frame in VideoReader(whole)]
    assert len(expected) == 90
    with pytest.warns(UserWarning, match=f"{name} is damaged after"):
        frames = [frame.rgb for frame in VideoReader(tmp_path / name)]
    assert 40 <= len(frames) <= 46
    np.testing.assert_array_equal(frames[:40], expected[:40])


@pytest.mark.parametrize("name", ["damaged.mp4", "damaged.mov", "damaged.ts"])
def test_a_clip_damaged_half_way_gives_the_frames_around_the_damage_at_their_own_times(tmp_path, name):
    path = make_clip(tmp_path / name, [noise(i) for i in range(90)])
    whole = list(VideoReader(path))
    with av.open(str(path)) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    content = bytearray(path.read_bytes())
    lost = slice(places[40] + 3, places[42])
    content[lost] = np.random.default_rng(0).integers(0, 256, lost.stop - lost.start, np.uint8).tobytes()
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=rf"{name} is damaged after \d+ frames, at .* some frames there are left out"):
        frames = list(VideoReader(path))
    assert 80 <= len(frames) < 90
    assert frames[-1].time_s == pytest.approx(89 / 30, abs=0.002)
    by_time = {round(frame.time_s * 30): frame.rgb for frame in frames}
    np.testing.assert_array_equal([by_time[i] for i in range(38)], [frame.rgb for frame in whole[:38]])


def test_a_clip_damaged_at_its_start_begins_with_what_can_be_read(tmp_path):
    path = make_still(tmp_path / "in.avi", "mjpeg", "yuvj420p", corners())  # each picture by itself
    with av.open(str(path)) as container:
        first = next(packet for packet in container.demux(video=0))
    content = bytearray(path.read_bytes())
    start = content.index(bytes(first)[:64])
    content[start : start + first.size] = bytes(first.size)
    path.write_bytes(content)
    with VideoReader(path) as video, pytest.warns(UserWarning, match="damaged after 0 frames"):
        assert corner_colours(next(frames := iter(video)).rgb) == [RED, GREEN, BLUE, YELLOW]
        assert len(list(frames)) == 1


def test_a_clip_cut_off_between_two_frames_warns_too(tmp_path):
    path = make_clip(tmp_path / "cut.mp4", [noise(i) for i in range(20)], movflags="faststart")
    with av.open(str(path)) as container:
        end = container.streams.video[0].index_entries[12].pos
    path.write_bytes(path.read_bytes()[:end])
    with pytest.warns(UserWarning, match="damaged after 12 frames"):
        assert len(list(VideoReader(path))) == 12


def test_a_whole_clip_does_not_warn(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("a.mp4", "a.mkv", "a.ts"):
            clip = make_clip(tmp_path / name, [noise(i) for i in range(10)], sound="aac", sound_s=3.0)
            assert len(list(VideoReader(clip))) == 10


def test_a_clip_that_lost_its_index_is_told(tmp_path):
    content = make_clip(tmp_path / "whole.mp4", [noise(i) for i in range(9)]).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    with pytest.raises(MobileBilayerError, match="cut off") as caught:
        VideoReader(tmp_path / "cut.mp4")
    assert isinstance(caught.value.__cause__, av.FFmpegError)


def test_a_clip_whose_pictures_are_all_damaged_is_told(tmp_path):
    path = make_clip(tmp_path / "in.mp4", [noise(i) for i in range(9)], movflags="faststart")
    content = path.read_bytes()
    start = content.index(b"mdat") + 4
    path.write_bytes(content[:start] + bytes(len(content) - start))
    with pytest.raises(MobileBilayerError, match="No frame .* can be decoded|has no frames"):
        VideoReader(path)


def test_a_clip_of_an_unknown_codec_is_told(tmp_path):
    path = make_clip(tmp_path / "in.mp4", [noise(i) for i in range(3)])
    content = path.read_bytes()
    path.write_bytes(content.replace(b"avc1", b"zzzz"))
    with pytest.raises(MobileBilayerError, match=r"No frame .* can be decoded: Decoder not found.*MP4 \(H.264\)"):
        VideoReader(path)


def photo(path: Path) -> None:
    Image.new("RGB", (32, 32)).save(path, format="JPEG")


def sound_only(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as output:
        stream = output.add_stream("aac", rate=SOUND_HZ, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.sample_rate = SOUND_HZ
        output.mux(stream.encode(frame) + stream.encode(None))


@pytest.mark.parametrize(
    ("name", "make", "said"),
    [
        ("empty.mp4", lambda path: path.write_bytes(b""), "empty"),
        ("folder.mp4", lambda path: path.mkdir(), "is a folder"),
        ("missing.mp4", lambda path: None, "does not exist"),
        ("text.mp4", lambda path: path.write_text("hello " * 99), "not a video"),
        ("text.txt", lambda path: path.write_text("hello\n" * 99), "photo or text"),
        ("photo.mp4", photo, "photo or text"),
        ("sound.mp4", sound_only, "no pictures"),
        ("list.m3u8", lambda path: path.write_text("#EXTM3U\n#EXTINF:1,\nhttp://localhost/a.ts\n"), "not a video"),
    ],
)
def test_what_is_no_video_is_refused(tmp_path, name, make, said):
    make(tmp_path / name)
    with pytest.raises(MobileBilayerError, match=said):
        VideoReader(tmp_path / name)


def test_sound_without_pictures_can_be_used_as_sound(tmp_path):
    sound_only(tmp_path / "sound.m4a")
    with VideoWriter(tmp_path / "out.mp4", Fraction(30), WIDTH, HEIGHT, audio_from=tmp_path / "sound.m4a") as out:
        out.write(grey(9))
    with VideoReader(tmp_path / "out.mp4") as video:
        assert video.has_audio
