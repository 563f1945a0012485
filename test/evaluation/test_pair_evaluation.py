"""``derain evaluate`` with real engines on models and pictures whose figures are known.

What is not asserted: how well a shipped model does; that stands in its card.
"""

import json
import math
import os
import tracemalloc
from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_files import IMAGE, START, TYPES, header, write_bag
from evaluate_files import clean_picture, rainy_picture, write_model, write_pairs, write_picture
from memory_model import scene, write_memory_model

from derain_ros.cli import main
from derain_ros.engines import create_engine
from derain_ros.engines.model_facts import ModelFacts
from derain_ros.engines.models import digest
from derain_ros.evaluation.metrics import PERFECT_DB
from derain_ros.evaluation.pair_evaluation import evaluate
from derain_ros.files.frame_sources import FolderFrames

ROOT = Path(__file__).resolve().parents[2]
VALIDATION = ROOT.parent / 'shared' / 'data' / 'validation'

# A streak of 100 in one of 64 columns: its luma differs by 100·219/255.
INPUT_PSNR = 20 * math.log10(255 / (100 * 219 / 255)) + 10 * math.log10(64)
HALF_PSNR = INPUT_PSNR + 20 * math.log10(2)


@pytest.fixture(scope='module')
def models(tmp_path_factory):
    """Models that leave nothing, half and all of a streak."""
    folder = tmp_path_factory.mktemp('models')
    return {name: str(write_model(folder / f'{name}.onnx', level))
            for name, level in (('none', 100), ('half', 150), ('all', 255))}


@pytest.fixture
def run(derain):
    """Run ``derain evaluate`` on the pictures of a folder."""
    return lambda folder, *options, **more: derain(
        'evaluate', '--rainy', folder / 'rainy', '--clean', folder / 'clean', '--precision', 'f32',
        *options, **more)


def _figures(path):
    return json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(name))


def test_figures_of_known_models(tmp_path, models, run):
    write_pairs(tmp_path, ['a.png', 'b.png'])
    out = tmp_path / 'deep' / 'figures.json'
    text = run(tmp_path, '--model', models['half'], '--against', models['none'], models['all'],
               '--verbose', '--json', out).out
    found = _figures(out)
    assert (found['format'], found['pairs'], found['failed']) == (1, 2, [])
    assert found['versions'].keys() == {
        'derain_ros', 'python', 'numpy', 'opencv', 'openvino', 'torch'}
    half, none, every = found['models']
    assert [model['model'] for model in found['models']] == [
        models['half'], models['none'], models['all']]
    assert half['sha256'] == digest(Path(models['half']))
    assert (half['engine'], half['precision'], half['file']) == ('openvino', 'f32', 'half.onnx')
    assert half['flops_per_pixel'] is None

    row = half['images'][1]
    assert (row['name'], row['width'], row['height']) == ('b.png', 64, 48)
    assert row['input_psnr'] == pytest.approx(INPUT_PSNR)
    assert row['psnr'] == pytest.approx(HALF_PSNR)
    assert row['streak_energy_left'] == pytest.approx(0.25)
    assert row['mask_precision'] == row['mask_recall'] == row['mask_iou'] == 1
    assert (row['clean_psnr'], row['clean_mask_coverage']) == (60, 0)
    assert row['clean_ssim'] == pytest.approx(1)
    assert row['input_ssim'] < row['ssim'] < 1
    assert row['flicker'] is None

    assert none['summary']['psnr'] == 60
    assert none['summary']['ssim'] == pytest.approx(1)
    assert none['summary']['streak_energy_left'] == 0
    summary = every['summary']
    assert summary['psnr'] == summary['input_psnr'] == pytest.approx(INPUT_PSNR)
    assert summary['streak_energy_left'] == pytest.approx(1)
    assert (summary['mask_precision'], summary['mask_recall']) == (None, 0)
    assert summary['made_worse'] == 0

    assert '25.00 %' in text and 'a.png ' in text and 'b.png ' in text
    assert text.count(f'{INPUT_PSNR:.2f} -> {HALF_PSNR:.2f}') == 2


