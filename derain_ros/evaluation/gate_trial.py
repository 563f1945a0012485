"""Trials of the rain gate: false openings in dry clips, and delay when rain begins."""

import copy
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from derain_ros.engines import Engine
from derain_ros.files.clip_sources import ClipSource
from derain_ros.files.pairs import BadPair
from derain_ros.images.memory import Memory
from derain_ros.rain import RainClip
from derain_ros.rain_gate import PROBE_SECONDS, GateSettings, RainGate, mask_response

SETTLE = 3.0
"""Seconds beyond ``dry_after`` for the gate to close at the start of a clip: it starts wet."""

PATIENCE = 8.0
"""Seconds after which rain that has not opened the gate counts as missed."""

_MANY = 10


@dataclass
class TrialShower:
    """Rain that began in second ``began`` of the clip, while the gate was closed.

    ``opened_after`` is the time until it opened, s; None if not within :data:`PATIENCE`.
    """

    intensity: float
    began: float
    opened_after: float | None = None


@dataclass
class GateTrial:
    """Results of the gate on one clip.

    ``responses`` are :func:`derain_ros.rain_gate.mask_response` of all masks of the dry clip, of
    whole frames while wet and of patches while dry. After the gate had time to close, ``judged``
    seconds of the dry clip remained, in which it was open for ``wet`` seconds and opened
    ``openings`` times. ``showers`` are the showers that were tried, in the order in which they
    began, without those cut off by the end of the clip; ``failed`` frames could not be read.
    """

    responses: list[float] = field(default_factory=list)
    judged: float = 0.0
    wet: float = 0.0
    openings: int = 0
    showers: list[TrialShower] = field(default_factory=list)
    failed: list[BadPair] = field(default_factory=list)

    @property
    def held_open(self) -> bool:
        """Whether the gate never closed."""
        return self.judged > 0 and self.wet == self.judged

    def describe(self) -> dict:
        """Return the trial for JSON, with the responses as in :func:`response_shares`."""
        return {
            'looks': len(self.responses), 'response': response_shares(self.responses),
            'judged_s': round(self.judged, 3), 'wet_s': round(self.wet, 3),
            'openings': self.openings, 'held_open': self.held_open,
            'failed_frames': len(self.failed), 'showers': [
                {name: value if value is None else round(value, 3)
                 for name, value in asdict(one).items()} for one in self.showers]}


def response_shares(responses: Sequence[float]) -> dict[str, float]:
    """Return 5th, 50th and 95th percentile and maximum of the responses; {} if there are none."""
    if not responses:
        return {}
    values = np.percentile(responses, (5, 50, 95, 100)).round(5).tolist()
    return dict(zip(('p5', 'p50', 'p95', 'max'), values, strict=True))


@dataclass
class _Tried:
    """A copy of the gate, in rain that only this copy sees."""

    gate: RainGate
    shower: TrialShower
    clip: RainClip
    memory: Memory = field(default_factory=Memory)
    frames: int = 0


