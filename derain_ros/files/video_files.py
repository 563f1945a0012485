"""Read and write video files with PyAV, keeping frame times, pixel aspect ratio and sound."""

import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import cv2
import numpy as np

from derain_ros.bags.staging import FULL
from derain_ros.files import FileError, check_folder
from derain_ros.files.clip_sources import ClipSource, Sound, VideoFacts
from derain_ros.files.frame_sources import FrameSet
from derain_ros.files.pairs import BadPair
from derain_ros.replacing import replacing
from derain_ros.text import printable

CODECS = {'.mp4': ('mp4', 'libx264', 'yuv420p'), '.avi': ('avi', 'ffv1', 'bgr0')}
"""Container format, encoder and pixel format by suffix: lossy H.264, or lossless FFV1."""

_BT709, _LIMITED_RANGE = 1, 1  # of FFmpeg's AVCOL_
_LAYOUTS = {'1 channels': 'mono', '2 channels': 'stereo'}
_MOST_LOST = 2
"""Frames that may be missing at the end, as the length is an estimate in some formats."""


class VideoClip(ClipSource):
    """A video file, or the part of it from ``start`` on for ``duration`` seconds.

    Raises FileError if it cannot be read, or ends before ``start``.
    """

    def __init__(self, source: Path, start: float = 0.0, duration: float | None = None):
        self._source = source
        self.facts = found = probe_video(source)
        self._start = Fraction(start).limit_denominator(10**6)
        self._stop = found.length
        if found.length is not None and self._start >= found.length:
            raise FileError(f'{source}: ends before {start:g} s; it is '
                             f'{float(found.length):.1f} s long')
        stop = None
        if duration is not None:
            stop = self._start + Fraction(duration).limit_denominator(10**6)
            self._stop = stop if found.length is None else min(stop, found.length)
        if found.length:
            share = (self._stop - self._start) / found.length
            self.facts = replace(found, frames=round(found.frames * share))
        self._cut = stop is not None
        # Other formats count gaps between frames too, or do not store the number.
        self._count = found.frames * (
            not start and not self._cut and source.suffix.lower() in ('.mp4', '.mov', '.m4v'))
        self.sound = Sound(source, self._start, stop)

    def read(self) -> Iterator[FrameSet | BadPair]:
        """Yield the frames, a BadPair for each damaged one, and one if the file is truncated.

        Frames that are predicted from a damaged one are logged.
        """
        number, time = -1, Fraction(-1)
        torn: int | None = None
        with open_video(self._source) as container:
            for number, found in enumerate(read_frames(container)):
                time, image, is_key = found or (time, None, False)
                if image is None and torn is None:
                    torn = number + 1
                elif is_key:
                    self._tell_torn(torn, number)
                    torn = None
                if self._cut and time >= self._stop:
                    self._tell_torn(torn, number)
                    return
                if image is not None and time >= self._start:
                    yield FrameSet(f'frame {number}', None, image, position=number,
                                   seconds=time - self._start)
                elif image is None and time >= self._start - 1 / self.facts.rate:
                    yield BadPair(f'frame {number}', printable(
                        f'{self._source}: frame {number} is damaged'))
        self._tell_torn(torn, number + 1)
        lost = self._count - number - 1
        rest = float(self._stop - time) if self._stop else 0.0
        if max(lost, round(rest * self.facts.rate) - 1) > _MOST_LOST:
            end = f'{lost} frames' if lost > _MOST_LOST else f'{rest:.1f} s'
            yield BadPair(f'frame {number + 1}', printable(
                f'{self._source}: breaks off after frame {number}, {end} before its end; it may '
                'be damaged'))

    def _tell_torn(self, first: int | None, end: int) -> None:
        if first is not None and first < end:
            logging.getLogger(__name__).warning('%s', printable(
                f'{self._source}: frames {first} to {end - 1} are coded from a damaged one, and '
                'may be smeared'))


