"""What the import of the node loads, in a process of its own: nothing that a vehicle lacks."""

import os
import subprocess
import sys

import pytest
from ros_fixtures import ROOT

# Some packages are there from the start, as their names are spread over several.
SHOW = ('import sys; before = set(sys.modules); import derain_ros.node.main; '
        'import derain_ros.node.node; print(*(set(sys.modules) - before))')
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


@pytest.mark.parametrize(('package', 'text', 'told'), [
    ('cv2', 'raise ImportError("libGL.so.1: cannot open shared object file", name="cv2")',
     'cv2 is installed, but broken or of another version (libGL.so.1: cannot open'),
    ('cv2', 'raise ImportError("numpy.core.multiarray failed to import")', '"numpy<2"'),
    ('rclpy', 'raise ModuleNotFoundError("No module named rclpy", name="rclpy")',
     'No module named rclpy; ')])
def test_a_package_that_is_missing_or_broken_is_told_in_a_line(tmp_path, package, text, told):
    (tmp_path / f'{package}.py').write_text(text)
    path = os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get('PYTHONPATH', '')])
    run = subprocess.run(
        [sys.executable, '-m', 'derain_ros.node.main'], capture_output=True, text=True,
        timeout=300, cwd=tmp_path, env=os.environ | {'PYTHONPATH': path})
    assert run.returncode == 1
    assert run.stderr.startswith('derain_node: cannot start: ') and told in run.stderr
    assert 'Traceback' not in run.stderr