def try_gate(
    source: ClipSource, engine: Engine, settings: GateSettings, *,
    intensities: Sequence[float] = (), every: float = 20.0, seed: int = 1,
    progress: Callable[[], object] = lambda: None
) -> GateTrial:
    """Run the gate over a clip that is assumed to be dry.

    Frames come at the times of a video, else at the clip's rate. While the gate is open, it sees
    frames only as often as it probes while it is closed; the node shows it every frame, with the
    same time constants. A model with memory is used as in the node. Every ``every`` seconds, plus
    up to a probe's period, rain of each of ``intensities`` begins. It is rendered over the
    following frames for copies of the closed gate only; the trial of the dry clip does not see it.
    ``seed`` is that of the first shower; the others count on from it.
    ``progress`` is called after each frame. Raises EngineError, or ValueError if the source is
    damaged.
    """
    trial, gate, memory = GateTrial(), RainGate(settings), Memory()
    period = float(1 / source.facts.rate)
    now = -period
    settled = settings.dry_after + SETTLE
    # Rain is independent of probes: it begins at any time between two of them.
    rng = np.random.default_rng(seed)
    next_rain, next_look = settled + rng.uniform(0, PROBE_SECONDS), 0.0
    tried: list[_Tried] = []
    count = 0
    for number, frame in enumerate(source.read()):
        progress()
        if isinstance(frame, BadPair):
            trial.failed.append(frame)
            now += period
            continue
        before = now
        now = number * period if frame.seconds is None else float(frame.seconds)
        step, picture = now - before, frame.rainy
        if now >= next_look if gate.wet else gate.probe_due(now):
            next_look, wet = now + PROBE_SECONDS - 0.5 * period, gate.wet
            _look(gate, engine, memory, picture, now, trial.responses)
            trial.openings += not wet and gate.wet and now >= settled
        if now >= settled:
            trial.judged += step
            trial.wet += step * gate.wet
        if not gate.wet and intensities and now >= next_rain:
            next_rain = now + every + rng.uniform(0, PROBE_SECONDS)
            for intensity in intensities:
                begun = copy.deepcopy(gate)
                begun.looks_again = False  # with a new memory, every look is a first one
                tried.append(_Tried(begun, TrialShower(intensity, now),
                                    RainClip(intensity, seed + count)))
                count += 1
        tried = [one for one in tried if not _ended(one, engine, picture, now, trial)]
    trial.showers.sort(key=lambda shower: (shower.began, shower.intensity))
    return trial


def _look(
    gate: RainGate, engine: Engine, memory: Memory, picture: np.ndarray, now: float,
    responses: list[float],
) -> None:
    """Update the gate with the mask of the frame, or of the patch that it asks for."""
    if not gate.wet:
        picture = picture[gate.next_patch(*picture.shape[:2])]
        if not gate.looks_again:
            memory.forget()
    remembers = engine.info.remembers
    infer = memory.through(engine.infer, now) if remembers else engine.infer
    mask = infer(np.ascontiguousarray(picture)[np.newaxis]).rain_mask[0]
    if not (remembers and gate.doubts(mask)):
        responses.append(mask_response(mask))
        gate.update(mask, now)


def _ended(one: _Tried, engine: Engine, picture: np.ndarray, now: float, trial: GateTrial) -> bool:
    """Probe for a gate in rain; returns whether its shower has been noticed or missed."""
    elapsed = now - one.shower.began
    if one.gate.probe_due(now):
        rainy = one.clip.render(picture, one.frames, elapsed).image
        _look(one.gate, engine, one.memory, rainy, now, [])
    one.frames += 1
    if one.gate.wet:
        one.shower.opened_after = elapsed
    elif elapsed < PATIENCE:
        return False
    trial.showers.append(one.shower)
    return True


def summarise(trials: Collection[GateTrial]) -> dict:
    """Return the results over all clips, for JSON.

    ``response`` has percentiles over all dry masks; ``rain`` has, by intensity as text, ``tried``,
    ``missed`` and, of the delays of those that opened it, ``p50_s``, ``p95_s``, ``max_s``.
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
        values = np.percentile(delays, (50, 95, 100)).round(3).tolist()
        found |= zip(('p50_s', 'p95_s', 'max_s'), values, strict=True)
    return found


def as_text(trials: Mapping[str, GateTrial], summary: dict, settings: GateSettings) -> str:
    """Return the figures as lines for a terminal; of many clips those in which it was open."""
    shown = trials if len(trials) <= _MANY else {
        name: trial for name, trial in trials.items() if trial.wet}
    width = max([12, *(len(name) for name in shown)])
    lines = [f'{"dry clip":{width}}  median    95 %     max     open of seconds  openings']
    for name, trial in shown.items():
        shares = response_shares(trial.responses)
        lines.append(_dry_line(name, width, shares, trial.wet, trial.judged, trial.openings))
    if len(trials) > 1:
        lines.append(_dry_line('all', width, *(
            summary[key] for key in ('response', 'wet_s', 'judged_s', 'openings'))))
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
