"""``derain detections``: figures known by hand, from folders and from bags."""

import json

import pytest
from bag_files import IMAGE, START, image, write_bag
from detector_files import CLASSES, coco, scene, write_detector, write_scenes
from evaluate_files import write_model
from memory_model import write_memory_model

from derain_ros.cli import main
from derain_ros.files.run_files import FORMAT

DIM, BRIGHT = 100, 200

# Per picture: what is there, and where rain falls. A streak fills 6 of 16 columns with 255, so
# that its cell scores 0.375 in both classes; cut off at 100 it is 0.147. The operating score is
# 0.3; things of level 100 score 0.392 and stay, those of 200 are cut from 0.784 to 0.392.
PICTURES = {
    'a.png': ([(0, 0, 0, DIM), (1, 2, 2, BRIGHT)], [(3, 3), (1, 3)]),
    'b.png': ([(0, 1, 1, BRIGHT)], [(3, 0)]),
    'c.png': ([(0, 3, 3, DIM)], []),
}


def _folders(tmp_path, pictures=None):
    pictures = pictures or PICTURES
    return [str(write_scenes(tmp_path / name, scenes)) for name, scenes in (
        ('rainy', {name: scene(*parts) for name, parts in pictures.items()}),
        ('clean', {name: scene(parts[0]) for name, parts in pictures.items()}))]


def _run(tmp_path, *arguments, status=0):
    path = tmp_path / 'figures.json'
    arguments = [str(argument) for argument in arguments]
    if '--detector' not in arguments:
        arguments += ['--detector', str(write_detector(tmp_path / 'detector'))]
    assert main(['detections', *arguments, '--json', str(path)]) == status
    return json.loads(path.read_text())


def _model(tmp_path, level=DIM):
    return str(write_model(tmp_path / f'cut{level}.onnx', level))


def test_folders_against_clean_frames(tmp_path, capsys):
    rainy, clean = _folders(tmp_path)
    run = _run(tmp_path, '--rainy', rainy, '--clean', clean, '--model', _model(tmp_path))
    out = capsys.readouterr().out
    # A streak is one box: its best class is the first, a false alarm of "red thing".
    assert run['inputs'] == {
        'rainy': {'precision': 4 / 7, 'recall': 1.0, 'f1': 8 / 11,
                  'map50': pytest.approx(1.0), 'detections': 7, 'truths': 4, 'images': 3},
        'derained': {'precision': 1.0, 'recall': 1.0, 'f1': 1.0, 'map50': 1.0,
                     'detections': 4, 'truths': 4, 'images': 3}}
    assert run['images'][0] == {
        'name': 'a.png', 'stamp': None, 'rain_intensity': pytest.approx(
            (2 * 96 + 256) / 4096, rel=0.01),
        'rainy': {'tp': 2, 'fp': 2, 'fn': 0}, 'derained': {'tp': 2, 'fp': 0, 'fn': 0}}
    assert (run['helped'], run['hurt'], run['same']) == (2, 0, 1)
    assert run['reference'] == 'clean' and run['match_iou'] == 0.5
    assert run['model']['engine'] == 'openvino' and len(run['detector']['sha256']) == 64
    assert {key: run['detector'][key] for key in run['detector'] if key != 'sha256'} == {
        'name': 'cells', 'file': 'cells.onnx', 'width': 64, 'height': 64,
        'score_threshold': 0.3, 'iou_threshold': 0.7}
    assert [entry['name'] for entry in run['classes']] == list(CLASSES)
    assert run['classes'][0]['rainy'] == {
        'ap50': pytest.approx(1.0), 'precision': 3 / 6, 'recall': 1.0}
    assert run['sizes'][0] == {
        'size': 'small', 'truths': 4, 'rainy': {'recall': 1.0}, 'derained': {'recall': 1.0}}
    assert run['source']['kind'] == 'folders' and run['source']['failed'] == []
    assert set(run) == {
        'format', 'kind', 'versions', 'host', 'detector', 'model', 'source', 'reference',
        'match_iou', 'inputs', 'classes', 'sizes', 'images', 'helped', 'hurt', 'same'}
    assert 'Deraining helps this detector here: recall 1.000 -> 1.000, precision 0.571 -> ' \
        '1.000' in out
    assert 'frames by F1: 2 better, 0 worse, 1 the same' in out
    assert 'most helped' in out and 'most hurt' not in out


