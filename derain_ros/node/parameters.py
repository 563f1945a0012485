"""Parameters of the node: their names, their allowed values, and settings read from them.

Each parameter is declared in one place: as a field of :class:`Settings` or
:class:`LiveSettings`, or in :data:`CAMERA_RULES`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidTopicNameException
from rclpy.expand_topic_name import expand_topic_name
from rclpy.validate_full_topic_name import validate_full_topic_name
from rclpy.validate_topic_name import validate_topic_name

from derain_ros.engines import MINIMUM_SIDE, PRECISIONS, EngineOptions
from derain_ros.engines.contract import FEW_SIZES
from derain_ros.images.overlay import STRONGEST
from derain_ros.node.frame_sizes import MOST_PIXELS, MOST_SIZES, can_serve
from derain_ros.rain_gate import DRY_AFTER, DRY_BELOW, WET_ABOVE, GateSettings

COMPRESSED = 'image/compressed'
OUTPUTS = ('image', 'rain_mask', 'camera_info', 'overlay', COMPRESSED, 'status', 'rain_intensity')
"""Names of the topics in a camera's output namespace."""

SWITCHES = {
    'rain_mask': 'publish_mask', 'overlay': 'publish_overlay', COMPRESSED: 'publish_compressed'}
"""The parameter that enables each output that can be switched off."""

Resolve = Callable[..., str]
"""``Node.resolve_topic_name``: expands a topic name and, unless ``only_expand``, remaps it."""

_CAMERA_NAME = re.compile(r'[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*')
_SIZE = re.compile(r'([1-9][0-9]{0,4})x([1-9][0-9]{0,4})')
_COMPRESSED_SUFFIX = '/compressed'


class ParameterError(ValueError):
    """Parameter values contradict each other or their rules; names each one and the remedy."""


@dataclass(frozen=True)
class Rule:
    """Allowed values of a parameter; ``default`` sets the type and may contain ``{camera}``.

    ``choices`` are the allowed strings, ``limits`` the lowest and highest number. With ``number``
    an integer is accepted in place of the string, as the shell removes quotes. ``live`` parameters
    take effect at once, ``read_only`` ones can be set only at startup, all others take effect when
    the node configures.
    """

    default: bool | int | float | str | list[str]
    description: str
    choices: tuple[str, ...] = ()
    limits: tuple[float, float] = (0.0, 1.0)
    number: bool = False
    live: bool = False
    read_only: bool = False


def _declared(*of: Any, **more: Any) -> Any:
    return field(metadata={'rule': Rule(*of, **more)})


_live = partial(_declared, live=True)


@dataclass(frozen=True)
class CameraSettings:
    """One camera with full topic names.

    ``inputs`` are candidate image topics, the likeliest first, each with whether its type is
    ``sensor_msgs/CompressedImage``; the publishers decide which is used. ``camera_info_named`` is
    True if that topic was set by parameter or remapped; ``bits`` is the number of bits in use, 0
    to go by the largest sample seen.
    """

    name: str
    inputs: tuple[tuple[str, bool], ...]
    camera_info_topic: str
    camera_info_named: bool
    outputs: Mapping[str, str]
    sync_group: str = ''
    bits: int = 0

    @property
    def image_topic(self) -> str:
        """The likeliest of :attr:`inputs`."""
        return self.inputs[0][0]


