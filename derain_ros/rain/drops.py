"""Rain as a moving camera sees it: a volume of drops, each traced through the exposure.

A drop at (X, Y, Z) in the camera's axes (REP 103, optical frame: right, down, ahead) that
falls at v_t in front of a camera moving ahead at v has, at (x, y) in the image, the velocity
(x·v, f·v_t + y·v)/Z: streaks radiate from the focus of expansion, near ones are long, wide
and out of focus, far ones short and thin. The opacity of a drop at a pixel is the
share of the exposure during which it covers the pixel, so that short exposures make short,
strong dashes and long ones make long, faint streaks (Garg and Nayar, "Vision and Rain", IJCV
75(1), 2007). Only the drops themselves are random.
"""

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

MOUNTS = {'front': 0.0, 'left': 90.0, 'rear': 180.0, 'right': -90.0}
"""Heading of a camera by its place on the vehicle, degrees to the left of straight ahead."""

BLURS = (0.45, 0.75, 1.2, 2.0, 3.2, 5.2, 8.5)
"""Standard deviations of the blur, pixels; each drop takes the nearest."""

SPLAT_VARIANCE = 1 / 6
"""Variance that drawing a point bilinearly adds, square pixels, mean over its positions."""

_SMALLEST, _LARGEST = 0.8, 6.0
_MOST_DROPS = 150_000
_MOST_POINTS = 400
_FAINTEST = 0.003


@dataclass(frozen=True)
class DropVolume:
    """Drops in front of a camera, and what the camera does during the exposure.

    The rain has a ``rate`` in mm/h. The camera has a ``focal_length`` in pixels and the ``offset``
    of the middle of the picture from the principal point, pixels right and down; it exposes each
    row for ``exposure`` seconds, ``readout`` seconds after the one before (rolling shutter), 0 for
    a global shutter. The vehicle drives ahead at ``speed``, m/s, and turns at ``yaw_rate``,
    rad/s, positive to the left; ``mount`` is one of :data:`MOUNTS`. ``wind`` is the velocity of
    the air, m/s to the right and ahead of the camera. ``aperture`` is the diameter of the entrance
    pupil, 0 for no defocus, and ``focus`` the distance in focus, metres.

    ``opacity`` is a factor on the opacity of a drop; 1 is physical, more makes faint rain visible.
    Drops nearer than a metre are ``near_gain`` times as frequent as elsewhere; ``nearest`` and
    ``farthest`` are the range of distances, metres, None being as far as drops are visible.
    ``brightness`` is the radiance of a drop relative to the light that falls on it, mean and
    spread; ``beads`` the depth of the modulation by oscillating drops, 0–1; ``ground`` the share
    of a drop's light that comes from the surrounding picture, 0–1.
    """

    rate: float
    focal_length: float
    offset: tuple[float, float] = (0.0, 0.0)
    exposure: float = 1 / 250
    readout: float = 0.0
    speed: float = 0.0
    mount: str = 'front'
    yaw_rate: float = 0.0
    wind: tuple[float, float] = (0.0, 0.0)
    aperture: float = 0.002
    focus: float = 10.0
    opacity: float = 1.0
    near_gain: float = 1.0
    nearest: float = 0.15
    farthest: float | None = None
    brightness: tuple[float, float] = (1.0, 0.2)
    beads: float = 0.0
    ground: float = 0.3


class Drops(NamedTuple):
    """Drops of one exposure; float32 arrays with one value per drop.

    ``start``, ``velocity``: position of a drop when its exposure begins, metres, and velocity
    relative to the camera, m/s; 3×N: right, down, ahead. ``diameter``: metres. ``duration``: of
    its exposure, seconds. ``radiance``: relative to the light that falls on it. ``frequency``,
    ``phase``: of its oscillation, rad/s and rad.
    """

    start: np.ndarray
    velocity: np.ndarray
    diameter: np.ndarray
    duration: np.ndarray
    radiance: np.ndarray
    frequency: np.ndarray
    phase: np.ndarray


