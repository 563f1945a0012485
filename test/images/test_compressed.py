"""JPEG and PNG messages to arrays: content, size, damage, and what must not be unfolded."""

import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_messages import COLOUR, compressed, mosaic, png_of, textured, with_jpeg_size

from derain_ros.images.compressed import (
    ImageFormatError,
    decode_compressed,
    is_compressed_supported,
)


def jpeg(pixels, *options):
    """Compress to JPEG at high quality."""
    return cv2.imencode('.jpg', pixels, [cv2.IMWRITE_JPEG_QUALITY, 98, *options])[1].tobytes()


def png(pixels):
    """Compress to PNG."""
    return cv2.imencode('.png', pixels)[1].tobytes()


@pytest.mark.parametrize('announced', [
    'jpeg', 'jpg', 'JPEG', 'image/jpeg', '', 'png', 'rgb8; png compressed ',
    'bgr8; jpeg compressed bgr8'])
def test_jpeg_and_png_under_any_of_their_names(announced):
    pixels = textured(33, 35)
    decoded = decode_compressed(compressed(announced, jpeg(pixels)))
    assert decoded.shape == (33, 35, 3) and decoded.flags.c_contiguous
    assert np.abs(decoded.astype(int) - pixels).mean() < 3
    np.testing.assert_array_equal(decode_compressed(compressed(announced, png(pixels))), pixels)


def test_compressed_rgb_means_exchanged_channels():
    pixels = textured(8, 8)
    message = compressed('rgb8; png compressed rgb8', png(pixels[..., ::-1]))
    np.testing.assert_array_equal(decode_compressed(message), pixels)


def test_compressed_grey_alpha_and_16_bit():
    grey = textured(8, 8)[..., 0]
    for announced, data in [
        ('mono8; png compressed ', png(grey)),
        ('mono16; png compressed ', png(grey.astype(np.uint16) << 8 | 255)),
    ]:
        decoded = decode_compressed(compressed(announced, data))
        np.testing.assert_array_equal(decoded, cv2.merge([grey] * 3))
    decoded = decode_compressed(compressed('mono8; jpeg compressed mono8', jpeg(grey)))
    assert decoded.shape == (8, 8, 3)
    with_alpha = cv2.cvtColor(textured(8, 8), cv2.COLOR_BGR2BGRA)
    decoded = decode_compressed(compressed('png', png(with_alpha)))
    np.testing.assert_array_equal(decoded, textured(8, 8))


def test_compressed_mosaic_is_interpolated():
    data = png(mosaic('gbrg', 8, 10))
    decoded = decode_compressed(compressed('bayer_gbrg8; png compressed ', data))
    np.testing.assert_array_equal(decoded, np.broadcast_to(np.uint8(COLOUR), (8, 10, 3)))
    with pytest.raises(ImageFormatError, match="format is 'bayer_rgbw8'"):
        decode_compressed(compressed('bayer_rgbw8; png compressed ', data))


@pytest.mark.parametrize(('kind', 'pixels'), [
    ('mono', textured(8, 10)[..., 0]), ('bgr', textured(8, 10)),
    ('bgra', cv2.cvtColor(textured(8, 10), cv2.COLOR_BGR2BGRA)),
    ('bayer_rggb', mosaic('rggb', 8, 10))])
@pytest.mark.parametrize('bits', [8, 10, 12, 14])
def test_a_png_of_fewer_bits_is_as_bright_as_one_of_eight(kind, pixels, bits):
    deep = compressed(f'{kind}16; png compressed ', png(pixels.astype(np.uint16) << bits - 8))
    expected = decode_compressed(compressed(f'{kind}8; png compressed ', png(pixels)))
    np.testing.assert_array_equal(decode_compressed(deep, bits), expected)
    np.testing.assert_array_equal(decode_compressed(deep, lambda samples: bits), expected)


def test_exif_orientation_is_ignored():
    pixels = textured(24, 40)
    # One IFD entry: tag 0x112 (orientation), short, count 1, value 6 (turn by 90 degrees).
    exif = b'Exif\0\0MM\0*' + struct.pack('>IHHHIHHI', 8, 1, 0x112, 3, 1, 6, 0, 0)
    data = jpeg(pixels)
    data = data[:2] + b'\xff\xe1' + struct.pack('>H', len(exif) + 2) + exif + data[2:]
    turned = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert turned.shape == (40, 24, 3), 'the EXIF block made here must be one that OpenCV obeys'
    assert decode_compressed(compressed('jpeg', data)).shape == (24, 40, 3)