def test_a_model_that_remembers_sees_the_frames_of_a_bag_in_order(tmp_path):
    rows = [(topic, IMAGE, START + number * 10**8, image(0, START + number * 10**8))
            for number in range(3) for topic in ('/cam/image_raw', '/cam/dry')]
    run = _run(tmp_path, write_bag(tmp_path / 'in', rows), '--rainy-topic', '/cam/image_raw',
               '--clean-topic', '/cam/dry', '--model', write_memory_model(tmp_path / 'm.onnx'))
    # It marks rain where it knows the frame before.
    assert [one['rain_intensity'] > 0 for one in run['images']] == [False, True, True]


def test_derained_folders_and_labels_show_harm(tmp_path, capsys):
    rainy, clean = _folders(tmp_path)
    # A model that dims everything to 60 loses the things themselves.
    dark = {name: scene([(*thing[:3], 60) for thing in parts[0]])
            for name, parts in PICTURES.items()}
    derained = write_scenes(tmp_path / 'derained', dark)
    labels = tmp_path / 'coco.json'
    labels.write_text(coco(list(PICTURES), [
        (0, 0, 0, 0, {}), (0, 1, 2, 2, {}), (1, 0, 1, 1, {}), (2, 0, 3, 3, {}),
        (2, 1, 0, 0, {})]))
    run = _run(tmp_path, '--rainy', rainy, '--clean', clean, '--derained', derained,
               '--labels', labels, '--verbose')
    assert run['model'] is None and run['reference'] == 'labels'
    # One labelled thing is not in the pictures at all.
    assert run['inputs']['clean']['recall'] == 4 / 5 and run['inputs']['clean']['precision'] == 1
    assert run['inputs']['rainy']['recall'] == 4 / 5
    assert run['inputs']['derained'] == {
        'precision': None, 'recall': 0.0, 'f1': 0.0, 'map50': pytest.approx((1 + 51 / 101) / 2),
        'detections': 0, 'truths': 5, 'images': 3}
    assert run['hurt'] == 3 and run['images'][0]['rain_intensity'] is None
    out = capsys.readouterr().out
    assert 'Deraining hurts this detector here' in out and 'all frames' in out
    assert 'frames as given' in out


def test_classes_and_score_are_chosen(tmp_path):
    rainy, clean = _folders(tmp_path)
    common = ('--rainy', rainy, '--clean', clean, '--model', _model(tmp_path))
    run = _run(tmp_path, *common, '--classes', 'Blue Thing')
    assert [entry['name'] for entry in run['classes']] == ['blue thing']
    assert run['inputs']['rainy']['truths'] == 1 and run['inputs']['rainy']['precision'] == 1
    run = _run(tmp_path, *common, '--score', '0.5')
    assert run['detector']['score_threshold'] == 0.5
    assert run['inputs']['rainy']['truths'] == 2
    assert run['inputs']['derained']['recall'] == 0


