"""Play a recorded bag into derain_node with ``ros2 bag play --clock``.

``ros2 launch derain_ros evaluate_bag.launch.py bag:=drive output:=drive_live``: the node runs in
the bag's time, and its outputs are recorded if ``output`` names a folder. After the bag has been
played, everything is shut down. ``derain replay-bench`` measures the same without a ROS
installation.

Not run with ``ros2 bag`` itself so far, which could not be installed where this was written; the
tests replace ``ros2`` by a stand-in.
"""

import importlib.util
import math
import os
import shutil
import signal
from pathlib import Path

from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    ExecuteProcess,
    IncludeLaunchDescription,
    LogInfo,
    OpaqueFunction,
    RegisterEventHandler,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.events import Shutdown
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

from derain_ros.node.parameter_store import check_launch_arguments
from launch import LaunchDescription

# The resolution of /clock limits that of the frames' age; the default of ros2 bag is 40 Hz.
CLOCK_HZ = 200

# Exit statuses of ros2 bag after SIGINT.
INTERRUPTED = (0, signal.SIGINT, -signal.SIGINT)

# Time for the frames still in the pipeline when the last one has been played.
DRAIN_SECONDS = 2.0


def generate_launch_description() -> LaunchDescription:
    """Return the node, the player, the recorder and the launch arguments."""
    return LaunchDescription([
        DeclareLaunchArgument(
            name='bag', description='The rosbag2 to play: a folder, or a bare storage file.'),
        DeclareLaunchArgument(
            name='config',
            default_value=PathJoinSubstitution(
                [FindPackageShare(package='derain_ros'), 'config', 'derain.yaml']),
            description='Parameter file with the cameras, whose topics are those of the bag.'),
        DeclareLaunchArgument(
            name='model', default_value='',
            description='Name of a model or path of an ONNX file; empty: that of the config.'),
        DeclareLaunchArgument(
            name='engine', default_value='',
            description='Inference back end; empty: that of the config.'),
        DeclareLaunchArgument(
            name='rate', default_value='1.0',
            description='How much faster than recorded to play.'),
        DeclareLaunchArgument(
            name='delay', default_value='5.0',
            description='Seconds for the node to start before the bag is played.'),
        DeclareLaunchArgument(
            name='output', default_value='',
            description='Folder for a bag of what the node publishes; empty: none.'),
        DeclareLaunchArgument(
            name='record',
            default_value='/derained/(image|rain_mask|camera_info|status)$|^/diagnostics$',
            description='Regular expression of the topics that are recorded.'),
        OpaqueFunction(function=_processes),
    ])


def _processes(context) -> list:
    check_launch_arguments(__file__, [
        argument.name for argument in generate_launch_description().get_launch_arguments()])

    def given(name: str) -> str:
        return LaunchConfiguration(variable_name=name).perform(context)

    bag = Path(given('bag')).expanduser().absolute()
    if not bag.exists():
        raise RuntimeError(f'bag: there is no {bag}; give the folder of a rosbag2')
    ros2 = shutil.which('ros2', path=context.environment.get('PATH', os.defpath))
    if ros2 is None or importlib.util.find_spec('ros2bag') is None:
        distribution = context.environment.get('ROS_DISTRO') or '<distribution>'
        raise RuntimeError(
            'the command ros2 bag is not installed; install '
            f'ros-{distribution}-ros2bag and ros-{distribution}-rosbag2-storage-default-plugins, '
            'or measure with `derain replay-bench`, which does not need it')
    rate, delay = _number('rate', given('rate')), _number('delay', given('delay'))
    play = ExecuteProcess(
        cmd=[ros2, 'bag', 'play', str(bag), '--clock', str(CLOCK_HZ), '--rate', f'{rate:g}',
             '--delay', f'{delay:g}', '--disable-keyboard-controls'],
        name='play', output='screen')
    share = FindPackageShare(package='derain_ros').perform(context)
    node = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(Path(share) / 'launch' / 'derain.launch.py')),
        launch_arguments=[
            ('config', given('config')), ('model', given('model')), ('engine', given('engine')),
            ('use_sim_time', 'true'), ('respawn', 'false')])
    return [
        RegisterEventHandler(OnProcessExit(
            on_exit=lambda event, context: _ended(event, context, play))),
        node, *_recorder(ros2, given('output'), given('record')), play]


def _recorder(ros2: str, output: str, topics: str) -> list[ExecuteProcess]:
    if not output:
        return []
    folder = Path(output).expanduser().absolute()
    if folder.exists():
        raise RuntimeError(f'output: {folder} exists already; name a new folder')
    return [ExecuteProcess(
        cmd=[ros2, 'bag', 'record', '--output', str(folder), '--use-sim-time',
             '--regex', topics],
        name='record', output='screen')]


def _ended(event, context, play: ExecuteProcess) -> list:
    """Shut down after the bag has been played; fail if another process ends by itself."""
    if context.is_shutdown:
        if event.process_name.startswith('record') and event.returncode not in INTERRUPTED:
            raise RuntimeError(
                f'ros2 bag record ended with status {event.returncode} when it was stopped; the '
                'end of its bag may be missing: see `ros2 bag info`, and `ros2 bag reindex`')
        return []
    if event.action is not play:
        raise RuntimeError(
            f'{event.process_name} ended with status {event.returncode} while the bag was being '
            'played, so the run is incomplete; the lines above say why')
    if event.returncode != 0:
        raise RuntimeError(f'ros2 bag play ended with status {event.returncode}')
    return [
        LogInfo(msg='The bag has been played.'),
        TimerAction(period=DRAIN_SECONDS, actions=[
            EmitEvent(event=Shutdown(reason='the bag has been played'))])]


def _number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (value > 0 and math.isfinite(value)):
        raise RuntimeError(f'{name} is {text!r}, expected a number above 0')
    return value
