"""Small rosbag2 recordings for tests, written and read with rosbags."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import mcap.writer
import numpy as np
from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import CompressionFormat, CompressionMode, Reader, StoragePlugin, Writer
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED = 'sensor_msgs/msg/CompressedImage'
CUSTOM = 'test_interfaces/msg/Wheel'
START = 1_700_000_000_000_000_007
INFINITE = QosTime(9223372036, 854775807)

TYPES = get_typestore(Stores.ROS2_JAZZY)
TYPES.register(get_types_from_msg('uint8 FRONT=1\nuint8 position\nfloat64[] speeds\n', CUSTOM))


def qos(reliability, depth):
    """QoS profile that no default matches."""
    return Qos(
        QosHistory.KEEP_LAST, depth, reliability, QosDurability.TRANSIENT_LOCAL, QosTime(1, 5),
        INFINITE, QosLiveliness.MANUAL_BY_TOPIC, QosTime(2, 6), False)


BEST_EFFORT = qos(QosReliability.BEST_EFFORT, 3)
RELIABLE = qos(QosReliability.RELIABLE, 17)
STORAGES = ('mcap', 'sqlite3')
PROFILES = {'/cam/image_raw': [BEST_EFFORT], '/wheels': [RELIABLE, BEST_EFFORT]}


def picture(number, height=64, width=96):
    """Coloured picture, uint8, H×W×3, another one for each number."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def header(stamp, frame_id='cam_frame'):
    """std_msgs/Header of a time in nanoseconds."""
    seconds, nanoseconds = divmod(stamp, 10**9)
    time = TYPES.types['builtin_interfaces/msg/Time'](sec=seconds, nanosec=nanoseconds)
    return TYPES.types['std_msgs/msg/Header'](stamp=time, frame_id=frame_id)


def image(number, stamp, encoding='bgr8', padding=0, frame_id='cam_frame', **fields):
    """sensor_msgs/Image of a picture; ``fields`` replace what it would say."""
    pixels = picture(number)
    if encoding == 'rgb8':
        pixels = pixels[..., ::-1]
    if encoding == 'bgra8':
        pixels = np.dstack([pixels, np.full(pixels.shape[:2], 77, np.uint8)])
    rows = pixels.reshape(pixels.shape[0], -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    values = {
        'header': header(stamp, frame_id), 'height': pixels.shape[0], 'width': pixels.shape[1],
        'encoding': encoding, 'is_bigendian': 0, 'step': rows.shape[1],
        'data': np.ascontiguousarray(rows).ravel(),
    }
    return TYPES.types[IMAGE](**(values | fields))


def compressed(number, stamp, suffix='jpg', **fields):
    """sensor_msgs/CompressedImage of a picture."""
    _, data = cv2.imencode(f'.{suffix}', picture(number))
    name = {'jpg': 'jpeg', 'png': 'png'}[suffix]
    values = {'header': header(stamp), 'format': f'bgr8; {name} compressed bgr8',
              'data': data.ravel()}
    return TYPES.types[COMPRESSED](**(values | fields))


def wheel(number):
    """Message of a type that no ROS distribution has."""
    return TYPES.types[CUSTOM](position=number % 4, speeds=np.arange(number % 5) + 0.5)


def drive():
    """Rows of a drive: two cameras, and a topic of a type of its own."""
    rows = []
    for number in range(4):
        time = START + number * 33_333_333
        # The stamps lie before the recording, and three messages share one bag time.
        stamp = time - 12_345_678
        rows += [
            ('/wheels', CUSTOM, time, wheel(number)),
            ('/cam/image_raw', IMAGE, time, image(number, stamp, 'rgb8', padding=5)),
            ('/rear/image_raw/compressed', COMPRESSED, time, compressed(number, stamp)),
            ('/wheels', CUSTOM, time + 1, wheel(number + 1)),
        ]
    return rows


@dataclass(frozen=True)
class Row:
    """One message of a bag, with its topic's type."""

    topic: str
    msgtype: str
    time: int
    data: bytes

    @property
    def message(self):
        """The message itself."""
        return TYPES.deserialize_cdr(self.data, self.msgtype)


def write_bag(path, rows, storage='mcap', profiles=None, version=8, compression='none',
              topics=()):
    """Write rows (topic, type, time in ns, message or its bytes) to a new bag.

    ``version`` is that of the metadata, ``compression`` none, file, message or storage. ``topics``
    are names and types of topics that may have no row.
    """
    profiles = profiles or {}
    connections = {}
    writer = Writer(path, version=version, storage_plugin=StoragePlugin[storage.upper()])
    writer.set_compression(CompressionMode[compression.upper()], CompressionFormat.ZSTD)
    with writer:
        for topic, msgtype in dict(topics).items():
            connections[topic] = writer.add_connection(topic, msgtype, typestore=TYPES)
        for topic, msgtype, time, message in rows:
            if topic not in connections:
                connections[topic] = writer.add_connection(
                    topic, msgtype, typestore=TYPES,
                    offered_qos_profiles=profiles.get(topic, ()))
            writer.write(connections[topic], time, serialized(message, msgtype))
    return path


def read_bag(path):
    """Every message of a bag in order."""
    with Reader(path) as reader:
        return [
            Row(connection.topic, connection.msgtype, time, bytes(data))
            for connection, time, data in reader.messages()
        ]


def read_topics(path):
    """Type, definition, hash and QoS of every topic of a bag."""
    with Reader(path) as reader:
        return {
            connection.topic: (
                connection.msgtype, connection.msgdef, connection.digest,
                connection.ext.serialization_format, connection.ext.offered_qos_profiles,
            )
            for connection in reader.connections
        }


def tree(path):
    """Names and contents of all files under a folder."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in sorted(Path(path).rglob('*')) if file.is_file()
    }


def messages_on(rows, *topics):
    """Those messages that are on the topics."""
    return [row for row in rows if row.topic in topics]


def long_drive(frames=48):
    """Rows of a longer drive than :func:`drive`, with latched topics at its beginning."""
    rows = [('/wheels', CUSTOM, START - 5 + number, wheel(number)) for number in range(3)]
    for number in range(frames):
        time = START + number * 33_333_333
        rows += [
            ('/cam/image_raw', IMAGE, time, image(number, time - 7_000_000)),
            ('/wheels', CUSTOM, time + 1_000_000, wheel(number)),
            ('/rear/image_raw/compressed', COMPRESSED, time + 2_000_000,
             compressed(number, time - 5_000_000)),
        ]
    return rows


def serialized(message, msgtype):
    """Bytes of a message, or as they are."""
    return message if isinstance(message, bytes) else bytes(TYPES.serialize_cdr(message, msgtype))


def write_mcap(path, rows, *, profile='ros2', chunk_size=20_000, extra=None,
               compression='NONE', **options):
    """Write an mcap file by the mcap package; ``extra`` takes the writer at the end."""
    with path.open('wb') as stream:
        writer = mcap.writer.Writer(
            stream, chunk_size=chunk_size, enable_crcs=True,
            compression=mcap.writer.CompressionType[compression], **options)
        writer.start(profile, 'a recorder')
        channels = {}
        for number, (topic, msgtype, time, message) in enumerate(rows):
            if topic not in channels:
                definition, _ = TYPES.generate_msgdef(msgtype, ros_version=2)
                schema = writer.register_schema(msgtype, 'ros2msg', definition.encode())
                channels[topic] = writer.register_channel(topic, 'cdr', schema, {'maker': 'me'})
            writer.add_message(channels[topic], time, serialized(message, msgtype),
                               max(0, time - 5), number)
        if extra:
            extra(writer)
        writer.finish()
    return path
