"""``derain replay-bench``: runs of a bag through a node, and the search for its highest rate."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, NamedTuple

from derain_ros.bench.process_figures import cpu_and_rss
from derain_ros.bench.replay_figures import ProcessSample, run_figures
from derain_ros.engines import EngineInfo
from derain_ros.engines.model_facts import model_facts
from derain_ros.engines.models import ModelError
from derain_ros.live.live_run import LiveRun
from derain_ros.live.played_bag import PlayedBag

LOWEST, HIGHEST = 1 / 64, 64.0
"""Factors beyond which nothing is tried."""

_SAMPLE_SECONDS = 0.5
_LINEAR_STEP = 1.05
_BINARY_RATIO = 1.1
_CONFIRMATIONS = 5


class Trial(NamedTuple):
    """A factor that was tried.

    ``loss`` is the share of the frames sent that did not come back (0–1; None if none was sent),
    ``sustained`` that it was within the limit and the player kept the pace.
    """

    factor: float
    loss: float | None
    sustained: bool

    @staticmethod
    def of(run: Mapping[str, Any], limit: float) -> 'Trial':
        """Judge the figures of a run."""
        loss = run['loss']
        return Trial(run['factor'], loss,
                     loss is not None and loss <= limit and run['pacing']['kept'])


def search(measure: Callable[[float], Trial], first: Trial) -> list[Trial]:
    """Find the highest factor that is sustained; returns all trials in order, ``first`` included.

    From a first trial the factor is doubled until one fails (or halved until one holds), then
    the gap is halved until its ends are within 10 %, then the best one is raised in steps of
    5 %: what ros2_benchmark's binary and linear searches do.
    """
    tried = [first]

    def sustained(factor: float) -> bool:
        tried.append(measure(round(factor, 4)))
        return tried[-1].sustained

    good, bad = (first.factor, None) if first.sustained else (None, first.factor)
    while bad is None and good * 2 <= HIGHEST:
        good, bad = (good * 2, None) if sustained(good * 2) else (good, good * 2)
    while good is None and bad / 2 >= LOWEST:
        good, bad = (bad / 2, bad) if sustained(bad / 2) else (None, bad / 2)
    if good is None or bad is None:
        return tried
    while bad / good > _BINARY_RATIO + 1e-9:
        middle = (good + bad) / 2
        good, bad = (middle, bad) if sustained(middle) else (good, middle)
    while good * _LINEAR_STEP < bad and sustained(good * _LINEAR_STEP):
        good *= _LINEAR_STEP
    return tried


def best(tried: list[Trial]) -> float | None:
    """Return the highest factor that was sustained."""
    return max((one.factor for one in tried if one.sustained), default=None)


def to_confirm(tried: list[Trial], known: float) -> Iterator[float]:
    """Yield the factors to play in full, until one holds: the best one, and steps below.

    ``known`` was played in full already; none below it is worth it if it held.
    """
    factor = best(tried) or 0.0
    lowest = known if any(one.sustained and one.factor == known for one in tried) else 0.0
    for _ in range(_CONFIRMATIONS):
        if factor <= lowest:
            return
        yield round(factor, 4)
        factor /= _LINEAR_STEP


@dataclass
class ReplayBench:
    """A node that a bag can be played into, again and again.

    Attributes
    ----------
    run
        The node, the player and the listener.
    recording
        What is played.
    progress
        Called some times a second while the bag is played, with the seconds that it has been
        and those that it will be; ``(seconds, seconds)`` at the end.

    """

    run: LiveRun
    recording: PlayedBag
    progress: Callable[[float, float], Any] = lambda played, seconds: None

    def play(self, factor: float, seconds: float) -> dict:
        """Play the bag, repeated or cut, so much faster than recorded; returns the figures.

        LiveRunError says that one of the processes failed.
        """
        samples: list[ProcessSample] = []

        def watch(begins_or_ends: bool) -> None:
            if begins_or_ends or time.monotonic() >= samples[-1].time + _SAMPLE_SECONDS:
                samples.append(ProcessSample(time.monotonic(), *cpu_and_rss(self.run.pid)))
            if not begins_or_ends:
                self.progress(min(samples[-1].time - samples[0].time, seconds), seconds)

        played = self.run.play(seconds, factor, watch)
        self.progress(seconds, seconds)
        return run_figures(factor, seconds, played, samples, self.recording.cameras)

    def measure(
        self, *, factor: float, seconds: float | None, loss_limit: float,
        trial_seconds: float | None, told: Callable[[str, dict], None],
    ) -> tuple[list[dict[str, Any]], dict[str, Any] | None]:
        """Play the bag in full, and if asked for search for the highest factor.

        Parameters
        ----------
        factor
            How much faster than recorded to play.
        seconds
            Length of a run; None plays the bag once.
        loss_limit
            Share of lost frames, 0–1, up to which a factor counts as sustained.
        trial_seconds
            Length of each trial of the search; None leaves the search out.
        told
            Called with ``run`` or ``trial`` and the figures of each as it is done.

        Returns
        -------
        runs, search
            As the JSON file of kind ``replay`` has them.

        """
        def in_full(factor: float) -> dict[str, Any]:
            # Played faster, a bag is over sooner; it should not be shorter than a trial.
            length = seconds or max(self.recording.period / 1e9 / factor, trial_seconds or 0.0)
            run = self.play(factor, length)
            told('run', run)
            return run

        def attempt(factor: float) -> Trial:
            figures = self.play(factor, trial_seconds)
            told('trial', figures)
            return Trial.of(figures, loss_limit)

        first = in_full(factor)
        if trial_seconds is None:
            return [first], None
        tried = search(attempt, Trial.of(first, loss_limit))
        runs, highest = [], first if tried[0].sustained else None
        for candidate in to_confirm(tried, factor):
            run = in_full(candidate)
            tried.append(Trial.of(run, loss_limit))
            if tried[-1].sustained:
                runs, highest = [run], run
                break
        return [first, *runs], {
            'loss_limit': loss_limit,
            'highest_factor': highest and highest['factor'],
            'highest_fps': highest and highest['fps'],
            'tried': [one._asdict() for one in tried]}


def search_note(found: Mapping[str, Any]) -> str:
    """Return what a search found, one sentence."""
    limit = f'{100 * found["loss_limit"]:g} % loss'
    highest = found['highest_factor']
    if highest is None:
        lowest = min(one['factor'] for one in found['tried'])
        return f'not sustained at any factor tried, down to {max(lowest, LOWEST):g}x ({limit})'
    more = ', the highest that is tried' if highest * 2 > HIGHEST else ''
    return f'sustained up to {highest:g}x{more}: {found["highest_fps"]:.1f} fps ({limit})'


def facts_of(model: str, engine: Mapping[str, str]) -> dict[str, str | None]:
    """Return what is known of a model from its name and from the node's status of the engine."""
    values = {key: engine.get(key) or None for key in ('engine', 'device', 'precision')}
    known = dict.fromkeys(('model', 'file', 'sha256'))
    info = EngineInfo(**{key: text or '' for key, text in values.items()}, model=model, reason='')
    try:
        facts = model_facts(model, SimpleNamespace(info=info))
    except (ModelError, OSError):
        return {**known, 'model': model, **values}
    return {**{key: getattr(facts, key) for key in known}, **values}
