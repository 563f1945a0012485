"""Format and sort names and messages for users, and the base class of errors shown to them."""

import os
import re
import sys

_PIP = {'backports': 'backports.zstd', 'cv2': 'opencv-python-headless',
        'rosbags': '"rosbags<0.12"', 'ruamel': 'ruamel.yaml', 'yaml': 'pyyaml'}
"""Requirement to pass to pip for a module, if it differs from the name of the module."""


class UserError(Exception):
    """An error that the user can fix; the message says what is wrong and what to do."""


def printable(text: object) -> str:
    r"""Escape what could confuse a terminal or a page: control, bidi and surrogate characters.

    >>> printable('a\x1b[2Jb')
    'a\\x1b[2Jb'
    """
    return ''.join(
        letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(text))


def natural_key(text: str) -> list:
    """Return a sort key for natural order, in which frame_2 comes before frame_10."""
    parts = re.split('([0-9]+)', text)
    return [(int(part), part) if number % 2 else part for number, part in enumerate(parts)]


def how_to_install(*packages: str) -> str:
    """Return how to install PyPI packages; without an active virtual environment, suggest one.

    >>> how_to_install('openvino').endswith('install it with `pip install openvino`')
    True
    """
    them = 'it' if len(packages) == 1 else 'them'
    install = f'install {them} with `pip install {" ".join(packages)}`'
    if sys.prefix != sys.base_prefix:
        return install
    return ('no virtual environment is active: if there is one, activate it '
            f'(`source .venv/bin/activate`), else {install}')


def why_not_imported(error: Exception, module: str | None = None) -> str:
    """Return why a third-party package cannot be imported, and what to do.

    ``module`` is the module to be imported, by default the one that the error names. Returns an
    empty string if there is no name, or it is a module of ours.
    """
    name = (module or getattr(error, 'name', None) or '').partition('.')[0]
    if 'numpy' in str(error) and not isinstance(error, ModuleNotFoundError):
        return (f'{error}: NumPy {_numpy()} is not the one that a package beside it was built '
                'for; with packages of ROS or Ubuntu `pip install "numpy<2"` fixes that')
    if name in ('', 'derain_ros'):
        return ''
    if re.fullmatch(r'rclpy|rpyutils|(ament|rosidl)_\w+|\w+_(msgs|srvs|interfaces)', name):
        first = str(error).partition('\n')[0]  # rclpy's error messages are long
        distribution = os.environ.get('AMENT_PREFIX_PATH') and os.environ.get('ROS_DISTRO')
        if not distribution:
            return (f'{first}; source a ROS 2 installation, Humble or newer '
                    '(`source /opt/ros/jazzy/setup.bash`)')
        package = f'ros-{distribution}-{name.replace("_", "-")}'
        return (f'{first}; ROS 2 {distribution} is sourced: either it is for another Python than '
                f'{sys.executable} (is a conda environment active?), or {package} is missing '
                f'(`sudo apt install {package}`)')
    packages = [_PIP.get(name, name)]
    if not isinstance(error, ModuleNotFoundError):
        return (f'the Python package {name} is installed, but broken or of another version '
                f'({error}); reinstall it with `pip install --force-reinstall --no-deps '
                f'{packages[0]}`')
    # A newer NumPy would shadow the one that the packages of the sourced ROS are built for.
    if os.environ.get('AMENT_PREFIX_PATH') and _numpy().startswith('1.'):
        packages.append('"numpy<2"')
    return f'the Python package {name} is missing; {how_to_install(*packages)}'


def _numpy() -> str:
    from importlib import metadata

    try:
        return metadata.version('numpy')
    except metadata.PackageNotFoundError:
        return ''