def test_labels_restrict_what_counts_and_frames_without_are_left_out(tmp_path, derain, capsys):
    rainy, _ = _folders(tmp_path)
    labels = tmp_path / 'labels'
    labels.mkdir()
    (labels / 'classes.txt').write_text('blue thing\n')
    (labels / 'a.txt').write_text('0 0.625 0.625 0.25 0.25\n')
    (labels / 'b.txt').write_text('')
    run = _run(tmp_path, '--rainy', rainy, '--labels', labels, '--model', _model(tmp_path))
    assert run['inputs']['rainy'] == {
        'precision': 1.0, 'recall': 1.0, 'f1': 1.0, 'map50': 1.0, 'detections': 1, 'truths': 1,
        'images': 2}
    assert run['source']['unlabelled'] == 1
    captured = capsys.readouterr()
    assert '1 frames are not in the labels' in captured.err and 'c.png' in captured.err
    assert 'makes no difference' in captured.out
    (tmp_path / 'labels.json').write_text(coco(['z.png'], []))
    assert 'labels are matched by file name' in derain(
        'detections', '--rainy', rainy, '--labels', tmp_path / 'labels.json', '--model',
        _model(tmp_path), '--detector', write_detector(tmp_path / 'd'), status=1).err


def _bag(tmp_path, pictures=None, storage='mcap'):
    rows = []
    for number, parts in enumerate((pictures or PICTURES).values()):
        time = START + number * 50_000_000
        for topic, picture in (('/cam/image_raw', scene(*parts)),
                               ('/cam/image_raw/dry', scene(parts[0]))):
            rows.append((topic, IMAGE, time + 99, image(
                0, time, height=64, width=64, step=192, data=picture.ravel())))
    return write_bag(tmp_path / 'bag', rows, storage)


@pytest.mark.parametrize('storage', ['mcap', 'sqlite3'])
def test_a_bag_gives_the_figures_of_the_folders(tmp_path, storage):
    rainy, clean = _folders(tmp_path)
    model = _model(tmp_path)
    folders = _run(tmp_path, '--rainy', rainy, '--clean', clean, '--model', model)
    bag = _bag(tmp_path, storage=storage)
    topics = ('--rainy-topic', '/cam/image_raw', '--clean-topic', 'cam/image_raw/dry')
    flying = _run(tmp_path, bag, *topics, '--model', model)
    derained = tmp_path / 'derained'
    assert main(['bag', str(bag), '-o', str(derained), '--topics', '/cam/image_raw',
                 '--model', model]) == 0
    given = _run(tmp_path, derained, *topics)
    for run in (flying, given):
        assert run['inputs'] == folders['inputs'] and run['classes'] == folders['classes']
        for frame, other in zip(run['images'], folders['images'], strict=True):
            assert {key: frame[key] for key in ('rainy', 'derained', 'rain_intensity')} == {
                key: other[key] for key in ('rainy', 'derained', 'rain_intensity')}
        assert [frame['stamp'] for frame in run['images']] == [
            START + number * 50_000_000 for number in range(3)]
        assert run['images'][0]['name'] == '1700000000.000000007'
    assert flying['model'] and given['model'] is None
    assert flying['source']['derained_topic'] is None
    assert given['source']['derained_topic'] == '/cam/derained/image'
    assert given['format'] == FORMAT and given['kind'] == 'detections'


def test_damaged_frames_are_named_and_the_rest_counts(tmp_path, capsys):
    rainy, clean = _folders(tmp_path)
    (tmp_path / 'rainy' / 'b.png').write_bytes(b'no picture')
    run = _run(tmp_path, '--rainy', rainy, '--clean', clean, '--model', _model(tmp_path),
               status=1)
    assert run['inputs']['rainy']['images'] == 2
    assert run['source']['failed'][0]['name'] == 'b.png'
    assert 'b.png: not a picture' in capsys.readouterr().err


