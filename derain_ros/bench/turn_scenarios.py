"""Compare nodes that get a few frames in turn, so that machine load affects all of them alike."""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

from derain_ros.bench.measures import Figure, Result, percentile, ratio
from derain_ros.bench.setting import Setting
from derain_ros.bench.stream_scenarios import inference_ms
from derain_ros.live.listener import CAMERA, number, output_topics
from derain_ros.live.live_run import live_run
from derain_ros.live.played import PlayedClip, PlayedFrame
from derain_ros.live.processes import commands, helper

_BLOCK = 5
_STOP_TIMEOUT = 20.0
_START_TIMEOUT = 400.0
_FRAME_TIMEOUT = 20.0
_FIRST_FRAME_TIMEOUT = 120.0
_WARM_UP_FRAMES = 3
# Long enough for the work after the image has arrived: publishing the mask and the report.
_PAUSE = 0.03

_OVERHEAD_SIZE = (1920, 1080)
_FRAMES = 60
_OVERHEAD_QUICK_FRAMES, _STAGES_QUICK_FRAMES = 6, 5
_IN_PROCESS = ('wait', 'decode', 'encode', 'publish')
"""Stages of our node from the arrival of a message to the end of publishing."""
STAGES = ('wait', 'decode', 'infer', 'encode', 'publish', 'age')


@dataclass
class Side:
    """One of the nodes: the frames sent to it, and its newest values in /diagnostics."""

    frames: list[PlayedFrame] = field(default_factory=list)
    diagnostics: Mapping[str, str] = field(default_factory=dict)

    def times(self) -> dict[str, tuple[float, float]]:
        """Return p50 and p95 of each stage, and of stamp to arrival as ``total``, ms."""
        ages = [frame.age_ms for frame in self.frames]
        return {stage: (number(self.diagnostics, f'{stage}_p50_ms'),
                        number(self.diagnostics, f'{stage}_p95_ms')) for stage in STAGES} | {
            'total': (percentile(ages, 50), percentile(ages, 95))}

    def publication_ms(self, key: str = 'age_ms') -> list[float]:
        """Return a time that the node reports for each frame minus its inference time, ms."""
        return [number(frame.told.values, key) - frame.infer_ms
                for frame in self.frames if frame.told]

    def overheads_ms(self) -> list[float]:
        """Return, for each frame, the time from sending to receiving minus inference, ms.

        A frame is sent when it is handed to the middleware. If the node does not report the
        inference time of a frame, the median of /diagnostics is used.
        """
        stand_in = number(self.diagnostics, 'infer_p50_ms')
        return [
            frame.latency_ms - (frame.infer_ms if frame.infer_ms == frame.infer_ms else stand_in)
            for frame in self.frames if frame.arrival is not None]


def serve(
    pipe: Connection, folder: Path, plain: bool, parameters: Mapping[str, str], clip: PlayedClip,
) -> None:
    """Run a side: start its node, reply once frames have come through, then take commands.

    Each command is a number of frames to send, each after the previous one has come out; the
    reply is these frames and the newest diagnostics. Each side is a process of its own, because
    the middleware of a listener is configured once per process.
    """
    topics = output_topics(CAMERA, ('image', 'rain_mask'))
    with live_run(folder, clip, parameters, plain=plain) as run:
        run.step(topics, _FIRST_FRAME_TIMEOUT)
        for _ in range(_WARM_UP_FRAMES):
            run.step(topics, _FRAME_TIMEOUT)
        pipe.send(None)
        for count in commands(pipe):
            frames = []
            for _ in range(count):
                frames.append(run.step(topics, _FRAME_TIMEOUT))
                time.sleep(_PAUSE)
            pipe.send((frames, run.listener.values(f'/derain: {CAMERA.strip("/")}')))


