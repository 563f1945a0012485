"""Parameters of the node: what there is, and what the value of each may be."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

from derain_ros.node.warm_up import sizes_problem
from derain_ros.rain_gate import DRY_AFTER, DRY_BELOW, WET_ABOVE

_CAMERA_NAME = re.compile(r'[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*')


@dataclass(frozen=True)
class Rule:
    """What a parameter may be.

    Attributes
    ----------
    default
        Its type is that of the parameter; ``{camera}`` stands for the camera's name.
    description
        For ``ros2 param describe``.
    choices
        Allowed strings; empty where any will do.
    limits
        Lowest and highest value of a number.
    live
        Takes effect at once; other parameters do so when the node configures.
    read_only
        Can be given at the start only.

    """

    default: bool | int | float | str | list[str]
    description: str
    choices: tuple[str, ...] = ()
    limits: tuple[float, float] = (0.0, 1.0)
    live: bool = False
    read_only: bool = False


NODE_RULES = {
    'model': Rule('nano', 'Name of a model, or the path of an ONNX file.'),
    'engine': Rule('auto', 'Inference back end; auto takes the best one present.'),
    'engine_cache': Rule(
        '', 'Folder for compiled engines (TensorRT); empty: ~/.cache/derain_ros/engines.'),
    'engine_cache_limit_mib': Rule(
        4096, 'Most that compiled engines may take there, in MiB; those used longest ago go '
        'first.', limits=(1, 1 << 20)),
    'engine_workspace_mib': Rule(
        0, 'Most scratch memory of the GPU for an engine, in MiB; 0: as TensorRT likes.',
        limits=(0, 1 << 20)),
    'warm_up_sizes': Rule(
        '', "Frame sizes to get the engine ready for before the first frame, such as '1280x720 "
        "640x480'."),
    'wait_for_warm_up': Rule(
        False, 'Become active only when that is done; false passes frames through meanwhile.'),
    'build_only': Rule(
        False, 'Get the engine ready for warm_up_sizes, which fills the cache, and end.',
        read_only=True),
    'autostart': Rule(True, 'Configure and activate by itself at the start.', read_only=True),
    'cameras': Rule(
        ['camera'],
        'Names of the cameras; each has parameters <name>.image_topic and so on. '
        'A single name needs no list.'),
    'publish_mask': Rule(True, 'Publish <output_namespace>/rain_mask.', live=True),
    'publish_overlay': Rule(False, 'Publish <output_namespace>/overlay.', live=True),
    'output_encoding': Rule(
        'same',
        'Encoding of the derained image; with same, bayer, yuv and compressed become bgr8.',
        ('same', 'bgr8', 'rgb8')),
    'input_reliability': Rule(
        'auto',
        'Reliability to subscribe with; auto follows what the publishers offer.',
        ('auto', 'reliable', 'best_effort')),
    'output_reliability': Rule(
        'reliable', 'Reliability that the outputs offer.', ('reliable', 'best_effort')),
    'strength': Rule(
        1.0, 'Share of the derained image in the output; 0 returns the input.', live=True),
    'enabled': Rule(True, 'Derain; false passes frames through unchanged.', live=True),
    'rain_gate': Rule(
        True, 'Pass frames through without running the network while it is dry.', live=True),
    'rain_gate_wet_above': Rule(
        WET_ABOVE, 'Rain intensity (share of the picture under streaks) above which it rains.',
        live=True),
    'rain_gate_dry_below': Rule(
        DRY_BELOW, 'Rain intensity below which it is dry; at most rain_gate_wet_above.',
        live=True),
    'rain_gate_dry_after': Rule(
        DRY_AFTER, 'Seconds below rain_gate_dry_below before the network is left out.',
        limits=(0.0, 3600.0), live=True),
    'on_fault': Rule(
        'pass_through',
        'What becomes of a frame that the engine fails on, hangs on, or is not ready for.',
        ('pass_through', 'drop'), live=True),
    'max_age_ms': Rule(
        0.0, 'Age in ms at which a frame is no longer waited for but treated as on_fault says; '
        '0: no limit.', limits=(0.0, 60_000.0), live=True),
    'watchdog_ms': Rule(
        0.0, 'An inference that takes longer, in ms, counts as stuck; 0: four times the slowest '
        'of the last ones, at least 200 ms.', limits=(0.0, 600_000.0), live=True),
    'sync_tolerance_ms': Rule(
        5.0, 'How far the stamps of one sync_group may lie apart, in ms.',
        limits=(0.0, 1000.0)),
    'publish_compressed': Rule(
        False, 'Publish <output_namespace>/image/compressed, as JPEG.', live=True),
    'jpeg_quality': Rule(90, 'Quality of that JPEG.', limits=(1, 100), live=True),
    'fast_path': Rule(
        True, 'Read and write image messages in place; false leaves that to rclpy, which takes '
        'longer.'),
}
"""Parameters of the whole node."""

GONE = {
    'batch_wait_ms': 'frames are no longer derained in batches, as no engine gained by it',
}
"""Parameters that there once were, and why there are none of them any more."""

CAMERA_RULES = {
    'image_topic': Rule('/{camera}/image_raw', 'Base topic of the camera, or its /compressed.'),
    'camera_info_topic': Rule('', 'Empty: camera_info beside the image topic.'),
    'transport': Rule(
        'auto',
        'Subscribe to sensor_msgs/Image (raw) or CompressedImage on <image_topic>/compressed; '
        'auto is compressed where image_topic ends in /compressed, else raw.',
        ('auto', 'raw', 'compressed')),
    'output_namespace': Rule('/{camera}/derained', 'Where the outputs are published.'),
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
        dynamic_typing=isinstance(rule.default, (float, list)),
    )
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
    """Return the valid names in a value of ``cameras``, which may be one string."""
    names = [cameras] if isinstance(cameras, str) else cameras
    if not isinstance(names, Sequence):
        return []
    return [name for name in dict.fromkeys(names) if _camera_problem(name) is None]


def camera_parameters(camera: str) -> list[str]:
    """Return the names of a camera's parameters."""
    return [f'{camera}.{key}' for key in CAMERA_RULES]


