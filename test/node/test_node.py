"""Frames through ``derain_node``, a process of its own, seen from another one over DDS.

How well rain is removed is not asserted here, nor every encoding: the first belongs to the
tests of the models, the second to those of the codec.
"""

import itertools

import numpy as np
import painted
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from lens import repeating
from ros_fixtures import (
    HEIGHT,
    PICTURE,
    PROFILE,
    WIDTH,
    NodeProcess,
    Peer,
    image,
    new_domain,
    output,
    send_until,
    wait_for,
)
from sensor_msgs.msg import CameraInfo, Image

from derain_ros.engines import create_engine

CAMERAS = ['live', 'mask', 'left', 'hurt', 'varied']


def pixels(message):
    return np.frombuffer(message.data, np.uint8).astype(int)


def derained_one(peer, camera):
    """Tell whether the engine has been at work for a camera."""
    return int(peer.values(camera).get('derained', 0)) > 0


@pytest.fixture(scope='module')
def stream(tmp_path_factory):
    """An active node with several cameras and the profile that launch gives it, and a peer."""
    domain = new_domain()
    parameters = {'cameras': CAMERAS, 'rain_gate': False, 'watchdog_ms': 20_000.0}
    with NodeProcess(
            tmp_path_factory.mktemp('stream'), domain, parameters, environment=PROFILE) as node, \
            Peer(domain) as peer:
        peer.wait_for_state('active', node)
        yield node, peer


def test_every_output_carries_the_header_and_size_of_its_frame(stream):
    _, peer = stream
    images = peer.publisher(Image, '/left/image_raw')
    infos = peer.publisher(CameraInfo, '/left/camera_info')
    peer.matched(images, infos)
    infos.publish(CameraInfo(
        width=WIDTH, height=HEIGHT, distortion_model='plumb_bob', d=[.1, .2, 0., 0., 0.]))
    received = []
    for name, kind in (('image', Image), ('rain_mask', Image), ('camera_info', CameraInfo)):
        peer.listen(kind, output('left', name))
        received.append(peer.received[output('left', name)])
    # The first ones may go by before discovery is through, or pass through unchanged while
    # the engine warms up for their size.
    send_until(images, lambda number: image(1000 + number),
               lambda: all(received) and derained_one(peer, 'left'), 'outputs')
    for number in range(1, 4):
        images.publish(image(number, frame_id=f'lens_{number}'))
        wait_for(lambda number=number: all(
            messages[-1].header.stamp.sec == number for messages in received), 'frame')
    counted = [[message for message in messages if message.header.stamp.sec < 1000]
               for messages in received]
    for number, (derained, mask, info) in enumerate(zip(*counted, strict=True), 1):
        wanted = image(number, frame_id=f'lens_{number}').header
        assert derained.header == mask.header == info.header == wanted
        assert (derained.height, derained.width, derained.encoding) == (HEIGHT, WIDTH, 'bgr8')
        assert (mask.height, mask.width, mask.encoding) == (HEIGHT, WIDTH, 'mono8')
        assert (info.width, info.distortion_model) == (WIDTH, 'plumb_bob')
        assert list(info.d) == [.1, .2, 0., 0., 0.]
    engine = create_engine()
    wanted = engine.infer(PICTURE[None])
    engine.close()
    assert pixels(derained) == pytest.approx(wanted.image.reshape(-1), abs=1)
    assert pixels(mask) == pytest.approx(wanted.rain_mask.reshape(-1), abs=1)


def test_a_colour_comes_back_in_every_encoding(stream):
    """With a strength near 0 it has gone all the way through decoder, engine and encoder."""
    _, peer = stream
    images = peer.publisher(Image, '/varied/image_raw')
    for name in ('image', 'rain_mask'):
        peer.listen(Image, output('varied', name))
    received = [peer.received[output('varied', name)] for name in ('image', 'rain_mask')]
    peer.matched(images)
    send_until(images, lambda number: image(1000 + number),
               lambda: derained_one(peer, 'varied'), 'derained frame')
    assert peer.set('strength', 0.001) == ''
    try:
        for number, encoding in enumerate(painted.ENCODINGS, 1):
            frame = image(number, painted.paint(encoding, HEIGHT, WIDTH, 12), encoding)
            frame.height, frame.width = HEIGHT, WIDTH
            images.publish(frame)
            wait_for(lambda number=number: all(
                found[-1].header.stamp.sec == number for found in received), encoding)
            found = received[0][-1]
            pixel = painted.KEPT.get(encoding, painted.COLOUR)
            assert found.encoding == (encoding if encoding in painted.KEPT else 'bgr8')
            assert (found.height, found.width, found.step) == (HEIGHT, WIDTH, WIDTH * len(pixel))
            mean = pixels(found).reshape(-1, len(pixel)).mean(0)
            assert mean == pytest.approx(pixel, abs=2), encoding
    finally:
        assert peer.set('strength', 1.0) == ''
    assert peer.settled_counts('varied')['failed'] == 0


