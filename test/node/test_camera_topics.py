"""Subscriptions that follow their publishers, and QoS that does not fit, over real DDS.

Our node and the other one are participants of their own. What the node logs is read from /rosout.
"""

import itertools
import subprocess
import sys

import pytest
from rcl_interfaces.msg import Log
from rclpy.context import Context
from rclpy.duration import Duration
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import (
    QoSCompatibility,
    QoSDurabilityPolicy,
    QoSLivelinessPolicy,
    QoSProfile,
    QoSReliabilityPolicy,
    qos_check_compatible,
)
from rclpy.serialization import deserialize_message
from ros_fixtures import image, localhost, new_domain, ros_environment, wait_for
from sensor_msgs.msg import CompressedImage, Image

from derain_ros.node.camera_topics import InputTopic, Notice, OutputTopics, misfits
from derain_ros.node.parameters import NODE_RULES, ParameterError, default_of, read_live_settings

TOPIC = '/front/image_raw'
OUTPUT = '/front/derained/image'
LIVE = read_live_settings({name: default_of(name) for name in NODE_RULES})
INFO, WARN = 20, 30
try:
    from rclpy.experimental.events_executor import EventsExecutor
except ImportError:  # Humble
    EventsExecutor = SingleThreadedExecutor
LATE = """
import sys, rclpy
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node('late', namespace='/far')
node.create_publisher(
    Image, sys.argv[1], QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT))
node.create_subscription(
    Image, sys.argv[2], id, QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL))
rclpy.spin(node)
"""


def qos(*, reliable=True, **policies):
    return QoSProfile(
        depth=5, **policies, reliability=(
            QoSReliabilityPolicy.RELIABLE if reliable else QoSReliabilityPolicy.BEST_EFFORT))


class Both:
    """Our node ``/derain`` and a node ``/far/driver``, spun in turn by the thread of the test."""

    def __init__(self, monkeypatch, executor):
        for name, value in localhost().items():
            monkeypatch.setenv(name, value)
        self.domain = new_domain()
        self._nodes, self._executors = [], []
        self.ours = self.add('derain', '/', executor)
        self.other = self.add('driver', '/far')
        self.received = []
        self._log = []
        self.other.create_subscription(Log, '/rosout', self._log.append, 100)
        # So that a warning which the node gives is sure to be heard.
        self.wait_for(lambda: self.ours.count_subscribers('/rosout'), 'listener to the log')

    def add(self, name, namespace, executor=SingleThreadedExecutor):
        """Add a node that is a participant of its own."""
        context = Context()
        context.init(domain_id=self.domain)
        node = Node(name, namespace=namespace, context=context)
        self._executors.append(executor(context=context))
        self._executors[-1].add_node(node)
        self._nodes.append(node)
        return node

    def close(self):
        for executor, node in zip(self._executors, self._nodes, strict=True):
            executor.shutdown()
            node.destroy_node()
            node.context.try_shutdown()

    def spin(self):
        for executor in self._executors:
            executor.spin_once(timeout_sec=0.01)

    def wait_for(self, condition, what):
        def spun():
            self.spin()
            return condition()
        return wait_for(spun, what)

    def subscribe(self, reliability, *candidates):
        def on_message(message, message_type):
            assert isinstance(message, bytes)
            self.received.append(deserialize_message(message, message_type))

        topic = InputTopic(self.ours, candidates or [(TOPIC, Image)], on_message, reliability)
        self.ours.create_timer(0.02, topic.follow_publishers)
        return topic

    def offer(self, reliability='reliable'):
        """Publish an output, whose problems are logged."""
        outputs = OutputTopics(self.ours, {'image': OUTPUT}, reliability)
        notice = Notice(self.ours, '', '')
        self.ours.create_timer(0.02, lambda: notice.look(outputs.problem(LIVE)))
        return outputs

    def log(self, level):
        """Return what our node has logged so far, as far as it has come through."""
        return [log.msg for log in self._log if log.name == 'derain' and log.level == level]

    def warnings(self):
        """Return every warning of our node so far."""
        end = f'{len(self._log)} lines'
        self.ours.get_logger().info(end)
        self.wait_for(lambda: end in self.log(INFO), 'end of the log')
        return self.log(WARN)

    def arrives(self, publisher, seconds=77):
        """Publish until a frame arrives."""
        self.received.clear()

        def step():
            publisher.publish(image(seconds))
            return self.received

        self.wait_for(step, 'frame')
        return self.received[0]


@pytest.fixture(params=[EventsExecutor, pytest.param(
    SingleThreadedExecutor, marks=pytest.mark.slow)], ids=['events', 'single'])
def both(request, monkeypatch):
    both = Both(monkeypatch, request.param)
    yield both
    both.close()


