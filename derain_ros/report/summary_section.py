"""The summary of the report: the figures that decide, one table for each kind of run."""

from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import PurePath

from derain_ros.evaluation.metrics import PERFECT_DB
from derain_ros.files.run_files import KINDS
from derain_ros.report.runs import Entry, of_kind
from derain_ros.report.tables import Row, decimals, head, share, table, whole

_TWO, _FOUR, _ONE = decimals(2), decimals(4), decimals(1)


def summary(entries: Sequence[Entry]) -> Iterable[str]:
    """Yield the section."""
    yield '<h2 id="summary">Summary</h2>'
    if any(sum(_comparable(of_kind(entries, kind))) > 1 for kind in KINDS):
        yield ('<p class="soft">Beneath a figure stands how it differs from that of the first run '
               'of its table, where both measured the same frames.</p>')
    for kind, title, build in (
            ('pairs', 'Quality against truth', _pairs),
            ('replay', 'Live, on the replayed bag', _replay),
            ('detections', 'Detector on rainy and on derained frames', _detections),
            ('bag', 'Recorded bags', _bags)):
        chosen = of_kind(entries, kind)
        if chosen:
            yield f'<section class="titled"><h3>{escape(title)}</h3>'
            yield from build(chosen)
            yield '</section>'


def _heads(entries: Sequence[Entry]) -> list[str]:
    return [head(entry) for entry in entries]


def _comparable(entries: Sequence[Entry]) -> list[bool]:
    """Tell for each run of a kind whether it measured the same as the first one."""
    return [_basis(entry) == _basis(entries[0]) for entry in entries]


def _basis(entry: Entry) -> tuple:
    """Return what was measured, whatever measured it; equal where figures can be compared."""
    run = entry.run
    if entry.kind == 'bag':
        return (run['source']['sha256'], run['start_s'], run['duration_s'], run['every'],
                *(camera['source'] for camera in run['cameras']))
    if entry.kind == 'replay':
        first = run['runs'][0]
        return (run['bag']['sha256'], first['factor'],
                *(camera['topic'] for camera in first['cameras']))
    source = run['source']
    # The same bag may be named from another working directory.
    read = (PurePath(source.get('bag') or '').name,
            *(source.get(key) for key in ('rainy_topic', 'clean_topic', 'rainy', 'clean')))
    if entry.kind == 'pairs':
        return *read, entry.data['summary']['pairs']
    detector, rainy = run['detector'], run['inputs']['rainy']
    return (*read, detector['sha256'], detector['score_threshold'], run['reference'],
            run['match_iou'], rainy['images'], rainy['truths'])


def _pairs(entries: Sequence[Entry]) -> Iterable[str]:
    found = [entry.data['summary'] for entry in entries]

    def row(label: str, key: str, form: Callable, better: int, meaning: str, *notes: str) -> Row:
        noted = [one[notes[0]] for one in found] if notes else ()
        return Row(label, [one[key] for one in found], form, better, noted, meaning)

    counts = [one['pairs'] for one in found]
    yield from table('Quality of the derained pictures against the clean ones', _heads(entries), [
        Row('pairs', counts, whole, meaning='of rainy and clean frames'),
        row('PSNR of the rain, dB', 'input_psnr', _TWO, 0, 'the rainy frames as they came'),
        row('PSNR, dB', 'psnr', _TWO, 1, 'closeness to the clean frames on luma, mean'),
        row('worst PSNR, dB', 'worst_psnr', _TWO, 1, 'the frame that came out least close',
            'worst_psnr_image'),
        row('SSIM of the rain', 'input_ssim', _FOUR, 0, 'the rainy frames as they came'),
        row('SSIM', 'ssim', _FOUR, 1, 'likeness of structure, mean; 1 is the clean frame'),
        row('made worse', 'made_worse', whole, -1, 'frames whose PSNR fell'),
        row('mask F1', 'mask_f1', share, 1, 'how well the mask finds the rain'),
        row('streaks left', 'streak_energy_left', share, -1, 'energy of thin upright errors'),
        row('dry frames, PSNR, dB', 'clean_psnr', _TWO, 1,
            f'how little dry frames are changed; {PERFECT_DB:g} is nothing at all'),
        row('flicker', 'flicker', _TWO, -1, 'change of the error from frame to frame, of 255'),
    ], _comparable(entries))


