"""The fast path of image messages against rclpy's own: the same bytes, the same refusals."""

import cv2
import numpy as np
import pytest
from cdr_messages import without_padding
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image

from derain_ros.images.codec import ImageFormatError, arrange_pixels
from derain_ros.node.mailbox import Taken
from derain_ros.node.outputs import Outputs, Work, header_message
from derain_ros.node.parameters import NODE_RULES, default_of, read_live_settings

FAST, ORDINARY = Outputs(in_place=True), Outputs(in_place=False)
PICTURE = np.random.default_rng(5).integers(0, 256, (7, 10, 3), np.uint8)


def image(frame_id='lens', encoding='bgr8', **stamp):
    message = Image(height=7, width=10, encoding=encoding, step=30, data=PICTURE.tobytes())
    message.header.frame_id = frame_id
    message.header.stamp.sec = stamp.get('sec', 3)
    message.header.stamp.nanosec = stamp.get('nanosec', 4)
    return message


def compressed(data=b'\xff\xd8\xff\xe0jpeg'):
    message = CompressedImage(format='rgb8; jpeg compressed bgr8', data=data)
    message.header.frame_id = 'lens'
    return message


@pytest.mark.parametrize(('frame_id', 'encoding'), [
    ('', 'bgr8'), ('a', 'rgb8'), ('ab', 'bgra8'), ('abc', 'mono8'), ('Mütze', 'mono16')])
def test_images_are_written_as_rclpy_writes_them(frame_id, encoding):
    data = serialize_message(image(frame_id))
    pixels = arrange_pixels(PICTURE, encoding)
    fast = FAST.image(FAST.receive(data, compressed=False), pixels, 10, encoding)
    ordinary = ORDINARY.image(ORDINARY.receive(data, compressed=False), pixels, 10, encoding)
    assert fast == without_padding(serialize_message(ordinary), Image)


def test_jpegs_are_written_as_rclpy_writes_them():
    jpeg = np.frombuffer(b'\xff\xd8\xff some bytes', np.uint8)
    for message, kind in ((image(), False), (compressed(), True)):
        data = serialize_message(message)
        fast = FAST.jpeg(FAST.receive(data, compressed=kind), jpeg)
        ordinary = ORDINARY.jpeg(ORDINARY.receive(data, compressed=kind), jpeg)
        assert fast == without_padding(serialize_message(ordinary), CompressedImage)


@pytest.mark.parametrize(('picture', 'forwarded'), [(PICTURE, True), (PICTURE[..., 0], False)])
def test_jpegs_that_are_not_derained_have_the_encoding_of_those_that_are(picture, forwarded):
    data = serialize_message(compressed(cv2.imencode('.jpg', picture)[1].tobytes()))
    live = read_live_settings({name: default_of(name) for name in NODE_RULES})
    work = Work(None, Taken('lens', data, 0.0, compressed=True), live, {'image/compressed'})
    FAST.read(work)
    written = FAST.write(work)['image/compressed']
    assert (written == data) == forwarded
    message = deserialize_message(written, CompressedImage)
    assert cv2.imdecode(np.frombuffer(message.data, np.uint8), cv2.IMREAD_UNCHANGED).ndim == 3


@pytest.mark.parametrize('stamp', [(3, 4), (0, 0), (-5, 7), (9, 2_000_000_000)])
def test_headers_are_read_alike(stamp):
    data = serialize_message(image(sec=stamp[0], nanosec=stamp[1]))
    fast, ordinary = (way.receive(data, compressed=False) for way in (FAST, ORDINARY))
    assert fast == ordinary
    assert fast.stamp == stamp[0] * 10**9 + stamp[1]
    assert header_message(fast) == image(sec=stamp[0], nanosec=stamp[1]).header


@pytest.mark.parametrize('way', [FAST, ORDINARY], ids=['fast', 'ordinary'])
@pytest.mark.parametrize('kind', [False, True])
def test_what_is_no_message_is_refused(way, kind):
    with pytest.raises(ImageFormatError, match='publisher'):
        way.receive(b'\0\1\0\0\1\2\3', compressed=kind)


def test_another_encapsulation_is_left_to_rclpy():
    data = serialize_message(image())
    other = b'\0\7' + data[2:]
    try:
        expected = ORDINARY.receive(other, compressed=False)
    except ImageFormatError:
        with pytest.raises(ImageFormatError):
            FAST.receive(other, compressed=False)
    else:
        assert FAST.receive(other, compressed=False).header == expected.header
