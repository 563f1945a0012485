"""A launch file of this checkout in a process of its own, from a prefix as installed by ament."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from ros_fixtures import ROOT, ros_environment

# An RMW that is not installed can be named once rclpy is there, as in a launch file that sets it.
RUN = """
import json
import sys
import rclpy
from launch import LaunchService
from launch.actions import (
    ExecuteProcess, GroupAction, IncludeLaunchDescription, SetEnvironmentVariable)
from launch.launch_description import LaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import PushRosNamespace
path, variables, pushed, beside, *arguments = sys.argv[1:]
arguments = [tuple(argument.split(':=', 1)) for argument in arguments]
service = LaunchService()
service.include_launch_description(LaunchDescription([
    *(SetEnvironmentVariable(*pair) for pair in json.loads(variables).items()),
    *([ExecuteProcess(cmd=['sh', '-c', beside])] if beside else []),
    GroupAction([
        *([PushRosNamespace(pushed)] if pushed else []),
        IncludeLaunchDescription(
            PythonLaunchDescriptionSource(path), launch_arguments=arguments)])]))
sys.exit(service.run())
"""


def joined(name: str, *paths: object) -> str:
    """Return the value of a variable of the environment with paths before it."""
    return os.pathsep.join([*map(str, paths), os.environ.get(name, '')])


def install(prefix: Path, executable: str) -> Path:
    """Make an ament prefix of the files of this checkout, with a text as ``derain_node``."""
    marker = prefix / 'share' / 'ament_index' / 'resource_index' / 'packages' / 'derain_ros'
    marker.parent.mkdir(parents=True)
    marker.touch()
    for folder in ('launch', 'config'):
        shutil.copytree(ROOT / folder, prefix / 'share' / 'derain_ros' / folder)
    script(prefix / 'lib' / 'derain_ros' / 'derain_node', executable)
    return prefix


def script(path: Path, text: str) -> None:
    """Write a program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


class Launched:
    """A launch; a context manager.

    ``variables`` are set by a launch file that includes the one that is launched, ``environment``
    for the whole process; None takes a variable out.
    """

    def __init__(self, prefix, file, domain, *arguments, pushed='', beside='', environment=None,
                 **variables):
        self._log = prefix / 'launch.log'
        environment = ros_environment(domain) | {
            'AMENT_PREFIX_PATH': joined('AMENT_PREFIX_PATH', prefix),
            'ROS_LOG_DIR': str(prefix / 'log')} | (environment or {})
        with self._log.open('wb') as log:
            self.process = subprocess.Popen(
                [sys.executable, '-c', RUN, str(file), json.dumps(variables), pushed, beside,
                 *arguments],
                env={name: value for name, value in environment.items() if value is not None},
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

    def pids(self):
        """Return the process id of each start so far."""
        parts = self.log().split('process started with pid [')[1:]
        return [int(part.partition(']')[0]) for part in parts]
