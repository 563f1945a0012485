"""The HTML report: valid, self-contained, safe against names, and alive in a browser."""

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derain_ros.engines.model_facts import ModelFacts
from derain_ros.evaluation.gallery import JPEG_BYTES, LONGEST_SIDE, Gallery
from derain_ros.evaluation.pair_evaluation import Evaluation, ModelScores
from derain_ros.evaluation.rain_metrics import MaskCounts
from derain_ros.evaluation.scores import ImageScore
from derain_ros.files.pairs import BadPair
from derain_ros.report.evaluation_page import render_report
from derain_ros.report.svg_plots import CostPoint, change_plot, cost_plot
from derain_ros.text import printable

HOSTILE = '"><script>document.title="owned"</script><img src=x onerror=alert(1)>&\''
VOID = {'meta', 'img', 'input', 'br'}
CHROMIUM = next(filter(None, map(shutil.which, (
    'chromium', 'chromium-browser', 'google-chrome'))), None)
RED, GREEN, BLUE = (30, 30, 200), (30, 160, 30), (200, 30, 30)


class _Page(HTMLParser):
    """Elements of a page; fails where tags do not nest."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.elements, self.text, self._open = [], '', []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attributes):
        names = [name for name, _ in attributes]
        assert len(names) == len(set(names)), tag
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def _score(name='a.png', psnr=30.0, size=(64, 48)):
    return ImageScore(
        name=name, width=size[0], height=size[1], input_psnr=25.0, input_ssim=0.5, psnr=psnr,
        ssim=0.9, mask=MaskCounts(3, 1, 2), input_streak_energy=10.0, streak_energy=1.0,
        clean_psnr=50.0, clean_ssim=0.99, clean_mask_coverage=0.01)


def _facts(name, flops=7300):
    return ModelFacts(name, f'{name}.onnx', 'ab' * 32, 'openvino', 'CPU', 'f32', '', 1, flops)


def _flat(colour, height=48, width=64):
    return np.full((height, width, 3), colour, np.uint8)


def _offer(gallery, score, height=48, width=64):
    gallery.offer(score, _flat(RED, height, width), _flat(GREEN, height, width),
                  _flat(BLUE, height, width), np.zeros((height, width), np.uint8))


def _evaluation(*names, model='nano', others=(), failed=(), clip=False, limit=24):
    gallery = Gallery(limit)
    scores = [_score(name, 30.0 - number) for number, name in enumerate(names)]
    for score in scores:
        _offer(gallery, score)
    source = {'kind': 'pictures', 'rainy': model, 'clean': 'clean'}
    models = [ModelScores(_facts(model), scores)]
    models += [ModelScores(_facts(name, flops), scores) for name, flops in others]
    return Evaluation(source, clip, models, gallery.worst_first(), list(failed))


def test_the_page_is_whole_and_loads_nothing():
    page = _Page(render_report(_evaluation('a.png', 'b.png', clip=True)))
    ids = [attributes['id'] for _, attributes in page.elements if 'id' in attributes]
    assert len(ids) == len(set(ids))
    for tag, attributes in page.elements:
        assert not {'href', 'srcset', 'style'} & set(attributes), tag
        assert not [name for name in attributes if name.startswith('on')], tag
        if 'src' in attributes:
            assert attributes['src'].startswith('data:image/jpeg;base64,')
        for reference in ('for', 'aria-describedby', 'aria-labelledby'):
            assert attributes.get(reference, ids[0]) in ids
    assert not {'link', 'iframe', 'object', 'base', 'a'} & {tag for tag, _ in page.elements}
    policy = next(meta['content'] for meta in page.all('meta') if 'http-equiv' in meta)
    assert "default-src 'none'" in policy and 'unsafe' not in policy
    assert page.all('html')[0]['lang'] == 'en'
    style = re.search('<style>(.*?)</style>', render_report(_evaluation('a')), re.S).group(1)
    assert 'prefers-color-scheme: dark' in style and ':focus-visible' in style
    assert 'url(' not in style and '@import' not in style


def test_pictures_have_names_and_sliders_have_labels():
    page = _Page(render_report(_evaluation('a.png', 'b.png')))
    images = page.all('img')
    assert len(images) == 8
    # Worst first.
    assert [image['alt'] for image in images[:4]] == [
        'Derained: b.png', 'Rainy: b.png', 'Rainy, with the rain mask tinted magenta: b.png',
        'Clean: b.png']
    labelled = {label['for'] for label in page.all('label')}
    inputs = page.all('input')
    assert sorted(field['type'] for field in inputs) == ['checkbox'] * 2 + ['range'] * 2
    assert {field['id'] for field in inputs} == labelled
    for plot in page.all('svg'):
        assert plot['role'] == 'img' and plot['aria-label']


def test_figures_and_failures_are_on_the_page():
    page = _Page(render_report(_evaluation(
        'a.png', others=[('base', 40_000), ('odd', None)],
        failed=[BadPair('x.png', 'x.png: the file is empty')])))
    for text in ('25.00', '30.00', '0.9000', '10.0\N{NO-BREAK SPACE}%', '75.0\N{NO-BREAK SPACE}%',
                 '40.0', 'x.png: the file is empty', '1 pair could not be measured',
                 'cost unknown: odd'):
        assert text in page.text
    assert 'flicker' not in page.text
    plot = page.all('svg')[0]['aria-label']
    assert 'nano: 7.3 kFLOP per pixel, 30.00 dB' in plot and 'base: 40 kFLOP' in plot
    assert 'odd' not in plot


def _skeleton(text):
    return [(tag, sorted(attributes)) for tag, attributes in _Page(text).elements]


@settings(max_examples=60, deadline=None)
@given(st.text(
    st.one_of(st.sampled_from('<>"\'&;/=- '), st.characters()), min_size=1, max_size=40))
def test_a_name_never_becomes_markup(name):
    name = printable(name)

    def render(used):
        return render_report(_evaluation(
            used, model=used, others=[(used + 'x', 500)], failed=[BadPair(used, used)]))

    assert _skeleton(render(name)) == _skeleton(render('name'))


def test_a_hostile_name_is_shown_as_it_is():
    page = _Page(render_report(_evaluation(HOSTILE, model=HOSTILE)))
    assert len(page.all('script')) == 1
    assert page.text.count(HOSTILE) >= 3
    assert page.all('img')[0]['alt'] == f'Derained: {HOSTILE}'


def test_only_the_worst_pictures_are_kept():
    gallery = Gallery(3)
    for number, psnr in enumerate((30, 20, 40, 25, 50, 20)):
        _offer(gallery, _score(str(number), float(psnr)))
    assert [exhibit.score.name for exhibit in gallery.worst_first()] == ['1', '5', '3']
    nothing = Gallery(0)
    _offer(nothing, _score())
    assert nothing.worst_first() == []
    page = _Page(render_report(_evaluation('a', 'b', 'c', limit=2)))
    assert len(page.all('img')) == 8 and 'worst 2 of 3' in page.text
    assert not _Page(render_report(_evaluation('a', limit=0))).all('img')


def test_pictures_are_small_whatever_they_show():
    """Noise is the worst case of JPEG: fifteen pairs of it stay under 10 MB."""
    rng = np.random.default_rng(1)
    noise = rng.integers(0, 256, (1000, 2000, 3), dtype=np.uint8)
    gallery = Gallery(1)
    gallery.offer(_score(size=(2000, 1000)), noise, noise, noise, np.zeros((1000, 2000), np.uint8))
    exhibit, = gallery.worst_first()
    files = (exhibit.rainy, exhibit.derained, exhibit.clean, exhibit.overlay)
    for file in files:
        assert len(file) <= JPEG_BYTES
        assert cv2.imdecode(np.frombuffer(file, np.uint8), 1).shape == (
            exhibit.height, exhibit.width, 3)
    assert 64 < exhibit.width <= LONGEST_SIDE
    assert exhibit.width / exhibit.height == pytest.approx(2, rel=0.02)
    score = _score()
    base = len(render_report(Evaluation(
        {'kind': 'pictures', 'rainy': '', 'clean': ''}, False,
        [ModelScores(_facts('nano'), [score] * 15)], [], [])))
    assert base + 15 * (4 * JPEG_BYTES * 4 / 3 + 2000) < 10e6


def test_the_size_of_a_picture_is_kept_where_it_fits():
    gallery = Gallery(1)
    _offer(gallery, _score(), 300, 200)
    exhibit, = gallery.worst_first()
    assert (exhibit.width, exhibit.height) == (200, 300)
    decoded = cv2.imdecode(np.frombuffer(exhibit.rainy, np.uint8), 1)
    assert np.abs(decoded.astype(int) - RED).max() <= 4


@pytest.mark.parametrize('points', [
    [CostPoint('a', 7.3, 30.94)],
    [CostPoint('a', 7.3, 30.0), CostPoint('b', 7.3, 30.0)],
    [CostPoint('a', 0.01, 10.0), CostPoint('b', 1e5, 60.0), CostPoint('c', 40.0, 35.0)],
])
def test_points_of_the_cost_plot_lie_inside_it(points):
    page = _Page(cost_plot(points, 26.63))
    _, _, width, height = map(float, page.all('svg')[0]['viewbox'].split())
    dots = [(float(dot['cx']), float(dot['cy'])) for dot in page.all('circle')]
    assert len(dots) == len(points)
    for x, y in dots:
        assert 40 < x < width - 20 and 0 < y < height - 40
    by_quality = sorted(points, key=lambda point: -point.psnr)
    assert [y for _, y in dots] == sorted(y for _, y in dots)
    if len({point.kiloflops for point in points}) > 1:
        order = np.argsort([point.kiloflops for point in by_quality])
        assert list(order) == list(np.argsort([x for x, _ in dots]))


def test_the_change_plot_shows_what_got_worse():
    page = _Page(change_plot([('a' * 60, 20.0, 30.0), ('b', 30.0, 29.0), ('c', 60.0, 60.0)]))
    assert [dot['class'] for dot in page.all('circle')] == [
        'ring', 'point', 'ring', 'bad', 'ring', 'point']
    assert '1 of them made worse' in page.all('svg')[0]['aria-label']


def _chromium(tmp_path, page, *options):
    result = subprocess.run(
        [CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars',
         '--disable-background-networking', '--disable-component-update', '--disable-sync',
         '--no-first-run', f'--user-data-dir={tmp_path / "profile"}', *options, page.as_uri()],
        capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def _share_of(picture, colour):
    return np.mean(np.abs(picture.astype(int) - colour).max(axis=2) <= 12)


@pytest.mark.skipif(CHROMIUM is None, reason='Chromium is not installed')
def test_the_page_works_in_a_browser(tmp_path):
    page = tmp_path / 'report.html'
    page.write_text(render_report(_evaluation(HOSTILE, model='nano')), encoding='utf-8')
    dumped = _chromium(tmp_path, page, '--dump-dom')
    assert '<title>nano: derain report</title>' in dumped
    # The script of the page has run, that of the name has not.
    assert 'style="--at: 50%;"' in dumped and 'aria-valuetext="50 % rainy"' in dumped
    assert 'owned"</script>' not in dumped
    shot = tmp_path / 'shot.png'
    _chromium(tmp_path, page, f'--screenshot={shot}', '--window-size=1200,3000')
    picture = cv2.imread(str(shot))
    # 64x48 pixels each: rainy and derained share one box, clean stands beside it.
    red, green, blue = (
        _share_of(picture, colour) * picture.shape[0] * picture.shape[1]
        for colour in (RED, GREEN, BLUE))
    assert red == pytest.approx(64 * 48 / 2, rel=0.1)
    assert green == pytest.approx(64 * 48 / 2, rel=0.1)
    assert blue == pytest.approx(64 * 48, rel=0.1)


def test_figures_are_json():
    found = json.loads(json.dumps(_evaluation(HOSTILE).figures(), allow_nan=False))
    assert found['models'][0]['images'][0]['name'] == HOSTILE
