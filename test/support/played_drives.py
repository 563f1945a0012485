"""A recorded drive that is played into a node, and a helper process."""

import sys
from multiprocessing.connection import Connection

from bag_files import COMPRESSED, IMAGE, START, compressed, image, write_bag
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo

from derain_ros.live.processes import commands

INFO = 'sensor_msgs/msg/CameraInfo'


def played_drive(path, extra=()):
    """Two cameras, 20 Hz raw with camera_info and 8 Hz compressed, for a second and a half."""
    info = CameraInfo(height=64, width=96)
    info.header.frame_id = 'cam_frame'
    rows = list(extra)
    for number in range(30):
        time = START + number * 50_000_000
        rows += [(time, '/front/image_raw', IMAGE, image(number, START - 5)),
                 (time + 1, '/front/camera_info', INFO, serialize_message(info))]
    for number in range(12):
        rows.append((START + number * 125_000_000 + 10_000_000, '/rear/image_raw/compressed',
                     COMPRESSED, compressed(number, START - 5)))
    rows.sort(key=lambda row: row[0])
    return write_bag(path, [
        (topic, msgtype, when, message) for when, topic, msgtype, message in rows])


def doubles(pipe: Connection, most: int) -> None:
    """Answer numbers with their doubles."""
    for number in commands(pipe):
        if number > most:
            raise ValueError(f'{number} is more than {most}')
        if number < 0:
            sys.exit(f'{number} is none')
        pipe.send(2 * number)
