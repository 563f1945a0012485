"""The launch file: its arguments, and a real launch of the node.

``ros2 launch`` itself is not run; its engine, the package launch, is.
"""

import importlib.util
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from launch.actions import DeclareLaunchArgument
from launched import Launched, install, joined
from ros_fixtures import ROOT, Peer, new_domain, process_ended, wait_for

from derain_ros.node.process_memory import KEPT_BYTES, profile_variable
from launch import LaunchContext

LAUNCH_FILE = ROOT / 'launch' / 'derain.launch.py'
SPEC = importlib.util.spec_from_file_location('derain_launch', LAUNCH_FILE)
MODULE = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(MODULE)
VEHICLE = """
/**/derain:
  ros__parameters:
    cameras: [front, rear]
    strength: 1
    use_sim_time: true
    front: {image_topic: /nose/image, output_namespace: /nose/derained}
    rear: {image_topic: tail/image/compressed, output_namespace: tail/derained}
"""
PROFILE_VARIABLES = (
    'FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE', 'CYCLONEDDS_URI')
SEGMENT_BYTES = 64 << 20


@pytest.fixture
def prefix(tmp_path):
    return install(tmp_path / 'prefix', f'#!/bin/sh\nexec {shlex.quote(sys.executable)} '
                                        '-m derain_ros.node.main "$@"\n')


def launch_node(prefix, domain, *arguments, **more):
    """Launch the node, whatever the environment of the tests says."""
    own = (*KEPT_BYTES, *PROFILE_VARIABLES, 'GLIBC_TUNABLES', 'FASTDDS_BUILTIN_TRANSPORTS')
    return Launched(prefix, LAUNCH_FILE, domain, *arguments, environment=dict.fromkeys(own),
                    **more)


@pytest.fixture
def environment_given(prefix, monkeypatch):
    """Return what a launch file adds to the environment of the node's process."""
    for name in (*KEPT_BYTES, *PROFILE_VARIABLES, 'GLIBC_TUNABLES', 'RMW_IMPLEMENTATION',
                 'FASTDDS_BUILTIN_TRANSPORTS'):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv('AMENT_PREFIX_PATH', joined('AMENT_PREFIX_PATH', prefix))

    def given(profile='auto', **variables):
        with monkeypatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            return MODULE._environment(profile, LaunchContext())
    return given


def profile_in(environment):
    return {name: environment[name] for name in PROFILE_VARIABLES if name in environment}


def test_every_argument_is_declared_and_described():
    declared = [entity for entity in MODULE.generate_launch_description().entities
                if isinstance(entity, DeclareLaunchArgument)]
    assert {argument.name for argument in declared} == {
        'config', 'params_file', 'image_topic', 'precision', 'device', 'build_only',
        'model', 'engine', 'namespace', 'use_sim_time', 'log_level', 'dds_profile',
        'respawn'}
    assert all(argument.description.strip() for argument in declared)
    assert all(argument.default_value is not None for argument in declared)
    respawn = next(argument for argument in declared if argument.name == 'respawn')
    context = LaunchContext()
    context.launch_configurations['respawn'] = 'perhaps'
    with pytest.raises(RuntimeError, match='perhaps'):
        respawn.execute(context)


def test_a_config_with_two_cameras_comes_up_in_a_namespace_and_goes_down(prefix):
    config = prefix / 'vehicle.yaml'
    config.write_text(VEHICLE)
    domain = new_domain()
    with launch_node(prefix, domain, f'config:={config}', 'namespace:=car',
                  'log_level:=debug') as launched, Peer(domain, '/car/derain') as peer:
        peer.wait_for_state('active', launched)
        assert '[car.derain]: executor: ' in launched.log()
        assert peer.get('cameras', 'model', 'engine', 'use_sim_time') == [
            ['front', 'rear'], 'nano', 'auto', True]
        wait_for(lambda: peer.count_subscribers('/nose/image'), 'subscription')
        wait_for(lambda: peer.count_subscribers('/car/tail/image/compressed'), 'subscription')
        wait_for(lambda: peer.count_publishers('/nose/derained/image') == 1, 'publisher')
        wait_for(lambda: peer.count_publishers('/car/tail/derained/rain_mask') == 1, 'publisher')
        assert peer.set('strength', 0.5) == ''
        status, _ = process_ended(launched.process, signal.SIGINT)
        assert status == 0, launched.log()
        assert 'process has finished cleanly' in launched.log()


