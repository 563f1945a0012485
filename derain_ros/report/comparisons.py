"""The summary of the report: the most important figures, one table for each kind of run."""

from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import PurePath
from typing import Any, NamedTuple

from derain_ros.evaluation.metrics import PERFECT_DB
from derain_ros.evaluation.rain_metrics import STREAK_WIDTH, TRUTH_THRESHOLD
from derain_ros.rain_gate import MASK_THRESHOLD
from derain_ros.report.runs import Entry, of_kind
from derain_ros.report.tables import Row, decibel, share, ssim, tenths, whole


class RunTable(NamedTuple):
    """A table of runs of one kind; ``comparable`` marks those on the same data as the first."""

    title: str
    caption: str
    entries: Sequence[Entry]
    rows: Sequence[Row]
    comparable: Sequence[bool]

    @property
    def repeated(self) -> bool:
        """Whether another run is comparable with the first one."""
        return sum(self.comparable) > 1


def compare_runs(entries: Sequence[Entry]) -> list[RunTable]:
    """Return a table for each kind of run."""
    return [
        RunTable(title, caption, chosen, [
            Row(label, [_read(value, entry) for entry in chosen], form, better,
                [_read(note, entry) for entry in chosen] if note else (), meaning)
            for label, value, form, better, meaning, note in (
                (*row, *('', '')[len(row) - 4:]) for row in rows)],
            [_basis(entry) == _basis(chosen[0]) for entry in chosen])
        for kind, title, caption, rows in _TABLES if (chosen := of_kind(entries, kind))]


def cost_of(entry: Entry) -> float | None:
    """Return the cost of the model of a ``pairs`` entry in kFLOP per pixel; None if unknown."""
    flops = entry.data.flops_per_pixel
    return flops / 1e3 if flops else None


def _read(value: str | Callable[[Entry], Any], entry: Entry) -> Any:
    return value(entry) if callable(value) else attrgetter(value)(entry)


def _basis(entry: Entry) -> tuple:
    """Return the data and settings of a measurement; figures with equal ones are comparable."""
    run = entry.run
    if entry.kind == 'bag':
        return (run.source.sha256, run.start_s, run.duration_s, run.every,
                *(camera.source for camera in run.cameras))
    if entry.kind == 'replay':
        first = run.runs[0]
        return run.bag.sha256, first.factor, *(camera.topic for camera in first.cameras)
    source = run.source
    # Only the name: the path of a bag depends on the working directory.
    read = (PurePath(source.bag or '').name, source.rainy_topic, source.clean_topic,
            source.rainy, source.clean)
    if entry.kind == 'pairs':
        return *read, entry.data.summary.pairs
    rainy = run.inputs.rainy
    return (*read, run.detector.sha256, run.detector.score_threshold, run.reference,
            run.match_iou, rainy.images, rainy.truths)


def _total(key: str) -> Callable[[Entry], int]:
    return lambda entry: sum(getattr(camera, key) for camera in entry.run.cameras)


def _mean_rain(entry: Entry) -> float | None:
    rain = [value for camera in entry.run.cameras for value in camera.frames.rain_intensity]
    return sum(rain) / len(rain) if rain else None


def _of_cameras(path: str, total: Callable = max) -> Callable[[Entry], float | None]:
    def read(entry: Entry) -> float | None:
        found = [attrgetter(path)(camera) for camera in entry.run.runs[0].cameras]
        found = [value for value in found if value is not None]
        return total(found) if found else None
    return read


def _first(path: str) -> Callable[[Entry], Any]:
    return lambda entry: attrgetter(path)(entry.run.runs[0])


def _searched(key: str) -> Callable[[Entry], float | None]:
    return lambda entry: entry.run.search and getattr(entry.run.search, key)


def _gain(key: str) -> Callable[[Entry], str]:
    def told(entry: Entry) -> str:
        before, after = (getattr(getattr(entry.run.inputs, version), key)
                         for version in ('rainy', 'derained'))
        return '' if before is None or after is None else (
            f'{"+" if after >= before else "−"}{100 * abs(after - before):.1f} points against '
            'rainy')
    return told


