"""Short rainy clips, rendered on the CPU, for networks that also use the previous frame.

Rain is new in each frame; the scene moves as a moving camera or vehicle sees it, with parallax
and crossing objects. Frames are cut from single photographs, or taken from dry videos.
"""

from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch

from derain_ros.images.memory import find_motion, make_flow, shrink
from derain_ros.rain import render, sample_camera
from derain_ros.training.dataset import RainyCrops
from derain_ros.training.dry_pictures import sample_exposure

FRAMES = 4
"""Frames of a clip; in the last ones, the previous result itself used an earlier one."""

MARGIN = 64
"""Pixels around a crop into which frames cut from one photograph may move."""

_VIDEO_WIDTH = 640


@dataclass(frozen=True)
class Motion:
    """How a scene moves from frame to frame.

    ``shift``: pixels, x and y. ``spread``: 2×2, pixels per pixel from the centre. ``parallax``:
    pixels, x and y, of the nearest pixels. ``depth``: nearness of each pixel, float32, H×W, 0–1.
    """

    shift: np.ndarray
    spread: np.ndarray
    parallax: np.ndarray
    depth: np.ndarray

    def places(self, time: float) -> np.ndarray:
        """Return where each pixel of frame ``time`` comes from, pixels, float32, H×W×2."""
        height, width = self.depth.shape
        columns, rows = np.meshgrid(np.arange(width) - width / 2, np.arange(height) - height / 2)
        centred = np.stack([columns, rows], -1)
        moved = self.shift + centred @ self.spread.T + self.depth[..., None] * self.parallax
        moved = np.clip(moved, -MARGIN / 2, MARGIN / 2)
        places = centred + (width / 2, height / 2) + time * moved + MARGIN
        return places.astype(np.float32)


def sample_motion(size: int, rng: np.random.Generator) -> Motion:
    """Draw a motion: of a camera that stands still, pans, or drives past near and far objects."""
    def direction(low: float, high: float) -> np.ndarray:
        angle = rng.uniform(0, 2 * np.pi)
        length = np.exp(rng.uniform(np.log(low), np.log(high)))
        return length * np.array([np.cos(angle), 0.6 * np.sin(angle)])

    kind = rng.random()
    shift, spread, parallax = np.zeros(2), np.zeros((2, 2)), np.zeros(2)
    if kind < 0.25:
        shift = 0.3 * rng.standard_normal(2) * (rng.random() < 0.5)
    else:
        shift = direction(0.3, 28 if kind < 0.5 else 10)
    if kind >= 0.5:
        zoom, turn = 0.03 * rng.standard_normal(), 0.01 * rng.standard_normal()
        spread = np.array([[zoom, -turn], [turn, zoom]]) + 0.005 * rng.standard_normal((2, 2))
        parallax = direction(0.5, 14)
    # Nearer towards the bottom of the picture, and objects in front of the background.
    low = rng.standard_normal((1, 1, 5, 5)).astype(np.float32)
    smooth = cv2.resize(low[0, 0], (size, size), interpolation=cv2.INTER_CUBIC)
    ramp = np.linspace(-1, 1, size, dtype=np.float32)[:, None] * rng.uniform(0, 1.5)
    depth = np.clip(0.5 + 0.4 * ramp + 0.1 * smooth, 0, 1)
    if rng.random() < 0.5:
        depth = np.where(smooth > rng.uniform(0.2, 1.2), 1, depth)
    return Motion(shift, spread, parallax, depth.astype(np.float32))


