"""What the benchmarks send, and how they look at processes: replay, clips, plain node."""

import json
import math
import os
import struct
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='ROS 2 is not installed')

from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, Image

from derain_ros.bench.plain_node import to_array, to_message
from derain_ros.bench.setting import Setting
from derain_ros.bench.stream import even_plan
from derain_ros.live.clips import load_frames, load_plan
from derain_ros.live.listener import number
from derain_ros.live.process_stats import cpu_seconds, process_stats
from derain_ros.live.replay import Stamped

CLIP = Path(__file__).parents[1] / 'data' / 'driving_rain'
CLEAN_TOPIC = '/camera_clean/image_raw/compressed'


@pytest.mark.parametrize('message', [
    Image(height=1, width=2, encoding='bgr8', step=6, data=bytes(range(6))), CameraInfo(width=3)])
def test_a_stamped_message_is_what_rclpy_would_send(message):
    message.header.frame_id = 'lens'
    stamped = Stamped(message)
    for seconds, nanoseconds in ((0, 1), (1_700_000_000, 999_999_999)):
        message.header.stamp.sec, message.header.stamp.nanosec = seconds, nanoseconds
        data = stamped.at(seconds * 10**9 + nanoseconds)
        assert isinstance(data, bytes)
        assert deserialize_message(data, type(message)) == message
        assert struct.unpack_from('<iI', data, 4) == (seconds, nanoseconds)


def test_the_plain_node_converts_as_cv_bridge_does():
    pixels = np.random.default_rng(1).integers(0, 256, (5, 7, 3), np.uint8)
    message = to_message(pixels, 'bgr8')
    assert (message.height, message.width, message.step) == (5, 7, 21)
    assert np.array_equal(to_array(message), pixels)
    padded = np.pad(pixels, ((0, 0), (0, 2), (0, 0)))
    message = to_message(padded, 'bgr8')
    message.width = 7
    assert np.array_equal(to_array(message), pixels)
    mask = to_message(pixels[:, :, 0], 'mono8')
    assert mask.step == 7 and mask.data.tobytes() == pixels[:, :, 0].tobytes()


def test_a_clip_holds_dry_frames_and_the_same_with_rain(tmp_path):
    setting = Setting(CLIP, tmp_path, CLEAN_TOPIC, {}, quick=True)
    clip = setting.clip(96, 64)
    frames = load_frames(clip.path).frames
    assert len(frames) == 48 and frames[0].shape == (64, 96, 3)
    dry, rainy = np.array(frames)[list(clip.dry)], np.array(frames)[list(clip.rainy)]
    assert len(dry) == len(rainy) == 24
    assert 2 < np.abs(rainy.astype(int) - dry).mean() < 60
    assert setting.clip(96, 64) == clip
    assert setting.seconds(20) == 2 and setting.seconds(1) == 1
    assert Setting(CLIP, tmp_path, CLEAN_TOPIC, {}, duration=7.0).seconds(20) == 7


def test_plans(tmp_path):
    plan = even_plan(range(4, 6), 10, 0.4)
    assert plan == [(4, 0), (5, pytest.approx(0.1)), (4, 0.2), (5, pytest.approx(0.3))]
    path = tmp_path / 'plan.json'
    path.write_text(json.dumps(plan))
    assert load_plan(path, 6) == plan
    for count, text in ((5, json.dumps(plan)), (6, '[]'), (6, '{"a": 1}'), (6, '[[1]]')):
        path.write_text(text)
        with pytest.raises(ValueError, match=r'plan\.json'):
            load_plan(path, count)


def test_frames_of_another_layout_are_refused(tmp_path):
    path = tmp_path / 'frames.npy'
    np.save(path, np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(ValueError, match=r'frames\.npy.*\(2, 4, 4\)'):
        load_frames(path)


def test_numbers_of_a_status():
    values = {'infer_ms': '12.5', 'reason': 'rain'}
    assert number(values, 'infer_ms') == 12.5
    assert math.isnan(number(values, 'reason'))
    assert math.isnan(number(values, 'age_ms'))
    assert math.isnan(number({'infer_ms': ''}, 'infer_ms'))


def test_process_stats_see_what_a_process_takes():
    before = process_stats(os.getpid())
    block = np.ones(64 << 20, np.uint8)
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(Path(os.devnull).open())
        end = time.process_time() + 0.2
        while time.process_time() < end:
            pass
        after = process_stats(os.getpid())
    assert 60 < after.rss - before.rss < 80
    assert 60 < after.anonymous - before.anonymous < 80
    assert after.descriptors - before.descriptors == 3
    assert after.threads >= 1
    assert 0.15 < after.cpu - before.cpu < 2
    assert block[-1]
    child = subprocess.Popen([sys.executable, '-c', 'pass'])
    child.wait()
    with pytest.raises(OSError, match=str(child.pid)):
        cpu_seconds(child.pid)
