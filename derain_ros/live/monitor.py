"""``derain top``: a live view of the derain nodes that report on /diagnostics."""

import math
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from derain_ros.live.listener import number, values_of
from derain_ros.live.processes import signals_noted

TOPIC = '/diagnostics'
REFRESH_SECONDS = 0.5
SHORTEST_INTERVAL = 0.5
"""Shortest time to compute rates over: nodes also report when a camera falls silent."""

FORGET_SECONDS = 60.0
OTHER_NODES_SECONDS = 1.5  # how long show_once() waits for further nodes after the first

_MOST_STATUSES = 64

SILENT_SECONDS = 3.0
"""A node without a report for longer is shown as silent; nodes report once a second."""

RATES = {
    'derained': 'derained', 'bypassed': 'bypassed', 'passed_through': 'passed',
    'dropped': 'dropped', 'failed': 'failed',
}
"""Counts of a camera that are shown as rates per second, and their column headers."""

STAGES = ('wait', 'decode', 'infer', 'encode', 'publish')
BAR_CELLS = 6
NAME_CELLS = 11
LONGEST_TEXT = 300

_LEVELS = (('OK', 'green'), ('WARN', 'yellow'), ('ERROR', 'bold red'))
_SILENT = ('GONE', 'bold red')
_EIGHTHS = ' ▏▎▍▌▋▊▉█'


@dataclass
class NodeReport:
    """The last report of one node, which is identified by its full name.

    ``statuses`` are the latest ones, including the engine's; ``previous`` are the values of a
    report ``seconds`` earlier, by status name, empty after the first report; ``silent_seconds``
    is the time since the last report. ``last_problems`` maps status names to time of day and
    status of their last problem; ``reports`` holds the values that rates are computed from.
    """

    name: str
    statuses: Sequence[DiagnosticStatus] = ()
    previous: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    seconds: float = 0.0
    silent_seconds: float = 0.0
    last_problems: dict[str, tuple[str, DiagnosticStatus]] = field(default_factory=dict)
    reports: list[tuple[float, Mapping[str, Mapping[str, str]]]] = field(default_factory=list)

    @property
    def silent(self) -> bool:
        """Whether the node has not reported for too long."""
        return self.silent_seconds > SILENT_SECONDS

    def take(self, statuses: Sequence[DiagnosticStatus], now: float, clock: str) -> None:
        """Store a report that arrived ``now``, monotonic seconds; ``clock``: time of day."""
        values = {status.name: values_of(status) for status in statuses}
        self.statuses = statuses
        self.reports.append((now, values))
        # Keep the newest report that is old enough for rates, and all later ones.
        while len(self.reports) > 2 and now - self.reports[1][0] >= SHORTEST_INTERVAL:
            del self.reports[0]
        before, earlier = self.reports[0]
        self.seconds, self.previous = now - before, earlier if len(self.reports) > 1 else {}
        problems = self.last_problems | {
            status.name: (clock, status) for status in statuses if level_of(status)}
        self.last_problems = {name: last for name, last in problems.items() if name in values}


def level_of(status: DiagnosticStatus) -> int:
    """Return the level as a number from 0 to 2; STALE and unknown levels count as errors."""
    return min(int.from_bytes(status.level, 'little'), DiagnosticStatus.ERROR[0])


def render(nodes: Sequence[NodeReport], clock: str) -> RenderableType:
    """Return the view of some nodes, in their order; ``clock`` is the time of day."""
    return Group(*(part for node in nodes for part in _node_parts(node, clock)))


def _node_parts(node: NodeReport, clock: str) -> Iterator[RenderableType]:
    cameras = [status for status in node.statuses if status.name != f'{node.name}: engine']
    yield Text.assemble(
        (clean(node.name), 'bold'), f'  {_counted(len(cameras), "camera")}  {clock}')
    if node.silent:
        yield Text(f'no report for {node.silent_seconds:.0f} s: the node has ended, hangs, or '
                   'cannot be heard; its last figures:', style=_SILENT[1])
    for status in node.statuses:
        if status.name == f'{node.name}: engine':
            yield _engine_line(status, node)
    # Before the tables, which may extend below the end of the terminal.
    yield from _notes(node)
    if cameras:
        yield Text()
        rows = [_Row(status, node) for status in cameras]
        yield Columns([_table(columns, rows) for columns in _TABLES], padding=(0, 3))
    yield Text()


