"""``derain policy``: SROS2 policy of the node.

Print the SROS2 policy of derain_node for a parameter file: the topics and services that the
node uses with these cameras, and nothing else. The enclave has the full name of the node.

examples:
  derain policy --config my_cameras.yaml -o derain_policy.xml
  derain policy --config my_cameras.yaml --namespace /car -o derain_policy.xml
  ros2 security create_permission keystore /derain derain_policy.xml

Topics that are remapped when the node is started have to be renamed in the policy. How to
use it: docs/security.md of the source.
"""

import argparse
import sys
from pathlib import Path

from derain_ros.commands import refusing
from derain_ros.replacing import replace_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--config', type=Path, metavar='FILE',
                        help='parameter file of the node (default: the installed derain.yaml)')
    parser.add_argument('--namespace', default='/', metavar='NS',
                        help='namespace that the node runs in (default: /)')
    parser.add_argument('-o', '--output', type=Path, metavar='FILE',
                        help='file to write (default: standard output)')


def run(args: argparse.Namespace) -> int:
    from derain_ros.engines.models import share_directory
    from derain_ros.live.security_policy import read_policy, to_xml

    with refusing():
        config = args.config or share_directory() / 'config' / 'derain.yaml'
        text = to_xml(read_policy(config, args.namespace))
        if args.output is None:
            sys.stdout.write(text)
        else:
            replace_file(args.output, text)
    return 0
