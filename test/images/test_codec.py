"""Image messages to arrays and back, against values worked out by hand.

Speed is not asserted here. cv_bridge is compared with only where it is installed.
"""

import dataclasses
import sys

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from image_messages import COLOUR, HEADER, RosbagImage, image, mosaic

from derain_ros.images import codec
from derain_ros.images.codec import (
    SUPPORTED_ENCODINGS,
    ImageFormatError,
    arrange_pixels,
    decode_image,
    extract_alpha,
    output_encoding,
)

# Limited-range BT.601 for (Y, U, V), worked out by hand as
# R = 1.164(Y-16) + 1.596(V-128), G = 1.164(Y-16) - 0.813(V-128) - 0.391(U-128),
# B = 1.164(Y-16) + 2.018(U-128).
RED_YUV, RED_BGR = (81, 90, 240), (0, 0, 254)
GREEN_YUV, GREEN_BGR = (145, 54, 34), (1, 255, 0)
OCHRE_YUV, OCHRE_BGR = (120, 100, 150), (65, 114, 156)


def encode(bgr, encoding, alpha=None):
    """Return a message of an image."""
    pixels = arrange_pixels(bgr, encoding, alpha=alpha)
    assert pixels.flags.c_contiguous and pixels.dtype == np.uint8
    return image(encoding, *bgr.shape[:2], pixels)


def golden(encoding):
    """Return message data of one 2×4 image and the BGR pixels expected."""
    uniform = np.full((2, 4, 3), COLOUR, np.uint8)
    blue, green, red = COLOUR
    pixels = {
        'bgr8': [blue, green, red], 'rgb8': [red, green, blue],
        'bgra8': [blue, green, red, 7], 'rgba8': [red, green, blue, 7], '8UC3': list(COLOUR),
    }
    if encoding in pixels:
        return pixels[encoding] * 8, uniform
    if (eight := encoding.replace('16', '8')) in pixels:
        return [byte for value in pixels[eight] for byte in (255, value)] * 8, uniform
    if encoding in ('mono8', '8UC1'):
        return [0, 1, 2, 3, 4, 5, 6, 255], np.array([[0, 1, 2, 3], [4, 5, 6, 255]])[..., None]
    if encoding == 'mono16':
        return [[255, value] for value in range(8)], np.arange(8).reshape(2, 4, 1)
    if encoding.startswith('bayer_'):
        samples = mosaic(encoding[6:10], 2, 4)
        if encoding.endswith('16'):
            samples = np.stack([np.full_like(samples, 255), samples], axis=-1)
        return samples, uniform
    (y, u, v), (y2, u2, v2) = RED_YUV, OCHRE_YUV
    expected = np.array([[RED_BGR] * 2 + [OCHRE_BGR] * 2] * 2)
    rows = {
        'uyvy': [u, y, v, y, u2, y2, v2, y2] * 2, 'yuyv': [y, u, y, v, y2, u2, y2, v2] * 2,
        'nv12': [y, y, y2, y2] * 2 + [u, v, u2, v2], 'nv21': [y, y, y2, y2] * 2 + [v, u, v2, u2],
    }
    return rows[{'yuv422': 'uyvy', 'yuv422_yuy2': 'yuyv'}.get(encoding, encoding)], expected


def padded(data, rows, padding):
    """Append ``padding`` bytes of 99 to each row."""
    data = np.asarray(data, np.uint8).reshape(rows, -1)
    return np.pad(data, ((0, 0), (0, padding)), constant_values=99)


