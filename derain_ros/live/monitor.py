"""A live view of the derain nodes that report on /diagnostics."""

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from derain_ros.live.listener import values_of
from derain_ros.live.monitor_view import NodeReport, level_of, render
from derain_ros.live.processes import signals_noted

TOPIC = '/diagnostics'
REFRESH_SECONDS = 0.5
SHORTEST_INTERVAL = 0.5
"""Rates are taken over no less; a node reports at once when a camera falls silent."""

FORGET_SECONDS = 60.0
OTHER_NODES_SECONDS = 1.5
"""How long a single picture waits for further nodes after the first."""

_MOST_STATUSES = 64


@dataclass
class _Heard(NodeReport):
    """A node with the values of its reports, those that rates are taken from, by their times."""

    reports: list[tuple[float, dict[str, dict[str, str]]]] = field(default_factory=list)

    def take(self, statuses: Sequence[DiagnosticStatus], now: float, clock: str) -> None:
        values = {status.name: values_of(status) for status in statuses}
        self.statuses = statuses
        self.reports.append((now, values))
        # Keep the newest that is old enough to compare with, and what came after.
        while len(self.reports) > 2 and now - self.reports[1][0] >= SHORTEST_INTERVAL:
            del self.reports[0]
        before, earlier = self.reports[0]
        self.seconds, self.previous = now - before, earlier if len(self.reports) > 1 else {}
        problems = self.last_problems | {
            status.name: (clock, status) for status in statuses if level_of(status)}
        self.last_problems = {name: last for name, last in problems.items() if name in values}


class Reports:
    """What the nodes have reported.

    ``node`` keeps one node only, by its full name or the last part of it; empty keeps all.

    Attributes
    ----------
    others
        Names of the derain nodes that were left out.
    foreign
        Messages that were of no derain node.

    """

    def __init__(self, node: str = ''):
        self.others: set[str] = set()
        self.foreign = 0
        self._wanted = node
        self._heard: dict[str, _Heard] = {}

    def add(self, message: DiagnosticArray, now: float, clock: str) -> None:
        """Take in a message from /diagnostics; ``now`` in seconds, ``clock`` for people."""
        statuses = message.status[:_MOST_STATUSES]
        # The status of the engine is named after its node, and so are those of its cameras.
        named = ((status.name, values_of(status).get('node')) for status in statuses)
        name = next((node for status, node in named if status == f'{node}: engine'), None)
        if name is None:
            self.foreign += 1
        elif self.wants(name):
            self._heard.setdefault(name, _Heard(name)).take(
                [status for status in statuses if status.name.startswith(f'{name}: ')], now, clock)
        else:
            self.others.add(name)

    def wants(self, name: str) -> bool:
        """Tell whether a node of this full name is kept."""
        return not self._wanted or self._wanted in (name, name.rpartition('/')[2])

    def nodes(self, now: float) -> list[NodeReport]:
        """Return the last report of each node, by name."""
        for name, heard in list(self._heard.items()):
            heard.silent_seconds = now - heard.reports[-1][0]
            if heard.silent_seconds >= FORGET_SECONDS:
                del self._heard[name]
        return [heard for _, heard in sorted(self._heard.items())]


def nothing_heard(reports: Reports, seconds: float, publishers: int) -> str:
    """Say why no node has been heard for so long, with so many publishers on /diagnostics."""
    if reports.others:
        return f'not among the derain nodes heard: {", ".join(sorted(reports.others))}'
    domain = os.environ.get('ROS_DOMAIN_ID') or '0'
    reach = os.environ.get('ROS_AUTOMATIC_DISCOVERY_RANGE')
    where = f'ROS_DOMAIN_ID is {domain} here' + (
        f' and ROS_AUTOMATIC_DISCOVERY_RANGE is {reach}' if reach else '')
    if reports.foreign:
        found = 'only other nodes report there; is derain_node running?'
    elif publishers:
        found = 'it has a publisher, but nothing arrives; is the node alive, the network open?'
    else:
        found = ('it has no publisher; start derain_node, or set these as they are set for the '
                 'node')
    return f'no derain node heard on {TOPIC} for {seconds:.0f} s: {found} ({where})'


