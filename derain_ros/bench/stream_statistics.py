"""The arithmetic of the benchmarks, on plain numbers."""

from collections.abc import Mapping, Sequence

import numpy as np

DONE = ('published', 'dropped', 'failed', 'idle')
"""Keys of /diagnostics that a received frame ends in."""

KINDS = ('derained', 'bypassed', 'passed_through')
"""Keys of /diagnostics that a published frame counts in."""

_NAN = float('nan')
_MOST_IN_WORK = 2


def percentile(values: Sequence[float], share: float) -> float:
    """Return a percentile, 0–100, of the values that are no NaN; NaN of none."""
    numbers = np.asarray(values, float)
    numbers = numbers[~np.isnan(numbers)]
    return float(np.percentile(numbers, share)) if len(numbers) else _NAN


def rate(times: Sequence[int]) -> float:
    """Return events a second of ascending times in nanoseconds; 0 for fewer than two."""
    if len(times) < 2 or times[-1] <= times[0]:
        return 0.0
    return (len(times) - 1) * 1e9 / (times[-1] - times[0])


def thirds(values: Sequence[float]) -> tuple[float, float]:
    """Return the medians of the first and of the last third; NaN for fewer than three."""
    third = len(values) // 3
    return percentile(values[:third], 50), percentile(values[len(values) - third:], 50)


def ratio(value: float, reference: float) -> float:
    """Return value by reference; NaN where that says nothing."""
    return value / reference if reference > 0 else _NAN


def evenness(counts: Sequence[int]) -> float:
    """Return the least count as a share of the greatest; 0 where one got nothing."""
    return min(counts) / max(counts) if max(counts) else 0.0


def count_errors(reports: Sequence[Mapping[str, str]]) -> list[str]:
    """Say where the counts of a camera in /diagnostics do not add up, or go backwards.

    ``reports`` are its values in each report, in order; the result has an entry for each bad one.
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


def cpu_share(samples: Sequence[tuple[int, float]], begin: int, end: int) -> float:
    """Return the CPU seconds that a process used per second between two times in nanoseconds.

    ``samples`` are times and CPU seconds so far, in order; the first and the last one in between
    count. NaN for fewer than two.
    """
    inside = [sample for sample in samples if begin <= sample[0] <= end]
    if len(inside) < 2:
        return _NAN
    (first_time, first_cpu), (last_time, last_cpu) = inside[0], inside[-1]
    return (last_cpu - first_cpu) / (last_time - first_time) * 1e9


def growth(values: Sequence[float]) -> float:
    """Return the median of the last tenth less that of the first, three values each at least.

    NaN for fewer than six values.
    """
    if len(values) < 6:
        return _NAN
    tenth = max(3, len(values) // 10)
    return percentile(values[-tenth:], 50) - percentile(values[:tenth], 50)


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Return the median of the slopes between all pairs of points (Theil and Sen), per unit.

    NaN for fewer than two points; ``times`` ascend.
    """
    rows, columns = np.triu_indices(len(times), 1)
    x, y = np.asarray(times, float), np.asarray(values, float)
    return percentile((y[columns] - y[rows]) / (x[columns] - x[rows]), 50)
