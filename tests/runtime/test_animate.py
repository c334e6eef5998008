"""From a photo and a driver to a file, with the shipped bundle: nothing between is replaced, but the camera."""

import math
import os
import signal
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from mobile_bilayer import Avatar, Bundle, MobileBilayerError, Track, animate, grid
from mobile_bilayer.capture.images import AI_GENERATED, read_image
from mobile_bilayer.capture.video import Frame, VideoReader
from mobile_bilayer.pose.head import Motion, put_together, take_apart
from mobile_bilayer.pose.neutral import neutral_of
from mobile_bilayer.runtime import animate as module
from mobile_bilayer.samples import sample_photo, sample_track

needs_model = pytest.mark.skipif(
    "MOBILE_BILAYER_MODELS" not in os.environ, reason="MOBILE_BILAYER_MODELS names no folder with face_landmarker.task"
)
RATE = Fraction(25)


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle.open()


@pytest.fixture(scope="module")
def avatar(bundle) -> Avatar:
    return bundle.avatar(*sample_photo("astronaut"))


@pytest.fixture(scope="module")
def short_track() -> Track:
    """Five frames of the shipped one."""
    whole = sample_track()
    every = slice(0, 100, 20)
    return Track(
        whole.landmarks[every], np.arange(5) / 25.0, whole.found[every], RATE, whole.width, whole.height, "for a test"
    )