@dataclass(eq=False)
class RainyClips(RainyCrops):
    """Renders clips; like :class:`RainyCrops` except for the following.

    Batches are tensors rainy, dry (uint8, N×T×3×H×W, BGR), streaks (float32, N×T×1×H×W, 0–1) and
    flow (float32, N×(T−1)×2×H/4×W/4, as :func:`derain_ros.network.second_look.warp` takes it),
    with T = :data:`FRAMES`.

    ``videos``: dry videos to cut frames from, instead of photographs, in two of five clips; the
    last quarter of each is held out for evaluation.
    """

    videos: list[Path] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._videos = [read_video(path) for path in self.videos]
        for path, video in zip(self.videos, self._videos, strict=True):
            if min(video[0].shape[:2]) < self.size:
                raise FileNotFoundError(
                    f'{path}: its frames, {_VIDEO_WIDTH} pixels wide, are smaller than a crop; '
                    'leave it out, or set a smaller size')
        self._flow = None

    def render(self, index: int) -> tuple[torch.Tensor, ...]:
        """Render batch ``index``; see the class for shapes."""
        rng = np.random.default_rng((self.seed, index))
        # Made on first use, as it cannot be passed to another process.
        self._flow = self._flow or make_flow()
        clips = [self._clip(rng) for _ in range(self.batch)]
        rainy, dry, streaks, flow = (np.stack(planes) for planes in zip(*clips, strict=True))
        images = [torch.from_numpy(p.transpose(0, 1, 4, 2, 3).copy()) for p in (rainy, dry)]
        return (*images, torch.from_numpy(streaks[:, :, None]),
                torch.from_numpy(flow.transpose(0, 1, 4, 2, 3).copy()))

    def _clip(self, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
        filmed = bool(self._videos) and rng.random() < 0.4
        frames = self._film(rng) if filmed else self._move(rng)
        if rng.random() < 0.03:
            frames = frames[:1] + self._move(rng)[1:]
        if rng.random() < 0.04:
            frames = [frames[0], frames[0], *frames[2:]]
        if rng.random() < 0.15:
            gains = np.exp(0.06 * rng.standard_normal(FRAMES))
            frames = [cv2.convertScaleAbs(f, alpha=g) for f, g in zip(frames, gains, strict=True)]
        shower = self._shower(rng)
        camera = sample_camera(rng) if self.camera else None
        rainy, dry, streaks = [], [], []
        for frame in frames:
            wet, layer = render(frame, shower, rng)
            if camera:
                grain = int(rng.integers(2**32))
                wet, frame = camera.capture(wet, grain), camera.capture(frame, grain)
            rainy.append(wet)
            dry.append(frame)
            streaks.append(layer)
        # In use, motion is found between the last result and the frame.
        flow = [find_motion(self._flow, shrink(before), shrink(now)).flow
                for before, now in zip(dry[:-1], rainy[1:], strict=True)]
        return np.stack(rainy), np.stack(dry), np.stack(streaks), np.stack(flow)

    def _move(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Cut a clip from one photograph."""
        size = self.size
        scene = self._scene(size + 2 * MARGIN, rng)
        motion = sample_motion(size, rng)
        first = rng.uniform(-1, -0.9)
        frames = [cv2.remap(scene, motion.places(first + index), None, cv2.INTER_CUBIC,
                            borderMode=cv2.BORDER_REFLECT_101) for index in range(FRAMES)]
        for _ in range(rng.integers(1, 4) if rng.random() < 0.4 else 0):
            self._cross(frames, rng)
        return frames

    def _cross(self, frames: list[np.ndarray], rng: np.random.Generator) -> None:
        """Let an object, bright or dark, cross the scene, in place."""
        size = self.size
        height, width = (int(rng.uniform(8, 0.6 * size)) for _ in range(2))
        if rng.random() < 0.3:
            width = max(3, width // 8)
        thing = self.pictures.crop(size, rng)[:height, :width] * rng.uniform(0.1, 1.4)
        shape = np.zeros((height, width), np.float32)
        if rng.random() < 0.5:
            shape[:] = 1
        else:
            cv2.ellipse(shape, (width // 2, height // 2), (width // 2, height // 2), 0, 0, 360, 1,
                        -1)
        centre = rng.uniform(0, size, 2)
        velocity = rng.uniform(-1, 1, 2) * np.exp(rng.uniform(np.log(0.5), np.log(25)))
        for index, frame in enumerate(frames):
            x, y = centre + (index - 1) * velocity - (width / 2, height / 2)
            shift = np.float32([[1, 0, x], [0, 1, y]])
            cover = cv2.warpAffine(shape, shift, (size, size))[..., None]
            moved = cv2.warpAffine(thing.astype(np.float32), shift, (size, size),
                                   borderMode=cv2.BORDER_REPLICATE)
            frame[:] = np.clip(frame + cover * (moved - frame), 0, 255)

    def _film(self, rng: np.random.Generator) -> list[np.ndarray]:
        """Take a clip from a video, sometimes skipping frames."""
        video = self._videos[rng.integers(len(self._videos))]
        stride = int(rng.choice((1, 1, 2, 3)))
        first = rng.integers(len(video) - (FRAMES - 1) * stride)
        frames = video[first : first + FRAMES * stride : stride]
        size = self.size
        top, left = (int(rng.integers(side - size + 1)) for side in frames[0].shape[:2])
        mirror = -1 if rng.random() < 0.5 else 1
        gain = sample_exposure(rng)
        return [np.clip(f[top : top + size, left : left + size][:, ::mirror] * gain, 0, 255)
                .astype(np.uint8) for f in frames]


def read_video(path: Path) -> list[np.ndarray]:
    """Read the first three quarters of a dry video, uint8, H×640×3, BGR.

    Raises FileNotFoundError if it cannot be read or is too short.
    """
    video, frames = cv2.VideoCapture(str(path)), []
    while (read := video.read())[0]:
        height, width = read[1].shape[:2]
        size = (_VIDEO_WIDTH, round(height * _VIDEO_WIDTH / width))
        frames.append(cv2.resize(read[1], size, interpolation=cv2.INTER_AREA))
    frames = frames[: len(frames) * 3 // 4]
    if len(frames) < 3 * FRAMES:
        raise FileNotFoundError(f'{path}: not a readable video, or it has too few frames; leave '
                                'it out')
    return frames
