"""The summary of the report: the figures that decide, one table for each kind of run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from derain_ros.evaluation.metrics import PERFECT_DB
from derain_ros.evaluation.rain_metrics import STREAK_WIDTH, TRUTH_THRESHOLD
from derain_ros.rain_gate import MASK_THRESHOLD
from derain_ros.report.runs import Entry, of_kind
from derain_ros.report.tables import Form, Row, decibel, decimals, share, ssim, whole

_ONE = decimals(1)


@dataclass(frozen=True)
class RunTable:
    """Runs of one kind beside each other, and which measured the same as the first."""

    title: str
    caption: str
    entries: Sequence[Entry]
    rows: Sequence[Row]
    comparable: Sequence[bool]

    @property
    def repeated(self) -> bool:
        """Whether a run measured what the first one did."""
        return sum(self.comparable) > 1


def compare_runs(entries: Sequence[Entry]) -> list[RunTable]:
    """Return a table for each kind of run."""
    return [
        RunTable(title, caption, chosen, build(chosen),
                   [_basis(entry) == _basis(chosen[0]) for entry in chosen])
        for kind, title, caption, build in (
            ('pairs', 'Quality against ground truth',
             'Quality of the derained pictures against the clean ones', _pairs),
            ('replay', 'Live, on the replayed bag', 'The node on the replayed bag', _replay),
            ('detections', 'Detector on rainy and on derained frames',
             'The detector on rainy and on derained frames', _detections),
            ('bag', 'Recorded bags', 'Work of derain bag', _bags))
        if (chosen := of_kind(entries, kind))]


def _basis(entry: Entry) -> tuple:
    """Return what was measured, whatever measured it; equal where figures can be compared."""
    run = entry.run
    if entry.kind == 'bag':
        return (run.source.sha256, run.start_s, run.duration_s, run.every,
                *(camera.source for camera in run.cameras))
    if entry.kind == 'replay':
        first = run.runs[0]
        return run.bag.sha256, first.factor, *(camera.topic for camera in first.cameras)
    source = run.source
    # The same bag may be named from another working directory.
    read = (PurePath(source.bag or '').name, source.rainy_topic, source.clean_topic,
            source.rainy, source.clean)
    if entry.kind == 'pairs':
        return *read, entry.data.summary.pairs
    rainy = run.inputs.rainy
    return (*read, run.detector.sha256, run.detector.score_threshold, run.reference,
            run.match_iou, rainy.images, rainy.truths)


def _column(found: Sequence[Any], key: str) -> list[Any]:
    return [getattr(one, key) for one in found]


def _pairs(entries: Sequence[Entry]) -> list[Row]:
    found = [entry.data.summary for entry in entries]

    def row(label: str, key: str, form: Form, better: int, meaning: str, note: str = '') -> Row:
        return Row(label, _column(found, key), form, better,
                   _column(found, note) if note else (), meaning)

    return [
        row('pairs', 'pairs', whole, 0, 'of rainy and clean frames'),
        row('PSNR of the rain, dB', 'input_psnr', decibel, 0, 'of the rainy frames themselves'),
        row('PSNR, dB', 'psnr', decibel, 1,
            'closeness to the clean frames on luma, mean; +6 halves the error'),
        row('worst PSNR, dB', 'worst_psnr', decibel, 1, 'the frame least close to its clean one',
            'worst_psnr_image'),
        row('SSIM of the rain', 'input_ssim', ssim, 0, 'of the rainy frames themselves'),
        row('SSIM', 'ssim', ssim, 1, 'structural similarity, mean; 1 is the clean frame'),
        row('worst SSIM', 'worst_ssim', ssim, 1, 'the frame least similar to its clean one',
            'worst_ssim_image'),
        row('made worse', 'made_worse', whole, -1, 'frames whose PSNR fell'),
        row('streaks left', 'streak_energy_left', share, -1,
            f'energy of upright errors up to {STREAK_WIDTH} pixels wide, of that before'),
        row('mask precision', 'mask_precision', share, 1,
            f'share of the mask (from {MASK_THRESHOLD} on) that is rain'),
        row('mask recall', 'mask_recall', share, 1,
            f'share of the rain (brighter by more than {TRUTH_THRESHOLD:g} of 255) that the mask '
            'finds'),
        row('mask F1', 'mask_f1', share, 1, 'harmonic mean of precision and recall'),
        row('mask IoU', 'mask_iou', share, 1, 'rain in mask and ground truth, of that in either'),
        row('dry frames, PSNR, dB', 'clean_psnr', decibel, 1,
            f'how little dry frames are changed; {PERFECT_DB:g} is nothing at all'),
        row('dry frames, worst, dB', 'worst_clean_psnr', decibel, 1,
            'the dry frame that was changed most', 'worst_clean_psnr_image'),
        row('dry frames, mask', 'clean_mask_coverage', share, -1,
            'share of the dry frames that is taken for rain'),
        row('flicker of the rain', 'input_flicker', decibel, 0, 'of the rainy frames themselves'),
        row('flicker', 'flicker', decibel, -1,
            'change of the error from frame to frame, RMS, of 255'),
        Row('cost, kFLOP/px', [cost_of(entry) for entry in entries], _ONE,
            meaning='arithmetic for each pixel; a multiply-add counts two'),
    ]


def cost_of(entry: Entry) -> float | None:
    """Return the cost of the model of a ``pairs`` entry in kFLOP per pixel, if it is known."""
    flops = entry.data.flops_per_pixel
    return flops / 1e3 if flops else None


def _bags(entries: Sequence[Entry]) -> list[Row]:
    runs = [entry.run for entry in entries]
    cameras = [run.cameras for run in runs]

    def total(key: str) -> list[int]:
        return [sum(_column(found, key)) for found in cameras]

    rain = [[value for camera in found for value in camera.frames.rain_intensity]
            for found in cameras]
    return [
        Row('cameras', [len(found) for found in cameras], whole),
        Row('frames derained', total('derained'), whole),
        Row('frames failed', total('failed'), whole, -1),
        Row('messages in the new bag', [run.output.messages for run in runs], whole),
        Row('mean rain intensity', [sum(one) / len(one) if one else None for one in rain], share,
            meaning='of all frames of all cameras'),
        Row('frames per second', _column(runs, 'frames_per_second'), _ONE, 1,
            meaning='reading, deraining and writing'),
        Row('processes', _column(runs, 'workers'), whole),
    ]


def _replay(entries: Sequence[Entry]) -> list[Row]:
    runs = [entry.run.runs[0] for entry in entries]

    def of_cameras(read: Callable[[Any], float | None], total: Callable) -> list[float | None]:
        found = [[value for camera in run.cameras if (value := read(camera)) is not None]
                 for run in runs]
        return [total(one) if one else None for one in found]

    def spread(label: str, group: str, name: str, meaning: str = '') -> Row:
        return Row(f'{label} {name}, ms', of_cameras(
            lambda camera: getattr(getattr(camera, group), name), max), _ONE, -1, (), meaning)

    searches = [entry.run.search for entry in entries]
    return [
        Row('speed', _column(runs, 'factor'), '{:g} ×'.format, meaning='times the recorded rate'),
        Row('cameras', [len(run.cameras) for run in runs], whole),
        Row('offered, frames/s', of_cameras(lambda camera: camera.offered_fps, sum), _ONE,
            meaning='all cameras'),
        Row('received, frames/s', _column(runs, 'fps'), _ONE, 1,
            meaning='derained images in the listener'),
        Row('loss', _column(runs, 'loss'), share, -1, meaning='sent, never received'),
        spread('latency', 'latency_ms', 'p50',
               'from the publisher to the derained image in the listener; of the slowest camera'),
        *(spread('latency', 'latency_ms', name) for name in ('p95', 'p99')),
        spread('age', 'age_ms', 'p50', 'from the header stamp on'),
        spread('age', 'age_ms', 'p95'),
        Row('processor, % of a core', _column(runs, 'cpu_percent'), _ONE, -1),
        Row('processor, ms per frame', _column(runs, 'cpu_ms_per_frame'), _ONE, -1),
        Row('memory, MiB', [run.rss_mib.max for run in runs], whole, -1,
            meaning='largest resident set'),
        Row('highest factor', [one and one.highest_factor for one in searches], decibel, 1,
            meaning='times the recorded rate that it keeps up with'),
        Row('highest rate, frames/s', [one and one.highest_fps for one in searches], _ONE, 1),
    ]


def _detections(entries: Sequence[Entry]) -> list[Row]:
    inputs = [entry.run.inputs for entry in entries]
    rows = []
    for label, key, meaning in (
            ('precision', 'precision', 'share of its detections that are right'),
            ('recall', 'recall', 'share of the objects that it finds'),
            ('F1', 'f1', 'harmonic mean of the two'),
            ('mAP@0.5', 'map50', 'precision over all recalls, mean of the classes')):
        rainy, derained = ([getattr(getattr(one, version), key) for one in inputs]
                           for version in ('rainy', 'derained'))
        gains = ['' if before is None or after is None else
                 f'{"+" if after >= before else "−"}{100 * abs(after - before):.1f} points '
                 'against rainy' for before, after in zip(rainy, derained, strict=True)]
        rows += [Row(f'{label}, rainy', rainy, share, meaning=meaning),
                 Row(f'{label}, derained', derained, share, 1, gains)]
    runs = [entry.run for entry in entries]
    return [*rows,
            Row('frames helped', _column(runs, 'helped'), whole, 1, (), 'frames whose F1 rose'),
            Row('frames hurt', _column(runs, 'hurt'), whole, -1, (), 'frames whose F1 fell')]
