"""Model files and names of models that were made to do harm."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from derain_ros.engines import EngineError, create_engine
from derain_ros.engines.models import ModelError, find_model
from derain_ros.engines.onnx_file import check_one_file

ROOT = Path(__file__).resolve().parents[2]


# Names and paths of models

@pytest.mark.parametrize('name', [
    '../nano', 'models/nano', '/etc/passwd', '..', '.', '', 'nano\0', 'nano\n', 'n\u0430no',
    '~/nano', 'C:\\nano', 'nano.json', '-nano', 'file:///nano',
])
def test_a_name_never_becomes_a_path(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(ModelError, match='is not a name of a model') as refusal:
        find_model(name)
    assert str(refusal.value).isprintable() and str(refusal.value).isascii()
    with pytest.raises(EngineError, match='is not a name of a model'):
        create_engine('openvino', name)


@pytest.mark.parametrize('path', ['a\0.onnx', 'a\n[INFO] all is well.onnx', '\x1b[2J.onnx'])
def test_control_characters_in_a_path_are_refused(path):
    with pytest.raises(ModelError, match='control characters') as refusal:
        find_model(path)
    assert str(refusal.value).isprintable()


def test_paths_that_lead_nowhere_are_refused(tmp_path):
    (tmp_path / 'folder.onnx').mkdir()
    os.mkfifo(tmp_path / 'pipe.onnx')
    (tmp_path / 'loop.onnx').symlink_to('loop.onnx')
    for path in (*tmp_path.iterdir(), '~nobody_of_this_name/x.onnx', f'{"x" * 5000}.onnx'):
        with pytest.raises(ModelError, match='give an existing ONNX file'):
            find_model(str(path))


@pytest.fixture
def copy(tmp_path):
    """Copy the model to a file of another name."""
    (tmp_path / 'kept').mkdir()
    return Path(shutil.copy(find_model('nano').onnx, tmp_path / 'kept' / 'mine.onnx'))


def test_engine_tells_the_real_path_and_the_digest(copy, tmp_path):
    link = tmp_path / 'link.onnx'
    link.symlink_to(copy)
    engine = create_engine('openvino', f'{tmp_path}/kept/../link.onnx', precision='f32')
    engine.close()
    digest = hashlib.sha256(copy.read_bytes()).hexdigest()
    assert f'model from {copy}, sha256 {digest}, no mine.onnx.sha256' in engine.info.reason


@pytest.mark.parametrize('beside_link', [False, True])
def test_a_digest_beside_the_file_is_checked(copy, tmp_path, beside_link):
    link = tmp_path / 'link.onnx'
    link.symlink_to(copy)
    pin = Path(f'{link if beside_link else copy}.sha256')
    pin.write_text(subprocess.run(
        ['sha256sum', copy.name], cwd=copy.parent, capture_output=True, text=True,
        check=True).stdout)
    assert f'as in {pin}' in find_model(str(link)).origin
    with copy.open('ab') as stream:
        stream.write(b'\0')
    with pytest.raises(ModelError, match=r'link|mine') as refusal:
        find_model(str(link))
    assert str(pin) in str(refusal.value) and 'sha256sum' in str(refusal.value)
    pin.write_text('not a digest')
    with pytest.raises(ModelError, match='does not begin with a sha256'):
        find_model(str(link))


def test_what_was_checked_is_what_is_loaded(copy):
    model = find_model(str(copy))
    content = model.read(copy)
    copy.write_bytes(b'other')
    assert content != b'other'
    with pytest.raises(ModelError, match='sha256 differs'):
        model.read(copy)


# ONNX files

def with_weights_elsewhere(location, node=False):
    """Return the model with one tensor in another file."""
    onnx = pytest.importorskip('onnx', reason='needs the extra `train`')
    model = onnx.load(find_model('nano').onnx)
    tensor = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    if node:  # as a constant inside a graph that is the attribute of a node
        inner = onnx.helper.make_graph(
            [onnx.helper.make_node('Constant', [], ['c'], value=tensor)], 'inner', [], [])
        model.graph.node.append(onnx.helper.make_node('If', ['x'], ['y'], then_branch=inner))
        tensor = model.graph.node[-1].attribute[0].g.node[0].attribute[0].t
    content = tensor.raw_data
    tensor.ClearField('raw_data')
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key='location', value=location)
    return model.SerializeToString(), content


@pytest.mark.parametrize('location', ['weights.bin', '../weights.bin', 'absolute', 'link.bin'])
def test_weights_in_other_files_are_refused(location, tmp_path):
    """Also where they lie there and are right; OpenVINO itself would take some of these."""
    folder = tmp_path / 'model'
    folder.mkdir()
    outside = tmp_path / 'weights.bin'
    location = str(outside) if location == 'absolute' else location
    model, content = with_weights_elsewhere(location)
    outside.write_bytes(content)
    (folder / 'weights.bin').write_bytes(content)
    (folder / 'link.bin').symlink_to(outside)
    (folder / 'mine.onnx').write_bytes(model)
    with pytest.raises(EngineError, match=r'mine\.onnx: keeps weights in another file'):
        create_engine('openvino', str(folder / 'mine.onnx'))


def test_weights_elsewhere_are_found_in_nested_graphs():
    check_one_file(Path('x'), find_model('nano').onnx.read_bytes())
    with pytest.raises(ModelError, match='another file'):
        check_one_file(Path('x'), with_weights_elsewhere('w', node=True)[0])


@pytest.mark.parametrize('content', [
    b'\xff' * 40, b'\x3a\xff\xff\xff\xff\x0f', b'<?xml version="1.0"?><net/>', b'\x3a\x05ab',
    b'\x0b' * 9,
])
def test_files_that_are_no_onnx_are_refused(content):
    with pytest.raises(ModelError, match='not an ONNX file'):
        check_one_file(Path('x'), content)


def test_deep_nesting_is_no_recursion():
    def message(number, content):
        length, coded = len(content), bytearray()
        while length > 127:
            coded.append(length & 127 | 128)
            length >>= 7
        return bytes([number << 3 | 2, *coded, length]) + content

    content = b''
    for _ in range(3000):  # graph, in an attribute, of a node
        content = message(1, message(5, message(6, content)))
    check_one_file(Path('x'), message(7, content))
