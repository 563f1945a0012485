"""Nothing of a recorded bag is lost in silence: what is kept, what is named, on small files."""

import json
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import yaml
from bag_files import (
    COMPRESSED,
    IMAGE,
    START,
    STORAGES,
    compressed,
    drive,
    image,
    long_drive,
    messages_on,
    picture,
    read_bag,
    serialized,
    wheel,
    write_bag,
    write_mcap,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from mcap.stream_reader import StreamReader
from rosbags.typesys import Stores, get_typestore

from derain_ros.bags.damage import BagError
from derain_ros.bags.derain import derain_bag, plan_bag
from derain_ros.bags.recording import EVER, Recording
from derain_ros.cli import main

pytestmark = pytest.mark.usefixtures('quick_commands')

TOPIC = '/cam/image_raw'


def _derain(source, out, engine, **options):
    plan = plan_bag(source, out, **options)
    return plan, derain_bag(plan, engine)


def _records(path):
    with path.open('rb') as stream:
        return list(StreamReader(stream).records)


def _kind(records, name):
    return [record for record in records if type(record).__name__ == name]


def test_messages_in_the_write_ahead_log_are_read(tmp_path, engine):
    source = write_bag(tmp_path / 'in', drive(), 'sqlite3')
    expected = read_bag(source)
    file = source / 'in.db3'
    database = sqlite3.connect(file)
    database.execute('PRAGMA journal_mode = WAL')
    rows = database.execute('SELECT topic_id, timestamp, data FROM messages WHERE id > 10')
    late = rows.fetchall()
    database.execute('DELETE FROM messages WHERE id > 10')
    database.commit()
    database.execute('PRAGMA wal_checkpoint(TRUNCATE)')
    database.executemany(
        'INSERT INTO messages(topic_id, timestamp, data) VALUES (?, ?, ?)', late)
    database.commit()
    # As it lies there when the power fails: the log is not in the file yet.
    for name in ('in.db3', 'in.db3-wal'):
        shutil.copy(source / name, tmp_path / name)
    database.close()
    for name in ('in.db3', 'in.db3-wal'):
        shutil.copy(tmp_path / name, source / name)
    (source / 'in.db3-shm').unlink(missing_ok=True)
    _, summary = _derain(source, tmp_path / 'out', engine)
    assert not summary.damages and any('log beside it' in note for note in summary.notes)
    kept = messages_on(read_bag(tmp_path / 'out'), *{row.topic for row in expected})
    assert kept == expected
    # A log without a message, and one that is none.
    for content, told in ((bytes(32), []), (b'no log' * 9, [
            'in.db3-wal: nothing in this log can be read'])):
        (source / 'in.db3-wal').write_bytes(content)
        with Recording(source) as recording:
            assert recording.notes == [] and recording.message_count == 10
            assert list(map(str, recording.damages)) == told


def test_two_mcap_files_in_one_are_told_and_topics_not_mixed(tmp_path):
    one = write_bag(tmp_path / 'in', [(TOPIC, IMAGE, START, image(1, START))]) / 'in.mcap'
    other = write_mcap(tmp_path / 'b.mcap', [('/rear', IMAGE, START + 9, image(2, START))])
    length = len(one.read_bytes())
    # The index of the second of two files of one length lies where that of the first one does.
    for second in (one, other):
        both = tmp_path / 'both.mcap'
        both.write_bytes(one.read_bytes() + second.read_bytes())
        with Recording(both) as recording:
            assert [(found.topic, time) for found, time, _ in recording.read()] == [(TOPIC, START)]
            damage, = recording.damages
        assert (damage.offset, damage.last_time) == (length, START)
        assert 'another mcap file begins here' in damage.reason


def test_what_an_mcap_file_says_beside_its_messages_is_kept(tmp_path, engine, derain, capsys):
    def extra(writer):
        writer.add_attachment(START, START + 1, 'calibration.yaml', 'text/yaml', b'k: [1, 2]')
        writer.add_metadata('vehicle', {'name': 'bus 7'})

    source = write_mcap(tmp_path / 'in.mcap', drive(), extra=extra)
    _derain(source, tmp_path / 'out', engine)
    before, after = _records(source), _records(tmp_path / 'out' / 'out.mcap')
    channels = {record.id: record for record in _kind(after, 'Channel')}
    names = {record.id: record for record in _kind(before, 'Channel')}

    def messages(records, channels):
        found = [(channels[one.channel_id].topic, one.sequence, one.log_time, one.publish_time,
                  one.data) for one in _kind(records, 'Message')]
        return [one for one in found if '/derained/' not in one[0]]

    assert messages(after, channels) == messages(before, names)
    assert _kind(after, 'Attachment') == _kind(before, 'Attachment')
    vehicle, own = _kind(after, 'Metadata')
    assert vehicle == _kind(before, 'Metadata')[0] and own.name == 'rosbag2'
    assert channels[1].metadata['maker'] == 'me'
    with (tmp_path / 'out' / 'out.mcap').open('rb') as stream:
        reader = make_reader(stream)
        attachment, = reader.iter_attachments()
        assert attachment.data == b'k: [1, 2]'
        assert [found.name for found in reader.iter_metadata()] == ['vehicle', 'rosbag2']
    # sqlite3 has no place for them, which is said.
    assert main(['bag', str(source), '-o', str(tmp_path / 'db'), '--storage', 'sqlite3']) == 0
    assert 'calibration.yaml, vehicle: an sqlite3 bag has no place' in capsys.readouterr().err


def test_custom_data_of_the_recorder_is_kept(tmp_path, engine):
    source = write_bag(tmp_path / 'in', drive())
    metadata = yaml.safe_load((source / 'metadata.yaml').read_text())
    metadata['rosbag2_bagfile_information']['custom_data'] = {'driver': 'Ada', 'run': '7'}
    (source / 'metadata.yaml').write_text(yaml.safe_dump(metadata))
    _derain(source, tmp_path / 'out', engine)
    written = yaml.safe_load((tmp_path / 'out' / 'metadata.yaml').read_text())
    assert written['rosbag2_bagfile_information']['custom_data'] == {'driver': 'Ada', 'run': '7'}


def test_one_flipped_byte_loses_its_chunk_alone(tmp_path, engine):
    source = write_mcap(tmp_path / 'in.mcap', long_drive(40))
    whole = _kind(_records(source), 'Message')
    content = bytearray(source.read_bytes())
    content[len(content) // 2] ^= 0xFF
    source.write_bytes(content)
    _, summary = _derain(source, tmp_path / 'out', engine)
    damage, = summary.damages
    assert 'the checksum of a chunk is wrong' in damage.reason
    assert 0 < damage.lost < 12
    assert summary.messages == len(whole) - damage.lost
    # Without the index it is the same.
    source.write_bytes(content[:-1])
    with Recording(source) as recording:
        found = [bytes(data) for _, _, data, *_ in recording.messages(*EVER)]
        assert [one.lost for one in recording.damages] == [damage.lost, None]
    assert len(found) == summary.messages


@pytest.mark.parametrize('storage', STORAGES)
def test_missing_metadata_is_a_note_and_a_renamed_file_is_found(storage, tmp_path, derain, capsys):
    source = write_bag(tmp_path / 'in', drive(), storage)
    file = next(path for path in source.iterdir() if path.suffix != '.yaml')
    expected = read_bag(source)
    renamed = file.rename(file.with_stem('renamed'))
    assert f'lists {file.name}, which is not there; {renamed.name} is read' in derain(
        'bag', source, '-o', tmp_path / 'a').err
    for name, content in (('b', None), ('c', ': not yaml'), ('d', 'a: 1')):
        (source / 'metadata.yaml').unlink(missing_ok=True)
        if content:
            (source / 'metadata.yaml').write_text(content)
        assert main(['bag', str(source), '-o', str(tmp_path / name)]) == 0
        reason = 'does not describe a rosbag2' if content else 'is missing'
        assert f'metadata.yaml {reason}' in capsys.readouterr().err
    for name in ('a', 'b', 'c', 'd'):
        kept = messages_on(read_bag(tmp_path / name), *{row.topic for row in expected})
        assert kept == expected


@pytest.mark.parametrize('storage', STORAGES)
def test_without_metadata_packed_messages_are_told_by_themselves(storage, tmp_path, engine):
    source = write_bag(tmp_path / 'in', drive(), storage, compression='message')
    expected = read_bag(source)
    (source / 'metadata.yaml').unlink()
    _derain(source, tmp_path / 'out', engine)
    assert messages_on(
        read_bag(tmp_path / 'out'), *{row.topic for row in expected}) == expected


@pytest.mark.parametrize('storage', STORAGES)
def test_a_bag_of_more_files_than_may_be_open(storage, tmp_path):
    source = write_bag(tmp_path / 'in', drive(), storage)
    file = next(path for path in source.iterdir() if path.suffix != '.yaml')
    (source / 'metadata.yaml').unlink()
    for number in range(100):
        (source / f'{number}{file.suffix}').hardlink_to(file)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, before[1]))
    try:
        with Recording(source) as recording:
            assert len(list(recording.read())) == 101 * len(drive())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_bags_in_the_folders_of_a_bag_are_named(tmp_path, derain):
    write_bag(tmp_path / 'in', drive())
    write_bag(tmp_path / 'in' / 'more', drive())
    told = derain('bag', tmp_path / 'in', '-o', tmp_path / 'out').err
    assert 'in: is a bag itself; the bags in its folders are not read: more' in told


