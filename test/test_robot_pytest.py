"""The tests run with a pytest from pip beside the plugins that a ROS installation brings."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_plugins_of_ros_that_do_not_load_are_left_out(tmp_path):
    for name in ('launch_testing', 'launch_ros', 'launch_pytest'):
        information = tmp_path / f'{name}-1.0.dist-info'
        information.mkdir()
        (information / 'METADATA').write_text(
            f'Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n')
        (information / 'entry_points.txt').write_text(f'[pytest11]\n{name} = {name}_hooks\n')
        # As launch_testing's: an argument that pytest 8 took away.
        (tmp_path / f'{name}_hooks.py').write_text(
            'def pytest_pycollect_makemodule(path, parent):\n    pass\n')
    run = subprocess.run(
        [sys.executable, '-c',
         f'import sys; sys.path.insert(0, {str(tmp_path)!r}); import pytest; '
         'sys.exit(pytest.main(["--collect-only", "-q", "test/test_architecture.py"]))'],
        cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
