"""The run files of a report, and the columns that they become in its tables and plots."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from derain_ros.files.run_files import RunFileError, read_run
from derain_ros.report.schemas import SCHEMAS
from derain_ros.text import printable

COLOURS = 6
"""How many colours of series the style of the page has."""


@dataclass(frozen=True)
class Entry:
    """One model in one run file: a column of a table, a line of a plot.

    Attributes
    ----------
    letter
        How it is called all over the page: A, B, … Z, AA, …
    kind
        Of the run file.
    file
        Where it was read.
    name
        What the user calls it, or else the name of the file.
    about
        Model, engine and precision, as far as known.
    facts
        ``model``, ``file``, ``sha256``, ``engine``, ``device``, ``precision``; texts, or None
        where unknown.
    run
        All of the run file, checked.
    data
        What belongs to the entry: of ``pairs`` one of ``models``, else ``run``.
    colour
        Number of its colour, 0 to COLOURS - 1; the same model has the same one in all plots
        where that is clear.

    """

    letter: str
    kind: str
    file: Path
    name: str
    about: str
    facts: dict[str, str | None]
    run: dict[str, Any]
    data: dict[str, Any]
    colour: int

    @property
    def model(self) -> str:
        """Name of the model, or of the run where it is not known."""
        return self.facts['model'] or self.name

    @property
    def short(self) -> str:
        """Letter and model."""
        return f'{self.letter}: {self.model}'


def load_entries(files: Sequence[Path], labels: Sequence[str] = ()) -> list[Entry]:
    """Read run files and check all that the report takes from them.

    Parameters
    ----------
    files
        At least one, of any kind.
    labels
        What to call the files, in order; may be fewer.

    Raises
    ------
    RunFileError
        A file cannot be read, is none of ours, or a field is missing or of the wrong type; the
        message names file and field.

    """
    found = []
    for number, file in enumerate(files):
        run = read_checked(file)
        kind = run['kind']
        models = run['models'] if kind == 'pairs' else [run]
        for data in models:
            facts = _facts(data if kind == 'pairs' else run['model'])
            name = printable(labels[number] if number < len(labels) else file.name)
            found.append((kind, file, name, _about(facts), facts, run, data))
    makers = [(run, facts) for kind, _, _, _, facts, run, _ in found if kind == 'bag']
    for number, (kind, file, name, _, facts, run, data) in enumerate(found):
        if kind == 'detections' and run['model'] is None:
            facts = _maker(run['source'], makers) or facts
            about = ', '.join(filter(None, ('derained as given', _about(facts))))
            found[number] = kind, file, name, about, facts, run, data
    colours = _colours([(kind, facts) for kind, _, _, _, facts, _, _ in found])
    return [Entry(_letter(number), *entry, colour)
            for number, (entry, colour) in enumerate(zip(found, colours, strict=True))]


def read_checked(file: Path) -> dict[str, Any]:
    """Read one run file with every field that the report needs.

    Raises
    ------
    RunFileError
        As :func:`load_entries`.

    """
    run = read_run(file)
    try:
        SCHEMAS[run['kind']](run, '')
        return _clean(run)
    except RunFileError as error:
        raise RunFileError(f'{file}: {error}; make the file anew') from error
    except RecursionError as error:
        raise RunFileError(f'{file}: is nested too deeply; make the file anew') from error


def of_kind(entries: Sequence[Entry], kind: str) -> list[Entry]:
    """Return the entries of a kind, in order."""
    return [entry for entry in entries if entry.kind == kind]


def _clean(value: Any) -> Any:
    """Escape in all texts what could confuse a page, such as half a surrogate."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {printable(name): _clean(item) for name, item in value.items()}
    return value


def _about(facts: dict[str, str | None]) -> str:
    return ' · '.join(filter(None, (facts['model'], facts['engine'], facts['precision'])))


def _maker(source: dict, makers: Sequence[tuple[dict, dict]]) -> dict[str, str | None] | None:
    """Return what is known of the model that made the frames of a bag; None if that is unclear."""
    bag = PurePath(source.get('bag') or '').name
    found = [facts for run, facts in makers
             if bag == PurePath(run['output']['path']).name and source.get('derained_topic') in [
                 camera['image'] for camera in run['cameras']]]
    return found[0] if found and all(facts == found[0] for facts in found) else None


def _facts(model: dict | None) -> dict[str, str | None]:
    return {name: (model or {}).get(name)
            for name in ('model', 'file', 'sha256', 'engine', 'device', 'precision')}


def _letter(number: int) -> str:
    name = ''
    number += 1
    while number:
        number, rest = divmod(number - 1, 26)
        name = chr(ord('A') + rest) + name
    return name


def _colours(entries: Sequence[tuple[str, dict]]) -> list[int]:
    """Give the same model the same colour, but two entries of one kind never, while they last."""
    known: dict[tuple, int] = {}
    used: dict[str, set[int]] = {}
    chosen = []
    for number, (kind, facts) in enumerate(entries):
        system = tuple(facts[name] for name in ('sha256', 'model', 'engine', 'precision'))
        if not any(system):
            system = (number,)
        taken = used.setdefault(kind, set())
        colour = known.get(system)
        if colour is None or colour in taken:
            free = [one for one in range(COLOURS) if one not in taken and one not in chosen]
            free += [one for one in range(COLOURS) if one not in taken]
            colour = free[0] if free else len(chosen) % COLOURS
        known.setdefault(system, colour)
        taken.add(colour)
        chosen.append(colour)
    return chosen
