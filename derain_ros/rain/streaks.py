"""Layers of rain streaks: bright, with straight sides and soft ends."""

import cv2
import numpy as np

from derain_ros.rain.shower import StreakLayer


def draw_streaks(
    height: int, width: int, layer: StreakLayer, rng: np.random.Generator
) -> np.ndarray:
    """Draw one layer of streaks, ``height`` × ``width`` pixels, reproducibly for a given ``rng``.

    Returns the brightness that the streaks add, float32, H×W, 0–1.
    """
    # Streaks whose middle lies outside may reach in: half of the longest, and its blur.
    above, beside = _reach(layer, 0.75 + 0.125)
    area = (height + 2 * above) * (width + 2 * beside)
    count = rng.poisson(layer.density * area / layer.length)
    canvas = np.zeros((height, width), np.uint8)
    lengths = layer.length * rng.uniform(0.5, 1.5, count)
    angles = np.deg2rad(layer.angle + layer.angle_spread * rng.standard_normal(count))
    middle = rng.uniform([-beside, -above], [width + beside, height + above], (count, 2))
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
    above, beside = _reach(layer, 0.5)
    shape = (height + 2 * above, width + 2 * beside)
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
    return np.clip(streaks[above : above + height, beside : beside + width], 0, 1)


def filter_streaks(
    height: int, width: int, layer: StreakLayer, rng: np.random.Generator
) -> np.ndarray:
    """Draw one layer of streaks by smearing noise and keeping its crests.

    Streaks have various lengths, beads and soft ends, as in rain where drops at
    many distances blend. Arguments and result are those of :func:`draw_streaks`;
    ``angle_spread`` is not used, and the brightest crests have the upper ``brightness``.
    """
    above, beside = _reach(layer, 0.5)
    shape = (height + 2 * above, width + 2 * beside)
    noise = rng.standard_normal(shape, np.float32)
    across = max(0.3, 0.4 * layer.width)
    noise = cv2.GaussianBlur(_smear(noise, layer.length, layer.angle), (0, 0), across)
    noise = noise[above : above + height, beside : beside + width]
    # Most of what lies above the crest line is too faint to count as covered.
    cover = float(np.clip(1.6 * layer.density * layer.width, 1e-3, 0.98))
    crest = float(np.quantile(noise, 1 - cover))
    steepness = rng.uniform(0.7, 2.5) / max(float(noise.std()), 1e-6)
    return np.clip((noise - crest) * steepness, 0, 1) * np.float32(layer.brightness[1])


def _reach(layer: StreakLayer, share: float) -> tuple[int, int]:
    """Rows and columns over which a ``share`` of a streak's length and its blur extend."""
    lean = np.deg2rad(min(80.0, abs(layer.angle) + 2 * layer.angle_spread))
    blur = layer.width + 4 * layer.softness
    length = share * layer.length
    return int(np.ceil(length + blur)), int(np.ceil(length * np.sin(lean) + blur))


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
