"""Frames of one colour in every encoding that the node reads, made without the codec."""

import numpy as np

COLOUR = (40, 90, 170)
"""Blue, green, red."""

_GREY = 108  # 0.114 * 40 + 0.587 * 90 + 0.299 * 170 = 108.2
_Y, _U, _V = 109, 94, 167  # limited-range BT.601
_YUV = {'yuv422': [_U, _Y, _V, _Y], 'uyvy': [_U, _Y, _V, _Y], 'yuv422_yuy2': [_Y, _U, _Y, _V],
        'yuyv': [_Y, _U, _Y, _V]}
_PLANES = {'nv12': [_U, _V], 'nv21': [_V, _U]}

KEPT = {
    'bgr8': [40, 90, 170], 'rgb8': [170, 90, 40], 'bgra8': [40, 90, 170, 77],
    'rgba8': [170, 90, 40, 77], 'mono8': [_GREY], 'mono16': [_GREY, _GREY]}
"""Bytes of a pixel in encodings that an image keeps; all others become bgr8."""

BAYER = [f'bayer_{pattern}{bits}' for pattern in ('rggb', 'bggr', 'gbrg', 'grbg')
         for bits in (8, 16)]
ENCODINGS = [*KEPT, *BAYER, *_YUV, *_PLANES]


def paint(encoding: str, height: int, width: int, padding: int) -> np.ndarray:
    """Return the rows of a frame of :data:`COLOUR`, uint8, with idle bytes behind each."""
    if encoding in BAYER:
        letters = dict(zip('bgr', COLOUR, strict=True))
        low = [99] if encoding.endswith('16') else []
        pair = [[byte for letter in line for byte in (*low, letters[letter])]
                for line in (encoding[6:8], encoding[8:10])]
        rows = np.tile(np.uint8(pair), (height // 2, width // 2))
    elif encoding in _PLANES:
        rows = np.vstack([np.full((height, width), _Y, np.uint8),
                          np.tile(np.uint8(_PLANES[encoding]), (height // 2, width // 2))])
    elif encoding in _YUV:
        rows = np.tile(np.uint8(_YUV[encoding]), (height, width // 2))
    else:
        rows = np.tile(np.uint8([99, _GREY] if encoding == 'mono16' else KEPT[encoding]),
                       (height, width))
    return np.pad(rows, ((0, 0), (0, padding)), constant_values=200)
