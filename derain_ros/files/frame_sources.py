"""Sources of rainy frames, with their derained and clean versions where available."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from derain_ros.bags.damage import BagError, show_time
from derain_ros.bags.frames import PartnerFrames, bits_of, count_stamps, decode_frame, header_stamp
from derain_ros.bags.recording import Recording
from derain_ros.bags.topics import derained_topic as derained_topic_of
from derain_ros.bags.topics import find_image_topic, image_topics, output_namespace
from derain_ros.files.image_files import PictureReader
from derain_ros.files.pairs import BadPair, check_sizes, match_pictures
from derain_ros.text import printable


@dataclass(frozen=True)
class FrameSet:
    """One frame and its versions, uint8, H×W×3, BGR, all of one size; None if not available.

    ``name`` is printable; ``stamp`` is the header stamp in ns, if from a bag; ``rain_mask`` is
    uint8, H×W, 255 = rain; ``position`` is the frame's index in the topic, folder or video;
    ``seconds`` is the time from the start of a video.
    """

    name: str
    stamp: int | None
    rainy: np.ndarray
    derained: np.ndarray | None = None
    clean: np.ndarray | None = None
    rain_mask: np.ndarray | None = None
    position: int = 0
    seconds: Fraction | None = None


class FolderFrames:
    """Images of the same name in folders of rainy, derained and clean images, or None.

    There are no ``notes`` on it. Raises FileError if an image has no partner, or a folder holds no
    images; see :func:`derain_ros.files.pairs.match_pictures`.
    """

    notes: Sequence[str] = ()

    def __init__(self, rainy: Path, derained: Path | None = None, clean: Path | None = None):
        self._folders = {'rainy': rainy, 'derained': derained, 'clean': clean}
        self._pictures = match_pictures(rainy, {
            version: path for version, path in self._folders.items()
            if path is not None and version != 'rainy'})

    def __len__(self) -> int:
        return len(self._pictures)

    def describe(self) -> dict:
        """Return the folders, as a source description for a run file."""
        return {'kind': 'folders', **{name: path and printable(str(path))
                                      for name, path in self._folders.items()}}

    def has(self, version: str) -> bool:
        """Return whether the folder of a version is given."""
        return self._folders[version] is not None

    def read(self, part: slice = slice(None)) -> Iterator[FrameSet | BadPair]:
        """Yield the frames in order of name, a BadPair for each that cannot be read."""
        reader = PictureReader()
        for position, (name, files) in list(enumerate(self._pictures.items()))[part]:
            shown = printable(name.as_posix())
            try:
                images = dict(zip(files, reader.read(*files.values()), strict=True))
                for version, image in images.items():
                    check_sizes(images['rainy'], image, str(files['rainy']), str(files[version]))
            except ValueError as error:
                yield BadPair(shown, printable(str(error)))
            else:
                yield FrameSet(shown, None, **images, position=position)


class BagFrames:
    """Frames with the same header stamp on several image topics of a rosbag2.

    The bag is read twice: first only the stamps, then all topics in parallel. Topics are with or
    without ``/compressed`` and the leading slash. If ``derained_topic`` is None, the one that
    ``derain bag`` would have added is used if present, unless ``take_derained`` is false; an empty
    name requires that topic. ``notes``, printable, say what was left out or assumed.

    Raises BagError if the bag cannot be read, a topic is not an image topic of it, or the topics
    have no stamp in common.
    """

    def __init__(
        self, bag: Path, rainy_topic: str, derained_topic: str | None = None,
        clean_topic: str | None = None, *, take_derained: bool = True,
    ):
        self._bag = bag
        with Recording(bag) as recording:
            images = image_topics(recording.topics, bag)
            rainy = find_image_topic(rainy_topic, images, bag)
            usual = derained_topic_of(rainy, images)
            guessed = derained_topic == '' or (derained_topic is None and usual in images)
            if guessed:
                derained_topic = usual
            wanted = {'derained': derained_topic if take_derained else None, 'clean': clean_topic}
            self._topics = names = {'rainy': rainy} | {
                version: find_image_topic(name, images, bag)
                for version, name in wanted.items() if name is not None}
            if len(set(names.values())) < len(names):
                raise BagError(f'{", ".join(names.values())}: the same topic is given twice; the '
                               'rainy, derained and clean frames need topics of their own')
            namespace = output_namespace(rainy)
            others = {topic.removesuffix('/compressed') for topic in images
                      if output_namespace(topic) == namespace} - {
                          topic.removesuffix('/compressed') for topic in names.values()}
            self.notes = list(recording.notes)
            if guessed and others and names.get('derained') == f'{namespace}/image':
                self.notes.append(printable(
                    f'{usual} is taken for the derained frames of {rainy}, but may belong to '
                    f'{", ".join(sorted(others))}; choose others with --derained-topic'))
            mask = names.get('derained', '').removesuffix('image') + 'rain_mask'
            self._mask = mask if 'derained' in names and mask in images else None
            self._bits = bits_of(recording, rainy)
            stamps = count_stamps(recording, *names.values(), *filter(None, [self._mask]))
        frames = {topic: counts.total() for topic, counts in stamps.items()}
        # Stamps that exactly one frame of the topic has.
        single = {topic: {stamp for stamp, count in counts.items() if count == 1 and stamp}
                  for topic, counts in stamps.items()}
        self._common = set.intersection(*(single[name] for name in names.values()))
        self._with_mask = self._common & single[self._mask] if self._mask else set()
        if not self._common:
            counts = ' and '.join(f'{frames[name]} on {name}' for name in names.values())
            raise BagError(f'{bag}: of {counts}, no frames have the same header stamp; all '
                           'versions of a frame must have its stamp' + ''.join(
                               f'; on {name} no header has a stamp of its own'
                               for name in names.values() if not single[name]))
        self._repeated = {
            version: frames[name] - len(single[name]) for version, name in names.items()}
        self._unpaired = {
            version: len(single[name]) - len(self._common) for version, name in names.items()}
        self.notes += [
            printable(f'{name}: {count} frames have no unique stamp that all topics have; they '
                      'are left out')
            for name in names.values() if (count := frames[name] - len(self._common))]

    def __len__(self) -> int:
        return len(self._common)

    def describe(self) -> dict:
        """Return the bag, its topics, and how many frames were left out, for a run file."""
        topics = {f'{version}_topic': (version in self._topics and printable(
            self._topics[version])) or None for version in ('rainy', 'derained', 'clean')}
        return {'kind': 'bag', 'bag': printable(str(self._bag)), **topics,
                **{f'unpaired_{version}': count for version, count in self._unpaired.items()},
                **{f'repeated_{version}': count for version, count in self._repeated.items()}}

    def has(self, version: str) -> bool:
        """Return whether there is a topic of a version."""
        return version in self._topics

    def has_masks(self) -> bool:
        """Return whether there are rain masks for the derained frames."""
        return bool(self._with_mask)

    def read(self) -> Iterator[FrameSet | BadPair]:
        """Yield the frames in the order of the rainy topic, named by their stamp.

        If the bag is damaged, BadPairs at the end report it. Raises BagError if the frames of a
        topic are out of order.
        """
        with Recording(self._bag) as recording:
            partners = {version: PartnerFrames(recording, topic, self._common)
                        for version, topic in self._topics.items() if version != 'rainy'}
            masks = PartnerFrames(recording, self._mask, self._with_mask) if self._mask else None
            rainy = recording.read(self._topics['rainy'])
            for position, (connection, _, data) in enumerate(rainy):
                stamp = header_stamp(data)
                if stamp not in self._common:
                    continue
                messages = {'rainy': (connection, data)}
                messages |= {version: found.take(stamp) for version, found in partners.items()}
                if stamp in self._with_mask:
                    messages['rain_mask'] = masks.take(stamp)
                yield self._decode(position, stamp, messages)
            yield from damages_of(recording)

    def _decode(self, position: int, stamp: int, messages: dict) -> FrameSet | BadPair:
        name = show_time(stamp)
        images: dict[str, np.ndarray] = {}
        for version, (connection, data) in messages.items():
            where = f'{connection.topic} at {name}'
            try:
                images[version] = decode_frame(connection, data, self._bits)
                check_sizes(images['rainy'], images[version], self._topics['rainy'], where)
            except ValueError as error:
                return BadPair(name, printable(f'{where}: {error}'))
        if 'rain_mask' in images:
            images['rain_mask'] = np.ascontiguousarray(images['rain_mask'][..., 0])
        return FrameSet(name, stamp, **images, position=position)


FrameSource = FolderFrames | BagFrames
"""``len`` is the number of frames that ``read`` yields; it holds one of them in memory."""


def damages_of(recording: Recording) -> Iterator[BadPair]:
    """Yield one BadPair for each damaged place of a recording."""
    for damage in recording.damages:
        yield BadPair(printable(damage.file), printable(
            f'{recording.source}: damaged: {damage}; everything else was read'))
