"""`derain report`: what is on the page, and that names, numbers and files cannot break it."""

import copy
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from bag_files import IMAGE, START, image, picture, write_bag
from evaluate_files import write_model
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from report_files import bag_run, detections_run, pairs_run, replay_run, write
from report_page import HOSTILE, Page, check_structure, rows_of

from derain_ros.cli import main
from derain_ros.files import FileError
from derain_ros.report.cameras import match_cameras
from derain_ros.report.comparisons import compare_runs
from derain_ros.report.page import make_page
from derain_ros.report.runs import load_entries
from derain_ros.report.tables import Row, share
from derain_ros.text import printable

BUILDERS = {'bag': bag_run, 'pairs': pairs_run, 'replay': replay_run,
            'detections': detections_run}


@pytest.fixture(scope='module')
def all_runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs')
    runs = {'nano.json': bag_run('nano'), 'base.json': bag_run('base'), 'pairs.json': pairs_run(),
            'live_nano.json': replay_run('nano'), 'live_base.json': replay_run('base', slow=1.5),
            'det_nano.json': detections_run('nano'), 'det_given.json': detections_run(None)}
    return [write(folder, name, run) for name, run in runs.items()]


@pytest.fixture(scope='module')
def all_text(all_runs):
    return make_page(load_entries(all_runs))[0]


def load(folder, *runs):
    """Write runs and return their entries."""
    return load_entries([write(folder, f'{number}.json', run) for number, run in enumerate(runs)])


def test_the_page_is_well_formed_and_told_in_words(all_text):
    page = Page(all_text)
    check_structure(page)
    for words in ('Distribution of latency', 'Latency over time', 'Drops over time',
                  'Processor over time', 'Memory over time', 'PSNR gain', 'rain intensity',
                  'A: nano.json', 'nano · openvino · f32', 'encoding 16UC1', 'at byte 4711',
                  '3 messages lost; everything else was read', 'metadata.yaml is damaged: ',
                  'at 1700000000.000 s: encoding', 'pairs.json: 1 pair could not',
                  '1 frame of /camera/image_raw could',
                  'It keeps up with 1.5 times', 'Some CPU',
                  'FastestDet at 352 × 352', 'derained as given', 'helped.png', 'hurt.png',
                  'where both measured the same frames'):
        assert words in page.text, words


def test_figures_stand_in_the_columns_of_their_runs(all_runs, all_text):
    text = all_text
    rows = {' '.join(row[0]): row[1:] for row in rows_of(
        text, 'Quality of the derained pictures against the clean ones')}
    assert rows['PSNR, dB'][:2] == [['31.15'], ['32.15', '+1.00,', 'better']]
    assert rows['made worse'][:2] == [['0'], ['1', '+1,', 'worse']]
    assert rows['mask F1'][:2] == [['90.0', '%'], ['90.0', '%', 'same']]
    assert 'flicker' not in rows
    live = {' '.join(row[0]): row[1:] for row in rows_of(text, 'The node on the replayed bag')}
    runs = [json.loads(path.read_text())['runs'][0] for path in all_runs[3:5]]
    for column, run in enumerate(runs):
        latency = max(camera['latency_ms']['p95'] for camera in run['cameras'])
        assert live['latency p95, ms'][column][0] == f'{latency:.1f}'
        assert live['received, frames/s'][column][0] == f'{run["fps"]:.1f}'
    assert live['latency p95, ms'][1][-1] == 'worse'
    tried = json.loads(all_runs[3].read_text())['search']['tried']
    assert rows_of(text, 'Factors tried')[2][1:] == [
        ['1.5'], [f'{100 * tried[1]["loss"]:.1f}', '%'], ['no']]
    found = {' '.join(row[0]): row[1:] for row in rows_of(
        text, 'The detector on rainy and on derained frames')}
    assert found['recall, derained'][0] == ['70.0', '%', '+20.0', 'points', 'against', 'rainy']