def _bags(entries: Sequence[Entry]) -> Iterable[str]:
    runs = [entry.run for entry in entries]
    cameras = [run['cameras'] for run in runs]
    yield from table('Work of derain bag', _heads(entries), [
        Row('cameras', [len(found) for found in cameras], whole),
        Row('frames derained', [sum(one['derained'] for one in found) for found in cameras],
            whole),
        Row('frames failed', [sum(one['failed'] for one in found) for found in cameras], whole,
            -1),
        Row('messages in the new bag', [run['output']['messages'] for run in runs], whole),
        Row('mean rain intensity', [_mean_rain(found) for found in cameras], share,
            meaning='of all frames of all cameras'),
        Row('frames per second', [run['frames_per_second'] for run in runs], _ONE, 1,
            meaning='reading, deraining and writing'),
        Row('processes', [run['workers'] for run in runs], whole),
    ], _comparable(entries))


def _mean_rain(cameras: Sequence[dict]) -> float | None:
    found = [value for camera in cameras for value in camera['frames']['rain_intensity']]
    return sum(found) / len(found) if found else None


def _replay(entries: Sequence[Entry]) -> Iterable[str]:
    runs = [entry.run['runs'][0] for entry in entries]

    def worst(group: str, key: str) -> list[float | None]:
        """Return the highest of all cameras of each run."""
        return [max((camera[group][key] for camera in run['cameras']
                     if camera[group][key] is not None), default=None) for run in runs]

    def total(key: str) -> list[float | None]:
        return [sum(camera[key] for camera in run['cameras'] if camera[key] is not None)
                if any(camera[key] is not None for camera in run['cameras']) else None
                for run in runs]

    searches = [entry.run['search'] or {} for entry in entries]
    yield from table('The node on the replayed bag', _heads(entries), [
        Row('speed', [run['factor'] for run in runs], '{:g} ×'.format,
            meaning='times the recorded rate'),
        Row('cameras', [len(run['cameras']) for run in runs], whole),
        Row('offered, frames/s', total('offered_fps'), _ONE, meaning='all cameras'),
        Row('received, frames/s', [run['fps'] for run in runs], _ONE, 1,
            meaning='derained images in the listener'),
        Row('loss', [run['loss'] for run in runs], share, -1, meaning='sent, never received'),
        *(Row(f'latency {name}, ms', worst('latency_ms', name), _ONE, -1, meaning=meaning)
          for name, meaning in (('p50', 'from the publisher to the derained image in the '
                                        'listener; of the slowest camera'),
                                ('p95', ''), ('p99', ''))),
        *(Row(f'age {name}, ms', worst('age_ms', name), _ONE, -1, meaning=meaning)
          for name, meaning in (('p50', 'from the header stamp on'), ('p95', ''))),
        Row('processor, % of a core', [run['cpu_percent'] for run in runs], _ONE, -1),
        Row('processor, ms per frame', [run['cpu_ms_per_frame'] for run in runs], _ONE, -1),
        Row('memory, MiB', [run['rss_mib']['max'] for run in runs], whole, -1,
            meaning='largest resident set'),
        Row('highest factor', [one.get('highest_factor') for one in searches], _TWO, 1,
            meaning='times the recorded rate that it keeps up with'),
        Row('highest rate, frames/s', [one.get('highest_fps') for one in searches], _ONE, 1),
    ], _comparable(entries))


def _detections(entries: Sequence[Entry]) -> Iterable[str]:
    inputs = [entry.run['inputs'] for entry in entries]
    rows = []
    for label, key, meaning in (
            ('precision', 'precision', 'of what it reports, how much is right'),
            ('recall', 'recall', 'of what is there, how much it finds'),
            ('F1', 'f1', 'both in one, their harmonic mean'),
            ('mAP@0.5', 'map50', 'precision over all recalls, mean of the classes')):
        rows.append(Row(f'{label}, rainy', [one['rainy'][key] for one in inputs], share,
                        meaning=meaning))
        rows.append(Row(f'{label}, derained', [one['derained'][key] for one in inputs], share, 1,
                        [_gain(one, key) for one in inputs]))
    for label, key, better in (('frames helped', 'helped', 1), ('frames hurt', 'hurt', -1)):
        rows.append(Row(label, [entry.run[key] for entry in entries], whole, better,
                        meaning=f'frames whose F1 {"rose" if better > 0 else "fell"}'))
    yield from table('The detector on rainy and on derained frames', _heads(entries), rows,
                     _comparable(entries))


def _gain(inputs: dict, key: str) -> str:
    before, after = inputs['rainy'][key], inputs['derained'][key]
    if before is None or after is None:
        return ''
    sign = '+' if after >= before else '−'
    return f'{sign}{100 * abs(after - before):.1f} points against rainy'
