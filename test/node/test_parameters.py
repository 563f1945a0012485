"""Rules of the parameters, without a node: what a set of values means, and what is refused."""

import pytest

from derain_ros.node.parameters import (
    CAMERA_RULES,
    NODE_RULES,
    ParameterError,
    camera_names,
    camera_parameters,
    default_of,
    describe,
    find_problems,
    read_live_settings,
    read_settings,
    rule_of,
)


def resolve(topic, only_expand=False):
    """Expand relative names under /robot, and remap two topics."""
    topic = topic if topic.startswith('/') else f'/robot/{topic}'
    remapped = {'/usb/image_raw': '/usb_0/picture', '/tuned/camera_info': '/calibration/info'}
    return topic if only_expand else remapped.get(topic, topic)


def values(cameras='camera', **changes):
    """Return the defaults with changes; ``front__transport`` is ``front.transport``."""
    found = {name: default_of(name) for name in NODE_RULES} | {'cameras': cameras}
    for camera in camera_names(cameras):
        found |= {name: default_of(name) for name in camera_parameters(camera)}
    return found | {name.replace('__', '.'): value for name, value in changes.items()}


def only_camera(**changes):
    camera, = read_settings(values(**changes), resolve).topics
    return camera


def test_the_defaults_have_no_problems():
    assert find_problems(values(), resolve) == []
    camera = only_camera()
    assert camera.inputs == (('/robot/camera/image_raw', False), ('/robot/camera/image_raw', True))
    assert camera.camera_info_topic == '/robot/camera/camera_info'
    assert camera.outputs == {
        output: f'/robot/camera/derained/{output}' for output in (
            'image', 'rain_mask', 'camera_info', 'overlay', 'image/compressed', 'status',
            'rain_intensity')}


@pytest.mark.parametrize(('topic', 'transport', 'inputs'), [
    ('/cam/image_raw', 'auto', [('/cam/image_raw', False), ('/cam/image_raw', True)]),
    ('/cam/image_raw', 'raw', [('/cam/image_raw', False)]),
    ('/cam/image_raw', 'compressed',
     [('/cam/image_raw/compressed', True), ('/cam/image_raw', True)]),
    ('/cam/image_raw/compressed', 'auto',
     [('/cam/image_raw/compressed', True), ('/cam/image_raw/compressed', False)]),
    ('/cam/image_raw/compressed', 'compressed', [('/cam/image_raw/compressed', True)]),
    ('/usb/image_raw', 'auto', [('/usb_0/picture', False), ('/usb_0/picture', True)]),
    ('/usb/image_raw', 'compressed',
     [('/usb_0/picture/compressed', True), ('/usb_0/picture', True)]),
    ('lens/image', 'raw', [('/robot/lens/image', False)]),
])
def test_topics_that_images_may_come_from(topic, transport, inputs):
    camera = only_camera(camera__image_topic=topic, camera__transport=transport)
    assert camera.inputs == tuple(inputs)
    assert camera.image_topic == inputs[0][0]


@pytest.mark.parametrize(('image_topic', 'info_topic', 'subscribed'), [
    ('/cam/image_raw', '', '/cam/camera_info'),
    ('/cam/image_raw/compressed', '', '/cam/camera_info'),
    ('/usb/image_raw', '', '/usb_0/camera_info'),
    ('/tuned/image_raw', '', '/calibration/info'),
    ('image', '', '/robot/camera_info'),
    ('/image', '', '/camera_info'),
    ('/cam/image_raw', '/elsewhere/info', '/elsewhere/info'),
])
def test_camera_info_is_the_sibling_of_the_image(image_topic, info_topic, subscribed):
    camera = only_camera(
        camera__image_topic=image_topic, camera__camera_info_topic=info_topic)
    assert camera.camera_info_topic == subscribed
    assert camera.camera_info_named == (bool(info_topic) or subscribed == '/calibration/info')


@pytest.mark.parametrize(('remaps', 'image', 'compressed', 'info'), [
    ({}, '/out/image', '/out/image/compressed', '/out/camera_info'),
    ({'/out/image': '/seen/clear'}, '/seen/clear', '/seen/clear/compressed', '/seen/camera_info'),
    ({'/out/image': '/seen/clear', '/out/camera_info': '/my/info'},
     '/seen/clear', '/seen/clear/compressed', '/my/info'),
    ({'/out/image/compressed': '/jpeg'}, '/out/image', '/jpeg', '/out/camera_info'),
])
def test_companions_of_an_output_follow_its_remap(remaps, image, compressed, info):
    def remap(topic, only_expand=False):
        return topic if only_expand else remaps.get(topic, topic)

    camera, = read_settings(values(camera__output_namespace='/out'), remap).topics
    assert camera.outputs == {
        'image': image, 'image/compressed': compressed, 'camera_info': info,
        'rain_mask': '/out/rain_mask', 'overlay': '/out/overlay', 'status': '/out/status',
        'rain_intensity': '/out/rain_intensity'}


