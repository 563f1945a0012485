"""Serialized image messages against rclpy's own serialisation.

Padding between fields is left out of the comparison of bytes, as rclpy leaves it as it finds
it in memory. What the pixels mean is not asserted here: that belongs to the codec's tests.
"""

import struct

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from hypothesis import given
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CompressedImage, Image

from derain_ros.image_codec import decode_image
from derain_ros.ros.cdr import (
    encode_header,
    read_compressed_image,
    read_image,
    read_stamp,
    write_compressed_image,
    write_image,
)

GOLDEN_IMAGE = bytes.fromhex(
    '00010000'  # little-endian
    'feffffff' '15cd5b07'  # stamp: -2 s, 123456789 ns
    '05000000' '6c656e7300' '000000'  # frame_id 'lens', padding
    '02000000' '01000000'  # height, width
    '06000000' '6d6f6e6f3800'  # encoding 'mono8'
    '01' '00'  # is_bigendian, padding
    '03000000'  # step
    '04000000' 'a1a2a3a4')
GOLDEN_BIG_ENDIAN = bytes.fromhex(
    '00000000'
    'fffffffe' '075bcd15'
    '00000005' '6c656e7300' '000000'
    '00000002' '00000001'
    '00000006' '6d6f6e6f3800'
    '01' '00'
    '00000003'
    '00000004' 'a1a2a3a4')
GOLDEN_COMPRESSED = bytes.fromhex(
    '00010000'
    '01000000' '02000000'
    '02000000' '6300' '0000'  # frame_id 'c', padding
    '05000000' '6a70656700' '000000'  # format 'jpeg', padding
    '03000000' 'ffd8ff')
GOLDEN_HEADER = GOLDEN_IMAGE[4:21]

UINT32 = st.integers(0, 2**32 - 1)
HEADERS = st.tuples(st.integers(-2**31, 2**31 - 1), UINT32, st.text(max_size=9))
DATA = st.binary(max_size=70)
IMAGES = st.fixed_dictionaries({
    'height': UINT32, 'width': UINT32, 'encoding': st.text(max_size=9),
    'is_bigendian': st.integers(0, 255), 'step': UINT32, 'data': DATA})
COMPRESSED = st.fixed_dictionaries({'format': st.text(max_size=9), 'data': DATA})

READERS = {Image: read_image, CompressedImage: read_compressed_image}
FIELDS = {
    Image: ('height', 'width', 'encoding', 'is_bigendian', 'step'),
    CompressedImage: ('format',),
}


def typed(message_type, header, fields):
    """Make a message of rclpy's."""
    message = message_type(**fields)
    message.header.stamp.sec, message.header.stamp.nanosec = header[:2]
    message.header.frame_id = header[2]
    return message


def values(found):
    """Return the fields of a message or view, with the stamp in nanoseconds."""
    message_type = CompressedImage if hasattr(found, 'format') else Image
    if isinstance(found, message_type):
        stamp = found.header.stamp.sec * 10**9 + found.header.stamp.nanosec
        first = (stamp, found.header.frame_id)
    else:
        first = (found.stamp, found.frame_id)
    rest = [getattr(found, name) for name in FIELDS[message_type]]
    return [*first, *rest, bytes(found.data)]


def text_end(message, at):
    """Return where the padding behind a string begins, and where it ends."""
    count, = struct.unpack_from('<I', message, at)
    end = at + 4 + count
    return end, end + -end % 4


def without_padding(message, message_type):
    """Set the padding of a whole little-endian message to zeros."""
    blank = bytearray(message)
    gaps = [text_end(message, 12)]
    at = gaps[0][1]
    if message_type is Image:
        at, _ = text_end(message, at + 8)
        gaps.append((at + 1, at + 1 + -(at + 1) % 4))
    else:
        gaps.append(text_end(message, at))
    for start, end in gaps:
        blank[start:end] = bytes(end - start)
    return bytes(blank)


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

@given(HEADERS, IMAGES)
def test_image_is_what_rclpy_writes(header, fields):
    written = write_image(encode_header(*header), **fields)
    theirs = serialize_message(typed(Image, header, fields))
    assert written == without_padding(theirs, Image)
    assert values(deserialize_message(written, Image)) == values(read_image(theirs))


@given(HEADERS, COMPRESSED)
def test_compressed_image_is_what_rclpy_writes(header, fields):
    written = write_compressed_image(encode_header(*header), **fields)
    theirs = serialize_message(typed(CompressedImage, header, fields))
    assert written == without_padding(theirs, CompressedImage)
    assert values(deserialize_message(written, CompressedImage)) == values(
        read_compressed_image(theirs))


@given(HEADERS, IMAGES)
def test_big_endian_is_read_as_rclpy_does(header, fields):
    message = big_endian(header, fields)
    view = read_image(message)
    assert values(view) == values(deserialize_message(message, Image))
    assert view.header == encode_header(*header)
    assert read_stamp(message) == header[:2]


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
