"""``derain video``: the right pixels on the right side, and the video whole or not at all."""

import cv2
import numpy as np
import pytest
from bag_files import (
    COMPRESSED,
    IMAGE,
    START,
    compressed,
    drive,
    image,
    picture,
    read_bag,
    tree,
    write_bag,
)
from evaluate_files import write_picture
from video_clips import HEIGHT, RATE, WIDTH, read_video, write_video

from derain_ros.cli import main
from derain_ros.files.clip_sources import PictureClip
from derain_ros.files.split_video import write_clip
from derain_ros.files.views import compose, swept_divider
from derain_ros.images.overlay import blend, draw_overlay

DRY = ['--view', 'derained', '--strength', '0']
"""Frames as they came."""


@pytest.fixture
def run(cut_model):
    """Run ``derain video IN -o OUT ...``, and read what it wrote."""
    def run(source, out, *arguments, status=0):
        arguments = ['video', str(source), '-o', str(out), *map(str, arguments)]
        assert main([*arguments, *cut_model]) == status
        return read_video(out)
    return run


def _cut(rainy):
    """What the model makes of a frame: the derained one, and the rain mask."""
    mask = np.where(rainy.max(axis=2) > 120, 255, 0).astype(np.uint8)
    return np.minimum(rainy, 120), mask


def test_a_split_video_has_rain_left_and_none_right(tmp_path, run, capsys):
    source = write_video(tmp_path / 'in.avi')
    before = tree(tmp_path)
    frames, rate = run(source, tmp_path / 'new' / 'out.avi')
    assert len(frames) == 7 and rate == RATE
    middle = WIDTH // 2
    for number, frame in enumerate(frames):
        rainy = picture(number, HEIGHT, WIDTH)
        derained, _ = _cut(rainy)
        assert np.array_equal(frame[:, :middle - 1], rainy[:, :middle - 1])
        assert np.array_equal(frame[:, middle + 1:], derained[:, middle + 1:])
        assert (frame[:, middle - 1:middle + 1] == 255).all()
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['out.avi']
    assert tree(tmp_path)['in.avi'] == before['in.avi']
    captured = capsys.readouterr()
    assert '7 frames of 64x48 at 12.5 Hz' in captured.out and 'note' not in captured.err


@pytest.mark.parametrize('view', ['side-by-side', 'derained', 'mask'])
def test_the_other_views(tmp_path, run, view):
    frames, _ = run(write_video(tmp_path / 'in.avi', 2), tmp_path / 'out.avi', '--view', view,
                     '--strength', '0.5')
    for number, frame in enumerate(frames):
        rainy = picture(number, HEIGHT, WIDTH)
        derained, mask = _cut(rainy)
        mixed = blend(rainy, derained, 0.5)
        assert np.array_equal(frame, {
            'side-by-side': np.hstack([rainy, mixed]), 'derained': mixed,
            'mask': draw_overlay(rainy, mask)}[view])


def test_labels_stay_in_the_lower_corners_and_change_no_input():
    rainy, derained = picture(1, 270, 480), picture(2, 270, 480)
    copies = rainy.copy(), derained.copy()
    shown = compose('split', rainy, derained)
    assert np.array_equal(rainy, copies[0]) and np.array_equal(derained, copies[1])
    expected = np.hstack([rainy[:, :240], derained[:, 240:]])
    changed = np.argwhere((shown != expected).any(axis=2))
    of_labels = changed[(changed[:, 1] < 239) | (changed[:, 1] > 240)]
    assert len(of_labels) and of_labels[:, 0].min() > 235
    for side in (of_labels[of_labels[:, 1] < 240, 1].max(),
                 480 - of_labels[of_labels[:, 1] > 240, 1].min()):
        assert side < 120
    for divider, whole in ((0.0, derained), (1.0, rainy)):
        shown = compose('split', rainy, derained, divider=divider)
        assert np.array_equal(shown[:200, 2:-2], whole[:200, 2:-2])


def test_the_divider_sweeps_there_and_back(tmp_path, run):
    places = [swept_divider(second, 4.0) for second in (0, 1, 2, 3, 4)]
    assert places == pytest.approx([0.1, 0.5, 0.9, 0.5, 0.1])
    frames, _ = run(write_video(tmp_path / 'in.avi'), tmp_path / 'out.avi', '--sweep', '0.48')
    white = [int(np.flatnonzero((frame == 255).all(axis=(0, 2)))[-1]) for frame in frames]
    # Six frames are a period.
    assert white[0] == white[6] < white[1] < white[2] < white[3] > white[4] > white[5]


