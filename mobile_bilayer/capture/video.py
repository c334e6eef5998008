"""Video files in and out."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace

from mobile_bilayer.capture import hdr
from mobile_bilayer.capture.images import AI_GENERATED, check_input, check_output, check_rgb, ftyp_kind, written_aside
from mobile_bilayer.errors import MobileBilayerError

VIDEO_SUFFIXES = (".mp4",)  # what VideoWriter can write
FALLBACK_RATE = Fraction(30)  # frames per second, where a file or camera names none that can be

_MP4_AUDIO = {"aac", "mp3", "ac3", "eac3", "alac", "opus"}  # copied; others become AAC
_AAC_RATES = {8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000}  # Hz
_BT709 = 1  # in FFmpeg's tables of primaries, transfer functions and matrices
_LIMITED = 1  # FFmpeg's number for luma in 16..235


@dataclass(frozen=True)
class Frame:
    """One frame: upright (H, W, 3) uint8 RGB, and its time from the clip's first frame."""

    rgb: np.ndarray
    time_s: float


class VideoReader:
    """Frames of a file, one at a time: memory doesn't grow with the clip's length.

    path           the file
    rate           frames per second, on average
    width, height  pixels, upright
    frames         how many, or None; an estimate, for progress bars
    duration_s     seconds, or None
    has_audio

    Each iteration starts from the beginning. Frames that can't be decoded are left out, with a warning at the end; the
    others keep their times. HDR becomes SDR, and pixels that are not square are made so.
    """

    path: Path
    rate: Fraction
    width: int
    height: int
    frames: int | None
    duration_s: float | None
    has_audio: bool

    def __init__(self, path: Path) -> None:
        self.path = check_input(path, "video")
        with _opened(self.path) as container:
            stream = _video_stream(container)
            if stream is None:
                raise MobileBilayerError(f"{path} has no pictures, only sound or data. Choose a video.")
            self.rate = _rate(stream)
            self.duration_s = _duration_s(container, stream)
            self.frames = stream.frames or (round(self.duration_s * self.rate) if self.duration_s else None)
            self.has_audio = bool(container.streams.audio)
            first = _first_frame(container, stream, self.path)
            self._look = _Look(_display_matrix(first), _pixel_aspect(stream), stream.codec_context.color_trc)
            self.height, self.width = self._look.picture(first).shape[:2]

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_exc) -> None:
        """Nothing to do: each iteration opens the file and closes it."""

    def __iter__(self) -> Iterator[Frame]:
        clock = _Clock(self.rate)
        with _opened(self.path) as container:
            for frame in _decoded(container, _video_stream(container), self.path):
                yield Frame(self._look.picture(frame), clock.time_s(frame.time))