@pytest.mark.parametrize('kind', ['rosbags', 'rclpy'])
@pytest.mark.parametrize('encoding', sorted(SUPPORTED_ENCODINGS))
def test_golden_values_with_and_without_padding(encoding, kind):
    data, expected = golden(encoding)
    rows = 3 if encoding.startswith('nv') else 2
    for padding in (0, 1, 6):
        rowwise = padded(data, rows, padding)
        step = rowwise.shape[1]
        decoded = decode_image(image(encoding, 2, 4, rowwise, step=step, kind=kind))
        assert decoded.shape == (2, 4, 3) and decoded.dtype == np.uint8
        assert decoded.flags.c_contiguous
        tolerance = 2 if encoding[:2] in ('yu', 'uy', 'nv') else 0
        assert np.abs(decoded.astype(int) - expected).max() <= tolerance
        unpadded_end = rowwise.ravel()[: rowwise.size - padding]
        shorter = decode_image(image(encoding, 2, 4, unpadded_end, step=step, kind=kind))
        np.testing.assert_array_equal(shorter, decoded)


@pytest.mark.parametrize('encoding', [
    'mono16', 'rgb16', 'bgra16', *(f'bayer_{p}16' for p in ('rggb', 'grbg'))])
def test_big_endian_samples(encoding):
    data, expected = golden(encoding)
    swapped = np.asarray(data, np.uint8).reshape(-1, 2)[:, ::-1]
    for padding in (0, 3):
        rowwise = padded(swapped, 2, padding)
        message = image(encoding, 2, 4, rowwise, step=rowwise.shape[1], is_bigendian=1)
        np.testing.assert_array_equal(decode_image(message), np.broadcast_to(expected, (2, 4, 3)))


@pytest.mark.parametrize(('pattern', 'height', 'width'), [
    ('rggb', 2, 2), ('bggr', 2, 7), ('gbrg', 9, 2), ('grbg', 3, 3), ('rggb', 7, 5)])
def test_bayer_of_a_uniform_colour_is_that_colour(pattern, height, width):
    message = image(f'bayer_{pattern}8', height, width, mosaic(pattern, height, width))
    np.testing.assert_array_equal(
        decode_image(message), np.broadcast_to(np.uint8(COLOUR), (height, width, 3)))


def test_yuv_luma_changes_within_a_chroma_pair():
    (_, u, v), white, black = GREEN_YUV, 235, 16
    decoded = decode_image(image('yuv422', 1, 2, [128, white, 128, black]))
    np.testing.assert_allclose(decoded, [[[255] * 3, [0] * 3]], atol=2)
    decoded = decode_image(image('yuyv', 1, 2, [GREEN_YUV[0], u, GREEN_YUV[0], v]))
    np.testing.assert_allclose(decoded, [[GREEN_BGR] * 2], atol=2)


@pytest.mark.parametrize('buffer', [bytes, bytearray, memoryview, lambda data: np.array(list(data))
                                    .astype(np.uint8).reshape(2, 9)])
def test_any_byte_buffer_is_read(buffer):
    message = dataclasses.replace(image('bgr8', 2, 3, range(18)), data=buffer(bytes(range(18))))
    np.testing.assert_array_equal(decode_image(message).ravel(), range(18))


@pytest.mark.parametrize('encoding', ['mono8', 'mono16'])
def test_grey_round_trip(encoding):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    encoded = encode(cv2.merge([grey] * 3), encoding)
    if encoding == 'mono16':
        samples = encoded.data.view('<u2').reshape(16, 16)
        np.testing.assert_array_equal(samples, grey.astype(int) * 257)
    np.testing.assert_array_equal(decode_image(encoded)[..., 1], grey)


@pytest.mark.parametrize(('encoding', 'alpha', 'expected'), [
    ('bgr8', None, [1, 2, 3, 4, 5, 6]), ('rgb8', None, [3, 2, 1, 6, 5, 4]),
    ('bgra8', None, [1, 2, 3, 255, 4, 5, 6, 255]), ('rgba8', [[9, 8]], [3, 2, 1, 9, 6, 5, 4, 8]),
    ('mono8', None, [2, 5]),  # 0.114 * 1 + 0.587 * 2 + 0.299 * 3 = 2.185, and 3 more
])
def test_pixels_are_written_in_the_named_order(encoding, alpha, expected):
    alpha = None if alpha is None else np.array(alpha, np.uint8)
    # Two of them: OpenCV 4.5.4, as on Ubuntu 22.04, converts no picture of one pixel.
    pixels = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
    assert list(encode(pixels, encoding, alpha).data) == expected


