"""Match the images of several folders by name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import numpy as np

from derain_ros.files import FileError
from derain_ros.files.image_files import VIDEO_SUFFIXES, collect_images
from derain_ros.text import printable

_SHOWN = 5


@dataclass(frozen=True)
class BadPair:
    """A frame or pair that could not be read or evaluated, and why; both printable."""

    name: str
    reason: str


def match_pictures(rainy: Path, others: Mapping[str, Path]) -> dict[PurePath, dict[str, Path]]:
    """Match images of the same name in folders, searched recursively.

    Names are first compared with their suffix (``a.png`` and ``a.png``), then without (``a.jpg``
    and ``a.png``). Files instead of folders match whatever their names. ``others`` maps versions,
    such as ``clean``, to folders.

    Returns the files of each image by version, ``rainy`` included, keyed and ordered by its name
    in the rainy folder. Raises FileError if an image has no partner, a folder has no images, or a
    file is a video.
    """
    for path in (rainy, *others.values()):
        # OpenCV reads the first picture of a .gif.
        if path.suffix.lower() in VIDEO_SUFFIXES - {'.gif'} and path.is_file():
            raise FileError(f'{path}: is a video; extract the frames of each video into a folder '
                            'of pictures of the same names (which `derain evaluate` takes with '
                            '--clip)')
    found = _pictures(rainy, *others.values())
    matches = {name: {'rainy': file} for name, file in found.items()}
    for version, other in others.items():
        if rainy.exists() and other.exists() and rainy.samefile(other):
            raise FileError(f'{rainy} and {other} are the same; name the {version} pictures that '
                            'belong to the rainy ones')
        if rainy.is_file() and other.is_file():
            matches[PurePath(rainy.name)][version] = other
            continue
        for path, second in ((rainy, other), (other, rainy)):
            if path.is_file():
                raise FileError(f'{path} is a file, but {second} is not; name two folders or two '
                                'files')
        for name, partner in _match(found, _pictures(other, rainy), rainy, other):
            matches[name][version] = partner
    return matches


def check_sizes(rainy: np.ndarray, clean: np.ndarray, rainy_name: str, clean_name: str) -> None:
    """Raise FileError, which names both images, unless they have the same size."""
    if rainy.shape != clean.shape:
        sizes = [f'{image.shape[1]}x{image.shape[0]}' for image in (rainy, clean)]
        raise FileError(
            f'{rainy_name} has {sizes[0]} pixels, but {clean_name} has {sizes[1]}; a pair '
            'must be of one size')


def _pictures(path: Path, *apart: Path) -> dict[PurePath, Path]:
    """Return the images of a folder by relative path, except those in the folders ``apart``."""
    root = path if path.is_dir() else path.parent
    return {job.source.relative_to(root): job.source for job in collect_images([path], *apart)}


def _match(
    rainy: dict[PurePath, Path], clean: dict[PurePath, Path], rainy_root: Path, clean_root: Path
) -> list[tuple[PurePath, Path]]:
    """Return the name of each rainy image and its partner's file; FileError if one is missing."""
    by_stem: dict[PurePath, list[PurePath]] = {}
    for name in clean.keys() - rainy.keys():
        by_stem.setdefault(name.with_suffix(''), []).append(name)
    partners, missing = [], []
    for name, file in rainy.items():
        candidates = [name] if name in clean else by_stem.pop(name.with_suffix(''), [])
        if len(candidates) > 1:
            raise FileError(
                f'{file} could go with ' + ' or '.join(
                    str(clean[candidate]) for candidate in sorted(candidates))
                + '; remove all but one of them')
        if candidates:
            partners.append((name, clean[candidates[0]]))
        else:
            missing.append((file, clean_root / name))
    taken = {file for _, file in partners}
    missing += [(file, rainy_root / name) for name, file in clean.items() if file not in taken]
    if missing:
        raise FileError(_describe_missing(missing, len(partners)))
    return partners


def _describe_missing(missing: Sequence[tuple[Path, Path]], paired: int) -> str:
    lines = [f'{file} has no partner: there is no {partner}, nor one of another format'
             for file, partner in missing[:_SHOWN]]
    if len(missing) > _SHOWN:
        lines.append(f'{len(missing) - _SHOWN} more have none')
    advice = 'add what is missing or move these away'
    if not paired:
        advice = 'no picture has one: a rainy picture and its clean one need the same name'
    return printable('; '.join([*lines, advice]))
