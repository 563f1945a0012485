"""The pictures as HTML: a slider between two views, the mask to tint, and the truth beside."""

from collections.abc import Iterable, Sequence
from html import escape

from derain_ros.report.camera_takes import CameraTakes, Take
from derain_ros.report.html_page import code, decibel, jpeg_address
from derain_ros.report.pictures import Shown, figures_of
from derain_ros.report.plots import Numbers
from derain_ros.report.tables import share

_RANKED = {
    True: 'Frames by PSNR after deraining by {}, worst first',
    False: 'No PSNR of these frames is known; they are ordered by the rain intensity of {}, most '
           'rain first',
}


def pictures_section(
    numbers: Numbers, found: Sequence[tuple[CameraTakes, bool, list[Shown]]], notes: Sequence[str]
) -> Iterable[str]:
    """Yield the section; nothing where there are neither pictures nor notes.

    Parameters
    ----------
    numbers
        Of the page.
    found
        As :func:`derain_ros.report.pictures.read_pictures` returns them.
    notes
        What could not be shown.

    """
    if not found and not notes:
        return
    yield '<h2 id="pictures">Pictures</h2>'
    if found:
        yield ('<p class="soft">Move the slider, or drag across the picture; the arrow keys move '
               'it too. Pictures are JPEGs, large ones reduced; figures are of the full '
               'pictures.</p>')
    if notes:
        yield ('<ul class="notes">' + ''.join(f'<li>{escape(note)}</li>' for note in notes)
               + '</ul>')
    for camera, by_psnr, frames in found:
        judge = escape(camera.judge.entry.short)
        yield f'<h3>{code(camera.topic)} of {code(camera.bag)}</h3>'
        yield f'<p class="soft">{_RANKED[by_psnr].format(judge)}.</p>'
        for shown in frames:
            yield from _article(numbers.take(), camera, shown)


def _article(number: int, camera: CameraTakes, shown: Shown) -> Iterable[str]:
    choice, views = shown.choice, shown.views
    takes = [take for take in camera.takes if take.entry.letter in views]
    where = f'frame at {(choice.time - camera.start) / 1e9:.2f} s of {camera.topic}'
    yield f'<article class="views" aria-labelledby="n{number}">'
    yield (f'<h4 id="n{number}">{escape(choice.title)} '
           f'<span class="soft">at {(choice.time - camera.start) / 1e9:.2f} s</span></h4>')
    yield '<ul class="figures">' + ''.join(_figures(take, choice.stamp) for take in takes)
    yield '</ul><div class="pair">'
    first = takes[0]

    def picture(view: str, alt: str, style: str = '') -> str:
        kind = f' class="{style}"' if style else ''
        return (f'<img{kind} data-view="{escape(view)}" width="{shown.width}" '
                f'height="{shown.height}" alt="{escape(alt)}: {escape(where)}" decoding="async" '
                f'src="{jpeg_address(views[view])}">')

    def derained(take: Take) -> str:
        return f'Derained by {take.entry.short}'

    yield '<figure><div class="compare stack">'
    yield picture(first.entry.letter, derained(first), 'right')
    yield picture('rainy', 'Rainy', 'left')
    masked = [take for take in takes if f'mask-{take.entry.letter}' in views]
    for take in masked:
        yield picture(f'mask-{take.entry.letter}',
                      f'Rainy, with the rain mask of {take.entry.short} tinted magenta')
    yield '</div>'
    yield (f'<label class="hidden" for="s{number}">Border between left and right picture</label>'
           f'<input class="slide" type="range" id="s{number}" min="0" max="100" value="50" '
           f'aria-describedby="n{number}"><div class="controls">')
    options = [('rainy', 'Rainy')]
    options += [(take.entry.letter, take.entry.short) for take in takes]
    options += [('clean', 'Truth')] if 'clean' in views else []
    for side, selected in (('left', 'rainy'), ('right', first.entry.letter)):
        listed = ''.join(
            f'<option value="{escape(view)}"{" selected" if view == selected else ""}>'
            f'{escape(name)}</option>' for view, name in options)
        yield (f'<label for="{side[0]}{number}">{side.capitalize()} '
               f'<select id="{side[0]}{number}">{listed}</select></label>')
    if masked:
        yield (f'<label for="m{number}"><input type="checkbox" id="m{number}" '
               f'aria-describedby="n{number}">Tint the rain mask</label>')
    yield '</div></figure>'
    if len(takes) > 1 or 'clean' in views:
        yield '<div class="besides">'
    for take in takes[1:]:
        yield (f'<figure class="beside">{picture(take.entry.letter, derained(take))}'
               f'<figcaption>{escape(derained(take))}</figcaption></figure>')
    if 'clean' in views:
        yield (f'<figure class="beside">{picture("clean", "Truth")}'
               f'<figcaption>Truth, {code(camera.clean_topic or "")}</figcaption></figure>')
    if len(takes) > 1 or 'clean' in views:
        yield '</div>'
    yield '</div></article>'


def _figures(take: Take, stamp: int) -> str:
    """Return the figures of a frame of one take, as an item of a list."""
    known = dict(figures_of(take, stamp))
    told = []
    if 'after' in known:
        told.append(f'PSNR {decibel(known["before"])} → {decibel(known["after"])} dB '
                    f'({known["after"] - known["before"]:+.2f})')
    if 'rain' in known:
        told.append(f'rain intensity {share(known["rain"])}')
        told.append(f'mask covers {share(known["mask"])}')
    return (f'<li><span class="patch c{take.entry.colour}" aria-hidden="true"></span>'
            f'<b>{escape(take.entry.short)}</b> {", ".join(told)}</li>')