@contextmanager
def open_video(source: Path) -> Iterator[av.container.InputContainer]:
    """Open a video for reading; raises FileError."""
    with ExitStack() as stack:
        try:
            if source.is_file() and not source.stat().st_size:
                raise FileError(f'{source}: the file is empty')
            file = stack.enter_context(source.open('rb'))
            # A title may be in any encoding, as those of old cameras and editors.
            container = stack.enter_context(av.open(
                _name_for_ffmpeg(file), metadata_errors='replace'))
        except (OSError, av.error.FFmpegError) as error:
            raise FileError(f'{source}: not a video, damaged, or of a kind FFmpeg cannot read '
                             f'({error.strerror})') from error
        if not container.streams.video:
            raise FileError(f'{source}: not a video, it has no pictures')
        yield container


def _name_for_ffmpeg(file: BinaryIO) -> str:
    """Return an ASCII path to an open file, as FFmpeg rejects names that are not UTF-8."""
    return f'/proc/self/fd/{file.fileno()}'


def probe_video(source: Path) -> VideoFacts:
    """Return the properties of a video; raises FileError."""
    with open_video(source) as container:
        first = next(filter(None, read_frames(container)), None)
        if first is None:
            raise FileError(f'{source}: not one frame can be read; it may be damaged')
        height, width = first[1].shape[:2]
        stream = container.streams.video[0]
        # If the frame times fit no rate, FFmpeg guesses the frequency of the clock instead.
        mean, rate = stream.average_rate, stream.guessed_rate
        if mean and (not rate or rate > 4 * mean):
            rate = mean
        if not rate:
            raise FileError(f'{source}: does not say its frame rate; convert it with ffmpeg first')
        length = None
        tag = re.fullmatch(r'(\d+):(\d+):(\d+\.?\d*)', stream.metadata.get('DURATION', ''))
        if stream.duration:
            length = stream.duration * stream.time_base
        elif tag:  # of Matroska
            length = (int(tag[1]) * 60 + int(tag[2])) * 60 + Fraction(tag[3])
        elif container.duration and len(container.streams) == 1:
            length = Fraction(container.duration, av.time_base)
        # The file of a trimmed clip may hold frames that are not shown; old PyAV has no index.
        shown = [not one.is_discard for one in getattr(stream, 'index_entries', ())]
        frames = (stream.frames if all(shown) else sum(shown)) or (
            round(length * (mean or rate)) if length else 0)
        aspect = stream.sample_aspect_ratio or Fraction(1)
        if (height, width) != (stream.height, stream.width):
            aspect = 1 / aspect
        return VideoFacts(width, height, rate, frames, length, stream.time_base, aspect)


def read_frames(
    container: av.container.InputContainer
) -> Iterator[tuple[Fraction, np.ndarray, bool] | None]:
    """Yield the frames of a video as (seconds, image, is_key), or None for a damaged one.

    Times are from the start; images are uint8, H×W×3, BGR, upright; is_key marks key frames.
    """
    stream = container.streams.video[0]
    origin, due = (stream.start_time or 0) * stream.time_base, Fraction(0)
    # An .avi only stores decoding times, and each frame leaves the decoder `delay` after its own.
    delay: int | None = None
    stored: dict[int | None, int] = {}
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            if delay is None:
                stored.setdefault(packet.pts, packet.dts)
            frames = packet.decode()
        except av.error.FFmpegError:
            yield None
            continue
        for frame in frames:
            shown = frame.pts
            if container.format.name == 'avi' and (shown := frame.dts) is not None:
                delay = shown - stored.get(frame.pts, shown) if delay is None else delay
                shown -= delay
            time = due if shown is None else shown * frame.time_base - origin
            due = time + (frame.duration * frame.time_base or 1 / (stream.average_rate or 25))
            yield None if frame.is_corrupt else (
                time, _upright(frame), bool(frame.key_frame))


def _upright(frame: av.VideoFrame) -> np.ndarray:
    """Rotate or mirror a frame by its display matrix: x' = ax + cy, y' = bx + dy."""
    image = frame.to_ndarray(format='bgr24')
    matrix = frame.side_data.get('DISPLAYMATRIX')
    if matrix is None:
        return image
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(b) > abs(a):
        image, a, d = image.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(image[::-1 if d < 0 else 1, ::-1 if a < 0 else 1])


