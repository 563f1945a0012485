"""``derain rain`` on bags: rain where detectors listen, truth beside it, nothing lost."""

import tempfile
import zlib

import numpy as np
import pytest
from bag_files import (
    COMPRESSED,
    CUSTOM,
    IMAGE,
    PROFILES,
    START,
    STORAGES,
    TYPES,
    compressed,
    drive,
    header,
    image,
    messages_on,
    read_bag,
    read_topics,
    tree,
    wheel,
    write_bag,
)

from derain_ros.bags.plan import plan_bag
from derain_ros.bags.topics import dry_topic
from derain_ros.cli import main
from derain_ros.images.codec import decode_image
from derain_ros.images.compressed import decode_compressed
from derain_ros.rain import CameraMotion, RainClip
from derain_ros.rain.apply.rainy_bags import choose_to_rain, rain_bag
from derain_ros.rain.apply.vehicle_motion import VehicleMotion
from derain_ros.rain.apply.weather import Weather

CAMERAS = {
    '/cam/image_raw': '/cam/image_raw/dry',
    '/rear/image_raw/compressed': '/rear/image_raw/dry/compressed',
}


def _rain(source, out, intensity=0.6, topics=None, **options):
    weather = Weather(intensity=intensity, seed=1)
    plan = plan_bag(source, out, topics=topics, choose=choose_to_rain)
    return rain_bag(plan, weather, **options)


def _bgr(row):
    decode = decode_compressed if row.msgtype == COMPRESSED else decode_image
    return decode(row.message).astype(int)


def _rain_of(out, topic):
    """What rain changed in each frame of a topic."""
    rows = read_bag(out)
    pairs = zip(messages_on(rows, topic), messages_on(rows, dry_topic(topic)), strict=True)
    return [_bgr(rainy) - _bgr(dry) for rainy, dry in pairs]


@pytest.mark.parametrize('storage', STORAGES)
def test_rain_is_on_the_topic_and_the_recording_beside_it(storage, tmp_path, capsys):
    source = write_bag(tmp_path / 'in', drive(), storage, PROFILES)
    before = tree(source)
    out = tmp_path / 'out'
    assert main(['rain', str(source), '-o', str(out), '--intensity', '0.8']) == 0
    assert tree(source) == before
    recorded, rows = read_bag(source), read_bag(out)
    assert messages_on(rows, '/wheels') == messages_on(recorded, '/wheels')
    assert {row.topic for row in rows} == {'/wheels', *CAMERAS, *CAMERAS.values()}
    for topic, dry in CAMERAS.items():
        kept = messages_on(recorded, topic)
        assert [(row.time, row.data) for row in messages_on(rows, dry)] == [
            (row.time, row.data) for row in kept]
        for rainy, row in zip(messages_on(rows, topic), kept, strict=True):
            if row.msgtype == IMAGE:
                assert row.message.step == 96 * 3 + 5
                assert (rainy.message.data.reshape(64, -1)[:, -5:] == 255).all()
            assert (rainy.time, rainy.msgtype) == (row.time, row.msgtype)
            for name, value in vars(row.message).items():
                if name != 'data':
                    assert getattr(rainy.message, name) == value
            assert (_bgr(rainy) - _bgr(row)).mean() > 3
    facts, recorded_facts = read_topics(out), read_topics(source)
    for topic, found in recorded_facts.items():
        assert facts[topic] == found
        assert facts[CAMERAS.get(topic, topic)] == found
    assert sorted(path.name for path in out.iterdir()) == [
        'metadata.yaml', 'out.mcap' if storage == 'mcap' else 'out.db3']
    assert sorted(path.name for path in tmp_path.iterdir()) == ['in', 'out']
    assert '/cam/image_raw: 4 frames in rain, dry on /cam/image_raw/dry' in capsys.readouterr().out


def test_no_rain_keeps_a_raw_topic_byte_for_byte(tmp_path):
    source = write_bag(tmp_path / 'in', drive())
    assert main(['rain', str(source), '-o', str(tmp_path / 'out'), '--intensity', '0',
                 '--mist', '0', '--topics', 'cam/image_raw']) == 0
    names = read_topics(source)
    assert messages_on(read_bag(tmp_path / 'out'), *names) == read_bag(source)


