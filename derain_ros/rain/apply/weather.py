"""The rain that a user requests, and how files and cameras share it."""

import hashlib
from dataclasses import dataclass, replace

from derain_ros.rain import CameraMotion, RainClip


@dataclass(frozen=True)
class Weather:
    """Arguments of :class:`derain_ros.rain.RainClip`; what is None is drawn from the seed.

    ``intensity`` is 0 for dry, 0.2 for light rain, 1 for a downpour; the same ``seed``, not
    negative, gives the same rain. ``wind`` is the lean of the rain, degrees from the vertical, −90
    to 90, positive towards the lower right; ``model`` is how streaks are blended:
    ``additive``, ``screen`` or ``occlusion``; ``mist`` is the share of the scene that mist
    replaces at the horizon, 0–1; ``camera`` is how the camera moves.
    """

    intensity: float = 0.5
    seed: int = 1
    wind: float | None = None
    model: str | None = None
    mist: float | None = None
    camera: CameraMotion | None = None

    def clip(self) -> RainClip:
        """Return the rain of one clip; raises ValueError where a value is out of its range."""
        return RainClip(**vars(self))

    def for_picture(self, name: str) -> 'Weather':
        """Return the weather of one picture among many; what is not given is drawn for it.

        Its seed derives from this seed and the name, so that a picture keeps its rain
        whatever other pictures there are.
        """
        key = f'{self.seed}/{name}'.encode(errors='surrogateescape')
        digest = hashlib.blake2b(key, digest_size=8).digest()
        return replace(self, seed=int.from_bytes(digest, 'big'))
