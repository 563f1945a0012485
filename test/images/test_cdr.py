"""Serialized image messages against rclpy's own serialisation.

Padding between fields is left out of the comparison of bytes, as rclpy leaves it as it finds
it in memory. What the pixels mean is not asserted here: that belongs to the codec's tests.
"""

import struct

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from cdr_messages import (
    GOLDEN_BIG_ENDIAN,
    GOLDEN_COMPRESSED,
    GOLDEN_HEADER,
    GOLDEN_IMAGE,
    READERS,
    values,
    without_padding,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image

from derain_ros.images.cdr import (
    encode_header,
    read_compressed_image,
    read_image,
    read_stamp,
    restamped,
    write_compressed_image,
    write_image,
)
from derain_ros.images.codec import decode_image

UINT32 = st.integers(0, 2**32 - 1)
HEADERS = st.tuples(st.integers(-2**31, 2**31 - 1), UINT32, st.text(max_size=9))
DATA = st.binary(max_size=70)
IMAGES = st.fixed_dictionaries({
    'height': UINT32, 'width': UINT32, 'encoding': st.text(max_size=9),
    'is_bigendian': st.integers(0, 255), 'step': UINT32, 'data': DATA})
COMPRESSED = st.fixed_dictionaries({'format': st.text(max_size=9), 'data': DATA})

def typed(message_type, header, fields):
    """Make a message of rclpy's."""
    message = message_type(**fields)
    message.header.stamp.sec, message.header.stamp.nanosec = header[:2]
    message.header.frame_id = header[2]
    return message


def big_endian(header, fields):
    """Serialize an image the other way round."""
    def text(value):
        raw = value.encode() + b'\0'
        return struct.pack('>I', len(raw)) + raw
    sec, nanosec, frame_id = header
    body = struct.pack('>iI', sec, nanosec) + text(frame_id)
    body += bytes(-len(body) % 4)
    body += struct.pack('>II', fields['height'], fields['width']) + text(fields['encoding'])
    body += bytes([fields['is_bigendian']])
    body += bytes(-len(body) % 4)
    body += struct.pack('>II', fields['step'], len(fields['data'])) + fields['data']
    return bytes(4) + body


# Bytes written by hand

def test_golden_image_is_written():
    assert encode_header(-2, 123456789, 'lens') == GOLDEN_HEADER
    assert write_image(
        GOLDEN_HEADER, height=2, width=1, encoding='mono8', is_bigendian=1, step=3,
        data=b'\xa1\xa2\xa3\xa4') == GOLDEN_IMAGE


@pytest.mark.parametrize('message', [GOLDEN_IMAGE, GOLDEN_BIG_ENDIAN])
def test_golden_image_is_read(message):
    view = read_image(message)
    assert view.header == GOLDEN_HEADER  # little-endian, whatever the message was
    assert values(view) == [
        -2 * 10**9 + 123456789, 'lens', 2, 1, 'mono8', 1, 3, b'\xa1\xa2\xa3\xa4']
    assert read_stamp(message) == (-2, 123456789)
    np.testing.assert_array_equal(decode_image(view)[:, 0, 0], [0xa1, 0xa4])


def test_golden_compressed_image():
    header = encode_header(1, 2, 'c')
    assert write_compressed_image(
        header, format='jpeg', data=b'\xff\xd8\xff') == GOLDEN_COMPRESSED
    view = read_compressed_image(GOLDEN_COMPRESSED)
    assert view.header == header
    assert values(view) == [10**9 + 2, 'c', 'jpeg', b'\xff\xd8\xff']


# Against rclpy

@settings(max_examples=40)
@given(HEADERS, IMAGES)
def test_image_is_what_rclpy_writes(header, fields):
    written = write_image(encode_header(*header), **fields)
    theirs = serialize_message(typed(Image, header, fields))
    assert written == without_padding(theirs, Image)
    assert values(deserialize_message(written, Image)) == values(read_image(theirs))


@settings(max_examples=40)
@given(HEADERS, COMPRESSED)
def test_compressed_image_is_what_rclpy_writes(header, fields):
    written = write_compressed_image(encode_header(*header), **fields)
    theirs = serialize_message(typed(CompressedImage, header, fields))
    assert written == without_padding(theirs, CompressedImage)
    assert values(deserialize_message(written, CompressedImage)) == values(
        read_compressed_image(theirs))


@settings(max_examples=40)
@given(HEADERS, IMAGES)
def test_big_endian_is_read_as_rclpy_does(header, fields):
    message = big_endian(header, fields)
    view = read_image(message)
    assert values(view) == values(deserialize_message(message, Image))
    assert view.header == encode_header(*header)
    assert read_stamp(message) == header[:2]
    found = restamped(message, 1_800_000_000_123_456_789)
    assert found[:4] + found[12:] == message[:4] + message[12:]
    assert read_stamp(found) == (1_800_000_000, 123_456_789)
    assert restamped(message[:12], 7) == restamped(message, 7)[:12]
    assert [restamped(message[:length], 7) for length in (0, 3, 11)] == [None] * 3


# Copies

@pytest.mark.parametrize('message_type, message', [
    (Image, GOLDEN_IMAGE), (CompressedImage, GOLDEN_COMPRESSED)])
def test_data_stay_in_the_message(message_type, message):
    view = READERS[message_type](message)
    assert view.data.readonly
    assert np.shares_memory(np.frombuffer(view.data, np.uint8), np.frombuffer(message, np.uint8))


def test_pixels_can_be_an_array():
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    fields = {'height': 2, 'width': 4, 'encoding': 'bgr8', 'step': 12}
    written = write_image(GOLDEN_HEADER, **fields, data=pixels)
    assert isinstance(written, bytes)
    np.testing.assert_array_equal(decode_image(read_image(written)), pixels)
    assert written == write_image(GOLDEN_HEADER, **fields, data=pixels.tobytes())
    with pytest.raises(ValueError, match='ascontiguousarray'):
        write_image(GOLDEN_HEADER, **fields, data=pixels[..., ::-1])
