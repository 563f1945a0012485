"""``derain gate``: what it counts, on clips whose rain is known by construction."""

import json
from contextlib import closing

import cv2
import numpy as np
import pytest
from bag_files import IMAGE, START, image, write_bag
from evaluate_files import write_model, write_picture
from memory_model import scene, write_memory_model

from derain_ros.cli import main
from derain_ros.engines import create_engine
from derain_ros.evaluation.gate_trial import GateTrial, TrialShower, as_text, summarise, try_gate
from derain_ros.files.clip_sources import FrameSet, PannedClip
from derain_ros.files.pairs import BadPair
from derain_ros.files.video_files import VideoFacts
from derain_ros.rain_gate import GateSettings

RATE, HEIGHT, WIDTH = 10.0, 48, 64
DARK = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
BRIGHT = np.full_like(DARK, 200)


class Frames:
    """Dark frames, which are bright in the spans of seconds that are named."""

    has_derained = False
    notes = ()

    def __init__(self, seconds, *bright, broken=()):
        self.facts = VideoFacts(WIDTH, HEIGHT, RATE, round(seconds * RATE))
        self._bright, self._broken = bright, broken

    def read(self):
        for number in range(self.facts.frames):
            time = number / RATE
            if number in self._broken:
                yield BadPair(f'frame {number}', f'frame {number} is torn')
                continue
            wet = any(begin <= time < end for begin, end in self._bright)
            yield FrameSet(f'frame {number}', None, BRIGHT if wet else DARK)


@pytest.fixture(scope='module')
def model(tmp_path_factory):
    """A model that takes pixels above 20 for rain."""
    return str(write_model(tmp_path_factory.mktemp('model') / 'cut.onnx', 20))


@pytest.fixture(scope='module')
def engine(model):
    with closing(create_engine('auto', model)) as engine:
        yield engine


def test_a_dry_clip_closes_the_gate(engine):
    trial = try_gate(Frames(20), engine, GateSettings())
    # 5 s until it closes and 3 s more are not judged; of 20 s, 12 are left.
    assert trial.judged == pytest.approx(12.0) and trial.wet == 0 and trial.openings == 0
    assert set(trial.responses) == {0.0} and not trial.held_open
    # Five looks a second, open or closed.
    assert len(trial.responses) == pytest.approx(100, abs=2)


def test_a_bright_clip_holds_it_open(engine):
    trial = try_gate(Frames(12, (0, 12)), engine, GateSettings(), intensities=[0.5])
    assert trial.held_open and trial.wet == trial.judged == pytest.approx(4.0)
    assert not trial.showers, 'rain is tried on a closed gate alone'
    assert set(trial.responses) == {1.0}


def test_an_opening_is_counted_with_its_seconds(engine):
    trial = try_gate(Frames(20, (12, 13)), engine, GateSettings())
    # The second probe of the second opens it, at 12.2 or 12.3 s; it needs more than the 7 s
    # that are left to close.
    assert trial.openings == 1
    assert trial.wet == pytest.approx(7.75, abs=0.11)
    before = try_gate(Frames(20, (6, 6.5)), engine, GateSettings(dry_after=1.0))
    assert before.openings == 1 and before.judged == pytest.approx(16.0)


def test_what_stays_where_it_is_does_not_open_the_gate(tmp_path):
    """All is rain for a first look, and dry for a second one, of the next frame."""
    still = [FrameSet(f'frame {number}', None, scene()) for number in range(300)]
    frames = Frames(30)
    frames.read = lambda: iter(still)
    model = write_memory_model(tmp_path / 'fence.onnx', rain=0, alone=255)
    with closing(create_engine('openvino', str(model), precision='f32')) as engine:
        trial = try_gate(frames, engine, GateSettings())
    # From the first look on it takes 2 s · ln(1/0.015) until the slow average is dry, then 5 s.
    assert trial.openings == 0 and trial.wet == pytest.approx(8.4 + 5 - 8, abs=0.3)
    assert trial.responses[0] == 1.0 and set(trial.responses[1:]) == {0.0}


