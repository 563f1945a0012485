"""The pictures of the report: worst, median and best frames of each camera, read from bags."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from derain_ros.bags.damage import BagError, show_time
from derain_ros.bags.frames import bits_of, decode_frame, header_stamp
from derain_ros.bags.recording import Recording
from derain_ros.evaluation.gallery import JPEG_BYTES, Exhibit, encode_pictures
from derain_ros.files.run_files import bag_facts
from derain_ros.images.overlay import draw_overlay
from derain_ros.report.cameras import CameraTakes, Take
from derain_ros.report.runs import Entry
from derain_ros.report.tables import decibel, share, ssim
from derain_ros.text import printable

ALL_BYTES = 6_400_000
"""Maximum total size of the JPEGs of a page, bytes; base64 adds a third: 8.5 MB."""

_LEAST_BYTES = 16 * 1024
_NEARBY = 5 * 10**9
"""Maximum difference in time of recording between a frame and its ground truth, ns."""


@dataclass(frozen=True)
class Article:
    """A frame with its pictures, JPEGs of one size.

    ``views`` holds them by name: ``rainy``, ``clean``, and for each run its letter (derained) and
    ``mask-`` followed by its letter (the rainy frame with the mask tinted).
    """

    title: str
    soft: str  # shown after the title, less prominently
    where: str  # identifies the frame in the alternative texts
    figures: list[tuple[Entry, str]]  # each run and its figures for the frame, as text
    width: int
    height: int
    views: dict[str, bytes]
    truth: str = ''  # the source of the clean picture, such as its topic


class Group(NamedTuple):
    """Frames that are shown together: heading, how they are ordered, and the frames."""

    title: str
    about: str
    articles: list[Article]


class Choice(NamedTuple):
    """A frame to show: title, key in :attr:`Take.places`, and time of recording, ns."""

    title: str
    key: int
    time: int


@dataclass
class BagFinder:
    """Finds the output bag of a run, in ``root`` first, and checks that it has not changed.

    ``progress`` is called with the number of bytes read since the last call, as a bag is read in
    full for its checksum; ``notes`` say why bags were not found, one note for each.
    """

    root: Path | None = None
    progress: Callable[[int], Any] = lambda count: None
    notes: list[str] = field(default_factory=list)
    _known: dict[tuple[Path, str], Path | None] = field(default_factory=dict)

    def find(self, entry: Entry) -> Path | None:
        """Return the bag of an entry of kind ``bag``; None if it is missing or has changed."""
        key = entry.file, entry.run.output.path
        if key not in self._known:
            self._known[key] = self._search(
                entry, Path(entry.run.output.path), entry.run.output.sha256)
        return self._known[key]

    def _search(self, entry: Entry, path: Path, sha256: str) -> Path | None:
        folders = [*filter(None, [self.root]), Path(), entry.file.parent]
        changed = None
        for place in dict.fromkeys(
                folder / part for folder in folders for part in (path, path.name)):
            try:
                if not place.exists():
                    continue
                if bag_facts(place, self.progress)['sha256'] == sha256:
                    return place
            except (OSError, ValueError):
                pass
            changed = changed or place
        reason = ('has changed since, or cannot be read' if changed else
                  'is not there; --bag-root names the folder it lies in')
        self.notes.append(printable(
            f'{entry.letter}: {entry.file.name}: its bag {changed or path} {reason}; its '
            'pictures are left out'))
        return None


def choose(camera: CameraTakes, count: int) -> tuple[list[Choice], bool]:
    """Choose ``count`` frames, evenly spaced in the ranking from worst to best.

    Returns them, and whether they are ranked by PSNR rather than by rain intensity.
    """
    judge = camera.judge
    frames, places = judge.camera.frames, judge.places
    keys = set(places).intersection(*(take.places for take in camera.takes)) or set(places)
    by_psnr = not keys.isdisjoint(judge.psnr)
    if by_psnr:
        order = sorted(keys & judge.psnr.keys(), key=lambda key: (judge.psnr[key][1], key))
    else:
        order = sorted(keys, key=lambda key: (-frames.rain_intensity[places[key]], key))
    ranks = sorted({round(place * (len(order) - 1) / max(1, count - 1)) for place in range(count)}
                   if order else [])
    return [Choice(_title(rank, len(order), by_psnr), order[rank],
                   frames.time[places[order[rank]]]) for rank in ranks], by_psnr


def read_pictures(
    cameras: Sequence[CameraTakes], finder: BagFinder, count: int
) -> tuple[list[Group], list[str]]:
    """Read the frames to show, at most ``count`` of each camera, to fit :data:`ALL_BYTES`.

    Cameras that are the ground truth of another are left out. Returns one group for each camera,
    and notes for the reader.
    """
    shown = [camera for camera in cameras if not camera.is_truth]
    notes: list[str] = []
    each = sum(2 + 2 * len(camera.takes) for camera in shown)
    fitting = max(1, ALL_BYTES // (_LEAST_BYTES * max(1, each)))
    if count > fitting:
        notes.append(f'{fitting} instead of {count} frames of each camera are shown: with more '
                     'the page would be too large')
        count = fitting
    budget = min(JPEG_BYTES, ALL_BYTES // max(1, each * count))
    found = []
    for camera in shown if count else ():
        choices, by_psnr = choose(camera, count)
        frames, troubles = _read(camera, finder, choices)
        notes += troubles
        articles = [article for choice in choices
                    if (article := _article(camera, choice, frames, budget))]
        judge = camera.judge.entry.short
        about = (f'Frames by PSNR after deraining by {judge}, worst first' if by_psnr else
                 'No PSNR of these frames is known; they are ordered by the rain intensity of '
                 f'{judge}, most rain first')
        if camera.judge.by_time:
            stamp = camera.judge.camera.frames.stamp[0]
            about += (f'. All header stamps are {show_time(stamp) if stamp else 0}: frames are '
                      'matched by the time of recording')
        if articles:
            found.append(Group(f'{camera.topic} of {camera.bag}', about, articles))
    return found, finder.notes + list(dict.fromkeys(notes))


def show_exhibits(entry: Entry, exhibits: Sequence[Exhibit], total: int) -> list[Group]:
    """Return a group of the worst of ``total`` pairs of an evaluation; empty without exhibits."""
    if not exhibits:
        return []
    articles = [Article(
        f'{number}. {printable(one.score.name)}', '', printable(one.score.name),
        [(entry, f'PSNR {decibel(one.score.input_psnr)} → {decibel(one.score.psnr)} dB, '
                 f'SSIM {ssim(one.score.input_ssim)} → {ssim(one.score.ssim)}, '
                 f'streaks left {share(one.score.streak_energy_left)}, '
                 f'mask F1 {share(one.score.mask.f1)}')],
        one.width, one.height,
        {'rainy': one.rainy, entry.letter: one.derained, f'mask-{entry.letter}': one.overlay,
         'clean': one.clean}) for number, one in enumerate(exhibits, start=1)]
    shown = f'All {total}' if len(exhibits) == total else f'The worst {len(exhibits)} of {total}'
    return [Group('', f'{shown} by PSNR, worst first', articles)]


def _read(
    camera: CameraTakes, finder: BagFinder, choices: Sequence[Choice]
) -> tuple[dict[tuple[str, int], np.ndarray], list[str]]:
    """Read all versions of the frames; rainy and clean ones are from the first bag found."""
    found: dict[tuple[str, int], np.ndarray] = {}
    notes: list[str] = []
    for take in camera.takes:
        bag, letter = finder.find(take.entry), take.entry.letter
        if bag is None:
            continue
        names = {take.camera.image: letter, take.camera.rain_mask: f'mask-{letter}'}
        if not any(name == 'rainy' for name, _ in found):
            names |= {camera.topic: 'rainy', camera.clean_topic: 'clean'}
        try:
            with Recording(bag) as recording:
                bits = next((bits_of(recording, topic) for topic in recording.image_topics
                             if printable(topic) == camera.topic), 16)
                for topic, choice in product(recording.image_topics, choices):
                    key = names.get(printable(topic)), choice.key
                    if key[0] is None or key in found:
                        continue
                    nearby = _NEARBY if key[0] == 'clean' else 0
                    for connection, time, data in recording.read(
                            topic, start=choice.time - nearby, stop=choice.time + nearby + 1):
                        if choice.key != (time if take.by_time else header_stamp(data) or 0):
                            continue
                        try:
                            found[key] = decode_frame(connection, data, bits)
                        except ValueError as error:
                            notes.append(printable(f'{letter}: {topic} at {choice.key}: {error}'))
                        break
        except BagError as error:
            notes.append(printable(f'{letter}: {error}'))
        if choices and not any(name == letter for name, _ in found):
            notes.append(printable(
                f'{letter}: no frames of {take.camera.image} in {bag.name} have the stamps of '
                'the run file; its pictures are left out'))
    return found, notes


def _article(
    camera: CameraTakes, choice: Choice, frames: dict[tuple[str, int], np.ndarray], budget: int
) -> Article | None:
    """Return the pictures of a frame; None if no derained version can be shown."""
    rainy = frames.get(('rainy', choice.key))
    if rainy is None:
        return None
    views = {'rainy': rainy}
    figures = []
    for take in camera.takes:
        letter = take.entry.letter
        derained = frames.get((letter, choice.key))
        mask = frames.get((f'mask-{letter}', choice.key))
        if derained is None or derained.shape != rainy.shape:
            continue
        views[letter] = derained
        figures.append((take.entry, _told(take, choice.key)))
        if mask is not None and mask.shape == rainy.shape:
            views[f'mask-{letter}'] = draw_overlay(rainy, np.ascontiguousarray(mask[..., 0]))
    if not figures:
        return None
    clean = frames.get(('clean', choice.key))
    if clean is not None and clean.shape == rainy.shape:
        views['clean'] = clean
    height, width, files = encode_pictures(list(views.values()), budget)
    at = f'at {(choice.time - camera.start) / 1e9:.2f} s'
    return Article(choice.title, at, f'frame {at} of {camera.topic}', figures, width, height,
                   dict(zip(views, files, strict=True)), camera.clean_topic or '')


def _title(rank: int, total: int, by_psnr: bool) -> str:
    words = ('Worst', 'Median', 'Best') if by_psnr else ('Most rain', 'Median rain', 'Least rain')
    named = {0: words[0], total - 1: words[2], round((total - 1) / 2): words[1]}
    return words[0] if rank == 0 else named.get(rank, f'{rank + 1} of {total}')


def _told(take: Take, key: int) -> str:
    """Describe a frame of a take: PSNR, rain intensity and mask coverage, if known."""
    told = []
    if key in take.psnr:
        before, after = take.psnr[key]
        told.append(f'PSNR {decibel(before)} → {decibel(after)} dB ({after - before:+.2f})')
    if (place := take.places.get(key)) is not None:
        frames = take.camera.frames
        told.append(f'rain intensity {share(frames.rain_intensity[place])}, mask covers '
                    f'{share(frames.mask_coverage[place])}')
    return ', '.join(told)
