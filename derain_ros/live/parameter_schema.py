"""A JSON schema of parameter files, generated from the parameter declarations.

``python -m derain_ros.live.parameter_schema > config/derain.schema.json`` regenerates it.
"""

import json
from typing import Any

from derain_ros.node.parameters import CAMERA_RULES, NODE_RULES, Rule

_TYPES = {bool: 'boolean', int: 'integer', float: 'number', str: 'string'}


def schema() -> dict[str, Any]:
    """Return the JSON schema (2020-12) of a parameter file of the node."""
    names = {'type': 'array', 'items': {'type': 'string'}, 'minItems': 1}
    parameters = {name: _property(rule) for name, rule in NODE_RULES.items()}
    parameters['cameras'] = {
        'description': NODE_RULES['cameras'].description, 'oneOf': [names, {'type': 'string'}]}
    camera = {
        'type': 'object', 'additionalProperties': False,
        'properties': {key: _property(rule) for key, rule in CAMERA_RULES.items()}}
    node = {
        'type': 'object', 'required': ['ros__parameters'],
        'properties': {'ros__parameters': {
            'type': 'object',
            'properties': {**parameters, 'use_sim_time': {'type': 'boolean'},
                           'qos_overrides': {'type': 'object'}},
            # Any other key is the name of a camera.
            'additionalProperties': camera}}}
    return {
        '$schema': 'https://json-schema.org/draft/2020-12/schema',
        'title': 'Parameters of derain_node', 'type': 'object',
        'patternProperties': {'(^|/)derain$': node}}


def _property(rule: Rule) -> dict[str, Any]:
    if rule.choices:
        numbers = [int(choice) for choice in rule.choices if choice.isdigit()]
        kind: dict[str, Any] = {'enum': [*rule.choices, *numbers]}
    else:
        name = _TYPES.get(type(rule.default), 'array')
        kind = {'type': [name, 'integer'] if rule.number else name}
    if type(rule.default) in (int, float):
        kind |= {'minimum': rule.limits[0], 'maximum': rule.limits[1]}
    default = {} if '{camera}' in str(rule.default) else {'default': rule.default}
    return {'description': rule.description, **kind, **default}


def to_text() -> str:
    """Return the text of the schema file in config/."""
    return json.dumps(schema(), indent=2) + '\n'


if __name__ == '__main__':
    print(to_text(), end='')
