"""The launch file: its arguments, and a real launch of the node.

``ros2 launch`` itself is not run; its engine, the package launch, is.
"""

import importlib.util
import os
import shlex
import shutil
import signal
import subprocess
import sys

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('launch_ros', reason='launch_ros comes with a ROS installation, not by pip')

from launch.actions import DeclareLaunchArgument
from ros_fixtures import ROOT, Peer, new_domain, process_ended, ros_environment, wait_for

from launch import LaunchContext

LAUNCH_FILE = ROOT / 'launch' / 'derain.launch.py'
RUN = """
import sys
from launch import LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description import LaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
arguments = [tuple(argument.split(':=', 1)) for argument in sys.argv[2:]]
service = LaunchService()
service.include_launch_description(LaunchDescription([IncludeLaunchDescription(
    PythonLaunchDescriptionSource(sys.argv[1]), launch_arguments=arguments)]))
sys.exit(service.run())
"""
VEHICLE = """
/**/derain:
  ros__parameters:
    cameras: [front, rear]
    strength: 1
    use_sim_time: true
    front: {image_topic: /nose/image, output_namespace: /nose/derained}
    rear: {image_topic: tail/image/compressed, output_namespace: tail/derained}
"""


@pytest.fixture
def prefix(tmp_path):
    """An ament prefix as an installation makes it, with the files of this checkout."""
    prefix = tmp_path / 'prefix'
    marker = prefix / 'share' / 'ament_index' / 'resource_index' / 'packages' / 'derain_ros'
    marker.parent.mkdir(parents=True)
    marker.touch()
    for folder in ('launch', 'config'):
        shutil.copytree(ROOT / folder, prefix / 'share' / 'derain_ros' / folder)
    executable = prefix / 'lib' / 'derain_ros' / 'derain_node'
    executable.parent.mkdir(parents=True)
    executable.write_text(
        f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m derain_ros.ros.main "$@"\n')
    executable.chmod(0o755)
    return prefix


class Launched:
    """A launch in a process of its own; a context manager."""

    def __init__(self, prefix, domain, *arguments):
        self._log = prefix / 'launch.log'
        path = os.pathsep.join([str(prefix), os.environ.get('AMENT_PREFIX_PATH', '')])
        environment = ros_environment(domain) | {
            'AMENT_PREFIX_PATH': path, 'ROS_LOG_DIR': str(prefix / 'log')}
        with self._log.open('wb') as log:
            self.process = subprocess.Popen(
                [sys.executable, '-c', RUN, str(LAUNCH_FILE), *arguments], env=environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def log(self):
        return self._log.read_text(errors='replace')


def test_every_argument_is_declared_and_described():
    spec = importlib.util.spec_from_file_location('derain_launch', LAUNCH_FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    declared = [entity for entity in module.generate_launch_description().entities
                if isinstance(entity, DeclareLaunchArgument)]
    assert {argument.name for argument in declared} == {
        'config', 'model', 'engine', 'namespace', 'use_sim_time', 'log_level', 'respawn'}
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
    with Launched(prefix, domain, f'config:={config}', 'namespace:=car') as launched, \
            Peer(domain, '/car/derain') as peer:
        peer.wait_for_state('active', launched)
        assert peer.get('cameras', 'model', 'engine', 'use_sim_time') == [
            ['front', 'rear'], 'nano', 'auto', True]
        wait_for(lambda: peer.count_subscribers('/nose/image'), 'subscription')
        wait_for(lambda: peer.count_subscribers('/car/tail/image/compressed'), 'subscription')
        assert peer.count_publishers('/nose/derained/image') == 1
        assert peer.count_publishers('/car/tail/derained/rain_mask') == 1
        assert peer.set('strength', 0.5) == ''
        status, _ = process_ended(launched.process, signal.SIGINT)
        assert status == 0, launched.log()
        assert 'process has finished cleanly' in launched.log()


def test_arguments_override_the_config_that_is_the_default(prefix):
    domain = new_domain()
    with Launched(prefix, domain, 'model:=nope', 'engine:=openvino', 'use_sim_time:=false',
                  'log_level:=warn', 'respawn:=true') as launched, Peer(domain) as peer:
        wait_for(lambda: 'autostart failed' in launched.log(), 'autostart', 60)
        assert "'nope'" in launched.log()
        assert peer.get('model', 'engine', 'cameras', 'use_sim_time') == [
            'nope', 'openvino', ['camera'], False]
        pid = int(launched.log().partition('process started with pid [')[2].partition(']')[0])
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: launched.log().count('process started with pid') == 2, 'respawn')
