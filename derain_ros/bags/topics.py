"""Topics, types and definitions of a rosbag2: which are cameras, and what they gain."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from rosbags.interfaces import (
    Connection,
    MessageDefinitionFormat,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.typesys import Stores, get_types_from_idl, get_types_from_msg, get_typestore
from rosbags.typesys.store import Typestore

from derain_ros.bags.damage import BagError

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'

_COMPRESSED = '/compressed'
_SEPARATOR = '=' * 80 + '\n'
_UNKNOWN_HASH = 'RIHS01_' + '0' * 64


@dataclass(frozen=True)
class CameraTopics:
    """An image topic and the names of what is made from it."""

    source: str
    image: str
    rain_mask: str


def output_namespace(topic: str) -> str:
    """Return where the results of an image topic go.

    >>> output_namespace('/front/image_raw'), output_namespace('/front/image_raw/compressed')
    ('/front/derained', '/front/derained')
    """
    base = topic.removesuffix(_COMPRESSED) or topic
    return base.rpartition('/')[0] + '/derained'


def dry_topic(topic: str) -> str:
    """Return where rendered rain keeps the recorded messages of an image topic.

    >>> dry_topic('/front/image_raw'), dry_topic('/front/image_raw/compressed')
    ('/front/image_raw/dry', '/front/image_raw/dry/compressed')
    """
    base = topic.removesuffix(_COMPRESSED)
    if base in ('', topic):
        return f'{topic}/dry'
    return f'{base}/dry{_COMPRESSED}'


def image_topics(topics: Iterable[tuple[str, str]]) -> list[str]:
    """Return the image topics of a bag, in its order, from the names and types of all topics.

    Raises
    ------
    BagError
        There is none.

    """
    topics = list(topics)
    images = [name for name, msgtype in topics if msgtype in (IMAGE, COMPRESSED_IMAGE)]
    if not images:
        listed = ', '.join(sorted(f'{name} ({msgtype})' for name, msgtype in topics)) or 'none'
        raise BagError(
            'the bag has no Image or CompressedImage topic of sensor_msgs/msg '
            f'(topics: {listed})')
    return list(dict.fromkeys(images))


def find_image_topic(name: str, images: Sequence[str]) -> str:
    """Return a topic, named with or without ``/compressed`` and the leading slash.

    Raises
    ------
    BagError
        It is none of ``images``.

    """
    for candidate in (name, name + _COMPRESSED, '/' + name, f'/{name}{_COMPRESSED}'):
        if candidate in images:
            return candidate
    raise BagError(f'{name} is not an image topic of the bag; those are: '
                   f'{", ".join(sorted(images)) or "none"}')


def choose_cameras(
    topics: Sequence[tuple[str, str]], selection: Iterable[str] | None
) -> tuple[CameraTopics, ...]:
    """Pick the image topics to derain.

    Parameters
    ----------
    topics
        Name and type of every topic of the bag.
    selection
        Names to derain, with or without ``/compressed`` and the leading slash; None takes
        every Image and CompressedImage topic.

    Raises
    ------
    BagError
        A name is not an image topic, two share one output, or an output is there already.

    """
    names = {name for name, _ in topics}
    images = image_topics(topics)
    chosen = images if selection is None else [
        find_image_topic(name, images) for name in selection]
    taken: dict[str, str] = {}
    cameras = []
    for source in dict.fromkeys(chosen):
        namespace = output_namespace(source)
        camera = CameraTopics(source, f'{namespace}/image', f'{namespace}/rain_mask')
        for output in (camera.image, camera.rain_mask):
            if output in names:
                raise BagError(
                    f'{source} would become {output}, which the bag already has; '
                    'start from the bag as it was recorded, or choose other topics '
                    'with --topics'
                )
        if namespace in taken:
            raise BagError(
                f'{taken[namespace]} and {source} would both become {camera.image}; '
                'choose one of them with --topics'
            )
        taken[namespace] = source
        cameras.append(camera)
    return tuple(cameras)


@lru_cache(maxsize=1)
def message_types() -> Typestore:
    """Types of the images that are read and written; all of them are the same in Humble."""
    return get_typestore(Stores.ROS2_JAZZY)


def image_definition(connections: Iterable[Connection]) -> tuple[str, str]:
    """Definition and hash of sensor_msgs/Image, as the bag has it or else as ROS has it."""
    for connection in connections:
        if connection.msgtype == IMAGE:
            return known_definition(connection)[:2]
    types = message_types()
    return types.generate_msgdef(IMAGE, ros_version=2)[0], types.hash_rihs01(IMAGE)


def known_definition(connection: Connection) -> tuple[str, str, bool]:
    """Return the definition of a topic's type, its hash, and whether it is known.

    Bags of Humble and older (sqlite3) hold no definitions; those of the common interfaces
    are filled in, any other type gets an empty one that says so.
    """
    definition = connection.msgdef.data
    if definition:
        idl = connection.msgdef.format is MessageDefinitionFormat.IDL
        if idl and not definition.startswith(f'{_SEPARATOR}IDL: '):
            # rosbags takes a definition for IDL by this header only.
            definition = f'{_SEPARATOR}IDL: {connection.msgtype}\n{definition}'
        return definition, connection.digest or _digest(connection.msgtype, definition), True
    common = _common_types()
    if connection.msgtype in common.fielddefs:
        definition = common.generate_msgdef(connection.msgtype, ros_version=2)[0]
        return definition, common.hash_rihs01(connection.msgtype), True
    definition = '# The recorded bag does not hold the definition of this type.\n'
    return definition, _digest(connection.msgtype, definition), False


def image_qos() -> Qos:
    """QoS profile the added topics are listed with: reliable, volatile, keep last 10."""
    unlimited = QosTime(9223372036, 854775807)
    return Qos(
        QosHistory.KEEP_LAST,
        10,
        QosReliability.RELIABLE,
        QosDurability.VOLATILE,
        unlimited,
        unlimited,
        QosLiveliness.AUTOMATIC,
        unlimited,
        False,
    )


@lru_cache(maxsize=1)
def _common_types() -> Typestore:
    return get_typestore(Stores.ROS2_HUMBLE)


def _digest(msgtype: str, definition: str) -> str:
    try:
        types = get_typestore(Stores.EMPTY)
        if definition.startswith(f'{_SEPARATOR}IDL: '):
            parsed = {}
            for part in definition.split(_SEPARATOR)[1:]:
                parsed.update(get_types_from_idl(part.partition('\n')[2]))
        else:
            parsed = get_types_from_msg(definition, msgtype)
        types.register(parsed)
        return types.hash_rihs01(msgtype)
    except Exception:
        # The hash is information only: a type rosbags cannot parse is still carried over.
        return _UNKNOWN_HASH
