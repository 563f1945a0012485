"""``derain bag`` on every way that bags are stored: compressed, split, old, or one bare file."""

import sqlite3

import pytest
import yaml
from bag_files import (
    CUSTOM,
    PROFILES,
    STORAGES,
    TYPES,
    drive,
    messages_on,
    read_bag,
    read_topics,
    tree,
    write_bag,
)
from rosbags.highlevel import AnyReader

from derain_ros.bags.derain import derain_bag, plan_bag
from derain_ros.engines import create_engine


@pytest.fixture(scope='module')
def engine():
    engine = create_engine('auto', 'nano')
    yield engine
    engine.close()


@pytest.mark.parametrize('version', [8, 9])
@pytest.mark.parametrize('storage, compression', [
    ('mcap', 'storage'), ('mcap', 'file'), ('sqlite3', 'file'), ('sqlite3', 'message')])
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


def test_a_bare_file_is_read_too(tmp_path, engine):
    source = write_bag(tmp_path / 'in', drive())
    derain_bag(plan_bag(source / 'in.mcap', tmp_path / 'out'), engine)
    names = {row.topic for row in read_bag(source)}
    assert messages_on(read_bag(tmp_path / 'out'), *names) == read_bag(source)


def test_a_split_bag_is_read_whole(tmp_path, engine):
    rows = drive()
    source = write_bag(tmp_path / 'in', rows[:8])
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
    names = {topic for topic, *_ in rows}
    kept = messages_on(read_bag(tmp_path / 'out'), *names)
    assert [row.data for row in kept] == [
        bytes(TYPES.serialize_cdr(message, msgtype)) for _, msgtype, _, message in rows]


def _write_humble_bag(path, rows):
    """Write a sqlite3 bag as Humble does: no definitions, no type hashes."""
    path.mkdir()
    database = sqlite3.connect(path / 'in_0.db3')
    database.executescript(
        'CREATE TABLE schema(schema_version INTEGER PRIMARY KEY, ros_distro TEXT NOT NULL);'
        'CREATE TABLE metadata(id INTEGER PRIMARY KEY, metadata_version INTEGER NOT NULL,'
        ' metadata TEXT NOT NULL);'
        'CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL,'
        ' serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL);'
        'CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL,'
        ' timestamp INTEGER NOT NULL, data BLOB NOT NULL);'
        "INSERT INTO schema VALUES (3, 'humble');")
    topics = {}
    for topic, msgtype, time, message in rows:
        if topic not in topics:
            topics[topic] = [len(topics) + 1, msgtype, 0]
            database.execute('INSERT INTO topics VALUES (?, ?, ?, ?, ?)',
                             (topics[topic][0], topic, msgtype, 'cdr', ''))
        topics[topic][2] += 1
        data = bytes(TYPES.serialize_cdr(message, msgtype))
        database.execute('INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)',
                         (topics[topic][0], time, data))
    database.commit()
    database.close()
    listed = [
        {'message_count': count, 'topic_metadata': {
            'name': name, 'type': msgtype, 'serialization_format': 'cdr',
            'offered_qos_profiles': ''}}
        for name, (_, msgtype, count) in topics.items()]
    (path / 'metadata.yaml').write_text(yaml.safe_dump({'rosbag2_bagfile_information': {
        'version': 5, 'storage_identifier': 'sqlite3', 'relative_file_paths': ['in_0.db3'],
        'duration': {'nanoseconds': rows[-1][2] - rows[0][2]},
        'starting_time': {'nanoseconds_since_epoch': rows[0][2]},
        'message_count': len(rows), 'topics_with_message_count': listed,
        'compression_format': '', 'compression_mode': ''}}))
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
