"""Make the clip of the demo: a dry drive, and the same drive in rendered rain.

Usage: ``python test/data/make_driving_rain.py solidWhiteRight.mp4``, from the root of the
repository. See README.md beside this file for where the video comes from.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import Stores, get_typestore

from derain_ros.rain import DropVolume, Shower, render

OUTPUT = Path(__file__).resolve().parent / 'driving_rain'
FRAMES = 24
INTERVAL_NS = 100_000_000
START_NS = 1_700_000_000_000_000_000
WIDTH, HEIGHT = 640, 360
JPEG_QUALITY = 85
SEED = 7

# Nominal pinhole camera: the calibration of the recording is not known.
FOCAL_LENGTH = 580.0

# Heavy rain as a car meets it at 100 km/h, plainer than physics makes it.
RAIN = Shower(
    layers=(),
    light=(0.93, 0.92, 0.91),
    drops=DropVolume(
        rate=70, focal_length=FOCAL_LENGTH, exposure=1 / 160, readout=2e-5, speed=27.8,
        opacity=8, near_gain=2.0, nearest=0.3, farthest=6, brightness=(1.0, 0.25), ground=0.2),
)

TYPES = get_typestore(Stores.ROS2_JAZZY)


def read_frames(video: Path) -> list[np.ndarray]:
    """Read frames 0.1 s apart, uint8, HEIGHT×WIDTH×3, BGR."""
    capture = cv2.VideoCapture(str(video))
    step = capture.get(cv2.CAP_PROP_FPS) * INTERVAL_NS / 1e9
    wanted = {round(number * step) for number in range(FRAMES)}
    frames = []
    for position in range(max(wanted) + 1):
        done, frame = capture.read()
        if not done:
            raise SystemExit(f'{video}: ends after {position} frames, or cannot be read')
        if position in wanted:
            frames.append(cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA))
    return frames


def make_header(number: int, frame_id: str):
    """Header of a frame."""
    seconds, nanoseconds = divmod(START_NS + number * INTERVAL_NS, 10**9)
    stamp = TYPES.types['builtin_interfaces/msg/Time'](sec=seconds, nanosec=nanoseconds)
    return TYPES.types['std_msgs/msg/Header'](stamp=stamp, frame_id=frame_id)


def make_compressed(number: int, image: np.ndarray):
    """CompressedImage of a frame."""
    _, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return TYPES.types['sensor_msgs/msg/CompressedImage'](
        header=make_header(number, 'camera_optical_frame'),
        format='bgr8; jpeg compressed bgr8', data=data.ravel())


def make_camera_info(number: int):
    """CameraInfo of the nominal camera."""
    focal, x, y = FOCAL_LENGTH, WIDTH / 2, HEIGHT / 2
    region = TYPES.types['sensor_msgs/msg/RegionOfInterest'](
        x_offset=0, y_offset=0, height=0, width=0, do_rectify=False)
    return TYPES.types['sensor_msgs/msg/CameraInfo'](
        header=make_header(number, 'camera_optical_frame'),
        height=HEIGHT, width=WIDTH, distortion_model='plumb_bob', d=np.zeros(5),
        k=np.array([focal, 0, x, 0, focal, y, 0, 0, 1.0]),
        r=np.eye(3).ravel(),
        p=np.array([focal, 0, x, 0, 0, focal, y, 0, 0, 0, 1.0, 0]),
        binning_x=0, binning_y=0, roi=region)


def main() -> None:
    """Write the bag."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('video', type=Path)
    clean = read_frames(parser.parse_args().video)
    rng = np.random.default_rng(SEED)
    topics = {
        '/camera/image_raw/compressed': 'sensor_msgs/msg/CompressedImage',
        '/camera/camera_info': 'sensor_msgs/msg/CameraInfo',
        '/camera_clean/image_raw/compressed': 'sensor_msgs/msg/CompressedImage',
    }
    with Writer(OUTPUT, version=8, storage_plugin=StoragePlugin.MCAP) as writer:
        rainy_topic, info_topic, clean_topic = [
            writer.add_connection(name, msgtype, typestore=TYPES)
            for name, msgtype in topics.items()
        ]
        for number, frame in enumerate(clean):
            rainy = render(frame, RAIN, rng).image
            for connection, message in (
                (rainy_topic, make_compressed(number, rainy)),
                (info_topic, make_camera_info(number)),
                (clean_topic, make_compressed(number, frame)),
            ):
                data = TYPES.serialize_cdr(message, connection.msgtype)
                writer.write(connection, START_NS + number * INTERVAL_NS, data)


if __name__ == '__main__':
    main()
