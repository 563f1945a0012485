"""The SROS2 policy: its format, and that it is what the running node uses.

Nothing here enforces a policy: the ROS 2 wheels have no security plugins.
"""

import json
import resource
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

import pytest
from ros_fixtures import ROOT, NodeProcess, Peer, new_domain, wait_for

from derain_ros.live.security_policy import PolicyError, read_policy, to_xml

SHIPPED = ROOT / 'config' / 'sros2' / 'derain_policy.xml'


def write_config(directory: Path, parameters: dict, section: str = '/**/derain') -> Path:
    """Write a parameter file; JSON is YAML too."""
    file = directory / 'config.yaml'
    file.write_text(json.dumps({section: {'ros__parameters': parameters}}))
    return file


def read_xml(text: str) -> dict[tuple[str, str], list[str]]:
    """Return the names in a policy by kind and right."""
    root = ElementTree.fromstring(text)
    assert (root.tag, root.attrib) == ('policy', {'version': '0.2.0'})
    assert [len(part) for part in root.iter() if part.tag in ('enclaves', 'enclave', 'profiles')
            ] == [1, 1, 1]
    profile = root.find('enclaves/enclave/profiles/profile')
    found = {}
    for group in profile:
        (right, allowed), = group.attrib.items()
        assert allowed == 'ALLOW'
        assert {entry.tag for entry in group} == {group.tag.removesuffix('s')}
        found[group.tag, right] = [entry.text for entry in group]
    return found


def test_shipped_policy_is_that_of_the_shipped_parameters(derain, tmp_path):
    command = 'policy', '--config', ROOT / 'config' / 'derain.yaml'
    assert derain(*command).out == SHIPPED.read_text(encoding='utf-8')
    written = tmp_path / 'policy.xml'
    derain(*command, '-o', written)
    assert written.read_bytes() == SHIPPED.read_bytes()


def test_a_policy_that_cannot_be_written_leaves_the_old_one(derain, tmp_path):
    written = tmp_path / 'policy.xml'
    written.write_text('old')
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        error = derain('policy', '-o', written, status=2).err
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert f'{written}: ' in error and written.read_text() == 'old'


def test_xml_follows_the_schema_of_sros2():
    policy = read_policy(ROOT / 'config' / 'vehicle.yaml', '/car')
    text = to_xml(policy)
    root = ElementTree.fromstring(text)
    assert root.find('enclaves/enclave').attrib == {'path': '/car/derain'}
    profile = root.find('enclaves/enclave/profiles/profile')
    assert profile.attrib == {'ns': '/car', 'node': 'derain'}
    found = read_xml(text)
    assert found == {
        ('services', 'reply'): list(policy.reply),
        ('topics', 'publish'): list(policy.publish),
        ('topics', 'subscribe'): list(policy.subscribe),
    }
    for names in found.values():
        assert names == sorted(set(names))
        # No wildcards: * ? and [ would be patterns.
        assert all(name.startswith('/') and name.replace('/', '').isidentifier()
                   for name in names)


def test_names_follow_cameras_transports_and_namespaces(tmp_path):
    config = write_config(tmp_path, {
        'cameras': ['front', 'rear'],
        'front': {'image_topic': 'lens/image_raw', 'output_namespace': 'out'},
        'rear': {'transport': 'compressed', 'camera_info_topic': '/info'},
    })
    policy = read_policy(config, '/car')
    assert policy.subscribe == (
        '/car/lens/camera_info', '/car/lens/image_raw', '/car/rear/image_raw',
        '/car/rear/image_raw/compressed', '/clock', '/info')
    assert {'/car/out/image', '/car/out/status', '/car/rear/derained/image/compressed',
            '/car/derain/rain_intensity', '/diagnostics'} <= set(policy.publish)
    assert '/car/derain/set_enabled' in policy.reply


@pytest.mark.parametrize(('text', 'message'), [
    ('no: [parameters', 'not a parameter file of ROS'),
    ('/other: {ros__parameters: {model: nano}}', 'no parameters for /derain'),
    ('/derain: {ros__parameters: {cameras: [a], a: {image_topic: "/a b"}}}', 'a.image_topic is'),
])
def test_files_without_a_policy_are_refused(tmp_path, derain, text, message):
    file = tmp_path / 'bad.yaml'
    file.write_text(text)
    printed = derain('policy', '--config', file, status=2)
    assert printed.out == ''
    assert f'{file}: ' in printed.err and message in printed.err


def test_an_absent_file_and_a_wrong_namespace_are_named(tmp_path):
    with pytest.raises(PolicyError, match=r'absent\.yaml: no such file'):
        read_policy(tmp_path / 'absent.yaml')
    with pytest.raises(PolicyError, match=r"'a b' is not a namespace"):
        read_policy(ROOT / 'config' / 'derain.yaml', 'a b')


def test_policy_is_the_graph_of_the_running_node(tmp_path):
    """Nothing missing, nothing superfluous, nothing asked of other nodes."""
    config = write_config(tmp_path, {
        'use_sim_time': True,  # so that the node subscribes to /clock
        'cameras': ['front', 'rear'],
        'front': {'output_namespace': 'out/front'},
        'rear': {'image_topic': '/rear_camera/image_raw/compressed'},
    })
    policy = read_policy(config, '/car')
    domain = new_domain()
    arguments = ('-r', '__ns:=/car', '--params-file', str(config))
    with NodeProcess(tmp_path, domain, arguments=arguments) as node, \
            Peer(domain, '/car/derain') as peer:
        peer.wait_for_state('active', node)

        def graph():
            ask = (peer.get_publisher_names_and_types_by_node,
                   peer.get_subscriber_names_and_types_by_node,
                   peer.get_service_names_and_types_by_node,
                   peer.get_client_names_and_types_by_node)
            return [sorted(name for name, _ in names('derain', '/car')) for names in ask]

        services = [name for name in policy.reply
                    if find_spec('rclpy.type_description_service')  # since Jazzy
                    or not name.endswith('/get_type_description')]
        expected = [list(policy.publish), list(policy.subscribe), services, []]
        try:
            wait_for(lambda: graph() == expected, 'graph as in the policy', 10.0)
        except AssertionError:
            assert graph() == expected  # which says what differs
