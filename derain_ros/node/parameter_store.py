"""Declares the node's parameters, validates their changes and reads their values."""

import difflib
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import QoSPolicyKind

from derain_ros.node.parameters import (
    GONE,
    NODE_RULES,
    LiveSettings,
    ParameterError,
    Settings,
    camera_names,
    camera_parameters,
    default_of,
    describe,
    find_problems,
    read_live_settings,
    read_settings,
    rule_of,
    value_problem,
)

_WAYS_BACK = {'inactive': ('cleanup',), 'active': ('deactivate', 'cleanup')}
"""The transitions from a lifecycle state back to unconfigured."""

_OF_LAUNCH = ('launch-prefix', 'launch-prefix-filter', 'sigterm_timeout', 'sigkill_timeout',
              'emulate_tty', 'ros_namespace')
"""Arguments that launch itself reads."""


class ParameterStore:
    """Declares the parameters on a node and validates every change.

    A value that rclpy refuses does not stop the node: the default replaces it, and
    :meth:`settings` raises until the parameter is set to a valid value.
    """

    def __init__(self, node: Node):
        self._node = node
        self._refused: dict[str, str] = {}
        # rclpy has no public name for these; without them some messages give less detail.
        self._given: dict[str, Parameter] = getattr(node, '_parameter_overrides', {})
        self._declare(NODE_RULES)
        self.declare_cameras(node.get_parameter('cameras').value)
        self._warn_of_unknown()

    def settings(self) -> Settings:
        """Return the settings that apply while the node is configured, or raise ParameterError."""
        values = self._values()
        # Those of a camera that was removed no longer count.
        refused = [problem for name, problem in self._refused.items() if name in values]
        if refused:
            raise ParameterError('; '.join(refused))
        return read_settings(values, self._node.resolve_topic_name)

    def live_settings(self) -> LiveSettings:
        """Return the settings that may change at any time; call after :meth:`settings`."""
        return read_live_settings(self._values())

    def refusal(self, changes: list[Parameter], state: str) -> str:
        """Return why a set of changes is refused in a lifecycle state; empty if it is accepted.

        Existing problems that the changes do not touch are ignored, so that several wrong values
        can be corrected one by one.
        """
        values = self._values()
        before = find_problems(values, self._node.resolve_topic_name)
        reasons = []
        # A camera may be added together with its parameters.
        named = next((change.value for change in changes if change.name == 'cameras'), None)
        known = {**values, 'cameras': values['cameras'] if named is None else named}
        for change in changes:
            reason = self._change_problem(change, known, values, state)
            if reason:
                reasons.append(reason)
            elif rule_of(change.name) is not None:
                values[change.name] = change.value
        if reasons:
            return '; '.join(reasons)
        for camera in camera_names(values['cameras']):
            for name in camera_parameters(camera):
                values.setdefault(name, default_of(name))
        after = find_problems(values, self._node.resolve_topic_name)
        return '; '.join(problem for problem in after if problem not in before)

    def accept(self, changes: list[Parameter]) -> None:
        """Note that changes were made, which replaces any refused values."""
        for change in changes:
            self._refused.pop(change.name, None)

    def warn_of_overrides(self, settings: Settings) -> None:
        """Warn of ``qos_overrides`` for topics or policies that do not exist."""
        topics = {
            'publisher': [
                topic for camera in settings.topics for topic in camera.outputs.values()],
            'subscription': list(dict.fromkeys(topic for camera in settings.topics for topic in (
                camera.camera_info_topic, *(topic for topic, _ in camera.inputs))))}
        for name in self._given:
            start, _, rest = name.partition('.')
            topic, kind, policy = (*rest.rsplit('.', 2), '', '')[:3]
            policies = [one.name.lower() for one in QoSPolicyKind if one.name != 'INVALID']
            if start == 'qos_overrides' and topic not in topics.get(kind, ()):
                self._node.get_logger().warning(
                    f'{name} is not used: {topic} is not a {kind or "topic"} of this node; those '
                    f'are {", ".join(topics.get(kind, topics["subscription"]))}')
            elif start == 'qos_overrides' and policy not in policies:
                self._node.get_logger().warning(
                    f'{name} is not used: {policy} is not a policy; those are '
                    f'{", ".join(policies)}')

    def declare_cameras(self, cameras: object) -> None:
        """Declare the parameters of each camera named in a value of ``cameras``."""
        for camera in camera_names(cameras):
            self._declare(camera_parameters(camera))

    def _change_problem(
        self, change: Parameter, known: dict[str, object], values: dict[str, object], state: str
    ) -> str:
        name = change.name
        rule = rule_of(name)
        if rule is None:  # of rclpy, or unknown
            return '' if self._node.has_parameter(name) else self._unknown(name)
        camera = name.rpartition('.')[0]
        names = camera_names(known['cameras'])
        if camera and camera not in names:
            return f'{name} is not a parameter: {camera} is not among cameras ({", ".join(names)})'
        if change.type_ == Parameter.Type.NOT_SET:
            return f'{name} cannot be deleted; set it to another value'
        if rule.read_only:
            return f'{name} can only be given at the start'
        problem = value_problem(name, change.value)
        way = _WAYS_BACK.get(state)
        if not problem and way and not rule.live and change.value != values.get(name):
            command = f'ros2 lifecycle set {self._node.get_fully_qualified_name()}'
            steps = ', then '.join(f'"{command} {step}"' for step in way)
            return (f'{name} takes effect when the node configures, and it is {state}; bring it '
                    f'back to unconfigured first, with {steps}, and configure it again')
        return problem

    def _declare(self, names: Iterable[str]) -> None:
        for name in names:
            if self._node.has_parameter(name):
                continue
            default, descriptor = default_of(name), describe(rule_of(name))
            given = self._given.get(name)
            if given is not None and given.type_ == Parameter.Type.NOT_SET:
                # ROS's YAML parser turns [] into this.
                self._refused[name] = f'{name} is empty; set it to a value like {default!r}'
            try:
                self._node.declare_parameter(
                    name, default, descriptor, ignore_override=name in self._refused)
            except ParameterException as error:
                value = None if given is None else given.value
                self._refused[name] = value_problem(name, value) or str(error)
                self._node.declare_parameter(name, default, descriptor, ignore_override=True)

    def _values(self) -> dict[str, object]:
        names = list(NODE_RULES)
        for camera in camera_names(self._node.get_parameter('cameras').value):
            names += camera_parameters(camera)
        return {name: self._node.get_parameter(name).value for name in names}

    def _warn_of_unknown(self) -> None:
        # rclpy ignores values for parameters that are not declared, so typos go unnoticed.
        for name in self._given:
            if self._node.has_parameter(name) or name.startswith('qos_overrides.'):
                continue
            logger = self._node.get_logger()
            if rule_of(name) is None:
                logger.warning(self._unknown(name))
            elif 'cameras' in self._given:
                logger.info(f'{name} is not used, as its camera is not among cameras')
            else:
                logger.warning(f'{name} is not used, as cameras is not given: '
                               f'name {name.rpartition(".")[0]} in it')

    def _unknown(self, name: str) -> str:
        if name in GONE:
            return f'{name} is no longer a parameter: {GONE[name]}; remove it'
        known = self._values()
        topic = f'{name}.image_topic'
        close = [topic] if topic in known else difflib.get_close_matches(name, known, n=1)
        hint = f'; did you mean {close[0]}?' if close else ''
        return f'{name} is not a parameter of this node{hint}'


