"""The parameters as the node holds them: declared, guarded, read."""

import difflib
from collections.abc import Iterable

from rclpy.exceptions import ParameterException
from rclpy.node import Node
from rclpy.parameter import Parameter

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


class ParameterStore:
    """Declares the parameters on a node and judges every change.

    Parameters
    ----------
    node
        The node; its parameters are declared here and now. A value that rclpy refuses does
        not stop it: the default takes its place, and :meth:`settings` raises until it has
        been put right.

    """

    def __init__(self, node: Node):
        self._node = node
        self._refused: dict[str, str] = {}
        # rclpy has no public name for these; without them some messages say less.
        self._given: dict[str, Parameter] = getattr(node, '_parameter_overrides', {})
        self._declare(NODE_RULES)
        self.declare_cameras(node.get_parameter('cameras').value)
        self._warn_of_unknown()

    def settings(self) -> Settings:
        """Return what holds while the node is configured.

        Raises
        ------
        ParameterError
            A value breaks its rule or contradicts another.

        """
        if self._refused:
            raise ParameterError('; '.join(self._refused.values()))
        return read_settings(self._values(), self._node.resolve_topic_name)

    def live_settings(self) -> LiveSettings:
        """Return what holds until the next change; to be read after :meth:`settings`."""
        return read_live_settings(self._values())

    def refusal(self, changes: list[Parameter], configured: bool) -> str:
        """Say why a set of changes cannot be made; empty if it can.

        What was wrong before and is left alone does not count, so that several wrong values
        can be put right one by one.
        """
        values = self._values()
        before = find_problems(values, self._node.resolve_topic_name)
        reasons = []
        for change in changes:
            reason = self._change_problem(change, values, configured)
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
        """Note that changes were made."""
        for change in changes:
            self._refused.pop(change.name, None)

    def declare_cameras(self, cameras: object) -> None:
        """Declare the parameters of each camera named in a value of ``cameras``."""
        for camera in camera_names(cameras):
            self._declare(camera_parameters(camera))

    def _change_problem(
        self, change: Parameter, values: dict[str, object], configured: bool
    ) -> str | None:
        name = change.name
        rule = rule_of(name)
        if name in GONE:
            return f'{name} is no parameter any more: {GONE[name]}'
        if rule is None:
            return None  # of rclpy, or unknown to it too
        if change.type_ == Parameter.Type.NOT_SET:
            return f'{name} cannot be deleted; set it to another value'
        if rule.read_only:
            return f'{name} can be given at the start only'
        problem = value_problem(name, change.value)
        if problem is None and configured and not rule.live and change.value != values.get(name):
            node = self._node.get_fully_qualified_name()
            return (f'{name} takes effect when the node configures; first bring the node back to '
                    f'unconfigured ("ros2 lifecycle set {node} deactivate", then "cleanup")')
        return problem

    def _declare(self, names: Iterable[str]) -> None:
        for name in names:
            if self._node.has_parameter(name):
                continue
            default, descriptor = default_of(name), describe(rule_of(name))
            given = self._given.get(name)
            if given is not None and given.type_ == Parameter.Type.NOT_SET:
                # What the yaml parser of ROS makes of [].
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
        # rclpy ignores values for parameters that are not declared, so a misspelt one is silent.
        for name in self._given:
            if self._node.has_parameter(name) or name.startswith('qos_overrides.'):
                continue
            logger = self._node.get_logger()
            if rule_of(name) is not None:
                logger.info(f'{name} is not used, as its camera is not among cameras')
                continue
            if name in GONE:
                logger.warning(f'{name} is no parameter any more: {GONE[name]}; take it out')
                continue
            close = difflib.get_close_matches(name, self._values(), n=1)
            hint = f'; did you mean {close[0]}?' if close else ''
            logger.warning(f'{name} is no parameter of this node{hint}')
