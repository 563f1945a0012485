"""The Foxglove layout: its shape, and that what it shows exists."""

import json
import re

from ros_fixtures import ROOT

from derain_ros.live.security_policy import read_policy
from derain_ros.node.camera_record import CameraRecord
from derain_ros.node.mailbox import Counts
from derain_ros.node.reporter import camera_values
from derain_ros.rain_gate import GateSettings

LAYOUT = json.loads((ROOT / 'config' / 'foxglove_layout.json').read_text(encoding='utf-8'))
PANELS = LAYOUT['configById']
PANEL_TYPES = {
    'Image', 'Plot', 'StateTransitions', 'DiagnosticSummary', 'DiagnosticStatusPanel',
    'Parameters', 'Tab'}
FIELD = re.compile(r'(?P<topic>/[a-z_/]+)\.(?P<path>.+)')
OF_CAMERA = re.compile(
    r'status\[:\]\{name=="/derain: camera"\}\.values\[:\]\{key=="(?P<key>[a-z0-9_]+)"\}\.value')


def leaves(layout):
    """Return the panels in a mosaic, and check its splits."""
    if isinstance(layout, str):
        return [layout]
    assert set(layout) == {'first', 'second', 'direction', 'splitPercentage'}
    assert layout['direction'] in ('row', 'column')
    assert 0 < layout['splitPercentage'] < 100
    return leaves(layout['first']) + leaves(layout['second'])


def paths():
    """Return the message paths of all plots."""
    return [path['value'] for panel in PANELS.values() for path in panel.get('paths', ())]


def test_layout_holds_each_panel_once():
    assert set(LAYOUT) == {
        'configById', 'globalVariables', 'userNodes', 'playbackConfig', 'layout'}
    shown = leaves(LAYOUT['layout'])
    for panel in PANELS.values():
        for tab in panel.get('tabs', ()):
            assert set(tab) == {'title', 'layout'}
            shown += leaves(tab['layout'])
    assert sorted(shown) == sorted(PANELS)
    assert {name.partition('!')[0] for name in PANELS} == PANEL_TYPES


def test_topics_are_those_of_the_node_with_default_parameters():
    policy = read_policy(ROOT / 'config' / 'derain.yaml')
    images = {panel['imageMode']['imageTopic']
              for name, panel in PANELS.items() if name.startswith('Image!')}
    assert images == {'/camera/image_raw'} | {
        f'/camera/derained/{output}' for output in ('image', 'rain_mask', 'overlay')}
    topics = images | {FIELD.fullmatch(path)['topic'] for path in paths()} | {
        panel['topicToRender'] for panel in PANELS.values() if 'topicToRender' in panel}
    assert topics <= {*policy.publish, *policy.subscribe}
    assert {'/diagnostics', '/derain/rain_intensity', '/camera/derained/status'} <= topics


def test_values_are_those_that_the_node_reports():
    reported = camera_values(Counts(), 0.0, CameraRecord(GateSettings()).snapshot())
    keys = {found['key'] for path in paths()
            if (found := OF_CAMERA.fullmatch(FIELD.fullmatch(path)['path']))}
    assert {'fps', 'age_p50_ms', 'age_p95_ms', 'rain_intensity', 'gate'} <= keys
    assert keys <= {*reported, 'gate'}
    others = [path for path in paths() if not OF_CAMERA.fullmatch(FIELD.fullmatch(path)['path'])]
    assert others == ['/derain/rain_intensity.data', '/camera/derained/status.status[0].message']
    detail = PANELS['DiagnosticStatusPanel!camera']
    assert (detail['selectedName'], detail['selectedHardwareId']) == (
        '/derain: camera', '/camera/image_raw')
