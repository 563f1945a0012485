"""Speed and yaw rate of the vehicle, read from a topic of a bag."""

import logging
from bisect import bisect
from contextlib import suppress
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
from rosbags.serde import SerdeError

from derain_ros.bags.damage import BagError, DamageError, show_time
from derain_ros.bags.recording import Recording
from derain_ros.bags.topics import message_types
from derain_ros.text import printable

_APART = 60 * 10**9
_TWIST = {
    'nav_msgs/msg/Odometry': lambda message: message.twist.twist,
    'geometry_msgs/msg/TwistStamped': lambda message: message.twist,
}


@dataclass(frozen=True)
class VehicleMotion:
    """Speed and yaw rate of a vehicle over time.

    ``rows`` are time (ns), forward speed (m/s) and yaw rate (rad/s to the left), sorted by time.
    """

    rows: tuple[tuple[int, float, float], ...]

    @classmethod
    def read(cls, reader: Recording, topic: str) -> 'VehicleMotion':
        """Read the motion from a topic of an open bag.

        Its type is nav_msgs/Odometry or geometry_msgs/TwistStamped, of which ``linear.x`` and
        ``angular.z`` of the twist are used, in the vehicle's axes (REP 103). Raises BagError if
        the topic is missing, of another type, or has no readable message.
        """
        types = {connection.topic: connection.msgtype for connection in reader.connections}
        fitting = ', '.join(sorted(t for t, kind in types.items() if kind in _TWIST)) or 'none'
        name = f'/{topic.lstrip("/")}'
        if types.get(name) not in _TWIST:
            what = f'of type {types[name]}' if name in types else 'not in the bag'
            raise BagError(
                f'{name}: is {what}; the speed is read from nav_msgs/msg/Odometry or '
                f'geometry_msgs/msg/TwistStamped; topics of these types: {fitting}')
        rows, store = [], message_types()
        chosen = {c.id: c.msgtype for c in reader.connections if c.topic == name}
        # Damage is reported when the bag is copied.
        with suppress(DamageError):
            for number, time, data, *_ in reader.messages(0, 2**63 - 1, set(chosen)):
                with suppress(SerdeError):
                    message = store.deserialize_cdr(bytes(data), chosen[number])
                    stamp = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
                    twist = _TWIST[chosen[number]](message)
                    row = (stamp if stamp > 0 else time, twist.linear.x, twist.angular.z)
                    if np.isfinite(row[1:]).all():
                        rows.append(row)
        if not rows:
            raise BagError(f'{name}: has no readable message; leave --speed-topic out')
        return cls(tuple(sorted(rows)))

    def check(self, instant: int, camera: str, topic: str) -> None:
        """Log if the first frame of a camera, ns, is so far off that its clock must be another."""
        first, last = self.rows[0][0], self.rows[-1][0]
        if not first - _APART < instant < last + _APART:
            logging.getLogger(__name__).warning('%s', printable(
                f'{camera}: its first frame is of {show_time(instant)}, {topic} of '
                f'{show_time(first)} to {show_time(last)}; the speed nearest in time is taken'))

    def at(self, instant: int) -> tuple[float, float]:
        """Interpolate speed and yaw rate at a time in ns; beyond the ends they are held."""
        place = bisect(self.rows, instant, key=itemgetter(0))
        times, *columns = zip(*self.rows[max(0, place - 1):place + 1], strict=True)
        # Less the instant, as a float has no room for ns since 1970.
        times = [time - instant for time in times]
        return tuple(float(np.interp(0, times, column)) for column in columns)
