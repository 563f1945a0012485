"""Serialized images, compressed images and camera infos that are wrong, in endless variety."""

import struct
import zlib
from functools import partial

import cv2
import numpy as np
from image_messages import png_of, with_jpeg_size
from rclpy.serialization import serialize_message
from ros_fixtures import HEIGHT, PICTURE, WIDTH, image
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

ABSURD = (0, 1, 2, 16_385, 65_536, 2**31 - 1, 2**31, 2**32 - 1)
ENCODINGS = ('', 'plasma', 'bgr', 'BGR8', 'bgr8\n', '32FC1', '8UC5', 'x' * 5000, '日本語', '%s%n',
             '\x1b[2J', 'jpeg', 'mono16', 'nv12', 'bayer_rggb16', 'yuv422')
FORMATS = ('', 'gif', 'h264', 'png; compressedDepth png', 'jpeg' * 1000, ';;;', '%s%n', '\x1b[2J',
           'bayer_rggb8; jpeg compressed ', 'rgb8; jpeg compressed rgb8')
FRAME_IDS = ('lens', '', 'f' * 50_000, '../..', '%d', '\x07', 'caméra')

JPEG = cv2.imencode('.jpg', PICTURE)[1].tobytes()
PNG = cv2.imencode('.png', PICTURE)[1].tobytes()


def size_fields(data):
    """Return where a JPEG or PNG says how large it is."""
    if data.startswith(PNG[:8]):
        return slice(16, 24)
    at = data.index(b'\xff\xc0') + 5
    return slice(at, at + 4)


def mutated(random, whole, span, kept):
    """Change up to eight of the first bytes, but none that say how large an image is.

    An image of another size is no damage, and keeps the engine busy and in need of memory.
    """
    data = bytearray(whole)
    for _ in range(random.integers(1, 9)):
        data[random.integers(min(span, len(whole)))] = random.integers(256)
    data[kept] = whole[kept]
    return bytes(data)


def harsh_jpeg():
    """Make a JPEG of black and white noise, of which the network leaves little.

    One quantiser of the brightness is changed; the picture is whole.
    """
    data = bytearray(JPEG)
    data[JPEG.index(b'\xff\xdb') + 22] = 165
    return bytes(data)


BOMBS = tuple(make(*size) for make in (
    lambda *size: png_of(*size, zlib.compress(bytes(1_000_000))), partial(with_jpeg_size, JPEG))
    for size in ((60_000, 60_000), (0, 0), (0, 64), (65_535, 1), (16_384, 16_384)))


def calibration():
    return CameraInfo(
        width=WIDTH, height=HEIGHT, distortion_model='plumb_bob', d=[.1, .2, 0., 0., 0.])


def pick(random, values):
    return values[random.integers(len(values))]


def wrong_image(random):
    """Make an image with one field that does not fit the others."""
    message = image(int(random.integers(1000)))
    kind = random.integers(5)
    if kind == 0:
        setattr(message, pick(random, ('height', 'width', 'step')), pick(random, ABSURD))
    elif kind == 1:
        message.height = message.width = message.step = pick(random, ABSURD)
    elif kind == 2:
        message.step = 3 * WIDTH + int(random.integers(-3, 4))
    elif kind == 3:
        message.encoding = pick(random, ENCODINGS)
    else:
        message.data = message.data[:int(random.integers(len(message.data)))]
    return message


def wrong_compressed_image(random):
    """Make a compressed image with a wrong format or damaged, absurd or no data."""
    message = CompressedImage(format='jpeg')
    kind = random.integers(5)
    if kind == 0:
        message.format, data = pick(random, FORMATS), JPEG
    elif kind == 1:
        data = pick(random, BOMBS)
    elif kind == 3:
        data = harsh_jpeg()
    elif kind == 2:
        data = pick(random, (JPEG, PNG))
        data = data[:random.integers(len(data))]
    else:
        data = pick(random, (JPEG, PNG))
        data = mutated(random, data, len(data), size_fields(data))
    message.data = data
    return message


def wrong_camera_info(random):
    """Make a calibration of another size, with values that are no numbers."""
    message = calibration()
    message.height, message.width = pick(random, ABSURD), pick(random, ABSURD)
    message.binning_x = message.roi.width = pick(random, ABSURD)
    message.distortion_model = pick(random, ENCODINGS)
    message.d = [np.nan, np.inf, -1e300] * int(random.integers(100))
    return message


WRONG = {Image: wrong_image, CompressedImage: wrong_compressed_image,
         CameraInfo: wrong_camera_info}
GOOD = {
    Image: serialize_message(image(1)),
    CompressedImage: serialize_message(CompressedImage(format='jpeg', data=JPEG)),
    CameraInfo: serialize_message(calibration()),
}
SIZES = {Image: slice(24, 32), CameraInfo: slice(0)}
JPEG_START = GOOD[CompressedImage].index(JPEG)
SIZES[CompressedImage] = slice(
    *(JPEG_START + at for at in (size_fields(JPEG).start, size_fields(JPEG).stop)))


def hostile(message_type, seed):
    """Yield serialized messages of a type, one kind of damage after the other, without end.

    None is empty: Fast DDS then holds back all that the same publisher sends reliably
    afterwards, before it reaches any node.
    """
    random = np.random.default_rng(seed)
    while True:
        message = WRONG[message_type](random)
        message.header.frame_id = pick(random, FRAME_IDS)
        yield serialize_message(message)
        yield random.bytes(random.integers(1, 300))
        yield b'\0\1\0\0' + random.bytes(random.integers(300))
        whole = GOOD[message_type]
        yield whole[:random.integers(1, len(whole))]
        # The fields are in front; what is damaged behind them are pixels.
        for span in (120, len(whole)):
            yield mutated(random, whole, span, SIZES[message_type])
        at = 4 * int(random.integers(1, 16))
        yield whole[:at] + struct.pack('<I', pick(random, ABSURD)) + whole[at + 4:]
        yield bytes([0, random.integers(12)]) + whole[2:]  # other encapsulations