def show_once(console: Console, node: str, seconds: float) -> int:
    """Print one picture of all nodes that are heard; returns the exit status.

    Waits for the second report of each node, which rates need, and for the first one of every
    derain node that is found, ``seconds`` at most.
    """
    reports = Reports(node)
    with _listener(reports) as listener, signals_noted() as stopped:
        heard_at, missing = None, set()
        start = time.monotonic()  # to get here takes seconds on a busy machine
        while not stopped and time.monotonic() < start + seconds:
            listener.spin()
            nodes = reports.nodes(time.monotonic())
            if nodes and heard_at is None:
                heard_at = time.monotonic()
            missing = {name for name in listener.derain_nodes() if reports.wants(name)}
            missing -= {found.name for found in nodes}
            complete = nodes and not missing and all(found.previous for found in nodes)
            if complete and time.monotonic() > heard_at + OTHER_NODES_SECONDS:
                break
        if stopped:
            return 128 + signal.SIGINT
        nodes = reports.nodes(time.monotonic())
        if not nodes:
            print(f'derain: {nothing_heard(reports, seconds, listener.count_publishers(TOPIC))}',
                  file=sys.stderr)
            return 1
        for name in sorted(missing):
            print(f'derain: {name} is there, but has not reported for {seconds:.0f} s',
                  file=sys.stderr)
    console.print(render(nodes, time.strftime('%H:%M:%S')))
    return 0


def show_live(console: Console, node: str) -> int:
    """Show the nodes until q or Ctrl-C; returns the exit status."""
    reports = Reports(node)
    start = time.monotonic()
    with (
        _listener(reports) as listener, signals_noted() as stopped, _keys() as key,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        due = 0.0
        while not stopped and key() not in ('q', 'Q'):
            listener.spin()
            now = time.monotonic()
            if now < due:
                continue
            due = now + REFRESH_SECONDS
            nodes = reports.nodes(now)
            body: RenderableType = render(nodes, time.strftime('%H:%M:%S'))
            if not nodes:
                body = Text(nothing_heard(reports, now - start, listener.count_publishers(TOPIC)))
            live.update(Group(body, Text('q quits', style='dim')), refresh=True)
    return 0


class _Listener(Node):
    """Hands the messages of /diagnostics to the reports."""

    def __init__(self, context: Context, reports: Reports):
        super().__init__('derain_top', context=context, enable_rosout=False,
                         start_parameter_services=False)
        self._spinner = SingleThreadedExecutor(context=context)
        self._spinner.add_node(self)
        # Fits every publisher, and a slow link keeps none of them waiting.
        qos = QoSProfile(depth=10, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        self.create_subscription(
            DiagnosticArray, TOPIC, lambda message: reports.add(
                message, time.monotonic(), time.strftime('%H:%M:%S')), qos)

    def spin(self) -> None:
        """Wait for a message for a moment."""
        self._spinner.spin_once(timeout_sec=0.1)

    def derain_nodes(self) -> set[str]:
        """Return the full names of the nodes on /diagnostics that tell the rain intensity."""
        names = {f'{found.node_namespace.rstrip("/")}/{found.node_name}'
                 for found in self.get_publishers_info_by_topic(TOPIC)}
        return {name for name in names if self.count_publishers(f'{name}/rain_intensity')}


@contextmanager
def _listener(reports: Reports) -> Iterator[_Listener]:
    context = Context()
    context.init(args=[])
    listener = _Listener(context, reports)
    try:
        yield listener
    finally:
        listener.destroy_node()
        context.try_shutdown()


@contextmanager
def _keys() -> Iterator[Callable[[], str]]:
    """Yield what returns the key pressed since, if any, without waiting for Enter."""
    if not sys.stdin.isatty():
        yield lambda: ''
        return
    import termios
    import tty

    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    tty.setcbreak(number)

    def pressed() -> str:
        ready, _, _ = select.select([number], [], [], 0)
        return os.read(number, 1).decode('ascii', 'replace') if ready else ''

    try:
        yield pressed
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)