def test_names_of_the_json_are_stable(tmp_path, models, run):
    write_pairs(tmp_path, ['a.png'])
    run(tmp_path, '--model', models['half'], '--json', tmp_path / 'f.json')
    found = _figures(tmp_path / 'f.json')
    assert list(found) == [
        'format', 'kind', 'versions', 'host', 'source', 'clip', 'pairs', 'failed', 'models']
    model, = found['models']
    assert list(model) == [
        'model', 'file', 'sha256', 'engine', 'device', 'precision', 'reason', 'parameters',
        'flops_per_pixel', 'summary', 'images']
    both = {'input_psnr', 'psnr', 'input_ssim', 'ssim', 'mask_precision', 'mask_recall', 'mask_f1',
            'mask_iou', 'streak_energy_left', 'clean_psnr', 'clean_ssim', 'clean_mask_coverage',
            'input_flicker', 'flicker', 'input_moving_error', 'moving_error'}
    assert set(model['summary']) == both | {
        'pairs', 'made_worse', 'flicker_steps', 'worst_psnr', 'worst_psnr_image', 'worst_ssim',
        'worst_ssim_image', 'worst_clean_psnr', 'worst_clean_psnr_image'}
    assert set(model['images'][0]) == both | {'name', 'width', 'height'}


def test_cost_is_read_from_the_facts_beside_a_model(tmp_path, models, run):
    write_pairs(tmp_path, ['a.png'])
    own, other = tmp_path / 'own.onnx', tmp_path / 'other.onnx'
    for path in (own, other):
        path.write_bytes(Path(models['half']).read_bytes())
    facts = {'parameters': 7, 'flops_per_pixel': 4321, 'sha256': {'own.onnx': digest(own)}}
    own.with_suffix('.json').write_text(json.dumps(facts))
    # These facts are of another file.
    facts['sha256'] = {'other.onnx': '0' * 64}
    other.with_suffix('.json').write_text(json.dumps(facts))
    run(tmp_path, '--model', own, '--against', other, '--json', tmp_path / 'f.json')
    found = _figures(tmp_path / 'f.json')['models']
    assert [(m['parameters'], m['flops_per_pixel']) for m in found] == [(7, 4321), (None, None)]


def test_a_clip_flickers_between_consecutive_frames(tmp_path, models, run):
    names = [f'{number}.png' for number in (8, 9, 10, 11)]
    write_pairs(tmp_path, names, columns=[20, 30, 30, 40])
    (tmp_path / 'rainy' / '11.png').write_text('torn')
    write_pairs(tmp_path, ['12.png'], columns=[50])
    # 8 to 9 the streak moves: two columns of 64 change by 100; 9 to 10 it stays; 12 stands alone.
    step = 100 * (2 / 64) ** 0.5
    run(tmp_path, '--model', models['half'], '--clip', '--json', tmp_path / 'f.json', status=1)
    model, = _figures(tmp_path / 'f.json')['models']
    rows = {row['name']: (row['input_flicker'], row['flicker']) for row in model['images']}
    assert rows['8.png'] == rows['12.png'] == (None, None)
    assert rows['9.png'] == pytest.approx((step, step / 2))
    assert rows['10.png'] == (0, 0)
    assert model['summary']['flicker_steps'] == 2
    assert model['summary']['flicker'] == pytest.approx(step / 4)


def _image(stamp, pixels):
    return TYPES.types[IMAGE](
        header=header(stamp), height=pixels.shape[0], width=pixels.shape[1], encoding='bgr8',
        is_bigendian=0, step=pixels.shape[1] * 3, data=pixels.ravel())


def test_a_bag_gives_the_same_figures_and_flicker(tmp_path, models, capsys):
    rows = []
    for number, column in enumerate((20, 30, 40)):
        stamp = START + number
        rows += [('/cam/image_raw', IMAGE, stamp, _image(stamp, rainy_picture(column))),
                 ('/cam/dry', IMAGE, stamp, _image(stamp, clean_picture()))]
    rows.append(('/cam/dry', IMAGE, START + 9, _image(START + 9, clean_picture())))
    write_bag(tmp_path / 'bag', rows)
    out = tmp_path / 'f.json'
    assert main(['evaluate', str(tmp_path / 'bag'), '--rainy-topic', '/cam/image_raw',
                 '--clean-topic', 'cam/dry', '--model', models['half'], '--precision', 'f32',
                 '--json', str(out)]) == 0
    found = _figures(out)
    summary = found['models'][0]['summary']
    assert (found['pairs'], found['clip'], found['source']['unpaired_clean']) == (3, True, 1)
    assert summary['input_psnr'] == pytest.approx(INPUT_PSNR)
    assert summary['psnr'] == pytest.approx(HALF_PSNR)
    assert summary['flicker_steps'] == 2
    assert summary['flicker'] == pytest.approx(50 * (2 / 64) ** 0.5)
    captured = capsys.readouterr()
    assert 'flicker' in captured.out
    assert '/cam/dry: 1 frames' in captured.err


