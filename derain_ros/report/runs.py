"""The runs of a report: columns of its tables and lines of its plots."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from derain_ros.files.run_files import read_run
from derain_ros.report.plots import COLOURS
from derain_ros.report.schemas import SCHEMAS, Facts
from derain_ros.text import printable


@dataclass(frozen=True)
class Entry:
    """One model in one run file: a column of a table, a line of a plot.

    ``kind`` is that of the run file; ``facts`` describes the model, and ``run`` is the whole run
    file, both of the types in :data:`derain_ros.report.schemas.SCHEMAS`; ``data`` is the entry's
    part of it: one of ``models`` for the kind ``pairs``, else ``run`` itself.
    """

    letter: str  # its name throughout the page: A, B, … Z, AA, …
    kind: str
    file: Path
    name: str  # label given by the user, or else the name of the file
    about: str  # model, engine and precision, as far as known
    facts: Any
    run: Any
    data: Any
    colour: int  # the same for one model in all plots, unless that would be ambiguous

    @property
    def model(self) -> str:
        """Name of the model, or of the run if the model is unknown."""
        return printable(self.facts.model or self.name)

    @property
    def short(self) -> str:
        """Letter and model."""
        return f'{self.letter}: {self.model}'


def load_entries(files: Sequence[Path], labels: Sequence[str] = ()) -> list[Entry]:
    """Read run files, at least one, and validate everything that the report uses.

    ``labels`` name the first files. Raises OSError if a file cannot be read, and FileError, which
    names file and field, if it is not a run file, or a field is missing or invalid.
    """
    names = [*labels, *(file.name for file in files[len(labels):])]
    return make_entries([(file, name, read_run(file, SCHEMAS))
                         for file, name in zip(files, names, strict=True)])


def make_entries(runs: Sequence[tuple[Path, str, Any]]) -> list[Entry]:
    """Return the entries of runs: tuples of file, name (if empty, its model is used), content."""
    found = []
    makers = [(run, run.model) for _, _, run in runs if isinstance(run, SCHEMAS['bag'])]
    for file, name, run in runs:
        kind = next(kind for kind, schema in SCHEMAS.items() if isinstance(run, schema))
        for data in run.models if kind == 'pairs' else [run]:
            facts = (data if kind == 'pairs' else run.model) or Facts()
            name = printable(name or facts.model or '')
            given = kind == 'detections' and run.model is None
            if given:
                facts = _maker(run.source, makers) or facts
            about = ' · '.join(filter(None, (facts.model, facts.engine, facts.precision)))
            if given:
                about = ', '.join(filter(None, ('derained as given', about)))
            found.append((kind, file, name, about, facts, run, data))
    colours = _colours([(kind, facts) for kind, _, _, _, facts, _, _ in found])
    return [Entry(_letter(number), *one, colours[number]) for number, one in enumerate(found)]


def of_kind(entries: Sequence[Entry], kind: str) -> list[Entry]:
    """Return the entries of a kind, in order."""
    return [entry for entry in entries if entry.kind == kind]


def _maker(source: Any, makers: Sequence[tuple[Any, Any]]) -> Any:
    """Return the facts of the model that derained a topic of a bag; None if ambiguous."""
    bag = PurePath(source.bag or '').name
    found = [facts for run, facts in makers
             if bag == PurePath(run.output.path).name and source.derained_topic in [
                 camera.image for camera in run.cameras]]
    return found[0] if found and all(facts == found[0] for facts in found) else None


def _letter(number: int) -> str:
    return (_letter(number // 26 - 1) if number >= 26 else '') + chr(ord('A') + number % 26)


def _colours(entries: Sequence[tuple[str, Any]]) -> list[int]:
    """Choose colours: one per model, but distinct within a kind as long as there are enough."""
    known: dict[tuple, int] = {}
    used: dict[str, set[int]] = {}
    chosen: list[int] = []
    for number, (kind, facts) in enumerate(entries):
        system: tuple = (facts.sha256, facts.model, facts.engine, facts.precision)
        if not any(system):
            system = (number,)
        taken = used.setdefault(kind, set())
        colour = known.get(system)
        if colour is None or colour in taken:
            # Prefer a colour that no entry has; if all are taken, cycle through them.
            free = sorted(set(range(len(COLOURS))) - taken, key=lambda one: one in chosen)
            colour = free[0] if free else number % len(COLOURS)
        known.setdefault(system, colour)
        taken.add(colour)
        chosen.append(colour)
    return chosen
