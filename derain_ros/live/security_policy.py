"""The SROS2 policy of the node: the minimal permissions for given parameters."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import rclpy.exceptions
from rclpy.context import Context
from rclpy.node import Node

from derain_ros.node.parameter_store import ParameterStore
from derain_ros.node.parameters import ParameterError, Settings
from derain_ros.text import UserError

SCHEMA = '0.2.0'
"""Version of the sros2 policy schema."""

NODE_NAME = 'derain'

PUBLISHED = (
    '/diagnostics', '/parameter_events', '/rosout', '~/rain_intensity', '~/transition_event')
"""Topics that the node publishes besides those of its cameras."""

SUBSCRIBED = ('/clock',)
"""Topics that the node subscribes to besides those of its cameras; /clock in simulated time."""

SERVICES = (
    '~/change_state', '~/get_available_states', '~/get_available_transitions', '~/get_state',
    '~/get_transition_graph',
    '~/describe_parameters', '~/get_parameter_types', '~/get_parameters', '~/list_parameters',
    '~/set_parameters', '~/set_parameters_atomically',
    '~/get_type_description',
    '~/reset', '~/set_enabled',
)
"""Services that the node offers: lifecycle, parameters, types (since Jazzy), and its own."""

_ALONE = {
    # For the temporary node that reads the file: not discoverable, and without security keys.
    'ROS_AUTOMATIC_DISCOVERY_RANGE': 'OFF',
    'ROS_SECURITY_ENABLE': 'false',
}


class PolicyError(UserError, ValueError):
    """No policy can be generated for a parameter file; the message says why and what to do."""


@dataclass(frozen=True)
class Policy:
    """Permissions of the node in a namespace: topics and services, sorted full names."""

    namespace: str
    publish: tuple[str, ...]
    subscribe: tuple[str, ...]
    reply: tuple[str, ...]


def policy_of(settings: Settings, namespace: str) -> Policy:
    """Return the policy for settings, which have full topic names, and a namespace."""
    def full(names: Iterable[str]) -> tuple[str, ...]:
        own = f'{namespace.rstrip("/")}/{NODE_NAME}'
        return tuple(sorted({name.replace('~', own, 1) for name in names}))

    cameras = settings.topics
    outputs = [topic for camera in cameras for topic in camera.outputs.values()]
    inputs = [topic for camera in cameras
              for topic in (*(name for name, _ in camera.inputs), camera.camera_info_topic)]
    return Policy(
        namespace, full([*PUBLISHED, *outputs]), full([*SUBSCRIBED, *inputs]), full(SERVICES))


def read_policy(config: Path, namespace: str = '/') -> Policy:
    """Return the policy of the node in a namespace with a parameter file (YAML).

    Raises PolicyError if the file cannot be read, has no parameters for this node, or would be
    refused by the node.
    """
    if not config.is_file():
        raise PolicyError(f'{config}: no such file; give the parameter file of the node')
    # ROS itself parses the file and selects the sections that apply to the node.
    with _alone():
        context = Context()
        context.init(args=[], initialize_logging=False, domain_id=0)
        try:
            node = Node(
                NODE_NAME, context=context, namespace=namespace, use_global_arguments=False,
                cli_args=['--ros-args', '--params-file', str(config)], enable_rosout=False,
                start_parameter_services=False)
            try:
                if not getattr(node, '_parameter_overrides', {'unknown': True}):
                    raise PolicyError(
                        f'{config}: no parameters for {node.get_fully_qualified_name()}; '
                        'check the name at its top, or give the namespace of the node')
                return policy_of(ParameterStore(node).settings(), node.get_namespace())
            finally:
                node.destroy_node()
        except ParameterError as error:
            raise PolicyError(f'{config}: {error}') from error
        except rclpy.exceptions.InvalidNamespaceException as error:
            raise PolicyError(f'{namespace!a} is not a namespace; use one like /car') from error
        except RuntimeError as error:  # from rcl, which cannot parse the file
            reason = str(error).splitlines()[0]
            raise PolicyError(f'{config}: not a parameter file of ROS: {reason}') from error
        finally:
            context.try_shutdown()


def to_xml(policy: Policy) -> str:
    """Return a policy as XML in the format of sros2."""
    root = ElementTree.Element('policy', version=SCHEMA)
    enclave = ElementTree.SubElement(
        ElementTree.SubElement(root, 'enclaves'), 'enclave',
        path=f'{policy.namespace.rstrip("/")}/{NODE_NAME}')
    profile = ElementTree.SubElement(
        ElementTree.SubElement(enclave, 'profiles'), 'profile', ns=policy.namespace,
        node=NODE_NAME)
    for kind, right, names in (
        ('service', 'reply', policy.reply),
        ('topic', 'publish', policy.publish),
        ('topic', 'subscribe', policy.subscribe),
    ):
        allowed = ElementTree.SubElement(profile, f'{kind}s', {right: 'ALLOW'})
        for name in names:
            ElementTree.SubElement(allowed, kind).text = name
    ElementTree.indent(root)
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<!-- Written by `derain policy`; what is not named here is denied. -->\n'
        f'{ElementTree.tostring(root, encoding="unicode")}\n')


@contextmanager
def _alone() -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(_ALONE)
    try:
        yield
    finally:
        for name in _ALONE:
            del os.environ[name]
        os.environ.update(before)
