"""Damaged serialized messages: refused where rclpy refuses them, else read as it reads them."""

import struct

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from cdr_messages import GOLDEN_BIG_ENDIAN, GOLDEN_COMPRESSED, GOLDEN_IMAGE, READERS, values
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from derain_ros.images.cdr import (
    CdrUnsupportedError,
    read_camera_info,
    read_image,
    read_stamp,
)
from derain_ros.images.codec import ImageFormatError

CAMERA_INFO = CameraInfo(
    height=48, width=64, distortion_model='plumb_bob', d=[.1, .2, .3], binning_x=2)
CAMERA_INFO.roi.do_rectify = True


def by_rclpy(message, message_type):
    """Return what rclpy makes of a message, None where it refuses it."""
    try:
        return deserialize_message(message, message_type)
    except Exception as error:
        assert 'deserialize' in str(error)
        return None


@pytest.mark.parametrize('text', [
    b'', b'\0', b'cam', b'cam\0', b'a\0b\0', b'ab\0\0', b'\xe9t\xe9\0', b'\xed\xa0\x80\0',
    b'\xc0\x80\0', '日本\0'.encode(), '日本'.encode()[:-1],
])
def test_unusual_strings_are_read_as_rclpy_does(text):
    body = GOLDEN_IMAGE[4:12] + struct.pack('<I', len(text)) + text
    body += bytes(-len(body) % 4) + GOLDEN_IMAGE[24:32] + struct.pack('<I', len(text)) + text
    body += b'\1'
    message = b'\0\1\0\0' + body + bytes(-len(body) % 4) + GOLDEN_IMAGE[-12:]
    theirs = deserialize_message(message, Image)
    view = read_image(message)
    assert values(view) == values(theirs)
    # What goes out again is as well formed as what rclpy would send.
    assert b'\0\1\0\0' + view.header == serialize_message(theirs.header)


@pytest.mark.parametrize('extra', [b'\0', b'\0\0\0', b'more of it'])
def test_bytes_behind_the_end_are_ignored(extra):
    assert values(read_image(GOLDEN_IMAGE + extra)) == values(
        deserialize_message(GOLDEN_IMAGE + extra, Image))


@pytest.mark.parametrize('kind', ['0002', '0003', '0006', '0007', '0009', '000b', '0100', 'ffff'])
def test_other_encapsulations_are_left_to_rclpy(kind):
    message = bytes.fromhex(kind) + GOLDEN_IMAGE[2:]
    assert read_stamp(message) is None
    for read in READERS.values():
        with pytest.raises(CdrUnsupportedError, match=r'encapsulation.*fast_path'):
            read(message)


@pytest.mark.parametrize('message_type, message', [
    (Image, GOLDEN_IMAGE), (Image, GOLDEN_BIG_ENDIAN), (CompressedImage, GOLDEN_COMPRESSED),
    (CameraInfo, serialize_message(CAMERA_INFO))])
def test_cut_off_at_every_byte(message_type, message):
    read = READERS.get(message_type, read_camera_info)
    for length in range(len(message)):
        with pytest.raises(ImageFormatError, match=rf'cut off.*{length} bytes.*; check'):
            read(message[:length])
        assert (read_stamp(message[:length]) is None) == (length < 12)


@pytest.mark.parametrize('at, field', [
    (12, 'header.frame_id'), (32, 'encoding'), (len(GOLDEN_IMAGE) - 8, 'data')])
@pytest.mark.parametrize('count', [2**31, 2**32 - 1])
def test_absurd_counts_name_the_field(at, field, count):
    message = GOLDEN_IMAGE[:at] + struct.pack('<I', count) + GOLDEN_IMAGE[at + 4:]
    with pytest.raises(ImageFormatError, match=field):
        read_image(message)


@st.composite
def damaged(draw, wholes):
    """Draw a message type, and a message of that type with some damage."""
    message_type, whole = draw(st.sampled_from(wholes))
    message = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(message)))
        end = min(at + draw(st.integers(0, 4)), len(message))
        message[at:end] = draw(st.binary(max_size=4))
    return message_type, bytes(message)


@settings(max_examples=100, deadline=None)
@given(damaged([
    (Image, GOLDEN_IMAGE), (Image, GOLDEN_BIG_ENDIAN), (CompressedImage, GOLDEN_COMPRESSED)]))
def test_damage_is_refused_where_rclpy_refuses_it(drawn):
    message_type, message = drawn
    assume(message[2:4] == bytes(2))  # options, in which Fast CDR from Kilted on looks for padding
    try:
        view = READERS[message_type](message)
    except CdrUnsupportedError:
        return
    except ImageFormatError:
        assert by_rclpy(message, message_type) is None
        return
    assert values(view) == values(by_rclpy(message, message_type))


@settings(max_examples=30)
@given(st.binary(max_size=60))
def test_random_bytes(message):
    for kind in (b'', b'\0\0', b'\0\1'):
        read_stamp(kind + message)
        for read in READERS.values():
            try:
                read(kind + message)
            except (ImageFormatError, CdrUnsupportedError):
                continue


# Camera infos, which are not read but checked for rclpy

def camera_info(distortion_model, coefficients, frame_id=''):
    """Serialize a camera info; its numbers of eight bytes lie where the strings leave them."""
    message = CameraInfo(distortion_model=distortion_model, d=[.5] * coefficients)
    message.header.frame_id = frame_id
    return serialize_message(message)


@settings(max_examples=30)
@given(st.text(max_size=20), st.integers(0, 9), st.text(max_size=20))
def test_whole_camera_infos_are_accepted(distortion_model, coefficients, frame_id):
    message = camera_info(distortion_model, coefficients, frame_id)
    read_camera_info(message)
    with pytest.raises(ImageFormatError, match='do_rectify'):
        read_camera_info(message[:-1])


@settings(max_examples=100, deadline=None)
@given(damaged([(CameraInfo, serialize_message(CAMERA_INFO)),
                (CameraInfo, camera_info('', 0))]))
def test_damaged_camera_infos_are_refused_where_rclpy_refuses_them(drawn):
    _, message = drawn
    try:
        read_camera_info(message)
    except CdrUnsupportedError:
        return
    except ImageFormatError:
        assert by_rclpy(message, CameraInfo) is None
        return
    assert by_rclpy(message, CameraInfo) is not None
