"""The page of ``derain report``, put together from its sections."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from derain_ros.report.bag_pictures import BagFinder
from derain_ros.report.camera_takes import match_cameras
from derain_ros.report.detector_section import detector_section
from derain_ros.report.heading import heading, runs_section
from derain_ros.report.html_page import document
from derain_ros.report.picture_page import pictures_section
from derain_ros.report.pictures import read_pictures
from derain_ros.report.plots import Numbers
from derain_ros.report.rain_section import rain_section
from derain_ros.report.report_assets import SCRIPT, STYLE
from derain_ros.report.runs import Entry
from derain_ros.report.summary_section import summary
from derain_ros.report.timing_section import timing_section

TITLE = 'Deraining report'


def make_page(
    entries: Sequence[Entry], *, title: str = TITLE, bag_root: Path | None = None,
    pictures: int = 3, progress: Callable[[int], Any] = lambda count: None,
) -> tuple[str, list[str]]:
    """Return the page, and notes on what could not be shown.

    Parameters
    ----------
    entries
        At least one; see :func:`derain_ros.report.runs.load_entries`.
    title
        Of the page; printable.
    bag_root
        Folder to look for bags in.
    pictures
        Frames to show of each camera.
    progress
        Called with the number of bytes read since the last call, as bags are checked.

    Returns
    -------
    tuple
        An HTML document, to be written as UTF-8, and lines for the terminal; printable.

    """
    numbers = Numbers()
    cameras = match_cameras(entries)
    found, notes = read_pictures(
        cameras, BagFinder(bag_root, progress), pictures) if pictures else ([], [])
    sections: list[tuple[str, str, Iterable[str]]] = [
        ('summary', 'Summary', summary(entries)),
        ('timing', 'Timing', timing_section(numbers, entries)),
        ('rain', 'Rain over time', rain_section(numbers, entries, cameras)),
        ('pictures', 'Pictures', pictures_section(numbers, found, notes)),
        ('detector', 'Detector', detector_section(entries)),
        ('runs', 'Models and machines', runs_section(entries)),
    ]
    filled = [(name, label, list(lines)) for name, label, lines in sections]
    filled = [section for section in filled if section[2]]
    links = ''.join(f'<li><a href="#{name}">{label}</a></li>' for name, label, _ in filled)
    return document(title, STYLE, SCRIPT, [
        '<a class="skip" href="#main">Skip to the content</a>',
        *heading(entries, title),
        f'<nav aria-label="Sections"><ul>{links}</ul></nav>',
        '<main id="main" tabindex="-1">',
        *(line for _, _, lines in filled for line in lines),
        '</main>',
    ]), notes
