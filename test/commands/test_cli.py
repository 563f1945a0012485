"""The ``derain`` command as a user meets it: help, exit status, messages, start-up."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from derain_ros.cli import main

COMMANDS = ('image', 'bag', 'rain', 'evaluate', 'info', 'demo', 'bench', 'soak', 'top', 'policy',
            'train', 'pack', 'export')


def _run(*arguments, **options):
    return subprocess.run(
        [sys.executable, '-m', 'derain_ros.cli', *arguments],
        capture_output=True, text=True, timeout=120, check=False, **options)


def test_help_lists_every_command_and_needs_no_heavy_package():
    code = (
        'import sys\n'
        'from derain_ros.cli import main\n'
        'try:\n'
        '    main(["--help"])\n'
        'except SystemExit as end:\n'
        '    print("status", end.code)\n'
        'heavy = {"torch", "rclpy", "openvino", "cv2", "numpy", "rosbags"} & set(sys.modules)\n'
        'print("heavy", sorted(heavy))\n'
    )
    result = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, timeout=60, check=True)
    assert 'status 0' in result.stdout
    assert 'heavy []' in result.stdout
    for command in COMMANDS:
        assert f'\n    {command} ' in result.stdout


@pytest.mark.parametrize('command', COMMANDS)
def test_help_of_a_command_has_examples(command, capsys):
    with pytest.raises(SystemExit) as end:
        main([command, '--help'])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert f'derain {command}' in text.partition('examples:')[2]
    text.encode('ascii')


@pytest.mark.parametrize('line', [
    '', 'nonsense', 'image a.png',
    *(f'{command} {option}' for command, options in {
        'image a.png -o out': ['--strength 2'],
        'bag a -o b': ['--storage zip', '--start -1', '--start soon', '--start nan',
                       '--duration 0', '--every 0', '--workers 0', '--workers 1.5',
                       '--workers 2 --scheduler ADDRESS'],
        'bench': ['--sizes 640', '--seconds 0'],
        'rain a -o b': ['--intensity 1.1', '--intensity nan', '--intensity heavy', '--seed -1',
                        '--seed 1.5', '--wind 91', '--mist 2', '--model snow'],
        'video a -o b': ['--sweep 0', '--start -1', '--fps nan', '--duration 0'],
        'detections --detector a': ['--score 2'], 'evaluate': ['--pictures -1'],
        'report a -o b': ['--pictures x', '--pictures 1.5'],
        'gate a': ['--every 5', '--rain 1.5'],
        'replay-bench a': ['--rate 0', '--loss 100'],
        'train a -o b': ['--minutes 0', '--minutes soon', '--steps 0', '--amp bf8'],
    }.items() for option in options)])
def test_wrong_arguments_are_named_with_status_2(line, capsys):
    with pytest.raises(SystemExit) as end:
        main(line.split())
    assert end.value.code == 2
    message = capsys.readouterr().err
    assert 'error:' in message
    assert '--' not in line or all(word in message for word in line.split()[-2:])


def test_missing_input_is_one_line_without_traceback(tmp_path):
    result = _run('image', str(tmp_path / 'none.png'), '-o', str(tmp_path / 'out'))
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        f'derain: error: {tmp_path / "none.png"}: no such file or folder']
    assert not (tmp_path / 'out').exists()


def test_a_name_that_the_output_cannot_represent_is_escaped(tmp_path):
    picture = tmp_path / 'dry.png'
    cv2.imwrite(str(picture), np.zeros((48, 64, 3), np.uint8))
    result = _run('rain', str(picture), '-o', str(tmp_path / 'nässe'),
                  env=os.environ | {'PYTHONIOENCODING': 'ascii'})
    assert result.returncode == 0, result.stderr
    assert result.stdout == f'1 of 1 pictures in rain to {tmp_path}/n\\xe4sse\n'


@pytest.mark.parametrize('option, value', [
    ('--model', 'mega'), ('--model', 'none.onnx'), ('--engine', 'steam'), ('--precision', 'f61')])
def test_unknown_model_or_engine_is_named(option, value, tmp_path, capsys):
    picture = tmp_path / 'x.png'
    picture.write_bytes(b'not looked at')
    assert main(['image', str(picture), '-o', str(tmp_path / 'out'), option, value]) == 2
    message = capsys.readouterr().err
    assert message.startswith('derain: error: ')
    assert value in message
    assert not (tmp_path / 'out').exists()


def test_info_names_models_engines_and_versions(derain, capsys):
    assert main(['info', '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    nano = next(model for model in found['models'] if model['name'] == 'nano')
    assert nano['parameters'] > 10_000
    assert {'openvino', 'torch'} <= {engine['engine'] for engine in found['engines']}
    assert any(engine['available'] for engine in found['engines'])
    for engine in found['engines']:
        assert engine['detail'] or engine['available']
    assert found['versions']['python'] == '.'.join(map(str, sys.version_info[:3]))
    text = derain('info').out
    assert 'nano' in text and 'openvino' in text and 'numpy' in text


def test_bench_times_an_engine(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv('ONEDNN_MAX_CPU_ISA', 'AVX2')
    figures = tmp_path / 'deep' / 'bench.json'
    arguments = ['bench', '--skip-node', '--engines', 'openvino', '--sizes', '96x64',
                 '--seconds', '0.2', '--json', str(figures)]
    assert main(arguments) == 0
    found = json.loads(figures.read_text())
    name, _, limit = found['machine']['instruction set'].partition(' ')
    assert name in Path('/proc/cpuinfo').read_text() and limit == '(ONEDNN_MAX_CPU_ISA=AVX2)'
    scenario = found['scenarios']['engine']
    timing, = scenario['details']['timings']
    assert (timing['width'], timing['height'], timing['engine']) == (96, 64, 'openvino')
    assert 0 < timing['median_ms'] <= timing['p95_ms']
    printed = capsys.readouterr().out
    assert '96x64' in printed and f'instruction set: {name} {limit}' in printed


@pytest.mark.parametrize('command', [
    ['bench', '--only', 'engine', '--quick', '--sizes', '96x64', '--json'],
    ['export', 'run', '-o']])
def test_an_output_that_cannot_be_written_is_told_before_the_work(command, tmp_path, derain):
    file = tmp_path / 'file'
    file.touch()
    assert f'{file}: is a file' in derain(*command, file / 'out', status=2).err


def test_a_missing_package_is_named():
    code = ('import sys\n'
            'sys.modules["rosbags"] = None\n'
            'from derain_ros.cli import main\n'
            'sys.exit(main(["bag", "in", "-o", "out"]))\n')
    result = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 1
    assert 'pip install "rosbags<0.12"' in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize('unbuffered', ['', '1'])
def test_a_closed_pipe_is_no_traceback(unbuffered):
    reading, writing = os.pipe()
    os.close(reading)
    result = subprocess.run(
        [sys.executable, '-m', 'derain_ros.cli', '--help'], stdout=writing, timeout=60,
        stderr=subprocess.PIPE, text=True, check=False,
        env=os.environ | {'PYTHONUNBUFFERED': unbuffered})
    os.close(writing)
    assert result.stderr == ''
    # argparse itself lets an error of its first write pass.
    assert result.returncode in (0, 141)


def test_ctrl_c_stops_with_130_and_no_half_file(tmp_path):
    source = tmp_path / 'in'
    source.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    first = source / '0.bmp'
    first.write_bytes(cv2.imencode('.bmp', noise)[1])
    for number in range(1, 400):
        os.link(first, source / f'{number}.bmp')
    process = subprocess.Popen(
        [sys.executable, '-m', 'derain_ros.cli', 'image', str(source), '-o',
         str(tmp_path / 'out')],
        stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stderr.readline().startswith('derain: nano on ')
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130
    assert errors.splitlines()[-1] == 'derain: interrupted'
    assert 'Traceback' not in errors
    for path in (tmp_path / 'out').glob('*'):
        assert path.suffix == '.png'
        assert cv2.imread(str(path)).shape == (480, 640, 3)