@dataclass(frozen=True)
class Settings:
    """Settings that are fixed from configure to cleanup, named like the parameters."""

    model: str = _declared(
        'nano', 'Name of a model, the path of an ONNX file, or auto: the best installed model '
                'that keeps up with the cameras on this machine.')
    cpu_budget: float = _declared(
        1.0, 'Share of all CPU cores that inference may use if model is auto.',
        limits=(0.01, 1.0))
    engine_threads: int = _declared(
        0, 'Threads of an inference in OpenVINO; 0: as many as there are cores.', limits=(0, 256))
    engine: str = _declared('auto', 'Inference back end; auto takes the best one present.')
    precision: str = _declared(
        'auto', 'Arithmetic of the engine; auto takes the fastest that agrees with f32.',
        PRECISIONS)
    device: str = _declared(
        '', 'NVIDIA GPU to use, its index or UUID as CUDA_VISIBLE_DEVICES takes it; empty: as the '
        'environment says.', number=True, read_only=True)
    engine_cache: str = _declared(
        '', 'Folder for compiled engines (TensorRT); empty: ~/.cache/derain_ros/engines.')
    engine_cache_limit_mib: int = _declared(
        4096, 'Size limit of compiled engines there, in MiB; those used longest ago are deleted '
              'first.', limits=(1, 1 << 20))
    engine_workspace_mib: int = _declared(
        0, 'Largest GPU workspace of an engine, in MiB; 0: left to TensorRT.',
        limits=(0, 1 << 20))
    warm_up_sizes: str = _declared(
        '', "Frame sizes for which to warm up the engine before the first frame, such as "
            "'1280x720 640x480'.")
    wait_for_warm_up: bool = _declared(
        False, 'Become active only after that warm-up; false passes frames through meanwhile.')
    build_only: bool = _declared(
        False, 'Warm up the engine for warm_up_sizes, which fills the cache, and exit.',
        read_only=True)
    autostart: bool = _declared(
        True, 'Configure and activate automatically at the start.', read_only=True)
    cameras: Sequence[str] = _declared(
        ['camera'],
        'Names of the cameras; each has parameters <name>.image_topic and so on. '
        'A single name needs no list.')
    output_encoding: str = _declared(
        'same',
        'Encoding of the derained image; with same, bayer, yuv and compressed become bgr8.',
        ('same', 'bgr8', 'rgb8'))
    input_reliability: str = _declared(
        'auto',
        'Reliability to subscribe with; auto follows what the publishers offer.',
        ('auto', 'reliable', 'best_effort'))
    output_reliability: str = _declared(
        'reliable', 'Reliability that the outputs offer.', ('reliable', 'best_effort'))
    sync_tolerance_ms: float = _declared(
        5.0, 'Largest difference between the stamps of a sync_group, in ms.',
        limits=(0.0, 1000.0))
    fast_path: bool = _declared(
        True, 'Read and write image messages in place; false leaves that to rclpy, which is '
              'slower.')
    topics: tuple[CameraSettings, ...] = ()
    """Topics of each camera."""

    @property
    def engine_options(self) -> EngineOptions:
        """Options of the engine besides model and precision."""
        return EngineOptions(
            cache_directory=Path(self.engine_cache).expanduser() if self.engine_cache else None,
            cache_limit=self.engine_cache_limit_mib << 20,
            threads=self.engine_threads,
            workspace=self.engine_workspace_mib << 20 or None)

    @property
    def warm_up_shapes(self) -> list[tuple[int, ...]]:
        """Distinct input shapes, (1, height, width, 3), of ``warm_up_sizes``."""
        return _shapes(self.warm_up_sizes)


