"""launch/evaluate_bag.launch.py: its arguments, and what it runs.

What is not asserted: that ``ros2 bag`` takes these arguments. It cannot be installed by pip; a
script that writes down its arguments stands in for it, and another one for the node.
"""

import ast
import importlib.util
import json
import re
import shlex
import sys
import time

import pytest
from launched import Launched, install, joined, script
from ros_fixtures import ROOT

LAUNCH_FILE = ROOT / 'launch' / 'evaluate_bag.launch.py'
ARGUMENTS = {'bag', 'config', 'model', 'engine', 'rate', 'delay', 'output', 'record'}
needs_launch = pytest.mark.skipif(
    importlib.util.find_spec('launch_ros') is None,
    reason='launch_ros comes with a ROS installation, not by pip')
STAND_IN = """#!{python}
import json, os, sys, time
name = os.path.basename(sys.argv[0])
if name == 'ros2':
    name = sys.argv[2]
with open(os.path.join({folder!r}, name + '.part'), 'w') as file:
    json.dump(sys.argv[1:], file)
os.rename(file.name, os.path.join({folder!r}, name + '.json'))
status = os.environ.get('STATUS_' + name)
try:
    time.sleep(0.5 if name == 'play' else 0.2 if name == os.environ.get('DIES') else 60)
except KeyboardInterrupt:
    pass
sys.exit(int(status or 0))
"""

# The file itself, wherever Python runs

def test_the_file_compiles_and_its_arguments_are_described():
    source = LAUNCH_FILE.read_text()
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    compile(source, LAUNCH_FILE.name, 'exec')
    declared = {}
    for call in calls:
        if getattr(call.func, 'id', '') == 'DeclareLaunchArgument':
            given = {word.arg: word.value for word in call.keywords}
            declared[given['name'].value] = given
    assert set(declared) == ARGUMENTS
    for name, given in declared.items():
        assert isinstance(given['description'].value, str) and given['description'].value
        assert ('default_value' in given) == (name != 'bag')
    wanted = {call.args[0].value for call in calls
              if getattr(call.func, 'id', '') == 'given' and call.args}
    assert wanted == ARGUMENTS
    assert 'Not run with ``ros2 bag``' in ast.get_docstring(ast.parse(source))


def test_the_topics_that_are_recorded_by_default():
    pattern = re.search(r"default_value='(/derained.*)'", LAUNCH_FILE.read_text())[1]
    for topic in ('/front/derained/image', '/derained/rain_mask', '/diagnostics',
                  '/a/b/derained/camera_info', '/front/derained/status'):
        assert re.search(pattern, topic), topic
    for topic in ('/front/image_raw', '/front/derained/image/compressed', '/clock', '/rosout',
                  '/front/derained/overlay', '/mine/diagnostics'):
        assert not re.search(pattern, topic), topic


# A launch of it

def prepare(folder, ros2=True):
    """Make a prefix with stand-ins for the node and ``ros2``."""
    stand_in = STAND_IN.format(python=sys.executable, folder=str(folder))
    if ros2:
        script(folder / 'bin' / 'ros2', stand_in)
        (folder / 'modules' / 'ros2bag').mkdir(parents=True)
        (folder / 'modules' / 'ros2bag' / '__init__.py').touch()
    return install(folder / 'prefix', stand_in)


class Trial(Launched):
    """A launch with stand-ins for ``ros2`` and the node."""

    def __init__(self, folder, *arguments, **variables):
        self.folder = folder
        super().__init__(prepare(folder), LAUNCH_FILE, 1, *arguments, environment={
            'PATH': joined('PATH', folder / 'bin'),
            'PYTHONPATH': joined('PYTHONPATH', folder / 'modules', ROOT), **variables})

    def commands(self, count):
        """Return what the stand-ins were called with, once there are so many."""
        deadline = time.monotonic() + 30
        while len(found := sorted(self.folder.glob('*.json'))) < count:
            assert time.monotonic() < deadline and self.process.poll() is None, self.log()
            time.sleep(0.02)
        return {file.stem: json.loads(file.read_text()) for file in found}


