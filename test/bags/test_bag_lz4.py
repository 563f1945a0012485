"""``derain bag`` on mcap files whose chunks are packed with lz4, as other recorders write them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from bag_files import drive, long_drive, messages_on, read_bag, write_mcap
from mcap.reader import make_reader

from derain_ros.bags.derain import derain_bag, plan_bag
from derain_ros.bags.recording import Recording

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def source(tmp_path):
    path = write_mcap(tmp_path / 'in.mcap', drive(), compression='LZ4')
    with path.open('rb') as stream:
        chunks = make_reader(stream).get_summary().chunk_indexes
        assert len(chunks) > 1 and {chunk.compression for chunk in chunks} <= {'lz4'}
    return path


def _read_by_mcap(path):
    """Return topic, time and bytes of every message, as the mcap package reads them."""
    with path.open('rb') as stream:
        return [(channel.topic, message.log_time, message.data)
                for _, channel, message in make_reader(stream, validate_crcs=True).iter_messages()]


def test_a_bag_of_lz4_chunks_is_derained_and_kept(source, engine, tmp_path):
    plain = write_mcap(tmp_path / 'plain.mcap', drive())
    for path, out in ((source, 'out'), (plain, 'same')):
        summary = derain_bag(plan_bag(path, tmp_path / out), engine)
        assert summary.made.total() == 8 and not summary.damages
    recorded, kept = _read_by_mcap(source), read_bag(tmp_path / 'out')
    names = {topic for topic, *_ in recorded}
    assert [(row.topic, row.time, row.data) for row in messages_on(kept, *names)] == recorded
    # What is derained does not depend on how the source was packed.
    assert kept == read_bag(tmp_path / 'same')
    assert sorted(_read_by_mcap(tmp_path / 'out' / 'out.mcap')) == sorted(
        (row.topic, row.time, row.data) for row in kept)
    with Recording(source, scan=True) as recording:
        assert [bytes(data) for *_, data in recording.read()] == [data for *_, data in recorded]


@pytest.mark.parametrize('share', [0.3, 0.7, 0.99])
def test_of_a_cut_bag_of_lz4_chunks_all_before_is_read(share, tmp_path):
    path = write_mcap(tmp_path / 'cut.mcap', long_drive(12), compression='LZ4')
    content, whole = path.read_bytes(), _read_by_mcap(path)
    path.write_bytes(content[:int(share * len(content))])
    with Recording(path) as recording:
        found = [(one.topic, time, data) for one, time, data in recording.read()]
        damage, = recording.damages
    assert found == whole[:len(found)] and len(found) > share * len(whole) / 2
    assert damage.file == 'cut.mcap'


def test_a_missing_lz4_is_named_with_the_remedy(source, tmp_path):
    # All that is installed here, but lz4.
    packages = tmp_path / 'packages'
    packages.mkdir()
    for folder in map(Path, sys.path):
        if folder.name in ('site-packages', 'dist-packages') and folder.is_dir():
            for found in folder.iterdir():
                place = packages / found.name
                if not found.name.startswith('lz4') and not place.is_symlink():
                    place.symlink_to(found)
    done = subprocess.run(
        [sys.executable, '-S', '-m', 'derain_ros.cli', 'bag', str(source), '-o',
         str(tmp_path / 'out')],
        env=os.environ | {'PYTHONPATH': f'{ROOT}{os.pathsep}{packages}'},
        capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith('derain: error: the Python package lz4 is missing; ')
    assert done.stderr.endswith('install it with `pip install lz4`\n')
    assert not (tmp_path / 'out').exists() and not (tmp_path / 'out.partial').exists()
