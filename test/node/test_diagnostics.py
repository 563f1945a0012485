"""The record of a camera, throttling, and what the statuses on /diagnostics say."""

import math
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from derain_ros.engines import EngineInfo
from derain_ros.node import camera_record
from derain_ros.node.camera_record import WINDOW, CameraRecord, CameraSnapshot, Failure
from derain_ros.node.mailbox import Counts
from derain_ros.node.reporter import camera_level, camera_values, engine_status, gpu_values
from derain_ros.rain_gate import GateSettings

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
NEW = Counts(5, derained=1, bypassed=1, passed_through=1, dropped=1, idle=1)
FRAMES = CameraSnapshot((48, 64), 'rgb8', latencies={'infer_p50_ms': 12.3456})
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


def test_a_snapshot_is_of_one_moment():
    record = CameraRecord(GateSettings())
    done = threading.Event()

    def write():
        for number in range(1, 3000):
            record.read((number, number), str(number), '')
            record.failed(str(number), by_engine=number % 2 == 0, fault=True)
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


def test_the_rain_intensity_is_unknown_without_a_recent_mask(monkeypatch):
    record = CameraRecord(GateSettings())
    record.update_rain(np.full((48, 64), 255, np.uint8), GateSettings())
    assert record.rain_intensity == record.snapshot().rain_intensity == 1.0
    monkeypatch.setattr(camera_record, 'FRESH_SECONDS', -1.0)
    assert math.isnan(record.rain_intensity) and math.isnan(record.snapshot().rain_intensity)


def test_a_camera_has_counts_latencies_and_what_is_known_of_its_frames():
    counts = Counts(9, derained=3, bypassed=1, passed_through=1, dropped=2, failed=1, idle=1)
    assert camera_values(counts, 1.5, FRAMES) == {
        'received': 9, 'published': 5, 'dropped': 2, 'failed': 1, 'idle': 1, 'derained': 3,
        'bypassed': 1, 'passed_through': 1, 'fps': '1.5', 'infer_p50_ms': '12.35',
        'encoding': 'rgb8', 'size': '64x48', 'rain_intensity': ''}
    rain = replace(FRAMES, rain_intensity=0.12345)
    assert camera_values(counts, 1.5, rain)['rain_intensity'] == '0.1235'


def failed(reason, by_engine):
    return replace(FRAMES, failure=Failure(reason, by_engine=by_engine))


@pytest.mark.parametrize(('new', 'faults', 'frames', 'problems', 'off', 'level', 'message'), [
    (NEW, 0, FRAMES, [], '', OK, '3 published, 1 dropped since the last report'),
    (NEW, 0, FRAMES, [], 'strength is 0',
     OK, 'switched off (strength is 0): 3 published, 1 dropped since the last report'),
    # Old failures do not raise the level.
    (NEW, 0, failed('a bad frame', False), [],
     '', OK, '3 published, 1 dropped since the last report'),
    (Counts(failed=1), 0, failed('step is 3', False), ['no publisher'],
     '', WARN, '1 frames failed, the last one: step is 3'),
    (Counts(failed=1), 0, failed('step is 3', True), ['no publisher'],
     '', ERROR, '1 frames failed, the last one: step is 3'),
    (NEW, 3, failed('it hangs', True), [],
     '', ERROR, '3 frames were not derained, the last one: it hangs'),
    (NEW, 0, FRAMES, ['silent', 'durability on /x'], '', WARN, 'silent; durability on /x'),
    (Counts(idle=2), 0, FRAMES, [], '', OK, 'idle: nobody subscribes to the images'),
])
def test_level_and_message_of_a_camera(new, faults, frames, problems, off, level, message):
    assert camera_level(new, faults, frames, problems, off) == (level, message)


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


def test_figures_of_the_gpu_are_those_of_the_device_in_use(monkeypatch):
    gpus, missing = {'0': 40, 'GPU-abc': 61}, [LookupError()]

    def init():
        if missing:
            raise missing.pop()

    nvml = SimpleNamespace(
        NVMLError=LookupError, NVML_TEMPERATURE_GPU=0, nvmlInit=init,
        nvmlDeviceGetHandleByIndex=lambda index: str(index),
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTemperature=lambda handle, kind: gpus[handle],
        nvmlDeviceGetUtilizationRates=lambda handle: SimpleNamespace(gpu=7))
    monkeypatch.setitem(sys.modules, 'pynvml', nvml)
    assert gpu_values() == {}  # the driver is not loaded yet
    for device, degrees in (('', 40), ('0,1', 40), ('GPU-abc', 61)):
        assert gpu_values(device) == {
            'gpu_temperature_c': degrees, 'gpu_utilisation_percent': 7}
    assert gpu_values('5') == {}  # there is none
