"""Topics, types and definitions of a rosbag2: find its cameras, and name their outputs."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache

from rosbags.interfaces import (
    Connection,
    ConnectionExtRosbag2,
    MessageDefinition,
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
from derain_ros.text import printable

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'

IMAGE_TYPES = (IMAGE, COMPRESSED_IMAGE)
NO_DEFINITION = MessageDefinition(MessageDefinitionFormat.NONE, '')

_COMPRESSED = '/compressed'
_SEPARATOR = '=' * 80 + '\n'
_UNDEFINED = '# The recorded bag does not hold the definition of this type.\n'
_UNLIMITED = QosTime(9223372036, 854775807)
_IMAGE_QOS = Qos(
    QosHistory.KEEP_LAST, 10, QosReliability.RELIABLE, QosDurability.VOLATILE, _UNLIMITED,
    _UNLIMITED, QosLiveliness.AUTOMATIC, _UNLIMITED, False)
"""The offered QoS profile that added topics get."""
_UNKNOWN_HASH = 'RIHS01_' + '0' * 64


@dataclass(frozen=True)
class CameraTopics:
    """A recorded image topic, and the names of its output topics, empty for none.

    ``kept`` is the topic to which the recorded messages are moved, None to leave them.
    """

    source: str
    image: str
    rain_mask: str = ''
    kept: str | None = None

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the output topics."""
        return tuple(filter(None, (self.image, self.rain_mask)))


def output_namespace(topic: str) -> str:
    """Return the namespace of the outputs of an image topic.

    >>> output_namespace('/front/image_raw'), output_namespace('/front/image_raw/compressed')
    ('/front/derained', '/front/derained')
    """
    base = topic.removesuffix(_COMPRESSED) or topic
    return base.rpartition('/')[0] + '/derained'


def derained_topic(topic: str, names: Iterable[str]) -> str:
    """Return the topic to which ``derain bag`` writes the derained frames of an image topic.

    >>> derained_topic('/left', {'/left/derained/image'}), derained_topic('/left', ())
    ('/left/derained/image', '/derained/image')
    """
    usual = f'{output_namespace(topic)}/image'
    # The name if cameras share a namespace.
    apart = f'{topic.removesuffix(_COMPRESSED)}/derained/image'
    return apart if apart in names and usual not in names else usual


def dry_topic(topic: str) -> str:
    """Return the topic to which ``derain rain`` moves the recorded, dry messages of a topic.

    >>> dry_topic('/front/image_raw'), dry_topic('/front/image_raw/compressed')
    ('/front/image_raw/dry', '/front/image_raw/dry/compressed')
    """
    base = topic.removesuffix(_COMPRESSED)
    if base in ('', topic):
        return f'{topic}/dry'
    return f'{base}/dry{_COMPRESSED}'


def image_topics(topics: Iterable[tuple[str, str]], bag: object = 'the bag') -> list[str]:
    """Return a bag's image topics, in order, from (name, type) of all; BagError if none.

    ``bag`` is its name for errors, here and below.
    """
    topics = list(topics)
    images = [name for name, msgtype in topics if msgtype in IMAGE_TYPES]
    if not images:
        listed = ', '.join(sorted(f'{name} ({msgtype})' for name, msgtype in topics)) or 'none'
        hint = ''
        if any(msgtype.startswith(('sensor_msgs/Image', 'sensor_msgs/CompressedImage'))
               for _, msgtype in topics):
            hint = ('; docs/to_rosbag2.py in the source converts ROS 1 images; names of ROS 2 '
                    'types contain /msg/')
        if any(msgtype.startswith('foxglove.') and msgtype.endswith(', protobuf')
               for _, msgtype in topics):
            hint += '; docs/to_rosbag2.py in the source converts foxglove images'
        raise BagError(f'{bag} has no Image or CompressedImage topic of sensor_msgs/msg '
                       f'(topics: {printable(listed)}){hint}')
    return list(dict.fromkeys(images))


def find_image_topic(name: str, images: Sequence[str], bag: object = 'the bag') -> str:
    """Return a topic's full name; ``name`` may lack ``/compressed`` and the leading slash.

    Raises BagError if it is none of ``images``.
    """
    for candidate in (name, name + _COMPRESSED, '/' + name, f'/{name}{_COMPRESSED}'):
        if candidate in images:
            return candidate
    raise BagError(f'{name} is not an image topic of {bag}; those are: '
                   f'{", ".join(sorted(images))}')


