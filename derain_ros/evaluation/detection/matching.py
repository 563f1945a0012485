"""Which detections are right, in one image."""

from typing import NamedTuple

import numpy as np

from derain_ros.evaluation.detection.boxes import Detections, areas, iou, overlaps

MATCH_IOU = 0.5
"""Least IoU of a detection with the object it is counted for."""


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


class Matches(NamedTuple):
    """What became of the detections and the objects of one image.

    Attributes
    ----------
    scores, classes, hits
        Of each detection that counts, in any order: score, class, and whether it found an
        object.
    truth_classes, truth_areas, found_by
        Of each object: class, area in square pixels, and the score of the detection that
        found it, -1 if none did.

    """

    scores: np.ndarray
    classes: np.ndarray
    hits: np.ndarray
    truth_classes: np.ndarray
    truth_areas: np.ndarray
    found_by: np.ndarray

    def counts(self, score: float) -> tuple[int, int, int]:
        """Return true positives, false positives and misses from a score on."""
        counted = self.scores >= score
        hits = int(np.count_nonzero(self.hits & counted))
        return (hits, int(np.count_nonzero(counted)) - hits,
                int(np.count_nonzero(self.found_by < score)))


def match(found: Detections, truths: Truths) -> Matches:
    """Match detections to objects, class by class.

    By descending score, a detection takes the object of its class that it overlaps most of
    those not yet taken, if their IoU is at least :data:`MATCH_IOU`. If there is none, and at
    least half of the detection lies in an ignored region of its class, it does not count. So a
    detection's lot does not depend on those of lower score. Of equal scores, the order of the
    boxes decides, not that of the detector.
    """
    order = np.lexsort((*found.boxes.T, found.classes, -found.scores))
    found = found.where(order)
    hits = np.zeros(len(order), bool)
    counted = np.ones(len(order), bool)
    objects, regions = truths.where(~truths.ignored), truths.where(truths.ignored)
    found_by = np.full(len(objects.classes), -1.0)
    same = found.classes[:, None] == objects.classes[None, :]
    agreement = np.where(same, iou(found.boxes, objects.boxes), -1.0)
    inside = np.divide(
        overlaps(found.boxes, regions.boxes), areas(found.boxes)[:, None],
        out=np.zeros((len(order), len(regions.classes))),
        where=areas(found.boxes)[:, None] > 0)
    inside[found.classes[:, None] != regions.classes[None, :]] = 0.0
    for number in range(len(order)):
        free = np.where(found_by < 0, agreement[number], -1.0)
        best = int(np.argmax(free)) if free.size else -1
        if best >= 0 and free[best] >= MATCH_IOU:
            hits[number] = True
            found_by[best] = found.scores[number]
        elif (inside[number] >= 0.5).any():
            counted[number] = False
    return Matches(
        found.scores[counted], found.classes[counted], hits[counted], objects.classes,
        areas(objects.boxes), found_by)
