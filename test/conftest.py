"""What holds for the whole test session."""

import os
import re
import signal
from contextlib import closing, nullcontext, suppress
from pathlib import Path

import pytest

with suppress(ImportError):
    from hypothesis import HealthCheck, settings

    # How long it takes to draw an example says nothing on a busy machine.
    settings.register_profile(
        'busy', deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile('busy')

# A shell that runs the tests in the background has SIGINT ignored, and the processes that
# the tests start and interrupt would inherit that; a handler is not inherited.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Threads that spin while they wait starve everything else on a busy machine.
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')

# Processes of pytest-xdist share the cores.
if 'PYTEST_XDIST_WORKER_COUNT' in os.environ:
    share = os.cpu_count() // int(os.environ['PYTEST_XDIST_WORKER_COUNT'])
    os.environ.setdefault('OMP_NUM_THREADS', str(max(1, share)))

NOT_EVERYWHERE = re.compile(
    r"(?:No module named|cannot import name '\w+' from) "
    r"'(rclpy|launch|launch_ros|torch|\w+_msgs|std_srvs|rcl_interfaces)[.']")
"""Packages that not every machine has; files of tests that import them are skipped there.

Without the package ``launch``, the folder of that name is taken for it.
"""


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector):
    outcome = yield
    report = outcome.get_result()
    if report.failed and (missing := NOT_EVERYWHERE.search(str(report.longrepr))):
        report.outcome = 'skipped'
        report.longrepr = str(collector.path), 0, f'Skipped: needs {missing[1]}'


@pytest.fixture
def cut_model():
    """Options of a model that is loaded at once: it cuts pixels off at 120 and marks those it cut.

    Compiling a real one takes seconds on a busy machine.
    """
    return ['--model', str(Path(__file__).parent / 'data' / 'cut_at_120.onnx')]


@pytest.fixture
def derain(capsys):
    """Run ``derain`` in this process, which has to end with ``status``; return what it says.

    What it refuses it has to refuse in one line at the end, unless the parser does with the usage.
    """
    def derain(*arguments, status=0):
        from derain_ros.cli import main

        try:
            found = main([str(argument) for argument in arguments])
        except SystemExit as end:
            found = end.code
        told = capsys.readouterr()
        assert (found, 'Traceback' in told.err) == (status, False), told.err
        if status == 2 and not told.err.startswith('usage: '):
            *status_lines, refusal = told.err.splitlines()
            assert refusal.startswith('derain: error: ') and len(status_lines) < 2, told.err
        return told
    return derain


@pytest.fixture(scope='session')
def pictures(tmp_path_factory):
    """Return a folder of dry pictures to train on."""
    from training_runs import write_pictures

    return write_pictures(tmp_path_factory.mktemp('dry'))


@pytest.fixture(scope='session')
def engine():
    """Return a derainer that the tests of a process share: compiling one takes seconds."""
    from derain_ros.engines import create_engine

    with closing(create_engine('auto', 'nano', precision='f32')) as engine:
        yield engine


@pytest.fixture
def quick_commands(engine, monkeypatch):
    """Let commands run on the shared engine, where how they open theirs is not the question."""
    from derain_ros.commands import bag

    monkeypatch.setattr(bag, 'open_engine', lambda args: nullcontext(engine))
