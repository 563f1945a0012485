"""``derain bench --only bag``: the memory of the workers is seen."""

import multiprocessing
from contextlib import closing, contextmanager

import numpy as np
import pytest
from counting_worker import count_and_keep

from derain_ros.bench import bag_scenario
from derain_ros.bench.setting import Setting
from derain_ros.engines import create_engine

FRAMES = 10


@contextmanager
def _workers(count):
    context = multiprocessing.get_context('spawn')
    pipes, processes = [], []
    for _ in range(count):
        ours, theirs = context.Pipe()
        process = context.Process(target=count_and_keep, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        pipes.append(ours)
        processes.append(process)
    try:
        for pipe in pipes:
            _ask(pipe, 1)
        yield pipes
    finally:
        for pipe, process in zip(pipes, processes, strict=True):
            pipe.send(None)
            process.join(10)
            assert process.exitcode == 0


def _ask(pipe, megabytes):
    pipe.send(megabytes)
    assert pipe.poll(60)
    return pipe.recv()


@pytest.fixture(scope='module')
def engine():
    with closing(create_engine('openvino', 'nano')) as engine:
        yield engine


def test_memory_that_workers_keep_is_growth(engine, monkeypatch):
    monkeypatch.setattr(bag_scenario, '_SETTLE', 0.01)
    pictures = [np.zeros((64, 64, 3), np.uint8)]
    engine.infer(pictures[0][np.newaxis])
    turns = bag_scenario.Turns(engine, pictures, 1, 2)
    with _workers(2) as pipes:
        for number in range(FRAMES):
            turns.take(1)
            if number == FRAMES // 2:
                for pipe in pipes:
                    _ask(pipe, 30)
    turns.seconds = 1.0
    figures = {figure.name: figure for figure in turns.figures('two')}
    growth = [figure for name, figure in figures.items() if 'growth' in name]
    assert [figure.value for figure in growth] == pytest.approx([60] * 2, abs=16)
    assert [figure.verdict for figure in growth] == ['missed'] * 2
    found = turns.as_json()
    assert found['frames'] == found['engine_frames'] == FRAMES
    assert figures['two: speed'].value == FRAMES
    # Of three processes: this one has the engine.
    assert [frames for frames, *_ in found['memory_mib']] == list(range(1, FRAMES + 1))
    assert all(rss > anonymous > 0 for _, rss, anonymous in found['memory_mib'])


@pytest.mark.slow
def test_the_scenario_counts_the_memory_of_three_processes(tmp_path):
    found = bag_scenario.bag(Setting(
        bag=tmp_path, folder=tmp_path, topic='', quick=True, sizes=((96, 64),),
        parameters={'engine': 'openvino', 'model': 'nano'}))
    assert sum(bool(figure.bar) for figure in found.figures) == 12
    for kind in ('raw', 'jpeg'):
        one, two = (found.details[kind][name] for name in ('one_worker', 'two_workers'))
        assert one['frames'] == two['frames'] == 60
        assert one['engine_frames'] == two['engine_frames'] == 60
        memory = [max(rss for _, rss, _ in turns['memory_mib']) for turns in (one, two)]
        assert memory[1] > memory[0] + 150
    assert not list(tmp_path.iterdir())