def test_rain_opens_copies_and_leaves_the_dry_clip_alone(engine):
    dry = try_gate(Frames(30), engine, GateSettings())
    trial = try_gate(Frames(30), engine, GateSettings(), intensities=[0.7, 0.9], every=10.0)
    # At 8, 18 and 28 s, and some tenths; the picture is dark, so what is bright is rain.
    begun = [one.began for one in trial.showers]
    assert begun == pytest.approx([8, 8, 18, 18, 28, 28], abs=0.7)
    assert [one.intensity for one in trial.showers] == [0.7, 0.9] * 3
    # Two probes open it, the first of which comes after one or two tenths.
    assert {round(one.opened_after, 6) for one in trial.showers} <= {0.3, 0.4}
    assert (trial.responses, trial.wet, trial.openings) == (dry.responses, 0, 0)
    again = try_gate(Frames(30), engine, GateSettings(), intensities=[0.7, 0.9], every=10.0)
    assert again.describe() == trial.describe()


def test_rain_that_is_not_seen_is_missed_unless_the_clip_ends(tmp_path):
    blind = write_model(tmp_path / 'blind.onnx', 255)
    with closing(create_engine('auto', str(blind))) as engine:
        trial = try_gate(Frames(30), engine, GateSettings(), intensities=[0.8], every=9.0)
    # Of those at 8, 17 and 26 s the last has less than eight seconds.
    assert [one.began for one in trial.showers] == pytest.approx([8, 17], abs=0.5)
    assert [one.opened_after for one in trial.showers] == [None, None]
    assert summarise([trial])['rain'] == {'0.8': {'tried': 2, 'missed': 2}}


def test_summary_by_hand():
    first = GateTrial(
        [0.0, 0.1], 10.0, 10.0, 0, [TrialShower(0.1, 8.0, 0.2), TrialShower(0.1, 28.0)])
    second = GateTrial([0.2, 0.3, 0.4], 30.0, 1.5, 2, [TrialShower(0.1, 8.0, 0.6)])
    assert summarise([first, second]) == {
        'clips': 2, 'held_open': 1, 'judged_s': 40.0, 'wet_s': 11.5, 'openings': 2,
        # Between sorted values: 5 % lies 0.2 of the way from the first to the second.
        'response': {'p5': 0.02, 'p50': 0.2, 'p95': 0.38, 'max': 0.4},
        'rain': {'0.1': {'tried': 3, 'missed': 1, 'p50_s': 0.4, 'p95_s': 0.58, 'max_s': 0.6}}}


@pytest.mark.parametrize('shape', [(700, 900), (90, 2000)])
def test_views_lie_in_the_picture_and_move(tmp_path, shape):
    # Rows are told by blue and columns by green, which resizing keeps in order.
    rows, columns = np.indices(shape)
    scene = np.dstack([255 * rows / shape[0], 255 * columns / shape[1], 0 * rows])
    clip = PannedClip(write_picture(tmp_path / 'a.png', scene.astype(np.uint8)), 6.0)
    frames = [frame.rainy for frame in clip.read()]
    assert len(frames) == clip.facts.frames == 180
    assert {frame.shape for frame in frames} == {(480, 640, 3)}
    spans = [int(frame[..., 1].max()) - int(frame[..., 1].min()) for frame in frames]
    assert max(spans) - min(spans) > 0.1 * max(spans), 'it zooms'
    lefts, tops = ([int(frame[0, 0, channel]) for frame in frames] for channel in (1, 0))
    assert max(lefts) > min(lefts) and max(tops) > min(tops), 'it pans'


