"""Conversion of JPEG and PNG messages to BGR arrays, with checks before decompression."""

import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from derain_ros.images.message_fields import (
    MAXIMUM_SIDE,
    ImageFormatError,
    byte_view,
    refuse,
    shown,
)
from derain_ros.images.pixel_formats import (
    BAYER_PATTERNS,
    PIXEL_FORMATS,
    Bits,
    demosaic,
    eight_bits,
)

MAXIMUM_COMPRESSED_PIXELS = 64_000_000  # most pixels that a compressed image may decode to
MAXIMUM_COMPRESSED_BYTES = 128 * 2**20  # longest ``data`` of a compressed image, in bytes

MAXIMUM_SCANS = 64
"""Most scans of a JPEG, as each may cover all pixels; encoders write up to about 15."""

MAXIMUM_EXTRA_BYTES = 256 * 2**10
"""Most bytes of a PNG besides its pixels: texts, colour profile, frames of an animation."""

_JPEG_START = b'\xff\xd8\xff'
_JPEG_END = b'\xff\xd9'
_PNG_START = b'\x89PNG\r\n\x1a\n'
_PNG_END = b'IEND\xaeB`\x82'
_PNG_GREY = 0
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_MOST_CHUNKS = 65536
# Deflate expands data by at most 1032 times, so 4 MiB take a few seconds. The check doubles the
# decoding time, so images of usual length skip it.
_UNCHECKED_DEFLATE = 4 * 2**20

_START_OF_FRAME = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SEQUENTIAL = (0xC0, 0xC1)
_START_OF_SCAN = 0xDA
_FIRST_ARITHMETIC = 0xC8
# A Huffman code has at least one bit, and each block of 8x8 pixels has at least one code.
_MOST_PIXELS_PER_BYTE = 8 * 64
_SCAN_MARKER = b'\xff\xda'
_WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD8)}
_MOST_MARKERS = 4096

_SAMPLES = re.compile(r'(8|16|32|64)[USF]C\d+')
"""Encodings that give a sample type but no colours, such as those of depth images."""

_CHECK_LINK = 'check the publisher and the link'


@dataclass(frozen=True)
class _Header:
    """What the header of the data says; the size is in pixels as stored, before rotation.

    ``grey`` means one channel, ``deep`` 16-bit samples; ``least_bytes`` is the fewest possible.
    """

    codec: str
    height: int
    width: int
    grey: bool
    least_bytes: int = 0
    deep: bool = False


def is_compressed_supported(format: str) -> bool:  # noqa: A002 - the field's name
    """Return whether a ``CompressedImage.format`` announces a JPEG or PNG of a camera.

    True for ``jpeg``, ``jpg`` and ``png``, also with the prefix ``image/``, for the empty string
    (the data decide) and for what image_transport writes, ``<encoding>; jpeg compressed
    <encoding>``. False for compressedDepth, for depth that is compressed like a colour image
    (``16UC1; png compressed``), and for video.
    """
    if not isinstance(format, str):
        return False
    first, separator, rest = format.partition(';')
    if separator and _SAMPLES.fullmatch(first.strip()) and first.strip() not in PIXEL_FORMATS:
        return False
    words = (rest if separator else first).lower().split()
    return not words or words[0].removeprefix('image/') in ('jpeg', 'jpg', 'png')


