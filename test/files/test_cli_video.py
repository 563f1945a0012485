"""``derain video``: the right pixels on the right side, and the video whole or not at all."""

from contextlib import closing

import cv2
import numpy as np
import pytest
from bag_files import (
    COMPRESSED,
    IMAGE,
    START,
    compressed,
    image,
    picture,
    read_bag,
    tree,
    write_bag,
)
from evaluate_files import write_model, write_picture
from video_clips import HEIGHT, RATE, WIDTH, read_video, write_video

from derain_ros.cli import main
from derain_ros.engines import create_engine
from derain_ros.files.clip_sources import PictureClip
from derain_ros.files.split_video import make_video
from derain_ros.files.views import compose, swept_divider
from derain_ros.images.overlay import blend, draw_overlay
from derain_ros.rain import RainClip


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """A model that is loaded at once: it cuts pixels off at 120 and marks those it cut."""
    return str(write_model(tmp_path_factory.mktemp('model') / 'cut.onnx', 120))


@pytest.fixture(scope='module')
def engine(model):
    with closing(create_engine('auto', model)) as engine:
        yield engine


@pytest.fixture
def run(model):
    """Run ``derain video IN -o OUT ...``, and read what it wrote."""
    def run(source, out, *arguments, status=0):
        arguments = ['video', str(source), '-o', str(out), *map(str, arguments)]
        assert main([*arguments, '--model', model]) == status
        return read_video(out)
    return run


def _derain(engine, rainy):
    result = engine.infer(np.ascontiguousarray(rainy)[np.newaxis])
    return result.image[0], result.rain_mask[0]


def test_a_split_video_has_rain_left_and_none_right(tmp_path, run, engine, capsys):
    source = write_video(tmp_path / 'in.avi')
    before = tree(tmp_path)
    frames, rate = run(source, tmp_path / 'new' / 'out.avi')
    assert len(frames) == 7 and rate == RATE
    for number, frame in enumerate(frames):
        rainy = picture(number, HEIGHT, WIDTH)
        derained, _ = _derain(engine, rainy)
        middle = WIDTH // 2
        assert np.array_equal(frame[:, :middle - 1], rainy[:, :middle - 1])
        assert np.array_equal(frame[:, middle + 1:], derained[:, middle + 1:])
        assert (frame[:, middle - 1:middle + 1] == 255).all()
        assert not np.array_equal(rainy, derained)
    assert [path.name for path in (tmp_path / 'new').iterdir()] == ['out.avi']
    assert tree(tmp_path)['in.avi'] == before['in.avi']
    captured = capsys.readouterr()
    assert '7 frames of 64x48 at 12.5 Hz' in captured.out
    assert 'note' not in captured.err


@pytest.mark.parametrize('view', ['side-by-side', 'derained', 'mask'])
def test_the_other_views(tmp_path, run, engine, view):
    frames, _ = run(write_video(tmp_path / 'in.avi', 2), tmp_path / 'out.avi', '--view', view,
                     '--strength', '0.5')
    for number, frame in enumerate(frames):
        rainy = picture(number, HEIGHT, WIDTH)
        derained, mask = _derain(engine, rainy)
        mixed = blend(rainy, derained, 0.5)
        expected = {
            'side-by-side': np.hstack([rainy, mixed]), 'derained': mixed,
            'mask': draw_overlay(rainy, mask)}[view]
        assert np.array_equal(frame, expected)


