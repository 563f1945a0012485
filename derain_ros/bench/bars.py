"""Figures of a benchmark, their bars, and how they are printed."""

import math
import operator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

_RELATIONS = {'>=': operator.ge, '<=': operator.le, '<': operator.lt, '=': operator.eq}


class Bar(NamedTuple):
    """What a figure should reach: ``>=``, ``<=``, ``<`` or ``=`` a limit in its unit."""

    relation: str
    limit: float


@dataclass(frozen=True)
class Figure:
    """A measured figure, NaN where it could not be measured, printed with so many digits."""

    name: str
    value: float
    unit: str = ''
    bar: Bar | None = None
    digits: int = 1

    @property
    def verdict(self) -> str:
        """``met``, ``missed`` or ``not measured``; empty without a bar."""
        if self.bar is None:
            return ''
        if math.isnan(self.value):
            return 'not measured'
        return 'met' if _RELATIONS[self.bar.relation](self.value, self.bar.limit) else 'missed'

    def cells(self) -> tuple[str, str, str, str]:
        """Return name, value, bar and verdict as text."""
        unit = f' {self.unit}' if self.unit else ''
        value = '-' if math.isnan(self.value) else f'{self.value:.{self.digits}f}{unit}'
        bar = '' if self.bar is None else f'bar {self.bar.relation} {self.bar.limit:g}{unit}'
        return self.name, value, bar, self.verdict


@dataclass
class Result:
    """What a scenario found: figures, those with bars first, and notes, one sentence each.

    ``details`` are more figures, for the JSON file.
    """

    title: str
    figures: list[Figure]
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def table(self) -> str:
        """Return the result for a terminal."""
        rows = [figure.cells() for figure in self.figures]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [f'  {name:<{widths[0]}}  {value:>{widths[1]}}  {bar:<{widths[2]}}  {verdict}'
                 for name, value, bar, verdict in rows]
        return '\n'.join(
            [self.title, *map(str.rstrip, lines), *(f'  {note}' for note in self.notes)])

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON takes it: null for what was not measured."""
        return _without_nan({
            'title': self.title,
            'figures': [
                {'name': figure.name, 'value': figure.value, 'unit': figure.unit,
                 'bar': figure.bar and f'{figure.bar.relation} {figure.bar.limit:g}',
                 'verdict': figure.verdict}
                for figure in self.figures],
            'notes': self.notes,
            'details': self.details,
        })


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(found) for key, found in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(found) for found in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
