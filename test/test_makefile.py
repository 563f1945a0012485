"""The Makefile with and without a sourced ROS.

A script stands in for the Python of a ROS installation; what pip makes of the package that it is
given is asked of pip itself. Nothing is installed.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PYTHON = """#!/bin/sh
case "$*" in
    *'import rclpy'*) exit {status};;
    *numpy*) echo 1.21.5;;
esac
"""
pytestmark = pytest.mark.skipif(shutil.which('make') is None, reason='make is not installed')


def commands(folder, target, *, ros):
    """Return the commands that make would run for a target in a fresh clone."""
    python = folder / 'python'
    python.write_text(PYTHON.format(status=0 if ros else 1))
    python.chmod(0o755)
    environment = {name: value for name, value in os.environ.items()
                   if name not in ('AMENT_PREFIX_PATH', 'MAKEFLAGS', 'MAKELEVEL')}
    if ros:
        environment['AMENT_PREFIX_PATH'] = '/opt/ros/humble'
    return subprocess.run(
        ['make', '--dry-run', '--no-print-directory', f'PYTHON={python}',
         f'VENV={folder / "venv"}', target],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize('ros', [True, False], ids=['sourced', 'wheels'])
def test_what_is_installed_is_a_requirement_that_pip_takes(tmp_path, ros):
    output = commands(tmp_path, 'setup-test', ros=ros)
    packages = re.findall(r"-e '(.*?)'", output)
    assert packages == ['.[tools]' if ros else '.[ros,tools]', '.[train,tensorrt,test]']
    pip = subprocess.run(
        [sys.executable, '-m', 'pip', 'install', '--dry-run', '--no-deps', '--no-index',
         '--no-build-isolation', '--use-pep517', '-e', packages[ros]],
        cwd=ROOT, capture_output=True, text=True)
    assert pip.returncode == 0, pip.stderr


def test_a_sourced_ros_is_seen_through_the_environment_and_keeps_its_numpy(tmp_path):
    output = commands(tmp_path, 'setup', ros=True)
    assert ' -m venv --system-site-packages ' in output
    assert "echo 'numpy==1.21.5'" in output
    output = commands(tmp_path, 'setup', ros=False)
    assert '--system-site-packages' not in output and 'numpy==' not in output


def test_the_packages_of_ubuntu_22_04_and_kilted_are_tested_where_no_ros_is_sourced(tmp_path):
    output = commands(tmp_path, 'test-all', ros=False)
    assert 'PIP_CONSTRAINT=.ci/jammy.txt' in output and '.[kilted,tools,test]' in output
    assert len(re.findall('-m pytest', output)) == 3
    assert len(re.findall('-m pytest', commands(tmp_path, 'test-all', ros=True))) == 1