@pytest.mark.parametrize(('build', 'change'), [
    (bag_run, lambda run: run['source'].update(sha256='e' * 64)),
    (bag_run, lambda run: run.update(every=2)),
    (pairs_run, lambda run: run['source'].update(bag='another')),
    (replay_run, lambda run: run['runs'][0].update(factor=2.0)),
    (replay_run, lambda run: run['bag'].update(sha256='e' * 64)),
    (detections_run, lambda run: run.update(reference='clean')),
    (detections_run, lambda run: run['detector'].update(score_threshold=0.5)),
    (detections_run, lambda run: run['source'].update(rainy='other')),
])
def test_runs_are_compared_only_where_they_measured_the_same(tmp_path, build, change):
    """Another bag, speed or detector makes figures differ that no model has to answer for."""
    first = build('nano') if build is not pairs_run else build(('nano',))
    other = build('base') if build is not pairs_run else build(('base',))
    assert compare_runs(load(tmp_path, first, other))[0].repeated
    change(other)
    assert not compare_runs(load(tmp_path, first, other))[0].repeated


def test_the_plots_hold_the_figures_of_the_runs(tmp_path):
    run = replay_run('nano', cameras=('front',))
    frames = run['runs'][0]['cameras'][0]['frames']
    text = make_page(load(tmp_path, run))[0]
    plots = {told.partition('.')[0]: (told, plot) for told, plot in Page(text).plots.items()}
    there = sorted(value for value in frames['latency_ms'] if value is not None)
    middle = there[(len(there) - 1) // 2]
    assert plots['Latency over time'][0].endswith(
        f'lowest {there[0]:.1f} ms, median {middle:.1f} ms, highest {there[-1]:.1f} ms.')
    lost = frames['latency_ms'].count(None)
    assert lost > 0 and f'highest {lost}.' in plots['Drops over time'][0]
    words = [one.text for one in plots['Latency over time'][1].iter() if one.tag.endswith('text')]
    assert {'time, s', 'latency, ms', '0'} <= set(words)
    rows = rows_of(text, 'Distribution of latency: share of frames, %')
    assert float(rows[1][-1][0]) == pytest.approx(there[-1], abs=0.06)
    assert float(rows[1][1][0]) == pytest.approx(middle, abs=0.06)


def test_the_gain_is_that_of_the_same_model_on_the_same_stamps(all_runs):
    camera, = match_cameras(load_entries(all_runs))
    nano, base = camera.takes
    stamp = nano.camera.frames.stamp[7]
    assert nano.psnr[stamp] == (24.0, pytest.approx(30.7))
    assert base.psnr[stamp] == (24.0, pytest.approx(31.7))
    assert camera.clean_topic == '/camera/image_raw/dry'


@pytest.mark.parametrize('change', [
    lambda bag, pairs: bag.update(strength=0.5),
    lambda bag, pairs: bag['model'].update(sha256='f' * 64),
    lambda bag, pairs: pairs['source'].update(rainy_topic='/other'),
    lambda bag, pairs: [image.update(name=f'x{number}') for number, image in enumerate(
        pairs['models'][0]['images'])],
])
def test_figures_of_other_frames_are_not_taken(tmp_path, change):
    bag, pairs = bag_run(), pairs_run(['nano'])
    change(bag, pairs)
    camera, = match_cameras(load(tmp_path, bag, pairs))
    assert camera.takes[0].psnr == {}


def test_truth_of_the_bag_of_the_same_name_goes_first(tmp_path):
    bag, other, same = bag_run(), pairs_run(['nano']), pairs_run(['nano'])
    other['source']['bag'] = 'downpour'
    for one in same['models'][0]['images']:
        one['psnr'] = 44.0
    camera, = match_cameras(load(tmp_path, bag, other, same))
    assert {after for _, after in camera.takes[0].psnr.values()} == {44.0}


def test_each_section_stands_only_where_its_data_are(tmp_path):
    headings = {'bag': {'rain'}, 'replay': {'timing', 'rain'}, 'detections': {'detector'},
                'pairs': {'quality', 'figures'}}
    for kind, build in BUILDERS.items():
        page = Page(make_page(load(tmp_path, build()), pictures=0)[0])
        check_structure(page)
        ids = {heading['id'] for heading in page.all('h2') if 'id' in heading}
        assert ids - {'trouble'} == {'summary', 'runs'} | headings[kind], kind


def test_a_model_keeps_its_colour_and_no_two_runs_of_a_kind_share_one(all_runs, tmp_path):
    entries = load_entries(all_runs)
    colours = {(entry.kind, entry.model): entry.colour for entry in entries}
    assert {colours[kind, 'nano'] for kind in BUILDERS} == {0}
    assert {colours[kind, 'base'] for kind in ('bag', 'pairs', 'replay')} == {1}
    twice = load(tmp_path, bag_run(), bag_run())
    assert twice[0].colour != twice[1].colour
    assert [entry.letter for entry in load_entries([all_runs[0]] * 28)][-3:] == ['Z', 'AA', 'AB']


def _given(bag, topic='/camera/derained/image'):
    run = detections_run(None)
    run['source'] = {'kind': 'bag', 'bag': bag, 'rainy_topic': '/camera/image_raw', 'failed': [],
                     'derained_topic': topic, 'clean_topic': '/dry', 'unlabelled': 0}
    return run


def test_frames_given_to_a_detector_are_those_of_the_run_that_made_their_bag(tmp_path):
    cars, nano, base = entries = load(tmp_path, _given('elsewhere/drive_base'), bag_run('nano'),
                                      bag_run('base', output='drive_base'))
    assert (cars.about, cars.model) == ('derained as given, base · openvino · f32', 'base')
    assert cars.colour == base.colour != nano.colour
    assert '3 run files, models base, nano. ' in make_page(entries)[0]


@pytest.mark.parametrize('runs', [
    [_given('other'), bag_run()],                          # of no bag here
    [_given('drive_derained', '/rear/image'), bag_run()],  # another camera
    [_given('drive_derained'), bag_run(), bag_run('base')],  # one of two
    [detections_run(None), bag_run()]])
def test_who_made_the_frames_is_not_guessed(tmp_path, runs):
    given, nano = load(tmp_path, *runs)[:2]
    assert given.about == 'derained as given' and given.model == '0.json'
    assert given.colour != nano.colour


def test_a_change_that_rounds_to_nothing_is_none():
    row = Row('mask', [0.0006, 0.0002, 0.0], share, -1)
    assert [cell.change for cell in row.cells([True] * 3)] == ['', 'same', '−0.1 points, better']


def test_the_page_is_the_same_again(all_runs, all_text):
    assert make_page(load_entries(all_runs))[0] == all_text


def _texts(value, text):
    """Replace all free texts of a run by one."""
    if isinstance(value, dict):
        return {key: item if key in ('kind', 'format', 'outcome', 'reference', 'cores')
                else _texts(item, text) for key, item in value.items()}
    if isinstance(value, list):
        return [_texts(item, text) for item in value]
    return text if isinstance(value, str) else value


def _named(folder, name):
    """Make a page on which every free text is ``name``."""
    files = [write(folder, f'{kind}.json', _texts(run, name)) for kind, run in SMALL.items()]
    return make_page(load_entries(files, [name] * len(files)), title=printable(name),
                     pictures=0)[0]


@pytest.fixture(scope='module')
def skeleton(tmp_path_factory):
    return Page(_named(tmp_path_factory.mktemp('named'), 'name')).skeleton()


@settings(max_examples=2, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.one_of(st.sampled_from('<>"\'&;/=- '), st.characters(codec=None)),
               min_size=1, max_size=30))
