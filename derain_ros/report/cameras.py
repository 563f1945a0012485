"""Group runs by camera: bags by their source bag, ground truth by topic and header stamps."""

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
    """The frames of one camera derained by one ``bag`` run; ``camera`` is from the run file.

    ``places`` maps the key of each frame to its index in the run file; the key is the header
    stamp, or the time of recording if all stamps are equal (``by_time``), in ns. ``psnr`` maps
    header stamps in ns to the PSNR of the rainy and of the derained frame, dB; it is empty if no
    ``pairs`` run of the same model covers these frames.
    """

    entry: Entry
    camera: Any
    places: dict[int, int]
    by_time: bool
    psnr: dict[int, tuple[float, float]]


@dataclass(frozen=True)
class CameraTakes:
    """A recorded image topic, and all runs that derained it from the same bag."""

    topic: str
    bag: str  # name of the bag, without its folder
    takes: tuple[Take, ...]  # at least one, in the order of the runs
    clean_topic: str | None  # of the ground truth, None if unknown
    is_truth: bool  # the topic is itself the ground truth of another one

    @property
    def judge(self) -> Take:
        """The take by which frames are ranked: the first with PSNR, else the first."""
        return next((take for take in self.takes if take.psnr), self.takes[0])

    @property
    def start(self) -> int:
        """Recording time of the first frame of any take, ns; 0 if there are no frames."""
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
        stamps = {stamp for _, camera in members for stamp in camera.frames.stamp}
        path = members[0][0].run.source.path
        clean = [truth.run.source.clean_topic for truth in _related(members[0][0], truths)
                 if truth.run.source.rainy_topic == topic
                 and stamps & _pair_stamps(truth).keys()]
        found.append(CameraTakes(
            topic, PurePath(path).name or path,
            tuple(_take(entry, camera, truths) for entry, camera in members),
            clean[0] if clean else None,
            any(truth.run.source.clean_topic == topic for truth in truths)))
    return found


def _take(entry: Entry, camera: Any, truths: Sequence[Entry]) -> Take:
    """Return a take, with the PSNR of the same model, preferably of the same engine."""
    by_time = len(camera.frames.stamp) > 1 == len(set(camera.frames.stamp))
    keys = camera.frames.time if by_time else camera.frames.stamp
    counts = Counter(keys)
    places = {key: place for place, key in enumerate(keys) if counts[key] == 1}
    psnr = {}
    # PSNR is measured at strength 1; the frames of another strength differ from those.
    if not by_time and entry.run.strength == 1:
        wanted = entry.facts
        for truth in sorted(_related(entry, truths), key=lambda one: (
                one.facts.engine != wanted.engine, one.facts.precision != wanted.precision)):
            if (truth.run.source.rainy_topic == camera.source
                    and truth.facts.sha256 == wanted.sha256):
                psnr = psnr or {stamp: (image.input_psnr, image.psnr)
                                for stamp, image in _pair_stamps(truth).items() if stamp in places}
    return Take(entry, camera, places, by_time, psnr)


def _related(entry: Entry, truths: Sequence[Entry]) -> list[Entry]:
    """Return the ``pairs`` runs on a bag of the same name as that of a run, or else all.

    Rain may have been rendered into one drive twice, with the same topics and stamps.
    """
    names = {PurePath(bag.path).name for bag in (entry.run.source, entry.run.output)}
    same = [truth for truth in truths if PurePath(truth.run.source.bag or '').name in names]
    return same or list(truths)


def _pair_stamps(truth: Entry) -> dict[int, Any]:
    """Return the scores of the images of a ``pairs`` run on a bag by header stamp, ns."""
    return {int(match[1]) * 10**9 + int(match[2]): image for image in truth.data.images
            if (match := _STAMP.fullmatch(image.name))}
