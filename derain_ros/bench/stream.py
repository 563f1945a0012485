"""Streams of frames through a running node, which most scenarios are made of."""

from collections.abc import Callable, Mapping, Sequence

from derain_ros.bench.setting import ClipFile, Setting
from derain_ros.bench.stream_statistics import percentile
from derain_ros.live.listener import CAMERA, number
from derain_ros.live.live_run import LiveRun, live_run
from derain_ros.live.played import Plan, Played, PlayedClip, PlayedFrame


def even_plan(frames: Sequence[int], rate: float, seconds: float) -> Plan:
    """Plan to send frames, given by their indices, again and again at an even rate."""
    return [(frames[count % len(frames)], count / rate)
            for count in range(max(1, round(seconds * rate)))]


def play_stream(
    setting: Setting, name: str, clip: ClipFile, plan: Plan, parameters: Mapping[str, str], *,
    cameras: Sequence[str] = (CAMERA,), watch: Callable[[LiveRun], None] = lambda run: None,
) -> Played:
    """Play a clip through a fresh node, on every camera; images and masks are listened to.

    ``name`` is the folder for the logs, ``parameters`` are those beside the setting's, ``cameras``
    namespaces; ``watch`` is called some twenty times a second meanwhile. LiveRunError says that
    a process failed.
    """
    source = PlayedClip(clip.path, plan, tuple(camera.strip('/') for camera in cameras))
    with live_run(setting.folder / name, source, {**setting.parameters, **parameters}) as run:
        return run.play(plan[-1][1] + 1, watch=lambda _: watch(run))


def details(played: Played, camera: str = CAMERA) -> dict:
    """Return counts and latencies of a camera for the JSON file."""
    return {'sent': len(played.frames[camera]), 'arrived': len(played.arrived(camera)),
            'counts': played.counts(camera), 'diagnostics': dict(played.after[camera])}


def inference_ms(frames: Sequence[PlayedFrame], values: Mapping[str, str]) -> float:
    """Return the median inference time of frames; that of /diagnostics where none is told."""
    median = percentile([frame.infer_ms for frame in frames], 50)
    return median if median == median else number(values, 'infer_p50_ms')
