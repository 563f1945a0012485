"""Pairs of rainy and clean frames from two topics of one rosbag2."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rosbags.interfaces import Connection
from rosbags.rosbag2 import Reader
from rosbags.serde import SerdeError

from derain_ros.bags.frames import (
    decode_frame,
    find_image_topic,
    header_stamp,
    topic_frames,
)
from derain_ros.bags.source import BagError, open_bag
from derain_ros.bags.topics import COMPRESSED_IMAGE, IMAGE
from derain_ros.files.pairs import BadPair, Pair, check_sizes
from derain_ros.text import printable


class BagPairs:
    """Frames of two image topics that bear the same header stamp.

    The bag is read twice: first the stamps alone, then both topics side by side, so that
    only frames that wait for their partner are in memory.

    Parameters
    ----------
    bag
        rosbag2 folder, or a bare ``.mcap`` or ``.db3`` file.
    rainy_topic, clean_topic
        Image or CompressedImage topics, with or without ``/compressed`` and the leading
        slash.

    Attributes
    ----------
    unpaired
        Frames by topic whose stamp the other topic does not have.
    repeated
        Frames by topic that share their stamp with another of the topic, or have none;
        they are left out.

    Raises
    ------
    BagError
        The bag cannot be read, a topic is not an image topic of it, or no stamps agree.

    """

    def __init__(self, bag: Path, rainy_topic: str, clean_topic: str):
        self._bag = bag
        with open_bag(bag) as reader:
            images = image_topics(reader)
            self._rainy = find_image_topic(rainy_topic, images)
            self._clean = find_image_topic(clean_topic, images)
            if self._rainy == self._clean:
                raise BagError(f'{self._rainy} is named as the rainy and as the clean topic')
            stamps: dict[str, Counter] = {self._rainy: Counter(), self._clean: Counter()}
            for connection, _, data in topic_frames(bag, reader, *stamps):
                stamps[connection.topic][header_stamp(data)] += 1
        self.repeated = {
            topic: sum(count for stamp, count in counts.items() if count > 1 or stamp is None)
            for topic, counts in stamps.items()
        }
        single = {
            topic: {stamp for stamp, count in counts.items() if count == 1 and stamp is not None}
            for topic, counts in stamps.items()
        }
        self._common = single[self._rainy] & single[self._clean]
        self.unpaired = {topic: len(found - self._common) for topic, found in single.items()}
        if not self._common:
            counts = ' and '.join(f'{stamps[topic].total()} on {topic}' for topic in stamps)
            raise BagError(
                f'{bag}: of {counts}, no frame has the header stamp of another; truth must '
                'bear the stamps of the rainy frames')

    def __len__(self) -> int:
        return len(self._common)

    def describe(self) -> dict:
        """Return the bag, its topics, and how many frames were left out."""
        return {
            'kind': 'bag',
            'bag': printable(str(self._bag)),
            'rainy_topic': printable(self._rainy),
            'clean_topic': printable(self._clean),
            'unpaired_rainy': self.unpaired[self._rainy],
            'unpaired_clean': self.unpaired[self._clean],
            'repeated_rainy': self.repeated[self._rainy],
            'repeated_clean': self.repeated[self._clean],
        }

    def read(self) -> Iterator[Pair | BadPair]:
        """Yield the pairs in the order of the rainy topic; named by their stamp.

        Raises
        ------
        BagError
            The bag is damaged.

        """
        with open_bag(self._bag) as first, open_bag(self._bag) as second:
            clean = topic_frames(self._bag, second, self._clean)
            waiting: dict[int, tuple[Connection, bytes]] = {}
            for position, (connection, _, data) in enumerate(
                    topic_frames(self._bag, first, self._rainy)):
                stamp = header_stamp(data)
                if stamp not in self._common:
                    continue
                while stamp not in waiting:
                    partner = next(clean, None)
                    if partner is None:
                        raise BagError(f'{self._bag}: has changed while it was read')
                    owner, _, content = partner
                    found = header_stamp(content)
                    if found in self._common:
                        waiting[found] = owner, content
                yield self._pair(position, stamp, (connection, data), waiting.pop(stamp))

    def _pair(
        self, position: int, stamp: int,
        rainy: tuple[Connection, bytes], clean: tuple[Connection, bytes],
    ) -> Pair | BadPair:
        seconds, nanoseconds = divmod(stamp, 10**9)
        name = f'{seconds}.{nanoseconds:09d}'
        images = []
        for connection, data in (rainy, clean):
            try:
                images.append(decode_frame(connection, data))
            except (SerdeError, ValueError) as error:
                return BadPair(name, printable(f'{connection.topic} at {name}: {error}'))
        try:
            check_sizes(*images, f'{self._rainy} at {name}', f'{self._clean} at {name}')
        except ValueError as error:
            return BadPair(name, printable(str(error)))
        return Pair(name, position, *images)


def image_topics(reader: Reader) -> list[str]:
    """Return the names of the image topics of an open bag, sorted."""
    return sorted({
        connection.topic for connection in reader.connections
        if connection.msgtype in (IMAGE, COMPRESSED_IMAGE)})
