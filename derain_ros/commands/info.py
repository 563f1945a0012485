"""``derain info``: models, engines and devices found.

Show what this machine can run: models, engines with their devices, and versions. An engine
that cannot run is listed with the reason, a model with its broken files.

examples:
  derain info
  derain info --json | jq .engines
"""

import argparse
import json
import os
from pathlib import Path

from derain_ros.files.run_files import version_of, versions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--json', action='store_true', help='print JSON')


def run(args: argparse.Namespace) -> int:
    from derain_ros.engines import engine_report
    from derain_ros.engines.models import model_names

    found = {
        'models': [_model(name) for name in model_names()],
        'engines': [{key: getattr(status, key) for key in (
            'engine', 'available', 'device', 'detail')} for status in engine_report()],
        'versions': _versions()}
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        _print(found)
    return 0


def _model(name: str) -> dict:
    from derain_ros.engines.models import ModelError, ModelInfo, find_model

    try:
        model = find_model(name)
        problems = model.problems()
    except ModelError as error:
        model, problems = ModelInfo(name, onnx=Path()), [str(error)]
    size = model.onnx.stat().st_size if model.onnx.is_file() else 0
    facts = ('parameters', 'flops_per_pixel', 'figures', 'licence', 'description')
    return {'name': name, 'file': str(model.onnx), 'megabytes': round(size / 1e6, 2),
            **{key: getattr(model, key) for key in facts}, 'problems': problems}


def _versions() -> dict[str, str | None]:
    wheels = {name: version_of(f'ros-{name}-rclpy') for name in ('kilted', 'jazzy')}
    ros = os.environ.get('ROS_DISTRO') or next(filter(wheels.get, wheels), None)
    rclpy = version_of('rclpy') or version_of('ros-rclpy')
    return versions() | {'ros': ros, 'rclpy': rclpy, 'rosbags': version_of('rosbags')}


def _print(found: dict) -> None:
    print('Models')
    for model in found['models']:
        print(f'  {model["name"]}: {model["description"]}')
        for problem in model['problems']:
            print(f'    broken: {problem}')
        if not model['parameters']:
            continue
        print(f'    {model["parameters"]:,} parameters, '
              f'{model["flops_per_pixel"]:,.0f} FLOP/px, '
              f'{model["megabytes"]} MB, licence {model["licence"]}')
        for key, value in model['figures'].items():
            print(f'    {key}: {value}')
        print(f'    {model["file"]}')
    print('Engines')
    for engine in found['engines']:
        state = engine['device'] if engine['available'] else 'not available'
        print(f'  {engine["engine"]}: {state} ({engine["detail"]})')
    print('Versions')
    for name, version in found['versions'].items():
        print(f'  {name}: {version or "not found"}')