@dataclass(frozen=True)
class LiveSettings:
    """Settings that may change between two frames, named like the parameters."""

    publish_mask: bool = _live(True, 'Publish <output_namespace>/rain_mask.')
    publish_overlay: bool = _live(False, 'Publish <output_namespace>/overlay.')
    strength: float = _live(
        1.0, 'Share of the derained image in the output; 0 returns the input, above 1 more faint '
             'rain is removed, at the cost of fine detail.', limits=(0.0, STRONGEST))
    enabled: bool = _live(True, 'Derain; false passes frames through unchanged.')
    rain_gate: bool = _live(
        True, 'Pass frames through without running the network while it is dry.')
    rain_gate_wet_above: float = _live(
        WET_ABOVE, 'Rain intensity (share of the picture under streaks) above which it rains.')
    rain_gate_dry_below: float = _live(
        DRY_BELOW, 'Rain intensity below which it is dry; at most rain_gate_wet_above.')
    rain_gate_dry_after: float = _live(
        DRY_AFTER, 'Seconds below rain_gate_dry_below before the network is bypassed.',
        limits=(0.0, 3600.0))
    on_fault: str = _live(
        'pass_through',
        'What happens to a frame on which the engine fails or hangs, or for which it is not '
        'ready.',
        ('pass_through', 'drop'))
    max_age_ms: float = _live(
        0.0, 'Age in ms from which a frame is not derained but handled as on_fault says; 0: no '
             'limit.', limits=(0.0, 60_000.0))
    watchdog_ms: float = _live(
        0.0, 'An inference that takes longer, in ms, counts as stuck; 0: four times the slowest '
        'of the last ones, at least 200 ms.', limits=(0.0, 600_000.0))
    publish_compressed: bool = _live(
        False, 'Publish <output_namespace>/image/compressed, as JPEG.')
    jpeg_quality: int = _live(90, 'Quality of that JPEG.', limits=(1, 100))

    @property
    def gate(self) -> GateSettings:
        """Thresholds of the rain gate."""
        return GateSettings(
            self.rain_gate_wet_above, self.rain_gate_dry_below, self.rain_gate_dry_after)


NODE_RULES: dict[str, Rule] = {
    one.name: one.metadata['rule'] for kind in (Settings, LiveSettings) for one in fields(kind)
    if one.metadata}
"""Parameters of the whole node."""

GONE = {'batch_wait_ms': 'frames are no longer derained in batches, as no engine gained by it'}
"""Parameters that were removed, and why."""

CAMERA_RULES = {
    'image_topic': Rule('{camera}/image_raw', 'Topic of the images, raw or compressed.'),
    'camera_info_topic': Rule('', 'Empty: camera_info beside the image topic.'),
    'transport': Rule(
        'auto',
        'Subscribe to sensor_msgs/Image (raw), or to CompressedImage on <image_topic>/compressed '
        'or on image_topic itself; auto goes by the type that its publishers offer.',
        ('auto', 'raw', 'compressed')),
    'bit_depth': Rule(
        'auto', 'How many bits mono16, bayer16 and 16-bit PNG images use of each sample, from the '
                'lowest; auto goes by the largest sample seen.',
        ('auto', '8', '10', '12', '14', '16'), number=True),
    'output_namespace': Rule('{camera}/derained', 'Where the outputs are published.'),
    'sync_group': Rule(
        '', 'Cameras with the same word here, a stereo pair for example, are processed or '
        'dropped together.'),
}
"""Parameters of each camera, named ``<camera>.<key>``."""


def rule_of(name: str) -> Rule | None:
    """Return the rule of a parameter of the node or of any camera; None for others."""
    if name in NODE_RULES:
        return NODE_RULES[name]
    camera, _, key = name.partition('.')
    return CAMERA_RULES.get(key) if _CAMERA_NAME.fullmatch(camera) else None


def describe(rule: Rule) -> ParameterDescriptor:
    """Return the descriptor of a parameter."""
    constraints = f'One of: {", ".join(rule.choices)}.' if rule.choices else ''
    if not rule.live and not rule.read_only:
        constraints += ' Takes effect when the node configures.'
    descriptor = ParameterDescriptor(
        description=rule.description,
        additional_constraints=constraints.strip(),
        read_only=rule.read_only,
        # rclpy would refuse an integer for a double, or a string for a list.
        dynamic_typing=rule.number or isinstance(rule.default, (float, list)))
    lowest, highest = rule.limits
    if isinstance(rule.default, float):
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(lowest), to_value=float(highest))]
    elif _is_integer(rule.default):
        descriptor.integer_range = [IntegerRange(from_value=lowest, to_value=highest, step=1)]
    return descriptor