@pytest.mark.parametrize('given', ['front', ['front'], ('front',)])
def test_one_camera_needs_no_list(given):
    assert [camera.name for camera in read_settings(values(given), resolve).topics] == ['front']


def test_three_sizes_may_be_as_large_as_you_like_and_more_if_they_fit():
    for sizes in ('8000x6000 8000x6001 8000x6002 8000x6000',
                  '4000x1200 4000x1201 4000x1202 4000x1203 640x480'):
        assert find_problems(values(warm_up_sizes=sizes), resolve) == []


def test_integers_are_numbers():
    assert read_settings(values(device=1), resolve).device == '1'
    live = read_live_settings(values(strength=1))
    assert live.strength == 1.0
    assert isinstance(live.strength, float)
    assert find_problems(values(strength=0), resolve) == []


@pytest.mark.parametrize(('changes', 'parts'), [
    ({'strength': 1.6}, ['strength is 1.6', '0.0 to 1.5']),
    ({'strength': float('nan')}, ['strength is nan']),
    ({'strength': '0.5'}, ["strength is '0.5'"]),
    ({'enabled': 1}, ['enabled is 1', 'true or false']),
    ({'model': ''}, ["model is ''", 'nano']),
    ({'model': 5}, ['model is 5', 'string']),
    ({'output_encoding': 'rgb'}, ["output_encoding is 'rgb'", 'same, bgr8, rgb8']),
    ({'input_reliability': 'RELIABLE'}, ['input_reliability', 'auto, reliable, best_effort']),
    ({'output_reliability': 'auto'}, ['output_reliability', 'reliable, best_effort']),
    ({'on_fault': 'stop'}, ["on_fault is 'stop'", 'pass_through, drop']),
    ({'max_age_ms': -1}, ['max_age_ms is -1', '0.0 to 60000.0']),
    ({'jpeg_quality': 0}, ['jpeg_quality is 0', 'integer from 1 to 100']),
    ({'jpeg_quality': True}, ['jpeg_quality is True']),
    ({'rain_gate_dry_below': 0.5},
     ['rain_gate_dry_below is 0.5', 'to raise both, set rain_gate_wet_above first']),
    ({'rain_gate_dry_below': 0}, ['rain_gate_dry_below is 0', 'more than 0']),
    ({'warm_up_sizes': '1280*720'}, ["warm_up_sizes has '1280*720'", 'expected sizes such as']),
    ({'warm_up_sizes': '999999x480'}, ['expected sizes such as']),
    ({'warm_up_sizes': '٣٢x480'}, ['expected sizes such as']),
    ({'warm_up_sizes': '640x31'}, ['at least 32 pixels']),
    # The first would be forgotten before the last is ready, and the node would wait for ever.
    ({'warm_up_sizes': ' '.join(f'{side}x32' for side in range(32, 45))},
     ['13 sizes', 'keeps ready: 12']),
    ({'warm_up_sizes': '4000x1200 4000x1201 4000x1202 4000x1203 4000x1204'},
     ['5 sizes', '23 million pixels', 'more than 3']),
    ({'engine_cache': '~no-such-user/x'}, ["engine_cache is '~no-such-user/x'", 'full path']),
    ({'warm_up_sizes': 640}, ['warm_up_sizes is 640', 'in quotes']),
    ({'build_only': True, 'warm_up_sizes': ' '}, ['build_only needs warm_up_sizes']),
    ({'camera__sync_group': 3}, ['camera.sync_group is 3', 'string']),
    ({'cameras': []}, ['cameras is empty', 'at least one']),
    ({'cameras': ''}, ["cameras has ''"]),
    ({'cameras': [1, 2]}, ['cameras is [1, 2]', 'names']),
    ({'cameras': ['front', 'front']}, ["'front' more than once"]),
    ({'cameras': ['front camera']}, ["'front camera'", 'letters, digits']),
    ({'cameras': ['a__b']}, ["'a__b'"]),
    ({'cameras': ['strength']}, ["'strength'", 'name of a parameter']),
    ({'camera__transport': 'theora'}, ["camera.transport is 'theora'", 'raw, compressed']),
    ({'camera__image_topic': ''}, ['camera.image_topic is empty', 'camera/image_raw']),
    ({'camera__image_topic': '/a b'}, ["camera.image_topic is '/a b'", 'not a topic name']),
    ({'camera__image_topic': '{x}/b'}, ["camera.image_topic is '{x}/b'", 'not a topic name']),
    ({'camera__camera_info_topic': '7'}, ["camera.camera_info_topic is '7'", 'not a topic name']),
    ({'camera__output_namespace': ''}, ['camera.output_namespace is empty']),
    ({'camera__image_topic': '/a/compressed', 'camera__transport': 'raw'},
     ['camera.transport is raw', 'camera.image_topic', 'compressed']),
    ({'camera__image_topic': 'camera/derained/image'},
     ['output /robot/camera/derained/image', 'the image topic', 'change camera.output_namespace']),
    ({'camera__output_namespace': 'camera'},
     ['output /robot/camera/camera_info', 'camera_info topic']),
    ({'camera__output_namespace': '~'},
     ['output /robot/~/rain_intensity', "the node's own", 'change camera.output_namespace']),
    ({'camera__camera_info_topic': 'camera/image_raw'},
     ['/robot/camera/image_raw is the camera_info topic', 'change camera.camera_info_topic']),
    ({'cameras': ['front', 'rear'], 'rear__image_topic': 'front/camera_info',
      'rear__camera_info_topic': '/info'},
     ["the camera_info topic of camera 'front'", "image topic of camera 'rear'", 'rear.image']),
    ({'cameras': ['front', 'rear'], 'rear__output_namespace': 'front/derained'},
     ["of camera 'rear'", "an output of camera 'front'", 'change rear.output_namespace']),
    ({'cameras': ['front', 'rear'], 'rear__image_topic': 'front/derained/rain_mask'},
     ['output /robot/front/derained/rain_mask', "the image topic of camera 'rear'"]),
])
def test_a_bad_value_is_named_with_the_remedy(changes, parts):
    given = values(**({'cameras': 'camera'} | changes))
    problems = find_problems(given, resolve)
    assert len(problems) == 1, problems
    for part in parts:
        assert part in problems[0]
    with pytest.raises(ParameterError) as refusal:
        read_settings(given, resolve)
    assert problems[0] in str(refusal.value)


