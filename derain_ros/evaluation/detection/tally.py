"""Figures of a detector over many images, computed as in COCO, by pycocotools."""

import io
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import cached_property
from typing import Any

import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from derain_ros.evaluation.detection.boxes import Detections, Truths, areas

MATCH_IOU = 0.5
"""Minimum IoU of a detection with the object it is matched to."""

MOST_DETECTIONS = 300
"""Maximum number of detections per image; those with the highest scores are kept."""

SIZES = {'small': 32.0**2, 'medium': 96.0**2, 'large': float('inf')}
"""Upper limit of the area of an object of each size, in square pixels, as in COCO."""


class Tally:
    """Counts of the detections in one kind of input, such as the rainy frames.

    A detection is right if its IoU with an object of its class is at least :data:`MATCH_IOU` and
    no detection of higher score is matched to that object; in an ignored region of its class it
    does not count. Precision, recall, F1 and counts are those of the detections from ``score`` on,
    as in operation; average precision takes all detections that were added.
    """

    def __init__(self, score: float) -> None:
        self._score = score
        self._found: list[Detections] = []
        self._truths: list[Truths] = []

    def add(self, found: Detections, truths: Truths) -> None:
        """Add one image; none may follow once figures have been asked for."""
        self._found.append(found)
        self._truths.append(truths)

    @cached_property
    def _scored(self) -> tuple[dict[int, Counter], dict[int, float], list[list[int]], Counter]:
        """Counts by class, average precision by class, counts by image, and by size."""
        evaluator = _evaluate(self._found, self._truths)
        classes = {number: Counter() for number in evaluator.params.catIds}
        images, sizes = [[0, 0, 0] for _ in self._found], Counter()
        for entry in filter(None, evaluator.evalImgs):
            counts, image = classes[entry['category_id']], images[entry['image_id']]
            scores = np.array(entry['dtScores'])
            shown = (scores >= self._score) & ~entry['dtIgnore'][0].astype(bool)
            right = int(np.count_nonzero(entry['dtMatches'][0][shown]))
            score_of = dict(zip(entry['dtIds'], entry['dtScores'], strict=True))
            truths = [(evaluator.cocoGt.anns[key]['area'],
                       score_of.get(taker, -1.0) >= self._score)
                      for key, taker, ignored in zip(
                          entry['gtIds'], entry['gtMatches'][0], entry['gtIgnore'], strict=True)
                      if not ignored]
            found = sum(there for _, there in truths)
            counts.update(shown=int(shown.sum()), right=right, truths=len(truths), found=found)
            image[0] += right
            image[1] += int(shown.sum()) - right
            image[2] += len(truths) - found
            for area, there in truths:
                size = next(name for name, limit in SIZES.items() if area < limit)
                sizes[size] += 1
                sizes[size, 'found'] += there
        precision = evaluator.eval['precision'][0, :, :, 0, 0]
        averages = {number: round(float(precision[:, place].mean()), 12)
                    for place, number in enumerate(classes) if classes[number]['truths']}
        return classes, averages, images, sizes

    @property
    def counts(self) -> list[tuple[int, int, int]]:
        """Return true positives, false positives and misses of each image."""
        return [tuple(image) for image in self._scored[2]]

    def truths(self) -> dict[int, int]:
        """Return the number of objects of each class that has any."""
        return {number: counts['truths'] for number, counts in sorted(self._scored[0].items())
                if counts['truths']}

    def sizes(self) -> dict[str, int]:
        """Return the number of objects of each size."""
        return {name: self._scored[3][name] for name in SIZES}

    def size_recall(self, size: str) -> float | None:
        """Return the share of the objects of a size that was found; None if there are none."""
        return ratio(self._scored[3][size, 'found'], self._scored[3][size])

    def class_figures(self, number: int) -> dict[str, float | None]:
        """Return ``ap50``, ``precision`` and ``recall`` of a class.

        ``ap50`` is as in COCO: monotone precision, averaged over 101 recalls from 0 to 1.
        """
        counts = self._scored[0].get(number, Counter())
        return {'ap50': self._scored[1].get(number),
                'precision': ratio(counts['right'], counts['shown']),
                'recall': ratio(counts['found'], counts['truths'])}

    def figures(self) -> dict[str, float | int | None]:
        """Return the figures of all classes together, for detections from the score on.

        ``map50`` is the mean of the average precision of the classes that have objects.
        """
        counts = sum(self._scored[0].values(), Counter())
        averages = self._scored[1]
        return {
            'precision': ratio(counts['right'], counts['shown']),
            'recall': ratio(counts['found'], counts['truths']),
            'f1': ratio(2 * counts['right'], counts['shown'] + counts['truths']),
            'map50': ratio(sum(averages.values()), len(averages)),
            'detections': counts['shown'],
            'truths': counts['truths'],
            'images': len(self._found),
        }


def ratio(part: float, whole: float) -> float | None:
    """Return ``part / whole``; None where ``whole`` is 0."""
    return part / whole if whole else None


def _evaluate(found: Sequence[Detections], truths: Sequence[Truths]) -> Any:
    """Return a COCOeval that has matched boxes and accumulated precision over recall."""
    def data(listed: Sequence[Detections | Truths], **columns: str) -> Any:
        annotations = []
        for image, one in enumerate(listed):
            # Equal scores are ordered by the boxes, not as the detector returns them.
            order = np.lexsort((*one.boxes.T, one.classes))
            for place in order.tolist():
                left, top, right, bottom = one.boxes[place].tolist()
                annotations.append({
                    'id': len(annotations) + 1, 'image_id': image, 'iscrowd': 0,
                    'category_id': int(one.classes[place]),
                    'bbox': [left, top, right - left, bottom - top],
                    'area': float(areas(one.boxes[place:place + 1])[0]),
                    **{name: getattr(one, column)[place].item()
                       for name, column in columns.items()}})
        coco = COCO()
        coco.dataset = {
            'images': [{'id': image} for image in range(len(listed))], 'annotations': annotations,
            'categories': [{'id': number} for number in sorted({
                number for one in (*found, *truths) for number in one.classes.tolist()})]}
        coco.createIndex()
        return coco

    with redirect_stdout(io.StringIO()):  # pycocotools prints as it goes
        evaluator = COCOeval(data(truths, iscrowd='ignored'), data(found, score='scores'), 'bbox')
        evaluator.params.iouThrs = np.array([MATCH_IOU])
        evaluator.params.maxDets = [MOST_DETECTIONS]
        evaluator.params.areaRng, evaluator.params.areaRngLbl = [[0, 1e10]], ['all']
        evaluator.evaluate()
        evaluator.accumulate()
    return evaluator
