"""``model: auto``: which model is taken for which cameras, in a node and by itself.

The models are those installed; how long each takes is commanded, as what they take here says
nothing about another machine. What a model is worth is for the tests of the models.
"""

import json
import time

import numpy as np
import pytest
from lens import Lens
from rig import Rig
from ros_fixtures import wait_for

from derain_ros.engines import Derained, Engine, EngineError, EngineInfo
from derain_ros.node import model_choice
from derain_ros.node.model_choice import ModelChoice, models_by_cost

NAMES = [model.name for model in models_by_cost()]
CHEAP, BEST = NAMES[0], NAMES[-1]
SIZE = (48, 64)
FRAME = np.zeros((1, *SIZE, 3), np.uint8)


class Timed(Engine):
    """Takes the time of its model, asleep or at work."""

    def __init__(self, bench, model):
        self.info = EngineInfo('timed', 'a bench', model, 'f32', 'it was asked for',
                               remembers=model in bench.remembering)
        self._bench, self.closed = bench, False

    def infer(self, images, *states):
        assert not self.closed and len(states) <= self.info.remembers
        self._bench.calls.append(self.info.model)
        end = time.monotonic() + self._bench.seconds.get(self.info.model, 0.001)
        while time.monotonic() < end:
            if not self._bench.busy:
                time.sleep(max(0.0, end - time.monotonic()))
        return Derained(images, images[..., 0])

    def close(self):
        self.closed = True


class Bench:
    """Makes choices between models that take so many seconds."""

    def __init__(self, folder, **seconds):
        self.folder, self.seconds, self.busy = folder, seconds, False
        self.demand = {SIZE: 10.0}
        self.broken, self.remembering, self.calls, self.log = [], [], [], []

    def make(self, model):
        if model in self.broken:
            raise EngineError('damaged')
        return Timed(self, model)

    def choice(self, budget=1.0):
        return ModelChoice(self.make, lambda: self.demand, budget, '', self.folder,
                           self.log.append)

    def taken(self, **more):
        choice = self.choice(**more)
        choice.warm_up(*SIZE)
        return choice.info.model


@pytest.mark.parametrize(('rates', 'best'), [
    ({SIZE: 10.0}, True),  # 10 times 40 ms
    ({SIZE: 40.0}, False),
    ({SIZE: 20.0, (96, 64): 20.0}, False),  # two cameras, each of which would fit
])
def test_the_best_model_that_keeps_the_rate_of_all_cameras_is_taken(tmp_path, rates, best):
    bench = Bench(tmp_path, **{BEST: 0.04})
    bench.demand = rates
    choice = bench.choice()
    for size in ((96, 64), SIZE):
        choice.warm_up(*size)
    assert choice.info.model == (BEST if best else NAMES[-2])
    line, = bench.log
    assert line.startswith(f'model auto takes {choice.info.model}: an inference takes {CHEAP} ')
    gap = round(1000 / sum(rates.values()))
    assert line.endswith(f'of the {gap} ms between the frames of all cameras')
    assert f'{BEST} ' in line and line.partition(': ')[2] in choice.info.reason


def test_what_a_memory_takes_counts(tmp_path, monkeypatch):
    monkeypatch.setattr(model_choice, 'time_memory', lambda height, width: 0.06)
    bench = Bench(tmp_path, **{BEST: 0.04})
    assert bench.taken() == BEST
    bench.remembering = [BEST]
    assert bench.taken() == NAMES[-2] and f'{BEST} 100 ms (100%)' in bench.log[-1]


def test_a_state_for_a_model_that_was_replaced_is_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(model_choice, 'PATIENCE', 0.0)
    monkeypatch.setattr(model_choice, 'LOOK_SECONDS', 0.0)
    bench = Bench(tmp_path)
    bench.remembering = [BEST]
    choice = bench.choice()
    choice.warm_up(*SIZE)
    bench.seconds[BEST] = 0.3
    for _ in range(5):
        choice.infer(FRAME, np.zeros((1, *SIZE, 4), np.uint8))
    assert choice.info.model == NAMES[-2] and not choice.info.remembers


