"""Frames of the bags that ``derain bag`` has written, found and read again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rosbags.serde import SerdeError

from derain_ros.bags.damage import BagError
from derain_ros.bags.frames import decode_frame, header_stamp
from derain_ros.bags.recording import Recording
from derain_ros.files.run_files import bag_facts
from derain_ros.report.runs import Entry
from derain_ros.text import printable

_NEARBY = 5 * 10**9
"""How far from a frame, in ns of recording, its truth may lie."""


@dataclass
class BagFinder:
    """Finds the output bag of a run, and makes sure that it is still the one.

    Attributes
    ----------
    root
        Folder to look in first.
    progress
        Called with the number of bytes read since the last call: a bag is read in full.
    notes
        Why bags were not found, once for each; printable.

    """

    root: Path | None = None
    progress: Callable[[int], Any] = lambda count: None
    notes: list[str] = field(default_factory=list)
    _known: dict[tuple[Path, str], Path | None] = field(default_factory=dict)

    def find(self, entry: Entry) -> Path | None:
        """Return the bag of an entry of kind ``bag``; None where it is missing or has changed."""
        output = entry.run['output']
        key = entry.file, output['path']
        if key not in self._known:
            self._known[key] = self._search(entry, Path(output['path']), output['sha256'])
        return self._known[key]

    def _search(self, entry: Entry, path: Path, sha256: str) -> Path | None:
        places = [path, entry.file.parent / path, entry.file.parent / path.name]
        if self.root is not None:
            places[:0] = [self.root / path.name]
            if not path.is_absolute():
                places[:0] = [self.root / path]
        changed = None
        for place in dict.fromkeys(places):
            try:
                if not place.exists():
                    continue
                if bag_facts(place, self.progress)['sha256'] == sha256:
                    return place
            except (OSError, ValueError):
                pass
            changed = changed or place
        if changed is None:
            reason = 'is not there; --bag-root names the folder it lies in'
        else:
            reason = 'has changed since, or cannot be read'
        self.notes.append(printable(
            f'{entry.letter}: {entry.file.name}: its bag {changed or path} {reason}; its '
            'pictures are left out'))
        return None


def read_frames(
    bag: Path, frames: Mapping[int, int], topics: Mapping[str, str], nearby: Sequence[str] = (),
) -> tuple[dict[tuple[str, int], np.ndarray], list[str]]:
    """Read some frames of some topics.

    Parameters
    ----------
    bag
        What to read.
    frames
        Time of recording, ns, by header stamp, ns.
    topics
        Printable names of image topics, by what to call them.
    nearby
        Those of ``topics`` whose frames were not recorded at the very same time.

    Returns
    -------
    tuple
        Frames by name and stamp, uint8, H×W×3, BGR; and what went wrong, printable. Topics and
        frames that are not there are left out.

    """
    found: dict[tuple[str, int], np.ndarray] = {}
    troubles: list[str] = []
    try:
        with Recording(bag) as recording:
            names = {printable(topic): topic for topic in recording.image_topics}
            there = {names[topic]: name for name, topic in topics.items() if topic in names}
            for stamp, time in frames.items():
                for spread, chosen in (
                        (0, [topic for topic, name in there.items() if name not in nearby]),
                        (_NEARBY, [topic for topic, name in there.items() if name in nearby])):
                    if not chosen:
                        continue
                    for connection, _, data in recording.read(
                            *chosen, start=time - spread, stop=time + spread + 1):
                        name = there[connection.topic]
                        if header_stamp(data) == (stamp or None) and (name, stamp) not in found:
                            try:
                                found[name, stamp] = decode_frame(connection, data)
                            except (SerdeError, ValueError) as error:
                                troubles.append(printable(
                                    f'{connection.topic} at {stamp}: {error}'))
                            if spread:
                                break
    except BagError as error:
        troubles.append(printable(str(error)))
    return found, troubles
