"""Ablation study: trains the network without each of its parts, at equal cost."""

import json
import statistics
from collections.abc import Callable
from dataclasses import replace

from msgspec import structs

from derain_ros.network.dual_stage import DualStageConfig, DualStageNetwork
from derain_ros.replacing import replace_file
from derain_ros.training.config import ConfigError, TrainingConfig
from derain_ros.training.loop import Trainer
from derain_ros.training.model_export import flops_per_pixel
from derain_ros.training.validation import score

PARTS = {
    'full': {},
    'no mask attention': {'mask_attention': False},
    'no morphology': {'morphology': False},
    'no clustering': {'clustering': False},
    'no stage 2': {'stage2': False},
}
"""Switches of :class:`DualStageConfig` for each ablation, by its name."""


def ablations(config: DualStageConfig) -> dict[str, DualStageConfig]:
    """Networks without each part, at the cost of the full one.

    The cost of the missing part is spent on convolution blocks after the attention of the
    token level, as many as bring the FLOPs nearest to those of the full network.

    ``config``: the full network. Returns configurations by the names of :data:`PARTS`.
    """
    target = flops_per_pixel(DualStageNetwork(config).eval())
    return {name: _match(replace(config, **off), target) for name, off in PARTS.items()}


def _match(config: DualStageConfig, target: int) -> DualStageConfig:
    before, after = config.token_blocks
    best, least = config, None
    while True:
        cost = flops_per_pixel(DualStageNetwork(config).eval())
        if least is None or abs(cost - target) < least:
            best, least = config, abs(cost - target)
        if cost >= target:
            return best
        after += 1
        config = replace(config, token_blocks=(before, after))


def spread(values: list[float]) -> tuple[float, float]:
    """Mean and sample standard deviation, 0 for a single value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def run_ablation(
    config: TrainingConfig,
    network: DualStageConfig,
    seeds: list[int],
    log: Callable[[str], None] = print,
) -> list[dict]:
    """Train and score the network and each ablation of it, once for each seed.

    A finished run is read back, an interrupted one is resumed. ``config`` applies to
    every run; its ``out`` is the folder of all, ``validation`` must be set. ``log`` is
    called with a line for each run. Returns for each run ``part``, ``seed``, ``steps``, ``batch``,
    ``size``, ``parameters``, ``flops_per_pixel`` and the figures of
    :func:`derain_ros.training.validation.score`. Raises ConfigError: the folder holds results of
    other settings; KeyboardInterrupt: after SIGINT or SIGTERM, when the run is saved.
    """
    networks = ablations(network)
    rows = []
    for seed in seeds:
        for part, candidate in networks.items():
            folder = config.out / f'{part.replace(" ", "_")}_{seed}'
            result = folder / 'result.json'
            settings = {
                'part': part,
                'seed': seed,
                'steps': config.steps,
                'batch': config.batch,
                'size': config.size,
            }
            if not result.exists():
                own = structs.replace(config, out=folder, seed=seed, validation=None)
                trainer = Trainer(own, log=lambda _line: None, network=candidate)
                trained = trainer.run()
                if trainer.step < config.steps:
                    raise KeyboardInterrupt  # it was told to stop, and has saved
                row = {
                    **settings,
                    'parameters': sum(p.numel() for p in trained.parameters()),
                    'flops_per_pixel': flops_per_pixel(trained),
                    **score(trained, config.validation),
                }
                replace_file(result, json.dumps(row, indent=2) + '\n')
            rows.append(json.loads(result.read_text(encoding='utf-8')))
            if {name: rows[-1].get(name) for name in settings} != settings:
                raise ConfigError(
                    f'{result}: made with other steps, batch or size; give another folder')
            log('  '.join(f'{name} {value}' for name, value in rows[-1].items()))
    return rows


def table(rows: list[dict]) -> str:
    """Rows of :func:`run_ablation` as Markdown: mean ± standard deviation over the seeds."""
    figures = [name for name in rows[0] if name.endswith(('_psnr', '_ssim'))]
    lines = [
        '| network | kFLOP/px | ' + ' | '.join(figures) + ' |',
        '|---|---|' + '---|' * len(figures),
    ]
    for part in dict.fromkeys(row['part'] for row in rows):
        own = [row for row in rows if row['part'] == part]
        cells = [part, f'{own[0]["flops_per_pixel"] / 1000:.1f}']
        for name in figures:
            mean, deviation = spread([row[name] for row in own])
            digits = 2 if name.endswith('_psnr') else 4
            cells.append(f'{mean:.{digits}f} ± {deviation:.{digits}f}')
        lines.append('| ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)
