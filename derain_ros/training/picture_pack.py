"""Dry pictures in one file of limited size.

A pack is a ZIP archive without compression: ``pack.json`` (format, version, and for each
picture its member, original file name, scene, width and height), ``pictures/NNNNN.jpg``,
and the attribution file of the folder under its own name. Equal folders give equal bytes.
"""

import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from derain_ros.replacing import replacing
from derain_ros.text import UserError

FORMAT, VERSION = 'derain-pack', 1
PICTURE_SUFFIXES = frozenset({'.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp'})
INDEX = 'pack.json'
MEBIBYTE = 2**20
QUALITY = 92
"""JPEG quality of pictures that are encoded anew."""

_JPEG_SUFFIXES = frozenset({'.jpg', '.jpeg'})
# Bytes that an archive needs for a member besides its content, with its line in the index.
_OVERHEAD = 512
_MEMBER_LIMIT = 256 * MEBIBYTE


class PackError(UserError, ValueError):
    """A pack cannot be made or read; the message names the file and the remedy."""


@dataclass(frozen=True)
class PackSummary:
    """What went into a pack.

    ``longest`` is the long side that larger pictures were reduced to, pixels, None if all were
    kept; ``size`` that of the file, bytes; ``attribution`` the name of the file of credits, or
    None; ``unreadable`` the names of files that hold no readable picture.
    """

    pictures: int
    scenes: int
    longest: int | None
    size: int
    attribution: str | None
    unreadable: tuple[str, ...]


def scene_of(path: Path) -> str:
    """Name of the scene of a picture: its stem without trailing digits.

    Frames of one sequence share a scene, which keeps long sequences from
    outweighing single pictures.
    """
    return re.sub(r'[_\-]*\d+$', '', path.stem)


def write_pack(
    folder: Path,
    path: Path,
    *,
    limit: int = 40 * MEBIBYTE,
    attribution: Path | None = None,
    progress: Callable[[str], None] = lambda _line: None,
) -> PackSummary:
    """Pack the pictures of a folder, which is not searched recursively.

    ``path`` is replaced completely or not at all. JPEG files small enough are stored unchanged. If
    the pack would exceed the ``limit`` (bytes), all pictures whose long side exceeds some length
    are reduced to it and re-encoded. ``attribution`` has the sources and licences, by default
    ``ATTRIBUTION.*`` in the folder. ``progress`` is called with a line before each pass over the
    pictures. Raises PackError: there is no picture, or the limit is too low for pictures of 128
    pixels.
    """
    try:
        files = sorted(p for p in folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES)
        if attribution is None:
            attribution = next(iter(sorted(folder.glob('ATTRIBUTION.*'))), None)
        licences = b'' if attribution is None else attribution.read_bytes()
    except OSError as error:
        raise PackError(f'{error.filename}: {error.strerror or error}; give a folder of '
                        'pictures, and a file that credits them') from error
    room = limit - len(licences) - _OVERHEAD * (len(files) + 2)
    longest = None
    with replacing(path) as partial:
        while True:
            entries, sides, used, unreadable = [], [], 0, []
            progress(f'long sides up to {longest} px' if longest else 'pictures as they are')
            with zipfile.ZipFile(partial, 'w', zipfile.ZIP_STORED) as archive:
                for file in files:
                    picture = _encoded(file, longest)
                    if picture is None:
                        unreadable.append(file.name)
                        continue
                    data, width, height, original = picture
                    member = f'pictures/{len(entries):05d}.jpg'
                    _add(archive, member, data)
                    used += len(data)
                    sides.append(original)
                    entries.append({'file': member, 'name': file.name, 'scene': scene_of(file),
                                    'width': width, 'height': height})
                if not entries:
                    raise PackError(f'{folder}: no readable picture; known formats: '
                                    f'{", ".join(sorted(PICTURE_SUFFIXES))}')
                facts = {'format': FORMAT, 'version': VERSION, 'pictures': entries,
                         'attribution': attribution.name if attribution else None}
                _add(archive, INDEX, json.dumps(facts, indent=1).encode())
                if attribution:
                    _add(archive, attribution.name, licences)
            size = partial.stat().st_size
            if size <= limit:
                break
            longest = _shorter(sides, longest, room / used)
            if longest < 128:
                raise PackError(f'{path}: {limit / MEBIBYTE:g} MiB are too few for '
                                f'{len(entries)} pictures; raise --limit or take fewer')
    scenes = len({entry['scene'] for entry in entries})
    return PackSummary(len(entries), scenes, longest, size,
                       attribution.name if attribution else None, tuple(unreadable))


def read_pack(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield scene and picture, uint8 H×W×3 BGR, in the order of a pack.

    Raises PackError: the file is no pack, of another version, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            facts = json.loads(_member(archive, INDEX))
            if facts['format'] != FORMAT:
                raise PackError(f'{path}: not a pack of pictures; make one with `derain pack`')
            if facts['version'] != VERSION:
                raise PackError(f'{path}: version {facts["version"]} of the format, but this is '
                                f'{VERSION}; pack the pictures again')
            for entry in facts['pictures']:
                data = np.frombuffer(_member(archive, entry['file']), np.uint8)
                picture = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
                if picture is None:
                    raise PackError(f'{path}: {entry["file"]} is not a readable picture; pack the '
                                    'pictures again')
                yield str(entry['scene']), picture
    except PackError:
        raise
    except (OSError, zipfile.BadZipFile, zlib.error, struct.error, cv2.error, KeyError,
            TypeError, ValueError, EOFError, NotImplementedError, RuntimeError) as error:
        raise PackError(f'{path}: damaged, or not a pack: {error}; make one with `derain pack`'
                        ) from error


def _encoded(file: Path, longest: int | None) -> tuple[bytes, int, int, int] | None:
    """Return JPEG bytes, width, height and the long side of the original."""
    picture = cv2.imread(str(file))
    if picture is None:
        return None
    height, width = picture.shape[:2]
    side = max(height, width)
    if (longest is None or side <= longest) and file.suffix.lower() in _JPEG_SUFFIXES:
        return file.read_bytes(), width, height, side
    if longest is not None and side > longest:
        width, height = (max(1, round(x * longest / side)) for x in (width, height))
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    data = cv2.imencode('.jpg', picture, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()
    return data, width, height, side


def _shorter(sides: list[int], longest: int | None, share: float) -> int:
    """Return the longest side that leaves a little less than ``share`` of the pixels."""
    now = np.minimum(sides, longest or max(sides)).astype(float)
    wanted = 0.97 * share * (now**2).sum()
    candidates = np.arange(int(now.max()) - 1, 0, -1)
    areas = np.array([(np.minimum(now, side) ** 2).sum() for side in candidates])
    fitting = candidates[areas <= wanted]
    return int(fitting[0]) if len(fitting) else 0


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    # A fixed time, so that equal pictures give equal packs.
    archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), data)


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Read a member whose declared size is sane."""
    if archive.getinfo(name).file_size > _MEMBER_LIMIT:
        raise ValueError(f'{name} is larger than {_MEMBER_LIMIT // MEBIBYTE} MiB')
    return archive.read(name)
