"""Pairs of rainy and clean pictures from two folders."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Protocol

import numpy as np

from derain_ros.files.image_files import ImageFileError, collect_images, read_image
from derain_ros.text import natural_key, printable

_SHOWN = 5


class PairError(ValueError):
    """Pictures cannot be paired; the message names them and says what to do."""


@dataclass(frozen=True)
class Pair:
    """A rainy picture and its truth.

    Attributes
    ----------
    name
        What to call the pair; printable.
    position
        Number in its clip; those of consecutive frames differ by 1.
    rainy, clean
        uint8, H×W×3, BGR, C-contiguous, of one size.

    """

    name: str
    position: int
    rainy: np.ndarray
    clean: np.ndarray


@dataclass(frozen=True)
class BadPair:
    """A pair that could not be read or measured, and why; printable."""

    name: str
    reason: str


class PairSource(Protocol):
    """Where pairs come from, one after the other."""

    def __len__(self) -> int:
        """Return how many pairs :meth:`read` yields."""

    def describe(self) -> dict:
        """Return what was read, fit for JSON."""

    def read(self) -> Iterator[Pair | BadPair]:
        """Yield the pairs in order; one at a time is in memory."""


class FolderPairs:
    """Pictures of the same name in two folders, searched recursively.

    A name counts with its suffix first (``a.png`` and ``a.png``), then without
    (``a.jpg`` and ``a.png``). Numbers in names are sorted as numbers. Two files make one
    pair, whatever their names.

    Parameters
    ----------
    rainy, clean
        Two folders, or two files.

    Raises
    ------
    PairError
        A picture has no partner, or a folder holds none.

    """

    def __init__(self, rainy: Path, clean: Path):
        self._rainy, self._clean = rainy, clean
        if rainy.exists() and clean.exists() and rainy.samefile(clean):
            raise PairError(f'{rainy} and {clean} are the same; name the clean pictures of the '
                            'rainy ones')
        if rainy.is_file() and clean.is_file():
            self._pairs = [(PurePath(rainy.name), rainy, clean)]
            return
        for path, other in ((rainy, clean), (clean, rainy)):
            if path.is_file():
                raise PairError(f'{path} is a file, but {other} is not; name two folders or two '
                                'files')
        self._pairs = _match(_pictures(rainy, clean), _pictures(clean, rainy), rainy, clean)

    def __len__(self) -> int:
        return len(self._pairs)

    def describe(self) -> dict:
        """Return the folders."""
        return {'kind': 'pictures', 'rainy': printable(str(self._rainy)),
                'clean': printable(str(self._clean))}

    def read(self) -> Iterator[Pair | BadPair]:
        """Yield the pairs by name; a picture that cannot be read gives a BadPair."""
        for position, (name, rainy_file, clean_file) in enumerate(self._pairs):
            shown = printable(name.as_posix())
            try:
                rainy, clean = read_image(rainy_file), read_image(clean_file)
                check_sizes(rainy, clean, str(rainy_file), str(clean_file))
            except ValueError as error:
                yield BadPair(shown, printable(str(error)))
            else:
                yield Pair(shown, position, rainy, clean)


def check_sizes(rainy: np.ndarray, clean: np.ndarray, rainy_name: str, clean_name: str) -> None:
    """Raise PairError, which names both pictures, unless they are of one size."""
    if rainy.shape != clean.shape:
        sizes = [f'{image.shape[1]}x{image.shape[0]}' for image in (rainy, clean)]
        raise PairError(
            f'{rainy_name} has {sizes[0]} pixels, but {clean_name} has {sizes[1]}; a pair '
            'must be of one size')


def _pictures(folder: Path, other: Path) -> dict[PurePath, Path]:
    """Find the pictures of a folder by relative path, without those of the other folder."""
    try:
        jobs = collect_images([folder], other)
    except ImageFileError as error:
        raise PairError(str(error)) from error
    found = {job.source.relative_to(folder): job.source for job in jobs}
    return dict(sorted(found.items(), key=lambda item: natural_key(item[0].as_posix())))


def _match(
    rainy: dict[PurePath, Path], clean: dict[PurePath, Path], rainy_root: Path, clean_root: Path
) -> list[tuple[PurePath, Path, Path]]:
    by_stem: dict[PurePath, list[PurePath]] = {}
    for name in clean.keys() - rainy.keys():
        by_stem.setdefault(name.with_suffix(''), []).append(name)
    partners, missing = {}, []
    for name in rainy:
        candidates = [name] if name in clean else by_stem.get(name.with_suffix(''), [])
        if len(candidates) > 1:
            raise PairError(
                f'{rainy[name]} could go with ' + ' or '.join(
                    str(clean[candidate]) for candidate in sorted(candidates))
                + '; remove all but one of them')
        if candidates:
            partners[name] = candidates[0]
            if candidates[0] != name:
                by_stem[name.with_suffix('')] = []
        else:
            missing.append((rainy[name], clean_root / name))
    taken = set(partners.values())
    missing += [(file, rainy_root / name) for name, file in clean.items() if name not in taken]
    if missing:
        raise PairError(_describe_missing(missing, len(partners)))
    return [(name, rainy[name], clean[partner]) for name, partner in partners.items()]


def _describe_missing(missing: Sequence[tuple[Path, Path]], paired: int) -> str:
    lines = [f'{file} has no partner: there is no {partner}, nor one of another format'
             for file, partner in missing[:_SHOWN]]
    if len(missing) > _SHOWN:
        lines.append(f'{len(missing) - _SHOWN} more have none')
    advice = 'add what is missing or move these away'
    if not paired:
        advice = 'no picture has one: a rainy picture and its clean one need the same name'
    return printable('; '.join([*lines, advice]))