class Points(NamedTuple):
    """Points along the paths of drops; one value per point, float32 (``blur``: int64).

    ``column``, ``row``: in the picture, pixels. ``mass``: area that the drop hides there, square
    pixels, times the share of the exposure. ``radiance``: relative to the light that falls on the
    drop. ``blur``: index into :data:`BLURS`.
    """

    column: np.ndarray
    row: np.ndarray
    mass: np.ndarray
    radiance: np.ndarray
    blur: np.ndarray


def terminal_speed(diameter: np.ndarray | float) -> np.ndarray | float:
    """Speed at which a drop falls through still air, m/s.

    v = 9.65 − 10.3·exp(−0.6·d) (Atlas, Srivastava and Sekhon, "Doppler radar
    characteristics of precipitation at vertical incidence", Rev. Geophys. 11(1),
    1973), a fit for drops of 0.6 to 5.8 mm.

    ``diameter``: millimetres.
    """
    return 9.65 - 10.3 * np.exp(-0.6 * diameter)


def drops_per_cubic_metre(rate: float) -> float:
    """Count drops of at least 0.8 mm in a cubic metre of air.

    N(D) = 8000·exp(−4.1·R^−0.21·D) per m³ and mm (Marshall and Palmer, "The distribution
    of raindrops with size", J. Meteorology 5, 1948), integrated.

    ``rate``: rain rate R, mm/h; 0 gives 0.
    """
    if rate <= 0:
        return 0.0
    slope = 4.1 * rate**-0.21
    return 8000 / slope * float(np.exp(-slope * _SMALLEST))


def relative_velocity(volume: DropVolume, fall: np.ndarray) -> np.ndarray:
    """Velocity of drops relative to the camera, without its rotation, m/s.

    ``volume``: how the camera moves. ``fall``: terminal speeds, m/s, N. Returns 3×N: right, down,
    ahead.
    """
    heading = np.deg2rad(MOUNTS[volume.mount])
    # A camera that looks to the left moves to its own right as the vehicle drives on.
    right, ahead = volume.speed * np.sin(heading), volume.speed * np.cos(heading)
    side, along = volume.wind
    return np.stack([np.full_like(fall, side - right), fall, np.full_like(fall, along - ahead)])


