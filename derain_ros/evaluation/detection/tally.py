"""Figures of a detector over many images."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from derain_ros.evaluation.detection.average_precision import average_precision
from derain_ros.evaluation.detection.matching import Matches

SIZES = {'small': 32.0**2, 'medium': 96.0**2, 'large': float('inf')}
"""Areas in square pixels below which an object is of a size, as COCO has them."""


@dataclass
class _Class:
    """What was found of one class: scores and hits of detections; objects, and those found."""

    scores: list[float] = field(default_factory=list)
    hits: list[bool] = field(default_factory=list)
    truths: int = 0
    found: int = 0


class Tally:
    """Adds up what was found in one kind of input, such as the rainy frames.

    Parameters
    ----------
    score
        Where the detector is operated: precision, recall, F1 and counts are those of the
        detections from this score on; average precision takes all that it is given.

    Attributes
    ----------
    images
        How many were added.

    """

    def __init__(self, score: float) -> None:
        self._score = score
        self._classes: dict[int, _Class] = {}
        self._sizes: Counter = Counter()
        self._found_sizes: Counter = Counter()
        self.images = 0

    def add(self, matches: Matches) -> None:
        """Add one image."""
        self.images += 1
        for number, score, hit in zip(
                matches.classes.tolist(), matches.scores.tolist(), matches.hits.tolist(),
                strict=True):
            entry = self._classes.setdefault(number, _Class())
            entry.scores.append(score)
            entry.hits.append(hit)
        for number, area, score in zip(
                matches.truth_classes.tolist(), matches.truth_areas.tolist(),
                matches.found_by.tolist(), strict=True):
            entry = self._classes.setdefault(number, _Class())
            size = next(name for name, limit in SIZES.items() if area < limit)
            found = score >= self._score
            entry.truths += 1
            entry.found += found
            self._sizes[size] += 1
            self._found_sizes[size] += found

    def truths(self) -> dict[int, int]:
        """Return the number of objects of each class that has any."""
        return {number: entry.truths for number, entry in sorted(self._classes.items())
                if entry.truths}

    def sizes(self) -> dict[str, int]:
        """Return the number of objects of each size."""
        return {name: self._sizes[name] for name in SIZES}

    def size_recall(self, size: str) -> float | None:
        """Return the share of the objects of a size that was found; None of none."""
        return ratio(self._found_sizes[size], self._sizes[size])

    def class_figures(self, number: int) -> dict[str, float | None]:
        """Return ``ap50``, ``precision`` and ``recall`` of a class."""
        entry = self._classes.get(number, _Class())
        hits, counted = self._counts(entry)
        return {
            'ap50': average_precision(
                np.array(entry.scores), np.array(entry.hits, bool), entry.truths),
            'precision': ratio(hits, counted),
            'recall': ratio(entry.found, entry.truths),
        }

    def figures(self) -> dict[str, float | int | None]:
        """Return the figures over all classes.

        ``precision``, ``recall`` and ``f1`` count detections of all classes together;
        ``map50`` is the mean of the average precision of the classes that have objects;
        ``detections`` are those that count, from the operating score on.
        """
        hits = counted = truths = 0
        for entry in self._classes.values():
            right, shown = self._counts(entry)
            hits, counted, truths = hits + right, counted + shown, truths + entry.truths
        present = [self.class_figures(number)['ap50'] for number in self.truths()]
        return {
            'precision': ratio(hits, counted),
            'recall': ratio(hits, truths),
            'f1': ratio(2 * hits, counted + truths),
            'map50': ratio(sum(present), len(present)),
            'detections': counted,
            'truths': truths,
            'images': self.images,
        }

    def _counts(self, entry: _Class) -> tuple[int, int]:
        """Return the hits and the detections of a class from the operating score on."""
        shown = np.array(entry.scores) >= self._score
        return (int(np.count_nonzero(np.array(entry.hits, bool) & shown)),
                int(np.count_nonzero(shown)))


def ratio(part: float, whole: float) -> float | None:
    """Return ``part / whole``; None where ``whole`` is 0."""
    return part / whole if whole else None
