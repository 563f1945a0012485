"""What a set of parameter values means: settings, with full topic names."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rclpy.exceptions import InvalidTopicNameException
from rclpy.expand_topic_name import expand_topic_name
from rclpy.validate_full_topic_name import validate_full_topic_name
from rclpy.validate_topic_name import validate_topic_name

from derain_ros.engines import EngineOptions
from derain_ros.node.parameters import (
    NODE_RULES,
    camera_names,
    camera_parameters,
    cameras_problems,
    default_of,
    value_problem,
)
from derain_ros.node.warm_up import Size, read_sizes
from derain_ros.rain_gate import GateSettings

COMPRESSED = 'image/compressed'
OUTPUTS = ('image', 'rain_mask', 'camera_info', 'overlay', COMPRESSED, 'status')
"""Topics below a camera's output namespace."""

_COMPRESSED_SUFFIX = '/compressed'

Resolve = Callable[..., str]
"""``Node.resolve_topic_name``: a topic name expanded and, unless ``only_expand``, remapped."""


class ParameterError(ValueError):
    """Parameter values that contradict each other or their rules; names each and the remedy."""


@dataclass(frozen=True)
class CameraSettings:
    """One camera with full topic names.

    Attributes
    ----------
    name
        Name of the camera.
    image_topic
        Topic subscribed to, with ``/compressed`` where ``compressed`` is true.
    compressed
        It carries ``sensor_msgs/CompressedImage``.
    camera_info_topic
        Topic subscribed to.
    outputs
        Topic published for each of :data:`OUTPUTS`.
    sync_group
        Cameras of one group are processed or dropped together; empty: by itself.

    """

    name: str
    image_topic: str
    compressed: bool
    camera_info_topic: str
    outputs: Mapping[str, str]
    sync_group: str = ''


@dataclass(frozen=True)
class LiveSettings:
    """Settings that may change between two frames; times in seconds, 0 where there is none."""

    strength: float
    enabled: bool
    publish_mask: bool
    publish_overlay: bool
    publish_compressed: bool
    jpeg_quality: int
    rain_gate: bool
    gate: GateSettings
    drop_on_fault: bool
    max_age: float
    watchdog: float


@dataclass(frozen=True)
class Settings:
    """Settings that hold from configuring to cleaning up."""

    model: str
    engine: str
    engine_options: EngineOptions
    warm_up_sizes: tuple[Size, ...]
    wait_for_warm_up: bool
    output_encoding: str
    input_reliability: str
    output_reliability: str
    fast_path: bool
    sync_tolerance: float
    cameras: tuple[CameraSettings, ...]


def find_problems(values: Mapping[str, object], resolve: Resolve) -> list[str]:
    """Check a whole set of values.

    Parameters
    ----------
    values
        Value of each parameter of the node and of its cameras.
    resolve
        Turns topic names into full ones.

    Returns
    -------
    list of str
        One sentence for each problem, naming parameter, value and remedy; empty if there
        is none.

    """
    problems = [
        problem for name in NODE_RULES
        if (problem := value_problem(name, values[name])) is not None
    ]
    if not problems and not 0 < values['rain_gate_dry_below'] <= values['rain_gate_wet_above']:
        problems.append(
            f'rain_gate_dry_below is {values["rain_gate_dry_below"]}, expected more than 0 and at '
            f'most rain_gate_wet_above, {values["rain_gate_wet_above"]}')
    if values['build_only'] and values['warm_up_sizes'] == '':
        problems.append('build_only needs warm_up_sizes, for example 1280x720')
    problems += cameras_problems(values['cameras'])
    sound = []
    for camera in camera_names(values['cameras']):
        found = _camera_problems(camera, values)
        problems += found
        if not found:
            sound.append(_camera_settings(camera, values, resolve))
    return problems + _topic_problems(sound)


def read_settings(values: Mapping[str, object], resolve: Resolve) -> Settings:
    """Return the settings that a set of values stands for.

    Raises
    ------
    ParameterError
        :func:`find_problems` finds some.

    """
    problems = find_problems(values, resolve)
    if problems:
        raise ParameterError('; '.join(problems))
    return Settings(
        model=values['model'],
        engine=values['engine'],
        engine_options=EngineOptions(
            cache_directory=(
                Path(values['engine_cache']).expanduser() if values['engine_cache'] else None),
            cache_limit=values['engine_cache_limit_mib'] << 20,
            workspace=values['engine_workspace_mib'] << 20 or None),
        warm_up_sizes=read_sizes(values['warm_up_sizes']),
        wait_for_warm_up=values['wait_for_warm_up'] or values['build_only'],
        output_encoding=values['output_encoding'],
        input_reliability=values['input_reliability'],
        output_reliability=values['output_reliability'],
        fast_path=values['fast_path'],
        sync_tolerance=values['sync_tolerance_ms'] / 1e3,
        cameras=tuple(
            _camera_settings(camera, values, resolve)
            for camera in camera_names(values['cameras'])
        ),
    )


