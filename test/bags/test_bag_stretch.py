"""``derain bag`` on a part of a bag: --start, --duration, --every; and what it leaves alone."""


import pytest
from bag_files import (
    RELIABLE,
    START,
    STORAGES,
    drive,
    long_drive,
    messages_on,
    read_bag,
    write_bag,
)
from mcap.reader import make_reader
from mcap.stream_reader import StreamReader

from derain_ros.bags.derain import derain_bag, plan_bag
from derain_ros.cli import main

pytestmark = pytest.mark.usefixtures('quick_commands')

CAMERAS = ('/cam/image_raw', '/rear/image_raw/compressed')
TF = 'tf2_msgs/msg/TFMessage'


@pytest.mark.parametrize('storage', STORAGES)
def test_a_stretch_keeps_what_lies_in_it(storage, tmp_path, engine):
    source = write_bag(tmp_path / 'in', long_drive(30), storage)
    start = min(row.time for row in read_bag(source))
    plan = plan_bag(source, tmp_path / 'out', start=0.2, duration=0.5)
    summary = derain_bag(plan, engine)
    wanted = [row for row in read_bag(source)
              if start + 200_000_000 <= row.time < start + 700_000_000]
    kept = read_bag(tmp_path / 'out')
    assert messages_on(kept, '/wheels', *CAMERAS) == wanted
    frames = len(messages_on(wanted, *CAMERAS))
    assert summary.made.total() == plan.frame_count == frames == 31
    assert not summary.damages


def test_latched_topics_are_given_again_at_the_start(tmp_path, engine):
    latched = [
        ('/map', 'test_interfaces/msg/Wheel', START - 40, b'\0\1\0\0old'),
        ('/map', 'test_interfaces/msg/Wheel', START - 30, b'\0\1\0\0new'),
        ('/tf_static', TF, START - 20, b'\0\1\0\0\0\0\0\0one'),
        ('/tf_static', TF, START - 10, b'\0\1\0\0\0\0\0\0two'),
    ]
    source = write_bag(tmp_path / 'in', latched + drive(), profiles={'/map': [RELIABLE]})
    derain_bag(plan_bag(source, tmp_path / 'out', start=0.05), engine)
    rows = read_bag(tmp_path / 'out')
    begin = START - 40 + 50_000_000
    given = [row for row in rows if row.topic in ('/map', '/tf_static')]
    assert [(row.topic, row.time, row.data[-3:]) for row in sorted(
        given, key=lambda row: row.data[-3:])] == [
        ('/map', begin, b'new'), ('/tf_static', begin, b'one'), ('/tf_static', begin, b'two')]
    assert min(row.time for row in rows) == begin


@pytest.mark.parametrize('storage', STORAGES)
def test_every_third_frame_of_each_camera(storage, tmp_path, engine):
    source = write_bag(tmp_path / 'in', long_drive(30), storage)
    plan = plan_bag(source, tmp_path / 'out', every=3)
    assert len(plan.boundaries) > 4
    summary = derain_bag(plan, engine)
    rows = read_bag(tmp_path / 'out')
    assert messages_on(rows, '/wheels', *CAMERAS) == read_bag(source)
    for topic, result in zip(CAMERAS, ('/cam/derained/image', '/rear/derained/image'),
                             strict=True):
        times = [row.time for row in messages_on(rows, topic)]
        assert [row.time for row in messages_on(rows, result)] == times[::3]
    assert summary.made.total() == plan.frame_count == 20


def test_a_start_behind_the_end_is_named(tmp_path, capsys):
    source = write_bag(tmp_path / 'in', drive())
    assert main(['bag', str(source), '-o', str(tmp_path / 'out'), '--start', '99']) == 2
    assert '--start' in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['in']


def test_truth_is_not_derained_unless_named(tmp_path, capsys):
    rows = [(topic, msgtype, time, message) for topic, msgtype, time, message in drive()]
    rows += [('/cam/image_raw/dry', msgtype, time, message)
             for topic, msgtype, time, message in drive() if topic == '/cam/image_raw']
    source = write_bag(tmp_path / 'in', rows)
    assert main(['bag', str(source), '-o', str(tmp_path / 'out')]) == 0
    assert '/cam/image_raw/dry is the ground truth of a rainy topic' in capsys.readouterr().err
    topics = {row.topic for row in read_bag(tmp_path / 'out')}
    assert '/cam/image_raw/dry' in topics
    assert '/cam/image_raw/derained/image' not in topics
    assert main(['bag', str(source), '-o', str(tmp_path / 'named'),
                 '--topics', '/cam/image_raw/dry']) == 0
    assert '/cam/image_raw/derained/image' in {
        row.topic for row in read_bag(tmp_path / 'named')}


@pytest.mark.parametrize('compress', [False, True])
@pytest.mark.parametrize('storage', STORAGES)
def test_the_reader_of_mcap_agrees_with_rosbags(storage, compress, tmp_path, engine):
    source = write_bag(tmp_path / 'in', long_drive(10), storage)
    derain_bag(plan_bag(source, tmp_path / 'out', storage='mcap', compress=compress), engine)
    rows = read_bag(tmp_path / 'out')
    with (tmp_path / 'out' / 'out.mcap').open('rb') as stream:
        reader = make_reader(stream, validate_crcs=True)
        summary = reader.get_summary()
        assert summary.statistics.message_count == len(rows)
        if compress:  # the package has no zstd here
            assert {index.compression for index in summary.chunk_indexes} == {'zstd'}
            return
        assert [(channel.topic, message.log_time, message.data)
                for _, channel, message in reader.iter_messages()] == [
            (row.topic, row.time, row.data) for row in rows]
        stream.seek(0)
        records = [type(record).__name__ for record in StreamReader(
            stream, validate_crcs=True).records]
    assert records.count('Message') == len(rows)
    assert records[0] == 'Header' and records[-1] == 'Footer'
