"""``derain bag`` on every way that bags are stored: packed, split, old, or one bare file."""

import sqlite3
from contextlib import closing

import pytest
import yaml
from bag_files import (
    CUSTOM,
    IMAGE,
    PROFILES,
    START,
    STORAGES,
    TYPES,
    drive,
    long_drive,
    messages_on,
    read_bag,
    read_topics,
    tree,
    write_bag,
    write_mcap,
)
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader

from derain_ros.bags.derain import derain_bag, plan_bag
from derain_ros.bags.recording import Recording


@pytest.mark.parametrize('storage, compression, version', [
    ('mcap', 'storage', 8), ('mcap', 'file', 9), ('sqlite3', 'file', 8),
    ('sqlite3', 'message', 9)])
def test_a_compressed_bag_is_kept_too(storage, compression, version, tmp_path, engine):
    source = write_bag(
        tmp_path / 'in', drive(), storage, PROFILES, version=version, compression=compression)
    plan = plan_bag(source, tmp_path / 'out')
    derain_bag(plan, engine)
    names = set(read_topics(source))
    assert messages_on(read_bag(tmp_path / 'out'), *names) == read_bag(source)
    written = yaml.safe_load((tmp_path / 'out' / 'metadata.yaml').read_text())
    mode = written['rosbag2_bagfile_information']['compression_mode']
    assert mode == ('' if compression == 'storage' else compression)


@pytest.mark.parametrize('storage', STORAGES)
def test_compress_makes_a_smaller_bag(storage, tmp_path, engine):
    source = write_bag(tmp_path / 'in', drive(), storage)
    for name, compress in (('plain', False), ('small', True)):
        derain_bag(plan_bag(source, tmp_path / name, compress=compress), engine)
    plain, small = [
        sum(map(len, tree(tmp_path / name).values())) for name in ('plain', 'small')]
    assert small < 0.9 * plain
    assert read_bag(tmp_path / 'small') == read_bag(tmp_path / 'plain')


def test_a_split_bag_is_read_whole(tmp_path, engine):
    rows = drive()
    source = write_bag(tmp_path / 'in', rows[:8])
    derain_bag(plan_bag(source / 'in.mcap', tmp_path / 'bare'), engine)
    names = {topic for topic, *_ in rows}
    assert messages_on(read_bag(tmp_path / 'bare'), *names) == read_bag(source)
    rest = write_bag(tmp_path / 'rest', rows[8:])
    (rest / 'rest.mcap').rename(source / 'rest.mcap')
    metadata = yaml.safe_load((source / 'metadata.yaml').read_text())
    information = metadata['rosbag2_bagfile_information']
    information['relative_file_paths'].append('rest.mcap')
    information['message_count'] = len(rows)
    for topic in information['topics_with_message_count']:
        topic['message_count'] *= 2
    (source / 'metadata.yaml').write_text(yaml.safe_dump(metadata))
    derain_bag(plan_bag(source, tmp_path / 'out'), engine)
    kept = messages_on(read_bag(tmp_path / 'out'), *names)
    assert [row.data for row in kept] == [
        bytes(TYPES.serialize_cdr(message, msgtype)) for _, msgtype, _, message in rows]


@pytest.mark.parametrize('storage', STORAGES)
def test_a_bag_of_topics_without_messages_is_copied(storage, tmp_path, derain):
    source = write_bag(tmp_path / 'in', [], storage, topics={'/cam/image_raw': IMAGE})
    with Recording(source) as recording:
        assert (recording.start_time, recording.end_time) == (0, 0)
    told = derain('bag', source, '-o', tmp_path / 'out', '--workers', 1)
    assert 'note: there is no frame on /cam/image_raw' in told.err
    assert set(read_topics(tmp_path / 'out')) == {
        '/cam/image_raw', '/cam/derained/image', '/cam/derained/rain_mask'}
    # In a split bag, such a file does not move the beginning.
    drive_bag = write_bag(tmp_path / 'drive', drive(), storage)
    file, = source.glob('in.*')
    file.rename(drive_bag / file.name)
    (drive_bag / 'metadata.yaml').unlink()
    with Recording(drive_bag) as recording:
        assert recording.start_time == START
        assert recording.message_count == len(list(recording.read())) == len(drive())


@pytest.mark.parametrize('start, end', [(2**63 - 1, 0), (START, START - 1), (0, 0)])
def test_a_chunk_index_with_impossible_times_is_not_believed(start, end, tmp_path):
    def falsify(writer):
        for chunk in writer._Writer__chunk_indices:
            chunk.message_start_time, chunk.message_end_time = start, end
            chunk.message_index_offsets = {}

    rows = drive()
    source = write_mcap(tmp_path / 'in.mcap', rows, extra=falsify, chunk_size=1)
    with Recording(source) as recording:
        assert [time for _, time, _ in recording.read()] == [time for _, _, time, _ in rows]
        assert not recording.damages


def _write_humble_bag(path, rows):
    """Write a sqlite3 bag as Humble does: no definitions, no type hashes."""
    write_bag(path, rows, 'sqlite3', version=8)
    with closing(sqlite3.connect(path / 'in.db3')) as database:
        database.executescript(
            'DROP TABLE message_definitions; ALTER TABLE topics DROP COLUMN type_description_hash;'
            "UPDATE schema SET schema_version = 3, ros_distro = 'humble'")
    metadata = yaml.safe_load((path / 'metadata.yaml').read_text())
    information = metadata['rosbag2_bagfile_information']
    information['version'] = 5
    for name in ('files', 'custom_data', 'ros_distro'):
        del information[name]
    for topic in information['topics_with_message_count']:
        del topic['topic_metadata']['type_description_hash']
    (path / 'metadata.yaml').write_text(yaml.safe_dump(metadata))
    return path


@pytest.mark.parametrize('storage', STORAGES)
def test_a_bag_without_definitions_is_kept_and_says_so(storage, tmp_path, engine):
    source = _write_humble_bag(tmp_path / 'in', drive())
    out = tmp_path / 'out'
    summary = derain_bag(plan_bag(source, out, storage=storage), engine)
    assert summary.undefined_types == [CUSTOM]
    names = {row.topic for row in read_bag(source)}
    assert messages_on(read_bag(out), *names) == read_bag(source)
    with AnyReader([out]) as reader:
        derained = [
            reader.deserialize(data, connection.msgtype).header.frame_id
            for connection, _, data in reader.messages()
            if connection.topic == '/cam/derained/image']
    assert derained == ['cam_frame'] * 4


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
    source.write_bytes(source.read_bytes()[:-1])  # the index is gone
    with Recording(source) as recording:
        assert [bytes(data) for *_, data in recording.read()] == [data for *_, data in recorded]


def test_of_a_cut_bag_of_lz4_chunks_all_before_is_read(tmp_path):
    path = write_mcap(tmp_path / 'cut.mcap', long_drive(12), compression='LZ4')
    content, whole = path.read_bytes(), _read_by_mcap(path)
    path.write_bytes(content[:int(0.7 * len(content))])
    with Recording(path) as recording:
        found = [(one.topic, time, data) for one, time, data in recording.read()]
        damage, = recording.damages
    assert found == whole[:len(found)] and len(found) > len(whole) / 3
    assert damage.file == 'cut.mcap'