def test_cameras_have_drops_of_their_own_and_transports_of_one_do_not(tmp_path):
    rows = []
    for number in range(3):
        stamp = START + number
        for topic in ('/left/image', '/right/image'):
            rows.append((topic, IMAGE, stamp, image(7, stamp)))
        # Recorded later than the raw image of the same stamp.
        rows.append(('/left/image/compressed', COMPRESSED, stamp + 9,
                     compressed(7, stamp, 'png')))
    rows += [('/rear/image', IMAGE, START + 20 + number, image(7, 0)) for number in range(2)]
    source = write_bag(tmp_path / 'in', rows)
    _rain(source, tmp_path / 'out')
    left, right, same = (_rain_of(tmp_path / 'out', topic) for topic in (
        '/left/image', '/right/image', '/left/image/compressed'))
    for number in range(3):
        assert np.array_equal(left[number], same[number])
        assert not np.array_equal(left[number], right[number])
    assert not np.array_equal(left[0], left[1])
    # Without a stamp by the time of recording.
    first, second = _rain_of(tmp_path / 'out', '/rear/image')
    assert first.any() and not np.array_equal(first, second)


def test_rain_does_not_depend_on_what_else_is_recorded(tmp_path):
    whole = write_bag(tmp_path / 'whole', drive())
    part = write_bag(tmp_path / 'part', drive()[9:])
    results = []
    for source in (whole, part):
        _rain(source, tmp_path / f'{source.name}_out')
        results.append(messages_on(read_bag(tmp_path / f'{source.name}_out'), *CAMERAS))
    assert results[0][-len(results[1]):] == results[1]


def test_what_is_no_picture_is_named_and_left_alone(tmp_path, capsys):
    rows = [
        ('/cam/image_raw', IMAGE, START, image(0, START)),
        ('/depth/image', IMAGE, START + 1, image(1, START, encoding='32FC1')),
        ('/depth/image/compressedDepth', COMPRESSED, START + 2,
         compressed(1, START, 'png', format='16UC1; compressedDepth')),
        ('/wheels', CUSTOM, START + 3, wheel(1)),
        ('/cam/derained/rain_mask', IMAGE, START + 4, image(0, START, encoding='mono8')),
    ]
    source = write_bag(tmp_path / 'in', rows)
    assert main(['rain', str(source), '-o', str(tmp_path / 'out')]) == 0
    result = read_bag(tmp_path / 'out')
    others = ('/depth/image', '/depth/image/compressedDepth', '/wheels',
              '/cam/derained/rain_mask')
    assert messages_on(result, *others) == messages_on(read_bag(source), *others)
    assert {row.topic for row in result} == {'/cam/image_raw', '/cam/image_raw/dry', *others}
    message = capsys.readouterr().err
    assert message.count('/depth/image is left alone: ') == 1 and '32FC1' in message
    assert message.count('/depth/image/compressedDepth is left alone: ') == 1
    assert main(['rain', str(source), '-o', str(tmp_path / 'no'), '--topics', '/depth/image']) == 2
    assert 'no image topic can be given rain (/depth/image: ' in capsys.readouterr().err
    assert not (tmp_path / 'no').exists()


