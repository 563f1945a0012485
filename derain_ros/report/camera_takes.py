"""Which runs tell of the same camera: bags by their source, truth by topic and stamps."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

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
    psnr
        PSNR in dB of the rainy and of the derained frame against the truth, by header stamp in
        ns; empty where no ``pairs`` run of the same model knows these frames.

    """

    entry: Entry
    camera: dict
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
        The topic that bears its truth; None where it is not known.
    is_truth
        The topic is itself the truth of another one.

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
        return min((take.camera['frames']['time'][0] for take in self.takes
                    if take.camera['frames']['time']), default=0)


def match_cameras(entries: Sequence[Entry]) -> list[CameraTakes]:
    """Return the cameras of all ``bag`` runs, in the order of the run files."""
    groups: dict[tuple[str, str], list[tuple[Entry, dict]]] = {}
    for entry in of_kind(entries, 'bag'):
        for camera in entry.run['cameras']:
            key = entry.run['source']['sha256'], camera['source']
            groups.setdefault(key, []).append((entry, camera))
    truths = [entry for entry in of_kind(entries, 'pairs')
              if 'rainy_topic' in entry.run['source'] and 'clean_topic' in entry.run['source']]
    found = []
    for (_, topic), members in groups.items():
        takes = tuple(Take(entry, camera, _psnr(entry, camera, truths))
                      for entry, camera in members)
        stamps = {stamp for _, camera in members for stamp in camera['frames']['stamp']}
        path = members[0][0].run['source']['path']
        clean = [truth.run['source']['clean_topic'] for truth in _related(members[0][0], truths)
                 if truth.run['source']['rainy_topic'] == topic
                 and stamps & _pair_stamps(truth).keys()]
        is_truth = any(truth.run['source']['clean_topic'] == topic for truth in truths)
        found.append(CameraTakes(topic, PurePath(path).name or path, takes,
                            clean[0] if clean else None, is_truth))
    return found


def unique_stamps(camera: dict) -> dict[int, int]:
    """Return the position of each frame of a camera whose header stamp is its own."""
    stamps = camera['frames']['stamp']
    counts = Counter(stamps)
    return {stamp: position for position, stamp in enumerate(stamps) if counts[stamp] == 1}


def _psnr(entry: Entry, camera: dict, truths: Sequence[Entry]) -> dict[int, tuple[float, float]]:
    """Find the figures of the same model on the same frames."""
    # With another strength the frames are others than those that were measured.
    if entry.run['strength'] != 1:
        return {}
    stamps = unique_stamps(camera)
    for exact in (('sha256', 'engine', 'precision'), ('sha256', 'engine'), ('sha256',)):
        for truth in _related(entry, truths):
            if (truth.run['source']['rainy_topic'] == camera['source']
                    and all(truth.facts[name] == entry.facts[name] for name in exact)):
                found = {stamp: image for stamp, image in _pair_stamps(truth).items()
                         if stamp in stamps}
                if found:
                    return {stamp: (image['input_psnr'], image['psnr'])
                            for stamp, image in found.items()}
    return {}


def _related(entry: Entry, truths: Sequence[Entry]) -> list[Entry]:
    """Return what was measured on a bag that is called as that of a run, or else all.

    Rain may have been put into one drive twice, with the same topics and stamps.
    """
    names = {PurePath(entry.run[bag]['path']).name for bag in ('source', 'output')}
    same = [truth for truth in truths
            if PurePath(truth.run['source'].get('bag', '')).name in names]
    return same or list(truths)


def _pair_stamps(truth: Entry) -> dict[int, dict]:
    """Return the pictures of a ``pairs`` run on a bag by header stamp, ns."""
    found = {}
    for image in truth.data['images']:
        match = _STAMP.fullmatch(image['name'])
        if match:
            found[int(match[1]) * 10**9 + int(match[2])] = image
    return found