@needs_launch
def test_node_player_and_recorder_run_and_end_with_the_bag(tmp_path):
    bag = tmp_path / 'a drive'
    bag.mkdir()
    with Trial(tmp_path, f'bag:={bag}', 'rate:=0.5', 'model:=base', 'delay:=2',
                  f'output:={tmp_path / "live"}') as launched:
        found = launched.commands(3)
        assert launched.process.wait(30) == 0, launched.log()
    assert found['play'] == [
        'bag', 'play', str(bag), '--clock', '200', '--rate', '0.5', '--delay', '2',
        '--disable-keyboard-controls']
    record = found['record']
    assert record[:5] == [
        'bag', 'record', '--output', str(tmp_path / 'live'), '--use-sim-time']
    assert record[5] == '--regex' and '/diagnostics' in record[6] and len(record) == 7
    node = shlex.join(found['derain_node'])
    files = [word for word in found['derain_node'] if word.endswith(('.yaml', '.yml'))
             or '/launch_params' in word]
    assert len(files) == 2 and files[0].endswith('config/derain.yaml'), node
    assert 'The bag has been played' in launched.log()


@needs_launch
def test_without_an_output_nothing_is_recorded(tmp_path):
    with Trial(tmp_path, f'bag:={tmp_path}') as launched:
        assert set(launched.commands(2)) == {'play', 'derain_node'}
        assert launched.process.wait(30) == 0, launched.log()


@needs_launch
def test_a_player_that_fails_ends_the_launch_at_once_and_says_so(tmp_path):
    with Trial(tmp_path, f'bag:={tmp_path}', STATUS_play='3') as launched:
        assert launched.process.wait(30) == 1
        assert 'ros2 bag play ended with status 3' in launched.log()


@needs_launch
@pytest.mark.parametrize(('name', 'status'), [('record', '0'), ('derain_node', '1')])
def test_a_recorder_or_node_that_dies_fails_the_trial_and_is_named(tmp_path, name, status):
    with Trial(tmp_path, f'bag:={tmp_path}', f'output:={tmp_path / "live"}', DIES=name,
                  **{f'STATUS_{name}': status}) as launched:
        assert launched.process.wait(30) == 1
        assert f'{name}-' in launched.log()
        assert f'ended with status {status} while the bag was being played' in launched.log()
        assert 'The bag has been played' not in launched.log()


@needs_launch
def test_a_recorder_that_fails_when_it_is_told_to_stop_fails_the_trial(tmp_path):
    with Trial(tmp_path, f'bag:={tmp_path}', f'output:={tmp_path / "live"}',
                  STATUS_record='1') as launched:
        assert launched.process.wait(30) == 1
        assert 'ros2 bag record ended with status 1 when it was stopped' in launched.log()


@needs_launch
@pytest.mark.parametrize(('given', 'ros2', 'said'), [
    ({'bag': '/nowhere/drive'}, True, 'there is no /nowhere/drive'),
    ({}, False, 'ros2 bag is not installed'),
    ({'rate': '0'}, True, "rate is '0', expected a number above 0"),
    ({'rate': 'fast'}, True, "rate is 'fast'"),
    ({'output': '/'}, True, 'output: / exists already'),
])
def test_what_cannot_be_run_is_an_error_that_says_why(tmp_path, monkeypatch, given, ros2, said):
    from launch.launch_context import LaunchContext

    prefix = prepare(tmp_path, ros2)
    monkeypatch.setenv('AMENT_PREFIX_PATH', joined('AMENT_PREFIX_PATH', prefix))
    monkeypatch.setenv('PATH', str(tmp_path / 'bin'))
    monkeypatch.syspath_prepend(tmp_path / 'modules')
    spec = importlib.util.spec_from_file_location('evaluate_bag_launch', LAUNCH_FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    context = LaunchContext()
    context.launch_configurations.update(dict.fromkeys(ARGUMENTS, '') | {
        'bag': '/', 'rate': '1', 'delay': '1'} | given)
    with pytest.raises(RuntimeError, match=re.escape(said)):
        module._processes(context)
