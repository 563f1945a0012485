"""The page of ``derain report`` and of ``derain evaluate --html``, from its templates.

The page is self-contained: images and plots are embedded, and its content security policy allows
only these and its own style sheet and script, by hash. Names of files and models are untrusted
input: jinja2 escapes everything that a template outputs.
"""

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from derain_ros.evaluation.gallery import Exhibit
from derain_ros.evaluation.sweep import Sweep, SweepPoint, conclude
from derain_ros.report.cameras import match_cameras
from derain_ros.report.comparisons import compare_runs
from derain_ros.report.figures import lines, quality_figures, rain_figures, timing_figures
from derain_ros.report.pictures import BagFinder, read_pictures, show_exhibits
from derain_ros.report.plots import COLOURS, Axis, Series
from derain_ros.report.runs import Entry, of_kind
from derain_ros.report.schemas import COUNTS, PERCENTILES
from derain_ros.report.tables import Table, decibel, share, ssim, tenths, whole
from derain_ros.text import printable

_CLASSES, _FRAMES, _IMAGES = 20, 5, 2000


def make_page(
    entries: Sequence[Entry], *, title: str = 'Deraining report', bag_root: Path | None = None,
    pictures: int = 3, exhibits: Sequence[Exhibit] = (),
    progress: Callable[[int], Any] = lambda count: None,
) -> tuple[str, list[str]]:
    """Return the page, an HTML document, and notes for the terminal on what is not shown.

    ``entries`` must not be empty; see :func:`derain_ros.report.runs.load_entries`. Bags are also
    looked for in ``bag_root``. ``pictures`` is the number of frames shown of each camera;
    ``exhibits`` are pictures of the first entry, which must then be of kind ``pairs``. While bags
    are checked, ``progress`` is called with the number of bytes read since the last call.
    """
    cameras = match_cameras(entries)
    groups, notes = read_pictures(
        cameras, BagFinder(bag_root, progress), pictures) if pictures else ([], [])
    if exhibits:
        groups += show_exhibits(entries[0], exhibits, len(entries[0].data.images))
    costs, changes = quality_figures(entries)
    return _render(
        'page.html', title=title, entries=entries,
        files=len({entry.file for entry in entries if entry.file.name}),
        models=list(dict.fromkeys(entry.facts.model for entry in entries if entry.facts.model)),
        comparisons=compare_runs(entries), timing=timing_figures(entries),
        timing_tables=_timing_tables(of_kind(entries, 'replay')),
        replays=of_kind(entries, 'replay'), rain=rain_figures(entries, cameras),
        costs=costs, changes=changes, groups=groups, notes=notes,
        images=[(entry, _image_table(entry)) for entry in of_kind(entries, 'pairs')],
        detections=[(entry, _detector_tables(entry)) for entry in of_kind(entries, 'detections')],
    ), notes


def make_sweep_page(sweep: Sweep, runs: Mapping[str, Sequence[SweepPoint]], pictures: int) -> str:
    """Return the page of ``derain evaluate --sweep --html``.

    ``runs`` holds the points by model name; each point is a mean over ``pictures`` images.
    """
    axis = f'{sweep.title}, {sweep.unit}'
    first = next(iter(runs.values()))
    rainy = Series('rainy', len(COLOURS) - 1, sweep.values, [p.rainy for p in first], 1)
    derained = [
        Series(f'derained by {name}', number % (len(COLOURS) - 1), sweep.values,
               [point.derained for point in points], number // (len(COLOURS) - 1))
        for number, (name, points) in enumerate(runs.items())]
    table = Table(
        f'PSNR, dB, and mask F1 by {axis}',
        (axis, 'rainy', *(f'{what}, {name}' for name in runs for what in ('derained', 'mask F1'))),
        [(f'{value:g}', decibel(first[row].rainy), *(
            text for points in runs.values()
            for text in (decibel(points[row].derained), ssim(points[row].f1))))
         for row, value in enumerate(sweep.values)])
    figures = lines('', Axis(axis), Axis('PSNR, dB'), [rainy, *derained], decibel, table)
    title = f'Deraining by {sweep.title}'
    return _render(
        'sweep.html', title=title, figures=figures, pictures=pictures,
        concluded=[(name, conclude(sweep, points)) for name, points in runs.items()])


def _render(template: str, **content: Any) -> str:
    environment = _environment()
    hashes = {f'{name.partition(".")[0]}_hash': _base64(hashlib.sha256(
        environment.get_template(name).render().encode()).digest())
        for name in ('style.css', 'script.js')}
    return environment.get_template(template).render(**content, **hashes)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name('templates')), autoescape=True,
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=lambda value: _clean(value) if type(value) is str else value)
    environment.filters |= {
        'many': lambda count, noun: f'{count} {noun}{"" if count == 1 else "s"}', 'share': share,
        'svg': lambda svg: 'data:image/svg+xml;base64,' + _base64(svg.encode()),
        'jpeg': lambda data: 'data:image/jpeg;base64,' + _base64(data)}
    return environment