@pytest.mark.parametrize(('received', 'choice', 'expected'), [
    ('bgr8', 'same', 'bgr8'), ('rgb8', 'same', 'rgb8'), ('rgba8', 'same', 'rgba8'),
    ('bgra8', 'same', 'bgra8'), ('mono8', 'same', 'mono8'), ('mono16', 'same', 'mono16'),
    ('8UC3', 'same', 'bgr8'), ('8UC1', 'same', 'mono8'), ('bayer_grbg16', 'same', 'bgr8'),
    ('yuv422_yuy2', 'same', 'bgr8'), ('nv12', 'same', 'bgr8'), ('rgb16', 'same', 'bgr8'),
    ('mono8', 'rgb8', 'rgb8'), ('nv21', 'bgr8', 'bgr8'),
])
def test_output_encoding(received, choice, expected):
    assert output_encoding(received, choice) == expected
    with pytest.raises(ValueError, match="expected 'same', 'bgr8' or 'rgb8'"):
        output_encoding(received, 'mono8')


REFUSED = {
    'unknown encoding': ({'encoding': 'yuv999'}, r"encoding is 'yuv999'.*bayer_rggb8.*cv_bridge"),
    'empty encoding': ({'encoding': ''}, "encoding is ''"),
    'surrogate encoding': ({'encoding': '\ud800'}, r'encoding is .*ud800'),
    'endless encoding': (
        {'encoding': 'x' * 10**6}, r'encoding is .{60}, (expected|which cv_bridge)'),
    'encoding of another type': ({'encoding': 3}, 'encoding is 3, expected a string'),
    'no height': ({'height': 0}, 'height is 0, expected .* 1 to 16384'),
    'no width': ({'width': 0}, 'width is 0'),
    'negative height': ({'height': -2}, 'height is -2'),
    'huge height': ({'height': 2**32 - 1}, 'height is 4294967295, expected .* 16384'),
    'fractional width': ({'width': 3.0}, 'width is 3.0, expected an integer'),
    'step too small': ({'step': 8}, 'step is 8, expected .* 9 .*3 pixels of bgr8 fill 9 bytes'),
    'overflowing step': ({'step': 2**32 - 1}, 'data is 18 bytes, expected 8589934590'),
    'endless step': ({'step': 2**32}, 'step is 4294967296'),
    'data too short': ({'data': bytes(17)}, 'data is 17 bytes, expected 18'),
    'data too long': ({'data': bytes(19)}, 'data is 19 bytes, expected 18'),
    'no data': ({'data': np.empty(0, np.uint8)}, 'data is 0 bytes'),
    'data of another type': ({'data': 'pixels'}, "data is <class 'str'>"),
    'odd width': ({'encoding': 'yuv422'}, 'width is 3, expected an even number for yuv422'),
    'odd height': ({'encoding': 'nv12', 'height': 3, 'width': 2}, 'height is 3, expected an even'),
    'narrow mosaic': ({'encoding': 'bayer_rggb8', 'width': 1}, 'width is 1, expected at least 2'),
}


@pytest.mark.parametrize(('changes', 'expected'), REFUSED.values(), ids=REFUSED.keys())
def test_refusal_names_field_value_and_remedy(changes, expected):
    message = dataclasses.replace(image('bgr8', 2, 3, range(18)), **changes)
    if 'cv_bridge' in expected:
        expected = expected.split('.*')[0]  # where cv_bridge is installed, it refuses instead
    with pytest.raises(ImageFormatError, match=expected) as caught:
        decode_image(message)
    text = str(caught.value)
    assert '; ' in text and text.isprintable() and len(text) < 600


