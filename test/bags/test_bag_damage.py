"""``derain bag`` on bags that are cut or damaged: what lies before is derained, and said."""

import json
import random
import resource
import struct

import pytest
import yaml
from bag_files import (
    COMPRESSED,
    STORAGES,
    TYPES,
    drive,
    long_drive,
    messages_on,
    read_bag,
    write_bag,
)
from mcap.exceptions import McapError
from mcap.reader import make_reader
from mcap.stream_reader import StreamReader

from derain_ros.bags.damage import BagError
from derain_ros.bags.derain import derain_bag, plan_bag
from derain_ros.bags.recording import Recording

pytestmark = pytest.mark.usefixtures('quick_commands')


def _storage_file(source):
    return next(path for path in source.iterdir() if path.suffix != '.yaml')


def _derain(source, out, engine):
    return derain_bag(plan_bag(source, out), engine)


def _rows(recording):
    return [(recording.connections[connection - 1].topic, time, bytes(data))
            for connection, time, data, *_ in recording.messages(0, 2**63 - 1)]


def _cut_bag(folder, compression):
    source = write_bag(folder / 'whole', long_drive(12), compression=compression)
    content = _storage_file(source).read_bytes()
    with Recording(source, folder / 'scratch') as recording:
        return content, _rows(recording)


@pytest.fixture(scope='module', params=['none', 'storage'])
def cut_bag(request, tmp_path_factory):
    return _cut_bag(tmp_path_factory.mktemp('cut'), request.param)


def _read_cut(path, content):
    path.write_bytes(content)
    try:
        with Recording(path, path.parent / 'scratch') as recording:
            return _rows(recording), recording.damages
    except BagError:
        return None, None


def test_cut_anywhere_all_before_is_read(cut_bag, tmp_path):
    content, rows = cut_bag
    rng = random.Random(4)
    path = tmp_path / 'cut.mcap'
    for length in sorted({0, 7, 8, 30, len(content) - 1,
                          *(rng.randrange(len(content)) for _ in range(40))}):
        found, damages = _read_cut(path, content[:length])
        if found is None:
            # Then the mcap package, which needs whole chunks, finds no message either.
            assert not list(_streamed(path))
            continue
        assert found == rows[:len(found)]
        assert len(found) >= len(list(_streamed(path)))
        damage, = damages
        assert damage.file == 'cut.mcap' and 0 <= damage.offset <= length
        assert damage.last_time == max(time for _, time, _ in found)


def _streamed(path):
    """Yield what the streaming reader of the mcap package gets, which knows no zstd here."""
    try:
        with path.open('rb') as stream:
            for record in StreamReader(stream).records:
                if type(record).__name__ == 'Message':
                    yield record
    except (McapError, ValueError, AttributeError, struct.error):
        return


@pytest.mark.parametrize('storage, share', [('mcap', 0.4), ('sqlite3', 0.8)])
def test_a_cut_bag_is_derained_up_to_there(storage, share, tmp_path, derain):
    source = write_bag(tmp_path / 'in', drive() * 6, storage)
    whole = read_bag(source)
    file = _storage_file(source)
    content = file.read_bytes()
    file.write_bytes(content[:int(len(content) * share)])
    run = tmp_path / 'run.json'
    error = derain('bag', source, '-o', tmp_path / 'out', '--json', run, status=1).err
    assert f'damaged: {file.name}, byte ' in error and 'the last message before it' in error
    assert [damage['file'] for damage in json.loads(run.read_text())['source']['damages']] == [
        file.name, 'metadata.yaml']
    kept = read_bag(tmp_path / 'out')
    inputs = messages_on(kept, *{row.topic for row in whole})
    assert 20 < len(inputs) < len(whole)
    images = messages_on(kept, '/cam/derained/image')
    assert len(images) == len(messages_on(kept, '/cam/image_raw')) > 2
    if storage == 'mcap':
        with (tmp_path / 'out' / 'out.mcap').open('rb') as stream:
            assert len(list(make_reader(stream, validate_crcs=True).iter_messages())) == len(kept)


