"""``derain bag`` on real bags: nothing lost, everything added, and no half results."""

from contextlib import closing

import numpy as np
import pytest
from bag_files import (
    COMPRESSED,
    IMAGE,
    PROFILES,
    START,
    STORAGES,
    compressed,
    drive,
    image,
    messages_on,
    picture,
    read_bag,
    read_topics,
    tree,
    write_bag,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rosbags.highlevel import AnyReader

from derain_ros.bags.derain import derain_bag, plan_bag
from derain_ros.cli import main
from derain_ros.engines import create_engine
from derain_ros.images.codec import decode_compressed, decode_image


@pytest.fixture(scope='module')
def engine():
    engine = create_engine('auto', 'nano')
    yield engine
    engine.close()


@pytest.mark.parametrize('storage', STORAGES)
def test_everything_recorded_is_kept(storage, tmp_path, engine):
    source = write_bag(tmp_path / 'in', drive(), storage, PROFILES)
    before = tree(source)
    out = tmp_path / 'out'
    derain_bag(plan_bag(source, out), engine)
    assert tree(source) == before
    recorded = read_bag(source)
    names = {row.topic for row in recorded}
    assert messages_on(read_bag(out), *names) == recorded
    kept = read_topics(out)
    for topic, facts in read_topics(source).items():
        assert kept[topic] == facts
    assert sorted(path.name for path in out.iterdir()) == [
        'metadata.yaml', 'out.mcap' if storage == 'mcap' else 'out.db3']
    assert sorted(path.name for path in tmp_path.iterdir()) == ['in', 'out']


def test_every_image_gains_a_derained_image_and_a_mask(tmp_path, engine):
    source = write_bag(tmp_path / 'in', drive())
    out = tmp_path / 'out'
    assert main(['bag', str(source), '-o', str(out)]) == 0
    rows = read_bag(out)
    topics = read_topics(out)
    for raw, camera in (
        ('/cam/image_raw', '/cam'), ('/rear/image_raw/compressed', '/rear')):
        inputs = messages_on(rows, raw)
        images = messages_on(rows, f'{camera}/derained/image')
        masks = messages_on(rows, f'{camera}/derained/rain_mask')
        assert len(inputs) == len(images) == len(masks) == 4
        for before, after, mask in zip(inputs, images, masks, strict=True):
            assert before.time == after.time == mask.time
            assert before.message.header == after.message.header == mask.message.header
            decode = decode_compressed if before.msgtype == COMPRESSED else decode_image
            expected = engine.infer(np.ascontiguousarray(decode(before.message))[np.newaxis])
            assert np.array_equal(decode_image(after.message), expected.image[0])
            assert mask.message.encoding == 'mono8'
            assert np.array_equal(
                mask.message.data.reshape(64, 96), expected.rain_mask[0])
    assert {row.message.encoding for row in messages_on(rows, '/cam/derained/image')} == {'rgb8'}
    assert {row.message.encoding for row in messages_on(rows, '/rear/derained/image')} == {'bgr8'}
    assert topics['/cam/derained/image'][:3] == topics['/cam/image_raw'][:3]
    with AnyReader([out]) as reader:
        assert len(reader.topics) == 7


def test_alpha_is_kept(tmp_path, engine):
    source = write_bag(tmp_path / 'in', [
        ('/cam/image_raw', IMAGE, START, image(1, START, 'bgra8'))])
    derain_bag(plan_bag(source, tmp_path / 'out'), engine)
    result = messages_on(read_bag(tmp_path / 'out'), '/cam/derained/image')[0].message
    assert result.encoding == 'bgra8'
    assert (result.data.reshape(64, 96, 4)[..., 3] == 77).all()


def test_two_runs_write_the_same_bytes(tmp_path, engine):
    for storage in STORAGES:
        source = write_bag(tmp_path / storage / 'in', drive(), storage)
        with closing(create_engine('auto', 'nano')) as other:
            derain_bag(plan_bag(source, tmp_path / 'a' / storage), other)
        derain_bag(plan_bag(source, tmp_path / 'b' / storage), engine)
    assert tree(tmp_path / 'a') == tree(tmp_path / 'b')


def test_the_messages_file_is_the_same_under_any_name(tmp_path, engine):
    for storage, suffix in zip(STORAGES, ('mcap', 'db3'), strict=True):
        source = write_bag(tmp_path / storage / 'in', drive(), storage)
        contents = []
        for name in ('first', 'second'):
            output = tmp_path / storage / name
            derain_bag(plan_bag(source, output), engine)
            contents.append((output / f'{name}.{suffix}').read_bytes())
        assert contents[0] == contents[1]


def test_strength_zero_gives_the_input_back(tmp_path, engine):
    source = write_bag(tmp_path / 'in', drive())
    derain_bag(plan_bag(source, tmp_path / 'out'), engine, strength=0)
    first = messages_on(read_bag(tmp_path / 'out'), '/cam/derained/image')[0]
    assert np.array_equal(decode_image(first.message), picture(0))


def test_options_choose_topics_mask_and_storage(tmp_path):
    source = write_bag(tmp_path / 'in', drive(), 'sqlite3', PROFILES)
    out = tmp_path / 'out'
    # The base name of a compressed topic is enough.
    assert main(['bag', str(source), '-o', str(out), '--topics', '/rear/image_raw',
                 '--no-mask', '--storage', 'mcap']) == 0
    assert set(read_topics(out)) == set(read_topics(source)) | {'/rear/derained/image'}
    names = set(read_topics(source))
    assert messages_on(read_bag(out), *names) == read_bag(source)
    assert (out / 'out.mcap').is_file()


def test_bad_frames_are_named_and_the_rest_goes_on(tmp_path, capsys):
    rows = [
        ('/cam/image_raw', IMAGE, START, image(0, START)),
        ('/cam/image_raw', IMAGE, START + 1, image(1, START, encoding='32FC1')),
        ('/cam/image_raw', IMAGE, START + 2, image(2, START, height=900)),
        ('/cam/image_raw', IMAGE, START + 3, b'\x00\x01\x00\x00torn'),
        ('/cam/image_raw', IMAGE, START + 4, image(
            4, START, height=8, width=8, step=24, data=np.zeros(192, np.uint8))),
        ('/cam/image_raw', IMAGE, START + 5, image(5, START)),
        ('/rear/image_raw/compressed', COMPRESSED, START + 6,
         compressed(6, START, data=np.zeros(100, np.uint8))),
    ]
    source = write_bag(tmp_path / 'in', rows)
    assert main(['bag', str(source), '-o', str(tmp_path / 'out')]) == 1
    captured = capsys.readouterr()
    result = read_bag(tmp_path / 'out')
    assert messages_on(result, '/cam/image_raw', '/rear/image_raw/compressed') == read_bag(source)
    times = [row.time - START for row in messages_on(result, '/cam/derained/image')]
    assert times == [0, 5]
    for number in (1, 2, 3, 4):
        seconds, nanoseconds = divmod(START + number, 10**9)
        assert f'/cam/image_raw at {seconds}.{nanoseconds:09d}: ' in captured.err
    assert '32FC1' in captured.err
    assert '2 frames, 4 failed' in captured.out
    assert 'no frame of /rear/image_raw/compressed' in captured.err
    assert 'Traceback' not in captured.err


@pytest.mark.parametrize('make', [
    lambda path: None,
    lambda path: path.mkdir(),
    lambda path: (path.mkdir(), (path / 'metadata.yaml').write_text(': not yaml')),
    lambda path: (path.mkdir(), (path / 'metadata.yaml').write_text('a: 1')),
    lambda path: path.with_suffix('.mcap').write_bytes(b'\x89MCAP0\r\n'),
])
def test_no_bag_is_one_line(make, tmp_path, capsys):
    source = tmp_path / 'in'
    make(source)
    if not source.exists() and source.with_suffix('.mcap').exists():
        source = source.with_suffix('.mcap')
    assert main(['bag', str(source), '-o', str(tmp_path / 'out')]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith(f'derain: error: {source}: ')
    assert not (tmp_path / 'out').exists()


@pytest.mark.parametrize('storage', STORAGES)
def test_of_a_damaged_bag_the_beginning_is_derained(storage, tmp_path, capsys):
    source = write_bag(tmp_path / 'in', drive() * 12, storage)
    data_file = next(path for path in source.iterdir() if path.suffix != '.yaml')
    data = bytearray(data_file.read_bytes())
    data[len(data) // 2:len(data) // 2 + 200_000] = bytes(200_000)
    data_file.write_bytes(data)
    assert main(['bag', str(source), '-o', str(tmp_path / 'out')]) == 1
    captured = capsys.readouterr()
    assert 'Traceback' not in captured.err
    assert data_file.name in captured.err
    assert 'last message' in captured.err or 'are lost' in captured.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ['in', 'out']
    kept = read_bag(tmp_path / 'out')
    inputs = messages_on(kept, '/cam/image_raw')
    assert 12 <= len(inputs) < 48
    assert [row.time for row in messages_on(kept, '/cam/derained/image')] == [
        row.time for row in inputs]


def test_what_exists_is_never_touched(tmp_path, capsys):
    source = write_bag(tmp_path / 'in', drive())
    for name in ('out', 'out.partial'):
        blocker = tmp_path / name
        blocker.mkdir()
        (blocker / 'mine').touch()
        assert main(['bag', str(source), '-o', str(tmp_path / 'out')]) == 2
        assert str(blocker) in capsys.readouterr().err
        assert list(tree(blocker)) == ['mine']
        (blocker / 'mine').unlink()
        blocker.rmdir()


def test_an_interrupted_run_is_gone_on_with(tmp_path, engine):
    source = write_bag(tmp_path / 'in', drive())
    seen = []

    def interrupt(count):
        seen.append(count)
        if len(seen) == 5:
            assert [path.name for path in tmp_path.iterdir() if path.name != 'in'] == [
                'out.partial']
            raise KeyboardInterrupt

    plan = plan_bag(source, tmp_path / 'out')
    with pytest.raises(KeyboardInterrupt):
        derain_bag(plan, engine, progress=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['in', 'out.partial']
    derain_bag(plan_bag(source, tmp_path / 'out'), engine)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['in', 'out']


def test_progress_counts_every_frame(tmp_path, engine):
    plan = plan_bag(write_bag(tmp_path / 'in', drive()), tmp_path / 'out')
    counts = []
    summary = derain_bag(plan, engine, progress=counts.append)
    assert sum(counts) == plan.frame_count == 8
    assert plan.message_count == summary.messages == 16
    assert summary.written == 16 + 2 * 8
    assert summary.made == {'/cam/image_raw': 4, '/rear/image_raw/compressed': 4}


def test_a_derained_bag_is_not_derained_again(tmp_path, engine, capsys):
    source = write_bag(tmp_path / 'in', drive())
    derain_bag(plan_bag(source, tmp_path / 'once'), engine)
    assert main(['bag', str(tmp_path / 'once'), '-o', str(tmp_path / 'twice')]) == 2
    message = capsys.readouterr().err
    assert 'already has' in message and '--topics' in message


_FIELDS = st.fixed_dictionaries({}, optional={
    'height': st.integers(0, 2**32 - 1),
    'width': st.integers(0, 2**32 - 1),
    'step': st.integers(0, 2**32 - 1),
    'encoding': st.one_of(st.text(max_size=12), st.sampled_from(
        ['bgr8', 'mono16', 'bayer_rggb8', 'nv12', 'uyvy', '8UC3', '16UC1'])),
    'is_bigendian': st.integers(0, 255),
    'data': st.binary(max_size=300).map(lambda data: np.frombuffer(data, np.uint8)),
})


@settings(max_examples=25, deadline=None,
          suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_FIELDS, min_size=1, max_size=4), st.binary(max_size=60))
def test_hostile_images_are_counted_and_kept(tmp_path_factory, engine, fields, torn):
    rows = [('/cam/image_raw', IMAGE, START + number, image(number, START, **values))
            for number, values in enumerate(fields)]
    rows.append(('/cam/image_raw', IMAGE, START + 100, torn))
    rows.append(('/cam/image_raw', IMAGE, START + 101, image(9, START)))
    folder = tmp_path_factory.mktemp('hostile')
    source = write_bag(folder / 'in', rows)
    summary = derain_bag(plan_bag(
        source, folder / 'out', topics=['/cam/image_raw']), engine)
    assert summary.made.total() + summary.failed.total() == len(rows)
    assert len(summary.bad_frames) == summary.failed.total() >= 1
    result = read_bag(folder / 'out')
    assert messages_on(result, '/cam/image_raw') == read_bag(source)
    assert messages_on(result, '/cam/derained/image')[-1].time == START + 101