def test_derained_frames_of_cameras_of_one_namespace_are_found(tmp_path, derain):
    rows = [(topic, IMAGE, START + number * 10**8, image(number, START + number * 10**8))
            for number in range(3) for topic in ('/image_left', '/image_right')]
    out = tmp_path / 'out'
    derain('bag', write_bag(tmp_path / 'in', rows), '-o', out)
    assert '3 frames' in derain('video', out, '-o', tmp_path / 'v.avi', '--topic', '/image_left',
                                '--derained-topic').out
    derain('bag', tmp_path / 'in', '-o', tmp_path / 'left', '--topics', '/image_left')
    told = derain('video', tmp_path / 'left', '-o', tmp_path / 'w.avi', '--topic', '/image_right',
                  '--derained-topic').err
    assert 'frames of /image_right, but may belong to /image_left' in told
    other = tmp_path / 'other'
    for file in (other / 'run.json', other):
        told = derain('bag', tmp_path / 'in', '-o', other, '--json', file, status=2).err
        assert 'name a file outside it' in told and not other.exists()


def test_messages_of_no_topic_are_told(tmp_path):
    source = write_bag(tmp_path / 'in', drive(), 'sqlite3')
    with closing(sqlite3.connect(source / 'in.db3')) as database:
        database.execute('UPDATE messages SET topic_id = 99 WHERE id IN (3, 4)')
        database.commit()
    with Recording(source) as recording:
        assert len(list(recording.read())) == 14
        damage, = recording.damages
    assert damage.lost == 2 and 'no topic' in str(damage)