@example(HOSTILE)
def test_a_name_never_becomes_markup_and_is_shown_as_it_is(tmp_path, skeleton, name):
    rendered = _named(tmp_path, name)
    rendered.encode()
    page = Page(rendered)
    check_structure(page)
    assert page.skeleton() == skeleton
    assert name != HOSTILE or page.text.count(HOSTILE) > 20


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(2**62, 2**70), st.floats(),
    st.text(max_size=5), st.just([]), st.just({}), st.just([None]), st.just(-1), st.just(0),
    st.sampled_from([1e308, -1e308, 1e18, -2**63, 10**400, '1.0', '\ud800']))


def _places(value, path=()):
    """Yield the paths to all values; of long lists the first ones."""
    yield path
    items = value.items() if isinstance(value, dict) else (
        enumerate(value[:2]) if isinstance(value, list) else ())
    for key, item in items:
        yield from _places(item, (*path, key))


SMALL = {'bag': bag_run(frames=3), 'pairs': pairs_run(frames=3), 'detections': detections_run(),
         'replay': replay_run(frames=9)}
PLACES = {kind: list(_places(run)) for kind, run in SMALL.items()}


@settings(max_examples=12, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_an_edited_file_gives_a_page_or_an_error(tmp_path, data):
    kind = data.draw(st.sampled_from(sorted(SMALL)))
    run = copy.deepcopy(SMALL[kind])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(PLACES[kind]))
        parent = run
        try:
            for key in place[:-1]:
                parent = parent[key]
            if not place or data.draw(st.booleans()):
                value = copy.deepcopy(data.draw(VALUES))  # or edits of it would last
                if not place:
                    run = value
                else:
                    parent[place[-1]] = value
            else:
                del parent[place[-1]]
        except (KeyError, IndexError, TypeError):
            continue
    path = tmp_path / 'run.json'
    path.write_text(json.dumps(run))
    try:
        entries = load_entries([path])
    except FileError as error:
        assert str(path) in str(error)
        return
    page, _ = make_page(entries)
    page.encode()
    check_structure(Page(page))