def test_a_part_of_a_video(tmp_path, run, capsys):
    source = write_video(tmp_path / 'in.avi')
    frames, _ = run(source, tmp_path / 'out.avi', '--start', '0.16', '--duration', '0.24', *DRY)
    assert np.array_equal(frames, [picture(number, HEIGHT, WIDTH) for number in (2, 3, 4)])
    frames, _ = run(source, tmp_path / 'tail.mp4', '--start', '0.4', '--duration', '9', *DRY)
    assert len(frames) == 2 and cv2.PSNR(frames[0], picture(5, HEIGHT, WIDTH)) > 20
    assert 'H.264 loses detail' in capsys.readouterr().err
    run(source, tmp_path / 'none.avi', '--start', '1', status=2)
    assert 'ends before 1 s' in capsys.readouterr().err


@pytest.mark.parametrize('rate', ['0.1', '29.97', '1000'])
def test_pictures_go_in_order_of_their_numbers_at_any_rate(tmp_path, run, rate):
    folder = tmp_path / 'frames'
    for number in (10, 9, 2):
        write_picture(folder / f'f_{number}.png', picture(number, HEIGHT, WIDTH))
    for out in ('out.avi', 'out.mp4'):
        frames, found = run(folder, tmp_path / out, '--fps', rate, *DRY)
        assert found == pytest.approx(float(rate), rel=1e-3)
        for number, frame in zip((2, 9, 10), frames, strict=True):
            assert cv2.PSNR(frame, picture(number, HEIGHT, WIDTH)) > 20


def test_what_of_a_folder_fails_or_is_odd_is_said(tmp_path, run, capsys):
    folder = tmp_path / 'frames'
    write_picture(folder / 'a.png', picture(1, 47, 63))
    (folder / 'b.png').write_bytes(b'no picture')
    frames, _ = run(folder, tmp_path / 'out.avi', *DRY, status=1)
    assert frames[0].shape == (48, 64, 3)
    assert np.array_equal(frames[0][:47, :63], picture(1, 47, 63))
    assert np.array_equal(frames[0][47, :63], picture(1, 47, 63)[46])
    captured = capsys.readouterr()
    assert 'odd' in captured.err and 'b.png: not a picture' in captured.err
    assert '1 frames of 64x48 at 25 Hz, 1 left out' in captured.out
    frames, _ = run(folder, tmp_path / 'both.avi', '--view', 'side-by-side', status=1)
    assert frames[0].shape == (48, 126, 3)
    write_picture(tmp_path / 'small' / 'a.png', picture(1, 16, 16))
    assert run(tmp_path / 'small', tmp_path / 'none.avi', status=1)[0] == []
    assert 'a.png: images are 16x16 pixels' in capsys.readouterr().err
    assert not (tmp_path / 'none.avi').exists()


def _bag(path, count=5, step=50_000_000, start=START):
    rows = []
    for number in range(count):
        time = start + number * step
        rows.append(('/cam/image_raw', IMAGE, time + 7, image(number, time, 'rgb8', padding=3)))
        rows.append(('/rear/image_raw/compressed', COMPRESSED, time + 9,
                     compressed(number + 50, time, 'png')))
    return write_bag(path, rows)


def test_a_bag_at_the_rate_of_its_stamps(tmp_path, run):
    bag = _bag(tmp_path / 'bag')
    frames, rate = run(bag, tmp_path / 'out.avi', '--topic', '/cam/image_raw', *DRY)
    assert rate == 20 and np.array_equal(frames, [picture(number) for number in range(5)])
    frames, rate = run(bag, tmp_path / 'rear.avi', '--topic', 'rear/image_raw', '--fps', '4',
                        *DRY, '--start', '0.1', '--duration', '0.1')
    assert rate == 4 and np.array_equal(frames, [picture(52), picture(53)])


def test_the_derained_topic_of_a_bag_gives_the_same_video(tmp_path, run, cut_model, capsys):
    bag, derained = _bag(tmp_path / 'bag'), tmp_path / 'derained'
    topic = ['--topic', '/cam/image_raw']
    assert main(['bag', str(bag), '-o', str(derained), '--topics', topic[1], *cut_model]) == 0
    capsys.readouterr()
    for view in ('split', 'mask'):
        made, rate = run(bag, tmp_path / f'{view}1.avi', *topic, '--view', view)
        assert 'cut_at_120.onnx on openvino' in capsys.readouterr().err
        given, same_rate = run(
            derained, tmp_path / f'{view}2.avi', *topic, '--view', view, '--derained-topic')
        assert 'on openvino' not in capsys.readouterr().err
        assert rate == same_rate and np.array_equal(made, given)
    part, _ = run(derained, tmp_path / 'part.avi', *topic, '--derained-topic',
                   '/cam/derained/image', '--start', '0.1', '--duration', '0.1', '--view', 'mask')
    assert np.array_equal(part, made[2:4])
    # Without one mask, and without any.
    rows = [(row.topic, row.msgtype, row.time, row.data) for row in read_bag(derained)]
    masks = [row for row in rows if row[0] == '/cam/derained/rain_mask']
    fewer = write_bag(tmp_path / 'fewer', [row for row in rows if row is not masks[1]])
    arguments = (*topic, '--derained-topic', '--view')
    assert len(run(fewer, tmp_path / 'mask.avi', *arguments, 'mask', status=1)[0]) == 4
    assert '1700000000.050000007: has no rain mask' in capsys.readouterr().err
    assert len(run(fewer, tmp_path / 'split.avi', *arguments, 'split')[0]) == 5
    none = write_bag(tmp_path / 'none', [row for row in rows if row not in masks])
    assert main(['video', str(none), '-o', str(tmp_path / 'x.avi'), *arguments, 'mask']) == 2
    assert 'no rain masks' in capsys.readouterr().err