def test_an_index_of_sqlite3_gives_no_message_another_time(tmp_path):
    source = write_bag(tmp_path / 'in', drive(), 'sqlite3')
    expected = read_bag(source)
    with closing(sqlite3.connect(source / 'in.db3')) as database:
        page, = database.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'timestamp_idx'").fetchone()
        size, = database.execute('PRAGMA page_size').fetchone()
    content = bytearray((source / 'in.db3').read_bytes())
    place = content.index(expected[5].time.to_bytes(8, 'big'), (page - 1) * size)
    assert place < page * size
    content[place + 4] ^= 1
    (source / 'in.db3').write_bytes(content)
    with Recording(source) as recording:
        assert [(one.topic, time, data) for one, time, data in recording.read()] == [
            (row.topic, row.time, row.data) for row in expected]
        damage, = recording.damages
    assert 'the index has other times than the messages' in damage.reason


def test_foreign_channels_are_kept_as_they_are(tmp_path, engine):
    def extra(writer):
        schema = writer.register_schema('Pose', 'jsonschema', b'{"type": "object"}')
        for topic, found in (('/pose', schema), ('/free', 0)):
            channel = writer.register_channel(topic, 'json', found, {})
            writer.add_message(channel, START + 9, json.dumps({'x': 1}).encode(), START + 8, 3)

    source = write_mcap(tmp_path / 'in.mcap', drive(), profile='', extra=extra)
    _, summary = _derain(source, tmp_path / 'out', engine)
    assert not summary.damages and summary.made.total() == 8 and summary.messages == 18
    records = _records(tmp_path / 'out' / 'out.mcap')
    channels = {record.topic: record for record in _kind(records, 'Channel')}
    assert channels['/pose'].message_encoding == channels['/free'].message_encoding == 'json'
    schema = next(one for one in _kind(records, 'Schema') if one.name == 'Pose')
    assert (schema.encoding, schema.data) == ('jsonschema', b'{"type": "object"}')
    assert channels['/free'].schema_id == 0
    pose, = (one for one in _kind(records, 'Message') if one.channel_id == channels['/pose'].id)
    assert (pose.data, pose.publish_time, pose.sequence) == (b'{"x": 1}', START + 8, 3)


