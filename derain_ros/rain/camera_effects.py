"""Camera effects applied after the rain: tone curve, noise, lost resolution, compression."""

from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class CameraEffects:
    """Effects of a camera on a picture.

    ``gamma`` is the exponent of the tone curve, 1 for none; above 1 darkens. ``noise`` is the
    standard deviation at white, in levels of 255, of noise that grows with the square root of the
    brightness, as shot noise does. ``jpeg`` is the quality of JPEG compression, 1–100, or None for
    no compression, and ``resolution`` the true resolution of the camera or its video, as a share
    of the width and height, 0–1.
    """

    gamma: float = 1.0
    noise: float = 0.0
    jpeg: int | None = None
    resolution: float = 1.0

    def capture(self, image: np.ndarray, seed: int) -> np.ndarray:
        """Apply the effects.

        ``image``: uint8, H×W×3, BGR. ``seed``: of the noise. A rainy picture and its truth get
        the same noise if given the same seed, so that a network learns to leave noise alone.
        Returns uint8, H×W×3, BGR.
        """
        if self.gamma != 1:
            levels = 255 * (np.arange(256) / 255) ** self.gamma
            image = cv2.LUT(image, np.rint(levels).astype(np.uint8))
        if self.noise > 0:
            grain = np.random.default_rng(seed).standard_normal(image.shape, np.float32)
            spread = self.noise * np.sqrt(image.astype(np.float32) / 255)
            image = np.clip(image + spread * grain + 0.5, 0, 255).astype(np.uint8)
        if self.resolution < 1:
            height, width = image.shape[:2]
            small = tuple(max(1, round(self.resolution * side)) for side in (width, height))
            image = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
        if self.jpeg is not None:
            _, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, self.jpeg])
            image = cv2.imdecode(data, cv2.IMREAD_COLOR)
        return image


def sample_camera(rng: np.random.Generator) -> CameraEffects:
    """Draw a camera: half have no noise, a quarter are upscaled, two fifths compress."""
    gamma = float(np.exp(0.2 * rng.standard_normal()))
    noise = max(0.0, float(rng.uniform(-5, 5)))
    resolution = float(rng.uniform(0.35, 1)) if rng.random() < 0.25 else 1.0
    jpeg = round(100 - 75 * float(rng.random()) ** 1.5) if rng.random() < 0.4 else None
    return CameraEffects(gamma, noise, jpeg, resolution)