def sample_drops(volume: DropVolume, height: int, width: int, rng: np.random.Generator) -> Drops:
    """Draw the drops that an exposure may see, without those too small or far to be visible."""
    focal, exposure = volume.focal_length, volume.exposure
    column, row = width / 2 - volume.offset[0], height / 2 - volume.offset[1]
    density = drops_per_cubic_metre(volume.rate)
    # A drop of 2 mm farther away than this is below 0.15 pixels.
    farthest = volume.farthest or min(20.0, focal * 0.002 / 0.15)
    seen = density * width * height / focal**2 / 3
    if seen * farthest**3 > _MOST_DROPS:
        farthest = (_MOST_DROPS / seen) ** (1 / 3)
    farthest = max(farthest, 2 * volume.nearest)
    count = max(2, round(np.log(farthest / volume.nearest) / 0.45) + 1)
    edges = np.geomspace(volume.nearest, farthest, count)
    fall = terminal_speed(3.0)
    away = np.abs(relative_velocity(volume, np.array([fall]))[:, 0])
    reach = np.array([max(abs(column), abs(width - column)), max(abs(row), abs(height - row))])
    parts = []
    for near, far in itertools.pairwise(edges):
        # For streaks whose middle lies outside the picture, but which reach into it.
        turn = abs(volume.yaw_rate) * focal
        blur = focal * (0.003 / near + volume.aperture * abs(1 / near - 1 / volume.focus))
        margin = np.minimum(
            300, exposure / 2 * ((focal * away[:2] + reach * away[2]) / near + turn) + blur)
        gain = volume.near_gain if near < 1 else 1.0
        area = (width + 2 * margin[0]) * (height + 2 * margin[1])
        mean = gain * density * area * (far**3 - near**3) / (3 * focal**2)
        number = rng.poisson(mean)
        distance = np.cbrt(rng.uniform(near**3, far**3, number))
        x = rng.uniform(-margin[0], width + margin[0], number) - column
        y = rng.uniform(-margin[1], height + margin[1], number) - row
        parts.append(np.stack([x / focal * distance, y / focal * distance, distance]))
    middle = np.concatenate(parts, 1)
    number = middle.shape[1]
    slope = 4.1 * max(volume.rate, 1e-3) ** -0.21
    diameter = np.minimum(_LARGEST, _SMALLEST + rng.exponential(1 / slope, number))
    velocity = relative_velocity(volume, terminal_speed(diameter))
    if volume.yaw_rate:
        velocity = velocity + volume.yaw_rate * np.stack([middle[2], np.zeros(number), -middle[0]])
    duration = np.full(number, exposure)
    if volume.readout:
        # The shutter follows a drop that falls with it: t − readout·row(t) stays in the exposure.
        down = (focal * velocity[1] - (middle[1] / middle[2]) * focal * velocity[2]) / middle[2]
        duration /= np.clip(1 - volume.readout * down, 0.5, 2)
    start = middle - velocity * duration / 2
    mean, spread = volume.brightness
    radiance = mean * np.exp(spread * rng.standard_normal(number))
    # Lowest mode of an oscillating drop of radius r: ω² = 8·γ/(ρ·r³), water in air.
    frequency = np.sqrt(8 * 0.0728 / (1000 * (diameter * 5e-4) ** 3))
    phase = rng.uniform(0, 2 * np.pi, number)
    return Drops(*(np.asarray(x, np.float32) for x in (
        start, velocity, diameter * 1e-3, duration, radiance, frequency, phase)))


def trace(drops: Drops, volume: DropVolume, height: int, width: int) -> Points:
    """Trace :func:`sample_drops` through the exposure; returns points at equal steps of time."""
    focal = np.float32(volume.focal_length)
    column, row = width / 2 - volume.offset[0], height / 2 - volume.offset[1]
    centre = np.array([[column], [row]], np.float32)
    end = drops.start + drops.velocity * drops.duration
    ahead = np.minimum(drops.start[2], end[2]) > 0.05
    middle = (drops.start[2] + end[2]) / 2
    depth = np.maximum(middle, 0.05)
    first, last = (
        focal * place[:2] / np.maximum(place[2], 0.05) + centre for place in (drops.start, end))
    wide = focal * drops.diameter / depth
    defocus = focal * np.float32(volume.aperture) * np.abs(1 / depth - 1 / volume.focus)
    # A disc of diameter d has the standard deviation d/4.
    sigma = np.sqrt((wide**2 + defocus**2) / 16 + 0.4**2)
    steps = np.log(np.array(BLURS))
    kind = np.clip(np.rint(np.interp(
        np.log(sigma), steps, np.arange(len(BLURS)))), 0, len(BLURS) - 1).astype(np.int64)
    low, high = np.minimum(first, last) - 3 * sigma, np.maximum(first, last) + 3 * sigma
    size = np.array([[width], [height]], np.float32)
    seen = ahead & ((high > 0) & (low < size)).all(0)
    stride = np.maximum(0.7, 0.8 * sigma)
    length = np.hypot(*(last - first))
    # Drops too faint to show in any pixel are left out.
    plain = volume.opacity * wide**2 / ((length + wide) * np.maximum(wide, sigma)) > _FAINTEST
    seen &= plain
    number = np.clip(np.ceil(length / stride) + 1, 1, _MOST_POINTS).astype(np.int64) * seen
    which = np.repeat(np.arange(len(number)), number)
    place = np.arange(len(which)) - np.repeat(np.cumsum(number) - number, number)
    share = ((place + 0.5) / number[which]).astype(np.float32)
    time = share * drops.duration[which]
    x, y, z = drops.start[:, which] + drops.velocity[:, which] * time
    z = np.maximum(z, 0.05)
    mass = (np.pi / 4) * (focal * drops.diameter[which] / z) ** 2 / number[which]
    mass *= np.float32(volume.opacity)
    beads = 1 + volume.beads * np.cos(drops.frequency[which] * time + drops.phase[which])
    return Points(
        focal * x / z + np.float32(column), focal * y / z + np.float32(row),
        mass.astype(np.float32), drops.radiance[which] * beads, kind[which])