def check_destination(destination: Path) -> None:
    """Raise FileError unless a video of this name can be written, and does not exist yet."""
    if destination.suffix.lower() not in CODECS:
        kinds = ' or '.join(CODECS)
        raise FileError(
            f'{destination}: a video is written as {kinds}; name one, such as '
            f'{destination.with_suffix(".mp4")}')
    if destination.exists() or destination.is_symlink():
        raise FileError(f'{destination}: exists already; name a file that does not')
    check_folder(destination.parent)


@contextmanager
def new_video(
    destination: Path, facts: VideoFacts, sound: Sound | None = None
) -> Iterator['VideoFile']:
    """Write a video, which appears under its name only once the block has ended without error.

    ``destination`` must have passed :func:`check_destination`; ``facts`` gives size, rate, time
    base and pixel aspect, and ``sound`` is copied without re-encoding. Odd sides are padded by a
    row or column; times in an .avi are rounded to multiples of 1/rate. Raises FileError if the
    video cannot be written, or the destination exists by then.
    """
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        with replacing(destination) as partial:
            with ExitStack() as stack:
                file = stack.enter_context(partial.open('wb'))
                kind, encoder, pixels = CODECS[destination.suffix.lower()]
                output = stack.enter_context(av.open(_name_for_ffmpeg(file), 'w', format=kind))
                video = VideoFile(output, encoder, pixels, facts)
                if sound:
                    video.add_sound(stack.enter_context(open_video(sound.source)), sound)
                yield video
                video.finish()
            if destination.exists():
                raise FileError(f'{destination}: has appeared in the meantime; it is left alone')
    except (OSError, av.error.FFmpegError) as error:
        full = '; is the disk full?' if error.errno in FULL else ''
        raise FileError(
            f'{destination}: cannot be written ({error.strerror or error}){full}') from error


