"""The node with a commanded engine, and a peer: what the tests of faults stand on."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from faulty_engine import Controls
from lens import Lens
from ros_fixtures import NodeProcess, Peer, new_domain, process_ended

NODE = (str(Path(__file__).parent / 'faulty_node.py'),)
PARAMETERS = {'engine': 'faulty', 'rain_gate': False}


class Rig:
    """A running node with the engine of faulty_engine.py, and a peer; a context manager.

    ``parameters`` of the node are those besides :data:`PARAMETERS`, ``arguments`` stand after
    ``--ros-args``, ``environment`` is that of the node's process.
    """

    def __init__(
        self, directory: Path, parameters: Mapping[str, object] | None = None,
        arguments: tuple[str, ...] = (), environment: Mapping[str, str] | None = None,
        words: tuple[str, ...] = (),
    ):
        self.engine = Controls(directory / 'engines')
        self.domain = new_domain()
        self.node = NodeProcess(
            directory, self.domain, PARAMETERS | dict(parameters or {}), arguments,
            self.engine.environment | dict(environment or {}), (*NODE, *words))
        self.peer = Peer(self.domain)

    def __enter__(self):
        self.peer.__enter__()
        self.node.__enter__()
        return self

    def __exit__(self, *_):
        self.node.__exit__()
        self.peer.__exit__()

    def active(self) -> 'Rig':
        """Wait until the node is active."""
        self.peer.wait_for_state('active', self.node)
        return self

    def heal(self, *lenses: Lens) -> None:
        """Let the engine work, without waiting for the node's next attempt."""
        self.engine.command()
        self.engine.command('faulty2')
        assert self.peer.reset()
        for lens in lenses:
            lens.derains()

    def state(self) -> str | None:
        """Return the state of the engine that /diagnostics tells."""
        return self.peer.values('engine').get('state')

    def level(self, name: str) -> bytes | None:
        """Return the level of a status of /diagnostics, None before the first."""
        return self.peer.level(name)

    def threads(self) -> int:
        """Return how many threads the node has."""
        return int(self.node.status('Threads'))

    def ends(self, number: int) -> None:
        """Send a signal, after which the node has to end as it should."""
        status, seconds = process_ended(self.node.process, number)
        assert (status, 'Traceback' in self.node.log()) == (0, False), self.node.log()
        assert seconds < 5


def active_rig(parameters: Mapping[str, object] | None = None, arguments: tuple[str, ...] = ()):
    """Return a fixture: a :class:`Rig` that is active, for the tests of a file."""
    @pytest.fixture(scope='module')
    def rig(tmp_path_factory):
        with Rig(tmp_path_factory.mktemp('rig'), parameters, arguments) as rig:
            yield rig.active()
    return rig
