"""``derain rain`` on videos: every frame, same size, times and sound, whole or not at all."""

import cv2
import numpy as np
from bag_files import picture, tree
from video_clips import RATE, read_sound, read_video, write_video, write_with_sound

from derain_ros.cli import main
from derain_ros.files.video_files import VideoClip
from derain_ros.rain import RainClip


def test_an_avi_holds_exactly_the_rain_of_the_clip(tmp_path, capsys):
    source = write_video(tmp_path / 'in.avi')
    before = tree(tmp_path)
    out, streaks = tmp_path / 'out' / 'rainy.avi', tmp_path / 'streaks'
    assert main(['rain', str(source), '-o', str(out), '--seed', '4', '--wind', '10',
                 '--streaks', str(streaks)]) == 0
    frames, rate = read_video(out)
    assert len(frames) == 7 and rate == RATE
    clip = RainClip(0.5, 4, wind=10)
    for number, frame in enumerate(frames):
        rainy = clip.render(picture(number, 48, 64), number, number / 12.5)
        assert np.array_equal(frame, rainy.image)
        truth = cv2.imread(str(streaks / f'{number:06d}.png'), cv2.IMREAD_UNCHANGED)
        assert np.abs(truth - 255 * rainy.streaks).max() <= 0.5
    assert len(tree(streaks)) == 7
    assert list(tree(tmp_path / 'out')) == ['rainy.avi']
    assert tree(tmp_path)['in.avi'] == before['in.avi']
    captured = capsys.readouterr()
    assert 'note' not in captured.err
    assert '7 frames of 64x48 at 12.5 Hz' in captured.out


def test_an_mp4_is_near_it_with_its_sound_and_the_same_bytes_each_time(tmp_path, capsys):
    source = write_with_sound(tmp_path / 'in.mp4', 5)
    for name in ('a.mp4', 'b.mp4'):
        assert main(['rain', str(source), '-o', str(tmp_path / name)]) == 0
    assert 'H.264 loses detail' in capsys.readouterr().err
    assert (tmp_path / 'a.mp4').read_bytes() == (tmp_path / 'b.mp4').read_bytes()
    assert read_sound(tmp_path / 'a.mp4') == read_sound(source)
    clip = RainClip(0.5, 1)
    frames = zip(VideoClip(source).read(), read_video(tmp_path / 'a.mp4')[0], strict=True)
    for number, (dry, frame) in enumerate(frames):
        rainy = clip.render(dry.rainy, number, number / 10).image
        assert cv2.PSNR(frame, rainy) > 25


def test_requests_that_do_not_fit_are_refused(tmp_path, derain):
    source = write_video(tmp_path / 'in.avi')
    (tmp_path / 'text.mp4').write_text('not a video')
    (tmp_path / 'mine.mp4').write_text('mine')
    before = tree(tmp_path)
    for arguments, words in (
        ((source, '-o', tmp_path / 'out'), ('.mp4', '.avi')),
        ((source, '-o', tmp_path / 'out.gif'), ('.mp4', '.avi')),
        ((source, '-o', tmp_path / 'mine.mp4'), ('mine.mp4', 'exists')),
        ((source, '-o', source), ('in.avi', 'is the input')),
        ((source, '-o', tmp_path / 'out.avi', '--streaks', tmp_path / 'mine.mp4'),
         ('mine.mp4', 'is a file')),
        ((tmp_path / 'text.mp4', '-o', tmp_path / 'out.mp4'), ('text.mp4', 'not a video')),
        ((tmp_path / 'none.mp4', '-o', tmp_path / 'out.mp4'), ('none.mp4', 'no such file')),
        ((source, '-o', tmp_path / 'out.mp4', '--topics', '/cam'), ('--topics', 'bags')),
    ):
        message = derain('rain', *arguments, status=2).err
        assert all(word in message for word in words), message
        assert tree(tmp_path) == before
