"""Which topics of a bag are cameras, and what the derained ones are called."""

import pytest
from bag_files import COMPRESSED, CUSTOM, IMAGE, START, compressed, image, write_bag
from hypothesis import given
from hypothesis import strategies as st

from derain_ros.bags.damage import BagError
from derain_ros.bags.plan import plan_bag
from derain_ros.bags.topics import choose_cameras, output_namespace


@pytest.mark.parametrize('topics, selection, words', [
    ([('/a/image_raw', IMAGE), ('/a/image_raw/compressed', COMPRESSED)], None,
     ('/a/image_raw', '/a/image_raw/compressed', '--topics')),
    ([('/a/left', IMAGE), ('/imu', 'sensor_msgs/msg/Imu')], ['/imu'], ('/imu', '/a/left')),
    ([('/imu', 'sensor_msgs/msg/Imu')], None, ('/imu',)),
    ([], None, ('none',)),
])
def test_topics_that_do_not_fit_are_named(topics, selection, words):
    with pytest.raises(BagError) as error:
        choose_cameras(topics, selection)
    for word in words:
        assert word in str(error.value)


def test_one_of_two_topics_of_a_camera_can_be_chosen():
    topics = [('/a/image_raw', IMAGE), ('/a/image_raw/compressed', COMPRESSED)]
    for name in ('/a/image_raw', '/a/image_raw/compressed'):
        camera, = choose_cameras(topics, [name, name])
        assert (camera.source, camera.image) == (name, '/a/derained/image')


def test_two_cameras_of_one_namespace_are_named_after_their_topics():
    cameras = choose_cameras([('/image_left', IMAGE), ('/image_right', IMAGE)], None)
    assert [camera.image for camera in cameras] == [
        '/image_left/derained/image', '/image_right/derained/image']


@pytest.mark.parametrize('topic, namespace', [
    ('/cam/image_raw', '/cam/derained'),
    ('/cam/image_raw/compressed', '/cam/derained'),
    ('/front/color/image_rect', '/front/color/derained'),
    ('/image_raw', '/derained'),
    ('/compressed', '/derained'),
    ('/cam/compressed', '/derained'),
    ('image', '/derained'),
])
def test_output_namespace(topic, namespace):
    assert output_namespace(topic) == namespace


_TOKEN = st.from_regex(r'[a-zA-Z_][a-zA-Z0-9_]{0,6}', fullmatch=True)
_NAME = st.lists(st.one_of(_TOKEN, st.just('compressed')), min_size=1, max_size=4).map(
    lambda tokens: '/' + '/'.join(tokens))


@given(st.lists(st.tuples(_NAME, st.sampled_from([IMAGE, COMPRESSED, CUSTOM])), max_size=6,
                unique_by=lambda topic: topic[0]))
def test_outputs_are_new_names_one_per_camera(topics):
    try:
        cameras = choose_cameras(topics, None)
    except BagError:
        return
    names = [name for name, _ in topics]
    outputs = [name for camera in cameras for name in (camera.image, camera.rain_mask)]
    assert len(set(outputs)) == len(outputs)
    assert not set(outputs) & set(names)
    assert [camera.source for camera in cameras] == [
        name for name, msgtype in topics if msgtype != CUSTOM]
    for name in outputs:
        assert name.startswith('/') and '//' not in name


@pytest.mark.parametrize('name', ['nv24; jpeg compressed bgr8', '; jpeg compressed bgr8'])
def test_a_jpeg_is_of_a_camera_whatever_it_was_made_from(name, tmp_path):
    topic = '/cam/image_raw/compressed'
    source = write_bag(tmp_path / 'in', [
        (topic, COMPRESSED, START, compressed(1, START, format=name))])
    assert [camera.source for camera in plan_bag(source, tmp_path / 'out').cameras] == [topic]


@pytest.mark.parametrize('encoding, told', [('bgr', True), ('16UC1', False)])
def test_an_encoding_that_nobody_knows_is_answered_with_those_known(encoding, told, tmp_path):
    source = write_bag(tmp_path / 'in', [
        ('/cam/image_raw', IMAGE, START, image(1, START, encoding=encoding))])
    with pytest.raises(BagError) as error:
        plan_bag(source, tmp_path / 'out')
    assert f"encoding '{encoding}' is not of a camera picture" in str(error.value)
    assert (', bgr8, ' in str(error.value)) == told == (
        'set the camera driver to one of these' in str(error.value))
