"""Image messages and pictures for tests."""

import array
import struct
import zlib

import numpy as np
import pytest
from rosbags.typesys import Stores, get_typestore

TYPES = get_typestore(Stores.ROS2_JAZZY).types
HEADER = TYPES['std_msgs/msg/Header'](
    stamp=TYPES['builtin_interfaces/msg/Time'](sec=1, nanosec=2), frame_id='camera'
)
RosbagImage = TYPES['sensor_msgs/msg/Image']
RosbagCompressedImage = TYPES['sensor_msgs/msg/CompressedImage']

COLOUR = (10, 100, 200)  # blue, green, red
BAYER_LETTER = {'b': 0, 'g': 1, 'r': 2}


def image(encoding, height, width, data, *, step=None, is_bigendian=0, kind='rosbags'):
    """Make a message; ``step`` defaults to rows without padding."""
    data = np.asarray(data, np.uint8).ravel()
    step = len(data) // height if step is None else step
    if kind == 'rosbags':
        return RosbagImage(HEADER, height, width, encoding, is_bigendian, step, data)
    ros_image = pytest.importorskip('sensor_msgs.msg', reason='needs the ROS 2 messages').Image
    message = ros_image(
        height=height, width=width, encoding=encoding, is_bigendian=is_bigendian, step=step
    )
    message.data = array.array('B', data.tobytes())
    return message


def compressed(announced, data):
    """Make a compressed message."""
    return RosbagCompressedImage(HEADER, announced, np.frombuffer(bytes(data), np.uint8))


def chunk(kind, content):
    """Return a chunk of a PNG."""
    return (struct.pack('>I', len(content)) + kind + content
            + struct.pack('>I', zlib.crc32(kind + content)))


def png_of(height, width, rows=b'', *extra):
    """Make a grey PNG of deflated rows, which need not fit the size."""
    header = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    return b''.join([
        b'\x89PNG\r\n\x1a\n', chunk(b'IHDR', header), *extra, chunk(b'IDAT', rows),
        chunk(b'IEND', b'')])


def with_jpeg_size(data, height, width, marker=b'\xff\xc0'):
    """Overwrite the size in the frame header of a JPEG, by default a baseline one."""
    at = data.index(marker) + 5
    return data[:at] + struct.pack('>HH', height, width) + data[at + 4:]


def textured(height, width):
    """Make a smooth colour image, so that lossy codecs stay close."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 3, y * 4, 255 - x - y], axis=-1).clip(0, 255).astype(np.uint8)


def mosaic(pattern, height, width):
    """Sample a uniform :data:`COLOUR` through a Bayer filter."""
    tile = np.array([COLOUR[BAYER_LETTER[letter]] for letter in pattern], np.uint8).reshape(2, 2)
    return np.tile(tile, (height // 2 + 1, width // 2 + 1))[:height, :width]
