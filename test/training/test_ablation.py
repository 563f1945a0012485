"""Ablation: equal cost, means over seeds, and a run of it from end to end."""

import json

import cv2
import numpy as np
import pytest
from training_runs import derain, write_pictures

from derain_ros.cli import main
from derain_ros.network.dual_stage import DualStageConfig, DualStageNetwork
from derain_ros.training.ablation import PARTS, ablations, spread
from derain_ros.training.model_export import flops_per_pixel


def test_networks_lack_one_part_each_and_cost_the_same():
    networks = ablations(DualStageConfig())
    assert list(networks) == list(PARTS)
    full = flops_per_pixel(DualStageNetwork(networks['full']).eval())
    for name, config in networks.items():
        off = [part for part in PARTS[name] if not getattr(config, part)]
        assert off == list(PARTS[name])
        cost = flops_per_pixel(DualStageNetwork(config).eval())
        assert cost == pytest.approx(full, rel=0.05)


def test_spread_against_hand_computed_values():
    assert spread([1.0, 2.0, 6.0]) == pytest.approx((3.0, 7**0.5))
    assert spread([4.0]) == (4.0, 0.0)


def test_a_run_scores_every_network_and_goes_on_where_it_stopped(tmp_path):
    (tmp_path / 'dry').mkdir()
    pictures, pairs, run = write_pictures(tmp_path / 'dry'), tmp_path / 'pairs', tmp_path / 'run'
    scene = cv2.resize(
        np.random.default_rng(0).integers(0, 200, (4, 6, 3), dtype=np.uint8), (96, 64))
    for name, picture in (('clean', scene), ('rainy', np.minimum(scene + 20, 255))):
        (pairs / name).mkdir(parents=True)
        cv2.imwrite(str(pairs / name / '1.png'), picture)

    def ablate(steps):
        # A process of its own: it forks, which other tests have made unsafe in this one.
        done = derain('ablate', pictures, '-o', run, '--validation', pairs, '--steps', steps,
                      '--batch', '1', '--size', '64', '--seeds', '1', check=False)
        return done.returncode, done.stdout, done.stderr

    status, first, _ = ablate('2')
    assert status == 0
    results = sorted(run.glob('*/result.json'))
    assert len(results) == len(PARTS)
    row = json.loads(results[0].read_text(encoding='utf-8'))
    assert {'part', 'seed', 'steps', 'rainy_psnr', 'clean_psnr'} <= set(row)
    times = [result.stat().st_mtime_ns for result in results]
    assert ablate('2')[:2] == (0, first)
    assert [result.stat().st_mtime_ns for result in results] == times
    assert (run / 'ablation.md').read_text(encoding='utf-8') in first
    status, _, error = ablate('3')
    assert (status, 'made with other steps' in error) == (2, True)


def test_a_negative_seed_is_refused(tmp_path, capfd):
    with pytest.raises(SystemExit, match='2'):
        main(['ablate', str(tmp_path), '-o', str(tmp_path / 'run'), '--validation',
              str(tmp_path), '--seeds', '1', '-2'])
    assert "'-2' is not a whole number from 0 on" in capfd.readouterr().err