def test_bad_pairs_are_named_and_the_others_measured(tmp_path, models, run):
    write_pairs(tmp_path, ['a.png', 'b.png', 'c.png', 'd.png'])
    (tmp_path / 'clean' / 'a.png').write_bytes(b'')
    write_picture(tmp_path / 'clean' / 'b.png', clean_picture(40, 40))
    for side in ('rainy', 'clean'):
        write_picture(tmp_path / side / 'd.png', clean_picture(20, 20))
    out = tmp_path / 'f.json'
    captured = run(tmp_path, '--model', models['none'], '--json', out, status=1)
    for name in (tmp_path / 'clean' / 'a.png', tmp_path / 'rainy' / 'b.png', 'd.png'):
        assert f'derain: error: {name}' in captured.err
    assert ': 1 pairs' in captured.out
    found = _figures(out)
    assert [bad['name'] for bad in found['failed']] == ['a.png', 'b.png', 'd.png']
    assert found['pairs'] == 1


def test_nothing_measured_is_a_failure_without_outputs(tmp_path, models, run):
    write_pairs(tmp_path, ['a.png'])
    (tmp_path / 'clean' / 'a.png').write_text('torn')
    assert 'no pair could be measured' in run(
        tmp_path, '--model', models['none'], '--html', tmp_path / 'r.html', status=1).err
    assert not (tmp_path / 'r.html').exists()


@pytest.mark.parametrize('arguments, message', [
    ([], '--rainy and --clean, or a bag'),
    (['--rainy', 'a'], '--clean is missing'),
    (['--rainy-topic', 'a'], '--rainy and --clean, or a bag'),
    (['--rainy', 'a', '--clean', 'b', '--clean-topic', 't'], '--clean-topic does not go with'),
    (['BAG', '--rainy', 'a', '--rainy-topic', 'b', '--clean-topic', 'c'], '--rainy does not go'),
    (['BAG', '--rainy-topic', '/cam/image_raw'],
     '--clean-topic is missing; image topics of BAG: /cam/image_raw, /stampless'),
    (['BAG', '--rainy-topic', '/cam/image_raw', '--clean-topic', '/cam/image_raw'], 'given twice'),
    (['NONE', '--rainy-topic', 'a', '--clean-topic', 'b'], 'no such bag'),
    (['BAG', '--rainy-topic', '/cam/image_raw', '--clean-topic', '/stampless'],
     'on /stampless no header has a stamp of its own'),
    (['TALK', '--rainy-topic', 'a'], 'TALK has no Image or CompressedImage topic of '
     'sensor_msgs/msg (topics: /talk (std_msgs/msg/Header))'),
    (['--rainy', 'NONE', '--clean', 'BAG'], 'NONE: no such file'),
    (['--rainy', 'a.mp4', '--clean', 'a.mp4'], 'a.mp4: is a video; extract the frames'),
])
def test_what_does_not_fit_is_refused(tmp_path, arguments, message, derain, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'a.mp4').write_bytes(b'not looked at')
    write_bag(tmp_path / 'BAG', [(topic, IMAGE, START, _image(stamp, clean_picture()))
                                 for topic, stamp in (('/cam/image_raw', START),
                                                      ('/stampless', 0))])
    write_bag(tmp_path / 'TALK', [('/talk', 'std_msgs/msg/Header', START, header(START))])
    assert message in derain('evaluate', *arguments, status=2).err


def test_outputs_are_checked_before_the_work(tmp_path, models, run):
    write_pairs(tmp_path, ['a.png'])
    (tmp_path / 'file').touch()
    for options in (['--json', tmp_path], ['--html', tmp_path / 'file' / 'r.html'],
                    ['--json', tmp_path / 'x', '--html', tmp_path / 'x']):
        assert ' pairs' not in run(tmp_path, '--model', models['none'], *options, status=2).out
    assert 'mega' in run(tmp_path, '--model', 'mega', status=2).err


@pytest.mark.skipif(not VALIDATION.is_dir(), reason=f'benchmark images are not in {VALIDATION}')
@pytest.mark.parametrize('folder, psnr, ssim', [
    ('rain100l_rainy', 26.63, 0.8339),
    pytest.param('rain100h_rainy', 13.52, 0.4031, marks=pytest.mark.slow),
])
def test_benchmark_inputs_score_as_published(tmp_path, models, folder, psnr, ssim):
    out = tmp_path / 'f.json'
    assert main(['evaluate', '--rainy', str(VALIDATION / folder), '--clean',
                 str(VALIDATION / 'clean'), '--model', models['all'], '--precision', 'f32',
                 '--json', str(out)]) == 0
    summary = _figures(out)['models'][0]['summary']
    assert summary['pairs'] == 15
    assert summary['input_psnr'] == pytest.approx(psnr, abs=0.006)
    assert summary['input_ssim'] == pytest.approx(ssim, abs=0.00006)
    # The model gives back what it got.
    assert summary['psnr'] == summary['input_psnr']


