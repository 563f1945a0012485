"""A node, a player and a listener, each a process of its own, and runs of a bag through them."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from derain_ros.bench.replay.played_bag import PlayedBag
from derain_ros.bench.replay.run_figures import ProcessSample, ReplayedFrame, run_figures
from derain_ros.live.listener import number
from derain_ros.live.live_run import LiveRun, live_run
from derain_ros.live.process_stats import cpu_seconds, resident_mib
from derain_ros.live.processes import child
from derain_ros.live.replay_process import ReplayProcess

SAMPLE_SECONDS = 0.5
_ANSWER_SECONDS = 60.0


@dataclass
class ReplayBench:
    """A node that a bag can be played into; made by :func:`replay_bench`.

    Attributes
    ----------
    run
        The node and the listener.
    player
        What publishes.
    recording
        What is played.
    report
        File that the player writes.
    before
        All values of each camera in /diagnostics as they are now, by namespace.
    progress
        Called some times a second while the bag is played, with the seconds that it has been
        and those that it will be; ``(seconds, seconds)`` at the end.

    """

    run: LiveRun
    player: ReplayProcess
    recording: PlayedBag
    report: Path
    before: Mapping[str, Mapping[str, str]]
    progress: Callable[[float, float], Any] = lambda played, seconds: None

    def engine(self) -> Mapping[str, str]:
        """Return what /diagnostics says of the engine."""
        return self.run.listener.values('derain: engine')

    def play(self, factor: float, seconds: float) -> dict:
        """Play the bag into the node.

        Parameters
        ----------
        factor
            How much faster than recorded.
        seconds
            How long; the bag is repeated or cut.

        Returns
        -------
        dict
            See :func:`derain_ros.bench.replay.run_figures.run_figures`.

        Raises
        ------
        LiveRunError
            One of the processes failed.

        """
        samples: list[ProcessSample] = []

        def take() -> None:
            samples.append(ProcessSample(
                time.monotonic(), cpu_seconds(self.run.pid), resident_mib(self.run.pid)))

        def watch() -> None:
            self.run.check()
            if samples and time.monotonic() >= samples[-1].time + SAMPLE_SECONDS:
                take()
                self.progress(min(samples[-1].time - samples[0].time, seconds), seconds)

        self.run.check()
        self.run.listener.drain()
        self.player.command(f'play {factor!r} {seconds!r}')
        self.player.await_answer(_ANSWER_SECONDS, watch)
        take()
        self.player.await_answer(2 * seconds + _ANSWER_SECONDS, watch)
        self.run.check()
        take()
        self.progress(seconds, seconds)
        self.player.await_answer(_ANSWER_SECONDS, self.run.check)
        after = self.run.settle()
        played = json.loads(self.report.read_text())
        self.report.unlink()
        before, self.before = self.before, after
        return run_figures(
            factor, seconds, played, samples, self.recording.cameras,
            {camera.topic: self._frames(camera.namespace, played['sent'][camera.topic])
             for camera in self.recording.cameras},
            {camera.topic: (before[camera.namespace], after[camera.namespace])
             for camera in self.recording.cameras})

    def _frames(self, namespace: str, sent: list[tuple[int | None, int]]) -> list[ReplayedFrame]:
        """Put together what was sent with what came of it."""
        listener = self.run.listener
        arrivals: dict[int, int] = {}
        for found in listener.recorded(f'{namespace}/derained/image'):
            arrivals.setdefault(found.stamp, found.time)
        told = listener.told(namespace)
        frames = []
        for stamp, handed_over in sent:
            word = told.get(stamp)
            frames.append(ReplayedFrame(
                stamp=stamp, handed_over=handed_over, arrival=arrivals.get(stamp),
                outcome=None if word is None else word.message,
                infer_ms=_known(word.infer_ms) if word else None,
                rain_intensity=_known(number(word.values, 'rain_intensity')) if word else None))
        return frames


@contextmanager
def replay_bench(
    folder: Path, recording: PlayedBag, parameters: Mapping[str, str], *, mask: bool = True
) -> Iterator[ReplayBench]:
    """Start node, player and listener; every process is gone when the context ends.

    Parameters
    ----------
    folder
        For logs and what the processes tell each other.
    recording
        What to play.
    parameters
        Of the node, besides those of its cameras.
    mask
        Listen to the rain masks too, which the node then makes.

    Yields
    ------
    ReplayBench
        With the engine ready for every frame size.

    Raises
    ------
    LiveRunError
        A process failed, or the engine does not become ready.

    """
    plan, log, report = (folder / name for name in ('play.json', 'player.log', 'played.json'))
    recording.write(plan)
    cameras = recording.cameras
    for camera in cameras:
        parameters = {**camera.parameters(), **parameters}
    with live_run(
        folder, parameters, cameras=[camera.namespace for camera in cameras],
        names=[camera.name for camera in cameras],
        outputs=('image', 'rain_mask') if mask else ('image',), keep=(),
    ) as run, child(
        ['derain_ros.bench.replay.player', str(plan), '--report', str(report)], log,
        commands=True, answers=True,
    ) as process:
        player = ReplayProcess(process, log, report)
        statuses: Mapping[str, Mapping[str, str]] = {}
        for sample in range(max(len(found) for found in recording.samples.values())):
            statuses = run.warm_up(player, f'frame {sample}')
        yield ReplayBench(run, player, recording, report, statuses)


def _known(value: float) -> float | None:
    return None if value != value else value