def read_live_settings(values: Mapping[str, object]) -> LiveSettings:
    """Return the live settings that a set of values stands for."""
    return LiveSettings(
        strength=float(values['strength']),
        enabled=values['enabled'],
        publish_mask=values['publish_mask'],
        publish_overlay=values['publish_overlay'],
        publish_compressed=values['publish_compressed'],
        jpeg_quality=values['jpeg_quality'],
        rain_gate=values['rain_gate'],
        gate=GateSettings(
            wet_above=float(values['rain_gate_wet_above']),
            dry_below=float(values['rain_gate_dry_below']),
            dry_after=float(values['rain_gate_dry_after'])),
        drop_on_fault=values['on_fault'] == 'drop',
        max_age=values['max_age_ms'] / 1e3,
        watchdog=values['watchdog_ms'] / 1e3,
    )


def _camera_problems(camera: str, values: Mapping[str, object]) -> list[str]:
    problems = []
    for name in camera_parameters(camera):
        problem = value_problem(name, values[name])
        if problem is None and not name.endswith(('.transport', '.sync_group')):
            problem = _topic_name_problem(name, values[name])
        if problem is not None:
            problems.append(problem)
    if not problems:
        topic = values[f'{camera}.image_topic']
        if values[f'{camera}.transport'] == 'raw' and topic.endswith(_COMPRESSED_SUFFIX):
            problems.append(
                f'{camera}.transport is raw, but {camera}.image_topic is {topic!r}; '
                'set transport to compressed, or take /compressed off the topic')
    return problems


def _topic_name_problem(name: str, value: str) -> str | None:
    if value == '':
        if name.endswith('.camera_info_topic'):
            return None
        return f'{name} is empty; give a topic name, for example {default_of(name)}'
    topic = f'{value.rstrip("/")}/image' if name.endswith('.output_namespace') else value
    try:
        validate_topic_name(topic)
        validate_full_topic_name(expand_topic_name(topic, 'derain', '/'))
    except (InvalidTopicNameException, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0].removeprefix('Invalid topic name: ').rstrip(':')
        return (f'{name} is {value!r}, which is no topic name: {reason}; '
                f'use one like {default_of(name) or "/camera/camera_info"}')
    return None


def _camera_settings(
    camera: str, values: Mapping[str, object], resolve: Resolve
) -> CameraSettings:
    given = values[f'{camera}.image_topic']
    transport = values[f'{camera}.transport']
    compressed = transport == 'compressed' or (
        transport == 'auto' and given.endswith(_COMPRESSED_SUFFIX))
    base = given.removesuffix(_COMPRESSED_SUFFIX) if compressed else given
    # A remapped base topic takes its compressed topic along, as with image_transport.
    image_topic = resolve(resolve(base) + _COMPRESSED_SUFFIX) if compressed else resolve(base)
    info_topic = values[f'{camera}.camera_info_topic']
    namespace = values[f'{camera}.output_namespace'].rstrip('/')
    return CameraSettings(
        name=camera,
        image_topic=image_topic,
        compressed=compressed,
        camera_info_topic=resolve(info_topic) if info_topic else _sibling_info(base, resolve),
        outputs={output: resolve(f'{namespace}/{output}') for output in OUTPUTS},
        sync_group=values[f'{camera}.sync_group'],
    )


def _sibling_info(image_topic: str, resolve: Resolve) -> str:
    sibling = _beside(image_topic)
    remapped = resolve(sibling)
    if remapped != resolve(sibling, only_expand=True):
        return remapped
    return _beside(resolve(image_topic))


def _beside(topic: str) -> str:
    head, slash, _ = topic.rpartition('/')
    return f'{head}{slash}camera_info'


def _topic_problems(cameras: Sequence[CameraSettings]) -> list[str]:
    taken = {}
    for camera in cameras:
        taken[camera.camera_info_topic] = (camera.name, 'the camera_info topic')
        taken[camera.image_topic] = (camera.name, 'the image topic')
    problems = []
    for camera in cameras:
        meets: dict[str, str] = {}
        for topic in camera.outputs.values():
            if topic in taken:
                owner, what = taken[topic]
                # One is enough: a shared namespace makes all outputs meet.
                meets.setdefault(owner, f'output {topic} of camera {camera.name!r} is also '
                                        f'{what} of camera {owner!r}')
        problems += [f'{meeting}; change {camera.name}.output_namespace'
                     for meeting in meets.values()]
        for topic in camera.outputs.values():
            taken.setdefault(topic, (camera.name, 'an output'))
    return problems
