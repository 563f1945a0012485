"""Figures of a benchmark: how they are computed, judged against targets, and printed."""

import math
import operator
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import psutil

_RELATIONS = {'>=': operator.ge, '<=': operator.le, '<': operator.lt, '=': operator.eq}


@dataclass(frozen=True)
class Figure:
    """A measured figure, NaN if it could not be measured, printed with ``digits`` decimals.

    ``bar`` is the target: ``>=``, ``<=``, ``<`` or ``=`` and a limit in the unit of the figure,
    as in ``<= 66``.
    """

    name: str
    value: float
    unit: str = ''
    bar: str = ''
    digits: int = 1

    @property
    def verdict(self) -> str:
        """``met``, ``missed`` or ``not measured``; empty without a bar."""
        if not self.bar:
            return ''
        if math.isnan(self.value):
            return 'not measured'
        relation, limit = self.bar.split()
        return 'met' if _RELATIONS[relation](self.value, float(limit)) else 'missed'

    def cells(self) -> tuple[str, str, str, str]:
        """Return name, value, target and verdict as text."""
        unit = f' {self.unit}' if self.unit else ''
        value = '-' if math.isnan(self.value) else f'{self.value:.{self.digits}f}{unit}'
        return self.name, value, f'target {self.bar}{unit}' if self.bar else '', self.verdict


@dataclass
class Result:
    """Figures of a scenario, those with bars first, notes, and ``details`` for the JSON file."""

    title: str
    figures: list[Figure]
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.figures = sorted(self.figures, key=lambda figure: not figure.bar)  # a stable sort

    def table(self) -> str:
        """Return the result as a table for a terminal."""
        rows = [figure.cells() for figure in self.figures]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [f'  {name:<{widths[0]}}  {value:>{widths[1]}}  {bar:<{widths[2]}}  {verdict}'
                 for name, value, bar, verdict in rows]
        return '\n'.join(
            [self.title, *map(str.rstrip, lines), *(f'  {note}' for note in self.notes)])

    def as_json(self) -> dict[str, Any]:
        """Return everything, ready for JSON: None for what was not measured."""
        return _without_nan({
            'title': self.title, 'notes': self.notes, 'details': self.details,
            'figures': [
                {'name': figure.name, 'value': figure.value, 'unit': figure.unit,
                 'bar': figure.bar or None, 'verdict': figure.verdict}
                for figure in self.figures]})


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(found) for key, found in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(found) for found in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# Statistics of plain numbers

DONE = ('published', 'dropped', 'failed', 'idle')
"""Counters in /diagnostics; every received frame ends up in exactly one of them."""

KINDS = ('derained', 'bypassed', 'passed_through')
"""Counters in /diagnostics; every published frame is in exactly one of them."""

_MOST_IN_WORK = 2


def percentile(values: Sequence[float], share: float) -> float:
    """Return a percentile, ``share`` 0–100, of the values, ignoring NaN; NaN if there are none."""
    numbers = np.asarray(values, float)
    numbers = numbers[~np.isnan(numbers)]
    return float(np.percentile(numbers, share)) if len(numbers) else math.nan


def rate(times: Sequence[int]) -> float:
    """Return the rate in Hz of events at ascending times in ns; 0 for fewer than two."""
    if len(times) < 2 or times[-1] <= times[0]:
        return 0.0
    return (len(times) - 1) * 1e9 / (times[-1] - times[0])


def thirds(values: Sequence[float]) -> tuple[float, float]:
    """Return the medians of the first and of the last third; NaN for fewer than three."""
    third = len(values) // 3
    return percentile(values[:third], 50), percentile(values[len(values) - third:], 50)


def ratio(value: float, reference: float) -> float:
    """Return value / reference; NaN unless the reference is positive."""
    return value / reference if reference > 0 else math.nan


def evenness(counts: Sequence[int]) -> float:
    """Return the smallest count as a fraction of the largest; 0 if any count is 0."""
    return min(counts) / max(counts) if max(counts) else 0.0


def count_errors(reports: Sequence[Mapping[str, str]]) -> list[str]:
    """Check that the counters of a camera in /diagnostics add up, and do not decrease.

    ``reports`` are its values in each report, in order; returns a message for each bad report.
    """
    errors = []
    last = -1
    for number, report in enumerate(reports):
        received = int(report['received'])
        done = sum(int(report[key]) for key in DONE)
        kinds = sum(int(report.get(key, 0)) for key in KINDS)
        if not 0 <= received - done <= _MOST_IN_WORK:
            errors.append(f'report {number}: {received} received, {done} accounted for')
        elif received < last:
            errors.append(f'report {number}: {received} received, {last} before')
        elif all(key in report for key in KINDS) and kinds != int(report['published']):
            errors.append(f'report {number}: {report["published"]} published, but {kinds} '
                          'derained, bypassed or passed through')
        last = received
    return errors


def growth(values: Sequence[float]) -> float:
    """Return the median of the last tenth minus that of the first; NaN below six values."""
    if len(values) < 6:
        return math.nan
    tenth = max(3, len(values) // 10)
    return percentile(values[-tenth:], 50) - percentile(values[:tenth], 50)


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Return the Theil-Sen slope, the median of the slopes between all pairs of points.

    It is per unit of ``times``, which must be strictly ascending; NaN for fewer than two points.
    Of many points, some thousand are taken: the pairs of a day's samples would fill the memory.
    """
    step = 1 + len(times) // 2000
    x, y = np.asarray(times[::step], float), np.asarray(values[::step], float)
    rows, columns = np.triu_indices(len(x), 1)
    return percentile((y[columns] - y[rows]) / (x[columns] - x[rows]), 50)


# Processes

class ProcessFigures(NamedTuple):
    """Resource usage of a process at one moment.

    ``time`` in ns since the epoch; ``cpu`` in seconds so far, user and system, of all threads;
    memory in MiB: resident set (``rss``), proportional set (``pss``), and ``anonymous`` memory,
    which is not backed by a file (heap, stacks); number of ``threads`` and file ``descriptors``.
    Values that were not requested are NaN.
    """

    time: int
    cpu: float
    rss: float
    pss: float = math.nan
    anonymous: float = math.nan
    threads: float = math.nan
    descriptors: float = math.nan


def process_figures(pid: int, *, cheap: bool = False) -> ProcessFigures:
    """Return the resource usage of a process; raises ProcessLookupError if it is unavailable.

    With ``cheap``, only CPU time and resident memory are read, which costs the process nothing.
    """
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            now, cpu = time.time_ns(), sum(process.cpu_times()[:2])
            rss = process.memory_info().rss / 2**20
            if cheap:
                return ProcessFigures(now, cpu, rss)
            maps = process.memory_maps()
            return ProcessFigures(
                now, cpu, rss, sum(one.pss for one in maps) / 2**20,
                sum(one.anonymous for one in maps) / 2**20, process.num_threads(),
                process.num_fds())
    except psutil.Error as error:
        raise ProcessLookupError(f'process {pid}: {error}') from error


def cpu_share(samples: Sequence[ProcessFigures], begin: int, end: int) -> float:
    """Return the CPU seconds that a process used per second between two times in ns.

    They are those between the first and last sample in that interval. NaN for fewer than two.
    """
    inside = [sample for sample in samples if begin <= sample.time <= end]
    if len(inside) < 2:
        return math.nan
    first, last = inside[0], inside[-1]
    return (last.cpu - first.cpu) / (last.time - first.time) * 1e9