def test_the_report_of_hostile_file_names(tmp_path, models, run):
    name = '<img src=x onerror=alert(1)>\x1b[2J\n"&.png'
    write_pairs(tmp_path, [name, 'b.png'])
    page = tmp_path / os.fsdecode(b'\xff.html')
    captured = run(
        tmp_path, '--model', models['half'], '--verbose', '--html', page, '--pictures', '1')
    text = page.read_text(encoding='utf-8')
    assert '<img src=x' not in text and '\x1b' not in text
    assert text.count('&lt;img src=x onerror=alert(1)&gt;\\x1b[2J\\n&#34;&amp;.png') > 2
    assert text.count('<article ') == 1
    assert '\x1b' not in captured.out
    assert list(tmp_path.glob('.*')) == []


def test_memory_does_not_grow_with_the_pairs(tmp_path, models):
    facts = ModelFacts('half', '', '', 'openvino', '', 'f32', '', None, None)
    peaks = []
    with closing(create_engine('openvino', models['half'], precision='f32')) as engine:
        for count in (2, 7):
            for number in range(count):
                write_picture(tmp_path / 'rainy' / f'{number}.png', rainy_picture(20, 240, 320))
                write_picture(tmp_path / 'clean' / f'{number}.png', clean_picture(240, 320))
            source = FolderFrames(tmp_path / 'rainy', clean=tmp_path / 'clean')
            assert len(source) == count
            tracemalloc.start()
            evaluate(source, [(engine, facts)], clip=True, pictures=1)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    # One more pair alone is 0.46 MB.
    assert peaks[1] < peaks[0] + 0.25e6


def test_pictures_are_as_the_engine_gets_them(tmp_path, models, run):
    """Grey and 16-bit files are read as `derain image` reads them."""
    write_picture(tmp_path / 'rainy' / 'a.png', rainy_picture()[..., 0].astype(np.uint16) * 257)
    write_picture(tmp_path / 'clean' / 'a.png', cv2.cvtColor(clean_picture(), cv2.COLOR_BGR2GRAY))
    run(tmp_path, '--model', models['half'], '--json', tmp_path / 'f.json')
    summary = _figures(tmp_path / 'f.json')['models'][0]['summary']
    assert summary['psnr'] == pytest.approx(HALF_PSNR)


def test_a_model_that_remembers_goes_by_the_stamps_of_a_bag(tmp_path, derain):
    """After two seconds the node has forgotten the frame before, and takes the next one alone."""
    rows = []
    for number, seconds in enumerate((0, 1, 3)):
        pixels = scene(0, 96, 128)
        pixels[40:50, 20 + 30 * number:30 + 30 * number] = 0
        stamp = START + seconds * 10**9
        rows += [(topic, IMAGE, stamp, _image(stamp, pixels)) for topic in ('/rainy', '/dry')]
    out = tmp_path / 'f.json'
    derain('evaluate', write_bag(tmp_path / 'in', rows), '--rainy-topic', '/rainy',
           '--clean-topic', '/dry', '--model', write_memory_model(tmp_path / 'm.onnx'),
           '--json', out)
    images = _figures(out)['models'][0]['images']
    assert [one['psnr'] == PERFECT_DB for one in images] == [True, False, True]


def test_a_model_that_remembers_sees_the_frames_of_a_clip_in_order(tmp_path, run):
    """The mean of frame and last result: what moved is dragged along, and the measure shows it."""
    model = write_memory_model(tmp_path / 'mean.onnx')
    for number in range(3):
        picture = scene(0, 96, 128)
        picture[40:50, 20 + 30 * number:30 + 30 * number] = 0  # too far for flow to follow
        for folder in ('rainy', 'clean'):
            write_picture(tmp_path / folder / f'{number}.png', picture)
    found = {}
    for options in ([], ['--clip']):
        told = run(tmp_path, '--model', model, *options, '--json', tmp_path / 'f.json').err
        assert ('note: ' in told and 'for the frames of a clip give --clip' in told) == (
            not options)
        found[bool(options)] = _figures(tmp_path / 'f.json')['models'][0]
    assert found[False]['summary']['psnr'] == found[False]['summary']['clean_psnr'] == PERFECT_DB
    assert found[False]['summary']['moving_error'] is None
    first, *others = found[True]['images']
    assert first['psnr'] == PERFECT_DB and first['moving_error'] is None
    for image in others:
        assert image['psnr'] < 40
        assert image['input_moving_error'] == 0 and image['moving_error'] > 8
