"""The report as one HTML file: tables, plots, and the worst pictures to compare.

The page loads nothing: pictures are JPEGs inside it, and its security policy allows only
those and the one style and the one script that it is made with. Names of files and
models are taken to be hostile: every one is escaped where it is written.
"""

from collections.abc import Callable, Iterable, Sequence
from html import escape

from derain_ros import __version__
from derain_ros.evaluation.gallery import Exhibit
from derain_ros.evaluation.metrics import PERFECT_DB
from derain_ros.evaluation.pair_evaluation import Evaluation, ModelScores
from derain_ros.evaluation.rain_metrics import STREAK_WIDTH, TRUTH_THRESHOLD
from derain_ros.evaluation.scores import ImageScore
from derain_ros.rain_gate import MASK_THRESHOLD
from derain_ros.report.html_assets import SCRIPT, STYLE
from derain_ros.report.html_page import (
    code,
    count,
    decibel,
    document,
    jpeg_address,
    percent,
    ssim,
)
from derain_ros.report.svg_plots import CostPoint, change_plot, cost_plot

_PLOTTED = 40
_LISTED_FAILURES = 100


def render_report(evaluation: Evaluation) -> str:
    """Return the page.

    Parameters
    ----------
    evaluation
        With at least one pair measured.

    Returns
    -------
    str
        An HTML document, to be written as UTF-8.

    """
    shown = evaluation.models[0]
    return document(f'{shown.facts.model}: derain report', STYLE, SCRIPT, [
        *_head(evaluation),
        '<main>',
        *_summary(evaluation),
        *_plots(evaluation),
        *_pictures(evaluation),
        *_all_images(shown),
        '</main>',
    ])


def _head(evaluation: Evaluation) -> Iterable[str]:
    facts, source = evaluation.models[0].facts, evaluation.source
    if source['kind'] == 'bag':
        read = (f'{code(source["bag"])}, topic {code(source["rainy_topic"])} against '
                f'{code(source["clean_topic"])}')
    else:
        read = f'{code(source["rainy"])} against {code(source["clean"])}'
    yield '<header>'
    yield f'<h1>{escape(facts.model)} on {count(evaluation.models[0].images, "pair")}</h1>'
    yield f'<p class="soft">{read}<br>{escape(facts.engine)}, {escape(facts.precision)}, '
    yield f'{escape(facts.device)}; {code(facts.file)}, sha256 {code(facts.sha256[:16])}; '
    yield f'derain_ros {escape(__version__)}</p>'
    left_out = [f'{source[key]} {words}' for key, words in (
        ('unpaired_rainy', 'rainy frames without truth'),
        ('unpaired_clean', 'clean frames without a rainy one'),
        ('repeated_rainy', 'rainy frames whose stamp is not unique'),
        ('repeated_clean', 'clean frames whose stamp is not unique'),
    ) if source.get(key)]
    if left_out:
        yield f'<p>Left out: {escape(", ".join(left_out))}.</p>'
    if evaluation.failed:
        yield f'<p><strong>{count(evaluation.failed, "pair")} could not be measured</strong> '
        yield 'and are in none of the figures:</p><ul>'
        for bad in evaluation.failed[:_LISTED_FAILURES]:
            yield f'<li>{escape(bad.reason)}</li>'
        more = len(evaluation.failed) - _LISTED_FAILURES
        if more > 0:
            yield f'<li>and {more} more</li>'
        yield '</ul>'
    yield '</header>'


