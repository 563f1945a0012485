"""Rain on messages: only pixels change, by what rain changes, in every encoding."""

import cv2
import numpy as np
import pytest
from bag_files import START, TYPES, compressed, header, image, picture

from derain_ros.bags.frames import why_not
from derain_ros.images.codec import SUPPORTED_ENCODINGS, ImageFormatError
from derain_ros.images.compressed import decode_compressed
from derain_ros.images.pixel_formats import PIXEL_FORMATS
from derain_ros.rain.apply.rainy_messages import rain_on_compressed, rain_on_image

HEIGHT, WIDTH = 8, 12
BLUE, GREEN, RED = 10, 20, 30


def _message(encoding, value=100, padding=3, big_endian=0):
    """A message whose samples all have one value."""
    pixel_format = PIXEL_FORMATS[encoding]
    step = WIDTH * pixel_format.pixel_bytes + padding
    data = np.full(pixel_format.row_count(HEIGHT) * step, value, np.uint8)
    return image(0, START, encoding=encoding, height=HEIGHT, width=WIDTH, step=step,
                 is_bigendian=big_endian, data=data)


def _brighter(blue, green, red):
    """What adds to the channels of the left half."""
    def render(dry):
        rainy = dry.astype(int)
        rainy[:, :WIDTH // 2] += (blue, green, red)
        return np.clip(rainy, 0, 255).astype(np.uint8)

    return render


def _rows(message):
    return message.data.reshape(-1, message.step)


@pytest.mark.parametrize('encoding', sorted(SUPPORTED_ENCODINGS))
@pytest.mark.parametrize('big_endian', [0, 1])
def test_all_but_rainy_samples_keeps_its_bytes(encoding, big_endian):
    dry = _message(encoding, big_endian=big_endian)
    before = dry.data.copy()
    rainy = rain_on_image(dry, _brighter(BLUE, GREEN, RED))
    assert np.array_equal(dry.data, before)
    for name in ('header', 'height', 'width', 'encoding', 'is_bigendian', 'step'):
        assert getattr(rainy, name) == getattr(dry, name)
    assert rainy.data.dtype == np.uint8 and rainy.data.shape == dry.data.shape
    left = WIDTH // 2 * PIXEL_FORMATS[encoding].pixel_bytes
    assert np.array_equal(_rows(rainy)[:, left:], _rows(dry)[:, left:])
    assert not np.array_equal(_rows(rainy)[:, :left], _rows(dry)[:, :left])


COLOUR = (BLUE, GREEN, RED)


@pytest.mark.parametrize('encoding, added, sample', [
    ('bgr8', COLOUR, [110, 120, 130]),
    ('8UC3', COLOUR, [110, 120, 130]),
    ('rgb8', COLOUR, [130, 120, 110]),
    ('bgra8', COLOUR, [110, 120, 130, 100]),
    ('rgba8', COLOUR, [130, 120, 110, 100]),
    ('bgr16', COLOUR, [110, 110, 120, 120, 130, 130]),
    ('rgba16', COLOUR, [130, 130, 120, 120, 110, 110, 100, 100]),
    # 0.114 * 10 + 0.587 * 20 + 0.299 * 30 = 21.85
    ('mono8', COLOUR, [122]),
    ('8UC1', COLOUR, [122]),
    # Of 100 more blue, BT.601 makes 9.8 of Y, 43.9 of Cb, -7.1 of Cr.
    ('uyvy', (100, 0, 0), [144, 110, 93, 110]),
    ('yuv422', (100, 0, 0), [144, 110, 93, 110]),
    ('yuyv', (100, 0, 0), [110, 144, 110, 93]),
    ('yuv422_yuy2', (100, 0, 0), [110, 144, 110, 93]),
])
def test_samples_by_hand(encoding, added, sample):
    rainy = rain_on_image(_message(encoding), _brighter(*added))
    half = WIDTH // 2 * PIXEL_FORMATS[encoding].pixel_bytes
    left = _rows(rainy)[:, :half].reshape(HEIGHT, -1, len(sample))
    assert (left == sample).all()


@pytest.mark.parametrize('encoding, chroma', [('nv12', [144, 93]), ('nv21', [93, 144])])
def test_planar_yuv_by_hand(encoding, chroma):
    rainy = rain_on_image(_message(encoding), _brighter(100, 0, 0))
    assert (_rows(rainy)[:HEIGHT, :WIDTH // 2] == 110).all()
    assert (_rows(rainy)[HEIGHT:, :WIDTH // 2].reshape(HEIGHT // 2, -1, 2) == chroma).all()


@pytest.mark.parametrize('pattern', ['rggb', 'bggr', 'gbrg', 'grbg'])
def test_a_bayer_mosaic_gets_the_channel_of_each_filter(pattern):
    added = {'b': BLUE, 'g': GREEN, 'r': RED}
    square = np.array([added[colour] for colour in pattern]).reshape(2, 2)
    rainy = rain_on_image(_message(f'bayer_{pattern}8'), _brighter(BLUE, GREEN, RED))
    expected = 100 + np.tile(square, (HEIGHT // 2, WIDTH // 4))
    assert np.array_equal(_rows(rainy)[:, :WIDTH // 2], expected)


def _deep(samples, encoding='mono16'):
    """A message of samples of 16 bits."""
    return image(0, START, encoding=encoding, height=HEIGHT, width=WIDTH, step=2 * WIDTH,
                 is_bigendian=int(samples.dtype.byteorder == '>'),
                 data=samples.view(np.uint8).ravel())


@pytest.mark.parametrize('encoding', ['mono16', 'bayer_rggb16'])
@pytest.mark.parametrize('order', ['<', '>'])
def test_16_bits_keep_their_lower_eight_under_rain(encoding, order):
    samples = np.full((HEIGHT, WIDTH), 0x1234, f'{order}u2')
    samples[3] = 0xFFF0
    rainy = rain_on_image(_deep(samples, encoding), _brighter(10, 10, 10))
    result = rainy.data.view(samples.dtype).reshape(HEIGHT, WIDTH)
    # 8-bit 10 is 10 * 257 of 16 bits; rain adds nothing to what is white. Demosaicing
    # invents the outermost pixels, which are therefore not looked at.
    assert (np.delete(result, 3, 0)[1:-1, 1:WIDTH // 2] == 0x1234 + 2570).all()
    assert (result[3, 1:WIDTH // 2] == 0xFFF0).all()
    assert (result[:, WIDTH // 2:] == samples[:, WIDTH // 2:]).all()


@pytest.mark.parametrize('bits', [10, 12, 14, 16])
def test_rain_is_as_bright_as_the_bits_in_use(bits):
    samples = np.full((HEIGHT, WIDTH), 100 << (bits - 8), '<u2')
    samples[:, -1] = 40000
    wanted, rain = samples.copy(), _brighter(20, 20, 20)
    wanted[:, :WIDTH // 2] += 20 * ((2**bits - 1) // 255)
    rainy = rain_on_image(_deep(samples), rain, bits)
    assert np.array_equal(rainy.data.view('<u2').reshape(HEIGHT, WIDTH), wanted)
    rainy = rain_on_compressed(
        _compressed(samples, 'mono16; png compressed ', '.png'), rain, bits)
    assert np.array_equal(cv2.imdecode(rainy.data, cv2.IMREAD_UNCHANGED), wanted)


def test_16_bits_stop_at_white():
    rainy = rain_on_image(
        _deep(np.full((HEIGHT, WIDTH), 0x12FF, '<u2')), _brighter(255, 255, 255))
    assert (rainy.data.view('<u2').reshape(HEIGHT, WIDTH)[:, :WIDTH // 2] == 0xFFFF).all()


def test_a_last_row_without_padding_is_read():
    dry = _message('rgb8')
    dry.data = dry.data[:-3]
    rainy = rain_on_image(dry, _brighter(BLUE, GREEN, RED))
    assert len(rainy.data) == len(dry.data)
    assert rainy.data[0] == 130


@pytest.mark.parametrize('encoding', ['32FC1', '16UC1', '', 'bayer'])
def test_what_is_no_picture_is_refused(encoding):
    message = image(0, START, encoding=encoding)
    assert encoding in why_not(message)
    with pytest.raises(ImageFormatError):
        rain_on_image(message, _brighter(1, 1, 1))


def _compressed(pixels, name, suffix):
    _, data = cv2.imencode(suffix, pixels)
    return TYPES.types['sensor_msgs/msg/CompressedImage'](
        header=header(START), format=name, data=data.ravel())


def _lighter(dry):
    return cv2.add(dry, (BLUE, GREEN, RED, 0))


@pytest.mark.parametrize('name, shape, dtype, added', [
    ('bgr8; png compressed bgr8', (8, 12, 3), np.uint8, [BLUE, GREEN, RED]),
    ('rgb8; png compressed rgb8', (8, 12, 3), np.uint8, [RED, GREEN, BLUE]),
    ('png', (8, 12, 4), np.uint8, [BLUE, GREEN, RED, 0]),
    ('mono8; png compressed mono8', (8, 12), np.uint8, 22),
    ('mono16; png compressed mono16', (8, 12), np.uint16, 22 * 257),
])
def test_png_keeps_channels_and_bits(name, shape, dtype, added):
    dry = np.full(shape, 100 if dtype == np.uint8 else 100 * 257 + 3, dtype)
    rainy = rain_on_compressed(_compressed(dry, name, '.png'), _lighter)
    assert rainy.format == name
    result = cv2.imdecode(rainy.data, cv2.IMREAD_UNCHANGED)
    assert result.dtype == dtype
    assert np.array_equal(result, dry + np.array(added, dtype))


def test_a_compressed_mosaic_stays_one():
    message = _compressed(np.full((8, 12), 100, np.uint8), 'bayer_rggb8; png compressed ', '.png')
    result = cv2.imdecode(rain_on_compressed(message, _lighter).data, cv2.IMREAD_UNCHANGED)
    assert np.array_equal(result, np.tile([[130, 120], [120, 110]], (4, 6)))


@pytest.mark.parametrize('grey', [False, True])
def test_jpeg_stays_jpeg_of_the_same_channels(grey):
    dry = compressed(1, START)
    if grey:
        dry = _compressed(picture(1)[..., 0], 'mono8; jpeg compressed mono8', '.jpg')
    rainy = rain_on_compressed(dry, _lighter)
    assert rainy.data[:3].tobytes() == b'\xff\xd8\xff'
    assert rainy.header == dry.header and rainy.format == dry.format
    assert (cv2.imdecode(rainy.data, cv2.IMREAD_UNCHANGED).ndim == 2) is grey
    if not grey:
        expected = _lighter(decode_compressed(dry))
        assert cv2.PSNR(decode_compressed(rainy), expected) > 40
