"""The page of ``derain evaluate --html``: figures, failures, names, and its worst pictures."""

import json
import re

import cv2
import matplotlib
import numpy as np
import pytest
from report_page import Page, check_structure

from derain_ros.commands.evaluate import _page
from derain_ros.engines.model_facts import ModelFacts
from derain_ros.evaluation.gallery import JPEG_BYTES, LONGEST_SIDE, Gallery
from derain_ros.evaluation.pair_evaluation import Evaluation, ModelScores
from derain_ros.evaluation.rain_metrics import ImageScore, MaskCounts
from derain_ros.files.pairs import BadPair
from derain_ros.report.plots import COLOURS, Axis, Series, change_plot, cost_plot, line_plot

RED, GREEN, BLUE = (30, 30, 200), (30, 160, 30), (200, 30, 30)


def _score(name='a.png', psnr=30.0, size=(64, 48)):
    return ImageScore(
        name=name, width=size[0], height=size[1], input_psnr=25.0, input_ssim=0.5, psnr=psnr,
        ssim=0.9, mask=MaskCounts(3, 1, 2), input_streak_energy=10.0, streak_energy=1.0,
        clean_psnr=50.0, clean_ssim=0.99, clean_mask_coverage=np.float64(0.01))


def _facts(name, flops=7300):
    return ModelFacts(name, f'{name}.onnx', 'ab' * 32, 'openvino', 'CPU', 'f32', '', 1, flops)


def _offer(gallery, score, height=48, width=64):
    gallery.offer(score, *(np.full((height, width, 3), colour, np.uint8)
                           for colour in (RED, GREEN, BLUE)),
                  np.zeros((height, width), np.uint8))


def _render(*names, model='nano', others=(), failed=(), limit=24):
    gallery = Gallery(limit)
    scores = [_score(name, 30.0 - number) for number, name in enumerate(names)]
    for score in scores:
        _offer(gallery, score)
    evaluation = Evaluation(
        {'kind': 'folders', 'rainy': model, 'clean': 'clean'}, False,
        [ModelScores(_facts(*facts), scores) for facts in ((model,), *others)],
        gallery.worst_first, list(failed))
    return _page(json.loads(json.dumps(evaluation.figures(), allow_nan=False)), evaluation)


def test_pictures_have_names_and_stand_worst_first():
    page = Page(_render('a.png', 'b.png', 'c.png', limit=2))
    check_structure(page)
    assert [(alt, view) for alt, view, _ in page.pictures[:4]] == [
        ('Derained by A: nano: c.png', 'A'), ('Rainy: c.png', 'rainy'),
        ('Rainy, with the rain mask of A: nano tinted magenta: c.png', 'mask-A'),
        ('Ground truth: c.png', 'clean')]
    assert len(page.pictures) == 8 and '1. c.png' in page.text and 'worst 2 of 3' in page.text
    colours = [cv2.imdecode(np.frombuffer(data, np.uint8), 1)[24, 32]
               for _, _, data in page.pictures[:4]]
    assert np.abs(np.array(colours, int) - [GREEN, RED, RED, BLUE]).max() <= 6


def test_figures_and_failures_are_on_the_page():
    page = Page(_render('a.png', others=[('base', 40_000), ('odd', None)], limit=0,
                        failed=[BadPair('x.png', 'x.png: the file is empty')]))
    for text in ('25.00', '30.00', '0.9000', '10.0\N{NO-BREAK SPACE}%', '75.0\N{NO-BREAK SPACE}%',
                 '40.0', 'x.png: the file is empty', '1 pair could not be measured',
                 'nano on 1 pair', 'Models nano, base, odd'):
        assert text in page.text
    assert 'flicker' not in page.text and not page.pictures
    costs, changes = page.plots
    assert 'nano: 7.3 kFLOP per pixel, 30.00 dB' in costs and 'base: 40 kFLOP' in costs
    assert 'odd' not in costs and '0 of them made worse' in changes


def test_pictures_are_small_whatever_they_show():
    """Noise is the worst case of JPEG: fifteen pairs of it stay under 10 MB."""
    noise = np.random.default_rng(1).integers(0, 256, (500, 1000, 3), dtype=np.uint8)
    gallery = Gallery(1)
    gallery.offer(_score(), noise, noise, noise, np.zeros((500, 1000), np.uint8))
    exhibit, = gallery.worst_first
    for file in (exhibit.rainy, exhibit.derained, exhibit.clean, exhibit.overlay):
        assert len(file) <= JPEG_BYTES
        assert cv2.imdecode(np.frombuffer(file, np.uint8), 1).shape == (
            exhibit.height, exhibit.width, 3)
    assert 64 < exhibit.width <= LONGEST_SIDE
    assert exhibit.width / exhibit.height == pytest.approx(2, rel=0.02)
    page = _render(*map(str, range(15)), limit=0)
    assert len(page) + 15 * (4 * JPEG_BYTES * 4 / 3 + 2000) < 10e6


def _marks(svg):
    """Return the places of the markers of a plot, by colour."""
    return [(fill, float(x), float(y)) for x, y, fill in re.findall(
        r'<use [^>]*x="([0-9.]+)" y="([0-9.]+)" style="fill: (#[0-9a-f]+)', svg)]


def test_a_value_between_gaps_is_drawn_as_a_dot():
    nan = float('nan')
    svg = line_plot(Axis('s'), Axis('ms'), [
        Series('a', 1, range(7), [1.0, nan, 2.0, nan, 3.0, 4.0, nan])])
    assert [fill for fill, _, _ in _marks(svg)] == [COLOURS[1]] * 2


def test_the_change_plot_shows_what_got_worse():
    svg = change_plot([('a' * 60, 20.0, 30.0), ('b', 30.0, 29.0), ('c', 60.0, 60.0)])
    ring, better, worse = '#ffffff', '#0a5bb5', '#b3261e'
    assert [fill for fill, _, _ in _marks(svg)] == [ring, better, ring, worse, ring, better]
    assert '…' + 25 * 'a' in svg


def test_plots_are_the_same_each_time_whatever_the_settings_of_the_user(monkeypatch):
    points = [('a $x$ <b>', 7.3, 30.94, 0)]
    first = cost_plot(points, 26.63)
    assert 'a $x$ &lt;b&gt;, 30.94 dB' in first and 'date' not in first
    for name, value in (('font.size', 30), ('lines.linewidth', 9), ('svg.fonttype', 'path')):
        monkeypatch.setitem(matplotlib.rcParams, name, value)
    assert cost_plot(points, 26.63) == first