def default_of(name: str) -> bool | int | float | str | list[str]:
    """Return the default of a known parameter."""
    rule = rule_of(name)
    if not isinstance(rule.default, str):
        return rule.default
    return rule.default.format(camera=name.partition('.')[0])


def camera_names(cameras: object) -> list[str]:
    """Return the valid camera names in a value of ``cameras``, which may be a single string."""
    names = [cameras] if isinstance(cameras, str) else cameras
    if not isinstance(names, Sequence):
        return []
    return [name for name in dict.fromkeys(names) if not _camera_problem(name)]


def camera_parameters(camera: str) -> list[str]:
    """Return the names of a camera's parameters."""
    return [f'{camera}.{key}' for key in CAMERA_RULES]


def value_problem(name: str, value: object) -> str:
    """Return what is wrong with the value of a known parameter on its own; empty if nothing."""
    rule = rule_of(name)
    lowest, highest = rule.limits
    if isinstance(rule.default, list):
        return ''  # checked by cameras_problems
    if name == 'warm_up_sizes':
        return _sizes_problem(value)
    if isinstance(rule.default, bool):
        fits, wanted = isinstance(value, bool), 'true or false, without quotes'
    elif isinstance(rule.default, float):
        number = isinstance(value, float) or _is_integer(value)
        fits = number and lowest <= value <= highest
        wanted = f'a number from {float(lowest)} to {float(highest)}'
    elif _is_integer(rule.default):
        fits = _is_integer(value) and lowest <= value <= highest
        wanted = f'an integer from {lowest} to {highest}'
    elif rule.choices:
        fits = value in rule.choices or (rule.number and str(value) in rule.choices)
        wanted = f'one of {", ".join(rule.choices)}'
    else:
        fits = isinstance(value, str) or (rule.number and _is_integer(value))
        wanted = 'a string; put it in quotes'
        if name in ('model', 'engine') and value == '':
            fits, wanted = False, f'a name, for example {rule.default}'
        elif name == 'engine_cache' and fits:
            try:
                Path(value).expanduser()
            except RuntimeError:
                fits, wanted = False, 'a folder; its ~ is unknown here, so give the full path'
    return '' if fits else f'{name} is {value!r}, expected {wanted}'


def _sizes_problem(value: object) -> str:
    example = "sizes such as '1280x720 640x480'"
    if not isinstance(value, str):
        return f'warm_up_sizes is {value!r}, expected {example}, in quotes'
    for word in value.split():
        found = _SIZE.fullmatch(word)
        if found is None:
            return f'warm_up_sizes has {word!r}, expected {example}'
        if min(map(int, found.groups())) < MINIMUM_SIDE:
            return (f'warm_up_sizes has {word!r}; the network needs at least {MINIMUM_SIDE} '
                    'pixels on each side')
    shapes = _shapes(value)
    # The first would be forgotten before the last is ready.
    return '' if can_serve([shape[1:3] for shape in shapes]) else (
        f'warm_up_sizes has {len(shapes)} sizes, more than the engine keeps ready: {MOST_SIZES}, '
        f'or {MOST_PIXELS // 10**6} million pixels in total if there are more than '
        f'{FEW_SIZES - 1}; leave some out')


def _shapes(sizes: str) -> list[tuple[int, ...]]:
    found = (_SIZE.fullmatch(word).groups() for word in sizes.split())
    return [(1, int(height), int(width), 3) for width, height in dict.fromkeys(found)]


