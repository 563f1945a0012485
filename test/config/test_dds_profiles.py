"""The DDS profiles in config/.

That Fast DDS takes its profile up is tested with the node; there is no Cyclone DDS here, so its
profile is checked against a table of its options (version 0.10, as in Humble and Jazzy).
"""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

CONFIG = Path(__file__).resolve().parents[2] / 'config'
CYCLONE = CONFIG / 'cyclonedds.xml'
NAMESPACE = '{https://cdds.io/config}'

SIZE = r'\d+ ?(B|[kMG]i?B)'
CHOICE = {'General', 'Discovery', 'Internal', 'Sizing', 'Tracing', 'Compatibility'}
# By path: what may be in it, what its text and its attributes look like.
CYCLONE_OPTIONS = {
    'CycloneDDS': ({'Domain'}, None, {}),
    'CycloneDDS/Domain': (CHOICE, None, {'Id': r'any|\d+'}),
    'CycloneDDS/Domain/General': (
        {'Interfaces', 'AllowMulticast', 'MaxMessageSize', 'MaxRexmitMessageSize',
         'FragmentSize'}, None, {}),
    'CycloneDDS/Domain/General/MaxMessageSize': (set(), SIZE, {}),
    'CycloneDDS/Domain/General/MaxRexmitMessageSize': (set(), SIZE, {}),
    'CycloneDDS/Domain/General/FragmentSize': (set(), SIZE, {}),
    'CycloneDDS/Domain/General/AllowMulticast': (set(), r'default|true|false|spdp', {}),
    'CycloneDDS/Domain/Internal': (
        {'SocketReceiveBufferSize', 'SocketSendBufferSize', 'Watermarks'}, None, {}),
    'CycloneDDS/Domain/Internal/SocketReceiveBufferSize': (
        set(), None, {'min': f'default|{SIZE}', 'max': f'default|{SIZE}'}),
    'CycloneDDS/Domain/Internal/SocketSendBufferSize': (
        set(), None, {'min': f'default|{SIZE}', 'max': f'default|{SIZE}'}),
}
UNITS = {'B': 1, 'kB': 2**10, 'KiB': 2**10, 'MB': 2**20, 'MiB': 2**20}


def problems(text):
    """Say what Cyclone DDS would not take, as far as the table goes."""
    return list(_problems(ElementTree.fromstring(text), ''))


def _problems(element, parent):
    if not element.tag.startswith(NAMESPACE):
        yield f'{element.tag} is not in the namespace {NAMESPACE}'
        return
    path = f'{parent}/{element.tag.removeprefix(NAMESPACE)}'.lstrip('/')
    if path not in CYCLONE_OPTIONS:
        yield f'{path} is not known'
        return
    children, text, attributes = CYCLONE_OPTIONS[path]
    value = (element.text or '').strip()
    if not re.fullmatch(text or '', value):
        yield f'{path} is {value!r}'
    for name, value in element.attrib.items():
        if name not in attributes or not re.fullmatch(attributes[name], value):
            yield f'{path}: {name} is {value!r}'
    for child in element:
        name = child.tag.removeprefix(NAMESPACE)
        if name not in children:
            yield f'{path} has no {name}'
        else:
            yield from _problems(child, path)


def number_of_bytes(value):
    number, unit = re.fullmatch(r'(\d+) ?(\w+)', value).groups()
    return int(number) * UNITS[unit]


def test_the_cyclone_profile_has_only_options_that_cyclone_knows():
    assert problems(CYCLONE.read_text()) == []


@pytest.mark.parametrize(('right', 'wrong'), [
    ('MaxMessageSize>', 'MaxMesageSize>'),
    ('max="16 MiB"', 'maximum="16 MiB"'),
    ('max="16 MiB"', 'max="16"'),
    ('65500 B', '65500'),
    ('Internal>', 'Intern>'),
    ('https://cdds.io/config', 'https://cdds.io/configuration'),
])
def test_a_slip_in_the_cyclone_profile_would_be_found(right, wrong):
    text = CYCLONE.read_text()
    assert right in text
    assert problems(text.replace(right, wrong))


def test_the_cyclone_profile_asks_for_frames_and_is_content_with_less():
    root = ElementTree.parse(CYCLONE).getroot()
    size = root.find(f'.//{NAMESPACE}SocketReceiveBufferSize').attrib
    assert number_of_bytes(size['max']) >= 2 * 1920 * 1080 * 3
    assert 'min' not in size  # the node would not start where the kernel grants less
    # The kernel setting that the file and the docs tell of grants what is asked for.
    for file in (CYCLONE, CONFIG.parent / 'docs' / 'transport.md'):
        told = re.search(r'net\.core\.rmem_max=(\d+)', file.read_text())
        assert int(told.group(1)) == number_of_bytes(size['max'])
    # A UDP datagram holds 65507 bytes.
    message = root.findtext(f'.//{NAMESPACE}MaxMessageSize')
    assert 60_000 <= number_of_bytes(message) <= 65_507


def test_the_fast_dds_profile_holds_ten_frames_in_shared_memory():
    root = ElementTree.parse(CONFIG / 'fastdds.xml').getroot()
    namespace = '{http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles}'
    transports = {
        transport.findtext(f'{namespace}type'): transport
        for transport in root.iter(f'{namespace}transport_descriptor')}
    assert set(transports) == {'SHM', 'UDPv4'}
    size = int(transports['SHM'].findtext(f'{namespace}segment_size'))
    assert size >= 10 * 1920 * 1080 * 3
    participant, = root.iter(f'{namespace}participant')
    assert participant.attrib['is_default_profile'] == 'true'
    used = {identity.text for identity in participant.iter(f'{namespace}transport_id')}
    assert used == {
        transport.findtext(f'{namespace}transport_id') for transport in transports.values()}
