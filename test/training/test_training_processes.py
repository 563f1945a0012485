"""Runs as processes: resumed, interrupted, timed, and spread over two processes."""

import json
import signal
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from training_runs import ENVIRONMENT, derain, python

SMALL = ('--model', 'pico', '--batch', 2, '--size', 64, '--device', 'cpu', '--amp', 'off')

# Trains as configurations in JSON say, and keeps what each process holds at the end.
SCRIPT = """\
import json, os, sys
from pathlib import Path
import torch
from derain_ros.training.config import make_config
from derain_ros.network.dual_stage import DualStageConfig
from derain_ros.training.loop import Trainer

torch.set_num_threads(1)
rank = os.environ.get('RANK', '0')
for values in json.loads(sys.argv[1]):
    paths = {name: Path(values[name]) for name in ('data', 'out')}
    trainer = Trainer(make_config({**values, **paths}),
                      network=DualStageConfig(stem=4, cell=8, token=16))
    start = {n: p.detach().clone() for n, p in trainer.network.named_parameters()}
    trainer.run()
    end = dict(trainer.network.named_parameters())
    torch.save({'start': start, 'end': end}, paths['out'] / f'held_{rank}.pt')
"""


def flat(weights):
    return torch.cat([value.detach().flatten() for value in weights.values()])


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batches(pictures, tmp_path):
    script = tmp_path / 'train.py'
    script.write_text(SCRIPT)

    def values(name, **changes):
        return {'data': str(pictures), 'out': str(tmp_path / name), 'steps': 3, 'batch': 2,
                'size': 64, 'warm_up': 2, 'learning_rate': 1e-3, 'workers': 0,
                'device': 'cpu', 'amp': 'off', 'log_every': 1, **changes}

    def held(name, rank=0):
        return torch.load(tmp_path / name / f'held_{rank}.pt')

    out = python(script, json.dumps([values('two')]), processes=2).stdout
    first, second = held('two'), held('two', 1)
    for name, value in first['end'].items():
        assert torch.equal(value, second['end'][name]), name
    assert out.count('step 3 ') == 1, out  # one process logs
    assert 'crops a step (batch x accumulate x processes): 2 x 1 x 2' in out

    python(script, json.dumps([values('one', accumulate=2), values('half')]))
    one, half = held('one'), held('half')
    moved = (flat(one['end']) - flat(one['start'])).norm()
    apart = (flat(first['end']) - flat(one['end'])).norm()
    other = (flat(half['end']) - flat(one['end'])).norm()
    # Cluster centres follow half of the crops: not the same to the last bit.
    assert apart < 0.05 * moved, (apart, moved)
    assert other > 0.2 * moved, (other, moved)


def test_a_run_leaves_a_log_scores_and_pictures(pictures, tmp_path):
    pairs, run = tmp_path / 'pairs', tmp_path / 'run'
    (pairs / 'clean').mkdir(parents=True)
    cv2.imwrite(str(pairs / 'clean' / 'a.png'), np.full((64, 64, 3), 90, np.uint8))
    out = derain(
        'train', pictures, '-o', run, *SMALL, '--steps', 4, '--validation', pairs,
        '--set', 'log_every=2', '--set', 'warm_up=1', '--set', 'validate_every=2').stdout
    losses = [line for line in out.splitlines() if ' restored ' in line]
    assert [line.split()[1] for line in losses] == ['2', '4']
    assert all(float(line.split(' mask ')[1].split()[0]) > 0 for line in losses)
    scores = [json.loads(line) for line in (run / 'scores.jsonl').read_text().splitlines()]
    assert [line['step'] for line in scores] == [2, 4]
    assert scores[0]['clean_psnr'] > 20
    grid = cv2.imread(str(run / 'samples' / 'step_0000004.png'))
    assert grid.shape == (18 + 4 * 66, 5 * 66, 3)
    assert len(list((run / 'samples').iterdir())) == 2


@pytest.mark.parametrize(('number', 'status'), [
    (signal.SIGINT, 130), pytest.param(signal.SIGTERM, 0, marks=pytest.mark.slow)])
def test_a_signal_saves_and_ends(number, status, pictures, tmp_path):
    arguments = ['train', pictures, '-o', tmp_path, *SMALL, '--steps', 100000,
                 '--set', 'log_every=1', '--set', 'save_every=100000']
    run = subprocess.Popen(
        [sys.executable, '-m', 'derain_ros.cli', *map(str, arguments)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    with run:
        try:
            for line in run.stdout:
                if line.startswith('step 3 '):
                    break
            run.send_signal(number)
            out, err = run.communicate(timeout=60)
        finally:
            run.kill()
    assert run.returncode == status, err
    [stopped] = [line for line in out.splitlines() if line.startswith('stopped and saved')]
    step = torch.load(tmp_path / 'checkpoint.pt', weights_only=True)['step']
    assert f'at step {step};' in stopped
    assert 'Traceback' not in err