@pytest.mark.parametrize('storage', STORAGES)
def test_a_type_with_two_definitions_keeps_both(storage, tmp_path, engine):
    # As in a merged bag of two robots, or of the days before and after an update.
    rows = [('/one/gear', 'uint8 a\n'), ('/two/gear', 'uint8 a\nuint8 b\n'),
            ('/gear', 'uint8 a\n'), ('/gear', 'uint8 a\nuint8 b\n')]

    def extra(writer):
        for number, (topic, text) in enumerate(rows):
            schema = writer.register_schema('my_msgs/msg/Gear', 'ros2msg', text.encode())
            channel = writer.register_channel(topic, 'cdr', schema, {})
            writer.add_message(channel, START + number, bytes([0, 1, 0, 0, 7, number]), START)

    source = write_mcap(tmp_path / 'in.mcap', drive(), extra=extra)
    _derain(source, tmp_path / 'out', engine, storage=storage)
    if storage == 'sqlite3':
        with closing(sqlite3.connect(tmp_path / 'out' / 'out.db3')) as database:
            found = database.execute(
                'SELECT name, encoded_message_definition FROM topics JOIN message_definitions '
                'USING (type_description_hash) WHERE type = ? ORDER BY topics.id',
                ('my_msgs/msg/Gear',)).fetchall()
    else:
        with (tmp_path / 'out' / 'out.mcap').open('rb') as stream:
            found = [(channel.topic, schema.data.decode()) for schema, channel, _ in make_reader(
                stream).iter_messages() if schema.name == 'my_msgs/msg/Gear']
    assert found == rows
    with Recording(tmp_path / 'out') as recording:
        assert [(one.topic, one.msgdef.data) for one in recording.connections
                if one.msgtype == 'my_msgs/msg/Gear'] == rows


