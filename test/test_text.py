"""Names in messages, and what these say of packages that are missing."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from derain_ros.text import how_to_install, printable, why_not_imported

ROOT = Path(__file__).resolve().parent.parent


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=9))
def test_printable_is_printable_and_keeps_what_was(text):
    shown = printable(text)
    assert shown.isprintable() and shown.encode()[:0] == b''
    assert shown == text or not text.isprintable()


def test_in_an_environment_it_is_pip(monkeypatch):
    monkeypatch.setattr(sys, 'base_prefix', '/usr')
    monkeypatch.setattr(sys, 'prefix', '/home/me/ws/.venv')
    assert how_to_install('a') == 'install it with `pip install a`'
    assert how_to_install('a', 'b') == 'install them with `pip install a b`'


def test_outside_of_one_a_command_says_to_activate_it_first(tmp_path):
    # Without its packages, as the Python of a terminal in which nothing was activated.
    run = subprocess.run(
        [getattr(sys, '_base_executable', sys.executable), '-I', '-S', '-c',
         f'import sys; sys.path.insert(0, {str(ROOT)!r}); from derain_ros.cli import main; '
         'sys.exit(main(["bag", "drive", "-o", "out"]))'],
        cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1, run.stderr
    assert re.fullmatch(
        r'derain: error: the Python package \w+ is missing; no virtual environment is active: if '
        r'there is one, activate it \(`source .venv/bin/activate`\), else install it with '
        r'`pip install \S+`\n', run.stderr), run.stderr


@pytest.mark.parametrize(('error', 'told'), [
    (ModuleNotFoundError('gone', name='rosbags.rosbag2'), '`pip install "rosbags<0.12"`'),
    (ModuleNotFoundError('gone', name='matplotlib'), '`pip install matplotlib`'),
    (ModuleNotFoundError('gone', name='sensor_msgs'), 'gone; source a ROS 2 installation'),
    (ImportError('cannot import name Filter', name='rosbags.highlevel'),
     '(cannot import name Filter); reinstall it with `pip install --force-reinstall --no-deps '
     '"rosbags<0.12"`'),
    (ImportError('libGL.so.1: no such file', name='cv2'), 'opencv-python-headless`'),
    (ImportError('numpy.core.multiarray failed to import'), '`pip install "numpy<2"`'),
    (ImportError('ours', name='derain_ros.text'), ''), (ImportError('whose?'), '')])
def test_what_cannot_be_imported_is_named_with_its_remedy(monkeypatch, error, told):
    monkeypatch.delenv('AMENT_PREFIX_PATH', raising=False)
    problem = why_not_imported(error)
    assert told in problem and bool(told) == bool(problem)


def test_nobody_is_told_to_source_a_ros_that_is_sourced(monkeypatch):
    monkeypatch.setenv('AMENT_PREFIX_PATH', '/opt/ros/jazzy')
    monkeypatch.setenv('ROS_DISTRO', 'jazzy')
    problem = why_not_imported(ModuleNotFoundError('gone\nfor reasons', name='lifecycle_msgs.srv'))
    assert problem.startswith('gone; ROS 2 jazzy is sourced') and sys.executable in problem
    assert 'ros-jazzy-lifecycle-msgs' in problem and 'reasons' not in problem


def test_the_numpy_of_a_sourced_ros_is_kept(monkeypatch, tmp_path):
    information = tmp_path / 'numpy-1.21.5.dist-info'
    information.mkdir()
    (information / 'METADATA').write_text('Metadata-Version: 2.1\nName: numpy\nVersion: 1.21.5\n')
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv('AMENT_PREFIX_PATH', '/opt/ros/humble')
    missing = ModuleNotFoundError('gone', name='matplotlib')
    assert 'pip install matplotlib "numpy<2"`' in why_not_imported(missing)


def test_no_message_or_page_names_this_package_as_one_of_pypi():
    files = [ROOT / 'README.md', *(
        path for folder in ('derain_ros', 'docs', 'config', 'launch', 'test')
        for path in (ROOT / folder).rglob('*') if path.suffix in ('.py', '.md', '.yaml'))]
    assert len(files) > 100
    assert [str(path) for path in files if path.name != 'test_text.py' and re.search(
        r'pip install[^\n`]*["\' ]derain_ros', path.read_text(encoding='utf-8'))] == []
