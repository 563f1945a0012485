"""What the rain gate makes of a dry clip, and how soon it notices rain that begins in it."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np

from derain_ros.engines import Engine
from derain_ros.files.clip_sources import ClipSource
from derain_ros.files.pairs import BadPair
from derain_ros.rain import RainClip
from derain_ros.rain_gate import PROBE_SECONDS, GateSettings, RainGate, mask_response

SETTLE = 3.0
"""Seconds that the gate has to close in from the start, beyond ``dry_after``: it starts wet."""

PATIENCE = 8.0
"""Seconds after which rain that has not opened the gate counts as missed."""


@dataclass
class TrialShower:
    """Rain that began while the gate was closed.

    Attributes
    ----------
    intensity
        As for :class:`derain_ros.rain.RainClip`.
    began
        Second of the clip.
    opened_after
        Seconds until the gate opened; None if it did not within :data:`PATIENCE`.

    """

    intensity: float
    began: float
    opened_after: float | None = None

    def describe(self) -> dict:
        """Return the shower, fit for JSON, its times to the millisecond."""
        return {name: value if value is None else round(value, 3)
                for name, value in asdict(self).items()}


@dataclass
class GateTrial:
    """The gate on one clip.

    Attributes
    ----------
    responses
        :func:`derain_ros.rain_gate.mask_response` of every look in the dry, of the whole frame
        while wet and of a patch while dry.
    judged, wet
        Seconds of the dry clip after the gate had time to close, and how many of them it was
        open.
    openings
        How often it opened in them.
    showers
        Rain that was tried, in the order in which it began; what the end of the clip cut off
        is not among it.
    failed
        Frames that could not be read.

    """

    responses: list[float] = field(default_factory=list)
    judged: float = 0.0
    wet: float = 0.0
    openings: int = 0
    showers: list[TrialShower] = field(default_factory=list)
    failed: list[BadPair] = field(default_factory=list)

    @property
    def held_open(self) -> bool:
        """The gate never closed."""
        return self.judged > 0 and self.wet == self.judged

    def describe(self) -> dict:
        """Return the trial, fit for JSON; of the responses 5 %, median, 95 % and largest."""
        return {
            'looks': len(self.responses), 'response': response_shares(self.responses),
            'judged_s': round(self.judged, 3), 'wet_s': round(self.wet, 3),
            'openings': self.openings, 'held_open': self.held_open,
            'failed_frames': len(self.failed), 'showers': [one.describe() for one in self.showers]}


def response_shares(responses: Sequence[float]) -> dict[str, float]:
    """Return 5 %, median, 95 % and largest of responses; nothing for none."""
    if not responses:
        return {}
    names = ('p5', 'p50', 'p95', 'max')
    values = np.percentile(responses, (5, 50, 95, 100))
    return {name: round(float(value), 5) for name, value in zip(names, values, strict=True)}


class _Tried:
    """A gate in rain that only it sees."""

    def __init__(self, gate: RainGate, shower: TrialShower, seed: int):
        self.gate = copy.deepcopy(gate)
        self.shower = shower
        self.clip = RainClip(shower.intensity, seed)
        self.frames = 0


def try_gate(
    source: ClipSource,
    engine: Engine,
    settings: GateSettings,
    *,
    intensities: Sequence[float] = (),
    every: float = 20.0,
    seed: int = 1,
    progress: Callable[[], object] = lambda: None,
) -> GateTrial:
    """Run the gate over a clip that is taken for dry.

    While it is open, it looks at a frame as often as it probes while it is closed; the node
    looks at every one, with the same time constants.

    Parameters
    ----------
    source
        The clip; frames are taken to come at its rate.
    engine
        Gives the masks.
    settings
        Of the gate.
    intensities
        Of rain that begins, rendered over the frames that follow, in copies of the closed gate;
        the dry clip does not see it.
    every
        Seconds from the beginning of such rain to the next, and up to a probe's period more.
    seed
        Of the first rain; others count on from it.
    progress
        Called after each frame.

    Raises
    ------
    EngineError
        The engine failed.
    ValueError
        The source is damaged.

    """
    trial, gate = GateTrial(), RainGate(settings)
    period = 1 / source.facts.rate
    settled = settings.dry_after + SETTLE
    # Rain knows nothing of probes: it begins anywhere between two of them.
    rng = np.random.default_rng(seed)
    next_rain, next_look = settled + rng.uniform(0, PROBE_SECONDS), 0.0
    tried: list[_Tried] = []
    count = 0
    for number, frame in enumerate(source.read()):
        progress()
        if isinstance(frame, BadPair):
            trial.failed.append(frame)
            continue
        now, picture = number * period, frame.rainy
        if gate.wet and now >= next_look:
            next_look = now + PROBE_SECONDS - 0.5 * period
            _look(gate, engine, picture, now, trial.responses)
        elif gate.probe_due(now):
            _look(gate, engine, picture, now, trial.responses)
            trial.openings += gate.wet and now >= settled
        if now >= settled:
            trial.judged += period
            trial.wet += period * gate.wet
        if not gate.wet and intensities and now >= next_rain:
            next_rain = now + every + rng.uniform(0, PROBE_SECONDS)
            for intensity in intensities:
                tried.append(_Tried(gate, TrialShower(intensity, now), seed + count))
                count += 1
        tried = [one for one in tried if not _ended(one, engine, picture, now, trial)]
    trial.showers.sort(key=lambda shower: (shower.began, shower.intensity))
    return trial


def _look(
    gate: RainGate, engine: Engine, picture: np.ndarray, now: float, responses: list[float]
) -> None:
    """Let the gate take in the mask of the frame, or of the patch that it asks for."""
    if not gate.wet:
        picture = picture[gate.next_patch(*picture.shape[:2])]
    mask = engine.infer(np.ascontiguousarray(picture)[np.newaxis]).rain_mask[0]
    responses.append(mask_response(mask))
    gate.update(mask, now)


def _ended(
    one: _Tried, engine: Engine, picture: np.ndarray, now: float, trial: GateTrial
) -> bool:
    """Let a gate in rain look; return whether its shower has been noticed or missed."""
    elapsed = now - one.shower.began
    if one.gate.probe_due(now):
        rainy = one.clip.render(picture, one.frames, elapsed).image
        _look(one.gate, engine, rainy, now, [])
    one.frames += 1
    if one.gate.wet:
        one.shower.opened_after = elapsed
    elif elapsed < PATIENCE:
        return False
    trial.showers.append(one.shower)
    return True
