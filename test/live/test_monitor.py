"""``derain top``: the picture of given statuses, and what is kept of reports."""

import io

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')
pytest.importorskip('rich', reason='needs rich')

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rich.console import Console
from status_tables import row

from derain_ros.live.listener import values_of
from derain_ros.live.monitor import FORGET_SECONDS, NodeReport, Reports, nothing_heard, render

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
CAMERA = {
    'received': 320, 'published': 300, 'dropped': 12, 'failed': 3, 'idle': 0, 'derained': 280,
    'bypassed': 15, 'passed_through': 5, 'fps': 29.8, 'gate': 'wet', 'rain_intensity': 0.0841,
    'image_topic': '/front/image_raw', 'size': '1920x1080', 'encoding': 'rgb8',
    'sync_group': 'stereo', 'age_p50_ms': 31.4, 'age_p95_ms': 55.6, 'age_p99_ms': 66.0,
    'wait_p50_ms': 0.31, 'decode_p50_ms': 2.14, 'infer_p50_ms': 24.2, 'encode_p50_ms': 1.03,
    'publish_p50_ms': 2.4,
}
ENGINE = {'engine': 'openvino', 'device': 'a CPU', 'model': 'nano', 'precision': 'bf16',
          'state': 'ready', 'failures': 1, 'node': '/derain'}


def status(name, level=OK, message='', values=CAMERA, **changed):
    return DiagnosticStatus(
        name=f'{changed.get("node", "/derain")}: {name}', level=level, message=message,
        values=[KeyValue(key=key, value=str(value))
                for key, value in {**values, **changed}.items()])