def test_arguments_override_the_config_that_is_the_default(prefix):
    domain = new_domain()
    with launch_node(prefix, domain, 'model:=nope', 'engine:=openvino', 'use_sim_time:=false',
                  'log_level:=warn') as launched, Peer(domain) as peer:
        wait_for(lambda: 'autostart failed' in launched.log(), 'autostart', 60)
        assert "'nope'" in launched.log()
        assert peer.get('model', 'engine', 'cameras', 'use_sim_time') == [
            'nope', 'openvino', ['camera'], False]


def test_a_killed_node_comes_back_with_the_profile_and_the_allocator_settings(prefix):
    domain = new_domain()
    with launch_node(prefix, domain) as launched, Peer(domain) as peer:
        peer.wait_for_state('active', launched)
        first, = launched.pids()
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: len(launched.pids()) == 2, 'second start')
        peer.wait_for_state('active', launched)
        second = launched.pids()[1]
        environment = dict(entry.partition('=')[::2] for entry in Path(
            f'/proc/{second}/environ').read_text().split('\0'))
        profile = prefix / 'share' / 'derain_ros' / 'config' / 'fastdds.xml'
        assert environment[profile_variable()] == str(profile)
        assert {name: environment[name] for name in KEPT_BYTES} == {
            name: str(size) for name, size in KEPT_BYTES.items()}
        if os.environ.get('RMW_IMPLEMENTATION', 'rmw_fastrtps_cpp').startswith('rmw_fastrtps'):
            assert largest_shared_segment(second) >= SEGMENT_BYTES
        status, _ = process_ended(launched.process, signal.SIGINT)
        assert status == 0, launched.log()
        assert len(launched.pids()) == 2


def largest_shared_segment(pid):
    sizes = [0]
    for line in Path(f'/proc/{pid}/maps').read_text().splitlines():
        if '/dev/shm/fast' in line:
            start, _, end = line.split()[0].partition('-')
            sizes.append(int(end, 16) - int(start, 16))
    return max(sizes)


def test_without_respawn_the_launch_ends_with_the_node(prefix):
    executable = prefix / 'lib' / 'derain_ros' / 'derain_node'
    executable.write_text('#!/bin/sh\nexit 3\n')
    with launch_node(prefix, 1, 'respawn:=false') as launched:
        launched.process.wait(30)
        assert len(launched.pids()) == 1
        assert 'exit code 3' in launched.log()


@pytest.mark.parametrize(('end', 'status', 'why'), [
    ('exit 3', 3, 'the lines above say why'), ('exit 0', 0, 'the lines above say why'),
    ('kill -KILL $$', -9, "the signal 'Killed' ended it, and `dmesg`")])
def test_a_node_that_never_gets_going_is_given_up_and_the_rest_left_alone(
        prefix, end, status, why):
    (prefix / 'lib' / 'derain_ros' / 'derain_node').write_text(f'#!/bin/sh\n{end}\n')
    beside = 'exec sleep 60' if status > 0 else ''
    with launch_node(prefix, 1, beside=beside) as launched:
        wait_for(lambda: 'then launch it again' in launched.log(), 'end of respawning')
        assert 'has ended 5 times in a row within 10 s of its start' in launched.log()
        assert f'exit code {status}, and is not started again; {why}' in launched.log()
        if beside:
            with pytest.raises(subprocess.TimeoutExpired):
                launched.process.wait(3)
        else:
            launched.process.wait(30)
        assert len(launched.pids()) == 5 + bool(beside)


@pytest.mark.parametrize(('namespace', 'pushed', 'logger'), [
    ('/a/b/', '', 'a.b.derain'), ('', 'fleet', 'fleet.derain'),
    ('robot1', '/fleet', 'fleet.robot1.derain'), ('/robot1', 'fleet', 'robot1.derain')])
