"""A running node among publishers that send anything: serialized bytes, right only sometimes.

What of it is served is not asserted, as some damage cannot be seen; only that the node stays
as it was: alive, no larger, its counts complete, its log readable, the next good frame served.
"""

import signal
import time
from itertools import count, islice
from pathlib import Path

import pytest
from hostile_bytes import JPEG, calibration, hostile
from ros_fixtures import (
    HEIGHT,
    WIDTH,
    NodeProcess,
    Peer,
    image,
    new_domain,
    output,
    process_ended,
    wait_for,
)
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

PARAMETERS = {
    'cameras': ['front', 'rear'],
    'rear': {'image_topic': '/rear/image_raw/compressed'},
    'rain_gate': False,  # the network is to run for every frame that can be read
    'watchdog_ms': 20_000.0,  # a busy machine is no fault
}
INPUTS = {Image: '/front/image_raw', CompressedImage: '/rear/image_raw/compressed',
          CameraInfo: '/front/camera_info'}
MESSAGES_PER_SECOND = 400
WARM_UP_MESSAGES = 100
MOST_GROWTH_MIB = 30
LOG_SECONDS = 5.0
"""An error of one kind on one camera is to be logged at most this often."""


class Attack:
    """A node with two cameras, and hostile publishers on its three inputs."""

    def __init__(self, node: NodeProcess, peer: Peer):
        self.node = node
        self.peer = peer
        self._frames = count(1_000_000)
        self._publishers = {kind: peer.publisher(kind, topic) for kind, topic in INPUTS.items()}
        # Good ones come from publishers of their own, as from a camera beside the attacker.
        self._cameras = {kind: peer.publisher(kind, topic) for kind, topic in INPUTS.items()}
        peer.matched(*self._publishers.values(), *self._cameras.values())
        for camera in ('front', 'rear'):
            for name in ('image', 'rain_mask'):
                peer.listen(Image, output(camera, name))
        peer.listen(CameraInfo, output('front', 'camera_info'))

    def run(self, message_type, number, seed):
        """Send hostile messages, and a good frame now and then."""
        start = time.monotonic()
        for sent, message in enumerate(islice(hostile(message_type, seed), number), 1):
            self._publishers[message_type].publish(message)
            if sent % 100 == 0:
                self._cameras[Image].publish(image(next(self._frames)))
            for messages in self.peer.received.values():
                messages.clear()
            time.sleep(max(0, start + sent / MESSAGES_PER_SECOND - time.monotonic()))

    def check_good_frames(self):
        """Send good messages until each output has one, and look at those."""
        number = next(self._frames)
        wanted = {camera: image(number, frame_id=f'{camera}_lens') for camera in ('front', 'rear')}
        packed = CompressedImage(header=wanted['rear'].header, format='jpeg', data=JPEG)
        received = {topic: [] for topic in self.peer.received if 'derained' in topic}
        infos = received[output('front', 'camera_info')]
        masks = [received[output(camera, 'rain_mask')] for camera in wanted]

        def answered():
            self._cameras[CameraInfo].publish(calibration())
            self._cameras[Image].publish(wanted['front'])
            self._cameras[CompressedImage].publish(packed)
            time.sleep(0.1)
            for topic, found in received.items():
                found.extend(message for message in tuple(self.peer.received[topic])
                             if message.header == wanted[topic.split('/')[1]].header)
            # Empty masks would be those of frames that the engine was not ready for.
            return (all(received.values()) and infos[-1].distortion_model == 'plumb_bob'
                    and all(any(messages[-1].data) for messages in masks))

        wait_for(answered, 'good frame of each camera')
        for topic, found in received.items():
            assert (found[-1].width, found[-1].height) == (WIDTH, HEIGHT), topic
        assert list(infos[-1].d) == [.1, .2, 0., 0., 0.]

    def settled_counts(self):
        """Return the counts of the cameras once no frame is in work."""
        def settled():
            found = {camera: self.peer.counts(camera) for camera in ('front', 'rear')}
            return all(values['received'] == sum(values.values()) - values['received']
                       for values in found.values()) and found
        return wait_for(settled, 'counts that add up')

    def memory(self):
        """Return the resident memory of the node in MiB."""
        status = Path(f'/proc/{self.node.process.pid}/status').read_text()
        return int(status.partition('VmRSS:')[2].split()[0]) / 1024


def attack(directory, number):
    """Send hostile messages of each type to a node and check that it stays as it was."""
    domain = new_domain()
    with NodeProcess(directory, domain, PARAMETERS) as node, Peer(domain) as peer:
        peer.wait_for_state('active', node)
        attacked = Attack(node, peer)
        attacked.check_good_frames()
        for seed, message_type in enumerate(INPUTS):
            attacked.run(message_type, WARM_UP_MESSAGES, seed)
        attacked.check_good_frames()
        memory, log, before = attacked.memory(), node.log(), attacked.settled_counts()

        start = time.monotonic()
        for seed, message_type in enumerate(INPUTS, 100):
            attacked.run(message_type, number, seed)
            assert node.process.poll() is None, node.log()[-5000:]
        # No message makes the engine look as if it had failed.
        assert peer.values('engine').get('failures', '0') == '0', node.log()[-5000:]
        attacked.check_good_frames()
        seconds = time.monotonic() - start

        after = attacked.settled_counts()
        for camera in ('front', 'rear'):
            # What the transport loses on a busy machine never reaches the node, and what is
            # dropped there for a newer one is never read.
            assert after[camera]['received'] >= before[camera]['received'] + number / 10, after
            assert after[camera]['failed'] > before[camera]['failed'], after
        assert attacked.memory() - memory < MOST_GROWTH_MIB
        check_log(node.log()[len(log):], seconds)
        status, _ = process_ended(node.process, signal.SIGTERM)
        assert status == 0, node.log()[-5000:]


def check_log(text, seconds):
    """Check that a node's log is of a length that somebody reads.

    Lines that libjpeg and libpng write about damage on their own are left out.
    """
    assert 'Traceback' not in text, text[text.index('Traceback'):][:5000]
    # A line of the middleware's about each message that is given to rclpy and is none.
    assert text.count('exceeds remaining buffer') < 20
    lines = [line for line in text.splitlines() if line.startswith('[')]
    # Each camera has a few kinds of errors.
    assert len(lines) < 30 + 10 * seconds / LOG_SECONDS, '\n'.join(lines[-40:])
    assert max(map(len, lines), default=0) < 2000


@pytest.mark.parametrize('number', [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_hostile_messages_of_each_type(tmp_path, number):
    attack(tmp_path, number)