@pytest.mark.parametrize('storage', STORAGES)
def test_a_packed_file_that_is_cut(storage, tmp_path, engine):
    source = write_bag(tmp_path / 'in', long_drive(24), storage, compression='file')
    count = len(read_bag(source))
    file = _storage_file(source)
    content = file.read_bytes()
    file.write_bytes(content[:len(content) * 2 // 3])
    summary = _derain(source, tmp_path / 'out', engine)
    assert [damage.file for damage in summary.damages] == [file.name, 'metadata.yaml']
    assert summary.damages[0].offset == len(content) * 2 // 3
    assert 0 < summary.messages < count
    assert len(read_bag(tmp_path / 'out')) == summary.written


@pytest.mark.parametrize('storage', STORAGES)
def test_damage_in_the_middle_is_found_on_the_way(storage, tmp_path, derain):
    source = write_bag(tmp_path / 'in', long_drive(60), storage)
    file = _storage_file(source)
    content = bytearray(file.read_bytes())
    place = len(content) // 2
    content[place:place + 40_000] = bytes(40_000)
    file.write_bytes(content)
    error = derain('bag', source, '-o', tmp_path / 'out', status=1).err
    assert f'damaged: {file.name}' in error and 'Traceback' not in error
    assert 'last message' in error or 'are lost' in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ['in', 'out']
    kept = read_bag(tmp_path / 'out')
    inputs = messages_on(kept, '/cam/image_raw')
    assert 30 <= len(inputs) < 60
    assert [row.time for row in messages_on(kept, '/cam/derained/image')] == [
        row.time for row in inputs]
    # What lies behind it is there, too.
    last = TYPES.serialize_cdr(long_drive(60)[-1][3], COMPRESSED)
    assert bytes(last) in [row.data for row in kept]
    if storage == 'mcap':
        file.write_bytes(content[:-1])  # without the index it is the same
    with Recording(source) as recording:
        found = list(recording.messages(0, 2**63 - 1))
        lost = sum(damage.lost or 0 for damage in recording.damages)
    assert len(found) == sum(not row.topic.endswith(('/image', '/rain_mask')) for row in kept)
    assert storage == 'sqlite3' or lost == len(long_drive(60)) - len(found)


def test_of_a_split_bag_the_other_files_are_kept(tmp_path, engine):
    rows = [(topic, msgtype, time + 10**9 * part, message)
            for part in range(3) for topic, msgtype, time, message in drive()]
    source = write_bag(tmp_path / 'in', rows[:16])
    for part in (1, 2):
        other = write_bag(tmp_path / f'part{part}', rows[16 * part:16 * part + 16])
        _storage_file(other).rename(source / f'part{part}.mcap')
    metadata = yaml.safe_load((source / 'metadata.yaml').read_text())
    information = metadata['rosbag2_bagfile_information']
    information['relative_file_paths'] += ['part1.mcap', 'part2.mcap']
    for topic in information['topics_with_message_count']:
        topic['message_count'] *= 3
    (source / 'metadata.yaml').write_text(yaml.safe_dump(metadata))
    (source / 'part1.mcap').unlink()
    summary = _derain(source, tmp_path / 'out', engine)
    assert [(damage.file, damage.reason) for damage in summary.damages] == [
        ('part1.mcap', 'the file is missing'),
        ('metadata.yaml', 'lists 24 messages on /wheels, but 16 can be read; 12 messages on '
         '/cam/image_raw, but 8 can be read; 12 messages on /rear/image_raw/compressed, but 8 can '
         'be read')]
    assert summary.messages == 32


@pytest.mark.parametrize('storage', STORAGES)
def test_files_that_are_missing_listed_twice_or_cannot_be_opened(storage, tmp_path):
    source = write_bag(tmp_path / 'in', drive(), storage)
    file, metadata = _storage_file(source), source / 'metadata.yaml'
    other = file.with_stem('other')
    metadata.write_text(metadata.read_text().replace(
        f'- {file.name}', f'- {file.name}\n  - in/{file.name}\n  - {other.name}'))
    with Recording(source) as recording:
        assert len(list(recording.read())) == 16
        assert [str(damage) for damage in recording.damages] == [
            f'{other.name}: the file is missing']
    other.mkdir()
    with pytest.raises(BagError, match=f'{other}: Is a directory'):
        Recording(source)


@pytest.mark.parametrize('compression', ['none', 'file'])
def test_a_full_disk_is_no_damage_of_the_bag(compression, tmp_path, derain):
    source = write_bag(tmp_path / 'in', long_drive(24), 'sqlite3', compression=compression)
    file = _storage_file(source)
    content = file.read_bytes()
    file.write_bytes(content[:len(content) * 2 // 3])
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(content) // 2, before[1]))
    try:
        error = derain('bag', source, '-o', tmp_path / 'out', status=2).err
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    copy = tmp_path / 'out.partial' / 'source' / (
        'in.db3' if compression == 'file' else 'salvaged_in.db3')
    assert f'{copy}: cannot be written (' in error and '; make room there' in error


@pytest.mark.parametrize('name, content', [
    ('in.mcap', b''), ('in.db3', b''), ('in.mcap', b'\x89MCAP0\r\n'),
    ('in.db3', b'SQLite format 3\0' + bytes(84)), ('in/metadata.yaml', b': not yaml'),
    ('in/metadata.yaml', b'a: 1'), ('in', None)])
def test_nothing_to_read_is_an_error(name, content, tmp_path, derain):
    source = tmp_path / name.partition('/')[0]
    if content is not None:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    error = derain('bag', source, '-o', tmp_path / 'out', status=2).err
    assert error.startswith(f'derain: error: {source}: ') and error.count('\n') == 1
    assert {path.name for path in tmp_path.iterdir()} <= {source.name}