def test_the_shipped_model_takes_rain_out_of_a_video(tmp_path):
    clean = picture(3, 96, 128)
    rainy = RainClip(0.5, 1).render(clean, 0, 0.0).image
    write_picture(tmp_path / 'in' / 'a.png', rainy)
    out = tmp_path / 'out.avi'
    assert main(['video', str(tmp_path / 'in'), '-o', str(out), '--view', 'derained']) == 0
    assert cv2.PSNR(read_video(out)[0][0], clean) > cv2.PSNR(rainy, clean) + 5


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
    both = compose('side-by-side', rainy, derained)
    assert both.shape == (270, 960, 3)
    assert np.array_equal(both[:200], np.hstack([rainy, derained])[:200])
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
    frames, _ = run(source, tmp_path / 'out.avi', '--start', '0.16', '--duration', '0.24',
                     '--view', 'derained', '--strength', '0')
    assert len(frames) == 3
    for number, frame in enumerate(frames, start=2):
        assert np.array_equal(frame, picture(number, HEIGHT, WIDTH))
    frames, _ = run(source, tmp_path / 'tail.avi', '--start', '0.4', '--duration', '9')
    assert len(frames) == 2
    run(source, tmp_path / 'none.avi', '--start', '1', status=2)
    assert 'ends before 1 s' in capsys.readouterr().err


def test_mp4_is_near_it_and_said_to_be_lossy(tmp_path, run, capsys):
    frames, _ = run(write_video(tmp_path / 'in.avi'), tmp_path / 'out.mp4', '--view', 'derained',
                     '--strength', '0')
    assert len(frames) == 7
    for number, frame in enumerate(frames):
        assert cv2.PSNR(frame, picture(number, HEIGHT, WIDTH)) > 20
    assert 'H.264 loses detail' in capsys.readouterr().err


def test_pictures_go_in_order_of_their_numbers(tmp_path, run):
    folder = tmp_path / 'frames'
    for number in (10, 9, 2):
        write_picture(folder / f'f_{number}.png', picture(number, HEIGHT, WIDTH))
    frames, rate = run(folder, tmp_path / 'out.avi', '--fps', '7', '--strength', '0',
                        '--view', 'derained')
    assert rate == 7
    for number, frame in zip((2, 9, 10), frames, strict=True):
        assert np.array_equal(frame, picture(number, HEIGHT, WIDTH))


def test_odd_sides_are_padded_by_a_pixel(tmp_path, run, capsys):
    folder = tmp_path / 'frames'
    write_picture(folder / 'a.png', picture(1, 47, 63))
    frames, _ = run(folder, tmp_path / 'out.avi', '--view', 'derained', '--strength', '0')
    assert frames[0].shape == (48, 64, 3)
    assert np.array_equal(frames[0][:47, :63], picture(1, 47, 63))
    assert np.array_equal(frames[0][47, :63], picture(1, 47, 63)[46])
    assert 'odd' in capsys.readouterr().err
    frames, _ = run(folder, tmp_path / 'both.avi', '--view', 'side-by-side')
    assert frames[0].shape == (48, 126, 3)


def test_damaged_pictures_are_named_and_left_out(tmp_path, run, capsys):
    folder = tmp_path / 'frames'
    for name in ('a', 'c'):
        write_picture(folder / f'{name}.png', picture(1, HEIGHT, WIDTH))
    (folder / 'b.png').write_bytes(b'no picture')
    frames, _ = run(folder, tmp_path / 'out.avi', status=1)
    assert len(frames) == 2
    captured = capsys.readouterr()
    assert 'b.png: not a picture' in captured.err and '2 frames' in captured.out
    assert '1 left out' in captured.out


def test_frames_that_are_too_small_are_told(tmp_path, model, capsys):
    write_picture(tmp_path / 'frames' / 'a.png', picture(1, 16, 16))
    assert main(['video', str(tmp_path / 'frames'), '-o', str(tmp_path / 'out.avi'),
                 '--model', model]) == 1
    assert 'a.png: images are 16x16 pixels' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['frames']


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
    frames, rate = run(bag, tmp_path / 'out.avi', '--topic', '/cam/image_raw',
                        '--view', 'derained', '--strength', '0')
    assert rate == 20
    for number, frame in enumerate(frames):
        assert np.array_equal(frame, picture(number))
    frames, rate = run(bag, tmp_path / 'rear.avi', '--topic', 'rear/image_raw', '--fps', '4',
                        '--view', 'derained', '--strength', '0', '--start', '0.1',
                        '--duration', '0.1')
    assert rate == 4 and len(frames) == 2
    for number, frame in enumerate(frames):
        assert np.array_equal(frame, picture(52 + number))