def compare(
    setting: Setting, name: str, size: tuple[int, int],
    sides: Mapping[str, Mapping[str, str] | None], frames: int,
) -> dict[str, Side]:
    """Send rainy frames one by one to several nodes, in alternating blocks.

    ``sides`` maps names of sides to parameters in addition to those of ``setting``, None for the
    plain node; ``frames`` is the number for each. Raises LiveRunError if a process fails.
    """
    clip = setting.clip(*size)
    source = PlayedClip(clip.path, [(index, 0.0) for index in clip.rainy], infos=False)
    results = {side: Side() for side in sides}
    with ExitStack() as stack:
        processes = {}
        for side, parameters in sides.items():
            folder = setting.folder / f'{name}_{side}'
            folder.mkdir(exist_ok=True)
            processes[side] = stack.enter_context(helper(
                f'side {side} of the comparison', 'derain_ros.bench.turn_scenarios:serve',
                folder / 'side.log', folder, parameters is None,
                {**setting.parameters, **(parameters or {})}, source, stop_timeout=_STOP_TIMEOUT))
        for process in processes.values():
            process.receive(_START_TIMEOUT)
        for left in range(frames, 0, -_BLOCK):
            for side, process in processes.items():
                process.send(min(_BLOCK, left))
                found, results[side].diagnostics = process.receive(2 * _BLOCK * _FRAME_TIMEOUT)
                results[side].frames += found
    return results


def overhead(setting: Setting) -> Result:
    """Measure the overhead over inference at 1920x1080, of our node and a plain rclpy node."""
    sides = compare(
        setting, 'overhead', _OVERHEAD_SIZE,
        {'ours': {'rain_gate': 'false'}, 'plain': None},
        _OVERHEAD_QUICK_FRAMES if setting.quick else _FRAMES)
    ours, plain = sides['ours'], sides['plain']
    overheads = {name: percentile(side.overheads_ms(), 50) for name, side in sides.items()}
    inside = {
        'ours': sum(number(ours.diagnostics, f'{stage}_p50_ms') for stage in _IN_PROCESS),
        'plain': percentile(plain.publication_ms('callback_ms'), 50)}
    times = {
        'sent to received less inference': overheads,
        'stamp to published less inference': {
            name: percentile(side.publication_ms(), 50) for name, side in sides.items()},
        'inside the callback less inference': inside,
        'inference p50': {name: inference_ms(side.frames, side.diagnostics)
                          for name, side in sides.items()}}
    return Result(
        'overhead: 1920x1080 one frame at a time, our node and a plain rclpy node in turn',
        [Figure('overhead, ours / plain', ratio(overheads['ours'], overheads['plain']),
                bar='<= 0.4', digits=2),
         *(Figure(f'{name}, {what}', found[name], 'ms')
           for what, found in times.items() for name in sides)],
        ['the callback of the plain node begins after rclpy has deserialized the message'],
        {name: {'overhead_ms': side.overheads_ms(), 'diagnostics': dict(side.diagnostics)}
         for name, side in sides.items()})


def stages(setting: Setting) -> Result:
    """Measure every stage at several sizes, with ``fast_path`` and without."""
    frames = _STAGES_QUICK_FRAMES if setting.quick else _FRAMES
    figures, details = [], {}
    notes = [f'{"p50 / p95 in ms":<24}' + ''.join(f'{stage:>16}' for stage in (*STAGES, 'total'))]
    for width, height in setting.sizes:
        size = f'{width}x{height}'
        sides = compare(setting, f'stages_{size}', (width, height), {
            name: {'rain_gate': 'false', 'fast_path': fast}
            for name, fast in (('fast', 'true'), ('ordinary', 'false'))}, frames)
        details[size] = {name: side.times() for name, side in sides.items()}
        figures.append(Figure(
            f'{size} fast / ordinary, sent to received less inference',
            ratio(*(percentile(sides[name].overheads_ms(), 50) for name in ('fast', 'ordinary'))),
            digits=2))
        notes += [_row(f'{size} {name}', times) for name, times in details[size].items()]
    return Result(
        'stages: one frame at a time, with fast_path and without (age: stamp to published, '
        'total: stamp to image received)', figures, notes, details)


def _row(name: str, times: Mapping[str, tuple[float, float]]) -> str:
    return f'{name:<24}' + ''.join(
        f'{"-":>16}' if p50 != p50 else f'{f"{p50:.1f} / {p95:.1f}":>16}'
        for p50, p95 in times.values())