def _summary(evaluation: Evaluation) -> Iterable[str]:
    models = evaluation.models
    yield '<h2>Summary</h2>'
    yield ('<div class="scroll" role="region" aria-label="Summary table" tabindex="0"><table>')
    yield '<thead><tr><th scope="col" class="note">figure</th><th scope="col">rainy input</th>'
    for model in models:
        yield f'<th scope="col">{escape(model.facts.model)}</th>'
    yield '<th scope="col" class="note">what it means</th></tr></thead><tbody>'
    summaries = [model.summary for model in models]
    for label, before, key, form, meaning in _rows(evaluation):
        given = form(summaries[0][before]) if before else ''
        yield f'<tr><th scope="row">{escape(label)}</th><td>{given}</td>'
        for summary in summaries:
            name = summary.get(f'{key}_image')
            where = f'<small>{escape(name)}</small>' if name else ''
            yield f'<td>{form(summary[key])}{where}</td>'
        yield f'<td class="note">{escape(meaning)}</td></tr>'
    yield '<tr><th scope="row">cost, kFLOP/px</th><td></td>'
    for model in models:
        yield f'<td>{_cost(model)}</td>'
    yield ('<td class="note">arithmetic for each pixel, a multiply-add counts two</td></tr>'
           '</tbody></table></div>')


def _rows(evaluation: Evaluation) -> list[tuple[str, str, str, Callable, str]]:
    """Label, key of the input, key of the model, form, meaning."""
    rows = [
        ('PSNR, dB', 'input_psnr', 'psnr', decibel,
         'closeness to the clean picture on luma, mean; higher is better, +6 halves the error'),
        ('worst PSNR, dB', '', 'worst_psnr', decibel, 'the picture that came out least close'),
        ('SSIM', 'input_ssim', 'ssim', ssim,
         'likeness of structure on luma, mean; 1 is the clean picture'),
        ('worst SSIM', '', 'worst_ssim', ssim, 'the picture least like its clean one'),
        ('made worse', '', 'made_worse', str,
         f'pictures whose PSNR fell, of {len(evaluation.models[0].images)}'),
        ('streaks left', '', 'streak_energy_left', percent,
         f'energy of upright errors up to {STREAK_WIDTH} pixels wide, of that before; 0 % is all '
         'gone'),
        ('mask precision', '', 'mask_precision', percent,
         f'of what the mask (from {MASK_THRESHOLD}) calls rain, how much is'),
        ('mask recall', '', 'mask_recall', percent,
         f'of the rain (brighter by more than {TRUTH_THRESHOLD:g} of 255), how much the mask '
         'finds'),
        ('mask F1', '', 'mask_f1', percent, 'precision and recall in one, their harmonic mean'),
        ('mask IoU', '', 'mask_iou', percent, 'rain that both see, of what either sees'),
        ('dry pictures, PSNR, dB', '', 'clean_psnr', decibel,
         f'the clean pictures as input: how little is changed; {PERFECT_DB:g} is nothing at all'),
        ('dry pictures, worst, dB', '', 'worst_clean_psnr', decibel,
         'the clean picture that was changed most'),
        ('dry pictures, mask', '', 'clean_mask_coverage', percent,
         'share of the clean pictures that is taken for rain; lower is better'),
    ]
    if evaluation.clip:
        rows.append((
            'flicker', 'input_flicker', 'flicker', decibel,
            'change of the error from frame to frame, RMS in levels of 255; lower is steadier'))
    return rows


def _plots(evaluation: Evaluation) -> Iterable[str]:
    known = [model for model in evaluation.models if model.facts.flops_per_pixel]
    unknown = [model for model in evaluation.models if not model.facts.flops_per_pixel]
    yield '<h2>Quality against cost</h2>'
    yield ('<p class="soft">Up is better, left is cheaper. The dashed line is the rain as it '
           'came.</p>')
    if known:
        points = [
            CostPoint(model.facts.model, model.facts.flops_per_pixel / 1e3, model.summary['psnr'])
            for model in known
        ]
        yield cost_plot(points, known[0].summary['input_psnr'])
    if unknown:
        names = ', '.join(code(model.facts.model) for model in unknown)
        yield f'<p>Not in the plot, cost unknown: {names}.</p>'
    images = sorted(evaluation.models[0].images, key=lambda score: score.psnr)
    yield '<h2>Each picture</h2>'
    if len(images) > _PLOTTED:
        yield f'<p class="soft">The worst {_PLOTTED} of {len(images)}.</p>'
    yield change_plot([
        (score.name, score.input_psnr, score.psnr) for score in images[:_PLOTTED]])