def test_the_log_level_is_that_of_the_node_in_any_namespace(prefix, namespace, pushed, logger):
    (prefix / 'lib' / 'derain_ros' / 'derain_node').write_text(
        '#!/bin/sh\necho "called with $*"\nexit 1\n')
    with launch_node(prefix, 1, f'namespace:={namespace}', 'log_level:=debug', 'respawn:=false',
                  pushed=pushed) as launched:
        launched.process.wait(30)
        assert f'--log-level {logger}:=debug' in launched.log()


@pytest.mark.parametrize(('text', 'said'), [
    (None, 'there is no file'),
    ('derain: [', 'cannot be read as YAML'),
    ('', 'nodes in it: none'),
    ('/**/derain:\n  cameras: [front]\n', 'nodes in it: none'),
    ('/**/derrain:\n  ros__parameters: {strength: 1.0}\n', 'nodes in it: /**/derrain'),
    ('/derain:\n  ros__parameters: {strength: 1.0}\n', 'nodes in it: /derain'),
    ('/*/*/derain:\n  ros__parameters: {strength: 1.0}\n', 'nodes in it: /*/*/derain'),
])
def test_a_config_that_says_nothing_to_the_node_is_an_error(tmp_path, text, said):
    config = tmp_path / 'mine.yaml'
    if text is not None:
        config.write_text(text)
    with pytest.raises(RuntimeError, match='config: ') as error:
        MODULE._config(str(config), '/car/derain')
    assert str(config) in str(error.value) and said in str(error.value)


def test_a_config_that_cannot_be_used_starts_nothing(prefix):
    with launch_node(prefix, 1, 'config:=/nowhere/mine.yaml') as launched:
        assert launched.process.wait(30) != 0
        assert 'there is no file /nowhere/mine.yaml' in launched.log()
        assert not launched.pids()


@pytest.mark.parametrize(('argument', 'said'), [
    ('modle:=base', 'modle is not an argument of derain.launch.py; did you mean model?'),
    ('cam:=/x', 'cam is not an argument of derain.launch.py; there are config, ')])
def test_an_argument_that_there_is_not_starts_nothing(prefix, argument, said):
    with launch_node(prefix, 1, 'sigterm_timeout:=3', argument) as launched:
        assert launched.process.wait(30) != 0
        assert said in launched.log()
        assert not launched.pids()


def test_of_two_configs_the_one_that_is_not_used_is_named(prefix):
    (prefix / 'lib' / 'derain_ros' / 'derain_node').write_text('#!/bin/sh\necho "with $*"\n')
    mine, other = prefix / 'mine.yaml', prefix / 'other.yaml'
    for file in (mine, other):
        file.write_text('/**/derain: {ros__parameters: {strength: 0.5}}')
    with launch_node(prefix, 1, f'config:={other}', f'params_file:={mine}',
                     'respawn:=false') as launched:
        launched.process.wait(30)
        assert f'{mine} is used, {other} is not' in launched.log()
        assert f'--params-file {mine}' in launched.log()
    with launch_node(prefix, 1, f'params_file:={mine}', 'respawn:=false') as launched:
        launched.process.wait(30)
        assert 'is not' not in launched.log()


def test_a_misspelt_argument_of_an_including_file_is_a_warning(prefix):
    (prefix / 'lib' / 'derain_ros' / 'derain_node').write_text('#!/bin/sh\nexit 1\n')
    fleet = prefix / 'fleet.launch.py'
    fleet.write_text(f"""
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
def generate_launch_description():
    return LaunchDescription([IncludeLaunchDescription(
        PythonLaunchDescriptionSource({str(LAUNCH_FILE)!r}),
        launch_arguments=[('modle', 'base'), ('respawn', 'false')])])
""")
    with Launched(prefix, fleet, 1, 'robots:=3') as launched:
        launched.process.wait(30)
        assert 'modle is not an argument of derain.launch.py; if it is meant' in launched.log()
        assert 'robots' not in launched.log() and len(launched.pids()) == 1


