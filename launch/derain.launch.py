"""Start derain_node with a configuration file."""

from pathlib import Path

from launch.actions import DeclareLaunchArgument, OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from launch import LaunchDescription

RESPAWN_DELAY_SECONDS = 1.0

# glibc otherwise gives each frame buffer back to the kernel; docs/transport.md has figures.
ALLOCATOR = {
    'MALLOC_MMAP_THRESHOLD_': str(32 << 20),
    'MALLOC_TRIM_THRESHOLD_': str(256 << 20),
    'MALLOC_TOP_PAD_': str(16 << 20),
}

# By the start of the RMW's name: the shipped profile, what goes before its path, the variables
# for it, and what else in the environment says that the user has chosen.
PROFILES = {
    'rmw_fastrtps': (
        'fastdds.xml', '',
        ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE'),  # Fast DDS 2 and 3
        ('FASTDDS_BUILTIN_TRANSPORTS',)),
    'rmw_cyclonedds': ('cyclonedds.xml', 'file://', ('CYCLONEDDS_URI',), ()),
}


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
            name='dds_profile', default_value='auto',
            description='DDS profile of the node. auto: that of this package for the RMW in '
                        'use, unless the environment names one; none; or the path of one.'),
        DeclareLaunchArgument(
            name='respawn', default_value='true', choices=['true', 'false'],
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
        additional_env=_environment(given('dds_profile'), context),
        output='screen',
        respawn=given('respawn') == 'true',
        respawn_delay=RESPAWN_DELAY_SECONDS,
    )]


def _environment(dds_profile: str, context) -> dict[str, str]:
    """Return what to add to the environment of the node's process."""
    present = context.environment
    found = {}
    if 'glibc.malloc.' not in present.get('GLIBC_TUNABLES', ''):
        found = {name: value for name, value in ALLOCATOR.items() if name not in present}
    rmw = present.get('RMW_IMPLEMENTATION') or 'rmw_fastrtps_cpp'
    known = next((known for start, known in PROFILES.items() if rmw.startswith(start)), None)
    if dds_profile == 'none' or (dds_profile == 'auto' and known is None):
        return found
    if known is None:
        raise RuntimeError(
            f'dds_profile is {dds_profile!r}, but how {rmw} is told of a profile is not known '
            'here; set dds_profile:=none, and what it reads in the environment')
    file_name, scheme, variables, others = known
    if dds_profile == 'auto':
        if any(present.get(name) for name in (*variables, *others)):
            return found
        share = FindPackageShare(package='derain_ros').perform(context)
        path = Path(share) / 'config' / file_name
    else:
        path = Path(dds_profile).expanduser().absolute()
    if not path.is_file():
        raise RuntimeError(
            f'dds_profile: there is no file {path}; give the path of a profile, auto or none')
    return found | dict.fromkeys(variables, f'{scheme}{path}')
