"""The demo: the real node, over DDS, on the clip of the repository.

What is not asserted: a frame rate or a latency. They depend on what else the machine does.
"""

import shutil
import signal
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.highlevel import AnyReader
from started_commands import started

from derain_ros.images.codec import decode_image
from derain_ros.live.demo_drive import CLEAN_TOPIC, RAINY_TOPIC
from derain_ros.live.played import load_frames

CLIP = Path(__file__).parents[1] / 'data' / 'driving_rain'


@pytest.fixture(name='command')
def _command():
    yield from started()


def _stamp(message):
    return message.header.stamp.sec, message.header.stamp.nanosec


def test_demo_records_every_frame_and_takes_rain_away(command, tmp_path):
    out = tmp_path / 'demo'
    status, table, errors = command.finished('demo', '-o', out, '--bag', CLIP)
    assert status == 0, errors
    messages = {}
    with AnyReader([out / 'bag']) as reader:
        for connection, _, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            messages.setdefault(connection.topic, {})[_stamp(message)] = message
    images, masks, infos = [
        messages[f'/camera/derained/{name}'] for name in ('image', 'rain_mask', 'camera_info')]
    assert list(images) == list(masks) == list(infos)
    assert list(images) == sorted(images)
    for stamp, image in images.items():
        for message in (image, masks[stamp], infos[stamp]):
            assert message.header.frame_id == 'camera_optical_frame'
            assert (message.height, message.width) == (360, 640)
        assert masks[stamp].encoding == 'mono8'
    rain = np.concatenate([mask.data for mask in masks.values()])
    assert 0.02 < np.mean(rain > 127) < 0.6

    rows = {line[:38].strip(): line[38:].strip() for line in table.splitlines()}
    sent, received = map(int, rows['frames sent / received'].split('/'))
    published, dropped = map(int, rows['published / dropped'].split('/'))
    failed, idle = map(int, rows['failed / idle'].split('/'))
    assert sent == 24
    assert received == published + dropped + failed + idle
    assert failed == 0
    assert published == len(images) > 0
    rainy, derained = [
        float(rows[f'{name} against clean'].split(' dB')[0]) for name in ('rainy', 'derained')]
    assert 24 < rainy < 28
    assert derained > rainy + 1

    pictures = sorted(out.glob('frame_*.png'))
    assert pictures
    for path in pictures:
        assert cv2.imread(str(path)).shape == (360, 3 * 640, 3)
    first = decode_image(next(iter(images.values())))
    assert not np.array_equal(first, load_frames(CLIP, RAINY_TOPIC)[0])


def test_what_is_not_of_a_demo_is_left_alone(tmp_path, derain):
    for name in ('bag/metadata.yaml', 'frame_001.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('mine')
        file = tmp_path / name.partition('/')[0]
        told = derain('demo', '-o', tmp_path, '--bag', CLIP, status=1).err
        assert f'{file}: exists, and is not of a demo' in told
        assert (tmp_path / name).read_text() == 'mine'
        shutil.rmtree(tmp_path / 'bag', ignore_errors=True)


def test_demo_with_an_unknown_model_says_what_the_node_said(command, tmp_path):
    status, _, errors = command.finished(
        'demo', '-o', tmp_path / 'demo', '--bag', CLIP, '--model', 'mega')
    assert status == 1
    problem, = [line for line in errors.splitlines() if line.startswith('derain: error: ')]
    assert 'mega' in problem and 'nano' in problem


@pytest.mark.parametrize('number, status', [
    (signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)])
def test_a_stopped_demo_takes_its_processes_along(command, tmp_path, number, status):
    process = command.start('demo', '-o', tmp_path / 'demo', '--bag', CLIP)
    deadline = time.monotonic() + 60
    while len(command.family()) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == status
    assert 'Traceback' not in errors
    assert not command.family()


def test_clip_of_the_repository():
    assert [len(load_frames(CLIP, topic)) for topic in (RAINY_TOPIC, CLEAN_TOPIC)] == [24, 24]
    with pytest.raises(ValueError, match='/none'):
        load_frames(CLIP, '/none')
    assert sum(path.stat().st_size for path in CLIP.iterdir()) <= 3_000_000
