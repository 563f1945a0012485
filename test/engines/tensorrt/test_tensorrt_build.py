"""Builds by a real TensorRT; that of RTX GPUs builds on machines without a GPU, too."""

import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from derain_ros.cli import main
from derain_ros.engines import EngineError
from derain_ros.engines.models import find_model, model_names
from derain_ros.engines.tensorrt.cuda_runtime import find_gpu
from derain_ros.engines.tensorrt.tensorrt_build import (
    BuildAbortedError,
    BuildRequest,
    build_engine,
)
from derain_ros.engines.tensorrt.tensorrt_library import find_library

pytest.importorskip('tensorrt_rtx', reason='the extra `tensorrt` is not installed')

SHIPPED = [
    pytest.param(name, precision, size, marks=[] if name in ('nano', 'nano-t') and (
        precision, size) == ('fp16', (480, 640)) else [pytest.mark.slow])
    for size in ((480, 640), (1080, 1920), (376, 1241))
    for name in model_names() for precision in ('fp32', 'fp16')]


@pytest.fixture(scope='module')
def library():
    return find_library('tensorrt_rtx')


def request(name='nano', precision='fp16', size=(96, 128), **options):
    return BuildRequest(find_model(name), precision, size, **options)


def build(library, wanted, **options):
    return build_engine(wanted, wanted.read(), library, **options)


@pytest.mark.parametrize(('name', 'precision', 'size'), SHIPPED)
def test_every_shipped_model_builds(library, name, precision, size):
    engine = build(library, request(name, precision, size))
    # Weights of two or four bytes each are in it.
    assert len(engine) > find_model(name).parameters * (2 if precision == 'fp16' else 4)


@pytest.mark.slow
def test_batches_and_a_limit_on_memory_build(library):
    assert build(library, request(batch=4, workspace=256 << 20)) != build(library, request())


def test_progress_rises_from_phase_to_phase_to_100(library):
    seen = []
    build(library, request(), report=seen.append)
    percents = [progress.percent for progress in seen]
    assert percents == sorted(percents)
    assert percents[0] < 20
    assert percents[-1] == 100
    assert len(percents) > 10
    assert len({progress.phase for progress in seen}) > 2
    assert all(progress.seconds >= 0 for progress in seen)


def test_a_build_can_be_aborted_and_begun_again(library):
    stop = threading.Event()

    def report(progress):
        if progress.percent > 10:
            stop.set()

    start = time.monotonic()
    with pytest.raises(BuildAbortedError, match='nano: the build was aborted'):
        build(library, request(size=(1080, 1920)), report=report, stop=stop)
    assert time.monotonic() - start < 5
    assert build(library, request())


def test_a_file_that_is_no_model_of_ours_is_refused(library, tmp_path):
    with pytest.raises(EngineError, match=r'nano, fp16, 128x96: TensorRT cannot read .+: \w+'):
        build_engine(request(), b'\x08\x07junk', library)
    onnx = pytest.importorskip('onnx')
    helper, double = onnx.helper, onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node('Relu', ['x'], ['y'])], 'other',
        [helper.make_tensor_value_info('x', double, [1, 3])],
        [helper.make_tensor_value_info('y', double, [1, 3])])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid('', 18)], ir_version=8),
              tmp_path / 'other.onnx')
    wanted = request(str(tmp_path / 'other.onnx'), 'fp32')
    with pytest.raises(EngineError, match=r"other.onnx: inputs \['x'\] and outputs \['y'\]"):
        build(library, wanted)
    with pytest.raises(EngineError, match='has no file in float16; use precision fp32'):
        request(str(tmp_path / 'other.onnx'), 'fp16').read()


def test_requests_for_too_small_frames_are_refused():
    with pytest.raises(EngineError, match='31x480 is too small'):
        request(size=(480, 31))