class VideoWriter:
    """An MP4 (H.264) with the sound of another clip; it says in its metadata that it is AI-generated.

    path           ends in .mp4; takes its place only when all went well
    rate           frames per second, exact (30000/1001 stays so)
    width, height  pixels of the frames to come; H.264 needs them even, so an odd one grows by one pixel,
                   a copy of the last column or row
    audio_from     clip whose sound is taken, from its first frame on and up to our last; it may be silent

    >>> with VideoWriter(Path("out.mp4"), Fraction(30), 512, 512, audio_from=Path("driving.mp4")) as video:
    ...     video.write(rgb)
    """

    def __init__(self, path: Path, rate: Fraction, width: int, height: int, audio_from: Path | None = None) -> None:
        self._path = check_output(path, VIDEO_SUFFIXES)
        if not 1 <= rate <= 1000:
            raise MobileBilayerError(f"The rate is {rate} frames per second; it must be in 1..1000. Try 30.")
        if not (0 < width <= 16384 and 0 < height <= 16384):
            raise MobileBilayerError(f"The size is {width}x{height}; both must be in 1..16384. Try 512x512.")
        self._rate = Fraction(rate).limit_denominator(1001)
        self._shape = (height, width, 3)
        self._audio_from = None if audio_from is None else check_input(audio_from, "clip with sound")
        # Ticks of about 1/90000 s, of which each frame takes a whole number.
        self._tick = 1 / Fraction(self._rate.numerator * -(-90000 // self._rate.numerator))
        self._last = None  # ticks
        self._written = 0

    def __enter__(self) -> VideoWriter:
        with ExitStack() as stack:
            self._aside = stack.enter_context(written_aside(self._path))
            with self._telling_errors():
                options = {"movflags": "+faststart"}
                self._output = stack.enter_context(av.open(f"file:{self._aside}", "w", format="mp4", options=options))
                self._output.metadata.update(title=AI_GENERATED, comment=AI_GENERATED, description=AI_GENERATED)
                self._stream = self._video_stream()
            self._sound = stack.enter_context(_Sound(self._audio_from, self._output)) if self._audio_from else None
            self._stack = stack.pop_all()
        return self

    def __exit__(self, kind, error, trace) -> None:
        """On an error the file aside is removed, else it is finished, checked and renamed."""
        if error is not None:
            with suppress(av.FFmpegError, OSError):  # the caller's error is the one to tell
                self._stack.__exit__(kind, error, trace)
            return
        with self._telling_errors(), self._stack:
            self._finish()

    def write(self, rgb: np.ndarray, time_s: float | None = None) -> None:
        """Add a frame (height, width, 3) uint8 RGB; without `time_s` it follows the last one at the clip's rate.

        time_s  seconds from the clip's start; must grow from frame to frame
        """
        if rgb.shape != self._shape:
            raise MobileBilayerError(
                f"Frame {self._written} of {self._path} has shape {rgb.shape}; the clip was begun with {self._shape}. "
                "Resize the frame, or begin another clip."
            )
        picture = np.pad(check_rgb(rgb), [(0, rgb.shape[0] % 2), (0, rgb.shape[1] % 2), (0, 0)], mode="edge")
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )
        frame.pts = self._ticks(time_s)
        frame.time_base = self._tick
        frame.duration = self._frame_ticks
        with self._telling_errors():
            if self._sound:
                self._sound.mux_until(float(frame.pts * self._tick))
            self._output.mux(self._stream.encode(frame))
        self._last = frame.pts
        self._written += 1

    @property
    def _frame_ticks(self) -> int:
        return int(1 / self._rate / self._tick)

    def _ticks(self, time_s: float | None) -> int:
        if time_s is None:
            return 0 if self._last is None else self._last + self._frame_ticks
        if not 0 <= time_s < 1e6 or (self._last is not None and round(time_s / self._tick) <= self._last):
            before = "none" if self._last is None else f"{float(self._last * self._tick):.6f} s"
            raise MobileBilayerError(
                f"Frame {self._written} of {self._path} is at {time_s} s and the one before it at {before}; "
                "times must start at 0 or later and grow. Leave time_s out to follow the rate."
            )
        return round(time_s / self._tick)

    def _video_stream(self) -> av.VideoStream:
        stream = self._output.add_stream("libx264", rate=self._rate, options={"crf": "16"})
        stream.height, stream.width = (side + side % 2 for side in self._shape[:2])
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = self._tick
        context.color_primaries = context.color_trc = context.colorspace = _BT709
        context.color_range = _LIMITED
        return stream

    def _finish(self) -> None:
        if not self._written:
            raise MobileBilayerError(f"No frame was given for {self._path}, so it was not written. Write at least one.")
        self._output.mux(self._stream.encode(None))
        if self._sound:
            self._sound.mux_until(float((self._last + self._frame_ticks) * self._tick))
            self._sound.flush()
        self._output.close()
        with _opened(self._aside) as container:
            kept = container.streams.video[0].frames
        if kept != self._written:
            raise MobileBilayerError(
                f"{self._path} would hold {kept} of the {self._written} frames, so it was not written. "
                "Check the free space and try again."
            )

    @contextmanager
    def _telling_errors(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            raise MobileBilayerError(
                f"{self._path} could not be written: {error.strerror or error}. Free some space, or write elsewhere."
            ) from error


class _Sound:
    """The sound of a clip, given to an output bit by bit so that neither is held in memory."""

    def __init__(self, path: Path, output: av.container.OutputContainer) -> None:
        self._path, self._output = path, output
        self._waiting = None  # (time_s, packet or frame)
        with ExitStack() as stack:
            self._source = stack.enter_context(_opened(path))
            self._items = self._prepare()
            self._stack = stack.pop_all()

    def __enter__(self) -> _Sound:
        return self

    def __exit__(self, *_exc) -> None:
        self._stack.close()

    def mux_until(self, end_s: float) -> None:
        """Give the output all sound that starts before `end_s` of the picture."""
        while self._waiting is not None or self._advance():
            time_s, item = self._waiting
            if time_s >= end_s:
                return
            self._output.mux(self._encoder.encode(item) if self._encoder else item)
            self._waiting = None

    def flush(self) -> None:
        """Give the output what the encoder still holds."""
        if self._encoder:
            self._output.mux(self._encoder.encode(None))

    def _advance(self) -> bool:
        self._waiting = next(self._items, None)
        return self._waiting is not None

    def _prepare(self) -> Iterator[tuple[float, av.Packet | av.AudioFrame]]:
        """Opens the output's sound stream. What goes into it comes later, timed from the first picture."""
        self._encoder = None
        stream = next((s for s in self._source.streams.audio if s.codec_context is not None), None)
        if stream is None:
            if self._source.streams.audio:
                warnings.warn(f"The sound of {self._path} is in an unknown format and is left out.", stacklevel=4)
            return iter(())
        start_s = self._picture_start_s()
        if stream.codec_context.codec.canonical_name in _MP4_AUDIO:
            return self._packets(stream, self._output.add_stream_from_template(stream), start_s)
        rate = stream.rate if stream.rate in _AAC_RATES else 48000
        self._encoder = self._output.add_stream("aac", rate=rate, layout="mono" if stream.channels == 1 else "stereo")
        return self._frames(stream, start_s)

    def _picture_start_s(self) -> float:
        """Where the clip's first picture is on its own clock."""
        with _opened(self._path) as container:
            stream = _video_stream(container)
            return (_first_frame(container, stream, self._path).time or 0.0) if stream else 0.0

    def _packets(self, stream, out, start_s: float) -> Iterator[tuple[float, av.Packet]]:
        shift = round(start_s / stream.time_base)
        for packet in _until_broken(self._source.demux(stream)):
            if packet.pts is None or packet.dts is None or packet.pts < shift:
                continue
            packet.pts -= shift
            packet.dts -= shift
            packet.stream = out
            yield float(packet.pts * packet.time_base), packet

    def _frames(self, stream, start_s: float) -> Iterator[tuple[float, av.AudioFrame]]:
        for frame in _until_broken(self._source.decode(stream)):
            shift = round(start_s / frame.time_base)
            if frame.pts is None or frame.pts < shift:
                continue
            frame.pts -= shift
            yield float(frame.pts * frame.time_base), frame


@dataclass(frozen=True)
class _Look:
    """How a clip's stored pictures become the shown ones.

    matrix    of the display, see `_display_matrix`
    aspect    a pixel's width by its height
    transfer  how light is coded, by its number in ITU-T H.273
    """

    matrix: tuple[int, int, int, int]
    aspect: float
    transfer: int

    def picture(self, frame: av.VideoFrame) -> np.ndarray:
        """(H, W, 3) uint8 RGB: turned and mirrored to the nearest quarter turn, of square pixels, SDR."""
        width = round(frame.width * self.aspect)
        if self.transfer in (hdr.PQ, hdr.HLG):
            rgb = hdr.to_sdr(frame.to_ndarray(format="rgb48le", width=width), self.transfer)
        else:
            rgb = frame.to_ndarray(format="rgb24", width=width)
        a, b, c, d = self.matrix
        x_sign, y_sign = a, d
        if abs(b) > abs(a):
            rgb = rgb.transpose(1, 0, 2)
            x_sign, y_sign = c, b
        if x_sign < 0:
            rgb = rgb[:, ::-1]
        if y_sign < 0:
            rgb = rgb[::-1]
        return np.ascontiguousarray(rgb)


class _Clock:
    """Times that start at 0 and grow strictly, from presentation times that may not."""

    def __init__(self, rate: Fraction) -> None:
        self._step_s = float(1 / rate)
        self._start_s = self._last_s = None

    def time_s(self, shown_s: float | None) -> float:
        """Time of the next frame; `shown_s` is what the file says, or None."""
        if self._last_s is None:
            self._start_s, self._last_s = shown_s or 0.0, 0.0
            return 0.0
        if shown_s is None:
            self._last_s += self._step_s
            return self._last_s
        if shown_s - self._start_s < self._last_s - 1:  # the file's clock was set back: go on from here
            self._start_s = shown_s - self._last_s - self._step_s
        self._last_s = max(shown_s - self._start_s, self._last_s + 0.001)
        return self._last_s


@contextmanager
def _opened(path: Path) -> Iterator[av.container.InputContainer]:
    """A media file; stills and texts, which FFmpeg would play too, are refused."""
    try:
        container = av.open(f"file:{path}", metadata_errors="replace")
    except (av.FFmpegError, OSError) as error:
        raise MobileBilayerError(
            f"{path} is not a video we can read, or it is cut off: {error.strerror}. "
            "Copy it again, or save it as MP4 (H.264)."
        ) from error
    with container:
        kind = container.format.name
        with path.open("rb") as file:
            still = ftyp_kind(file.read(256)) in {"HEIC", "AVIF"}
        if still or kind in {"tty", "image2"} or kind.endswith("_pipe"):
            raise MobileBilayerError(f"{path} is not a video but a photo or text. Choose a video.")
        yield container


def _video_stream(container: av.container.InputContainer) -> av.VideoStream | None:
    """The first that moves: cover pictures of songs don't."""
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    return None


def _first_frame(container: av.container.InputContainer, stream: av.VideoStream, path: Path) -> av.VideoFrame:
    damages = []
    for frame in _decodable(container, stream, damages):
        return frame
    if damages:
        raise MobileBilayerError(
            f"No frame of {path} can be decoded: {damages[0].why}. Copy it again, or save it as MP4 (H.264)."
        )
    raise MobileBilayerError(f"{path} has no frames. Copy or record it again.")


def _decoded(container: av.container.InputContainer, stream: av.VideoStream, path: Path) -> Iterator[av.VideoFrame]:
    """All frames that can be decoded, then a warning if some could not."""
    count, end_s = 0, 0.0
    damages = []
    for frame in _decodable(container, stream, damages):
        yield frame
        count, end_s = count + 1, frame.time or end_s
    if not damages and _breaks_off(container, stream, end_s):
        damages.append(_Damage("it ends too early", count, end_s))
    if damages:
        first = damages[0]
        lost = "the rest is" if first.after == count else "some frames there are"
        warnings.warn(
            f"{path} is damaged after {first.after} frames, at {first.at_s:.2f} s ({first.why}); {lost} left out. "
            "Copy it again if you can.",
            stacklevel=3,
        )


@dataclass(frozen=True)
class _Damage:
    """Why frames are missing, after how many of them, and when on the file's clock (seconds)."""

    why: str
    after: int
    at_s: float


def _decodable(
    container: av.container.InputContainer, stream: av.VideoStream, damages: list[_Damage]
) -> Iterator[av.VideoFrame]:
    """All frames but those that can't be decoded; why they can't goes to `damages`."""
    count, end_s = 0, 0.0
    packets = container.demux(stream)
    while True:
        packet, frames = None, []
        try:
            packet = next(packets, None)
            if packet is None:
                return
            if packet.is_corrupt:
                damages.append(_Damage("data are missing", count, end_s))
            frames = packet.decode()
        except (av.FFmpegError, OSError) as error:
            damages.append(_Damage(error.strerror or str(error), count, end_s))
            if packet is None:  # nothing more can be read, but some frames still wait for their turn
                frames = _until_broken(frame for _ in (0,) for frame in stream.codec_context.decode(None))
        for frame in frames:
            yield frame
            count, end_s = count + 1, frame.time or end_s


def _until_broken(items: Iterator) -> Iterator:
    try:
        yield from items
    except (av.FFmpegError, OSError):
        return


def _breaks_off(container: av.container.InputContainer, stream: av.VideoStream, end_s: float) -> bool:
    """Whether the file is shorter than its own index or length says. Some containers end without an error."""
    if "mp4" in container.format.name and len(stream.index_entries):
        last = stream.index_entries[-1]
        return last.pos + last.size > container.size
    if "matroska" in container.format.name and "DURATION" in stream.metadata:
        return end_s + 1 < _tagged_duration_s(stream)
    return False


def _tagged_duration_s(stream: av.VideoStream) -> float:
    """Matroska's tag, such as 00:01:02.500000000."""
    hours, minutes, seconds = stream.metadata["DURATION"].split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def _duration_s(container: av.container.InputContainer, stream: av.VideoStream) -> float | None:
    if stream.duration:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


def _rate(stream: av.VideoStream) -> Fraction:
    """Frames per second: the average, else FFmpeg's guess, else 30. Containers also hold impossible ones."""
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate and 1 <= rate <= 240:
            return Fraction(rate).limit_denominator(1001)
    return FALLBACK_RATE


def _display_matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """(a, b, c, d): the picture's point (x, y) is shown at (a x + c y, b x + d y). One for the whole clip.

    Not to be asked of every frame: PyAV ties a frame to its side data in a cycle, which keeps it in memory
    until the garbage collector comes by.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    return a, b, c, d


def _pixel_aspect(stream: av.VideoStream) -> float:
    """A pixel's width by its height. Files also hold impossible ones."""
    aspect = stream.sample_aspect_ratio
    return float(aspect) if aspect and 1 / 4 <= aspect <= 4 and abs(aspect - 1) > 0.01 else 1.0
