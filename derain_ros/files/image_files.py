"""Derain image files and folders.

Every image is read as 8-bit BGR, the way a viewer shows it: grey becomes three equal channels,
16-bit samples are reduced to the upper eight of the bits in use, an alpha channel is dropped, the
EXIF orientation is applied, and only the first image of an animation or multi-page file is used.
"""

import logging
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

import cv2
import numpy as np

from derain_ros.bags.fleet import walk
from derain_ros.engines import Engine
from derain_ros.files import FileError, check_folder
from derain_ros.images.compressed import lacks_end
from derain_ros.images.decoder_warnings import decode_noting_damage
from derain_ros.images.pipeline import Frame
from derain_ros.images.pixel_formats import bits_in_use, eight_bits
from derain_ros.replacing import replace_file
from derain_ros.text import natural_key, printable

IMAGE_SUFFIXES = frozenset({
    '.bmp', '.jpeg', '.jpg', '.pgm', '.png', '.pnm', '.ppm', '.tif', '.tiff', '.webp'})
"""Lower-case suffixes of the files that are collected from a folder."""

VIDEO_SUFFIXES = frozenset({
    '.3gp', '.avi', '.flv', '.gif', '.h264', '.m2ts', '.m4v', '.mkv', '.mov', '.mp4', '.mpeg',
    '.mpg', '.mts', '.ts', '.webm', '.wmv'})
"""Lower-case suffixes of files that are read as videos."""

_KINDS = ', '.join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))


@dataclass(frozen=True)
class ImageJob:
    """An image to read, and the path of its result in the output folder, without ``.png``."""

    source: Path
    stem: PurePath

    def output_names(self, *, mask: bool, overlay: bool) -> list[PurePath]:
        """Return the relative paths of the files this job writes; the image comes first."""
        suffixes = ['.png', *['_mask.png'] * mask, *['_overlay.png'] * overlay]
        return [self.stem.with_name(self.stem.name + suffix) for suffix in suffixes]


def collect_images(paths: Iterable[Path], *apart: Path) -> list[ImageJob]:
    """Collect images from files and folders, those of a folder in natural order of name.

    Folders are searched recursively for :data:`IMAGE_SUFFIXES`, following links, each folder
    once; hidden files are skipped, and so are the folders ``apart`` if they are inside such a
    folder. A file in ``paths`` is taken whatever its suffix. Folders that cannot be read, and the
    kinds of files skipped, are logged. Raises FileError if a path does not exist, or a folder
    holds no image.
    """
    jobs: dict[tuple[Path, PurePath], ImageJob] = {}
    for path in paths:
        if not path.exists():
            raise FileError(f'{path}: no such file or folder')
        root = path if path.is_dir() else path.parent
        for source in _pictures_in(path, apart) if path.is_dir() else [path]:
            job = ImageJob(source, source.relative_to(root).with_suffix(''))
            jobs.setdefault((source.resolve(), job.stem), job)
    return list(jobs.values())


def check_outputs(jobs: Sequence[ImageJob], output: Path, *, mask: bool, overlay: bool) -> None:
    """Make sure that no result overwrites an input, even through links, or another result.

    Raises FileError if one would, or if ``output`` is not a writable folder.
    """
    check_folder(output)
    inputs = {_identity(job.source): job.source for job in jobs if job.source.exists()}
    writers: dict[PurePath, Path] = {}
    for job in jobs:
        for name in job.output_names(mask=mask, overlay=overlay):
            if name in writers:
                raise FileError(
                    f'{writers[name]} and {job.source} would both write {output / name}; '
                    'rename one of them, or give each its own output folder')
            writers[name] = job.source
            target = output / name
            if target.exists() and _identity(target) in inputs:
                raise FileError(
                    f'{target} would overwrite the input {inputs[_identity(target)]}; '
                    'choose another output folder')


def derain_images(
    jobs: Iterable[ImageJob], engine: Engine, output: Path, *, strength: float = 1.0,
    mask: bool = False, overlay: bool = False, bits: int | None = None,
) -> Iterator[str | None]:
    """Derain images, checked by :func:`check_outputs` before; yields as :func:`make_images`.

    ``output`` is the folder of the results, created if it does not exist. ``strength`` is the
    share of the derained image in the result, 0–1.5; ``mask`` and ``overlay`` also write
    ``<stem>_mask.png`` (grey, 255 = rain) and ``<stem>_overlay.png``. ``bits`` is how many bits
    16-bit samples use, None to estimate it.
    """
    def make(job: ImageJob, picture: np.ndarray) -> list[tuple[Path, np.ndarray]]:
        frame = Frame(bgr=picture)
        frame.derain(engine.infer)
        images = [frame.blended(strength), *[frame.mask()] * mask]
        if overlay:
            images.append(frame.overlay())
        names = job.output_names(mask=mask, overlay=overlay)
        return [(output / name, image) for name, image in zip(names, images, strict=True)]

    return make_images(jobs, make, bits)


def make_images(
    jobs: Iterable[ImageJob],
    make: Callable[[ImageJob, np.ndarray], Iterable[tuple[Path, np.ndarray]]],
    bits: int | None = None,
) -> Iterator[str | None]:
    """Read images one by one, and write the (path, image) pairs that ``make`` returns as PNG.

    ``bits`` is how many bits 16-bit samples use, None to estimate it. Yields None after each,
    or why it could not be read, processed (ValueError) or written.
    """
    reader = PictureReader(bits)
    for job in jobs:
        try:
            for path, image in make(job, *reader.read(job.source)):
                write_png(path, image)
        except FileError as error:
            yield str(error)
        except OSError as error:
            yield f'{job.source}: {error.filename}: {error.strerror}'
        except ValueError as error:
            yield f'{job.source}: {error}'
        else:
            yield None


