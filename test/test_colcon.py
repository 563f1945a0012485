"""After a build by colcon the commands are on the PATH, and `ros2 run` finds them."""

import configparser
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def test_the_hook_that_colcon_is_told_of_is_installed_and_names_the_folder_of_scripts(tmp_path):
    subprocess.run(
        [sys.executable, 'setup.py', '--quiet', 'install_data', '--install-dir', str(tmp_path)],
        cwd=ROOT, check=True)
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    hook, = json.loads((ROOT / 'colcon.pkg').read_text())['hooks']
    action, variable, folder = (tmp_path / hook).read_text().strip().split(';')
    assert (action, variable) == ('prepend-non-duplicate', 'PATH')
    assert config['install']['install_scripts'] == f'$base/{folder}'
    assert config['develop']['script_dir'] == f'$base/{folder}'


@pytest.mark.skipif(importlib.util.find_spec('colcon_core') is None,
                    reason='colcon is not installed')
@pytest.mark.parametrize('layout', [[], ['--merge-install'], ['--symlink-install']])
def test_commands_are_on_the_path_of_a_shell_that_sourced_a_build(tmp_path, layout):
    subprocess.run(
        [sys.executable, '-m', 'colcon', 'build', '--paths', str(ROOT), *layout],
        cwd=tmp_path, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    script = ('source install/setup.bash && command -v derain derain_node derain_top && '
              'python3 -c "import derain_ros; print(derain_ros.__file__)"')
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    output = subprocess.run(
        ['bash', '-c', script], cwd=tmp_path, env=environment, check=True, capture_output=True,
        text=True).stdout.split()
    assert [Path(line).name for line in output[:3]] == ['derain', 'derain_node', 'derain_top']
    assert all(line.startswith(f'{tmp_path}/install') and '/lib/derain_ros/' in line
               for line in output[:3])
    assert output[3].endswith('derain_ros/__init__.py')
