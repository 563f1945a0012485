"""Comparison of a detector on rainy, derained and clean frames, in figures and in words."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from derain_ros.engines import Engine
from derain_ros.engines.model_facts import ModelFacts
from derain_ros.evaluation.detection.boxes import Detections, Truths
from derain_ros.evaluation.detection.decode import DecodeError
from derain_ros.evaluation.detection.detector import Detector
from derain_ros.evaluation.detection.labels import Labels
from derain_ros.evaluation.detection.tally import MATCH_IOU, Tally
from derain_ros.files.frame_sources import FrameSet, FrameSource
from derain_ros.files.pairs import BadPair
from derain_ros.files.run_files import run_head
from derain_ros.images.memory import Memory
from derain_ros.rain_gate import mask_response
from derain_ros.text import UserError, printable

LOWEST_SCORE = 0.05
"""Lowest score of the detections that enter the average precision."""

NOTICEABLE = 0.005
"""Smallest change of F1 or mAP that counts as a difference."""

_SHOWN_FRAMES = 3
_SHOWN_CLASSES = 12


@dataclass(frozen=True)
class Comparison:
    """Results of a comparison, in the order of the frames; all names are printable."""

    detector: dict  # DetectorFacts, with thresholds
    class_names: Sequence[str]
    model: ModelFacts | None  # the deraining model; None if derained frames were given
    source: dict
    reference: str  # the kind of ground truth, `labels` or `clean`
    tallies: dict[str, Tally]  # of rainy, derained and, with labels and clean frames, clean
    frames: list[tuple[str, int | None, float | None]] = field(default_factory=list)
    """Name, stamp (ns) and rain intensity (0–1), as far as known."""
    failed: list[BadPair] = field(default_factory=list)
    unlabelled: list[str] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """Return everything, for JSON."""
        rainy, derained = self.tallies['rainy'], self.tallies['derained']
        gains = [frame_f1(*after) - frame_f1(*before)
                 for before, after in zip(rainy.counts, derained.counts, strict=True)]
        both = {'rainy': rainy, 'derained': derained}
        return {
            **run_head('detections'),
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
                 **{version: tally.class_figures(number) for version, tally in both.items()}}
                for number, count in rainy.truths().items()],
            'sizes': [
                {'size': size, 'truths': count, **{
                    version: {'recall': tally.size_recall(size)}
                    for version, tally in both.items()}}
                for size, count in rainy.sizes().items()],
            'images': [
                {'name': name, 'stamp': stamp, 'rain_intensity': intensity,
                 **{version: dict(zip(('tp', 'fp', 'fn'), tally.counts[place], strict=True))
                    for version, tally in both.items()}}
                for place, (name, stamp, intensity) in enumerate(self.frames)],
            'helped': sum(gain > 0 for gain in gains),
            'hurt': sum(gain < 0 for gain in gains),
            'same': sum(gain == 0 for gain in gains),
        }


def compare(
    source: FrameSource, detector: Detector, *, engine: Engine | None = None,
    model: ModelFacts | None = None, labels: Labels | None = None,
    classes: frozenset[int] | None = None, score: float | None = None,
    progress: Callable[[int], Any] = lambda count: None
) -> Comparison:
    """Run a detector on each version of each frame, one frame at a time, and count.

    The ground truth is the labels, or else the detections on the clean frames. Detections count
    from ``score`` on, 0–1, as in operation; None takes the detector's ``score_threshold``.
    ``engine``, with the facts ``model``, derains if the source has no derained frames; one that
    remembers sees the frames of a bag in order, as in the node.
    ``classes`` are the indices of the classes to count; None takes all that the ground truth has.
    ``progress`` is called with the number of frames done since the last call.

    Raises UserError if a back end or the source fails as a whole, the detector's output is not as
    described, or there is nothing to count; a frame that fails alone is in ``failed``.
    """
    description = detector.description
    score = description.score_threshold if score is None else score
    counted = frozenset(range(len(description.classes))) if classes is None else classes
    if labels is not None:
        counted &= labels.classes
    if not counted:
        raise UserError('the labels have none of the requested classes')
    tallies = {version: Tally(score) for version in ('rainy', 'derained')}
    if labels is not None and source.has('clean'):
        tallies['clean'] = Tally(score)
    result = Comparison(
        asdict(detector.facts) | {
            'score_threshold': score, 'iou_threshold': description.iou_threshold},
        description.classes, model, source.describe(), 'clean' if labels is None else 'labels',
        tallies)
    numbers = np.array(sorted(counted))
    memory = Memory()

    def detect(image: np.ndarray, threshold: float) -> Detections:
        found = detector.detect(image, threshold)
        return found.where(np.isin(found.classes, numbers))

    def measure(frame: FrameSet) -> None:
        truths = labels.find(frame) if labels is not None else None
        unlabelled = labels is not None and truths is None
        images = {'rainy': frame.rainy, 'derained': frame.derained, 'clean': frame.clean}
        rain_mask = frame.rain_mask
        if frame.derained is None:
            infer, in_order = engine.infer, engine.info.remembers and frame.stamp is not None
            if in_order:
                infer = memory.through(infer, frame.stamp / 1e9)
            if in_order or not unlabelled:  # a frame without labels is the past of the next one
                derained = infer(frame.rainy[np.newaxis])
                images['derained'], rain_mask = derained.image[0], derained.rain_mask[0]
        if unlabelled:
            result.unlabelled.append(frame.name)
            return
        if truths is None:
            found = detect(frame.clean, score)
            truths = Truths(found.boxes, found.classes, np.zeros(len(found.classes), bool))
        else:
            truths = truths.where(np.isin(truths.classes, numbers))
        detections = [detect(images[version], min(score, LOWEST_SCORE)) for version in tallies]
        for tally, found in zip(tallies.values(), detections, strict=True):
            tally.add(found, truths)
        result.frames.append((
            frame.name, frame.stamp, None if rain_mask is None else mask_response(rain_mask)))

    for frame in source.read():
        try:
            if isinstance(frame, BadPair):
                result.failed.append(frame)
            else:
                measure(frame)
        except DecodeError:
            raise
        except ValueError as error:
            reason = str(error)
            if not reason.startswith(frame.name):
                reason = f'{frame.name}: {reason}'
            result.failed.append(BadPair(frame.name, printable(reason)))
        progress(1)
    return result


def frame_f1(hits: int, false: int, missed: int) -> float:
    """Return F1 of true positives, false positives and misses; 1 if all are 0."""
    total = 2 * hits + false + missed
    return 2 * hits / total if total else 1.0


def summarise(figures: dict, *, verbose: bool = False) -> Iterator[str]:
    """Yield the lines to print for :meth:`Comparison.figures` of at least one frame.

    ``verbose`` shows all classes, and each frame.
    """
    detector, model, images = figures['detector'], figures['model'], figures['images']
    truth = {'labels': 'labels', 'clean': 'its own detections on the clean frames'}
    yield (f'{detector["name"]} at {detector["width"]}x{detector["height"]}, score '
           f'{detector["score_threshold"]:g} or more: {len(images)} frames, ground truth: '
           f'{truth[figures["reference"]]}')
    yield '  derained ' + (f'by {model["model"]} on {model["engine"]}, {model["precision"]}'
                           if model else 'frames as given')
    yield (f'  {"":<10} {"precision":>9} {"recall":>7} {"F1":>7} {"mAP@0.5":>8} '
           f'{"detections":>10} {"objects":>7}')
    for version, found in figures['inputs'].items():
        yield (f'  {version:<10} {_share(found["precision"]):>9} {_share(found["recall"]):>7} '
               f'{_share(found["f1"]):>7} {_share(found["map50"]):>8} '
               f'{found["detections"]:>10} {found["truths"]:>7}')
    yield (f'  mAP@0.5 counts all detections from score {LOWEST_SCORE:g} on, the other figures '
           'those from the score above on')
    yield from _classes(figures, verbose)
    yield f'  {"recall by size":<24} {"objects":>7} {"rainy":>8} {"derained":>9}'
    for entry in figures['sizes']:
        yield (f'    {entry["size"]:<22} {entry["truths"]:>7} '
               f'{_share(entry["rainy"]["recall"]):>8} {_share(entry["derained"]["recall"]):>9}')
    yield (f'  frames by F1: {figures["helped"]} better, {figures["hurt"]} worse, '
           f'{figures["same"]} the same')
    by_gain = sorted(images, key=_gain)
    yield from _frames('most helped', [one for one in by_gain[::-1] if _gain(one) > 0])
    yield from _frames('most hurt', [one for one in by_gain if _gain(one) < 0])
    if verbose:
        yield from _frames('all frames', images, len(images))
    yield conclude(figures)


def conclude(figures: dict) -> str:
    """Return one sentence on whether deraining helped, from :meth:`Comparison.figures`."""
    rainy, derained = figures['inputs']['rainy'], figures['inputs']['derained']
    if not rainy['truths']:
        return 'There are no objects in these frames; the figures only reflect false alarms.'
    changes = [derained[key] - rainy[key] for key in ('f1', 'map50')]
    better = any(change >= NOTICEABLE for change in changes)
    worse = any(change <= -NOTICEABLE for change in changes)
    verdict = {(True, True): 'is a mixed gain to', (True, False): 'helps',
               (False, True): 'hurts', (False, False): 'makes no difference to'}[better, worse]
    changed = ', '.join(
        f'{name} {_share(rainy[key])} -> {_share(derained[key])}' for name, key in (
            ('recall', 'recall'), ('precision', 'precision'), ('F1', 'f1'),
            ('mAP@0.5', 'map50')))
    return f'Deraining {verdict} this detector here: {changed}.'


def _classes(figures: dict, verbose: bool) -> Iterator[str]:
    classes = sorted(figures['classes'], key=lambda entry: -entry['truths'])
    shown = classes if verbose else classes[:_SHOWN_CLASSES]
    if shown:
        yield f'  {"class":<24} {"objects":>7} {"AP@0.5":>17} {"precision":>17} {"recall":>17}'
    for entry in shown:
        changes = ' '.join(
            f'{_share(entry["rainy"][key])} -> {_share(entry["derained"][key])}'.rjust(17)
            for key in ('ap50', 'precision', 'recall'))
        yield f'    {entry["name"]:<22} {entry["truths"]:>7} {changes}'
    if len(shown) < len(classes):
        yield f'    {len(classes) - len(shown)} more classes; --verbose shows them'


def _frames(title: str, images: Sequence[dict], most: int = _SHOWN_FRAMES) -> Iterator[str]:
    if images:
        yield f'  {title}: (right, wrong, missed)'
    for one in images[:most]:
        before, after = ([*one[version].values()] for version in ('rainy', 'derained'))
        yield (f'    {one["name"]}: {"/".join(map(str, before))} -> {"/".join(map(str, after))}, '
               f'F1 {frame_f1(*before):.2f} -> {frame_f1(*after):.2f}')


def _gain(image: dict) -> float:
    return frame_f1(*image['derained'].values()) - frame_f1(*image['rainy'].values())


def _share(value: float | None) -> str:
    return '-' if value is None else f'{value:.3f}'
