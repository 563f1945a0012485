"""Runs of a bag through a node, and the search for its highest rate, as one JSON file has them."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from derain_ros.bench.process_figures import cpu_and_rss
from derain_ros.bench.replay.run_figures import ProcessSample, run_figures
from derain_ros.bench.replay.search import HIGHEST, LOWEST, Trial, search, to_confirm
from derain_ros.engines import EngineInfo
from derain_ros.engines.model_facts import model_facts
from derain_ros.engines.models import ModelError
from derain_ros.live.live_run import LiveRun
from derain_ros.live.played_bag import PlayedBag

SAMPLE_SECONDS = 0.5
_FACTS = ('model', 'file', 'sha256', 'engine', 'device', 'precision')


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

        Raises
        ------
        LiveRunError
            One of the processes failed.

        """
        samples: list[ProcessSample] = []

        def watch(begins_or_ends: bool) -> None:
            if begins_or_ends or time.monotonic() >= samples[-1].time + SAMPLE_SECONDS:
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

        Raises
        ------
        LiveRunError
            A process failed.

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
            return _trial(figures, loss_limit)

        first = in_full(factor)
        if trial_seconds is None:
            return [first], None
        tried = search(attempt, _trial(first, loss_limit))
        runs, highest = [], first if tried[0].sustained else None
        for candidate in to_confirm(tried, factor):
            run = in_full(candidate)
            tried.append(_trial(run, loss_limit))
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
    known: dict[str, str | None] = {**dict.fromkeys(_FACTS), 'model': model, **values}
    info = EngineInfo(
        **{key: value or '' for key, value in values.items()}, model=model, reason='')
    try:
        facts = model_facts(model, SimpleNamespace(info=info))
    except (ModelError, OSError):
        return known
    return known | {key: getattr(facts, key) for key in ('model', 'file', 'sha256')}


def _trial(run: Mapping[str, Any], limit: float) -> Trial:
    loss = run['loss']
    return Trial(run['factor'], loss,
                 loss is not None and loss <= limit and run['pacing']['kept'])
