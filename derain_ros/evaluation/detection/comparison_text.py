"""A comparison in words and tables, for the terminal."""

from collections.abc import Iterator

from derain_ros.evaluation.detection.comparison import (
    LOWEST_SCORE,
    Comparison,
    FrameCounts,
    frame_f1,
)

NOTICEABLE = 0.005
"""Change of F1 or mAP that is told as one; smaller ones are called the same."""

_SHOWN_FRAMES = 3
_SHOWN_CLASSES = 12


def summarise(comparison: Comparison, *, verbose: bool = False) -> Iterator[str]:
    """Yield the lines to print.

    Parameters
    ----------
    comparison
        Has one frame at least.
    verbose
        All classes, and each frame.

    """
    figures = comparison.figures()
    detector = figures['detector']
    truth = {'labels': 'labels', 'clean': 'its own detections on the clean frames'}
    yield (f'{detector["name"]} at {detector["width"]}x{detector["height"]}, score from '
           f'{detector["score_threshold"]:g}: {len(comparison.frames)} frames, truth: '
           f'{truth[figures["reference"]]}')
    model = figures['model']
    yield '  derained ' + (f'by {model["model"]} on {model["engine"]}, {model["precision"]}'
                           if model else 'frames as given')
    yield from _inputs(figures)
    yield from _classes(figures, verbose)
    yield f'  {"recall by size":<24} {"truths":>7} {"rainy":>8} {"derained":>9}'
    for entry in figures['sizes']:
        yield (f'    {entry["size"]:<22} {entry["truths"]:>7} '
               f'{_share(entry["rainy"]["recall"]):>8} {_share(entry["derained"]["recall"]):>9}')
    yield (f'  frames by F1: {figures["helped"]} better, {figures["hurt"]} worse, '
           f'{figures["same"]} the same')
    by_gain = sorted(comparison.frames, key=lambda frame: frame.gain)
    yield from _frames('most helped', [frame for frame in by_gain[::-1] if frame.gain > 0])
    yield from _frames('most hurt', [frame for frame in by_gain if frame.gain < 0])
    if verbose:
        yield from _frames('all frames', comparison.frames, len(comparison.frames))
    yield conclude(figures)


def conclude(figures: dict) -> str:
    """Return one sentence on whether deraining helped, from :meth:`Comparison.figures`."""
    rainy, derained = figures['inputs']['rainy'], figures['inputs']['derained']
    if not rainy['truths']:
        return 'There is nothing to find in these frames; the figures tell of false alarms only.'
    changes = [derained[key] - rainy[key] for key in ('f1', 'map50')]
    better = [change >= NOTICEABLE for change in changes]
    worse = [change <= -NOTICEABLE for change in changes]
    if any(better) and any(worse):
        verdict = 'Deraining is a mixed gain to this detector here'
    elif any(better):
        verdict = 'Deraining helps this detector here'
    elif any(worse):
        verdict = 'Deraining hurts this detector here'
    else:
        verdict = 'Deraining makes no difference to this detector here'
    changed = ', '.join(
        f'{name} {_share(rainy[key])} -> {_share(derained[key])}' for name, key in (
            ('recall', 'recall'), ('precision', 'precision'), ('F1', 'f1'),
            ('mAP@0.5', 'map50')))
    return f'{verdict}: {changed}.'


def _inputs(figures: dict) -> Iterator[str]:
    yield (f'  {"":<10} {"precision":>9} {"recall":>7} {"F1":>7} {"mAP@0.5":>8} '
           f'{"detections":>10} {"truths":>7}')
    for version, found in figures['inputs'].items():
        yield (f'  {version:<10} {_share(found["precision"]):>9} {_share(found["recall"]):>7} '
               f'{_share(found["f1"]):>7} {_share(found["map50"]):>8} '
               f'{found["detections"]:>10} {found["truths"]:>7}')
    yield (f'  mAP@0.5 counts all detections from score {LOWEST_SCORE:g} on, the rest those '
           'from the score above on')


def _classes(figures: dict, verbose: bool) -> Iterator[str]:
    classes = sorted(figures['classes'], key=lambda entry: -entry['truths'])
    shown = classes if verbose else classes[:_SHOWN_CLASSES]
    if shown:
        yield (f'  {"class":<24} {"truths":>7} {"AP@0.5":>17} {"precision":>17} '
               f'{"recall":>17}')
    for entry in shown:
        changes = ' '.join(
            f'{_share(entry["rainy"][key])} -> {_share(entry["derained"][key])}'.rjust(17)
            for key in ('ap50', 'precision', 'recall'))
        yield f'    {entry["name"]:<22} {entry["truths"]:>7} {changes}'
    if len(shown) < len(classes):
        yield f'    {len(classes) - len(shown)} more classes; --verbose shows them'


def _frames(
    title: str, frames: list[FrameCounts], most: int = _SHOWN_FRAMES
) -> Iterator[str]:
    if not frames:
        return
    yield f'  {title}: (right, wrong, missed)'
    for frame in frames[:most]:
        yield (f'    {frame.name}: {_counts(frame.rainy)} -> {_counts(frame.derained)}, F1 '
               f'{frame_f1(frame.rainy):.2f} -> {frame_f1(frame.derained):.2f}')


def _counts(counts: tuple[int, int, int]) -> str:
    return '/'.join(map(str, counts))


def _share(value: float | None) -> str:
    return '-' if value is None else f'{value:.3f}'
