"""Serialized image messages written by hand, and how to compare them with rclpy's own."""

import struct

from sensor_msgs.msg import CompressedImage, Image

from derain_ros.images.cdr import read_compressed_image, read_image

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

READERS = {Image: read_image, CompressedImage: read_compressed_image}
FIELDS = {
    Image: ('height', 'width', 'encoding', 'is_bigendian', 'step'),
    CompressedImage: ('format',),
}


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