def test_frames_that_cannot_be_read_are_named_and_kept(tmp_path, capsys):
    rows = [
        ('/cam/image_raw', IMAGE, START, b'\x00\x01\x00\x00torn'),
        ('/cam/image_raw', IMAGE, START + 1, image(0, START)),
        ('/cam/image_raw', IMAGE, START + 2, image(2, START, height=900)),
        ('/cam/image_raw', IMAGE, START + 3, image(3, START, encoding='32FC1')),
        ('/cam/image_raw/compressed', COMPRESSED, START + 4,
         compressed(6, START, data=np.zeros(100, np.uint8))),
    ]
    source = write_bag(tmp_path / 'in', rows)
    assert main(['rain', str(source), '-o', str(tmp_path / 'out')]) == 1
    recorded, result = read_bag(source), read_bag(tmp_path / 'out')
    for topic in ('/cam/image_raw', '/cam/image_raw/compressed'):
        kept = messages_on(recorded, topic)
        dry, rainy = (messages_on(result, name) for name in (dry_topic(topic), topic))
        assert [row.data for row in dry] == [row.data for row in kept]
        changed = [row.time - START for row, before in zip(rainy, kept, strict=True)
                   if row.data != before.data]
        assert changed == ([1] if topic == '/cam/image_raw' else [])
    captured = capsys.readouterr()
    for number, topic in ((0, ''), (2, ''), (3, ''), (4, '/compressed')):
        seconds, nanoseconds = divmod(START + number, 10**9)
        assert f'/cam/image_raw{topic} at {seconds}.{nanoseconds:09d}: ' in captured.err
    assert '1 frames in rain, dry on /cam/image_raw/dry, 3 kept as they are' in captured.out


def test_requests_that_do_not_fit_are_refused(tmp_path, derain):
    source = write_bag(tmp_path / 'in', drive())
    _rain(source, tmp_path / 'rainy')
    wheels = write_bag(tmp_path / 'wheels', [('/wheels', CUSTOM, START, wheel(1))])
    (tmp_path / 'left.partial').mkdir()
    (tmp_path / 'left.partial' / 'mine').touch()
    before = tree(tmp_path)
    out = tmp_path / 'out'
    for arguments, words in (
        ((source, '-o', source), ('in', 'is the input')),
        ((source, '-o', tmp_path / 'rainy'), ('rainy', 'exists')),
        ((source, '-o', tmp_path / 'left'), ('left.partial', 'in the way')),
        ((source, '-o', out, '--topics', '/front'),
         (f'/front is not an image topic of {source};', '/cam/image_raw')),
        ((source, '-o', out, '--streaks', tmp_path / 's'), ('--streaks', 'dry')),
        ((tmp_path / 'rainy', '-o', out), ('rainy has /cam/image_raw/dry', '--topics')),
        ((wheels, '-o', out), (f'{wheels} has no Image', '/wheels')),
        ((tmp_path / 'none.mcap', '-o', out), ('none.mcap', 'no such')),
    ):
        message = derain('rain', *arguments, status=2).err
        assert all(word in message for word in words), message
        assert tree(tmp_path) == before


def test_an_interrupted_run_goes_on(tmp_path):
    source = write_bag(tmp_path / 'in', drive())
    seen = []

    def interrupt(count):
        seen.append(count)
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _rain(source, tmp_path / 'out', progress=interrupt)
    assert sorted(path.name for path in tmp_path.iterdir()) == ['in', 'out.partial']
    _rain(source, tmp_path / 'out')
    counts = []
    summary = _rain(source, tmp_path / 'once' / 'out', progress=counts.append)
    assert tree(tmp_path / 'out') == tree(tmp_path / 'once' / 'out')
    assert sum(counts) == 8 and summary.messages == 16 and not summary.failed.total()
    assert summary.made == dict.fromkeys(CAMERAS, 4)


@pytest.mark.parametrize('topic, dry', [
    *CAMERAS.items(), ('/image', '/image/dry'), ('/compressed', '/compressed/dry')])
def test_dry_topic(topic, dry):
    assert dry_topic(topic) == dry


def _twist(msgtype, stamp, speed, yaw_rate):
    make = TYPES.types
    vector = make['geometry_msgs/msg/Vector3']
    twist = make['geometry_msgs/msg/Twist'](
        linear=vector(x=speed, y=0.0, z=0.0), angular=vector(x=0.0, y=0.0, z=yaw_rate))
    if msgtype == 'geometry_msgs/msg/TwistStamped':
        return make[msgtype](header=header(stamp, 'base_link'), twist=twist)
    pose = make['geometry_msgs/msg/Pose'](
        position=make['geometry_msgs/msg/Point'](x=0.0, y=0.0, z=0.0),
        orientation=make['geometry_msgs/msg/Quaternion'](x=0.0, y=0.0, z=0.0, w=1.0))
    return make[msgtype](
        header=header(stamp, 'odom'), child_frame_id='base_link',
        pose=make['geometry_msgs/msg/PoseWithCovariance'](pose=pose, covariance=np.zeros(36)),
        twist=make['geometry_msgs/msg/TwistWithCovariance'](twist=twist, covariance=np.zeros(36)))


