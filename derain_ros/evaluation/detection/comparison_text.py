"""A comparison in words and tables, for the terminal."""

from collections.abc import Iterator, Sequence

from derain_ros.evaluation.detection.comparison import LOWEST_SCORE, frame_f1

NOTICEABLE = 0.005
"""Change of F1 or mAP that is told as one; smaller ones are called the same."""

_SHOWN_FRAMES = 3
_SHOWN_CLASSES = 12


def summarise(figures: dict, *, verbose: bool = False) -> Iterator[str]:
    """Yield the lines to print, of :meth:`Comparison.figures` with one frame at least.

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
    yield (f'  mAP@0.5 counts all detections from score {LOWEST_SCORE:g} on, the rest those '
           'from the score above on')
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
        return 'There is nothing to find in these frames; the figures tell of false alarms only.'
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
