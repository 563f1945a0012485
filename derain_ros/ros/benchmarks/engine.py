"""The engines alone, frames in memory; needs no ROS."""

from dataclasses import asdict

from derain_ros.engines import create_engine, engine_report
from derain_ros.evaluation.speed import time_engine
from derain_ros.ros.benchmarks.figures import Figure, Result
from derain_ros.ros.benchmarks.setting import Setting

_SECONDS = 5.0


def run(setting: Setting) -> Result:
    """Time each engine at each size, uint8 frames in, uint8 frames and masks out.

    Raises
    ------
    EngineError
        No engine can run, or one failed.

    """
    timings = []
    for name in setting.engines or _available():
        engine = create_engine(name, setting.parameters['model'])
        for width, height in setting.sizes:
            timings.append(time_engine(engine, width, height, setting.seconds(_SECONDS)))
        engine.close()
    figures = []
    for timing in timings:
        what = f'{timing.engine} {timing.precision} {timing.width}x{timing.height}'
        figures += [Figure(f'{what} p50', timing.median_ms, 'ms'),
                    Figure(f'{what} p95', timing.p95_ms, 'ms')]
    notes = [] if timings else ['no engine can run here; `derain info` says why']
    return Result('engine: frames in memory, one after the other', figures, notes,
                  {'timings': [asdict(timing) for timing in timings]})


def _available() -> list[str]:
    return [status.engine for status in engine_report() if status.available]
