"""What the node says of its surroundings, seen from another process over DDS.

One node serves a camera for each kind of fault. The engine is that of faulty_engine.py, so
nothing is said here of how well rain is removed.
"""

import time

import cv2
import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rig import active_rig
from ros_fixtures import PICTURE, image, output, wait_for
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RelativeHumidity

WARN = DiagnosticStatus.WARN
CAMERAS = ['sized', 'framed', 'mistyped', 'misspelt', 'plain', 'packed', 'chosen',
           'overlaid', 'shared', 'overridden', 'moved', 'deep', 'bursty',
           'twelve', 'given', 'mosaic', 'rainy', 'png', 'alone', 'absent',
           'unseen', 'resized', 'small']
PARAMETERS = {
    'cameras': CAMERAS,
    'given': {'bit_depth': 12, 'sync_group': 'sterio'},
    'png': {'transport': 'compressed'},
    'misspelt': {'camera_info_topic': '/misspelt/camera_inof'},
    'packed': {'image_topic': '/packed/image_rect_compressed'},
    'chosen': {'image_topic': '/chosen/image_rect_compressed', 'transport': 'compressed'},
    'qos_overrides': {
        '/overridden/image_raw': {'subscription': {'reliability': 'best_effort', 'depth': 2}},
        '/overridden/derained/image': {'publisher': {'reliability': 'best_effort'}},
        '/nobody/image': {'subscription': {'depth': 1}}},
}
REMAPS = ('-r', '/moved/derained/image:=/seen/clear')
rig = active_rig(PARAMETERS, REMAPS)


def info(width, height, frame_id='', **more):
    message = CameraInfo(width=width, height=height, **more)
    message.header.frame_id = frame_id
    return message


class Stream:
    """Publishes images of a camera, and whatever else, until a condition holds."""

    def __init__(self, rig, camera, kind=Image, topic=None, messages=image):
        self.rig, self.camera, self.messages, self.others = rig, camera, messages, []
        self.images = rig.peer.publisher(kind, topic or f'/{camera}/image_raw')
        self.number = 0

    def beside(self, kind, topic, message):
        self.others.append((self.rig.peer.publisher(kind, topic), message))
        return self

    def listen(self, name='image', kind=Image):
        self.rig.peer.listen(kind, output(self.camera, name))
        return self.rig.peer.received[output(self.camera, name)]

    def until(self, condition, what, rate=20):
        def step():
            self.number += 1
            for publisher, message in self.others:
                publisher.publish(message)
            self.images.publish(self.messages(self.number))
            time.sleep(1 / rate)
            return condition()
        try:
            return wait_for(step, what)
        except AssertionError as error:
            status = self.rig.peer.status(self.camera)
            raise AssertionError(f'{error}; {status.message}\n{self.rig.node.log()}') from None

    def warned(self, *parts):
        """Stream until log and /diagnostics name all parts."""
        def told():
            status = self.rig.peer.status(self.camera)
            return status and status.level == WARN and all(
                part in status.message for part in parts) and all(
                part in self.rig.node.log() for part in parts)
        self.until(told, f'warning with {parts}')

    def well(self):
        """Stream until all is well."""
        def told():
            status = self.rig.peer.status(self.camera)
            return status and status.level == DiagnosticStatus.OK and (
                'published' in status.message)
        self.until(told, 'end of the warning')


@pytest.mark.parametrize(('camera', 'message', 'parts'), [
    ('sized', info(640, 480, 'elsewhere'),
     ['/sized/camera_info', '640x480', '/sized/image_raw', '64x48']),
    ('mistyped', image(1),
     ['/mistyped/camera_info', 'sensor_msgs/msg/Image', 'sensor_msgs/msg/CameraInfo']),
    ('misspelt', info(64, 48, 'lens'),
     ['no publisher on /misspelt/camera_inof', 'did you mean /misspelt/camera_info']),
])
def test_a_camera_info_that_does_not_belong_is_named_and_not_published(
        rig, camera, message, parts):
    stream = Stream(rig, camera).beside(type(message), f'/{camera}/camera_info', message)
    stream.listen()
    infos = stream.listen('camera_info', CameraInfo)
    stream.warned(*parts)
    assert infos == []


