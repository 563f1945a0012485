"""Streams of frames through a running node, which most scenarios are made of."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from derain_ros.bench.setting import ClipFile, Setting
from derain_ros.bench.stream_statistics import percentile
from derain_ros.live.clips import Plan
from derain_ros.live.listener import CAMERA, Listener, Told, number
from derain_ros.live.live_run import LiveRun, Played, live_run
from derain_ros.live.replay_process import Sent

_UNKNOWN = Told('', {})


@dataclass(frozen=True, slots=True)
class StreamFrame:
    """A frame from end to end.

    Attributes
    ----------
    sent
        As it was sent.
    arrival
        When its derained image came in, nanoseconds since the epoch; None if it did not.
    told
        What the node said of it; empty if nothing.
    data
        The image as it came in, serialized; empty where it was not kept.

    """

    sent: Sent
    arrival: int | None
    told: Told
    data: bytes = b''

    @property
    def age_ms(self) -> float:
        """Milliseconds from the stamp to the arrival; NaN if it did not arrive."""
        return float('nan') if self.arrival is None else (self.arrival - self.sent.stamp) / 1e6


@dataclass(frozen=True)
class Stream:
    """A clip played through the node.

    Attributes
    ----------
    played
        What was sent, and the statuses before and after.
    frames
        Every frame sent, by camera.
    reports
        Values of each camera in every message on /diagnostics of the run.

    """

    played: Played
    frames: Mapping[str, Sequence[StreamFrame]]
    reports: Mapping[str, Sequence[Mapping[str, str]]]

    def arrived(self, camera: str = CAMERA) -> list[StreamFrame]:
        """Return the frames that came out, in order of arrival."""
        found = [frame for frame in self.frames[camera] if frame.arrival is not None]
        return sorted(found, key=lambda frame: frame.arrival)

    def details(self, camera: str = CAMERA) -> dict:
        """Return counts and latencies for the JSON file."""
        return {
            'sent': len(self.frames[camera]),
            'arrived': len(self.arrived(camera)),
            'counts': self.played.counts_of(camera),
            'diagnostics': dict(self.played.after[camera]),
        }


def even_plan(frames: Sequence[int], rate: float, seconds: float) -> Plan:
    """Plan to send frames, given by their indices, again and again at an even rate."""
    return [(frames[count % len(frames)], count / rate)
            for count in range(max(1, round(seconds * rate)))]


def play_stream(
    setting: Setting,
    name: str,
    clip: ClipFile,
    plan: Plan,
    parameters: Mapping[str, str],
    *,
    cameras: Sequence[str] = (CAMERA,),
    watch: Callable[[LiveRun], None] | None = None,
) -> Stream:
    """Play a clip through a fresh node; images and masks are listened to.

    Parameters
    ----------
    setting
        How to run.
    name
        Folder for the logs.
    clip
        The frames.
    plan
        Which to send when, on every camera.
    parameters
        Of the node, besides those of ``setting``.
    cameras
        Namespaces.
    watch
        Called with the run some twenty times a second meanwhile.

    Raises
    ------
    LiveRunError
        A process failed.

    """
    logs = setting.folder / name
    logs.mkdir(exist_ok=True)
    plan_file = logs / 'plan.json'
    plan_file.write_text(json.dumps(plan))
    with live_run(
        logs, {**setting.parameters, **parameters}, cameras=cameras,
        outputs=('image', 'rain_mask'), keep=(),
    ) as run:
        played = run.play(
            [str(clip.path), '--plan', str(plan_file)], timeout=2 * plan[-1][1] + 60,
            watch=None if watch is None else lambda: watch(run))
        return Stream(
            played=played,
            frames={camera: frames_of(run.listener, played.sent[camera], camera)
                    for camera in cameras},
            reports={camera: run.listener.reports(f'derain: {camera.strip("/")}')
                     for camera in cameras})


def frames_of(listener: Listener, sent: Sequence[Sent], camera: str = CAMERA) -> list[StreamFrame]:
    """Put together what was sent with what came of it."""
    images = {found.stamp: found for found in listener.recorded(f'{camera}/derained/image')}
    told = listener.told(camera)
    frames = []
    for one in sent:
        image = images.get(one.stamp)
        frames.append(StreamFrame(
            sent=one, arrival=image and image.time, told=told.get(one.stamp, _UNKNOWN),
            data=b'' if image is None else image.data))
    return frames


def inference_ms(frames: Sequence[StreamFrame], values: Mapping[str, str]) -> float:
    """Return the median inference time of frames; that of /diagnostics where none is told."""
    median = percentile([frame.told.infer_ms for frame in frames], 50)
    return median if median == median else number(values, 'infer_p50_ms')