def unheard(arguments: Sequence[str], name: str) -> list[str]:
    """Return which arguments of a command line, valid for rclpy, do not reach a node."""
    own = arguments[:[*arguments, '--ros-args'].index('--ros-args')]
    problems = [
        f'{word} is outside of --ros-args and sets no parameter; use --ros-args -p {word}'
        for word in own if ':=' in word and rule_of(word.partition(':=')[0])]
    for option, file in pairwise(arguments):
        with suppress(ValueError):  # rclpy has already read the file
            if option == '--params-file' and (others := other_nodes(Path(file), name)):
                problems.append(
                    f'{file} has no parameters for the node {name} (nodes in it: '
                    f'{", ".join(others)}), so that it runs without them; put them under '
                    f'"/**/{name.rpartition("/")[2]}:" as config/derain.yaml does')
    return problems


def other_nodes(file: Path, name: str) -> list[str]:
    """Return the nodes a parameter file is for (or ``['none']``); empty if ``name`` is one.

    Raises ValueError if the file cannot be read as YAML.
    """
    names = [found for found, _ in _sections(_read_yaml(file), '')]
    fits = any(re.fullmatch(_pattern(found), name) for found in names)
    return [] if fits else names or ['none']


def given_value(file: Path, name: str, parameter: str) -> object:
    """Return the value of a parameter that a file gives to a node; None if it gives none.

    Raises ValueError if the file cannot be read as YAML.
    """
    found = None
    for pattern, values in _sections(_read_yaml(file), ''):
        if isinstance(values, dict) and re.fullmatch(_pattern(pattern), name):
            found = values.get(parameter, found)
    return found


def check_launch_arguments(
    file: str, known: Sequence[str], present: Iterable[str] = ()
) -> list[str]:
    """Raise RuntimeError if the command line gives a launch file an argument it does not have.

    ``ros2 launch`` ignores such arguments. ``present`` are all arguments in effect, some of which
    may be meant for launch files that include this one; returns a warning for each unknown one
    that resembles a ``known`` one.
    """
    name, fine = Path(file).name, {*known, *_OF_LAUNCH}
    words = [Path(word).name for word in sys.argv]
    typed = [word.partition(':=')[0] for word in sys.argv[words.index(name):] if ':=' in word
             ] if name in words else []
    for other in typed:
        if other not in fine:
            close = difflib.get_close_matches(other, known, n=1)
            hint = f'did you mean {close[0]}?' if close else f'there are {", ".join(known)}'
            raise RuntimeError(f'{other} is not an argument of {name}; {hint}')
    return [f'{other} is not an argument of {name}; if it is meant for that, write {close[0]}'
            for other in present if other not in fine
            and (close := difflib.get_close_matches(other, known, n=1, cutoff=0.8))]


def _read_yaml(file: Path) -> object:
    import yaml  # comes with rclpy

    try:
        return yaml.safe_load(file.read_text(encoding='utf-8'))
    except (OSError, yaml.YAMLError) as error:
        raise ValueError(error) from error


def _sections(content: object, name: str) -> Iterator[tuple[str, object]]:
    """Yield full node names, wildcards included, and the parameters that a file has for them."""
    for key, value in content.items() if isinstance(content, dict) else ():
        if key == 'ros__parameters':
            yield name, value
        else:
            yield from _sections(value, f'{name}/{str(key).strip("/")}')


def _pattern(name: str) -> str:
    """Return a regular expression for a name with ``*`` (one token) and ``**`` (any number)."""
    return ''.join({'**': '(/[^/]+)*', '*': '/[^/]+'}.get(token, '/' + re.escape(token))
                   for token in name.split('/')[1:])