_OF_RAIN = 'of the rainy frames themselves'
# Kind, title, caption, rows. Each row: label, attribute or function to read, format, 1 if higher
# is better and -1 if lower is, meaning, and attribute or function for a note below the figure.
_TABLES = (
    ('pairs', 'Quality against ground truth',
     'Quality of the derained pictures against the clean ones', (
         ('pairs', 'data.summary.pairs', whole, 0, 'of rainy and clean frames'),
         ('PSNR of the rain, dB', 'data.summary.input_psnr', decibel, 0, _OF_RAIN),
         ('PSNR, dB', 'data.summary.psnr', decibel, 1,
          'closeness to the clean frames on luma, mean; +6 halves the error'),
         ('worst PSNR, dB', 'data.summary.worst_psnr', decibel, 1,
          'the frame least close to its clean one', 'data.summary.worst_psnr_image'),
         ('SSIM of the rain', 'data.summary.input_ssim', ssim, 0, _OF_RAIN),
         ('SSIM', 'data.summary.ssim', ssim, 1,
          'structural similarity, mean; 1 is the clean frame'),
         ('worst SSIM', 'data.summary.worst_ssim', ssim, 1,
          'the frame least similar to its clean one', 'data.summary.worst_ssim_image'),
         ('made worse', 'data.summary.made_worse', whole, -1, 'frames whose PSNR fell'),
         ('streaks left', 'data.summary.streak_energy_left', share, -1,
          f'energy of upright errors up to {STREAK_WIDTH} pixels wide, as a share of that before'),
         ('mask precision', 'data.summary.mask_precision', share, 1,
          f'share of the mask (from {MASK_THRESHOLD} on) that is rain'),
         ('mask recall', 'data.summary.mask_recall', share, 1,
          f'share of the rain (brighter by more than {TRUTH_THRESHOLD:g} of 255) that the mask '
          'finds'),
         ('mask F1', 'data.summary.mask_f1', share, 1, 'harmonic mean of precision and recall'),
         ('mask IoU', 'data.summary.mask_iou', share, 1,
          'rain in mask and ground truth, of that in either'),
         ('dry frames, PSNR, dB', 'data.summary.clean_psnr', decibel, 1,
          f'how little dry frames are changed; {PERFECT_DB:g} is nothing at all'),
         ('dry frames, worst, dB', 'data.summary.worst_clean_psnr', decibel, 1,
          'the dry frame that was changed most', 'data.summary.worst_clean_psnr_image'),
         ('dry frames, mask', 'data.summary.clean_mask_coverage', share, -1,
          'share of the dry frames that is taken for rain'),
         ('flicker of the rain', 'data.summary.input_flicker', decibel, 0, _OF_RAIN),
         ('flicker', 'data.summary.flicker', decibel, -1,
          'change of the error from frame to frame, RMS, of 255'),
         ('error where the scene moves', 'data.summary.moving_error', decibel, -1,
          'RMS, of 255: ghosts of the previous frame show here'),
         ('cost, kFLOP/px', cost_of, tenths, 0,
          'arithmetic for each pixel; a multiply-add counts two'))),
    ('replay', 'Live, on the replayed bag', 'The node on the replayed bag', (
        ('speed', _first('factor'), '{:g} ×'.format, 0, 'times the recorded rate'),
        ('cameras', lambda entry: len(entry.run.runs[0].cameras), whole, 0),
        ('offered, frames/s', _of_cameras('offered_fps', sum), tenths, 0, 'all cameras'),
        ('received, frames/s', _first('fps'), tenths, 1, 'derained images in the listener'),
        ('loss', _first('loss'), share, -1, 'sent, never received'),
        ('latency p50, ms', _of_cameras('latency_ms.p50'), tenths, -1,
         'from the publisher to the derained image in the listener; of the slowest camera'),
        ('latency p95, ms', _of_cameras('latency_ms.p95'), tenths, -1),
        ('latency p99, ms', _of_cameras('latency_ms.p99'), tenths, -1),
        ('age p50, ms', _of_cameras('age_ms.p50'), tenths, -1, 'from the header stamp on'),
        ('age p95, ms', _of_cameras('age_ms.p95'), tenths, -1),
        ('processor, % of a core', _first('cpu_percent'), tenths, -1),
        ('processor, ms per frame', _first('cpu_ms_per_frame'), tenths, -1),
        ('memory, MiB', _first('rss_mib.max'), whole, -1, 'largest resident set'),
        ('highest factor', _searched('highest_factor'), decibel, 1,
         'times the recorded rate that it keeps up with'),
        ('highest rate, frames/s', _searched('highest_fps'), tenths, 1))),
    ('detections', 'Detector on rainy and on derained frames',
     'The detector on rainy and on derained frames', (
         *(row for label, key, meaning in (
             ('precision', 'precision', 'share of its detections that are right'),
             ('recall', 'recall', 'share of the objects that it finds'),
             ('F1', 'f1', 'harmonic mean of the two'),
             ('mAP@0.5', 'map50', 'precision over all recalls, mean of the classes'))
           for row in ((f'{label}, rainy', f'run.inputs.rainy.{key}', share, 0, meaning),
                       (f'{label}, derained', f'run.inputs.derained.{key}', share, 1, '',
                        _gain(key)))),
         ('frames helped', 'run.helped', whole, 1, 'frames whose F1 rose'),
         ('frames hurt', 'run.hurt', whole, -1, 'frames whose F1 fell'))),
    ('bag', 'Recorded bags', 'Work of derain bag', (
        ('cameras', lambda entry: len(entry.run.cameras), whole, 0),
        ('frames derained', _total('derained'), whole, 0),
        ('frames failed', _total('failed'), whole, -1),
        ('messages in the new bag', 'run.output.messages', whole, 0),
        ('mean rain intensity', _mean_rain, share, 0, 'of all frames of all cameras'),
        ('frames per second', 'run.frames_per_second', tenths, 1,
         'reading, deraining and writing'),
        ('processes', 'run.workers', whole, 0))))
