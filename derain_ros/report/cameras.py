"""Which runs are of the same camera: bags by their source, ground truth by topic and stamps."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from derain_ros.report.runs import Entry, of_kind

_STAMP = re.compile(r'(-?[0-9]{1,10})\.([0-9]{9})', re.ASCII)


@dataclass(frozen=True)
class Take:
    """A camera as one run derained it.

    Attributes
    ----------
    entry
        The run, of kind ``bag``.
    camera
        Its part of the run file.
    places
        Position of each frame in the run file, by what identifies it: the header stamp, or the
        time of recording where the camera has no stamps of its own (see :attr:`by_time`).
    by_time
        All header stamps are 0, so that frames are told apart by the time of recording.
    psnr
        PSNR in dB of the rainy and of the derained frame against the truth, by header stamp in
        ns; empty where no ``pairs`` run of the same model knows these frames.

    """

    entry: Entry
    camera: Any
    places: dict[int, int]
    by_time: bool
    psnr: dict[int, tuple[float, float]]


@dataclass(frozen=True)
class CameraTakes:
    """A recorded image topic, and all runs that derained it from the same bag.

    Attributes
    ----------
    topic
        Its name.
    bag
        Name of the bag, without its folder.
    takes
        At least one, in the order of the runs.
    clean_topic
        The topic of its ground truth; None where it is not known.
    is_truth
        The topic is itself the ground truth of another one.

    """

    topic: str
    bag: str
    takes: tuple[Take, ...]
    clean_topic: str | None
    is_truth: bool

    @property
    def judge(self) -> Take:
        """The take whose figures say which frames are the worst: the first with PSNR, if any."""
        return next((take for take in self.takes if take.psnr), self.takes[0])

    @property
    def start(self) -> int:
        """Time of the first frame of any take, ns; 0 where there is none."""
        return min((take.camera.frames.time[0] for take in self.takes if take.camera.frames.time),
                   default=0)


def match_cameras(entries: Sequence[Entry]) -> list[CameraTakes]:
    """Return the cameras of all ``bag`` runs, in the order of the run files."""
    groups: dict[tuple[str, str], list[tuple[Entry, Any]]] = {}
    for entry in of_kind(entries, 'bag'):
        for camera in entry.run.cameras:
            groups.setdefault((entry.run.source.sha256, camera.source), []).append((entry, camera))
    truths = [entry for entry in of_kind(entries, 'pairs')
              if entry.run.source.rainy_topic is not None
              and entry.run.source.clean_topic is not None]
    found = []
    for (_, topic), members in groups.items():
        takes = tuple(_take(entry, camera, truths) for entry, camera in members)
        stamps = {stamp for _, camera in members for stamp in camera.frames.stamp}
        path = members[0][0].run.source.path
        clean = [truth.run.source.clean_topic for truth in _related(members[0][0], truths)
                 if truth.run.source.rainy_topic == topic
                 and stamps & _pair_stamps(truth).keys()]
        is_truth = any(truth.run.source.clean_topic == topic for truth in truths)
        found.append(CameraTakes(topic, PurePath(path).name or path, takes,
                                 clean[0] if clean else None, is_truth))
    return found


def _take(entry: Entry, camera: Any, truths: Sequence[Entry]) -> Take:
    by_time = len(camera.frames.stamp) > 1 and not any(camera.frames.stamp)
    keys = camera.frames.time if by_time else camera.frames.stamp
    counts = Counter(keys)
    places = {key: place for place, key in enumerate(keys) if counts[key] == 1}
    return Take(entry, camera, places, by_time,
                {} if by_time else _psnr(entry, camera, places, truths))


def _psnr(
    entry: Entry, camera: Any, stamps: dict[int, int], truths: Sequence[Entry]
) -> dict[int, tuple[float, float]]:
    """Find the figures of the same model on the same frames."""
    # With another strength the frames are others than those that were measured.
    if entry.run.strength != 1:
        return {}
    for exact in (('sha256', 'engine', 'precision'), ('sha256', 'engine'), ('sha256',)):
        for truth in _related(entry, truths):
            if (truth.run.source.rainy_topic == camera.source
                    and all(getattr(truth.facts, name) == getattr(entry.facts, name)
                            for name in exact)):
                found = {stamp: (image.input_psnr, image.psnr)
                         for stamp, image in _pair_stamps(truth).items() if stamp in stamps}
                if found:
                    return found
    return {}


def _related(entry: Entry, truths: Sequence[Entry]) -> list[Entry]:
    """Return what was measured on a bag of the same name as that of a run, or else all.

    Rain may have been put into one drive twice, with the same topics and stamps.
    """
    names = {PurePath(bag.path).name for bag in (entry.run.source, entry.run.output)}
    same = [truth for truth in truths if PurePath(truth.run.source.bag or '').name in names]
    return same or list(truths)


def _pair_stamps(truth: Entry) -> dict[int, Any]:
    """Return the pictures of a ``pairs`` run on a bag by header stamp, ns."""
    found = {}
    for image in truth.data.images:
        match = _STAMP.fullmatch(image.name)
        if match:
            found[int(match[1]) * 10**9 + int(match[2])] = image
    return found