def _engine_line(status: DiagnosticStatus, node: NodeReport) -> Text:
    values = values_of(status)
    shown, style = _state(status, node)
    engine = ' on '.join(filter(None, (_text(values, 'engine'), _text(values, 'device'))))
    line = Text.assemble('engine  ', (shown, style))
    facts = [_text(values, 'state'), engine, _text(values, 'model'), _text(values, 'precision')]
    if 'failures' in values:
        facts.append(_counted(values['failures'], 'failure'))
    for key, unit in (('gpu_temperature_c', '°C'), ('gpu_utilisation_percent', '% GPU')):
        if values.get(key):
            facts.append(f'{_text(values, key)} {unit}')
    return line.append('  ' + ', '.join(filter(None, facts)))


class _Row:
    """The cells of a camera in the tables."""

    def __init__(self, status: DiagnosticStatus, node: NodeReport):
        self._node, self._status = node, status
        self._values = values_of(status)

    def name(self) -> str:
        name = clean(self._status.name.removeprefix(f'{self._node.name}: '))
        # Camera names usually differ at the end: front_stereo_left, front_stereo_right.
        return name if len(name) <= NAME_CELLS else f'{name[:NAME_CELLS - 6]}…{name[-5:]}'

    def state(self) -> Text:
        return Text(*_state(self._status, self._node))

    def rain(self) -> Text:
        intensity = _number(self._values, 'rain_intensity')
        if intensity is None:
            return Text(f'{"-":>{BAR_CELLS + 6}}')
        # Square root scale: the gate opens at 0.025 of the image, and a downpour covers a third.
        eighths = round(8 * BAR_CELLS * math.sqrt(min(max(intensity, 0.0), 1.0)))
        bar = '█' * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else '')
        return Text.assemble((f'{bar:<{BAR_CELLS}}', 'blue on grey30'), f' {intensity:.3f}')

    def rate(self, key: str) -> Text | str:
        now = _number(self._values, key)
        before = _number(self._node.previous.get(self._status.name, {}), key)
        # Counts restart from zero after a reset.
        if now is None or before is None or now < before or self._node.seconds <= 0:
            return '-'
        rate = (now - before) / self._node.seconds
        bad = rate > 0 and key in ('failed', 'passed_through')
        return Text(f'{rate:.1f}', style='red' if bad else '')

    def number(self, key: str, digits: int) -> str:
        number = _number(self._values, key)
        return '-' if number is None else f'{number:.{digits}f}'

    def text(self, key: str) -> str:
        return _text(self._values, key) or '-'


_TABLES: tuple[dict[str, Callable[[_Row], Text | str]], ...] = (
    {'camera': _Row.name, 'state': _Row.state, 'fps': partial(_Row.number, key='fps', digits=1),
     'gate': partial(_Row.text, key='gate'), 'rain': _Row.rain,
     **{head: partial(_Row.rate, key=key) for key, head in RATES.items()}},
    {'ms': _Row.name,
     **{f'age p{point}': partial(_Row.number, key=f'age_p{point}_ms', digits=0)
        for point in (50, 95, 99)},
     **{stage: partial(_Row.number, key=f'{stage}_p50_ms', digits=1) for stage in STAGES}},
    {'input': _Row.name,
     **{head: partial(_Row.text, key=key) for head, key in (
         ('topic', 'image_topic'), ('size', 'size'), ('encoding', 'encoding'),
         ('group', 'sync_group'))}})
# Columns of text, and the maximum width of each in cells.
_WORDS = {'camera': NAME_CELLS, 'ms': NAME_CELLS, 'input': NAME_CELLS, 'state': 5, 'gate': 4,
          'rain': BAR_CELLS + 6, 'topic': 35, 'size': 11, 'encoding': 11, 'group': 8}


def _table(columns: Mapping[str, Callable[[_Row], Text | str]], rows: Sequence[_Row]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style='cyan')
    for head in columns:
        words = head in _WORDS
        table.add_column(
            head, justify='left' if words else 'right', no_wrap=True, overflow='ellipsis',
            min_width=None if words else len(head), max_width=_WORDS.get(head))
    for row in rows:
        table.add_row(*(cell(row) for cell in columns.values()))
    return table


def _notes(node: NodeReport) -> Iterator[Text]:
    """Yield lines about current and past problems, idle cameras and stamps far off the clock."""
    now = {status.name for status in node.statuses if level_of(status)}
    for status in node.statuses:
        name = clean(status.name.removeprefix(f'{node.name}: '))
        if status.name in now:
            shown, style = _LEVELS[level_of(status)]
            yield Text.assemble((f'{shown} {name}: ', style), clean(status.message))
        elif status.message.startswith(('inactive', 'idle')):
            yield Text(f'{name}: {clean(status.message)}', style='dim')
        values = values_of(status)
        if _number(values, 'published') and _number(values, 'age_p50_ms') is None:
            yield Text(f'{name}: its stamps are missing, ahead of the clock of the node, or over '
                       '10 s behind; a recording? Play it with --clock, and set use_sim_time',
                       style='dim')
    for name, (when, status) in node.last_problems.items():
        if name not in now:
            shown, _ = _LEVELS[level_of(status)]
            text = f'{when} {shown} {name.removeprefix(f"{node.name}: ")}: {status.message} (over)'
            yield Text(clean(text), style='dim')


