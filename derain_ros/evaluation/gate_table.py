"""Figures of several :class:`derain_ros.evaluation.gate_trial.GateTrial` together, as text."""

from collections.abc import Collection, Mapping

import numpy as np

from derain_ros.evaluation.gate_trial import PATIENCE, GateTrial, TrialShower, response_shares
from derain_ros.rain_gate import GateSettings

_MANY = 10


def summarise(trials: Collection[GateTrial]) -> dict:
    """Return what all clips come to.

    Returns
    -------
    dict
        ``clips``, ``held_open``; ``response``, shares over all looks in the dry; ``judged_s``,
        ``wet_s``, ``openings``; ``rain``: by intensity as text, ``tried``, ``missed``, and, of
        those that opened it, ``p50_s``, ``p95_s``, ``max_s``.

    """
    showers: dict[float, list[TrialShower]] = {}
    for trial in trials:
        for shower in trial.showers:
            showers.setdefault(shower.intensity, []).append(shower)
    return {
        'clips': len(trials),
        'held_open': sum(trial.held_open for trial in trials),
        'response': response_shares([one for trial in trials for one in trial.responses]),
        'judged_s': round(sum(trial.judged for trial in trials), 3),
        'wet_s': round(sum(trial.wet for trial in trials), 3),
        'openings': sum(trial.openings for trial in trials),
        'rain': {f'{intensity:g}': _delays(found) for intensity, found in sorted(showers.items())},
    }


def _delays(showers: list[TrialShower]) -> dict:
    delays = [one.opened_after for one in showers if one.opened_after is not None]
    found: dict = {'tried': len(showers), 'missed': len(showers) - len(delays)}
    if delays:
        values = np.percentile(delays, (50, 95, 100))
        found |= {name: round(float(value), 3)
                  for name, value in zip(('p50_s', 'p95_s', 'max_s'), values, strict=True)}
    return found


def as_text(trials: Mapping[str, GateTrial], summary: dict, settings: GateSettings) -> str:
    """Return the figures as lines for a terminal; of many clips those in which it opened."""
    shown = trials if len(trials) <= _MANY else {
        name: trial for name, trial in trials.items() if trial.wet}
    width = max([12, *(len(name) for name in shown)])
    lines = [f'{"dry clip":{width}}  median    95 %     max     open of seconds  openings']
    for name, trial in shown.items():
        shares = response_shares(trial.responses)
        lines.append(_dry_line(name, width, shares, trial.wet, trial.judged, trial.openings))
    if len(trials) > 1:
        lines.append(_dry_line('all', width, summary['response'], summary['wet_s'],
                               summary['judged_s'], summary['openings']))
        lines.append(f'held open throughout: {summary["held_open"]} of {summary["clips"]} clips')
    if not summary['judged_s']:
        lines.append('no clip is long enough for the gate to close: it starts wet')
    if summary['rain']:
        lines += ['', 'rain over the closed gate   opens after: median   95 %  worst   missed']
        for intensity, found in summary['rain'].items():
            times = ''.join(
                f'{found[name]:6.2f}s' if name in found else '      –'
                for name in ('p50_s', 'p95_s', 'max_s'))
            lines.append(f'intensity {intensity:<17} {"":9}{times}   '
                         f'{found["missed"]} of {found["tried"]}')
        lines.append(f'(missed: not within {PATIENCE:g} s)')
    lines += ['', 'median, 95 %, max: share of the picture that the network marks as rain, of '
              f'all looks; thresholds {settings.wet_above:g} and {settings.dry_below:g}']
    return '\n'.join(lines)


def _dry_line(
    name: str, width: int, shares: dict, wet: float, judged: float, openings: int
) -> str:
    figures = ''.join(f'{shares[key]:8.4f}' if shares else '       –'
                      for key in ('p50', 'p95', 'max'))
    return f'{name:{width}}{figures}  {wet:7.1f} of {judged:7.1f}  {openings:8}'
