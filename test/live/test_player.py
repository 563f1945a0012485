"""What is played into a node: bags, clips, stamps, pace, and reading ahead."""

import re
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import rclpy
from bag_files import COMPRESSED, IMAGE, START, compressed, image, write_bag
from played_drives import INFO, played_drive
from rclpy.serialization import deserialize_message, serialize_message
from ros_fixtures import localhost, new_domain
from sensor_msgs.msg import CameraInfo, Image

from derain_ros.bags.damage import BagError
from derain_ros.live.played import PlayedClip, camera_name, loop_period, scan
from derain_ros.live.player import Pacer, Player, ReadAhead
from derain_ros.live.processes import LiveRunError, helper

# Pace

def test_messages_wait_until_they_are_due_and_lateness_is_not_handed_on():
    now = [0]

    def sleep(seconds):
        now[0] += round(seconds * 1e9)

    pacer = Pacer(2.0, clock=lambda: now[0], sleep=sleep)
    let_go = []
    for offset in (0, 100, 200, 300, 400):
        pacer.wait(offset * 10**6)
        let_go.append(pacer.elapsed())
        if offset == 100:
            sleep(0.07)  # publishing took long
    assert let_go == [0, 0.05, 0.12, 0.15, 0.2]
    assert pacer.late == [0, 0, 20 * 10**6, 0, 0]


# Reading ahead

def test_reading_ahead_is_bounded_in_bytes_and_keeps_order_and_errors():
    given = []

    def source():
        for number in range(20):
            given.append(number)
            yield number, '/a', bytes(100)
        raise BagError('torn')

    with ReadAhead(source(), limit=500) as ahead:
        ahead.wait_until_full(5)
        time.sleep(0.1)
        # Five in the buffer, one in the hand.
        assert len(given) == 6
        found = []
        with pytest.raises(BagError, match='torn'):
            found.extend(message[0] for message, _ in ahead)
        assert found == list(range(20))
    with ReadAhead(iter([(0, '/a', bytes(10**6))]), limit=10) as ahead:
        assert [message[2] for message, _ in ahead] == [bytes(10**6)]


def test_waiting_for_the_disk_is_noticed():
    def slow():
        for number in range(3):
            time.sleep(0.05)
            yield number, '/a', b'x'

    with ReadAhead(slow()) as ahead:
        assert [waited for _, waited in ahead] == [True] * 3


# Clips

def test_a_clip_is_sent_by_its_plan_on_every_camera(tmp_path):
    frames = np.random.default_rng(2).integers(0, 256, (3, 4, 5, 3), np.uint8)
    np.save(tmp_path / 'clip.npy', frames)
    clip = PlayedClip(tmp_path / 'clip.npy', [(2, 0.0), (0, 0.1), (2, 0.2)], ('front', 'rear'))
    messages = list(clip.messages(0.15e9))
    assert [(offset, topic) for offset, topic, _ in messages] == [
        (offset, f'/{name}/{topic}') for offset in (0, 10**8) for name in ('front', 'rear')
        for topic in ('camera_info', 'image_raw')]
    assert {topic: data for _, topic, data in messages[:4]} == {
        topic: data for topic, [data] in clip.samples.items()}
    sent = deserialize_message(messages[1][2], Image)
    assert (sent.height, sent.width, sent.step, sent.encoding) == (4, 5, 15, 'bgr8')
    assert sent.data.tobytes() == frames[2].tobytes()
    info = deserialize_message(messages[0][2], CameraInfo)
    assert (info.height, info.width, info.header.frame_id) == (4, 5, sent.header.frame_id)
    silent = replace(clip, infos=False)
    assert {topic for _, topic, _ in silent.messages(1e9)} == {
        '/front/image_raw', '/rear/image_raw'}


# Bags

def test_a_recording_begins_again_when_its_slowest_camera_is_due():
    ten_hertz, four_hertz = [0, 100, 200, 300], [50, 300]
    assert loop_period([ten_hertz], 0) == 400
    # The second camera has an interval of 250: its next frame is due at 550.
    assert loop_period([ten_hertz, four_hertz], 0) == 500
    assert loop_period([[0], [5 * 10**9]], 0) == 5 * 10**9 + 1


def test_what_is_played_of_a_bag(tmp_path):
    truths = [(START, '/front/image_raw/dry', IMAGE, image(0, START))]
    found = scan(played_drive(tmp_path / 'drive', truths), None)
    assert [camera.name for camera in found.cameras] == ['front', 'rear']
    assert found.counts == {'/front/image_raw': 30, '/rear/image_raw/compressed': 12}
    assert found.start == START and found.period == 1_500_000_000
    assert [camera.has_info for camera in found.cameras] == [True, False]
    assert found.cameras[1].parameters() == {
        'rear.image_topic': '/rear/image_raw', 'rear.transport': 'compressed',
        'rear.camera_info_topic': '/rear/camera_info',
        'rear.output_namespace': '/rear/derained'}
    assert {topic: len(samples) for topic, samples in found.samples.items()} == {
        '/front/camera_info': 1, '/front/image_raw': 1, '/rear/image_raw/compressed': 1}
    assert next(iter(found.samples)) == '/front/camera_info'
    info = deserialize_message(found.samples['/front/camera_info'][0], CameraInfo)
    assert (info.width, info.header.frame_id) == (96, 'cam_frame')
    named = scan(tmp_path / 'drive', ['/front/image_raw/dry'])
    assert [camera.topic for camera in named.cameras] == ['/front/image_raw/dry']


