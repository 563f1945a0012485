"""The parameter files in config/, and their schema, against the declared parameters."""

import json

import pytest
import yaml
from ros_fixtures import ROOT

from derain_ros.live.parameter_schema import to_text
from derain_ros.live.security_policy import read_policy
from derain_ros.node.parameters import (
    CAMERA_RULES,
    NODE_RULES,
    camera_names,
    camera_parameters,
    default_of,
    find_problems,
)

CONFIG = ROOT / 'config'
FILES = [CONFIG / 'derain.yaml', CONFIG / 'vehicle.yaml']


def resolve(topic, only_expand=False):
    return topic if topic.startswith('/') else f'/{topic}'


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.name)
def test_parameter_files_hold_declared_parameters_with_values_that_fit(file):
    (name, node), = yaml.safe_load(file.read_text()).items()
    given = node['ros__parameters']
    assert name == '/**/derain'
    cameras = {key: value for key, value in given.items() if isinstance(value, dict)}
    assert set(cameras) == set(camera_names(given['cameras']))
    assert set(given) - set(cameras) <= set(NODE_RULES)
    values = {name: default_of(name) for name in NODE_RULES} | given
    for camera, keys in cameras.items():
        assert set(keys) <= set(CAMERA_RULES)
        values |= {name: default_of(name) for name in camera_parameters(camera)}
        values |= {f'{camera}.{key}': value for key, value in keys.items()}
    assert find_problems(values, resolve) == []


def test_the_file_of_one_camera_shows_every_parameter_with_its_default():
    given = yaml.safe_load((CONFIG / 'derain.yaml').read_text())['/**/derain']['ros__parameters']
    camera = given.pop('camera')
    # build_only ends the node.
    assert given == {name: default_of(name) for name in NODE_RULES if name != 'build_only'}
    assert camera == {key: default_of(f'camera.{key}') for key in CAMERA_RULES}


def test_the_schema_is_that_of_the_declarations():
    assert (CONFIG / 'derain.schema.json').read_text() == to_text(), (
        'run python -m derain_ros.live.parameter_schema > config/derain.schema.json')
    node = json.loads(to_text())['patternProperties']['(^|/)derain$']
    properties = node['properties']['ros__parameters']['properties']
    assert set(NODE_RULES) <= set(properties)
    assert properties['strength'] == {
        'description': NODE_RULES['strength'].description, 'type': 'number', 'minimum': 0.0,
        'maximum': 1.5, 'default': 1.0}


def test_rviz_shows_topics_of_the_node_with_default_parameters():
    shown = yaml.safe_load((CONFIG / 'derain.rviz').read_text())
    displays = shown['Visualization Manager']['Displays']
    policy = read_policy(CONFIG / 'derain.yaml')
    topics = {display['Topic']['Value'] for display in displays}
    assert topics == {'/camera/image_raw', '/camera/derained/image', '/camera/derained/rain_mask'}
    assert topics <= {*policy.publish, *policy.subscribe}
    assert {display['Class'] for display in displays} == {'rviz_default_plugins/Image'}
