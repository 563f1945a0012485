"""What ``derain top`` shows of the statuses on /diagnostics."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from diagnostic_msgs.msg import DiagnosticStatus
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from derain_ros.live.listener import values_of

SILENT_SECONDS = 3.0
"""A node that has not reported for longer is shown as silent; it reports once a second."""

RATES = {
    'derained': 'derained', 'bypassed': 'bypassed', 'passed_through': 'passed',
    'dropped': 'dropped', 'failed': 'failed',
}
"""Counts of a camera that are shown a second, and the heads of their columns."""

STAGES = ('wait', 'decode', 'infer', 'encode', 'publish')
BAR_CELLS = 6
NAME_CELLS = 11
LONGEST_TEXT = 300
LONGEST_AGE_MS = 3.6e6
"""An image that is older is of a recording whose stamps lie far from the clock of the node."""

_LEVELS = (('OK', 'green'), ('WARN', 'yellow'), ('ERROR', 'bold red'))
_SILENT = ('GONE', 'bold red')
_EIGHTHS = ' ▏▎▍▌▋▊▉█'


@dataclass
class NodeReport:
    """The last words of one node.

    Attributes
    ----------
    name
        Full name of the node.
    statuses
        Its last statuses, the engine's among them.
    previous, seconds
        Values of an earlier report, by name of the status (empty after the first report), and
        the time between the two.
    silent_seconds
        Time since the last.
    last_problems
        Time of day and status of the last problem under each name that has had one.

    """

    name: str
    statuses: Sequence[DiagnosticStatus] = ()
    previous: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    seconds: float = 0.0
    silent_seconds: float = 0.0
    last_problems: dict[str, tuple[str, DiagnosticStatus]] = field(default_factory=dict)

    @property
    def silent(self) -> bool:
        """The node should have reported since."""
        return self.silent_seconds > SILENT_SECONDS


def level_of(status: DiagnosticStatus) -> int:
    """Return the level as a number; what ROS has no name for counts as an error."""
    return min(int.from_bytes(status.level, 'little'), DiagnosticStatus.ERROR[0])


def render(nodes: Sequence[NodeReport], clock: str) -> RenderableType:
    """Return the picture of some nodes, in their order, at a time of day."""
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
    # Before the tables, whose end may be below that of the terminal.
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
    """What the tables say of a camera."""

    def __init__(self, status: DiagnosticStatus, node: NodeReport):
        self._node, self._status = node, status
        self._values = values_of(status)

    def name(self) -> str:
        name = clean(self._status.name.removeprefix(f'{self._node.name}: '))
        # Cameras differ at the end more often than not: front_stereo_left, front_stereo_right.
        return name if len(name) <= NAME_CELLS else f'{name[:NAME_CELLS - 6]}…{name[-5:]}'

    def state(self) -> Text:
        return Text(*_state(self._status, self._node))

    def rain(self) -> Text:
        intensity = _number(self._values, 'rain_intensity')
        if intensity is None:
            return Text(f'{"-":>{BAR_CELLS + 6}}')
        # By the root: the gate opens at 0.025 of the picture, and a downpour covers a third.
        eighths = round(8 * BAR_CELLS * math.sqrt(min(max(intensity, 0.0), 1.0)))
        bar = '█' * (eighths // 8) + (_EIGHTHS[eighths % 8] if eighths % 8 else '')
        return Text.assemble((f'{bar:<{BAR_CELLS}}', 'blue on grey30'), f' {intensity:.3f}')

    def rate(self, key: str) -> Text | str:
        now = _number(self._values, key)
        before = _number(self._node.previous.get(self._status.name, {}), key)
        # Counts begin anew after a reset.
        if now is None or before is None or now < before or self._node.seconds <= 0:
            return '-'
        rate = (now - before) / self._node.seconds
        bad = rate > 0 and key in ('failed', 'passed_through')
        return Text(f'{rate:.1f}', style='red' if bad else '')

    def number(self, key: str, digits: int) -> str:
        number = _number(self._values, key)
        if number is None:
            return '-'
        if key.startswith('age') and abs(number) >= LONGEST_AGE_MS:
            return '> 1 h' if number > 0 else '< -1 h'
        return f'{number:.{digits}f}'

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
# Columns of words, and the most that each takes of a line.
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
    """Yield what is the matter, and what was last."""
    now = {status.name for status in node.statuses if level_of(status)}
    for status in node.statuses:
        name = clean(status.name.removeprefix(f'{node.name}: '))
        if status.name in now:
            shown, style = _LEVELS[level_of(status)]
            yield Text.assemble((f'{shown} {name}: ', style), clean(status.message))
        elif status.message.startswith(('inactive', 'idle')):
            yield Text(f'{name}: {clean(status.message)}', style='dim')
        age = _number(values_of(status), 'age_p50_ms')
        if age is not None and abs(age) >= LONGEST_AGE_MS:
            yield Text(f'{name}: its images are stamped {abs(age) / 3.6e6:,.0f} h '
                       f'{"before" if age > 0 else "after"} the clock of the node; a recording? '
                       'Play it with --clock, and set use_sim_time', style='dim')
    for name, (when, status) in node.last_problems.items():
        if name not in now:
            shown, _ = _LEVELS[level_of(status)]
            text = f'{when} {shown} {name.removeprefix(f"{node.name}: ")}: {status.message} (over)'
            yield Text(clean(text), style='dim')


def _state(status: DiagnosticStatus, node: NodeReport) -> tuple[str, str]:
    return _SILENT if node.silent else _LEVELS[level_of(status)]


def _number(values: Mapping[str, str], key: str) -> float | None:
    try:
        number = float(values[key])
    except (KeyError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _text(values: Mapping[str, str], key: str) -> str:
    return clean(values.get(key, ''))


def _counted(number: object, noun: str) -> str:
    return f'{clean(str(number))} {noun}{"" if str(number) == "1" else "s"}'


def clean(text: str) -> str:
    """Return a text of somebody else without what would steer the terminal, and not too long."""
    text = ''.join(letter if letter.isprintable() else ' ' for letter in text[:LONGEST_TEXT + 1])
    return text if len(text) <= LONGEST_TEXT else f'{text[:LONGEST_TEXT - 1]}…'