def test_progressive_jpeg_and_bytes_after_the_end_marker():
    data = jpeg(textured(40, 56), cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
    assert b'\xff\xc2' in data
    for whole in (data, jpeg(textured(40, 56)), png(textured(40, 56))):
        assert decode_compressed(compressed('jpeg', whole + bytes(100))).shape == (40, 56, 3)


@pytest.mark.parametrize('encode', [jpeg, png])
@pytest.mark.parametrize('part', [0.02, 0.3, 0.7, 0.99])
def test_truncated_data_are_refused(encode, part):
    data = encode(textured(64, 64))
    with pytest.raises(ImageFormatError, match=r'^data is'):
        decode_compressed(compressed('jpeg', data[: int(len(data) * part)]))


BOMBS = {
    'wide png': png_of(1, 16385), 'large png': png_of(16000, 16000),
    'largest png': png_of(2**31 - 1, 2**31 - 1), 'empty png': png_of(0, 16),
    'wide jpeg': with_jpeg_size(jpeg(textured(16, 16)), 16, 65535),
    'large jpeg': with_jpeg_size(jpeg(textured(16, 16)), 16000, 16000),
    'flat jpeg': with_jpeg_size(jpeg(textured(16, 16)), 0, 16),
}


def test_a_jpeg_too_short_for_its_size_is_refused_before_decoding():
    data = jpeg(textured(16, 16))
    fits = int((512 * len(data)) ** 0.5) // 16 * 16
    with pytest.raises(ImageFormatError, match=r'pixels in \d+ bytes.*a bit for each 8x8'):
        decode_compressed(compressed('jpeg', with_jpeg_size(data, fits + 16, fits + 16)))
    # What libjpeg makes of the missing blocks is its own business.
    assert decode_compressed(
        compressed('jpeg', with_jpeg_size(data, fits, fits))).shape == (fits, fits, 3)


@pytest.mark.parametrize('data', BOMBS.values(), ids=BOMBS.keys())
def test_announced_size_is_checked_before_decoding(data):
    with pytest.raises(ImageFormatError, match=r'data is a (PNG|JPEG) of \d+x\d+ pixels.*16384'):
        decode_compressed(compressed('png', data))


@pytest.mark.parametrize('data', [
    b'', b'\xff', b'\xff\xd8\xff', b'\x89PNG\r\n\x1a\n', b'GIF89a' + bytes(50), bytes(1000),
    b'\xff\xd8' + b'\xff' * 10**6, b'\xff\xd8' + b'\xff\xd0' * 10**5, png_of(16, 16),
    b'\xff\xd8\xff\xda\x00\x02\xff\xd9', b'\xff\xd8\xff\xe0\x00\x00' + bytes(20),
])
def test_data_that_are_no_image_are_refused(data):
    with pytest.raises(ImageFormatError, match=r'^data is'):
        decode_compressed(compressed('jpeg', data))


@pytest.mark.parametrize('announced', [
    '16UC1; png compressed ', '32FC1; png compressed',
    '16UC1; compressedDepth png', '32FC1; compressedDepth', 'compressedDepth', 'h264', 'theora',
    'bgr8; webp compressed', '16UC1; compressedDepth rvl', 'tiff',
])
def test_other_formats_are_refused(announced):
    assert not is_compressed_supported(announced)
    with pytest.raises(ImageFormatError, match=r"format is '.*', expected 'jpeg' or 'png'.*; "):
        decode_compressed(compressed(announced, png(textured(8, 8))))


SEEDS = [jpeg(textured(20, 24)), png(textured(20, 24))]


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 10**4), st.integers(0, 255))),
       st.sampled_from(['jpeg', 'png', 'bayer_rggb8; png compressed ', 'rgb8; png compressed rgb8',
                        '']) | st.text(max_size=20))
def test_damaged_data_give_an_image_or_an_image_format_error(seed, changes, announced):
    data = bytearray(seed)
    for position, value in changes:
        data[position % len(data)] = value
    try:
        decoded = decode_compressed(compressed(announced, data))
    except ImageFormatError:
        return
    assert decoded.ndim == 3 and decoded.shape[2] == 3 and decoded.dtype == np.uint8
