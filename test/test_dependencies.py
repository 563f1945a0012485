"""What is imported is declared, and what is declared is imported: setup.py, package.xml, README.

Read from the sources. Imports inside of strings are not seen, apart from the engines' below.
"""

import ast
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

PIP = {'backports': 'backports.zstd', 'cuda': 'cuda-bindings', 'cv2': 'opencv-python-headless',
       'ruamel': 'ruamel.yaml', 'skimage': 'scikit-image',
       'tensorrt_rtx': 'tensorrt_rtx_cu13', 'yaml': 'pyyaml'}
"""Packages of PyPI by what is imported, where that has another name."""

ROSDEP = {'cv2': 'python3-opencv', 'hypothesis': 'python3-hypothesis', 'numpy': 'python3-numpy',
          'psutil': 'python3-psutil', 'pytest': 'python3-pytest', 'rich': 'python3-rich',
          'ruamel': 'python3-ruamel.yaml', 'tqdm': 'python3-tqdm', 'yaml': 'python3-yaml'}
"""Keys of rosdep that name packages of Ubuntu; what has none goes by pip into an environment."""

BY_NAME = {'tensorrt_rtx'}
"""What the engines import by name."""

OPTIONAL = {
    'pynvml': 'temperature of the GPU, if it is there',
    'triton': 'comes with torch for CUDA',
    'compression': "zstd in Python 3.14's own library",
}
UNSEEN = {
    'onnxscript': "torch's exporter imports it", 'tensorboard': 'torch.utils imports it',
    'playwright': 'skipped where it is missing', 'ruff': 'run by make lint',
    'pytest-xdist': 'a plugin, for make test',
}


def imported(*folders):
    """Return the first parts of what the files of folders import, less what is theirs."""
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob('*.py'))]
    found = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Import):
                found |= {name.name.partition('.')[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(node.module.partition('.')[0])
    return found - sys.stdlib_module_names - {path.stem for path in files} - {'derain_ros'}


def requirements():
    """Return the names that setup.py requires, by extra; those of all installations under ''."""
    call, = (node for node in ast.walk(ast.parse((ROOT / 'setup.py').read_text()))
             if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'setup')
    words = {word.arg: word.value for word in call.keywords}
    found = {'': ast.literal_eval(words['install_requires']),
             **ast.literal_eval(words['extras_require'])}
    return {extra: {re.match(r'[\w.-]+', line)[0] for line in lines}
            for extra, lines in found.items()}


REQUIRED = requirements()
PACKAGE = ElementTree.parse(ROOT / 'package.xml').getroot()
EXEC = {element.text for element in PACKAGE.iter('exec_depend')}
TEST = {element.text for element in PACKAGE.iter('test_depend')}
WHEELS = {'ros', 'kilted'}
"""Extras that stand in for a ROS installation."""

OURS = imported('derain_ros') | BY_NAME
NODE = imported('launch', 'derain_ros/node')
THEIRS = imported('test')
OF_ROS = {'rclpy', 'launch', 'launch_ros', 'cv_bridge'} | {
    name for name in OURS | THEIRS | imported('launch')
    if re.search('_(msgs|srvs|interfaces)$', name)}

TOOLS = {ROSDEP[name] for name in OURS & set(ROSDEP)
         if PIP.get(name, name) in REQUIRED.get('tools', ())}
"""Keys for what no vehicle needs: package.xml may have them, or leave them to pip."""


def test_what_the_package_imports_is_required_of_pip_or_comes_with_ros():
    required = set().union(*REQUIRED.values())
    assert {PIP.get(name, name) for name in OURS - OF_ROS - set(OPTIONAL)} - required == set()


@pytest.mark.parametrize('extra', [extra for extra in REQUIRED if extra not in WHEELS])
def test_what_is_required_of_pip_is_imported(extra):
    used = {PIP.get(name, name) for name in (OURS | THEIRS if extra == 'test' else OURS)}
    assert REQUIRED[extra] - used - set(UNSEEN) == set()


def test_what_tests_import_is_required_for_them():
    required = set().union(*REQUIRED.values())
    assert {PIP.get(name, name) for name in THEIRS - OF_ROS - set(OPTIONAL)} - required == set()


def test_package_xml_has_what_the_package_and_its_launch_files_import():
    used = OURS | NODE
    assert used & OF_ROS | {ROSDEP[name] for name in used & set(ROSDEP)
                            if name in NODE or PIP.get(name, name) in REQUIRED['']
                            } - TOOLS == EXEC - TOOLS


def test_package_xml_has_what_the_tests_import_beside_that():
    used = {name for name in THEIRS if name in OF_ROS} | {
        ROSDEP[name] for name in THEIRS & set(ROSDEP)}
    assert used - EXEC - TOOLS == TEST - TOOLS


def test_the_readme_tells_a_robot_what_rosdep_does_not_install():
    line, = re.findall(r'^\$ pip install (.*)$', (ROOT / 'README.md').read_text(), re.M)
    brought = {'lz4', 'backports.zstd'}  # rosbags requires them
    assert set(re.sub(r'["<>=\d.,*]', '', line).split()) == {
        name for name in REQUIRED['']
        if name not in {PIP.get(module, module) for module in ROSDEP}} - brought
