"""Installation of derain_ros, for colcon (ament_python) and for pip."""

import re
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = 'derain_ros'
HERE = Path(__file__).resolve().parent
VERSION = re.search(
    r"__version__ = '([^']+)'", (HERE / PACKAGE / '__init__.py').read_text(encoding='utf-8')
).group(1)


def share(folder):
    """List the files of a top-level folder for share/derain_ros."""
    files = sorted(path for path in (HERE / folder).iterdir() if path.is_file())
    return (f'share/{PACKAGE}/{folder}', [str(path.relative_to(HERE)) for path in files])


setup(
    name=PACKAGE,
    version=VERSION,
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    package_data={f'{PACKAGE}.report': ['templates/*']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{PACKAGE}']),
        (f'share/{PACKAGE}', ['package.xml']),
        # Lets colcon's setup files put the executables on the PATH; see colcon.pkg.
        (f'share/{PACKAGE}/hook', ['resource/path.dsv']),
        share('launch'),
        share('config'),
        share('config/detectors'),
        share('config/sros2'),
        share('config/train'),
        share('models'),
    ],
    python_requires='>=3.10',
    install_requires=[
        # What Ubuntu 22.04 has is new enough, where it has it.
        'backports.zstd; python_version < "3.14"',
        'lz4>=3.1',
        'mcap>=1.1',
        'numpy>=1.21',
        'opencv-python-headless>=4.5.4',
        'openvino>=2024.4',
        'rich>=11.2',
        'rosbags>=0.11.9,<0.12',  # its internals are used
        'ruamel.yaml>=0.17',
        'tqdm>=4.57',
    ],
    extras_require={
        # What the commands need that measure and report, and no vehicle does.
        'tools': [
            'av>=15.0',
            'distributed>=2023.1',
            'jinja2>=3.0',
            'matplotlib>=3.6',
            'msgspec>=0.18',
            'psutil>=5.9',
            'pycocotools>=2.0.6',
        ],
        # A real ROS 2 Jazzy from PyPI, for machines without a ROS installation.
        'ros': [
            'ros-jazzy-rclpy==7.1.*',
            'ros-jazzy-common-interfaces==5.3.*',
            'ros-jazzy-rmw-fastrtps-cpp==8.4.*',
        ],
        # Kilted, for tests with it.
        'kilted': [
            'ros-kilted-rclpy==9.1.*',
            'ros-kilted-common-interfaces==5.5.*',
            'ros-kilted-rmw-fastrtps-cpp==9.3.*',
        ],
        'train': [
            'msgspec>=0.18',
            'onnx>=1.16',
            'onnxscript>=0.2',
            'safetensors>=0.4',
            'tensorboard>=2.14',
            'torch>=2.6',
        ],
        # For a TensorRT that is installed already, by its version of CUDA: 12 on JetPack 6.
        'cuda12': ['cuda-bindings==12.*'],
        'cuda13': ['cuda-bindings==13.*'],
        # The compiler of TensorRT for RTX GPUs, which also builds on machines without a GPU.
        'tensorrt': [
            'cuda-bindings==13.*',
            'tensorrt_rtx_cu13>=1.2; platform_machine == "x86_64"',
        ],
        'test': [
            'hypothesis>=6.80',
            'playwright>=1.40',
            'pytest>=7.4',
            'pytest-xdist>=3.8',
            'pyyaml>=6.0',
            'ruff==0.17.*',
            'scikit-image>=0.19',
        ],
    },
    zip_safe=False,
    maintainer='derain_ros maintainers',
    maintainer_email='maintainers@users.noreply.b-seed-3f6f19bf.example',
    description='See through rain: derained images and rain masks from ROS 2 camera topics.',
    license='Apache-2.0',
    entry_points={
        'console_scripts': [
            'derain = derain_ros.cli:main',
            'derain_node = derain_ros.node.main:main',
            'derain_top = derain_ros.cli:derain_top',
        ],
    },
)