def test_the_frame_of_a_calibration_is_named_and_never_rewritten(rig):
    stream = Stream(rig, 'framed').beside(
        CameraInfo, '/framed/camera_info', info(64, 48, 'elsewhere'))
    stream.listen()
    infos = stream.listen('camera_info', CameraInfo)
    stream.warned('/framed/camera_info', "'elsewhere'", "'lens'")
    stream.until(lambda: infos, 'camera_info')
    assert {message.header.frame_id for message in infos} == {'elsewhere'}
    assert infos[-1].header.stamp.sec > 0
    # A binned one fits.
    stream.others[0] = (stream.others[0][0], info(128, 95, binning_x=2, binning_y=2))
    stream.well()
    stream.until(lambda: infos[-1].header.frame_id == 'lens', 'frame of the image')


def test_a_camera_without_calibration_is_well_unless_one_is_asked_for(rig):
    stream = Stream(rig, 'plain')
    stream.listen()
    stream.well()
    stream.until(lambda: 'plain: images come without a camera_info' in rig.node.log(), 'note')
    stream.well()
    stream.listen('camera_info', CameraInfo)
    stream.warned('no publisher on /plain/camera_info')


def test_what_is_wrong_with_camera_info_is_told_where_nothing_else_is_subscribed_to(rig):
    packed = CompressedImage(format='png', data=cv2.imencode('.png', PICTURE)[1].tobytes())
    stream = Stream(rig, 'alone', CompressedImage, messages=lambda _: packed)
    infos = stream.listen('camera_info', CameraInfo)
    stream.warned('no publisher on /alone/camera_info')
    stream.beside(CameraInfo, '/alone/camera_info', info(640, 480))
    stream.warned('/alone/camera_info', '640x480', '64x48')
    assert infos == []


@pytest.mark.parametrize('camera', ['packed', 'chosen'])
def test_compressed_images_may_come_on_a_topic_of_any_name(rig, camera):
    data = cv2.imencode('.png', PICTURE)[1].tobytes()

    def message(number):
        packed = CompressedImage(format='png', data=data)
        packed.header.stamp.sec = number
        return packed

    stream = Stream(rig, camera, CompressedImage, f'/{camera}/image_rect_compressed', message)
    images = stream.listen()
    stream.until(lambda: images and bytes(images[-1].data) == (PICTURE ^ 16).tobytes(), 'image')
    stream.well()
    assert rig.peer.values(camera)['image_topic'] == f'/{camera}/image_rect_compressed'


def test_an_output_that_is_off_and_listened_to_is_named_with_its_parameter(rig):
    stream = Stream(rig, 'overlaid')
    overlays = stream.listen('overlay')
    stream.warned('/overlaid/derained/overlay', 'set publish_overlay to true')
    assert rig.peer.set('publish_overlay', True) == ''
    stream.until(lambda: overlays, 'overlay')
    stream.well()
    stream.listen('image/compressed', CompressedImage)
    stream.warned('/overlaid/derained/image/compressed', 'set publish_compressed to true')


def test_another_node_on_the_same_output_is_named(rig):
    stream = Stream(rig, 'shared')
    stream.listen()
    stream.well()
    rival = rig.peer.publisher(Image, output('shared'))
    stream.warned('/peer publishes /shared/derained/image too')
    rig.peer.destroy_publisher(rival)
    stream.well()


def test_qos_is_overridden_by_the_parameters_of_ros(rig):
    stream = Stream(rig, 'overridden')
    best_effort = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.BEST_EFFORT)
    received = []
    rig.peer.create_subscription(Image, output('overridden'), received.append, best_effort)
    stream.until(lambda: received, 'image')
    assert rig.peer.values('overridden')['reliability'] == 'best_effort'
    (subscription,) = rig.peer.get_subscriptions_info_by_topic('/overridden/image_raw')
    (publisher,) = rig.peer.get_publishers_info_by_topic(output('overridden'))
    for found in (subscription, publisher):
        assert found.qos_profile.reliability == QoSReliabilityPolicy.BEST_EFFORT
    assert rig.peer.get('qos_overrides./overridden/image_raw.subscription.depth') == [2]
    unused = next(line for line in rig.node.log().splitlines() if '/nobody/image.' in line)
    topics = unused.rpartition('those are ')[2].split(', ')
    assert '/overridden/image_raw' in topics and len(topics) == len(set(topics))


