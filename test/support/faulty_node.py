"""``derain_node`` with the engines ``faulty`` and ``faulty2``, in this order, and no other."""

import sys
from functools import partial
from types import ModuleType

import faulty_engine

from derain_ros.engines import ENGINES
from derain_ros.node import node
from derain_ros.node.main import main


def offer(*names: str) -> None:
    """Put engines of these names in the place of the real ones."""
    ENGINES.clear()
    for name in names:
        module = ModuleType(name)
        module.probe = faulty_engine.probe
        module.create = partial(faulty_engine.create, name)
        sys.modules[name] = module
        ENGINES[name] = name


if __name__ == '__main__':
    offer('faulty', 'faulty2')
    node.REPORT_SECONDS = 0.2  # the tests wait for reports again and again
    sys.exit(main())
