"""What the import of the node loads, in a process of its own: nothing that a vehicle lacks."""

import subprocess
import sys

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2 (rclpy)')

from ros_fixtures import ROOT

SHOW = 'import sys, derain_ros.node.main, derain_ros.node.node; print(*sys.modules)'
TOOLS = {
    'torch', 'matplotlib', 'onnx', 'rosbags', 'mcap', 'rich', 'tqdm', 'dask', 'distributed',
    'jinja2', 'pycocotools', 'scipy', 'skimage', 'pandas', 'msgspec', 'psutil', 'ruamel',
    'safetensors', 'openvino', 'tensorrt', 'tensorrt_rtx', 'cuda', 'pynvml', 'pytest'}
ROOMS = ('node', 'images', 'engines', 'rain_gate')


def test_the_node_starts_without_tools_and_back_ends():
    output = subprocess.run(
        [sys.executable, '-c', SHOW], check=True, capture_output=True, text=True, timeout=300,
        cwd=ROOT)
    loaded = output.stdout.split()
    assert 'derain_ros.node.node' in loaded
    assert TOOLS & {name.partition('.')[0] for name in loaded} == set()
    ours = {name.split('.')[1] for name in loaded if name.startswith('derain_ros.')}
    assert ours - {'text', 'replacing'} == set(ROOMS)  # those two are for every room
