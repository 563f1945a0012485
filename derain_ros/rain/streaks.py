"""Layers of rain streaks.

A drop of diameter d falls at a few metres per second and is smeared by the exposure
into a streak: bright, as it refracts light from a wide cone of the sky, with straight
sides and soft ends (Garg and Nayar, "Vision and Rain", IJCV 75(1), 2007). Its length
on the sensor is speed × exposure × focal length / distance, its width
d × focal length / distance, so near rain is long, wide and sparse, far rain short,
thin and dense.
"""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class StreakLayer:
    """Streaks of about one distance.

    Attributes
    ----------
    density
        Streaks per square pixel times their length: the mean number of streaks
        that a row of one pixel's width meets, 0 for none, 0.1 for dense rain.
    length
        Mean length of a streak, pixels.
    width
        Width of a streak, pixels.
    angle
        Inclination from the vertical, degrees, positive leaning right at the foot.
    angle_spread
        Standard deviation of the inclination, degrees.
    brightness
        Range of peak brightness, 0–1.
    softness
        Standard deviation of the defocus, pixels.

    """

    density: float
    length: float
    width: float
    angle: float
    angle_spread: float = 1.0
    brightness: tuple[float, float] = (0.2, 0.8)
    softness: float = 0.5


def draw_streaks(
    height: int, width: int, layer: StreakLayer, rng: np.random.Generator
) -> np.ndarray:
    """Draw one layer of streaks.

    Parameters
    ----------
    height, width
        Size in pixels.
    layer
        What to draw.
    rng
        Source of all randomness; the same state gives the same layer.

    Returns
    -------
    ndarray
        Brightness that the streaks add, float32, H×W, 0–1.

    """
    margin = int(np.ceil(layer.length * 1.5 + 4 * layer.softness))
    area = (height + 2 * margin) * (width + 2 * margin)
    count = rng.poisson(layer.density * area / layer.length)
    canvas = np.zeros((height, width), np.uint8)
    lengths = layer.length * rng.uniform(0.5, 1.5, count)
    angles = np.deg2rad(layer.angle + layer.angle_spread * rng.standard_normal(count))
    middle = rng.uniform(-margin, [width + margin, height + margin], (count, 2))
    half = 0.5 * lengths[:, None] * np.stack([np.sin(angles), np.cos(angles)], 1)
    # cv2.line takes fixed-point coordinates; sixteenths of a pixel suffice.
    ends = np.rint(16 * np.stack([middle - half, middle + half], 1)).astype(np.int32)
    levels = 255 * rng.uniform(*layer.brightness, count)
    thickness = np.maximum(1, np.rint(layer.width * rng.uniform(0.7, 1.3, count)))
    fade = np.minimum(1.0, layer.width)
    # Bright streaks are drawn last: crossing streaks show the brighter one.
    for index in np.argsort(levels):
        start, end = ends[index].tolist()
        level = float(levels[index] * fade)
        cv2.line(canvas, start, end, level, int(thickness[index]), cv2.LINE_AA, 4)
    streaks = canvas.astype(np.float32) / 255
    streaks = _smear(streaks, layer.length / 4, layer.angle)
    if layer.softness > 0:
        streaks = cv2.GaussianBlur(streaks, (0, 0), layer.softness)
    return streaks


def scatter_streaks(
    height: int, width: int, layer: StreakLayer, rng: np.random.Generator
) -> np.ndarray:
    """Draw one layer of streaks by smearing specks, which varies their brightness.

    Overlapping specks add up, so that dense layers turn into veils with structure,
    as in heavy rain. Arguments and result are those of :func:`draw_streaks`;
    ``angle_spread`` is not used.
    """
    margin = int(np.ceil(layer.length))
    shape = (height + 2 * margin, width + 2 * margin)
    specks = np.zeros(shape, np.float32)
    count = rng.poisson(layer.density * shape[0] * shape[1] / layer.length)
    rows = rng.integers(0, shape[0], count)
    columns = rng.integers(0, shape[1], count)
    np.maximum.at(specks, (rows, columns), rng.uniform(*layer.brightness, count))
    if layer.width > 1:
        specks = _disc(specks, layer.width)
    # A speck smeared over n pixels keeps its brightness, not its sum.
    streaks = _smear(specks, layer.length, layer.angle) * layer.length / max(1.0, layer.width)
    if layer.softness > 0:
        streaks = cv2.GaussianBlur(streaks, (0, 0), layer.softness)
    return np.clip(streaks[margin:-margin, margin:-margin], 0, 1)


def _disc(specks: np.ndarray, diameter: float) -> np.ndarray:
    size = int(np.ceil(diameter)) | 1
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    return cv2.dilate(specks, kernel)


def _smear(image: np.ndarray, length: float, angle: float) -> np.ndarray:
    """Average along a line of ``length`` pixels, inclined by ``angle`` degrees."""
    size = int(np.ceil(length)) | 1
    if size <= 1:
        return image
    kernel = np.zeros((size, size), np.float32)
    centre = (size - 1) / 2
    half = length / 2
    dx, dy = half * np.sin(np.deg2rad(angle)), half * np.cos(np.deg2rad(angle))
    ends = np.rint(16 * np.array([[centre - dx, centre - dy], [centre + dx, centre + dy]]))
    cv2.line(kernel, *ends.astype(int).tolist(), 1.0, 1, cv2.LINE_AA, 4)
    return cv2.filter2D(image, -1, kernel / kernel.sum())
