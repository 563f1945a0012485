"""Overlap, matching and average precision: values computed by hand, and what must hold."""

import numpy as np
import pytest

from derain_ros.evaluation.detection.boxes import Detections, Truths, suppress
from derain_ros.evaluation.detection.tally import Tally


def _found(*rows):
    """Detections from (left, top, right, bottom, score, class)."""
    rows = np.array(rows, np.float64).reshape(-1, 6)
    return Detections(rows[:, :4], rows[:, 4], rows[:, 5].astype(np.int64))


def _there(*rows):
    """Truths from (left, top, right, bottom, class, ignored)."""
    rows = np.array(rows, np.float64).reshape(-1, 6)
    return Truths(rows[:, :4], rows[:, 4].astype(np.int64), rows[:, 5].astype(bool))


def test_suppression_by_hand():
    # IoU of neighbours 6 apart of 20 wide: 14/26 = 0.538; 12 apart: 8/32 = 0.25.
    found = _found((0, 0, 20, 10, 0.6, 0), (6, 0, 26, 10, 0.9, 0), (12, 0, 32, 10, 0.7, 0),
                   (6, 0, 26, 10, 0.8, 1))
    assert suppress(found, 0.5).scores.tolist() == [0.9, 0.8]
    assert suppress(found, 0.6).scores.tolist() == [0.9, 0.8, 0.7, 0.6]
    assert suppress(found, 0.5, across_classes=True).scores.tolist() == [0.9]
    assert suppress(found, 0.6, most=2).scores.tolist() == [0.9, 0.8]
    # The first in line is gone, so the third does not suppress what the second would not.
    assert suppress(found.where(np.array([0, 2])), 0.5).scores.tolist() == [0.7, 0.6]


def _tally(score, *images):
    """A tally of images: detections and truths of each."""
    tally = Tally(score)
    for found, truths in images:
        tally.add(found, truths)
    return tally


def _matched(found, truths, score=0.0):
    """Right, wrong and missed in one image."""
    return _tally(score, (found, truths)).counts[0]


def test_a_truth_is_found_once_and_by_the_highest_score():
    found = _found((0, 0, 10, 10, 0.6, 0), (0, 1, 10, 11, 0.9, 0), (0, 0, 10, 10, 0.8, 1))
    there = _there((0, 0, 10, 10, 0, False))
    assert _matched(found, there) == (1, 2, 0)
    assert _matched(found, there, 0.7) == (1, 1, 0)
    assert _matched(found, there, 0.85) == (1, 0, 0)
    assert _matched(found, there, 0.95) == (0, 0, 1)


def test_nothing_counts_in_an_ignored_region():
    there = _there((0, 0, 100, 100, 0, True), (0, 0, 10, 10, 0, False))
    found = [(0, 0, 10, 10, 0.9, 0),      # the object itself
             (50, 50, 60, 60, 0.8, 0),    # in the crowd
             (50, 50, 60, 60, 0.7, 1),    # of another class
             (90, 0, 110, 10, 0.6, 0),    # just half in it
             (95, 0, 110, 10, 0.5, 0)]    # a third in it
    assert [_matched(_found(*found[:count]), there) for count in range(1, 6)] == [
        (1, 0, 0), (1, 0, 0), (1, 1, 0), (1, 1, 0), (1, 2, 0)]


def test_a_tally_by_hand():
    # 20x20 is small, 50x50 medium, 100x100 large.
    tally = _tally(
        0.5,
        (_found((0, 0, 20, 20, 0.9, 0), (0, 0, 50, 50, 0.4, 1), (300, 0, 310, 10, 0.8, 0)),
         _there((0, 0, 20, 20, 0, False), (0, 0, 50, 50, 1, False))),
        (_found(), _there((0, 0, 100, 100, 0, False))))
    assert tally.figures() == {
        'precision': 1 / 2, 'recall': 1 / 3, 'f1': 2 / 5,
        'map50': pytest.approx((51 / 101 + 1) / 2), 'detections': 2, 'truths': 3, 'images': 2}
    assert tally.class_figures(0) == {
        'ap50': pytest.approx(51 / 101), 'precision': 1 / 2, 'recall': 1 / 2}
    assert tally.class_figures(1) == {'ap50': 1.0, 'precision': None, 'recall': 0.0}
    assert tally.class_figures(7) == {'ap50': None, 'precision': None, 'recall': None}
    assert [tally.size_recall(size) for size in ('small', 'medium', 'large')] == [1.0, 0.0, 0.0]
    assert tally.truths() == {0: 2, 1: 1}
    assert tally.counts == [(1, 1, 1), (0, 0, 1)]


def test_the_sizes_are_those_of_coco():
    tally = _tally(0.5, *((_found(), _there((0, 0, side, side, 0, False)))
                          for side in (31.9, 32, 95.9, 96)))
    assert tally.sizes() == {'small': 1, 'medium': 2, 'large': 1}
