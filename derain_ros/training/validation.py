"""Scores on pairs of rainy and dry pictures."""

from pathlib import Path

import cv2
import numpy as np
import torch

from derain_ros.evaluation.metrics import counted_psnr_y, ssim_y
from derain_ros.network.dual_stage import DualStageNetwork
from derain_ros.training.config import ConfigError


def score(network: DualStageNetwork, folder: Path) -> dict[str, float]:
    """Return mean PSNR and SSIM on the Y channel, of a network in evaluation mode on any device.

    ``folder`` holds ``clean/`` and folders of rainy pictures under the same file names; the clean
    pictures are scored too, as input and truth. Returns ``<folder>_psnr`` in dB and
    ``<folder>_ssim`` for each folder, in order. Raises FileNotFoundError: there are no clean
    pictures, or a rainy one is missing; ConfigError: a rainy picture is not of the size of its
    clean one, or too small.
    """
    truths = {path.name: _read(path) for path in sorted((folder / 'clean').iterdir())}
    if not truths:
        raise FileNotFoundError(f'{folder / "clean"}: no pictures')
    figures = {}
    for rainy in sorted(path for path in folder.iterdir() if path.is_dir()):
        pairs = [_score_pair(network, rainy / name, dry) for name, dry in truths.items()]
        psnr, ssim = (float(np.mean(values)) for values in zip(*pairs, strict=True))
        figures[f'{rainy.name}_psnr'] = round(psnr, 2)
        figures[f'{rainy.name}_ssim'] = round(ssim, 4)
    return figures


def _score_pair(network: DualStageNetwork, path: Path, dry: np.ndarray) -> tuple[float, float]:
    restored = _restore(network, _read(path))
    try:
        return counted_psnr_y(restored, dry), ssim_y(restored, dry)
    except ValueError as error:
        raise ConfigError(f'{path}: {error}') from error


def _read(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path))
    if picture is None:
        raise FileNotFoundError(f'{path}: no readable picture')
    return picture


@torch.no_grad()
def _restore(network: DualStageNetwork, image: np.ndarray) -> np.ndarray:
    """Restore one picture, uint8 H×W×3 BGR."""
    planes = torch.from_numpy(image.transpose(2, 0, 1)[None] / np.float32(255))
    restored = network(planes.to(next(network.parameters()).device)).restored.cpu()
    return (restored.clamp(0, 1) * 255)[0].permute(1, 2, 0).round().byte().numpy()
