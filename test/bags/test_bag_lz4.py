"""``derain bag`` on mcap files whose chunks are packed with lz4, as other recorders write them."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from bag_files import PROFILES, drive, long_drive, messages_on, read_bag, read_topics, write_bag
from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer

from derain_ros.bags.derain import derain_bag, plan_bag
from derain_ros.bags.recording import Recording
from derain_ros.engines import create_engine

ROOT = Path(__file__).resolve().parents[2]


def _write_lz4(path, rows, **options):
    """Write a bag by the mcap package, with the schemas and channels that rosbags gives it."""
    write_bag(path, rows, profiles=PROFILES)
    file = path / f'{path.name}.mcap'
    plain = file.rename(path.with_suffix('.plain'))
    with plain.open('rb') as source, file.open('wb') as target:
        reader = make_reader(source)
        summary = reader.get_summary()
        writer = Writer(target, chunk_size=20_000, compression=CompressionType.LZ4, **options)
        writer.start('ros2', 'test')
        channels = {}
        for schema, channel, message in reader.iter_messages():
            if channel.id not in channels:
                known = writer.register_schema(schema.name, schema.encoding, schema.data)
                channels[channel.id] = writer.register_channel(
                    channel.topic, channel.message_encoding, known, channel.metadata)
            writer.add_message(channels[channel.id], message.log_time, message.data,
                               message.publish_time)
        writer.finish()
    plain.unlink()
    assert len(summary.channels) == len(channels)
    with file.open('rb') as stream:
        chunks = make_reader(stream).get_summary().chunk_indexes
        assert len(chunks) > 1 and {chunk.compression for chunk in chunks} <= {'lz4'}
    return path


def _read_by_mcap(path):
    """Return topic, time and bytes of every message, as the mcap package reads them."""
    with next(path.glob('*.mcap')).open('rb') as stream:
        return [(channel.topic, message.log_time, message.data)
                for _, channel, message in make_reader(stream, validate_crcs=True).iter_messages()]


def test_a_bag_of_lz4_chunks_is_derained_and_kept(tmp_path):
    rows = drive()
    source, out = _write_lz4(tmp_path / 'in', rows), tmp_path / 'out'
    with closing(create_engine('auto', 'nano', precision='f32')) as engine:
        summary = derain_bag(plan_bag(source, out), engine)
        derain_bag(plan_bag(write_bag(tmp_path / 'plain', rows, profiles=PROFILES),
                            tmp_path / 'same'), engine)
    assert summary.made.total() == 8 and not summary.damages
    names = set(read_topics(source))
    assert messages_on(read_bag(out), *names) == read_bag(source)
    assert [row.topic for row in read_bag(out)].count('/cam/derained/image') == 4
    # What is derained does not depend on how the source was packed.
    assert read_bag(out) == read_bag(tmp_path / 'same')
    by_mcap = _read_by_mcap(out)
    assert [row for row in by_mcap if row[0] in names] == _read_by_mcap(source)
    assert sorted(by_mcap) == sorted((row.topic, row.time, row.data) for row in read_bag(out))


@pytest.mark.parametrize('share', [0.3, 0.7, 0.99])
def test_of_a_cut_bag_of_lz4_chunks_all_before_is_read(share, tmp_path):
    source = _write_lz4(tmp_path / 'in', long_drive(12))
    content = (source / 'in.mcap').read_bytes()
    whole = read_bag(source)
    path = tmp_path / 'cut.mcap'
    path.write_bytes(content[:int(share * len(content))])
    with Recording(path, tmp_path / 'scratch') as recording:
        found = [bytes(data) for _, _, data, *_ in recording.messages(0, 2**63 - 1)]
        damage, = recording.damages
    assert found == [row.data for row in whole[:len(found)]]
    assert len(found) > share * len(whole) / 2
    assert damage.file == 'cut.mcap'


def test_lz4_without_an_index_is_read_too(tmp_path):
    source = _write_lz4(tmp_path / 'in', drive())
    with Recording(source, tmp_path / 'scratch', scan=True) as recording:
        found = [bytes(data) for _, _, data, *_ in recording.messages(0, 2**63 - 1)]
    assert found == [row.data for row in read_bag(source)]


def test_a_missing_lz4_is_named_with_the_remedy(tmp_path):
    source = _write_lz4(tmp_path / 'in', drive())
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