def cameras_problems(value: object) -> list[str]:
    """Return what is wrong with a value of ``cameras``, a sentence for each problem."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        return [f'cameras is {value!r}, expected names, for example [front, rear]']
    if not names:
        return ['cameras is empty; name at least one camera, for example [front]']
    repeated = sorted({name for name in names if list(names).count(name) > 1})
    return [*filter(None, map(_camera_problem, names)), *(
        f'cameras has {name!r} more than once; give each camera a name of its own'
        for name in repeated)]


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _camera_problem(name: object) -> str:
    if not isinstance(name, str) or not _CAMERA_NAME.fullmatch(name):
        return (f'cameras has {name!r}, which is not a name for a camera; use letters, digits and '
                'single underscores, beginning with a letter')
    if name in NODE_RULES or name in ('use_sim_time', 'qos_overrides'):
        return (f'cameras has {name!r}, which is the name of a parameter; give the camera another '
                'name')
    return ''


def find_problems(values: Mapping[str, object], resolve: Resolve) -> list[str]:
    """Check the values of all parameters of the node and of its cameras.

    Returns a sentence for each problem, naming parameter, value and remedy.
    """
    problems = [problem for name in NODE_RULES if (problem := value_problem(name, values[name]))]
    if not problems and not 0 < values['rain_gate_dry_below'] <= values['rain_gate_wet_above']:
        problems.append(
            f'rain_gate_dry_below is {values["rain_gate_dry_below"]}, expected more than 0 and at '
            f'most rain_gate_wet_above, {values["rain_gate_wet_above"]}; to raise both, set '
            'rain_gate_wet_above first, to lower both, rain_gate_dry_below')
    if values['build_only'] and not str(values['warm_up_sizes']).strip():
        problems.append('build_only needs warm_up_sizes, for example 1280x720')
    problems += cameras_problems(values['cameras'])
    sound = []
    for camera in camera_names(values['cameras']):
        found = _camera_problems(camera, values)
        problems += found
        if not found:
            sound.append(_camera_settings(camera, values, resolve))
    return problems + _topic_problems(sound, resolve('~/rain_intensity'))


def read_settings(values: Mapping[str, object], resolve: Resolve) -> Settings:
    """Return the settings; raises ParameterError if :func:`find_problems` finds a problem."""
    problems = find_problems(values, resolve)
    if problems:
        raise ParameterError('; '.join(problems))
    return _read(Settings, values, topics=tuple(
        _camera_settings(camera, values, resolve) for camera in camera_names(values['cameras'])))


def read_live_settings(values: Mapping[str, object]) -> LiveSettings:
    """Return the live settings read from a set of values without problems."""
    return _read(LiveSettings, values)


def _read(kind: type, values: Mapping[str, object], **more: Any) -> Any:
    declared = {one.name: one.metadata['rule'] for one in fields(kind) if one.metadata}
    return kind(**more, **{
        # The value may be an integer in place of a float or a string.
        name: type(rule.default)(values[name]) if rule.number or isinstance(rule.default, float)
        else values[name]
        for name, rule in declared.items()})


def _camera_problems(camera: str, values: Mapping[str, object]) -> list[str]:
    problems = [problem for name in camera_parameters(camera) if (
        problem := value_problem(name, values[name]) or _topic_name_problem(name, values[name]))]
    if not problems:
        topic = values[f'{camera}.image_topic']
        if values[f'{camera}.transport'] == 'raw' and topic.endswith(_COMPRESSED_SUFFIX):
            problems.append(
                f'{camera}.transport is raw, but {camera}.image_topic is {topic!r}; '
                'set transport to compressed, or take /compressed off the topic')
    return problems


def _topic_name_problem(name: str, value: str) -> str:
    if not name.endswith(('_topic', '_namespace')):
        return ''
    if value == '':
        if name.endswith('.camera_info_topic'):
            return ''
        return f'{name} is empty; give a topic name, for example {default_of(name)}'
    topic = f'{value.rstrip("/")}/image' if name.endswith('.output_namespace') else value
    try:
        validate_topic_name(topic)
        validate_full_topic_name(expand_topic_name(topic, 'derain', '/'))
    except (InvalidTopicNameException, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0].removeprefix('Invalid topic name: ').rstrip(':')
        return (f'{name} is {value!r}, which is not a topic name: {reason}; use one like '
                f'{default_of(name) or "/camera/camera_info"}')
    return ''


def _camera_settings(
    camera: str, values: Mapping[str, object], resolve: Resolve
) -> CameraSettings:
    given = values[f'{camera}.image_topic']
    transport = values[f'{camera}.transport']
    base = given.removesuffix(_COMPRESSED_SUFFIX)
    # Remapping the base topic also moves its compressed topic, as with image_transport.
    packed = resolve(resolve(base) + _COMPRESSED_SUFFIX)
    if given != base:
        inputs = [(packed, True), (packed, False)]
    elif transport == 'compressed':
        inputs = [(packed, True), (resolve(given), True)]
    else:
        inputs = [(resolve(given), False), (resolve(given), True)]
    inputs = [one for one in inputs if transport == 'auto' or one[1] == (transport != 'raw')]
    info_topic = values[f'{camera}.camera_info_topic']
    info, named = (resolve(info_topic), True) if info_topic else _companion(
        base, _beside(base), _beside(resolve(base)), resolve)
    return CameraSettings(
        name=camera,
        inputs=tuple(inputs),
        camera_info_topic=info,
        camera_info_named=named,
        outputs=_outputs(values[f'{camera}.output_namespace'].rstrip('/'), resolve),
        sync_group=values[f'{camera}.sync_group'],
        bits=0 if (bits := values[f'{camera}.bit_depth']) == 'auto' else int(bits))


def _outputs(namespace: str, resolve: Resolve) -> dict[str, str]:
    outputs = {output: resolve(f'{namespace}/{output}') for output in OUTPUTS}
    image = f'{namespace}/image'
    for output, follows in ((COMPRESSED, outputs['image'] + _COMPRESSED_SUFFIX),
                            ('camera_info', _beside(outputs['image']))):
        outputs[output], _ = _companion(image, f'{namespace}/{output}', follows, resolve)
    return outputs


def _companion(topic: str, name: str, follows: str, resolve: Resolve) -> tuple[str, bool]:
    """Return the full name of a topic's companion ``name``, and whether that was remapped itself.

    If it was not, but the topic was, the companion moves along with the topic, to ``follows``.
    """
    remapped = resolve(name)
    if remapped != resolve(name, only_expand=True):
        return remapped, True
    return (follows if resolve(topic) != resolve(topic, only_expand=True) else remapped), False


def _beside(topic: str) -> str:
    head, slash, _ = topic.rpartition('/')
    return f'{head}{slash}camera_info'


def _topic_problems(cameras: Sequence[CameraSettings], own: str) -> list[str]:
    images = {topic: camera.name for camera in cameras for topic, _ in camera.inputs}
    problems = [
        f'{topic} is the camera_info topic of camera {camera.name!r} and the image topic of '
        f'camera {images[topic]!r}; change {camera.name}.camera_info_topic or '
        f'{images[topic]}.image_topic'
        for camera in cameras if (topic := camera.camera_info_topic) in images]
    taken = {own: ('', "the node's own rain intensity")}
    for camera in cameras:
        taken[camera.camera_info_topic] = (
            camera.name, f'the camera_info topic of camera {camera.name!r}')
    for topic, name in images.items():
        taken[topic] = name, f'the image topic of camera {name!r}'
    for camera in cameras:
        meets: dict[str, str] = {}
        for topic in camera.outputs.values():
            if topic in taken:
                owner, what = taken[topic]
                # One conflict is enough: a shared namespace makes all outputs collide.
                meets.setdefault(
                    owner, f'output {topic} of camera {camera.name!r} is also {what}')
        problems += [f'{meeting}; change {camera.name}.output_namespace, or remap that topic'
                     for meeting in meets.values()]
        for topic in camera.outputs.values():
            taken.setdefault(topic, (camera.name, f'an output of camera {camera.name!r}'))
    return problems
