"""``derain rain`` on videos: every frame, same size and rate, whole or not at all."""

import cv2
import numpy as np
import pytest
from bag_files import picture, tree

from derain_ros.cli import main
from derain_ros.rain import RainClip
from derain_ros.rain.apply.rainy_videos import inspect_video, rain_video

FRAMES = 7
RATE = 12.5


def _video(path, frames=FRAMES, codec='FFV1', height=48, width=64):
    writer = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*codec), RATE, (width, height))
    assert writer.isOpened()
    for number in range(frames):
        writer.write(picture(number, height, width))
    writer.release()
    return path


def _read(path):
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        done, frame = capture.read()
        if not done:
            return frames, capture.get(cv2.CAP_PROP_FPS)
        frames.append(frame)


def test_an_avi_holds_exactly_the_rain_of_the_clip(tmp_path, capsys):
    source = _video(tmp_path / 'in.avi')
    before = tree(tmp_path)
    out, streaks = tmp_path / 'out' / 'rainy.avi', tmp_path / 'streaks'
    assert main(['rain', str(source), '-o', str(out), '--seed', '4', '--wind', '10',
                 '--streaks', str(streaks)]) == 0
    frames, rate = _read(out)
    assert len(frames) == FRAMES and rate == RATE
    clip = RainClip(0.5, 4, wind=10)
    for number, frame in enumerate(frames):
        rainy = clip.render(picture(number, 48, 64), number, number / RATE)
        assert np.array_equal(frame, rainy.image)
        truth = cv2.imread(str(streaks / f'{number:06d}.png'), cv2.IMREAD_UNCHANGED)
        assert np.abs(truth - 255 * rainy.streaks).max() <= 0.5
    assert len(tree(streaks)) == FRAMES
    assert list(tree(tmp_path / 'out')) == ['rainy.avi']
    assert tree(tmp_path)['in.avi'] == before['in.avi']
    captured = capsys.readouterr()
    assert 'sound' in captured.err and 'loses' not in captured.err
    assert '7 frames of 64x48 at 12.5 Hz' in captured.out


def test_an_mp4_is_near_it_and_said_to_be_lossy(tmp_path, capsys):
    source = _video(tmp_path / 'in.avi')
    assert main(['rain', str(source), '-o', str(tmp_path / 'out.mp4')]) == 0
    frames, rate = _read(tmp_path / 'out.mp4')
    assert len(frames) == FRAMES and rate == RATE
    clip = RainClip(0.5, 1)
    for number, frame in enumerate(frames):
        rainy = clip.render(picture(number, 48, 64), number, number / RATE).image
        assert cv2.PSNR(frame, rainy) > 20
    assert 'MPEG-4 loses detail' in capsys.readouterr().err


def test_two_runs_write_the_same_bytes(tmp_path):
    source = _video(tmp_path / 'in.avi')
    for name in ('a.avi', 'b.avi', 'a.mp4', 'b.mp4'):
        assert main(['rain', str(source), '-o', str(tmp_path / name)]) == 0
    for kind in ('avi', 'mp4'):
        assert (tmp_path / f'a.{kind}').read_bytes() == (tmp_path / f'b.{kind}').read_bytes()


def test_requests_that_do_not_fit_are_refused(tmp_path, capsys):
    source = _video(tmp_path / 'in.avi')
    (tmp_path / 'text.mp4').write_text('not a video')
    (tmp_path / 'mine.mp4').write_text('mine')
    before = tree(tmp_path)
    for arguments, words in (
        ((source, '-o', tmp_path / 'out'), ('.mp4', '.avi')),
        ((source, '-o', tmp_path / 'out.gif'), ('.mp4', '.avi')),
        ((source, '-o', tmp_path / 'mine.mp4'), ('mine.mp4', 'exists')),
        ((source, '-o', source), ('in.avi', 'is the input')),
        ((tmp_path / 'text.mp4', '-o', tmp_path / 'out.mp4'), ('text.mp4', 'not a video')),
        ((tmp_path / 'none.mp4', '-o', tmp_path / 'out.mp4'), ('none.mp4', 'no such file')),
        ((source, '-o', tmp_path / 'out.mp4', '--topics', '/cam'), ('--topics', 'bags')),
    ):
        assert main(['rain', *map(str, arguments)]) == 2
        message = capsys.readouterr().err
        assert message.startswith('derain: error: ') and message.count('\n') == 1
        for word in words:
            assert word in message
        assert tree(tmp_path) == before


def test_odd_sides_are_refused_because_they_would_be_cut(tmp_path, capsys):
    # OpenCV cannot write such a video, but one of motion JPEG frames may hold it.
    source = tmp_path / 'in.mpg'
    frames = [cv2.imencode('.jpg', picture(number, 47, 64))[1].tobytes() for number in range(3)]
    source.write_bytes(b''.join(frames))
    assert main(['rain', str(source), '-o', str(tmp_path / 'out.mp4')]) == 2
    message = capsys.readouterr().err
    assert '64x47' in message and 'even' in message
    assert not (tmp_path / 'out.mp4').exists()


def test_a_video_that_breaks_off_is_kept_and_told(tmp_path, capsys):
    source = _video(tmp_path / 'in.mp4', frames=40, codec='mp4v')
    data = bytearray(source.read_bytes())
    data[len(data) // 2:len(data) // 2 + 4 * len(data) // 10] = bytes(4 * len(data) // 10)
    source.write_bytes(data)
    readable = len(_read(source)[0])
    assert readable < 37
    assert main(['rain', str(source), '-o', str(tmp_path / 'out.avi')]) == 1
    assert f'announces 40 frames, only {readable}' in capsys.readouterr().err
    assert len(_read(tmp_path / 'out.avi')[0]) == readable


def test_an_interrupted_run_leaves_nothing_behind(tmp_path):
    source = _video(tmp_path / 'in.avi')
    out = tmp_path / 'out.mp4'
    seen = []

    def interrupt(count):
        seen.append(count)
        assert not out.exists()
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rain_video(source, out, inspect_video(source, out), RainClip(0.5, 1), progress=interrupt)
    assert list(tree(tmp_path)) == ['in.avi']
