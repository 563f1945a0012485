"""``derain evaluate --sweep``: rain rendered over dry pictures along one axis."""

import json

import cv2
import numpy as np
import pytest
from evaluate_files import write_model, write_picture

from derain_ros.cli import main
from derain_ros.engines.contract import Derained
from derain_ros.evaluation.sweep import SWEEPS, SweepPoint, conclude, rain_at, sweep

PICTURE = np.full((120, 160, 3), 60, np.uint8)


def leans(kind, value):
    """Share of the strength of edges that lies along a streak, by 18 bins of 10 degrees."""
    # Streaks count, not the stairs of their pixels.
    streaks = np.stack([
        cv2.GaussianBlur(rain_at(kind, value, PICTURE, seed).streaks, (0, 0), 1.5)
        for seed in range(8)])
    dy, dx = np.gradient(streaks, axis=(1, 2))
    turned = (np.degrees(np.arctan2(-dy, dx)) + 90) % 180 - 90
    return np.histogram(turned, 18, (-90, 90), weights=np.hypot(dx, dy))[0]


@pytest.mark.parametrize(
    ('value', 'bins'), [(0, (8, 9)), (40, (12, 13)), (75, (15, 16)), (90, (0, 17))])
def test_rain_lies_in_the_direction_of_the_point(value, bins):
    assert np.argmax(leans('direction', value)) in bins


def test_rain_grows_with_its_rate_and_keeps_its_drops_as_the_speed_does():
    change = [np.abs(rain_at('rate', rate, PICTURE, 1).image.astype(int) - 60).mean()
              for rate in (2, 25, 100)]
    assert change[0] < change[1] < change[2]
    slow, fast = (rain_at('speed', speed, PICTURE, 1).streaks for speed in (0, 100))
    assert not np.array_equal(slow, fast)
    assert np.array_equal(slow, rain_at('speed', 0, PICTURE, 1).streaks)


def test_where_deraining_stops_to_help_is_told():
    points = [SweepPoint(value, 30.0, 30.0 + gain, None)
              for value, gain in ((0, 4.0), (50, 0.5), (100, 0.04))]
    assert conclude(SWEEPS['speed'], points) == (
        'gains 0.0 dB at 100 km/h to 4.0 dB at 0 km/h; no help at 100 km/h')
    assert conclude(SWEEPS['speed'], points[:2]).endswith('it helps at every point')


@pytest.mark.parametrize('kind', [
    'speed', *(pytest.param(kind, marks=pytest.mark.slow) for kind in SWEEPS if kind != 'speed')])
def test_the_command_tells_each_point_and_writes_them(kind, tmp_path, capsys):
    coarse = np.random.default_rng(3).integers(20, 100, (4, 5, 3), dtype=np.uint8)
    write_picture(tmp_path / 'dry' / 'a.png', cv2.resize(coarse, (96, 64)))
    model = write_model(tmp_path / 'cut.onnx', 110)
    json_file, html = tmp_path / 'sweep.json', tmp_path / 'sweep.html'
    assert main(['evaluate', '--clean', str(tmp_path / 'dry'), '--sweep', kind, '--model',
                 str(model), '--json', str(json_file), '--html', str(html)]) == 0
    points = json.loads(json_file.read_text())['runs'][0]['points']
    assert [point['value'] for point in points] == list(SWEEPS[kind].values)
    # What is brighter than all of the picture is rain, and is cut off.
    assert all(0 < point['rainy'] <= point['derained'] <= 60 for point in points)
    assert kind == 'rate' or all(
        point['rainy'] < point['derained'] and 0 < point['f1'] < 1 for point in points)
    printed, page = capsys.readouterr().out, html.read_text()
    assert f'Deraining by {SWEEPS[kind].title}' in page
    assert ' gains ' in page and f' {SWEEPS[kind].unit} to ' in page
    for point in points:
        assert f'{point["derained"]:.2f}' in printed
        assert f'{point["derained"]:.2f}' in page


@pytest.mark.parametrize(('arguments', 'said'), [
    ([], 'give dry pictures with --clean'),
    (['--rainy', '.', '--clean', '.'], 'neither --rainy nor a bag'),
    (['--clean', '.', '--clip'], 'leave --clip out'),
    (['--clean', '.', '-o', 'runs'], '-o is for a folder of bags'),
    (['.', '-o', 'runs'], '-o is for a folder of bags'),
    (['--clean', '.', '--workers', '2'], '--workers and --scheduler are for a folder of bags'),
])
def test_what_does_not_go_with_a_sweep_is_told(arguments, said, derain):
    assert said in derain('evaluate', '--sweep', 'speed', *arguments, status=2).err


def test_pictures_that_cannot_be_read_are_named(tmp_path, derain):
    write_picture(tmp_path / 'dry' / 'a.png', PICTURE)
    (tmp_path / 'dry' / 'b.png').write_text('torn')
    model = write_model(tmp_path / 'cut.onnx', 110)
    captured = derain(
        'evaluate', '--clean', tmp_path / 'dry', '--sweep', 'rate', '--model', model, status=1)
    assert 'b.png: not a picture' in captured.err
    assert 'means over 1 pictures' in captured.out


def test_a_folder_without_a_readable_picture_is_told(tmp_path, capsys):
    (tmp_path / 'dry').mkdir()
    (tmp_path / 'dry' / 'b.png').write_text('torn')
    model = write_model(tmp_path / 'cut.onnx', 110)
    assert main(['evaluate', '--clean', str(tmp_path / 'dry'), '--sweep', 'rate', '--model',
                 str(model)]) == 2
    told = capsys.readouterr().err
    assert 'b.png: not a picture' in told and 'no readable picture' in told


def test_pictures_are_read_one_at_a_time():
    waiting = []

    class Cut:
        def infer(self, images):
            assert len(waiting) == 1
            return Derained(images, np.zeros(images.shape[:3], np.uint8))

    def pictures():
        for level in (60, 90):
            waiting.append(level)
            yield np.full((96, 96, 3), level, np.uint8)
            waiting.clear()
    points = sweep('rate', pictures(), Cut())
    assert [point.value for point in points] == list(SWEEPS['rate'].values)