def test_depth_of_a_realsense_is_one_note_a_topic(tmp_path, derain):
    rows = []
    for number in range(12):
        time = START + number
        rows += [
            ('/camera/color/image_raw', IMAGE, time, image(number, time)),
            ('/camera/depth/image_rect_raw', IMAGE, time, image(number, time, encoding='16UC1')),
            ('/camera/depth/image_rect_raw/compressedDepth', COMPRESSED, time, compressed(
                number, time, 'png', format='16UC1; compressedDepth png')),
            ('/camera/aligned/image_raw/compressed', COMPRESSED, time, compressed(
                number, time, 'png', format='16UC1; png compressed ')),
        ]
    source = write_bag(tmp_path / 'in', rows)
    captured = derain('bag', source, '-o', tmp_path / 'out')
    assert captured.err.count('is left alone') == 3 and 'error' not in captured.err
    assert max(map(len, captured.err.splitlines())) < 200
    assert [row.time for row in messages_on(
        read_bag(tmp_path / 'out'), '/camera/color/derained/image')] == [
        START + number for number in range(12)]


@pytest.mark.parametrize('topic, message', [
    (TOPIC, image(5, START)), ('/wheels', wheel(1))])
@pytest.mark.parametrize('storage', STORAGES)
def test_times_that_no_clock_has_are_named_and_kept(storage, topic, message, tmp_path, derain):
    msgtype = IMAGE if topic == TOPIC else 'test_interfaces/msg/Wheel'
    rows = [*drive(), (topic, msgtype, 2**64 - 1, message), ('/late', IMAGE, 0, image(3, START))]
    source = write_mcap(tmp_path / 'in.mcap', rows, chunk_size=2**30)
    captured = derain('bag', source, '-o', tmp_path / 'out', '--storage', storage)
    assert f'{topic} has the impossible time {2**64 - 1} ns' in captured.err
    metadata = yaml.safe_load((tmp_path / 'out' / 'metadata.yaml').read_text())
    information = metadata['rosbag2_bagfile_information']
    assert 0 <= information['duration']['nanoseconds'] < 2**63
    with Recording(tmp_path / 'out') as recording:
        kept = [(connection.topic, time % 2**64, data) for connection, time, data
                in recording.read()]
    assert (topic, 2**64 - 1, serialized(message, msgtype)) in kept
    assert len(kept) == len(rows) + 2 * 9 + 2 * (topic == TOPIC)


def test_a_stretch_without_a_frame_says_where_frames_are(tmp_path, derain):
    rows = [('/wheels', 'test_interfaces/msg/Wheel', 0, wheel(0)), *drive()]
    source = write_bag(tmp_path / 'in', rows)
    error = derain('bag', source, '-o', tmp_path / 'out', '--duration', '10').err
    assert 'there is no frame in the requested range; the bag begins at 0.000000000' in error
    assert 'its first frame is from 1700000000.000000007' in error


@pytest.mark.parametrize('storage', STORAGES)
def test_names_that_are_not_utf_8_and_long(storage, tmp_path, derain):
    name = '\udcff\udcfe' + 54 * 'long'
    source = write_bag(tmp_path / 'in', drive(), storage).rename(tmp_path / f'{name}in')
    derain('bag', source, '-o', tmp_path / f'{name}out')
    derain('rain', source, '-o', tmp_path / f'{name}rain')
    derain('video', source, '-o', tmp_path / f'{name}.avi', '--topic', TOPIC)
    with Recording(tmp_path / f'{name}out') as recording:
        assert recording.message_count == 32 and not recording.damages


@pytest.mark.parametrize('options', [[], ['--bits', '12'], ['--bits', '16']])
def test_samples_of_12_bits_are_told_and_keep_their_levels(options, tmp_path, capsys):
    grey = np.ascontiguousarray(picture(1)[..., 0])
    samples = (grey.astype('<u2') << 4) | np.arange(96, dtype='<u2') % 16
    rows = [(TOPIC, IMAGE, START + number, image(
        1, START, encoding='mono16', step=2 * 96, data=found.view(np.uint8).ravel()))
        for number, found in enumerate((samples >> 6, samples, samples))]  # the first is dark
    source = write_bag(tmp_path / 'in', rows)
    assert main(
        ['bag', str(source), '-o', str(tmp_path / 'out'), '--strength', '0', *options]) == 0
    lines = re.split('[\\r\\n]+', capsys.readouterr().err)
    note = f'derain: note: {TOPIC}: 12 of the 16 bits'
    assert any(line.startswith(note) for line in lines) == (not options)
    *_, result = messages_on(read_bag(tmp_path / 'out'), '/cam/derained/image')
    kept = np.array_equal(result.message.data.view('<u2'), samples.ravel())
    assert kept == ('16' not in options)


