"""What a detector makes of rainy, derained and clean frames."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from derain_ros.engines import Engine
from derain_ros.engines.model_facts import ModelFacts
from derain_ros.evaluation.detection.boxes import Detections, Truths
from derain_ros.evaluation.detection.detector import Detector
from derain_ros.evaluation.detection.labels import Labels
from derain_ros.evaluation.detection.tally import MATCH_IOU, Tally
from derain_ros.files.frame_sources import FrameSet, FrameSource
from derain_ros.files.pairs import BadPair
from derain_ros.files.run_files import FORMAT, host, versions
from derain_ros.rain_gate import mask_response
from derain_ros.text import printable

LOWEST_SCORE = 0.05
"""Score from which on detections enter the average precision, which is of all scores."""


@dataclass(frozen=True)
class FrameCounts:
    """True positives, false positives and misses of one frame, of each input.

    Attributes
    ----------
    name, stamp
        As in :class:`FrameSet`.
    rain_intensity
        :func:`derain_ros.rain_gate.mask_response` of its rain mask; None where there is none.
    rainy, derained
        Counts at the operating score.

    """

    name: str
    stamp: int | None
    rain_intensity: float | None
    rainy: tuple[int, int, int]
    derained: tuple[int, int, int]

    @property
    def gain(self) -> float:
        """F1 of the derained frame less that of the rainy one, -1 to 1."""
        return frame_f1(self.derained) - frame_f1(self.rainy)

    def figures(self) -> dict:
        """Return everything, fit for JSON."""
        return {
            'name': self.name, 'stamp': self.stamp, 'rain_intensity': self.rain_intensity,
            **{version: dict(zip(('tp', 'fp', 'fn'), getattr(self, version), strict=True))
               for version in ('rainy', 'derained')}}


@dataclass(frozen=True)
class Comparison:
    """What came out.

    Attributes
    ----------
    detector
        What ran: see :class:`DetectorFacts`, with thresholds.
    class_names
        Names of the detector's classes.
    model
        What derained; None where derained frames were given.
    source
        What was read, and what was left out.
    reference
        ``labels`` or ``clean``: what the truth is.
    tallies
        Figures of ``rainy``, ``derained`` and, with labels and clean frames, ``clean``.
    frames
        Counts of each frame, in order.
    failed
        Frames that could not be read or run.
    unlabelled
        Frames of which the labels do not tell.

    """

    detector: dict
    class_names: Sequence[str]
    model: ModelFacts | None
    source: dict
    reference: str
    tallies: dict[str, Tally]
    frames: list[FrameCounts] = field(default_factory=list)
    failed: list[BadPair] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)

    def figures(self) -> dict:
        """Return everything, fit for JSON."""
        rainy, derained = self.tallies['rainy'], self.tallies['derained']
        gains = [frame.gain for frame in self.frames]
        return {
            'format': FORMAT,
            'kind': 'detections',
            'versions': versions(),
            'host': host(),
            'detector': self.detector,
            'model': asdict(self.model) if self.model else None,
            'source': self.source | {
                'failed': [asdict(bad) for bad in self.failed],
                'unlabelled': len(self.unlabelled)},
            'reference': self.reference,
            'match_iou': MATCH_IOU,
            'inputs': {version: tally.figures() for version, tally in self.tallies.items()},
            'classes': [
                {'name': self.class_names[number], 'truths': count,
                 'rainy': rainy.class_figures(number),
                 'derained': derained.class_figures(number)}
                for number, count in rainy.truths().items()],
            'sizes': [
                {'size': size, 'truths': count,
                 'rainy': {'recall': rainy.size_recall(size)},
                 'derained': {'recall': derained.size_recall(size)}}
                for size, count in rainy.sizes().items()],
            'images': [frame.figures() for frame in self.frames],
            'helped': sum(gain > 0 for gain in gains),
            'hurt': sum(gain < 0 for gain in gains),
            'same': sum(gain == 0 for gain in gains),
        }


def compare(
    source: FrameSource,
    detector: Detector,
    *,
    engine: Engine | None = None,
    model: ModelFacts | None = None,
    labels: Labels | None = None,
    classes: frozenset[int] | None = None,
    score: float | None = None,
    progress: Callable[[int], Any] = lambda count: None,
) -> Comparison:
    """Run a detector on each version of each frame, and count what it finds.

    The truth is the labels, or else what the detector finds on the clean frames from
    ``score`` on.

    Parameters
    ----------
    source
        The frames; one is in memory at a time.
    detector
        The detector.
    engine, model
        What derains where the source has no derained frames, and what is known of it.
    labels
        What is in the frames.
    classes
        Numbers of the classes to count; None takes all that the reference tells of.
    score
        Where the detector is operated, 0–1; None takes its ``score_threshold``.
    progress
        Called with the number of frames done since the last call.

    Raises
    ------
    DetectorError, EngineError
        A back end failed.
    ValueError
        The source failed as a whole, the detector's output is not as described, or there is
        neither a reference nor anything to compare. A frame that fails alone is in ``failed``.

    """
    if labels is None and not source.has('clean'):
        raise ValueError('there are neither labels nor clean frames to compare with')
    if engine is None and not source.has('derained'):
        raise ValueError('there are no derained frames, and no engine to make them')
    description = detector.description
    score = description.score_threshold if score is None else score
    counted = frozenset(range(len(description.classes))) if classes is None else classes
    if labels is not None:
        counted &= labels.classes
    if not counted:
        raise ValueError('the labels tell of none of the classes that were asked for')
    tallies = {version: Tally(score) for version in ('rainy', 'derained')}
    if labels is not None and source.has('clean'):
        tallies['clean'] = Tally(score)
    facts = asdict(detector.facts) | {
        'score_threshold': score, 'iou_threshold': description.iou_threshold}
    result = Comparison(
        facts, description.classes, model, source.describe(),
        'clean' if labels is None else 'labels', tallies)
    run = _Run(detector, engine, labels, np.array(sorted(counted)), score, result)
    for frame in source.read():
        run.take(frame)
        progress(1)
    result.frames.extend(
        FrameCounts(*frame, rainy, derained) for frame, rainy, derained in zip(
            run.frames, tallies['rainy'].counts, tallies['derained'].counts, strict=True))
    return result


@dataclass(frozen=True)
class _Run:
    """Takes frame after frame; ``frames`` are name, stamp and rain intensity of those measured."""

    detector: Detector
    engine: Engine | None
    labels: Labels | None
    classes: np.ndarray
    score: float
    result: Comparison
    frames: list[tuple[str, int | None, float | None]] = field(default_factory=list)

    def take(self, frame: FrameSet | BadPair) -> None:
        """Measure a frame."""
        if isinstance(frame, BadPair):
            self.result.failed.append(frame)
            return
        truths = None
        try:
            if self.labels is not None:
                truths = self.labels.find(frame)
                if truths is None:
                    self.result.unlabelled.append(frame.name)
                    return
                truths = truths.where(np.isin(truths.classes, self.classes))
            images, rain_mask = self._versions(frame)
        except ValueError as error:
            reason = str(error)
            if not reason.startswith(frame.name):
                reason = f'{frame.name}: {reason}'
            self.result.failed.append(BadPair(frame.name, printable(reason)))
            return
        if truths is None:
            found = self._detect(frame.clean, self.score)
            truths = Truths(found.boxes, found.classes, np.zeros(len(found.classes), bool))
        for version, tally in self.result.tallies.items():
            tally.add(self._detect(images[version], min(self.score, LOWEST_SCORE)), truths)
        self.frames.append((
            frame.name, frame.stamp, None if rain_mask is None else mask_response(rain_mask)))

    def _versions(self, frame: FrameSet) -> tuple[dict[str, np.ndarray | None], Any]:
        """Return all versions of a frame, derained if need be, and the rain mask."""
        derained, rain_mask = frame.derained, frame.rain_mask
        if derained is None:
            result = self.engine.infer(frame.rainy[np.newaxis])
            derained, rain_mask = result.image[0], result.rain_mask[0]
        return {'rainy': frame.rainy, 'derained': derained, 'clean': frame.clean}, rain_mask

    def _detect(self, image: np.ndarray, threshold: float) -> Detections:
        found = self.detector.detect(image, threshold)
        return found.where(np.isin(found.classes, self.classes))


def frame_f1(counts: tuple[int, int, int]) -> float:
    """Return F1 of true positives, false positives and misses; 1 where there is none of them."""
    hits, false, missed = counts
    total = 2 * hits + false + missed
    return 2 * hits / total if total else 1.0