def test_a_group_of_one_camera_is_named(rig):
    assert 'given is the only camera of sync_group sterio' in rig.node.log()


def test_companions_follow_a_remapped_output(rig):
    stream = Stream(rig, 'moved').beside(CameraInfo, '/moved/camera_info', info(64, 48))
    rig.peer.listen(Image, '/seen/clear')
    rig.peer.listen(CameraInfo, '/seen/camera_info')
    wait_for(lambda: rig.peer.count_publishers('/seen/clear/compressed') == 1, 'publisher')
    stream.until(lambda: rig.peer.received['/seen/clear'] and rig.peer.received[
        '/seen/camera_info'], 'image and camera_info')


def test_a_depth_image_is_called_one(rig):
    depth = np.zeros((48, 64), np.uint16)
    for encoding in ('16UC1', '32FC1'):
        picture = depth if encoding == '16UC1' else depth.astype(np.float32)
        stream = Stream(
            rig, 'deep', messages=lambda number, picture=picture, encoding=encoding: image(
                number, picture, encoding))
        stream.listen()
        stream.until(
            lambda encoding=encoding: 'depth image' in rig.peer.says('deep')
            and encoding in rig.peer.says('deep'), 'word of a depth image')
        assert 'cv_bridge' not in rig.peer.says('deep')
        rig.peer.ignore(output('deep'))


def test_a_camera_that_comes_in_bursts_is_not_called_silent_again_and_again(rig):
    stream = Stream(rig, 'bursty')
    stream.listen()
    stream.well()

    def calm():
        """Tell whether two bursts have gone by without a warning."""
        levels = []
        for _ in range(2):
            for _ in range(10):
                stream.images.publish(image(1))
                time.sleep(0.02)
            for _ in range(8):
                levels.append(rig.level('bursty'))
                time.sleep(0.1)
        return WARN not in levels
    wait_for(calm, 'bursts that are known')
    stream.rig.peer.destroy_publisher(stream.images)
    wait_for(lambda: 'no publisher on /bursty/image_raw' in rig.node.log(), 'word of silence')
    stream.images = rig.peer.publisher(Image, '/bursty/image_raw')
    stream.until(lambda: 'bursty: frames arrive again' in rig.node.log(), 'word of the end')


def test_a_size_that_changes_while_nobody_listens_contradicts_nothing(rig):
    stream = Stream(rig, 'resized').beside(CameraInfo, '/resized/camera_info', info(64, 48))
    images = stream.listen()
    stream.until(lambda: images, 'image')
    rig.peer.ignore(output('resized'))
    stream.until(lambda: rig.peer.says('resized').startswith('idle'), 'word of idleness')
    stream.messages = lambda number: image(number, np.zeros((60, 80, 3), np.uint8))
    stream.others = [(publisher, info(80, 60)) for publisher, _ in stream.others]
    before = len(rig.peer.reports('resized'))
    stream.until(lambda: len(rig.peer.reports('resized')) > before + 3, 'reports')
    assert not any('is for images' in told.message for told in rig.peer.reports('resized'))


def test_frames_that_are_too_small_are_called_so_and_fit_their_camera_info(rig):
    stream = Stream(rig, 'small').beside(CameraInfo, '/small/camera_info', info(64, 48))
    images = stream.listen()
    stream.until(lambda: images, 'image')
    stream.messages = lambda number: image(number, np.zeros((20, 24, 3), np.uint8))
    stream.others = [(publisher, info(24, 20)) for publisher, _ in stream.others]
    stream.until(lambda: '24x20 pixels, but the network needs' in rig.peer.says('small') and (
        rig.peer.values('small')['size'] == '24x20'), 'word of the size')
    before = len(rig.peer.reports('small'))
    stream.until(lambda: len(rig.peer.reports('small')) > before + 2, 'reports')
    assert 'small: /small/camera_info is for images' not in rig.node.log()


def test_a_camera_that_is_still_missing_is_named_anew_after_activation(rig):
    def named():
        return rig.node.log().count('absent: no publisher on /absent/image_raw')

    before = wait_for(named, 'warning')
    assert rig.peer.change_state('deactivate')
    assert rig.peer.change_state('activate')
    wait_for(lambda: named() > before, 'second warning')
    assert 'absent: frames arrive again' not in rig.node.log()


