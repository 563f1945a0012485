"""The pictures of the report: worst, median and best frames of each camera."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from derain_ros.evaluation.gallery import JPEG_BYTES, encode_pictures
from derain_ros.images.overlay import draw_overlay
from derain_ros.report.bag_pictures import BagFinder, read_frames
from derain_ros.report.camera_takes import CameraTakes, Take, unique_stamps

ALL_BYTES = 6_400_000
"""Most bytes of all JPEGs of a page, which base64 makes a third more: 8.5 MB."""

_LEAST_BYTES = 16 * 1024


@dataclass(frozen=True)
class Choice:
    """A frame to show.

    Attributes
    ----------
    title
        Why it is shown.
    stamp, time
        Header stamp and time of recording, ns.

    """

    title: str
    stamp: int
    time: int


@dataclass(frozen=True)
class Shown:
    """A frame with its pictures, JPEG files of one size.

    Attributes
    ----------
    choice
        The frame.
    width, height
        Of the JPEGs, pixels.
    views
        JPEGs by name: ``rainy``, ``clean``, and for each take its letter (derained) and
        ``mask-`` with its letter (the rainy frame with the mask tinted).

    """

    choice: Choice
    width: int
    height: int
    views: dict[str, bytes]


def choose(camera: CameraTakes, count: int) -> tuple[list[Choice], bool]:
    """Choose frames from the worst to the best.

    Parameters
    ----------
    camera
        The camera.
    count
        How many; they lie at equal distances in the order from worst to best.

    Returns
    -------
    tuple
        The frames, and whether they are ordered by PSNR; else by rain intensity.

    """
    judge = camera.judge
    frames, places = judge.camera['frames'], unique_stamps(judge.camera)
    common = [set(unique_stamps(take.camera)) for take in camera.takes]
    stamps = set.intersection(*common) or set(places)
    by_psnr = not stamps.isdisjoint(judge.psnr)
    if by_psnr:
        order = sorted(stamps & judge.psnr.keys(), key=lambda stamp: (judge.psnr[stamp][1], stamp))
    else:
        order = sorted(stamps, key=lambda stamp: (
            -frames['rain_intensity'][places[stamp]], stamp))
    ranks = sorted({round(place * (len(order) - 1) / max(1, count - 1)) for place in range(count)}
                   if order else [])
    return [Choice(_title(rank, len(order), by_psnr), order[rank],
                   frames['time'][places[order[rank]]]) for rank in ranks], by_psnr


def read_pictures(
    cameras: Sequence[CameraTakes], finder: BagFinder, count: int
) -> tuple[list[tuple[CameraTakes, bool, list[Shown]]], list[str]]:
    """Read the frames to show, and reduce them so that the page stays small.

    Parameters
    ----------
    cameras
        Cameras; those that are the truth of another are left out.
    finder
        Knows the bags.
    count
        Frames of each camera.

    Returns
    -------
    tuple
        Cameras, whether their frames are ordered by PSNR, and the frames; then notes, printable.

    """
    shown = [camera for camera in cameras if not camera.is_truth]
    notes: list[str] = []
    each = sum(2 + 2 * len(camera.takes) for camera in shown)
    fitting = max(1, ALL_BYTES // (_LEAST_BYTES * max(1, each)))
    if count > fitting:
        notes.append(f'{fitting} instead of {count} frames of each camera are shown, or the page '
                     'would become too large')
        count = fitting
    budget = min(JPEG_BYTES, ALL_BYTES // max(1, each * count))
    found = []
    for camera in shown if count else ():
        choices, by_psnr = choose(camera, count)
        frames, troubles = _read(camera, finder, choices)
        notes += troubles
        complete = [exhibit for choice in choices
                    if (exhibit := _encode(camera, choice, frames, budget))]
        if complete:
            found.append((camera, by_psnr, complete))
    return found, finder.notes + list(dict.fromkeys(notes))


def _read(
    camera: CameraTakes, finder: BagFinder, choices: Sequence[Choice]
) -> tuple[dict[tuple[str, int], np.ndarray], list[str]]:
    """Read all versions of the frames, rainy and clean ones from the first bag that is there."""
    found: dict[tuple[str, int], np.ndarray] = {}
    notes: list[str] = []
    for take in camera.takes:
        bag = finder.find(take.entry)
        if bag is None:
            continue
        letter, places = take.entry.letter, unique_stamps(take.camera)
        topics = {letter: take.camera['image'], 'rainy': camera.topic}
        if take.camera['rain_mask'] is not None:
            topics[f'mask-{letter}'] = take.camera['rain_mask']
        if camera.clean_topic is not None:
            topics['clean'] = camera.clean_topic
        if ('rainy', choices[0].stamp if choices else 0) in found:
            topics = {name: topic for name, topic in topics.items()
                      if name not in ('rainy', 'clean')}
        times = {choice.stamp: take.camera['frames']['time'][places[choice.stamp]]
                 for choice in choices if choice.stamp in places}
        frames, troubles = read_frames(bag, times, topics, ('clean',))
        found |= {key: frame for key, frame in frames.items() if key not in found}
        notes += [f'{letter}: {trouble}' for trouble in troubles]
        if times and not any(name == letter for name, _ in frames):
            notes.append(f'{letter}: no frames of {take.camera["image"]} in {bag.name} bear the '
                         'stamps of the run file; its pictures are left out')
    return found, notes


def _encode(
    camera: CameraTakes, choice: Choice, frames: dict[tuple[str, int], np.ndarray], budget: int
) -> Shown | None:
    """Return the pictures of a frame; None where not even one result can be shown."""
    rainy = frames.get(('rainy', choice.stamp))
    if rainy is None:
        return None
    views = {'rainy': rainy}
    for take in camera.takes:
        letter = take.entry.letter
        derained = frames.get((letter, choice.stamp))
        mask = frames.get((f'mask-{letter}', choice.stamp))
        if derained is None or derained.shape != rainy.shape:
            continue
        views[letter] = derained
        if mask is not None and mask.shape == rainy.shape:
            views[f'mask-{letter}'] = draw_overlay(rainy, np.ascontiguousarray(mask[..., 0]))
    if len(views) == 1:
        return None
    clean = frames.get(('clean', choice.stamp))
    if clean is not None and clean.shape == rainy.shape:
        views['clean'] = clean
    height, width, files = encode_pictures(list(views.values()), budget)
    return Shown(choice, width, height, dict(zip(views, files, strict=True)))


def _title(rank: int, total: int, by_psnr: bool) -> str:
    words = ('Worst', 'Median', 'Best') if by_psnr else ('Most rain', 'Median rain', 'Least rain')
    if rank == 0:
        return words[0]
    if rank == total - 1:
        return words[2]
    if rank == round((total - 1) / 2):
        return words[1]
    return f'{rank + 1} of {total}'


def figures_of(take: Take, stamp: int) -> Iterable[tuple[str, float]]:
    """Yield what is known of a frame: name of the figure and value."""
    place = unique_stamps(take.camera).get(stamp)
    if stamp in take.psnr:
        yield 'before', take.psnr[stamp][0]
        yield 'after', take.psnr[stamp][1]
    if place is not None:
        yield 'rain', take.camera['frames']['rain_intensity'][place]
        yield 'mask', take.camera['frames']['mask_coverage'][place]