@pytest.mark.parametrize(('rmw', 'expected'), [
    ({}, {profile_variable(): 'fastdds.xml'}),
    ({'RMW_IMPLEMENTATION': 'rmw_fastrtps_dynamic_cpp'}, {profile_variable(): 'fastdds.xml'}),
    ({'RMW_IMPLEMENTATION': 'rmw_cyclonedds_cpp'}, {'CYCLONEDDS_URI': 'cyclonedds.xml'}),
    ({'RMW_IMPLEMENTATION': 'rmw_zenoh_cpp'}, {}),
])
def test_the_profile_is_that_of_the_rmw_in_use(environment_given, rmw, expected):
    found = profile_in(environment_given(**rmw))
    assert set(found) == set(expected)
    for name, value in found.items():
        scheme, _, path = value.rpartition('://')
        assert scheme == ('file' if name == 'CYCLONEDDS_URI' else '')
        assert Path(path).is_absolute()
        assert Path(path).read_bytes() == (ROOT / 'config' / expected[name]).read_bytes()


@pytest.mark.parametrize('chosen', [
    {'FASTRTPS_DEFAULT_PROFILES_FILE': '/etc/mine.xml'},
    {'FASTDDS_DEFAULT_PROFILES_FILE': '/etc/mine.xml'},
    {'FASTDDS_BUILTIN_TRANSPORTS': 'LARGE_DATA'},
    {'RMW_IMPLEMENTATION': 'rmw_cyclonedds_cpp', 'CYCLONEDDS_URI': '<CycloneDDS/>'},
    {'GLIBC_TUNABLES': 'glibc.malloc.trim_threshold=12345', 'CYCLONEDDS_URI': 'x',
     'RMW_IMPLEMENTATION': 'rmw_cyclonedds_cpp'},
])
def test_what_the_user_has_set_is_kept(environment_given, chosen):
    found = environment_given(MALLOC_TRIM_THRESHOLD_='12345', **chosen)
    assert found == ({} if 'GLIBC_TUNABLES' in chosen else {
        name: str(size) for name, size in KEPT_BYTES.items() if 'TRIM' not in name})


def test_a_profile_of_ones_own_and_none_at_all(environment_given, tmp_path):
    mine = tmp_path / 'mine.xml'
    mine.write_text('<dds/>')
    found = environment_given(str(mine), **{profile_variable(): '/etc/other.xml'})
    assert profile_in(found) == {profile_variable(): str(mine)}
    assert profile_in(environment_given('none')) == {}


@pytest.mark.parametrize(('rmw', 'profile', 'said'), [
    ('', '/nowhere/mine.xml', 'there is no file /nowhere/mine.xml'),
    ('rmw_zenoh_cpp', '/etc/hostname', 'rmw_zenoh_cpp'),
])
def test_a_profile_that_cannot_be_used_is_an_error(environment_given, rmw, profile, said):
    with pytest.raises(RuntimeError, match=f'dds_profile.*{said}'):
        environment_given(profile, RMW_IMPLEMENTATION=rmw)


def test_one_camera_needs_no_file_and_a_build_ends_by_itself(prefix):
    domain = new_domain()
    with launch_node(prefix, domain, 'image_topic:=/cam/picture', 'precision:=f32', 'device:=0',
                  'namespace:=car') as launched, Peer(domain, '/car/derain') as peer:
        wait_for(lambda: peer.state(2.0) == 'active', 'active node', 60)
        wait_for(lambda: peer.count_subscribers('/cam/picture') == 1, 'subscription')
        assert peer.get('cameras', 'precision', 'device') == [['camera'], 'f32', '0']
        wait_for(lambda: peer.count_publishers('/car/camera/derained/image') == 1, 'publisher')
    config = prefix / 'mine.yaml'
    config.write_text('/**/derain: {ros__parameters: {warm_up_sizes: 64x48}}')
    with launch_node(prefix, domain, f'params_file:={config}', 'build_only:=true') as launched:
        wait_for(lambda: launched.process.poll() is not None, 'end of the launch', 90)
        assert 'the engine is ready; exiting, as build_only is set' in launched.log()
        assert len(launched.pids()) == 1


def test_a_build_that_the_config_asks_for_ends_by_itself_too(prefix):
    config = prefix / 'mine.yaml'
    config.write_text(
        'derain: {ros__parameters: {model: pico, warm_up_sizes: 64x48, build_only: true}}')
    with launch_node(prefix, new_domain(), f'config:={config}') as launched:
        wait_for(lambda: launched.process.poll() is not None, 'end of the launch', 90)
        assert 'the engine is ready; exiting, as build_only is set' in launched.log()
        assert len(launched.pids()) == 1