def test_a_jpeg_that_is_damaged_in_the_middle_is_named_and_counted(tmp_path, derain):
    topic = '/cam/image_raw/compressed'
    rows = [(topic, COMPRESSED, START + number, compressed(number, START)) for number in range(3)]
    data = rows[1][3].data
    data[len(data) // 2:len(data) // 2 + 40] = 0xFF
    source = write_bag(tmp_path / 'in', rows)
    captured = derain('bag', source, '-o', tmp_path / 'out', status=1)
    assert f'{topic} at 1700000000.000000008: ' in captured.err
    assert 'a JPEG damaged in the middle (Corrupt JPEG data' in captured.err
    assert '2 frames, 1 failed' in captured.out
    assert len(messages_on(read_bag(tmp_path / 'out'), '/cam/derained/image')) == 2


@pytest.mark.parametrize('name, encoding, hint', [
    ('sensor_msgs/Image', 'ros1', 'to_rosbag2.py in the source converts ROS 1 images'),
    ('foxglove.CompressedImage', 'protobuf', 'converts foxglove images'),
    ('foxglove.CompressedImage', 'json', 'json))\n')])  # which nothing converts
def test_types_that_are_no_images_of_ros_2_are_shown(name, encoding, hint, tmp_path, derain):
    def extra(writer):
        schema = writer.register_schema(name, f'{encoding}msg', b'uint32 height')
        channel = writer.register_channel('/cam', encoding, schema, {})
        writer.add_message(channel, START, b'', START)

    source = write_mcap(tmp_path / 'in.mcap', [], profile='', extra=extra)
    error = derain('bag', source, '-o', tmp_path / 'out', status=2).err
    assert f'/cam ({name}, {encoding})' in error and hint in error


def test_images_of_ros_1_are_converted_by_the_script_that_is_named(tmp_path):
    types = get_typestore(Stores.ROS1_NOETIC)
    seconds, nanoseconds = divmod(START, 10**9)
    header = types.types['std_msgs/msg/Header'](
        7, types.types['builtin_interfaces/msg/Time'](seconds, nanoseconds), 'cam')
    recorded = types.types[IMAGE](header, 64, 96, 'bgr8', 0, 288, picture(1).ravel())

    def extra(writer):
        schema = writer.register_schema('sensor_msgs/Image', 'ros1msg', b'uint32 height')
        channel = writer.register_channel(TOPIC, 'ros1', schema, {})
        writer.add_message(channel, START - 1, b'cut', START)
        writer.add_message(channel, START, bytes(types.serialize_ros1(recorded, IMAGE)), START)

    source = write_mcap(tmp_path / 'in.mcap', [], profile='ros1', extra=extra)
    script = Path(__file__).parents[2] / 'docs' / 'to_rosbag2.py'

    def convert(source, out):
        ended = subprocess.run([sys.executable, script, source, out], capture_output=True)
        return ended.returncode, ended.stderr.decode().splitlines()

    status, (told,) = convert(source, tmp_path / 'out')
    assert status == 1 and told.startswith(f'{source}: {TOPIC} at {START - 1} ns: ')
    for other, out, why in ((source, tmp_path / 'out', 'exists already'),
                            (tmp_path / 'none.mcap', tmp_path / 'more', 'no such bag'),
                            (tmp_path / 'out', tmp_path / 'more', 'no images of ROS 1')):
        status, (told,) = convert(other, out)
        assert status == 1 and why in told and not (tmp_path / 'more').exists()
    found, = messages_on(read_bag(tmp_path / 'out'), TOPIC)
    assert np.array_equal(found.message.data, picture(1).ravel())
    assert found.message.header.stamp.nanosec == nanoseconds


def _readable(path):
    """Return the messages that mcap, checksums being right, or sqlite3 still reads."""
    found = set()
    try:
        if path.suffix == '.mcap':
            with path.open('rb') as stream:
                for _, channel, message in make_reader(stream, validate_crcs=True).iter_messages(
                        log_time_order=False):
                    found.add((channel.topic, message.log_time, message.data))
        else:
            with closing(sqlite3.connect(path)) as database:
                for row in database.execute(
                        'SELECT name, timestamp, data FROM messages NOT INDEXED '
                        'JOIN topics ON topics.id = topic_id'):
                    if isinstance(row[1], int) and isinstance(row[2], bytes):
                        found.add(row)
    except Exception:  # whatever they make of damage
        pass
    return found


_DAMAGE = st.tuples(
    st.sampled_from(['flip', 'cut', 'zero', 'duplicate']), st.integers(0, 2**20),
    st.integers(1, 3000))


def _damaged(content, damages):
    content = bytearray(content)
    for kind, at, length in damages:
        at = 8 + at % (len(content) - 8)
        if kind == 'flip':
            content[at] ^= 1 << length % 8
        elif kind == 'cut':
            del content[max(at, 16):]
        elif kind == 'zero':
            content[at:at + length] = bytes(len(content[at:at + length]))
        else:
            content[at:at] = content[at:at + length]
    return bytes(content)


@pytest.fixture(scope='module')
def small(tmp_path_factory):
    """Return a folder with a small bag of each storage, which stay whole."""
    folder = tmp_path_factory.mktemp('small')
    write_mcap(folder / 'in.mcap', long_drive(10))
    write_bag(folder / 'in', long_drive(10), 'sqlite3')
    shutil.copy(folder / 'in' / 'in.db3', folder)
    return folder


def _check_damage(small, suffix, damages):
    whole, path = small / f'in{suffix}', small / f'damaged{suffix}'
    path.write_bytes(_damaged(whole.read_bytes(), damages))
    try:
        with Recording(path) as recording:
            found = {(connection.topic, time, data) for connection, time, data in recording.read()}
            damaged = bool(recording.damages)
    except BagError:
        found, damaged = set(), True
    readable = _readable(path)
    lost = [row[:2] for row in readable - found]
    assert not lost
    # What the mcap package stumbles over can be harmless.
    complete = found == readable or found == _readable(whole)
    assert damaged or complete


@pytest.mark.parametrize('suffix', ['.mcap', '.db3'])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(_DAMAGE, min_size=1, max_size=3))
@example([('zero', 0, 32)])  # the header of mcap and the first byte of a chunk; its index is whole
@example([('flip', 50480, 1)])  # two rows of one number in sqlite3
@example([('flip', 16260, 1)])  # the end of a row of topics in sqlite3
@example([('duplicate', 16146, 1)])  # what is behind the rows of topics
def test_damage_never_raises_and_loses_nothing_that_can_be_read(small, suffix, damages):
    _check_damage(small, suffix, damages)


