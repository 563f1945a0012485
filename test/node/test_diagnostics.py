"""The record of a camera, throttling, and what the statuses on /diagnostics say."""

import math
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from diagnostic_msgs.msg import DiagnosticStatus

from derain_ros.engines import EngineInfo
from derain_ros.node.camera_record import (
    STAGES,
    WINDOW,
    CameraRecord,
    CameraSnapshot,
    Failure,
)
from derain_ros.node.diagnostics import (
    CameraReport,
    Throttle,
    camera_status,
    engine_status,
)
from derain_ros.node.mailbox import Counts
from derain_ros.rain_gate import GateSettings

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
REPORT = CameraReport(
    node='/derain', name='front', image_topic='/front/image_raw', active=True,
    counts=Counts(9, derained=3, bypassed=1, passed_through=1, dropped=2, failed=1, idle=1),
    previous=Counts(4, derained=2, dropped=1, failed=1),
    seconds=2.0,
    frames=CameraSnapshot((48, 64), 'rgb8', latencies={'infer_p50_ms': 12.3456}),
    reliability='reliable',
)
INFO = EngineInfo('openvino', 'a CPU', 'nano', 'f32', 'it is there')


def values(status):
    return {pair.key: pair.value for pair in status.values}


def test_percentiles_are_those_of_the_window():
    record = CameraRecord(GateSettings())
    record.took('infer', 1000.0)
    assert record.snapshot().latencies['infer_p50_ms'] == 1e6
    for number in range(WINDOW):
        record.took('infer', (number % 100 + 1) / 1e3)
    found = record.snapshot().latencies
    assert found['infer_p50_ms'] == pytest.approx(50.5, abs=0.2)
    assert found['infer_p95_ms'] == pytest.approx(95.05, abs=0.2)
    assert found['infer_p99_ms'] == pytest.approx(99.01, abs=0.2)


def test_every_stage_has_its_keys_before_the_first_frame():
    found = CameraRecord(GateSettings()).snapshot().latencies
    assert set(found) == {
        f'{stage}_p{percentile}_ms' for stage in STAGES for percentile in (50, 95, 99)}
    assert STAGES == ('wait', 'decode', 'infer', 'encode', 'publish', 'age')
    assert all(math.isnan(value) for value in found.values())


def test_a_snapshot_is_of_one_moment():
    record = CameraRecord(GateSettings())
    done = threading.Event()

    def write():
        for number in range(1, 3000):
            record.read((number, number), str(number), '')
            record.not_derained(str(number), by_engine=number % 2 == 0)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set():
        found = record.snapshot()
        if found.size:
            number = int(found.encoding)
            assert found.size == (number, number)
            assert found.faults in (number, number - 1)
        if found.failure:
            assert found.failure == Failure(str(found.faults), by_engine=found.faults % 2 == 0)
    writer.join()


def test_the_record_knows_the_rain():
    record = CameraRecord(GateSettings(dry_after=0.0))
    assert record.may_be_wet and math.isnan(record.rain_intensity)
    dry, wet = np.zeros((48, 64), np.uint8), np.full((48, 64), 255, np.uint8)
    assert record.update_rain(dry, GateSettings(dry_after=0.0)) is False
    assert not record.snapshot().may_be_wet
    assert record.snapshot().rain_intensity == 0
    deadline = time.monotonic() + 10
    while record.update_rain(wet, GateSettings()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert record.may_be_wet
    record.update_rain(dry, GateSettings())
    record.forget_rain()
    assert record.may_be_wet and math.isnan(record.rain_intensity)


def test_throttle_lets_each_kind_through_now_and_then():
    throttle = Throttle(0.2)
    assert throttle.allows('a')
    assert throttle.allows('b')
    assert not throttle.allows('a')
    time.sleep(0.25)
    assert throttle.allows('a')
    assert not throttle.allows('a')


def test_camera_status_has_counts_latencies_and_topic():
    status = camera_status(REPORT)
    assert status.name == '/derain: front'
    assert status.hardware_id == '/front/image_raw'
    assert values(status) == {
        'received': '9', 'published': '5', 'dropped': '2', 'failed': '1', 'idle': '1',
        'derained': '3', 'bypassed': '1', 'passed_through': '1', 'fps': '1.5',
        'infer_p50_ms': '12.35', 'image_topic': '/front/image_raw', 'encoding': 'rgb8',
        'size': '64x48', 'reliability': 'reliable', 'sync_group': '', 'gate': 'off',
        'rain_intensity': '',
    }
    assert (status.level, status.message) == (OK, '3 published, 1 dropped since the last report')


def test_old_failures_do_not_raise_the_level():
    frames = CameraSnapshot(failure=Failure('a bad frame', by_engine=False))
    assert camera_status(replace(REPORT, frames=frames)).level == OK


@pytest.mark.parametrize(('by_engine', 'level'), [(False, WARN), (True, ERROR)])
def test_new_failures_raise_the_level_and_say_why(by_engine, level):
    report = replace(
        REPORT, previous=Counts(), problems=['no publisher'],
        frames=CameraSnapshot(failure=Failure('step is 3', by_engine=by_engine)))
    status = camera_status(report)
    assert status.level == level
    assert status.message == '1 frames failed, the last one: step is 3'


def test_frames_that_the_engine_left_are_told():
    frames = CameraSnapshot(failure=Failure('it hangs', by_engine=True))
    status = camera_status(replace(REPORT, faults=3, frames=frames))
    assert (status.level, status.message) == (
        ERROR, '3 frames were not derained, the last one: it hangs')
    assert camera_status(replace(REPORT, frames=frames)).level == OK


def test_weather_and_misfits_are_shown():
    status = camera_status(replace(
        REPORT, frames=CameraSnapshot(rain_intensity=0.12345), gate='wet', sync_group='pair'))
    assert (values(status)['rain_intensity'], values(status)['gate']) == ('0.1235', 'wet')
    assert values(status)['sync_group'] == 'pair'
    status = camera_status(replace(REPORT, problems=['silent', 'durability on /x']))
    assert (status.level, status.message) == (WARN, 'silent; durability on /x')


def test_a_camera_may_be_idle_or_inactive():
    idle = camera_status(replace(REPORT, counts=Counts(idle=3), previous=Counts(idle=1)))
    assert (idle.level, idle.message) == (OK, 'idle: nobody subscribes to the outputs')
    inactive = camera_status(replace(REPORT, active=False, problems=['no publisher']))
    assert (inactive.level, inactive.message) == (OK, 'inactive')


def test_engine_status():
    good = engine_status('/derain', INFO, '', 'not configured', {'state': 'ready', 'failures': 0})
    assert (good.name, good.level, good.hardware_id) == ('/derain: engine', OK, 'a CPU')
    assert values(good) == {
        'node': '/derain',
        'engine': 'openvino', 'device': 'a CPU', 'model': 'nano', 'precision': 'f32',
        'reason': 'it is there', 'state': 'ready', 'failures': '0',
    }
    bad = engine_status('/derain', INFO, 'out of memory', 'not configured', {})
    assert (bad.level, bad.message) == (ERROR, 'out of memory')
    none = engine_status('/derain', None, '', 'not configured', {'state': 'none', 'failures': 0})
    assert (none.level, none.message) == (WARN, 'not configured')
    assert set(values(none)) == set(values(good))
