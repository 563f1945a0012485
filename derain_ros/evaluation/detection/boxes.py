"""Boxes in an image: what a detector found, and what is there."""

from typing import NamedTuple

import cv2
import numpy as np


class Detections(NamedTuple):
    """What a detector found in one image: N boxes.

    ``boxes`` are float64, N×4, left, top, right, bottom in pixels; ``scores`` float64, N, 0–1;
    ``classes`` int64, N, numbers in the detector's list.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    def where(self, chosen: np.ndarray) -> 'Detections':
        """Return those that a boolean mask, or an array of indices, picks."""
        return Detections(*(column[chosen] for column in self))


class Truths(NamedTuple):
    """What is there in one image, as :class:`Detections`, without scores.

    ``ignored`` is bool, N: no object but a region where nothing is counted, such as a crowd.
    """

    boxes: np.ndarray
    classes: np.ndarray
    ignored: np.ndarray

    def where(self, chosen: np.ndarray) -> 'Truths':
        """Return those that a boolean mask picks."""
        return Truths(*(column[chosen] for column in self))


def areas(boxes: np.ndarray) -> np.ndarray:
    """Return the areas (N) of N×4 boxes in square pixels; of an inverted box 0."""
    return np.prod(np.maximum(0.0, boxes[:, 2:] - boxes[:, :2]), axis=1)


def suppress(
    found: Detections, threshold: float, *, across_classes: bool = False, most: int = 300
) -> Detections:
    """Greedy non-maximum suppression, by OpenCV.

    By descending score, a box is kept unless its IoU with one that was kept, of its own class
    or (``across_classes``) of any, is above ``threshold``. What is kept above some score
    therefore does not depend on the boxes below it. Of equal scores the first goes first; at
    most ``most`` are kept.
    """
    corners, sizes = found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]
    if not across_classes and len(corners):
        # Boxes of different classes are moved out of each other's way.
        corners = corners + (2 * np.ptp(found.boxes) + 1) * found.classes[:, None]
    kept = cv2.dnn.NMSBoxes(
        np.hstack([corners, sizes]).tolist(), found.scores.tolist(), 0.0, threshold)
    return found.where(np.array(kept, np.int64).reshape(-1)[:most])