ENCODING = st.sampled_from(sorted(SUPPORTED_ENCODINGS))


@st.composite
def messages(draw):
    """Draw messages of which some are right and most are wrong somewhere."""
    encoding = draw(ENCODING | st.text(max_size=12))
    height, width = draw(st.integers(0, 12)), draw(st.integers(0, 12))
    step = draw(st.integers(0, 60) | st.sampled_from([width, 2 * width, 3 * width, 2**32 - 1]))
    length = draw(st.integers(0, 300) | st.sampled_from(
        [height * step, height * step * 3 // 2]).filter(lambda n: n < 4096))
    data = draw(st.binary(min_size=length, max_size=length))
    if draw(st.booleans()):
        height = draw(st.integers(-1, 2**32))
    return RosbagImage(HEADER, height, width, encoding, draw(st.integers(0, 255)), step, data)


@settings(max_examples=100, deadline=None)
@given(messages())
@example(image('rgb8', 1, 2, range(6), step=2**32 - 1))
@example(image('mono16', 1, 2, range(4), step=2**32 - 1, is_bigendian=1))
def test_any_fields_give_an_image_or_an_image_format_error(message):
    try:
        decoded = decode_image(message)
    except ImageFormatError:
        return
    assert decoded.shape == (message.height, message.width, 3) and decoded.dtype == np.uint8
    assert decoded.flags.c_contiguous
    alpha = extract_alpha(message)
    assert alpha is None or alpha.shape == (message.height, message.width)
    encode(decoded, output_encoding(message.encoding, 'same'), alpha)


@pytest.mark.parametrize('encoding', ['bgr8', 'rgb8', 'bgra8', 'rgba8', 'mono8', 'mono16',
                                      'bgr16', 'rgb16', 'bgra16', 'rgba16',
                                      *(f'bayer_{p}8' for p in ('rggb', 'bggr', 'gbrg', 'grbg')),
                                      'yuv422', 'yuv422_yuy2'])
def test_agrees_with_cv_bridge(encoding):
    cv_bridge = pytest.importorskip('cv_bridge', reason='cv_bridge comes with a ROS installation')
    random = np.random.default_rng(5)
    channels = {'bgr8': 3, 'rgb8': 3, 'bgra8': 4, 'rgba8': 4, 'mono16': 2, 'yuv422': 2,
                'yuv422_yuy2': 2, 'bgr16': 6, 'rgb16': 6, 'bgra16': 8,
                'rgba16': 8}.get(encoding, 1)
    data = random.integers(0, 256, (48, 64, channels), np.uint8)
    message = image(encoding, 48, 64, data, kind='rclpy')
    expected = cv_bridge.CvBridge().imgmsg_to_cv2(message, 'bgr8')
    # cv_bridge rounds value / 257 where this package takes value >> 8.
    tolerance = 1 if encoding.endswith('16') else 0
    assert np.abs(decode_image(message).astype(int) - expected).max() <= tolerance


def test_a_cv_bridge_that_does_not_load_is_told(tmp_path, monkeypatch):
    (tmp_path / 'cv_bridge.py').write_text(
        'raise ImportError("libopencv_core.so.4.5d: cannot open shared object file")')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, 'cv_bridge', raising=False)
    codec._cv_bridge.cache_clear()
    try:
        with pytest.raises(ImageFormatError, match=r'a cv_bridge that works here \(\W*libopencv'):
            decode_image(image('16UC3', 4, 4, [0] * 96))
    finally:
        codec._cv_bridge.cache_clear()


def test_rows_that_cv_bridge_would_shift_are_refused():
    pytest.importorskip('cv_bridge', reason='cv_bridge comes with a ROS installation')
    message = image('16UC3', 4, 4, bytes(4 * 25), kind='rclpy', step=25)
    with pytest.raises(ImageFormatError, match='step is 25, expected a multiple of the 6 bytes'):
        decode_image(message)
