"""Every name that is imported from ROS's Python packages is there on Humble, too.

``data/humble_names.txt`` has, module by module, what the branches ``humble`` of rclpy (3.3.15),
launch and launch_ros define. What functions take there, and what they do, is not asserted.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIST = ROOT / 'test' / 'data' / 'humble_names.txt'
FILES = [file for folder in ('derain_ros', 'launch', 'test')
         for file in sorted((ROOT / folder).rglob('*.py'))]
HUMBLE = {module: set(names.split()) for module, _, names in (
    line.partition(':') for line in LIST.read_text().splitlines())}
PACKAGES = {module for module in HUMBLE if '.' not in module}


def missing(source):
    """Return what a source takes from ROS that Humble lacks, but for what has a fallback."""
    return [f'{line}: {module}.{name}' if name else f'{line}: {module}'
            for line, module, name in taken(ast.parse(source))
            if module.partition('.')[0] in PACKAGES and not has(module, name)]


def has(module, name):
    return module in HUMBLE and (
        not name or name in HUMBLE[module] or f'{module}.{name}' in HUMBLE)


def taken(node):
    """Yield line, module and name of imports and of the attributes of modules."""
    if isinstance(node, ast.Try) and any(
            'ImportError' in ast.unparse(handler.type or handler) for handler in node.handlers):
        for handler in node.handlers:  # what follows an ImportError is what Humble gets
            yield from taken(handler)
        return
    if isinstance(node, ast.ImportFrom) and not node.level:
        for alias in node.names:
            yield node.lineno, node.module, alias.name
    elif isinstance(node, ast.Import):
        for alias in node.names:
            yield node.lineno, alias.name, ''
    elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in PACKAGES:
        yield node.lineno, ast.unparse(node.value), node.attr
    for child in ast.iter_child_nodes(node):
        yield from taken(child)


def test_nothing_is_taken_from_ros_that_humble_lacks():
    found = [f'{file.relative_to(ROOT)}:{problem}'
             for file in FILES for problem in missing(file.read_text())]
    assert found == []


@pytest.mark.parametrize(('source', 'found'), [
    ('from rclpy.clock_type import ClockType', ['1: rclpy.clock_type.ClockType']),
    ('from rclpy.clock import ClockType', []),
    ('import rclpy.event_handler', ['1: rclpy.event_handler']),
    ('import rclpy\nrclpy.spin_forever()', ['2: rclpy.spin_forever']),
    ('import rclpy.exceptions\nrclpy.exceptions.ROSInterruptException()', []),
    ('try:\n    from rclpy.experimental import A\nexcept ImportError:\n    A = None', []),
    ('try:\n    from rclpy.node import B\nexcept ValueError:\n    A = None',
     ['2: rclpy.node.B']),
    ('try:\n    import rclpy.new\nexcept ImportError:\n    import rclpy.old', ['4: rclpy.old']),
    ('from launch_ros.actions import Node, Robot', ['1: launch_ros.actions.Robot']),
])
def test_a_name_that_humble_lacks_would_be_found(source, found):
    assert missing(source) == found
