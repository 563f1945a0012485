"""Start derain_node with a parameter file."""

import signal
import time
from pathlib import Path

from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.event_handlers import OnProcessExit, OnProcessStart
from launch.events import matches_action
from launch.events.process import ShutdownProcess
from launch.logging import get_logger
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare
from launch_ros.utilities import make_namespace_absolute, prefix_namespace

from derain_ros.node.parameter_store import (
    check_launch_arguments,
    given_value,
    other_nodes,
)
from derain_ros.node.process_memory import KEPT_BYTES, profile_variable
from launch import LaunchDescription

NODE_NAME = 'derain'
RESPAWN_DELAY_SECONDS = 1.0

# A node that ends so often in a row, each time so soon after its start, is not respawned again.
MOST_EARLY_DEATHS = 5
EARLY_SECONDS = 10.0


# By prefix of the RMW's name: the shipped profile, the URI scheme before its path, the variable
# that takes it, and the variables by which the user may have chosen another one.
PROFILES = {
    'rmw_fastrtps': (
        'fastdds.xml', '', profile_variable(),
        ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE',
         'FASTDDS_BUILTIN_TRANSPORTS')),
    'rmw_cyclonedds': ('cyclonedds.xml', 'file://', 'CYCLONEDDS_URI', ('CYCLONEDDS_URI',)),
}


def generate_launch_description() -> LaunchDescription:
    """Return the node and the launch arguments."""
    return LaunchDescription([
        DeclareLaunchArgument(
            name='config',
            default_value=PathJoinSubstitution(
                [FindPackageShare(package='derain_ros'), 'config', 'derain.yaml']),
            description='Parameter file with the cameras.'),
        DeclareLaunchArgument(
            name='params_file', default_value='', description='Alias of config.'),
        DeclareLaunchArgument(
            name='image_topic', default_value='',
            description='Images of one camera, instead of the cameras of the config: its outputs '
                        'are camera/derained/image and so on.'),
        DeclareLaunchArgument(
            name='model', default_value='',
            description='Model, path of an ONNX file, or auto; empty: as in the config.'),
        DeclareLaunchArgument(
            name='engine', default_value='',
            description='Inference back end; empty: that of the config.'),
        DeclareLaunchArgument(
            name='precision', default_value='',
            description='Arithmetic of the engine; empty: that of the config.'),
        DeclareLaunchArgument(
            name='device', default_value='',
            description='NVIDIA GPU to use, its index or UUID; empty: that of the config.'),
        DeclareLaunchArgument(
            name='build_only', default_value='', choices=['', 'true', 'false'],
            description='Warm up the engine for warm_up_sizes of the config, and exit.'),
        DeclareLaunchArgument(
            name='namespace', default_value='',
            description='Namespace of the node; topics in the config that begin with / stay '
                        'where they are.'),
        DeclareLaunchArgument(
            name='use_sim_time', default_value='',
            choices=['', 'true', 'false'],
            description='Take the time from /clock; empty: as in the config, else false.'),
        DeclareLaunchArgument(
            name='log_level', default_value='info',
            choices=['debug', 'info', 'warn', 'error', 'fatal'],
            description='Lowest level of the log messages of the node.'),
        DeclareLaunchArgument(
            name='dds_profile', default_value='auto',
            description='DDS profile of the node. auto: that of this package for the RMW in '
                        'use, unless the environment names one; none; or the path of one.'),
        DeclareLaunchArgument(
            name='respawn', default_value='true', choices=['true', 'false'],
            description='Start the node again when its process ends.'),
        OpaqueFunction(function=_node),
    ])