def test_every_problem_is_named_at_once():
    problems = find_problems(
        values(strength=3, output_encoding='x', camera__image_topic='/a b'), resolve)
    assert [problem.split()[0] for problem in problems] == [
        'output_encoding', 'strength', 'camera.image_topic']


def test_cameras_may_share_a_namespace_head_and_a_camera_info():
    given = values(['left', 'right'], left__camera_info_topic='/rig/camera_info',
                   right__camera_info_topic='/rig/camera_info')
    assert find_problems(given, resolve) == []


def test_trailing_slash_of_a_namespace_does_not_matter():
    assert only_camera(camera__output_namespace='/out/').outputs['image'] == '/out/image'


@pytest.mark.parametrize('name', [*NODE_RULES, *(f'front.{key}' for key in CAMERA_RULES)])
def test_descriptors_say_what_a_parameter_is(name):
    rule = rule_of(name)
    descriptor = describe(rule)
    assert descriptor.description
    assert descriptor.read_only == (name in ('autostart', 'build_only', 'device'))
    assert descriptor.dynamic_typing == (
        name in ('cameras', 'device', 'front.bit_depth') or isinstance(rule.default, float))
    assert all(choice in descriptor.additional_constraints for choice in rule.choices)
    at_configure = 'when the node configures' in descriptor.additional_constraints
    assert at_configure == (not rule.live and not rule.read_only)
    ranges = [(limits.from_value, limits.to_value)
              for limits in [*descriptor.floating_point_range, *descriptor.integer_range]]
    numeric = type(rule.default) in (int, float)
    assert ranges == ([rule.limits] if numeric else [])


def test_what_acts_at_once():
    assert {name for name, rule in NODE_RULES.items() if rule.live} == {
        'strength', 'enabled', 'publish_mask', 'publish_overlay', 'publish_compressed',
        'jpeg_quality', 'rain_gate', 'rain_gate_wet_above', 'rain_gate_dry_below',
        'rain_gate_dry_after', 'on_fault', 'max_age_ms', 'watchdog_ms'}


def test_sizes_are_read_as_width_by_height():
    def shapes(value):
        return read_settings(values(warm_up_sizes=value), resolve).warm_up_shapes

    assert shapes(' 1280x720  640x480 1280x720 ') == [(1, 720, 1280, 3), (1, 480, 640, 3)]
    assert shapes('') == []


@pytest.mark.parametrize('name', ['strenght', 'front.image', 'a__b.transport', '', 'use_sim_time'])
def test_other_names_have_no_rule(name):
    assert rule_of(name) is None