def decode_compressed(msg: Any, bits: Bits = 16, *, whole: bool = False) -> np.ndarray:
    """Read a JPEG or PNG ``sensor_msgs/CompressedImage`` to a new array, uint8, H×W×3, BGR.

    The data (any object with the buffer protocol) decide on the codec, so a JPEG announced as PNG
    is read. Bayer mosaics that were compressed unchanged (``bayer_rggb8; png compressed ``) are
    demosaiced. EXIF orientation is ignored, so the size is that of ``camera_info``. ``bits``
    applies to 16-bit PNGs, see :data:`derain_ros.images.pixel_formats.Bits`. ``whole`` refuses a
    JPEG in which the decoder notices damage, see :mod:`derain_ros.images.decoder_warnings`.

    Raises ImageFormatError for another format, damaged or truncated data, a side above
    :data:`MAXIMUM_SIDE`, more than :data:`MAXIMUM_COMPRESSED_PIXELS` pixels (checked before
    decoding, in the header), or data crafted to take long: see the other limits of this module.
    """
    if not is_compressed_supported(msg.format):
        refuse(
            'format', shown(msg.format),
            "'jpeg' or 'png', alone or as image_transport writes it",
            'subscribe to the compressed transport of a camera, not to depth or video')
    data = byte_view(msg)
    if len(data) > MAXIMUM_COMPRESSED_BYTES:
        refuse('data', f'{len(data)} bytes long', f'at most {MAXIMUM_COMPRESSED_BYTES}',
               'check the publisher')
    header = _read_header(bytes(data))
    if (
        not (0 < header.height <= MAXIMUM_SIDE and 0 < header.width <= MAXIMUM_SIDE)
        or header.height * header.width > MAXIMUM_COMPRESSED_PIXELS
    ):
        refuse(
            'data', f'a {header.codec} of {header.width}x{header.height} pixels',
            f'sides from 1 to {MAXIMUM_SIDE} and at most {MAXIMUM_COMPRESSED_PIXELS} pixels',
            'check the publisher')
    if len(data) < header.least_bytes:
        found = f'a JPEG of {header.width}x{header.height} pixels in {len(data)} bytes'
        refuse('data', found, 'at least a bit for each 8x8 pixels', _CHECK_LINK)
    encoding, _, target = (part.strip() for part in msg.format.partition(';'))
    mosaic = encoding.startswith('bayer_') and header.grey
    fewer = header.deep and bits != 16
    flags = cv2.IMREAD_IGNORE_ORIENTATION | (
        cv2.IMREAD_UNCHANGED if fewer else
        cv2.IMREAD_GRAYSCALE if mosaic else cv2.IMREAD_COLOR)
    decode = _imdecode
    if whole:
        from derain_ros.images.decoder_warnings import decode_noting_damage as decode
    image, damage = decode(np.frombuffer(data, np.uint8), flags)
    if damage:
        refuse('data', f'a JPEG damaged in the middle ({damage})', 'a whole one', _CHECK_LINK)
    if image is None or image.shape[:2] != (header.height, header.width):
        found = f'a damaged {header.codec} of {len(data)} bytes'
        refuse('data', found, 'a whole one', _CHECK_LINK)
    if fewer:
        image = eight_bits(image, bits)
        if not mosaic:
            image = (cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if image.ndim == 2
                     else np.ascontiguousarray(image[..., :3]))
    if mosaic:
        return _interpolate(image, encoding)
    if 'compressed rgb' in target:  # red and blue were swapped before compression
        return cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return image


def compressed_size(msg: Any) -> tuple[int, int]:
    """Return height and width in pixels, from the header of the data; raises ImageFormatError."""
    header = _read_header(bytes(byte_view(msg)))
    return header.height, header.width


def is_colour_jpeg(msg: Any) -> bool:
    """Return whether a message that :func:`decode_compressed` can read is a JPEG in colour."""
    header = _read_header(bytes(byte_view(msg)))
    return header.codec == 'JPEG' and not header.grey


def _interpolate(mosaic: np.ndarray, encoding: str) -> np.ndarray:
    pattern = encoding.removeprefix('bayer_').rstrip('0123456789')
    if pattern not in BAYER_PATTERNS or min(mosaic.shape) < 2:
        refuse(
            'format', f'{shown(encoding)} of {mosaic.shape[1]}x{mosaic.shape[0]} pixels',
            f'one of the patterns {", ".join(BAYER_PATTERNS)} and at least 2x2 pixels',
            'check the publisher')
    return np.ascontiguousarray(demosaic(mosaic, pattern))


def _imdecode(data: np.ndarray, flags: int) -> tuple[np.ndarray | None, None]:
    try:
        return cv2.imdecode(data, flags), None
    except cv2.error:
        return None, None


def _read_header(data: bytes) -> _Header:
    """Read size and channels, and check that the end marker is there."""
    try:
        if data.startswith(_JPEG_START):
            return _read_jpeg_header(data)
        if data.startswith(_PNG_START):
            return _read_png_header(data)
    except (struct.error, IndexError) as error:
        raise ImageFormatError(
            f'data is {len(data)} bytes that break off inside the header, expected a whole image; '
            f'{_CHECK_LINK}') from error
    raise ImageFormatError(
        f'data is {len(data)} bytes that start with {data[:8].hex(" ") or "nothing"}, expected a '
        'JPEG (ff d8 ff) or PNG (89 50 4e 47); set the publisher to jpeg or png')


def lacks_end(data: bytes) -> bool:
    """Return whether a file is a JPEG without its end, which the decoder may have made up."""
    if data.startswith(_JPEG_START):
        with suppress(struct.error, IndexError):
            *_, (marker, position) = _jpeg_markers(data)
            return marker == _START_OF_SCAN and data.rfind(_JPEG_END, position) < 0
    return False