def _state(status: DiagnosticStatus, node: NodeReport) -> tuple[str, str]:
    return _SILENT if node.silent else _LEVELS[level_of(status)]


def _number(values: Mapping[str, str], key: str) -> float | None:
    found = number(values, key)
    return found if math.isfinite(found) else None


def _text(values: Mapping[str, str], key: str) -> str:
    return clean(values.get(key, ''))


def _counted(number: object, noun: str) -> str:
    return f'{clean(str(number))} {noun}{"" if str(number) == "1" else "s"}'


def clean(text: str) -> str:
    """Return a foreign text without control characters, cut to :data:`LONGEST_TEXT`."""
    text = ''.join(letter if letter.isprintable() else ' ' for letter in text[:LONGEST_TEXT + 1])
    return text if len(text) <= LONGEST_TEXT else f'{text[:LONGEST_TEXT - 1]}…'


class Reports:
    """The reports of the nodes.

    ``node``, kept as ``wanted``, restricts them to one node, given by its full name or the last
    part of it; empty keeps all. ``others`` are the names of ignored derain nodes, ``foreign``
    counts messages that are not from a derain node.
    """

    def __init__(self, node: str = ''):
        self.others: set[str] = set()
        self.foreign = 0
        self.wanted = node
        self._heard: dict[str, NodeReport] = {}

    def add(self, message: DiagnosticArray, now: float, clock: str) -> None:
        """Process a /diagnostics message; ``now``: monotonic seconds, ``clock``: time of day."""
        statuses = message.status[:_MOST_STATUSES]
        # The statuses of the engine and the cameras are named after their node.
        named = ((status.name, values_of(status).get('node')) for status in statuses)
        name = next((node for status, node in named if status == f'{node}: engine'), None)
        if name is None:
            self.foreign += 1
        elif self.wants(name):
            self._heard.setdefault(name, NodeReport(name)).take(
                [status for status in statuses if status.name.startswith(f'{name}: ')], now, clock)
        else:
            self.others.add(name)

    def wants(self, name: str) -> bool:
        """Return whether reports of the node with this full name are kept."""
        return not self.wanted or self.wanted in (name, name.rpartition('/')[2])

    def nodes(self, now: float) -> list[NodeReport]:
        """Return the last report of each node, sorted by name."""
        for name, heard in list(self._heard.items()):
            heard.silent_seconds = now - heard.reports[-1][0]
            if heard.silent_seconds >= FORGET_SECONDS:
                del self._heard[name]
        return [heard for _, heard in sorted(self._heard.items())]


def nothing_heard(reports: Reports, seconds: float, publishers: int) -> str:
    """Return why no node was heard for ``seconds``; ``publishers`` counts those of the topic."""
    if reports.others:
        heard = ', '.join(sorted(reports.others))
        return f'{reports.wanted} is not among the derain nodes heard: {heard}'
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
    """Print the view of all nodes once; returns the exit status.

    Waits at most ``seconds``, for two reports of each node, which rates need, and for the first
    report of every derain node that is discovered.
    """
    reports = Reports(node)
    with _listener(reports) as listener, signals_noted() as stopped:
        heard_at, missing = None, set()
        start = time.monotonic()  # only now, as startup takes seconds on a busy machine
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
    """Passes the messages on /diagnostics to the reports."""

    def __init__(self, context: Context, reports: Reports):
        super().__init__('derain_top', context=context, enable_rosout=False,
                         start_parameter_services=False)
        self._spinner = SingleThreadedExecutor(context=context)
        self._spinner.add_node(self)
        # Compatible with every publisher, and a slow link does not block any of them.
        qos = QoSProfile(depth=10, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        self.create_subscription(
            DiagnosticArray, TOPIC, lambda message: reports.add(
                message, time.monotonic(), time.strftime('%H:%M:%S')), qos)

    def spin(self) -> None:
        """Process one message, waiting at most 0.1 s for it."""
        self._spinner.spin_once(timeout_sec=0.1)

    def derain_nodes(self) -> set[str]:
        """Return the full names of nodes publishing on /diagnostics and the rain intensity."""
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
    """Yield a function that returns the next key pressed, or ``''``, without waiting."""
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