@pytest.mark.parametrize(('block', 'status'), [(20, 0), (80, 1)])
def test_topics_in_another_order_are_followed_a_little_way(tmp_path, capsys, block, status):
    rows = []
    fields = {'height': 64, 'width': 64, 'step': 192, 'data': scene(*PICTURES['c.png']).ravel()}
    for number in range(80):
        # Backwards within a block: so many frames wait for their partner.
        partner = number // block * block + block - 1 - number % block
        for topic, frame in (('/rain', number), ('/dry', partner)):
            rows.append((topic, IMAGE, START + number, image(
                0, START + frame * 1_000_000, **fields)))
    bag = write_bag(tmp_path / 'bag', rows)
    assert main(['detections', str(bag), '--rainy-topic', '/rain', '--clean-topic', '/dry',
                 '--model', _model(tmp_path),
                 '--detector', str(write_detector(tmp_path / 'd'))]) == status
    assert ('in another order' in capsys.readouterr().err) == bool(status)


def test_requests_that_do_not_fit_are_refused(tmp_path, derain):
    rainy, clean = _folders(tmp_path)
    bag = str(_bag(tmp_path))
    detector = ['--detector', str(write_detector(tmp_path / 'detector'))]
    both = ['--rainy', rainy, '--clean', clean]
    (tmp_path / 'labels.json').write_text(coco(['z.png'], [], names=['cat']))
    (tmp_path / 'good.json').write_text(coco(['z.png'], []))
    (tmp_path / 'mine.yaml').write_text('modle: x\n')
    for arguments, words in (
        ([*detector], ('--rainy',)),
        (['--rainy', rainy, *detector], ('--clean', '--labels')),
        ([bag, *both, *detector], ('--rainy does not go with a bag',)),
        ([*both, '--rainy-topic', '/x', *detector], ('--rainy-topic does not go',)),
        ([bag, *detector], ('--rainy-topic is missing', '/cam/image_raw/dry')),
        ([bag, '--rainy-topic', '/cam/image_raw', *detector], ('--clean-topic',)),
        ([bag, '--rainy-topic', '/no', '--clean-topic', '/cam/image_raw', *detector],
         (f'/no is not an image topic of {bag};', '/cam/image_raw/dry')),
        ([bag, '--rainy-topic', '/cam/image_raw', '--clean-topic', '/cam/image_raw', *detector],
         ('given twice',)),
        ([*both, '--detector', 'yolov9'], ('yolov9', 'fastestdet, yolov8')),
        ([*both, '--detector', 'yolov8'], ('yolov8n.onnx', 'no such file', 'with --onnx')),
        ([*both, '--detector', str(tmp_path / 'mine.yaml')],
         ('mine.yaml', "did you mean 'model'?")),
        ([*both, *detector, '--classes', 'cat'], ('cat', 'red thing, blue thing')),
        ([*both, *detector, '--labels', str(tmp_path / 'labels.json')], ('cat',)),
        ([*both, *detector, '--labels', str(tmp_path / 'none.json')], ('none.json',)),
        ([*both, *detector, '--json', str(tmp_path)], ('is a folder',)),
        (['--rainy', rainy, '--clean', rainy, *detector], ('are the same',)),
        (['--rainy', rainy, '--clean', str(tmp_path / 'none'), *detector], ('none',)),
        (['--rainy', str(tmp_path / 'none'), '--labels', str(tmp_path / 'good.json'), *detector],
         ('none',)),
        ([str(tmp_path / 'none'), '--rainy-topic', '/x', '--clean-topic', '/y', *detector],
         ('no such bag',)),
    ):
        message = derain('detections', *arguments, status=2).err
        assert all(word in message for word in words), message
    assert not list(tmp_path.glob('*.partial'))


def test_nothing_to_find_is_said(tmp_path, capsys):
    rainy, clean = _folders(tmp_path, {'a.png': ([], [(1, 1)])})
    run = _run(tmp_path, '--rainy', rainy, '--clean', clean, '--model', _model(tmp_path))
    assert run['inputs']['rainy'] == {
        'precision': 0.0, 'recall': None, 'f1': 0.0, 'map50': None, 'detections': 1, 'truths': 0,
        'images': 1}
    assert run['helped'] == 1 and run['classes'] == []
    assert 'no objects in these frames' in capsys.readouterr().out
    json.dumps(run, allow_nan=False)
