"""Who imports whom: the rooms of the package, read from the source and not by importing it.

Every import counts, also those inside functions. Names that are only given as strings to
``importlib`` (the engines, the scenarios of ``derain bench``) are not seen.
"""

import ast
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = 'derain_ros'

ROS = ('rclpy builtin_interfaces diagnostic_msgs lifecycle_msgs rcl_interfaces sensor_msgs '
       'std_msgs std_srvs')
BAGS = 'rosbags mcap lz4 ruamel backports compression'  # the last two have zstd

EVERYWHERE = ('text', 'replacing')
"""Modules that every room may import; these import the standard library alone."""

TABLE = {
    **dict.fromkeys(EVERYWHERE, ('', '')),
    # room or module: (rooms and modules that it may import, packages of others)
    # What runs on the vehicle.
    'images': ('', 'numpy cv2 cv_bridge'),
    'rain_gate': ('', 'numpy cv2'),
    'engines.models': ('', ''),
    'engines': ('engines.models', 'numpy cv2 openvino'),
    'engines.reference': ('engines engines.models engines.torch network',
                          'numpy openvino torch safetensors'),
    'engines.torch': ('engines engines.models network', 'numpy torch triton safetensors'),
    'engines.tensorrt': ('engines engines.models engines.reference', 'numpy cuda'),
    'node': ('images rain_gate engines engines.models', f'{ROS} numpy cv2 pynvml yaml'),
    # What makes the models.
    'network': ('', 'torch'),
    'rain': ('', 'numpy cv2'),
    'training': ('network rain evaluation engines.models images files',
                 'numpy cv2 msgspec onnx safetensors torch'),
    # What judges them, and works on files: no ROS.
    'bags': ('images rain_gate engines engines.models', f'numpy cv2 distributed {BAGS}'),
    'files': ('images engines engines.models bags', 'numpy cv2 av msgspec ruamel'),
    'rain.apply': ('images rain bags files', 'numpy cv2 rosbags'),
    'evaluation': ('images rain_gate engines engines.models rain bags files', 'numpy cv2'),
    'evaluation.detection': ('images rain_gate engines engines.models bags files',
                             'numpy cv2 msgspec openvino pycocotools'),
    'report': ('images rain_gate bags files evaluation',
               'numpy jinja2 matplotlib msgspec'),
    # What drives a node, and measures it.
    'live': ('images rain_gate engines engines.models node rain bags files evaluation report',
             f'{ROS} numpy cv2 rich rosbags'),
    'bench': ('images rain_gate engines engines.models engines.torch node rain bags files '
              'evaluation report live', f'{ROS} numpy cv2 psutil rosbags torch'),
    # What users type: thin, and imports where it runs.
    'commands': ('*', 'cv2 msgspec rich tqdm'),
    'cli': ('commands', ''),
}

SUPPORT = {'config', 'data', 'launch', 'support'}
"""Folders of test/ that are no rooms of the package."""


def modules() -> dict[str, Path]:
    """Return the file of each module, by its name less ``derain_ros.``; the package is ''."""
    found = {}
    for path in sorted((ROOT / PACKAGE).rglob('*.py')):
        parts = path.relative_to(ROOT / PACKAGE).with_suffix('').parts
        found['.'.join(parts[:-1] if parts[-1] == '__init__' else parts)] = path
    return found


MODULES = modules()


def imports(tree: ast.AST, *, typing: bool = True) -> Iterator[str]:
    """Yield what a module imports, as full names; ``typing`` takes TYPE_CHECKING along."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, 'imports are absolute'
            for name in node.names:
                full = f'{node.module}.{name.name}'
                yield full if full.removeprefix(f'{PACKAGE}.') in MODULES else node.module
        elif typing or not (isinstance(node, ast.If) and 'TYPE_CHECKING' in ast.dump(node.test)):
            yield from imports(node, typing=typing)


def room_of(module: str) -> str:
    """Return the longest entry of the table that a module belongs to."""
    rooms = [room for room in TABLE if f'{module}.'.startswith(f'{room}.')]
    assert rooms, f'{module} has no row in the table'
    return max(rooms, key=len)


def inner(names: Iterator[str]) -> set[str]:
    return {name.removeprefix(f'{PACKAGE}.') for name in names if name.startswith(f'{PACKAGE}.')}


TREES = {module: ast.parse(path.read_text(encoding='utf-8')) for module, path in MODULES.items()}


@pytest.mark.parametrize('room', TABLE)
def test_a_room_imports_what_it_may(room):
    rooms, others = (set(text.split()) for text in TABLE[room])
    forbidden = []
    for module in filter(None, MODULES):
        if room_of(module) == room:
            found = set(imports(TREES[module]))
            taken = {name.partition('.')[0] for name in found} - {PACKAGE}
            forbidden += [f'{module} -> {name}'
                          for name in taken - sys.stdlib_module_names - others]
            if '*' not in rooms:
                forbidden += [f'{module} -> {name}' for name in inner(found)
                              if room_of(name) not in {room, *rooms, *EVERYWHERE}]
    assert forbidden == []


def circle(graph: dict[str, set[str]]) -> list[str]:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: inner(imports(tree, typing=False)) - {module}
             for module, tree in TREES.items()}
    assert circle(graph) == []


def test_no_rooms_import_each_other_in_a_circle():
    assert circle({
        room: {room for room in TABLE if room not in ('commands', 'cli')} if rooms == '*'
        else set(rooms.split()) for room, (rooms, _) in TABLE.items()}) == []


def test_a_circle_is_found():
    assert circle({'a': {'b'}, 'b': {'c'}, 'c': {'a'}, 'd': {'a'}})


def test_imports_in_functions_are_seen():
    tree = ast.parse('def run():\n  if True:\n    from derain_ros.node import mailbox\n'
                     'if TYPE_CHECKING:\n  import derain_ros.bags.plan\n')
    assert inner(imports(tree)) == {'node.mailbox', 'bags.plan'}
    assert inner(imports(tree, typing=False)) == {'node.mailbox'}


def twice(names: Iterator[str]) -> set[str]:
    return {name for name, count in Counter(names).items() if count > 1}


def test_no_two_modules_share_a_name():
    assert twice(path.stem for path in MODULES.values() if path.name != '__init__.py') == set()


def test_no_two_public_classes_share_a_name():
    assert twice(
        node.name for tree in TREES.values() for node in tree.body
        if isinstance(node, ast.ClassDef) and not node.name.startswith('_')) == set()


def test_the_tests_lie_as_the_package_does():
    tests = ROOT / 'test'
    files = [path for path in tests.rglob('*.py')
             if path.relative_to(tests).parts[0] not in ('data', 'support')]
    folders = {path.parent.relative_to(tests) for path in files}
    rooms = {path.parent.relative_to(ROOT / PACKAGE) for path in MODULES.values()}
    assert {folder for folder in folders - rooms if folder.parts[0] not in SUPPORT} == set()
    assert twice(path.name for path in files) == set()
