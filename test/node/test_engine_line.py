"""Which engine is tried next and when, and what is known of it by shape."""

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from derain_ros.engines.contract import KEPT_SIZES
from derain_ros.node import supervisor
from derain_ros.node.supervisor import SMALL_SHAPE, EngineLine, ShapeRecord

VGA, HD = (1, 480, 640, 3), (1, 720, 1280, 3)


def _after(line, failures):
    for _ in range(failures):
        line.failed()
    return line


def test_a_single_engine_is_waited_for_ever_longer():
    line = EngineLine(['openvino'])
    delays = []
    for _ in range(8):
        delays.append(_after(line, 1).delay())
        assert line.next_names() == ['openvino']
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60]
    assert line.failures == 8


def test_after_three_failures_in_a_row_the_next_is_tried_at_once():
    line = EngineLine(['tensorrt', 'openvino', 'torch'])
    assert _after(line, 2).next_names() == ['tensorrt', 'openvino', 'torch']
    assert line.delay() == 2
    _after(line, 1)
    assert line.delay() == 0
    assert line.next_names() == ['openvino', 'torch', 'tensorrt']
    line.created('openvino')
    assert _after(line, 1).delay() == 8
    assert line.next_names() == ['openvino', 'torch', 'tensorrt']


def test_success_ends_the_row_and_keeps_the_place():
    line = _after(EngineLine(['tensorrt', 'openvino']), 2)
    line.created('openvino')
    line.worked()
    assert line.failures == 2
    assert line.delay() == 1
    assert _after(line, 2).next_names() == ['openvino', 'tensorrt']
    line.reset()
    assert (line.failures, line.delay()) == (0, 1)
    line.created('one that is not in line')
    assert line.next_names() == ['openvino', 'tensorrt']


def test_the_limit_goes_by_the_slowest_inference_of_the_shape():
    shapes = ShapeRecord()
    assert shapes.missing([VGA, HD, VGA]) == [VGA, HD]
    assert shapes.limit(VGA) == 0.2
    shapes.warm(VGA, 0.02)
    assert shapes.limit(VGA) == 0.2
    shapes.took(VGA, 0.1)
    shapes.took(VGA, 0.03)
    assert shapes.limit(VGA) == pytest.approx(0.4)
    assert shapes.limit(HD) == 0.2
    assert shapes.missing([VGA, HD]) == [HD]
    for _ in range(100):
        shapes.took(VGA, 0.06)
    assert shapes.limit(VGA) == pytest.approx(0.24)
    shapes.new_engine()
    assert shapes.missing([VGA]) == [VGA]


def test_the_sizes_used_longest_ago_are_forgotten():
    shapes = ShapeRecord()
    assert shapes.last_used() == SMALL_SHAPE
    sizes = [(1, 64, 64 + number, 3) for number in range(KEPT_SIZES + 1)]
    for shape in sizes[:-1]:
        shapes.warm(shape, 0.01)
    assert shapes.missing(sizes[:1]) == []
    shapes.warm(sizes[-1], 0.01)
    assert shapes.missing(sizes) == [sizes[1]]
    assert shapes.last_used() == sizes[-1]


def test_a_refused_shape_is_refused_for_a_while(monkeypatch):
    now = 100.0
    monkeypatch.setattr(supervisor.time, 'monotonic', lambda: now)
    shapes = ShapeRecord()
    shapes.refuse(HD, 'no room')
    assert shapes.why_refused([VGA]) == ''
    assert shapes.why_refused([VGA, HD]) == 'no room'
    shapes.new_engine()
    assert shapes.why_refused([HD]) == 'no room'
    now += 60
    assert shapes.why_refused([HD]) == ''
    shapes.refuse(HD, 'no room')
    shapes.accept_all()
    assert shapes.why_refused([HD]) == ''
