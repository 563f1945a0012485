"""Render rain into a recorded rosbag2: on the image topics, with ground truth on others.

Rain depends only on seed, camera and stamp. So all cameras of a bag share one
shower and one wind, each sees drops of its own, and the raw and the compressed topic of
one camera show the same drops.
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import islice
from typing import Any, ClassVar

import numpy as np

from derain_ros.bags.damage import BagError
from derain_ros.bags.frames import bits_of, header_stamp, why_no_picture
from derain_ros.bags.making import BagSummary, make_bag
from derain_ros.bags.plan import BagPlan, Choice
from derain_ros.bags.pool import Pool
from derain_ros.bags.recording import Recording
from derain_ros.bags.segment_work import CameraWork
from derain_ros.bags.topics import IMAGE, CameraTopics, dry_topic, find_image_topic, image_topics
from derain_ros.images.cdr import write_compressed_image, write_image
from derain_ros.rain import RainClip
from derain_ros.rain.apply.rainy_messages import rain_on_compressed, rain_on_image
from derain_ros.rain.apply.vehicle_motion import VehicleMotion
from derain_ros.rain.apply.weather import Weather
from derain_ros.text import printable

_COMPRESSED = '/compressed'


def rain_bag(
    plan: BagPlan, weather: Weather, *, speed_topic: str | None = None, pool: Pool | None = None,
    progress: Callable[[int], Any] = lambda count: None,
    resumed: Callable[[int], Any] = lambda count: None
) -> BagSummary:
    """Write the bag that ``plan`` describes; see :func:`derain_ros.bags.making.make_bag`.

    Every message of the source is kept byte for byte, on its topic or, where that is an
    image topic of the plan, on its :func:`dry_topic`. The image topic itself gets the rainy
    message, of the same type, encoding, header and time. A frame that cannot be read is kept
    unchanged on both. The topics of ``plan`` are from :func:`choose_to_rain`; ``speed_topic`` has
    the vehicle's speed, see :class:`VehicleMotion`; None takes the speed of the weather.
    """
    with plan.open() as reader:
        motion = VehicleMotion.read(reader, speed_topic) if speed_topic else None
        bits = {camera.source: bits_of(reader, camera.source) for camera in plan.cameras}
        for camera in plan.cameras if motion else ():
            for _, time, data in islice(reader.read(camera.source), 1):
                motion.check(header_stamp(data) or time, camera.source, speed_topic)
    return make_bag(
        plan, _Rainmaker(weather, motion, bits),
        options=asdict(weather) | {'speed_topic': speed_topic, 'bits': bits},
        pool=pool, progress=progress, resumed=resumed)


@dataclass(frozen=True)
class _Rainmaker:
    """Makes rainy frames; see :class:`derain_ros.bags.segment_work.Maker`."""

    fallback: ClassVar = True
    lead_in: ClassVar = 0

    weather: Weather
    motion: VehicleMotion | None
    bits: Mapping[str, int]

    @cached_property
    def _clip(self) -> RainClip:
        return self.weather.clip()

    def opened(self) -> AbstractContextManager['_Rainmaker']:
        return nullcontext(self)

    def end_segment(self) -> None:
        """Do nothing: frames do not depend on each other."""

    def read(self, camera: CameraWork, time: int, message: Any) -> tuple:
        return camera, time, message

    def make(self, frame: tuple) -> tuple:
        camera, time, message = frame
        # If the driver sets no stamp, the time of recording is used.
        instant = message.stamp if message.stamp > 0 else time
        # Differs for all cameras and times, and is the same on every run.
        index = zlib.crc32(camera.topic.removesuffix(_COMPRESSED).encode()) << 64 | instant

        speed, yaw_rate = self.motion.at(instant) if self.motion else (None, None)

        def render(dry: np.ndarray) -> np.ndarray:
            rainy = self._clip.render(dry, index, instant / 1e9, speed=speed, yaw_rate=yaw_rate)
            return rainy.image

        rain_on = rain_on_image if camera.msgtype == IMAGE else rain_on_compressed
        return camera, rain_on(message, render, self.bits[camera.topic])

    def encode(self, frame: tuple) -> tuple[list[Sequence], None]:
        camera, message = frame
        if camera.msgtype != IMAGE:
            return [(write_compressed_image(
                message.header, format=message.format, data=message.data),)], None
        fields = ('height', 'width', 'encoding', 'is_bigendian', 'step', 'data')
        return [(write_image(
            message.header, **{name: getattr(message, name) for name in fields}),)], None


def choose_to_rain(recording: Recording, topics: Sequence[str] | None) -> Choice:
    """Choose what to put rain on: without ``topics``, all image topics of cameras.

    Raises BagError if a name is not an image topic, or no image topic can be given rain.
    """
    bag = recording.source
    images = image_topics(recording.topics, bag)
    chosen = images
    if topics is not None:
        chosen = list(dict.fromkeys(find_image_topic(topic, images, bag) for topic in topics))
    names = {name for name, _ in recording.topics}
    for topic in chosen:
        if dry_topic(topic) in names:
            raise BagError(
                f'{topic}: {bag} has {dry_topic(topic)} already; start from the bag as it '
                'was recorded, or choose other topics with --topics')
    reasons = {topic: reason for topic in chosen if (
        reason := why_no_picture(recording, topic, empty='it has no messages'))}
    rainy = [topic for topic in chosen if topic not in reasons]
    if not rainy:
        raise BagError(f'{recording.source}: no image topic can be given rain (' + '; '.join(
            f'{topic}: {reason}' for topic, reason in reasons.items()) + ')')
    notes = [printable(f'{topic} is left alone: {reason}') for topic, reason in reasons.items()]
    return tuple(CameraTopics(topic, topic, kept=dry_topic(topic)) for topic in rainy), notes