def test_cameras_of_one_namespace_have_outputs_and_names_of_their_own(tmp_path):
    rows = [(topic, IMAGE, START, image(0, START)) for topic in ('/image_left', '/image_right')]
    rows.append(('/camera_info', INFO, START, serialize_message(CameraInfo())))
    left, right = scan(write_bag(tmp_path / 'bag', rows), None).cameras
    assert (left.name, left.namespace) == ('image_left', '/image_left')
    assert left.has_info and right.has_info
    assert right.parameters() == {
        'image_right.image_topic': '/image_right', 'image_right.transport': 'raw',
        'image_right.camera_info_topic': '/camera_info',
        'image_right.output_namespace': '/image_right/derained'}


def test_depth_is_not_played_unless_it_is_named(tmp_path, caplog):
    rows = [(topic, IMAGE, START + number, image(number, START, **fields)) for number in range(2)
            for topic, fields in (('/cam/image_raw', {}), ('/depth/image', {'encoding': '16UC1'}))]
    bag = write_bag(tmp_path / 'bag', rows)
    assert [camera.topic for camera in scan(bag, None).cameras] == ['/cam/image_raw']
    assert "/depth/image: encoding '16UC1' is not of a camera picture" in caplog.text
    scan(bag, ['/depth/image'])
    with pytest.raises(BagError, match='it is not played'):
        scan(write_bag(tmp_path / 'depth', rows[1::2]), None)


def test_frames_of_every_size_are_found_for_the_warm_up(tmp_path):
    def sized(number, height, width):
        return image(number, START, height=height, width=width, step=3 * width,
                     data=np.zeros(3 * height * width, np.uint8))

    rows = [('/cam/image_raw', IMAGE, START + number, sized(number, *size))
            for number, size in enumerate([(64, 96), (64, 96), (48, 80), (64, 96)])]
    found = scan(write_bag(tmp_path / 'bag', rows), None)
    assert len(found.samples['/cam/image_raw']) == 2


def test_messages_of_one_stamp_get_one_again(tmp_path, monkeypatch):
    topics = ('/left/image_raw', '/right/image_raw')
    source = scan(write_bag(tmp_path / 'bag', [
        (topic, IMAGE, START + number * 10**8, image(number, START + number * 10**8))
        for number in range(3) for topic in topics]), None)
    for name, value in localhost().items():
        monkeypatch.setenv(name, value)
    rclpy.init(args=[], domain_id=new_domain())
    try:
        player = Player(source)
        for _ in range(2):  # the second time as a loop
            sent = [(topic, player.send(topic, data)[0]) for _, topic, data in
                    source.messages(source.period)]
            left, right = ([stamp for found, stamp in sent if found == topic] for topic in topics)
            assert left == right == sorted(set(left))
            assert left[-1] <= time.time_ns() < left[0] + 60 * 10**9
        player.destroy_node()
    finally:
        rclpy.try_shutdown()


def test_a_bag_is_repeated_with_times_that_go_on_and_cut_where_told(tmp_path):
    found = scan(played_drive(tmp_path / 'drive'), ['rear/image_raw'])
    messages = list(found.messages(4e9))
    assert len(messages) == 32
    times = [offset for offset, _, _ in messages]
    assert times[:2] == [0, 125_000_000] and set(np.diff(times)) == {125_000_000}
    assert messages[0][2] == messages[12][2]
    assert len(list(found.messages(125e6))) == 1


@pytest.mark.parametrize(('rows', 'topics', 'said'), [
    ([('/a', IMAGE, START, image(0, START))], ['/b'], '/b is not an image topic'),
    ([('/a', INFO, START, serialize_message(CameraInfo()))], None, 'no Image or Compressed'),
    ([('/bad name/image', IMAGE, START, image(0, START))], None, 'cannot be published'),
    ([('/a/image', IMAGE, START, image(0, START)),
      ('/a/image/compressed', COMPRESSED, START, compressed(0, START))], None, '--topics'),
])
def test_what_cannot_be_played_is_refused(tmp_path, rows, topics, said):
    bag = write_bag(tmp_path / 'bag', rows)
    with pytest.raises(BagError, match=said):
        scan(bag, topics)


def test_names_of_cameras_are_such_as_the_node_takes():
    assert camera_name('/4k/left__eye') == 'camera_4k_left_eye'
    assert camera_name('/model') == 'camera_model'
    assert camera_name('', ['camera']) == 'camera_2'


# Helpers

@pytest.fixture
def doubling(tmp_path, monkeypatch):
    monkeypatch.setenv('PYTHONPATH', ':'.join(filter(None, sys.path)))
    with helper('doubling', 'played_drives:doubles', tmp_path / 'log', 10) as found:
        yield found


def test_a_helper_answers_and_its_errors_are_told(doubling):
    for number in (1, 2):
        doubling.send(number)
        assert doubling.receive(30.0) == 2 * number
    with pytest.raises(LiveRunError, match=r'the doubling did not answer within 0\.1 s'):
        doubling.receive(0.1)
    doubling.send(11)
    with pytest.raises(LiveRunError, match='11 is more than 10'):
        doubling.receive(30.0)


def test_a_helper_that_ends_is_told_with_its_log(doubling, tmp_path):
    doubling.send(-1)
    with pytest.raises(LiveRunError, match=r'(?s)ended with status 1.*-1 is none') as error:
        doubling.receive(30.0)
    with pytest.raises(LiveRunError):
        doubling.check()
    shutil.rmtree(tmp_path)  # as a command does whose folder was temporary
    copy = Path(re.search(r'whole log: (.*)\)', str(error.value))[1])
    assert '-1 is none' in copy.read_text()
