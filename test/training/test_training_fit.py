"""A run whose schedule fits its time."""

import functools
import itertools

import pytest
from msgspec.structs import replace
from training_runs import small_config, tiny

from derain_ros.training import fit, loop
from derain_ros.training.config import ConfigError
from derain_ros.training.fit import Fit


@pytest.fixture
def config(pictures, tmp_path):
    return small_config(pictures, tmp_path, warm_up=120, batch=1, log_every=1000)


def test_steps_against_hand_computed_values(config):
    now = [100.0]
    fitting = Fit(1.0, config, clock=lambda: now[0])
    found = {}
    for step in range(1, 130):
        # Ten seconds for data and the first twenty steps, then ten steps a second.
        now[0] = 110.0 + max(0, step - 20) / 10
        found[step] = fitting.steps(step)
    # At step 120 20 of 60 seconds are gone; 8 are kept, and 2 %: (40 − 8) · 0.98 · 10 = 313.6.
    assert found.pop(120) == 120 + 313
    assert set(found.values()) == {None}


def test_a_time_that_is_over_leaves_one_step(config):
    now = [0.0]
    fitting = Fit(0.1, config, clock=lambda: now[0])
    for step in range(1, 121):
        now[0] = float(step)
        steps = fitting.steps(step)
    assert steps == 121


def test_a_short_warm_up_is_refused(config):
    with pytest.raises(ConfigError, match=r'warm_up: 50 steps are too few.* at least 120'):
        Fit(1.0, replace(config, warm_up=50))
    # What three workers have rendered ahead, each batch for two steps, tells no speed.
    with pytest.raises(ConfigError, match='at least 144'):
        Fit(1.0, replace(config, workers=3, echo=2))


def test_a_run_ends_its_schedule(config, monkeypatch):
    # A clock of 17,500 s a look, which no busy machine is short of, measured over 20 steps:
    # (36,000 − 35,000 − 8) · 0.98 · 20 / 17,500 = 1.1 steps are left.
    ticks = itertools.count(0.0, 17_500.0)
    monkeypatch.setattr(loop, 'Fit', functools.partial(Fit, clock=lambda: next(ticks)))
    monkeypatch.setattr(fit, '_FEWEST', 20)
    config = replace(config, warm_up=40)
    lines, steps = [], []
    trainer = tiny(config, lines.append, progress=steps.append)
    trainer.run(minutes=600.0, fit=True)
    assert 'step 40  there is time for 41 steps' in lines
    assert steps[-1] == trainer.config.steps == 41
    assert trainer.rate(41) == pytest.approx(0, abs=1e-9)
    with pytest.raises(ConfigError, match='fit: the run has begun; give --steps 41'):
        tiny(config, lines.append).run(minutes=1.0, fit=True)


@pytest.mark.parametrize('changes', [{}, {'validation': True}])
def test_what_cannot_be_fitted_is_refused(changes, config, tmp_path):
    (tmp_path / 'clean').mkdir()
    config = replace(config, **dict.fromkeys(changes, tmp_path))
    with pytest.raises(ConfigError, match='fit: needs a time'):
        tiny(config).run(minutes=1.0 if changes else None, fit=True)
