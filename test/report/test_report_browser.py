"""`derain report` on a bag that has been derained, and in a real browser: keys, colours, sizes."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_files import IMAGE, image, write_bag
from browser import chromium, opened_page
from evaluate_files import write_model
from report_files import detections_run, replay_run, write
from report_page import Page, check_structure, rows_of

from derain_ros.bags.frames import decode_frame, header_stamp
from derain_ros.bags.recording import Recording
from derain_ros.cli import main
from derain_ros.images.overlay import draw_overlay

CLIP = Path(__file__).parents[1] / 'data' / 'driving_rain'
RAINY, CLEAN = '/camera/image_raw', '/camera_clean/image_raw'
RUNS = ('nano.json', 'base.json', 'pairs.json', 'live_nano.json', 'live_base.json',
        'det_nano.json', 'det_base.json')

# Text whose contrast with the ground behind it is below that of WCAG 2 AA.
FAINT_TEXT = """
(() => {
  const parse = text => { const found = text.match(/[0-9.]+/g).map(Number);
    return found.length < 4 ? [...found, 1] : found; };
  const light = ([r, g, b]) => { const [x, y, z] = [r, g, b].map(value => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4; });
    return 0.2126 * x + 0.7152 * y + 0.0722 * z; };
  const ground = element => { for (let at = element; at; at = at.parentElement) {
    const colour = parse(getComputedStyle(at).backgroundColor);
    if (colour[3] === 1) return colour; } return [255, 255, 255, 1]; };
  const faint = []; let seen = 0;
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!own || element.closest('script') || !element.getClientRects().length) continue;
    const style = getComputedStyle(element);
    const colour = parse(element.closest('svg') ? style.fill : style.color);
    const [bright, dark] = [light(colour), light(ground(element))].sort((a, b) => b - a);
    const ratio = (bright + 0.05) / (dark + 0.05);
    seen += 1;
    if (ratio < 4.5) faint.push(`${ratio.toFixed(2)} ${element.outerHTML.slice(0, 80)}`);
  }
  return [seen, faint];
})()
"""


@pytest.fixture(scope='module')
def measured(tmp_path_factory):
    """Run files of two models on a small drive, and the bags beside them.

    The models cut bright pixels off, and are called after those that are shipped.
    """
    folder = tmp_path_factory.mktemp('measured')
    rows = []
    with Recording(CLIP) as recording:
        for connection, time, data in recording.read(
                *(topic for topic in recording.image_topics)):
            topic = connection.topic.removesuffix('/compressed')
            if topic in (RAINY, CLEAN) and len(rows) < 12:
                small = cv2.resize(decode_frame(connection, data), (320, 180))
                rows.append((topic, IMAGE, time, image(
                    0, header_stamp(data), height=180, width=320, step=960, data=small.ravel())))
    write_bag(folder / 'drive', rows)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for model, level in (('nano', 150), ('base', 120)):
            write_model(Path(f'{model}.onnx'), level)
            assert main(['bag', 'drive', '-o', f'drive_{model}', '--topics', RAINY,
                         '--model', f'{model}.onnx', '--json', f'{model}.json']) == 0
        assert main(['evaluate', 'drive_nano', '--rainy-topic', RAINY, '--clean-topic', CLEAN,
                     '--model', 'nano.onnx', '--against', 'base.onnx', '--json', 'pairs.json',
                     '--html', 'pairs.html', '--pictures', '2']) == 0
    for model, slow in (('nano', 1.0), ('base', 1.6)):
        live, found = replay_run(model, slow=slow), detections_run(model)
        facts = json.loads((folder / f'{model}.json').read_text())['model']
        live['model'] = {key: facts[key] for key in live['model']}
        found['model'] = facts
        write(folder, f'live_{model}.json', live)
        write(folder, f'det_{model}.json', found)
    return folder


def report(folder, *names, output='report.html', options=()):
    """Make a page and return its path."""
    path = folder / output
    assert main(['report', *(str(folder / name) for name in names), '-o', str(path),
                 *options]) == 0
    return path


@pytest.fixture(scope='module')
def page_file(measured):
    return report(measured, *RUNS)


@pytest.fixture(scope='module')
def browser():
    with chromium() as found:
        yield found


def frames_on(bag, topic):
    """Return the pictures of a topic by header stamp, BGR."""
    with Recording(bag) as recording:
        return {header_stamp(data): decode_frame(connection, data)
                for connection, _, data in recording.read(topic)}


def test_worst_median_and_best_frames_are_shown_as_they_are(measured, page_file):
    text = page_file.read_text()
    page = Page(text)
    check_structure(page)
    images = json.loads((measured / 'pairs.json').read_text())['models'][0]['images']
    assert 'by A: nano.onnx, worst first' in page.text
    images.sort(key=lambda image: image['psnr'])
    told = re.findall(r'A: nano.onnx</b> PSNR ([0-9.]+) → ([0-9.]+) dB', text)
    assert told == [(f'{image["input_psnr"]:.2f}', f'{image["psnr"]:.2f}')
                    for image in (images[0], images[2], images[5])]
    pictures = [(view, cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))
                for _, view, data in page.pictures]
    views = ['A', 'rainy', 'mask-A', 'mask-B', 'B', 'clean']
    assert [view for view, _ in pictures] == views * 3
    stamp = int(images[0]['name'].replace('.', ''))
    bags = {'A': measured / 'drive_nano', 'B': measured / 'drive_base'}
    expected = {'rainy': frames_on(measured / 'drive', RAINY)[stamp],
                'clean': frames_on(measured / 'drive', CLEAN)[stamp]}
    for letter, bag in bags.items():
        expected[letter] = frames_on(bag, '/camera/derained/image')[stamp]
        expected[f'mask-{letter}'] = draw_overlay(expected['rainy'], np.ascontiguousarray(
            frames_on(bag, '/camera/derained/rain_mask')[stamp][..., 0]))
    # JPEG halves the colours, of which tinted streaks have much.
    for view, picture in pictures[:6]:
        found = {name: cv2.PSNR(picture, one) for name, one in expected.items()}
        assert max(found, key=found.get) == view
        assert found[view] > (20 if view.startswith('mask') else 32), view


def test_bags_that_changed_or_went_are_told(measured, tmp_path, capsys):
    for name in ('nano.json', 'base.json', 'pairs.json'):
        shutil.copy(measured / name, tmp_path)
    moved = tmp_path / 'elsewhere'
    shutil.copytree(measured / 'drive_nano', moved / 'drive_nano')

    page = Page(report(tmp_path, 'nano.json', 'base.json').read_text())
    assert not page.pictures
    assert 'drive_nano is not there; --bag-root names the folder' in page.text
    assert capsys.readouterr().err.count('derain: note: ') == 2

    options = ['--bag-root', str(moved), '--pictures', '4']
    page = Page(report(tmp_path, 'nano.json', 'base.json', 'pairs.json',
                       options=options).read_text())
    assert [view for _, view, _ in page.pictures] == ['A', 'rainy', 'mask-A', 'clean'] * 4
    assert 'drive_base is not there' in page.text and 'drive_nano is not' not in page.text

    file, = (moved / 'drive_nano').glob('*.mcap')
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    page = Page(report(tmp_path, 'nano.json', options=options).read_text())
    assert 'drive_nano has changed since' in page.text and not page.pictures


def test_one_run_without_truth_or_mask(measured, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(['bag', str(measured / 'drive'), '-o', 'out', '--topics', RAINY, '--no-mask',
                 '--every', '2', '--model', str(measured / 'nano.onnx'),
                 '--json', 'run.json']) == 0
    text = report(tmp_path, 'run.json').read_text()
    page = Page(text)
    check_structure(page)
    assert [view for _, view, _ in page.pictures] == ['A', 'rainy'] * 3
    assert 'Most rain' in page.text and 'Tint' not in page.text
    assert re.search('ordered by the rain intensity of A: .*nano.onnx, most', page.text)
    run = json.loads((tmp_path / 'run.json').read_text())['cameras'][0]['frames']
    rows = rows_of(text, f'{RAINY}: rain intensity: rain intensity, %')[1:]
    assert [row[1][0] for row in rows] == [f'{100 * one:.1f}' for one in run['rain_intensity']]


def _tab_to(page, wanted):
    """Press Tab until an element that fits has the focus."""
    for _ in range(80):
        page.keyboard.press('Tab')
        if page.evaluate(f'document.activeElement.matches({wanted!r})'):
            return
    raise AssertionError(f'Tab never comes to {wanted}')


def _at(page):
    """Return value of the focused slider, cut of the left picture, and what is told of it."""
    return page.evaluate("""
        (() => { const slider = document.activeElement;
          const left = slider.closest('article').querySelector('img.left');
          return [slider.value, getComputedStyle(left).clipPath,
                  slider.getAttribute('aria-valuetext')]; })()""")


def _visible(page):
    return page.evaluate("""
        [...document.activeElement.closest('article').querySelectorAll('.compare img')]
        .filter(image => getComputedStyle(image).visibility === 'visible')
        .map(image => image.dataset.view).sort()""")


def test_nothing_is_loaded_and_everything_works_by_keyboard(browser, page_file, tmp_path):
    with opened_page(browser, page_file) as (page, requests):
        _check_page(page, tmp_path)
    assert [address for address in requests if not address.startswith('data:')] == [
        page_file.as_uri()]


def _check_page(page, folder):
    assert page.title() == 'Deraining report'
    assert page.evaluate('[...document.images].every(image => image.naturalWidth > 200)')
    visible = page.evaluate('document.body.innerText')
    for words in ('Quality against ground truth', 'Distribution of latency', 'PSNR gain', 'Worst',
                  'where it hurts most', 'Derained by B: base', 'Models, versions and machines'):
        assert words in visible, words
    press = page.keyboard.press
    press('Tab')
    assert page.evaluate("document.activeElement.className") == 'skip'
    assert page.evaluate('document.activeElement.getBoundingClientRect().width') > 60
    press('Enter')
    assert page.evaluate("location.hash") == '#main'
    _tab_to(page, 'input[type=range]')
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == 'solid'
    value, cut, told = _at(page)
    assert (value, told) == ('50', '50 % Rainy, then A: nano.onnx') and '50%' in cut
    for _ in range(20):
        press('ArrowRight')
    value, cut, told = _at(page)
    assert (value, told) == ('70', '70 % Rainy, then A: nano.onnx') and '30%' in cut
    press('Home')
    assert _at(page)[0] == '0' and '100%' in _at(page)[1]
    press('End')
    assert _at(page)[0] == '100'
    assert _visible(page) == ['A', 'rainy']

    def magenta():
        page.screenshot(path=folder / 'page.png')
        picture = cv2.imread(str(folder / 'page.png'))
        blue, green, red = (picture[..., channel].astype(int) for channel in range(3))
        return int(np.count_nonzero((blue > green + 80) & (red > green + 80)))

    assert magenta() < 100
    _tab_to(page, 'input[type=checkbox]')
    press('Space')
    assert page.evaluate('document.activeElement.checked') is True
    assert _visible(page) == ['A', 'mask-A']
    assert magenta() > 10_000
    press('Space')
    assert _visible(page) == ['A', 'rainy']


@pytest.mark.slow
@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize(('width', 'height', 'phone'), [(1280, 900, False), (400, 860, True)],
                         ids=['desktop', 'phone'])
def test_it_is_readable(browser, page_file, tmp_path, width, height, phone, scheme):
    scale, dark = 2 if phone else 1, scheme == 'dark'
    with opened_page(
            browser, page_file, viewport={'width': width, 'height': height}, is_mobile=phone,
            device_scale_factor=scale, color_scheme=scheme) as (page, _):
        page.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        seen, faint = page.evaluate(FAINT_TEXT)
        assert seen > 500 and faint == []
        assert page.evaluate('document.documentElement.scrollWidth') <= width
        left, top, right, bottom = page.evaluate("""
            (() => { const box = document.querySelector('.plots img').getBoundingClientRect();
              return [box.left, box.top + scrollY, box.right, box.bottom + scrollY]; })()""")
        page.screenshot(path=tmp_path / 'page.png', full_page=True)
    shot = cv2.imread(str(tmp_path / 'page.png'))
    assert shot.shape[1] == width * scale
    assert (np.median(shot) < 60) is dark or (np.median(shot) > 200) is not dark
    # The plots follow the page: text that is light on dark, and dark on light.
    plot = shot[round(top * scale):round(bottom * scale), round(left * scale):round(right * scale)]
    assert plot.size and (plot.max() > 200 and np.median(plot) < 60 if dark else
                          plot.min() < 60 and np.median(plot) > 200)


@pytest.mark.slow
def test_tables_and_plots_need_no_script(browser, page_file):
    with opened_page(browser, page_file, java_script_enabled=False) as (page, _):
        assert 'then A: nano.onnx' not in page.evaluate('document.body.outerHTML')
        text = page.evaluate('document.body.innerText')
        assert 'mask F1' in text and 'Latency over time' in text
        assert page.evaluate("getComputedStyle(document.querySelector('img.left')).clipPath"
                             ).startswith('inset(0')
