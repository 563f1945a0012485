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
from rosbags.highlevel import AnyReader

from derain_ros.bags.derain import derain_bag, plan_bag
from derain_ros.cli import main
from derain_ros.engines import create_engine
from derain_ros.images.codec import decode_image
from derain_ros.images.compressed import decode_compressed

pytestmark = pytest.mark.usefixtures('quick_commands')


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


def test_alpha_is_kept_and_strength_zero_gives_the_input_back(tmp_path, engine):
    source = write_bag(tmp_path / 'in', [
        ('/cam/image_raw', IMAGE, START, image(1, START, 'bgra8'))])
    derain_bag(plan_bag(source, tmp_path / 'out'), engine, strength=0)
    result = messages_on(read_bag(tmp_path / 'out'), '/cam/derained/image')[0].message
    assert result.encoding == 'bgra8'
    assert (result.data.reshape(64, 96, 4)[..., 3] == 77).all()
    assert np.array_equal(decode_image(result), picture(1))


@pytest.mark.parametrize('storage', STORAGES)
def test_two_runs_write_the_same_bytes_under_any_name(storage, tmp_path, engine):
    source = write_bag(tmp_path / 'in', drive(), storage)
    if storage == 'mcap':
        with closing(create_engine('auto', 'nano', precision='f32')) as other:
            derain_bag(plan_bag(source, tmp_path / 'a' / 'out'), other)
    else:
        derain_bag(plan_bag(source, tmp_path / 'a' / 'out'), engine)
    for name in ('b/out', 'c/other'):
        derain_bag(plan_bag(source, tmp_path / name), engine)
    assert tree(tmp_path / 'a') == tree(tmp_path / 'b')
    suffix = 'mcap' if storage == 'mcap' else 'db3'
    assert (tmp_path / 'c' / 'other' / f'other.{suffix}').read_bytes() == (
        tmp_path / 'a' / 'out' / f'out.{suffix}').read_bytes()


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


def test_bad_frames_are_named_and_the_rest_goes_on(tmp_path, derain):
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
    captured = derain('bag', source, '-o', tmp_path / 'out', status=1)
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


def test_what_exists_is_never_touched(tmp_path, derain):
    source = write_bag(tmp_path / 'in', drive())
    assert '/: exists already' in derain('bag', source, '-o', '/', status=2).err
    for bags in (source, tmp_path):
        assert f'{bags}: is the input' in derain('bag', bags, '-o', bags, status=2).err
    for name in ('out', 'out.partial'):
        blocker = tmp_path / name
        blocker.mkdir()
        (blocker / 'mine').touch()
        assert str(blocker) in derain('bag', source, '-o', tmp_path / 'out', status=2).err
        assert list(tree(blocker)) == ['mine']
        (blocker / 'mine').unlink()
        blocker.rmdir()


@pytest.mark.parametrize('name, command', [('a.MP4', 'video'), ('a.jpg', 'image')])
def test_what_is_for_another_command_is_told(name, command, tmp_path, derain):
    (tmp_path / name).touch()
    told = derain('bag', tmp_path / name, '-o', tmp_path / 'out', status=2).err
    assert f'{name}: is not a bag' in told and f'`derain {command}`' in told


def test_a_derained_bag_is_not_derained_again(tmp_path, engine, derain):
    source = write_bag(tmp_path / 'in', drive())
    derain_bag(plan_bag(source, tmp_path / 'once'), engine)
    message = derain('bag', tmp_path / 'once', '-o', tmp_path / 'twice', status=2).err
    assert 'already has' in message and '--topics' in message