@pytest.mark.parametrize('camera', ['twelve', 'given'])
def test_grey_levels_of_twelve_bits_come_out_as_such(rig, camera):
    grey = np.random.default_rng(3).integers(0, 4096, (48, 64)).astype(np.uint16)
    stream = Stream(rig, camera, messages=lambda number: image(number, grey, 'mono16'))
    images = stream.listen()
    if camera == 'twelve':  # one wrong sample is not for ever
        wrong = image(0, np.full((48, 64), 65535, np.uint16), 'mono16')
        rig.peer.matched(stream.images)
        stream.images.publish(wrong)
        wait_for(lambda: '/twelve/image_raw: 16 bits of mono16' in rig.node.log(), 'depth')
        assert rig.peer.reset()
    expected = grey.astype(int) + ((((grey >> 4) ^ 16).astype(int) - (grey >> 4)) << 4)

    def derained():
        return images and (np.frombuffer(images[-1].data, '<u2').reshape(48, 64) == expected).all()
    stream.until(derained, 'image of twelve bits')
    rig.peer.ignore(output(camera))
    assert images[-1].encoding == 'mono16' and len(np.unique(expected)) > 1000
    assert f'/{camera}/image_raw: 12 bits of mono16' in rig.node.log() or camera == 'given'


@pytest.mark.parametrize('camera', ['mosaic', 'png'])
def test_a_mosaic_of_twelve_bits_is_not_dark(rig, camera):
    grey = np.full((48, 64), 3000, np.uint16)
    packed = CompressedImage(format='bayer_rggb16; png compressed ',
                             data=cv2.imencode('.png', grey)[1].tobytes())
    stream = (Stream(rig, camera, messages=lambda number: image(number, grey, 'bayer_rggb16'))
              if camera == 'mosaic' else
              Stream(rig, camera, CompressedImage, '/png/image_raw/compressed', lambda _: packed))
    images = stream.listen()
    stream.until(lambda: images and set(images[-1].data) == {3000 >> 4 ^ 16}, 'image')
    assert images[-1].encoding == 'bgr8'
    assert '/image_raw/compressed: 12 bits of bayer_rggb16' in rig.node.log() or camera != 'png'


def test_the_rain_intensity_of_a_camera_has_the_header_of_the_frame(rig):
    rig.engine.command(mask=200)
    stream = Stream(rig, 'rainy')
    rig.peer.listen(RelativeHumidity, output('rainy', 'rain_intensity'))
    found = rig.peer.received[output('rainy', 'rain_intensity')]
    stream.listen()
    stream.until(lambda: found and found[-1].relative_humidity > 0.9, 'rain intensity')
    assert found[-1].header.frame_id == 'lens'
    assert found[-1].header.stamp.nanosec == 10 * found[-1].header.stamp.sec > 0


def test_no_rain_intensity_is_given_for_frames_that_no_engine_has_looked_at(rig):
    rig.engine.command(mask=200)
    stream = Stream(rig, 'unseen')
    images, found = stream.listen(), stream.listen('rain_intensity', RelativeHumidity)
    stream.until(lambda: found, 'rain intensity')
    rig.engine.command(mode='raise')
    begin = time.monotonic()
    stream.until(lambda: images[-1].header.stamp.sec > found[-1].header.stamp.sec + 30,
                 'images without an intensity')
    assert time.monotonic() - begin < 20
    wait_for(lambda: rig.peer.values('unseen')['rain_intensity'] == '', 'status')
    rig.engine.command(mask=200)
    assert rig.peer.reset()
    before = len(found)
    stream.until(lambda: len(found) > before, 'rain intensity')


def test_a_camera_may_serve_as_a_rain_gauge_alone_and_tells_what_it_cannot_read(rig):
    rig.engine.command(mask=200)
    stream = Stream(rig, 'given')
    found = stream.listen('rain_intensity', RelativeHumidity)
    stream.until(lambda: found and found[-1].relative_humidity > 0.9, 'rain intensity')
    stream.until(lambda: 'the images' in rig.peer.says('given'), 'word of it')
    published = rig.peer.counts('given')['published']
    stream.messages = lambda number: image(number, encoding='plasma')
    stream.warned("'plasma'")
    counts = rig.peer.settled_counts('given')
    assert (counts['published'], counts['failed'] > 0) == (published, True)
