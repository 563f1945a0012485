"""Start derain_node with a configuration file."""

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

RESPAWN_DELAY_SECONDS = 2.0


def generate_launch_description() -> LaunchDescription:
    """Describe the node and what can be chosen on the command line."""
    return LaunchDescription([
        DeclareLaunchArgument(
            name='config',
            default_value=PathJoinSubstitution(
                [FindPackageShare(package='derain_ros'), 'config', 'derain.yaml']),
            description='Parameter file with the cameras.'),
        DeclareLaunchArgument(
            name='model', default_value='',
            description='Name of a model or path of an ONNX file; empty: that of the config.'),
        DeclareLaunchArgument(
            name='engine', default_value='',
            description='Inference back end; empty: that of the config.'),
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
            description='Messages of the node below this level are left out.'),
        DeclareLaunchArgument(
            name='respawn', default_value='false', choices=['true', 'false'],
            description='Start the node again when its process ends.'),
        OpaqueFunction(function=_node),
    ])


def _node(context) -> list[Node]:
    def given(name: str) -> str:
        return LaunchConfiguration(variable_name=name).perform(context)

    # The last file or value for a parameter wins, so only what was given overrides the config.
    chosen = {name: given(name) for name in ('model', 'engine') if given(name)}
    if given('use_sim_time'):
        chosen['use_sim_time'] = given('use_sim_time') == 'true'
    return [Node(
        package='derain_ros',
        executable='derain_node',
        name='derain',
        namespace=given('namespace'),
        parameters=[given('config'), *([chosen] if chosen else [])],
        arguments=['--ros-args', '--log-level', f'derain:={given("log_level")}'],
        output='screen',
        respawn=given('respawn') == 'true',
        respawn_delay=RESPAWN_DELAY_SECONDS,
    )]