def test_bad_frames_missing_stamps_and_gaps_of_a_bag_are_named(tmp_path, run, capsys):
    bag = write_bag(tmp_path / 'bag', [
        ('/cam/image_raw', IMAGE, START + number * 10**8,
         image(number, START + number * 10**8, **fields))
        for number, fields in enumerate(({'encoding': '32FC1'}, {}, {}, {'height': 900}, {}))])
    frames, rate = run(bag, tmp_path / 'out.avi', status=1)
    assert len(frames) == 3 and rate == 10
    err = capsys.readouterr().err
    assert '/cam/image_raw at 1700000000.000000007: encoding' in err
    assert '/cam/image_raw at 1700000000.300000007: ' in err
    rows = [('/cam/image_raw', IMAGE, START + time * 10**8, image(time, 0))
            for time in (0, 1, 2, 5, 6)]
    frames, rate = run(write_bag(tmp_path / 'gaps', rows), tmp_path / 'gaps.avi')
    assert len(frames) == 5 and rate == 10
    assert '1 gaps' in capsys.readouterr().err


def test_requests_that_do_not_fit_are_refused(tmp_path, derain):
    source = write_video(tmp_path / 'in.avi', 1)
    bag = _bag(tmp_path / 'bag', 2)
    one = write_bag(tmp_path / 'one', [('/cam', IMAGE, START, image(1, START))])
    blind = write_bag(tmp_path / 'blind', drive()[:1])
    for name in ('text.mp4', 'text.txt', 'mine.mp4'):
        (tmp_path / name).write_text('mine')
    (tmp_path / 'empty').mkdir()
    (tmp_path / 'none.mp4').touch()
    before = tree(tmp_path)
    out = tmp_path / 'out.mp4'
    for arguments, words in (
        ((source, '-o', tmp_path / 'out.gif'), ('.mp4 or .avi',)),
        ((source, '-o', str(tmp_path / 'mine.mp4')), ('mine.mp4', 'exists')),
        ((source, '-o', source), ('in.avi', 'exists')),
        ((str(tmp_path / 'text.mp4'), '-o', out), ('text.mp4', 'not a video')),
        ((str(tmp_path / 'none.mp4'), '-o', out), ('none.mp4: the file is empty',)),
        ((tmp_path / 'text.txt', '-o', out), ('text.txt', 'a folder of pictures')),
        ((tmp_path / 'none', '-o', out), ('none', 'no such file')),
        ((tmp_path / 'empty', '-o', out), ('empty', 'no picture')),
        ((source, '-o', out, '--topic', '/x'), ('--topic is for bags',)),
        ((source, '-o', out, '--derained-topic'), ('--derained-topic is for bags',)),
        ((source, '-o', out, '--fps', '5'), ('--fps', 'keeps its own rate')),
        ((source, '-o', out, '--sweep', '--view', 'mask'), ('--sweep', 'mask has none')),
        ((bag, '-o', out), ('--topic is missing', '/cam/image_raw, /rear')),
        ((bag, '-o', out, '--topic', '/x'), ('/x is not an image topic', '/cam/image_raw')),
        ((bag, '-o', out, '--topic', '/cam/image_raw', '--derained-topic'),
         ('/cam/derained/image is not an image topic',)),
        ((bag, '-o', out, '--topic', '/cam/image_raw', '--start', '9'), ('span 0.1 s',)),
        ((one, '-o', out), ('/cam', '--fps')),
        ((blind, '-o', out), ('blind has no Image', 'topics: /wheels (')),
    ):
        message = derain('video', *arguments, status=2).err
        assert all(word in message for word in words), message
        assert tree(tmp_path) == before


def test_an_interrupted_run_leaves_nothing_behind(tmp_path):
    for number in range(4):
        write_picture(tmp_path / 'in' / f'{number}.png', picture(number, HEIGHT, WIDTH))
    out = tmp_path / 'out.mp4'
    seen = []

    def interrupt(count):
        seen.append(count)
        assert not out.exists() and len(list(tmp_path.glob('.out.*'))) == 1
        if len(seen) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_clip(PictureClip(tmp_path / 'in'), out, lambda frame, seconds: frame.rainy,
                   progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ['in']
