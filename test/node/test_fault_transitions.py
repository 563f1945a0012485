"""Transitions of the lifecycle while the engine hangs, over DDS.

What frames become of meanwhile is asserted in test_faults.py.
"""

import signal
import time

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from lens import Lens
from rig import Rig
from ros_fixtures import wait_for

PATIENT = {'watchdog_ms': 20000.0, 'cameras': ['front']}


def test_a_node_whose_engine_hangs_can_be_taken_down_and_up_again(tmp_path):
    with Rig(tmp_path, PATIENT) as rig:
        front = Lens(rig.active().peer, 'front')
        front.derains()
        rig.engine.command(mode='hang')
        front.send()
        time.sleep(0.3)
        start = time.monotonic()
        assert rig.peer.change_state('deactivate')
        assert time.monotonic() - start < 2
        assert rig.peer.state() == 'inactive'
        assert rig.peer.change_state('cleanup')
        assert rig.peer.state() == 'unconfigured'
        rig.engine.command()
        assert rig.peer.change_state('configure')
        assert rig.peer.change_state('activate')
        wait_for(lambda: rig.peer.counts('front')['received'] == 0, 'new counts')
        front.derains()
        rig.ends(signal.SIGTERM)
