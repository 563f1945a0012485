"""Write the images of an .mcap file of ROS 1, or of foxglove in protobuf, as a rosbag2.

    python to_rosbag2.py IN.mcap OUT

It needs derain_ros with its extra `tools`, and mcap-protobuf-support of PyPI for foxglove.
Kept are sensor_msgs/Image and CompressedImage, foxglove.RawImage and foxglove.CompressedImage, on
their topics, with their times. ROS 1 files that end on .bag are for `rosbags-convert`.
"""

import sys
from pathlib import Path

import numpy as np
from mcap.records import Schema
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_typestore

from derain_ros.bags.recording import Recording

ROS1, ROS2 = get_typestore(Stores.ROS1_NOETIC), get_typestore(Stores.ROS2_JAZZY)
KINDS = {
    'sensor_msgs/Image': 'Image', 'sensor_msgs/CompressedImage': 'CompressedImage',
    'foxglove.RawImage': 'Image', 'foxglove.CompressedImage': 'CompressedImage'}


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
    """Convert a file; the destination must not exist. Returns 1 if the file is damaged."""
    topics = {}
    with Recording(Path(source)) as recording, Writer(destination, version=9) as writer:
        for connection, time, data in recording.read():
            if connection.msgtype not in KINDS:
                continue
            kind, topic = f'sensor_msgs/msg/{KINDS[connection.msgtype]}', connection.topic
            if topic not in topics:
                topics[topic] = writer.add_connection(topic, kind, typestore=ROS2)
            image = converted(connection, data, kind)
            writer.write(topics[topic], time, ROS2.serialize_cdr(image, kind))
        for damage in recording.damages:
            print(f'{source}: damaged: {damage}', file=sys.stderr)
    print(f'{destination}: {", ".join(topics) or "no image topic"}')
    return 1 if recording.damages else 0


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:]))