@pytest.mark.parametrize('msgtype', ['nav_msgs/msg/Odometry', 'geometry_msgs/msg/TwistStamped'])
def test_rain_follows_the_speed_of_the_vehicle_at_each_frame(msgtype, tmp_path):
    # Speed and turn grow from 0 at START to 30 m/s and 0.3 rad/s a tenth of a second later.
    rows = [*drive()[1:8:4], *(
        ('/odom', msgtype, time, _twist(msgtype, time, 30.0 * k, 0.3 * k))
        for k, time in enumerate((START, START + 10**8)))]
    source = write_bag(tmp_path / 'in', sorted(rows, key=lambda row: row[2]))
    out, topic = tmp_path / 'out', '/cam/image_raw'
    assert main(['rain', str(source), '-o', str(out), '--intensity', '0.2', '--speed-topic',
                 'odom']) == 0
    clip = RainClip(0.2, 1, camera=CameraMotion())
    rainy, dry = (messages_on(read_bag(out), name)[1] for name in (topic, dry_topic(topic)))
    stamp = rainy.message.header.stamp
    instant = stamp.sec * 10**9 + stamp.nanosec
    share = np.clip((instant - START) / 1e8, 0, 1)
    assert share > 0.1
    expected = clip.render(
        decode_image(dry.message), zlib.crc32(topic.encode()) << 64 | instant, instant / 1e9,
        speed=30 * share, yaw_rate=0.3 * share)
    assert np.abs(decode_image(rainy.message).astype(int) - expected.image).max() <= 1


def test_a_packed_bag_is_unpacked_once_and_beside_the_result(tmp_path, monkeypatch):
    source = write_bag(tmp_path / 'in', drive(), 'mcap', PROFILES, compression='file')
    monkeypatch.setattr(tempfile, 'tempdir', str(tmp_path / 'full'))
    summary = _rain(source, tmp_path / 'out')
    assert summary.made.total() and not summary.damages


def test_the_speed_at_a_frame_is_found_without_a_look_at_all_others():
    class Rows(tuple):
        def __iter__(self):
            raise AssertionError('a frame of a long drive would take seconds')

    motion = VehicleMotion(Rows((START + k * 10**9, 2.0 * k, -0.1 * k) for k in range(1000)))
    assert motion.at(START + 1_500_000_000) == pytest.approx((3.0, -0.15))
    assert motion.at(START + 2_000_000_000) == pytest.approx((4.0, -0.2))
    assert motion.at(0) == (0.0, 0.0)
    assert motion.at(2**62) == pytest.approx((1998.0, -99.9))


def test_a_speed_by_another_clock_than_the_frames_is_told(tmp_path, derain):
    msgtype = 'geometry_msgs/msg/TwistStamped'
    rows = [drive()[1], ('/odom', msgtype, START, _twist(msgtype, 10**9, 3.0, 0.0))]
    told = derain('rain', write_bag(tmp_path / 'in', rows), '-o', tmp_path / 'out',
                  '--speed-topic', '/odom').err
    assert '/odom of 1.000000000 to 1.000000000; the speed nearest in time is taken' in told


def test_a_speed_topic_that_is_none_is_told_with_those_that_are(tmp_path, derain, capsys):
    source = write_bag(tmp_path / 'in', drive(), 'mcap')
    out = tmp_path / 'out'
    for topic, said in (('/odom', 'is not in the bag'), ('/wheels', f'is of type {CUSTOM}')):
        assert main(['rain', str(source), '-o', str(out), '--speed-topic', topic]) == 1
        assert f'{topic}: {said}' in capsys.readouterr().err
        assert not out.exists()
    command = ['rain', str(source), '-o', str(out), '--speed-topic', '/odom', '--speed', '3']
    assert '--speed-topic replaces --speed' in derain(*command, status=2).err
