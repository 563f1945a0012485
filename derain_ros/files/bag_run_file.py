"""The run file of ``derain bag``: what was derained, from which bag, by which model."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from derain_ros.bags.derain import BagPlan, BagSummary
from derain_ros.engines import Engine
from derain_ros.engines.model_facts import model_facts
from derain_ros.files.run_files import bag_facts, run_head
from derain_ros.text import printable


def bag_figures(
    plan: BagPlan, summary: BagSummary, engine: Engine, *, mask: bool, strength: float,
    workers: int, seconds: float, progress: Callable[[int], Any] = lambda count: None
) -> dict[str, Any]:
    """Return the content of the run file of a bag that was written in ``seconds``.

    ``plan`` and ``summary`` are argument and result of :func:`derain_ros.bags.derain.derain_bag`;
    ``progress`` is called with the number of bytes read since the last call, as both bags are
    read in full for their checksums. Only ``seconds``, ``frames_per_second``, ``workers``,
    ``resumed_segments`` and ``host`` differ between two runs.
    """
    frames = summary.made.total() + summary.failed.total() - summary.resumed_frames
    return {
        **run_head('bag'), 'model': asdict(model_facts(engine.info.model, engine)),
        'strength': strength, 'mask': mask,
        'source': {**bag_facts(plan.source, progress), 'storage': plan.source_storage,
                   'messages': plan.message_count,
                   'damages': [asdict(damage) for damage in summary.damages]},
        'output': {**bag_facts(plan.destination, progress), 'storage': plan.storage,
                   'messages': summary.written},
        'start_s': plan.start_s, 'duration_s': plan.duration_s, 'every': plan.every,
        'workers': workers, 'resumed_segments': summary.resumed_segments,
        'seconds': seconds, 'frames_per_second': frames / seconds if seconds > 0 else None,
        'cameras': [{
            'source': printable(camera.source), 'image': printable(camera.image),
            'rain_mask': printable(camera.rain_mask) if mask else None,
            'derained': summary.made[camera.source], 'failed': summary.failed[camera.source],
            'failures': [{'time': bad.time, 'reason': bad.reason}
                         for bad in summary.bad_frames if bad.topic == camera.source],
            'frames': {name: column.tolist() for name, column in vars(
                summary.frames[camera.source]).items()},
        } for camera in plan.cameras],
    }
