"""Names in messages, and what these say of packages that are missing."""

import re
import subprocess
import sys
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from derain_ros.text import how_to_install, printable

ROOT = Path(__file__).resolve().parent.parent


@settings(max_examples=50, deadline=None)
@given(st.text(max_size=9))
def test_printable_is_printable_and_keeps_what_was(text):
    shown = printable(text)
    assert shown.isprintable() and shown.encode()[:0] == b''
    assert shown == text or not text.isprintable()


def test_in_an_environment_it_is_pip(monkeypatch):
    monkeypatch.setattr(sys, 'base_prefix', '/usr')
    monkeypatch.setattr(sys, 'prefix', '/home/me/ws/.venv')
    assert how_to_install('a') == 'install it with `pip install a`'
    assert how_to_install('a', 'b') == 'install them with `pip install a b`'


def test_outside_of_one_a_command_says_to_activate_it_first(tmp_path):
    # Without its packages, as the Python of a terminal in which nothing was activated.
    run = subprocess.run(
        [getattr(sys, '_base_executable', sys.executable), '-I', '-S', '-c',
         f'import sys; sys.path.insert(0, {str(ROOT)!r}); from derain_ros.cli import main; '
         'sys.exit(main(["bag", "drive", "-o", "out"]))'],
        cwd=tmp_path, capture_output=True, text=True)
    assert run.returncode == 1, run.stderr
    assert re.fullmatch(
        r'derain: error: the Python package \w+ is missing; no virtual environment is active: if '
        r'there is one, activate it \(`source .venv/bin/activate`\), else install it with '
        r'`pip install \S+`\n', run.stderr), run.stderr


def test_no_message_or_page_names_this_package_as_one_of_pypi():
    files = [ROOT / 'README.md', *(
        path for folder in ('derain_ros', 'docs', 'config', 'launch', 'test')
        for path in (ROOT / folder).rglob('*') if path.suffix in ('.py', '.md', '.yaml'))]
    assert len(files) > 100
    assert [str(path) for path in files if path.name != 'test_text.py' and re.search(
        r'pip install[^\n`]*["\' ]derain_ros', path.read_text(encoding='utf-8'))] == []
