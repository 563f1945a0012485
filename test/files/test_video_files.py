"""Videos as people have them: times, sound, shape of pixels, turned, mirrored and damaged."""

import struct
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from bag_files import picture
from browser import chromium, opened_page
from video_clips import (
    HEIGHT,
    WIDTH,
    read_sound,
    read_times,
    read_video,
    turn,
    write_video,
    write_with_sound,
)

from derain_ros.files import FileError
from derain_ros.files.clip_sources import VideoFacts
from derain_ros.files.pairs import BadPair
from derain_ros.files.split_video import write_clip
from derain_ros.files.video_files import VideoClip, new_video, probe_video

TIMES = [number / 10 for number in range(6)] + [1.0, 1.5, 2.0]


def _copy(source, out, *part, show=lambda frame, seconds: frame.rainy):
    """Write a clip as it is."""
    return write_clip(VideoClip(source, *part), out, show)


@pytest.mark.parametrize('suffix', ['mp4', 'avi'])
def test_frames_of_a_varying_rate_keep_their_times(suffix, tmp_path):
    source = write_video(tmp_path / 'in.mp4', times=TIMES, rate=Fraction(10),
                         time_base=Fraction(1, 1000))
    seen = []
    summary = _copy(source, tmp_path / f'out.{suffix}',
                    show=lambda frame, seconds: seen.append(seconds) or frame.rainy)
    assert read_times(tmp_path / f'out.{suffix}') == TIMES
    assert seen == pytest.approx(TIMES)
    assert str(summary) == '9 frames of 64x48 at 10 Hz'
    assert '3 steps between frames are longer than at 10 Hz' in summary.notes[-1]


@pytest.mark.parametrize('name, codec', [
    ('in.avi', 'mpeg4'), ('in.avi', 'libx264'), ('in.h264', 'libx264')])
def test_times_that_a_file_does_not_store_start_at_0(name, codec, tmp_path):
    with av.open(str(tmp_path / name), 'w') as output:
        stream = output.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, 'yuv420p'
        stream.codec_context.max_b_frames = 2
        for number in range(12):
            image = av.VideoFrame.from_ndarray(picture(number, HEIGHT, WIDTH), format='bgr24')
            output.mux(stream.encode(image))
        output.mux(stream.encode())
    assert [frame.seconds for frame in VideoClip(tmp_path / name).read()] == [
        Fraction(number, 10) for number in range(12)]


def test_a_part_starts_at_0(tmp_path):
    source = write_video(tmp_path / 'in.mp4', times=TIMES, rate=Fraction(10),
                         time_base=Fraction(1, 1000))
    _copy(source, tmp_path / 'out.mp4', 0.5, 1)
    assert read_times(tmp_path / 'out.mp4') == [0, 0.5]
    with pytest.raises(FileError, match='ends before 9 s'):
        VideoClip(source, 9)


def test_a_rate_that_no_clock_fits_is_not_taken_for_that_of_the_clock(tmp_path):
    source = write_video(tmp_path / 'in.mp4', time_base=Fraction(1, 90000), times=[
        0, 0.0331, 0.0702, 0.1017, 0.1302, 0.1691, 0.2003])
    _copy(source, tmp_path / 'out.avi')
    assert read_times(tmp_path / 'out.avi') == pytest.approx(read_times(source), abs=0.04)


@pytest.mark.parametrize('suffix', ['mp4', 'avi', 'mkv'])
def test_a_title_that_is_not_utf_8_keeps_no_video_from_being_read(suffix, tmp_path):
    source = write_with_sound(tmp_path / f'in.{suffix}', 3)
    content = source.read_bytes()
    assert b'Lavf' in content  # as the name of the software
    source.write_bytes(content.replace(b'Lavf', 'Läv'.encode('latin-1') + b'f'))
    assert _copy(source, tmp_path / 'out.mp4').video.frames == 3


@pytest.mark.parametrize('matrix, image', [
    ((0, 1, -1, 0), np.rot90(picture(0, HEIGHT, WIDTH), -1)),
    ((0, -1, 1, 0), np.rot90(picture(0, HEIGHT, WIDTH))),
    ((-1, 0, 0, -1), picture(0, HEIGHT, WIDTH)[::-1, ::-1]),
    ((-1, 0, 0, 1), picture(0, HEIGHT, WIDTH)[:, ::-1]),
    ((1, 0, 0, -1), picture(0, HEIGHT, WIDTH)[::-1]),
    ((0, 1, 1, 0), picture(0, HEIGHT, WIDTH).transpose(1, 0, 2)),
])
def test_turned_and_mirrored_videos_are_read_upright(matrix, image, tmp_path):
    source = turn(write_video(tmp_path / 'in.mp4', 2, aspect=Fraction(4, 3)), matrix)
    clip = VideoClip(source)
    frame = next(clip.read())
    assert frame.rainy.shape == image.shape == (clip.facts.height, clip.facts.width, 3)
    assert cv2.PSNR(frame.rainy, np.ascontiguousarray(image)) > 20
    assert clip.facts.aspect == (Fraction(3, 4) if matrix[1] else Fraction(4, 3))


def test_pixels_that_are_not_square_stay_so_or_it_is_said(tmp_path):
    source = write_video(tmp_path / 'in.mp4', 2, aspect=Fraction(4, 3))
    _copy(source, tmp_path / 'out.mp4')
    assert VideoClip(tmp_path / 'out.mp4').facts.aspect == Fraction(4, 3)
    summary = _copy(source, tmp_path / 'out.avi')
    assert any('square pixels' in note for note in summary.notes)