@pytest.mark.slow
@pytest.mark.parametrize('suffix', ['.mcap', '.db3'])
@settings(max_examples=1000, deadline=None)
@given(st.lists(_DAMAGE, min_size=1, max_size=3))
def test_two_thousand_damages(small, suffix, damages):
    _check_damage(small, suffix, damages)


_FIELDS = st.fixed_dictionaries({}, optional={
    'height': st.integers(0, 2**32 - 1),
    'width': st.integers(0, 2**32 - 1),
    'step': st.integers(0, 2**32 - 1),
    'encoding': st.one_of(st.text(max_size=12), st.sampled_from(
        ['bgr8', 'mono16', 'bayer_rggb8', 'nv12', 'uyvy', '8UC3', '16UC1'])),
    'is_bigendian': st.integers(0, 255),
    'data': st.binary(max_size=300).map(lambda data: np.frombuffer(data, np.uint8)),
})
_KINDS = ('image', 'grey', 'jpeg', 'depth', 'torn', 'wheel', 'hostile')
_ROW = st.tuples(st.sampled_from(_KINDS), st.integers(0, 1), st.sampled_from(
    [0, 1, START, START + 1, START + 10**9, 2**63 - 1]), st.booleans(), _FIELDS)
_STORED = st.sampled_from([('mcap', 'none'), ('mcap', 'storage'), ('mcap', 'file'),
                           ('sqlite3', 'none'), ('sqlite3', 'message'), ('sqlite3', 'file')])


