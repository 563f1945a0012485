"""Write the images of an .mcap file of ROS 1, or of foxglove in protobuf, as a rosbag2.

    python to_rosbag2.py IN.mcap OUT

It needs derain_ros with its extra `tools`, and mcap-protobuf-support of PyPI for foxglove.
Kept are sensor_msgs/Image and CompressedImage, foxglove.RawImage and foxglove.CompressedImage, on
their topics, with their times. ROS 1 files that end on .bag are for `rosbags-convert`.
"""

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from importlib import import_module
from pathlib import Path

import numpy as np
from mcap.records import Schema
from rosbags.rosbag2 import Writer, WriterError
from rosbags.typesys import Stores, get_typestore

from derain_ros.bags.damage import BagError
from derain_ros.bags.recording import Recording
from derain_ros.text import UserError, printable

ROS1, ROS2 = get_typestore(Stores.ROS1_NOETIC), get_typestore(Stores.ROS2_JAZZY)
KINDS = {
    'sensor_msgs/Image': 'Image', 'sensor_msgs/CompressedImage': 'CompressedImage',
    'foxglove.RawImage': 'Image', 'foxglove.CompressedImage': 'CompressedImage'}
ENCODINGS = ('ros1', 'protobuf')


def converted(connection, data: bytes, kind: str):
    """Return a message of another kind as that of ROS 2."""
    if connection.msgtype.startswith('sensor_msgs/'):
        found = ROS1.deserialize_ros1(data, kind)
        frame, stamp = found.header.frame_id, found.header.stamp
        seconds, nanoseconds = stamp.sec, stamp.nanosec
    else:
        from mcap_protobuf.decoder import DecoderFactory

        schema = Schema(1, connection.owner.schema, 'protobuf', connection.msgtype)
        found = DecoderFactory().decoder_for('protobuf', schema)(data)
        frame = found.frame_id
        seconds, nanoseconds = found.timestamp.seconds, found.timestamp.nanos
    header = ROS2.types['std_msgs/msg/Header'](
        ROS2.types['builtin_interfaces/msg/Time'](seconds, nanoseconds), frame)
    pixels = np.frombuffer(found.data, np.uint8)
    if kind.endswith('CompressedImage'):
        return ROS2.types[kind](header, found.format, pixels)
    return ROS2.types[kind](header, found.height, found.width, found.encoding,
                            getattr(found, 'is_bigendian', 0), found.step, pixels)


def main(source: str, destination: str) -> int:
    """Convert a file; the destination must not exist. Returns 1 if anything cannot be read.

    Raises UserError, WriterError or ImportError if nothing can be converted.
    """
    topics, failed = {}, []
    with Recording(Path(source)) as recording:
        images = {one.id: one.ext.serialization_format for one in recording.connections
                  if one.msgtype in KINDS and one.ext.serialization_format in ENCODINGS}
        if not images:
            listed = ', '.join(f'{name} ({kind})' for name, kind in recording.topics) or 'none'
            raise BagError(f'{source}: no images of ROS 1, or of foxglove in protobuf (topics: '
                           f'{listed})')
        if 'protobuf' in images.values():
            import_module('mcap_protobuf.decoder')
        with Writer(destination, version=9) as writer:
            for connection, time, data in recording.read():
                if connection.id not in images:
                    continue
                kind, topic = f'sensor_msgs/msg/{KINDS[connection.msgtype]}', connection.topic
                if topic not in topics:
                    topics[topic] = writer.add_connection(topic, kind, typestore=ROS2)
                try:
                    image = ROS2.serialize_cdr(converted(connection, data, kind), kind)
                except Exception as error:  # what decoders raise on damaged messages is endless
                    failed.append(f'{topic} at {time} ns: {error}')
                else:
                    writer.write(topics[topic], time, image)
        failed += [f'damaged: {damage}' for damage in recording.damages]
    for reason in failed:
        print(printable(f'{source}: {reason}'), file=sys.stderr)
    print(printable(f'{destination}: {", ".join(topics)}'))
    return 1 if failed else 0


if __name__ == '__main__':
    parser = ArgumentParser(
        description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument('source', metavar='IN.mcap')
    parser.add_argument('destination', metavar='OUT')
    try:
        sys.exit(main(**vars(parser.parse_args())))
    except ModuleNotFoundError as error:
        sys.exit(f'{error}; install it with `pip install mcap-protobuf-support`')
    except (UserError, WriterError, OSError) as error:
        sys.exit(printable(error))