def _clean(text: str) -> str:
    """Escape control characters and lone surrogates, which a run file may contain."""
    return '\N{NO-BREAK SPACE}'.join(map(printable, text.split('\N{NO-BREAK SPACE}')))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _timing_tables(replays: Sequence[Entry]) -> dict[str, list[Table]]:
    """Return tables of cameras in the first run, of runs by factor, and of the search trials."""
    cameras = [(f'{entry.letter}: {camera.camera or camera.topic}', camera)
               for entry in replays for camera in entry.run.runs[0].cameras]
    searched = [entry for entry in replays if len(entry.run.runs) > 1 or entry.run.search]
    tried = [(entry.short, f'{one.factor:g}', share(one.loss), 'yes' if one.sustained else 'no')
             for entry in searched if entry.run.search for one in entry.run.search.tried]
    return {
        'cameras': [
            Table('Latency and age of each camera', (
                'run, camera', 'sent', 'received', 'loss', 'offered, 1/s', 'got, 1/s',
                *(f'latency {name}, ms' for name in PERCENTILES), 'age p50, ms', 'age p95, ms'),
                [(name, str(camera.sent), str(camera.received), share(camera.loss),
                  tenths(camera.offered_fps), tenths(camera.fps),
                  *(tenths(getattr(camera.latency_ms, part)) for part in PERCENTILES),
                  tenths(camera.age_ms.p50), tenths(camera.age_ms.p95))
                 for name, camera in cameras]),
            Table('What the node itself counted', (
                'run, camera', *(name.replace('_', ' ') for name in COUNTS)),
                [(name, *(whole(camera.counts and getattr(camera.counts, count))
                          for count in COUNTS)) for name, camera in cameras])],
        'factors': [Table(
            'Runs by factor', (
                'run', 'factor', 'sent', 'received', 'loss', 'frames/s',
                'worst latency p95, ms', 'processor, %', 'memory, MiB'),
            [(entry.short, f'{run.factor:g}', str(run.sent), str(run.received), share(run.loss),
              tenths(run.fps), tenths(max((
                  camera.latency_ms.p95 for camera in run.cameras
                  if camera.latency_ms.p95 is not None), default=None)),
              tenths(run.cpu_percent), whole(run.rss_mib.max))
             for entry in searched for run in entry.run.runs])] if searched else [],
        'tried': [Table('Factors tried', ('run', 'factor', 'loss', 'kept up'), tried)]
        if tried else [],
    }


def _image_table(entry: Entry) -> Table:
    """Return a table with the figures of each pair; if there are too many, of the worst."""
    images = entry.data.images
    caption = f'{entry.short}: each of {len(images)}'
    if len(images) > _IMAGES:
        images = sorted(images, key=lambda one: one.psnr)[:_IMAGES]
        caption += f', the worst {_IMAGES}'
    return Table(
        caption, ('picture', 'PSNR rainy', 'derained', 'SSIM rainy', 'derained', 'streaks left',
                  'mask F1', 'dry PSNR', 'dry mask'),
        [(one.name, decibel(one.input_psnr), decibel(one.psnr), ssim(one.input_ssim),
          ssim(one.ssim), share(one.streak_energy_left), share(one.mask_f1),
          decibel(one.clean_psnr), share(one.clean_mask_coverage)) for one in images])


def _detector_tables(entry: Entry) -> Iterable[Table]:
    """Yield tables of inputs, classes, sizes, and the frames with most gain and loss in F1."""
    run, letter = entry.run, entry.letter
    yield Table(
        f'{letter}: all classes',
        ('frames', 'number', 'objects', 'detections', 'precision', 'recall', 'F1', 'mAP@0.5'),
        [(version, str(one.images), str(one.truths), str(one.detections), share(one.precision),
          share(one.recall), share(one.f1), share(one.map50))
         for version in ('rainy', 'derained', 'clean') if (one := getattr(run.inputs, version))])
    classes = sorted(run.classes, key=lambda one: -one.truths)
    shown = classes[:_CLASSES]
    more = '' if len(classes) == len(shown) else (
        f', the {len(shown)} most frequent of {len(classes)}')
    if classes:
        yield Table(
            f'{letter}: classes{more}',
            ('class', 'objects', 'AP rainy', 'AP derained', 'precision rainy', 'derained',
             'recall rainy', 'derained'),
            [(one.name, str(one.truths), *(
                share(getattr(version, key)) for key in ('ap50', 'precision', 'recall')
                for version in (one.rainy, one.derained))) for one in shown])
    yield Table(
        f'{letter}: recall by size (small below 32², large from 96² pixels)',
        ('size', 'objects', 'rainy', 'derained'),
        [(one.size, str(one.truths), share(one.rainy.recall), share(one.derained.recall))
         for one in run.sizes])
    gains = sorted(((one.derained.f1 - one.rainy.f1, one) for one in run.images),
                   key=lambda found: found[0])
    for title, chosen in (
            ('where it helps most', [one for one in gains[::-1] if one[0] > 0][:_FRAMES]),
            ('where it hurts most', [one for one in gains if one[0] < 0][:_FRAMES])):
        if chosen:
            yield Table(
                f'{letter}: {title}',
                ('frame', 'rain intensity', 'F1 rainy', 'F1 derained', 'found rainy', 'derained',
                 'false rainy', 'derained', 'missed rainy', 'derained'),
                [(one.name, share(one.rain_intensity), share(one.rainy.f1),
                  share(one.derained.f1), *(
                      str(getattr(version, key)) for key in ('tp', 'fp', 'fn')
                      for version in (one.rainy, one.derained))) for _, one in chosen])