@pytest.mark.parametrize('codec, container', [('aac', 'mp4'), ('mp3', 'matroska')])
def test_sound_is_copied_bit_by_bit(codec, container, tmp_path):
    source = write_with_sound(tmp_path / 'in.mkv', codec=codec, container=container)
    before = read_sound(source)
    for out in ('out.mp4', 'out.avi'):
        _copy(source, tmp_path / out)
        assert [data for _, data in read_sound(tmp_path / out)] == [data for _, data in before]
    _copy(source, tmp_path / 'part.mp4', 0.5, 1)
    part = read_sound(tmp_path / 'part.mp4')
    assert [data for _, data in part] == [data for at, data in before if 0.5 <= at < 1.5]
    assert part[0][0] < 0.03


def test_sound_that_does_not_fit_is_named(tmp_path):
    source = write_with_sound(tmp_path / 'in.mkv', codec='libopus')
    summary = _copy(source, tmp_path / 'out.avi')
    assert 'the sound (opus) is left out, as it does not fit into .avi' in summary.notes
    source.write_bytes(source.read_bytes().replace(b'A_OPUS', b'A_NONE'))
    summary = _copy(source, tmp_path / 'out.mp4')
    assert 'the sound (unknown) is left out, as it does not fit into .mp4' in summary.notes


def test_sound_of_an_old_avi_goes_into_an_mp4(tmp_path):
    source = write_with_sound(tmp_path / 'in.avi', codec='pcm_s16le')
    _copy(source, tmp_path / 'out.mp4')
    assert b''.join(data for _, data in read_sound(tmp_path / 'out.mp4')) == b''.join(
        data for _, data in read_sound(source))


@pytest.mark.parametrize('start, length, said', [
    (0.5, 0.4, 'is damaged'), (0.7, 1, 'breaks off after frame')])
def test_what_is_damaged_is_named_and_all_else_is_read(start, length, said, tmp_path, caplog):
    source = write_with_sound(tmp_path / 'in.mp4', 40)
    content = bytearray(source.read_bytes())
    index = content.rindex(b'moov') - 4  # stays whole
    first, count = int(start * index), int(min(length, 1 - start) * index)
    content[first:first + count] = bytes(count)
    source.write_bytes(content)
    found = list(VideoClip(source).read())
    bad = [frame for frame in found if isinstance(frame, BadPair)]
    assert 5 < len(found) - len(bad) < 40
    assert any(said in frame.reason for frame in bad)
    assert 'are coded from a damaged one' in caplog.text or start != 0.5


def test_a_recording_that_broke_off_is_told(tmp_path):
    source = write_with_sound(tmp_path / 'in.mkv', 20)
    content = source.read_bytes()
    source.write_bytes(content[:len(content) // 2])
    *frames, bad = VideoClip(source).read()
    assert len(frames) > 3 and ' s before its end' in bad.reason


def test_a_clip_trimmed_without_coding_it_again_is_whole(tmp_path):
    source = write_video(tmp_path / 'in.mp4', 30, rate=Fraction(10))
    content = bytearray(source.read_bytes())
    place = content.index(b'elst') + 12
    struct.pack_into('>Ii', content, place, 1200, round(0.9 / probe_video(source).time_base))
    source.write_bytes(content)
    clip = VideoClip(source)
    assert [frame.seconds for frame in clip.read()] == [Fraction(n, 10) for n in range(12)]
    assert clip.facts.frames == 12


def test_frames_of_another_size_are_scaled_between_bars_and_counted(tmp_path):
    facts = VideoFacts(96, 64, Fraction(10), 0)
    with new_video(tmp_path / 'out.avi', facts) as video:
        for number, size in enumerate([(64, 96), (32, 48), (64, 64)]):
            video.write(picture(number, *size), Fraction(number, 10))
    frames, _ = read_video(tmp_path / 'out.avi')
    assert video.resized == 2 and [frame.shape for frame in frames] == [(64, 96, 3)] * 3
    assert np.array_equal(frames[0], picture(0))
    assert np.array_equal(frames[2][:, 16:80], picture(2, 64, 64))
    assert not frames[2][:, :16].any() and not frames[2][:, 80:].any()


@pytest.mark.slow
def test_chromium_plays_what_is_written_with_its_sound(tmp_path):
    _copy(write_with_sound(tmp_path / 'in.mp4'), tmp_path / 'out.mp4')
    page = tmp_path / 'page.html'
    page.write_text('<video id="v" src="out.mp4" muted></video>')
    with chromium() as browser, opened_page(browser, page) as (shown, _):
        played = shown.evaluate('''new Promise(done => {
            const v = document.getElementById("v");
            v.onerror = () => done("error " + v.error.message);
            v.onended = () => done([v.videoWidth, v.videoHeight, v.duration, v.currentTime,
                v.getVideoPlaybackQuality().totalVideoFrames, v.webkitAudioDecodedByteCount]);
            v.play().catch(error => done(String(error)));
        })''')
    width, height, duration, time, frames, sound = played
    assert (width, height) == (WIDTH, HEIGHT)
    assert duration == pytest.approx(2, abs=0.1) and time == pytest.approx(2, abs=0.1)
    assert frames > 5 and sound > 0
