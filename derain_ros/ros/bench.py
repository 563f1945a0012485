"""How fast the node is: frames offered from another process, counts and latencies back."""

from dataclasses import dataclass
from pathlib import Path

from derain_ros.ros.listener import OUTPUTS
from derain_ros.ros.live_run import live_run, percentile_ms

_IMAGE, _MASK, _INFO = OUTPUTS
STAGES = ('decode', 'infer', 'publish')


@dataclass(frozen=True)
class NodeTiming:
    """What the node did with an offered stream.

    Attributes
    ----------
    width, height
        Frame size in pixels.
    offered_fps, published_fps
        Frames a second sent into the node, and derained images a second received from it.
    counts
        Counts of the node, from /diagnostics.
    sent
        Frames published into the node.
    age_ms
        p50, p95 and p99 from a frame's stamp to the arrival of its derained image.
    stages_ms
        Median time of each stage inside the node, from /diagnostics.

    """

    width: int
    height: int
    offered_fps: float
    published_fps: float
    counts: dict[str, int]
    sent: int
    age_ms: tuple[float, float, float]
    stages_ms: dict[str, float]


def time_node(
    bag: Path,
    logs: Path,
    parameters: dict[str, str],
    *,
    width: int,
    height: int,
    rate: float,
    seconds: float,
    topic: str,
) -> NodeTiming:
    """Offer a clip to the node and listen to its images and masks.

    Parameters
    ----------
    bag, topic
        Clip to offer, resized.
    logs
        Folder for the logs of the processes.
    parameters
        Parameters of the node.
    width, height
        Frame size in pixels.
    rate
        Frames a second to offer.
    seconds
        How long.

    Raises
    ------
    LiveRunError
        A process failed.

    """
    arguments = [
        str(bag), '--topic', topic, '--size', str(width), str(height),
        '--rate', str(rate), '--seconds', str(seconds),
    ]
    with live_run(logs, parameters, topics=(_IMAGE, _MASK), keep=False) as run:
        played = run.play(arguments, timeout=seconds * 2 + 60)
        stamps = {stamp for _, stamp in played.frames}
        images = [found for found in run.listener.recorded(_IMAGE) if found.stamp in stamps]
    ages = [found.time - found.stamp for found in images]
    span = (images[-1].time - images[0].time) / 1e9 if images else 0.0
    return NodeTiming(
        width=width,
        height=height,
        offered_fps=len(played.frames) / played.seconds,
        published_fps=(len(images) - 1) / span if span else 0.0,
        counts=played.counts,
        sent=len(played.frames),
        age_ms=tuple(percentile_ms(ages, share) for share in (50, 95, 99)),
        stages_ms={stage: float(played.status[f'{stage}_p50_ms']) for stage in STAGES},
    )