def _node(context) -> list:
    declared = generate_launch_description().get_launch_arguments()
    for problem in check_launch_arguments(
            __file__, [argument.name for argument in declared], context.launch_configurations):
        get_logger().warning(problem)

    def given(name: str) -> str:
        return LaunchConfiguration(variable_name=name).perform(context)

    # The last file or value for a parameter wins, so only arguments given override the config.
    chosen = {name: ParameterValue(given(name), value_type=str)
              for name in ('model', 'engine', 'precision', 'device') if given(name)}
    chosen |= {name: given(name) == 'true' for name in ('use_sim_time', 'build_only')
               if given(name)}
    if given('image_topic'):
        chosen |= {'cameras': ['camera'], 'camera.image_topic': given('image_topic')}
    # Composed as in launch_ros: a launch file that includes this one may push a namespace.
    full_name = make_namespace_absolute(prefix_namespace(
        context.launch_configurations.get('ros_namespace'), given('namespace')) or '')
    full_name = f'{full_name.rstrip("/")}/{NODE_NAME}'
    share = FindPackageShare(package='derain_ros').perform(context)
    config = given('params_file') or given('config')
    if given('config') not in (config, str(Path(share) / 'config' / 'derain.yaml')):
        get_logger().warning(
            f'params_file is another name of config: {config} is used, {given("config")} is not')
    path = _config(config, full_name)
    # After a build the node ends by itself.
    builds = chosen.get('build_only', given_value(Path(path), full_name, 'build_only'))
    respawn = given('respawn') == 'true' and builds is not True
    node = Node(
        package='derain_ros',
        executable='derain_node',
        name=NODE_NAME,
        namespace=given('namespace'),
        parameters=[path, *([chosen] if chosen else [])],
        # The name of a node's logger has dots in place of slashes.
        arguments=['--ros-args', '--log-level',
                   f'{full_name[1:].replace("/", ".")}:={given("log_level")}'],
        additional_env=_environment(given('dds_profile'), context),
        output='screen',
        respawn=respawn,
        respawn_delay=RESPAWN_DELAY_SECONDS,
    )
    return [*(_give_up_on(node) if respawn else []), node]


def _give_up_on(node: Node) -> list[RegisterEventHandler]:
    """Return handlers that stop respawning a node that repeatedly ends soon after its start."""
    started, deaths = 0.0, 0

    def on_start(event, context) -> None:
        nonlocal started
        started = time.monotonic()

    def on_exit(event, context) -> list[EmitEvent]:
        nonlocal deaths
        deaths = deaths + 1 if time.monotonic() - started < EARLY_SECONDS else 0
        if deaths < MOST_EARLY_DEATHS or context.is_shutdown:
            return []
        code = event.returncode
        why = ('the lines above say why' if code >= 0 else
               f'the signal {signal.strsignal(-code)!r} ended it, and `dmesg` tells of crashes '
               'and of memory that ran out')
        get_logger(event.process_name).error(
            f'derain_node has ended {deaths} times in a row within {EARLY_SECONDS:g} s of its '
            f'start, the last time with exit code {code}, and is not started again; {why}. Fix '
            'that, then launch it again')
        return [EmitEvent(event=ShutdownProcess(process_matcher=matches_action(node)))]

    return [RegisterEventHandler(OnProcessStart(target_action=node, on_start=on_start)),
            RegisterEventHandler(OnProcessExit(target_action=node, on_exit=on_exit))]


def _config(text: str, full_name: str) -> str:
    """Return the absolute path of a parameter file; raises RuntimeError if it does not fit."""
    path = Path(text).expanduser().absolute()
    if not path.is_file():
        raise RuntimeError(
            f'config: there is no file {path}; give the path of a parameter file, such as a copy '
            'of config/derain.yaml of this package')
    try:
        others = other_nodes(path, full_name)
    except ValueError as error:
        raise RuntimeError(f'config: {path} cannot be read as YAML: {error}') from error
    if others:
        raise RuntimeError(
            f'config: {path} has no parameters for the node {full_name} (nodes in it: '
            f'{", ".join(others)}); put them under "/**/{NODE_NAME}:" and "ros__parameters:"')
    return str(path)


def _environment(dds_profile: str, context) -> dict[str, str]:
    """Return the variables to add to the environment of the node's process."""
    present = context.environment
    found = {}
    if 'glibc.malloc.' not in present.get('GLIBC_TUNABLES', ''):
        found = {name: str(size) for name, size in KEPT_BYTES.items() if name not in present}
    rmw = present.get('RMW_IMPLEMENTATION') or 'rmw_fastrtps_cpp'
    known = next((known for start, known in PROFILES.items() if rmw.startswith(start)), None)
    if dds_profile == 'none' or (dds_profile == 'auto' and known is None):
        return found
    if known is None:
        raise RuntimeError(
            f'dds_profile is {dds_profile!r}, but it is not known here how {rmw} reads a profile; '
            f'set dds_profile:=none, and configure {rmw} by the environment')
    file_name, scheme, variable, choices = known
    if dds_profile == 'auto':
        if any(present.get(name) for name in choices):
            return found
        share = FindPackageShare(package='derain_ros').perform(context)
        path = Path(share) / 'config' / file_name
    else:
        path = Path(dds_profile).expanduser().absolute()
    if not path.is_file():
        raise RuntimeError(
            f'dds_profile: there is no file {path}; give the path of a profile, auto or none')
    return found | {variable: f'{scheme}{path}'}