def value_problem(name: str, value: object) -> str | None:
    """Say what is wrong with the value of a known parameter by itself; None if nothing is."""
    rule = rule_of(name)
    if isinstance(rule.default, list):
        return None  # by cameras_problems
    if name == 'warm_up_sizes':
        return sizes_problem(value)
    if isinstance(rule.default, bool):
        fits, wanted = isinstance(value, bool), 'true or false, without quotes'
    elif isinstance(rule.default, float):
        lowest, highest = rule.limits
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        fits, wanted = number and lowest <= value <= highest, (
            f'a number from {float(lowest)} to {float(highest)}')
    elif _is_integer(rule.default):
        lowest, highest = rule.limits
        fits = _is_integer(value) and lowest <= value <= highest
        wanted = f'an integer from {lowest} to {highest}'
    elif rule.choices:
        fits, wanted = value in rule.choices, f'one of {", ".join(rule.choices)}'
    else:
        fits, wanted = isinstance(value, str), 'a string; put it in quotes'
        if name in ('model', 'engine') and value == '':
            fits, wanted = False, f'a name, for example {rule.default}'
    return None if fits else f'{name} is {value!r}, expected {wanted}'


def cameras_problems(value: object) -> list[str]:
    """Say what is wrong with a value of ``cameras``, one sentence each."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        return [f'cameras is {value!r}, expected names, for example [front, rear]']
    if not names:
        return ['cameras is empty; name at least one camera, for example [front]']
    problems = [problem for name in names if (problem := _camera_problem(name)) is not None]
    repeated = sorted({name for name in names if list(names).count(name) > 1})
    problems += [
        f'cameras has {name!r} more than once; give each camera a name of its own'
        for name in repeated
    ]
    return problems


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _camera_problem(name: object) -> str | None:
    if not isinstance(name, str) or not _CAMERA_NAME.fullmatch(name):
        return (f'cameras has {name!r}, which is no name for a camera; '
                'use letters, digits and single underscores, beginning with a letter')
    if name in NODE_RULES or name in ('use_sim_time', 'qos_overrides'):
        return f'cameras has {name!r}, which is the name of a parameter; call the camera otherwise'
    return None
