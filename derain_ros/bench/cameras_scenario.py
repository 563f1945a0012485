"""Four cameras at once: how evenly they are served."""

from derain_ros.bench.bars import Bar, Figure, Result
from derain_ros.bench.setting import Setting
from derain_ros.bench.stream import even_plan, play_stream
from derain_ros.bench.stream_statistics import count_errors, evenness, percentile

_CAMERAS = ('/front', '/rear', '/left', '/right')
_SIZE = (640, 480)
_RATE = 10.0
_SECONDS = 20.0


def run(setting: Setting) -> Result:
    """Measure. All cameras are triggered together, as the rigs of vehicles are."""
    clip = setting.clip(*_SIZE)
    plan = even_plan(clip.rainy, _RATE, setting.seconds(_SECONDS))
    stream = play_stream(
        setting, 'cameras', clip, plan, {'rain_gate': 'false'}, cameras=_CAMERAS)
    arrived = {camera: stream.arrived(camera) for camera in _CAMERAS}
    seconds = stream.played.seconds
    errors = [f'{camera}: {error}' for camera in _CAMERAS
              for error in count_errors(stream.reports[camera])]
    figures = [
        Figure('least served / most served camera',
               100 * evenness([len(frames) for frames in arrived.values()]), '%',
               Bar('>=', 90)),
        Figure('reports that do not add up', len(errors), '', Bar('=', 0), 0),
    ]
    for camera, frames in arrived.items():
        figures.append(Figure(f'{camera} published', len(frames) / seconds, 'fps'))
    for camera, frames in arrived.items():
        figures.append(
            Figure(f'{camera} age p95', percentile([frame.age_ms for frame in frames], 95), 'ms'))
    return Result(
        'cameras: rain at 640x480 from four cameras at 10 Hz each, gate off, with masks',
        figures, errors[:3], {camera: stream.details(camera) for camera in _CAMERAS})