def test_strength_and_enabled_work_while_running(stream):
    _, peer = stream
    images = peer.publisher(Image, '/live/image_raw')
    peer.listen(Image, output('live'))
    peer.listen(Image, output('live', 'rain_mask'))
    peer.matched(images)
    pictures = peer.received[output('live')]
    masks = peer.received[output('live', 'rain_mask')]

    def newest(message):
        """Return image and mask made of a message published after the last change."""
        start = 10 * (len(pictures) + 1000)
        send_until(
            images, lambda number: image(start + number, *message),
            lambda: pictures and masks and pictures[-1].header.stamp.sec > start
            and masks[-1].header.stamp.sec == pictures[-1].header.stamp.sec, 'a new image')
        return pictures[-1], masks[-1]

    rgb = (PICTURE[..., ::-1], 'rgb8')
    derained, _ = newest(rgb)
    full = pixels(derained)
    try:
        assert peer.set('strength', 0) == ''
        unchanged, mask = newest(rgb)
        assert bytes(unchanged.data) == np.ascontiguousarray(rgb[0]).tobytes()
        assert any(mask.data)
        assert peer.set('strength', 0.5) == ''
        half = pixels(newest(rgb)[0])
        middle = (full + rgb[0].reshape(-1)) / 2
        assert np.abs(half - middle).max() <= 1
        assert peer.set('strength', 1.5) == ''
        beyond = np.clip(full + 0.5 * (full - rgb[0].reshape(-1)), 0, 255)
        assert np.abs(pixels(newest(rgb)[0]) - beyond).max() <= 1
        assert peer.set('enabled', False) == ''
        passed, mask = newest(rgb)
        assert (passed.encoding, bytes(passed.data)) == (
            'rgb8', np.ascontiguousarray(rgb[0]).tobytes())
        assert not any(mask.data)
        bayer = np.tile(np.uint8(90), (HEIGHT, WIDTH))
        passed, mask = newest((bayer, 'bayer_rggb8'))
        assert (passed.encoding, set(passed.data)) == ('bgr8', {90})
    finally:
        assert peer.set_together(strength=1.0, enabled=True) == ''


def test_only_the_mask_is_made_when_only_the_mask_is_wanted(stream):
    _, peer = stream
    images = peer.publisher(Image, '/mask/image_raw')
    peer.matched(images)

    def idles():
        values = peer.values('mask')
        return values and int(values['idle']) > int(before['idle'])

    numbers = itertools.count(1)
    with repeating(20, lambda: images.publish(image(next(numbers)))):
        before = {'idle': 0}
        wait_for(idles, 'idle frames')
        wait_for(lambda: peer.says('mask').startswith('idle'), 'word of idleness')
        assert peer.level('mask') == DiagnosticStatus.OK
        assert peer.counts('mask')['published'] == 0
        peer.listen(Image, output('mask', 'rain_mask'))
        wait_for(lambda: peer.received[output('mask', 'rain_mask')], 'mask')
        assert peer.set('publish_mask', False) == ''
        try:
            before = peer.counts('mask')
            wait_for(idles, 'idle frames')
            assert peer.counts('mask')['published'] == before['published']
        finally:
            assert peer.set('publish_mask', True) == ''
    peer.settled_counts('mask')


def test_a_bad_frame_is_counted_and_named_and_the_next_is_served(stream):
    node, peer = stream
    images = peer.publisher(Image, '/hurt/image_raw')
    peer.listen(Image, output('hurt'))
    peer.matched(images)
    send_until(images, image, lambda: peer.received[output('hurt')], 'image')
    before = peer.counts('hurt')['failed']
    unknown = image(1, encoding='bgr8')
    unknown.encoding = 'plasma'
    short = image(1)
    short.data = short.data[:-1]
    small = image(1, PICTURE[:16, :16])
    for bad, parts in ((unknown, ['encoding', 'plasma']), (short, ['data']),
                       (small, ['16x16', '32'])):
        images.publish(bad)
        # The report that first counts it names it; the next, maybe at once, that all is well.
        wait_for(lambda parts=parts: any(
            all(part in report.message for part in ('/hurt/image_raw', *parts))
            for report in peer.reports('hurt')), f'warning about {parts}')
    assert peer.counts('hurt')['failed'] == before + 3
    assert '/hurt/image_raw' in node.log()
    assert 'plasma' in node.log()
    peer.received[output('hurt')].clear()
    send_until(images, image, lambda: peer.received[output('hurt')], 'image')
    peer.settled_counts('hurt')