def _pictures(evaluation: Evaluation) -> Iterable[str]:
    exhibits = evaluation.exhibits
    if not exhibits:
        return
    total = len(evaluation.models[0].images)
    shown = f'all {total}' if len(exhibits) == total else f'the worst {len(exhibits)} of {total}'
    yield '<h2>Pictures, worst first</h2>'
    yield (f'<p class="soft">{shown[0].upper()}{shown[1:]} by PSNR. Move the slider, or drag '
           'across the picture. Pictures are shown as JPEG, large ones reduced; figures are of '
           'the full pictures.</p>')
    for number, exhibit in enumerate(exhibits, start=1):
        yield from _article(number, exhibit)


def _article(number: int, exhibit: Exhibit) -> Iterable[str]:
    score = exhibit.score
    name = escape(score.name)
    size = f'width="{exhibit.width}" height="{exhibit.height}"'

    def picture(data: bytes, alt: str, style: str = '') -> str:
        kind = f' class="{style}"' if style else ''
        return (f'<img{kind} {size} alt="{escape(alt)}: {name}" decoding="async" '
                f'src="{jpeg_address(data)}">')

    yield f'<article aria-labelledby="n{number}"><h3 id="n{number}">{number}. {name}</h3>'
    yield (f'<p class="soft">PSNR {decibel(score.input_psnr)} → {decibel(score.psnr)} dB, '
           f'SSIM {ssim(score.input_ssim)} → {ssim(score.ssim)}, '
           f'streaks left {percent(score.streak_energy_left)}, '
           f'mask F1 {percent(score.mask.f1)}</p>')
    yield '<div class="pair"><figure><div class="compare">'
    yield picture(exhibit.derained, 'Derained')
    yield picture(exhibit.rainy, 'Rainy', 'over')
    yield picture(exhibit.overlay, 'Rainy, with the rain mask tinted magenta', 'over mask')
    yield (f'</div><input class="slide" type="range" id="s{number}" min="0" max="100" value="50" '
           f'aria-describedby="n{number}">'
           f'<div class="controls"><label for="s{number}">Rainy left, derained right</label>'
           f'<label for="m{number}"><input type="checkbox" id="m{number}" '
           f'aria-describedby="n{number}">Tint the rain mask</label></div></figure>')
    yield f'<figure>{picture(exhibit.clean, "Clean")}<figcaption>Clean</figcaption></figure>'
    yield '</div></article>'


def _all_images(model: ModelScores) -> Iterable[str]:
    columns: Sequence[tuple[str, Callable[[ImageScore], str]]] = (
        ('PSNR rainy', lambda score: decibel(score.input_psnr)),
        ('derained', lambda score: decibel(score.psnr)),
        ('SSIM rainy', lambda score: ssim(score.input_ssim)),
        ('derained', lambda score: ssim(score.ssim)),
        ('streaks left', lambda score: percent(score.streak_energy_left)),
        ('mask F1', lambda score: percent(score.mask.f1)),
        ('dry PSNR', lambda score: decibel(score.clean_psnr)),
        ('dry mask', lambda score: percent(score.clean_mask_coverage)),
    )
    yield (f'<h2>All figures</h2><details><summary>{count(model.images, "pair")}, '
           f'{escape(model.facts.model)}</summary>')
    yield ('<div class="scroll" role="region" aria-label="Figures of each picture" tabindex="0">'
           '<table><thead><tr><th scope="col" class="note">picture</th>')
    for label, _ in columns:
        yield f'<th scope="col">{label}</th>'
    yield '</tr></thead><tbody>'
    for score in model.images:
        cells = ''.join(f'<td>{form(score)}</td>' for _, form in columns)
        yield f'<tr><th scope="row">{escape(score.name)}</th>{cells}</tr>'
    yield '</tbody></table></div></details>'


def _cost(model: ModelScores) -> str:
    flops = model.facts.flops_per_pixel
    return f'{flops / 1e3:.1f}' if flops else 'unknown'
