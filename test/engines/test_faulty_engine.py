"""The engine that the tests of faults command, against the contract of engines.

That it hangs for ever when told to is not asserted here: nothing could end the test. The
tests of the node do so, in a process that they can kill.
"""

import threading
import time
from functools import partial
from types import SimpleNamespace

import faulty_engine
import numpy as np
import pytest
from faulty_engine import Controls

from derain_ros.engines import EngineError

PICTURES = np.random.default_rng(3).integers(0, 256, (2, 48, 64, 3), np.uint8)


@pytest.fixture
def controls(tmp_path, monkeypatch):
    controls = Controls(tmp_path / 'engines')
    for key, value in controls.environment.items():
        monkeypatch.setenv(key, value)
    return controls


def create(name='faulty'):
    return faulty_engine.create(name, SimpleNamespace(name='nano'), 'auto')


def test_it_keeps_the_contract_while_nothing_is_commanded(controls):
    engine = create()
    assert (engine.info.engine, engine.info.model) == ('faulty', 'nano')
    result = engine.infer(PICTURES)
    assert np.array_equal(result.image, faulty_engine.mark(PICTURES))
    assert set(np.abs(result.image.astype(int) - PICTURES).flat) == {16}
    assert result.rain_mask.shape == (2, 48, 64)
    assert result.rain_mask.dtype == np.uint8
    assert set(result.rain_mask.flat) == {200}
    again = engine.infer(PICTURES)
    assert not np.shares_memory(result.image, again.image)
    with pytest.raises(ValueError, match='uint8'):
        engine.infer(PICTURES.astype(float))
    engine.warm_up(32, 40, 3)
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match='closed'):
        engine.infer(PICTURES)
    assert [event['shape'] for event in controls.events('warm_up')] == [[3, 32, 40, 3]]
    assert len(controls.events('create')) == len(controls.events('created')) == 1


def test_it_fails_as_commanded_while_it_runs(controls):
    engine = create()
    for mode, error in (('raise', EngineError), ('crash', ZeroDivisionError),
                        ('memory', MemoryError)):
        controls.command(mode=mode)
        with pytest.raises(error):
            engine.infer(PICTURES)
    controls.command(mode='black')
    assert not engine.infer(PICTURES).image.any()
    controls.command(mode='nan')
    assert np.isnan(engine.infer(PICTURES).image).all()
    controls.command(mode='shape')
    assert engine.infer(PICTURES).image.shape == (2, 24, 64, 3)
    controls.command(mask=-1)
    levels = engine.infer(PICTURES).rain_mask[:, 5, 7]
    assert list(levels) == list(PICTURES[:, 0, 0, 0])
    controls.command(creation='fail')
    with pytest.raises(EngineError, match='faulty'):
        create()


@pytest.mark.parametrize('what', ['creation', 'mode'])
def test_a_hang_ends_when_commanded(controls, what):
    call = create if what == 'creation' else partial(create().infer, PICTURES)
    controls.command(**{what: 'hang'})
    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    controls.command()
    thread.join(5)
    assert not thread.is_alive()


def test_the_log_tells_threads_times_and_two_callers_at_once(controls):
    start = time.monotonic()
    engine = create()
    controls.command(infer_ms=500)
    threads = [threading.Thread(target=engine.infer, args=[PICTURES]) for _ in range(2)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 5
    while len(controls.events(since=start)) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    engine.close()
    for thread in threads:
        thread.join()
    events = controls.events(since=start)
    found = [event['event'] for event in events]
    assert found[:2] == ['create', 'created']
    assert sorted(found[2:4]) == ['infer', 'two at once']
    assert found[4:] == ['closed while running']
    assert len({event['thread'] for event in events}) == 3
    assert controls.events(since=time.monotonic()) == []