def choose_cameras(
    topics: Sequence[tuple[str, str]], selection: Iterable[str] | None, bag: object = 'the bag'
) -> tuple[CameraTopics, ...]:
    """Choose the image topics to derain, from (name, type) of all topics of a bag.

    ``selection`` has names, with or without ``/compressed`` and the leading slash; None selects
    all image topics. The outputs of cameras that share a namespace are named after their topics.
    Raises BagError if a name is not an image topic, two topics have the same output, or an output
    exists already.
    """
    names = {name for name, _ in topics}
    images = image_topics(topics, bag)
    chosen = list(dict.fromkeys(images if selection is None else (
        find_image_topic(name, images, bag) for name in selection)))
    bases = {topic.removesuffix(_COMPRESSED) or topic for topic in chosen}
    shared = Counter(map(output_namespace, bases))
    taken: dict[str, str] = {}
    cameras = []
    for source in chosen:
        namespace = output_namespace(source)
        if shared[namespace] > 1:
            # Such as /image_left and /image_right, which have no namespace of their own.
            namespace = f'{source.removesuffix(_COMPRESSED)}/derained'
        camera = CameraTopics(source, f'{namespace}/image', f'{namespace}/rain_mask')
        for output in camera.outputs:
            if output in names:
                raise BagError(
                    f'{source} would become {output}, which {bag} already has; start from the '
                    'bag as it was recorded, or choose other topics with --topics')
        if namespace in taken:
            raise BagError(f'{taken[namespace]} and {source} would both become {camera.image}; '
                           'choose one of them with --topics')
        taken[namespace] = source
        cameras.append(camera)
    return tuple(cameras)


@cache
def message_types() -> Typestore:
    """Return the common interfaces of Humble; those of images are the same in later ones."""
    return get_typestore(Stores.ROS2_HUMBLE)


class TopicList:
    """Collects the topics of a new bag, ``connections``, whose ids count from 1.

    ``undefined_types`` are message types whose definition is missing in the recorded bag.
    """

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.undefined_types: list[str] = []
        self._copies: dict[tuple[str, ...], int] = {}

    def add(self, topic: str, like: Connection) -> int:
        """Add a topic that differs from another only in its name; return its id."""
        self.connections.append(like._replace(
            id=len(self.connections) + 1, topic=topic, msgcount=0))
        return len(self.connections)

    def add_image(self, topic: str, recorded: Iterable[Connection]) -> int:
        """Add a sensor_msgs/msg/Image topic, with the definition of the bag or else of ROS."""
        image = next((one for one in recorded if one.msgtype == IMAGE), Connection(
            0, topic, IMAGE, NO_DEFINITION, '', 0, None, None))
        return self.add(topic, _defined(image)._replace(
            ext=ConnectionExtRosbag2('cdr', [_IMAGE_QOS]), owner=None))

    def copy(self, recorded: Connection, topic: str | None = None) -> int:
        """Add a recorded topic, under another name if ``topic`` is given; return its id."""
        topic = topic or recorded.topic
        key = topic, recorded.msgtype, repr(recorded.ext), recorded.msgdef.data
        if key not in self._copies:
            defined = recorded
            if not (recorded.owner and recorded.owner.schema) and (
                    recorded.ext.serialization_format == 'cdr'):
                defined = _defined(recorded)
                if defined.msgdef.data == _UNDEFINED and (
                        recorded.msgtype not in self.undefined_types):
                    self.undefined_types.append(recorded.msgtype)
            self._copies[key] = self.add(topic, defined)
        return self._copies[key]


def _defined(connection: Connection) -> Connection:
    """Return a topic with the definition of its type, and the type hash.

    sqlite3 bags of Humble and older hold no definitions: those of the common interfaces are
    filled in, and any other type gets an empty definition with a comment that says so.
    """
    definition, digest = connection.msgdef.data, connection.digest
    common = message_types()
    if definition:
        idl = connection.msgdef.format is MessageDefinitionFormat.IDL
        if idl and not definition.startswith(f'{_SEPARATOR}IDL: '):
            # rosbags recognises IDL definitions only by this header.
            definition = f'{_SEPARATOR}IDL: {connection.msgtype}\n{definition}'
        digest = digest or _digest(connection.msgtype, definition)
    elif connection.msgtype in common.fielddefs:
        definition = common.generate_msgdef(connection.msgtype, ros_version=2)[0]
        digest = common.hash_rihs01(connection.msgtype)
    else:
        definition = _UNDEFINED
        digest = _digest(connection.msgtype, definition)
    idl = definition.startswith(f'{_SEPARATOR}IDL: ')
    kind = MessageDefinitionFormat.IDL if idl else MessageDefinitionFormat.MSG
    return connection._replace(msgdef=MessageDefinition(kind, definition), digest=digest)


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
        # The hash is informational: a type that rosbags cannot parse is still copied.
        return _UNKNOWN_HASH
