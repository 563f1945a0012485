"""The detector in the report: classes, sizes, and the frames that deraining helps and hurts."""

from collections.abc import Iterable, Sequence
from html import escape

from derain_ros.report.html_page import code
from derain_ros.report.runs import Entry, of_kind
from derain_ros.report.tables import plain_table, share

_FRAMES = 5
_CLASSES = 20
_TRUTHS = {'labels': 'the labels', 'clean': 'what the detector itself finds on the clean frames'}


def detector_section(entries: Sequence[Entry]) -> Iterable[str]:
    """Yield the section; nothing where no detector was run."""
    found = of_kind(entries, 'detections')
    if not found:
        return
    yield '<h2 id="detector">Detector</h2>'
    for entry in found:
        run, detector = entry.run, entry.run['detector']
        yield (f'<h3><span class="patch c{entry.colour}" aria-hidden="true"></span>'
               f'{escape(f"{entry.letter}: {entry.name}, {entry.about}")}</h3>')
        yield (f'<p class="soft">{escape(detector["name"])} at {detector["width"]} × '
               f'{detector["height"]} pixels ({code(detector["file"])}, sha256 '
               f'{code(detector["sha256"][:16])}), score from {detector["score_threshold"]:g}. '
               f'Truth: {_TRUTHS[run["reference"]]}; a detection is right from an overlap (IoU) '
               f'of {run["match_iou"]:g} on.</p>')
        yield (f'<p>Frames by F1 after deraining: {run["helped"]} better, {run["hurt"]} worse, '
               f'{run["same"]} the same.</p>')
        yield from _inputs(entry)
        yield from _classes(entry)
        yield from _sizes(entry)
        yield from _extremes(entry)


def _inputs(entry: Entry) -> Iterable[str]:
    inputs = entry.run['inputs']
    yield from plain_table(
        f'{entry.letter}: all classes',
        ('frames', 'number', 'truths', 'detections', 'precision', 'recall', 'F1', 'mAP@0.5'),
        ([version, str(inputs[version]['images']), str(inputs[version]['truths']),
          str(inputs[version]['detections'])]
         + [_share(inputs[version][key]) for key in ('precision', 'recall', 'f1', 'map50')]
         for version in ('rainy', 'derained', 'clean') if version in inputs))


def _classes(entry: Entry) -> Iterable[str]:
    classes = sorted(entry.run['classes'], key=lambda one: -one['truths'])
    if not classes:
        return
    shown = classes[:_CLASSES]
    left_out = f', the {len(shown)} most frequent of {len(classes)}' if (
        len(classes) > len(shown)) else ''
    yield from plain_table(
        f'{entry.letter}: classes{left_out}',
        ('class', 'truths', 'AP rainy', 'AP derained', 'precision rainy', 'derained',
         'recall rainy', 'derained'),
        ([one['name'], str(one['truths'])]
         + [_share(one[version][key]) for key in ('ap50', 'precision', 'recall')
            for version in ('rainy', 'derained')] for one in shown))


def _sizes(entry: Entry) -> Iterable[str]:
    yield from plain_table(
        f'{entry.letter}: recall by size (small below 32², large from 96² pixels)',
        ('size', 'truths', 'rainy', 'derained'),
        ((one['size'], str(one['truths']), _share(one['rainy']['recall']),
          _share(one['derained']['recall'])) for one in entry.run['sizes']))


def _extremes(entry: Entry) -> Iterable[str]:
    """Yield the frames that gain and lose most."""
    gains = sorted(((_f1(image['derained']) - _f1(image['rainy']), image)
                    for image in entry.run['images']), key=lambda found: found[0])
    for title, chosen in (
            ('where it helps most', [one for one in gains[::-1] if one[0] > 0][:_FRAMES]),
            ('where it hurts most', [one for one in gains if one[0] < 0][:_FRAMES])):
        if chosen:
            yield from plain_table(
                f'{entry.letter}: {title}',
                ('frame', 'rain intensity', 'F1 rainy', 'F1 derained', 'found rainy', 'derained',
                 'false rainy', 'derained', 'missed rainy', 'derained'),
                ([image['name'], _share(image['rain_intensity']), _share(_f1(image['rainy'])),
                  _share(_f1(image['derained']))]
                 + [str(image[version][key]) for key in ('tp', 'fp', 'fn')
                    for version in ('rainy', 'derained')] for _, image in chosen))


def _f1(counts: dict) -> float:
    """Return F1 of a frame; 1 where there is nothing to find and nothing was found."""
    total = 2 * counts['tp'] + counts['fp'] + counts['fn']
    return 2 * counts['tp'] / total if total else 1.0


def _share(value: float | None) -> str:
    return '–' if value is None else share(value)
