"""An engine that cannot run here, as a package is missing: frames pass, and it is told."""

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from diagnostic_msgs.msg import DiagnosticStatus
from ros_fixtures import NodeProcess, Peer, image, new_domain, output, send_until, wait_for
from sensor_msgs.msg import Image

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


@pytest.mark.parametrize('engine', [
    'openvino', pytest.param('tensorrt', marks=pytest.mark.slow)])
def test_frames_pass_and_log_and_diagnostics_tell_again_and_again_what_is_missing(
        tmp_path, engine):
    if engine == 'tensorrt':
        from derain_ros.engines.tensorrt.cuda_runtime import find_gpu
        if find_gpu().name:
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


def test_a_name_that_is_wrong_keeps_the_node_unconfigured_and_is_told_again_and_again(tmp_path):
    domain = new_domain()
    with NodeProcess(tmp_path, domain, {'engine': 'warp'}) as node, Peer(domain) as peer:
        said = "unknown engine 'warp'; known: auto, tensorrt"
        wait_for(lambda: 'autostart failed' in node.log(), 'autostart', 60)
        assert peer.state() == 'unconfigured'
        told = node.log().count(said)
        wait_for(lambda: node.log().count(said) >= told + 1, 'the same in the log again')