def _jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield the markers with a length, up to the first scan, and the position of the length.

    Raises struct.error or IndexError if the data end before, or there are too many markers.
    """
    position = 2
    for _ in range(_MOST_MARKERS):
        if data[position] != 0xFF:
            return
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        position += 2
        if marker in _WITHOUT_LENGTH:
            continue
        (length,) = struct.unpack_from('>H', data, position)
        yield marker, position
        if marker == _START_OF_SCAN:
            return
        position += length
    raise IndexError


def _read_jpeg_header(data: bytes) -> _Header:
    header = None
    one_scan = False
    for marker, position in _jpeg_markers(data):
        if marker in _START_OF_FRAME:
            height, width, channels = struct.unpack_from('>HHB', data, position + 3)
            least = height * width // _MOST_PIXELS_PER_BYTE if marker < _FIRST_ARITHMETIC else 0
            header = _Header('JPEG', height, width, channels == 1, least)
            sequential = marker in _SEQUENTIAL
        elif marker == _START_OF_SCAN:
            # Inside a scan, ff is always followed by 00 or a restart number.
            if header is not None and data.rfind(_JPEG_END, position) < 0:
                found = f'a JPEG cut off at {len(data)} bytes'
                refuse('data', found, 'an end marker', _CHECK_LINK)
            one_scan = header is not None and sequential and data[position + 2] == channels
    if header is None:
        refuse('data', 'a JPEG without a readable frame header', 'a whole JPEG', _CHECK_LINK)
    # The start marker cannot occur inside a scan, so this counts every scan.
    scans = 1 if one_scan else 1 + data.count(_SCAN_MARKER, position)
    if scans > MAXIMUM_SCANS:
        refuse('data', f'a JPEG of {scans} scans', f'at most {MAXIMUM_SCANS}',
               'check the publisher')
    return header


def _read_png_header(data: bytes) -> _Header:
    length, kind, width, height, depth, colour = struct.unpack_from('>I4sIIBB', data, 8)
    if length != 13 or kind != b'IHDR':
        refuse('data', 'a PNG without an IHDR chunk', 'a whole PNG', _CHECK_LINK)
    if _PNG_END not in data[-65536:]:
        refuse('data', f'a PNG cut off at {len(data)} bytes', 'an end chunk', _CHECK_LINK)
    pixels, extra = [], 0
    for kind, start, end in _png_chunks(data):
        if kind == b'IDAT':
            pixels.append((start, end))
        elif kind != b'PLTE':
            extra += end - start + 12
    if extra > MAXIMUM_EXTRA_BYTES:
        refuse('data', f'a PNG with {extra} bytes beside its pixels',
               f'at most {MAXIMUM_EXTRA_BYTES}', 'set the publisher to write plain images')
    row = 1 + (width * depth * _PNG_CHANNELS.get(colour, 4) + 7) // 8
    # Interlaced images have more but shorter rows, and never twice as many bytes.
    _check_deflate(data, pixels, 2 * row * height)
    return _Header('PNG', height, width, colour == _PNG_GREY, deep=depth == 16)


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type of each chunk after IHDR, and the start and end of its content."""
    position = 33
    for _ in range(_MOST_CHUNKS):
        if position + 12 > len(data):
            return
        length, kind = struct.unpack_from('>I4s', data, position)
        if kind == b'IEND':
            return
        yield kind, position + 8, min(position + 8 + length, len(data))
        position += 12 + length
    refuse('data', f'a PNG of more than {_MOST_CHUNKS} chunks', 'fewer', 'check the publisher')


def _check_deflate(data: bytes, parts: list[tuple[int, int]], most: int) -> None:
    """Refuse a long deflate stream that expands to over ``most`` bytes: libpng expands it all."""
    if sum(end - start for start, end in parts) <= _UNCHECKED_DEFLATE:
        return
    stream, unfolded = zlib.decompressobj(), 0
    try:
        for start, end in parts:
            for at in range(start, end, 16384):
                unfolded += len(stream.decompress(data[at:min(at + 16384, end)]))
                if unfolded > most:
                    refuse('data', f'a PNG that unfolds to more than {most} bytes',
                           'no more than its size takes', 'check the publisher')
    except zlib.error:
        refuse('data', f'a damaged PNG of {len(data)} bytes', 'a whole one', _CHECK_LINK)