def test_misfits_agree_with_the_check_of_the_middleware():
    profiles = [
        qos(reliable=reliable, durability=durability, liveliness=liveliness,
            deadline=Duration(nanoseconds=deadline),
            liveliness_lease_duration=Duration(nanoseconds=lease))
        for reliable, durability, liveliness, deadline, lease in itertools.product(
            (True, False),
            (QoSDurabilityPolicy.VOLATILE, QoSDurabilityPolicy.TRANSIENT_LOCAL),
            (QoSLivelinessPolicy.AUTOMATIC, QoSLivelinessPolicy.MANUAL_BY_TOPIC),
            (0, 10**8, 10**9), (0, 10**9))]
    verdicts = set()
    for offered, requested in itertools.product(profiles, profiles):
        verdict, reason = qos_check_compatible(offered, requested)
        found = misfits(offered, requested)
        assert bool(found) == (verdict == QoSCompatibility.ERROR), (reason, found)
        verdicts.add(verdict)
    assert verdicts == {QoSCompatibility.OK, QoSCompatibility.ERROR}
    assert misfits(
        qos(reliable=False), qos(deadline=Duration(seconds=0.5))) == {
            'reliability': ('best_effort', 'reliable'), 'deadline': ('no limit', '0.5 s')}


def test_a_publisher_that_is_not_heard_is_told_of_once_until_it_is_gone(both):
    publisher = both.other.create_publisher(Image, TOPIC, qos(reliable=False))
    topic = both.subscribe('reliable')
    both.wait_for(lambda: '/far/driver' in topic.qos_problem(), 'problem with the name')
    problem = topic.qos_problem()
    assert problem == (
        '/front/image_raw: /far/driver is not received, as it offers reliability best_effort '
        'where reliable is requested; set input_reliability to auto, or let it publish reliable')
    assert topic.silence(3.0, ever=False) == problem
    both.wait_for(lambda: both.log(WARN), 'warning')
    fitting = both.other.create_publisher(Image, TOPIC, qos())
    assert both.arrives(fitting).header.stamp.sec == 77
    assert topic.qos_problem() == problem
    assert both.warnings() == [problem]
    both.other.destroy_publisher(publisher)
    both.wait_for(lambda: any('fits again' in line for line in both.log(INFO)), 'relief')
    assert topic.qos_problem() == ''
    # It comes back, and is told of again; then the subscription goes.
    both.other.create_publisher(Image, TOPIC, qos(reliable=False))
    both.wait_for(lambda: both.log(WARN) == [problem, problem], 'second warning')
    topic.close()
    assert topic.qos_problem() == ''


def test_what_auto_puts_right_a_moment_later_is_no_warning(both):
    topic = both.subscribe('auto')
    assert topic.reliability == 'reliable'
    problems = set()
    publisher = both.other.create_publisher(Image, TOPIC, qos(reliable=False))

    def followed():
        problems.add(topic.qos_problem())
        return topic.reliability == 'best_effort'

    both.wait_for(followed, 'change to best effort')
    assert both.arrives(publisher).header.stamp.sec == 77
    both.other.destroy_publisher(publisher)
    reliable = both.other.create_publisher(Image, TOPIC, qos())
    both.wait_for(lambda: topic.reliability == 'reliable', 'change to reliable')
    assert both.arrives(reliable).header.stamp.sec == 77
    assert problems == {''}
    assert topic.qos_problem() == ''
    assert both.warnings() == []


def test_what_is_published_once_comes_to_who_subscribes_later(both):
    once = both.other.create_publisher(
        Image, TOPIC, qos(durability=QoSDurabilityPolicy.TRANSIENT_LOCAL))
    once.publish(image(5))
    topic = both.subscribe('auto')
    both.wait_for(lambda: both.received, 'image')
    assert both.received[0].header.stamp.sec == 5
    # Beside one that keeps nothing for late subscribers, nothing can be asked for.
    volatile = both.other.create_publisher(Image, TOPIC, qos())
    assert both.arrives(volatile).header.stamp.sec == 77
    assert topic.qos_problem() == ''
    assert both.warnings() == []


def test_silence_says_what_is_wrong_and_what_to_do(both):
    topic = both.subscribe('auto')

    def silence(ever=False):
        return topic.silence(3.0, ever=ever)

    assert f'no publisher on {TOPIC}' in silence()
    other = both.other.create_publisher(CompressedImage, TOPIC, qos(reliable=False))
    both.wait_for(lambda: 'CompressedImage' in silence(), 'reason')
    assert topic.type_problem() == silence()
    assert topic.qos_problem() == ''  # its QoS is not what keeps it from being heard
    both.other.destroy_publisher(other)
    twin = both.add('derain', '/car2')
    near = twin.create_publisher(Image, '/front/image_rau', qos())
    both.wait_for(lambda: [found.node_name for found in both.ours.get_publishers_info_by_topic(
        '/front/image_rau')] == ['derain'], 'topic')
    assert 'did you mean' not in silence()
    twin.destroy_publisher(near)
    near = both.other.create_publisher(Image, '/front/image_row', qos())
    both.wait_for(lambda: 'did you mean /front/image_row' in silence(), 'hint')
    both.other.destroy_publisher(near)
    near = both.other.create_publisher(CompressedImage, f'{TOPIC}/compressed', qos())
    both.wait_for(lambda: f'did you mean {TOPIC}/compressed, which' in silence(), 'hint')
    both.other.destroy_publisher(near)
    both.other.create_publisher(Image, TOPIC, qos())
    both.wait_for(lambda: '/far/driver publishes it' in silence(), 'reason')
    assert f'no message on {TOPIC} for 3 s' in silence() and '--ipc=host' in silence()
    assert silence(ever=True) == (
        f'the last message on {TOPIC} came 3.0 s ago, although /far/driver still publishes it; '
        'check the camera')


