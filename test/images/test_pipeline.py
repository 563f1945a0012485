"""The way of a frame, with an engine whose result is known; not what an engine is worth."""

import cv2
import numpy as np
import pytest
from image_messages import compressed, image, textured

from derain_ros.images.cdr import encode_header, read_image, write_image
from derain_ros.images.codec import SUPPORTED_ENCODINGS, ImageFormatError, decode_image
from derain_ros.images.pipeline import Frame
from derain_ros.images.pixel_formats import PIXEL_FORMATS

PICTURE = textured(32, 48)
MASK = np.full((32, 48), 200, np.uint8)


def infer(images):
    """Invert a batch of one."""
    assert images.shape == (1, 32, 48, 3) and images.flags.c_contiguous
    return 255 - images, MASK[np.newaxis]


def derained(**given):
    frame = Frame(**given)
    frame.derain(infer)
    return frame


@pytest.mark.parametrize(('encoding', 'channels'), [
    ('bgr8', [0, 1, 2]), ('rgb8', [2, 1, 0]), ('8UC3', [0, 1, 2]),
    ('bgra8', [0, 1, 2, 3]), ('rgba8', [2, 1, 0, 3])])
@pytest.mark.parametrize('strength', [1.0, 0.5, 0.0])
def test_an_image_keeps_encoding_and_alpha_and_is_blended(encoding, channels, strength):
    four = np.dstack([PICTURE, np.arange(32 * 48).reshape(32, 48)]).astype(np.uint8)
    frame = derained(message=image(encoding, 32, 48, four[..., channels]))
    pixels, found = frame.image(strength)
    assert found == {'8UC3': 'bgr8'}.get(encoding, encoding)
    expected = four.astype(float)
    expected[..., :3] += strength * (255 - 2 * expected[..., :3])
    assert np.abs(pixels.reshape(32, 48, -1) - expected[..., channels]).max() <= 0.5
    assert frame.mask() is frame.rain_mask
    assert (frame.mask() == MASK).all()


@pytest.mark.parametrize('encoding', sorted(SUPPORTED_ENCODINGS))
def test_a_frame_is_repeated_just_where_its_image_would_be_the_same(encoding):
    step = 48 * PIXEL_FORMATS[encoding].pixel_bytes
    data = np.resize(np.repeat(np.arange(256, dtype=np.uint8), 2),
                     step * PIXEL_FORMATS[encoding].row_count(32))
    message = image(encoding, 32, 48, data, step=step)
    frame = Frame(message)
    kept = frame.repeats(1.0)
    assert kept == (encoding in ('bgr8', 'rgb8', 'bgra8', 'rgba8', 'mono8', 'mono16'))
    assert frame.bgr is None
    frame.check()
    assert not frame.mask().any()
    if kept:
        assert (frame.image()[0].ravel() == data).all()
        frame.derain(infer)
        assert not frame.repeats(1.0)
        assert frame.repeats(0)
        assert not frame.repeats(0, 'rgb8' if encoding != 'rgb8' else 'bgr8')


def test_nothing_is_copied_where_nothing_changes():
    data = write_image(encode_header(1, 2, 'lens'), height=32, width=48, encoding='bgr8',
                       step=144, data=PICTURE)
    frame = derained(message=read_image(data))
    for picture in (frame.decode(), frame.blended(0), frame.image(0)[0]):
        assert np.shares_memory(picture, np.frombuffer(data, np.uint8))
    assert frame.blended() is frame.derained
    assert frame.image()[0] is frame.derained
    assert frame.blended(0.5) is frame.blended(0.5)


def test_a_compressed_frame_and_a_picture_become_bgr8():
    png = compressed('png', cv2.imencode('.png', PICTURE)[1])
    assert Frame(png, compressed=True).size == (32, 48)
    for frame in (derained(message=png, compressed=True), derained(bgr=PICTURE)):
        pixels, encoding = frame.image()
        assert (encoding, frame.size) == ('bgr8', (32, 48))
        assert (pixels == 255 - PICTURE).all()
        assert not frame.repeats(0)
        assert (frame.overlay() != PICTURE).any()
        jpeg = cv2.imdecode(frame.jpeg(0, 95), cv2.IMREAD_COLOR)
        assert np.abs(jpeg.astype(int) - PICTURE).mean() < 3


def test_results_from_elsewhere_may_be_set():
    frame = Frame(bgr=PICTURE)
    frame.derained = 255 - PICTURE
    assert frame.blended() is frame.derained
    assert not frame.mask().any()


@pytest.mark.parametrize('step', ['decode', 'check', 'image'])
def test_a_frame_that_cannot_be_read_says_so(step):
    frame = Frame(image('bgr8', 32, 48, PICTURE, step=3))
    with pytest.raises(ImageFormatError, match='step is 3'):
        getattr(frame, step)()
    assert decode_image(image('bgr8', 32, 48, PICTURE)).any()


@pytest.mark.parametrize('bits', [8, 10, 12, 14])
@pytest.mark.parametrize('big_endian', [0, 1])
def test_samples_of_fewer_bits_keep_depth_and_range(bits, big_endian):
    grey = np.resize(np.arange(1 << bits), (32, 48)).astype(np.uint16)
    data = grey.astype('>u2' if big_endian else '<u2').view(np.uint8)
    frame = Frame(image('mono16', 32, 48, data, is_bigendian=big_endian), bits=bits)
    assert (frame.decode() == (grey >> (bits - 8))[..., np.newaxis]).all()
    frame.derained, frame.rain_mask = frame.decode().copy(), MASK
    pixels, encoding = frame.image()
    assert encoding == 'mono16'
    assert (pixels.view('<u2') == grey).all()
    frame = Frame(image('mono16', 32, 48, data, is_bigendian=big_endian), bits=bits)
    frame.derained = np.maximum(frame.decode(), 3) - 3
    clearer = frame.image()[0].view('<u2')
    step = 1 << bits - 8
    assert (clearer[grey >= 3 * step] == grey[grey >= 3 * step] - 3 * step).all()
    assert clearer.max() < 1 << bits


def test_a_frame_is_padded_to_a_size_and_cropped():
    def infer_padded(images):
        assert images.shape == (1, 64, 64, 3)
        assert (images[0, :32, :48] == PICTURE).all()
        assert (images[0, 32:, :48] == PICTURE[::-1]).all()
        return 255 - images, np.zeros((1, 64, 64), np.uint8)

    frame = Frame(bgr=PICTURE)
    frame.derain(infer_padded, (64, 64))
    assert (frame.derained == 255 - PICTURE).all() and frame.mask().shape == (32, 48)
    assert frame.derained.flags.c_contiguous and frame.mask().flags.c_contiguous