def test_the_derained_topic_of_a_bag_gives_the_same_video(tmp_path, run, model, capsys):
    bag = _bag(tmp_path / 'bag')
    assert main(['bag', str(bag), '-o', str(tmp_path / 'derained'),
                 '--topics', '/cam/image_raw', '--model', model]) == 0
    capsys.readouterr()
    for view in ('split', 'mask'):
        made, rate = run(bag, tmp_path / f'{view}1.avi', '--topic', '/cam/image_raw',
                          '--view', view)
        assert 'cut.onnx on openvino' in capsys.readouterr().err
        given, same_rate = run(
            tmp_path / 'derained', tmp_path / f'{view}2.avi', '--topic', '/cam/image_raw',
            '--view', view, '--derained-topic')
        assert 'on openvino' not in capsys.readouterr().err
        assert rate == same_rate and np.array_equal(made, given)
    part, _ = run(tmp_path / 'derained', tmp_path / 'part.avi', '--topic', '/cam/image_raw',
                   '--derained-topic', '/cam/derained/image', '--start', '0.1',
                   '--duration', '0.1', '--view', 'derained')
    whole, _ = run(bag, tmp_path / 'whole.avi', '--topic', '/cam/image_raw', '--view', 'derained')
    assert np.array_equal(part, whole[2:4])


def test_bad_frames_of_a_bag_are_named(tmp_path, run, capsys):
    rows = [('/cam/image_raw', IMAGE, START + number * 10**8,
             image(number, START + number * 10**8, **fields))
            for number, fields in enumerate(({'encoding': '32FC1'}, {}, {}, {'height': 900}, {}))]
    bag = write_bag(tmp_path / 'bag', rows)
    frames, rate = run(bag, tmp_path / 'out.avi', status=1)
    assert len(frames) == 3 and rate == 10
    err = capsys.readouterr().err
    assert '/cam/image_raw at 1700000000.000000007: encoding' in err
    assert '/cam/image_raw at 1700000000.300000007: ' in err


def test_frames_without_stamps_and_gaps(tmp_path, run, capsys):
    times = [0, 1, 2, 5, 6]
    rows = [('/cam/image_raw', IMAGE, START + time * 10**8, image(time, 0)) for time in times]
    frames, rate = run(write_bag(tmp_path / 'bag', rows), tmp_path / 'out.avi')
    assert len(frames) == 5 and rate == 10
    assert '1 gaps' in capsys.readouterr().err


