"""Pictures of what a network does with a few crops, side by side."""

import cv2
import numpy as np
import torch
from torch import Tensor

from derain_ros.network.dual_stage import Restoration

COLUMNS = ('rainy', 'coarse', 'restored', 'mask', 'truth')
"""What the columns of a grid show, from left to right."""

_HEADER, _GAP = 18, 2


def sample_grid(rainy: Tensor, output: Restoration, dry: Tensor) -> np.ndarray:
    """Lay samples out as rows, with the names of the columns above.

    Parameters
    ----------
    rainy, dry
        BGR, 0–1, N×3×H×W, on any device.
    output
        What the network made of ``rainy``.

    Returns
    -------
    ndarray
        uint8, BGR, (18 + N·(H+2))×(5·(W+2))×3.

    """
    mask = torch.sigmoid(output.mask_logits.float()).expand(-1, 3, -1, -1)
    columns = (rainy, output.coarse, output.restored, mask, dry)
    width = rainy.shape[3] + _GAP
    planes = torch.stack([column.detach().float().cpu() for column in columns], 1)
    planes = torch.nn.functional.pad(planes, (0, _GAP, 0, _GAP))
    # N×5×3×H×W to rows N·H, columns 5·W.
    grid = planes.permute(0, 3, 1, 4, 2).reshape(-1, len(COLUMNS) * width, 3)
    picture = (grid.clamp(0, 1) * 255).round().byte().numpy()
    header = np.zeros((_HEADER, picture.shape[1], 3), np.uint8)
    for index, name in enumerate(COLUMNS):
        place = (index * width + 4, 13)
        cv2.putText(header, name, place, cv2.FONT_HERSHEY_SIMPLEX, 0.4, (255,) * 3, 1,
                    cv2.LINE_AA)
    return np.concatenate([header, picture])