def splat(points: Points, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Draw points, each as a blurred dot that covers the scene by its mass.

    ``points``: from :func:`trace`. ``height``, ``width``: size of the picture, pixels. Returns
    ``cover``, ``radiance`` (ndarray): share of the scene that drops hide, 0–1, and the mean
    radiance of those that hide it, float32, H×W.
    """
    cover = np.zeros((height, width), np.float32)
    glow = np.zeros_like(cover)
    for kind, sigma in enumerate(BLURS):
        mine = points.blur == kind
        if not mine.any():
            continue
        edge = int(np.ceil(3 * sigma)) + 1
        tall, broad = height + 2 * edge, width + 2 * edge
        x, y = points.column[mine] + (edge - 0.5), points.row[mine] + (edge - 0.5)
        left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
        inside = (left >= 0) & (left < broad - 1) & (top >= 0) & (top < tall - 1)
        left, top = left[inside], top[inside]
        right, down = x[inside] - left, y[inside] - top
        mass, radiance = points.mass[mine][inside], points.radiance[mine][inside]
        index = np.concatenate([(top + j) * broad + left + i for j in (0, 1) for i in (0, 1)])
        weight = np.concatenate([
            mass * a * b for a in (1 - down, down) for b in (1 - right, right)])
        planes = np.stack([
            np.bincount(index, w, tall * broad).reshape(tall, broad).astype(np.float32)
            for w in (weight, weight * np.tile(radiance, 4))], 2)
        blur = np.sqrt(sigma**2 - SPLAT_VARIANCE)
        planes = cv2.GaussianBlur(planes, (0, 0), blur)[edge:-edge, edge:-edge]
        cover += planes[..., 0]
        glow += planes[..., 1]
    # Drops that cover the same pixel also hide each other.
    return 1 - np.exp(-cover), glow / np.maximum(cover, 1e-6)


def draw_drops(
    volume: DropVolume, height: int, width: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the drops of one exposure; see :func:`sample_drops` and :func:`splat`."""
    drops = sample_drops(volume, height, width, rng)
    return splat(trace(drops, volume, height, width), height, width)


def refract(
    image: np.ndarray, cover: np.ndarray, radiance: np.ndarray, light: np.ndarray, ground: float
) -> np.ndarray:
    """Blend drops over a scene: (1 − α)·B + α·E, with E the light that the drop refracts.

    A drop refracts light from nearly all directions (Garg and Nayar 2007): E mixes the light
    of the sky with the wide surroundings of the pixel.

    ``image``: scene B, uint8, H×W×3, BGR. ``cover``, ``radiance``: α and the factor of E, from
    :func:`splat`. ``light``: of the sky, B, G, R, 0–1, float32. ``ground``: share of the
    surroundings in E, 0–1. Returns uint8, H×W×3, BGR.
    """
    scene = image.astype(np.float32) / 255
    small = cv2.resize(scene, (8, 8), interpolation=cv2.INTER_AREA)
    around = cv2.resize(cv2.blur(small, (3, 3)), scene.shape[1::-1])
    seen = radiance[..., None] * ((1 - ground) * light + ground * around)
    alpha = cover[..., None]
    rainy = scene + alpha * (seen - scene)
    return (np.clip(rainy, 0, 1) * 255 + 0.5).astype(np.uint8)
