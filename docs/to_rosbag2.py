"""Write the images of an .mcap file of ROS 1, or of foxglove in protobuf, as a rosbag2.

    python to_rosbag2.py IN.mcap OUT

It needs the Python packages rosbags and mcap, and mcap-protobuf-support for foxglove.
Kept are sensor_msgs/Image and CompressedImage, foxglove.RawImage and foxglove.CompressedImage, on
their topics, with their times. ROS 1 files that end on .bag are for `rosbags-convert`.
"""

import sys
from pathlib import Path

import numpy as np
from mcap.reader import make_reader
from rosbags.rosbag2 import Writer
from rosbags.typesys import Stores, get_typestore

ROS1, ROS2 = get_typestore(Stores.ROS1_NOETIC), get_typestore(Stores.ROS2_JAZZY)
KINDS = {
    'sensor_msgs/Image': 'Image', 'sensor_msgs/CompressedImage': 'CompressedImage',
    'foxglove.RawImage': 'Image', 'foxglove.CompressedImage': 'CompressedImage'}


def converted(schema, data: bytes, kind: str):
    """Return a message of another kind as that of ROS 2."""
    if schema.name.startswith('sensor_msgs/'):
        found = ROS1.deserialize_ros1(data, kind)
        frame, stamp = found.header.frame_id, found.header.stamp
        seconds, nanoseconds = stamp.sec, stamp.nanosec
    else:
        from mcap_protobuf.decoder import DecoderFactory

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


def main(source: str, destination: str) -> None:
    """Convert a file; the destination must not exist."""
    topics = {}
    with Path(source).open('rb') as stream, Writer(destination, version=9) as writer:
        for schema, channel, message in make_reader(stream).iter_messages():
            if schema is None or schema.name not in KINDS:
                continue
            kind = f'sensor_msgs/msg/{KINDS[schema.name]}'
            if channel.topic not in topics:
                topics[channel.topic] = writer.add_connection(channel.topic, kind, typestore=ROS2)
            image = converted(schema, message.data, kind)
            writer.write(topics[channel.topic], message.log_time, ROS2.serialize_cdr(image, kind))
    print(f'{destination}: {", ".join(topics) or "no image topic"}')


if __name__ == '__main__':
    main(*sys.argv[1:])
