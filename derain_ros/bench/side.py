"""One side of a comparison: a node that gets one frame after the other.

``python -m derain_ros.bench.side FOLDER CLIP`` starts node and publisher, listens, and
prints ``{}`` once a frame has come through. Then, for each line ``N`` on its standard input, it
sends N frames, each after the one before has come out, and prints one line of JSON. Sides are
processes, because what a listener's middleware is like is settled once per process.
"""

import argparse
import json
import sys
import time
from pathlib import Path

from derain_ros.bench.stream import frames_of
from derain_ros.live.listener import CAMERA
from derain_ros.live.live_run import LiveRun, LiveRunError, live_run
from derain_ros.live.processes import DERAIN, PLAIN
from derain_ros.live.replay_process import ReplayProcess, Sent

PROGRAMS = {'derain': DERAIN, 'plain': PLAIN}
_IMAGE, _MASK = f'{CAMERA}/derained/image', f'{CAMERA}/derained/rain_mask'
_FRAME_TIMEOUT = 20.0
_FIRST_FRAME_TIMEOUT = 120.0
_TOLD_TIMEOUT = 1.0
_WARM_UP_FRAMES = 3
# Long enough for what is left to do after the image has arrived: the mask, and the report.
_PAUSE = 0.03


def main(argv: list[str] | None = None) -> int:
    """Run the side until the end of the standard input; 1 if a process fails."""
    parser = argparse.ArgumentParser(prog='side', description=__doc__)
    parser.add_argument('folder', type=Path)
    parser.add_argument('clip', type=Path)
    parser.add_argument('--plan', type=Path, required=True, help='order of the frames')
    parser.add_argument('--program', choices=PROGRAMS, default='derain')
    parser.add_argument('--parameters', type=json.loads, default={}, help='JSON')
    args = parser.parse_args(argv)
    program = PROGRAMS[args.program]
    try:
        with (
            live_run(args.folder, args.parameters, outputs=('image', 'rain_mask'), keep=(),
                     program=program) as run,
            run.replay([str(args.clip), '--plan', str(args.plan), '--no-camera-info']) as replay,
        ):
            if program.managed:
                run.warm_up(replay)
            _step(run, replay, _FIRST_FRAME_TIMEOUT)
            for _ in range(_WARM_UP_FRAMES):
                _step(run, replay, _FRAME_TIMEOUT)
            _answer({})
            for line in sys.stdin:
                sent = [_step(run, replay, _FRAME_TIMEOUT) for _ in range(int(line))]
                _answer({
                    'frames': [
                        {'sent': frame.sent, 'arrival': frame.arrival, 'told': frame.told.values}
                        for frame in frames_of(run.listener, sent)],
                    'diagnostics': run.listener.values(f'derain: {CAMERA.strip("/")}'),
                })
    except LiveRunError as error:
        _answer({'error': str(error)})
        return 1
    return 0


def _step(run: LiveRun, replay: ReplayProcess, timeout: float) -> Sent:
    sent = replay.step()
    for topic in (_IMAGE, _MASK):
        if run.listener.wait_for(topic, sent.stamp, timeout) is None:
            run.check()
            raise LiveRunError(f'a frame did not come out on {topic} within {timeout:g} s')
    run.listener.wait_until_told(sent.stamp, _TOLD_TIMEOUT)
    time.sleep(_PAUSE)
    return sent


def _answer(answer: dict) -> None:
    print(json.dumps(answer), flush=True)


if __name__ == '__main__':
    sys.exit(main())