@pytest.mark.parametrize(('kind', 'path', 'value', 'told'), [
    ('bag', ('cameras', 0, 'frames', 'stamp', 1), '1', 'cameras[0].frames.stamp[1]'),
    ('bag', ('cameras', 0, 'frames', 'stamp'), [1], 'cameras[0].frames'),
    ('bag', ('cameras', 0, 'frames', 'time', 0), 2**64, 'cameras[0].frames.time[0]'),
    ('pairs', ('models',), [], 'models'),
    ('replay', ('runs', 0, 'cameras', 1, 'frames', 'latency_ms', 0), 1e30,
     'runs[0].cameras[1].frames.latency_ms[0]'),
    ('detections', ('inputs', 'derained', 'map50'), None, ''),
    ('detections', ('inputs', 'derained', 'detections'), None, 'inputs.derained.detections'),
])
def test_an_error_names_file_and_field(tmp_path, capsys, kind, path, value, told):
    run = BUILDERS[kind]()
    parent = run
    for key in path[:-1]:
        parent = parent[key]
    parent[path[-1]] = value
    file = tmp_path / 'edited.json'
    file.write_text(json.dumps(run))
    status = main(['report', str(file), '-o', str(tmp_path / 'out.html')])
    complaint = capsys.readouterr().err
    if not told:
        assert status == 0
        return
    assert status == 2 and not (tmp_path / 'out.html').exists()
    assert complaint.startswith(f'derain: error: {file}: {told}')
    assert 'make the file again' in complaint


DEEP = f'{json.dumps(detections_run())[:-1]}, "more": {"[" * 2000}{"]" * 2000}}}'


@pytest.mark.parametrize('text', ['', '{', '[]', '{"kind": "bag"}', '{"kind": "x", "format": 1}',
                                  '{"kind": "bag", "format": 99}', '[' * 100_000, 'NaN',
                                  '{"kind": ["bag"], "format": 1}', DEEP])
def test_what_is_no_run_file_is_refused(tmp_path, derain, text):
    file = tmp_path / 'run.json'
    file.write_text(text)
    assert str(file) in derain('report', file, '-o', tmp_path / 'out.html', status=2).err
    assert not (tmp_path / 'out.html').exists()


def test_arguments_that_cannot_be(tmp_path, all_runs, derain):
    file, output = str(all_runs[0]), str(tmp_path / 'out.html')
    derain('report', tmp_path / 'none.json', '-o', output, status=2)
    (tmp_path / 'drive.mp4').write_bytes(bytes(range(256)))
    for wrong in (tmp_path, tmp_path / 'drive.mp4'):
        told = derain('report', wrong, '-o', output, status=2).err
        assert str(wrong) in told and '; give files that `derain bag`' in told
    assert 'one of the run files' in derain('report', file, '-o', file, status=2).err
    assert json.loads(Path(file).read_text())['kind'] == 'bag'
    derain('report', file, '--label', 'a', '--label', 'b', '-o', output, status=2)


