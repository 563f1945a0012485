"""Boxes in an image: detections, truths, overlap, and non-maximum suppression."""

from typing import NamedTuple

import numpy as np


class Detections(NamedTuple):
    """What a detector found in one image, by descending score.

    Attributes
    ----------
    boxes
        float64, N×4, left, top, right, bottom in pixels of the image.
    scores
        float64, N, 0–1.
    classes
        int64, N, number in the list of classes of the detector.

    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    def where(self, chosen: np.ndarray) -> 'Detections':
        """Return those that a boolean mask, or an array of indices, picks."""
        return Detections(self.boxes[chosen], self.scores[chosen], self.classes[chosen])


class Truths(NamedTuple):
    """What is there in one image.

    Attributes
    ----------
    boxes
        float64, N×4, left, top, right, bottom in pixels of the image.
    classes
        int64, N, number in the list of classes of the detector.
    ignored
        bool, N: no object but a region where nothing is counted, such as a crowd.

    """

    boxes: np.ndarray
    classes: np.ndarray
    ignored: np.ndarray

    def where(self, chosen: np.ndarray) -> 'Truths':
        """Return those that a boolean mask picks."""
        return Truths(self.boxes[chosen], self.classes[chosen], self.ignored[chosen])


def areas(boxes: np.ndarray) -> np.ndarray:
    """Return the areas (N) of N×4 boxes in square pixels; of an inverted box 0."""
    return np.prod(np.maximum(0.0, boxes[:, 2:] - boxes[:, :2]), axis=1)


def iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of two sets of boxes.

    Parameters
    ----------
    a, b
        float64, N×4 and M×4: left, top, right, bottom.

    Returns
    -------
    numpy.ndarray
        float64, N×M, 0–1; 0 where both boxes are empty.

    """
    least = np.maximum(a[:, None, :2], b[None, :, :2])
    most = np.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = np.prod(np.maximum(0.0, most - least), axis=2)
    union = areas(a)[:, None] + areas(b)[None, :] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def suppress(
    found: Detections, threshold: float, *, across_classes: bool = False, most: int = 300
) -> Detections:
    """Greedy non-maximum suppression.

    By descending score, a box is kept unless it overlaps one that was kept, of its own class
    or of any, with an IoU above ``threshold``. What is kept above some score therefore does
    not depend on the boxes below it.

    Parameters
    ----------
    found
        Candidates in any order; of equal scores the first goes first.
    threshold
        IoU, 0–1.
    across_classes
        Boxes of different classes suppress each other too.
    most
        Keep no more than so many.

    """
    waiting = np.argsort(-found.scores, kind='stable')
    kept = []
    while waiting.size and len(kept) < most:
        first, waiting = waiting[0], waiting[1:]
        kept.append(first)
        near = iou(found.boxes[first][None], found.boxes[waiting])[0] > threshold
        if not across_classes:
            near &= found.classes[waiting] == found.classes[first]
        waiting = waiting[~near]
    return found.where(np.array(kept, dtype=np.int64))