def test_of_many_clips_those_that_stay_closed_are_not_listed():
    trials = {f'clip {number}': GateTrial([0.0], 10.0) for number in range(10)}
    trials['wet'] = GateTrial([0.5], 10.0, 10.0)
    text = as_text(trials, summarise(trials.values()), GateSettings())
    assert 'held open throughout: 1 of 11 clips' in text
    assert 'wet  ' in text and 'clip 3' not in text
    del trials['clip 3']
    assert 'clip 4' in as_text(trials, summarise(trials.values()), GateSettings())


def _video(path, source):
    writer = cv2.VideoWriter(
        str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*'FFV1'), RATE, (WIDTH, HEIGHT))
    for frame in source.read():
        writer.write(frame.rainy)
    writer.release()
    return path


def test_a_video_on_the_command_line(tmp_path, model, derain):
    video = _video(tmp_path / 'drive.avi', Frames(20))
    figures = tmp_path / 'new' / 'gate.json'
    output = derain(
        'gate', video, '--model', model, '--rain', '0.5', '--every', '9', '--json', figures).out
    assert f'{video}  0.0000  0.0000  0.0000      0.0 of    12.0         0' in output
    assert '0 of 2' in output and 'intensity 0.5' in output
    found = json.loads(figures.read_text())
    assert found['summary']['judged_s'] == 12.0 and found['summary']['rain']['0.5']['missed'] == 0
    assert found['settings'] == {'wet_above': 0.025, 'dry_below': 0.015, 'dry_after': 5.0}
    assert found['clips'][str(video)]['showers'][0]['began'] == pytest.approx(8.1, abs=0.1)
    output = derain('gate', video, '--model', model, '--rain', '--duration', '6').out
    assert 'no clip is long enough' in output and 'intensity' not in output


def test_pictures_of_two_folders_are_clips_of_their_own(tmp_path, model, derain):
    for name, level in (('a/1.png', 0), ('b/1.png', 90), ('b/2.png', 0)):
        write_picture(tmp_path / name, np.full((60, 80, 3), level, np.uint8))
    (tmp_path / 'b' / '2.png').write_bytes(b'torn')
    captured = derain('gate', tmp_path / 'a', tmp_path / 'b', '--pan', '--rain', '--duration',
                      '8.5', '--model', model, status=1)
    assert 'held open throughout: 1 of 2 clips' in captured.out
    assert str(tmp_path / 'b' / '1.png') in captured.out
    assert str(tmp_path / 'b' / '2.png') in captured.err


def test_a_topic_of_a_bag(tmp_path, model, derain, capsys):
    bag = tmp_path / 'drive'
    write_bag(bag, [('/cam', IMAGE, START + number * 10**8, image(1, START + number * 10**8))
                    for number in range(100)])
    assert main(['gate', str(bag), '--topic', '/cam', '--rain', '--model', model]) == 0
    assert '2.0 of     2.0' in capsys.readouterr().out
    assert main(['gate', str(bag), '--topic', '/rear', '--rain', '--model', model]) == 1
    assert '/rear' in capsys.readouterr().err
    video = _video(tmp_path / 'drive.avi', Frames(9))
    arguments = ['gate', str(video), str(bag), '--topic', '/cam', '--rain', '--model', model]
    captured = derain(*arguments, status=1)
    assert '--topic is for bags' in captured.err, 'it is told after what could be done'
    assert '2.0 of     2.0' in captured.out


@pytest.mark.parametrize(('arguments', 'said'), [
    (['--wet-above', '0.01'], '--dry-below is 0.015'),
    (['--pan', '--topic', '/cam'], '--topic does not go with --pan'),
    (['--pan', '--start', '3'], '--start does not go with --pan'),
    (['--pan'], 'no such file or folder'),
    ([], 'no such file or folder'),
])
def test_wrong_arguments(tmp_path, model, derain, arguments, said):
    source = tmp_path / 'none' if 'no such' in said else tmp_path
    assert said in derain('gate', source, *arguments, '--model', model, status=2).err