class PictureReader:
    """Reads images that belong together, so that all their 16-bit samples have the same scale.

    Like the node, it estimates the number of bits in use from the largest sample so far, unless
    ``bits`` gives it; a number below 16 is logged, and so is the first picture that uses fewer.
    """

    def __init__(self, bits: int | None = None) -> None:
        self._known, self._bits, self._told = bits is not None, bits or 8, False

    def read(self, *paths: Path) -> list[np.ndarray]:
        """Read images as uint8, H×W×3, BGR, C-contiguous, upright.

        Raises FileError if a file cannot be read, is not an image, or is damaged.
        """
        images = [_decode(path) for path in paths]
        for path, image in zip(paths, images, strict=True):
            if image.dtype == np.uint8 or self._known:
                continue
            own, before = bits_in_use(int(image.max())), self._bits
            self._bits = max(own, before)
            if own > before and (before > 8 or own < 16):
                logging.getLogger(__name__).warning('%s', printable(
                    f'{path}: {own} of the 16 bits of a sample are assumed to be used, from the '
                    'largest sample so far; write the pictures with 8 bits if that is wrong, or '
                    'give `derain image` the number with --bits'))
            elif own < before and not self._told:
                self._told = True
                logging.getLogger(__name__).warning('%s', printable(
                    f'{path}: its largest sample takes {own} bits, but {before} are assumed to be '
                    'used, from a picture before it; unless it is just dark, it comes out too '
                    'dark: process pictures of each bit depth by themselves'))
        return [image if image.dtype == np.uint8 else eight_bits(image, self._bits)
                for image in images]


def _decode(path: Path) -> np.ndarray:
    if path.exists() and not path.is_file():  # a pipe or device may have no end
        raise FileError(f'{path}: not a file')
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f'{path}: {error.strerror or error}') from error
    if not content:
        raise FileError(f'{path}: the file is empty')
    if content.startswith((b'II', b'MM')):
        content = _with_plain_colours(content)
    data = np.frombuffer(content, np.uint8)
    image, damage = decode_noting_damage(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if damage:
        raise FileError(f'{path}: damaged in the middle ({damage}); get it again')
    if lacks_end(content):
        raise FileError(f'{path}: its end is missing; get it again')
    samples = None if image is None else image.dtype
    if samples == np.float32:  # Radiance files, .hdr, can be read as 8-bit
        image, _ = decode_noting_damage(data, cv2.IMREAD_COLOR)
    if image is None or image.dtype not in (np.uint8, np.uint16):
        hint = ''
        if samples is not None:
            hint = f'; its samples are {samples}, convert it to 8 or 16 bits a sample'
        elif path.suffix.lower() in VIDEO_SUFFIXES:
            hint = '; for videos there is `derain video`'
        raise FileError(
            f'{path}: not a picture, damaged, or of a kind that OpenCV cannot read{hint}')
    return np.ascontiguousarray(image)


def _with_plain_colours(content: bytes) -> bytes:
    """Relabel the alpha channel of a TIFF, so that OpenCV does not multiply the colours by it."""
    order = '<' if content.startswith(b'II') else '>'
    for layout in ('HHIH', 'HHQH'):  # of a tag, as in a TIFF and a BigTIFF
        alpha, unspecified = (struct.pack(order + layout, 338, 3, 1, kind) for kind in (2, 0))
        content = content.replace(alpha, unspecified)
    return content


def write_png(path: Path, image: np.ndarray) -> None:
    """Write a uint8 image (H×W, or H×W×3 BGR) atomically as PNG; raises FileError or OSError."""
    done, data = cv2.imencode('.png', image)
    if not done:
        raise FileError(f'{path}: could not be encoded as PNG')
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, data.tobytes())


def _pictures_in(folder: Path, apart: Sequence[Path]) -> list[Path]:
    seen = {path.resolve() for path in (folder, *apart)}
    found, left_out = [], Counter()
    for directory, subdirectories, files in walk(folder):
        here = Path(directory)
        for name in list(subdirectories):
            place = (here / name).resolve()
            if name.startswith('.') or place in seen:
                subdirectories.remove(name)
            seen.add(place)
        for name in files:
            suffix = Path(name).suffix.lower()
            if not name.startswith('.') and suffix in IMAGE_SUFFIXES:
                found.append(here / name)
            elif not name.startswith('.'):
                left_out[suffix or 'without a suffix'] += 1
    listed = ', '.join(f'{count} {suffix}' for suffix, count in sorted(left_out.items()))
    if not found:
        raise FileError(f'{folder}: no picture in this folder (searched for {_KINDS}; there is '
                        f'{listed or "nothing"})')
    if left_out:
        logging.getLogger(__name__).warning('%s', printable(
            f'{folder}: left out: {listed}; pictures are read as {_KINDS}'))
    return sorted(found, key=lambda path: natural_key(path.relative_to(folder).as_posix()))


def _identity(path: Path) -> tuple[int, int]:
    """Return device and inode of a file, the same through any link."""
    status = path.stat()
    return status.st_dev, status.st_ino
