"""What every inference back end promises to its callers."""

import math
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MINIMUM_SIDE = 32
"""Shortest image height or width in pixels that the network accepts."""

KEPT_SIZES = 24
"""Most shapes of batches that an engine keeps ready, as each takes some 40 MB,"""
KEPT_PIXELS = 24_000_000
"""and most pixels of all of them together, as each takes some 130 bytes,"""
FEW_SIZES = 4
"""unless there are no more shapes than these."""

KERNELS = ('plain', 'fused', 'compiled')
"""Kernels of the torch engine: those of torch; on a GPU in f16 our own where they work and agree
(:mod:`derain_ros.engines.torch.torch_fused`, not run on a GPU yet); or those of ``torch.compile``,
which takes up to minutes for each frame size. The last two need a C compiler."""


def forget_shapes(kept: OrderedDict[tuple[int, ...], Any]) -> None:
    """Close and drop what was used longest ago for shapes, N×H×W×3, until the rest may stay."""
    while len(kept) > KEPT_SIZES or (len(kept) > FEW_SIZES and (
            sum(math.prod(each[:3]) for each in kept) > KEPT_PIXELS)):
        getattr(kept.popitem(last=False)[1], 'close', lambda: None)()


def ready_for(
    kept: OrderedDict[tuple[int, ...], Any], shape: tuple[int, ...], make: Callable[[], Any]
) -> Any:
    """Return what is kept ready for a shape, N×H×W×3; where there is nothing, it is made."""
    if shape not in kept:
        kept[shape] = make()
    kept.move_to_end(shape)
    forget_shapes(kept)
    return kept[shape]


class EngineError(RuntimeError):
    """An engine could not be created or could not run; the message says what to do."""


class Derained(NamedTuple):
    """One inference result.

    Attributes
    ----------
    image
        Restored frames, uint8, N×H×W×3, BGR, 0–255.
    rain_mask
        Rain probability per pixel, uint8, N×H×W, 0 = dry, 255 = rain.

    """

    image: np.ndarray
    rain_mask: np.ndarray


@dataclass(frozen=True)
class EngineInfo:
    """What an engine runs, in the words that logs and ``/diagnostics`` use.

    Attributes
    ----------
    engine
        Back end name, ``tensorrt``, ``openvino`` or ``torch``.
    device
        Device name as the back end reports it.
    model
        Model name from the zoo, or the path of the model file.
    precision
        Arithmetic used for inference, ``f32``, ``f16`` or ``bf16``.
    reason
        Why this back end and precision were taken, one sentence.

    """

    engine: str
    device: str
    model: str
    precision: str
    reason: str


@dataclass(frozen=True)
class EngineOptions:
    """What an engine may be told besides model and precision; each takes what concerns it.

    Attributes
    ----------
    cache_directory
        Where compiled engines are kept; None takes the default folder.
    cache_limit
        Bytes that they may take there.
    threads
        OpenVINO only: threads of an inference; 0 takes as many as there are cores.
    workspace
        Most bytes of scratch memory of the GPU; None leaves it to the back end.
    kernels
        torch on a GPU only, one of :data:`KERNELS`.

    """

    cache_directory: Path | None = None
    cache_limit: int = 4 << 30
    threads: int = 0
    workspace: int | None = None
    kernels: str = 'plain'


class Engine(ABC):
    """A derainer that turns uint8 frames into uint8 frames and masks.

    Engines are not thread-safe: one caller at a time.
    """

    info: EngineInfo

    preparation_limit: float = 60.0
    """Seconds after which the first inference of a shape, which compiles, counts as stuck."""

    activity: str = ''
    """What is being prepared and how far it is; empty while nothing is."""

    on_gpu: bool = False
    """It computes on an NVIDIA GPU, beyond copies to and from it."""

    @abstractmethod
    def infer(self, images: np.ndarray) -> Derained:
        """Derain a batch.

        Parameters
        ----------
        images
            uint8, N×H×W×3, BGR, 0–255, C-contiguous, H and W at least
            :data:`MINIMUM_SIDE`.

        Returns
        -------
        Derained
            Arrays that the caller owns: the next call does not overwrite them.

        Raises
        ------
        ValueError
            The array has another type, layout or size.
        EngineError
            The back end failed.

        """

    def warm_up(self, height: int, width: int, batch: int = 1) -> None:
        """Run once at a size, in pixels, so that the first real frame is not slow."""
        self.infer(np.zeros((batch, height, width, 3), np.uint8))

    def time_device(self, images: np.ndarray, runs: int) -> list[float]:
        """Time the network alone on the GPU, without the copies to and from it.

        Parameters
        ----------
        images
            As for :meth:`infer`.
        runs
            How often.

        Returns
        -------
        list of float
            Milliseconds between two events on the GPU around each run; empty where the engine
            cannot tell.

        """
        return []

    def cancel(self) -> None:
        """Abort a preparation that takes long; the one call that any thread may make."""
        return  # most engines have none

    @abstractmethod
    def close(self) -> None:
        """Release device and host memory; calling it twice is harmless."""


def check_images(images: np.ndarray) -> None:
    """Raise ValueError unless ``images`` is what :meth:`Engine.infer` asks for."""
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(
            f'expected uint8 images of shape (N, H, W, 3), '
            f'got {images.dtype} of shape {images.shape}'
        )
    if images.shape[0] < 1:
        raise ValueError('expected at least one image, got an empty batch')
    if min(images.shape[1:3]) < MINIMUM_SIDE:
        raise ValueError(
            f'images are {images.shape[2]}x{images.shape[1]} pixels; '
            f'the network needs at least {MINIMUM_SIDE} on each side'
        )
