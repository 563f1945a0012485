"""A run whose schedule fits its time."""

import pytest

pytest.importorskip('torch', reason='training needs the extra `train`')

from training_runs import small_config, write_pictures

from derain_ros.training.config import ConfigError
from derain_ros.training.fit import Fit
from derain_ros.training.loop import Trainer


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp('dry'))


def test_steps_against_hand_computed_values():
    now = [100.0]
    fit = Fit(1.0, warm_up=120, clock=lambda: now[0])
    found = {}
    for step in range(1, 130):
        # Ten seconds for data and the first twenty steps, then ten steps a second.
        now[0] = 110.0 + max(0, step - 20) / 10
        found[step] = fit.steps(step)
    # At step 120 20 of 60 seconds are gone; 8 are kept, and 2 %: (40 − 8) · 0.98 · 10 = 313.6.
    assert found.pop(120) == 120 + 313
    assert set(found.values()) == {None}


def test_a_time_that_is_over_leaves_one_step():
    now = [0.0]
    fit = Fit(0.1, warm_up=100, clock=lambda: now[0])
    for step in range(1, 101):
        now[0] = float(step)
        steps = fit.steps(step)
    assert steps == 101


def test_a_short_warm_up_is_refused():
    with pytest.raises(ConfigError, match='warm_up: 50 steps are too few'):
        Fit(1.0, warm_up=50)


def test_a_run_ends_its_schedule(pictures, tmp_path):
    lines, steps = [], []
    config = small_config(pictures, tmp_path, warm_up=100, batch=1, log_every=1000)
    trainer = Trainer(config, lines.append, progress=steps.append)
    trainer.run(minutes=0.25, fit=True)
    [line] = [line for line in lines if 'there is time for' in line]
    whole = int(line.split('for ')[1].split()[0])
    assert trainer.config.steps == whole > 100
    # On a machine that has become slower meanwhile its time ends first.
    assert steps[-1] == whole or '--steps' in lines[-1]


@pytest.mark.parametrize(('minutes', 'steps'), [(None, 0), (1.0, 3)])
def test_what_cannot_be_fitted_is_refused(minutes, steps, pictures, tmp_path):
    config = small_config(pictures, tmp_path, steps=3, save_every=1)
    if steps:
        Trainer(config, lambda _line: None).run()
    with pytest.raises(ConfigError, match='fit: needs a time'):
        Trainer(config, lambda _line: None).run(minutes=minutes, fit=True)