def test_the_type_that_is_published_is_subscribed_to(both):
    topic = both.subscribe('auto', (f'{TOPIC}/compressed', CompressedImage),
                           (TOPIC, CompressedImage), (TOPIC, Image))
    assert (topic.topic, topic.message_type) == (f'{TOPIC}/compressed', CompressedImage)
    raw = both.other.create_publisher(Image, TOPIC, qos(reliable=False))
    assert isinstance(both.arrives(raw), Image)
    # The one in use is kept while it has a publisher.
    both.other.create_publisher(CompressedImage, f'{TOPIC}/compressed', qos())
    for _ in range(40):
        both.spin()
    assert topic.message_type is Image and topic.reliability == 'best_effort'
    both.other.destroy_publisher(raw)
    both.wait_for(lambda: topic.topic == f'{TOPIC}/compressed', 'change of topic')
    both.wait_for(lambda: topic.reliability == 'reliable', 'subscription')
    assert topic.type_problem() == ''


def test_an_override_of_qos_that_cannot_be_used_is_named(both):
    node = Node('third', context=both.ours.context, parameter_overrides=[
        Parameter(f'qos_overrides.{OUTPUT}.publisher.depth', value=-3),
        Parameter(f'qos_overrides.{TOPIC}.subscription.reliability', value='sure')])
    with pytest.raises(ParameterError, match=f'qos_overrides.{OUTPUT}.publisher has depth -3'):
        OutputTopics(node, {'image': OUTPUT}, 'reliable')
    with pytest.raises(ParameterError, match="subscription has reliability 'sure', which cannot"):
        InputTopic(node, [(TOPIC, Image)], print, 'auto')
    node.destroy_node()


def test_a_node_that_has_just_come_is_called_by_its_name(both):
    both.offer()
    both.subscribe('reliable')
    # Of a process that starts, the endpoints are known before the name is.
    late = subprocess.Popen(
        [sys.executable, '-c', LATE, TOPIC, OUTPUT], env=ros_environment(both.domain))
    try:
        both.wait_for(lambda: len(both.log(WARN)) == 2, 'both reports')
    finally:
        late.kill()
        late.wait()
    assert {line.partition(': ')[2].partition(',')[0] for line in both.log(WARN)} == {
        '/far/late receives nothing', '/far/late is not received'}


@pytest.mark.parametrize(('offered', 'requested', 'policy', 'remedy'), [
    ({'reliability': 'best_effort'}, {}, 'reliability reliable where best_effort is offered',
     'set output_reliability to reliable'),
    ({}, {'durability': QoSDurabilityPolicy.TRANSIENT_LOCAL},
     'durability transient_local where volatile is offered', 'let it ask for durability volatile'),
])
def test_a_subscriber_that_an_output_cannot_serve_is_told_of(
    both, offered, requested, policy, remedy
):
    outputs = both.offer(offered.get('reliability', 'reliable'))
    fitting = both.other.create_subscription(
        Image, OUTPUT, both.received.append, qos(reliable=False))

    class Publisher:
        @staticmethod
        def publish(message):
            outputs.publish('image', message)

    both.arrives(Publisher)
    assert outputs.wanted(LIVE) == {'image'}
    assert outputs.problem(LIVE) == ''
    strict = both.other.create_subscription(Image, OUTPUT, id, qos(**requested))
    both.wait_for(lambda: both.log(WARN), 'report')
    told, = both.log(WARN)
    assert told.startswith(
        f'{OUTPUT}: /far/driver receives nothing, as it requests {policy}; {remedy}')
    assert outputs.problem(LIVE) == told
    both.arrives(Publisher)  # the other goes on
    both.other.destroy_subscription(strict)
    both.wait_for(lambda: not outputs.problem(LIVE), 'end of the problem')
    both.other.destroy_subscription(fitting)
    assert both.warnings() == [told]  # rclpy gives none of its own


def test_a_subscriber_to_another_type_is_told_of(both):
    both.offer()
    both.other.create_subscription(CompressedImage, OUTPUT, id, qos())
    both.wait_for(lambda: both.log(WARN), 'report')
    assert both.log(WARN) == [
        f'{OUTPUT}: /far/driver gets nothing, as it asks for sensor_msgs/msg/CompressedImage '
        'where sensor_msgs/msg/Image is published; let it ask for that']
