"""Opens the data of a training run as batches."""

from collections.abc import Iterator
from dataclasses import replace

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from derain_ros.network.dual_stage import VARIANTS
from derain_ros.training.clips import MARGIN, RainyClips
from derain_ros.training.config import TrainingConfig
from derain_ros.training.dataset import RainyCrops
from derain_ros.training.dry_pictures import DryPictures
from derain_ros.training.ranks import Ranks
from derain_ros.training.stopping import leave_signals_to_parent

Batch = tuple[Tensor, Tensor, Tensor]
"""Rainy and dry, uint8 N×3×H×W BGR, and streaks, float32 N×1×H×W 0–1."""

PREFETCHED = 4
"""Batches that each process renders ahead."""

# An index that no step reaches, so that samples are not trained on in the same run.
_SAMPLES_INDEX = 2**40


def renders_on_device(config: TrainingConfig, device: torch.device) -> bool:
    """Return whether rain is rendered where the network runs."""
    return config.render == 'device' or (config.render == 'auto' and device.type == 'cuda')


def batches(
    config: TrainingConfig, device: torch.device, ranks: Ranks, step: int
) -> tuple[Batch, Iterator[Batch]]:
    """Open the data of a run.

    ``config``: what to render, and where. ``device``: where batches are wanted. ``ranks``: which
    of the batches this process takes, see :mod:`derain_ros.training.ranks`. ``step``: step at
    which the run resumes. Returns ``samples`` (Batch): the same in every session of a run, for
    sample grids; ``config.samples`` crops, at least one. Returns ``batches`` (iterator of Batch):
    those of this process, ``config.accumulate`` to a step, on ``device``. Raises
    FileNotFoundError, PackError: the data cannot be used.
    """
    clips = bool(VARIANTS[config.model].past)
    pictures = DryPictures(config.data, config.size + (2 * MARGIN if clips else 0))
    kind, options = RainyCrops, {}
    if clips:
        videos = sorted(config.videos.glob('*.mp4')) if config.videos else []
        if config.videos and not videos:
            raise FileNotFoundError(f'videos: {config.videos}: no MP4 video in this folder')
        kind, options = RainyClips, {'videos': videos}
    elif renders_on_device(config, device):
        from derain_ros.training.device_crops import DeviceCrops

        kind, options = DeviceCrops, {'device': device}
    rendered, used = divmod(step * config.accumulate, config.echo)
    crops = kind(
        pictures, batch=config.batch, size=config.size, dry_share=config.dry_share,
        seed=config.seed, first=rendered * ranks.world + ranks.rank, stride=ranks.world,
        intensity=(config.intensity_low, config.intensity_high), skew=config.intensity_skew,
        pattern_share=config.pattern_share, blur_share=config.blur_share, camera=config.camera,
        **options)
    few = replace(crops, batch=max(1, config.samples), dry_share=0.0)
    samples = tuple(plane.to(device) for plane in few.render(_SAMPLES_INDEX))
    if not issubclass(kind, RainyCrops):
        return samples, _echoed(iter(crops), config.echo, used)
    # OpenCV's thread pool does not survive the fork of the workers.
    cv2.setNumThreads(0)
    pinned = device.type == 'cuda'
    loaded = iter(DataLoader(
        crops, batch_size=None, num_workers=config.workers,
        prefetch_factor=PREFETCHED if config.workers else None, pin_memory=pinned,
        worker_init_fn=leave_signals_to_parent))
    if pinned:
        loaded = (tuple(p.to(device, non_blocking=True) for p in b) for b in loaded)
    return samples, _echoed(loaded, config.echo, used)


def _echoed(rendered: Iterator[Batch], echo: int, used: int) -> Iterator[Batch]:
    """Yield each batch ``echo`` times, every second time mirrored; the first ``used`` less."""
    for batch in rendered:
        for turn in range(used, echo):
            yield _mirrored(batch) if turn % 2 else batch
        used = 0


def _mirrored(batch: Batch) -> Batch:
    rainy, dry, streaks, *flow = (plane.flip(-1) for plane in batch)
    # The flow of a clip: motion to the right becomes motion to the left.
    return rainy, dry, streaks, *(each * each.new_tensor([-1, 1]).view(2, 1, 1) for each in flow)