def test_requests_that_do_not_fit_are_refused(tmp_path, capsys):
    source = str(write_video(tmp_path / 'in.avi'))
    bag = str(_bag(tmp_path / 'bag'))
    one = str(write_bag(tmp_path / 'one', [('/cam', IMAGE, START, image(1, START))]))
    (tmp_path / 'text.mp4').write_text('not a video')
    (tmp_path / 'text.txt').write_text('not a video')
    (tmp_path / 'mine.mp4').write_text('mine')
    (tmp_path / 'empty').mkdir()
    before = tree(tmp_path)
    out = str(tmp_path / 'out.mp4')
    for arguments, words in (
        ((source, '-o', str(tmp_path / 'out.gif')), ('.mp4 or .avi',)),
        ((source, '-o', str(tmp_path / 'mine.mp4')), ('mine.mp4', 'exists')),
        ((source, '-o', source), ('in.avi', 'exists')),
        ((str(tmp_path / 'text.mp4'), '-o', out), ('text.mp4', 'not a video')),
        ((str(tmp_path / 'text.txt'), '-o', out), ('text.txt', 'a folder of pictures')),
        ((str(tmp_path / 'none'), '-o', out), ('none', 'no such file')),
        ((str(tmp_path / 'empty'), '-o', out), ('empty', 'no picture')),
        ((source, '-o', out, '--topic', '/x'), ('--topic is for bags',)),
        ((source, '-o', out, '--derained-topic'), ('--derained-topic is for bags',)),
        ((source, '-o', out, '--fps', '5'), ('--fps', 'keeps its rate')),
        ((source, '-o', out, '--sweep', '--view', 'mask'), ('--sweep', 'mask has none')),
        ((bag, '-o', out), ('--topic is missing', '/cam/image_raw, /rear')),
        ((bag, '-o', out, '--topic', '/x'), ('/x is not an image topic', '/cam/image_raw')),
        ((bag, '-o', out, '--topic', '/cam/image_raw', '--derained-topic'),
         ('/cam/derained/image is not an image topic',)),
        ((bag, '-o', out, '--topic', '/cam/image_raw', '--start', '9'), ('span 0.2 s',)),
        ((one, '-o', out), ('/cam', '--fps')),
    ):
        assert main(['video', *arguments]) == 2, arguments
        message = capsys.readouterr().err
        assert message.startswith('derain: error: ') and message.count('\n') == 1, message
        for word in words:
            assert word in message
        assert tree(tmp_path) == before
    for arguments in (('--sweep', '0'), ('--start', '-1'), ('--fps', 'nan'), ('--duration', '0')):
        with pytest.raises(SystemExit):
            main(['video', source, '-o', out, *arguments])


def test_an_interrupted_run_leaves_nothing_behind(tmp_path, engine):
    for number in range(5):
        write_picture(tmp_path / 'in' / f'{number}.png', picture(number, HEIGHT, WIDTH))
    out = tmp_path / 'out.mp4'
    seen = []

    def interrupt(count):
        seen.append(count)
        assert not out.exists()
        if len(seen) == 3:
            assert len(list(tmp_path.glob('.out.*'))) == 1
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_video(PictureClip(tmp_path / 'in'), out, engine=engine, progress=interrupt)
    assert [path.name for path in tmp_path.iterdir()] == ['in']


def test_frames_of_a_bag_without_a_mask_are_named(tmp_path, run, model, capsys):
    derained = tmp_path / 'derained'
    assert main(['bag', str(_bag(tmp_path / 'bag')), '-o', str(derained),
                 '--topics', '/cam/image_raw', '--model', model]) == 0
    rows = [(row.topic, row.msgtype, row.time, row.data) for row in read_bag(derained)]
    masks = [number for number, row in enumerate(rows) if row[0] == '/cam/derained/rain_mask']
    del rows[masks[1]]
    capsys.readouterr()
    fewer = write_bag(tmp_path / 'fewer', rows)
    arguments = ('--topic', '/cam/image_raw', '--derained-topic', '--view')
    frames, _ = run(fewer, tmp_path / 'mask.avi', *arguments, 'mask', status=1)
    assert len(frames) == 4
    assert '1700000000.050000007: has no rain mask' in capsys.readouterr().err
    assert len(run(fewer, tmp_path / 'split.avi', *arguments, 'split')[0]) == 5
    none = write_bag(tmp_path / 'none', [
        row for row in rows if row[0] != '/cam/derained/rain_mask'])
    assert main(['video', str(none), '-o', str(tmp_path / 'x.avi'), *arguments, 'mask']) == 2
    assert 'no rain masks' in capsys.readouterr().err


@pytest.mark.parametrize('rate', ['0.1', '29.97', '1000'])
def test_pictures_at_any_rate(tmp_path, run, rate):
    write_picture(tmp_path / 'in' / 'a.png', picture(1, HEIGHT, WIDTH))
    for name in ('a.avi', 'a.mp4'):
        frames, found = run(tmp_path / 'in', tmp_path / name, '--fps', rate)
        assert len(frames) == 1 and found == pytest.approx(float(rate), rel=1e-3)
