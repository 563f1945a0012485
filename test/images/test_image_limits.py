"""Compressed images that were made to take memory or time."""

import os
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from image_messages import chunk, compressed, png_of, with_jpeg_size

from derain_ros.images.compressed import (
    MAXIMUM_COMPRESSED_BYTES,
    MAXIMUM_EXTRA_BYTES,
    MAXIMUM_SCANS,
    ImageFormatError,
    decode_compressed,
)

ROOT = Path(__file__).resolve().parents[2]


def zeros(mebibytes):
    """Deflate zeros, a thousand to one, by saying one block again and again."""
    deflate = zlib.compressobj(9)
    block = deflate.compress(bytes(2**20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    adler32 = (mebibytes * 2**20) % 65521 << 16 | 1
    return block[:2] + block[2:] * mebibytes + b'\x03\0' + struct.pack('>I', adler32)


def jpeg_with_scans(height, width, repeats, progressive):
    """Make a JPEG whose last, empty scan comes again and again."""
    options = [cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    data = cv2.imencode('.jpg', np.zeros((16, 16, 3), np.uint8), options)[1].tobytes()
    data = with_jpeg_size(data, height, width, b'\xff\xc2' if progressive else b'\xff\xc0')
    if progressive:
        start = data.rindex(b'\xff\xda')
        scan = data[start:start + 2 + data[start + 3]]
        return data[:-2] + scan * repeats + b'\xff\xd9'
    scan = bytes([0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 63, 0])  # one of three components
    return data[:data.index(b'\xff\xda')] + scan * repeats + b'\xff\xd9'


ROWS = zlib.compress(bytes(65 * 64))
SLOW = {
    'many scans of a progressive jpeg': lambda: jpeg_with_scans(8000, 8000, 2000, True),
    'many scans of a baseline jpeg': lambda: jpeg_with_scans(8000, 8000, 2000, False),
    'texts in a png': lambda: png_of(64, 64, ROWS, chunk(b'zTXt', b'a\0\0' + zeros(7)) * 200),
    'a profile in a png': lambda: png_of(64, 64, ROWS, chunk(b'iCCP', b'a\0\0' + zeros(300))),
    'a long text in a png': lambda: png_of(64, 64, ROWS, chunk(b'tEXt', b'a\0' + bytes(2**20))),
    'pixels without end in a png': lambda: png_of(64, 64, zeros(5000)),
    'empty chunks in a png': lambda: png_of(64, 64, ROWS, chunk(b'IDAT', b'') * 200_000),
}


@pytest.mark.parametrize('make', SLOW.values(), ids=SLOW.keys())
def test_images_that_would_take_long_are_refused_soon(make):
    message = compressed('', make())
    start = time.process_time()
    with pytest.raises(ImageFormatError, match=r'^data is .*expected .*; '):
        decode_compressed(message)
    # They take OpenCV from 2 to 20 s.
    assert time.process_time() - start < 1.0


def test_too_many_bytes_are_refused():
    data = jpeg_with_scans(64, 64, 1, True)
    data += bytes(MAXIMUM_COMPRESSED_BYTES + 1 - len(data))
    with pytest.raises(ImageFormatError, match=f'data is {len(data)} bytes long, expected at'):
        decode_compressed(compressed('jpeg', data))
    assert decode_compressed(compressed('jpeg', data[:-1])).shape == (64, 64, 3)


def test_ordinary_images_are_within_the_limits():
    noisy = np.random.default_rng(1).integers(0, 256, (1080, 1920, 3), np.uint8)
    data = cv2.imencode('.png', noisy)[1].tobytes()
    assert len(data) > 4 * 2**20  # long enough for its deflate stream to be followed
    np.testing.assert_array_equal(decode_compressed(compressed('png', data)), noisy)
    text = chunk(b'tEXt', bytes(MAXIMUM_EXTRA_BYTES - 12))
    assert decode_compressed(compressed('png', png_of(64, 64, ROWS, text))).shape == (64, 64, 3)
    scans = MAXIMUM_SCANS - jpeg_with_scans(48, 64, 0, True).count(b'\xff\xda')
    for repeats, progressive in ((scans, True), (MAXIMUM_SCANS, False)):
        data = jpeg_with_scans(48, 64, repeats, progressive)
        assert data.count(b'\xff\xda') == MAXIMUM_SCANS
        assert decode_compressed(compressed('jpeg', data)).shape == (48, 64, 3)
        data = jpeg_with_scans(48, 64, repeats + 1, progressive)
        with pytest.raises(ImageFormatError, match=f'a JPEG of {MAXIMUM_SCANS + 1} scans'):
            decode_compressed(compressed('jpeg', data))


STATUS = Path('/proc/self/status')
DECODE = """
import re, sys
from pathlib import Path
from image_messages import compressed, textured
import cv2
from derain_ros.images.compressed import ImageFormatError, decode_compressed
decode_compressed(compressed('', cv2.imencode('.png', textured(64, 64))[1].tobytes()))
message = compressed('', Path(sys.argv[1]).read_bytes())
peak = lambda: int(re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())[1])
before = peak()
try:
    print(decode_compressed(message).shape)
except ImageFormatError as error:
    print(error)
print(peak() - before)
"""


def memory_taken(data, file):
    """Decode in a process of its own; returns what it said and how many MB it took."""
    file.write_bytes(data)
    path = os.pathsep.join([str(ROOT), str(ROOT / 'test' / 'support')])
    run = subprocess.run(
        [sys.executable, '-c', DECODE, str(file)], capture_output=True, text=True, check=True,
        env=os.environ | {'PYTHONPATH': path})
    said, kibibytes = run.stdout.splitlines()[-2:]
    return said, int(kibibytes) / 1024


@pytest.mark.skipif(not STATUS.is_file(), reason='needs the memory figures of Linux')
def test_bombs_are_refused_before_memory_is_taken(tmp_path):
    rows = zlib.compress(bytes(4001 * 4000))
    said, taken = memory_taken(png_of(4000, 4000, rows), tmp_path / 'image')
    assert (said, taken > 40) == ('(4000, 4000, 3)', True), 'what is taken must be seen'
    for bomb in (png_of(16384, 16384, zeros(260)), jpeg_with_scans(16000, 16000, 1, True)):
        said, taken = memory_taken(bomb, tmp_path / 'image')
        assert said.startswith('data is a ')
        assert taken < 40, said
