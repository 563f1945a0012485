"""Dry pictures that no photograph of the training is like, drawn by rule.

Fences, lattices and blinds answer to a streak filter as rain does; checkers and noise are as
far from photographs as pictures get.
"""

from itertools import product

import numpy as np

SIZE = (192, 256)


def bars(period: float, share: float, lean: float) -> np.ndarray:
    """Bars that cover ``share`` of the picture, ``lean`` columns to the right a row.

    Returns H×W in 0–1, with soft edges of a pixel.
    """
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    across = (columns - lean * rows) % period
    edge = np.minimum(across, share * period - across)
    return np.clip(edge + 0.5, 0, 1)


def hard_pictures() -> dict[str, np.ndarray]:
    """Return pictures by name, uint8 H×W×3."""
    drawn = {}
    for period, share, lean in product((4, 7, 12, 24), (0.3, 0.6), (0.0, 0.25)):
        upright = bars(period, share, lean)
        lying = bars(period, share, 0.0)[:, : SIZE[0]].T
        lying = np.tile(lying, (1, 2))[: SIZE[0], : SIZE[1]]
        name = f'{period} px, {share:.0%}, lean {lean}'
        drawn[f'fence, {name}'] = upright
        drawn[f'lattice, {name}'] = np.maximum(upright, lying)
        if not lean:
            drawn[f'blinds, {name}'] = lying
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]]
    for side in (1, 2, 4):
        drawn[f'checkers, {side} px'] = ((rows // side + columns // side) % 2).astype(float)
    drawn['noise'] = np.random.default_rng(0).random(SIZE)
    pictures = {}
    for name, shown in drawn.items():
        grey = (20 + 215 * shown).astype(np.uint8)
        pictures[name] = np.repeat(grey[..., None], 3, 2)
    return pictures