def test_where_none_keeps_the_rate_the_cheapest_is_taken(tmp_path):
    bench = Bench(tmp_path, **dict.fromkeys(NAMES, 0.02))
    bench.demand = {SIZE: 100.0}
    assert bench.taken() == CHEAP


def test_cpu_time_counts_where_it_is_limited(tmp_path):
    bench = Bench(tmp_path, **{BEST: 0.04})
    bench.busy = True
    assert bench.taken() == BEST
    assert bench.taken(budget=0.01) != BEST


def test_times_are_remembered_and_a_damaged_file_is_not_fatal(tmp_path):
    bench = Bench(tmp_path, **{BEST: 0.2})
    assert bench.taken() != BEST
    assert BEST in bench.calls
    bench.calls.clear()
    assert bench.taken() != BEST
    assert BEST not in bench.calls
    file = tmp_path / 'model_times.json'
    assert all(len(times) == 2 for times in json.loads(file.read_text()).values())
    for text in ('{', '[]', '{"a": 3}'):
        file.write_text(text)
        assert bench.taken() != BEST


def test_times_that_cannot_be_kept_are_told_of_once(tmp_path):
    (tmp_path / 'file').touch()
    bench = Bench(tmp_path / 'file' / 'cache', **{BEST: 0.2})
    assert bench.taken() != BEST
    told = [line for line in bench.log if 'set engine_cache to another folder' in line]
    assert len(told) == 1 and 'model_times.json' in told[0]


def test_a_model_that_cannot_be_loaded_is_left_out(tmp_path):
    bench = Bench(tmp_path)
    bench.broken = [BEST]
    assert bench.taken() == NAMES[-2]
    assert f'model auto: {BEST} is left out: damaged' in bench.log
    bench.broken = list(NAMES)
    with pytest.raises(EngineError, match='damaged'):
        bench.choice()


def test_a_choice_waits_until_the_rate_is_known_and_then_only_steps_down(tmp_path, monkeypatch):
    monkeypatch.setattr(model_choice, 'PATIENCE', 0.3)
    monkeypatch.setattr(model_choice, 'LOOK_SECONDS', 0.05)
    bench = Bench(tmp_path)
    bench.demand = None
    choice = bench.choice()
    choice.warm_up(*SIZE)
    assert choice.info.model == CHEAP and 'not known yet' in choice.info.reason

    def runs(model):
        choice.infer(FRAME)
        return choice.info.model == model
    bench.demand = {SIZE: 10.0, (96, 64): 5.0}
    for _ in range(100):
        assert runs(CHEAP)  # no model has been tried at the other size
    bench.demand = {SIZE: 10.0}
    wait_for(lambda: runs(BEST), 'choice')
    bench.demand = {SIZE: 10.0, (96, 64): 5.0}  # a camera has come
    for _ in range(500):
        assert runs(BEST)
    bench.seconds[BEST] = 0.15  # of the 100 ms between two frames
    wait_for(lambda: runs(NAMES[-2]), 'step down')
    bench.seconds[BEST] = 0.001
    for _ in range(300):
        assert runs(NAMES[-2])
    bench.demand = {SIZE: 10.0}
    assert bench.taken() == NAMES[-2]  # what it took is remembered


def test_a_node_takes_the_best_model_steps_down_and_never_up_again(tmp_path):
    cache = str(tmp_path / 'cache')
    parameters = {'cameras': ['front'], 'model': 'auto', 'engine_cache': cache,
                  'watchdog_ms': 5000.0}
    with Rig(tmp_path, parameters) as rig:
        front = Lens(rig.active().peer, 'front')

        def model():
            return rig.peer.values('engine').get('model')
        with front.streaming(10):
            wait_for(lambda: model() == BEST, 'choice')
            assert f'model auto takes {BEST}: an inference takes {CHEAP} ' in rig.node.log()
            rig.engine.command(model_ms={BEST: 200})
            wait_for(lambda: model() == NAMES[-2], 'step down')
            assert f'model auto takes {NAMES[-2]}: an inference takes {BEST} ' in rig.node.log()
            rig.engine.command()
            front.derains()
        assert model() == NAMES[-2]
        assert rig.peer.change_state('deactivate') and rig.peer.change_state('cleanup')
        assert rig.peer.set('model', 'nano') == ''