class VideoFile:
    """A video that is being written; see :func:`new_video`.

    ``facts`` are those given, with the even sides and the time base of the file; ``frames`` is the
    number written, ``resized`` how many of them had another size and were scaled, ``gaps`` how
    many steps between them exceed 1.5/rate; ``notes`` tell the user what could not be kept.
    """

    def __init__(
        self, output: av.container.OutputContainer, encoder: str, pixels: str, facts: VideoFacts
    ):
        rate = facts.rate
        kept = output.format.name == 'mp4'
        self.facts = replace(
            facts, width=facts.width + facts.width % 2, height=facts.height + facts.height % 2,
            time_base=facts.time_base if kept and facts.time_base else 1 / rate)
        self.frames = self.resized = self.gaps = 0
        self.notes: list[str] = []
        self._output, self._sound = output, iter(())
        self._last = -1
        self._stream = stream = output.add_stream(encoder, rate=rate)
        stream.width, stream.height, stream.pix_fmt = (self.facts.width, self.facts.height, pixels)
        stream.time_base = stream.codec_context.time_base = self.facts.time_base
        self._reformat = {'format': pixels}
        if facts.width % 2 or facts.height % 2:
            self.notes.append('a side of the frames is odd; the last row or column is repeated, '
                              'because a video needs even sides')
        if encoder == 'libx264':
            # With B-frames, the length of a clip with a varying rate would be wrong.
            stream.options = {'crf': '18', 'bf': '0'}
            stream.codec_context.sample_aspect_ratio = facts.aspect
            stream.codec_context.color_range = _LIMITED_RANGE
            for name in ('colorspace', 'color_primaries', 'color_trc'):
                setattr(stream.codec_context, name, _BT709)
            self._reformat['dst_colorspace'] = 'ITU709'
            self.notes.append('H.264 loses detail; name an .avi to keep every pixel')
        elif facts.aspect != 1:
            self.notes.append(
                f'an .avi has square pixels, but these are {float(facts.aspect):g} times as wide '
                'as high; name an .mp4 to keep that')

    def add_sound(self, source: av.container.InputContainer, sound: Sound) -> None:
        """Copy the first audio stream of a video; to be called before the first frame."""
        found = next(iter(source.streams.audio), None)
        if found is None:
            return
        name = found.codec_context.codec.canonical_name if found.codec_context else 'unknown'
        # An .avi has no channel layout, but an .mp4 needs one.
        layout = found.layout.name if found.codec_context and found.layout else ''
        layout = _LAYOUTS.get(layout, layout)
        if name not in self._output.supported_codecs or (
                name.startswith('pcm') and layout.endswith(' channels')):
            self.notes.append(f'the sound ({name}) is left out, as it does not fit into '
                              f'.{self._output.format.name}')
            return
        stream = self._output.add_stream_from_template(found)
        if layout in _LAYOUTS.values():
            stream.codec_context.layout = layout
        video = source.streams.video[0]
        origin = (video.start_time or 0) * video.time_base
        self._sound = _cut(source, found, stream, origin, sound)

    def write(self, frame: np.ndarray, seconds: Fraction) -> None:
        """Add a frame, uint8, H×W×3, BGR, to be shown from a time in seconds on."""
        frame, scaled = fit(frame, self.facts.width, self.facts.height)
        self.resized += scaled
        self.frames += 1
        picture = av.VideoFrame.from_ndarray(frame, format='bgr24').reformat(**self._reformat)
        before = self._last
        self._last = max(before + 1, round(seconds / self.facts.time_base))
        step = (self._last - before) * self.facts.time_base * self.facts.rate
        self.gaps += before >= 0 and step > 1.5
        picture.pts, picture.time_base = self._last, self.facts.time_base
        self._output.mux(self._stream.encode(picture))
        self._copy_sound(seconds)

    def finish(self) -> None:
        """Write what is left: the frames in the encoder, and the rest of the sound."""
        self._output.mux(self._stream.encode())
        self._copy_sound(None)

    def _copy_sound(self, until: Fraction | None) -> None:
        try:
            for packet in self._sound:
                at = packet.pts * packet.time_base
                self._output.mux(packet)
                if until is not None and at > until:
                    return
        except (av.error.InvalidDataError, av.error.ArgumentError):
            self.notes.append('the sound is damaged, and breaks off')
            self._sound = iter(())


def _cut(
    source: av.container.InputContainer, found: av.AudioStream, stream: av.AudioStream,
    origin: Fraction, sound: Sound,
) -> Iterator[av.Packet]:
    """Yield the packets of ``sound``, with times from its start, for another stream."""
    for packet in source.demux(found):
        if packet.pts is None or packet.dts is None:
            continue
        at = packet.pts * packet.time_base - origin
        # Packets before 0 only prime the decoder; they are kept if the sound starts at 0.
        if at < sound.start > 0:
            continue
        if sound.stop is not None and at >= sound.stop:
            return
        shift = round((origin + sound.start) / packet.time_base)
        packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
        yield packet


def fit(image: np.ndarray, width: int, height: int) -> tuple[np.ndarray, bool]:
    """Fit an image into a size in pixels, and return whether it was scaled.

    If one row or column is missing, the last one is repeated; any other image of another size is
    scaled, keeping its aspect ratio, and padded with black bars.
    """
    right, bottom = width - image.shape[1], height - image.shape[0]
    if right in (0, 1) and bottom in (0, 1):
        if right or bottom:
            image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
        return np.ascontiguousarray(image), False
    scale = min(width / image.shape[1], height / image.shape[0])
    image = cv2.resize(image, (max(1, round(image.shape[1] * scale)),
                               max(1, round(image.shape[0] * scale))),
                       interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    top, left = (height - image.shape[0]) // 2, (width - image.shape[1]) // 2
    return cv2.copyMakeBorder(
        image, top, height - image.shape[0] - top, left, width - image.shape[1] - left,
        cv2.BORDER_CONSTANT), True
