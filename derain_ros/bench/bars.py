"""Figures of a benchmark, their bars, and how they are printed."""

import math
import operator
from dataclasses import dataclass, field
from typing import Any

_RELATIONS = {'>=': operator.ge, '<=': operator.le, '<': operator.lt, '=': operator.eq}


@dataclass(frozen=True)
class Bar:
    """What a figure should reach.

    Attributes
    ----------
    relation
        ``>=``, ``<=``, ``<`` or ``=``.
    limit
        In the unit of the figure.

    """

    relation: str
    limit: float

    def met(self, value: float) -> bool:
        """Whether a value reaches the bar; NaN never does."""
        return _RELATIONS[self.relation](value, self.limit)


@dataclass(frozen=True)
class Figure:
    """A measured figure.

    Attributes
    ----------
    name
        What it is.
    value
        NaN where it could not be measured.
    unit
        Empty for a plain number.
    bar
        What it should reach, if anything.
    digits
        Decimals to print.

    """

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
        return 'met' if self.bar.met(self.value) else 'missed'

    def cells(self) -> tuple[str, str, str, str]:
        """Return name, value, bar and verdict as text."""
        unit = f' {self.unit}' if self.unit else ''
        value = '-' if math.isnan(self.value) else f'{self.value:.{self.digits}f}{unit}'
        bar = '' if self.bar is None else f'bar {self.bar.relation} {self.bar.limit:g}{unit}'
        return self.name, value, bar, self.verdict


@dataclass
class Result:
    """What a scenario found.

    Attributes
    ----------
    title
        What was done, one line.
    figures
        The figures, those with bars first.
    notes
        What a reader should know besides, one sentence each.
    details
        More figures, for the JSON file.

    """

    title: str
    figures: list[Figure]
    notes: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def table(self) -> str:
        """Return the result for a terminal."""
        rows = [figure.cells() for figure in self.figures]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = [self.title]
        for name, value, bar, verdict in rows:
            line = f'  {name:<{widths[0]}}  {value:>{widths[1]}}  {bar:<{widths[2]}}  {verdict}'
            lines.append(line.rstrip())
        return '\n'.join(lines + [f'  {note}' for note in self.notes])

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
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