def picture(*nodes, width=80):
    """Return the lines of a picture without colours, none too long."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(render(nodes, '12:34:56'))
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    return [line.rstrip() for line in lines]


def test_a_line_of_each_table_says_what_the_status_says():
    before = {'/derain: front': {'derained': '252', 'bypassed': '14', 'passed_through': '5',
                                'dropped': '10', 'failed': '3'}}
    node = NodeReport('/derain', [
        status('engine', values=ENGINE, gpu_temperature_c=55, gpu_utilisation_percent=40),
        status('front')], before, seconds=2.0)
    lines = picture(node)
    assert lines[0] == '/derain  1 camera  12:34:56'
    assert ' '.join(lines[1:3]) == (
        'engine  OK  ready, openvino on a CPU, nano, bf16, 1 failure, 55 °C, 40 % GPU ')
    state, fps, gate, _bar, rain, *rates = row(lines, 'camera')[1:]
    assert (state, fps, gate, rain) == ('OK', '29.8', 'wet', '0.084')
    assert rates == ['14.0', '0.5', '0.0', '1.0', '0.0']  # a second, over two
    assert row(lines, 'ms')[1:] == ['31', '56', '66', '0.3', '2.1', '24.2', '1.0', '2.4']
    assert row(lines, 'input')[1:] == ['/front/image_raw', '1920x1080', 'rgb8', 'stereo']


def test_the_bar_grows_with_the_rain():
    def cells(intensity):
        line, = (line for line in picture(NodeReport('/derain', [
            status('front', rain_intensity=intensity)])) if line.startswith('front  OK'))
        return sum('▏▎▍▌▋▊▉█'.index(letter) + 1 for letter in line if letter in '▏▎▍▌▋▊▉█')
    bars = [cells(intensity) for intensity in (0, 0.02, 0.1, 0.5, 1, 7)]
    assert bars == sorted(bars) and bars[0] == 0 < bars[1] and bars[-2:] == [48, 48]


def test_many_cameras_fit_a_terminal_of_80_by_24():
    names = ('front_stereo_left', 'front_stereo_right', 'rear', 'left')
    lines = picture(NodeReport('/derain', [
        status('engine', values=ENGINE), *map(status, names)]))
    assert len(lines) <= 24
    assert len({row(lines, 'camera', name[:4])[0] for name in names}) == 3
    text = '\n'.join(lines)
    assert 'front…_left' in text and 'front…right' in text  # their ends tell them apart
    assert len(picture(NodeReport('/derain', [*map(status, names)]), width=200)) < len(lines)


def test_what_is_missing_or_no_number_is_a_dash():
    empty = status('front', values={'fps': 'nan', 'age_p50_ms': 'soon', 'rain_intensity': ''})
    lines = picture(NodeReport('/derain', [empty]))
    assert row(lines, 'camera') == ['front', 'OK', *'--------']
    assert row(lines, 'ms') == ['front', *'--------']
    assert row(lines, 'input') == ['front', *'----']
    # Counts begin anew after a reset.
    before = {'/derain: front': dict.fromkeys(CAMERA, '9999')}
    lines = picture(NodeReport('/derain', [status('front')], before, 1.0))
    assert row(lines, 'camera')[-5:] == [*'-----']


def test_problems_are_told_now_and_later():
    bad = status('rear', WARN, 'no publisher on /rear/image_raw')
    node = NodeReport('/derain', [
        status('engine', ERROR, 'out of memory', ENGINE), status('front', message='idle: none'),
        bad], last_problems={
            '/derain: rear': ('12:00:00', bad),
            '/derain: front': ('11:59:58', status('front', ERROR, 'step is 3'))})
    lines = picture(node)
    assert 'ERROR engine: out of memory' in lines
    assert 'WARN rear: no publisher on /rear/image_raw' in lines
    assert 'front: idle: none' in lines
    assert '11:59:58 ERROR front: step is 3 (over)' in lines
    assert sum('no publisher' in line for line in lines) == 1
    assert row(lines, 'camera', 'rear')[1] == 'WARN'
    assert row(lines, 'camera', 'front')[1] == 'OK'


def test_a_node_that_went_silent_does_not_look_well():
    lines = picture(NodeReport('/derain', [
        status('engine', values=ENGINE), status('front')], silent_seconds=12.4))
    assert lines[1].startswith('no report for 12 s')
    assert row(lines, 'camera')[1] == 'GONE' and not any('OK' in line for line in lines)


def test_foreign_text_cannot_steer_the_terminal():
    evil = '\x1b[2J\x1b]0;owned\x07\n\r[red]\u202e' + 'x' * 10_000
    lines = picture(NodeReport(evil, [
        status(evil, ERROR, evil, image_topic=evil, gate=evil, size=evil)]))
    text = ''.join(lines)
    assert text.isprintable() and '[red]' in text
    assert len(lines) < 24


# Reports

def array(*statuses):
    return DiagnosticArray(status=list(statuses))


def report(*cameras, node='/derain'):
    """Return a message of a node with its engine."""
    return array(status('engine', values=ENGINE, node=node), *cameras)


def test_rates_are_taken_over_half_a_second_at_least():
    reports = Reports()
    for now, count in ((10.0, 100), (11.0, 130), (11.1, 133), (11.2, 136)):
        reports.add(report(status('front', derained=count)), now, '')
    node, = reports.nodes(11.3)
    assert node.previous['/derain: front']['derained'] == '100'
    assert node.seconds == pytest.approx(1.2)
    assert values_of(node.statuses[1])['derained'] == '136'
    reports.add(report(status('front', derained=160)), 12.0, '')
    node, = reports.nodes(12.0)
    assert node.previous['/derain: front']['derained'] == '136'
    assert node.seconds == pytest.approx(0.8)


def test_nodes_are_kept_apart_filtered_and_forgotten():
    every, named, last = Reports(), Reports('/b/derain'), Reports('derain')
    for reports in (every, named, last):
        for node in ('/b/derain', '/a/derain', '/c/other'):
            reports.add(report(status('front', node=node), node=node), 10.0, '')
        reports.add(array(DiagnosticStatus(name='battery')), 10.0, '')
    assert [node.name for node in every.nodes(10)] == ['/a/derain', '/b/derain', '/c/other']
    assert [node.name for node in named.nodes(10)] == ['/b/derain']
    assert [node.name for node in last.nodes(10)] == ['/a/derain', '/b/derain']
    assert named.others == {'/a/derain', '/c/other'} and every.foreign == 1
    assert not every.nodes(10.1 + FORGET_SECONDS)


def test_the_last_problem_is_remembered():
    reports = Reports()
    reports.add(report(status('front', ERROR, 'first')), 1.0, '10:00')
    reports.add(report(status('front', WARN, 'second')), 2.0, '10:01')
    reports.add(report(status('front')), 3.0, '10:02')
    (when, problem), = reports.nodes(3.0)[0].last_problems.values()
    assert (when, problem.message) == ('10:01', 'second')


@pytest.mark.parametrize(('messages', 'publishers', 'said'), [
    ([], 0, 'no publisher; start derain_node'), ([], 2, 'nothing arrives'),
    ([array(DiagnosticStatus(name='battery'))], 1, 'only other nodes report'),
    ([array(status('engine', values=ENGINE))], 1, 'not among the derain nodes heard: /derain'),
])
def test_silence_is_explained(messages, publishers, said, monkeypatch):
    monkeypatch.setenv('ROS_DOMAIN_ID', '17')
    reports = Reports('mine')
    for message in messages:
        reports.add(message, 1.0, '')
    text = nothing_heard(reports, 5.0, publishers)
    assert said in text and ('ROS_DOMAIN_ID is 17' in text) == (not reports.others)
