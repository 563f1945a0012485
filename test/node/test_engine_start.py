"""Engines before the first frame: what is missing is told, what is asked for is made ready."""

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from faulty_engine import Controls
from lens import Lens
from rig import Rig
from ros_fixtures import NodeProcess, Peer, image, new_domain, output, send_until, wait_for
from sensor_msgs.msg import Image

from derain_ros.engines.tensorrt.cuda_runtime import find_gpu

# Where OpenVINO cannot be imported until a file is there.
NODE = """
import pathlib, sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name == 'openvino' and not pathlib.Path(FILE).exists():
            raise ModuleNotFoundError("No module named 'openvino'", name=name)
sys.meta_path.insert(0, Missing())
from derain_ros.node.main import main
sys.exit(main())
"""

# Whose engine counts as stuck a second after a warm-up has begun.
IMPATIENT = """
import sys
import faulty_engine, faulty_node
from derain_ros.node.main import main
faulty_engine.FaultyEngine.preparation_limit = 0.2
faulty_node.offer('faulty')
sys.exit(main())
"""


@pytest.mark.parametrize('engine', [
    'openvino', pytest.param('tensorrt', marks=pytest.mark.slow)])
def test_frames_pass_and_log_and_diagnostics_tell_again_and_again_what_is_missing(
        tmp_path, engine):
    if engine == 'tensorrt' and find_gpu().name:
        pytest.skip('this machine has a GPU')
    installed = tmp_path / 'installed'
    script = tmp_path / 'node.py'
    script.write_text(NODE.replace('FILE', repr(str(installed))))
    domain = new_domain()
    parameters = {'cameras': ['front'], 'engine': engine, 'rain_gate': False}
    with NodeProcess(tmp_path, domain, parameters, program=(str(script),)) as node, \
            Peer(domain) as peer:
        peer.wait_for_state('active', node)
        images = peer.publisher(Image, '/front/image_raw')
        peer.listen(Image, output('front'))
        peer.matched(images)
        send_until(images, image, lambda: peer.received[output('front')], 'frame')
        sent = image(0)
        assert bytes(peer.received[output('front')][0].data) == bytes(sent.data)
        wait_for(lambda: peer.status('engine') is not None, 'status')
        assert peer.level('engine') == DiagnosticStatus.ERROR
        assert f'engine {engine}: ' in peer.says('engine')
        assert f'engine {engine}: ' in node.log()
        assert 'frames are passed through unchanged' in node.log()
        told = node.log().count('nothing is derained: ')
        wait_for(lambda: node.log().count('nothing is derained: ') > told, 'more of it')
        if engine == 'openvino':
            assert 'pip install openvino' in node.log()
            installed.touch()
            assert peer.reset()
            send_until(images, image, lambda: int(peer.values('front')['derained']), 'derained')
            wait_for(lambda: peer.level('engine') == DiagnosticStatus.OK, 'engine')


# Made ready before the first frame: sizes by parameter, waiting, building alone

@pytest.mark.parametrize('wait', [True, pytest.param(False, marks=pytest.mark.slow)])
def test_the_first_frame_of_a_known_size_is_derained(tmp_path, wait):
    domain = new_domain()
    parameters = {'warm_up_sizes': '64x48 96x64', 'wait_for_warm_up': wait, 'rain_gate': False}
    with NodeProcess(tmp_path, domain, parameters) as node, Peer(domain) as peer:
        wait_for(lambda: node.log().count('of warm-up') == 2, 'warm-up')
        wait_for(lambda: peer.state() == 'active', 'active')
        if wait:
            log = node.log()
            assert log.index('ready for 96x64') < log.index('-> /camera/derained/image')
        images = peer.publisher(Image, '/camera/image_raw')
        peer.listen(Image, output('camera'))
        peer.matched(images)
        images.publish(image(1))
        wait_for(lambda: peer.received[output('camera')], 'frame')
        wait_for(lambda: peer.values('camera').get('published') == '1', 'count')
        values = peer.values('camera')
        assert (values['derained'], values['passed_through']) == ('1', '0')
        assert peer.values('engine')['activity'] == ''
        assert peer.set('warm_up_sizes', '20x20') != ''


def test_waiting_for_a_warm_up_of_no_size_is_told_of(tmp_path):
    with Rig(tmp_path, {'wait_for_warm_up': True}) as rig:
        rig.active()
        assert rig.node.log().count(
            'wait_for_warm_up waits for nothing, as warm_up_sizes is empty') == 1


def test_the_patches_that_the_rain_gate_probes_are_warmed_up_too(tmp_path):
    parameters = {'cameras': ['front'], 'rain_gate': True,
                  'warm_up_sizes': '264x48', 'wait_for_warm_up': True}
    with Rig(tmp_path, parameters) as rig:
        lens = Lens(rig.active().peer, 'front', (264, 48))
        assert lens.answer(lens.send()).word == 'derained'


def test_a_warm_up_that_hangs_is_given_up(tmp_path):
    script = tmp_path / 'node.py'
    script.write_text(IMPATIENT)
    engine = Controls(tmp_path / 'engines')
    engine.command(mode='hang')
    parameters = {'engine': 'faulty', 'warm_up_sizes': '64x48', 'wait_for_warm_up': True}
    with NodeProcess(tmp_path, new_domain(), parameters, environment=engine.environment,
                     program=(str(script),)) as node:
        wait_for(lambda: 'could not configure: an inference has been stuck' in node.log(), 'end')


def test_building_alone_ends_by_itself(tmp_path):
    parameters = {'build_only': True, 'warm_up_sizes': '64x48'}
    with NodeProcess(tmp_path, new_domain(), parameters) as node:
        assert node.process.wait(120) == 0, node.log()
        assert 'ready for 64x48' in node.log()
        assert 'exiting, as build_only is set' in node.log()


@pytest.mark.parametrize(('parameters', 'reason'), [
    ({'build_only': True}, 'build_only needs warm_up_sizes'),
    pytest.param(
        {'build_only': True, 'warm_up_sizes': '64x48', 'engine': 'tensorrt'}, 'engine tensorrt: ',
        marks=pytest.mark.skipif(bool(find_gpu().name), reason='this machine has a GPU')),
])
def test_a_build_that_fails_ends_with_a_status(tmp_path, parameters, reason):
    with NodeProcess(tmp_path, new_domain(), parameters) as node:
        assert node.process.wait(120) == 1, node.log()
        assert reason in node.log()
        assert 'Traceback' not in node.log()
