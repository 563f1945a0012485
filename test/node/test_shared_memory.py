"""What a killed process leaves in shared memory, and that it alone is cleared away."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from ros_fixtures import ROOT, new_domain, ros_environment

from derain_ros.node.shared_memory import SHARED_MEMORY, remove_stale_segments

NODE = """
import rclpy
rclpy.init()
node = rclpy.create_node('neighbour')
print('up', flush=True)
rclpy.spin(node)
"""

pytestmark = pytest.mark.skipif(
    not os.environ.get('RMW_IMPLEMENTATION', 'rmw_fastrtps_cpp').startswith('rmw_fastrtps')
    or not SHARED_MEMORY.is_dir(), reason='only Fast DDS, on Linux, has such segments')


class Neighbour:
    """A process with a node and the profile of this package; a context manager."""

    def __init__(self, domain):
        profile = {'FASTRTPS_DEFAULT_PROFILES_FILE': str(ROOT / 'config' / 'fastdds.xml')}
        self.process = subprocess.Popen(
            [sys.executable, '-c', NODE], env=ros_environment(domain) | profile,
            stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == 'up\n'

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    def segment(self, *others):
        """Return its segment, of which a process maps those of its peers too."""
        maps = Path(f'/proc/{self.process.pid}/maps').read_text()
        names = set(re.findall(rf'{SHARED_MEMORY}/fastrtps_[0-9a-f]{{16}}', maps))
        return max({Path(name) for name in names} - set(others),
                   key=lambda path: path.stat().st_size)


def test_only_the_segment_of_the_killed_process_is_removed():
    domain = new_domain()
    with contextlib.ExitStack() as stack, Neighbour(domain) as killed:
        # Before the other one comes, and each maps both.
        theirs = killed.segment()
        living = stack.enter_context(Neighbour(domain))
        stays = living.segment(theirs)
        assert theirs.stat().st_size >= 64 << 20
        remove_stale_segments()
        assert theirs.exists()
        killed.process.kill()
        killed.process.wait()
        assert theirs.exists()  # Fast DDS leaves it
        assert remove_stale_segments() >= 1
        assert not theirs.exists()
        assert stays.exists()
        assert living.process.poll() is None


def test_nothing_else_is_touched(tmp_path):
    kept = ['fastrtps_0123456789abcdef', 'fastrtps_port7000', 'fastrtps_port7000_el',
            'sem.fastrtps_port7000_mutex', 'fastrtps_0123456789ABCDEF_el', 'other']
    gone = ['fastrtps_fedcba9876543210', 'fastrtps_fedcba9876543210_el']
    for name in kept + gone:
        (tmp_path / name).write_bytes(b'x')
    assert remove_stale_segments(tmp_path) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
    assert remove_stale_segments(tmp_path) == 0
    assert remove_stale_segments(tmp_path / 'nowhere') == 0