@pytest.fixture(scope="module")
def driver(tmp_path_factory) -> Path:
    """Six frames of a real photo that sways, with a tone; 25 frames a second."""
    path = tmp_path_factory.mktemp("driver") / "driver.mp4"
    rgb, _ = sample_photo("astronaut")
    with av.open(str(path), "w") as out:
        picture = out.add_stream("libx264", rate=25)
        picture.width, picture.height, picture.pix_fmt = 320, 320, "yuv420p"
        sound = out.add_stream("aac", rate=48000, layout="mono")
        for i in range(6):
            moved = np.ascontiguousarray(np.roll(rgb, 4 * i, 1)[:320, 60:380])
            out.mux(picture.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
        out.mux(picture.encode(None))
        tone = (8000 * np.sin(np.arange(48000 * 6 // 25) * 0.05)).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
        frame.sample_rate = 48000
        out.mux(sound.encode(frame))
        out.mux(sound.encode(None))
    return path


def frames_of(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def left_over(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def differ(frames: list[np.ndarray]) -> bool:
    return all(np.abs(a.astype(int) - b).mean() > 0.05 for a, b in zip(frames, frames[1:], strict=False))


def test_the_defaults_write_half_a_second_that_moves_and_says_that_it_is_ai_generated(bundle, tmp_path):
    report = animate(output=tmp_path / "out.mp4", bundle=bundle, seconds=0.5)
    rate = sample_track().rate
    wanted = round(rate / 2)
    with av.open(str(report.output)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
        assert (stream.width, stream.height, stream.frames) == (256, 256, wanted)
        assert stream.average_rate == rate
        assert not container.streams.audio
        assert AI_GENERATED in container.metadata.values()
    frames = frames_of(report.output)
    assert len(frames) == report.frames == wanted
    assert any(not np.array_equal(frame, frames[0]) for frame in frames[1:])
    assert np.ptp(frames[0]) > 100  # a picture, not one colour
    assert left_over(tmp_path) == ["out.mp4"]


def test_the_report_says_what_each_stage_of_a_track_cost(avatar, bundle, short_track, tmp_path):
    report = animate(avatar, short_track, tmp_path / "out.mp4", bundle=bundle)
    assert {name: len(costs) for name, costs in report.stages_s.items()} == {
        "decode": 0, "landmarks": 0, "network": 5, "composite": 5, "encode": 5,
    }  # fmt: skip
    assert report.median_ms("decode") is None and report.median_ms("network") > 0.1
    assert sum(map(sum, report.stages_s.values())) <= report.wall_s
    assert report.frames_per_second == pytest.approx(5 / report.wall_s)
    assert differ(frames_of(report.output))


def test_the_written_frames_are_the_rendered_ones_but_for_the_codec(avatar, bundle, short_track, tmp_path):
    report = animate(avatar, short_track, tmp_path / "out.mp4", bundle=bundle)
    alone = module.open_avatar(avatar, bundle)
    alone.neutral = module.neutral_of(short_track)
    motions = module.driving_motions(short_track, alone.neutral)
    for got, motion in zip(frames_of(report.output), motions, strict=True):
        assert np.abs(got.astype(int) - alone.render(motion)).mean() < 3


def test_the_driver_is_stabilised(avatar, bundle):
    """What drives trembles less than what was tracked, on the shipped driver's first seconds."""
    track = sample_track()
    shakes = lambda points: np.sqrt((np.diff(points, 2, axis=0) ** 2).mean())  # noqa: E731
    calm = np.stack([put_together(motion) for motion in module.driving_motions(track, neutral_of(track))])
    assert shakes(calm) < 0.7 * shakes(track.landmarks[..., :2])


def test_absolute_motion_gives_the_drivers_face_and_relative_motion_the_sources_own(
    avatar, bundle, short_track, tmp_path
):
    videos = {
        motion: frames_of(animate(avatar, short_track, tmp_path / f"{motion}.mp4", bundle=bundle, motion=motion).output)
        for motion in ("relative", "absolute")
    }
    apart = [np.abs(a.astype(int) - b).mean() for a, b in zip(videos["relative"], videos["absolute"], strict=True)]
    assert min(apart) > 2
    assert avatar.mode == "relative"  # a copy was driven
    with pytest.raises(MobileBilayerError, match="'sideways'.*relative, absolute"):
        animate(avatar, short_track, tmp_path / "out.mp4", bundle=bundle, motion="sideways")
    assert left_over(tmp_path) == ["absolute.mp4", "relative.mp4"]


def test_the_neutral_frame_can_be_named(avatar, bundle, short_track, tmp_path):
    report = animate(avatar, short_track, tmp_path / "out.mp4", bundle=bundle, neutral=3)
    alone = module.open_avatar(avatar, bundle)
    alone.neutral = take_apart(short_track[3].landmarks)
    motions = module.driving_motions(short_track, alone.neutral)
    for got, motion in zip(frames_of(report.output), motions, strict=True):
        assert np.abs(got.astype(int) - alone.render(motion)).mean() < 3
    found = frames_of(animate(avatar, short_track, tmp_path / "found.mp4", bundle=bundle).output)
    assert np.abs(found[0].astype(int) - frames_of(report.output)[0]).mean() > 0.5


@pytest.mark.parametrize(("frame", "words"), [(-1, "frames 0 to 4"), (5, "frames 0 to 4"), (2, "no face was found")])
def test_a_neutral_frame_that_is_none_is_refused(avatar, bundle, short_track, tmp_path, frame, words):
    track = replace(short_track, found=np.array([True, True, False, True, True]))
    with pytest.raises(MobileBilayerError, match=f"Frame {frame} .*{words}"):
        animate(avatar, track, tmp_path / "out.mp4", bundle=bundle, neutral=frame)
    with pytest.raises(MobileBilayerError, match="camera has no frame"):
        animate(avatar, "camera:3", tmp_path / "out.mp4", bundle=bundle, neutral=0)
    assert left_over(tmp_path) == []


def test_PO11_a_video_that_starts_later_shows_nearly_the_same(avatar, bundle):
    """From frame 80 on, where the driver has turned by 11 degrees: there the first frame as neutral would be far off."""
    whole = sample_track()
    later = Track(whole.landmarks[80:], whole.times_s[80:], whole.found[80:], RATE, whole.width, whole.height)
    alone = module.open_avatar(avatar, bundle)

    def shown(neutral) -> list[np.ndarray]:
        alone.neutral = neutral
        return [alone.render(whole[i]).astype(int) for i in (100, 140, 180)]

    def apart(first: list[np.ndarray], second: list[np.ndarray]) -> float:
        return float(np.mean([np.abs(one - other).mean() for one, other in zip(first, second, strict=True)]))

    found = apart(shown(module.neutral_of(whole)), shown(module.neutral_of(later)))
    first = apart(shown(whole[0].landmarks), shown(later[0].landmarks))
    assert found < 10 and found < 0.5 * first


def test_side_by_side_shows_source_driver_and_result(avatar, bundle, short_track, tmp_path):
    alone = frames_of(animate(avatar, short_track, tmp_path / "alone.mp4", bundle=bundle).output)
    report = animate(avatar, short_track, tmp_path / "out.mp4", bundle=bundle, side_by_side=True)
    frames = frames_of(report.output)
    assert len(frames) == 5 and all(frame.shape == (256, 768, 3) for frame in frames)
    assert np.abs(frames[0][:, :256].astype(int) - avatar.texture).mean() < 3
    for three, one in zip(frames, alone, strict=True):
        assert np.abs(three[:, 512:].astype(int) - one).mean() < 3
    assert differ([frame[:, 256:512] for frame in frames])


def test_an_avatar_given_is_not_changed(avatar, bundle, short_track, tmp_path):
    before = avatar.compose(*avatar.layers(avatar.source_landmarks))
    animate(avatar, short_track, tmp_path / "out.mp4", bundle=bundle, background="#00ff00")
    grid([avatar], short_track, tmp_path / "out.png", bundle=bundle, columns=1, background="#00ff00")
    assert avatar.neutral is None
    np.testing.assert_array_equal(avatar.compose(*avatar.layers(avatar.source_landmarks)), before)


def test_every_kind_of_source_gives_the_same_video(avatar, bundle, short_track, tmp_path):
    avatar.save(tmp_path / "me.avatar")
    outputs = [
        animate(source, short_track, tmp_path / f"{i}.mp4", bundle=bundle).output
        for i, source in enumerate((None, "astronaut", avatar, tmp_path / "me.avatar", str(tmp_path / "me.avatar")))
    ]
    first = frames_of(outputs[0])
    for output in outputs[1:]:
        np.testing.assert_array_equal(frames_of(output), first)


@needs_model
def test_a_video_with_sound_drives_gives_its_sound_and_costs_what_is_reported(avatar, bundle, driver, tmp_path):
    report = animate(avatar, driver, tmp_path / "out.mp4", bundle=bundle, side_by_side=True)
    assert report.frames == len(frames_of(report.output)) == 6
    assert all(len(costs) == 6 and report.median_ms(name) > 0 for name, costs in report.stages_s.items())
    with av.open(str(report.output)) as container:
        loudness = [np.abs(frame.to_ndarray()).max() for frame in container.decode(audio=0)]
        assert max(loudness) > 0.1
        assert container.streams.video[0].average_rate == RATE
    shown = frames_of(report.output)[0][:, 256:512].astype(int)
    assert np.ptp(shown) > 100 and differ([frame[:, 256:512] for frame in frames_of(report.output)])


@needs_model
def test_a_track_drives_as_its_video_does(avatar, bundle, driver, tmp_path):
    from mobile_bilayer.capture.tracking import track_video

    track_video(VideoReader(driver)).track.save(tmp_path / "driver.track")
    by_video = frames_of(animate(avatar, driver, tmp_path / "video.mp4", bundle=bundle).output)
    by_track = frames_of(animate(avatar, str(tmp_path / "driver.track"), tmp_path / "track.mp4", bundle=bundle).output)
    assert len(by_video) == len(by_track) == 6
    for one, other in zip(by_video, by_track, strict=True):
        # A track keeps 1/128 px: 0.1 grey levels. The codec, which decides anew, makes one of it.
        assert np.abs(one.astype(int) - other).mean() < 2


@needs_model
def test_seconds_end_a_video_early_and_read_no_more_of_it(avatar, bundle, driver, tmp_path):
    report = animate(avatar, driver, tmp_path / "out.mp4", bundle=bundle, seconds=0.12)
    assert report.frames == 3 and len(report.stages_s["landmarks"]) == 3


def lost_track(before: int, found: int, after: int, step_s: float = 0.1) -> Track:
    """Of the shipped one: no face, frames with one, no face again."""
    whole = sample_track()
    times_s = np.arange(before + found + after) * step_s
    picks = np.clip(np.arange(len(times_s)) - before, 0, found - 1)
    seen = np.isin(np.arange(len(times_s)), np.arange(before, before + found))
    return Track(whole.landmarks[20 + picks], times_s, seen, Fraction(10), whole.width, whole.height)


def test_PO3_PO4_before_the_first_face_and_long_after_the_last_the_driver_is_neutral():
    track = lost_track(before=3, found=5, after=15)
    neutral = neutral_of(track)
    motions = list(module.driving_motions(track, neutral))
    assert len(motions) == 23
    assert all(motion is neutral for motion in motions[:3] + motions[18:])
    assert all(motion is motions[7] for motion in motions[8:12])  # lost for 0.1 to 0.4 s
    assert all(motion is not neutral and motion is not motions[7] for motion in motions[13:17])


def test_PO4_CA5_a_lost_driver_is_held_by_the_clock_then_neutral_and_counted(avatar, bundle, tmp_path):
    whole = sample_track()
    times_s = np.array([0, 1, 2, 3, 3.1, 3.3, 3.5, 4.5, 5.0, 6.0])
    found = np.arange(10) < 5
    track = Track(whole.landmarks[[40] * 4 + [0] * 6], times_s, found, Fraction(10), whole.width, whole.height)
    report = animate(avatar, track, tmp_path / "out.mp4", bundle=bundle)
    frames = frames_of(report.output)
    assert (len(frames), report.frames, report.lost) == (10, 10, 5)
    with av.open(str(report.output)) as container:
        np.testing.assert_allclose([frame.time for frame in container.decode(video=0)], times_s, atol=1e-3)
    from_held = [np.abs(frame.astype(int) - frames[4]).mean() for frame in frames[5:]]
    assert max(from_held[:2]) < 0.5 < min(from_held[2:])
    alone = module.open_avatar(avatar, bundle)
    alone.neutral = neutral_of(track)
    for frame in frames[7:]:
        assert np.abs(frame.astype(int) - alone.render(alone.neutral)).mean() < 3


def test_a_grid_is_a_table_of_sources_by_frames(avatar, bundle, short_track, tmp_path):
    path = grid(["astronaut", "grace_hopper"], short_track, tmp_path / "grid.png", bundle=bundle, columns=3)
    table = np.asarray(Image.open(path))
    assert table.shape == (3 * 256, 4 * 256, 3)
    assert not table[:256, :256].any()
    np.testing.assert_array_equal(table[256:512, :256], avatar.texture)
    assert AI_GENERATED in Image.open(path).info.values()
    assert np.abs(table[256:512, 256:].astype(int) - table[512:, 256:]).mean() > 5


def test_a_grid_shows_the_frames_that_differ_most(short_track):
    """Of a driver at rest but for one turn, one open mouth and one blink, four frames are those three and one at rest."""
    rest = take_apart(short_track.landmarks[0])
    turned = rest._replace(pose=rest.pose._replace(rotation=cv2.Rodrigues(np.array([0, 0.3, 0]))[0] @ rest.pose.rotation))
    wide, shut = rest.face.copy(), rest.face.copy()
    wide[[14, 87, 317], 1] += 0.1 * np.ptp(rest.face[:, 1])
    for above, below in ((159, 145), (158, 153), (160, 144), (386, 374), (385, 380), (387, 373)):
        shut[above] = shut[below]
    motions = [rest] * 20
    motions[3], motions[9], motions[14] = rest._replace(face=wide), turned, rest._replace(face=shut)
    chosen = module.telling_frames(iter(motions), 4)
    assert {3, 9, 14} < set(chosen) and chosen == sorted(chosen)
    assert module.telling_frames(motions[:1], 3) == [0, 0, 0]


def test_a_grid_can_move(bundle, short_track, tmp_path):
    path = grid(["astronaut", "grace_hopper"], short_track, tmp_path / "grid.mp4", bundle=bundle)
    frames = frames_of(path)
    assert len(frames) == 5 and frames[0].shape == (512, 768, 3) and differ(frames)
    assert left_over(tmp_path) == ["grid.mp4"]


def test_a_grid_takes_motion_and_neutral_frame(short_track, tmp_path, bundle):
    pictures = {}
    for name, options in {"plain": {}, "absolute": {"motion": "absolute"}, "later": {"neutral": len(short_track) - 1}}.items():
        path = grid(["astronaut"], short_track, tmp_path / f"{name}.png", bundle=bundle, columns=2, **options)
        pictures[name] = read_image(path)[256:, 256:].astype(int)
    for name in ("absolute", "later"):
        assert np.abs(pictures[name] - pictures["plain"]).mean() > 0.5
    for options, words in (({"motion": "sideways"}, "sideways"), ({"neutral": 9999}, "9999")):
        with pytest.raises(MobileBilayerError, match=words):
            grid(["astronaut"], short_track, tmp_path / "grid.png", bundle=bundle, **options)
    assert not (tmp_path / "grid.png").exists()


def test_a_grid_never_overwrites_a_picture_that_it_reads(bundle, short_track, tmp_path):
    Image.fromarray(sample_photo("astronaut")[0]).save(tmp_path / "me.png")
    before = (tmp_path / "me.png").read_bytes()
    mine = tmp_path / "me.png"
    for sources, background in ((["astronaut", mine], "keep"), (["astronaut"], str(mine))):
        with pytest.raises(MobileBilayerError, match="Choose another output"):
            grid(sources, short_track, tmp_path / "me.png", bundle=bundle, background=background)
    assert (tmp_path / "me.png").read_bytes() == before


@pytest.mark.parametrize("columns", [0, -1, 64, 10**9])
def test_a_grid_without_end_or_sources_is_refused(bundle, short_track, tmp_path, columns):
    with pytest.raises(MobileBilayerError, match="columns"):
        grid(["astronaut"], short_track, tmp_path / "grid.png", bundle=bundle, columns=columns)
    with pytest.raises(MobileBilayerError, match="at least one source"):
        grid([], short_track, tmp_path / "grid.png", bundle=bundle)
    with pytest.raises(MobileBilayerError, match="not a camera"):
        grid(["astronaut"], "camera:0", tmp_path / "grid.png", bundle=bundle)


@pytest.mark.parametrize("seconds", [0, -1, math.nan, math.inf, 1e300])
def test_a_length_that_is_none_is_refused(bundle, short_track, tmp_path, seconds):
    with pytest.raises(MobileBilayerError, match="seconds"):
        animate("astronaut", short_track, tmp_path / "out.mp4", bundle=bundle, seconds=seconds)


@pytest.mark.parametrize("failing", ["render", "encode"])
def test_an_error_midway_leaves_no_output_and_nothing_beside_it(
    avatar, bundle, short_track, tmp_path, monkeypatch, failing
):
    old = tmp_path / "out.mp4"
    old.write_bytes(b"older")
    calls = []

    def third_fails(real):
        def call(*arguments):
            calls.append(1)
            if len(calls) == 3:
                raise RuntimeError("the disk caught fire")
            return real(*arguments)

        return call

    where, name = {"render": (Avatar, "compose"), "encode": (module.VideoWriter, "write")}[failing]
    monkeypatch.setattr(where, name, third_fails(getattr(where, name)))
    with pytest.raises(RuntimeError, match="caught fire"):
        animate(avatar, short_track, old, bundle=bundle)
    assert left_over(tmp_path) == ["out.mp4"] and old.read_bytes() == b"older"


def test_the_driver_is_never_overwritten(avatar, bundle, driver, tmp_path):
    copy = tmp_path / "talk.mp4"
    copy.write_bytes(driver.read_bytes())
    with pytest.raises(MobileBilayerError, match="driving video itself"):
        animate(avatar, copy, copy, bundle=bundle)
    assert copy.read_bytes() == driver.read_bytes()


# The camera.


class FakeCamera:
    """A camera that shows these pictures at 10 frames a second; a callable is called in place of one."""

    rate = Fraction(10)
    pictures: tuple = ()

    def __init__(self, index: int) -> None:
        assert index == 3

    def __enter__(self):
        return self

    def __exit__(self, *_exc) -> None:
        pass

    def __iter__(self):
        for number, picture in enumerate(self.pictures):
            yield Frame(picture() if callable(picture) else picture, number / 10)


def interrupt() -> None:
    raise KeyboardInterrupt


@pytest.fixture
def camera(monkeypatch):
    """camera(pictures): what camera:3 shows."""
    monkeypatch.setattr(module, "Camera", FakeCamera)
    return lambda pictures: monkeypatch.setattr(FakeCamera, "pictures", tuple(pictures))


@pytest.fixture
def rendered(monkeypatch) -> list[Motion]:
    """The motion that drives each frame."""
    motions, render = [], module._render
    monkeypatch.setattr(module, "_render", lambda *arguments: motions.append(arguments[1]) or render(*arguments))
    return motions


def photo(shift: int = 0) -> np.ndarray:
    return np.ascontiguousarray(np.roll(sample_photo("astronaut")[0], shift, 1)[:320, 60:380])


@needs_model
def test_a_camera_drives_until_the_seconds_are_over(avatar, bundle, camera, tmp_path):
    empty = np.zeros((320, 320, 3), np.uint8)
    camera([empty, *(photo(6 * i) for i in range(10))])
    report = animate(avatar, "camera:3", tmp_path / "out.mp4", bundle=bundle, side_by_side=True, seconds=0.5)
    frames = frames_of(report.output)
    assert len(frames) == report.frames == 6
    # Before a face is seen the photo stands still.
    assert np.abs(frames[0][:, 512:].astype(int) - avatar.texture).mean() < 3
    assert differ(frames[1:]) and avatar.neutral is None
    assert {name: len(costs) for name, costs in report.stages_s.items()} == {
        "decode": 6, "landmarks": 6, "network": 5, "composite": 5, "encode": 6,
    }  # fmt: skip
    with av.open(str(report.output)) as container:
        assert container.streams.video[0].average_rate == 10


def test_live_a_face_that_is_lost_holds_its_motion_and_comes_back_at_once(avatar, short_track):
    alone = module.open_avatar(avatar, avatar.bundle)
    follow = module.Follower(alone)
    assert follow(None, 0.0) is None and alone.neutral is None
    first, other = short_track[0].landmarks, short_track[3].landmarks
    for i in range(1, 5):
        held = follow(first, i / 30)
    assert follow(None, 5 / 30) is held and follow(None, 6 / 30) is held
    back = follow(other, 7 / 30)
    np.testing.assert_array_equal(back.face, take_apart(other).face)  # not from where it was lost


@needs_model
def test_PO4_a_camera_that_loses_the_face_holds_and_eases_as_a_clip_does(avatar, bundle, camera, rendered, tmp_path):
    empty = np.zeros((320, 320, 3), np.uint8)
    camera([photo(), photo(16), *[empty] * 14, photo(16)])  # 10 frames a second
    report = animate(avatar, "camera:3", tmp_path / "out.mp4", bundle=bundle)
    assert (report.frames, report.lost, len(rendered)) == (17, 14, 17)
    assert all(held is rendered[1] for held in rendered[2:6])  # lost for 0.1 to 0.4 s
    neutral = rendered[15]
    assert all(motion is neutral for motion in rendered[12:16]) and neutral is not rendered[1]
    assert rendered[9] is not rendered[1] and rendered[9] is not neutral
    shift = put_together(rendered[16]) - put_together(neutral)
    assert np.abs(shift).max() > 1  # back, and driving at once


@needs_model
def test_PO4_a_camera_follows_the_one_who_was_there_first(avatar, bundle, camera, rendered, tmp_path):
    both = np.zeros((320, 640, 3), np.uint8)
    both[:, :320] = photo()
    both[80:240, 480:] = photo()[::2, ::2]
    other = both.copy()
    other[:, :320] = 0
    camera([both] * 3 + [other] * 4 + [both] * 2)
    report = animate(avatar, "camera:3", tmp_path / "out.mp4", bundle=bundle)
    assert report.lost == 4
    assert max(put_together(motion)[:, 0].mean() for motion in rendered) < 320


@needs_model
def test_ctrl_c_ends_a_camera_with_a_good_file(avatar, bundle, camera, tmp_path):
    camera([*(photo(6 * i) for i in range(3)), interrupt])
    report = animate(avatar, "camera:3", tmp_path / "out.mp4", bundle=bundle)
    assert len(frames_of(report.output)) == report.frames == 3
    assert left_over(tmp_path) == ["out.mp4"]


@needs_model
def test_ctrl_c_inside_the_encoder_ends_the_video_after_that_frame(avatar, bundle, camera, tmp_path, monkeypatch):
    write = module.VideoWriter.write

    def write_and_signal(writer, rgb, time_s=None):
        if time_s and time_s >= 0.2:
            signal.raise_signal(signal.SIGINT)
        write(writer, rgb, time_s)

    monkeypatch.setattr(module.VideoWriter, "write", write_and_signal)
    camera([photo(6 * i) for i in range(9)])
    started_with = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
    before = signal.getsignal(signal.SIGINT)
    report = animate(avatar, "camera:3", tmp_path / "out.mp4", bundle=bundle)
    assert len(frames_of(report.output)) == report.frames == 3
    assert signal.getsignal(signal.SIGINT) is before
    signal.signal(signal.SIGINT, started_with)


@needs_model
def test_ctrl_c_before_the_first_picture_leaves_nothing(avatar, bundle, camera, tmp_path):
    camera([interrupt])
    with pytest.raises(KeyboardInterrupt):
        animate(avatar, "camera:3", tmp_path / "out.mp4", bundle=bundle)
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("name", ["camera:", "camera:front", "camera:-1", "camera:0x1", "camera:٣", "camera:99999999"])
def test_a_camera_has_a_number(avatar, bundle, tmp_path, name):
    with pytest.raises(MobileBilayerError, match="camera:0, camera:1"):
        animate(avatar, name, tmp_path / "out.mp4", bundle=bundle)