def _any_row(kind, camera, time, stamped, fields):
    stamp = time % 2**31 if stamped else 0
    if kind == 'wheel':
        return '/wheels', 'test_interfaces/msg/Wheel', time, wheel(1)
    if kind == 'jpeg':
        return f'/cam{camera}/image_raw/compressed', COMPRESSED, time, compressed(2, stamp)
    message = b'\0\1\0\0torn'
    if kind != 'torn':
        fields = fields if kind == 'hostile' else {'encoding': {
            'image': 'rgb8', 'grey': 'mono8', 'depth': '32FC1'}[kind]}
        message = image(3, stamp, **fields)
    return f'/cam{camera}/{"depth" if kind == "depth" else "image_raw"}', IMAGE, time, message


def _check_any_bag(tmp_path_factory, rows, stored, damages):
    folder = tmp_path_factory.mktemp('any')
    storage, compression = stored
    source = write_bag(folder / 'in', [_any_row(*row) for row in rows], storage,
                       compression=compression)
    path = next(path for path in source.iterdir() if path.suffix != '.yaml')
    expected = {(row.topic, row.time, row.data) for row in read_bag(source)}
    if damages:
        path.write_bytes(_damaged(path.read_bytes(), damages))
        # The mcap package has no zstd here, and sqlite3 none at all.
        expected = _readable(path) if compression == 'none' else set()
    with redirect_stderr(StringIO()) as told, redirect_stdout(StringIO()):
        status = main(['bag', str(source), '-o', str(folder / 'out')])
    told = told.getvalue()
    assert 'Traceback' not in told and (status == 0) == ('derain: error: ' not in told), told
    assert [path.name for path in folder.iterdir() if 'partial' in path.name] == []
    if status == 2:
        assert not (folder / 'out').exists()
        # Nothing was to be derained: no camera, or two topics of one, or no picture.
        return
    # Damage may have changed how a topic is encoded, and such a bag rosbags does not read.
    with Recording(folder / 'out') as recording:
        kept = [(one.topic, time, data) for one, time, data in recording.read()]
    assert expected <= set(kept), told
    if not damages:
        assert len(read_bag(folder / 'out')) == len(kept)
        assert sum('/derained/' not in topic for topic, *_ in kept) == len(rows)
        good = sum(topic.endswith('/derained/image') for topic, *_ in kept)
        assert good <= sum(kind in ('image', 'grey', 'jpeg', 'hostile') for kind, *_ in rows)
        assert status == 0 or {'torn', 'grey', 'hostile'} & {kind for kind, *_ in rows}


_any_bag = given(st.lists(_ROW, max_size=12), _STORED, st.lists(_DAMAGE, max_size=2))


@settings(max_examples=20, deadline=None, derandomize=True)
@_any_bag
def test_any_bag_is_kept_or_refused(tmp_path_factory, rows, stored, damages):
    _check_any_bag(tmp_path_factory, rows, stored, damages)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@_any_bag
def test_many_more_bags(tmp_path_factory, rows, stored, damages):
    _check_any_bag(tmp_path_factory, rows, stored, damages)