def test_the_key_changes_with_whatever_the_engine_depends_on(library):
    def digest(**options):
        wanted = request(**options)
        return wanted.key(wanted.read(), library, find_gpu()).digest()

    found = [digest(), digest(name='base'), digest(precision='fp32'), digest(size=(128, 96)),
             digest(batch=2), digest(workspace=1 << 20)]
    assert len(set(found)) == len(found)
    assert digest() == found[0]


def test_a_flavour_that_is_not_there_says_how_to_get_it():
    with pytest.raises(EngineError, match=r'no module .+: install TensorRT 10 or 11'):
        find_library('tensorrt_of_tomorrow')


# The command


def command(cache, *arguments):
    return [sys.executable, '-m', 'derain_ros.cli', 'build-engine', '--size', '128x96', '--cache',
            str(cache), *arguments]


def run(cache, *arguments):
    return subprocess.run(
        command(cache, *arguments), capture_output=True, text=True, timeout=150)


def entries(cache):
    return sorted(path.suffix for path in cache.iterdir() if path.suffix != '.lock')


def test_a_second_run_finds_what_the_first_has_built(tmp_path):
    first = run(tmp_path / 'cache')
    assert (first.returncode, 'built in' in first.stdout) == (0, True), first.stderr
    path = first.stdout.splitlines()[1]
    engine = Path(path)
    content = engine.read_bytes()
    second = run(tmp_path / 'cache')
    assert 'found in the cache' in second.stdout
    assert second.stdout.splitlines()[1] == path
    several = run(tmp_path / 'cache', '--size', '96x64', '--size', '96x64')
    assert [line.split(': ')[1][:5] for line in several.stdout.splitlines()[::2]] == [
        'found', 'built']
    engine.write_bytes(content[:1000])
    third = run(tmp_path / 'cache')
    assert 'built in' in third.stdout
    assert 'it is removed and built again' in third.stderr


@pytest.mark.parametrize('number', [
    signal.SIGKILL, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_an_end_in_the_middle_of_a_build_leaves_a_cache_that_works(tmp_path, number):
    cache = tmp_path / 'cache'
    sizes = ['--size', '1920x1080', '--size', '1920x1200', '--size', '1280x720']
    process = subprocess.Popen(command(cache, *sizes), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not (cache.is_dir() and list(cache.glob('*.lock'))):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.5)  # now it builds
    assert process.poll() is None
    process.send_signal(number)
    said = process.communicate(timeout=20)[1]
    assert process.returncode == (-9 if number == signal.SIGKILL else 130), said
    if number == signal.SIGINT:
        assert 'Traceback' not in said
    assert entries(cache) == []
    again = run(cache)
    assert again.returncode == 0, again.stderr
    assert entries(cache) == ['.engine', '.json']


@pytest.mark.parametrize(('arguments', 'reason'), [
    (['--size', '20x20'], '20x20 is too small'),
    (['--model', 'unknown'], "unknown model 'unknown'"),
    (['--batch', '0'], 'not a whole number')])
def test_arguments_that_cannot_be_are_refused(tmp_path, capsys, arguments, reason):
    try:
        status = main(['build-engine', '--size', '128x96', '--cache', str(tmp_path), *arguments])
    except SystemExit as end:
        status = end.code
    assert status == 2 and reason in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_costs_the_entry_alone(tmp_path):
    blocked = tmp_path / 'file'
    blocked.touch()
    done = run(blocked)
    assert done.returncode == 1
    assert re.search(r'note: .*file.*the engine is built without it', done.stderr)
    assert 'could not be stored' in done.stderr


@pytest.mark.skipif(bool(find_gpu().name), reason='this machine has a GPU')
def test_tensorrt_without_a_gpu_says_so(tmp_path):
    pytest.importorskip('tensorrt', reason='tensorrt itself is not installed')
    done = run(tmp_path, '--flavour', 'tensorrt')
    assert done.returncode == 1
    assert 'builds for the GPU of this machine' in done.stderr


def test_the_gpu_is_named_or_why_there_is_none():
    found = find_gpu()
    assert bool(found.name) != bool(found.missing)
