"""``derain bag`` on mcap files whose chunks are packed with lz4, as other recorders write them."""


import pytest
from bag_files import drive, long_drive, messages_on, read_bag, write_mcap
from mcap.reader import make_reader

from derain_ros.bags.derain import derain_bag, plan_bag
from derain_ros.bags.recording import Recording


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


def test_of_a_cut_bag_of_lz4_chunks_all_before_is_read(tmp_path):
    path = write_mcap(tmp_path / 'cut.mcap', long_drive(12), compression='LZ4')
    content, whole = path.read_bytes(), _read_by_mcap(path)
    path.write_bytes(content[:int(0.7 * len(content))])
    with Recording(path) as recording:
        found = [(one.topic, time, data) for one, time, data in recording.read()]
        damage, = recording.damages
    assert found == whole[:len(found)] and len(found) > len(whole) / 3
    assert damage.file == 'cut.mcap'
