"""``derain bag`` on bags that are cut or damaged: what lies before is derained, and said."""

import shutil
import struct
from contextlib import closing

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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.exceptions import McapError
from mcap.reader import make_reader
from mcap.stream_reader import StreamReader

from derain_ros.bags.damage import BagError
from derain_ros.bags.derain import derain_bag, plan_bag
from derain_ros.bags.recording import Recording
from derain_ros.cli import main
from derain_ros.engines import create_engine


@pytest.fixture(scope='module')
def engine():
    with closing(create_engine('auto', 'nano', precision='f32')) as engine:
        yield engine


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


@settings(max_examples=150, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_cut_at_any_byte_all_before_is_read(cut_bag, tmp_path, data):
    content, rows = cut_bag
    length = data.draw(st.integers(0, len(content) - 1))
    path = tmp_path / 'cut.mcap'
    found, damages = _read_cut(path, content[:length])
    if found is None:
        # Then the mcap package, which needs whole chunks, finds no message either.
        assert not list(_streamed(path))
        return
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


@settings(max_examples=100, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_bytes_that_are_wrong_never_raise_anything_else(cut_bag, tmp_path, data):
    content, rows = cut_bag
    place = data.draw(st.integers(8, len(content) - 1))
    wrong = data.draw(st.binary(min_size=1, max_size=40))
    spoilt = content[:place] + wrong + content[place + len(wrong):]
    found, _ = _read_cut(tmp_path / 'spoilt.mcap', spoilt)
    if found is not None:
        assert len(found) <= len(rows)


@pytest.mark.parametrize('storage', STORAGES)
@pytest.mark.parametrize('share', [0.4, 0.8])
def test_a_cut_bag_is_derained_up_to_there(storage, share, tmp_path, capsys):
    source = write_bag(tmp_path / 'in', drive() * 6, storage)
    whole = read_bag(source)
    file = _storage_file(source)
    content = file.read_bytes()
    file.write_bytes(content[:int(len(content) * share)])
    assert main(['bag', str(source), '-o', str(tmp_path / 'out')]) == 1
    error = capsys.readouterr().err
    assert f'damaged: {file.name}, byte ' in error and 'the last message before it' in error
    kept = read_bag(tmp_path / 'out')
    inputs = messages_on(kept, *{row.topic for row in whole})
    assert 20 < len(inputs) < len(whole)
    images = messages_on(kept, '/cam/derained/image')
    assert len(images) == len(messages_on(kept, '/cam/image_raw')) > 2
    if storage == 'mcap':
        with (tmp_path / 'out' / 'out.mcap').open('rb') as stream:
            assert len(list(make_reader(stream, validate_crcs=True).iter_messages())) == len(kept)


@pytest.mark.parametrize('storage', STORAGES)
def test_without_metadata_the_files_are_found(storage, tmp_path, engine):
    source = write_bag(tmp_path / 'in', drive(), storage)
    rows = read_bag(source)
    for content in (None, ': not yaml', 'a: 1'):
        (source / 'metadata.yaml').unlink(missing_ok=True)
        if content:
            (source / 'metadata.yaml').write_text(content)
        out = tmp_path / 'out'
        summary = _derain(source, out, engine)
        assert not summary.damages and any('metadata.yaml' in note for note in summary.notes)
        assert messages_on(read_bag(out), *{row.topic for row in rows}) == rows
        shutil.rmtree(out)


@pytest.mark.parametrize('storage', STORAGES)
def test_a_packed_file_that_is_cut(storage, tmp_path, engine):
    source = write_bag(tmp_path / 'in', long_drive(24), storage, compression='file')
    count = len(read_bag(source))
    file = _storage_file(source)
    content = file.read_bytes()
    file.write_bytes(content[:len(content) * 2 // 3])
    summary = _derain(source, tmp_path / 'out', engine)
    assert [damage.file for damage in summary.damages] == [file.name]
    assert summary.damages[0].offset == len(content) * 2 // 3
    assert 0 < summary.messages < count
    assert len(read_bag(tmp_path / 'out')) == summary.written


def test_a_chunk_damaged_in_the_middle_is_found_on_the_way(tmp_path, engine):
    source = write_bag(tmp_path / 'in', long_drive(120))
    file = _storage_file(source)
    content = bytearray(file.read_bytes())
    place = len(content) // 2
    content[place:place + 40_000] = bytes(40_000)
    file.write_bytes(content)
    plan = plan_bag(source, tmp_path / 'out')
    summary = derain_bag(plan, engine)
    damage, *_ = summary.damages
    assert damage.offset <= place
    # What lies behind it is there, too.
    assert sum(damage.lost for damage in summary.damages) == (
        plan.message_count - summary.messages) < plan.message_count // 2
    last = TYPES.serialize_cdr(long_drive(120)[-1][3], COMPRESSED)
    assert bytes(last) in [row.data for row in read_bag(tmp_path / 'out')]


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
    (source / 'metadata.yaml').write_text(yaml.safe_dump(metadata))
    (source / 'part1.mcap').unlink()
    summary = _derain(source, tmp_path / 'out', engine)
    assert [(damage.file, damage.reason) for damage in summary.damages] == [
        ('part1.mcap', 'the file is missing')]
    assert summary.messages == 32


@pytest.mark.parametrize('content', [b'', b'\x89MCAP0\r\n', b'SQLite format 3\0' + bytes(84)])
@pytest.mark.parametrize('suffix', ['mcap', 'db3'])
def test_nothing_to_read_is_an_error(content, suffix, tmp_path, capsys):
    source = tmp_path / f'in.{suffix}'
    source.write_bytes(content)
    assert main(['bag', str(source), '-o', str(tmp_path / 'out')]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f'derain: error: {source}: ') and 'Traceback' not in error
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


def test_a_cut_result_is_read_as_any_bag(tmp_path, engine):
    source = write_bag(tmp_path / 'in', long_drive(12))
    _derain(source, tmp_path / 'out', engine)
    content = _storage_file(tmp_path / 'out').read_bytes()
    whole, damages = _read_cut(tmp_path / 'whole.mcap', content)
    assert not damages
    spoilt = bytearray(content)
    spoilt[-100] ^= 1
    for part in (content[:-1], content[:-60], bytes(spoilt)):
        found, damages = _read_cut(tmp_path / 'part.mcap', part)
        assert found == whole and len(damages) == 1