def test_a_replay_that_was_too_slow_is_told(tmp_path):
    run = replay_run()
    for number, one in enumerate(run['runs']):
        one['pacing'] = {'kept': number == 0, 'late_ms': {'p50': 0.1}, 'starved': 0}
    run['runs'][0]['cameras'][1]['frames']['outcome'][:2] = ['fault', 'fault']
    page = Page(make_page(load(tmp_path, run))[0])
    assert 'A: the bag could not be played at 1.5, 2 times the recorded' in page.text
    assert 'A: the node failed on 2 frames of /rear/image_raw' in page.text


def test_labels_and_title_are_shown(tmp_path, all_runs):
    output = tmp_path / 'new' / 'out.html'
    assert main(['report', *map(str, all_runs[:2]), '--label', 'Monday', '--title', 'Wet & dry',
                 '-o', str(output)]) == 0
    page = Page(output.read_text())
    assert 'A: Monday' in page.text and 'B: base.json' in page.text
    assert page.text.count('Wet & dry') == 2


def test_long_runs_stay_small_and_keep_their_peaks(tmp_path):
    run = replay_run(frames=20_000, cameras=('front',), search=False)
    run['runs'][0]['cameras'][0]['frames']['latency_ms'][12_345] = 987.0
    text = make_page(load(tmp_path, run))[0]
    assert len(text) < 600_000
    assert 'highest 987.0 ms' in text
    plot = next(plot for told, plot in Page(text).plots.items() if 'Latency over' in told)
    drawn = max((path.get('d', '') for path in plot.iter()), key=len)
    heights = [float(y) for _, y in re.findall(r'([0-9.]+) ([0-9.]+)', drawn)]
    assert min(heights) < 0.2 * max(heights), 'the peak is drawn'


@pytest.mark.parametrize(('stamp', 'told'), [(0, '0'), (START, '1700000000.000000007')])
def test_frames_without_stamps_are_matched_by_the_time_of_recording(
        tmp_path, monkeypatch, stamp, told):
    monkeypatch.chdir(tmp_path)
    write_bag(tmp_path / 'drive', [
        ('/cam/image_raw', IMAGE, START + number * 10**8, image(number, stamp))
        for number in range(4)])
    model = write_model(tmp_path / 'cut.onnx', 100)
    assert main(['bag', 'drive', '-o', 'out', '--model', str(model), '--json', 'run.json']) == 0
    page = Page(make_page(load_entries([Path('run.json')]))[0])
    assert [view for _, view, _ in page.pictures] == ['A', 'rainy', 'mask-A'] * 3
    assert f'All header stamps are {told}: frames are matched by the time of reco' in page.text
    shown = {alt: cv2.imdecode(np.frombuffer(data, np.uint8), 1) for alt, view, data in
             page.pictures if view == 'rainy'}
    # Each shows the frame that its alternative text names.
    for alt, found in shown.items():
        number = round(10 * float(re.search(r'at ([0-9.]+) s', alt)[1]))
        assert cv2.PSNR(found, picture(number)) > 30


def test_pictures_of_12_bits_are_as_bright_as_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grey = picture(1)[..., 0]
    write_bag(tmp_path / 'drive', [('/cam/image_raw', IMAGE, START + number, image(
        1, START + number, encoding='mono16', step=2 * grey.shape[1],
        data=(grey.astype('<u2') << 4).view(np.uint8).ravel())) for number in range(2)])
    model = write_model(tmp_path / 'cut.onnx', 100)
    assert main(['bag', 'drive', '-o', 'out', '--model', str(model), '--json', 'run.json']) == 0
    page = Page(make_page(load_entries([Path('run.json')]))[0])
    found, = {data for _, view, data in page.pictures if view == 'rainy'}
    assert cv2.PSNR(cv2.imdecode(np.frombuffer(found, np.uint8), 0), grey.copy()) > 30
