"""What a killed process leaves in shared memory, and that it alone is cleared away."""

import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ros_fixtures import PROFILE, new_domain, ros_environment, wait_for

from derain_ros.node.process_memory import SHARED_MEMORY, profile_variable, remove_stale_segments

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
        self.process = subprocess.Popen(
            [sys.executable, '-c', NODE], env=ros_environment(domain) | PROFILE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == 'up\n'

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()

    def segment(self, *others):
        """Return its segment, of which a process maps those of its peers too."""
        maps = Path(f'/proc/{self.process.pid}/maps').read_text()
        names = set(re.findall(rf'{SHARED_MEMORY}/fast(?:rtps|dds)_[0-9a-f]{{16}}', maps))
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
        assert 'deprecated' not in killed.process.stderr.read()  # of the variable
        # A node that a test beside this one starts may be the first to do it.
        wait_for(lambda: remove_stale_segments() or not theirs.exists(), 'removal')
        wait_for(lambda: not theirs.exists(), 'end of the segment')
        assert stays.exists()
        assert living.process.poll() is None


@pytest.mark.parametrize('name', ['fastrtps', 'fastdds'])  # Fast DDS 2 and 3
def test_nothing_else_is_touched(tmp_path, name):
    kept = [f'{name}_0123456789abcdef', f'{name}_port7000', f'{name}_port7000_el',
            f'sem.{name}_port7000_mutex', f'{name}_0123456789ABCDEF_el', 'other']
    gone = [f'{name}_fedcba9876543210', f'{name}_fedcba9876543210_el']
    for file in kept + gone:
        (tmp_path / file).write_bytes(b'x')
        os.utime(tmp_path / file, (1, 1))
    kept.append(f'{name}_1111111111111111_el')  # its process may be about to lock it
    (tmp_path / kept[-1]).touch()
    assert remove_stale_segments(tmp_path) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
    assert remove_stale_segments(tmp_path) == 0
    assert remove_stale_segments(tmp_path / 'nowhere') == 0


@pytest.mark.parametrize(('package', 'variable'), [
    ('fastdds', 'FASTDDS_DEFAULT_PROFILES_FILE'), ('fastrtps', 'FASTRTPS_DEFAULT_PROFILES_FILE')])
def test_the_profile_goes_into_the_variable_that_the_installed_fast_dds_reads(
        tmp_path, monkeypatch, package, variable):
    (tmp_path / 'ros' / 'share' / package).mkdir(parents=True)
    (tmp_path / 'workspace').mkdir()
    monkeypatch.setenv('AMENT_PREFIX_PATH', f'{tmp_path / "workspace"}:{tmp_path / "ros"}')
    assert profile_variable() == variable
