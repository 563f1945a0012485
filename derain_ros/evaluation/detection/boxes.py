"""Boxes in an image: detections and ground truth."""

from typing import NamedTuple

import cv2
import numpy as np


class Detections(NamedTuple):
    """The N boxes that a detector found in one image.

    ``boxes`` are float64, N×4, left, top, right, bottom in pixels; ``scores`` float64, N, 0–1;
    ``classes`` int64, N, indices into the detector's list of classes.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray

    def where(self, chosen: np.ndarray) -> 'Detections':
        """Return those that a boolean mask, or an array of indices, selects."""
        return type(self)(*(column[chosen] for column in self))


class Truths(NamedTuple):
    """Ground truth of one image, as :class:`Detections`, without scores.

    ``ignored`` is bool, N: true for a region where nothing is counted, such as a crowd.
    """

    boxes: np.ndarray
    classes: np.ndarray
    ignored: np.ndarray

    where = Detections.where


def areas(boxes: np.ndarray) -> np.ndarray:
    """Return the areas (N) of N×4 boxes in square pixels; 0 for inverted boxes."""
    return np.prod(np.maximum(0.0, boxes[:, 2:] - boxes[:, :2]), axis=1)


def suppress(
    found: Detections, threshold: float, *, across_classes: bool = False, most: int = 300
) -> Detections:
    """Greedy non-maximum suppression, by OpenCV.

    In order of descending score, a box is kept unless its IoU with a kept box, of its own class
    or (``across_classes``) of any, is above ``threshold``. So the boxes kept above some score
    do not depend on those below it. Equal scores are taken in their order; at
    most ``most`` boxes are kept.
    """
    corners, sizes = found.boxes[:, :2], found.boxes[:, 2:] - found.boxes[:, :2]
    if not across_classes and len(corners):
        # Boxes of different classes are moved out of each other's way.
        corners = corners + (2 * np.ptp(found.boxes) + 1) * found.classes[:, None]
    kept = cv2.dnn.NMSBoxes(
        np.hstack([corners, sizes]).tolist(), found.scores.tolist(), 0.0, threshold)
    return found.where(np.array(kept, np.int64).reshape(-1)[:most])
